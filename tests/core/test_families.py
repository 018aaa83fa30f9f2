"""Tallies are told by name and labels; what has fewer labels than it was counted by is added up."""

from decimal import Decimal
from typing import Any

from pricing.cost import Usage
from proxy.core.bill import Bill
from proxy.core.families import Family, families
from proxy.core.tally import Histogram, Tallies
from tests.core.making import unknown
from tests.ledger.told import answer

D = Decimal
USAGE = Usage(input=100, cached=40, output=20, reasoning=5)


def counted(family: Family) -> dict[tuple[str, ...], float]:
    """The values; of histograms, how many there are."""
    return {labels: sum(each.counts) if isinstance(each, Histogram) else each for labels, each in family.items()}


def told(*rows: tuple[str, Any]) -> Tallies:
    """Answers: the key's name and the row."""
    tallies = Tallies()
    for key, row in rows:
        tallies.answered(row, row.model, key)
    return tallies


def test_of_nothing_nothing_is_told() -> None:
    assert families(Tallies()) == {}


def test_requests_are_told_of_all_keys_together() -> None:
    keys = [("team", "pk_1"), ("team", "pk_2"), ("other", "pk_3")]
    found = families(told(*((name, answer(key=key)) for name, key in keys), ("team", answer(status=404))))
    here = ("chat", "sim-1", "sim", "miss")
    for name in ("requests", "request_seconds"):
        assert counted(found[name]) == {(*here, "200"): 3, (*here, "404"): 1}


def test_times_are_told_where_there_are_any_of_all_that_has_these_labels() -> None:
    rows = [answer(token=0.5), answer(status=206, token=2, overhead=0.25), answer(outcome="hit", overhead=0.75)]
    found = families(told(*(("team", row) for row in rows)))
    assert counted(found["first_token_seconds"]) == {("miss", "sim-1"): 2}
    assert counted(found["overhead_seconds"]) == {("miss",): 1, ("hit",): 1}
    token = found["first_token_seconds"]["miss", "sim-1"]
    assert isinstance(token, Histogram)
    assert token.sum == 2.5


def test_to_be_told_changes_nothing_that_was_counted() -> None:
    tallies = told(("team", answer(token=0.5)), ("team", answer(token=0.5, key="pk_2")))
    first = {name: counted(family) for name, family in families(tallies).items()}
    assert {name: counted(family) for name, family in families(tallies).items()} == first


def test_what_was_saved_is_told_by_the_keys_name() -> None:
    rows = [
        ("team", answer(outcome="hit", usage=USAGE, saved=D("0.5"))),
        ("team", answer(outcome="hit", usage=USAGE, saved=D("0.25"), key="pk_2")),
        ("other", answer(outcome="collapsed", usage=USAGE, saved=D("2"), leader="req_0", key="pk_3")),
    ]
    found = families(told(*rows))
    assert found["saved_usd"] == {("cache", "sim-1", "team"): 0.75, ("collapse", "sim-1", "other"): 2}
    assert found["saved_tokens"] == {
        ("cache", "sim-1", "input"): 200,
        ("cache", "sim-1", "output"): 40,
        ("collapse", "sim-1", "input"): 100,
        ("collapse", "sim-1", "output"): 20,
    }


def test_what_shadow_mode_saw_is_told_of_requests_and_of_what_they_cost() -> None:
    tallies = told(*(("team", answer(shadow=each)) for each in ("hit", "hit", "miss")))
    tallies.payer("sim", "sim-1", "pk_1", "team").would("cache", D("0.5"))
    found = families(tallies)
    assert found["shadow_requests"] == {("hit", "sim-1", "team"): 2, ("miss", "sim-1", "team"): 1}
    assert found["shadow_saved_usd"] == {("cache", "sim-1", "team"): 0.5}


def test_bills_are_told_by_what_they_say() -> None:
    tallies, option = Tallies(), unknown("m")
    for key, name in (("pk_1", "team"), ("pk_2", "other")):
        paid = tallies.payer("p", "m", key, name)
        paid.add(Bill(option, USAGE, D("0.25"), routing=D("0.5"), prompt_cache=D("0.125")))
        paid.add(Bill(option, None, D("1"), estimated=True, routing=D("-2")))
        paid.add(Bill(option))
    assert families(tallies) == {
        "cost_usd": {
            ("p", "m", "team", "false"): 0.25,
            ("p", "m", "team", "true"): 1,
            ("p", "m", "other", "false"): 0.25,
            ("p", "m", "other", "true"): 1,
        },
        "saved_usd": {("routing", "m", "team"): 0.5, ("routing", "m", "other"): 0.5},
        "overpaid_usd": {("m", "team"): 2, ("m", "other"): 2},
        "prompt_cache_saved_usd": {("p", "m"): 0.25},
        "unpriced_answers": {("p", "m"): 2},
        "tokens": {
            ("p", "m", "input"): 120,
            ("p", "m", "cached_input"): 80,
            ("p", "m", "output"): 30,
            ("p", "m", "reasoning"): 10,
        },
    }


def test_what_is_free_costs_0_and_what_has_no_price_costs_nothing_that_is_told() -> None:
    tallies = Tallies()
    tallies.payer("p", "free", "", "").add(Bill(unknown("free"), USAGE, D(0)))
    tallies.payer("p", "unpriced", "", "").add(Bill(unknown("unpriced"), USAGE))
    found = families(tallies)
    assert found["cost_usd"] == {("p", "free", "", "false"): 0}
    assert found["unpriced_answers"] == {("p", "unpriced"): 1}
    assert not found.keys() & {"saved_usd", "overpaid_usd", "prompt_cache_saved_usd"}
