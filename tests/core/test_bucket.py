"""No 60 seconds hold more than the limit, and no less is let through than may be."""

import math
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.access import UNLIMITED, Limits
from proxy.core.bucket import MINUTE, OFTEN, TICK, Cell, Full, Held, Quota, Quotas, Window

NOW = 1000.0
STEP = 1 / 64  # times are multiples of it: floats are exact then
LIMIT = 20

Taken = tuple[float, int]


def in_the_minute_before(now: float, taken: Iterable[Taken], *, longer: float = 0.0) -> int:
    return sum(amount for at, amount in taken if now - MINUTE - longer < at)


def filled(*amounts: int, every: float = 1.0) -> Window:
    """A window in which so much was taken, the first at NOW."""
    window = Window()
    for number, amount in enumerate(amounts):
        window.add(amount, NOW + number * every)
    return window


moves = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "give back", "settle"]),
        st.one_of(st.just(0), st.integers(0, 20), st.integers(0, 70 * 64)),  # steps that pass before it
        st.integers(1, LIMIT + 2),
    ),
    max_size=80,
)


@settings(max_examples=300, deadline=None)
@given(moves)
def test_no_minute_holds_more_than_the_limit_and_nothing_is_refused_that_fits(
    script: list[tuple[str, int, int]],
) -> None:
    window, now = Window(), NOW
    cells: list[Cell] = []
    taken: list[Taken] = []
    for what, steps, amount in script:
        now += steps * STEP
        if what == "take" or not taken:
            if window.wait(amount, LIMIT, now) == 0:
                assert in_the_minute_before(now, taken) + amount <= LIMIT
                cells.append(window.add(amount, now))
                taken.append((now, amount))
            else:
                assert in_the_minute_before(now, taken, longer=TICK) + amount > LIMIT
        else:
            which = amount % len(taken)
            at, before = taken[which]
            after = 0 if what == "give back" else min(amount, before)
            cells[which] = window.change(cells[which], after - before, now)
            taken[which] = (at, after)
        assert window.used(now) >= in_the_minute_before(now, taken)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(1, LIMIT)), min_size=1, max_size=30),
    st.integers(1, LIMIT + 1),
)
def test_it_fits_after_the_wait_and_not_before(came: list[tuple[int, int]], amount: int) -> None:
    window, now = Window(), NOW
    for steps, each in came:
        now += steps * STEP
        if window.wait(each, LIMIT, now) == 0:
            window.add(each, now)
    seconds = window.wait(amount, LIMIT, now)
    assert (seconds == math.inf) == (amount > LIMIT)
    if 0 < seconds < math.inf:
        assert seconds <= MINUTE
        assert window.wait(amount, LIMIT, now + seconds - STEP) == STEP
        assert window.wait(amount, LIMIT, now + seconds) == 0


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40 * 64), st.sampled_from([0, 0, 0, 1, 64, 3600 * 64]), st.integers(1, LIMIT)))
)
def test_a_clock_that_goes_back_lets_no_more_through_and_stops_nobody_for_longer(
    script: list[tuple[int, int, int]],
) -> None:
    window, real, behind = Window(), NOW, 0.0
    taken: list[Taken] = []
    for steps, back, amount in script:
        real += steps * STEP
        behind += back * STEP
        seconds = window.wait(amount, LIMIT, real - behind)
        if seconds == 0:
            assert in_the_minute_before(real, taken) + amount <= LIMIT
            window.add(amount, real - behind)
            taken.append((real, amount))
        assert seconds <= MINUTE
        assert 0 <= window.standing(real - behind)[1] <= MINUTE
    assert window.empty(real - behind + MINUTE)


def test_the_whole_limit_fits_at_once_and_again_a_minute_later() -> None:
    window = filled(LIMIT)
    assert window.wait(1, LIMIT, NOW + MINUTE - STEP) == STEP
    assert window.wait(LIMIT, LIMIT, NOW + MINUTE) == 0


def test_a_minute_of_the_heaviest_traffic_costs_no_more_cells_than_it_has_ticks() -> None:
    window = Window()
    for number in range(70_000):
        window.add(1, NOW + number / 1000)
        assert len(window._cells) <= MINUTE / TICK + 1
    assert 60_000 <= window.used(NOW + 69.999) <= 1.01 * 60_000


