"""What the ranking is worth: on a log of its own kind of every traffic, it is never much dearer than the better of two
simple rules, and cheaper in the sum.
"""

from decimal import Decimal
from pathlib import Path

import pytest

from bench.workload import workload, write
from proxy.offers import price_table
from proxy.reading import load_settings
from proxy.settings import Settings
from proxy.simulate.options import field_of
from proxy.simulate.report import runs_of
from proxy.simulate.trace import Request, read_trace

ROOT = Path(__file__).parents[2]
MARKET = load_settings(ROOT / "bench" / "market.toml")
RESELLER = load_settings(ROOT / "penstock.example.toml")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> list[Request]:
    path = tmp_path_factory.mktemp("log") / "mixed.csv"
    with path.open("w") as file:
        write(workload(seed=2, rows=1500), file)
    return list(read_trace(path))


def spent(settings: Settings, route: str, log: list[Request]) -> dict[str, Decimal]:
    """USD by policy."""
    field = field_of(settings, price_table(settings), route)
    runs = runs_of(field, block=64, ttl=7 * 86400)
    for request in log:
        for run in runs.values():
            run.take(request)
    return {name: run.finish().usd for name, run in runs.items()}


@pytest.mark.parametrize(
    ("settings", "route"),
    [(RESELLER, "economy"), *((MARKET, route) for route in ("small", "middle", "large", "mixed"))],
)
def test_the_ranking_is_at_most_a_percent_dearer_than_the_better_of_two_simple_rules(
    settings: Settings, route: str, log: list[Request]
) -> None:
    usd = spent(settings, route, log)
    assert usd["penstock"] <= min(usd["named"], usd["per token"]) * Decimal("1.01")
    assert usd["penstock + cache"] < usd["penstock"]


def test_the_ranking_is_cheaper_in_the_sum_where_models_differ(log: list[Request]) -> None:
    usd = [spent(MARKET, route, log) for route in MARKET.routes]
    best = sum(min(each["named"], each["per token"]) for each in usd)
    assert sum(each["penstock"] for each in usd) < best * Decimal("0.9")
