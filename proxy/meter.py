"""Every metric of Penstock: names, labels and words in one place. grafana/METRICS.md is this table, for readers.

Rule: labels come from closed sets, so that what clients say adds no series; USD, seconds and bytes, nothing smaller.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Final, Literal, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from proxy.core.access import Grant
from proxy.core.bill import Bill
from proxy.core.books import LONGEST, Answered
from proxy.core.families import Family, families, items
from proxy.core.ranking import Ranking
from proxy.core.routing import Option
from proxy.core.tally import AGAIN, SECONDS, Histogram, Paid, Tallies

logger = logging.getLogger("penstock")

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
MODELS: Final = 50  # that become labels without the settings naming them, each once it has answered
OTHER: Final = "other"
PREFIX: Final = "penstock_"

Kind = Literal["counter", "gauge", "histogram"]
Reading = Callable[[], Mapping[tuple[str, ...], float]]


class Named(NamedTuple):
    """A metric. Counters are exposed with `_total` behind their name."""

    kind: Kind
    words: str
    labels: tuple[str, ...] = ()


def _counter(words: str, *labels: str) -> Named:
    return Named("counter", words, labels)


def _gauge(words: str, *labels: str) -> Named:
    return Named("gauge", words, labels)


def _histogram(words: str, *labels: str) -> Named:
    return Named("histogram", words, labels)


NAMES: Final[Mapping[str, Named]] = {
    # Requests
    "requests": _counter(
        "Requests answered, by outcome: hit, stale, miss, collapsed, bypass; refused by Penstock (endpoint wire: "
        "before any endpoint saw it); left by the client; broken: failed after its head was sent.",
        *("endpoint", "model", "provider", "outcome", "status"),
    ),
    "request_seconds": _histogram(
        "From a request's arrival to the last byte of its answer.",
        *("endpoint", "model", "provider", "outcome", "status"),
    ),
    "first_token_seconds": _histogram(
        "Streams: from the request's arrival until the first event that says something was sent.", "outcome", "model"
    ),
    "inter_token_seconds": _histogram(
        "Between two events of a stream, as the provider sent them; each holds a token or a few.", "provider", "model"
    ),
    "overhead_seconds": _histogram(
        "What Penstock itself added: of the time to the first byte, what was spent waiting for neither a provider nor "
        "a turn at its limits.",
        "outcome",
    ),
    # Tokens and money
    "tokens": _counter("Tokens that were paid, each in one kind (pricing/README.md).", "provider", "model", "kind"),
    "saved_tokens": _counter("Tokens of answers that nobody paid again: input and output.", "cause", "model", "kind"),
    "cost_usd": _counter(
        "What answers cost by the pricing table. Estimated: the provider did not say its usage, or was cut off.",
        *("provider", "model", "key", "estimated"),
    ),
    "saved_usd": _counter(
        "What was not paid: cache and collapse, what the answer would have cost now; routing (an estimate), what its "
        "usage would have cost on the baseline, less what was paid.",
        *("cause", "model", "key"),
    ),
    "overpaid_usd": _counter(
        "What routing paid more than the same usage would have cost on the baseline (an estimate).", "model", "key"
    ),
    "prompt_cache_saved_usd": _counter(
        "What the providers' own prompt caches saved; in no other figure.", "provider", "model"
    ),
    "unpriced_answers": _counter("Answers whose cost is not known: set the model's price.", "provider", "model"),
    "shadow_requests": _counter(
        "In shadow mode, requests by what they would have been: hit, collapsed, miss.", "would", "model", "key"
    ),
    "shadow_saved_usd": _counter(
        "In shadow mode, what was paid and would not have been: cache, collapse.", "cause", "model", "key"
    ),
    # Cache
    "recordings": _counter("Finished recordings: stored, or the reason why not.", "result"),
    "embedding_inputs": _counter(
        "Inputs of lists that were answered: known, joined (under way for another), or asked of a provider.",
        *("model", "result"),
    ),
    "store_entries": _gauge("Answers that are kept.", "tier"),
    "store_bytes": _gauge("Bytes that they take.", "tier"),
    "store_limit_bytes": _gauge("Bytes that they may take.", "tier"),
    "store_evictions": _counter(
        "Answers that had to make room for others; on the disk also those that had expired.", "tier"
    ),
    "store_failures": _counter("What went wrong in the cache; requests are answered all the same.", "tier", "event"),
    "store_queue_bytes": _gauge("Bytes that wait to be written to the disk."),
    "data_free_bytes": _gauge("Free space of the file system that holds data.directory."),
    "data_size_bytes": _gauge("Its size."),
    # Flights
    "flights": _gauge("Recordings that are being made."),
    "flights_started": _counter("Recordings that were begun."),
    "flights_joined": _counter("Requests that joined one."),
    "flights_abandoned": _counter("Recordings that were ended since nobody read them any more."),
    # Providers
    "attempts": _counter(
        "Calls made to providers, each repeat and each other model counted, by how they ended: ok, a status, an "
        "error's code, or abandoned by all clients. No model: what is passed through.",
        *("provider", "model", "result"),
    ),
    "attempt_seconds": _histogram("How long they took, to their end.", "provider", "model"),
    "retries": _counter(
        "Of them those that followed a failure: repeat, on the same model; fallback, on another.",
        *("provider", "model", "kind"),
    ),
    "breaker_open": _gauge(
        "1 from when a model began to be left alone, since it failed, until a call to it has succeeded.",
        *("provider", "model"),
    ),
    "breaker_openings": _counter("How often one began to be left alone.", "provider"),
    "cooldown_seconds": _gauge("How long a model that answered 429 is still left alone.", "provider", "model"),
    "decisions": _counter(
        "Which model was to answer, by route (other: none was named), and why: cheapest, pinned (it made what the "
        "conversation goes on from), only (nobody else may); waiting, unpriced, cooling, named: nobody better was "
        "there; none: nobody.",
        *("route", "model", "why"),
    ),
    "route_answers": _counter(
        "Who answered requests of a route, or failed last, hits and those who joined aside; and why: as in decisions; "
        "fallback: whoever was chosen first failed.",
        *("route", "model", "why"),
    ),
    "options_dropped": _counter(
        "Models of a route that could not answer a request, and why.", "route", "model", "reason"
    ),
    # Limits and budgets
    "limit": _gauge("What a key may use: requests and tokens in any minute, concurrent at once.", "key", "limit"),
    "limit_used": _gauge("What it uses: in the last minute, and now.", "key", "limit"),
    "provider_limit": _gauge("What may be used of a provider: the same.", "provider", "limit"),
    "provider_limit_used": _gauge("What is used of it.", "provider", "limit"),
    "limit_refusals": _counter(
        "Requests refused at once by a limit of their key (requests, tokens, concurrent; over_limit: more than the "
        "whole; budget: what is left of it does not cover what they may cost), or after queue_timeout at one of a "
        "provider's.",
        *("key", "limit"),
    ),
    "turn_wait_seconds": _histogram(
        "How long calls waited for their turn at a provider's limits; those that did not wait are not counted.",
        "provider",
    ),
    "calls_waiting": _gauge("Calls that wait for their turn.", "provider"),
    "calls_under_way": _gauge("Calls that had their turn.", "provider"),
    "budget_usd": _gauge(
        "What a key may spend in its window. Its id is a label too, as names may be alike.", "key", "id"
    ),
    "budget_spent_usd": _gauge("What it has spent in the window that runs.", "key", "id"),
    "budget_reserved_usd": _gauge("What is set aside for its calls under way.", "key", "id"),
    "budget_forecast_usd": _gauge("What will be spent at the window's end, if it goes on as so far.", "key", "id"),
    "budget_nearly_spent": _gauge("1 once 80 % of it is spent.", "key", "id"),
    # Ledger and log
    "ledger_pending_rows": _gauge("Rows that are not written yet."),
    "ledger_lag_seconds": _gauge("How long the oldest row that is not written waits."),
    "ledger_events": _counter(
        "What went wrong in the ledger: write_failed (rows wait), recovered, dropped (rows were given up), unavailable "
        "(there is none).",
        "event",
    ),
    "log_dropped": _counter("Lines of the log that were given up, as nobody took them."),
    # Runtime
    "connections": _gauge("Clients that are connected."),
    "requests_open": _gauge("Requests that are being answered."),
    "streams": _gauge("Streams that are being sent."),
    "readers": _gauge("Clients that read recordings or what passes through."),
    "recorded_bytes": _gauge("Bytes held of answers that are being given."),
    "received_bytes": _gauge("Bytes held of requests that are coming in."),
    "event_loop_lag_seconds": _histogram("How late the event loop does what is due."),
    "build_info": _gauge("1; which version runs.", "version"),
}


class Meter:
    """An `interfaces.Meter` whose sums are prometheus_client's to expose, in a registry of its own."""

    def __init__(self, models: Iterable[str] = ()) -> None:
        """`models`: those that the settings name, which are labels from the start."""
        self.tallies = Tallies()
        self.label = _Models(models)
        self.streams = 0
        self._counts: dict[str, dict[tuple[str, ...], float]] = {}
        self._times: dict[str, dict[tuple[str, ...], Histogram]] = {}
        self._watched: dict[str, Reading] = {"streams": lambda: {(): self.streams}}
        self._process = ProcessCollector(registry=None)

    def answered(self, row: Answered, key: str) -> None:
        """A request is over. `key`: the name of its key."""
        if row.outcome in AGAIN:  # it had answered, be it in an earlier process
            self.label.answered(row.model)
        model = self.label(row.model)
        self.tallies.answered(row, model, key)
        if row.route is not None and row.leader is None:
            self._count("route_answers", row.route, model, row.why or "")

    def turned_away(self, status: int) -> None:
        """A request was refused before any endpoint saw it."""
        self.tallies.refused("wire", status)

    def billed(self, bill: Bill, grant: Grant) -> None:
        """An answer was paid."""
        self._payer(bill.option, grant).add(bill)

    def would_save(self, cause: str, option: Option, usd: Decimal | None, grant: Grant) -> None:
        """In shadow mode: this was paid, and would not have been."""
        if usd is not None:
            self._payer(option, grant).would(cause, usd)

    def _payer(self, option: Option, grant: Grant) -> Paid:
        return self.tallies.payer(option.target.provider, self.label(option.name), grant.id, grant.name)

    def attempt(self, provider: str, model: str, result: str, seconds: float) -> None:
        if result == "ok":
            self.label.answered(model)
        label = self.label(model)
        self.tallies.tried(provider, label, failed=result not in ("ok", "abandoned"))
        self._count("attempts", provider, label, result)
        self._time("attempt_seconds", seconds, provider, label)

    def retried(self, provider: str, model: str, kind: str) -> None:
        """This model is asked after a failure."""
        self._count("retries", provider, self.label(model), kind)

    def spoke(self, provider: str, model: str, times: Sequence[float]) -> None:
        """A stream is over, whose events came at these times, in seconds."""
        family = self._times.setdefault("inter_token_seconds", {})
        histogram = family.setdefault((provider, self.label(model)), Histogram())
        for before, now in pairwise(times):
            histogram.add(now - before)

    def decided(self, route: str | None, ranking: Ranking) -> None:
        """Who answers was decided."""
        first = self.label(ranking.order[0].option.name) if ranking.order else ""
        self._count("decisions", route or OTHER, first, ranking.why)
        for each in ranking.dropped:
            self._count("options_dropped", route or OTHER, self.label(each.option.name), each.reason or "")

    def stored(self, result: str) -> None:
        self._count("recordings", result)

    def inputs(self, model: str, *, known: int = 0, joined: int = 0, asked: int = 0) -> None:
        """A list was answered, so many of whose inputs were that."""
        label, counts = self.label(model), self._counts.setdefault("embedding_inputs", {})
        for result, count in (("known", known), ("joined", joined), ("asked", asked)):
            if count:
                counts[label, result] = counts.get((label, result), 0) + count

    def store_event(self, event: str) -> None:
        """In the words of TieredStore: the tier first."""
        tier, _, what = event.partition("_")
        self._count("store_failures", tier, what)

    def ledger_event(self, event: str) -> None:
        self._count("ledger_events", event)

    def refused(self, limit: str, key: str) -> None:
        """A key's limit, or the time to wait at a provider's, refused a request."""
        self._count("limit_refusals", key, limit)

    def waited(self, provider: str, seconds: float) -> None:
        """A call had to wait for its turn."""
        self._time("turn_wait_seconds", seconds, provider)

    def late(self, seconds: float) -> None:
        """The event loop did something so much later than it was due."""
        self._time("event_loop_lag_seconds", seconds)

    def watch(self, name: str, read: Reading) -> None:
        """Have this metric read when it is scraped: by the values of its labels."""
        if name not in NAMES:
            raise ValueError(f"{name} is no metric")
        self._watched[name] = read

    def watch_one(self, name: str, read: Callable[[], float]) -> None:
        """The same of a metric without labels."""
        self.watch(name, lambda: {(): read()})

    def read(self) -> "Readings":
        """What is watched, as it is now."""
        return {name: _reading(name, read) for name, read in self._watched.items()}

    def exposition(self, readings: "Readings | None" = None) -> bytes:
        """All metrics in Prometheus' text format. With readings any thread may call, while others count."""
        registry = CollectorRegistry()
        registry.register(_Families(self._collect(self.read() if readings is None else readings)))
        registry.register(self._process)
        return generate_latest(registry)

    def _collect(self, readings: "Readings") -> Mapping[str, Family]:
        """Every metric that there is, by name; without labels it is there from the start."""
        tallied = families(self.tallies)
        found: dict[str, Family] = {}
        for name, named in NAMES.items():
            family = found[name] = {}
            if not named.labels and name not in readings:
                family[()] = Histogram() if named.kind == "histogram" else 0.0
            family.update(tallied.get(name, {}))
            family.update(items(self._counts.get(name, {})))  # at once, as with all that others add to meanwhile
            family.update(items(self._times.get(name, {})))
            family.update(readings.get(name, {}))
        return found

    def _count(self, name: str, *labels: str) -> None:
        counts = self._counts.setdefault(name, {})
        counts[labels] = counts.get(labels, 0) + 1

    def _time(self, name: str, seconds: float, *labels: str) -> None:
        self._times.setdefault(name, {}).setdefault(labels, Histogram()).add(seconds)


