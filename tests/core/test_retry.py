"""A call is sent again, or elsewhere, only before the first byte, and only where the provider did not do it."""

from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.breaker import LONGEST_COOLDOWN
from proxy.core.retry import (
    COOLDOWN,
    FIRST_PAUSE,
    LEAST_REPEATS,
    LONGEST_PAUSE,
    LONGEST_WAIT,
    Another,
    Attempt,
    Baseline,
    Budget,
    Final,
    Repeat,
    Step,
    cooldown,
    next_step,
    pause_before_retry,
    retry_after,
    verdict_of_status,
)
from proxy.errors import (
    PenstockError,
    UpstreamAuthError,
    UpstreamBadContentType,
    UpstreamConnectError,
    UpstreamError,
    UpstreamFailed,
    UpstreamReset,
    UpstreamStall,
    UpstreamTimeout,
    UpstreamTLSError,
    UpstreamTooLarge,
    UpstreamTruncated,
)

NOW = 1_700_000_000.0
GARBAGE = [
    "",
    " ",
    "soon",
    "nan",
    "-nan",
    "1,5",
    "1h",
    "0x10",
    "2023-11-14",
    "Tue, 99 Nov 2023 22:13:25 GMT",
    "\x00",
    "é",
]


def pause(status: int, attempt: int = 0, *, luck: float = 0.5, **headers: str) -> float | None:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return pause_before_retry(status, told, attempt=attempt, now=NOW, luck=luck)


def date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(NOW + seconds, UTC), usegmt=True)


@pytest.mark.parametrize("status", [408, 409, 500, 502, 503, 504, 529])
def test_a_provider_that_could_not_is_asked_again(status: int) -> None:
    assert pause(status) == FIRST_PAUSE / 2


@pytest.mark.parametrize("status", [200, 204, 302, 400, 401, 403, 404, 413, 422])
def test_an_answer_and_a_refusal_are_passed_on(status: int) -> None:
    assert pause(status) is None
    assert pause(status, retry_after="0") is None


def test_too_many_requests_are_not_repeated_unless_the_provider_says_when() -> None:
    assert pause(429) is None
    assert pause(429, retry_after="2") == 2
    assert pause(429, retry_after="garbage") is None
    assert pause(429, retry_after="60") is None


def test_the_providers_own_word_on_retries_counts() -> None:
    assert pause(500, x_should_retry="false") is None
    assert pause(429, retry_after="1", x_should_retry="false") is None
    assert pause(400, x_should_retry="true") == FIRST_PAUSE / 2
    assert pause(400, x_should_retry="true", retry_after="1") == 1
    assert pause(500, x_should_retry="perhaps") == FIRST_PAUSE / 2


@pytest.mark.parametrize("status", [200, 201, 302])
def test_what_was_answered_is_never_asked_again_whatever_the_provider_says(status: int) -> None:
    assert pause(status, x_should_retry="true", retry_after="0") is None


def test_the_pause_grows_is_bounded_and_left_to_chance() -> None:
    assert [pause(500, attempt, luck=0.999) for attempt in (0, 1, 4, 5, 10)] == pytest.approx(
        [0.999 * each for each in (FIRST_PAUSE, 2 * FIRST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE)]
    )
    assert pause(500, luck=0.0) == 0.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": str(10**9)}, 1e9),
        ({"retry-after": "inf"}, float("inf")),
        ({"retry-after": date(5)}, 5.0),
        ({"retry-after": date(-5)}, 0.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "-1"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "nan", "retry-after": "9"}, 9.0),
        ({}, None),
    ],
)
def test_a_provider_says_when_in_seconds_milliseconds_or_as_a_date(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers, now=NOW) == seconds


@pytest.mark.parametrize(
    "garbage", [*GARBAGE, "Tue, 14 Nov 2023 22:13:25 +99999999999999", "Tue, 14 Nov 99999 22:13:25 GMT"]
)
def test_what_is_no_time_says_nothing(garbage: str) -> None:
    assert retry_after({"retry-after": garbage}, now=NOW) is None
    assert retry_after({"retry-after-ms": garbage}, now=NOW) is None
    assert pause(503, retry_after=garbage) == FIRST_PAUSE / 2


def test_a_date_counts_in_its_zone_and_in_gmt_where_it_names_none() -> None:
    later = datetime.fromtimestamp(NOW + 5, UTC)
    east = format_datetime(later.astimezone(timezone(timedelta(hours=9))))
    assert retry_after({"retry-after": east}, now=NOW) == 5
    for ending in ("", " -0000"):
        assert retry_after({"retry-after": date(5).removesuffix(" GMT") + ending}, now=NOW) == 5


def test_a_provider_that_wants_longer_than_we_wait_is_believed() -> None:
    assert pause(503, retry_after=str(LONGEST_WAIT)) == LONGEST_WAIT
    for longer in ("10.1", "3600", str(10**9), "inf", date(3600)):
        assert pause(503, retry_after=longer) is None
        assert pause(429, retry_after=longer) is None