def test_what_came_within_a_tick_counts_until_the_last_of_it_is_a_minute_old() -> None:
    window = filled(1, 1, every=TICK / 2)
    assert window.used(NOW + MINUTE) == 2
    assert window.used(NOW + MINUTE + TICK / 2) == 0


def test_a_trickle_does_not_keep_a_tick_open() -> None:
    window = filled(*[1] * 200, every=TICK / 2)
    assert window.used(NOW + MINUTE + TICK) < 200


def test_what_is_given_back_may_be_taken_again_and_only_while_it_is_in_the_window() -> None:
    window = Window()
    old, young = window.add(10, NOW), window.add(10, NOW + 30)
    window.change(young, -4, NOW + 31)
    assert window.used(NOW + 31) == 16
    window.change(old, -10, NOW + 61)
    assert window.used(NOW + 61) == 6


def test_what_was_used_beyond_the_reservation_counts_with_it_and_from_now_where_that_is_gone() -> None:
    window = Window()
    cell = window.add(10, NOW)
    assert window.change(cell, 5, NOW + 30) is cell
    assert window.used(NOW + 59) == 15
    late = window.change(cell, 7, NOW + 60)
    assert late is not cell
    assert [window.used(NOW + 119), window.used(NOW + 120)] == [7, 0]


def test_what_was_all_given_back_and_is_used_after_all_counts_from_now() -> None:
    window = Window()
    cell = window.add(5, NOW)
    window.change(cell, -5, NOW)
    assert window.empty(NOW)
    window.change(cell, 7, NOW + 30)
    assert [window.used(NOW + 89), window.used(NOW + 90)] == [7, 0]


def test_a_clock_that_goes_back_keeps_no_tick_open() -> None:
    window = filled(1, every=0)
    for second in range(200):
        window.add(1, NOW - 3600 + second)
    assert window.used(NOW - 3600 + 199) == MINUTE


def test_a_window_is_empty_again_when_the_last_that_counts_has_left_it() -> None:
    window = Window()
    window.add(3, NOW)
    last = window.add(3, NOW + 10)
    assert window.standing(NOW + 10)[1] == MINUTE
    window.change(last, -3, NOW + 10)
    assert window.standing(NOW + 10)[1] == MINUTE - 10
    assert window.standing(NOW + MINUTE)[1] == 0


def test_what_is_larger_than_the_limit_never_fits_even_where_nothing_was_used() -> None:
    assert Window().wait(LIMIT + 1, LIMIT, NOW) == math.inf
    assert Window().wait(LIMIT, LIMIT, NOW) == 0


def test_a_limit_that_is_lowered_counts_what_was_used_before() -> None:
    window = filled(5, 5)
    assert window.wait(1, 10, NOW + 2) == MINUTE - 2
    assert window.wait(1, 5, NOW + 2) == MINUTE - 1
    assert window.wait(1, 20, NOW + 2) == 0


ALL = Limits(requests_per_minute=3, tokens_per_minute=100, max_concurrent=2)


def test_of_requests_tokens_and_places_all_are_taken_or_none() -> None:
    quota = Quota(ALL)
    quota.take(90, NOW)
    assert not quota.fits(11, NOW)
    assert quota.full(11, NOW) == Full("tokens", MINUTE, 100)
    assert (quota.requests.used(NOW), quota.tokens.used(NOW), quota.inside) == (1, 90, 1)
    assert quota.fits(10, NOW)


def test_each_kind_says_what_it_is_full_of_and_the_longest_wait_is_told() -> None:
    quota = Quota(ALL)
    held = [quota.take(1, NOW), quota.take(1, NOW)]
    assert quota.full(1, NOW) == Full("concurrent", 0.0, 2)
    held[0].leave()
    assert quota.full(1, NOW) is None
    quota.take(1, NOW + 1)
    assert quota.full(1, NOW + 1) == Full("requests", MINUTE - 1, 3)
    assert quota.full(101, NOW + 1) == Full("tokens", math.inf, 100)


def test_a_place_comes_back_once() -> None:
    quota = Quota(ALL)
    with quota.take(1, NOW) as first:
        quota.take(1, NOW)
        assert not quota.fits(1, NOW)
        first.leave()
    first.leave()
    first.undo(NOW)
    assert quota.inside == 1


def test_what_is_settled_is_settled_by_the_first_word() -> None:
    quota = Quota(ALL)
    held = quota.take(50, NOW)
    held.settle(20, NOW + 1)
    held.settle(90, NOW + 1)
    assert quota.tokens.used(NOW + 1) == 20


