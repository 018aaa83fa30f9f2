"""What waits to be written: in its order, tried again, bounded, and said once."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from proxy.ledger.backlog import AGAIN, LATEST, Backlog
from proxy.ledger.rows import Ending
from proxy.ledger.writer import Outcome, Rows
from tests.fakes import LoopClock, in_virtual_time
from tests.ledger.told import answer, end, hit, intent

Play = Callable[["Disk", Backlog], Any]
FULL = OSError("disk full")


class Disk:
    """Writes in no time, fails with `error`, or hangs until it is told to go on."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.hangs = False
        self.takes = 1 << 30  # rows in one go, before it fails
        self.written: list[str] = []
        self.tries: list[tuple[float, int, bool]] = []
        self.refuses = 0
        self.events: list[str] = []
        self._hanging: list[tuple[Rows, asyncio.Future[Outcome]]] = []

    def write(self, rows: Rows, probe: bool) -> "asyncio.Future[Outcome]":
        loop = asyncio.get_running_loop()
        self.tries.append((round(loop.time(), 3), len(rows), probe))
        future: asyncio.Future[Outcome] = loop.create_future()
        if self.hangs:
            self._hanging.append((rows, future))
        else:
            self._write(rows, future)
        return future

    def go_on(self) -> None:
        self.hangs = False
        hanging, self._hanging = self._hanging, []
        for rows, future in hanging:
            self._write(rows, future)

    def _write(self, rows: Rows, future: "asyncio.Future[Outcome]") -> None:
        outcome = Outcome(error=self.error, refused=self.refuses)
        if self.error is not None:
            outcome.rest = rows
        else:
            self.written += [ending.attempt.request for ending in rows.endings]
            self.written += [each.request for each in rows.answers]
        future.set_result(outcome)


def play(steps: Play, most: int = 100_000) -> Disk:
    disk = Disk()

    async def run() -> None:
        backlog = Backlog(disk.write, LoopClock(), disk.events.append, most)
        await steps(disk, backlog)
        backlog.stop()

    in_virtual_time(run())
    return disk


def ending(request: str) -> Ending:
    return Ending(intent(request), end(request))


def test_rows_are_on_their_way_in_a_moment_and_together() -> None:
    async def steps(_: Disk, backlog: Backlog) -> None:
        backlog.answer(answer("a"))
        await asyncio.sleep(LATEST / 2)
        backlog.end(ending("b"))
        assert len(backlog) == 2
        assert backlog.lag == pytest.approx(LATEST / 2)
        await asyncio.sleep(LATEST)
        assert (len(backlog), backlog.lag) == (0, 0.0)

    disk = play(steps)
    assert disk.tries == [(LATEST, 2, False)]
    assert disk.written == ["b", "a"]
    assert disk.events == []


def test_a_flush_waits_for_no_timer_and_for_what_is_under_way() -> None:
    async def steps(disk: Disk, backlog: Backlog) -> None:
        disk.hangs = True
        backlog.answer(answer("a"))
        first = asyncio.ensure_future(backlog.flush())
        await asyncio.sleep(0)
        backlog.answer(answer("b"))
        second = asyncio.ensure_future(backlog.flush())
        await asyncio.sleep(0)
        assert not first.done()
        disk.go_on()
        await asyncio.gather(first, second)
        assert disk.written == ["a", "b"]
        await backlog.flush()

    assert [rows for _, rows, _ in play(steps).tries] == [1, 1]


def test_what_could_not_be_written_is_tried_again_each_second_in_its_order(caplog: pytest.LogCaptureFixture) -> None:
    async def steps(disk: Disk, backlog: Backlog) -> None:
        disk.error = FULL
        backlog.answer(answer("a"))
        backlog.end(ending("x"))
        await asyncio.sleep(LATEST + AGAIN / 2)
        backlog.answer(answer("b"))
        assert (backlog.available, len(backlog)) == (False, 3)
        await asyncio.sleep(2 * AGAIN)
        assert backlog.lag == pytest.approx(LATEST + 2.5 * AGAIN)
        disk.error = None
        await asyncio.sleep(AGAIN)
        assert (backlog.available, len(backlog), backlog.lag) == (True, 0, 0.0)

    disk = play(steps)
    assert disk.tries == [(LATEST, 2, False), *((LATEST + n * AGAIN, 3, True) for n in (1, 2, 3))]
    assert disk.written == ["x", "a", "b"]
    assert disk.events == ["write_failed", "recovered"]
    assert [(each.levelno, each.name) for each in caplog.records] == [
        (logging.ERROR, "penstock"),
        (logging.WARNING, "penstock"),
    ]
    assert "disk full" in caplog.text