texts = st.text(max_size=30) | st.lists(
    st.sampled_from(["Tue,", "14", "Nov", "2023", "22:13:25", "GMT", "+9999", "-0000", "9" * 20, ":", "99:99"]),
    max_size=6,
).map(" ".join)


@settings(deadline=None)
@given(st.integers(100, 599), texts, st.integers(0, 10), st.floats(0, 1, exclude_max=True))
def test_no_header_brings_an_exception_or_a_pause_out_of_bounds(
    status: int, text: str, attempt: int, luck: float
) -> None:
    for name in ("retry-after", "retry-after-ms", "x-should-retry"):
        found = pause_before_retry(status, {name: text}, attempt=attempt, now=NOW, luck=luck)
        assert found is None or 0 <= found <= LONGEST_WAIT


NOTHING_SENT = [UpstreamConnectError("refused"), UpstreamTLSError("expired")]
NO_ANSWER = [
    UpstreamFailed({"message": "overloaded", "code": 503}),
    UpstreamFailed({"message": "too long", "code": 400}),
    UpstreamBadContentType("HTML"),
    UpstreamAuthError("acme"),
]
LOST = [each("lost") for each in (UpstreamTimeout, UpstreamReset, UpstreamTruncated, UpstreamStall, UpstreamTooLarge)]

Told = dict[str, Any]

OWN_KEY: Told = {"ours": True}
CLIENTS_KEY: Told = {"ours": False}
LATER: Told = {"headers": {"retry-after": "2"}}
MUCH_LATER: Told = {"headers": {"retry-after": "60"}}
NOT_AGAIN: Told = {"headers": {"x-should-retry": "false"}}
AGAIN: Told = {"headers": {"x-should-retry": "true"}}
BY_ITSELF: Told = {"retries_itself": True}
SPENT: Told = {"repeats": 2}
ALONE: Told = {"others": False}
NO_BASELINE: Told = {"baseline_left": False}
ITSELF: Told = {"is_baseline": True}

SOON = Repeat(FIRST_PAUSE / 2)


def step(status: int | None = None, *told: Told, error: PenstockError | None = None) -> Step:
    """After one attempt by a model that is not the baseline, both others and the baseline being left."""
    usual: Told = {
        "repeats": 0,
        "max_retries": 2,
        "retries_itself": False,
        "others": True,
        "is_baseline": False,
        "baseline_left": True,
        "retry_lost": False,
        "ours": True,
    }
    for each in told:
        usual |= each
    return next_step(Attempt(status=status, error=error, **usual), now=NOW, luck=0.5)


@pytest.mark.parametrize("error", [*NOTHING_SENT, *NO_ANSWER], ids=repr)
def test_an_error_that_cannot_have_been_paid_goes_to_another_model_and_never_to_the_same(error: PenstockError) -> None:
    assert step(error=error) == step(None, BY_ITSELF, error=error) == Another()
    assert step(None, ALONE, error=error) == Final()


@pytest.mark.parametrize("error", LOST, ids=repr)
def test_a_call_that_may_have_been_paid_is_made_anew_only_where_the_route_says_so_and_elsewhere(
    error: PenstockError,
) -> None:
    assert step(error=error) == Final()
    assert step(None, {"retry_lost": True}, error=error) == Another()
    assert step(None, {"retry_lost": True}, ALONE, error=error) == Final()


def test_an_error_that_is_not_the_providers_is_the_last_word() -> None:
    assert step(None, {"retry_lost": True}, error=PenstockError("our own")) == Final()
    assert step(None, {"retry_lost": True}) == Final()


def test_an_error_of_a_kind_not_thought_of_may_have_been_paid() -> None:
    assert step(error=UpstreamError("new")) == Final()


@pytest.mark.parametrize("status", [200, 201, 204, 302])
def test_what_was_answered_is_passed_on(status: int) -> None:
    assert step(status) == step(status, AGAIN) == Final()


@pytest.mark.parametrize("status", [504, 524])
def test_what_a_gateway_gave_up_on_may_have_been_paid(status: int) -> None:
    assert step(status, BY_ITSELF) == Final()
    assert step(status, BY_ITSELF | {"retry_lost": True}) == Another()


def test_an_answer_that_nobody_can_read_is_paid_all_the_same() -> None:
    error = UpstreamBadContentType("gzip", answered=True)
    assert [step(error=error), step(None, {"retry_lost": True}, error=error)] == [Final(), Another()]


@pytest.mark.parametrize("told", [{}, BY_ITSELF, SPENT, LATER, MUCH_LATER, NOT_AGAIN, AGAIN, CLIENTS_KEY, NO_BASELINE])
@pytest.mark.parametrize("status", [401, 402, 403, 408, 409, 429, 500, 502, 503, 529])
def test_what_another_model_may_do_better_goes_there_at_once_for_every_client(status: int, told: Told) -> None:
    assert step(status, told) == Another()


