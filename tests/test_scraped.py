"""A real Prometheus scrapes proxies under the load of the demonstration: whatever grafana/ asks for gives data."""

import asyncio
import importlib.util
import itertools
import math
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx
import pytest
import yaml  # type: ignore[import-untyped]

from proxy.clock import SystemClock
from tests.monitoring import GRAFANA, PROMETHEUS, Query, alert_queries, panel_queries, rule_queries, variables, yaml_of
from tests.promql import shortened, without_fallbacks, without_thresholds
from tests.support import DEADLINE, Json, Proxy, Simulator, eventually, free_port

KEY: Final = "the-scraper's-key"
EVERY: Final = "250ms"
ROUNDS: Final = 3  # of the demonstration's load, before Prometheus has seen the first counters, and again after it
ENOUGH: Final = 25  # streams of one model, to compare its first token with what it was


def load() -> Any:
    """grafana/demo/load.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("penstock_demo_load", GRAFANA / "demo/load.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def demonstration(simulator: Simulator, directory: Path, **cache: str) -> Json:
    """The settings of the demonstration, before this simulator."""
    table = tomllib.loads((GRAFANA / "demo/penstock.toml").read_text("utf-8"))
    table["data"]["directory"] = str(directory)
    table["providers"]["simulator"]["base_url"] = simulator.base_url
    table["cache"] |= cache
    for name in ("sim-small", "sim-medium", "sim-reasoning"):  # sim-large stays as slow as a client who leaves is
        table["models"][name]["upstream"] = f"{name};first=0.02;gap=0.001"
    return table


class Prometheus(NamedTuple):
    http: httpx.Client

    def ready(self) -> bool:
        try:
            return self.http.get("/-/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def ask(self, expression: str) -> list[float]:
        """The values that it gives now; NaN and infinities are none."""
        answer = self.http.get("/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", answer
        found = [float(each["value"][1]) for each in answer["data"]["result"]]
        return [value for value in found if math.isfinite(value)]

    def labels(self, selector: str, label: str) -> list[str]:
        answer = self.http.get(f"/api/v1/label/{label}/values", params={"match[]": selector}).json()
        assert answer["status"] == "success", answer
        return list(answer["data"])


def configured(directory: Path, proxies: list[Proxy]) -> Path:
    """grafana/prometheus/prometheus.yml for these proxies, and for some seconds rather than days."""
    config = yaml_of(PROMETHEUS / "prometheus.yml")
    config["global"] = {"scrape_interval": EVERY, "evaluation_interval": EVERY}
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": [proxy.url.removeprefix("http://") for proxy in proxies]}]
    key = directory / "key"
    key.write_text(KEY)
    job["authorization"]["credentials_file"] = str(key)
    for name in config["rule_files"]:
        rules = yaml_of(PROMETHEUS / name)
        for group in rules["groups"]:
            group.pop("interval", None)
            for rule in group["rules"]:
                rule["expr"] = shortened(rule["expr"])
        (directory / name).write_text(yaml.safe_dump(rules))
    path = directory / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


@contextmanager
def prometheus(binary: str, directory: Path, proxies: list[Proxy]) -> Iterator[Prometheus]:
    address = f"127.0.0.1:{free_port()}"
    command = [
        binary,
        f"--config.file={configured(directory, proxies)}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with (
        (directory / "log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
        httpx.Client(base_url=f"http://{address}", timeout=DEADLINE, trust_env=False) as http,
    ):
        try:
            found = Prometheus(http)
            eventually(lambda: found.ready() or process.poll() is not None)
            assert process.poll() is None, (directory / "log").read_text()
            yield found
        finally:
            process.terminate()


@pytest.fixture
def binary() -> str:
    found = shutil.which("prometheus")
    if found is None and os.environ.get("CI") != "true":
        pytest.skip("prometheus is not installed (Debian: prometheus)")
    assert found, "prometheus must be installed in CI"
    return found


@pytest.fixture
def proxies(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loaded: None
) -> Iterator[list[Proxy]]:
    """The demonstration's proxy, and the same in shadow mode."""
    monkeypatch.setenv("PENSTOCK_METRICS_KEY", KEY)
    tables = (demonstration(simulator, tmp_path / mode, mode=mode) for mode in ("on", "shadow"))
    made = [Proxy(table, {}, SystemClock()) for table in tables]
    yield made
    for each in made:
        each.stop()


