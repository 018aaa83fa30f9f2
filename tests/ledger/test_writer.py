"""The thread that writes: what it was told to, intents first, and it hands back what it could not."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from proxy.ledger.opening import DATABASE, open_database
from proxy.ledger.rows import SIZES, Ending
from proxy.ledger.writer import LENT_FOR, Rows, Writer
from tests.ledger.told import answer, column, end, intent
from tests.support import eventually_async

LONE = "\ud800"  # no text that a database takes


class Statements:
    """Every statement on its way to the database; the `fails`-th from now on gets no further."""

    def __init__(self, database: Engine) -> None:
        self.seen: list[str] = []
        self.fails = 0
        event.listen(database, "before_cursor_execute", self._before)

    def _before(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self.seen.append(statement)
        self.fails -= 1
        if self.fails == 0:
            raise sqlite3.OperationalError("disk I/O error")

    def of(self, word: str) -> int:
        return sum(word in each for each in self.seen)


class Bench:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = open_database(directory)
        self.statements = Statements(self.database)
        self.told: list[Exception | None] = []
        self.writer = Writer(self.database, directory / DATABASE, asyncio.get_running_loop(), self.told.append)

    @contextmanager
    def held(self) -> Iterator[None]:
        """The thread does nothing meanwhile."""
        let_go, holds = threading.Event(), threading.Event()

        def hold() -> None:
            holds.set()
            let_go.wait(20)

        self.writer.do(hold)
        assert holds.wait(20)
        try:
            yield
        finally:
            let_go.set()

    def requests(self) -> list[str]:
        return column(self.directory, "SELECT id FROM requests ORDER BY id")

    def attempts(self) -> list[str]:
        return column(self.directory, "SELECT request FROM attempts ORDER BY request")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.writer.close()
    bench.database.dispose()


def rows(*names: str) -> Rows:
    return Rows([], [answer(name) for name in names])


async def test_an_intent_that_was_written_is_seen_by_everyone(bench: Bench) -> None:
    await bench.writer.intend(intent("a"))
    assert bench.attempts() == ["a"]
    assert bench.told == [None]


async def test_intents_that_wait_together_go_in_one_statement(bench: Bench) -> None:
    with bench.held():
        futures = [bench.writer.intend(intent(f"r{number:03}")) for number in range(100)]
    await asyncio.gather(*futures)
    assert bench.attempts() == [f"r{number:03}" for number in range(100)]
    assert bench.statements.of("INSERT INTO attempts") == 1
    assert bench.told == [None]


async def test_intents_go_before_rows_that_waited_longer(bench: Bench) -> None:
    many = [f"r{number:04}" for number in range(3 * SIZES[0])]
    with bench.held():
        writing = bench.writer.write(rows(*many), probe=False)
        intended = bench.writer.intend(intent("a"))
    await asyncio.gather(writing, intended)
    tables = [statement.split()[2] for statement in bench.statements.seen if statement.startswith("INSERT")]
    assert tables[0] == "attempts"
    assert bench.requests() == many


async def test_rows_go_by_the_hundred(bench: Bench) -> None:
    names = [f"r{number:04}" for number in range(SIZES[0] + 1)]
    outcome = await bench.writer.write(rows(*names), probe=False)
    assert (outcome.error, len(outcome.rest), outcome.refused) == (None, 0, 0)
    assert bench.statements.of("INSERT INTO requests") == 2


async def test_a_probe_writes_where_there_is_nothing_to_write(bench: Bench) -> None:
    assert (await bench.writer.write(Rows(), probe=True)).error is None
    assert bench.statements.of("marks") == 1
    bench.statements.fails = 1
    assert (await bench.writer.write(rows("a"), probe=True)).error is not None
    assert bench.requests() == []


@pytest.mark.parametrize("fails", range(1, 6))
async def test_what_the_nth_write_left_undone_is_handed_back_and_written_later(bench: Bench, fails: int) -> None:
    """Two statements of endings, then three of answers, each of which may be the one that fails."""
    expected = [f"e{number}" for number in range(9)], [f"a{number:03}" for number in range(600)]
    told = Rows([Ending(intent(name), end(name)) for name in expected[0]], [answer(name) for name in expected[1]])
    bench.statements.fails = fails
    outcome = await bench.writer.write(told, probe=False)
    assert outcome.error is not None
    assert bench.statements.of("INSERT") == fails
    done = bench.attempts(), bench.requests()
    left = [each.attempt.request for each in outcome.rest.endings], [each.request for each in outcome.rest.answers]
    assert (done[0] + left[0], done[1] + left[1]) == expected
    assert (await bench.writer.write(outcome.rest, probe=True)).error is None
    assert (bench.attempts(), bench.requests()) == expected


async def test_a_group_of_intents_that_fails_fails_for_all_of_them(bench: Bench) -> None:
    bench.statements.fails = 1
    with bench.held():
        futures = [bench.writer.intend(intent(name)) for name in "abc"]
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert all(isinstance(result, OperationalError) for result in results)
    assert [type(each) for each in bench.told] == [OperationalError]
    assert bench.attempts() == []
    await bench.writer.intend(intent("d"))
    assert bench.attempts() == ["d"]


async def test_one_row_that_is_none_does_not_keep_others_from_being_written(bench: Bench) -> None:
    told = rows("a", "b", "c", "d", "e")
    told.answers[2] = answer("c", model=LONE)
    told.endings = [Ending(intent(name, asked=asked), end(name)) for name, asked in (("x", LONE), ("y", "m"))]
    outcome = await bench.writer.write(told, probe=False)
    assert (outcome.error, len(outcome.rest), outcome.refused) == (None, 0, 2)
    assert (bench.requests(), bench.attempts()) == (["a", "b", "d", "e"], ["y"])


async def test_one_intent_that_is_no_row_fails_alone(bench: Bench) -> None:
    with bench.held():
        futures = [bench.writer.intend(intent(name, model=model)) for name, model in (("a", "m"), ("b", LONE))]
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert results[0] is None
    assert isinstance(results[1], UnicodeEncodeError)
    assert bench.attempts() == ["a"]
    assert bench.told == [None]
    with pytest.raises(UnicodeEncodeError):
        await bench.writer.intend(intent("c", model=LONE))
    assert bench.told == [None]


def remove(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    path.rename(path.with_name("taken"))
    path.touch()


@pytest.mark.parametrize("gone", [remove, replace])
async def test_a_file_that_is_gone_keeps_no_promise(bench: Bench, gone: Callable[[Path], None]) -> None:
    """SQLite itself would go on writing to what nobody will ever read."""
    await bench.writer.intend(intent("a"))
    path = bench.directory / DATABASE
    kept = path.with_name("copy")
    kept.hardlink_to(path)
    gone(path)
    with pytest.raises(FileNotFoundError):
        await bench.writer.intend(intent("b"))
    kept.replace(path)
    await bench.writer.intend(intent("c"))
    assert bench.attempts() == ["a", "c"]


async def test_work_that_fails_is_told_to_whoever_waits_for_it(bench: Bench) -> None:
    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await bench.writer.do(fail)
    assert await bench.writer.do(lambda: 3) == 3


async def test_the_thread_ends_once_it_has_done_what_it_was_given(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with bench.held():
        intended = bench.writer.intend(intent("a"))
        closing = asyncio.ensure_future(bench.writer.close())
        await asyncio.sleep(0)
    await closing
    assert intended.done()
    assert bench.attempts() == ["a"]
    bench.writer._thread.join(20)
    assert not bench.writer._thread.is_alive()


async def test_the_loop_stands_still_for_a_thread_that_does_not_get_on(bench: Bench) -> None:
    stood: list[float | None] = []
    wait = bench.writer._got_on.wait

    def watched(timeout: float | None = None) -> bool:
        stood.append(timeout)
        return wait(timeout)

    bench.writer._got_on.wait = watched  # type: ignore[method-assign]
    with bench.held():
        futures = [bench.writer.intend(intent(str(number))) for number in range(3)]
        await eventually_async(lambda: stood)
    await asyncio.gather(*futures)
    assert set(stood) == {LENT_FOR}
    assert len(bench.attempts()) == 3
    stood.clear()
    await bench.writer.do(lambda: None)
    assert bench.writer._lender is None  # it stands still for nothing else
