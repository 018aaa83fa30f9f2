"""What is on its way to the disk.

Rule: writes are done one after another by one thread of our own, so the order of puts is the order on the disk, and an
entry is visible here until it is visible there. Used from the event loop's thread, which alone touches the queue.
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from proxy.store.disk import FAILURES, ByteTier, DiskStats
from proxy.store.memory import Sized

# What the disk, or packing an entry for it, may raise. TypeError: an entry that cannot be packed.
UNWRITTEN: tuple[type[Exception], ...] = (*FAILURES, TypeError, LookupError, RuntimeError, MemoryError)
OVERHEAD = 512  # bytes a queued write costs besides its entry
_BATCH = 16  # writes for one trip to the thread: a busy loop has few turns to give

E = TypeVar("E", bound=Sized)


@dataclass(slots=True, eq=False)
class _Write(Generic[E]):
    """One key's way to the disk; no entry: to be deleted there."""

    entry: E | None
    expire: float
    cost: int
    dropped: bool = False
    failed: bool = False


_Batch = list[tuple[bytes, _Write[E]]]


class WriteQueue(Generic[E]):
    """The newest write of each key, until it is done. `on_failed` is called on the loop, once for each that failed."""

    def __init__(
        self, disk: ByteTier, pack: Callable[[E], bytes], *, backlog: int, on_failed: Callable[[Exception], None]
    ) -> None:
        self.bytes = 0
        self.disk_stats = stats_of(disk)  # as of the last write
        self._disk = disk
        self._pack = pack
        self._backlog = backlog
        self._on_failed = on_failed
        self._queue: dict[bytes, _Write[E]] = {}
        self._writing: asyncio.Future[list[Exception]] | None = None
        self._thread = ThreadPoolExecutor(1, "penstock-cache-write")

    def __len__(self) -> int:
        return len(self._queue)

    def __contains__(self, key: bytes) -> bool:
        """Is the disk not to be asked for this key, because what it holds is about to change?"""
        return key in self._queue

    def get(self, key: bytes) -> E | None:
        """The entry that waits; None also where the key waits to be deleted."""
        write = self._queue.get(key)
        return None if write is None else write.entry

    def put(self, key: bytes, entry: E, expire: float) -> bool:
        """Queue the entry in the place of an older one; False where too many bytes are waiting already."""
        self._drop(key)
        cost = entry.footprint + OVERHEAD
        if self.bytes + cost <= self._backlog:
            self._add(key, _Write(entry, expire, cost))
            return True
        # An older answer on the disk must not come back once memory has dropped this one. Bounded too: no more than
        # twice the backlog, should the disk hang for hours.
        if self.bytes + OVERHEAD <= 2 * self._backlog:
            self._add(key, _Write(None, 0.0, OVERHEAD))
        return False

    def delete(self, key: bytes) -> Callable[[], bool]:
        """Queue the removal in the place of an older write. What is returned says, later, whether it succeeded."""
        self._drop(key)
        write: _Write[E] = _Write(None, 0.0, OVERHEAD)
        self._add(key, write)
        return lambda: not write.failed

    def forget(self) -> None:
        """Drop the entries that wait; removals are still done."""
        for key, write in list(self._queue.items()):
            if write.entry is not None:
                self._drop(key)

    def remove(self, purged: Callable[[E], bool]) -> list[bytes]:
        """Queue the removal of what waits and is purged. Not only dropped: an older answer must not come back."""
        found = [key for key, write in self._queue.items() if write.entry is not None and purged(write.entry)]
        for key in found:
            self.delete(key)
        return found

    async def sweep(self, purged: Callable[[bytes], bool]) -> list[bytes]:
        """Remove all blobs from the disk of whose first bytes `purged` is true; their keys. Raises FAILURES.

        Behind the writes that are under way; between its small parts others have their turn.
        """
        removed: list[bytes] = []
        upto: int | None = 0
        while upto is not None:
            part = await asyncio.get_running_loop().run_in_executor(self._thread, self._disk.sweep, purged, upto)
            removed += part.keys
            upto = part.upto
        return removed

    async def settled(self, key: bytes | None = None) -> None:
        """Wait until this key, or everything, is on the disk or failed to be."""
        while self._writing is not None and (key is None or key in self._queue):
            await asyncio.wait({self._writing})

    async def close(self, before: Callable[[], None]) -> None:
        """Finish what is queued, then, in the thread, call `before` and close the disk."""
        await self.settled()
        run = asyncio.get_running_loop().run_in_executor
        await run(self._thread, before)
        with contextlib.suppress(*FAILURES):
            await run(self._thread, self._disk.close)
        self._thread.shutdown()

    def _add(self, key: bytes, write: _Write[E]) -> None:
        self._queue[key] = write
        self.bytes += write.cost
        self._write_next()

    def _drop(self, key: bytes) -> None:
        write = self._queue.pop(key, None)
        if write is not None:
            write.dropped = True  # the thread may have it in its hands already
            self.bytes -= write.cost

    def _write_next(self) -> None:
        if self._writing is not None or not self._queue:
            return
        batch = list(islice(self._queue.items(), _BATCH))
        self._writing = asyncio.get_running_loop().run_in_executor(self._thread, self._write_all, batch)
        self._writing.add_done_callback(lambda work: self._wrote(batch, work))

    def _wrote(self, batch: _Batch[E], work: "asyncio.Future[list[Exception]]") -> None:
        for key, write in batch:
            if self._queue.get(key) is write:  # else a newer one has taken its place
                self._drop(key)
        self._writing = None
        self._write_next()
        for error in work.result():
            self._on_failed(error)

    def _write_all(self, batch: _Batch[E]) -> list[Exception]:
        """In the thread; returns what went wrong."""
        errors: list[Exception] = []
        for key, write in batch:
            if write.dropped:
                continue
            try:
                self._write(key, write)
            except UNWRITTEN as error:  # told to whoever counts, and the next one has its turn
                write.failed = True
                errors.append(error)
        self.disk_stats = stats_of(self._disk)
        return errors

    def _write(self, key: bytes, write: _Write[E]) -> None:
        if write.entry is None:
            self._disk.delete(key)
            return
        try:
            self._disk.put(key, self._pack(write.entry), write.expire)
        except Exception:
            # Else an older answer would come back from the disk once memory has dropped this one.
            with contextlib.suppress(*FAILURES):
                self._disk.delete(key)
            raise


def stats_of(disk: ByteTier) -> DiskStats | None:
    """What the disk says of itself, None where it can't."""
    try:
        return disk.stats()
    except FAILURES:
        return None
