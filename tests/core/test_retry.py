"""A call is sent again only before the first byte, and only where the provider did not do it."""

from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.retry import FIRST_PAUSE, LONGEST_PAUSE, LONGEST_WAIT, pause_before_retry, retry_after

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
