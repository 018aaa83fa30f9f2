"""grafana/ and compose.yaml: they name what there is, say what to do, and promtool agrees."""

import itertools
import json
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from pricing.cost import Usage
from proxy.core.books import Answered
from proxy.core.lines import json_lines
from proxy.reading import read_settings
from tests.monitoring import (
    ALERTS,
    DASHBOARDS,
    GRAFANA,
    PROMETHEUS,
    ROOT,
    RULES,
    Query,
    alert_queries,
    annotation_queries,
    known,
    panel_queries,
    panels,
    rule_queries,
    variables,
    yaml_of,
)
from tests.promql import read, shortened, without_thresholds, wrongs
from tests.support import Json

UID = "${datasource}"
README = (GRAFANA / "README.md").read_text("utf-8")
RUNBOOK = (GRAFANA / "RUNBOOK.md").read_text("utf-8")
COMPOSE = yaml_of(ROOT / "compose.yaml")
SERVICES: Json = COMPOSE["services"]


def every_query() -> Iterator[Query]:
    yield from itertools.chain(panel_queries(), rule_queries(), alert_queries(), annotation_queries())
    yield from (Query(where, selector) for where, selector, _ in variables())


def test_every_expression_names_metrics_and_labels_that_exist() -> None:
    there = known()
    found = [f"{query.where}: {wrong}" for query in every_query() for wrong in wrongs(query.expression, there)]
    found += [f"{where}: nothing has a label {label}" for where, _, label in variables() if not has_label(label)]
    assert not found, "\n".join(found)


def has_label(label: str) -> bool:
    return label in {"job", "instance"} or any(label in labels for labels in known().values())


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("sum(rate(penstock_request_total[5m]))", "no metric penstock_request_total"),
        ("penstock_streams_total", "no metric penstock_streams_total"),
        ("rate(penstock_requests[5m])", "no metric penstock_requests"),
        ("penstock:nothing:rate5m", "no metric penstock:nothing:rate5m"),
        ('penstock_streams{model=~"$model"}', "penstock_streams has no label model"),
        ('rate(penstock_requests_total{key="k"}[5m]) > 0', "penstock_requests_total has no label key"),
        ("sum by (key) (rate(penstock_requests_total[5m]))", "nothing in it has a label key to group by"),
        ("sum by (le) (rate(penstock_overhead_seconds_count[5m]))", "nothing in it has a label le to group by"),
        ("sum by (tier) (penstock_streams) / sum by (tier) (penstock_store_bytes)", "nothing in it has a label tier"),
        ("penstock_streams and on (nobody) penstock_flights", "nothing has a label nobody to match on"),
        ("sum by (outcome) (penstock:first_tokens:increase15m)", "nothing in it has a label outcome to group by"),
    ],
)
def test_a_name_that_does_not_exist_is_seen(expression: str, wrong: str) -> None:
    assert any(wrong in each for each in wrongs(expression, known()))


def test_what_exists_is_let_pass() -> None:
    good = """
    histogram_quantile(0.95, sum by (job, le) (rate(penstock_first_token_seconds_bucket{outcome="hit"}[$__range])))
      > 1.5 * penstock:first_token_seconds:p95_15m offset 1d
    or on () label_replace(vector(0), "model", "none", "", "")
    and {job="penstock",tier=~".+"} unless up == bool 0
    """
    assert wrongs(good, known()) == []
    assert [each.name for each in read(good).selectors if each.ranged] == ["penstock_first_token_seconds_bucket"]
    with pytest.raises(ValueError, match="cannot read"):
        read("sum(rate(penstock_requests_total[5m])) ?")


def test_ranges_variables_and_thresholds_are_taken_out_where_a_young_proxy_is_asked() -> None:
    assert (
        shortened('rate(a{model=~"$model"}[$__rate_interval]) + b offset 1d')
        == 'rate(a{model=~".*"}[1m]) + b offset 1s'
    )
    assert without_thresholds('a{b!="c"} >= 2 and d == 0') == 'a{b!="c"} >= bool 2 and d == bool 0'


def test_counters_are_shown_as_rates_or_increases_only() -> None:
    raw = [
        f"{query.where}: {selector.name}"
        for query in panel_queries()
        for selector in read(query.expression).selectors
        if selector.name.endswith(("_total", "_bucket", "_count", "_sum")) and not selector.ranged
    ]
    assert not raw, "\n".join(raw)


