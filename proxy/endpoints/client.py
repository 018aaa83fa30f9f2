"""The client at the other end: is it still there, and what is sent to it."""

import asyncio
import math
from collections.abc import Iterable
from types import TracebackType
from typing import Protocol, Self

from starlette.types import Receive, Send

from proxy.errors import PenstockError

Header = tuple[bytes, bytes]

# A body up to this size goes out in one piece; a larger one waits for the client between pieces.
PIECE = 256 * 1024
PING_AFTER = 7.5  # seconds between two looks at a stream: at most 15 of silence


class Attendance:
    """Cancels the task around it when the client hangs up: uvicorn only says so to whoever asks.

    `after`: somebody else receives until then.
    """

    def __init__(self, receive: Receive, after: asyncio.Event | None = None) -> None:
        self._receive = receive
        self._after = after
        self.left = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        self._watch = asyncio.get_running_loop().create_task(self._wait())
        return self

    async def _wait(self) -> None:
        if self._after is not None:
            await self._after.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._task is not None:
            self.left = True
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> bool:
        """Swallow the cancellation that is ours, and no other."""
        self._watch.cancel()
        ours = self.left and self._task is not None and self._task.uncancel() == 0
        return ours and kind is asyncio.CancelledError


class Reads(Protocol):
    """Whoever waits for what comes. `position`: moves as it is read."""

    position: int

    def nudge(self) -> None:
        """Do not wait any longer this time."""
        ...


class Heartbeat:
    """Nudges a reader that has had nothing for PING_AFTER seconds, or up to twice that. Costs nothing per event."""

    def __init__(self, reader: Reads) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = reader
        self._seen = reader.position

    def _beat(self) -> None:
        if self._reader.position == self._seen:
            self._reader.nudge()
        self._seen = self._reader.position
        self._handle = self._loop.call_later(PING_AFTER, self._beat)

    def __enter__(self) -> None:
        self._handle = self._loop.call_later(PING_AFTER, self._beat)

    def __exit__(self, *_: object) -> None:
        self._handle.cancel()


async def send_whole(send: Send, status: int, headers: Iterable[Header], body: bytes) -> None:
    """A complete answer, with its length."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-length", b"%d" % len(body))],
            "penstock.followed": True,
        }
    )
    if len(body) <= PIECE:
        await send({"type": "http.response.body", "body": body})
        return
    for start in range(0, len(body), PIECE):
        more = start + PIECE < len(body)
        await send({"type": "http.response.body", "body": body[start : start + PIECE], "more_body": more})


async def send_error(send: Send, error: PenstockError, headers: Iterable[Header] = (), *, close: bool) -> None:
    """An error in OpenAI's shape.

    `close`: the request's body was not read. On a connection that stays open what comes of it would be waited for, and
    with `Expect: 100-continue`, where it may never come, the next request would be taken for it.
    """
    extra = [(b"content-type", b"application/json"), *headers]
    if error.retry is not None:
        extra.append((b"x-should-retry", b"true" if error.retry else b"false"))
    if error.retry_after is not None:
        extra.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    if close:
        extra.append((b"connection", b"close"))
    await send_whole(send, error.status, extra, error.body())
