"""Who is asked: the proxy in this process, or one that runs elsewhere.

Rule: what a request's line holds is what is sent, to the byte, with the client's key and nothing else. Whoever gives up
is a client that leaves, here as there.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.types import ASGIApp, Message

from proxy.core.batch import Answer, Failure, Request
from proxy.errors import StartupError

CONNECT = 10.0  # seconds; how long an answer may take is for the proxy to say
OWN = "http://127.0.0.1"  # a proxy that asks for no keys answers to loopback's names only
PATIENCE = 5.0  # seconds that an application has to notice that its client has left

logger = logging.getLogger("penstock")


class Client:
    """Asks one server."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def ask(self, request: Request) -> Answer | Failure:
        """Whatever comes of it."""
        try:
            response = await self._http.post(request.url, content=request.body)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            return Failure("connection_failed", f"The proxy could not be reached: {_why(error)}.", sent=False)
        except httpx.HTTPError as error:
            return Failure("connection_lost", f"The answer did not come: {_why(error)}. It may have been paid for.")
        return Answer(response.status_code, dict(response.headers), response.content)

    async def check(self) -> None:
        """Raises StartupError: nobody is there."""
        try:
            await self._http.get("/livez")
        except httpx.HTTPError as error:
            where = str(self._http.base_url).rstrip("/")
            raise StartupError(f"--proxy: {where} cannot be reached: {_why(error)}.") from None


def _why(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__


class _Exchange:
    """A request to an application, and what comes of it."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._pieces: list[bytes] = []
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._complete = False
        self.over = asyncio.Event()

    async def receive(self) -> Message:
        body, self._body = self._body, None
        if body is None:
            await self.over.wait()
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], list(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            self._pieces.append(message.get("body", b""))
            self._complete = not message.get("more_body", False)

    def response(self, error: Exception | None) -> httpx.Response:
        """`error`: that the application raised. Raises RemoteProtocolError."""
        if error is not None and not self._status:
            return httpx.Response(500)
        if not self._complete:
            raise httpx.RemoteProtocolError("it ended before it was whole")
        return httpx.Response(self._status, headers=self._headers, content=b"".join(self._pieces))


class Inside(httpx.AsyncBaseTransport):
    """Asks an application as a server would: in a task of its own, which is told when its client has left, and ends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = _Exchange(await request.aread())
        task = asyncio.ensure_future(self._answer(_scope(request), exchange))
        try:
            await asyncio.wait([task])
        finally:
            exchange.over.set()
            if not task.done():
                await asyncio.wait([task], timeout=PATIENCE)
                task.cancel()
        return exchange.response(task.result())

    async def _answer(self, scope: dict[str, Any], exchange: _Exchange) -> Exception | None:
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:  # as a server does
            logger.exception("a request failed")
            return error
        return None


def _scope(request: httpx.Request) -> dict[str, Any]:
    url = request.url
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": url.scheme,
        "path": url.path,
        "raw_path": url.raw_path.partition(b"?")[0],
        "query_string": url.query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "server": (url.host, url.port),
        "client": ("127.0.0.1", 0),
    }


@asynccontextmanager
async def in_process(app: ASGIApp, key: str | None) -> AsyncIterator[Client]:
    """Through the application itself: no port, no socket. `key`: what the client shows, if it has one."""
    async with httpx.AsyncClient(transport=Inside(app), base_url=OWN, headers=_headers(key), timeout=None) as http:  # noqa: S113 - the proxy has timers of its own
        yield Client(http)


@asynccontextmanager
async def over_http(url: str, key: str | None) -> AsyncIterator[Client]:
    """A proxy that runs there; `url` may end in /v1, as base URLs do. Raises StartupError: it does not."""
    timeout = httpx.Timeout(None, connect=CONNECT)
    limits = httpx.Limits(max_connections=None)
    base = url.rstrip("/").removesuffix("/v1")
    try:
        http = httpx.AsyncClient(base_url=base, headers=_headers(key), timeout=timeout, limits=limits, trust_env=False)
    except (httpx.InvalidURL, ValueError) as error:
        raise StartupError(f"--proxy: {url!r} is no address: {error}.") from None
    async with http:
        client = Client(http)
        await client.check()
        yield client


def _headers(key: str | None) -> dict[str, str]:
    """In plain JSON: an answer that was packed would only be unpacked here."""
    said = {"content-type": "application/json", "accept-encoding": "identity"}
    return said if key is None else said | {"authorization": f"Bearer {key}"}
