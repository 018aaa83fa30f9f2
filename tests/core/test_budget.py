"""What a key may still spend: windows of UTC, what is set aside, and what that turned out to cost."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.access import Allowance, Grant, Period
from proxy.core.budget import Hold, Purse, Purses, window
from proxy.errors import InsufficientQuota

D = Decimal
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()  # a Wednesday
DAY = 86400.0


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("per", "now", "began", "ends"),
    [
        ("day", "2026-11-25T12:00", "2026-11-25", "2026-11-26"),
        ("day", "2026-11-25T00:00", "2026-11-25", "2026-11-26"),
        ("week", "2026-11-25T12:00", "2026-11-23", "2026-11-30"),
        ("week", "2026-11-29T23:59:59", "2026-11-23", "2026-11-30"),
        ("month", "2026-11-25T12:00", "2026-11-01", "2026-12-01"),
        ("month", "2026-12-31T23:59", "2026-12-01", "2027-01-01"),
        ("month", "2028-02-29T12:00", "2028-02-01", "2028-03-01"),
    ],
)
def test_windows_are_those_of_utc(per: Period, now: str, began: str, ends: str) -> None:
    assert window(per, at(now)) == (at(began), at(ends))


def test_a_budget_in_all_has_no_window() -> None:
    assert window("total", NOON) == (0.0, None)


def a_purse(usd: str = "1", per: Period = "day", spent: str = "0", now: float = NOON) -> Purse:
    return Purse(Allowance(D(usd), per), D(spent), now)


def test_what_is_set_aside_is_not_there_for_another() -> None:
    purse = a_purse("1")
    purse.hold(D("0.6"), NOON)
    with pytest.raises(InsufficientQuota):
        purse.hold(D("0.5"), NOON)
    purse.hold(D("0.4"), NOON)
    assert purse.left(NOON) == 0


def test_what_an_attempt_did_not_need_is_there_again() -> None:
    purse = a_purse("1")
    hold = purse.hold(D("0.9"), NOON)
    hold.settle(D("0.1"))
    assert (purse.spent, purse.reserved, purse.left(NOON)) == (D("0.1"), D(0), D("0.9"))


def test_only_the_first_settlement_counts() -> None:
    purse = a_purse("1")
    hold = purse.hold(D("0.9"), NOON)
    hold.settle(D("0.1"))
    hold.settle(D("0.5"))
    assert (purse.spent, purse.reserved) == (D("0.1"), D(0))


def test_who_was_charged_more_than_was_set_aside_has_less_than_nothing_left() -> None:
    purse = a_purse("1")
    purse.hold(D("0.5"), NOON).settle(D("1.5"))
    assert purse.left(NOON) == D("-0.5")
    with pytest.raises(InsufficientQuota):
        purse.hold(D(0), NOON)


def test_what_is_free_may_be_asked_when_all_is_spent() -> None:
    assert a_purse("1", spent="1").hold(D(0), NOON).usd == 0


def test_a_new_window_begins_with_nothing_spent_and_nothing_set_aside() -> None:
    purse = a_purse("1")
    old = purse.hold(D("0.7"), NOON)
    purse.hold(D("0.2"), NOON).settle(D("0.2"))
    assert purse.left(NOON + DAY) == 1
    old.settle(D("0.7"))  # of the day before
    assert (purse.spent, purse.reserved, purse.left(NOON + DAY)) == (D(0), D(0), D(1))


def test_a_clock_that_goes_back_and_comes_again_opens_no_window_twice() -> None:
    purse = a_purse("1", spent="0.9", now=NOON + DAY)
    assert purse.left(NOON) == D("0.1")
    assert purse.left(NOON + DAY) == D("0.1")
    assert purse.left(NOON + 2 * DAY) == 1
    purse.hold(D("0.5"), NOON + 2 * DAY)
    assert purse.left(NOON) == D("0.5")
    assert purse.left(NOON + 2 * DAY) == D("0.5")


def test_the_refusal_says_what_is_left_and_when_it_begins_anew() -> None:
    error = a_purse("50", "month", spent="49.5").exhausted(D("0.75"), NOON)
    assert (error.status, error.code, error.retry) == (429, "insufficient_quota", False)
    assert error.message == (
        "Of this key's budget of 50 USD per month (UTC) 0.5 are left, and this request may cost 0.75; "
        "it begins anew at 2026-12-01T00:00:00Z."
    )


def test_most_of_it_is_spent_at_80_percent() -> None:
    assert not a_purse("10", spent="7.99").nearly
    assert a_purse("10", spent="8").nearly


def test_the_forecast_goes_on_as_so_far() -> None:
    assert a_purse("10", "day", spent="3").forecast(NOON) == 6
    assert a_purse("10", "total", spent="3").forecast(NOON) is None


def test_the_forecast_of_the_first_minutes_is_not_wild() -> None:
    midnight = at("2026-11-25")
    assert a_purse("10", "day", spent="1", now=midnight).forecast(midnight + 60) == 24


AMOUNTS = st.integers(0, 400).map(lambda cents: D(cents) / 100)


@given(st.lists(st.tuples(st.booleans(), AMOUNTS, st.integers(0, 100))))
def test_whatever_is_set_aside_and_settled_for_no_more_nothing_is_overrun(
    steps: list[tuple[bool, Decimal, int]],
) -> None:
    purse = a_purse("10")
    holds: list[Hold] = []
    for sets_aside, usd, share in steps:
        if sets_aside or not holds:
            try:
                holds.append(purse.hold(usd, NOON))
            except InsufficientQuota:
                assert purse.spent + purse.reserved + usd > 10
        else:
            hold = holds.pop()
            hold.settle(hold.usd * share / 100)
        assert purse.spent + purse.reserved <= 10
        assert purse.reserved == sum(hold.usd for hold in holds)


def test_a_key_begins_with_what_it_had_spent_in_this_window() -> None:
    asked: list[tuple[str, float]] = []

    def spent_since(key: str, since: float) -> Decimal:
        asked.append((key, since))
        return D("0.25")

    purses = Purses()
    grant = Grant("team", "team", budget=Allowance(D(1), "month"))
    purses.tell(grant, NOON, spent_since)
    purse = purses.of(grant, NOON)
    assert purse is not None
    assert purse.left(NOON) == D("0.75")
    assert purses.of(grant, NOON) is purse
    assert asked == [("team", at("2026-11-01"))]
    assert purses.of(Grant("free", "free"), NOON) is None


def test_a_key_that_was_made_a_moment_ago_has_spent_nothing() -> None:
    purse = Purses().of(Grant("new", "pk_1", budget=Allowance(D(1), "total")), NOON)
    assert purse is not None
    assert purse.left(NOON) == 1
