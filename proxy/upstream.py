"""A provider over HTTP: what is sent, and nothing of one client in another's call."""

import asyncio
import random
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import msgspec

from proxy.core.call import Call, with_members
from proxy.core.passage import Passage
from proxy.core.recording import passed_headers
from proxy.core.routing import Target
from proxy.errors import (
    UpstreamAuthError,
    UpstreamBadContentType,
    UpstreamConnectError,
    UpstreamTLSError,
    late_answer,
)
from proxy.interfaces import Again
from proxy.settings import Provider as ProviderSettings
from proxy.transport import Body

CONNECT_PAUSE = 0.1  # seconds, times a random number: a provider that restarts is back soon or not at all
MAX_REFUSAL = 64 * 1024  # bytes read of a 400, to see whether it refuses `stream_options`

MODELS_TIMEOUT = 30.0  # seconds
MAX_MODELS = 8 * 1024 * 1024  # bytes

Account = tuple[tuple[bytes, bytes], ...]
Header = tuple[str, str]
T = TypeVar("T")


class _ModelList(msgspec.Struct):
    data: list[dict[str, Any]]


class HttpReply:
    """A `Reply`."""

    def __init__(self, response: httpx.Response, *, usage_asked: bool) -> None:
        if not isinstance(response.stream, Body):
            raise TypeError("the transport's responses have a Body")
        self.status = response.status_code
        self.headers: Mapping[str, str] = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers.raw
        }
        self.usage_asked = usage_asked
        self._body = response.stream
        self._peeked = b""
        self.read = self._body.read

    async def peek(self, limit: int) -> bytes:
        """The body up to `limit` bytes or a little more; `read` gives it once again. Closes where that fails."""
        try:
            while len(self._peeked) < limit and (piece := await self._body.read()):
                self._peeked += piece
        except BaseException:
            self.close()
            raise
        self.read = self._read_peeked
        return self._peeked

    async def _read_peeked(self) -> bytes:
        peeked, self._peeked, self.read = self._peeked, b"", self._body.read
        return peeked or await self._body.read()

    def close(self) -> None:
        self._body.close()