def test_what_was_never_made_leaves_nothing_behind() -> None:
    quota = Quota(ALL)
    held = quota.take(50, NOW)
    held.undo(NOW + 1)
    held.undo(NOW + 1)
    held.settle(50, NOW + 1)
    assert quota.idle(NOW + 1)


def test_tokens_that_nobody_expected_count_when_they_are_settled() -> None:
    quota = Quota(ALL)
    quota.take(0, NOW).settle(70, NOW + 5)
    assert quota.tokens.used(NOW + 5 + MINUTE - STEP) == 70


def test_no_limit_counts_places_only_so_that_they_can_be_shown() -> None:
    quota = Quota(UNLIMITED)
    held = [quota.take(10**9, NOW) for _ in range(1000)]
    assert quota.fits(10**9, NOW)
    assert quota.full(10**9, NOW) is None
    assert not quota.never(10**12)
    assert quota.inside == 1000
    for each in held:
        each.leave()
    assert quota.idle(NOW)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["take", "leave", "settle", "undo"]), st.integers(0, 64 * 20), st.integers(0, 120))
    )
)
def test_a_quota_is_within_all_its_limits_and_idle_a_minute_after_all_have_left(
    script: list[tuple[str, int, int]],
) -> None:
    quota, now = Quota(ALL), NOW
    held: list[Held] = []
    for what, steps, amount in script:
        now += steps * STEP
        if what == "take":
            assert quota.fits(amount, now) == (quota.full(amount, now) is None)
            if quota.fits(amount, now):
                held.append(quota.take(amount, now))
                assert quota.tokens.used(now) <= 100 or not amount
        elif held:
            each = held[amount % len(held)]
            if what == "leave":
                each.leave()
            elif what == "settle":
                each.settle(amount, now)
            else:
                each.undo(now)
        assert 0 <= quota.inside <= 2
        assert 0 <= quota.requests.used(now) <= 3
        assert quota.tokens.used(now) >= 0
    for each in held:
        each.leave()
    assert quota.idle(now + MINUTE)


@pytest.mark.parametrize(
    ("limits", "requests", "tokens", "seconds"),
    [
        (UNLIMITED, 10**6, 10**9, 0.0),
        (Limits(requests_per_minute=10), 10, 0, 0.0),
        (Limits(requests_per_minute=10), 11, 0, MINUTE),
        (Limits(requests_per_minute=10), 30, 0, 2 * MINUTE),
        (Limits(tokens_per_minute=100), 5, 101, MINUTE),
        (Limits(max_concurrent=4), 4, 0, 0.0),
        (Limits(max_concurrent=4), 12, 0, 6.0),
    ],
)
def test_a_wait_behind_others_is_as_long_as_all_of_them_take(
    limits: Limits, requests: int, tokens: int, seconds: float
) -> None:
    assert Quota(limits).behind(requests, tokens, NOW, 3.0) == seconds


def test_the_quota_of_a_key_keeps_what_was_used_when_its_limits_change() -> None:
    quotas = Quotas()
    quotas.of("a", ALL, NOW).take(60, NOW)
    assert quotas.get("b") is None
    changed = quotas.of("a", Limits(tokens_per_minute=80), NOW)
    assert not changed.fits(21, NOW)
    assert changed.fits(20, NOW)


def test_quotas_of_keys_that_are_idle_are_dropped_as_others_come() -> None:
    quotas = Quotas()
    inside = quotas.of("inside", ALL, NOW).take(0, NOW)
    spent = quotas.of("spent", ALL, NOW + 30 * MINUTE)
    spent.tokens.add(1, NOW + 30 * MINUTE)
    for number in range(20 * OFTEN):
        quotas.of(f"once {number}", ALL, NOW).take(5, NOW).leave()
    assert len(quotas) == 20 * OFTEN + 2
    for number in range(40 * OFTEN):
        quotas.of(f"later {number}", ALL, NOW + 30 * MINUTE + number / 100)
    assert len(quotas) <= 2 * OFTEN
    inside.leave()


def test_a_quota_in_use_is_never_dropped() -> None:
    quotas = Quotas()
    inside = quotas.of("inside", ALL, NOW)
    inside.take(0, NOW)
    for number in range(3 * OFTEN):
        quotas.of(f"other {number}", ALL, NOW + 10 * MINUTE)
    assert quotas.get("inside") is inside
