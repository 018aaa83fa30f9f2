"""Real servers on real ports, each in a thread with an event loop of its own, and what tests ask of them."""

import asyncio
import gc
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import aiohttp
import httpx
import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send

from proxy.app import Application, build_app
from proxy.cli import client_keys, guard_of
from proxy.clock import SystemClock
from proxy.core.books import Answered
from proxy.reading import read_settings
from proxy.server import Server
from proxy.serving import bounds_of
from proxy.simulator import build_simulator

Json = dict[str, Any]
T = TypeVar("T")

CHAT: Final = "/v1/chat/completions"
ENDPOINTS: Final = (CHAT, "/v1/responses", "/v1/completions", "/v1/embeddings")
LABELS: Final = re.compile(r'(\w+)="([^"]*)"')  # of a metric, as it is exposed
DEADLINE: Final = 20.0  # seconds after which something that must happen did not; no test waits for it otherwise


def eventually(condition: Callable[[], T], within: float = DEADLINE) -> T:
    """The condition's value as soon as it is true; AssertionError if that never comes."""
    deadline = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < deadline, "what must happen did not"
        time.sleep(0.002)
    return found


async def eventually_async(condition: Callable[[], T], within: float = DEADLINE) -> T:
    """`eventually` for a test that has tasks of its own under way."""
    deadline = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < deadline, "what must happen did not"
        await asyncio.sleep(0.002)
    return found