def test_without_a_row_it_is_tried_whether_it_can_be_written_again() -> None:
    async def steps(disk: Disk, backlog: Backlog) -> None:
        disk.error = FULL
        backlog.told(FULL)  # an intent failed
        await asyncio.sleep(1.5 * AGAIN)
        disk.error = None
        await asyncio.sleep(AGAIN)
        assert backlog.available

    assert play(steps).tries == [(AGAIN, 0, True), (2 * AGAIN, 0, True)]


def test_a_row_that_comes_while_nothing_can_be_written_did_not_wait_before_it_came() -> None:
    async def steps(disk: Disk, backlog: Backlog) -> None:
        disk.error = FULL
        backlog.told(FULL)
        await asyncio.sleep(100 * AGAIN)
        backlog.answer(answer("a"))
        assert backlog.lag <= AGAIN
        await asyncio.sleep(10 * AGAIN)
        assert 10 * AGAIN <= backlog.lag <= 11 * AGAIN

    play(steps)


def test_an_intent_that_is_written_says_that_all_is_well() -> None:
    async def steps(disk: Disk, backlog: Backlog) -> None:
        backlog.told(FULL)
        backlog.told(FULL)
        backlog.told(None)
        backlog.told(None)
        assert backlog.available

    assert play(steps).events == ["write_failed", "recovered"]


def failing(*rows: Any) -> Play:
    async def steps(disk: Disk, backlog: Backlog) -> None:
        disk.error = FULL
        for row in rows:
            if isinstance(row, Ending):
                backlog.end(row)
            else:
                backlog.answer(row)
        await asyncio.sleep(LATEST)
        await asyncio.sleep(0)
        disk.error = None
        await backlog.flush()

    return steps


def test_hits_are_given_up_first_the_oldest_before_the_newer(caplog: pytest.LogCaptureFixture) -> None:
    rows = [hit("h1"), answer("a"), hit("h2"), ending("e"), hit("h3"), hit("h4")]
    disk = play(failing(*rows), most=4)
    assert disk.written == ["e", "a", "h3", "h4"]
    assert disk.events == ["write_failed", "dropped", "recovered"]
    assert "2 were given up" in caplog.text


def test_then_other_answers_and_never_an_attempt() -> None:
    rows = [*(ending(f"e{n}") for n in range(5)), answer("a1"), hit("h"), answer("a2"), answer("a3")]
    disk = play(failing(*rows), most=7)
    assert disk.written == ["e0", "e1", "e2", "e3", "e4", "a2", "a3"]
    disk = play(failing(*rows), most=3)
    assert disk.written == ["e0", "e1", "e2", "e3", "e4"]


def test_a_disk_that_hangs_is_bounded_too() -> None:
    async def steps(disk: Disk, backlog: Backlog) -> None:
        disk.hangs = True
        backlog.answer(answer("first"))
        await asyncio.sleep(LATEST)
        for number in range(30):
            backlog.answer(hit(f"h{number}"))
            await asyncio.sleep(LATEST)
        assert len(backlog) <= 10 + 1
        disk.go_on()
        await backlog.flush()
        assert disk.written[0] == "first"
        assert disk.written[-1] == "h29"

    disk = play(steps, most=10)
    assert "dropped" in disk.events
    assert len(disk.tries) == 2


def test_rows_that_are_no_rows_are_told_and_change_nothing_else() -> None:
    async def steps(disk: Disk, backlog: Backlog) -> None:
        disk.refuses = 1
        backlog.answer(answer("a"))
        await backlog.flush()
        assert backlog.available

    assert play(steps).events == ["dropped"]
