"""`/chat/stream`, for pages without an SDK: chat completions in plain words, and the figures of each answer at its end.

Rule: what is answered, at what price and under which limits is for recorded.py alone; here is only how it is said.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from proxy.core.plain import Done, Plain, broken_event, chat_request, tokens
from proxy.core.sse import PING
from proxy.endpoints.answer import Answer
from proxy.endpoints.client import PING_AFTER, Header
from proxy.endpoints.desk import Desk
from proxy.endpoints.forms import EVENT_STREAM, UNBUFFERED
from proxy.endpoints.money import hit_money, live_money
from proxy.endpoints.recorded import Recorded
from proxy.errors import UpstreamTooLarge
from proxy.pipeline import Hit, Live

# Seconds between an error and the cut: a browser throws away what it has not yet handed on when an answer is cut.
HEARD = 0.25
MOST = 32 * 1024 * 1024  # bytes of JSON that are held, from a provider that does not stream
CHANGED = frozenset({b"content-type", b"content-length", b"x-accel-buffering"})


class ChatStream:
    """An ASGI endpoint. `default_model`: for requests that name none."""

    endpoint = "stream"

    def __init__(self, chat: Recorded, default_model: str | None, desk: Desk) -> None:
        self._chat = chat
        self._default_model = default_model
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        page = _Page(send, self._desk.clock.monotonic)
        page.answer = Answer(self.endpoint, page.send, self._desk)
        async with page.answer:
            await self._chat.answer(scope, receive, page.answer, lambda raw: chat_request(raw, self._default_model))


class _Page:
    """Takes what an Answer sends to a client of chat completions, and sends it on as a page is told.

    A stream's head goes out at once. That of a body of JSON waits until the body is whole and has been read, so that
    what is wrong with it can still be answered with its status. What is no 200 goes out as it is.
    """

    answer: Answer

    def __init__(self, send: Send, now: Callable[[], float]) -> None:
        self._send = send
        self._now = now
        self._began = self._spoke = now()  # it was last told something then
        self._first: float | None = None
        self._plain: Plain | None = None
        self._head: Message | None = None  # of JSON
        self._json = bytearray()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._start(message)
        elif self._plain is None:
            await self._send(message)
        elif self._head is None:
            await self._stream(self._plain, message)
        else:
            await self._whole(self._plain, self._head, message)

    async def _start(self, message: Message) -> None:
        self._plain = self._head = None
        if message["status"] != 200:
            await self._send(message)
            return
        headers: list[Header] = message["headers"]
        streamed = dict(headers)[b"content-type"].lower().startswith(b"text/event-stream")
        kept = [header for header in headers if header[0] not in CHANGED]
        message = {**message, "headers": [EVENT_STREAM, UNBUFFERED, *kept]}
        self._plain = Plain()
        if streamed:
            await self._send(message)
        else:
            self._head = message

    async def _stream(self, plain: Plain, message: Message) -> None:
        said = plain.feed(message["body"])
        if not message.get("more_body", False):
            await self._end(plain, said + plain.close())
            return
        silent = self._now() - self._spoke >= PING_AFTER  # to a page, since much of what comes is not for it
        if said or silent:
            self._note(plain)
            await (self._last(said) if plain.failed else self._body(said or PING))

    async def _whole(self, plain: Plain, head: Message, message: Message) -> None:
        """Raises UpstreamTooLarge, UpstreamFailed or UpstreamBadContentType; nothing was sent then."""
        self._json += message["body"]
        if len(self._json) > MOST:
            raise UpstreamTooLarge("The provider's answer is too large for /chat/stream.")
        if not message.get("more_body", False):
            said = plain.completion(bytes(self._json))
            self._head = None
            await self._send(head)
            await self._end(plain, said)

    async def _end(self, plain: Plain, said: bytes) -> None:
        """The last words, then the figures and a clean end; neither if the answer is not whole."""
        self._note(plain)
        flaw = plain.flaw()
        if flaw is None and not plain.failed:
            await self._body(said + self._done(plain).event(), more=False)
            return
        if flaw is not None and not plain.failed:
            self.answer.broke(flaw)
            said += broken_event(flaw)
        await self._last(said)

    async def _last(self, said: bytes) -> None:
        """The connection is cut behind this."""
        await self._body(said)
        await asyncio.sleep(HEARD)

    def _note(self, plain: Plain) -> None:
        self._spoke = self._now()
        if plain.begun and self._first is None:
            self._first = self._spoke - self._began

    async def _body(self, body: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    def _done(self, plain: Plain) -> Done:
        answer = self.answer
        return Done(
            id=answer.id.decode(),
            finish_reason=plain.finish,
            cache=answer.outcome,
            first_token_seconds=None if self._first is None else round(self._first, 6),
            total_seconds=round(self._now() - self._began, 6),
            **_figures(answer.given),
        )


def _figures(given: Hit | Live | None) -> dict[str, Any]:
    """Of a whole answer: who gave it, its tokens, its money as its headers say it; None where a provider said none."""
    provider, model, usage, money = "", "", None, dict[bytes, bytes]()
    if isinstance(given, Hit):
        provider, model = given.entry.meta.provider, given.name
        usage, money = given.entry.meta.usage, dict(hit_money(given))
    elif given is not None:
        served, bill = given.reader.flight.served, given.reader.flight.bill
        if served is not None:
            provider, model = served.target.provider, served.name
        if bill is not None and not bill.estimated:  # which comes too late for most, so it is told to none
            usage, money = bill.usage, dict(live_money(given))
    cost, saved = money.get(b"x-penstock-cost-usd"), money.get(b"x-penstock-saved-usd")
    return {
        "provider": provider,
        "model": model,
        "usage": tokens(usage),
        "cost_usd": None if cost is None else cost.decode(),
        "saved_usd": None if saved is None else saved.decode(),
    }
