"""The ledger as the proxy has it: told on the event loop, written by a thread.

Rule: a row of intent is committed before `intend` returns, and a client waits for nothing else.
"""

import asyncio
import logging
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from sqlalchemy import Engine

from proxy.core.books import Answered, Attempted, Intent
from proxy.errors import LedgerUnavailable
from proxy.interfaces import Clock
from proxy.ledger import marks, spending
from proxy.ledger.backlog import AGAIN, Backlog
from proxy.ledger.entries import find
from proxy.ledger.opening import database, explained, open_database, transaction
from proxy.ledger.retention import Cleaner
from proxy.ledger.rows import Ending, unknown_intent
from proxy.ledger.settling import settle
from proxy.ledger.writer import Outcome, Rows, Writer

logger = logging.getLogger("penstock")

UNWRITTEN = 10_000  # intents that could not be written, and whose end may come all the same

_REFUSED = "The ledger cannot be written, so nobody could say afterwards what this call cost."


class Ledger:
    """Made with `open`. Used on one event loop: the first that it is used on."""

    def __init__(
        self, made: Engine, path: Path, clock: Clock, retention: float | None, on_event: Callable[[str], None]
    ) -> None:
        self._database = made
        self._path = path
        self._clock = clock
        self._retention = retention
        self._backlog = Backlog(self._write, clock, on_event)
        self._started: Writer | None = None
        self._intents: dict[tuple[str, int], Intent] = {}  # whose end was not told yet
        self._unwritten: dict[tuple[str, int], Intent] = {}

    @classmethod
    def open(
        cls,
        directory: Path,
        clock: Clock,
        *,
        retention: float | None = None,
        on_event: Callable[[str], None] = lambda _event: None,
    ) -> "Ledger":
        """The ledger of a data directory that this process owns; what a process that died left open is settled.

        `retention`: seconds after which `follow` deletes rows; None: never. `on_event`: see Backlog. Raises
        StartupError where it is damaged or of a newer version, OSError where it cannot be written.
        """
        made = open_database(directory)
        path = database(directory)
        with explained(path), transaction(made) as connection:
            left = settle(connection)
        if left:
            logger.warning("ledger: %d attempts were under way when the last process died; charged as reserved", left)
        return cls(made, path, clock, retention, on_event)

    async def intend(self, intent: Intent) -> None:
        """Once this returns the row outlives the process. Raises LedgerUnavailable.

        Who is cancelled here has sent nothing: the attempt is settled as abandoned, at no cost. After
        LedgerUnavailable the call may be made all the same, and its end told as always.
        """
        backlog, this = self._backlog, (intent.request, intent.number)
        if not backlog.available and self._clock.monotonic() - backlog.tried < AGAIN:
            self._remember(intent)
            raise LedgerUnavailable(_REFUSED)
        self._intents[this] = intent
        try:
            await self._writer.intend(intent)
        except asyncio.CancelledError:
            self.attempted(Attempted(*this, "abandoned", None, None, Decimal(0), False, None, 0.0))
            raise
        except Exception as error:
            self._remember(self._intents.pop(this))
            raise LedgerUnavailable(_REFUSED) from error

    def attempted(self, attempt: Attempted) -> None:
        """The end of what was intended. Returns at once; it is written a moment later, and before `close` returns."""
        this = attempt.request, attempt.number
        intent = self._intents.pop(this, None) or self._unwritten.pop(this, None)
        self._backlog.end(Ending(intent or unknown_intent(attempt, self._clock.wall()), attempt))

    def answered(self, answer: Answered) -> None:
        """As `attempted`."""
        self._backlog.answer(answer)

    @property
    def available(self) -> bool:
        """Could it be written when it was last tried?"""
        return self._backlog.available

    @property
    def pending(self) -> int:
        """Rows that are not written yet, intents apart."""
        return len(self._backlog)

    @property
    def lag(self) -> float:
        """Seconds that the oldest of them waits; 0 if there is none."""
        return self._backlog.lag

    def spent(self, key: str, since: float) -> Decimal:
        """USD that a key (Grant.id) was charged since a moment that begins a UTC day, or since 0. Reads the file.

        Raises OSError.
        """
        with explained(self._path), self._database.connect() as connection:
            return spending.spent(connection, key, since)

    async def find_entry(self, request: str) -> bytes | None:
        """The cache's key of this request's answer; None: it has none, or is not known. Raises OSError."""
        await self.flush()
        return await asyncio.to_thread(self._find_entry, request)

    async def follow(self) -> None:
        """Delete what is too old, for ever."""
        if self._retention is not None:
            await Cleaner(self._database, self._clock, self._retention, self._writer.do).follow()

    async def flush(self) -> None:
        """Write what waits, at once; returns when it is written or could not be."""
        await self._backlog.flush()

    async def close(self) -> None:
        """Write what waits, and end. What cannot be written now is lost, and said."""
        await self.flush()
        self._backlog.stop()
        if self.pending:
            logger.error("ledger: %d rows could not be written and are lost", self.pending)
        if self._started is not None:
            await self._started.close()
        if not self.pending:
            self._end_well()
        self._database.dispose()

    @property
    def _writer(self) -> Writer:
        if self._started is None:
            self._started = Writer(self._database, self._path, asyncio.get_running_loop(), self._backlog.told)
        return self._started

    def _write(self, rows: Rows, probe: bool) -> "asyncio.Future[Outcome]":
        return self._writer.write(rows, probe=probe)

    def _remember(self, intent: Intent) -> None:
        if len(self._unwritten) >= UNWRITTEN:
            del self._unwritten[next(iter(self._unwritten))]
        self._unwritten[intent.request, intent.number] = intent

    def _find_entry(self, request: str) -> bytes | None:
        with explained(self._path), self._database.connect() as connection:
            return find(connection, request)

    def _end_well(self) -> None:
        try:
            with explained(self._path), transaction(self._database) as connection:
                marks.remove(connection, marks.RUNNING)
        except Exception as error:  # noqa: BLE001 - the next start looks more closely, that is all
            logger.warning("ledger: %s", error)