def _reading(name: str, read: Reading) -> Mapping[tuple[str, ...], float]:
    """Nothing, where that fails: all other metrics are wanted the more."""
    try:
        return dict(read())
    except Exception:
        logger.exception("the metric %s cannot be read", name)
        return {}


class _Models:
    """Which models are labels: those that the settings name, and MODELS more that clients name and that answered."""

    def __init__(self, named: Iterable[str]) -> None:
        self._known = set(named)
        self._room = len(self._known) + MODELS

    def answered(self, model: str) -> None:
        if len(model) > LONGEST:  # which would stand in each of hundreds of lines
            return
        if model and len(self._known) < self._room:  # what is passed through has none
            self._known.add(model)

    def __call__(self, model: str) -> str:
        return model if model in self._known or not model else OTHER


Readings = Mapping[str, Mapping[tuple[str, ...], float]]


class _Families(Collector):
    """Metrics as prometheus_client exposes them."""

    def __init__(self, families: Mapping[str, Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for name, family in self._families.items():
            kind, words, labels = NAMES[name]
            metric: Metric
            if kind == "histogram":
                metric = HistogramMetricFamily(PREFIX + name, words, labels=labels)
                for values, held in family.items():
                    if isinstance(held, Histogram):
                        metric.add_metric(values, list(zip(BOUNDS, held.upto(), strict=True)), held.sum)
            else:
                family_of = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
                metric = family_of(PREFIX + name, words, labels=labels)
                for values, value in family.items():
                    if not isinstance(value, Histogram):
                        metric.add_metric(values, value)
            yield metric


BOUNDS: Final = (*(str(float(bound)) for bound in SECONDS), "+Inf")
