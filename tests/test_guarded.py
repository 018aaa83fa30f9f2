"""Every route asks for a key unless it stands on a list; which one follows from the route, and from nothing else."""

import json
import socket
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from proxy.cli import client_keys, guard_of
from proxy.endpoints.console import FILES
from proxy.errors import StartupError
from proxy.reading import read_settings
from tests.conftest import MakeProxy
from tests.support import CHAT, DEADLINE, Proxy, Simulator, ask
from tests.test_commands import EX_CONFIG, penstock

# What anybody may ask, without any key, wherever the proxy listens.
OPEN = {"/livez", "/readyz", "/console/about", *FILES}
# And what only who may reach loopback may.
OPEN_ON_LOOPBACK = OPEN | {"/metrics"}

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
KEYS = [{"name": "team", "key_sha256": sha256(b"sk-team").hexdigest()}]
PUBLIC = "0.0.0.0"  # noqa: S104 - what the settings say; tests listen on loopback
EVERY = {"admin": "sk-admin", "client": "sk-team", "scraper": "sk-scraper", "nobody": "sk-other"}


@pytest.fixture
def guarded(make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch) -> "MakeGuarded":
    return MakeGuarded(make_proxy, monkeypatch)


class MakeGuarded:
    """Proxies with a key of a client, and with an admin's and a scraper's."""

    def __init__(self, make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch) -> None:
        self._make = make_proxy
        monkeypatch.setenv("TEST_ADMIN_KEY", "sk-admin")
        monkeypatch.setenv("TEST_METRICS_KEY", "sk-scraper")

    def __call__(self, host: str = "127.0.0.1", **server: str) -> Proxy:
        named = server or {"admin_key_env": "TEST_ADMIN_KEY", "metrics_key_env": "TEST_METRICS_KEY"}
        return self._make(key="sk-operator", server={"host": host, **named}, keys=KEYS)


def routes(proxy: Proxy) -> list[Route]:
    app = proxy.app.gate._app
    assert isinstance(app, Starlette)
    found = [route for route in app.routes if isinstance(route, Route)]
    assert len(found) == len(app.routes)
    return found


def addresses(proxy: Proxy) -> Iterator[tuple[str, str]]:
    """(method, path) of everything that any route answers."""
    for route in routes(proxy):
        path = route.path
        for name, convertor in route.param_convertors.items():
            path = path.replace(f"{{{name}:path}}" if "Path" in type(convertor).__name__ else f"{{{name}}}", "some")
        assert "{" not in path
        yield from ((method, path) for method in route.methods or METHODS)


def asked(proxy: Proxy, method: str, path: str, key: str | None = None) -> tuple[int, bytes]:
    headers = {} if key is None else {"authorization": f"Bearer {key}".strip()}
    answer = proxy.http.request(method, path, headers=headers, content=b"")
    return answer.status_code, answer.content


def test_every_route_refuses_who_shows_no_key_unless_it_is_on_the_list(
    guarded: MakeGuarded, simulator: Simulator
) -> None:
    for host, open_ones in ((PUBLIC, OPEN), ("127.0.0.1", OPEN_ON_LOOPBACK)):
        proxy = guarded(host)
        tried, bodies = set(), set()
        for method, path in addresses(proxy):
            for key in (None, "", "sk-other"):
                status, body = asked(proxy, method, path, key)
                assert (status == 401) is (path not in open_ones), (method, path, status)
                if status == 401 and body:
                    bodies.add(body)
            tried.add(path)
        assert {CHAT, "/chat/stream", "/v1/models", "/v1/some", "/admin/keys", "/admin/some", *open_ones} <= tried
        assert len(bodies) == 1  # to the byte
        assert json.loads(bodies.pop())["error"]["code"] == "invalid_api_key"
    assert simulator.asked() == 0


def test_each_key_opens_what_is_its_own_and_nothing_else(guarded: MakeGuarded) -> None:
    proxy = guarded(PUBLIC)
    opened = {}
    for who, key in EVERY.items():
        paths = ("/v1/models", "/metrics", "/admin/keys", "/admin/some")
        opened[who] = [path for path in paths if asked(proxy, "GET", path, key)[0] != 401]
    assert opened == {
        "admin": ["/metrics", "/admin/keys", "/admin/some"],
        "client": ["/v1/models"],
        "scraper": ["/metrics"],
        "nobody": [],
    }


