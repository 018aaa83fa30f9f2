"""Every metric of Penstock: names, labels and buckets in one place. Labels come from closed sets."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from functools import cache
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from proxy.core.access import Grant
from proxy.core.bill import NOTHING, Bill
from proxy.core.ranking import Ranking
from proxy.core.routing import Option

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MODELS = 50  # that become labels without the settings naming them, each once it has answered
OTHER = "other"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


Reading = Callable[[], Mapping[str, float]]


class Budgeted(NamedTuple):
    """A key's budget in the window that runs, in USD. `forecast`: at its end, None where it has none."""

    key: Grant
    usd: Decimal
    spent: Decimal
    reserved: Decimal
    forecast: Decimal | None
    nearly: bool


class Meter:
    """An `interfaces.Meter` over prometheus_client, with a registry of its own."""

    def __init__(self, models: Iterable[str] = ()) -> None:
        """`models`: those that the settings name, which are labels from the start."""
        registry = self._registry = CollectorRegistry()
        self._models = _Models(models)
        self._money = _Money(registry, self._models)
        self._routing = _Routing(registry, self._models)
        self._requests = Counter(
            "penstock_requests",
            "Requests answered, by outcome: hit, stale, miss, collapsed, bypass; refused by Penstock (wire: before "
            "any endpoint saw it); left by the client; broken: failed after the head with its status was sent.",
            ("endpoint", "outcome", "status"),
            registry=registry,
        )
        self._first_byte = Histogram(
            "penstock_first_byte_seconds",
            "From the request's arrival to the first byte of its answer's body.",
            ("endpoint", "outcome"),
            buckets=SECONDS,
            registry=registry,
        )
        self._stored = Counter(
            "penstock_recordings",
            "Finished recordings: stored, or the reason why not.",
            ("result",),
            registry=registry,
        )
        self._store_events = Counter(
            "penstock_store_events",
            "What went wrong in the store; requests are answered all the same.",
            ("event",),
            registry=registry,
        )
        self._limits = _Limits(registry)
        # Labels come from closed sets, so a child is looked up once; prometheus_client takes a lock each time.
        self._request_of = cache(lambda *labels: self._requests.labels(*map(str, labels)))
        self._first_byte_of = cache(self._first_byte.labels)
        self._watch(registry)

    def _watch(self, registry: CollectorRegistry) -> None:
        """Gauges that others set, or have read when they are scraped."""
        self.flights = Gauge("penstock_flights", "Recordings that are being made.", registry=registry)
        self.connections = Gauge("penstock_connections", "Clients that are connected.", registry=registry)
        self.readers = Gauge(
            "penstock_readers", "Clients that read recordings or what passes through.", registry=registry
        )
        self.recorded = Gauge(
            "penstock_recorded_bytes", "Bytes held of answers that are being given.", registry=registry
        )
        self.received = Gauge(
            "penstock_received_bytes", "Bytes held of requests that are coming in.", registry=registry
        )
        self.requests_open = Gauge("penstock_requests_open", "Requests that are being answered.", registry=registry)
        self.ledger_pending = Gauge("penstock_ledger_pending_rows", "Rows that are not written yet.", registry=registry)
        self.ledger_lag = Gauge(
            "penstock_ledger_lag_seconds", "How long the oldest row that is not written waits.", registry=registry
        )
        self.memory_bytes = Gauge("penstock_memory_tier_bytes", "Bytes in the memory tier.", registry=registry)
        self.memory_entries = Gauge("penstock_memory_tier_entries", "Entries in the memory tier.", registry=registry)

    def request(self, endpoint: str, outcome: str, status: int) -> None:
        self._request_of(endpoint, outcome, status).inc()

    def first_byte(self, endpoint: str, outcome: str, seconds: float) -> None:
        self._first_byte_of(endpoint, outcome).observe(seconds)

    def attempt(self, provider: str, model: str, result: str) -> None:
        self._routing.attempt(provider, model, result)

    def billed(self, bill: Bill) -> None:
        """An answer was paid."""
        self._money.billed(bill)

    def saved(self, cause: str, option: Option, usd: Decimal | None) -> None:
        """An answer was given that this model made and nobody paid again."""
        self._money.saved(cause, option, usd)

    def decided(self, route: str | None, ranking: Ranking) -> None:
        """Who answers was decided."""
        self._routing.decided(route or OTHER, ranking)

    def stored(self, result: str) -> None:
        self._stored.labels(result).inc()

    def store_event(self, event: str) -> None:
        self._store_events.labels(event).inc()

    def ledger_event(self, event: str) -> None:
        self._limits.ledger_events.labels(event).inc()

    def refused(self, limit: str) -> None:
        """A key's limit, or the time to wait at a provider's, refused a request."""
        self._limits.refusals.labels(limit).inc()

    def waited(self, provider: str, seconds: float) -> None:
        """A call had to wait for its turn."""
        self._limits.waits.labels(provider).observe(seconds)

    def watch_limits(self, waiting: Reading, in_use: Reading) -> None:
        """What is read when it is scraped: calls by provider."""
        self._registry.register(_Gauges("penstock_calls_waiting", "Calls that wait for their turn.", waiting))
        self._registry.register(_Gauges("penstock_calls_under_way", "Calls that had their turn.", in_use))

    def watch_budgets(self, budgets: Callable[[], Iterable[Budgeted]]) -> None:
        """The same of each key that has a budget."""
        self._registry.register(_Budgets(budgets))

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _Models:
    """Which models are labels: those that the settings name, and MODELS more that clients name and that answered."""

    def __init__(self, named: Iterable[str]) -> None:
        self._known = set(named)
        self._room = len(self._known) + MODELS

    def answered(self, model: str) -> None:
        if len(self._known) < self._room:
            self._known.add(model)

    def label(self, model: str) -> str:
        return model if model in self._known or not model else OTHER


