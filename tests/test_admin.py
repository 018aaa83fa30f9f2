"""What administrators do over HTTP, and what clients see of it at once."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from click.testing import CliRunner

from proxy.cli import main
from proxy.core.access import Allowance, Grant
from proxy.ledger.keys import create_key, revoke_key
from tests.conftest import MakeProxy, Sdk
from tests.keyed import key
from tests.routed import counted
from tests.scripted import Wire
from tests.support import CHAT, Json, Proxy, Simulator, ask, eventually

ADMIN = {"authorization": "Bearer sk-admin"}
PRICES = {
    "sim-instant": {"price": {"input": "1", "output": "2"}},
    "sim-small": {"price": {"input": "1", "output": "2"}},
}


class Administered:
    """A proxy with an admin key, and what its administrator does."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy

    def ask(self, method: str, path: str, **said: Any) -> tuple[int, Json]:
        answer = self.proxy.http.request(method, path, headers=ADMIN, **said)
        return answer.status_code, answer.json()

    def make(self, name: str, **rights: Any) -> Json:
        status, made = self.ask("POST", "/admin/keys", json={"name": name, **rights})
        assert status == 201, made
        return made

    def key(self, key_id: str) -> Json:
        (found,) = [each for each in self.ask("GET", "/admin/keys")[1]["data"] if each["id"] == key_id]
        return dict(found)

    def chat(self, secret: str, prompt: str, model: str = "sim-instant", **headers: str) -> tuple[int, str]:
        """Status and what the cache did."""
        shown = {"authorization": f"Bearer {secret}", **headers}
        answer = self.proxy.http.post(CHAT, json=ask(prompt, model), headers=shown)
        return answer.status_code, answer.headers.get("cache-status", "").removeprefix("penstock; ").partition(";")[0]


@pytest.fixture
def administered(make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch) -> Administered:
    monkeypatch.setenv("TEST_ADMIN_KEY", "sk-admin")
    server: Json = {"admin_key_env": "TEST_ADMIN_KEY"}
    return Administered(make_proxy(key="sk-operator", server=server, models=PRICES))


def test_a_key_that_is_made_is_in_force_at_once_and_one_that_is_revoked_is_not(
    administered: Administered, sdk: Sdk, prompt: str
) -> None:
    made = administered.make("team", models=["sim-*"], expires="1h")
    client = sdk(administered.proxy.base_url, api_key=made["secret"])
    assert client.chat.completions.create(**ask(prompt)).choices
    assert administered.chat("sk-other", prompt)[0] == 401
    assert administered.ask("DELETE", f"/admin/keys/{made['id']}")[0] == 200
    with pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(**ask(prompt))
    told = administered.key(made["id"])
    assert told["revoked"] is not None
    assert (told["models"], "secret" in told) == (["sim-*"], False)
    assert administered.ask("POST", "/admin/keys", json={"name": "team"})[0] == 201  # its name is free again


def test_a_key_is_no_admin_key_and_an_admin_key_is_no_key(administered: Administered, prompt: str) -> None:
    secret = administered.make("team")["secret"]
    shown = {"authorization": f"Bearer {secret}"}
    assert administered.proxy.http.get("/admin/keys", headers=shown).status_code == 401
    assert administered.chat("sk-admin", prompt)[0] == 401


def test_a_key_that_makes_no_sense_or_whose_name_is_taken_is_refused_in_openais_shape(
    administered: Administered,
) -> None:
    administered.make("team")
    for table, param in [
        ({"name": "team"}, "name"),
        ({"name": "a", "budget": {"usd": "0", "per": "day"}}, "budget.usd"),
        ({"name": "a", "expires": "1970-01-01"}, "expires"),
        ({"name": "a", "id": "pk_mine"}, "id"),
        ({"models": ["*"]}, None),
    ]:
        status, said = administered.ask("POST", "/admin/keys", json=table)
        assert (status, said["error"]["type"], said["error"]["param"]) == (400, "invalid_request_error", param)
    assert len(administered.ask("GET", "/admin/keys")[1]["data"]) == 1


def test_what_a_key_has_spent_is_told_beside_its_budget(administered: Administered, prompt: str) -> None:
    made = administered.make("team", budget={"usd": "0.50", "per": "month"})
    assert made["budget"] == {"usd": "0.50", "per": "month", "spent": "0", "reserved": "0", "left": "0.50"}
    assert administered.chat(made["secret"], prompt)[0] == 200

    def spent() -> bool:
        budget = administered.key(made["id"])["budget"]
        return float(budget["spent"]) > 0 and float(budget["reserved"]) == 0

    eventually(spent)
    budget = administered.key(made["id"])["budget"]
    assert float(budget["spent"]) + float(budget["left"]) == pytest.approx(0.5)


