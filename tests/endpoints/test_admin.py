"""What administrators may see and do, and that nobody else may."""

import threading
import time
from collections import deque
from decimal import Decimal
from typing import Any

import httpx
import msgspec
import pytest
from starlette.applications import Starlette

from proxy.clock import SystemClock
from proxy.complaints import Complaints
from proxy.core.access import Access, Allowance, Grant, Guard, KnownKey, Limits, digest
from proxy.endpoints.admin import Admin, Balance, Office, UnderWay
from proxy.endpoints.desk import Desk
from proxy.endpoints.intake import Door
from proxy.errors import LedgerUnavailable, StartupError
from proxy.ids import Ids
from tests import fakes
from tests.fakes import Book, a_door, no_limits

ADMIN = {"authorization": "Bearer admin"}
OWN = KnownKey(Grant("own", "own", passthrough=frozenset({b"files"})), "settings")
MADE = KnownKey(
    Grant("team", "pk_1", ("gpt-*", "economy"), limits=Limits(60, None, 3), budget=Allowance(Decimal("50.00"), "month"),
          expires=1801440000.0), "ledger", created=0.0,
)  # fmt: skip
OLD = KnownKey(Grant("team", "pk_0"), "ledger", created=0.0, revoked=60.0)
FLIGHT = UnderWay("chat", "pk_1", "economy", "sim", "gpt-4.1", 1.5, 2, 300, waits=False)


class Keys:
    """A keyring that notes what it is asked."""

    def __init__(self) -> None:
        self.known = [OWN, OLD, MADE]
        self.created: list[dict[str, Any]] = []
        self.broken = False

    async def create(self, table: dict[str, Any]) -> tuple[KnownKey, str]:
        if self.broken:
            raise LedgerUnavailable("The ledger cannot be written.")
        if "name" not in table:
            raise StartupError("budget.usd: must be more than 0.")
        self.created.append(table)
        return MADE, "sk-secret"

    async def revoke(self, key: KnownKey) -> KnownKey:
        return msgspec.structs.replace(key, revoked=120.0)


class Rig:
    def __init__(self, door: Door | None = None) -> None:
        self.keys = Keys()
        self.purged: list[tuple[str, str]] = []
        self.threads: set[str] = set()
        access = Access({digest(b"sk-client"): OWN.grant})
        door = door or a_door(guard=Guard(digest(b"admin"), digest(b"scraper")), access=access)
        clock = SystemClock()
        desk = Desk(Ids(), fakes.Meter(), clock, Complaints(time.monotonic), no_limits(clock), Book(), deque())
        office = Office(self.keys, self._balance, self._spend, lambda: [FLIGHT], self._purge)
        app = Starlette(routes=Admin(office, door, desk).routes)
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost", headers=ADMIN)

    def _balance(self, grant: Grant) -> Balance | None:
        return Balance(Decimal("1.5"), Decimal("0E-12"), Decimal("48.5")) if grant.id == "pk_1" else None

    def _spend(self, since: str, by: str) -> object:
        self.threads.add(threading.current_thread().name)
        if by == "colour":
            raise StartupError("by: 'colour' is none of key, model.")
        return [{"since": since, "by": by, "usd": "0.5"}]

    async def _purge(self, kind: str, value: str) -> int:
        if value == "req_lost":
            raise OSError("/var/penstock/ledger.db: gone")
        self.purged.append((kind, value))
        return 7

    async def ask(self, method: str, path: str, **said: Any) -> tuple[int, Any]:
        """Status and JSON."""
        answer = await self.client.request(method, path, **said)
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-penstock-request-id"].startswith("req_")
        return answer.status_code, answer.json()