def test_legends_name_labels_that_are_left() -> None:
    for query in panel_queries():
        found = read(query.expression)
        left = found.grouped_by or set().union(*(known().get(each.name, frozenset()) for each in found.selectors))
        assert set(re.findall(r"{{(\w+)}}", query.legend)) <= left | {"instance", "job"}, query


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_whole(name: str) -> None:
    dashboard = DASHBOARDS[name]
    assert dashboard["uid"] == f"penstock-{name}"
    assert dashboard["schemaVersion"] >= 39
    assert dashboard["id"] is None
    assert dashboard["tags"] == ["penstock"]
    assert [link["tags"] for link in dashboard["links"] if link["type"] == "dashboards"] == [["penstock"]]
    assert dashboard["refresh"]
    assert dashboard["time"]["from"].startswith("now-")
    first, *others = dashboard["templating"]["list"]
    assert (first["name"], first["type"], first["query"]) == ("datasource", "datasource", "prometheus")
    for variable in others:
        assert variable["datasource"]["uid"] == UID
        assert variable["multi"]
        assert variable["includeAll"]
        assert variable["allValue"] == ".*"  # a label may be empty


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_panel_says_its_unit_what_it_means_and_where_its_data_is_from(name: str) -> None:
    for panel in panels(DASHBOARDS[name]):
        title = panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], title
        assert len(panel["description"]) > 40, title
        assert panel["datasource"] == {"type": "prometheus", "uid": UID}, title
        assert panel["targets"], title
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"], title
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references), title


@pytest.mark.parametrize("name", DASHBOARDS)
def test_variables_that_are_used_are_declared_and_the_other_way_round(name: str) -> None:
    dashboard = DASHBOARDS[name]
    declared = {each["name"] for each in dashboard["templating"]["list"]} - {"datasource"}
    expressions = " ".join(target["expr"] for panel in panels(dashboard) for target in panel["targets"])
    assert set(re.findall(r"\$([a-z]\w*)", expressions)) == declared


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_have_ids_and_room_of_their_own(name: str) -> None:
    every = DASHBOARDS[name]["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    taken: dict[tuple[int, int], str] = {}
    for panel in every:
        grid = panel["gridPos"]
        assert grid["x"] + grid["w"] <= 24
        for cell in itertools.product(range(grid["x"], grid["x"] + grid["w"]), range(grid["y"], grid["y"] + grid["h"])):
            assert cell not in taken, f"{panel['title']} lies on {taken.get(cell)}"
            taken[cell] = panel["title"]


def test_a_hit_is_green_wherever_it_is_drawn() -> None:
    for dashboard in DASHBOARDS.values():
        for panel in panels(dashboard):
            legends = {target["legendFormat"] for target in panel["targets"]}
            if panel["type"] == "timeseries" and "{{outcome}}" in legends:
                fixed = {
                    each["matcher"]["options"]: each["properties"][0]["value"]["fixedColor"]
                    for each in panel["fieldConfig"]["overrides"]
                }
                assert (fixed["hit"], fixed["miss"], fixed["broken"]) == ("green", "blue", "red"), panel["title"]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_every_alert_says_how_bad_it_is_and_where_to_read_on(alert: Json) -> None:
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert alert["annotations"]["runbook"] == f"grafana/RUNBOOK.md#{alert['alert'].lower()}"
    words = re.search(rf"^## {alert['alert']}\n(.+)", RUNBOOK, re.MULTILINE)
    assert words, "no line in the runbook"
    assert len(words[1]) > 40


def test_the_runbook_has_no_alert_that_is_gone_and_every_alert_is_tried() -> None:
    names = [alert["alert"] for alert in ALERTS]
    assert re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE) == sorted(names, key=RUNBOOK.index)
    tried: dict[str, set[bool]] = {name: set() for name in names}
    for path in (PROMETHEUS / "tests").glob("*.yml"):
        for test in yaml_of(path)["tests"]:
            for each in test.get("alert_rule_test", ()):
                tried[each["alertname"]].add(bool(each["exp_alerts"]))
    assert all(seen == {True, False} for seen in tried.values()), tried


def test_panels_that_the_runbook_names_are_there() -> None:
    titles = {panel["title"] for dashboard in DASHBOARDS.values() for panel in dashboard["panels"]}
    named = {" ".join(name.split()) for name in re.findall(r"\*\*(.+?)\*\*", RUNBOOK, re.DOTALL)} - {"bold"}
    assert len(named) > 10
    assert named <= titles


def test_recorded_names_say_their_level_and_are_used() -> None:
    used = " ".join(query.expression for query in every_query())
    for rule in RULES:
        assert re.fullmatch(r"penstock:\w+:\w+", rule["record"])
        assert len(re.findall(rf"{rule['record']}\b", used)) >= 1, rule["record"]


