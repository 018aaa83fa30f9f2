"""Keeps what was learned over a restart: read at the start, written now and then while it changes, and at the end."""

import asyncio
import logging
import time

from proxy.core.learned import Learned
from proxy.interfaces import Clock
from proxy.store.notebook import Notebook

EVERY = 1.0  # seconds between two looks whether something changed
SHARE = 100  # a snapshot is made on the loop: at most this part of the time

logger = logging.getLogger("penstock")


class Keeper:
    """`notebook`: None where nothing can be written."""

    def __init__(self, learned: Learned, notebook: Notebook | None, clock: Clock) -> None:
        self._learned = learned
        self._notebook = notebook
        self._clock = clock
        self._unwritten = False
        self._failed = False

    def recall(self) -> None:
        """Take over what an earlier process learned, if it can be read: it only makes guesses better."""
        kept = self._notebook.read() if self._notebook is not None else None
        if kept is None:
            return
        try:
            self._learned.restore(kept, self._clock.wall())
        except ValueError as error:
            logger.warning("data.directory: what was learned cannot be read, so it is learned anew: %s", error)

    async def follow(self) -> None:
        """Write what changed, for ever."""
        took = 0.0
        while True:
            await asyncio.sleep(max(EVERY, took * SHARE))
            took = await self.write()

    async def write(self) -> float:
        """Write if something is unwritten; how many seconds the loop was held up."""
        if self._notebook is None or not (self._unwritten or self._learned.changed):
            return 0.0
        self._unwritten = True  # until it is: whoever is cancelled or fails leaves it to the next
        began = time.perf_counter()
        kept = self._learned.snapshot(self._clock.wall())
        took = time.perf_counter() - began
        try:
            await asyncio.to_thread(self._notebook.write, kept)
            self._unwritten = self._failed = False
        except OSError as error:
            if not self._failed:
                logger.warning("data.directory: what was learned cannot be written: %s", error)
            self._failed = True
        return took
