"""What fails is left alone for a while, then asked by one call at a time; no clock and no crowd prolongs that."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.breaker import (
    FAILURES,
    LONGEST_COOLDOWN,
    LONGEST_PAUSE,
    LOST_PROBE,
    PAUSE,
    Condition,
    Health,
    Sick,
    Snapshot,
)

NOW = 1_700_000_000.0
KEY = ("acme", "model-1", "")
OTHER = ("acme", "model-2", "")


def fail(health: Health, now: float = NOW, times: int = FAILURES) -> None:
    for _ in range(times):
        health.bad(KEY, now)


def opened(openings: int = 1, now: float = NOW) -> Health:
    """A health whose KEY has just opened at `now`, for so many times in a row."""
    health = Health()
    fail(health, now)
    if openings > 1:
        health.restore([Sick(KEY, Condition(openings=openings, opened=now))], now)
    return health


def look(health: Health, now: float) -> tuple[str, float]:
    return health.state(KEY, now), health.until(KEY, now)


def test_what_nothing_is_known_of_is_up() -> None:
    health = Health()
    assert look(health, NOW) == ("up", 0.0)
    assert health.take(KEY, NOW)
    assert health.snapshot(NOW) == []


def test_failures_in_a_row_open_the_breaker_of_their_key_alone() -> None:
    health = Health()
    fail(health, times=FAILURES - 1)
    assert look(health, NOW) == ("up", 0.0)
    fail(health, times=1)
    assert look(health, NOW) == ("down", PAUSE)
    assert not health.take(KEY, NOW)
    assert health.take(OTHER, NOW)


def test_an_answer_in_between_begins_the_count_anew() -> None:
    health = Health()
    for _ in range(10):
        fail(health, times=FAILURES - 1)
        health.good(KEY, NOW)
    assert health.take(KEY, NOW)


def test_so_many_failures_as_the_operator_says_open_it_and_none_where_that_is_zero() -> None:
    quick, never = Health(failures=1), Health(failures=0)
    for _ in range(100):
        quick.bad(KEY, NOW)
        never.bad(KEY, NOW)
    assert (quick.state(KEY, NOW), never.state(KEY, NOW)) == ("down", "up")
    assert never.snapshot(NOW) == []


def test_one_call_finds_out_whether_it_may_close() -> None:
    health = opened()
    assert not health.take(KEY, NOW + PAUSE - 1)
    later = NOW + PAUSE
    assert look(health, later) == ("up", 0.0)
    assert [health.take(KEY, later) for _ in range(3)] == [True, False, False]
    assert health.state(KEY, later) == "down"
    health.good(KEY, later)
    assert [health.take(KEY, later) for _ in range(3)] == [True, True, True]


def test_to_look_takes_no_probe() -> None:
    health = opened()
    assert [health.state(KEY, NOW + PAUSE) for _ in range(3)] == ["up"] * 3
    assert health.take(KEY, NOW + PAUSE)


def test_each_failed_probe_makes_the_pause_longer_up_to_five_minutes() -> None:
    health, now, pauses = opened(), NOW, []
    for _ in range(12):
        pauses.append(health.until(KEY, now))
        now += pauses[-1]
        assert health.take(KEY, now)
        health.bad(KEY, now)
    assert pauses == [PAUSE * n for n in range(1, 11)] + [LONGEST_PAUSE] * 2


def test_once_closed_it_takes_as_many_failures_and_as_short_a_pause_as_at_first() -> None:
    health = opened(openings=9)
    now = NOW + LONGEST_PAUSE
    assert health.take(KEY, now)
    health.good(KEY, now)
    fail(health, now, FAILURES - 1)
    assert health.state(KEY, now) == "up"
    fail(health, now, 1)
    assert look(health, now) == ("down", PAUSE)


def test_what_was_sent_before_it_opened_and_fails_late_changes_nothing() -> None:
    health = opened()
    fail(health, NOW + PAUSE / 2, 3 * FAILURES)
    assert health.until(KEY, NOW) == PAUSE
    fail(health, NOW + PAUSE, 3 * FAILURES)  # nobody has the probe: these cannot be it
    assert health.take(KEY, NOW + PAUSE)


def test_what_was_sent_before_it_opened_is_told_from_the_probe_by_when_it_was_sent() -> None:
    health, later = opened(), NOW + PAUSE
    assert health.take(KEY, later)
    health.bad(KEY, later + 1, sent=NOW - 1)
    health.released(KEY, sent=NOW - 1)
    health.cool(KEY, later + 1, 0, sent=NOW - 1)
    assert not health.take(KEY, later + 1)
    health.bad(KEY, later + 2, sent=later + 0.001)
    assert look(health, later + 2) == ("down", 2 * PAUSE)


def test_a_late_answer_closes_it_since_the_provider_lives() -> None:
    health = opened(openings=3)
    health.good(KEY, NOW + 1)
    assert look(health, NOW + 1) == ("up", 0.0)
    assert health.snapshot(NOW + 1) == []


def test_a_probe_whose_clients_left_is_the_next_ones() -> None:
    health, later = opened(), NOW + PAUSE
    assert health.take(KEY, later)
    health.released(KEY)
    assert [health.take(KEY, later), health.take(KEY, later)] == [True, False]
    health.bad(KEY, later)
    assert health.until(KEY, later) == 2 * PAUSE  # it opened twice, not three times


def test_a_call_that_is_given_up_says_nothing_of_a_closed_breaker() -> None:
    health = Health()
    fail(health, times=FAILURES - 1)
    health.released(KEY)
    health.released(OTHER)
    fail(health, times=1)
    assert health.state(KEY, NOW) == "down"


def test_a_probe_that_never_reports_is_taken_for_lost() -> None:
    health, later = opened(), NOW + PAUSE
    assert health.take(KEY, later)
    lost = later + LOST_PROBE
    assert 0 < health.until(KEY, lost - 1) <= 1
    assert [health.take(KEY, lost - 1), health.take(KEY, lost), health.take(KEY, lost)] == [False, True, False]
    health.bad(KEY, lost + 1, sent=later)  # the lost one, after all
    assert health.until(KEY, lost + 1) == PAUSE  # the second probe is still under way
    health.bad(KEY, lost + 1, sent=lost)
    assert health.until(KEY, lost + 1) == 2 * PAUSE


@pytest.mark.parametrize(
    ("seconds", "lasts"),
    [
        (7.0, 7.0),
        (60.0, 60.0),
        (1e9, LONGEST_COOLDOWN),
        (float("inf"), LONGEST_COOLDOWN),
        (0.0, 0.0),
        (-5.0, 0.0),
        (float("nan"), 0.0),
    ],
)
def test_too_many_requests_leave_it_alone_within_a_minute(seconds: float, lasts: float) -> None:
    health = Health()
    health.cool(KEY, NOW, seconds)
    assert look(health, NOW) == ("cooling" if lasts else "up", lasts)
    assert health.state(KEY, NOW + lasts) == "up"
    assert health.take(KEY, NOW)  # whoever has nothing else may ask
    assert bool(health._kept) == bool(lasts)


def test_a_shorter_cooldown_never_shortens_a_longer_one() -> None:
    health = Health()
    for seconds, lasts in [(5, 5), (20, 20), (10, 20), (0, 20), (30, 30)]:
        health.cool(KEY, NOW, seconds)
        assert health.until(KEY, NOW) == lasts
    health.cool(KEY, NOW + 25, 10)
    assert health.until(KEY, NOW + 25) == 10


def test_how_often_breakers_opened_is_counted_by_provider() -> None:
    health = Health()
    fail(health, times=FAILURES + 3)  # what was under way when it opened opens nothing
    assert health.opened == {"acme": 1}
    assert health.take(KEY, NOW + PAUSE)
    health.bad(KEY, NOW + PAUSE)
    for _ in range(FAILURES):
        health.bad(("other", "model", ""), NOW)
    assert health.opened == {"acme": 2, "other": 1}
    health.good(KEY, NOW + PAUSE)
    assert health.opened == {"acme": 2, "other": 1}


def test_a_cooldown_outlives_an_answer_and_the_breaker_does_not_heed_it() -> None:
    health = Health()
    health.cool(KEY, NOW, 20)
    health.good(KEY, NOW + 1)
    assert look(health, NOW + 1) == ("cooling", 19)
    fail(health, NOW + 1, FAILURES - 1)
    health.cool(KEY, NOW + 1, 5)
    fail(health, NOW + 1, 1)
    assert look(health, NOW + 1) == ("down", PAUSE)


def test_a_probe_that_meets_too_many_requests_leaves_the_probe_to_the_next() -> None:
    health, later = opened(), NOW + PAUSE
    assert health.take(KEY, later)
    health.cool(KEY, later, 5)
    assert look(health, later) == ("cooling", 5)
    assert [health.take(KEY, later + 5), health.take(KEY, later + 5)] == [True, False]
    health.bad(KEY, later + 5)
    assert health.until(KEY, later + 5) == 2 * PAUSE


@pytest.mark.parametrize("back", [1.0, 60.0, 86_400.0, 2e9])
def test_a_clock_that_went_back_keeps_nothing_away_for_longer(back: float) -> None:
    health = opened(openings=10)
    health.cool(KEY, NOW, 60)
    assert look(health, NOW - back) == ("up", 0.0)
    assert [health.take(KEY, NOW - back), health.take(KEY, NOW - back)] == [True, False]
    health.bad(KEY, NOW - back)
    assert look(health, NOW - back) == ("down", LONGEST_PAUSE)


def test_a_clock_that_went_back_past_a_probe_gives_its_place_away() -> None:
    health = opened()
    assert health.take(KEY, NOW + PAUSE)
    assert [health.take(KEY, NOW - 10), health.take(KEY, NOW - 10)] == [True, False]


def keys(health: Health, now: float = NOW) -> list[str]:
    return [sick.key[0] for sick in health.snapshot(now)]


def test_the_healthy_are_forgotten_first_and_of_those_the_least_recently_touched() -> None:
    health = Health(failures=2, limit=4)
    health.bad(("open", "m", ""), NOW)
    health.bad(("open", "m", ""), NOW)
    health.cool(("cool", "m", ""), NOW, 60)
    health.bad(("a", "m", ""), NOW)
    health.bad(("b", "m", ""), NOW)
    health.bad(("c", "m", ""), NOW)
    assert keys(health) == ["open", "cool", "b", "c"]
    health.cool(("b", "m", ""), NOW, 60)
    health.cool(("d", "m", ""), NOW, 60)
    assert keys(health) == ["open", "cool", "b", "d"]
    health.cool(("e", "m", ""), NOW, 60)
    assert keys(health) == ["cool", "b", "d", "e"]


def test_to_fail_again_is_to_be_touched() -> None:
    health = Health(limit=2)
    for name in ("a", "b", "a", "c"):
        health.bad((name, "m", ""), NOW)
    assert keys(health) == ["a", "c"]


def test_a_cooldown_that_is_over_is_worth_no_more_than_health() -> None:
    health = Health(limit=2)
    health.cool(("long", "m", ""), NOW, 60)
    health.cool(("short", "m", ""), NOW, 5)
    health.cool(("new", "m", ""), NOW + 10, 60)
    assert keys(health, NOW + 10) == ["long", "new"]


def test_however_many_fail_no_more_are_remembered_than_may_be() -> None:
    health = Health(failures=1, limit=100)
    for number in range(1000):
        health.bad((str(number), "m", ""), NOW)
        assert len(health._kept) <= 100
    assert keys(health)[-1] == "999"


def test_what_is_healthy_again_costs_nothing() -> None:
    health = Health()
    for number in range(100):
        health.bad((str(number), "m", ""), NOW)
        health.good((str(number), "m", ""), NOW)
    assert not health._kept


def test_what_fails_does_so_for_every_account_and_what_refuses_one_serves_the_others() -> None:
    mine, yours, operators = ("acme", "m", "mine"), ("acme", "m", "yours"), ("acme", "m", "")
    health = Health(failures=2)
    health.bad(mine, NOW)
    health.bad(yours, NOW)  # two clients with keys of their own, one provider
    assert [health.state(key, NOW) for key in (mine, yours, operators)] == ["down"] * 3
    assert not health.take(mine, NOW)
    later = NOW + PAUSE
    assert [health.take(mine, later), health.take(yours, later)] == [True, False]  # one probe for all
    health.good(mine, later)
    assert health.take(yours, later)
    health.cool(mine, later, 20)
    assert [health.state(key, later) for key in (mine, yours, operators)] == ["cooling", "up", "up"]
    health.bad(yours, later, account=True)
    health.bad(yours, later, account=True)
    assert [health.state(key, later) for key in (mine, yours, operators)] == ["cooling", "down", "up"]
    assert [health.until(key, later) for key in (mine, yours)] == [20, PAUSE]


def test_a_probe_of_one_account_that_is_left_is_given_back_for_all() -> None:
    mine, yours = ("acme", "m", "mine"), ("acme", "m", "yours")
    health = Health(failures=1)
    health.bad(mine, NOW)
    later = NOW + PAUSE
    assert health.take(mine, later)
    health.released(mine, sent=later)
    assert health.take(yours, later)
    health.cool(yours, later, 5, sent=later)  # it lives, but this account is to wait: the next may try
    assert [health.take(mine, later), health.state(yours, later)] == [True, "down"]


def kept_in_a_file(snapshot: Snapshot) -> Snapshot:
    return msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot)


def test_what_ails_is_known_again_after_a_restart() -> None:
    before = opened(openings=4)
    before.cool(OTHER, NOW, 40)
    before.bad(("acme", "counted"), NOW)
    after = Health()
    after.restore(kept_in_a_file(before.snapshot(NOW)), NOW + 10)
    assert look(after, NOW + 10) == ("down", 4 * PAUSE - 10)
    assert (after.state(OTHER, NOW + 10), after.until(OTHER, NOW + 10)) == ("cooling", 30)
    for _ in range(FAILURES - 1):
        after.bad(("acme", "counted"), NOW + 10)
    assert after.state(("acme", "counted"), NOW + 10) == "down"


def test_another_process_sees_the_same_states() -> None:
    health = opened()
    health.cool(OTHER, NOW, 5)
    health.take(KEY, NOW + PAUSE)
    for now in (NOW, NOW + 5, NOW + PAUSE, NOW + 2 * LOST_PROBE):
        for sick in kept_in_a_file(health.snapshot(now)):
            seen = sick.condition.state(now), sick.condition.until(now)
            assert seen == (health.state(sick.key, now), health.until(sick.key, now))


def test_a_probe_ends_with_its_process() -> None:
    before, later = opened(), NOW + PAUSE
    assert before.take(KEY, later)
    after = Health()
    after.restore(before.snapshot(later), later)
    assert after.take(KEY, later)


@pytest.mark.parametrize(
    "condition",
    [
        Condition(openings=10**9, opened=NOW),
        Condition(openings=-1, failures=-7, opened=NOW),
        Condition(openings=3, opened=NOW + 1e9, cooled=NOW + 1e9, cooldown=60),
        Condition(openings=1, opened=float("nan"), cooled=float("nan"), cooldown=float("nan")),
        Condition(cooled=NOW, cooldown=1e12),
        Condition(openings=1, opened=float("-inf"), cooled=float("inf"), cooldown=float("inf")),
    ],
)
def test_a_file_that_was_tampered_with_keeps_nothing_away_beyond_the_bounds(condition: Condition) -> None:
    health = Health()
    health.restore([Sick(KEY, condition)], NOW)
    assert 0 <= health.until(KEY, NOW) <= LONGEST_PAUSE
    assert health.state(KEY, NOW + LONGEST_PAUSE) == "up"
    assert health.take(KEY, NOW + LONGEST_PAUSE)


def test_a_file_that_counts_below_zero_keeps_no_breaker_from_opening() -> None:
    health = Health()
    health.restore([Sick(KEY, Condition(failures=-7)), Sick(OTHER, Condition(openings=-1))], NOW)
    assert not health._kept
    health.restore([Sick(KEY, Condition(failures=-7, cooled=NOW, cooldown=5, openings=-1))], NOW)
    fail(health)
    assert look(health, NOW) == ("down", PAUSE)


def test_an_open_breaker_is_not_taken_over_where_none_may_open() -> None:
    never = Health(failures=0)
    never.restore(opened().snapshot(NOW), NOW)
    assert never.state(KEY, NOW) == "up"


def test_no_more_is_taken_over_than_may_be_remembered() -> None:
    health = Health(limit=10)
    health.restore([Sick((str(number), "m", ""), Condition(openings=1, opened=NOW)) for number in range(100)], NOW)
    assert 0 < len(health.snapshot(NOW)) <= 10


moves = st.lists(
    st.tuples(
        st.sampled_from(["take", "good", "bad", "cool", "released", "restart"]),
        st.sampled_from([KEY, OTHER]),
        st.sampled_from([0.0, 0.5, 10.0, 30.0, 61.0, 301.0, -1.0, -1000.0]),
        st.sampled_from([0.0, 5.0, 100.0]),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(moves)
def test_whatever_happens_it_is_asked_again_in_time_and_by_one_at_a_time(
    told: list[tuple[str, tuple[str, ...], float, float]],
) -> None:
    health, now, latest = Health(failures=2), NOW, NOW
    for what, key, passed, seconds in told:
        now += passed
        latest = max(latest, now)
        if what == "take":
            state = health.state(key, now)
            assert health.take(key, now) == (state != "down")
        elif what == "cool":
            health.cool(key, now, seconds)
        elif what == "released":
            health.released(key)
        elif what == "restart":
            kept, health = kept_in_a_file(health.snapshot(now)), Health(failures=2)
            health.restore(kept, now)
        else:
            (health.good if what == "good" else health.bad)(key, now)
        for each in (KEY, OTHER):
            assert (health.state(each, now) == "up") == (health.until(each, now) == 0)
            assert 0 <= health.until(each, now) <= LONGEST_PAUSE
            assert health.state(each, latest + LOST_PROBE) == "up"
        assert all(sick.condition != Condition() for sick in health.snapshot(now))
