"""What Penstock does not understand passes as it came, both ways, and only where it may."""

import asyncio
import hashlib
import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import openai
import pytest

from tests.conftest import MakeProxy
from tests.scripted import Scripted, Wire, chunk
from tests.support import DEADLINE, Json, Proxy, Simulator, eventually

MIRROR = "/v1/mirror"
LEFT = {"endpoint": "passthrough", "outcome": "left", "status": "499"}


def raw_request(url: str, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """The answer to these very bytes; the connection is closed by the other side."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE) as connection:
        connection.sendall(request)
        head, _, body = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), headers, body


def mirrored(proxy: Proxy, request: bytes) -> Json:
    """What the provider saw of it."""
    status, _, body = raw_request(proxy.url, request)
    assert status == 200, body
    said: Json = json.loads(body)
    return said


TARGETS = [
    "/v1/mirror/models/ft:gpt-4o:org::abc",
    "/v1/mirror/a%2Fb/c%20d",
    "/v1/mirror/../mirror/./x//y",
    "/v1/mirror/x?purpose=%2F&after=a+b&empty=&flag",
    "/v1/mirror/x?a[]=1&a[]=2&q=%C3%A9",
    "/v1/mirror/;a=b/(c)/'d'/*",
]


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_reaches_the_provider_as_it_came(target: str, proxy: Proxy) -> None:
    seen = mirrored(proxy, f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert seen["target"] == target


def test_a_page_that_a_provider_keeps_is_none_of_ours_to_a_browser(proxy: Proxy) -> None:
    headers = proxy.http.get("/v1/mirror/page.html").headers
    assert headers["content-security-policy"] == "sandbox"
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_any_method_passes(method: str, proxy: Proxy) -> None:
    answer = proxy.http.request(method, MIRROR + "/x", content=b"" if method == "GET" else b"a body")
    seen = answer.json()
    assert (seen["method"], seen["length"]) == (method, 0 if method == "GET" else 6)
    assert answer.headers["cache-status"] == "penstock; fwd=bypass; detail=passthrough"
    assert answer.headers["x-penstock-provider"] == "sim"


def test_a_head_has_the_length_and_no_body(proxy: Proxy) -> None:
    answer = proxy.http.head(MIRROR + "/bytes/1234")
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "1234", b"")


def test_what_is_uploaded_and_downloaded_is_the_same_to_the_byte(proxy: Proxy) -> None:
    content = bytes(range(256)) * 32_768  # 8 MiB
    answer = proxy.http.post(MIRROR + "/files", files={"file": ("x.bin", content)}, data={"purpose": "batch"})
    sent = answer.request.read()
    assert (answer.json()["length"], answer.json()["sha256"]) == (len(sent), hashlib.sha256(sent).hexdigest())
    names = dict(answer.json()["headers"])
    assert names["content-type"] == answer.request.headers["content-type"]
    assert names["content-length"] == str(len(sent))
    direct, passed = (proxy.http.get(f"{url}{MIRROR}/bytes/3000000").content for url in (proxy.url, provider(proxy)))
    assert (len(passed), hashlib.sha256(passed).digest()) == (3_000_000, hashlib.sha256(direct).digest())


def provider(proxy: Proxy) -> str:
    url: str = proxy._table["providers"]["sim"]["base_url"]
    return url.removesuffix("/v1")


def test_a_body_in_chunks_goes_on_in_chunks(proxy: Proxy) -> None:
    seen = proxy.http.post(MIRROR + "/x", content=iter([b"one", b"two"])).json()
    assert seen["sha256"] == hashlib.sha256(b"onetwo").hexdigest()
    names = dict(seen["headers"])
    assert names["transfer-encoding"] == "chunked"
    assert "content-length" not in names


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [("bytes=10-19", 206, "bytes 10-19/100"), ("bytes=-5", 206, "bytes 95-99/100"), ("bytes=200-", 416, "bytes */100")],
)
def test_a_range_is_answered_by_the_provider(asked: str, status: int, said: str, proxy: Proxy) -> None:
    answer = proxy.http.get(MIRROR + "/bytes/100", headers={"range": asked})
    assert (answer.status_code, answer.headers["content-range"]) == (status, said)


@pytest.fixture
def open_proxy(make_proxy: MakeProxy) -> Proxy:
    """One that lets the simulator's own header through."""
    return make_proxy(server={"forward_headers": ["x-simulator"]})


@pytest.mark.parametrize("status", [404, 409, 422, 429, 500, 503])
def test_any_status_passes_and_is_not_tried_again(status: int, open_proxy: Proxy, simulator: Simulator) -> None:
    asked = {"x-simulator": f"status={status};detail;retry-after=7"}
    answer = open_proxy.http.get(MIRROR + f"/tried/{status}", headers=asked)
    assert (answer.status_code, answer.json().keys()) == (status, {"detail"})
    assert answer.headers.get("retry-after") == "7"


def test_a_redirect_is_the_clients_to_follow(open_proxy: Proxy) -> None:
    target = "http://127.0.0.1:9/elsewhere"
    answer = open_proxy.http.get(MIRROR + "/x", headers={"x-simulator": f"redirect={target}"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, target)


def test_any_content_type_passes(open_proxy: Proxy) -> None:
    answer = open_proxy.http.get(MIRROR + "/x", headers={"x-simulator": "type=text/html"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html")


def test_no_cookie_passes_in_either_direction(open_proxy: Proxy) -> None:
    answer = open_proxy.http.get(MIRROR + "/x", headers={"x-simulator": "cookie=crumb", "cookie": "a=b"})
    assert "set-cookie" not in answer.headers
    assert "cookie" not in dict(answer.json()["headers"])


def test_an_answer_that_is_cut_is_left_incomplete(open_proxy: Proxy) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        open_proxy.http.get(MIRROR + "/bytes/1000", headers={"x-simulator": "reset-at=400"})


def test_a_stream_that_is_cut_between_events_ends_with_an_error(
    proxy: Proxy, scripted: Scripted, make_proxy: MakeProxy
) -> None:
    streaming = make_proxy(scripted.base_url)
    with Wire(streaming.url, {"x": 1}, path="/v1/else") as wire:
        turn = scripted.turn()
        turn.head()
        turn.send(chunk("one"))
        wire.read_head()
        assert wire.read_event() == chunk("one")
        turn.abort()
        last = wire.read_event()
        assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "upstream_reset"
        assert (wire.read_event(), wire.clean) == (b"", False)


def test_a_client_that_leaves_takes_the_call_with_it(scripted: Scripted, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(scripted.base_url)
    for begun in (False, True):
        with Wire(proxy.url, {"x": 1}, path="/v1/else") as wire:
            turn = scripted.turn()
            if begun:
                turn.head()
                turn.send(chunk("one"))
                wire.read_head()
            wire.reset()
        assert turn.gone.wait(DEADLINE)
    eventually(lambda: proxy.count("penstock_requests_total", endpoint="passthrough", outcome="left") == 2)


class Piecemeal:
    """A provider that tells how much of a request's body it has had, and answers when it is told to."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self.received = b""
        self.may_answer = threading.Event()
        self.closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        answering = threading.Thread(target=self._answer, args=(connection,), daemon=True)
        answering.start()
        with connection, suppress(ConnectionError):
            while piece := connection.recv(65536):
                self.received += piece
        self.closed.set()
        self.may_answer.set()
        answering.join()

    def _answer(self, connection: socket.socket) -> None:
        if self.may_answer.wait(DEADLINE) and not self.closed.is_set():
            connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")

    def stop(self) -> None:
        self._thread.join(DEADLINE)
        self._listener.close()


@pytest.fixture
def piecemeal() -> Iterator[Piecemeal]:
    one = Piecemeal()
    yield one
    one.stop()


def begin(proxy: Proxy, headers: str, body: bytes = b"", path: str = "/v1/files") -> socket.socket:
    """A request whose body is under way."""
    host, _, port = proxy.url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=DEADLINE)
    connection.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n\r\n".encode() + body)
    return connection


def test_a_body_goes_on_while_it_comes(piecemeal: Piecemeal, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(piecemeal.base_url)
    with begin(proxy, "Content-Length: 6", b"one") as connection:
        eventually(lambda: piecemeal.received.endswith(b"one"))
        connection.sendall(b"two")
        eventually(lambda: piecemeal.received.endswith(b"onetwo"))
        piecemeal.may_answer.set()
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_leaves_in_the_middle_of_its_body_takes_the_call_with_it(
    piecemeal: Piecemeal, make_proxy: MakeProxy
) -> None:
    proxy = make_proxy(piecemeal.base_url)
    with begin(proxy, "Content-Length: 6", b"one"):
        eventually(lambda: piecemeal.received.endswith(b"one"))
    assert piecemeal.closed.wait(DEADLINE)
    eventually(lambda: proxy.count("penstock_requests_total", **LEFT))


def test_a_client_that_falls_silent_in_its_body_is_told_so(piecemeal: Piecemeal, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(piecemeal.base_url, server={"body_timeout": 0.2})
    with begin(proxy, "Content-Length: 6", b"one") as connection:
        answer = connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"request_timeout" in answer
    assert piecemeal.closed.wait(DEADLINE)


def test_an_answer_before_the_end_of_the_body_passes_and_ends_the_connection(
    piecemeal: Piecemeal, make_proxy: MakeProxy
) -> None:
    proxy = make_proxy(piecemeal.base_url)
    with begin(proxy, "Content-Length: 600", b"one") as connection:
        eventually(lambda: piecemeal.received.endswith(b"one"))
        piecemeal.may_answer.set()
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in answer
        assert answer.endswith(b"\r\n\r\nno")
    assert piecemeal.closed.wait(DEADLINE)


def test_who_waits_to_be_told_to_go_on_is_told(proxy: Proxy) -> None:
    headers = "Content-Length: 4\r\nExpect: 100-continue\r\nConnection: close"
    with begin(proxy, headers, path=MIRROR + "/x") as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"body")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["length"] == 4


def test_who_is_refused_is_not_told_to_go_on(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(key="sk-operator")
    with begin(proxy, "Content-Length: 4\r\nExpect: 100-continue") as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 403 ")


def test_a_provider_that_is_down_is_a_502(make_proxy: MakeProxy) -> None:
    proxy = make_proxy("http://127.0.0.1:9/v1")
    answer = proxy.http.post("/v1/files", content=b"x")
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_connect_error")
    assert answer.headers["cache-status"] == "penstock; fwd=bypass; detail=passthrough"


def test_a_refused_connection_is_tried_once_more_with_the_whole_body(make_proxy: MakeProxy) -> None:
    proxy = make_proxy()
    tried = proxy.refuse_connections(1)
    answer = proxy.http.post(MIRROR + "/x", content=iter([b"one", b"two"]))
    assert (answer.json()["length"], len(tried)) == (6, 2)


def stall_upload(proxy: Proxy) -> socket.socket:
    """A request of which more is sent than fits anywhere on its way."""
    connection = begin(proxy, "Content-Length: 90000000")
    connection.settimeout(0.2)
    with suppress(TimeoutError):
        while True:
            connection.sendall(b"a" * 100_000)
    return connection


class Deaf(Piecemeal):
    """Takes the connection and reads nothing, until it is told to."""

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            self.may_answer.wait(DEADLINE)
        self.closed.set()


@pytest.fixture
def deaf() -> Iterator[Deaf]:
    one = Deaf()
    yield one
    one.may_answer.set()
    one.stop()


def test_a_client_that_leaves_while_the_provider_takes_nothing_is_seen_to(deaf: Deaf, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(deaf.base_url)
    connection = stall_upload(proxy)
    assert proxy.metrics()["penstock_readers"] == 1
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    eventually(lambda: proxy.count("penstock_requests_total", **LEFT))
    assert proxy.metrics()["penstock_readers"] == 0


def test_a_provider_that_takes_nothing_is_given_up(deaf: Deaf, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(deaf.base_url, provider={"idle_timeout": 0.5})
    with stall_upload(proxy) as connection:
        connection.settimeout(DEADLINE)
        assert connection.recv(65536).startswith(b"HTTP/1.1 504 ")
    proxy.becomes_quiet()


def test_a_client_that_leaves_its_upload_after_an_early_answer_began_is_seen_to(
    make_proxy: MakeProxy, scripted: Scripted
) -> None:
    class Early(Piecemeal):
        def _answer(self, connection: socket.socket) -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nbegun")

    provider = Early()
    proxy = make_proxy(provider.base_url)
    with begin(proxy, "Content-Length: 6", b"one") as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert provider.closed.wait(DEADLINE)
    provider.stop()
    eventually(lambda: proxy.metrics()["penstock_readers"] == 0)


@pytest.mark.parametrize(
    "answer", [b"999 Odd\r\n", b"200 OK\r\nContent-Type: a\x01b\r\n", b"304 Not Modified\r\nContent-Length: 5\r\n"]
)
def test_an_odd_answer_is_told_or_passed_on_and_never_our_fault(
    answer: bytes, make_proxy: MakeProxy, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(Piecemeal):
        def _answer(self, connection: socket.socket) -> None:
            eventually(lambda: b"\r\n\r\n" in self.received)
            end = b"\r\n" if answer.startswith(b"304") else b"Content-Length: 2\r\n\r\nhi"
            connection.sendall(b"HTTP/1.1 " + answer + end)

    provider = Odd()
    proxy = make_proxy(provider.base_url)
    status = proxy.http.get("/v1/odd").status_code
    assert status in (200, 304, 502)
    assert "Traceback" not in caplog.text
    proxy._connector._close()
    provider.stop()


@pytest.mark.parametrize("method", ["CONNECT", "TRACE"])
def test_what_would_reach_or_tell_more_than_a_path_is_refused(method: str, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(key="sk-operator", **keys("files"))
    head = "Host: localhost\r\nAuthorization: Bearer sk-team\r\nConnection: close\r\n\r\n"
    status, _, _ = raw_request(proxy.url, f"{method} /v1/files/x HTTP/1.1\r\n{head}".encode())
    assert status in (400, 404, 405)


def test_a_header_in_utf8_arrives_as_it_was(proxy: Proxy) -> None:
    name = 'form-data; filename="Grüße.txt"'.encode()
    request = b"GET /v1/mirror/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Disposition: " + name
    seen = mirrored(proxy, request + b"\r\n\r\n")
    assert dict(seen["headers"])["content-disposition"].encode("latin-1") == name


@pytest.mark.parametrize("path", ["/nowhere", "/v1/files", "/v1/chat/completions/"])
def test_after_a_refusal_that_left_the_body_unread_the_connection_ends(path: str, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(key="sk-operator")
    with begin(proxy, "Content-Length: 4\r\nExpect: 100-continue", path=path) as connection:
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b"connection: close" in answer.lower()


# Who may pass.


def keys(*passthrough: str) -> Json:
    digest = hashlib.sha256(b"sk-team").hexdigest()
    return {"keys": [{"name": "team", "key_sha256": digest, "passthrough": list(passthrough)}]}


TEAM = {"authorization": "Bearer sk-team"}


def test_to_an_account_of_the_operator_nothing_passes_that_no_key_names(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(key="sk-operator")
    answer = proxy.http.get(MIRROR + "/x")
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")
    assert "passthrough" in answer.json()["error"]["message"]


def test_a_key_passes_what_it_names_and_never_leaves(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(key="sk-operator", **keys("mirror"))
    seen = proxy.http.get(MIRROR + "/x", headers=TEAM).json()
    assert dict(seen["headers"])["authorization"] == "Bearer sk-operator"
    assert "sk-team" not in json.dumps(seen)
    assert proxy.http.get("/v1/files", headers=TEAM).status_code == 403
    assert proxy.http.get(MIRROR + "/x").status_code == 401
    assert proxy.http.get(MIRROR + "/x", headers={"authorization": "Bearer sk-other"}).status_code == 401


@pytest.mark.parametrize("path", ["mirror/../files", "mirror//x", "mirror/%2e%2e/files", "mirror/a%2Fb", "mirror/%5C"])
def test_a_path_that_could_be_read_in_two_ways_does_not_pass_there(path: str, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(key="sk-operator", **keys("mirror"))
    request = (
        f"GET /v1/{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer sk-team\r\nConnection: close\r\n\r\n"
    )
    status, _, body = raw_request(proxy.url, request.encode())
    assert (status, json.loads(body)["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(("status", "seen"), [(401, 502), (403, 502), (404, 404), (500, 500)])
def test_what_the_provider_says_of_the_operators_key_is_told_in_our_words(
    status: int, seen: int, make_proxy: MakeProxy
) -> None:
    server = {"forward_headers": ["x-simulator"]}
    proxy = make_proxy(key="sk-operator", server=server, **keys("mirror"))
    headers = TEAM | {"x-simulator": f"status={status}"}
    answer = proxy.http.get(MIRROR + "/x", headers=headers)
    assert answer.status_code == seen
    assert (answer.json()["error"]["code"] == "upstream_auth_error") is (status < 404)


# Keys of ours elsewhere.


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models", "/v1/models/sim-instant", "/v1/files"])
def test_with_keys_in_force_nothing_under_v1_is_open(path: str, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(key="sk-operator", **keys())
    for headers in ({}, {"authorization": "Bearer sk-team2"}, {"api-key": "x"}):
        method = "POST" if "chat" in path else "GET"
        answer = proxy.http.request(method, path, headers=headers, json=None if method == "GET" else {"model": "m"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert proxy.http.get("/livez").status_code == 200


async def test_each_key_has_a_cache_of_its_own(make_proxy: MakeProxy, simulator: Simulator, async_sdk: Any) -> None:
    named = [{"name": name, "key_sha256": hashlib.sha256(name.encode()).hexdigest()} for name in ("a", "b")]
    messages: Any = [{"role": "user", "content": "of my own"}]
    for shared, calls in ((False, 2), (True, 1)):
        simulator.forget()
        proxy = make_proxy(key="sk-operator", keys=named, cache={"shared": shared})
        for name in ("a", "b", "a", "b"):
            client: openai.AsyncOpenAI = async_sdk(proxy.base_url, api_key=name)
            await client.chat.completions.create(model="sim-instant", messages=messages)
        assert simulator.asked() == calls
        with pytest.raises(openai.AuthenticationError):
            await async_sdk(proxy.base_url, api_key="c").chat.completions.create(model="sim-instant", messages=messages)


# Other addresses of the chat endpoint.


async def test_the_sdk_for_azure_reaches_the_same_endpoint(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    client = openai.AsyncAzureOpenAI(azure_endpoint=proxy.url, api_version="2024-10-21", api_key="az", max_retries=0)
    messages: Any = [{"role": "user", "content": prompt}]
    async with client:
        first = await client.chat.completions.with_raw_response.create(model="sim-instant", messages=messages)
        assert first.headers["cache-status"] == "penstock; fwd=miss; stored"
        last = simulator.last()
        assert (last["query"], last["headers"]["api-key"]) == ("api-version=2024-10-21", "az")
        stream = await client.chat.completions.create(model="sim-instant", messages=messages, stream=True)
        said = "".join([part.choices[0].delta.content or "" async for part in stream if part.choices])
    assert said == first.parse().choices[0].message.content
    assert simulator.asked() == 1


def test_a_deployment_names_the_model_whatever_the_body_says(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    path = "/openai/deployments/sim-instant/chat/completions?api-version=1"
    body: Json = {"messages": [{"role": "user", "content": prompt}], "seed": 12345678901234567890}
    first = proxy.http.post(path, json=body)
    assert (first.status_code, first.json()["model"]) == (200, "sim-instant")
    assert simulator.last()["body"] == {**body, "model": "sim-instant"}
    again = proxy.http.post(path, json={**body, "model": "another"})
    assert "; hit" in again.headers["cache-status"]
    assert simulator.asked() == 1


def test_an_sdk_without_the_prefix_reaches_the_same_endpoint(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    body = {"model": "sim-instant", "messages": [{"role": "user", "content": prompt}]}
    assert proxy.http.post("/chat/completions", json=body).status_code == 200
    assert "; hit" in proxy.http.post("/v1/chat/completions", json=body).headers["cache-status"]
    assert simulator.asked() == 1


# Upgrades.


async def test_a_websocket_is_refused_in_words(proxy: Proxy, async_sdk: Any) -> None:
    head = "GET /v1/realtime?model=m HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    more = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    status, headers, body = await asyncio.to_thread(raw_request, proxy.url, (head + more).encode())
    assert (status, json.loads(body)["error"]["code"]) == (501, "websocket_not_supported")
    assert headers["x-should-retry"] == "false"


H2C = "Host: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQC\r\n"


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize(
    ("framing", "body", "length"),
    [
        ("Content-Length: 4\r\n", b"body", 4),
        ("Transfer-Encoding: chunked\r\n", b"4\r\nbody\r\n3\r\n...\r\n0\r\n\r\n", 7),
        ("Content-Length: 0\r\n", b"", 0),
        ("", b"", 0),
    ],
)
def test_the_offer_of_another_protocol_is_ignored(
    framing: str, body: bytes, length: int, together: bool, proxy: Proxy
) -> None:
    """As Java's client makes it with every request. The connection goes on to be used."""
    again = b"GET /v1/mirror/again HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    method = "POST" if framing else "GET"
    head = f"{method} /v1/mirror/first HTTP/1.1\r\n{H2C}{framing}\r\n".encode()
    host, _, port = proxy.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE) as connection:
        for piece in [head + body + again] if together else [head, body, again]:
            connection.sendall(piece)
        answers = b"".join(iter(lambda: connection.recv(65536), b"")).split(b"HTTP/1.1 ")[1:]
    seen = [json.loads(answer.partition(b"\r\n\r\n")[2]) for answer in answers]
    assert [each["target"] for each in seen] == ["/v1/mirror/first", "/v1/mirror/again"]
    assert (seen[0]["length"], seen[1]["length"]) == (length, 0)
