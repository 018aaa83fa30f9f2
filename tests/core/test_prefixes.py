"""A prefix is there if a call that held it was answered there within the lifetime."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.prefixes import SHARE, Prefixes

Chain = tuple[str, ...]


def chain(text: str) -> Chain:
    """A link for each beginning: `ab` is (a, ab)."""
    return tuple(text[:length] for length in range(1, len(text) + 1))


def scanned(prefixes: Prefixes[str, str], place: str, links: Chain, since: float) -> int:
    """How many links in a row the place has, looked at one after the other."""
    sent = dict(prefixes.snapshot()).get(place, {})
    return next((at for at, link in enumerate(links) if sent.get(link, since - 1) < since), len(links))


def test_the_longest_prefix_that_was_sent_there_is_found() -> None:
    prefixes: Prefixes[str, str] = Prefixes()
    prefixes.sent("here", chain("abc"), 10.0)
    assert [prefixes.longest("here", chain(text), 0.0) for text in ("abc", "abcd", "abx", "a", "xbc", "")] == [
        3,
        3,
        2,
        1,
        0,
        0,
    ]
    assert prefixes.longest("there", chain("abc"), 0.0) == 0


def test_a_prefix_is_there_until_its_lifetime_is_over_and_longer_if_it_is_sent_again() -> None:
    prefixes: Prefixes[str, str] = Prefixes()
    prefixes.sent("here", chain("abcd"), 10.0)
    prefixes.sent("here", chain("abx"), 20.0)
    assert [prefixes.longest("here", chain("abcd"), since) for since in (10.0, 10.5, 20.0, 20.5)] == [4, 2, 2, 0]


def test_a_call_that_was_overtaken_makes_no_link_older() -> None:
    prefixes: Prefixes[str, str] = Prefixes()
    prefixes.sent("here", chain("abc"), 20.0)
    prefixes.sent("here", chain("abd"), 10.0)
    assert prefixes.longest("here", chain("abc"), 20.0) == 3
    assert (prefixes.longest("here", chain("abd"), 10.0), prefixes.longest("here", chain("abd"), 11.0)) == (3, 2)


def test_a_call_that_was_overtaken_makes_no_link_older_behind_a_restart_either() -> None:
    before: Prefixes[str, str] = Prefixes()
    before.sent("here", chain("abc"), 20.0)
    after: Prefixes[str, str] = Prefixes()
    after.restore(before.snapshot())
    after.sent("here", chain("ab"), 10.0)
    assert after.longest("here", chain("abc"), 20.0) == 3


def test_what_was_not_sent_after_a_moment_is_forgotten_and_a_place_without_any_too() -> None:
    prefixes: Prefixes[str, str] = Prefixes()
    prefixes.sent("here", chain("abc"), 10.0)
    prefixes.sent("there", chain("abc"), 20.0)
    prefixes.forget(10.0)
    assert [place for place, _ in prefixes.snapshot()] == ["there"]


def test_the_older_half_is_forgotten_where_there_are_too_many() -> None:
    prefixes: Prefixes[str, str] = Prefixes(limit=8)
    for at, text in enumerate(("ab", "cd", "ef", "gh", "ij")):
        prefixes.sent("here", chain(text), float(at))
    assert [prefixes.longest("here", chain(text), 0.0) for text in ("ab", "cd", "ef", "gh", "ij")] == [0, 0, 0, 2, 2]


def test_one_prompt_of_a_million_messages_does_not_empty_the_rest() -> None:
    prefixes: Prefixes[int, int] = Prefixes()
    prefixes.sent(1, range(10), 1.0)
    prefixes.sent(2, range(1_000_000), 2.0)
    assert prefixes.longest(1, range(10), 0.0) == 10
    assert prefixes.longest(2, range(1_000_000), 0.0) == 50_000 // SHARE


def test_what_is_restored_is_what_was_kept() -> None:
    before: Prefixes[str, str] = Prefixes()
    before.sent("here", chain("abc"), 10.0)
    after: Prefixes[str, str] = Prefixes(limit=4)
    after.restore(before.snapshot())
    assert after.snapshot() == before.snapshot()
    after.sent("here", chain("x"), 20.0)
    after.sent("here", chain("y"), 21.0)  # the fifth: what was restored counts
    assert after.longest("here", chain("abc"), 0.0) == 0


calls = st.lists(
    st.tuples(st.sampled_from(["here", "there"]), st.text("ab", max_size=6), st.integers(0, 20)), max_size=30
)


@pytest.mark.parametrize("limit", [1000, 12])
@settings(deadline=None)
@given(told=calls, text=st.text("ab", max_size=7), since=st.integers(0, 21), forgotten=st.integers(-1, 20))
def test_bisection_finds_what_a_scan_does_in_whatever_order_calls_are_answered_and_forgotten(
    limit: int, told: list[tuple[str, str, int]], text: str, since: int, forgotten: int
) -> None:
    prefixes: Prefixes[str, str] = Prefixes(limit)
    for place, said, at in told:
        prefixes.sent(place, chain(said), float(at))
        assert sum(len(sent) for _, sent in prefixes.snapshot()) <= limit
    prefixes.forget(float(forgotten))
    again: Prefixes[str, str] = Prefixes(limit)
    again.restore(prefixes.snapshot())
    for place in ("here", "there", "nowhere"):
        found: list[Any] = [each.longest(place, chain(text), float(since)) for each in (prefixes, again)]
        assert found == [scanned(prefixes, place, chain(text), float(since))] * 2
