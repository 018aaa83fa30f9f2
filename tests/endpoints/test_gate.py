"""What is open is counted, what is new is refused while Penstock shuts down, and whoever runs it can see so."""

import asyncio
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy.endpoints.client import send_whole
from proxy.endpoints.gate import Gate
from proxy.endpoints.operations import Operations
from proxy.errors import Forbidden
from tests.fakes import a_door

CHAT = "/v1/chat/completions"


class Held:
    """An application whose answers wait until they may go."""

    def __init__(self, name: str = "app") -> None:
        self.name = name
        self.came = 0
        self.may_go = asyncio.Event()

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        self.came += 1
        await self.may_go.wait()
        if scope["path"] == "/fails":
            raise RuntimeError("no")
        await send_whole(send, 200, [], self.name.encode())


def client_of(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost")


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_is_open_is_counted_and_a_drain_waits_for_it() -> None:
    app = Held()
    gate = Gate(app, {})
    async with client_of(gate) as client:
        asking = [asyncio.ensure_future(client.get("/x")) for _ in range(3)]
        await turns()
        assert (gate.open, app.came) == (3, 3)
        draining = asyncio.ensure_future(gate.drain(10))
        await turns()
        assert not draining.done()
        app.may_go.set()
        assert await draining
        assert [answer.text for answer in await asyncio.gather(*asking)] == ["app"] * 3
        assert gate.open == 0


async def test_with_nothing_open_a_drain_is_over_at_once() -> None:
    assert await Gate(Held(), {}).drain(0)


async def test_a_drain_says_when_something_is_still_open() -> None:
    app = Held()
    gate = Gate(app, {})
    async with client_of(gate) as client:
        asking = asyncio.ensure_future(client.get("/x"))
        await turns()
        assert not await gate.drain(0)
        app.may_go.set()
        assert (await asking).text == "app"
        assert await gate.drain(0)


async def test_what_is_open_after_a_second_drain_is_refused() -> None:
    app = Held()
    gate = Gate(app, {})
    async with client_of(gate) as client:
        asking = [asyncio.ensure_future(client.get("/x")) for _ in range(2)]
        await turns()
        assert not await gate.drain(0)
        await turns()
        assert not any(one.done() for one in asking)
        assert not await gate.drain(0)
        async with asyncio.timeout(5):
            answers = await asyncio.gather(*asking)
        for answer in answers:
            assert (answer.status_code, answer.headers["connection"]) == (503, "close")
            assert answer.json()["error"]["code"] == "shutting_down"
        assert gate.open == 0
        assert await gate.drain(0)


async def test_an_answer_that_has_begun_is_left_incomplete_and_its_task_goes_on() -> None:
    sent: list[Any] = []

    async def begun(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def receive() -> Any:
        raise AssertionError

    gate = Gate(begun, {})
    task = asyncio.ensure_future(gate({"type": "http", "path": "/x", "method": "GET"}, receive, send))
    await turns()
    gate.end()
    gate.end()
    await task
    assert (sent, task.cancelling(), gate.open) == (["http.response.start"], 0, 0)


async def test_a_cancellation_that_is_not_the_gates_passes() -> None:
    gate = Gate(Held(), {})
    async with client_of(gate) as client:
        asking = asyncio.ensure_future(client.get("/x"))
        await turns()
        gate.end()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert gate.open == 0


async def test_what_is_new_is_refused_while_it_drains() -> None:
    app = Held()
    app.may_go.set()
    gate = Gate(app, {CHAT: app})
    assert await gate.drain(0)
    async with client_of(gate) as client:
        for answer in (await client.post(CHAT, json={}), await client.get("/v1/models")):
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "shutting_down"
            assert (answer.headers["connection"], answer.headers["retry-after"]) == ("close", "1")
        assert app.came == 0
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await client.get(path)).text == "app"


async def test_who_looks_at_the_figures_does_not_find_himself() -> None:
    app = Held()
    gate = Gate(app, {})
    async with client_of(gate) as client:
        asking = asyncio.ensure_future(client.get("/metrics"))
        await turns()
        assert (app.came, gate.open) == (1, 0)
        app.may_go.set()
        await asking


async def test_an_answer_that_fails_or_is_given_up_is_no_longer_open() -> None:
    app = Held()
    gate = Gate(app, {})
    async with client_of(gate) as client:
        given_up = asyncio.ensure_future(client.get("/x"))
        await turns()
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        assert gate.open == 0
        app.may_go.set()
        with pytest.raises(RuntimeError):
            await client.get("/fails")
    assert await gate.drain(0)


async def test_a_post_at_an_exact_path_goes_directly() -> None:
    app, chat = Held(), Held("chat")
    app.may_go.set()
    chat.may_go.set()
    async with client_of(Gate(app, {CHAT: chat})) as client:
        assert (await client.post(CHAT)).text == "chat"
        for method, path in [("GET", CHAT), ("POST", CHAT + "/"), ("POST", "/v1/models"), ("PUT", CHAT)]:
            assert (await client.request(method, path)).text == "app"


async def test_what_is_not_http_is_left_alone() -> None:
    app = Held()

    async def never(*_: Any) -> Any:
        raise AssertionError

    for kind in ("websocket", "lifespan"):
        await Gate(app, {})({"type": kind, "path": "/x"}, never, never)
    assert app.came == 0


def operated() -> tuple[Gate, ASGIApp]:
    """A gate before `/livez`, `/readyz` and `/metrics`."""

    async def exposition() -> bytes:
        return b"penstock_flights 0\n"

    operations = Operations(exposition, "text/plain; version=0.0.4", a_door())
    gate = operations.gate = Gate(Starlette(routes=operations.routes), {})
    return gate, gate


async def test_it_is_alive_and_ready_until_it_drains_and_alive_then_too() -> None:
    gate, app = operated()
    async with client_of(app) as client:
        assert [(await client.get(path)).status_code for path in ("/livez", "/readyz")] == [200, 200]
        await gate.drain(0)
        assert (await client.get("/livez")).text == "ok\n"
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.text) == (503, "shutting down\n")


async def test_a_probe_may_come_under_any_name_and_the_figures_may_not_be_read_by_a_page_elsewhere() -> None:
    _, app = operated()
    async with client_of(app) as client:
        for path in ("/livez", "/readyz"):
            assert (await client.get(path, headers={"host": "10.0.0.7:8080"})).status_code == 200
        figures = await client.get("/metrics")
        assert (figures.text, figures.headers["content-type"]) == (
            "penstock_flights 0\n",
            "text/plain; version=0.0.4; charset=utf-8",
        )
        for headers in ({"host": "rebound.example"}, {"origin": "https://evil.example"}):
            with pytest.raises(Forbidden):
                await client.get("/metrics", headers=headers)
