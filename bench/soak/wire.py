"""A client that sees HTTP as it is: the events as they come, whether the answer's end was HTTP's own, and that leaves
as rudely as wanted. One request on each connection.
"""

import asyncio
import socket
import struct
from collections.abc import Iterable, Sequence
from functools import partial
from typing import cast

from httptools import HttpResponseParser

PATIENCE = 30.0  # seconds; nothing here takes as long, so what does is taken for hung

# SO_LINGER with a time of 0: close() sends RST, as the kernel does for a process that was killed.
_LINGER_NOT = struct.pack("ii", 1, 0)


class EndedError(Exception):
    """The answer was over before so many events had come."""


class Call(asyncio.Protocol):
    """One request, and what has come back so far. `whole`: HTTP said by itself that this is all."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.events = 0
        self.whole = False
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._parser = HttpResponseParser(self)
        self._tail = b""
        self._waiting: tuple[int, asyncio.Future[None]] | None = None

    def send(self, data: bytes) -> None:
        self._transport.write(data)

    def leave(self, *, rudely: bool = True) -> None:
        """By a reset, or by an ordinary end of the connection."""
        if self._transport.is_closing():
            return
        if rudely:
            connection = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            self._transport.abort()
        else:
            self._transport.close()

    async def reach(self, events: int) -> None:
        """Wait for so many events. Raises EndedError, TimeoutError."""
        if self.events >= events:
            return
        if self.over.done():
            raise EndedError(f"after {self.events} of {events} events; status {self.status}")
        arrived = asyncio.get_running_loop().create_future()
        self._waiting = events, arrived
        async with asyncio.timeout(PATIENCE):
            await arrived

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, _: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)
        if self._waiting is not None and not self._waiting[1].done():
            self._waiting[1].set_exception(EndedError(f"after {self.events} of {self._waiting[0]} events"))

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self.body += data
        self.events += (self._tail + data).count(b"\n\n")
        self._tail = data[-1:]
        if self._waiting is not None and self.events >= self._waiting[0] and not self._waiting[1].done():
            self._waiting[1].set_result(None)

    def on_message_complete(self) -> None:
        self.whole = True
        self.leave()  # without the TIME_WAIT that would use up this machine's ports


async def connected(port: int) -> Call:
    """A connection on which nothing was sent yet."""
    return (await asyncio.get_running_loop().create_connection(Call, "127.0.0.1", port))[1]


async def sent(port: int, request: bytes) -> Call:
    """A call under way."""
    call = await connected(port)
    call.send(request)
    return call


async def sent_at_once(port: int, requests: Sequence[bytes]) -> list[Call]:
    """All connect; then all requests go out before anything else happens."""
    calls = await asyncio.gather(*map(partial(_connected_to, port), requests))
    for call, request in zip(calls, requests, strict=True):
        call.send(request)
    return calls


async def _connected_to(port: int, _: bytes) -> Call:
    return await connected(port)


async def finished(calls: Iterable[Call]) -> None:
    """Wait until all are over. Those that hang are hung up on, and so are not whole."""
    calls = list(calls)
    if calls:
        await asyncio.wait([call.over for call in calls], timeout=PATIENCE)
    for call in calls:
        if not call.over.done():
            call.leave()


async def answered(port: int, request: bytes) -> Call:
    """A call, when it is over."""
    call = await sent(port, request)
    await finished([call])
    return call


async def fetched(port: int, path: str) -> bytes:
    """The body of a GET; a RuntimeError unless it was answered with 200."""
    call = await answered(port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    if call.status != 200:
        raise RuntimeError(f"{path} was answered with {call.status}")
    return bytes(call.body)
