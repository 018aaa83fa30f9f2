"""The log on stderr: a line for each request, and for whatever else the process has to say.

Rule: who reads the log never holds up who writes it. On the event loop a request costs an append; a thread of its own
makes the lines and writes them, whole and in their order. Of what nobody takes in time only so much is kept: the rest
is dropped, counted, and told of once the log flows again.

The loop waits while the thread holds the interpreter, so that makes a few lines at a time and lets go at each write. It
looks by the clock: to be woken for a request would cost more than the request's line does.
"""

import logging
import os
import select
import sys
import threading
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from time import time
from typing import Literal

from proxy.core.books import Answered
from proxy.core.lines import json_lines, json_note, level_of, text_lines, text_note
from proxy.settings import Log

EVERY = 0.1  # seconds between two looks at what waits
LEAST, MOST = 64, 256  # lines that are made in one go, a quarter of a millisecond or a whole: more, where more wait
BREATH = 0.001  # seconds in between
ROWS = 10_000  # requests that may wait
NOTES = 4 << 20  # bytes of other lines that may
LONGEST = 16 << 10  # characters of what one of those says, and of its exception
FLUSH = 1.0  # seconds at most, at the end

OURS = ("penstock", "proxy")  # loggers. Of libraries only warnings are heard: they would tell what passes through them
STDERR = 2


class RequestLog:
    """Lines to a file descriptor, which stays open. `answered` is for one thread, all else for any.

    `dropped`: how many lines were.
    """

    def __init__(
        self,
        fd: int,
        *,
        form: Literal["json", "text"] = "json",
        level: Literal["info", "warning", "error"] = "info",
        every: float = EVERY,
    ) -> None:
        """`level`: the least of the requests that are told, see lines.level_of. `every`: seconds between two looks."""
        self._fd = fd
        self._form = form
        self._level = level
        self._every = every
        self._waiting: deque[Answered | bytes] = deque()
        self._noting = threading.Lock()
        self._notes_in = self._notes_out = 0  # bytes: the one is the lock's, the other the thread's
        self._rows_dropped = self._notes_dropped = self._told = 0
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="penstock-log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        return self._rows_dropped + self._notes_dropped

    def answered(self, row: Answered) -> None:
        """A request is over."""
        if len(self._waiting) < ROWS:
            self._waiting.append(row)
        else:
            self._rows_dropped += 1

    def note(self, at: float, level: str, logger: str, message: str, exception: str | None = None) -> None:
        """Something else happened, at `at` seconds since the epoch."""
        made = self._noted(at, level, logger, message[:LONGEST], exception and exception[-LONGEST:])
        with self._noting:
            if self._notes_in - self._notes_out + len(made) > NOTES:
                self._notes_dropped += 1
                return
            self._notes_in += len(made)
            self._waiting.append(made)
        self._wake.set()

    def close(self, within: float = FLUSH) -> None:
        """Write what waits, but for no longer than so many seconds. What comes later is not written."""
        self._closing.set()
        self._wake.set()
        self._thread.join(within)

    def _noted(self, at: float, level: str, logger: str, message: str, exception: str | None = None) -> bytes:
        if self._form == "json":
            return json_note(at, level, logger, message, exception)
        return text_note(at, level, logger, message, exception, _zone())

    # In the thread.

    def _run(self) -> None:
        going = True
        while going:
            self._wake.wait(self._every)
            self._wake.clear()
            closing = self._closing.is_set()  # before we look for the last time
            going = self._drain() and not closing

    def _drain(self) -> bool:
        """Write what waits by now, then how much was dropped after it. False: nothing can be written, and we end."""
        dropped, left = self.dropped - self._told, len(self._waiting)
        while left > 0:
            count = min(left, MOST, max(LEAST, len(self._waiting) // 8))
            several = [self._waiting.popleft() for _ in range(count)]
            left -= count
            if not self._write(self._lines(several)):
                return False
            if left > 0:
                self._closing.wait(BREATH)
        self._told += dropped
        words = f"{dropped} lines of this log were dropped: nobody took them in time"
        return not dropped or self._write(self._noted(time(), "warning", "penstock", words))

    def _lines(self, several: list[Answered | bytes]) -> bytes:
        """In their order; requests that stand side by side are made into lines together."""
        parts: list[bytes] = []
        rows: list[Answered] = []
        for each in several:
            if not isinstance(each, bytes):
                rows.append(each)
                continue
            self._notes_out += len(each)
            parts += (self._requests(rows), each)
            rows = []
        return b"".join((*parts, self._requests(rows)))

    def _requests(self, rows: list[Answered]) -> bytes:
        told = rows if self._level == "info" else [row for row in rows if level_of(row) == self._level]
        try:
            return self._made(told)
        except Exception:  # noqa: BLE001 - whatever is wrong with one row, the log goes on without it
            if len(told) > 1:
                return b"".join(map(self._requests, ([each] for each in told)))
            self._rows_dropped += 1
            return b""

    def _made(self, rows: list[Answered]) -> bytes:
        return json_lines(rows) if self._form == "json" else text_lines(rows, _zone())

    def _write(self, data: bytes) -> bool:
        """All of it, however long that takes: a line that was begun is ended once there is room again."""
        left = memoryview(data)
        while left:
            try:
                left = left[os.write(self._fd, left) :]
            except BlockingIOError:  # whoever shares it with us does not want to wait there
                self._await_room()
            except OSError:  # a full disk may have room later; a reader that is gone never comes back, and costs little
                if self._closing.is_set():
                    return False
                self._closing.wait(self._every)
        return True

    def _await_room(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        poll.poll(self._every * 1000)


class _Handler(logging.Handler):
    """Python's logging into a RequestLog."""

    def __init__(self, log: RequestLog) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            told = record.levelname.lower(), record.name, record.getMessage(), _exception(record)
            self._log.note(record.created, *told)
        except Exception:  # noqa: BLE001 - as every handler of Python's own
            self.handleError(record)


def _exception(record: logging.LogRecord) -> str | None:
    told = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
    return told + (record.stack_info or "") or None


def _zone() -> tzinfo:
    """Where the people are who read this."""
    return datetime.now().astimezone().tzinfo or UTC


@contextmanager
def logged(settings: Log, fd: int | None = None) -> Iterator[RequestLog]:
    """All that Python's logging hears goes there, as long as the context lasts; and then a second at most, see close.

    `fd`: stderr, where there is one. Without, its number may since be that of a file, in which no line belongs.
    """
    if fd is None:
        fd = STDERR if sys.stderr is not None else os.open(os.devnull, os.O_WRONLY)
    form = ("text" if os.isatty(fd) else "json") if settings.format == "auto" else settings.format
    log = RequestLog(fd, form=form, level=settings.level)
    handler, level = _Handler(log), logging.getLevelNamesMapping()[settings.level.upper()]
    loggers = {"": max(level, logging.WARNING), **dict.fromkeys(OURS, level)}
    before = {name: logging.getLogger(name).level for name in loggers}
    for name, least in loggers.items():
        logging.getLogger(name).setLevel(least)
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(capture=True)
    try:
        yield log
    finally:
        logging.captureWarnings(capture=False)
        logging.getLogger().removeHandler(handler)
        for name, least in before.items():
            logging.getLogger(name).setLevel(least)
        log.close()
