"""Memory in front of disk, as the pipeline sees them.

Rule: whatever the disk does, nobody who waits for an answer notices more than a miss.

All state belongs to the event loop's thread. The disk's work is done by threads of our own (asyncio's default ones are
shared with name look-ups), reads apart from writes, which may take 100 ms each.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from proxy.store.disk import FAILURES, ByteTier, DiskStats, describe
from proxy.store.filter import KeyFilter
from proxy.store.memory import MemoryTier, Sized
from proxy.store.rows import RowError
from proxy.store.writes import WriteQueue

logger = logging.getLogger(__name__)

_READERS = 2
_MANY = 64  # look-ups that wait for the disk together: few enough that the last of them is still in time
_SLICE = 500  # entries looked at in one go, a third of a millisecond
_QUIET = 60.0  # seconds between two log lines of one kind

E = TypeVar("E", bound=Sized)


@dataclass(frozen=True, slots=True)
class StoreStats:
    """`queued_bytes` wait for the disk; `disk` is as of the last write, None without a disk or where it can't say."""

    memory_entries: int
    memory_bytes: int
    evictions: int
    queued_entries: int
    queued_bytes: int
    disk: DiskStats | None


class TieredStore(Generic[E]):
    """Entries by key. `pack` and `unpack` run in threads; `unpack` returns None for bytes that are no entry.

    `on_event` counts, on the loop: disk_read_failed, disk_write_failed, disk_corrupt (and removed), disk_write_skipped
    (more than `write_backlog` bytes wait for the disk: kept in memory only). A look-up may take `patience` seconds.
    """

    patience = 1.0

    def __init__(
        self,
        *,
        memory: MemoryTier[E],
        disk: ByteTier | None,
        pack: Callable[[E], bytes],
        unpack: Callable[[bytes], E | None],
        on_event: Callable[[str], None],
        write_backlog: int = 64 << 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory = memory
        self._disk = disk
        self._unpack = unpack
        self._on_event = on_event
        self._clock = clock
        self._said: dict[str, float] = {}
        self._added = KeyFilter()
        self._on_disk: KeyFilter | None = None  # `_added`, once it knows what was there before
        self._looking: dict[bytes, asyncio.Future[E | None]] = {}
        self._hangs = False  # a look-up was given up, and none has ended since
        self._readers = ThreadPoolExecutor(_READERS, "penstock-cache-read")
        self._writes = (
            None if disk is None else WriteQueue(disk, pack, backlog=write_backlog, on_failed=self._unwritten)
        )

    async def get(self, key: bytes) -> E | None:
        """The newest entry that was put, or None. Doesn't suspend unless the disk must be asked."""
        entry = self._near(key)
        if entry is not None or self._disk is None or (self._writes is not None and key in self._writes):
            return entry
        if self._hangs or (self._on_disk is not None and not self._on_disk.may_hold(key)):
            return None
        # Shielded: others may wait for the same look-up.
        found = await asyncio.shield(self._look(self._disk, key))
        # A put may land between the look-up's end and our turn on the loop: the last moment at which a miss, and
        # with it a second payment, can be avoided.
        newest = self._near(key)
        return found if newest is None else newest

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, E]:
        """The newest entries of those keys that have any. The disk is asked for many at once."""
        found = {key: entry for key in keys if (entry := self._near(key)) is not None}
        rest = [key for key in keys if key not in found]
        for start in range(0, len(rest), _MANY):
            some = rest[start : start + _MANY]
            entries = await asyncio.gather(*map(self.get, some))
            found |= {key: entry for key, entry in zip(some, entries, strict=True) if entry is not None}
        # While the last of them was looked for, a put may have come for the first.
        return found | {key: entry for key in rest if key not in found and (entry := self._near(key)) is not None}

    async def learn(self) -> None:
        """Learn which keys the disk holds; until then, and if that fails, every miss asks it."""
        if self._disk is None:
            return
        try:
            await asyncio.get_running_loop().run_in_executor(self._readers, self._learn, self._disk)
        except FAILURES as error:
            self._failed("disk_read_failed", error)
        else:
            self._on_disk = self._added

    def _learn(self, disk: ByteTier) -> None:
        """In a reader's thread. To set a bit twice is to set it once: puts may add meanwhile."""
        for key in disk.all_keys():
            self._added.add(key)

    def put(self, key: bytes, entry: E, *, expire: float) -> None:
        """Keep for `expire` seconds at most. The next `get` sees it, whatever becomes of the disk."""
        self._memory.put(key, entry)
        # The interleaving: A looks on the disk and misses; B's flight commits here and is gone; A returns with its
        # miss, finds no flight to join and pays again. So whoever is still looking is answered with what was put.
        self._answer(key, entry)
        self._added.add(key)
        if self._writes is not None and not self._writes.put(key, entry, expire):
            self._on_event("disk_write_skipped")

    async def delete(self, key: bytes) -> bool:
        """Remove one key; False where the disk failed to, so that it may come back."""
        self._memory.discard(key)
        self._answer(key, None)
        if self._writes is None:
            return True
        succeeded = self._writes.delete(key)
        await self._writes.settled(key)
        return succeeded()

    def forget(self) -> None:
        """Drop what is in memory and what waits to be written: another process has purged the disk."""
        self._memory.clear()
        for key in list(self._looking):
            self._answer(key, None)
        if self._writes is not None:
            self._writes.forget()

    async def sweep(self, purged: Callable[[E], bool], row_purged: Callable[[bytes], bool]) -> tuple[int, bool]:
        """Remove what is purged, told by the entry or by the first bytes of its blob.

        How many entries, and False where the disk failed, so that some may still lie there. The caller puts nothing
        that is purged from now on; until this is over a `get` may find such entries.
        """
        removed = set(await self._drop(purged))
        succeeded = True
        if self._writes is not None:
            removed.update(self._writes.remove(purged))
            try:
                removed.update(await self._writes.sweep(row_purged))
            except FAILURES as error:
                succeeded = False
                self._unwritten(error)
            # Who looked before its row was gone puts into memory what was read.
            if self._looking:
                await asyncio.wait(list(self._looking.values()))
            removed.update(await self._drop(purged))
        return len(removed), succeeded

    async def _drop(self, purged: Callable[[E], bool]) -> list[bytes]:
        """From memory, of which there may be much: others have their turn now and then."""
        removed: list[bytes] = []
        for index, key in enumerate(self._memory.keys()):
            if index % _SLICE == 0:
                await asyncio.sleep(0)
            if self._memory.discard_if(key, purged):
                removed.append(key)
        return removed

    async def close(self) -> None:
        """Write what is queued, then close the disk. Later puts and gets know memory only."""
        writes, self._writes, self._disk = self._writes, None, None
        if writes is not None:
            await writes.close(before=self._readers.shutdown)  # which waits for look-ups, as the loop must not

    def stats(self) -> StoreStats:
        """What is held where. Never asks the disk."""
        writes = self._writes
        return StoreStats(
            memory_entries=len(self._memory),
            memory_bytes=self._memory.bytes,
            evictions=self._memory.evictions,
            queued_entries=0 if writes is None else len(writes),
            queued_bytes=0 if writes is None else writes.bytes,
            disk=None if writes is None else writes.disk_stats,
        )

    def _near(self, key: bytes) -> E | None:
        entry = self._memory.get(key)
        if entry is None and self._writes is not None:
            entry = self._writes.get(key)
        return entry

    # One read per key: `_looking` holds it until it is answered, by the disk or by whoever knows better.

    def _look(self, disk: ByteTier, key: bytes) -> "asyncio.Future[E | None]":
        look = self._looking.get(key)
        if look is not None:
            return look
        loop = asyncio.get_running_loop()
        new = self._looking[key] = loop.create_future()
        late = loop.call_later(self.patience, self._give_up, key, new)
        work = loop.run_in_executor(self._readers, self._read, disk, key)
        work.add_done_callback(lambda work: self._looked(key, new, work, late))
        return new

    def _give_up(self, key: bytes, look: "asyncio.Future[E | None]") -> None:
        """The disk hangs: nobody waits for it, and nobody else asks it until it has answered."""
        if self._looking.get(key) is look:
            self._hangs = True
            self._answer(key, None)
            self._failed(
                "disk_read_failed", TimeoutError(f"no answer within {self.patience:g} s; asked again once there is")
            )

    def _read(self, disk: ByteTier, key: bytes) -> E | None:
        """In a reader's thread."""
        blob = disk.get(key)
        if blob is None:
            return None
        entry = self._unpack(blob)
        if entry is None:
            raise RowError("not an entry, or of another version")
        return entry

    def _looked(
        self,
        key: bytes,
        look: "asyncio.Future[E | None]",
        work: "asyncio.Future[E | None]",
        late: asyncio.TimerHandle,
    ) -> None:
        late.cancel()
        self._hangs = False
        error = work.exception()
        corrupt = isinstance(error, RowError)
        # Answered already? Then a put, a delete or a purge came first, and what was read is out of date.
        if self._looking.get(key) is look:
            entry = work.result() if error is None else None
            if entry is not None:
                self._memory.put(key, entry)
            self._answer(key, entry)
            if corrupt and self._writes is not None:
                self._writes.delete(key)
        if error is not None:
            self._failed("disk_corrupt" if corrupt else "disk_read_failed", error)

    def _answer(self, key: bytes, entry: E | None) -> None:
        look = self._looking.pop(key, None)
        if look is not None:
            look.set_result(entry)

    def _unwritten(self, error: Exception) -> None:
        self._failed("disk_write_failed", error)

    def _failed(self, event: str, error: BaseException) -> None:
        """Count it, and log it unless one of its kind was within a minute: a dead disk fails at every request."""
        self._on_event(event)
        now = self._clock()
        if now - self._said.get(event, float("-inf")) >= _QUIET:
            self._said[event] = now
            logger.warning("cache: %s: %s", event, describe(error))
