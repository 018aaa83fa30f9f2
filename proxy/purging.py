"""Purges in force: by commands, whose file is looked at twice a second, and by who asks here.

Rule: a purge is in force as soon as it is known here, wherever its entries lie. They are removed behind that, in small
parts, by one sweep at a time; one that was cut off or failed is made again, after a restart too.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from proxy.core.entry import Entry, Meta
from proxy.core.purges import EVERYTHING, PurgeLog, Selection, Wanted
from proxy.store.files import turn_if_free
from proxy.store.purges import PurgeFile
from proxy.store.tiered import TieredStore

POLL = 0.5  # seconds: a purge by command is in force within a second
RETRY = 60.0  # seconds until a disk that failed is swept again

logger = logging.getLogger("penstock")


class PurgeWatch:
    """The log of purges as it is now. `cache`: the directory in which commands sweep, too. `upstreams`: the providers'
    names of models, by ours. `entry_of`: under which key a request's answer lies, if that is known.
    """

    def __init__(
        self,
        file: PurgeFile,
        store: TieredStore[Entry],
        cache: Path,
        *,
        upstreams: Mapping[str, str],
        entry_of: Callable[[str], Awaitable[bytes | None]],
    ) -> None:
        self._file = file
        self._store = store
        self._cache = cache
        self._upstreams = upstreams
        self._entry_of = entry_of
        self._log = file.read()
        self._unwritten = False  # what the file says lacks a purge of ours
        self._changing = asyncio.Lock()
        self._sweeping = asyncio.Lock()
        self.current = self._log.number

    def spares(self, meta: Meta) -> bool:
        """May this entry answer? One of the `current` epoch always may."""
        return self._log.spares(meta)

    def admits(self, meta: Meta) -> bool:
        """May this entry be put?"""
        return self._log.admits(meta)

    async def follow(self) -> None:
        """Obey what other processes purge and remove what is purged, for ever."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._look())
            both.create_task(self._sweep_all())

    async def purge(self, kind: Wanted, value: str = "") -> int:
        """Forget the entries of a key's id, of a model, that answered a request, or all; how many were removed.

        Who stops to wait takes nothing back. A disk that fails does not either: its entries are removed later. Raises
        what `entry_of` does.
        """
        selection = await self._selection(kind, value)
        if selection is None:
            return 0
        async with self._changing:
            log = await asyncio.to_thread(self._add, selection)
            forgotten = self._store.stats().memory_entries if kind == "all" else 0
            self._adopt(log)
        # Nothing is awaited between: a sweep that begins by itself would leave us nothing to count.
        while (removed := await self._sweep(log)) is None:  # noqa: ASYNC110 - another process is at it
            await asyncio.sleep(POLL)
        return max(forgotten, removed)

    async def _selection(self, kind: Wanted, value: str) -> Selection | None:
        """None: there is no such entry."""
        try:
            value.encode()
        except UnicodeEncodeError:
            return None  # half a surrogate pair: no name holds one
        match kind:
            case "all":
                return EVERYTHING
            case "key":
                return Selection("key", (value,))
            case "model":
                return Selection("model", tuple({value, self._upstreams.get(value, value)}))
            case "request":
                entry = await self._entry_of(value)
                return None if entry is None else Selection("entry", (entry.hex(),))

    def _add(self, selection: Selection) -> PurgeLog:
        """In a thread."""
        try:
            log = self._file.add(selection, above=self._log.number if self._unwritten else 0)
        except OSError as error:
            logger.warning("data.directory: a purge is in force, but cannot be written down: %s", error)
            log = self._log.plus(selection)
            self._unwritten = True
        else:
            self._unwritten = False
        return log

    def _read(self) -> PurgeLog:
        """In a thread."""
        log = self._file.read()
        if not self._unwritten:
            return log
        return self._add(EVERYTHING) if log.number else self._log  # 0: nobody has written either

    def _adopt(self, log: PurgeLog) -> None:
        # All at once, unless only something was purged of what was there before.
        if log.floor != self._log.floor or log.number < self._log.number:
            self._store.forget()
        self._log, self.current = log, log.number

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(POLL)
            async with self._changing:
                # In a thread: a disk that hangs must not hold up those who need nothing of it.
                if await asyncio.to_thread(self._file.changed):
                    self._adopt(await asyncio.to_thread(self._read))

    async def _sweep_all(self) -> None:
        while True:
            log, failed = self._log, False
            if log.swept < log.number and not self._sweeping.locked():
                failed = (
                    await self._sweep(log) is not None and self._log.swept < log.number
                )  # not if there is a new one
            await asyncio.sleep(RETRY if failed else POLL)

    async def _sweep(self, log: PurgeLog) -> int | None:
        """Remove what this log purged; how many entries. None: not now, for another process is at it."""
        async with self._sweeping:
            with ExitStack() as stack:
                if not await asyncio.to_thread(self._take_turn, stack):
                    return None
                removed, succeeded = await self._remove(log)
            if succeeded:
                async with self._changing:
                    self._adopt(await asyncio.to_thread(self._clean, log.number))
        return removed

    def _take_turn(self, stack: ExitStack) -> bool:
        """In a thread."""
        try:
            return stack.enter_context(turn_if_free(self._cache))
        except OSError:
            return True  # without a disk there is nobody else either

    async def _remove(self, log: PurgeLog) -> tuple[int, bool]:
        keys = log.pending
        if keys is None:
            return await self._store.sweep(lambda entry: log.covers(entry.meta), log.covers_row)
        removed, succeeded = 0, True
        for key in keys:
            found = await self._store.get(key)
            if found is None or log.covers(found.meta):
                removed += found is not None
                succeeded &= await self._store.delete(key)
        return removed, succeeded

    def _clean(self, upto: int) -> PurgeLog:
        """In a thread."""
        if not self._unwritten:
            try:
                return self._file.clean(upto)
            except OSError as error:  # swept again after a restart
                logger.warning("data.directory: that a purge is over cannot be written down: %s", error)
        return self._log.cleaned(upto)
