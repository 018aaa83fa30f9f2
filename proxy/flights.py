"""Who joins whom: recordings that are being made, by key, and the readers of each.

The producer of a recording belongs to the application, never to a client: a client that leaves takes its own reader
with it and nothing else. When the last reader has left, `on_abandon` decides.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Literal

from proxy.core.asker import ANYBODY, Asker
from proxy.core.bill import Bill
from proxy.core.books import Shadow
from proxy.core.elsewhere import Elsewhere
from proxy.core.entry import Entry
from proxy.core.load import Load
from proxy.core.ranking import Ranking
from proxy.core.recording import Broken, Clean, Ending, Head, Recording
from proxy.core.routing import Option
from proxy.core.sse import Event
from proxy.errors import PenstockError, ShuttingDown

OnAbandon = Literal["cancel", "finish"]
Produce = Callable[["Flight"], Coroutine[None, None, None]]

# How far the fastest reader of an oversized answer may be ahead of the slowest, in bytes.
WINDOW = 256 * 1024
TIGHT_WINDOW = 16 * 1024  # while too much is held
PRESSED = 0.05  # seconds between two looks whether there is room again
PATIENCE = 2.0  # seconds in all for which a list waits for that
MOST_ENTRIES = 8  # a list may have so many times the size of one answer
COUNTED = 4 * 1024  # bytes after which the load is told what is held
# Events that a reader takes at a time, and bytes of them, or a little more: what it took is held for it alone.
BATCH = 64
BATCH_BYTES = 32 * 1024

logger = logging.getLogger("penstock.flights")


class Reader:
    """One client's place in a recording."""

    __slots__ = ("_flight", "_nudged", "_waiter", "asker", "patient", "position")

    def __init__(self, flight: "Flight", asker: Asker, *, patient: bool = False) -> None:
        """`patient`: it waits for what becomes of it all, and reads no event: nobody need wait for it."""
        self._flight = flight
        self.patient = patient
        self.asker = asker
        self._waiter: asyncio.Future[None] | None = None
        self._nudged = False
        self.position = 0

    @property
    def flight(self) -> "Flight":
        return self._flight

    @property
    def recording(self) -> Recording:
        return self._flight.recording

    async def head(self) -> Head:
        """The answer's head, as soon as there is something behind it. Raises what the recording failed with.

        A stream has a head once its first event is there: one that fails before it is an error with a status.
        """
        recording = self.recording
        while recording.length == 0 and recording.end is None:
            await self._changed()
        if recording.length == 0 and isinstance(recording.end, Broken):
            raise recording.end.error
        if recording.head is None:
            raise AssertionError("a recording has a head before its first event")
        return recording.head

    async def ended(self) -> Ending | None:
        """How the recording ended; None if it grew over its bound first, and can only be read as it comes."""
        recording = self.recording
        while recording.end is None and not recording.oversized:
            await self._changed()
        return recording.end

    async def more(self) -> list[Event]:
        """The next events, as soon as there are any. Empty: it ended, or `nudge` was called.

        A reader that came late gets the past in batches, with a turn for everybody else between them.
        """
        recording = self.recording
        if recording.length - self.position > BATCH:
            await asyncio.sleep(0)
        while self.position == recording.length and recording.end is None and not self._nudged:
            await self._changed()
        self._nudged = False
        events = recording.since(self.position, BATCH, BATCH_BYTES)
        self.position += len(events)
        if recording.oversized:
            self._flight.let_go()
        return events

    def nudge(self) -> None:
        """Let `more` return, even with nothing."""
        self._nudged = True
        self.wake()

    def wake(self) -> None:
        """Let whoever waits in this reader look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _changed(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def leave(self) -> None:
        """Give up the place; what was owed to this reader only ends with it. Owed on every exit."""
        self._flight.leave(self)


class Flight:
    """A recording that is being made, and its readers.

    `keys`: that it answers, several where each input of a list has its own, and `entries` what it comes to for each of
    those, once it is over. `ttl` in seconds: the shortest that any reader asked for, `ttls` where that was for some
    keys alone; 0: not to be kept. `kept`: it has been. `outrun`: keys of which a flight that began later has been kept
    already, so that this answer is the older one. `divided`: it is to be taken apart once it is over. `origin`: the
    body that it answers; `asked`: the model that it names; `began`: by the loop's clock. `served`: the model that was
    asked last; `begun`: told when its answer begins; `bill`: what that cost, once it is known; `free`: nothing.
    `capped`: its leader's cap on the cost, or what was left of its budget, kept models away. `payer`: the reader that
    pays; `orphaned`: told when it has left others behind, as long as another may still pay. `elsewhere`: how long it
    was in others' hands. `ranking`: who was to answer, and why; `attempts`: who was asked, and how that ended.
    `shadow`: what would have come of its request, see policy.
    """

    __slots__ = (
        "_count_at",
        "_counted",
        "_flights",
        "_load",
        "_patience",
        "_room",
        "asked",
        "attempts",
        "began",
        "begun",
        "bill",
        "capped",
        "divided",
        "elsewhere",
        "entries",
        "free",
        "kept",
        "keys",
        "origin",
        "orphaned",
        "outrun",
        "payer",
        "ranking",
        "readers",
        "recording",
        "served",
        "shadow",
        "task",
        "ttl",
        "ttls",
    )

    def __init__(
        self, flights: "Flights", keys: tuple[bytes, ...], *, ttl: float, origin: bytes, max_entry: int
    ) -> None:
        self._flights = flights
        self._load = flights.load
        self._counted = 0  # bytes of this flight that the load knows of
        self._count_at = 0
        self._room: asyncio.Future[None] | None = None
        self.keys = keys
        self.entries: Mapping[bytes, Entry] = {}
        self.ttl = ttl
        self.ttls: dict[bytes, float] = {}
        self.origin = origin
        self.asked = ""
        self.attempts: list[tuple[str, str]] = []
        self.ranking: Ranking | None = None
        self.elsewhere = Elsewhere()
        self.began = asyncio.get_running_loop().time()
        self.recording = Recording(max_entry)
        self.readers: dict[Reader, None] = {}  # in the order in which they came
        self.payer: Reader | None = None
        self.orphaned: Callable[[], None] | None = None
        self.outrun: set[bytes] = set()
        self.kept = False
        self.served: Option | None = None
        self.bill: Bill | None = None
        self.free = False
        self.capped = False
        self.divided = False
        self._patience = PATIENCE
        self.shadow: Shadow | None = None
        self.begun: Callable[[], None] | None = None
        self.task: asyncio.Task[None] | None = None

    def reader(self, ttl: float | None = None, asker: Asker = ANYBODY, keys: Sequence[bytes] = ()) -> Reader:
        """A new reader, from the start of the recording. The first one pays. `keys`: those that it wants, where it is
        not all: it waits for what they come to.
        """
        reader = Reader(self, asker, patient=bool(keys))
        self.payer = self.payer or reader
        self.readers[reader] = None
        self._load.readers += 1
        self._flights.joined += reader is not self.payer
        if ttl is not None and len(self.keys) < 2:
            self.ttl = min(self.ttl, ttl)
        elif ttl is not None:
            self.ttls.update({key: min(self.ttl_of(key), ttl) for key in keys})
        return reader

    def ttl_of(self, key: bytes) -> float:
        """The shortest that any reader of this key asked for."""
        return self.ttls.get(key, self.ttl)

    @property
    def joinable(self) -> bool:
        recording = self.recording
        return not (recording.failing or recording.oversized or (self.task is not None and self.task.cancelling()))

    # The producer's side.

    def begin(self, head: Head) -> None:
        self.recording.head = head
        if self.begun is not None and head.status < 400:
            self.begun()

    def restart(self) -> None:
        """Another provider is asked; nothing was logged yet."""
        self.recording.head = None

    def append(self, event: Event, at: float) -> None:
        self.recording.append(event, at)

    def wake(self) -> None:
        """Tell the readers what was appended; once for all events that came together."""
        if self.recording.size >= self._count_at:
            self.count()
            if self._load.pressed and not self.divided:
                self.recording.forgo()
        for reader in self.readers:
            reader.wake()

    def finish(self, end: Ending) -> None:
        if self.recording.end is None:
            self.recording.end = end
            self.count()
            self.wake()

    def land(self) -> None:
        """Its answer has been kept."""
        self.kept = True
        self._flights.landed(self)

    async def room(self) -> None:
        """Wait while an oversized answer is too far ahead of its slowest reader."""
        if not self.readers:
            self._flights.abandoned(self)  # was to be finished for the cache, which it no longer fits
        # A list is worth nothing in part: it waits in place of being forgone, and the one that holds most goes on.
        # Not for ever: that one may be stalled, or held up by its reader.
        while self._patience > 0 and self._is_held_back:
            self._patience -= PRESSED
            await asyncio.sleep(PRESSED)
        if self.recording.oversized and all(reader.patient for reader in self.readers):
            self.let_go()
        while self.recording.oversized and self.recording.held > (TIGHT_WINDOW if self._load.pressed else WINDOW):
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    @property
    def _is_held_back(self) -> bool:
        return self.divided and self._load.pressed and self._flights.has_larger(self)

    def let_go(self) -> None:
        """A reader of an oversized answer went on: drop what all have passed, and let the producer go on."""
        if self.readers:
            read = (reader.position for reader in self.readers if not reader.patient)
            self.recording.let_go(min(read, default=self.recording.length))
        self.count()
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    @property
    def waits(self) -> bool:
        """For its turn; another reader may still pay."""
        return self.orphaned is not None

    @property
    def asker(self) -> Asker:
        """On whose behalf it is made."""
        return ANYBODY if self.payer is None else self.payer.asker

    def leave(self, reader: Reader) -> None:
        """Take a reader out; the last one out may end the flight."""
        if reader not in self.readers:
            return
        del self.readers[reader]
        self._load.readers -= 1
        if self.recording.oversized:
            self.let_go()
        if reader is self.payer and self.readers and self.orphaned is not None:
            self.orphaned()
        if not self.readers:
            self._flights.abandoned(self)
            self.count()

    def count(self) -> None:
        """Tell the load how many bytes are held for this flight: none once it is over and nobody reads it."""
        over = not self.readers and (self.task is None or self.task.done())
        held = 0 if over else self.recording.held + len(self.origin)
        self._load.recorded += held - self._counted
        self._counted = held
        self._count_at = self.recording.size + COUNTED


class Flights:
    """All flights. Every method is synchronous: between looking and acting, nothing else runs."""

    def __init__(self, *, on_abandon: OnAbandon, max_entry: int, load: Load) -> None:
        self.load = load
        self._by_key: dict[bytes, list[Flight]] = {}  # in the order in which they began
        self._all: set[Flight] = set()
        self._on_abandon = on_abandon
        self._max_entry = max_entry
        self.started = 0
        self.joined = 0
        self.ended_early = 0  # since nobody read them any more

    def __len__(self) -> int:
        return len(self._all)

    def has_larger(self, flight: Flight) -> bool:
        """Is there another that is to be taken apart, and holds more than this one, or as much for longer?"""
        mine = flight.recording.held, -flight.began
        return any(each.divided and (each.recording.held, -each.began) > mine for each in self._all)

    def __iter__(self) -> Iterator[Flight]:
        return iter(list(self._all))

    def find(self, key: bytes) -> Flight | None:
        """The newest flight of this key, if it takes joiners. Raises Overloaded where that has no room for one more."""
        flights = self._by_key.get(key)
        if not flights or not flights[-1].joinable:
            return None
        self.load.admit_reader()
        return flights[-1]

    def lead(
        self, keys: tuple[bytes, ...], produce: Produce, *, ttl: float, origin: bytes = b"", asker: Asker = ANYBODY
    ) -> Reader:
        """Start a flight and read it first. It becomes the newest of each of its keys; without, nobody finds it.

        Raises Overloaded.
        """
        self.load.admit_flight()
        flight = Flight(
            self, keys, ttl=ttl, origin=origin, max_entry=self._max_entry * min(MOST_ENTRIES, max(1, len(keys)))
        )
        reader = flight.reader(asker=asker)
        for key in keys:
            self._by_key.setdefault(key, []).append(flight)
        self._all.add(flight)
        self.started += 1
        self.load.flights += 1
        flight.task = asyncio.get_running_loop().create_task(produce(flight))
        flight.task.add_done_callback(lambda task: self._done(flight, task))
        return reader

    def abandoned(self, flight: Flight) -> None:
        """Nobody reads this flight any more."""
        wanted = self._on_abandon == "finish" and flight.ttl > 0 and not flight.recording.oversized
        if flight.recording.end is None and flight.task is not None and not wanted:
            self._forget(flight)
            self.ended_early += not flight.task.cancelling()
            flight.task.cancel()

    def landed(self, flight: Flight) -> None:
        """This flight's answer has been kept: those that began before it must not overwrite it."""
        for key in flight.keys:
            for older in self._by_key.get(key, ()):
                if older is flight:
                    break
                older.outrun.add(key)

    def _forget(self, flight: Flight) -> None:
        for key in flight.keys:
            flights = self._by_key.get(key, [])
            if flight in flights:
                flights.remove(flight)
            if not flights:
                self._by_key.pop(key, None)

    def _done(self, flight: Flight, task: asyncio.Task[None]) -> None:
        """Whatever ended the producer, its readers are told and nothing stays behind."""
        self._all.discard(flight)
        self.load.flights -= 1
        self._forget(flight)
        flight.count()
        if task.cancelled():
            flight.finish(Broken(ShuttingDown("Penstock is shutting down and could not finish this answer.")))
            return
        error = task.exception()
        if error is not None:
            logger.error("a producer failed", exc_info=error)
            flight.finish(Broken(PenstockError("Penstock failed while it made this answer.")))
        elif flight.recording.end is None:
            flight.finish(Clean())

    async def close(self) -> None:
        """End every flight; their readers get an error."""
        tasks = [flight.task for flight in self._all if flight.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
