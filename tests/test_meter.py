"""Every metric by its name and labels, in Prometheus' own format.

`python -m tests.test_meter > grafana/METRICS.md` makes the table for readers again.
"""

import gc
import re
from collections.abc import Iterator
from decimal import Decimal
from itertools import count, product
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from pricing.cost import Usage
from pricing.tokens import Count
from proxy.core.access import NOBODY, Grant
from proxy.core.bill import Bill
from proxy.core.books import LONGEST
from proxy.core.ranking import Estimate, Ranking
from proxy.core.routing import Option, Target
from proxy.core.tally import SECONDS
from proxy.meter import CONTENT_TYPE, MODELS, NAMES, PREFIX, Meter, Named
from tests.ledger.told import answer

D = Decimal
TABLE = Path(__file__).resolve().parent.parent / "grafana" / "METRICS.md"
TEAM = Grant("team", "pk_1")
USAGE = Usage(input=100, cached=40, output=20, reasoning=5)

Sample = tuple[str, tuple[tuple[str, str], ...]]


def samples(exposition: bytes) -> dict[Sample, float]:
    """Value by name and labels, of our own metrics."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(exposition.decode())
        for sample in family.samples
        if sample.name.startswith(PREFIX)
    }


def counted(meter: Meter, name: str) -> dict[tuple[str, ...], float]:
    """A metric's values by those of its labels, in the order in which NAMES has them."""
    named = NAMES[name]
    exposed = PREFIX + name + ("_total" if named.kind == "counter" else "")
    return {
        tuple(dict(labels)[each] for each in named.labels): value
        for (sample, labels), value in samples(meter.exposition()).items()
        if sample == exposed
    }


def option(name: str) -> Option:
    return Option(name, Target("p", "http://p/v1", name))


def answered(meter: Meter, key: str = "team", **different: Any) -> None:
    meter.answered(answer(**different), key)


# Names.


def test_every_metric_has_its_name_its_kind_and_a_word_on_what_it_is_from_the_start() -> None:
    families = {family.name: family for family in text_string_to_metric_families(Meter().exposition().decode())}
    ours = {name: family for name, family in families.items() if name.startswith(PREFIX)}
    assert {name: (family.type, family.documentation) for name, family in ours.items()} == {
        PREFIX + name: (named.kind, named.words) for name, named in NAMES.items()
    }
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


def test_a_metric_without_labels_is_0_before_anything_was_counted() -> None:
    found = samples(Meter().exposition())
    plain = {name for name, named in NAMES.items() if not named.labels}
    assert {re.sub("_(total|bucket|sum|count)$", "", name) for name, _ in found} == {PREFIX + name for name in plain}
    assert set(found.values()) == {0}


@pytest.mark.parametrize("name", NAMES)
def test_names_are_in_base_units_and_words_are_a_sentence(name: str) -> None:
    kind, words, labels = NAMES[name]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)
    assert not re.search(r"_(ms|milliseconds|minutes|kb|mb|cents|total|count|sum|bucket)$", name)
    assert kind != "histogram" or name.endswith("_seconds")
    assert words.endswith(".")
    assert not re.search(r"[|\n]", words)
    assert not set(labels) & {"le", "quantile", "job", "instance"}  # those are Prometheus' own


def test_the_process_is_told_of_too() -> None:
    families = {family.name for family in text_string_to_metric_families(Meter().exposition().decode())}
    assert families >= {
        f"process_{name}"
        for name in ("resident_memory_bytes", "cpu_seconds", "open_fds", "max_fds", "start_time_seconds")
    }


# What is counted.


