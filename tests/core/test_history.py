"""What each of the last minutes holds, told by the difference between two looks at the same sums."""

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.cost import Usage
from proxy.core.bill import Bill
from proxy.core.books import Answered
from proxy.core.history import GROUPS, MINUTE, MINUTES, NUMBERS, TIMED, Figures, History
from proxy.core.tally import SECONDS, Tallies
from tests.core.making import unknown
from tests.ledger.told import answer

D = Decimal
NOW = 1_700_000_040  # a minute begins
USAGE = Usage(input=100, cached=40, output=20, reasoning=5)
OPTION = unknown("m")


def rig() -> tuple[Tallies, History]:
    tallies = Tallies()
    return tallies, History(tallies)


def answered(tallies: Tallies, **different: Any) -> None:
    row = answer(**different)
    tallies.answered(row, row.model, row.key)


def billed(tallies: Tallies, bill: Bill, key: str = "pk_1") -> None:
    tallies.payer("sim", "sim-1", key, key).add(bill)


def totals(history: History, now: float, key: str | None = None) -> Figures:
    total = Figures()
    for _, figures in history.minutes(now, key):
        total.add(figures)
    return total


def requests(history: History, now: float) -> list[tuple[int, int]]:
    """By minutes since NOW."""
    return [((began - NOW) // MINUTE, figures.requests) for began, figures in history.minutes(now)]


def test_before_anybody_looked_there_is_nothing() -> None:
    tallies, history = rig()
    answered(tallies)
    assert list(history.minutes(NOW)) == []
    assert history.models() == {}


def test_what_came_between_two_looks_belongs_to_the_minute_of_the_later_one() -> None:
    tallies, history = rig()
    for second, count in ((0, 1), (1, 2), (59.9, 4), (60, 8), (119, 16), (180, 32)):
        for _ in range(count):
            answered(tallies)
        history.look(NOW + second)
    assert requests(history, NOW + 185) == [(0, 7), (1, 24), (2, 0), (3, 32)]


def test_no_minute_is_left_out_between_the_first_and_now() -> None:
    _, history = rig()
    history.look(NOW + 30)
    assert [began for began, _ in history.minutes(NOW + 200)] == [NOW, NOW + 60, NOW + 120, NOW + 180]


def test_after_an_hour_a_minute_is_forgotten() -> None:
    tallies, history = rig()
    for minute in range(MINUTES + 3):
        answered(tallies)
        history.look(NOW + minute * MINUTE)
    found = requests(history, NOW + (MINUTES + 2) * MINUTE)
    assert found == [(minute, 1) for minute in range(3, MINUTES + 3)]
    assert history.models()["sim", "sim-1"].requests == MINUTES


def test_what_was_told_before_is_told_again_and_no_more() -> None:
    tallies, history = rig()
    answered(tallies, outcome="hit", saved=D("0.5"))
    for second in (0, 1, 61, 62):
        history.look(NOW + second)
        assert (totals(history, NOW + 62).hits, totals(history, NOW + 62).saved_cache) == (1, 0.5)


def test_a_clock_that_goes_back_opens_no_minute_anew() -> None:
    tallies, history = rig()
    history.look(NOW + 70)
    answered(tallies)
    history.look(NOW + 10)
    assert requests(history, NOW + 70) == [(1, 1)]


def test_a_clock_that_was_far_ahead_leaves_no_hour_without_minutes_behind() -> None:
    tallies, history = rig()
    answered(tallies)
    history.look(NOW + 24 * 60 * MINUTE)
    answered(tallies)
    history.look(NOW + 24 * 60 * MINUTE + 1)
    for minute in range(3):
        answered(tallies)
        history.look(NOW + minute * MINUTE)
    assert requests(history, NOW + 2 * MINUTE) == [(0, 1), (1, 1), (2, 1)]


def test_whoever_asks_by_a_clock_that_is_back_sees_the_newest_minute_too() -> None:
    tallies, history = rig()
    answered(tallies)
    history.look(NOW + 70)
    assert requests(history, NOW + 10) == [(1, 1)]


@pytest.mark.parametrize(
    ("row", "counted"),
    [
        ({"outcome": "hit", "saved": D(1)}, "hits"),
        ({"outcome": "stale", "saved": D(0)}, "stale"),
        ({"outcome": "collapsed", "leader": "req_0", "saved": D(1)}, "collapsed"),
        ({"outcome": "miss"}, "misses"),
        ({"outcome": "bypass"}, "bypassed"),
        ({"outcome": "refused", "status": 503}, "refused"),
        ({"outcome": "broken"}, "failed"),
        ({"outcome": "left", "status": 499}, ""),
        ({"outcome": "miss", "status": 502}, "failed"),
        ({"outcome": "miss", "status": 404}, ""),  # no answer that the cache might have given
        ({"outcome": "hit", "saved": None}, "hits saved_unknown"),
        ({"outcome": "collapsed", "leader": "req_0", "status": 404}, ""),
        ({"outcome": "bypass", "shadow": "hit"}, "bypassed would_hit"),
        ({"outcome": "bypass", "shadow": "collapsed"}, "bypassed would_join"),
        ({"outcome": "bypass", "shadow": "miss"}, "bypassed would_miss"),
        ({"outcome": "collapsed", "status": 504}, "failed"),
    ],
)
def test_a_request_is_counted_as_what_it_was(row: dict[str, Any], counted: str) -> None:
    tallies, history = rig()
    answered(tallies, **row)
    history.look(NOW)
    figures = totals(history, NOW)
    assert figures.requests == 1
    found = {name for name in NUMBERS if getattr(figures, name)} - {"saved_cache", "saved_collapse"}
    assert found == {"requests", *counted.split()}


def test_what_no_endpoint_saw_is_counted_as_refused() -> None:
    tallies, history = rig()
    tallies.refused("wire", 503)
    history.look(NOW)
    assert (totals(history, NOW).requests, totals(history, NOW).refused) == (1, 1)


def test_the_ratio_is_of_all_that_could_be_answered_again() -> None:
    assert Figures().hit_ratio is Figures(bypassed=3, refused=2).hit_ratio is None
    assert Figures(hits=1, stale=1, collapsed=1, misses=1, bypassed=5, refused=5).hit_ratio == 0.75
    assert Figures(misses=2).hit_ratio == 0


def test_money_and_tokens_are_those_of_the_bills() -> None:
    tallies, history = rig()
    billed(tallies, Bill(OPTION, USAGE, D("0.25"), routing=D("0.5")))
    history.look(NOW)
    billed(tallies, Bill(OPTION, USAGE, D("0.5"), estimated=True, routing=D("-2")))
    billed(tallies, Bill(OPTION))
    tallies.payer("sim", "sim-1", "pk_1", "pk_1").would("cache", D("0.125"))
    history.look(NOW + 60)
    (_, first), (_, second) = history.minutes(NOW + 60)
    assert (first.spent, first.saved_routing, first.input, first.output) == (0.25, 0.5, 100, 20)
    assert (second.spent, second.saved_routing, second.input, second.output) == (0.5, 0, 100, 20)
    assert (second.unpriced, second.would_save) == (1, 0.125)
    assert (first.saved, first.requests) == (0.5, 0)


def test_all_tokens_are_input_or_output() -> None:
    every = Usage(
        input=1000,
        cached=100,
        output=500,
        written=50,
        written_1h=60,
        audio_input=200,
        audio_cached=20,
        reasoning=30,
        audio_output=70,
    )
    tallies, history = rig()
    billed(tallies, Bill(OPTION, every))
    history.look(NOW)
    assert (totals(history, NOW).input, totals(history, NOW).output) == (1000, 500)


def test_the_median_is_of_streams_by_their_outcome() -> None:
    tallies, history = rig()
    for outcome, token in (("hit", 0.0004), ("miss", 0.7), ("miss", 0.7), ("bypass", 9.0), ("hit", None)):
        answered(tallies, outcome=outcome, token=token)
    history.look(NOW)
    figures = totals(history, NOW)
    assert figures.median("miss") == 0.75
    assert figures.median("hit") == 0.0005
    assert figures.median("bypass") == 7.5
    assert figures.median("collapsed") is None


def test_a_key_sees_its_own() -> None:
    tallies, history = rig()
    for key, count in (("pk_1", 1), ("pk_2", 2)):
        for _ in range(count):
            answered(tallies, key=key)
            billed(tallies, Bill(OPTION, USAGE, D(1)), key)
    answered(tallies, key="pk_2", model="sim-2")
    history.look(NOW)
    assert [
        (totals(history, NOW, key).requests, totals(history, NOW, key).spent) for key in ("pk_1", "pk_2", None)
    ] == [
        (1, 1),
        (3, 2),
        (4, 3),
    ]
    assert totals(history, NOW, "pk_3") == Figures()
    assert history.models("pk_1").keys() == {("sim", "sim-1")}
    assert {place: figures.requests for place, figures in history.models("pk_2").items()} == {
        ("sim", "sim-1"): 2,
        ("sim", "sim-2"): 1,
    }


def test_a_minute_that_is_over_is_told_as_it_was_when_it_ran() -> None:
    tallies, history = rig()
    for minute in range(3):
        for key in ("pk_1", "pk_2"):
            answered(tallies, key=key, token=0.7)
        history.look(NOW + minute * MINUTE)
        for _ in range(2):
            assert requests(history, NOW + minute * MINUTE) == [(each, 2) for each in range(minute + 1)]
            assert sum(history.models()["sim", "sim-1"].first["miss"]) == 2 * (minute + 1)


def test_beyond_so_many_groups_of_a_minute_requests_are_nobodys_and_still_counted() -> None:
    tallies, history = rig()
    for number in range(GROUPS + 5):
        answered(tallies, key=f"pk_{number}")
    history.look(NOW)
    assert totals(history, NOW).requests == GROUPS + 5
    assert totals(history, NOW, "").requests == 5
    assert totals(history, NOW, f"pk_{GROUPS - 1}").requests == 1


def tried(tallies: Tallies, attempts: int, failed: int) -> None:
    for number in range(attempts):
        tallies.tried("sim", "sim-1", failed=number < failed)


def test_attempts_are_those_of_the_last_hour() -> None:
    tallies, history = rig()
    assert history.tried() == {}
    tried(tallies, 5, 1)  # before the first look
    history.look(NOW)
    assert history.tried() == {("sim", "sim-1"): (5, 1)}
    tried(tallies, 3, 2)
    history.look(NOW + 30)
    assert history.tried() == {("sim", "sim-1"): (8, 3)}
    for minute in range(1, MINUTES + 1):
        history.look(NOW + minute * MINUTE)
    assert history.tried() == {("sim", "sim-1"): (0, 0)}
    tried(tallies, 1, 1)
    assert history.tried() == {("sim", "sim-1"): (1, 1)}


def test_attempts_after_an_hour_in_which_nobody_looked_are_the_last_hours() -> None:
    tallies, history = rig()
    tried(tallies, 5, 1)
    history.look(NOW)
    tried(tallies, 2, 1)
    history.look(NOW + 2 * MINUTES * MINUTE)
    assert history.tried() == {("sim", "sim-1"): (2, 1)}


# Whatever comes and whenever somebody looks.

WOULD = {"hit": "would_hit", "collapsed": "would_join", "miss": "would_miss"}
OUTCOMES = ("hit", "stale", "collapsed", "miss", "bypass", "refused", "left", "broken")
usd = st.sampled_from([None, D(0), D("0.001"), D("0.25"), D("12.5")])
rows = st.builds(
    lambda outcome, status, key, model, saved, token, leader, shadow: answer(
        outcome=outcome, status=status, key=key, model=model, saved=saved, token=token, leader=leader, shadow=shadow
    ),
    st.sampled_from(OUTCOMES),
    st.sampled_from([200, 404, 499, 502]),
    st.sampled_from(["", "pk_1", "pk_2"]),
    st.sampled_from(["m", "n", "other"]),
    usd,
    st.none() | st.floats(min_value=0, max_value=200),
    st.sampled_from([None, "req_0"]),
    st.sampled_from([None, *WOULD]),
)
bills = st.builds(
    lambda usage, usd, estimated, routing: Bill(OPTION, usage, usd, estimated=estimated, routing=routing),
    st.sampled_from([None, USAGE, Usage(input=7, cached=0, output=3)]),
    usd,
    st.booleans(),
    st.sampled_from([None, D(0), D("0.5"), D("-0.5")]),
)
looks = st.floats(min_value=0, max_value=(MINUTES - 1) * MINUTE)


def told_by(tallies: Tallies, event: object, look: Callable[[float], None]) -> None:
    if isinstance(event, Answered):
        tallies.answered(event, event.model, event.key)
    elif isinstance(event, Bill):
        paid = tallies.payer("sim", "m", "pk_1", "team")
        paid.add(event)
        if event.usd is not None:
            paid.would("cache", event.usd)
    elif isinstance(event, float):
        look(NOW + event)


def summed(values: Iterable[float]) -> object:
    return pytest.approx(sum(values), abs=1e-9)


@given(st.lists(rows | bills | looks, max_size=60))
def test_all_minutes_of_an_hour_add_up_to_the_tallies_own_sums(events: list[object]) -> None:
    tallies, history = rig()
    for event in events:
        told_by(tallies, event, history.look)
    end = NOW + MINUTES * MINUTE - 1
    history.look(end)
    total, models = totals(history, end), Figures()
    for figures in history.models().values():
        models.add(figures)
    answers, paid = tallies.answers.values(), tallies.paid.values()
    assert total.requests == sum(each.count for each in answers)
    for outcome, name in zip(OUTCOMES, ("hits", "stale", "collapsed", "misses", "bypassed", "refused"), strict=False):
        found = [each for each in answers if each.labels.outcome == outcome]
        answered = [each for each in found if outcome not in ("miss", "collapsed") or each.labels.status == "200"]
        assert getattr(total, name) == sum(each.count for each in answered)
    for would, name in WOULD.items():
        assert getattr(total, name) == sum(each.shadow.get(would, 0) for each in answers)
    assert total.saved_unknown == sum(each.unknown for each in answers)
    assert total.saved_cache == summed(each.saved.get("cache", 0) for each in answers)
    assert total.saved_collapse == summed(each.saved.get("collapse", 0) for each in answers)
    for outcome in TIMED:
        tokens = [sum(each.token.counts) for each in answers if each.labels.outcome == outcome]
        assert sum(total.first.get(outcome, [])) == sum(tokens)
    assert total.spent == summed(each.usd for each in paid)
    assert total.saved_routing == summed(each.routing for each in paid)
    assert total.would_save == summed(usd for each in paid for usd in each.would_save.values())
    assert total.unpriced == sum(each.unpriced for each in paid)
    assert total.input + total.output == sum(sum(each.tokens.values()) for each in paid)
    for name in NUMBERS:
        assert getattr(models, name) == pytest.approx(getattr(total, name), abs=1e-9)
    assert all(len(counts) == len(SECONDS) + 1 for counts in total.first.values())
