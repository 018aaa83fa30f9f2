"""Time in others' hands is told from time that Penstock added."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.elsewhere import Elsewhere


def been(*times: tuple[float, float]) -> Elsewhere:
    """Away from then until then, each time."""
    found = Elsewhere()
    for go, back in times:
        found.go(go)
        found.back(back)
    return found


def test_who_was_never_away_added_all_of_it() -> None:
    assert Elsewhere().added(10, 12.5) == 2.5


def test_what_was_spent_in_a_line_at_a_provider_and_in_a_pause_is_not_added() -> None:
    assert been((11, 12), (12, 15), (16, 16.5)).added(10, 17) == pytest.approx(2.5)


def test_who_is_still_away_adds_nothing_meanwhile() -> None:
    elsewhere = been((11, 12))
    elsewhere.go(13)
    assert elsewhere.added(10, 13) == elsewhere.added(10, 99) == 2


def test_to_be_back_twice_is_to_be_back_once() -> None:
    elsewhere = been((11, 12))
    elsewhere.back(20)
    assert elsewhere.added(10, 20) == 9


def test_what_is_less_than_nothing_is_nothing() -> None:
    assert been((5, 12)).added(10, 13) == 0


def test_who_joined_waits_for_us_from_when_there_is_something_to_give() -> None:
    elsewhere = Elsewhere()
    elsewhere.go(10)
    assert elsewhere.kept(11, 20) == 0
    elsewhere.back(20)
    assert elsewhere.kept(11, 20.25) == 0.25


def test_who_joined_later_waits_for_us_from_then() -> None:
    assert been((10, 20)).kept(30, 30.5) == 0.5


spans = st.lists(st.floats(min_value=0, max_value=100), min_size=1, max_size=20)


@given(spans)
def test_what_was_added_and_what_was_not_are_together_all_the_time_there_was(lengths: list[float]) -> None:
    elsewhere, now, here = Elsewhere(), 0.0, 0.0
    for number, length in enumerate(lengths):
        if number % 2:
            elsewhere.go(now)
        now += length
        if number % 2:
            elsewhere.back(now)
        else:
            here += length
    assert elsewhere.added(0, now) == pytest.approx(here)
