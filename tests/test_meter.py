"""Every metric by its name and labels, in Prometheus' own format."""

import re
from decimal import Decimal

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pricing.cost import Usage
from pricing.tokens import Count
from proxy.core.access import Grant
from proxy.core.bill import Bill
from proxy.core.ranking import Estimate, Ranking
from proxy.core.routing import Option, Target
from proxy.meter import CONTENT_TYPE, MODELS, SECONDS, Budgeted, Meter

NAMES = {
    "penstock_requests",
    "penstock_first_byte_seconds",
    "penstock_attempts",
    "penstock_cost_usd",
    "penstock_saved_usd",
    "penstock_overpaid_usd",
    "penstock_prompt_cache_saved_usd",
    "penstock_tokens",
    "penstock_unpriced_answers",
    "penstock_decisions",
    "penstock_options_dropped",
    "penstock_recordings",
    "penstock_store_events",
    "penstock_flights",
    "penstock_connections",
    "penstock_readers",
    "penstock_recorded_bytes",
    "penstock_received_bytes",
    "penstock_requests_open",
    "penstock_memory_tier_bytes",
    "penstock_memory_tier_entries",
    "penstock_limit_refusals",
    "penstock_turn_wait_seconds",
    "penstock_calls_waiting",
    "penstock_calls_under_way",
    "penstock_budget_usd",
    "penstock_budget_spent_usd",
    "penstock_budget_reserved_usd",
    "penstock_budget_forecast_usd",
    "penstock_budget_nearly_spent",
    "penstock_ledger_events",
    "penstock_ledger_pending_rows",
    "penstock_ledger_lag_seconds",
}

Sample = tuple[str, tuple[tuple[str, str], ...]]


