"""The edges as in-process fakes, and a loop whose time passes only when nothing is left to do."""

import asyncio
import selectors
from collections.abc import AsyncIterable, Coroutine, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from proxy.accounts import Accounts
from proxy.claims import Claims
from proxy.complaints import Complaints
from proxy.core.access import NOBODY, UNLIMITED, Access, Grant
from proxy.core.asker import Asker
from proxy.core.bill import Bill
from proxy.core.books import Answered, Attempted, Intent
from proxy.core.breaker import Health
from proxy.core.budget import Purses
from proxy.core.call import Call, read_call
from proxy.core.entry import Entry, Meta
from proxy.core.learned import Learned
from proxy.core.load import Load
from proxy.core.passage import Passage
from proxy.core.ranking import Ranking
from proxy.core.routing import Option, Routes, Target
from proxy.endpoints.intake import Door
from proxy.flights import Flights
from proxy.interfaces import Again, Listing
from proxy.interfaces import Clock as AnyClock
from proxy.interfaces import Meter as AnyMeter
from proxy.interfaces import Provider as AnyProvider
from proxy.limiter import Limiter
from proxy.offers import price_table, routes_of
from proxy.producer import Means, Producer
from proxy.reading import read_settings
from proxy.router import Router
from proxy.settings import Settings

T = TypeVar("T")


class _Selector(selectors.PollSelector):  # `select` knows no descriptor above 1023
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

    def run_in_executor(self, _executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """What is for a thread is done on the spot: no time passes in it, and nothing else happens meanwhile."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - told to who waits for it
            done.set_exception(error)
        return done


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
        origins=frozenset(),
        loopback_only=True,
        max_body=100,
        body_timeout=60.0,
        access=Access({}),
        load=roomy(),
        wall=float,
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


class LoopClock:
    """A `Clock` that goes with the loop: in virtual time both pass together."""

    def wall(self) -> float:
        return 1000.0 + asyncio.get_running_loop().time()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class Epoch:
    """Every purge means all."""

    current = 0

    def spares(self, meta: Meta) -> bool:
        return meta.epoch == self.current

    def admits(self, meta: Meta) -> bool:
        return meta.epoch == self.current


class Meter:
    """What was counted."""

    def __init__(self) -> None:
        self.attempts: list[tuple[str, str, str]] = []
        self.kept: list[str] = []
        self.listed: list[tuple[str, int, int, int]] = []
        self.bills: list[Bill] = []
        self.streams = 0
        self.retries: list[tuple[str, str, str]] = []
        self.paces: list[tuple[str, str, list[float]]] = []
        self.would: list[tuple[str, str, Decimal | None, str]] = []
        self.rankings: list[tuple[str | None, Ranking]] = []

    def answered(self, row: Answered, key: str) -> None: ...

    def turned_away(self, status: int) -> None: ...

    def refused(self, limit: str, key: str) -> None: ...

    def retried(self, provider: str, model: str, kind: str) -> None:
        self.retries.append((provider, model, kind))

    def spoke(self, provider: str, model: str, times: Sequence[float]) -> None:
        self.paces.append((provider, model, list(times)))

    @property
    def results(self) -> list[str]:
        return [result for _, _, result in self.attempts]

    def attempt(self, provider: str, model: str, result: str, seconds: float) -> None:  # noqa: ARG002 - the protocol's
        self.attempts.append((provider, model, result))

    def billed(self, bill: Bill, grant: Grant) -> None:  # noqa: ARG002 - of the protocol
        self.bills.append(bill)

    def would_save(self, cause: str, option: Option, usd: Decimal | None, grant: Grant) -> None:
        self.would.append((cause, option.name, usd, grant.name))

    def decided(self, route: str | None, ranking: Ranking) -> None:
        self.rankings.append((route, ranking))

    def inputs(self, model: str, *, known: int = 0, joined: int = 0, asked: int = 0) -> None:
        self.listed.append((model, known, joined, asked))

    def stored(self, result: str) -> None:
        self.kept.append(result)


class Store:
    """A `Store` in a dictionary."""

    def __init__(self) -> None:
        self.entries: dict[bytes, Entry] = {}

    async def get(self, key: bytes) -> Entry | None:
        return self.entries.get(key)

    async def delete(self, key: bytes) -> bool:
        return self.entries.pop(key, None) is not None

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        return {key: self.entries[key] for key in keys if key in self.entries}

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
        self.max_retries = 2
        self.owns_key = False
        self.client_pays = True
        self.reports_usage = True
        self.calls: list[Call] = []
        self.cancelled = 0
        self._replies: Sequence[Reply | Exception] = replies

    def scrub(self, said: bytes) -> bytes:
        return said

    async def open(self, call: Call, _target: Target, *, again: Again | None = None) -> Reply:  # noqa: ARG002
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


def some_settings(models: Mapping[str, Mapping[str, Any]], **sections: Any) -> Settings:
    """Settings with these models, at a provider `sim` that wants no key and whose name no catalogue knows."""
    provider = {"base_url": "http://sim/v1", "auth": "none"}
    return read_settings({"providers": {"sim": provider}, "models": models, **sections}, source="test")


def some_routes(models: Mapping[str, Mapping[str, Any]], **sections: Any) -> Routes:
    """Routes of such settings; without others there is one, "any", of all models, whose baseline is the last."""
    names = list(models)
    sections.setdefault("routes", {"any": {"models": names, "baseline": names[-1]}})
    settings = some_settings(models, **sections)
    return routes_of(settings, price_table(settings))


def no_limits(clock: AnyClock, *providers: str) -> Limiter:
    """A limiter that knows none."""
    return Limiter(clock, providers=dict.fromkeys(providers, UNLIMITED), models={}, queue_timeout={})


class Book:
    """A `Ledger` that remembers."""

    def __init__(self) -> None:
        self.intents: list[Intent] = []
        self.attempts: list[Attempted] = []
        self.answers: list[Answered] = []

    async def intend(self, intent: Intent) -> None:
        self.intents.append(intent)

    def attempted(self, attempt: Attempted) -> None:
        self.attempts.append(attempt)

    def answered(self, answer: Answered) -> None:
        self.answers.append(answer)


class Works:
    """What makes a recording and knows what it costs, over fakes. `limiter` and `purses`: no limits, nothing spent."""

    def __init__(
        self,
        providers: Mapping[str, AnyProvider],
        flights: Flights,
        meter: AnyMeter,
        clock: AnyClock,
        *,
        limiter: Limiter | None = None,
        kept_for: float = 60.0,
    ) -> None:
        self.health, self.ledger = Health(), Book()
        self.limiter = limiter or no_limits(clock, *providers)
        self.router = Router(Learned(self.health, kept_for=kept_for), clock, self.limiter)
        self.purses = Purses()
        self.claims = Claims(self.limiter, self.purses, clock)
        self.accounts = Accounts(self.router, meter, self.ledger, clock)
        means = Means(
            providers=providers,
            health=self.health,
            load=flights.load,
            limiter=self.limiter,
            claims=self.claims,
            accounts=self.accounts,
            clock=clock,
            meter=meter,
            complaints=Complaints(clock.monotonic),
        )
        self.producer = Producer(means)


def an_asker(grant: Grant = NOBODY, request: str = "req_1") -> Asker:
    return Asker(request, "chat", grant)
