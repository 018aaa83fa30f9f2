"""Every metric of Penstock: names, labels and buckets in one place. Labels come from closed sets."""

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Meter:
    """An `interfaces.Meter` over prometheus_client, with a registry of its own."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
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
        self._upstream = Counter(
            "penstock_upstream_calls",
            "Calls made to providers, by how they ended: ok, a status, an error's code, or abandoned by all clients.",
            ("provider", "result"),
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
        # Labels come from closed sets, so a child is looked up once; prometheus_client takes a lock each time.
        self._request_of = cache(lambda *labels: self._requests.labels(*map(str, labels)))
        self._first_byte_of = cache(self._first_byte.labels)
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
        self.memory_bytes = Gauge("penstock_memory_tier_bytes", "Bytes in the memory tier.", registry=registry)
        self.memory_entries = Gauge("penstock_memory_tier_entries", "Entries in the memory tier.", registry=registry)

    def request(self, endpoint: str, outcome: str, status: int) -> None:
        self._request_of(endpoint, outcome, status).inc()

    def first_byte(self, endpoint: str, outcome: str, seconds: float) -> None:
        self._first_byte_of(endpoint, outcome).observe(seconds)

    def upstream(self, provider: str, result: str) -> None:
        self._upstream.labels(provider, result).inc()

    def stored(self, result: str) -> None:
        self._stored.labels(result).inc()

    def store_event(self, event: str) -> None:
        self._store_events.labels(event).inc()

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