def samples(meter: Meter) -> dict[Sample, float]:
    """Value by name and labels."""
    families = text_string_to_metric_families(meter.exposition().decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_every_metric_is_there_from_the_start_with_a_word_on_what_it_is() -> None:
    meter = Meter()
    meter.watch_limits(dict, dict)
    meter.watch_budgets(list)
    families = {family.name: family for family in text_string_to_metric_families(meter.exposition().decode())}
    assert {name for name in families if not name.endswith("_created")} == NAMES
    assert all(families[name].documentation for name in NAMES)
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


def test_what_is_counted_is_counted_under_its_labels() -> None:
    meter = Meter()
    for _ in range(3):
        meter.request("chat", "hit", 200)
    meter.request("chat", "refused", 400)
    meter.attempt("openai", "", "ok")
    meter.attempt("openai", "", "upstream_reset")
    meter.stored("stored")
    meter.store_event("disk_corrupt")
    found = samples(meter)
    endpoint = ("endpoint", "chat")
    assert found["penstock_requests_total", (endpoint, ("outcome", "hit"), ("status", "200"))] == 3
    assert found["penstock_requests_total", (endpoint, ("outcome", "refused"), ("status", "400"))] == 1
    assert found["penstock_attempts_total", (("model", ""), ("provider", "openai"), ("result", "ok"))] == 1
    assert found["penstock_attempts_total", (("model", ""), ("provider", "openai"), ("result", "upstream_reset"))] == 1
    assert found["penstock_recordings_total", (("result", "stored"),)] == 1
    assert found["penstock_store_events_total", (("event", "disk_corrupt"),)] == 1


def test_the_time_to_the_first_byte_falls_into_its_bucket() -> None:
    meter = Meter()
    for seconds in (0.0004, 0.03, 0.04, 1000.0):
        meter.first_byte("chat", "miss", seconds)
    found = samples(meter)
    labels = (("endpoint", "chat"), ("outcome", "miss"))

    def bucket(bound: str) -> float:
        return found["penstock_first_byte_seconds_bucket", tuple(sorted((("le", bound), *labels)))]

    assert [bucket(bound) for bound in ("0.001", "0.025", "0.05", "120.0", "+Inf")] == [1, 1, 3, 3, 4]
    assert found["penstock_first_byte_seconds_count", labels] == 4
    assert list(SECONDS) == sorted(set(SECONDS))


def test_gauges_are_read_when_they_are_scraped() -> None:
    meter = Meter()
    now = {"flights": 1, "bytes": 10}
    meter.flights.set_function(lambda: now["flights"])
    meter.memory_bytes.set_function(lambda: now["bytes"])
    assert samples(meter)["penstock_flights", ()] == 1
    now |= {"flights": 7, "bytes": 20}
    found = samples(meter)
    assert (found["penstock_flights", ()], found["penstock_memory_tier_bytes", ()]) == (7, 20)


def test_limits_and_who_waits_at_them_are_told_by_provider() -> None:
    meter = Meter()
    meter.refused("tokens")
    meter.waited("openai", 0.03)
    waiting = {"openai": 0.0}
    meter.watch_limits(lambda: waiting, lambda: {"openai": 3})
    waiting["openai"] = 2.0
    found = samples(meter)
    provider = ("provider", "openai")
    assert found["penstock_limit_refusals_total", (("limit", "tokens"),)] == 1
    assert found["penstock_turn_wait_seconds_sum", (provider,)] == 0.03
    assert found["penstock_calls_waiting", (provider,)] == 2
    assert found["penstock_calls_under_way", (provider,)] == 3


def test_budgets_are_told_by_key_even_of_one_name_and_a_forecast_only_where_there_is_one() -> None:
    meter = Meter()
    month = Budgeted(Grant("team", "pk_1"), Decimal(50), Decimal(41), Decimal("0.5"), Decimal(61), nearly=True)
    total = Budgeted(Grant("team", "team"), Decimal(9), Decimal(0), Decimal(0), None, nearly=False)
    meter.watch_budgets(lambda: [month, total])
    found = {
        (name, *(dict(labels)[each] for each in ("key", "id"))): value
        for (name, labels), value in samples(meter).items()
        if name.startswith("penstock_budget")
    }
    assert found == {
        ("penstock_budget_usd", "team", "pk_1"): 50,
        ("penstock_budget_spent_usd", "team", "pk_1"): 41,
        ("penstock_budget_reserved_usd", "team", "pk_1"): 0.5,
        ("penstock_budget_forecast_usd", "team", "pk_1"): 61,
        ("penstock_budget_nearly_spent", "team", "pk_1"): 1,
        ("penstock_budget_usd", "team", "team"): 9,
        ("penstock_budget_spent_usd", "team", "team"): 0,
        ("penstock_budget_reserved_usd", "team", "team"): 0,
        ("penstock_budget_nearly_spent", "team", "team"): 0,
    }


def test_what_goes_wrong_in_the_ledger_is_counted() -> None:
    meter = Meter()
    meter.ledger_event("write_failed")
    meter.ledger_pending.set_function(lambda: 7)
    found = samples(meter)
    assert found["penstock_ledger_events_total", (("event", "write_failed"),)] == 1
    assert found["penstock_ledger_pending_rows", ()] == 7


def test_two_meters_do_not_count_together() -> None:
    one, other = Meter(), Meter()
    one.stored("stored")
    assert ("penstock_recordings_total", (("result", "stored"),)) not in samples(other)


def option(name: str) -> Option:
    return Option(name, Target("p", "http://p/v1", name))


def labels_of(found: dict[Sample, float], name: str) -> list[dict[str, str]]:
    """Of each sample of a metric."""
    return [dict(labels) for sample, labels in found if sample == name]


def models_of(meter: Meter) -> set[str]:
    return {labels["model"] for labels in labels_of(samples(meter), "penstock_attempts_total")}


def test_the_models_of_the_settings_are_labels_from_the_start() -> None:
    meter = Meter(["own"])
    for model in ("own", "said"):
        meter.attempt("p", model, "status_404")
    assert models_of(meter) == {"own", "other"}


def test_another_model_is_a_label_once_it_has_answered() -> None:
    meter = Meter(["own"])
    for result in ("status_404", "upstream_reset", "ok", "status_500"):
        meter.attempt("p", "said", result)
    counted = labels_of(samples(meter), "penstock_attempts_total")
    assert [(labels["model"], labels["result"]) for labels in counted] == [
        ("other", "status_404"),
        ("other", "upstream_reset"),
        ("said", "ok"),
        ("said", "status_500"),
    ]


def test_so_many_models_become_labels_and_no_more() -> None:
    meter = Meter(["own"])
    for number in range(MODELS + 10):
        meter.attempt("p", f"said {number}", "ok")
    meter.attempt("p", "own", "ok")
    assert models_of(meter) == {"own", "other", *(f"said {number}" for number in range(MODELS))}


def test_a_model_that_became_a_label_takes_no_second_place() -> None:
    meter = Meter()
    for _ in range(MODELS + 1):
        meter.attempt("p", "same", "ok")
    meter.attempt("p", "another", "ok")
    assert models_of(meter) == {"same", "another"}


def test_what_is_passed_through_has_no_model_and_is_no_other() -> None:
    meter = Meter()
    meter.attempt("p", "", "ok")
    assert models_of(meter) == {""}


USAGE = Usage(input=100, cached=40, output=20, reasoning=5)
HERE = (("model", "m"), ("provider", "p"))


def test_a_bill_is_counted_with_its_tokens_by_kind_each_once() -> None:
    meter = Meter(["m"])
    meter.billed(Bill(option("m"), USAGE, Decimal("0.25"), prompt_cache=Decimal("0.5")))
    meter.billed(Bill(option("m"), USAGE, Decimal("0.5"), estimated=True))
    found = samples(meter)
    assert found["penstock_cost_usd_total", (("estimated", "false"), *HERE)] == 0.25
    assert found["penstock_cost_usd_total", (("estimated", "true"), *HERE)] == 0.5
    assert found["penstock_prompt_cache_saved_usd_total", HERE] == 0.5
    tokens = {labels["kind"]: labels for labels in labels_of(found, "penstock_tokens_total")}
    counts = {kind: found["penstock_tokens_total", tuple(sorted(tokens[kind].items()))] for kind in tokens}
    assert counts == {"input": 120, "cached_input": 80, "output": 30, "reasoning": 10}
    assert not labels_of(found, "penstock_unpriced_answers_total")


@pytest.mark.parametrize("usage", [None, USAGE])
def test_a_bill_without_an_amount_counts_as_unpriced_and_adds_no_dollar(usage: Usage | None) -> None:
    meter = Meter(["m"])
    meter.billed(Bill(option("m"), usage))
    found = samples(meter)
    assert found["penstock_unpriced_answers_total", HERE] == 1
    assert not labels_of(found, "penstock_cost_usd_total")
    assert bool(labels_of(found, "penstock_tokens_total")) == (usage is not None)


def test_what_is_free_is_priced() -> None:
    meter = Meter(["m"])
    meter.billed(Bill(option("m"), USAGE, Decimal(0)))
    found = samples(meter)
    assert found["penstock_cost_usd_total", (("estimated", "false"), *HERE)] == 0
    assert not labels_of(found, "penstock_unpriced_answers_total")


def test_what_routing_saved_and_what_it_overpaid_are_apart_so_that_neither_falls() -> None:
    meter = Meter(["m"])
    for routing in ("0.5", "-0.25", "0", "0.5", "-0.125"):
        meter.billed(Bill(option("m"), USAGE, Decimal(1), routing=Decimal(routing)))
    found = samples(meter)
    assert found["penstock_saved_usd_total", (("cause", "routing"), ("model", "m"))] == 1
    assert found["penstock_overpaid_usd_total", (("model", "m"),)] == 0.375


def test_what_was_given_again_is_saved_where_its_worth_is_known() -> None:
    meter = Meter(["m"])
    for usd in (Decimal("0.5"), None, Decimal(0), Decimal("0.25")):
        meter.saved("cache", option("m"), usd)
    meter.saved("collapse", option("unnamed"), Decimal(2))
    found = samples(meter)
    assert found["penstock_saved_usd_total", (("cause", "cache"), ("model", "m"))] == 0.75
    assert found["penstock_saved_usd_total", (("cause", "collapse"), ("model", "other"))] == 2


def test_a_decision_is_counted_with_why_and_with_those_that_could_not_answer() -> None:
    meter = Meter(["a", "b"])
    first, second = (Estimate(option(name), Count(1)) for name in "ab")
    unfit = Estimate(option("b"), Count(1), reason="vision")
    meter.decided("fast", Ranking((first, second), (), "cheapest"))
    meter.decided("fast", Ranking((first,), (unfit,), "only"))
    meter.decided(None, Ranking((), (unfit,), "none"))
    found = samples(meter)
    decided = {tuple(labels.values()) for labels in labels_of(found, "penstock_decisions_total")}
    assert decided == {("a", "fast", "cheapest"), ("a", "fast", "only"), ("", "other", "none")}
    dropped = (("model", "b"), ("reason", "vision"), ("route", "fast"))
    assert found["penstock_options_dropped_total", dropped] == 1


def test_no_label_holds_what_a_client_said() -> None:
    said = re.findall(rb"^# HELP (\w+) ", Meter().exposition(), re.MULTILINE)
    assert said
    meter = Meter()
    labels = {name for metric in meter._registry.collect() for sample in metric.samples for name in sample.labels}
    meter.request("chat", "hit", 200)
    meter.first_byte("chat", "hit", 0.1)
    meter.attempt("p", "", "ok")
    meter.attempt("p", "said", "status_404")
    meter.billed(Bill(option("said"), USAGE, Decimal(1), routing=Decimal(-1), prompt_cache=Decimal(1)))
    meter.billed(Bill(option("said")))
    meter.saved("cache", option("said"), Decimal(1))
    meter.decided(None, Ranking((), (Estimate(option("said"), Count(1), reason="vision"),), "none"))
    assert b"said" not in meter.exposition().replace(b"was said", b"")
    labels |= {name for metric in meter._registry.collect() for sample in metric.samples for name in sample.labels}
    answers = {"endpoint", "outcome", "status", "le"}
    money = {"provider", "model", "estimated", "cause", "kind"}
    assert labels == answers | money | {"result", "route", "why", "reason"}