def test_what_is_counted_is_counted_under_its_labels() -> None:
    meter = Meter(["m"])
    for outcome in ("hit", "hit", "miss"):
        answered(meter, outcome=outcome, model="m", total=0.5, token=0.25, overhead=0.001)
    meter.turned_away(503)
    meter.attempt("p", "m", "ok", 1.5)
    meter.attempt("p", "m", "upstream_reset", 2.5)
    meter.retried("p", "m", "fallback")
    meter.stored("stored")
    meter.refused("tokens", "team")
    found = samples(meter.exposition())
    here = (("endpoint", "chat"), ("model", "m"))
    assert counted(meter, "requests") == {
        ("chat", "m", "sim", "hit", "200"): 2,
        ("chat", "m", "sim", "miss", "200"): 1,
        ("wire", "", "", "refused", "503"): 1,
    }
    hits = (*here, ("outcome", "hit"), ("provider", "sim"), ("status", "200"))
    assert found["penstock_request_seconds_count", hits] == 2
    assert found["penstock_request_seconds_sum", hits] == 1
    assert found["penstock_first_token_seconds_sum", (("model", "m"), ("outcome", "hit"))] == 0.5
    assert found["penstock_overhead_seconds_sum", (("outcome", "miss"),)] == 0.001
    assert counted(meter, "attempts") == {("p", "m", "ok"): 1, ("p", "m", "upstream_reset"): 1}
    assert found["penstock_attempt_seconds_sum", (("model", "m"), ("provider", "p"))] == 4
    assert counted(meter, "retries") == {("p", "m", "fallback"): 1}
    assert counted(meter, "recordings") == {("stored",): 1}
    assert counted(meter, "limit_refusals") == {("team", "tokens"): 1}


def test_inputs_of_lists_are_counted_by_what_became_of_them() -> None:
    meter = Meter(["m"])
    meter.inputs("m", known=90, asked=10)
    meter.inputs("m", known=1, joined=2)
    meter.inputs("what a client said", asked=5)
    assert counted(meter, "embedding_inputs") == {
        ("m", "known"): 91,
        ("m", "asked"): 10,
        ("m", "joined"): 2,
        ("other", "asked"): 5,
    }


def test_attempts_are_told_to_the_page_by_the_same_labels() -> None:
    meter = Meter(["m"])
    for model, result in (("m", "ok"), ("m", "status_503"), ("m", "abandoned"), ("said", "status_404")):
        meter.attempt("p", model, result, 1.0)
    assert meter.tallies.tried_of == {("p", "m"): (3, 1), ("p", "other"): (1, 1)}


def test_who_answered_requests_of_a_route_is_counted_with_why() -> None:
    meter = Meter(["a", "b"])
    for model, why in (("a", "cheapest"), ("b", "fallback"), ("a", "cheapest")):
        answered(meter, route="fast", model=model, why=why)
    answered(meter, route="fast", model="a", why="cheapest", outcome="collapsed", leader="req_0")
    answered(meter, model="a", why="named")
    answered(meter, model="a", outcome="hit", saved=D(1))
    assert counted(meter, "route_answers") == {("fast", "a", "cheapest"): 2, ("fast", "b", "fallback"): 1}


def test_what_goes_wrong_in_the_cache_and_in_the_ledger_is_counted() -> None:
    meter = Meter()
    for event in ("disk_write_failed", "disk_write_failed", "memory_corrupt"):
        meter.store_event(event)
    meter.ledger_event("write_failed")
    assert counted(meter, "store_failures") == {("disk", "write_failed"): 2, ("memory", "corrupt"): 1}
    assert counted(meter, "ledger_events") == {("write_failed",): 1}


def test_between_tokens_is_the_time_from_each_event_of_a_stream_to_the_next() -> None:
    meter = Meter(["m"])
    meter.spoke("p", "m", [1.0, 1.5, 3.5])
    meter.spoke("p", "m", [1.0])
    found, labels = samples(meter.exposition()), (("model", "m"), ("provider", "p"))
    assert found["penstock_inter_token_seconds_count", labels] == 2
    assert found["penstock_inter_token_seconds_sum", labels] == 2.5


def test_a_decision_is_counted_with_why_and_with_those_that_could_not_answer() -> None:
    meter = Meter(["a", "b"])
    first, second = (Estimate(option(name), Count(1)) for name in "ab")
    unfit = Estimate(option("b"), Count(1), reason="vision")
    meter.decided("fast", Ranking((first, second), (), "cheapest"))
    meter.decided("fast", Ranking((first,), (unfit,), "only"))
    meter.decided(None, Ranking((), (unfit,), "none"))
    assert counted(meter, "decisions") == {
        ("fast", "a", "cheapest"): 1,
        ("fast", "a", "only"): 1,
        ("other", "", "none"): 1,
    }
    assert counted(meter, "options_dropped") == {("fast", "b", "vision"): 1, ("other", "b", "vision"): 1}