class _Money:
    """What answers cost and saved, in USD, and their tokens."""

    def __init__(self, registry: CollectorRegistry, models: _Models) -> None:
        self._label = models.label
        self._cost = Counter(
            "penstock_cost_usd",
            "What answers cost by the pricing table. Estimated: the provider did not say its usage, or was cut off.",
            ("provider", "model", "estimated"),
            registry=registry,
        )
        self._saved = Counter(
            "penstock_saved_usd",
            "What was not paid: cache and collapse, what the answer would have cost now; routing (an estimate), what "
            "its usage would have cost on the baseline, less what was paid.",
            ("cause", "model"),
            registry=registry,
        )
        self._overpaid = Counter(
            "penstock_overpaid_usd",
            "What routing paid more than the same usage would have cost on the baseline (an estimate).",
            ("model",),
            registry=registry,
        )
        self._prompt_cache = Counter(
            "penstock_prompt_cache_saved_usd",
            "What the providers' own prompt caches saved; in no other figure.",
            ("provider", "model"),
            registry=registry,
        )
        self._tokens = Counter(
            "penstock_tokens",
            "Tokens that were paid, each in one kind (pricing/README.md).",
            ("provider", "model", "kind"),
            registry=registry,
        )
        self._unpriced = Counter(
            "penstock_unpriced_answers",
            "Answers whose cost is not known: set the model's price.",
            ("provider", "model"),
            registry=registry,
        )
        self._saved_of = cache(self._saved.labels)  # each hit comes by

    def billed(self, bill: Bill) -> None:
        provider, model = bill.option.target.provider, self._label(bill.option.name)
        if bill.usd is None:
            self._unpriced.labels(provider, model).inc()
        else:
            self._cost.labels(provider, model, str(bill.estimated).lower()).inc(float(bill.usd))
        if bill.routing is not None and bill.routing > 0:
            self._saved.labels("routing", model).inc(float(bill.routing))
        elif bill.routing:
            self._overpaid.labels(model).inc(float(-bill.routing))
        if bill.prompt_cache:
            self._prompt_cache.labels(provider, model).inc(float(bill.prompt_cache))
        for kind, tokens in bill.usage.parts.items() if bill.usage is not None else ():
            if tokens:
                self._tokens.labels(provider, model, kind).inc(tokens)

    def saved(self, cause: str, option: Option, usd: Decimal | None) -> None:
        if usd is not None and usd > NOTHING:
            self._saved_of(cause, self._label(option.name)).inc(float(usd))


