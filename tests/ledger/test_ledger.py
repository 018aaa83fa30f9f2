"""The ledger as the proxy has it: what is promised is kept, under every fault of a disk."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from proxy.errors import LedgerUnavailable, StartupError
from proxy.ledger import Ledger, ledger, opening, retention
from proxy.ledger.opening import DATABASE, open_database
from tests.fakes import Clock
from tests.ledger.killing import kill, lost
from tests.ledger.test_writer import LONE, Statements
from tests.ledger.told import AT, DAY, answer, ask, column, end, hit, intent
from tests.support import eventually_async

ALL = "SELECT request, ended, usd FROM attempts ORDER BY request, number"
HALF, EIGHTH = 500_000_000_000, 125_000_000_000


class Book:
    """An open ledger, what it was told to count, and every statement of its own."""

    def __init__(self, directory: Path, *, retention: float | None = None) -> None:
        self.directory = directory
        self.clock = Clock()
        self.clock.now = AT + 10
        self.events: list[str] = []
        self.ledger = Ledger.open(directory, self.clock, retention=retention, on_event=self.events.append)
        self.database: Engine = self.ledger._database
        self.statements = Statements(self.database)


@pytest.fixture
async def book(tmp_path: Path) -> AsyncIterator[Book]:
    book = Book(tmp_path)
    yield book
    await book.ledger.close()


async def test_an_intent_is_committed_before_its_bytes_may_go(book: Book) -> None:
    await book.ledger.intend(intent("a"))
    assert ask(book.directory, ALL) == [("a", None, HALF)]


async def test_what_ended_is_written_a_moment_later(book: Book) -> None:
    await book.ledger.intend(intent("a"))
    book.ledger.attempted(end("a"))
    book.ledger.answered(answer("a"))
    assert (book.ledger.pending, ask(book.directory, ALL)) == (2, [("a", None, HALF)])
    await eventually_async(lambda: not book.ledger.pending)
    assert ask(book.directory, ALL) == [("a", "ok", EIGHTH)]
    assert column(book.directory, "SELECT id FROM requests") == ["a"]


async def test_what_waits_is_written_before_the_process_ends(tmp_path: Path) -> None:
    book = Book(tmp_path)
    await book.ledger.intend(intent("a"))
    book.ledger.attempted(end("a"))
    for number in range(1000):
        book.ledger.answered(hit(f"req_{number}"))
    await book.ledger.close()
    assert ask(tmp_path, ALL) == [("a", "ok", EIGHTH)]
    assert column(tmp_path, "SELECT count(*) FROM requests") == [1000]
    assert column(tmp_path, "SELECT name FROM marks") == []


async def test_how_long_rows_wait_is_told(book: Book) -> None:
    assert (book.ledger.pending, book.ledger.lag) == (0, 0.0)
    book.ledger.answered(answer())
    book.clock.now += 0.75
    assert (book.ledger.pending, book.ledger.lag) == (1, 0.75)
    await book.ledger.flush()
    assert (book.ledger.pending, book.ledger.lag, book.ledger.available) == (0, 0.0, True)


async def test_who_is_cancelled_before_anything_was_sent_is_not_charged(tmp_path: Path) -> None:
    book = Book(tmp_path)
    for let in range(4):
        task = asyncio.ensure_future(book.ledger.intend(intent(f"req_{let}")))
        for _ in range(let):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await book.ledger.close()
    rows = ask(tmp_path, ALL)
    assert [row for row in rows if row[1:] not in {("abandoned", 0), (None, HALF)}] == []
    assert all(ended == "abandoned" for _, ended, _ in rows)
    assert Book(tmp_path).ledger.spent("pk_1", 0.0) == 0


async def test_who_was_cancelled_may_say_so_too(book: Book) -> None:
    task = asyncio.ensure_future(book.ledger.intend(intent("a")))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    book.ledger.attempted(end("a", ended="left", usd=Decimal(0)))
    await book.ledger.flush()
    assert ask(book.directory, "SELECT request, key, ended, usd FROM attempts") == [("a", "pk_1", "left", 0)]


async def test_an_intent_that_cannot_be_written_is_refused_and_its_end_makes_the_row(book: Book) -> None:
    book.statements.fails = 1
    with pytest.raises(LedgerUnavailable) as caught:
        await book.ledger.intend(intent("a"))
    assert (caught.value.status, caught.value.code) == (503, "ledger_unavailable")
    assert (book.ledger.available, book.events) == (False, ["write_failed"])
    book.ledger.attempted(end("a"))
    await book.ledger.flush()
    assert (book.ledger.available, book.events) == (True, ["write_failed", "recovered"])
    assert ask(book.directory, "SELECT request, key, ended, usd, reserved FROM attempts") == [
        ("a", "pk_1", "ok", EIGHTH, HALF)
    ]


async def test_while_nothing_can_be_written_nobody_waits_for_it(book: Book) -> None:
    book.statements.fails = 1
    with pytest.raises(LedgerUnavailable):
        await book.ledger.intend(intent("a"))
    seen = len(book.statements.seen)
    with pytest.raises(LedgerUnavailable):
        await book.ledger.intend(intent("b"))
    assert len(book.statements.seen) == seen
    book.clock.now += 1.0
    await book.ledger.intend(intent("c"))
    assert book.ledger.available
    book.ledger.attempted(end("b"))
    await book.ledger.flush()
    assert ask(book.directory, ALL) == [("b", "ok", EIGHTH), ("c", None, HALF)]


async def test_intents_that_failed_are_not_remembered_without_bound(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "UNWRITTEN", 2)
    book.statements.fails = 1
    for name in "abc":
        with pytest.raises(LedgerUnavailable):
            await book.ledger.intend(intent(name))
    for name in "abc":
        book.ledger.attempted(end(name))
    await book.ledger.flush()
    assert ask(book.directory, "SELECT request, key, ended FROM attempts ORDER BY request") == [
        ("a", "", "ok"),
        ("b", "pk_1", "ok"),
        ("c", "pk_1", "ok"),
    ]


@pytest.mark.parametrize("fails", range(1, 9))
async def test_whichever_write_fails_every_call_has_its_row_in_the_end(book: Book, fails: int) -> None:
    book.statements.fails = fails
    refused = 0
    for name in "abc":
        try:
            await book.ledger.intend(intent(name))
        except LedgerUnavailable:
            refused += 1
        book.clock.now += 1.0
    for name in "abc":
        book.ledger.attempted(end(name))
        book.ledger.answered(answer(name))
        await book.ledger.flush()
        await book.ledger.flush()
    assert refused <= 1
    await book.ledger.flush()
    assert book.statements.fails <= 0, "there were too few writes to fail"
    assert ask(book.directory, ALL) == [(name, "ok", EIGHTH) for name in "abc"]
    assert column(book.directory, "SELECT id FROM requests ORDER BY id") == ["a", "b", "c"]
    assert book.ledger.available


async def test_a_full_disk_refuses_intents_and_keeps_rows_until_there_is_room(book: Book) -> None:
    await book.ledger.intend(intent("before"))

    def bounded(connection: sqlite3.Connection, _record: Any) -> None:
        if full:
            connection.execute("PRAGMA max_page_count = 1")  # which is as many as there are

    full = True
    event.listen(book.database, "connect", bounded)
    book.statements.fails = 1
    book.ledger.answered(answer("fails"))
    await book.ledger.flush()  # the next try has a connection of its own
    refused = 0
    for number in range(200):
        book.clock.now += 1.0
        try:
            await book.ledger.intend(intent(f"req_{number}", asked="m" * 1000))
        except LedgerUnavailable:
            refused += 1
        book.ledger.attempted(end(f"req_{number}"))
    assert refused
    assert not book.ledger.available
    await book.ledger.flush()
    assert book.ledger.pending
    full = False
    await book.ledger.flush()
    assert (book.ledger.pending, book.ledger.available) == (0, True)
    assert ask(book.directory, "SELECT count(*), sum(ended = 'ok') FROM attempts") == [(201, 200)]
    assert column(book.directory, "SELECT id FROM requests") == ["fails"]


async def test_what_cannot_be_written_at_the_end_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    book = Book(tmp_path)
    (tmp_path / DATABASE).rename(tmp_path / "taken")
    for number in range(3):
        book.ledger.answered(answer(f"req_{number}"))
    await book.ledger.close()
    assert "3 rows could not be written and are lost" in caplog.text


async def test_a_damaged_page_is_a_failure_that_is_said_and_no_crash(book: Book) -> None:
    ask(book.directory, "PRAGMA wal_checkpoint(TRUNCATE)")
    root = column(book.directory, "SELECT rootpage FROM sqlite_schema WHERE name = 'attempts'")[0]
    with (book.directory / DATABASE).open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xa5" * 4096)
    with pytest.raises(LedgerUnavailable):
        await book.ledger.intend(intent())
    assert not book.ledger.available


async def test_a_row_that_is_none_is_given_up_alone(book: Book) -> None:
    with pytest.raises(LedgerUnavailable):
        await book.ledger.intend(intent("a", model=LONE))
    assert book.ledger.available
    book.ledger.answered(answer("b", model=LONE))
    book.ledger.answered(answer("c"))
    await book.ledger.flush()
    assert (book.ledger.available, book.events) == (True, ["dropped"])
    assert column(book.directory, "SELECT id FROM requests") == ["c"]


async def test_the_next_process_settles_what_this_one_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    died = Book(tmp_path)
    await died.ledger.intend(intent("a"))
    with caplog.at_level(logging.WARNING, "penstock"):
        book = Book(tmp_path)
    assert "1 attempts were under way" in caplog.text
    assert ask(tmp_path, ALL) == [("a", "unknown", HALF)]
    assert ask(tmp_path, "SELECT id, outcome, status FROM requests") == [("a", "lost", 0)]
    assert book.ledger.spent("pk_1", 0.0) == Decimal("0.5")
    await book.ledger.close()
    await died.ledger.close()


async def test_what_was_spent_is_told_by_key(book: Book) -> None:
    for name, key in (("a", "pk_1"), ("b", "pk_2"), ("c", "pk_2")):
        await book.ledger.intend(intent(name, key=key))
    book.ledger.attempted(end("a"))
    await book.ledger.flush()
    assert [book.ledger.spent(key, 0.0) for key in ("pk_1", "pk_2")] == [Decimal("0.125"), 1]
    assert book.ledger.spent("pk_2", AT) == 1
    assert book.ledger.spent("pk_2", AT + DAY) == 0


async def test_an_answers_entry_is_found_by_the_request(book: Book) -> None:
    book.ledger.answered(answer("a", entry=b"one"))
    book.ledger.answered(hit("b", entry=b"two"))
    book.ledger.answered(answer("c", entry=None))
    found = [await book.ledger.find_entry(name) for name in "abcd"]
    assert found == [b"one", b"two", None, None]


async def test_a_damaged_ledger_is_refused(tmp_path: Path) -> None:
    open_database(tmp_path)
    (tmp_path / DATABASE).write_bytes(b"\x00" * 8192)
    with pytest.raises(StartupError, match=r"\.dump"):
        Book(tmp_path)


async def test_old_rows_go_by_themselves_and_the_sums_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "SOON", 0.0)
    monkeypatch.setattr(retention, "AT_ONCE", 10)
    book = Book(tmp_path, retention=100 * DAY)
    for number in range(35):
        await book.ledger.intend(intent(f"req_{number}", at=AT))
        book.ledger.attempted(end(f"req_{number}"))
        book.ledger.answered(answer(f"req_{number}", at=AT))
    await book.ledger.flush()
    assert column(tmp_path, "SELECT count(*) FROM attempts") == [35]
    book.clock.now = AT + 102 * DAY
    follower = asyncio.create_task(book.ledger.follow())
    await eventually_async(lambda: column(tmp_path, "SELECT count(*) FROM requests") == [0])
    follower.cancel()
    assert column(tmp_path, "SELECT count(*) FROM attempts") == [0]
    assert book.ledger.spent("pk_1", 0.0) == 35 * Decimal("0.125")
    await book.ledger.close()


async def test_old_rows_of_a_ledger_that_is_told_nothing_go_too(tmp_path: Path) -> None:
    before = Book(tmp_path)
    before.ledger.answered(answer("old", at=AT))
    await before.ledger.close()
    book = Book(tmp_path, retention=100 * DAY)
    book.clock.now = AT + 102 * DAY
    follower = asyncio.create_task(book.ledger.follow())
    await eventually_async(lambda: column(tmp_path, "SELECT count(*) FROM requests") == [0])
    follower.cancel()
    await book.ledger.close()


async def test_another_process_that_writes_for_long_is_waited_for(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "PATIENCE", 0.0)
    with opening.transaction(opening.engine(book.directory / DATABASE)), pytest.raises(LedgerUnavailable):
        await book.ledger.intend(intent("a"))
    book.clock.now += 1.0
    await book.ledger.intend(intent("b"))
    assert ask(book.directory, ALL) == [("b", None, HALF)]


def test_whatever_was_promised_outlives_a_kill(tmp_path: Path) -> None:
    told = [name for run in range(3) for name in kill(tmp_path, run, 10 + 50 * run)]
    assert len(told) >= 180
    missing = lost(tmp_path, told)
    assert missing == dict.fromkeys(missing, 0)
