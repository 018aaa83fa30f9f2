"""Percentiles, totals and money, by hand."""

import re
from decimal import Decimal

import pytest

from pricing.cost import Usage
from proxy.demo.figures import (
    Answer,
    Money,
    Outcome,
    Served,
    Tally,
    disagreement,
    first_tokens,
    money,
    outcome_of,
    paid,
    percentile,
    total,
)


def answer(outcome: Outcome, *, model: str = "sim-large", first: float | None = 0.1) -> Answer:
    return Answer("work", model, outcome, Usage(input=1000, cached=400, output=100), first)


def counted(calls: int, model: str = "sim-large") -> Tally:
    return Tally(calls, 0, calls, {model: Served(calls, 1000 * calls, 400 * calls, 100 * calls)})


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("penstock; hit; ttl=3541", "hit"),
        ("penstock; fwd=miss; stored", "miss"),
        ("penstock; fwd=miss", "miss"),
        ("penstock; fwd=miss; collapsed", "collapsed"),
        ("penstock; fwd=bypass; detail=no-store", None),
        ("penstock; fwd=stale; stored", None),
        ("other; hit", None),
        ("", None),
    ],
)
def test_cache_status_says_how_a_call_was_answered(status: str, outcome: Outcome | None) -> None:
    assert outcome_of(status) == outcome


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 5), (0.51, 6), (0.95, 10), (1.0, 10)])
def test_a_percentile_is_one_of_the_values(share: float, value: float) -> None:
    assert percentile([10, 9, 8, 7, 6, 5, 4, 3, 2, 1], share) == value


def test_a_single_value_is_every_percentile_and_of_none_there_is_none() -> None:
    assert percentile([7.0], 0.5) == percentile([7.0], 0.95) == 7.0
    assert percentile([], 0.5) is None


def test_first_tokens_are_those_of_streamed_answers_of_one_outcome() -> None:
    answers = [answer("hit", first=0.002), answer("hit", first=None), answer("miss", first=0.3)]
    assert first_tokens(answers, "hit") == [0.002]


def test_usages_add_up() -> None:
    assert total([Usage(10, 4, 1), Usage(5, 0, 2)]) == Usage(15, 4, 3)
    assert total([]) == Usage(0, 0, 0)


def test_only_misses_are_paid() -> None:
    answers = [answer("miss"), answer("hit"), answer("collapsed"), answer("miss"), answer("miss", model="sim-small")]
    assert paid(answers) == {"sim-large": Served(2, 2000, 800, 200), "sim-small": Served(1, 1000, 400, 100)}


def test_a_count_that_agrees_is_no_disagreement() -> None:
    assert disagreement([answer("miss"), answer("hit"), answer("miss")], counted(2)) is None
    assert disagreement([], Tally(0, 0, 0, {})) is None


@pytest.mark.parametrize(
    ("tally", "said"),
    [
        (counted(2), "counted 2 calls"),
        (Tally(1, 1, 0, counted(1).by_model), r"\(0 answered\)"),
        (counted(1, model="sim-small"), "sim-large: the provider counted None"),
        (Tally(1, 0, 1, {"sim-large": Served(1, 1000, 400, 99)}), "sim-large: the provider counted Served"),
    ],
)
def test_a_call_or_a_token_too_many_is_seen(tally: Tally, said: str) -> None:
    wrong = disagreement([answer("miss"), answer("hit")], tally)
    assert wrong is not None
    assert re.search(said, wrong)


def test_money_is_every_asked_call_against_what_the_provider_counted() -> None:
    # sim-large: 600 × 2.00 + 400 × 0.50 + 100 × 8.00 = 2,200 millionths a call
    amounts = money([answer("miss"), answer("hit"), answer("hit"), answer("collapsed")], counted(1).by_model)
    assert amounts == Money(without=Decimal("0.0088"), with_penstock=Decimal("0.0022"))
    assert amounts.saved == Decimal("0.0066")
    assert amounts.percent == 75.0


def test_of_nothing_nothing_is_saved() -> None:
    assert money([], {}).percent == 0.0