def written(proxy: Proxy, target: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """What a GET of exactly this target is answered."""
    told = {"host": "localhost", "connection": "close", **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    host, _, port = proxy.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE) as client:
        client.sendall(f"GET {target} HTTP/1.1\r\n{head}\r\n".encode())
        said = b"".join(iter(lambda: client.recv(65536), b""))
    return int(said.split(None, 2)[1]), said.partition(b"\r\n\r\n")[2]


TRICKS = [
    "//v1/models", "/livez/../v1/models", "/livez/%2e%2e/v1/models", "/v1/models/../../livez", "/v1/models?/livez",
    "/v1/models;/livez", "/v1/models%23/livez", "/metrics/", "/metrics/../livez", "/%6detrics", "/Metrics",
    "//livez/../metrics", "/admin//keys", "/%61dmin/keys", "/admin/keys/", "/admin/keys%2f", "/livez/",
    "/livez%2f..%2fmetrics", "http://127.0.0.1/metrics", "http://127.0.0.1/livez/../admin/keys", "http://livez/metrics",
]  # fmt: skip


@pytest.mark.parametrize("target", TRICKS)
def test_no_way_of_writing_an_address_leads_past_the_key(target: str, guarded: MakeGuarded) -> None:
    proxy = guarded(PUBLIC)
    told: list[dict[str, str]] = [{}, {"host": "livez"}, {"x-original-url": "/livez", "x-forwarded-prefix": "/livez"}]
    for headers in told:
        status, body = written(proxy, target, headers)
        assert status in (400, 401, 404), target
        assert b"penstock_" not in body


def test_where_no_key_opens_a_door_it_is_shut_and_says_which_setting_would(guarded: MakeGuarded) -> None:
    proxy = guarded(PUBLIC, admin_key_env="TEST_ADMIN_KEY")
    assert asked(proxy, "GET", "/metrics", "sk-scraper")[0] == 401
    assert asked(proxy, "GET", "/metrics", "sk-admin")[0] == 200
    shut = guarded(PUBLIC, drain="1s")
    for path, setting in (("/metrics", b"server.metrics_key_env"), ("/admin/keys", b"server.admin_key_env")):
        status, body = asked(shut, "GET", path, "sk-admin")
        assert (status, setting in body) == (403, True)


def test_on_loopback_the_figures_are_open_but_not_through_what_stands_before_it(guarded: MakeGuarded) -> None:
    proxy = guarded()
    assert asked(proxy, "GET", "/metrics")[0] == 200
    shown = {"host": "proxy.example", "authorization": "Bearer sk-scraper"}
    assert proxy.http.get("/metrics", headers={"host": "proxy.example"}).status_code == 401
    assert proxy.http.get("/metrics", headers=shown).status_code == 200
    assert proxy.http.get("/metrics", headers=shown | {"origin": "https://evil.example"}).status_code == 403
    passed_on = ("forwarded", "via", "x-real-ip", "x-scheme", "x-client-ip", "true-client-ip", "cf-connecting-ip")
    said = ("for", "host", "proto", "port", "server", "prefix")
    for name in (*passed_on, *(f"x-forwarded-{each}" for each in said)):  # for somebody else
        assert proxy.http.get("/metrics", headers={name: "192.0.2.1"}).status_code == 401


def test_a_clients_key_still_opens_what_it_should(guarded: MakeGuarded, simulator: Simulator, prompt: str) -> None:
    proxy = guarded(PUBLIC)
    answer = proxy.http.post(CHAT, json=ask(prompt), headers={"authorization": "Bearer sk-team"})
    assert (answer.status_code, simulator.asked()) == (200, 1)


@pytest.mark.parametrize("name", ["admin_key_env", "metrics_key_env"])
@pytest.mark.parametrize(
    ("value", "said"), [(None, "is not set"), ("", "is not set"), ("  ", "is not set"), ("sk-team", "is the same key")]
)
def test_a_key_of_ours_that_is_empty_or_a_clients_refuses_to_start(
    name: str, value: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {
        "server": {name: "TEST_KEY_OF_OURS"},
        "providers": {"p": {"base_url": "http://127.0.0.1:9/v1", "auth": "none"}},
        "keys": KEYS,
    }
    settings = read_settings(table, source="test")
    monkeypatch.delenv("TEST_KEY_OF_OURS", raising=False)
    if value is not None:
        monkeypatch.setenv("TEST_KEY_OF_OURS", value)
    with pytest.raises(StartupError, match=rf"^server\.{name}: .*{said}"):
        guard_of(settings, client_keys(settings))


def test_serve_and_check_config_say_which_variable_lacks(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    provider = '[providers.p]\nbase_url = "http://127.0.0.1:9/v1"\n'
    file.write_text(f'[server]\nadmin_key_env = "TEST_NO_SUCH_KEY"\n[data]\ndirectory = "{tmp_path}/data"\n{provider}')
    served = penstock("serve", "--config", str(file))
    assert (served.returncode, len(served.stderr.splitlines())) == (EX_CONFIG, 1)
    assert "server.admin_key_env: the environment variable TEST_NO_SUCH_KEY is not set" in served.stderr
    for empty in ({}, {"TEST_NO_SUCH_KEY": ""}):
        checked = penstock("check-config", str(file), **empty)
        assert "note: server.admin_key_env: $TEST_NO_SUCH_KEY is not set" in checked.stdout
