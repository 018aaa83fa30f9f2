"""What lies in grafana/: dashboards, rules, alerts; and the metrics that there are."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml  # type: ignore[import-untyped]

from proxy.meter import NAMES, PREFIX, Meter
from tests.promql import read
from tests.support import Json

ROOT: Final = Path(__file__).resolve().parent.parent
GRAFANA: Final = ROOT / "grafana"
PROMETHEUS: Final = GRAFANA / "prometheus"
DASHBOARDS: Final = {path.stem: json.loads(path.read_text("utf-8")) for path in (GRAFANA / "dashboards").glob("*.json")}
OF_PROMETHEUS: Final = {"up": frozenset[str](), "ALERTS": frozenset({"alertname", "alertstate", "severity"})}


def yaml_of(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def rules(file: str) -> list[Json]:
    """Of all groups."""
    return [rule for group in yaml_of(PROMETHEUS / file)["groups"] for rule in group["rules"]]


RULES: Final = rules("rules.yml")
ALERTS: Final = rules("alerts.yml")


class Query(NamedTuple):
    """An expression, and whose it is."""

    where: str
    expression: str
    legend: str = ""


def panels(dashboard: Json) -> list[Json]:
    """Without the headings of rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def panel_queries() -> Iterator[Query]:
    for name, dashboard in sorted(DASHBOARDS.items()):
        for panel in panels(dashboard):
            for target in panel["targets"]:
                yield Query(f"{name}: {panel['title']}", target["expr"], target["legendFormat"])


def variables() -> Iterator[tuple[str, str, str]]:
    """Of each variable that has a query: where it is, what it selects, the label whose values it lists."""
    for name, dashboard in sorted(DASHBOARDS.items()):
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
                assert match, variable["query"]
                yield f"{name}: ${variable['name']}", match[1], match[2]


def rule_queries() -> Iterator[Query]:
    yield from (Query(rule["record"], rule["expr"]) for rule in RULES)


def alert_queries() -> Iterator[Query]:
    yield from (Query(rule["alert"], rule["expr"]) for rule in ALERTS)


def annotation_queries() -> Iterator[Query]:
    for name, dashboard in sorted(DASHBOARDS.items()):
        for each in dashboard["annotations"]["list"]:
            if "expr" in each:
                yield Query(f"{name}: annotation {each['name']}", each["expr"])


def exposed() -> dict[str, frozenset[str]]:
    """Every series that a scrape may bring, with its labels: from the meter itself."""
    found = dict(OF_PROMETHEUS)
    for name, (kind, _, labels) in NAMES.items():
        own = frozenset(labels)
        if kind == "histogram":
            found |= {f"{PREFIX}{name}{part}": own for part in ("_sum", "_count")}
            found[f"{PREFIX}{name}_bucket"] = own | {"le"}
        else:
            found[PREFIX + name + ("_total" if kind == "counter" else "")] = own
    lines = Meter().exposition().decode().splitlines()
    return found | {line.split()[0]: frozenset[str]() for line in lines if line.startswith("process_")}


def known() -> dict[str, frozenset[str]]:
    """The same, and what the recording rules make of it: what they group by, or have from what they read."""
    found = exposed()
    for rule in RULES:
        expression = read(rule["expr"])
        inherited = (found[selector.name] for selector in expression.selectors)
        labels = expression.grouped_by or frozenset[str]().union(*inherited)
        found[rule["record"]] = found.get(rule["record"], frozenset()) | labels
    return found
