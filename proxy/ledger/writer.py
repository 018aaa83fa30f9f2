"""The one thread that writes, and the one connection it has.

Rule: it decides nothing. It writes what it is given, intents before all else, and hands back what could not be written;
ledger.py, on the event loop, keeps that and tries again. Intents are taken straight from where they wait, all that are
there in one transaction, since whole requests wait for them.

A loop that is busy lets go of the interpreter for microseconds at a time, and a thread that waits for it wakes too late
each time, for seconds on end. So where work is not done after LENT_AFTER, the loop stands still for a moment, until the
thread has got on.
"""

import asyncio
import contextlib
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, InterfaceError, NotSupportedError, ProgrammingError

from proxy.core.books import Answered, Intent
from proxy.ledger.rows import SIZES, Ending, Row, Statement, answers, endings, intents

# The database can't be written now; every other error is of the row itself, which no second try would mend.
_UNWRITABLE = (DatabaseError, OSError, MemoryError, sqlite3.Error)
_OF_THE_ROW = (IntegrityError, DataError, InterfaceError, NotSupportedError, ProgrammingError)
_PROBE = "INSERT INTO marks (name, value) VALUES ('tried', 1) ON CONFLICT (name) DO UPDATE SET value = marks.value + 1"

LENT_AFTER = 0.005  # seconds
LENT_FOR_ROWS = 0.04  # while no intent waits: rows have time
LENT_AT_LAST = 0.1  # where the thread does not get on: a disk that hangs is not helped by it
LENT_FOR = 0.002

R = TypeVar("R")
Waiting = tuple[Intent, "asyncio.Future[None]"]


@dataclass(slots=True)
class Rows:
    """What waits to be written; after `write`, what still does."""

    endings: list[Ending] = field(default_factory=list)
    answers: list[Answered] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.endings) + len(self.answers)


@dataclass(slots=True)
class Outcome:
    """`error`: why `rest` could not be written. `refused`: rows that never can be, and were given up."""

    rest: Rows = field(default_factory=Rows)
    error: Exception | None = None
    refused: int = 0


