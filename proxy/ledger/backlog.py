"""What waits to be written, and for how long it may.

Rule: a row is on its way after LATEST. What could not be written is tried again each AGAIN, in its order, and bounded:
attempts are never given up, of answers those of hits first. One line in the log at each change for the worse or better.
All of it on the event loop, which alone touches what waits.
"""

import asyncio
import logging
from collections.abc import Callable
from itertools import islice

from proxy.core.books import Answered
from proxy.interfaces import Clock
from proxy.ledger.opening import describe
from proxy.ledger.rows import Ending
from proxy.ledger.writer import Outcome, Rows

logger = logging.getLogger("penstock")

LATEST = 0.05  # seconds
AGAIN = 1.0  # seconds
MOST = 100_000  # rows
_HITS = ("hit", "stale")


class Backlog:
    """`write` takes rows, and whether to try even without any; it does one thing at a time.

    `on_event` is told `write_failed`, `recovered` and `dropped`, which is once for all rows that are given up together.
    """

    def __init__(
        self,
        write: Callable[[Rows, bool], "asyncio.Future[Outcome]"],
        clock: Clock,
        on_event: Callable[[str], None],
        most: int = MOST,
    ) -> None:
        self.available = True
        self.tried = float("-inf")  # when it last failed, by the monotonic clock
        self._write = write
        self._clock = clock
        self._on_event = on_event
        self._most = most
        self._rows = Rows()
        self._since = 0.0  # when the first of them came
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[Outcome] | None = None
        self._in_hands = 0  # rows that are being written
        self._in_hands_since = 0.0
        self._given_up = 0

    def __len__(self) -> int:
        """Rows that are not written yet."""
        return len(self._rows) + self._in_hands

    @property
    def lag(self) -> float:
        """Seconds that the oldest of them waits; 0 if there is none."""
        if not len(self):
            return 0.0
        return max(0.0, self._clock.monotonic() - (self._in_hands_since if self._in_hands else self._since))

    def end(self, ending: Ending) -> None:
        self._rows.endings.append(ending)
        if self._timer is None:
            self._arm()

    def answer(self, answer: Answered) -> None:
        self._rows.answers.append(answer)
        if self._timer is None:
            self._arm()

    async def flush(self) -> None:
        """Write what waits, at once; returns when it is written or could not be."""
        await self._settled()
        if len(self._rows):
            self._flush()
        await self._settled()

    def stop(self) -> None:
        """Nothing is tried again from now on."""
        if self._timer is not None:
            self._timer.cancel()

    def told(self, error: Exception | None) -> None:
        """Something was written, or could not be; intents tell it too."""
        if error is not None:
            self._failed(error)
        elif not self.available:
            self.available = True
            gone = f", {self._given_up} were given up" if self._given_up else ""
            self._given_up = 0
            self._on_event("recovered")
            logger.warning("ledger: it is written again; %d rows that waited follow%s", len(self), gone)

    def _arm(self) -> None:
        if len(self._rows) == 1:
            self._since = self._clock.monotonic()
        self._timer = asyncio.get_running_loop().call_later(LATEST, self._flush)

    async def _settled(self) -> None:
        while self._writing is not None:
            await asyncio.wait({self._writing})

    def _flush(self) -> None:
        self.stop()
        self._timer = None
        if self._writing is not None:
            self._bound()  # the thread hangs, or has much to do; `_wrote` goes on
            return
        rows, self._rows = self._rows, Rows()
        self._in_hands, self._in_hands_since = len(rows), self._since
        self._writing = self._write(rows, not self.available)
        self._writing.add_done_callback(self._wrote)

    def _wrote(self, done: "asyncio.Future[Outcome]") -> None:
        outcome = done.result()
        self._writing, self._in_hands = None, 0
        if len(outcome.rest):
            self._since = self._in_hands_since
        self._rows.endings[:0] = outcome.rest.endings
        self._rows.answers[:0] = outcome.rest.answers
        if outcome.refused:
            self._give_up(outcome.refused, "they hold what no row can")
        self.told(outcome.error)
        if self.available and len(self._rows) and self._timer is None:
            self._flush()

    def _failed(self, error: Exception) -> None:
        self.tried = self._clock.monotonic()
        if not len(self._rows):
            self._since = self.tried  # of those that come before the next try, more or less
        if self.available:
            self.available = False
            self._on_event("write_failed")
            logger.error("ledger: it cannot be written (%s); rows are kept and tried again", describe(error))
        self._bound()
        self.stop()
        self._timer = asyncio.get_running_loop().call_later(AGAIN, self._flush)

    def _bound(self) -> None:
        """Give rows up where too many wait: the oldest hits, then the oldest of other answers."""
        if len(self) <= self._most:
            return
        count = len(self) - self._most + self._most // 10  # some more, not to look through them at each new one
        answers = self._rows.answers
        hits = (number for number, answer in enumerate(answers) if answer.outcome in _HITS)
        gone = set(islice(hits, count))
        gone |= set(islice((number for number in range(len(answers)) if number not in gone), count - len(gone)))
        if gone:
            self._rows.answers = [answer for number, answer in enumerate(answers) if number not in gone]
            self._give_up(len(gone), "too many wait")

    def _give_up(self, count: int, why: str) -> None:
        self._on_event("dropped")
        if not self._given_up:
            logger.error("ledger: rows of answers are given up: %s", why)
        self._given_up += count