def play(proxies: list[Proxy], first: int) -> None:
    """Some rounds of the demonstration's load, and enough of one model for a comparison."""
    demo = load()

    async def played(proxy: Proxy) -> None:
        asks = [demo.round_of(first + number) for number in range(ROUNDS)]
        asks += [(demo.Ask("demo-web", "sim-small", f"{first}.{number}", stream=True) for number in range(ENOUGH))]
        asks += [(demo.Ask("demo-web", "failing", f"{first}.{number}") for number in range(3))]
        async with httpx.AsyncClient(base_url=proxy.url, timeout=DEADLINE, trust_env=False) as http:
            await demo.play(http, itertools.chain.from_iterable(asks), at_once=16)

    async def all_played() -> None:
        await asyncio.gather(*map(played, proxies))

    asyncio.run(all_played())


def fail(proxy: Proxy) -> None:
    """What only disks do, told to the meter by hand."""

    def told() -> None:
        meter = proxy.app.meter
        for event in ("disk_write_failed", "disk_unavailable"):
            meter.store_event(event)
        for event in ("write_failed", "dropped", "unavailable"):
            meter.ledger_event(event)

    proxy.loop.call(told)


def sums(proxy: Proxy) -> dict[str, float]:
    """What a scrape says, by series as they are written."""
    page = httpx.get(f"{proxy.url}/metrics", headers={"Authorization": f"Bearer {KEY}"}, trust_env=False)
    lines = [line.rpartition(" ") for line in page.raise_for_status().text.splitlines() if not line.startswith("#")]
    return {series: float(value) for series, _, value in lines}


def queries() -> list[Query]:
    """All that has to give data: panels without the 0 that they fall back on, alerts without their thresholds."""
    drawn = [Query(each.where, without_fallbacks(each.expression)) for each in panel_queries()]
    alerts = [Query(each.where, without_thresholds(each.expression)) for each in alert_queries()]
    return [*drawn, *rule_queries(), *alerts]


def test_every_panel_rule_alert_and_variable_has_data_under_load(
    binary: str, proxies: list[Proxy], tmp_path: Path
) -> None:
    with prometheus(binary, tmp_path, proxies) as seen:
        for first in (0, ROUNDS):
            play(proxies, first)
            for proxy in proxies:
                fail(proxy)
            if not first:
                eventually(lambda: seen.ask("sum(penstock_attempts_total) > 0"))
        waiting = queries()

        def complete() -> bool:
            waiting[:] = [query for query in waiting if not seen.ask(shortened(query.expression))]
            return not waiting

        try:
            eventually(complete)
        except AssertionError:
            pytest.fail("no data:\n" + "\n".join(f"{query.where}: {query.expression}" for query in waiting))
        for where, selector, label in variables():
            assert seen.labels(shortened(selector), label), where
        assert seen.ask('penstock_streams{job="nobody"}') == []  # what has no data is seen
        # And it is the right data: what both proxies answered for nothing, and what one of them would have.
        assert seen.ask('sum(penstock_requests_total{outcome="hit"})')[0] > 0
        assert seen.ask('sum(penstock_shadow_requests_total{would="hit"})')[0] > 0
        assert len(seen.ask('up{job="penstock"} == 1')) == len(proxies)


def test_the_demonstration_waits_joins_and_spends_its_budget_however_slowly_it_goes(
    simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_METRICS_KEY", KEY)
    table = demonstration(simulator, tmp_path)
    table["models"]["sim-medium"].pop("upstream")  # as slow as it is in the demonstration
    table["models"]["sim-large"]["upstream"] = "sim-large;first=0;gap=0"
    proxy, demo = Proxy(table, {}, SystemClock()), load()
    asks = [ask for ask in demo.round_of(0) if ask.times > 1]
    asks += [ask for number in range(2 * ROUNDS) for ask in demo.round_of(number) if ask.key == "demo-trial"]

    async def played() -> None:
        async with httpx.AsyncClient(base_url=proxy.url, timeout=DEADLINE, trust_env=False) as http:
            for ask in asks:  # one after the other: what comes of it is no accident
                await demo.play(http, [ask])

    try:
        asyncio.run(played())
        found = sums(proxy)
    finally:
        proxy.stop()
    assert found['penstock_turn_wait_seconds_count{provider="simulator"}'] > 0
    assert found["penstock_flights_joined_total"] > 0
    assert found['penstock_limit_refusals_total{key="research",limit="concurrent"}'] > 0
    assert found['penstock_limit_refusals_total{key="trial",limit="budget"}'] > 0
    spent = [value for series, value in found.items() if re.match('penstock_budget_spent_usd{.*key="trial"', series)]
    assert 0 < sum(spent) < 0.01  # and yet it is refused