@given(st.lists(st.sampled_from(SECONDS) | st.floats(min_value=0, max_value=1e6)))
def test_a_histogram_is_what_prometheus_own_client_makes_of_the_same_times(times: list[float]) -> None:
    meter, registry = Meter(), prometheus_client.CollectorRegistry()
    name = "event_loop_lag_seconds"
    theirs = prometheus_client.Histogram(PREFIX + name, NAMES[name].words, buckets=SECONDS, registry=registry)
    for seconds in times:
        meter.late(seconds)
        theirs.observe(seconds)
    expected = samples(prometheus_client.generate_latest(registry))
    found = {
        sample: value for sample, value in samples(meter.exposition()).items() if sample[0].startswith(PREFIX + name)
    }
    assert found == pytest.approx({sample: each for sample, each in expected.items() if "_created" not in sample[0]})


def test_calls_that_waited_for_their_turn_are_timed_by_provider() -> None:
    meter = Meter()
    meter.waited("p", 0.03)
    assert samples(meter.exposition())["penstock_turn_wait_seconds_sum", (("provider", "p"),)] == 0.03


def test_two_meters_do_not_count_together() -> None:
    one, other = Meter(), Meter()
    one.stored("stored")
    answered(one)
    assert counted(other, "recordings") == counted(other, "requests") == {}


# What is read when it is scraped.


def test_what_is_watched_is_read_when_it_is_scraped() -> None:
    meter = Meter()
    now: dict[tuple[str, ...], float] = {("openai",): 1.0}
    meter.watch("calls_waiting", lambda: now)
    meter.watch_one("flights", lambda: 10 * now["openai",])
    meter.watch_one("flights_started", lambda: 100 * now["openai",])
    for waiting in (1.0, 7.0):
        now["openai",] = waiting
        assert counted(meter, "calls_waiting") == {("openai",): waiting}
        assert counted(meter, "flights") == {(): 10 * waiting}
        assert counted(meter, "flights_started") == {(): 100 * waiting}


def test_open_streams_are_told() -> None:
    meter = Meter()
    meter.streams += 3
    assert counted(meter, "streams") == {(): 3}


def test_what_is_watched_and_not_known_is_not_told_as_0() -> None:
    meter = Meter()
    meter.watch("data_free_bytes", dict)
    assert counted(meter, "data_free_bytes") == {}


