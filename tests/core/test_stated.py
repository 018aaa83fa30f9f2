"""A provider is believed as far as it makes sense, and no longer than it says."""

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.stated import (
    ABSURD,
    LONGEST,
    Account,
    Accounts,
    Kind,
    Level,
    News,
    read_news,
    read_reset,
    write_duration,
)

NOW = 1000.0
WALL = 1_700_000_000.0
PLACE = ("acme", "model-1", "")


def openai(kind: str = "requests", **said: str) -> dict[str, str]:
    """`remaining`, `limit`, `reset` as OpenAI writes them."""
    return {f"x-ratelimit-{name}-{kind}": value for name, value in said.items()}


def anthropic(kind: str = "requests", **said: str) -> dict[str, str]:
    return {f"anthropic-ratelimit-{kind}-{name}": value for name, value in said.items()}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360.0),
        ("1s", 1.0),
        ("12ms", 0.012),
        ("1h2m3.5s", 3723.5),
        ("2m59.56s", 179.56),
        ("24h0m0s", 86400.0),
        ("1d2h", 93600.0),
        ("500us", 0.0005),
        ("59", 59.0),
        (" 0.25 ", 0.25),
        ("0s", 0.0),
        ("2023-11-14T22:13:30Z", 10.0),
        ("2023-11-14T23:13:30.5+01:00", 10.5),
        ("2023-11-14T22:13:30", 10.0),
        ("2023-11-14T22:13:00Z", -20.0),
    ],
)
def test_a_reset_is_read_in_every_form(text: str, seconds: float) -> None:
    assert read_reset(text, WALL) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "soon", "1x", "-1s", "-5", "nan", "inf", "1s2", "s", "ms", "1m 0s", "9" * 50, "1s" * 30, "0001-01-01"]
)
def test_what_is_no_reset_is_none(text: str) -> None:
    seconds = read_reset(text, WALL)
    assert seconds is None or seconds < 0


@given(st.text(max_size=50))
def test_any_text_is_read_without_harm(text: str) -> None:
    seconds = read_reset(text, WALL)
    assert seconds is None or not math.isnan(seconds)
    for kind in ("requests", "tokens"):
        read_news(openai(kind, remaining=text, limit=text, reset=text), kind, WALL)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, b"0s"),
        (0.0125, b"13ms"),
        (0.9991, b"1s"),
        (1.0, b"1s"),
        (7.66, b"7.66s"),
        (8.5, b"8.5s"),
        (59.9999, b"1m0s"),
        (60.0, b"1m0s"),
        (90.951, b"1m30.951s"),
        (360.0, b"6m0s"),
    ],
)
def test_a_duration_is_written_as_openai_does(seconds: float, text: bytes) -> None:
    assert write_duration(seconds) == text


@given(st.floats(0, 600))
def test_what_is_written_is_read_again_and_is_never_too_short(seconds: float) -> None:
    read = read_reset(write_duration(seconds).decode(), WALL)
    assert read is not None
    assert seconds - 1e-6 <= read <= seconds + 0.001 + 1e-6


@pytest.mark.parametrize("kind", ["requests", "tokens"])
def test_both_dialects_are_read_for_both_kinds(kind: Kind) -> None:
    at = datetime.fromtimestamp(WALL + 6, UTC).isoformat().replace("+00:00", "Z")
    assert read_news(openai(kind, remaining="40", limit="100", reset="6s"), kind, WALL) == News(40, 100, 6)
    assert read_news(anthropic(kind, remaining="40", limit="100", reset=at), kind, WALL) == News(40, 100, 6)
    assert read_news(openai(kind, remaining="40", reset="6s"), kind, WALL) == News(40, None, 6)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        openai("tokens", remaining="1", limit="2", reset="1s"),
        openai(limit="100", reset="1s"),
        openai(remaining="0"),
        openai(remaining="0", limit="100"),
        openai(remaining="0", limit="100", reset="0s"),
        openai(remaining="0", limit="100", reset="2000-01-01T00:00:00Z"),
        openai(remaining="0", limit="100", reset="whenever"),
        openai(remaining="0", limit="100", reset=str(ABSURD)),
        openai(remaining="-1", limit="-1", reset="1s"),
        openai(remaining="0", limit="0", reset="1s"),
        openai(remaining="0", limit="many", reset="1s"),
        openai(remaining="101", limit="100", reset="1s"),
        openai(remaining="nan", limit="100", reset="1s"),
        openai(remaining="few", limit="100", reset="1s"),
    ],
)
def test_what_is_not_said_or_makes_no_sense_is_no_news(headers: dict[str, str]) -> None:
    assert read_news(headers, "requests", WALL) is None


def level(remaining: float, limit: float | None, reset: float) -> Level:
    """Heard at NOW, in answer to the only call so far."""
    known = Level()
    known.sent = 1
    known.hear(News(remaining, limit, reset), NOW, 1, 1)
    return known


def test_where_a_limit_is_stated_it_refills_evenly() -> None:
    known = level(40, 100, 60)
    assert known.wait(40, NOW) == 0
    assert known.wait(50, NOW) == 10
    assert known.wait(50, NOW + 9.5) == 0.5
    assert known.wait(50, NOW + 10) == 0