class Writer:
    """`told` is called on the loop after each group of intents, with the error that they failed with or None."""

    def __init__(
        self, database: Engine, path: Path, loop: asyncio.AbstractEventLoop, told: Callable[[Exception | None], None]
    ) -> None:
        self._database = database
        self._path = path
        self._loop = loop
        self._told = told
        self._connection: Connection | None = None
        self._file: tuple[int, int] | None = None
        self._intents, self._endings, self._answers = intents(), endings(), answers()
        self._waiting: deque[Waiting] = deque()
        self._jobs: SimpleQueue[Callable[[], bool]] = SimpleQueue()
        self._undone = 0  # futures that were given out,
        self._urgent = 0  # those of intents among them
        self._lender: asyncio.TimerHandle | None = None
        self._got_on = threading.Event()
        self._thread = threading.Thread(target=self._run, name="penstock-ledger", daemon=True)
        self._thread.start()

    # On the loop.

    def intend(self, intent: Intent) -> "asyncio.Future[None]":
        """Done once the row is committed; what it fails with may be any error."""
        future: asyncio.Future[None] = self._future()
        self._waiting.append((intent, future))
        self._urgent += 1
        self._jobs.put(_only_intents)
        return future

    def write(self, rows: Rows, *, probe: bool) -> "asyncio.Future[Outcome]":
        """Write the rows. `probe`: write something even if there are none, to see whether it can be done."""
        return self.do(lambda: self._write_all(rows, probe=probe))

    def do(self, work: Callable[[], R]) -> "asyncio.Future[R]":
        """Have something done by the thread, in its turn."""
        future: asyncio.Future[R] = self._future()

        def job() -> bool:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - told to who waits for it
                self._tell(self._end, future, None, error)
            else:
                self._tell(self._end, future, result, None)
            return True

        self._jobs.put(job)
        return future

    async def close(self) -> None:
        """End the thread once it has done what it was given."""
        done = self.do(self._disconnect)
        self._jobs.put(lambda: False)
        await done

    def _future(self) -> "asyncio.Future[Any]":
        self._undone += 1
        if self._lender is None:
            self._lender = self._loop.call_later(LENT_AFTER, self._lend, LENT_AFTER)
        return self._loop.create_future()

    def _done(self, count: int) -> None:
        self._undone -= count
        if not self._undone and self._lender is not None:
            self._lender.cancel()
            self._lender = None

    def _lend(self, waited: float) -> None:
        """Stand still for a moment, but the less often, the less it helps."""
        if not self._urgent and waited < LENT_FOR_ROWS:
            self._lender = self._loop.call_later(waited, self._lend, 2 * waited)
            return
        self._got_on.clear()
        again = LENT_AFTER if self._got_on.wait(LENT_FOR) else min(2 * waited, LENT_AT_LAST)
        self._lender = self._loop.call_later(again, self._lend, again)

    # In the thread.

    def _run(self) -> None:
        going = True
        while going:
            job = self._jobs.get()
            self._write_intents()
            going = job()

    def _write_intents(self) -> None:
        while self._waiting:
            group: list[Waiting] = []
            with contextlib.suppress(IndexError):
                while len(group) < SIZES[0]:
                    group.append(self._waiting.popleft())
            self._tell(self._settle, group, self._intend([intent for intent, _ in group]))

    def _intend(self, rows: list[Intent]) -> "list[Exception | None]":
        """The error of each."""
        try:
            self._execute(*self._intents.whole(rows))
        except Exception as error:  # noqa: BLE001 - told to each who waits
            if len(rows) == 1 or _is_of_the_world(error):
                return [error] * len(rows)
            return [self._intend([row])[0] for row in rows]
        return [None] * len(rows)

    def _write_all(self, rows: Rows, *, probe: bool) -> Outcome:
        outcome = Outcome()
        try:
            if probe:
                self._execute(_PROBE, ())
        except Exception as error:  # noqa: BLE001 - told to who waits
            return Outcome(rows, error)
        outcome.rest.endings = self._write(self._endings, rows.endings, outcome)
        outcome.rest.answers = self._write(self._answers, rows.answers, outcome)
        return outcome

    def _write(self, statement: Statement[R], rows: Sequence[R], outcome: Outcome) -> list[R]:
        """What is left of the rows."""
        done = 0
        if outcome.error is None:
            for part in statement.parts(rows):
                self._write_intents()
                outcome.error = self._write_part(statement, part, outcome)
                if outcome.error is not None:
                    break
                done += len(part)
        return list(rows[done:])

    def _write_part(self, statement: Statement[R], part: Sequence[R], outcome: Outcome) -> Exception | None:
        try:
            self._execute(*statement.whole(part))
        except Exception as error:  # noqa: BLE001 - told to who waits
            if _is_of_the_world(error):
                return error
            if len(part) > 1:
                return self._write_singly(statement, part, outcome)
            outcome.refused += 1
        return None

    def _write_singly(self, statement: Statement[R], part: Sequence[R], outcome: Outcome) -> Exception | None:
        """One of them can't be written: without it, the others can. What is done twice is done once."""
        for row in part:
            error = self._write_part(statement, [row], outcome)
            if error is not None:
                return error
        return None

    def _execute(self, text: str, values: Row) -> None:
        """One statement, one transaction."""
        try:
            self._connected().exec_driver_sql(text, values)
        except BaseException:
            self._disconnect()  # another file may be there at the next try, or a full disk have room again
            raise

    def _connected(self) -> Connection:
        # SQLite goes on writing to a file that was removed or replaced: it would keep nothing of what it promised.
        found = self._path.stat()
        file = (found.st_dev, found.st_ino)
        if self._connection is None:
            self._connection, self._file = self._database.connect(), file
        elif file != self._file:
            raise FileNotFoundError(f"{self._path} was replaced")
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(DatabaseError, sqlite3.Error):
                connection.close()

    def _tell(self, whom: Callable[..., None], *what: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(whom, *what)
        self._got_on.set()

    # On the loop again, where a future may have been cancelled meanwhile.

    def _settle(self, group: list[Waiting], errors: "list[Exception | None]") -> None:
        self._urgent -= len(group)
        self._done(len(group))
        for (_, future), error in zip(group, errors, strict=True):
            _end(future, None, error)
        of_the_world = [error for error in errors if error is None or _is_of_the_world(error)]
        if of_the_world:  # else nothing is known but that these rows were no rows
            self._told(next(filter(None, of_the_world), None))

    def _end(self, future: "asyncio.Future[Any]", result: object, error: Exception | None) -> None:
        self._done(1)
        _end(future, result, error)


def _only_intents() -> bool:
    return True


def _is_of_the_world(error: Exception) -> bool:
    return isinstance(error, _UNWRITABLE) and not isinstance(error, _OF_THE_ROW)


def _end(future: "asyncio.Future[Any]", result: object, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