def test_what_cannot_be_read_costs_no_other_metric(caplog: pytest.LogCaptureFixture) -> None:
    meter = Meter()
    meter.watch_one("flights", lambda: 1 // 0)
    meter.watch_one("readers", lambda: 3)
    assert (counted(meter, "flights"), counted(meter, "readers")) == ({}, {(): 3})
    assert "the metric flights cannot be read" in caplog.text


def test_what_is_no_metric_cannot_be_watched() -> None:
    with pytest.raises(ValueError, match="penstock_flights"):
        Meter().watch_one("penstock_flights", lambda: 1)


def test_with_readings_what_is_watched_is_told_as_it_was_read() -> None:
    meter = Meter()
    now = iter((1.0, 7.0))
    meter.watch_one("flights", lambda: next(now))
    readings = meter.read()
    meter.stored("stored")
    found = samples(meter.exposition(readings))
    assert found["penstock_flights", ()] == 1
    assert found["penstock_recordings_total", (("result", "stored"),)] == 1  # what is counted is told as it is


def test_the_text_is_made_while_others_count() -> None:
    meter, number = Meter(), count()

    def counts(*_: object) -> None:
        each = next(number)
        row = answer(key=f"pk_{each}", saved=D(1), outcome="hit", usage=USAGE, shadow="hit")
        meter.answered(row, f"key {each}")
        meter.attempt(f"p{each}", "m", "ok", 1.0)
        meter.billed(Bill(option("m"), USAGE, D(1)), Grant(f"key {each}", f"pk_{each}"))

    for _ in range(200):
        counts()
    before = gc.get_threshold()
    gc.callbacks.append(counts)  # that is when others may get their turn: with whatever object is made
    gc.set_threshold(50, 1000, 1000)
    try:
        meter.exposition(meter.read())
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(counts)
    assert next(number) > 200


# Which models are labels.


def models_of(meter: Meter) -> set[str]:
    return {model for _, model, _ in counted(meter, "attempts")}


def test_the_models_of_the_settings_are_labels_from_the_start() -> None:
    meter = Meter(["own"])
    for model in ("own", "said"):
        meter.attempt("p", model, "status_404", 1.0)
    assert models_of(meter) == {"own", "other"}


def test_another_model_is_a_label_once_it_has_answered() -> None:
    meter = Meter(["own"])
    for result in ("status_404", "upstream_reset", "ok", "status_500"):
        meter.attempt("p", "said", result, 1.0)
    assert list(counted(meter, "attempts")) == [
        ("p", "other", "status_404"),
        ("p", "other", "upstream_reset"),
        ("p", "said", "ok"),
        ("p", "said", "status_500"),
    ]


def test_a_name_that_no_model_has_is_no_label() -> None:
    meter = Meter(["own"])
    for model in ("x" * LONGEST, "x" * (LONGEST + 1), "x" * 1_000_000):
        meter.attempt("p", model, "ok", 1.0)
    assert models_of(meter) == {"x" * LONGEST, "other"}


def test_statuses_that_nobody_has_heard_of_add_few_series() -> None:
    meter = Meter()
    for status in range(100, 700):
        answered(meter, endpoint="passthrough", outcome="bypass", model="", status=status)
        meter.turned_away(status)
    told = {status for *_, status in counted(meter, "requests")}
    assert {"200", "404", "429", "499", "503", "2xx", "4xx", "5xx"} <= told
    assert len(told) < 40
    assert sum(counted(meter, "requests").values()) == 1200


@pytest.mark.parametrize("outcome", ["hit", "stale"])
def test_a_model_of_a_stored_answer_is_a_label_though_it_answered_before_a_restart(outcome: str) -> None:
    meter = Meter(["own"])
    answered(meter, outcome="miss", model="said", status=404)
    answered(meter, outcome=outcome, model="said", saved=D(1))
    assert {model for _, model, _ in counted(meter, "saved_usd")} == {"said"}
    assert {model for _, model, *_ in counted(meter, "requests")} == {"other", "said"}


def test_so_many_models_become_labels_and_no_more() -> None:
    meter = Meter(["own"])
    for number in range(MODELS + 10):
        meter.attempt("p", f"said {number}", "ok", 1.0)
    meter.attempt("p", "own", "ok", 1.0)
    assert models_of(meter) == {"own", "other", *(f"said {number}" for number in range(MODELS))}


@pytest.mark.parametrize("model", ["same", ""])
def test_a_model_that_became_a_label_takes_no_second_place_and_no_model_takes_none(model: str) -> None:
    meter = Meter()
    for _ in range(MODELS + 1):
        meter.attempt("p", model, "ok", 1.0)
    places = MODELS - 1 if model else MODELS
    for number in range(places + 1):
        meter.attempt("p", f"said {number}", "ok", 1.0)
    assert models_of(meter) == {model, "other", *(f"said {number}" for number in range(places))}


def everything(meter: Meter, model: str, key: str = "team") -> None:
    """All that is ever told of a request that names this model."""
    told = Grant(key, f"pk_{key}")
    for outcome, status in (("hit", 200), ("miss", 404), ("collapsed", 200)):
        leader = "req_0" if outcome == "collapsed" else None
        served = "own" if outcome == "hit" else model  # what is stored has answered
        row = answer(outcome=outcome, model=served, asked=model, status=status, saved=D(1), leader=leader, shadow="hit")
        meter.answered(row, key)
        answered(meter, key, model=model, token=0.5, overhead=0.5, code=model, request=model)
    meter.attempt("p", model, "status_404", 1.0)
    meter.retried("p", model, "repeat")
    meter.spoke("p", model, [1.0, 2.0])
    meter.billed(Bill(option(model), USAGE, D(1), routing=D(-1), prompt_cache=D(1)), told)
    meter.billed(Bill(option(model), USAGE, D(1), routing=D(1), estimated=True), told)
    meter.billed(Bill(option(model)), told)
    meter.would_save("cache", option(model), D(1), told)
    meter.would_save("cache", option(model), None, told)
    meter.decided(None, Ranking((Estimate(option(model), Count(1)),), (), "named"))
    meter.decided(None, Ranking((), (Estimate(option(model), Count(1), reason="vision"),), "none"))


def test_no_label_holds_what_a_client_said() -> None:
    meter = Meter(["own"])
    everything(meter, "xsaidx")
    assert b"xsaidx" not in meter.exposition()
    labels = {label for name, _ in NAMES.items() for label in NAMES[name].labels if counted(meter, name)}
    assert labels >= {"endpoint", "model", "provider", "outcome", "status", "cause", "key", "kind", "why", "reason"}


def test_ten_thousand_models_that_nobody_knows_add_no_series_after_the_first() -> None:
    meter = Meter(["own"])
    everything(meter, "junk")
    first = samples(meter.exposition()).keys()
    for number in range(10_000):
        everything(meter, f"junk {number}")
    found = samples(meter.exposition())
    assert found.keys() == first
    assert sum(value for (name, _), value in found.items() if name == "penstock_requests_total") == 6 * 10_001


# What money and tokens come to.


def test_a_bill_is_counted_with_its_tokens_by_kind_each_once() -> None:
    meter = Meter(["m"])
    meter.billed(Bill(option("m"), USAGE, D("0.25"), prompt_cache=D("0.5")), TEAM)
    meter.billed(Bill(option("m"), USAGE, D("0.5"), estimated=True), NOBODY)
    assert counted(meter, "cost_usd") == {("p", "m", "team", "false"): 0.25, ("p", "m", "", "true"): 0.5}
    assert counted(meter, "prompt_cache_saved_usd") == {("p", "m"): 0.5}
    assert counted(meter, "tokens") == {
        ("p", "m", "input"): 120,
        ("p", "m", "cached_input"): 80,
        ("p", "m", "output"): 30,
        ("p", "m", "reasoning"): 10,
    }
    assert counted(meter, "unpriced_answers") == {}


@pytest.mark.parametrize("usage", [None, USAGE])
def test_a_bill_without_an_amount_counts_as_unpriced_and_adds_no_dollar(usage: Usage | None) -> None:
    meter = Meter(["m"])
    meter.billed(Bill(option("m"), usage), TEAM)
    assert counted(meter, "unpriced_answers") == {("p", "m"): 1}
    assert counted(meter, "cost_usd") == {}
    assert bool(counted(meter, "tokens")) == (usage is not None)


def test_what_is_free_is_priced() -> None:
    meter = Meter(["m"])
    meter.billed(Bill(option("m"), USAGE, D(0)), TEAM)
    assert counted(meter, "cost_usd") == {("p", "m", "team", "false"): 0}
    assert counted(meter, "unpriced_answers") == {}


def test_what_routing_saved_and_what_it_overpaid_are_apart_so_that_neither_falls() -> None:
    meter = Meter(["m"])
    for routing in ("0.5", "-0.25", "0", "0.5", "-0.125"):
        meter.billed(Bill(option("m"), USAGE, D(1), routing=D(routing)), TEAM)
    assert counted(meter, "saved_usd") == {("routing", "m", "team"): 1}
    assert counted(meter, "overpaid_usd") == {("m", "team"): 0.375}


def test_what_was_given_again_is_saved_where_its_worth_is_known() -> None:
    meter = Meter(["m"])
    for usd in (D("0.5"), None, D(0), D("0.25")):
        answered(meter, outcome="hit", model="m", saved=usd, usage=USAGE)
    answered(meter, outcome="collapsed", model="unnamed", saved=D(2), usage=USAGE, leader="req_0")
    assert counted(meter, "saved_usd") == {("cache", "m", "team"): 0.75, ("collapse", "other", "team"): 2}
    assert counted(meter, "saved_tokens") == {
        ("cache", "m", "input"): 400,
        ("cache", "m", "output"): 80,
        ("collapse", "other", "input"): 100,
        ("collapse", "other", "output"): 20,
    }


def test_what_shadow_mode_would_have_saved_is_counted_where_its_cost_is_known() -> None:
    meter = Meter(["m"])
    for usd in (D("0.5"), None, D("0.25")):
        meter.would_save("cache", option("m"), usd, TEAM)
    answered(meter, model="m", shadow="hit")
    assert counted(meter, "shadow_saved_usd") == {("cache", "m", "team"): 0.75}
    assert counted(meter, "shadow_requests") == {("hit", "m", "team"): 1}


# Sums: whatever is told under several labels adds up to what was counted.

rows: list[dict[str, Any]] = [
    {"endpoint": endpoint, "outcome": outcome, "status": status, "model": model, "key": key}
    for endpoint, outcome, status, model, key in product(
        ("chat", "stream"), ("hit", "miss"), (200, 404), ("m", "said"), ("pk_1", "pk_2")
    )
]


@given(st.lists(st.sampled_from(rows)))
def test_all_series_of_requests_add_up_to_what_was_answered(told: list[dict[str, Any]]) -> None:
    meter = Meter(["m"])
    for each in told:
        answered(meter, **each, token=0.5, overhead=0.25, total=1.0)
    found = samples(meter.exposition())

    def total(name: str) -> float:
        return sum(value for (sample, _), value in found.items() if sample == PREFIX + name)

    names = ("requests_total", "request_seconds_count", "first_token_seconds_count", "overhead_seconds_count")
    assert {total(name) for name in names} == {len(told)}
    sums = [total(f"{name}_seconds_sum") for name in ("request", "first_token", "overhead")]
    assert sums == [len(told), len(told) / 2, len(told) / 4]


# The table for readers.

SECTIONS = {
    "requests": "Requests",
    "tokens": "Tokens and money",
    "recordings": "Cache",
    "flights": "Flights",
    "attempts": "Providers",
    "limit": "Limits and budgets",
    "ledger_pending_rows": "Ledger and log",
    "connections": "Runtime",
}  # by their first metric
INTRODUCTION = f"""\
# Metrics

`GET /metrics` has them in Prometheus' text format. Money is in USD, times are in seconds, sizes in bytes. A histogram
has the series `…_bucket`, `…_sum` and `…_count`; its bounds go from {SECONDS[0]} to {SECONDS[-1]} seconds.

Labels come from closed sets, so that what clients say adds no series:

- `endpoint`: chat, stream (`/chat/stream`), models, passthrough, admin; wire: before any of them.
- `model`: the models of the settings, and up to {MODELS} others that have answered; else other. Empty: none was asked.
- `provider`, `route`: as the settings name them. `key`: the name of the client's key, empty without keys.
- `cause`: cache (it was stored), collapse (it was under way for somebody else), routing (a cheaper model answered).

Besides, there are those of the process: `process_resident_memory_bytes`, `process_virtual_memory_bytes`,
`process_cpu_seconds_total`, `process_open_fds`, `process_max_fds` and `process_start_time_seconds`.
"""


def written(name: str, named: Named) -> str:
    """A line of the table."""
    exposed = PREFIX + name + ("_total" if named.kind == "counter" else "")
    labels = ", ".join(f"`{label}`" for label in named.labels)
    return f"| `{exposed}` | {named.kind} | {labels} | {named.words} |"


def metrics_table() -> str:
    """grafana/METRICS.md, as NAMES has it."""

    def lines() -> Iterator[str]:
        for name, named in NAMES.items():
            if name in SECTIONS:
                yield f"\n## {SECTIONS[name]}\n\n| name | kind | labels | what it says |\n| --- | --- | --- | --- |"
            yield written(name, named)

    return INTRODUCTION + "\n".join(lines()) + "\n"


def test_the_table_for_readers_is_true() -> None:
    made = TABLE.read_text(encoding="utf-8") if TABLE.is_file() else ""
    assert made == metrics_table(), "`python -m tests.test_meter > grafana/METRICS.md` makes it anew"


if __name__ == "__main__":
    print(metrics_table(), end="")
