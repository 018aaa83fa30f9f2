"""A request that begins with most of an earlier prompt follows it."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.conversations import GAPS, HORIZON, MOST, STEPS, Conversations, Habits, Turn
from proxy.core.prefixes import SHARE

Known = Conversations[str, str]


def chain(text: str) -> tuple[str, ...]:
    """A link for each beginning: `ab` is (a, ab). Each letter is 10 tokens."""
    return tuple(text[:length] for length in range(1, len(text) + 1))


def tokens(text: str) -> list[int]:
    return [10 * length for length in range(1, len(text) + 1)]


def say(known: Known, text: str, now: float, place: str = "here") -> int:
    """A request comes and is answered; which one of its row it is."""
    before, share = known.before(chain(text), tokens(text), now - 1000)
    number = known.came("r", before, share, tokens=10 * len(text), now=now)
    known.made(chain(text), Turn(place, now, number, 10 * len(text)))
    return number


def before(known: Known, text: str, since: float = 0.0) -> tuple[Turn[str] | None, float]:
    return known.before(chain(text), tokens(text), since)


def test_the_turn_that_a_request_follows_is_found_with_what_it_shares() -> None:
    known: Known = Conversations()
    assert before(known, "abcd") == (None, 0.0)
    assert [say(known, text, now) for text, now in (("abcd", 1.0), ("abcdef", 2.0), ("abcdefgh", 3.0))] == [1, 2, 3]
    turn, share = before(known, "abcdefghij")
    assert (turn, share) == (Turn("here", 3.0, 3, 80), 1.0)


def test_who_begins_with_most_of_an_earlier_prompt_follows_it() -> None:
    known: Known = Conversations()
    say(known, "abcd", 1.0)
    turn, share = before(known, "abxy")
    assert turn is not None
    assert share == MOST == 0.5
    assert before(known, "axyz") == (None, 0.0)  # 10 of its 40 tokens
    assert before(known, "a") == (None, 0.0)
    assert before(known, "bcd") == before(known, "") == (None, 0.0)


def test_a_system_prompt_that_two_conversations_share_makes_none_of_the_other() -> None:
    known: Known = Conversations()
    assert say(known, "s" + "a" * 9, 1.0) == 1
    assert say(known, "s" + "b" * 9, 2.0) == 1
    assert say(known, "s" + "a" * 11, 3.0) == 2
    # A long document is another matter: the next question about it follows the one before.
    assert [say(known, "d" * 8 + question, 4.0) for question in "xyz"] == [1, 2, 3]


def test_a_turn_that_is_too_old_is_followed_by_nobody() -> None:
    known: Known = Conversations()
    say(known, "abcd", 5.0)
    assert before(known, "abcdef", since=5.0)[0] is not None
    assert before(known, "abcdef", since=5.1) == (None, 0.0)
    assert known.turn("abcd", 5.0) is not None
    assert known.turn("abcd", 5.1) is known.turn(None, 0.0) is known.turn("other", 0.0) is None


def test_the_last_turn_that_held_a_link_has_it_and_one_that_was_overtaken_takes_none_away() -> None:
    known: Known = Conversations()
    known.made(chain("abc"), Turn("late", 20.0, 1, 30))
    known.made(chain("abx"), Turn("early", 10.0, 1, 30))
    assert [turn.place for link in (*chain("abc"), "abx") if (turn := known.turn(link, 0.0))] == ["late"] * 3 + [
        "early"
    ]


def test_of_two_that_follow_one_turn_the_first_counts() -> None:
    known: Known = Conversations()
    for text, now in (("abcd", 0.0), ("abcdef", 10.0), ("abcdxy", 20.0)):
        say(known, text, now)
    habits = known.of("r")
    # Of the first turn one follower is counted, though a second one came: it follows what the first left behind.
    assert (habits.seen[0], habits.followed[0]) == (1, 1)
    assert (habits.growth.value, habits.gaps[0]) == (10.0, 2)  # 20 longer, and then 0


def test_of_two_that_follow_one_turn_at_once_only_the_first_goes_on_with_it() -> None:
    known: Known = Conversations()
    say(known, "abcd", 0.0)
    turn, share = before(known, "abcdef")
    assert [known.came("r", turn, share, tokens=60, now=now) for now in (10.0, 20.0)] == [2, 2]
    assert (known.of("r").seen[:2], known.of("r").followed[:2]) == ([1, 2], [1, 0])


def test_who_answered_a_prompt_last_is_known_by_its_end_alone_and_teaches_no_habit() -> None:
    known: Known = Conversations()
    assert known.maker(None, 0.0) is known.maker("ab", 0.0) is None
    known.given("ab", "here", 1.0)
    assert [known.maker("ab", 1.0), known.maker("ab", 1.1), known.maker("a", 0.0)] == ["here", None, None]
    say(known, "abc", 2.0, "there")  # what begins with it was answered elsewhere: that is another prompt
    assert known.maker("ab", 0.0) == "here"
    known.given("ab", "there", 3.0)  # out of the cache, say
    assert (known.maker("ab", 3.0), before(known, "xx")) == ("there", (None, 0.0))


def test_those_who_answered_longest_ago_are_forgotten_first() -> None:
    known: Known = Conversations(limit=2)
    for number, link in enumerate(("a", "b", "a", "c")):
        known.given(link, "here", float(number))
    assert [known.maker(link, 0.0) for link in "abc"] == ["here", None, "here"]


def test_what_is_restored_is_what_was_kept_and_whoever_shares_a_turn_still_does() -> None:
    known, again = Known(), Known()
    say(known, "abcd", 1.0)
    say(known, "abxy", 2.0, "there")
    known.given("abcd", "here", 1.0)
    turns, held, made = known.snapshot()
    assert (len(turns), made) == (2, {"abcd": ("here", 1.0)})
    again.restore(turns, held, made)
    assert again.snapshot() == (turns, held, made)
    assert again.maker("abcd", 1.0) == "here"
    assert again.turn("a", 0.0) is again.turn("abxy", 0.0)
    say(again, "abxyz", 3.0)
    with pytest.raises(IndexError):
        again.restore(turns, {"a": 2}, {})


def test_the_older_half_is_forgotten_where_there_are_too_many() -> None:
    known: Known = Conversations(limit=8)
    for at, text in enumerate(("ab", "cd", "ef", "gh", "ij")):
        say(known, text, float(at))
    assert [known.turn(text, 0.0) is not None for text in ("ab", "cd", "ef", "gh", "ij")] == [False] * 3 + [True] * 2


def test_one_prompt_of_a_million_messages_does_not_empty_the_rest() -> None:
    known: Conversations[str, int] = Conversations()
    known.made(range(10), Turn("here", 1.0, 1, 10))
    known.made(range(100, 1_000_100), Turn("there", 2.0, 1, 10))
    assert known.turn(9, 0.0) is not None
    assert len(known.snapshot()[1]) == 10 + 50_000 // SHARE


calls = st.lists(st.tuples(st.text("ab", min_size=1, max_size=6), st.integers(0, 20)), max_size=30)


@pytest.mark.parametrize("limit", [1000, 24])
@settings(deadline=None)
@given(told=calls, text=st.text("ab", max_size=7))
def test_bisection_finds_what_a_scan_does_in_whatever_order_calls_are_answered(
    limit: int, told: list[tuple[str, int]], text: str
) -> None:
    known: Known = Conversations(limit)
    for said, at in told:
        known.made(chain(said), Turn(said, float(at), 1, 10 * len(said)))
    held = [turn for link in chain(text) if (turn := known.turn(link, 0.0)) is not None]
    assert len(known.snapshot()[1]) <= limit
    # Whoever has a link has all before it, and those are no older.
    assert [known.turn(link, 0.0) for link in chain(text)] == [*held, *[None] * (len(text) - len(held))]
    assert sorted((turn.at for turn in held), reverse=True) == [turn.at for turn in held]
    last = held[-1] if held else None
    share = 10 * len(held) / last.tokens if last is not None else 0.0
    assert before(known, text) == ((last, share) if share >= MOST else (None, 0.0))


def habits(length: int, rows: int = 1000, gap: float = 10.0, growth: int = 50, shared: float = 1.0) -> Habits:
    """Of a route with so many rows of so many turns each."""
    found = Habits()
    for _ in range(rows):
        for number in range(1, length + 1):
            found.came(number)
            if number < length:
                found.went_on(number, gap=gap, growth=growth, shared=shared)
    return found


def test_before_anything_is_known_half_of_all_turns_are_followed_at_once() -> None:
    assert Habits().to_come(1, 300.0) == pytest.approx(1)  # 1/2 + 1/4 + 1/8 and so on
    assert Habits().to_come(10**9, 300.0) == pytest.approx(1)
    assert (Habits().goes_on(5), Habits().within(0.0)) == (0.5, 1.0)


def test_rows_of_one_length_have_what_is_left_of_it_to_come() -> None:
    known = habits(3)
    assert [known.to_come(number, 300.0) for number in (1, 2, 3)] == pytest.approx([2, 1, 0], abs=0.01)


def test_where_half_of_the_turns_are_followed_one_is_to_come() -> None:
    known = Habits(seen=[998.0] * (len(STEPS) + 1), followed=[499.0] * (len(STEPS) + 1))
    assert known.to_come(1, 300.0) == pytest.approx(1, abs=0.01)
    # Nine in ten: 9/10 + 81/100 + ... = 9, of which what is left out is a tenth at most.
    known = Habits(seen=[998.0] * (len(STEPS) + 1), followed=[899.0] * (len(STEPS) + 1))
    assert known.to_come(1, 300.0) == pytest.approx(9, abs=0.1)


def test_nothing_is_planned_beyond_the_horizon() -> None:
    endless = Habits(seen=[1000.0] * (len(STEPS) + 1), followed=[1000.0] * (len(STEPS) + 1))
    assert endless.to_come(1, 300.0) == pytest.approx(HORIZON)
    assert endless.to_come(10**9, 300.0) <= HORIZON


def test_turns_that_come_too_late_are_not_to_come() -> None:
    known = habits(3, gap=7200.0)  # all between an hour and a day
    assert known.within(3600.0) == pytest.approx(0, abs=0.01)
    assert known.within(86400.0) == 1.0
    assert known.to_come(1, 3600.0) == pytest.approx(0, abs=0.01)


def test_within_a_span_of_gaps_they_are_taken_for_evenly_spread() -> None:
    known = Habits()
    known.went_on(1, gap=100.0, growth=0, shared=1.0)  # somewhere from 60 to 300
    # One that was seen, and one that is supposed to come at once.
    assert [known.within(seconds) for seconds in (0.0, 60.0, 180.0, 300.0, 1e9)] == [0.5, 0.5, 0.75, 1.0, 1.0]
    known.went_on(1, gap=10 * 86400.0, growth=0, shared=1.0)  # beyond the last: within a week
    assert known.within(4 * 86400.0) == pytest.approx((2 + 0.5) / 3)


@pytest.mark.parametrize("gap", [-5.0, 0.0, 60.0])
def test_a_gap_up_to_a_minute_is_the_shortest_and_one_that_runs_backward_too(gap: float) -> None:
    known = Habits()
    known.went_on(1, gap=gap, growth=-7, shared=3.0)
    assert known.gaps == [1, *[0] * len(GAPS)]
    assert (known.growth.value, known.shared.value) == (0.0, 1.0)


def test_habits_change_with_what_is_seen() -> None:
    known = habits(3)
    for _ in range(5000):
        known.came(1)
    assert known.to_come(1, 300.0) < 0.1
    assert max(known.seen) <= 1001
    assert sum(known.gaps) <= 1001


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 100), st.floats(-1e6, 1e6), st.integers(-100, 10**6), st.floats(0, 9)), max_size=9
    ),
    st.integers(1, 10**6),
    st.floats(0, 1e7),
)
def test_whatever_was_seen_what_is_to_come_is_a_number_up_to_the_horizon_and_more_in_more_time(
    told: list[tuple[int, float, int, float]], number: int, lifetime: float
) -> None:
    known = Habits()
    for each, gap, growth, shared in told:
        known.came(each)
        known.went_on(each, gap=gap, growth=growth, shared=shared)
    assert 0 <= known.to_come(number, lifetime / 2) <= known.to_come(number, lifetime) + 0.5 <= HORIZON + 0.5
    assert 0 <= known.within(lifetime / 2) <= known.within(lifetime) <= 1
    assert 0 <= known.goes_on(number) <= 1
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(known), type=Habits) == known


@pytest.mark.parametrize("member", ["seen", "followed", "gaps"])
def test_habits_of_another_version_are_not_read(member: str) -> None:
    for spoiled in ([], [0.0] * 30, [-1.0] * 10, [float("inf")] * 10):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(msgspec.to_builtins(Habits()) | {member: spoiled}, Habits)
