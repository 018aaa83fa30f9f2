"""A cheap client, so that what is measured is the server: raw HTTP/1.1 over asyncio protocols on uvloop.

Two kinds of load: the same request over and over on kept connections (`repeat`), and many streams at once (`streams`).
"""

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from typing import cast

CHUNK_MARK = b"data: {"


@dataclass(frozen=True, slots=True)
class Streams:
    """What many streams at once showed: seconds to each one's first event, and events a second over all."""

    first_event: list[float]
    events: int
    bytes: int
    seconds: float
    failed: int

    @property
    def rate(self) -> float:
        return self.events / self.seconds


def http_post(path: str, body: bytes, *, close: bool = False, key: str = "bench", more: tuple[str, ...] = ()) -> bytes:
    """The bytes of one POST with a JSON body. `more`: header lines besides."""
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {key}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(("Connection: close",) if close else ()),
        *more,
    )
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


class _Repeater(asyncio.Protocol):
    """Sends the same request again as soon as the answer to the last one is complete."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._missing = 0
        self._head = b""
        self.answers = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            self._head += data
            head, mark, rest = self._head.partition(b"\r\n\r\n")
            if not mark:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"the server answered {head[:200]!r}")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            self._missing = int(length) - len(rest)
            self._head = b""
        if self._missing == 0:
            self.answers += 1
            self._transport.write(self._request)

    def stop(self) -> None:
        self._transport.abort()


async def repeat(port: int, request: bytes, *, connections: int, seconds: float) -> float:
    """Answers a second, over `connections` kept connections."""
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: _Repeater(request), "127.0.0.1", port))[1] for _ in range(connections)
    ]
    await asyncio.sleep(0.3)  # warm
    before, began = sum(client.answers for client in clients), time.perf_counter()
    await asyncio.sleep(seconds)
    after, ended = sum(client.answers for client in clients), time.perf_counter()
    for client in clients:
        client.stop()
    return (after - before) / (ended - began)


class _Streamer(asyncio.Protocol):
    """Sends one request and counts the events of its answer until the connection closes."""

    def __init__(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._request = request
        self._now = time.perf_counter  # uvloop's own clock ticks in milliseconds
        self._tail = b""
        self.events = 0
        self.bytes = 0
        self.first: float | None = None
        self.whole = False
        self.over: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.sent = self._now()
        cast("asyncio.Transport", transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        seen = self._tail + data
        self.bytes += len(data)
        self.events += seen.count(CHUNK_MARK)
        if self.first is None and self.events:
            self.first = self._now() - self.sent
        self.whole = self.whole or b"[DONE]" in seen
        self._tail = seen[-6:]  # shorter than both marks: nothing is counted twice

    def connection_lost(self, _: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(None)


def _same(client: _Streamer) -> _Streamer:
    return client


async def streams(port: int, requests: list[bytes]) -> Streams:
    """All requests at once, each on a connection of its own."""
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    clients = [_Streamer(request) for request in requests]
    await asyncio.gather(*(loop.create_connection(partial(_same, client), "127.0.0.1", port) for client in clients))
    await asyncio.gather(*(client.over for client in clients))
    return Streams(
        first_event=sorted(client.first for client in clients if client.first is not None),
        events=sum(client.events for client in clients),
        bytes=sum(client.bytes for client in clients),
        seconds=time.perf_counter() - began,
        failed=sum(not client.whole for client in clients),
    )
