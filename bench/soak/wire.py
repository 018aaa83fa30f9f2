"""A client that sees HTTP as it is: the events as they come, whether the answer's end was HTTP's own, and that leaves
as rudely as wanted. One request on each connection, save for `Kept`.
"""

import asyncio
import contextlib
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


class Counted(Call):
    """A call of whose body nothing is kept but its `size` so far."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def on_body(self, data: bytes) -> None:
        self.size += len(data)


class Slow(asyncio.BufferedProtocol):
    """A call that takes `pace` bytes a second, until it is let go."""

    def __init__(self, pace: int) -> None:
        self.call = Call()
        self._buffer = bytearray(pace)
        self._paced = True
        self._loop = asyncio.get_running_loop()

    def let_go(self) -> None:
        self._paced = False
        self._buffer = bytearray(1 << 16)
        self._go_on()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.call.connection_made(transport)

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.call.data_received(bytes(self._buffer[:nbytes]))
        if self._paced and not self._transport.is_closing():
            self._transport.pause_reading()
            self._loop.call_later(1, self._go_on)

    def _go_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.call.connection_lost(exc)


async def sent_slowly(port: int, request: bytes, *, pace: int = 1024) -> Slow:
    """A call under way whose client takes so many bytes a second, and has room for few more."""
    loop = asyncio.get_running_loop()
    connection = socket.socket()
    connection.setblocking(False)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    # As over Ethernet; with the segments of loopback the server's kernel would take megabytes for each client.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1460)
    await loop.sock_connect(connection, ("127.0.0.1", port))
    _, slow = await loop.create_connection(lambda: Slow(pace), sock=connection)
    slow.call.send(request)
    return slow


class Kept(Call):
    """A connection that is kept for the next request; `ended` once its server has closed it."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = False
        self._answered: asyncio.Future[None] | None = None

    async def ask(self, request: bytes) -> None:
        """Send a request; its answer is here afterwards. Raises EndedError, TimeoutError."""
        self.status, self.headers, self.body, self.events, self.whole = 0, {}, bytearray(), 0, False
        self._parser = HttpResponseParser(self)
        self._answered = asyncio.get_running_loop().create_future()
        self.send(request)
        async with asyncio.timeout(PATIENCE):
            await self._answered

    def on_message_complete(self) -> None:
        self.whole = True
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(None)

    def eof_received(self) -> None:
        self.ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(EndedError("the connection was closed instead of an answer"))
        super().connection_lost(exc)


async def kept(port: int) -> Kept:
    """A connection for one request after the other."""
    return (await asyncio.get_running_loop().create_connection(Kept, "127.0.0.1", port))[1]


async def exchanged(port: int, *pieces: bytes, within: float = PATIENCE) -> bytes:
    """Everything that a server says to these bytes until it closes the connection. TimeoutError if it does not."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    heard = bytearray()

    async def listen() -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(1 << 16):
                heard.extend(piece)

    async def speak() -> None:
        with contextlib.suppress(OSError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()

    try:
        async with asyncio.timeout(within):
            await asyncio.gather(listen(), speak())
    finally:
        writer.transport.abort()
    return bytes(heard)


def parsed(heard: bytes) -> Call:
    """The first answer in these bytes."""
    call = Call()
    call.connection_made(_Nowhere())
    call.data_received(heard)
    return call


class _Nowhere(asyncio.Transport):
    def is_closing(self) -> bool:
        return True


async def sent_counted(port: int, request: bytes) -> Counted:
    """A call under way whose answer may be of any size."""
    _, call = await asyncio.get_running_loop().create_connection(Counted, "127.0.0.1", port)
    call.send(request)
    return call


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