def promtool(*arguments: str | Path) -> None:
    found = shutil.which("promtool")
    if found is None and os.environ.get("CI") != "true":
        pytest.skip("promtool is not installed (Debian: prometheus)")
    assert found, "promtool must be installed in CI"
    run = subprocess.run([found, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_promtool_finds_no_fault_with_the_configuration_and_the_rules(tmp_path: Path) -> None:
    # What the file names lies elsewhere inside a container: the rules beside it, the key in /run.
    for each in ("rules.yml", "alerts.yml"):
        shutil.copy(PROMETHEUS / each, tmp_path)
    (tmp_path / "key").write_text("k")
    text = (PROMETHEUS / "prometheus.yml").read_text("utf-8")
    (tmp_path / "prometheus.yml").write_text(text.replace("/run/penstock/metrics_key", str(tmp_path / "key")))
    promtool("check", "config", tmp_path / "prometheus.yml")


@pytest.mark.parametrize("path", sorted((PROMETHEUS / "tests").glob("*.yml")), ids=lambda path: path.stem)
def test_alerts_fire_where_they_must_and_nowhere_else(path: Path) -> None:
    promtool("test", "rules", path)


def test_grafana_finds_what_it_is_provisioned_with() -> None:
    (source,) = yaml_of(GRAFANA / "provisioning/datasources/prometheus.yml")["datasources"]
    (provider,) = yaml_of(GRAFANA / "provisioning/dashboards/penstock.yml")["providers"]
    mounts = {target: here for here, target, *_ in (each.split(":") for each in SERVICES["grafana"]["volumes"])}
    assert source["uid"]
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == yaml_of(PROMETHEUS / "prometheus.yml")["global"]["scrape_interval"]
    assert mounts[provider["options"]["path"]] == "./grafana/dashboards"
    assert mounts["/etc/grafana/provisioning/datasources"] == "./grafana/provisioning/datasources"
    assert mounts["/etc/grafana/provisioning/dashboards"] == "./grafana/provisioning/dashboards"


def test_compose_publishes_on_loopback_only_and_pins_what_it_pulls() -> None:
    for name, service in SERVICES.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        if "build" not in service:
            assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"]), name
        assert service["restart"], name
        for each in service.get("depends_on", ()):
            assert each in SERVICES, name


def test_compose_mounts_files_that_there_are_and_declares_its_volumes() -> None:
    for service in SERVICES.values():
        for mount in service.get("volumes", ()):
            here = re.sub(r"\${\w+:-([^}]+)}", r"\1", mount).split(":")[0]
            assert (ROOT / here).exists() if here.startswith("./") else here in COMPOSE["volumes"], mount
        for config in service.get("configs", ()):
            assert config["source"] in COMPOSE["configs"]


def test_prometheus_is_given_the_key_and_the_files_that_it_asks_for() -> None:
    service, config = SERVICES["prometheus"], yaml_of(PROMETHEUS / "prometheus.yml")
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "penstock"
    assert [each["target"] for each in service["configs"]] == [job["authorization"]["credentials_file"]]
    assert COMPOSE["configs"]["metrics_key"]["content"] == SERVICES["proxy"]["environment"]["PENSTOCK_METRICS_KEY"]
    targets = {mount.split(":")[1] for mount in service["volumes"]}
    assert {f"/etc/prometheus/{name}" for name in ("prometheus.yml", *config["rule_files"])} <= targets
    assert job["static_configs"] == [{"targets": ["proxy:8080"]}]


def test_the_settings_of_the_demonstration_are_good_and_its_secrets_open_nothing_else() -> None:
    table = tomllib.loads((GRAFANA / "demo/penstock.toml").read_text("utf-8"))
    settings = read_settings(table, source="demo")
    assert settings.doubts() == []
    assert settings.server.metrics_key_env == "PENSTOCK_METRICS_KEY"
    assert {provider.base_url for provider in settings.providers.values()} == {"http://simulator:8090/v1"}
    assert SERVICES["simulator"]["command"][-1] == "8090"


def test_the_readme_lists_the_members_of_a_line_of_the_log() -> None:
    row = Answered(
        request="req_1",
        at=0.0,
        key="k",
        endpoint="chat",
        asked="economy",
        outcome="collapsed",
        status=200,
        code="c",
        provider="p",
        model="m",
        usage=Usage(input=1, cached=1, output=1),
        saved=Decimal(1),
        first=1.0,
        total=1.0,
        leader="req_2",
        entry=b"e",
        cost=Decimal(1),
        token=1.0,
        overhead=1.0,
        shadow="miss",
        route="economy",
        why="fallback",
        passed_over=(("a", "down"),),
        attempts=(("b", "status_503"), ("m", "ok")),
    )
    (section,) = re.findall(r"^## The log\n(.*?)^## ", README, re.MULTILINE | re.DOTALL)
    cells = re.findall(r"^\| (`.+?`) \|", section, re.MULTILINE)
    assert re.findall(r"`(\w+)`", " ".join(cells)) == list(json.loads(json_lines([row])))