class _Limits:
    """Who was refused, who waited, and how the ledger fares."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.refusals = Counter(
            "penstock_limit_refusals",
            "Requests refused at once by a limit of their key (requests, tokens, concurrent; over_limit: more than the "
            "whole), or after queue_timeout at one of a provider's.",
            ("limit",),
            registry=registry,
        )
        self.waits = Histogram(
            "penstock_turn_wait_seconds",
            "How long calls waited for their turn at a provider's limits; those that did not wait are not counted.",
            ("provider",),
            buckets=SECONDS,
            registry=registry,
        )
        self.ledger_events = Counter(
            "penstock_ledger_events",
            "What went wrong in the ledger: write_failed (rows wait), recovered, dropped (rows were given up), "
            "unavailable (there is none).",
            ("event",),
            registry=registry,
        )


class _Gauges(Collector):
    """A gauge by provider."""

    def __init__(self, name: str, words: str, read: Reading) -> None:
        self._name = name
        self._words = words
        self._read = read

    def collect(self) -> Iterator[Metric]:
        found = GaugeMetricFamily(self._name, self._words, labels=["provider"])
        for provider, value in self._read().items():
            found.add_metric([provider], value)
        yield found


BUDGETS: tuple[tuple[str, str, Callable[[Budgeted], Decimal | bool | None]], ...] = (
    ("usd", "What a key may spend in its window.", lambda each: each.usd),
    ("spent_usd", "What it has spent in the window that runs.", lambda each: each.spent),
    ("reserved_usd", "What is set aside for its calls under way.", lambda each: each.reserved),
    ("forecast_usd", "What will be spent at the window's end, if it goes on as so far.", lambda each: each.forecast),
    ("nearly_spent", "1 once 80 % of it is spent.", lambda each: each.nearly),
)


class _Budgets(Collector):
    """Gauges by key; its id is a label too, since names may be alike."""

    def __init__(self, read: Callable[[], Iterable[Budgeted]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        budgets = list(self._read())
        for name, words, value_of in BUDGETS:
            found = GaugeMetricFamily(f"penstock_budget_{name}", words, labels=["key", "id"])
            for each in budgets:
                if (value := value_of(each)) is not None:
                    found.add_metric([each.key.name, each.key.id], float(value))
            yield found


class _Routing:
    """Who was asked, why, and how that ended."""

    def __init__(self, registry: CollectorRegistry, models: _Models) -> None:
        self._models = models
        self._attempts = Counter(
            "penstock_attempts",
            "Calls made to providers, each repeat and each other model counted, by how they ended: ok, a status, an "
            "error's code, or abandoned by all clients. No model: what is passed through.",
            ("provider", "model", "result"),
            registry=registry,
        )
        self._decisions = Counter(
            "penstock_decisions",
            "Which model of a route was to answer, and why: cheapest, pinned (it made what the conversation goes on "
            "from), only (nobody else may); waiting, unpriced, cooling, named: nobody better was there; none: nobody.",
            ("route", "model", "why"),
            registry=registry,
        )
        self._dropped = Counter(
            "penstock_options_dropped",
            "Models of a route that could not answer a request, and why.",
            ("route", "model", "reason"),
            registry=registry,
        )

    def attempt(self, provider: str, model: str, result: str) -> None:
        if result == "ok":
            self._models.answered(model)
        self._attempts.labels(provider, self._models.label(model), result).inc()

    def decided(self, route: str, ranking: Ranking) -> None:
        first = self._models.label(ranking.order[0].option.name) if ranking.order else ""
        self._decisions.labels(route, first, ranking.why).inc()
        for each in ranking.dropped:
            self._dropped.labels(route, self._models.label(each.option.name), each.reason or "").inc()