def test_budgets_of_keys_with_one_name_are_told_apart_and_of_those_in_force_only(
    make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    budget = Allowance(Decimal(1), "total")
    gone, _ = create_key(tmp_path, Grant("dup", budget=budget), now=1.0)
    revoke_key(tmp_path, gone.id, now=2.0)
    kept, _ = create_key(tmp_path, Grant("dup", budget=budget), now=3.0)
    monkeypatch.setenv("TEST_ADMIN_KEY", "sk-admin")
    own = key("dup", budget={"usd": "2", "per": "total"})
    administered = Administered(
        make_proxy(key="sk-operator", server={"admin_key_env": "TEST_ADMIN_KEY"}, keys=[own], directory=tmp_path)
    )

    def told() -> dict[tuple[str, ...], float]:
        return counted(administered.proxy.metrics(), "penstock_budget_usd")

    assert told() == {(kept.id, "dup"): 1, ("dup", "dup"): 2}
    assert f"the key {kept.id} of the ledger is named 'dup' too" in caplog.text
    made = administered.make("new", budget={"usd": "3", "per": "day"})
    assert told()[made["id"], "new"] == 3
    for each in (made["id"], kept.id):
        assert administered.ask("DELETE", f"/admin/keys/{each}")[0] == 200
    assert told() == {("dup", "dup"): 2}


def test_spendings_are_told_as_the_command_tells_them(administered: Administered, prompt: str) -> None:
    made = administered.make("team")
    assert administered.ask("GET", "/admin/spend")[1]["data"] == []
    for model in ("sim-instant", "sim-small", "sim-instant"):
        assert administered.chat(made["secret"], prompt, model)[0] == 200

    def spent(query: str = "") -> list[Json]:
        found: list[Json] = administered.ask("GET", f"/admin/spend{query}")[1]["data"]
        return found

    (mine,) = eventually(lambda: [each for each in spent() if each["requests"] == 3])
    assert (mine["key"], mine["name"], mine["attempts"], mine["hits"]) == (made["id"], "team", 2, 1)
    assert float(mine["usd"]) > 0
    by_model = {each["model"]: each for each in spent("?by=model&since=1h")}
    assert sum(Decimal(each["usd"]) for each in by_model.values()) == Decimal(mine["usd"])
    told = CliRunner().invoke(
        main, ["report", "--by", "model", "--format", "json", "--data-dir", str(administered.proxy.directory)]
    )
    assert list(by_model.values()) == json.loads(told.stdout)["groups"]
    assert spent("?since=2099-01-01") == []
    for query, param in (("?by=colour", "by"), ("?since=yesterday", "since")):
        status, said = administered.ask("GET", f"/admin/spend{query}")
        assert (status, said["error"]["param"]) == (400, param)


PURGED = "fwd=miss"


def test_the_cache_is_purged_by_key_model_request_and_all(
    administered: Administered, simulator: Simulator, prompt: str
) -> None:
    secrets = {name: administered.make(name)["secret"] for name in ("one", "two")}
    pairs = [(secrets[name], model) for name in secrets for model in ("sim-instant", "sim-small")]

    def done() -> list[str]:
        return [administered.chat(secret, prompt, model)[1] for secret, model in pairs]

    assert done() == [PURGED] * 4
    assert done() == ["hit"] * 4
    assert administered.ask("DELETE", "/admin/cache?key=one") == (200, {"purged": 2})
    assert done() == [PURGED, PURGED, "hit", "hit"]
    assert administered.ask("DELETE", "/admin/cache?model=sim-small") == (200, {"purged": 2})
    assert done() == ["hit", PURGED, "hit", PURGED]
    assert administered.ask("DELETE", "/admin/cache?all=true") == (200, {"purged": 4})
    assert done() == [PURGED] * 4
    answer = administered.proxy.http.post(CHAT, json=ask(prompt), headers={"authorization": f"Bearer {secrets['two']}"})
    request = answer.headers["x-penstock-request-id"]
    assert administered.ask("DELETE", f"/admin/cache?request={request}") == (200, {"purged": 1})
    assert done() == ["hit", "hit", PURGED, "hit"]
    assert administered.ask("DELETE", "/admin/cache?request=req_none") == (200, {"purged": 0})
    assert simulator.asked() == 4 + 2 + 2 + 4 + 1


def test_what_is_under_way_is_told(administered: Administered, simulator: Simulator, prompt: str) -> None:
    made = administered.make("team")
    assert administered.ask("GET", "/admin/flights")[1]["data"] == []
    shown = {"authorization": f"Bearer {made['secret']}"}
    with simulator.closed(), Wire(administered.proxy.url, ask(prompt), shown):
        (flight,) = eventually(lambda: administered.ask("GET", "/admin/flights")[1]["data"])
        eventually(lambda: administered.ask("GET", "/admin/flights")[1]["data"][0]["provider"] == "sim")
        (flight,) = administered.ask("GET", "/admin/flights")[1]["data"]
        assert flight["age"] >= 0
        assert flight["bytes"] >= 0
        told = ("endpoint", "key", "asked", "provider", "model", "readers", "waits")
        assert [flight[each] for each in told] == ["chat", made["id"], "sim-instant", "sim", "sim-instant", 1, False]
        assert prompt not in str(flight)
    eventually(lambda: administered.ask("GET", "/admin/flights")[1]["data"] == [])
