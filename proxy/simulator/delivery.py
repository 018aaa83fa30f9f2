"""Sends a script on time, and notices within a moment a caller who leaves.

Events are due at start + k × gap, not a gap after each other: a late one does not delay the rest. The loop holds one
sleep and one send per event and nothing else, since benchmarks measure what stands in front of it; what takes more
than that is in slow.py.
"""

import asyncio
import enum
import socket
import struct
from typing import Any

import msgspec
from starlette.types import Message, Receive, Send

from proxy.simulator.script import End, Script
from proxy.simulator.slow import send_slowly

# SO_LINGER with a time of 0: close() sends RST and forgets what is unsent.
_LINGER_NOT = struct.pack("ii", 1, 0)


class Outcome(enum.Enum):
    ANSWERED = "answered"
    FAILED = "failed"
    HUNG_UP = "hung_up"


class Pace(msgspec.Struct, frozen=True):
    """Seconds before the head, and between events."""

    first: float
    gap: float


class CallerLeftError(Exception):
    """The caller hung up before the request was whole."""


async def read_body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerLeftError
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


class Delivery:
    """One script on its way to one caller; `sent` events have left so far."""

    def __init__(self, script: Script, pace: Pace, headers: list[tuple[bytes, bytes]]) -> None:
        self._script = script
        self._pace = pace
        self._headers = headers
        self.sent = 0

    @property
    def tokens_sent(self) -> int:
        tokens = self._script.tokens
        return sum(tokens[: self.sent]) + max(0, self.sent - len(tokens))

    async def run(self, receive: Receive, send: Send) -> Outcome:
        """Sends until the script or the caller's patience ends. The work is over when this returns."""
        work = asyncio.ensure_future(self._send(send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            # A response that is complete reads as a disconnect too, so the work is asked first.
            if not work.done():
                return Outcome.HUNG_UP
            work.result()
            if self._script.end is End.RESET:
                # The server hears of it a turn of the loop later; an earlier return reads as our mistake.
                await gone
            return Outcome.FAILED if self._script.failed else Outcome.ANSWERED
        finally:
            work.cancel()
            gone.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        script = self._script
        head = {"type": "http.response.start", "status": script.status, "headers": self._headers}
        if script.slow:
            await self._send_slowly(head, send)
            return
        time, sleep, gap = asyncio.get_running_loop().time, asyncio.sleep, self._pace.gap
        if self._pace.first:
            await sleep(self._pace.first)
        if script.events or script.end is End.CLEAN:
            # The head leaves with the first event: `reset=0` and `stall=0` send nothing at all.
            await send(head)
        start, paced = time(), script.paced
        for number, event in enumerate(script.events):
            if gap and (wait := start + min(number, paced) * gap - time()) > 0:
                await sleep(wait)
            await send({"type": "http.response.body", "body": event, "more_body": True})
            self.sent = number + 1
        await self._end(send)

    async def _send_slowly(self, head: Message, send: Send) -> None:
        async for _ in send_slowly(self._script, self._pace.first, self._pace.gap, head, send):
            self.sent += 1
        await self._end(send)

    async def _end(self, send: Send) -> None:
        match self._script.end:
            case End.CLEAN:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
            case End.STALL:
                await asyncio.Event().wait()
            case End.RESET:
                await _reset(send)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _reset(send: Send) -> None:
    """Tears the connection down under the server: what was sent before still arrives, then ECONNRESET."""
    transport: Any = getattr(getattr(send, "__self__", None), "transport", None)
    connection = transport.get_extra_info("socket") if transport is not None else None
    if connection is None:
        raise ConnectionResetError("told to reset; this server hides its socket, so it has to break the response off")
    await asyncio.sleep(0)
    # A transport has no event for "all is written".
    while transport.get_write_buffer_size() and not transport.is_closing():  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    transport.abort()
