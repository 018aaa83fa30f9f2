"""Every metric by its name and labels, in Prometheus' own format."""

import re

from prometheus_client.parser import text_string_to_metric_families

from proxy.meter import CONTENT_TYPE, SECONDS, Meter

NAMES = {
    "penstock_requests",
    "penstock_first_byte_seconds",
    "penstock_upstream_calls",
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
    families = {family.name: family for family in text_string_to_metric_families(Meter().exposition().decode())}
    assert {name for name in families if not name.endswith("_created")} == NAMES
    assert all(families[name].documentation for name in NAMES)
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


def test_what_is_counted_is_counted_under_its_labels() -> None:
    meter = Meter()
    for _ in range(3):
        meter.request("chat", "hit", 200)
    meter.request("chat", "refused", 400)
    meter.upstream("openai", "ok")
    meter.upstream("openai", "upstream_reset")
    meter.stored("stored")
    meter.store_event("disk_corrupt")
    found = samples(meter)
    endpoint = ("endpoint", "chat")
    assert found["penstock_requests_total", (endpoint, ("outcome", "hit"), ("status", "200"))] == 3
    assert found["penstock_requests_total", (endpoint, ("outcome", "refused"), ("status", "400"))] == 1
    assert found["penstock_upstream_calls_total", (("provider", "openai"), ("result", "ok"))] == 1
    assert found["penstock_upstream_calls_total", (("provider", "openai"), ("result", "upstream_reset"))] == 1
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


def test_two_meters_do_not_count_together() -> None:
    one, other = Meter(), Meter()
    one.stored("stored")
    assert ("penstock_recordings_total", (("result", "stored"),)) not in samples(other)


def test_no_label_holds_what_a_client_said() -> None:
    said = re.findall(rb"^# HELP (\w+) ", Meter().exposition(), re.MULTILINE)
    assert said
    meter = Meter()
    labels = {name for metric in meter._registry.collect() for sample in metric.samples for name in sample.labels}
    meter.request("chat", "hit", 200)
    meter.first_byte("chat", "hit", 0.1)
    meter.upstream("p", "ok")
    labels |= {name for metric in meter._registry.collect() for sample in metric.samples for name in sample.labels}
    assert labels == {"endpoint", "outcome", "status", "provider", "result", "le"}