def test_where_none_is_stated_it_refills_at_once() -> None:
    known = level(40, None, 60)
    assert known.wait(40, NOW) == 0
    assert known.wait(41, NOW + 45) == 15
    assert known.wait(10**9, NOW + 60) == 0


def test_what_was_sent_since_and_what_is_about_to_be_is_taken_off() -> None:
    known = level(10, None, 60)
    known.sent += 6
    assert (known.wait(4, NOW), known.wait(5, NOW)) == (0, 60)
    known.held += 4
    assert known.wait(1, NOW) == 60
    known.held -= 4
    assert known.wait(4, NOW) == 0


def test_what_was_sent_before_the_call_that_brought_the_news_is_in_it_already() -> None:
    known = Level()
    known.sent = 500
    known.hear(News(10, None, 60), NOW, 497, 497)
    assert (known.wait(7, NOW), known.wait(8, NOW)) == (0, 60)


def test_an_earlier_call_has_nothing_new_to_say_and_a_later_one_has() -> None:
    known = Level()
    known.sent = 3
    known.hear(News(5, None, 60), NOW, 2, 2)
    known.hear(News(50, None, 60), NOW, 1, 1)
    assert known.wait(5, NOW) == 60
    known.hear(News(50, None, 60), NOW, 3, 3)
    assert known.wait(50, NOW) == 0


def test_nothing_is_known_any_more_once_it_has_refilled() -> None:
    known = level(0, 100, 60)
    known.sent += 10**6
    assert known.wait(1, NOW + 59) == 1
    assert known.knows(NOW + 59)
    assert known.wait(10**9, NOW + 60) == 0
    assert not known.knows(NOW + 60)


def test_nothing_is_believed_for_more_than_an_hour() -> None:
    known = level(0, None, ABSURD - 1)
    assert known.wait(1, NOW) == LONGEST
    assert known.wait(1, NOW + LONGEST) == 0


def test_more_than_the_whole_limit_may_go_once_all_of_it_is_there() -> None:
    known = level(50, 100, 10)
    assert known.wait(1000, NOW) == 10
    known = level(100, 100, 10)
    assert known.wait(1000, NOW) == 0


def test_where_all_is_left_and_more_was_sent_since_the_reset_is_waited_for() -> None:
    known = level(100, 100, 10)
    known.sent += 100
    assert known.wait(1, NOW + 4) == 6


def test_a_clock_that_goes_back_refills_nothing_and_bounds_no_longer() -> None:
    known = level(0, 100, 60)
    assert known.wait(10, NOW - 500) == 6


@given(
    st.integers(0, 100), st.one_of(st.none(), st.just(100)), st.floats(0.001, 7200), st.integers(0, 300),
    st.integers(0, 300), st.floats(0, 8000),
)  # fmt: skip
def test_it_fits_after_the_wait_which_is_never_past_the_reset(
    remaining: int, limit: int | None, reset: float, sent: int, amount: int, passed: float
) -> None:
    known = level(remaining, limit, reset)
    known.sent += sent
    now = NOW + passed
    seconds = known.wait(amount, now)
    assert 0 <= seconds <= max(0.0, min(reset, LONGEST) - passed) + 1e-6
    assert known.wait(amount, now + seconds + 1e-6) == 0


def test_an_account_asks_for_a_request_and_its_tokens_and_counts_what_it_sends() -> None:
    account = Account()
    account.hold(70)
    marks = account.send(70)
    headers = openai(remaining="9", reset="30s") | openai("tokens", remaining="100", limit="1000", reset="18s")
    account.heed(headers, marks, NOW, WALL)
    assert account.wait(100, NOW) == 0
    assert account.wait(150, NOW) == pytest.approx(1)
    account.hold(100)
    assert account.wait(1, NOW) > 0
    account.give_back(100)
    assert account.wait(100, NOW) == 0
    for _ in range(9):
        account.hold(0)
        account.send(0)
    assert account.wait(0, NOW) == 30


def test_a_place_is_remembered_while_it_is_used_or_something_is_known_of_it() -> None:
    accounts = Accounts()
    account = accounts.use(PLACE)
    assert accounts.use(PLACE) is account
    accounts.leave(PLACE, account, NOW)
    assert accounts.get(PLACE) is account
    account.hold(0)
    account.heed(openai(remaining="0", limit="10", reset="30s"), account.send(0), NOW, WALL)
    accounts.leave(PLACE, account, NOW + 1)
    assert accounts.get(PLACE) is account
    accounts.leave(PLACE, accounts.use(PLACE), NOW + 30)
    assert accounts.get(PLACE) is None
    assert len(accounts) == 0


def test_the_least_recently_used_of_too_many_places_is_forgotten() -> None:
    accounts = Accounts(limit=3)
    kept = [accounts.use((name, "", "")) for name in "abc"]
    accounts.use(("a", "", ""))
    fourth = accounts.use(("d", "", ""))
    assert [accounts.get((name, "", "")) for name in "abcd"] == [kept[0], None, kept[2], fourth]
    again = accounts.use(("b", "", ""))
    accounts.leave(("b", "", ""), kept[1], NOW)  # a call of before, which ends only now
    assert accounts.get(("b", "", "")) is again