@dataclass(frozen=True, slots=True)
class HttpListing:
    """A `Listing`."""

    status: int
    body: bytes
    models: list[dict[str, Any]] | None
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Upstream:
    """One provider, as `interfaces.Provider`. `api_key` is the operator's, None where the client pays."""

    def __init__(
        self,
        name: str,
        settings: ProviderSettings,
        *,
        transport: httpx.AsyncBaseTransport,
        api_key: str | None,
    ) -> None:
        self.name = name
        self.first_event_timeout: float = settings.first_event_timeout
        self.idle_timeout: float = settings.idle_timeout
        self.total_timeout: float = settings.total_timeout
        self.max_event: int = settings.max_event
        self.max_retries = settings.max_retries
        self.owns_key = api_key is not None
        self.client_pays = settings.effective_auth == "client"
        self.reports_usage = settings.usage == "ask"
        self._url = httpx.URL(settings.base_url)
        self._base_url = settings.base_url.rstrip("/")
        # httpx's transport without its client: no cookie jar, no redirects, nothing of one call in another.
        self._transport = transport
        self._api_key = api_key

    def scrub(self, said: bytes) -> bytes:
        return said.replace(self._api_key.encode(), b"[key]") if self._api_key else said

    async def open(self, call: Call, target: Target, *, again: Again | None = None) -> HttpReply:
        """One attempt; one more where nothing was sent, and one without `stream_options` where they were refused, once
        `again` has been awaited.

        Raises UpstreamError; closes what it does not return.
        """
        reply = await _connecting(lambda: self._send(call, target))
        if reply.status == 400 and reply.usage_asked and not call.wants_usage:
            refusal = await _within(self.first_event_timeout, reply.peek(MAX_REFUSAL))
            if b"stream_options" in refusal or b"include_usage" in refusal:
                reply.close()
                if again is not None:
                    await again()
                reply = await self._send(call, target, ask_usage=False)
                # Any other status says nothing: the refusal may have been about something else, quoting this.
                if reply.status == 200:
                    self.reports_usage = False
        return reply

    async def _send(self, call: Call, target: Target, *, ask_usage: bool = True) -> HttpReply:
        may_ask = call.dialect.asks_usage and ask_usage and self.reports_usage
        asks = call.stream and (call.wants_usage or may_ask)
        url = f"{self._base_url}/{call.path}"
        if call.query:
            url += "?" + call.query.decode("latin-1")
        headers = [
            ("content-type", "application/json"),
            ("accept", "text/event-stream" if call.stream else "application/json"),
            *_text(call.forwarded),
            *self._common_headers(call.credentials + call.account),
        ]
        body = outgoing_body(call, target.upstream, ask_usage=asks)
        deadline = self.first_event_timeout if call.stream else self.total_timeout
        return await self._answered("POST", url, headers, body, deadline=deadline, usage_asked=asks)

    async def relay(self, passage: Passage, body: AsyncIterable[bytes] | None) -> HttpReply:
        url = self._base_url + passage.target
        headers = [*_text(passage.headers), *self._common_headers(passage.credentials + passage.account)]
        method, content, wait = passage.method, b"" if body is None else body, self.total_timeout
        return await _connecting(
            lambda: self._answered(method, url, headers, content, deadline=wait, usage_asked=False)
        )

    async def _answered(
        self,
        method: str,
        url: str,
        headers: list[Header],
        body: bytes | AsyncIterable[bytes],
        *,
        deadline: float,
        usage_asked: bool,
    ) -> HttpReply:
        # httpx would parse the address anew for every request, and then lose how it was written.
        request = httpx.Request(method, self._url, content=body, extensions={"url": url, "headers": headers})
        response = await _within(deadline, self._transport.handle_async_request(request))
        return HttpReply(response, usage_asked=usage_asked)

    def _common_headers(self, account: Account) -> list[Header]:
        """What goes with every request. The client's own credentials go only where the client pays."""
        headers = [("accept-encoding", "identity"), ("user-agent", "penstock")]
        if self.client_pays:
            headers += _text(account)
        elif self._api_key is not None:
            headers.append(("authorization", f"Bearer {self._api_key}"))
        return headers

    async def models(self, account: Account) -> HttpListing:
        """The provider's list of models. Raises UpstreamError, also for an answer that is neither list nor error."""
        url = f"{self._base_url}/models"
        headers = self._common_headers(account)
        reply = await self._answered("GET", url, headers, b"", deadline=MODELS_TIMEOUT, usage_asked=False)
        try:
            body = await _within(MODELS_TIMEOUT, reply.peek(MAX_MODELS))
        finally:
            reply.close()
        if reply.status in (401, 403) and self.owns_key:
            raise UpstreamAuthError(self.name)
        if reply.status >= 400:
            content_type = reply.headers.get("content-type", "application/json").encode("latin-1")
            return HttpListing(reply.status, body, None, content_type, passed_headers(reply.headers))
        return HttpListing(reply.status, body, _listed(body))


async def _connecting(send: Callable[[], Awaitable[HttpReply]]) -> HttpReply:
    """What `send` gives; tried once more where nothing was sent."""
    try:
        return await send()
    except (UpstreamConnectError, UpstreamTLSError):
        await asyncio.sleep(CONNECT_PAUSE * random.random())  # noqa: S311 - jitter
        return await send()


async def _within(seconds: float, work: Awaitable[T]) -> T:
    """The result of `work`, or UpstreamTimeout."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise late_answer(seconds) from None


def _text(headers: Account) -> list[Header]:
    return [(name.decode("latin-1"), _as_sent(value)) for name, value in headers]


def _as_sent(value: bytes) -> str:
    """What aiohttp makes these bytes of again, if they are UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _listed(body: bytes) -> list[dict[str, Any]]:
    try:
        return msgspec.json.decode(body, type=_ModelList).data
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise UpstreamBadContentType("The provider answered with something else than a list of models.") from None


def outgoing_body(call: Call, model: str, *, ask_usage: bool) -> bytes:
    """The client's bytes, save for what must change: the model's name there, and the wish for a stream's usage."""
    adds_usage = ask_usage and not call.wants_usage
    if model == call.model and not adds_usage:
        return call.raw
    changed: dict[str, Any] = {} if model == call.model else {"model": model}
    if adds_usage:
        changed["stream_options"] = {**(call.body.get("stream_options") or {}), "include_usage": True}
    return with_members(call.raw, changed)