@pytest.mark.parametrize(
    ("status", "told", "then"),
    [
        (500, {}, SOON),
        (503, {}, SOON),
        (503, {"repeats": 1}, Repeat(FIRST_PAUSE)),
        (503, LATER, Repeat(2.0)),
        (503, MUCH_LATER, Final()),
        (503, NOT_AGAIN, Final()),
        (503, SPENT, Final()),
        (503, {"max_retries": 0}, Final()),
        (503, BY_ITSELF, Final()),
        (408, {}, SOON),
        (409, {}, SOON),
        (409, BY_ITSELF, Final()),
        (429, {}, Final()),
        (429, LATER, Repeat(2.0)),
        (429, MUCH_LATER, Final()),
        (429, LATER | BY_ITSELF, Final()),
        (429, LATER | SPENT, Final()),
        (401, {}, Final()),
        (402, {}, Final()),
        (403, {}, Final()),
        (404, {}, Final()),
        (400, NO_BASELINE, Final()),
        (400, NO_BASELINE | AGAIN, SOON),
        (400, NO_BASELINE | AGAIN | BY_ITSELF, Final()),
    ],
)
def test_the_last_model_is_asked_again_only_for_clients_that_do_not_do_so_themselves(
    status: int, told: Told, then: Step
) -> None:
    assert step(status, told, ALONE) == then


@pytest.mark.parametrize("others", [True, False])
@pytest.mark.parametrize("status", [400, 405, 413, 415, 422, 431, 451])
def test_a_refusal_is_the_baselines_to_utter(status: int, others: bool) -> None:
    left = {"others": others}
    assert step(status, left) == step(status, left, BY_ITSELF) == step(status, left, NOT_AGAIN) == Baseline()
    assert step(status, left, NO_BASELINE) == step(status, left, ITSELF) == Final()


@pytest.mark.parametrize("status", [404, 410])
def test_a_model_that_is_not_there_is_the_operators_mistake_under_its_key_and_the_clients_under_its_own(
    status: int,
) -> None:
    assert step(status, OWN_KEY) == Another()
    assert step(status, OWN_KEY, ALONE) == Final()
    assert step(status, CLIENTS_KEY) == Baseline()
    assert step(status, CLIENTS_KEY, NO_BASELINE) == Final()


def test_with_one_model_alone_the_step_is_what_the_pause_says() -> None:
    for status in range(100, 600):
        for headers in ({}, {"retry-after": "1"}, {"x-should-retry": "true"}, {"x-should-retry": "false"}):
            paused = pause_before_retry(status, headers, attempt=1, now=NOW, luck=0.5)
            then = step(status, ALONE, NO_BASELINE, {"repeats": 1, "headers": headers})
            assert then == (Final() if paused is None else Repeat(paused))


@pytest.mark.parametrize(
    ("in_flight", "room"), [(0, 3), (1, 3), (15, 3), (19, 3), (20, 4), (100, 20), (104, 20), (1000, 200)]
)
def test_repeats_are_a_fifth_of_what_is_in_flight_and_at_least_three(in_flight: int, room: int) -> None:
    budget = Budget()
    assert [budget.take(in_flight) for _ in range(room + 2)] == [True] * room + [False] * 2
    assert budget.held == room


def test_a_repeat_that_ended_makes_room_for_the_next() -> None:
    budget = Budget()
    while budget.take(0):
        pass
    budget.give_back()
    assert [budget.take(0), budget.take(0), budget.held] == [True, False, LEAST_REPEATS]


def test_fewer_calls_in_flight_take_nothing_back_but_let_nothing_more_through() -> None:
    budget = Budget()
    for _ in range(10):
        assert budget.take(100)
    assert not budget.take(20)
    for _ in range(7):
        budget.give_back()
    assert budget.take(20)


@pytest.mark.parametrize(
    ("verdict", "statuses"),
    [
        ("good", [200, 204, 302, 400, 401, 402, 403, 404, 408, 409, 413, 422, 499]),
        ("cool", [429]),
        ("bad", [500, 502, 503, 504, 529, 599]),
    ],
)
def test_a_status_tells_how_well_the_provider_is(verdict: str, statuses: list[int]) -> None:
    assert {verdict_of_status(status) for status in statuses} == {verdict}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, COOLDOWN),
        ({"retry-after": "soon"}, COOLDOWN),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": date(7)}, 7.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": date(-5)}, 0.0),
        ({"retry-after": "60"}, 60.0),
        ({"retry-after": str(10**9)}, LONGEST_COOLDOWN),
        ({"retry-after": "inf"}, LONGEST_COOLDOWN),
    ],
)
def test_a_model_that_has_too_much_to_do_is_left_alone_for_as_long_as_it_asks_within_a_minute(
    headers: dict[str, str], seconds: float
) -> None:
    assert cooldown(headers, NOW) == seconds
