"""Whoever is asked gets the body as it stands and the client's key, and whatever comes of it is told."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy.batch.client import in_process, over_http
from proxy.core.batch import Answer, Failure, Request
from proxy.errors import StartupError
from tests.support import CHAT, Simulator, ask, eventually_async, free_port

BODY = b'{"model": "m",  "n":1.0}'
REQUEST = Request("one", CHAT, BODY)


class App:
    """Notes what came, and answers."""

    def __init__(self) -> None:
        self.path = ""
        self.headers: dict[bytes, bytes] = {}
        self.body = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.path, self.headers, self.body = scope["path"], dict(scope["headers"]), (await receive())["body"]
        headers = [(b"Cache-Status", b"penstock; hit"), (b"set-cookie", b"a=b")]
        await send({"type": "http.response.start", "status": 418, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"error"', "more_body": True})
        await send({"type": "http.response.body", "body": b": {}}"})


async def test_an_application_is_asked_without_a_socket() -> None:
    app = App()
    async with in_process(app, "sk-mine") as client:
        answer = await client.ask(REQUEST)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body, answer.headers["cache-status"]) == (418, b'{"error": {}}', "penstock; hit")
    assert (app.path, app.body) == (CHAT, BODY)
    assert app.headers[b"authorization"] == b"Bearer sk-mine"
    assert app.headers[b"content-type"] == b"application/json"
    assert app.headers[b"host"] == b"127.0.0.1"


async def test_without_a_key_none_is_shown() -> None:
    app = App()
    async with in_process(app, None) as client:
        await client.ask(REQUEST)
    assert b"authorization" not in app.headers


async def test_an_application_that_fails_is_an_answer_like_any_other_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("a fault of ours")

    async with in_process(failing, None) as client:
        answer = await client.ask(REQUEST)
    assert isinstance(answer, Answer)
    assert answer.status == 500
    assert "a fault of ours" in caplog.text


async def test_an_answer_that_ends_before_it_is_whole_is_none() -> None:
    async def breaking(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})

    async with in_process(breaking, None) as client:
        lost = await client.ask(REQUEST)
    assert isinstance(lost, Failure)
    assert (lost.code, lost.sent) == ("connection_lost", True)


async def cancelled(app: ASGIApp, came: asyncio.Event) -> None:
    """Ask, and give up once it has come."""
    async with in_process(app, None) as client:
        asking = asyncio.ensure_future(client.ask(REQUEST))
        await came.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


async def test_whoever_gives_up_is_a_client_that_has_left_and_the_application_ends_it_itself() -> None:
    came, messages = asyncio.Event(), list[str]()

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        messages.append((await receive())["type"])
        came.set()
        messages.append((await receive())["type"])
        await asyncio.sleep(0)
        messages.append("ended")

    await cancelled(waiting, came)
    assert messages == ["http.request", "http.disconnect", "ended"]


async def test_an_application_that_does_not_notice_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.batch.client.PATIENCE", 0)
    came, gone = asyncio.Event(), asyncio.Event()

    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        came.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()

    await cancelled(silent, came)
    await eventually_async(gone.is_set)


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_a_proxy_that_runs_is_asked_at_its_address_as_base_urls_say_it(suffix: str, simulator: Simulator) -> None:
    request = Request("one", CHAT, json.dumps(ask("over http")).encode())
    async with over_http(simulator.url + suffix, "sk-mine") as client:
        answer = await client.ask(request)
    assert isinstance(answer, Answer)
    assert answer.status == 200
    assert simulator.last()["headers"]["authorization"] == "Bearer sk-mine"
    assert simulator.last()["raw"].encode() == request.body


@pytest.mark.parametrize("url", ["http://127.0.0.1:{}", "127.0.0.1", "http://[", "nonsense://x"])
async def test_where_nobody_is_it_is_said_at_once(url: str) -> None:
    with pytest.raises(StartupError, match="--proxy: "):
        async with over_http(url.format(free_port()), None):
            pass


@asynccontextmanager
async def closing_after(count: int) -> AsyncIterator[tuple[str, asyncio.Server]]:
    """A server that answers so many requests, and hangs up on the next."""
    left = count

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal left
        head = await reader.readuntil(b"\r\n\r\n")
        if b"content-length: " in head:
            await reader.readexactly(len(BODY))
        if left:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        left -= left > 0
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", server
    finally:
        server.close()


async def test_an_answer_that_does_not_come_may_have_been_paid_and_a_request_that_was_not_sent_was_not() -> None:
    async with closing_after(2) as (url, server), over_http(url, None) as client:
        assert isinstance(await client.ask(REQUEST), Answer)
        lost = await client.ask(REQUEST)
        assert isinstance(lost, Failure)
        assert (lost.code, lost.sent) == ("connection_lost", True)
        server.close()
        unsent = await client.ask(REQUEST)
        assert isinstance(unsent, Failure)
        assert (unsent.code, unsent.sent) == ("connection_failed", False)
