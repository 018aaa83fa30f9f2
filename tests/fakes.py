"""The edges as in-process fakes, and a loop whose time passes only when nothing is left to do."""

import asyncio
import selectors
from collections.abc import AsyncIterable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from proxy.core.access import Access
from proxy.core.call import Call, read_call
from proxy.core.entry import Entry
from proxy.core.load import Load
from proxy.core.passage import Passage
from proxy.core.routing import Target
from proxy.endpoints.intake import Door
from proxy.interfaces import Listing

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    """Lets time pass instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everything waits for ever"
            self.now += timeout
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._clock = _Selector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def in_virtual_time(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; timers fire in their order, at once."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(work)


async def turns(count: int = 20) -> None:
    """Let everything run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


def roomy() -> Load:
    """A load that nothing is too much for."""
    return Load(max_flights=1 << 30, max_readers=1 << 30, max_buffered=1 << 40)


def a_door(**different: Any) -> Door:
    """A door for loopback, with a small bound."""
    door = Door(
        origins=frozenset(), loopback_only=True, max_body=100, body_timeout=60.0, access=Access({}), load=roomy()
    )
    return msgspec.structs.replace(door, **different)


class Clock:
    """A `Clock` that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


class Epoch:
    current = 0


class Meter:
    """What was counted."""

    def __init__(self) -> None:
        self.results: list[str] = []
        self.kept: list[str] = []

    def request(self, endpoint: str, outcome: str, status: int) -> None: ...

    def first_byte(self, endpoint: str, outcome: str, seconds: float) -> None: ...

    def upstream(self, _provider: str, result: str) -> None:
        self.results.append(result)

    def stored(self, result: str) -> None:
        self.kept.append(result)


class Store:
    """A `Store` in a dictionary."""

    def __init__(self) -> None:
        self.entries: dict[bytes, Entry] = {}

    async def get(self, key: bytes) -> Entry | None:
        return self.entries.get(key)

    def put(self, key: bytes, entry: Entry, *, expire: float) -> None:  # noqa: ARG002 - of the protocol
        self.entries[key] = entry


class Reply:
    """A `Reply` whose pieces come when the test says. A number among them is a pause in seconds, None the end."""

    def __init__(self, *pieces: Any, status: int = 200, **headers: Any) -> None:
        self.status = status
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.headers: Mapping[str, str] = {"content-type": "text/event-stream", **named}
        self.usage_asked = True
        self.closed = 0
        self._pieces: asyncio.Queue[bytes | float | Exception] = asyncio.Queue()
        self.come(*pieces)

    def come(self, *pieces: Any) -> None:
        for piece in pieces:
            self._pieces.put_nowait(piece)

    def end(self) -> None:
        self.come(b"")

    async def read(self) -> bytes:
        piece = await self._pieces.get()
        if isinstance(piece, Exception):
            raise piece
        if isinstance(piece, bytes):
            return piece
        await asyncio.sleep(piece)
        return await self.read()

    def close(self) -> None:
        self.closed += 1


class Provider:
    """A `Provider` that gives the replies one after the other; where none is left, it never answers."""

    def __init__(self, *replies: Reply | Exception) -> None:
        self.name = "sim"
        self.first_event_timeout = 60.0
        self.idle_timeout = 30.0
        self.total_timeout = 600.0
        self.max_event = 1 << 20
        self.owns_key = False
        self.client_pays = True
        self.reports_usage = True
        self.calls: list[Call] = []
        self.cancelled = 0
        self._replies: Sequence[Reply | Exception] = replies

    def scrub(self, said: bytes) -> bytes:
        return said

    async def open(self, call: Call, _target: Target) -> Reply:
        self.calls.append(call)
        if len(self.calls) > len(self._replies):
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled += 1
        reply = self._replies[len(self.calls) - 1]
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def relay(self, passage: Passage, body: AsyncIterable[bytes] | None) -> Reply:
        raise NotImplementedError

    async def models(self, account: tuple[tuple[bytes, bytes], ...]) -> Listing:
        raise NotImplementedError


def a_call(prompt: str = "hello", *, headers: Mapping[bytes, bytes] | None = None, **members: Any) -> Call:
    """A request as the endpoint reads it."""
    body = {"model": "m", "messages": [{"role": "user", "content": prompt}], **members}
    return read_call("chat/completions", query=b"", raw=msgspec.json.encode(body), headers=headers or {}, forward=())