PATHS = [
    ("GET", "/admin/keys"), ("POST", "/admin/keys"), ("DELETE", "/admin/keys/pk_1"), ("GET", "/admin/spend"),
    ("GET", "/admin/flights"), ("DELETE", "/admin/cache?all=true"), ("GET", "/admin"), ("GET", "/admin/"),
    ("GET", "/admin/nothing"), ("PATCH", "/admin/keys"), ("OPTIONS", "/admin/spend"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_whoever_has_not_the_admin_key_is_refused_whatever_is_asked(method: str, path: str) -> None:
    rig, bodies = Rig(), set()
    for key in ("", "Bearer ", "Bearer sk-client", "Bearer scraper", "Bearer admin2", "Basic admin"):
        answer = await rig.client.request(method, path, headers={"authorization": key})
        assert answer.status_code == 401
        bodies.add(answer.content)
    assert len(bodies) == 1
    assert b"invalid_api_key" in bodies.pop()
    assert (rig.purged, rig.keys.created) == ([], [])


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_without_an_admin_key_in_the_settings_all_is_refused_and_the_setting_named(
    method: str, path: str
) -> None:
    status, said = await Rig(a_door()).ask(method, path)
    assert (status, said["error"]["code"]) == (403, "forbidden")
    assert "server.admin_key_env" in said["error"]["message"]


async def test_a_web_page_elsewhere_is_refused_even_with_the_key() -> None:
    status, said = await Rig().ask("GET", "/admin/keys", headers={"origin": "https://evil.example"})
    assert (status, said["error"]["code"]) == (403, "forbidden")


async def test_the_key_may_be_shown_as_clients_show_theirs() -> None:
    rig = Rig()
    answer = await rig.client.get("/admin/flights", headers={"authorization": "", "api-key": "admin"})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/admin", 404), ("GET", "/admin/nothing", 404), ("PUT", "/admin/keys", 405), ("GET", "/admin/cache", 405)],
)
async def test_what_is_not_there_is_said_to_who_may_know(method: str, path: str, status: int) -> None:
    assert (await Rig().ask(method, path))[0] == status


async def test_every_key_is_told_with_its_rights_and_what_is_left_of_its_budget() -> None:
    status, said = await Rig().ask("GET", "/admin/keys")
    assert (status, said["object"]) == (200, "list")
    own, old, made = said["data"]
    assert made == {
        "id": "pk_1",
        "object": "key",
        "name": "team",
        "source": "ledger",
        "models": ["gpt-*", "economy"],
        "passthrough": [],
        "requests_per_minute": 60,
        "tokens_per_minute": None,
        "max_concurrent": 3,
        "budget": {"usd": "50.00", "per": "month", "spent": "1.5", "reserved": "0.000000000000", "left": "48.5"},
        "created": "1970-01-01T00:00:00+00:00",
        "expires": "2027-02-01T00:00:00+00:00",
        "revoked": None,
    }
    assert (own["source"], own["budget"], own["created"], own["passthrough"]) == ("settings", None, None, ["files"])
    assert old["revoked"] == "1970-01-01T00:01:00+00:00"


async def test_a_key_is_made_and_its_secret_told_once() -> None:
    rig = Rig()
    status, said = await rig.ask("POST", "/admin/keys", json={"name": "team", "max_concurrent": 3})
    assert (status, said["secret"], said["id"]) == (201, "sk-secret", "pk_1")
    assert rig.keys.created == [{"name": "team", "max_concurrent": 3}]
    assert "secret" not in (await rig.client.get("/admin/keys")).text


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"name"', b"\xff", b"[" * 5000])
async def test_a_body_that_is_no_object_makes_no_key(body: bytes) -> None:
    rig = Rig(a_door(guard=Guard(digest(b"admin")), max_body=10_000))
    status, said = await rig.ask("POST", "/admin/keys", content=body, headers={"content-type": "application/json"})
    assert (status, said["error"]["type"]) == (400, "invalid_request_error")
    assert rig.keys.created == []


async def test_what_makes_no_sense_is_told_with_its_member() -> None:
    status, said = await Rig().ask("POST", "/admin/keys", json={})
    assert (status, said["error"]["param"]) == (400, "budget.usd")
    assert said["error"]["message"] == "budget.usd: must be more than 0."


async def test_a_form_of_a_web_page_and_a_body_without_end_make_no_key() -> None:
    rig = Rig()
    assert (await rig.ask("POST", "/admin/keys", data={"name": "team"}))[0] == 415
    assert (await rig.ask("POST", "/admin/keys", json={"name": "t" * 200}))[0] == 413
    assert rig.keys.created == []


async def test_a_ledger_that_cannot_be_written_is_said() -> None:
    rig = Rig()
    rig.keys.broken = True
    status, said = await rig.ask("POST", "/admin/keys", json={"name": "team"})
    assert (status, said["error"]["code"]) == (503, "ledger_unavailable")


async def test_a_key_of_the_ledger_is_revoked_by_its_id_as_often_as_one_likes() -> None:
    rig = Rig()
    status, said = await rig.ask("DELETE", "/admin/keys/pk_1")
    assert (status, said["id"], said["revoked"]) == (200, "pk_1", "1970-01-01T00:02:00+00:00")
    status, said = await rig.ask("DELETE", "/admin/keys/pk_0")
    assert (status, said["revoked"]) == (200, "1970-01-01T00:01:00+00:00")


async def test_a_key_is_revoked_by_its_name_too() -> None:
    status, said = await Rig().ask("DELETE", "/admin/keys/team")
    assert (status, said["id"], said["revoked"]) == (200, "pk_1", "1970-01-01T00:02:00+00:00")


async def test_of_a_key_that_is_revoked_nothing_is_left_to_tell() -> None:
    rig = Rig()
    rig.keys.known = [msgspec.structs.replace(MADE, revoked=60.0)]
    (told,) = (await rig.ask("GET", "/admin/keys"))[1]["data"]
    assert told["budget"] == {"usd": "50.00", "per": "month"}


@pytest.mark.parametrize(("key", "status"), [("own", 400), ("nobody", 404), ("pk_2", 404)])
async def test_a_key_of_the_settings_and_one_that_is_not_there_are_not_revoked(key: str, status: int) -> None:
    got, said = await Rig().ask("DELETE", f"/admin/keys/{key}")
    assert (got, said["error"]["param"]) == (status, "key")


async def test_spendings_are_asked_for_in_the_words_of_the_command() -> None:
    rig = Rig()
    assert (await rig.ask("GET", "/admin/spend"))[1] == {
        "object": "list", "since": "7d", "by": "key", "data": [{"since": "7d", "by": "key", "usd": "0.5"}]
    }  # fmt: skip
    assert (await rig.ask("GET", "/admin/spend?since=2026-11-01&by=model"))[1]["data"][0]["by"] == "model"
    for query, param in (("by=colour", "by"), ("form=csv", "form"), ("by=key&by=day", None)):
        status, said = await rig.ask("GET", f"/admin/spend?{query}")
        assert (status, said["error"]["param"]) == (400, param)
    assert threading.current_thread().name not in rig.threads


async def test_what_is_under_way_is_told_without_what_was_asked() -> None:
    _, said = await Rig().ask("GET", "/admin/flights")
    assert said["data"] == [
        {
            "endpoint": "chat", "key": "pk_1", "asked": "economy", "provider": "sim", "model": "gpt-4.1", "age": 1.5,
            "readers": 2, "bytes": 300, "waits": False,
        }
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("query", "purged"),
    [
        ("model=gpt-4.1", [("model", "gpt-4.1")]),
        ("request=req_1", [("request", "req_1")]),
        ("all=true", [("all", "true")]),
        ("key=pk_1", [("key", "pk_1")]),
        ("key=own", [("key", "own")]),
        ("key=team", [("key", "pk_0"), ("key", "pk_1")]),  # whoever has had that name
    ],
)
async def test_the_cache_is_purged_of_one_thing(query: str, purged: list[tuple[str, str]]) -> None:
    rig = Rig()
    assert await rig.ask("DELETE", f"/admin/cache?{query}") == (200, {"purged": 7 * len(purged)})
    assert rig.purged == purged


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400), ("all=false", 400), ("all", 400), ("model=", 400), ("model=a&all=true", 400),
        ("model=a&model=b", 400), ("modle=a", 400), ("model=a&x=", 400), ("key=nobody", 404),
    ],
)  # fmt: skip
async def test_a_purge_that_is_not_clear_purges_nothing(query: str, status: int) -> None:
    rig = Rig()
    assert (await rig.ask("DELETE", f"/admin/cache?{query}"))[0] == status
    assert rig.purged == []


async def test_a_disk_that_fails_is_said_without_its_path(caplog: pytest.LogCaptureFixture) -> None:
    status, said = await Rig().ask("DELETE", "/admin/cache?request=req_lost")
    assert (status, said["error"]["code"]) == (503, "ledger_unavailable")
    assert "/var" not in said["error"]["message"]
    assert "/var/penstock/ledger.db: gone" in caplog.text
