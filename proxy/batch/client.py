"""Who is asked: the proxy in this process, or one that runs elsewhere.

Rule: what a request's line holds is what is sent, to the byte, with the client's key and nothing else.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from starlette.types import ASGIApp

from proxy.core.batch import Answer, Failure, Request
from proxy.errors import StartupError

CONNECT = 10.0  # seconds; how long an answer may take is for the proxy to say
OWN = "http://127.0.0.1"  # a proxy that asks for no keys answers to loopback's names only


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


@asynccontextmanager
async def in_process(app: ASGIApp, key: str | None) -> AsyncIterator[Client]:
    """Through the application itself: no port, no socket. `key`: what the client shows, if it has one."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=OWN, headers=_headers(key), timeout=None) as http:  # noqa: S113 - the proxy has timers of its own
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
