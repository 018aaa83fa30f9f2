"""Whose figures are whose, and that they are what the metrics say."""

from decimal import Decimal
from typing import Any

import pytest

from tests.conftest import MakeProxy
from tests.keyed import Ahead, key, shows
from tests.support import CHAT, Json, Proxy, ask

PATH = "/console/figures"
ADMIN = {"authorization": "Bearer sk-admin"}
PRICES: Json = {"sim-instant": {"price": {"input": "1", "output": "2"}}}
FREE_FIGURES = {"requests": 0, "hits": 0, "spent_usd": "0.000000000", "hit_ratio": None}


@pytest.fixture
def keyed(make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    monkeypatch.setenv("TEST_ADMIN_KEY", "sk-admin")
    budget = {"usd": "5", "per": "day"}
    keys = [key("rich", budget=budget), key("poor", models=["sim-small"])]
    return make_proxy(key="sk-operator", server={"admin_key_env": "TEST_ADMIN_KEY"}, models=PRICES, keys=keys)


def chat(proxy: Proxy, prompt: str, name: str = "", **members: Any) -> Json:
    answer = proxy.http.post(CHAT, json=ask(prompt, **members), headers=shows(name) if name else {})
    return {"status": answer.status_code, "usd": answer.headers.get("x-penstock-cost-usd")}


def figures(proxy: Proxy, headers: Json | None = None) -> Json:
    answer = proxy.http.get(PATH, headers=headers or {})
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    found: Json = answer.json()
    return found


def test_a_proxy_that_was_asked_nothing_says_so(make_proxy: MakeProxy) -> None:
    found = figures(make_proxy())
    assert (found["of"], found["key"], found["mode"], found["budget"]) == ("all", None, "on", None)
    assert FREE_FIGURES.items() <= found["totals"].items()
    assert found["totals"]["first_token"] == dict.fromkeys(("hit", "miss", "collapsed", "bypass"))
    assert (found["models"], found["requests"]) == ([], [])


def test_what_is_shown_is_what_the_metrics_say(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy(models=PRICES)
    for _ in range(3):
        chat(proxy, prompt, stream=True)
    chat(proxy, prompt + "?", model="nobody")
    found, metrics = figures(proxy), proxy.metrics()
    totals = found["totals"]
    assert [totals[name] for name in ("requests", "hits", "misses", "failed")] == [4, 2, 1, 0]  # an error is none
    assert totals["hit_ratio"] == pytest.approx(2 / 3)
    spent = sum(usd for name, usd in metrics.items() if name.startswith("penstock_cost_usd_total"))
    saved = sum(usd for name, usd in metrics.items() if name.startswith("penstock_saved_usd_total"))
    assert float(totals["spent_usd"]) == pytest.approx(spent, abs=1e-9)
    assert float(totals["saved_usd"]) == pytest.approx(saved, abs=1e-9)
    assert saved == pytest.approx(2 * spent)
    assert totals["first_token"]["hit"] is not None
    assert totals["first_token"]["miss"] is not None
    assert [(each["model"], each["requests"]) for each in found["models"]] == [("sim-instant", 3), ("other", 1)]
    assert sum(each["requests"] for each in found["minutes"]) == 4
    assert {"provider": "sim", "model": "sim-instant", "state": "up", "seconds": 0, "attempts": 1, "failed": 0} in (
        found["providers"]
    )


def test_the_last_requests_come_newest_first_with_what_they_cost(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy(models=PRICES)
    cost = chat(proxy, prompt)["usd"]
    chat(proxy, prompt)
    hit, miss = figures(proxy)["requests"]
    assert (hit["outcome"], hit["cost_usd"], Decimal(hit["saved_usd"])) == ("hit", "0", Decimal(cost))
    assert (miss["outcome"], Decimal(miss["cost_usd"]), miss["saved_usd"]) == ("miss", Decimal(cost), None)
    assert (miss["status"], miss["code"], miss["asked"], miss["provider"]) == (200, None, "sim-instant", "sim")
    assert miss["input"] > 0
    assert miss["output"] > 0
    assert prompt not in str(figures(proxy))


def test_a_routes_reasons_are_told_with_each_request(make_proxy: MakeProxy, prompt: str) -> None:
    models = {**PRICES, "sim-small": {"price": {"input": "9", "output": "9"}, "window": 10}}
    proxy = make_proxy(models=models, routes={"any": {"models": ["sim-small", "sim-instant"]}})
    chat(proxy, prompt, model="any")
    (found,) = figures(proxy)["requests"]
    assert (found["asked"], found["route"], found["model"], found["why"]) == ("any", "any", "sim-instant", "only")
    assert [each["model"] for each in found["passed_over"]] == ["sim-small"]
    assert found["passed_over"][0]["reason"]
    assert found["attempts"] == [{"model": "sim-instant", "result": "ok"}]


def test_what_a_route_saved_is_told_with_each_request(make_proxy: MakeProxy, prompt: str) -> None:
    models = {**PRICES, "sim-small": {"price": {"input": "9", "output": "9"}}}
    proxy = make_proxy(models=models, routes={"any": {"models": list(models), "baseline": "sim-small"}})
    chat(proxy, prompt, model="any")
    (found,) = figures(proxy)["requests"]
    assert (found["outcome"], found["model"]) == ("miss", "sim-instant")
    saved = proxy.count("penstock_saved_usd_total", cause="routing")
    assert float(found["saved_usd"]) == pytest.approx(saved, abs=1e-9)
    assert saved > 0


def test_an_error_without_a_code_is_told_by_its_type(make_proxy: MakeProxy) -> None:
    proxy = make_proxy()
    proxy.http.post(CHAT, content=b"{", headers={"content-type": "application/json"})
    (row,) = proxy.told()
    assert (row.status, row.code) == (400, "invalid_request_error")


@pytest.mark.parametrize("shadow", ["hit", "miss"])
def test_in_shadow_mode_it_says_what_would_have_been(shadow: str, make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy(models=PRICES, cache={"mode": "shadow"})
    for _ in range(2 if shadow == "hit" else 1):
        chat(proxy, prompt, stream=True)
    found = figures(proxy)
    assert found["requests"][0]["shadow"] == shadow
    totals = found["totals"]
    assert (totals["would_hit"], totals["would_join"], totals["would_miss"]) == (int(shadow == "hit"), 0, 1)
    assert totals["first_token"]["bypass"] is not None


def test_what_was_given_again_without_a_price_is_told(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy()
    for _ in range(3):
        chat(proxy, prompt)
    assert [figures(proxy)["totals"][name] for name in ("hits", "saved_unknown")] == [2, 2]


def test_a_model_that_is_left_alone_is_shown_to_be_down(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy("http://127.0.0.1:9/v1", provider={"max_retries": 0, "breaker_failures": 1})
    assert chat(proxy, prompt)["status"] >= 500
    (found,) = figures(proxy)["providers"]
    assert (found["model"], found["state"]) == ("other", "down")  # a model that never answered is not named
    named = make_proxy("http://127.0.0.1:9/v1", provider={"max_retries": 0, "breaker_failures": 1}, models=PRICES)
    chat(named, prompt)
    (found,) = figures(named)["providers"]
    assert (found["model"], found["state"], found["failed"]) == ("sim-instant", "down", found["attempts"])
    assert found["seconds"] > 0
    assert figures(named)["totals"]["failed"] == 1


def test_after_its_pause_a_model_is_tried_until_it_has_answered(make_proxy: MakeProxy, prompt: str) -> None:
    clock = Ahead()
    models = {"shaky": {**PRICES["sim-instant"], "upstream": "sim-instant;fail=1"}}  # each request fails once
    proxy = make_proxy(clock=clock, provider={"max_retries": 0, "breaker_failures": 1}, models=models)

    def state() -> tuple[str, float]:
        (found,) = figures(proxy)["providers"]
        assert proxy.count("penstock_breaker_open") == (found["state"] != "up")
        return found["state"], found["seconds"]

    assert state() == ("up", 0)
    chat(proxy, prompt, model="shaky")
    assert state()[0] == "down"
    clock.seconds += 3600
    assert state() == ("trying", 0)
    assert chat(proxy, prompt, model="shaky")["status"] == 200
    assert state() == ("up", 0)


def test_a_key_sees_no_model_that_only_another_has_named(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy(key="sk-operator", models=PRICES, keys=[key("one"), key("other")])
    chat(proxy, prompt, "one", model="sim-instant;chunks=2")
    one, other = (figures(proxy, shows(name)) for name in ("one", "other"))
    assert {each["model"] for each in one["providers"]} == {"sim-instant", "sim-instant;chunks=2"}
    assert {each["model"] for each in other["providers"]} == {"sim-instant"}


def test_a_key_sees_its_own_and_the_administrator_everybodys(keyed: Proxy, prompt: str) -> None:
    chat(keyed, prompt, "rich")
    chat(keyed, prompt, "rich")
    chat(keyed, prompt, "poor", model="sim-small")
    rich, poor, both = (figures(keyed, headers) for headers in (shows("rich"), shows("poor"), ADMIN))
    assert [each["totals"]["requests"] for each in (rich, poor, both)] == [2, 1, 3]
    assert [(each["of"], each["key"]) for each in (rich, poor, both)] == [
        ("key", "rich"),
        ("key", "poor"),
        ("all", None),
    ]
    assert {row["key"] for row in poor["requests"]} == {"poor"}
    assert [each["model"] for each in poor["models"]] == ["sim-small"]
    assert [each["model"] for each in poor["providers"]] == ["sim-small"]  # which it may call
    assert "attempts" not in poor["providers"][0]  # they are everybody's
    assert poor["budget"] is None
    assert rich["budget"]["usd"] == "5"
    assert Decimal(rich["budget"]["spent_usd"]) == pytest.approx(
        Decimal(rich["totals"]["spent_usd"]), abs=Decimal("1e-9")
    )


def test_whoever_shows_no_key_sees_nothing_where_there_are_keys(keyed: Proxy) -> None:
    for headers in ({}, {"authorization": "Bearer sk-wrong"}):
        answer = keyed.http.get(PATH, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"


def test_without_keys_only_this_machine_sees_them(make_proxy: MakeProxy) -> None:
    proxy = make_proxy()
    for headers in ({"host": "evil.example"}, {"x-forwarded-for": "203.0.113.9"}, {"origin": "http://evil.example"}):
        answer = proxy.http.get(PATH, headers=headers)
        assert answer.status_code == 403
        assert answer.json()["error"]["message"]


def test_to_look_is_not_counted(make_proxy: MakeProxy) -> None:
    proxy = make_proxy()
    before = {name: value for name, value in proxy.metrics().items() if name.startswith("penstock_requests")}
    for _ in range(3):
        figures(proxy)
    after = {name: value for name, value in proxy.metrics().items() if name.startswith("penstock_requests")}
    assert after == before
