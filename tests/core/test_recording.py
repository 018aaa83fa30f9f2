"""A reader that came late sees what the first one saw; past `max_entry` what every reader has passed is let go."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.recording import Broken, Clean, Ending, Head, Recording
from proxy.core.sse import Event
from proxy.errors import UpstreamReset


def event(text: str) -> Event:
    return Event(text.encode(), None, None)


def recording(*texts: str, max_entry: int = 100) -> Recording:
    made = Recording(max_entry)
    for at, text in enumerate(texts):
        made.append(event(text), float(at))
    return made


def test_a_new_recording_is_empty_and_nothing_is_known_of_it() -> None:
    made = Recording(10)
    assert (made.length, made.size, made.dropped, made.events, list(made.times)) == (0, 0, 0, [], [])
    assert (made.head, made.end) == (None, None)
    assert [made.has_usage, made.convertible, made.oversized, made.failing] == [False] * 4


def test_a_late_reader_gets_all_and_one_at_the_end_gets_nothing() -> None:
    made = recording("a", "b", "c")
    assert made.since(0, 99, 1 << 20) == [event("a"), event("b"), event("c")]
    assert made.since(2, 99, 1 << 20) == [event("c")]
    assert made.since(3, 99, 1 << 20) == []
    assert list(made.times) == [0.0, 1.0, 2.0]


def test_what_a_reader_was_given_does_not_change_under_it() -> None:
    made = recording("a")
    given_out = made.since(0, 99, 1 << 20)
    made.append(event("b"), 1.0)
    made.let_go(2)
    assert given_out == [event("a")]


def test_what_was_let_go_is_gone_and_the_rest_keeps_its_position() -> None:
    made = recording("aa", "bb", "cc")
    made.let_go(2)
    assert (made.length, made.dropped, made.size) == (3, 2, 6)
    assert made.since(2, 99, 1 << 20) == made.events == [event("cc")]
    assert list(made.times) == [2.0]
    made.let_go(1)  # a slower reader has nothing more to say
    assert made.dropped == 2
    made.let_go(3)
    assert (made.length, made.events, list(made.times)) == (3, [], [])
    made.append(event("dd"), 3.0)
    assert made.since(3, 99, 1 << 20) == [event("dd")]


@pytest.mark.parametrize(("sizes", "oversized"), [((), False), ((4, 6), False), ((4, 6, 1), True), ((11,), True)])
def test_an_answer_is_oversized_once_it_is_larger_than_an_entry_may_be(sizes: tuple[int, ...], oversized: bool) -> None:
    made = recording(*("x" * size for size in sizes), max_entry=10)
    assert made.oversized is oversized
    made.let_go(made.length)
    assert made.oversized is oversized  # what was let go was there


def made_with(status: int, end: Ending | None) -> Recording:
    made = Recording(10)
    made.head = Head(status, "stream", b"text/event-stream")
    made.end = end
    return made


def test_nobody_should_join_what_failed_or_answers_with_an_error() -> None:
    assert not made_with(200, None).failing
    assert not made_with(200, Clean()).failing
    assert made_with(200, Broken(UpstreamReset("lost"))).failing
    assert made_with(429, None).failing


steps = st.lists(st.one_of(st.integers(0, 9).map(str), st.integers(0, 12)), max_size=30)


def test_no_more_is_given_at_once_than_asked_for_in_events_and_in_bytes() -> None:
    made = recording("a", "bb", "cc", "d")
    assert made.since(0, 2, 1 << 20) == [event("a"), event("bb")]
    assert made.since(0, 99, 1) == [event("a")]
    assert made.since(0, 99, 2) == [event("a"), event("bb")]
    assert made.since(1, 99, 4) == [event("bb"), event("cc")]
    assert made.since(1, 99, 0) == [event("bb")]  # always something


@settings(deadline=None)
@given(steps)
def test_every_reader_sees_each_event_once_and_in_order(taken: list[str | int]) -> None:
    """A string is appended, a number is how far the slowest reader has come."""
    made, told, seen, position = Recording(5), [], [], 0
    for step in taken:
        if isinstance(step, str):
            told.append(event(step))
            made.append(told[-1], 0.0)
        else:
            fresh = made.since(position, 99, 1 << 20)[: max(0, step - position)]
            seen += fresh
            position += len(fresh)
            made.let_go(position)
        assert made.length == len(told) == made.dropped + len(made.times)
        assert made.events == told[made.dropped :]
    assert seen + made.since(position, 99, 1 << 20) == told
