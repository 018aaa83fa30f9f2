"""The console's files as they are served: a fixed list, and what a browser is told to allow them."""

import json
import re
import socket
from hashlib import sha256
from importlib.resources import files

import pytest

from proxy.endpoints.console import FILES, POLICY
from tests.conftest import MakeProxy
from tests.support import DEADLINE, Proxy

FOLDER = files("proxy") / "console"
KEYS = [{"name": "team", "key_sha256": sha256(b"sk-team").hexdigest()}]


def raw(proxy: Proxy, target: str, method: str = "GET") -> tuple[int, bytes]:
    """Status and body for exactly this target; clients would tidy it up."""
    host, _, port = proxy.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE) as client:
        client.sendall(f"{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode("latin-1"))
        said = b"".join(iter(lambda: client.recv(65536), b""))
    return int(said.split(None, 2)[1]), said.partition(b"\r\n\r\n")[2]


def test_the_list_holds_every_file_of_the_folder_and_each_is_served(proxy: Proxy) -> None:
    assert {each.name for each in FOLDER.iterdir()} == set(FILES.values())
    for path, name in FILES.items():
        answer = proxy.http.get(path)
        assert (answer.status_code, answer.content) == (200, (FOLDER / name).read_bytes())


def test_each_file_has_its_type_and_what_a_browser_may_do_with_it(proxy: Proxy) -> None:
    types = {
        "html": "text/html; charset=utf-8",
        "css": "text/css; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "svg": "image/svg+xml",
    }
    for path, name in FILES.items():
        headers = proxy.http.get(path).headers
        assert headers["content-type"] == types[name.rpartition(".")[2]]
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert headers["cache-control"] == "no-cache"
    for directive in ("default-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"):
        assert directive in POLICY.split("; ")
    assert "unsafe" not in POLICY


@pytest.mark.parametrize("path", ["/", "/console/main.js"])
def test_a_file_that_the_browser_has_is_not_sent_again(path: str, proxy: Proxy) -> None:
    first = proxy.http.get(path)
    tag = first.headers["etag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = proxy.http.get(path, headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert again.headers["content-security-policy"] == POLICY
    assert proxy.http.get(path, headers={"if-none-match": '"other"'}).content == first.content
    assert proxy.http.get("/console/style.css").headers["etag"] != tag


def test_head_tells_the_same_without_the_file(proxy: Proxy) -> None:
    told = proxy.http.head("/console/main.js")
    assert (told.status_code, told.content) == (200, b"")
    assert told.headers["content-length"] == str(len((FOLDER / "main.js").read_bytes()))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_done_to_a_file(method: str, proxy: Proxy) -> None:
    for path in ("/", "/console/main.js", "/console/about"):
        answer = proxy.http.request(method, path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")


TRICKS = [
    "/console", "/console/", "/console/index.html", "/index.html", "/console/nothing.js", "/console/main.js/",
    "/console/../app.py", "/console/..%2fapp.py", "/console/%2e%2e/app.py", "/console/%2e%2e%2fapp.py",
    "/console/..%5capp.py", "/console/..\\app.py", "/console/%252e%252e/app.py", "/console/....//app.py",
    "/console//main.js", "//console/main.js", "/console/./main.js", "/console%2fmain.js", "/console/m%61in.js",
    "/Console/main.js", "/console/main.js%00", "/console/main.js%20", "/console/main.js;x", "/console/__init__.py",
    "/console//etc/passwd", "/console/%2fetc%2fpasswd", "/console/..%c0%afapp.py", "/../console/main.js",
]  # fmt: skip


@pytest.mark.parametrize("target", TRICKS)
def test_every_other_way_to_write_a_path_is_none_of_the_list(target: str, proxy: Proxy) -> None:
    status, body = raw(proxy, target)
    assert status in (400, 404)
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


def test_a_query_does_not_change_what_a_path_means(proxy: Proxy) -> None:
    assert raw(proxy, "/console/main.js?../app.py") == raw(proxy, "/console/main.js")


def test_what_the_page_must_know_holds_no_secret(make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = make_proxy().http.get("/console/about")
    assert (plain.headers["cache-control"], plain.headers["x-content-type-options"]) == ("no-store", "nosniff")
    told = plain.json()
    assert told | {"version": ""} == {
        "version": "", "keys": False, "provider_key": True, "default_model": None, "mode": "on",
    }  # fmt: skip
    monkeypatch.setenv("TEST_ADMIN_KEY", "sk-admin")
    server = {"admin_key_env": "TEST_ADMIN_KEY"}
    routing = {"default_model": "sim-small"}
    keyed = make_proxy(key="sk-operator", keys=KEYS, server=server, routing=routing, cache={"mode": "off"})
    told = keyed.http.get("/console/about").json()
    assert told | {"version": ""} == {
        "version": "", "keys": True, "provider_key": False, "default_model": "sim-small", "mode": "off",
    }  # fmt: skip


def test_a_page_elsewhere_is_told_nothing(proxy: Proxy) -> None:
    for headers in ({"origin": "https://evil.example"}, {"host": "rebound.example"}):
        assert proxy.http.get("/console/about", headers=headers).status_code == 403


def test_no_file_of_the_page_makes_html_of_text_or_names_another_address() -> None:
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|\beval\(|new Func|"
        r"localStorage|document\.cookie|\sstyle=|<style|javascript:|\son\w+=|@import|\burl\("
    )
    known = {"http://www.w3.org/2000/svg", "http://127.0.0.1"}
    for each in FOLDER.iterdir():
        text = each.read_text("utf-8")
        assert not re.search(forbidden, text), each.name
        assert set(re.findall(r"(?:https?:|(?<=[\"'(]))//[\w.:/-]+\w", text)) <= known, each.name


def test_the_page_loads_nothing_that_is_not_on_the_list() -> None:
    page = (FOLDER / "index.html").read_text("utf-8")
    assert set(re.findall(r'(?:href|src)="([^"#]+)"', page)) <= FILES.keys()
    scripts = re.findall(r"<script\b([^>]*)>(.*?)</script>", page, re.DOTALL)
    assert scripts
    assert all("src=" in attributes and not body for attributes, body in scripts)
    for each in FOLDER.iterdir():
        wanted = re.findall(r'from "\./([^"]+)"', each.read_text("utf-8"))
        assert all(f"/console/{name}" in FILES for name in wanted)