def ask(prompt: str, model: str = "sim-instant", **members: Any) -> Json:
    """A request's body."""
    return {"model": model, "messages": [{"role": "user", "content": prompt}], **members}


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(DEADLINE)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._until_stopped())

    async def _until_stopped(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._started.set()
        await self._stopping.wait()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run to the end over there, and wait for it here."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(DEADLINE)

    def call(self, function: Callable[[], T]) -> T:
        """Call over there, where nothing else runs meanwhile."""

        async def called() -> T:
            return function()

        return self.run(called())

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(DEADLINE)


@asynccontextmanager
async def serving(server: uvicorn.Server) -> AsyncIterator[str]:
    """The address at which this server answers. `_serve`: signals are for the main thread."""
    task = asyncio.ensure_future(server._serve())
    while not server.started:
        assert not task.done(), task
        await asyncio.sleep(0.001)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await task


def plain_server(app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> uvicorn.Server:
    """uvicorn with nothing between the application and the socket."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        http="httptools",
        ws="none",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        backlog=2048,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


class Running:
    """What lives in a loop of its own until `stop`."""

    def __init__(self) -> None:
        self.loop = Loop()
        self._stack = AsyncExitStack()
        self.url = self.loop.run(self._start(self._stack))
        self.base_url = self.url + "/v1"
        self.http = httpx.Client(base_url=self.url, timeout=DEADLINE, verify=False)  # noqa: S501 - no TLS here

    async def _start(self, stack: AsyncExitStack) -> str:
        raise NotImplementedError

    def stop(self) -> None:
        self.http.close()
        try:
            self.loop.run(self._stack.aclose())
        finally:
            self.loop.stop()


class Simulator(Running):
    """The built-in provider. Calls of its models wait at a gate while it is closed."""

    async def _start(self, stack: AsyncExitStack) -> str:
        self._app = build_simulator()
        self._open = asyncio.Event()
        self._open.set()
        self._waiting = 0
        return await stack.enter_async_context(serving(plain_server(self._gate)))

    async def _gate(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in ENDPOINTS:
            self._waiting += 1
            await self._open.wait()
            self._waiting -= 1
        await self._app(scope, receive, send)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Within this no call is answered; those that came are answered after it."""
        self.loop.call(self._open.clear)
        try:
            yield
        finally:
            self.loop.call(self._open.set)

    def waiting(self) -> int:
        """Calls that have come to the closed gate."""
        return self._waiting

    def calls(self) -> Json:
        counts: Json = self.http.get("/simulator/calls").json()
        return counts

    def direct(self, body: Json) -> Json:
        """The JSON answer without a proxy."""
        answer: Json = self.http.post(CHAT, json=body).raise_for_status().json()
        return answer

    def asked(self) -> int:
        """How many calls of its models were made since `forget`."""
        count: int = self.calls()["calls"]
        return count

    def forget(self) -> None:
        self.http.delete("/simulator/calls")

    def last(self) -> Json:
        """The last call as it came in."""
        last: Json = self.http.get("/simulator/last").json()
        return last


class FakeClock(SystemClock):
    """The wall clock can be set forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def wall(self) -> float:
        return super().wall() + self.ahead


class Told:
    """A `Log` that remembers."""

    def __init__(self) -> None:
        self.rows: list[Answered] = []

    def answered(self, row: Answered) -> None:
        self.rows.append(row)


class Proxy(Running):
    """The whole proxy, as `penstock serve` runs it. `app` is there to look inside, from its own loop; `log` holds what
    was told of each request that is over.
    """

    def __init__(self, table: Json, keys: Mapping[str, str], clock: SystemClock) -> None:
        self.log = Told()
        self._table = table
        self._keys = keys
        self.clock = clock
        super().__init__()

    async def _start(self, stack: AsyncExitStack) -> str:
        settings = read_settings(self._table, source="test")
        self.directory: Path = settings.data.directory
        keys = client_keys(settings)
        guard = guard_of(settings, keys)
        self.app: Application = await stack.enter_async_context(
            build_app(settings, api_keys=self._keys, client_keys=keys, guard=guard, clock=self.clock, log=self.log)
        )
        # By looking for them, not by the names of attributes; the server hides what it finds from the collector.
        # By `type`: to be asked for their class makes some objects import what they stand for, which takes a second.
        self._connectors = [
            found for found in gc.get_objects() if type(found) is aiohttp.TCPConnector and found._loop is self.loop.loop
        ]
        self._connector = self._connectors[0]  # of the one provider that most proxies have
        self.server = Server(
            self.app.asgi,
            host="127.0.0.1",
            port=0,
            drain=self.app.drain,
            ready=lambda _: None,
            bounds=bounds_of(settings.server),
            on_refused=self.app.refused,
        )
        url = await stack.enter_async_context(serving(self.server))
        self._baseline = asyncio.all_tasks()
        return url

    def told(self, count: int = 1) -> list[Answered]:
        """What was told of the last so many requests, once all have been told."""
        eventually(lambda: len(self.log.rows) >= count)
        self.becomes_quiet()
        return self.log.rows[-count:]

    def readers(self) -> int:
        """How many clients read flights now."""
        return self.loop.call(lambda: sum(len(flight.readers) for flight in self.app.flights._all))

    def flights(self) -> int:
        return self.loop.call(lambda: len(self.app.flights))

    def metrics(self) -> dict[str, float]:
        text = self.loop.call(self.app.meter.exposition).decode()  # over HTTP it may cost a key
        lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    def count(self, metric: str, **labels: str) -> float:
        """The sum of all values of this metric that have these labels, whatever others they have."""
        return sum(
            value
            for name, value in self.metrics().items()
            if name.partition("{")[0] == metric and labels.items() <= dict(LABELS.findall(name)).items()
        )

    def refuse_connections(self, count: int) -> list[str]:
        """Let the next so many connections to the provider fail; the list grows with each one that is tried."""
        tried: list[str] = []
        dial = self._connector.connect

        async def connect(request: Any, *arguments: Any, **named: Any) -> Any:
            tried.append(str(request.url))
            if len(tried) <= count:
                raise aiohttp.ClientConnectorError(request.connection_key, ConnectionRefusedError(111, "refused"))
            return await dial(request, *arguments, **named)

        self._connector.connect = connect  # type: ignore[assignment]
        return tried

    def left_behind(self) -> Json:
        """What is there that an idle proxy does not have, by name; empty if nothing is."""
        found = {
            "flights": self.flights(),
            "tasks": self.loop.call(self._tasks),
            "upstream": self.loop.call(self._busy),
        }
        found["requests_open"] = int(self.metrics()["penstock_requests_open"])
        return {name: count for name, count in found.items() if count}

    def _tasks(self) -> int:
        return len(asyncio.all_tasks() - self._baseline - {asyncio.current_task()})

    def _busy(self) -> int:
        """Connections to providers that are not back in the pool."""
        return sum(len(each._acquired) for each in self._connectors)

    def becomes_quiet(self) -> None:
        """Wait until nothing is left behind."""
        found: Json = {}
        deadline = time.monotonic() + DEADLINE
        while found := self.left_behind():
            assert time.monotonic() < deadline, found
            time.sleep(0.005)


def proxy_table(base_url: str, directory: Path, provider: Json, sections: Json) -> Json:
    """Settings of a proxy with a provider named `sim`, and those that the sections name beside it."""
    providers = {"sim": {"base_url": base_url, **provider}, **sections.get("providers", {})}
    return {"data": {"directory": str(directory)}, **sections, "providers": providers}


def free_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


async def together(proxy: Proxy, simulator: Simulator, *asks: Callable[[], Awaitable[T]]) -> list[T]:
    """The answers of requests that all read one flight, which the first of them leads."""
    tasks: list[asyncio.Future[T]] = []
    before = proxy.readers()
    with simulator.closed():
        for each in asks:
            tasks.append(asyncio.ensure_future(each()))
            await eventually_async(lambda: proxy.readers() == before + len(tasks))
    return list(await asyncio.gather(*tasks))


class Silent:
    """A listener that only notes whether anybody calls."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def heard(self) -> bool:
        """Has anybody called since the last time?"""
        try:
            self._listener.accept()[0].close()
        except BlockingIOError:
            return False
        return True
