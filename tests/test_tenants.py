"""What one client pays for or may see is never another's, and nobody else's web page or file gets anything."""

import asyncio
import itertools
import json
import os
import pickle
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from proxy.clock import SystemClock
from tests.conftest import MakeProxy, Sdk
from tests.scripted import Scripted, Wire, answer, events, post, whole_stream
from tests.support import Json, Proxy, Simulator, ask, eventually, proxy_table, together

KEYS: list[Json] = [
    {},
    *({"authorization": f"Bearer sk-{number}"} for number in range(4)),
    {"authorization": "bearer sk-0"},
    *({"api-key": f"sk-{number}"} for number in range(2)),
    {"api-key": "Bearer sk-0"},
    {"authorization": "Bearer sk-0", "api-key": "sk-0"},
    {"authorization": "Bearer sk-0", "api-key": "sk-1"},
    {"authorization": "Bearer sk-0", "openai-organization": "org-1"},
    {"authorization": "Bearer sk-0", "openai-project": "org-1"},
]
DISTINCT = len(KEYS)


def fetched(proxy: Proxy, body: Json, headers: Json) -> str:
    """What the cache did."""
    with Wire(proxy.url, body, headers) as wire:
        wire.read_head().read_body()
        return wire.headers["cache-status"]


def test_another_key_never_reads_an_entry(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    first = [fetched(proxy, ask(prompt), headers) for headers in KEYS]
    assert first.count("penstock; fwd=miss; stored") == DISTINCT
    assert simulator.asked() == DISTINCT
    again = [fetched(proxy, ask(prompt), headers) for headers in KEYS]
    assert all(one.startswith("penstock; hit") for one in again)
    assert simulator.asked() == DISTINCT


async def test_another_key_never_joins_a_flight(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    asks = [lambda headers=headers: asyncio.to_thread(fetched, proxy, ask(prompt), headers) for headers in KEYS * 2]
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(len(asks)))
    outcomes = await together(proxy, simulator, *asks)
    assert simulator.asked() == DISTINCT
    assert outcomes.count("penstock; fwd=miss; collapsed") == len(KEYS) * 2 - DISTINCT


def test_the_key_of_the_client_reaches_the_provider_that_it_pays(
    proxy: Proxy, simulator: Simulator, sdk: Sdk, prompt: str
) -> None:
    client = sdk(proxy.base_url, api_key="sk-mine", organization="org-1", project="proj-1")
    client.chat.completions.create(**ask(prompt))
    headers = simulator.last()["headers"]
    assert headers["authorization"] == "Bearer sk-mine"
    assert headers["openai-organization"] == "org-1"
    assert headers["openai-project"] == "proj-1"
    assert not [name for name in headers if name.startswith("x-stainless")]


def test_a_bad_key_is_refused_by_the_provider_even_where_others_have_an_answer(
    proxy: Proxy, sdk: Sdk, prompt: str
) -> None:
    sdk(proxy.base_url).chat.completions.create(**ask(prompt))
    with pytest.raises(openai.AuthenticationError, match="bad-key"):
        sdk(proxy.base_url, api_key="bad-key").chat.completions.create(**ask(prompt))


def test_under_the_key_of_the_operator_the_key_of_the_client_never_leaves(
    make_proxy: MakeProxy, simulator: Simulator, sdk: Sdk, prompt: str
) -> None:
    proxy = make_proxy(key="sk-operator")
    for key in ("sk-secret-1", "sk-secret-2"):
        client = sdk(proxy.base_url, api_key=key, organization="org-secret", default_headers={"api-key": "secret-3"})
        client.chat.completions.create(**ask(prompt + key))
        last = json.dumps(simulator.last())
        assert "Bearer sk-operator" in last
        assert "secret" not in last.replace(prompt + key, "")
        client.models.list()
    assert simulator.asked() == 2


def test_under_the_key_of_the_operator_all_clients_share_what_it_paid_for(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(key="sk-operator")
    outcomes = [fetched(proxy, ask(prompt), headers) for headers in KEYS if "openai-organization" not in headers]
    assert sum(one.startswith("penstock; hit") for one in outcomes) >= len(outcomes) - 2
    assert simulator.asked() <= 2


@pytest.mark.parametrize("form", [{}, {"stream": True}])
def test_a_refusal_of_the_key_of_the_operator_is_told_in_our_words(
    form: Json, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(key="bad-key")
    for path in ("/v1/chat/completions", "/v1/models"):
        if path == "/v1/models":
            response = proxy.http.get(path)
        else:
            response = proxy.http.post(path, json=ask(prompt) | form)
        assert response.status_code == 502
        assert response.json()["error"]["code"] == "upstream_auth_error"
        assert "bad-key" not in response.text
        assert response.headers["x-should-retry"] == "false"
    assert simulator.asked() == 1


def test_a_403_of_the_provider_too(make_proxy: MakeProxy, scripted: Scripted, prompt: str) -> None:
    proxy = make_proxy(scripted.base_url, key="sk-operator")
    with Wire(proxy.url, ask(prompt)) as wire:
        scripted.turn().answer(b'{"error": {"message": "sk-operator"}}', status=403, content_type="application/json")
        assert wire.read_head().status == 502
        assert b"sk-operator" not in wire.read_body()


def test_no_cookie_crosses_in_either_direction(make_proxy: MakeProxy, scripted: Scripted, prompt: str) -> None:
    proxy = make_proxy(scripted.base_url.replace("127.0.0.1", "localhost"))
    for number in range(3):
        with Wire(proxy.url, ask(f"{prompt} {number}", stream=True), {"cookie": "client=1"}) as wire:
            turn = scripted.turn()
            assert "cookie" not in turn.headers
            turn.answer(*whole_stream("a"), set_cookie="provider=1; Path=/")
            wire.read_head().read_events()
            assert "set-cookie" not in wire.headers
    with post(proxy.url, ask(f"{prompt} 0")) as hit:
        assert "set-cookie" not in hit.headers
    assert scripted.nothing_came()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": ""}, 415),
        ({"content-encoding": "gzip"}, 415),
        ({"content-length": "999999999"}, 413),
    ],
)
def test_a_web_page_elsewhere_cannot_spend(
    headers: Json, status: int, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    with Wire(proxy.url, ask(prompt), headers) as wire:
        assert wire.read_head().status == status
        assert set(json.loads(wire.read_body())["error"]) == {"message", "type", "param", "code"}
    assert simulator.asked() == 0


@pytest.mark.parametrize("host", ["localhost", "localhost:80", "127.0.0.1:8080", "[::1]:8080", "LOCALHOST"])
def test_loopback_names_are_served(host: str, proxy: Proxy, prompt: str) -> None:
    with Wire(proxy.url, ask(prompt), {"host": host}) as wire:
        assert wire.read_head().status == 200
        wire.read_body()


@pytest.mark.parametrize(
    ("path", "status"), [("/livez", 200), ("/readyz", 200), ("/v1/models", 403), ("/metrics", 403)]
)
def test_a_foreign_host_gets_no_more_than_health(path: str, status: int, proxy: Proxy) -> None:
    assert proxy.http.get(path, headers={"host": "evil.example"}).status_code == status


def test_a_named_origin_is_served(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy(server={"cors_origins": ["https://app.example"]})
    with Wire(proxy.url, ask(prompt), {"origin": "https://app.example"}) as wire:
        assert wire.read_head().status == 200
        wire.read_body()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xef\xbb\xbf{}",
        b'{"model": "m", "model": "n"}',
        b'{"model": NaN}',
        b"\xff\xfe",
        b"[" * 9999,
    ],
)
def test_a_body_that_is_no_request_is_a_400_and_no_call(body: bytes, proxy: Proxy, simulator: Simulator) -> None:
    with Wire(proxy.url, body) as wire:
        assert wire.read_head().status == 400
        assert json.loads(wire.read_body())["error"]["type"] == "invalid_request_error"
    assert simulator.asked() == 0


class Trap:
    """Unpickling this makes a directory: proof that something was executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


Change = Callable[[sqlite3.Connection], object]


def planted(value: bytes, mode: int) -> Change:
    """Give every row this value, to be read as `mode`: 1 raw bytes, 4 a pickle."""
    sql = "UPDATE Cache SET value = ?, mode = ?, size = ?, filename = NULL"
    return lambda database: database.execute(sql, (value, mode, len(value)))


def pointed(database: sqlite3.Connection) -> None:
    """Let every row say that its value is a pickle in a file."""
    database.execute("UPDATE Cache SET value = NULL, mode = 4, filename = 'aa/bb/trap.val'")


def alter(directory: Path, change: Change) -> int:
    """Alter the cache of a data directory; how many entries it holds."""
    database = sqlite3.connect(directory / "cache" / "cache.db", timeout=30)
    with database:
        change(database)
        count: int = database.execute("SELECT COUNT(*) FROM Cache").fetchone()[0]
    database.close()
    return count


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize(
    "kind", ["a pickle in the row", "a pickle for bytes", "a pickle in a file", "a pickle for a setting"]
)
def test_a_planted_pickle_is_a_miss_and_never_runs(
    kind: str, running: bool, simulator: Simulator, tmp_path: Path, prompt: str
) -> None:
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    table = proxy_table(simulator.base_url, tmp_path / "data", {}, {"cache": {"memory_limit": 0}})
    bodies = [ask(f"{prompt} {number}") for number in range(3)]
    proxy = Proxy(table, {}, SystemClock())
    try:
        for body in bodies:
            answer(proxy.url, body)
        eventually(lambda: alter(tmp_path / "data", lambda _: None) == 3)
        if not running:
            proxy.stop()
        _plant(kind, trap, tmp_path / "data")
        if not running:
            proxy = Proxy(table, {}, SystemClock())
        for body in bodies:
            assert answer(proxy.url, body)["choices"]
    finally:
        proxy.stop()
    assert simulator.asked() == (3 if kind == "a pickle for a setting" else 6)
    assert not (tmp_path / "sprung").exists()


_SETTING = "INSERT OR REPLACE INTO Settings VALUES ('disk_fetch', ?)"


def _plant(kind: str, trap: bytes, directory: Path) -> None:
    changes: dict[str, Change] = {
        "a pickle in the row": planted(trap, 4),
        "a pickle for bytes": planted(trap, 1),
        "a pickle in a file": pointed,
        "a pickle for a setting": lambda database: database.execute(_SETTING, (trap,)),
    }
    if kind == "a pickle in a file":
        file = directory / "cache" / "aa" / "bb" / "trap.val"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(trap)
    alter(directory, changes[kind])


def test_an_entry_that_was_moved_to_the_key_of_another_is_a_miss(
    simulator: Simulator, tmp_path: Path, prompt: str
) -> None:
    table = proxy_table(simulator.base_url, tmp_path, {}, {"cache": {"memory_limit": 0}})
    proxy = Proxy(table, {}, SystemClock())
    try:
        secret = answer(proxy.url, ask(prompt + " secret"))["choices"][0]["message"]["content"]
        answer(proxy.url, ask(prompt + " mine"))
        eventually(lambda: alter(tmp_path, lambda _: None) == 2)
        alter(tmp_path, _swap_keys)
        mine = answer(proxy.url, ask(prompt + " mine"))["choices"][0]["message"]["content"]
        assert mine != secret
    finally:
        proxy.stop()
    assert simulator.asked() == 3


def _swap_keys(database: sqlite3.Connection) -> None:
    (one, key), (other, other_key) = database.execute("SELECT rowid, key FROM Cache").fetchall()
    for row, new in ((one, b"meanwhile"), (other, key), (one, other_key)):
        database.execute("UPDATE Cache SET key = ? WHERE rowid = ?", (new, row))


def test_nothing_that_was_asked_can_be_read_from_the_keys(make_proxy: MakeProxy, tmp_path: Path, prompt: str) -> None:
    for number in range(2):
        proxy = make_proxy(directory=tmp_path / str(number))
        events(proxy.url, ask(prompt))
        eventually(lambda number=number: alter(tmp_path / str(number), lambda _: None) == 1)  # type: ignore[misc]
    one, other = (
        sqlite3.connect(tmp_path / str(number) / "cache" / "cache.db").execute("SELECT key FROM Cache").fetchall()
        for number in range(2)
    )
    assert one != other
    assert list(itertools.chain(one, other))


@pytest.mark.parametrize("code", [401, "invalid_api_key"])
def test_an_error_event_that_quotes_the_operators_key_is_told_in_our_words(
    code: Any, make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url, key="sk-operator")
    with Wire(proxy.url, ask(prompt, stream=True)) as wire:
        said = {"error": {"message": "Incorrect API key: sk-operator", "code": code}}
        scripted.turn().answer(b"data: " + json.dumps(said).encode() + b"\n\n")
        assert wire.read_head().status == 502
        body = wire.read_body()
        assert b"upstream_auth_error" in body
        assert b"sk-operator" not in body


def test_no_error_of_the_provider_quotes_the_operators_key(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url, key="sk-operator")
    with Wire(proxy.url, ask(prompt)) as wire:
        body = b'{"error": {"message": "the account of sk-operator is closed"}}'
        scripted.turn().answer(body, status=400, content_type="application/json")
        assert wire.read_head().status == 400
        assert b"the account of [key] is closed" in wire.read_body()
