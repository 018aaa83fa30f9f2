"""Requests at once: asked again where they may be, and stopped."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.batch.requests import Requests, open_requests
from proxy.batch.results import open_results
from proxy.batch.workers import Asks, Workers
from proxy.core.batch import Answer, Failure, Request
from proxy.core.batch_figures import Figures
from proxy.errors import StartupError
from tests.batch.making import Server, line, results, written
from tests.support import Json, eventually_async

LATER = Answer(429, {"retry-after": "0"}, b'{"error": {}}')
NEVER = Answer(429, {"x-should-retry": "false"}, b'{"error": {}}')
UNSENT = Failure("connection_failed", "Nobody is there.", sent=False)
LOST = Failure("connection_lost", "It broke.")


class Batch:
    """A batch of a few lines, whose chance lets nobody wait longer than he is told."""

    def __init__(self, requests: Requests, workers: Workers, figures: Figures, partial: Path) -> None:
        self.items, self.workers, self.figures, self._partial = requests.items, workers, figures, partial

    async def run(self, server: Asks, concurrency: int = 2) -> None:
        await self.workers.run(server, self.items, concurrency)

    def came(self) -> list[Json]:
        return results(self._partial)


@contextmanager
def batch(folder: Path, lines: int = 5) -> Iterator[Batch]:
    path = written(folder / "in.jsonl", [line(number) for number in range(lines)])
    with open_requests(path) as requests:
        figures = Figures(lines)
        with open_results(folder / "out.jsonl", requests) as found:
            workers = Workers(requests, found, figures, lambda: 0.0, luck=lambda: 0.0)
            yield Batch(requests, workers, figures, folder / "out.jsonl.partial")


class Slow(Server):
    """Answers once it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = asyncio.Event()

    async def ask(self, request: Request) -> Answer | Failure:
        answer = await super().ask(request)
        await self.may.wait()
        return answer


async def test_every_request_is_asked_once_and_its_result_written_down_and_counted(tmp_path: Path) -> None:
    server = Server({"question 1": [Answer(400, {}, b"{}")], "question 2": [LOST]})
    with batch(tmp_path) as one:
        await one.run(server)
        assert sorted(server.asked) == [f"question {number}" for number in range(5)]
        assert sorted(each["custom_id"] for each in one.came()) == [f"line-{number}" for number in range(5)]
        assert (one.figures.answered, one.figures.failed, one.figures.left) == (3, 2, 0)


async def test_so_many_are_under_way_at_once_and_no_more(tmp_path: Path) -> None:
    server = Slow()
    with batch(tmp_path) as one:
        running = asyncio.ensure_future(one.run(server, concurrency=3))
        await eventually_async(lambda: len(server.asked) == 3)
        for _ in range(20):
            await asyncio.sleep(0)
        assert (len(server.asked), one.workers.under_way) == (3, 3)
        server.may.set()
        await running
        assert (len(server.asked), one.workers.under_way) == (5, 0)


async def test_who_is_refused_for_now_is_asked_again_and_nobody_else(tmp_path: Path) -> None:
    server = Server({"question 1": [LATER, LATER], "question 2": [UNSENT], "question 3": [NEVER], "question 4": [LOST]})
    with batch(tmp_path) as one:
        await one.run(server)
        counts = [server.asked.count(f"question {number}") for number in range(5)]
        assert counts == [1, 3, 2, 1, 1]
        assert (one.figures.answered, one.figures.failed) == (3, 2)
        assert len(one.came()) == 5


async def test_who_is_refused_for_too_long_has_the_refusal_as_its_result(tmp_path: Path) -> None:
    server = Server({"question 0": [Answer(429, {"retry-after": "86400"}, b"{}")]})
    with batch(tmp_path, lines=1) as one:
        await one.run(server)
        assert [each["response"]["status_code"] for each in one.came()] == [429]


async def test_once_told_to_stop_nothing_is_begun_and_what_is_under_way_is_ended(tmp_path: Path) -> None:
    server = Slow()
    with batch(tmp_path) as one:
        running = asyncio.ensure_future(one.run(server))
        await eventually_async(lambda: len(server.asked) == 2)
        one.workers.stop()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not running.done()
        server.may.set()
        await running
        assert (len(server.asked), len(one.came()), one.figures.left) == (2, 2, 3)


async def test_told_twice_it_ends_what_is_under_way(tmp_path: Path) -> None:
    server = Slow()
    with batch(tmp_path) as one:
        running = asyncio.ensure_future(one.run(server))
        await eventually_async(lambda: len(server.asked) == 2)
        one.workers.stop()
        one.workers.stop()
        await running
        assert (one.came(), one.figures.left, one.workers.under_way) == ([], 5, 0)


async def test_who_waits_to_be_let_in_again_is_left_for_the_next_run(tmp_path: Path) -> None:
    server = Server({f"question {number}": [Answer(429, {"retry-after": "3000"}, b"{}")] for number in range(5)})
    with batch(tmp_path) as one:
        running = asyncio.ensure_future(one.run(server))
        await eventually_async(lambda: len(server.asked) == 2)
        one.workers.stop()
        await running
        assert (one.came(), one.figures.left) == ([], 5)


async def test_one_that_was_told_before_it_began_asks_nobody(tmp_path: Path) -> None:
    server = Server()
    with batch(tmp_path) as one:
        one.workers.stop()
        await one.run(server)
        assert not server.asked


async def test_a_file_that_is_of_no_use_any_more_ends_all_of_it(tmp_path: Path) -> None:
    server = Slow()
    with batch(tmp_path) as one:
        running = asyncio.ensure_future(one.run(server))
        await eventually_async(lambda: len(server.asked) == 2)
        (tmp_path / "in.jsonl").write_text("changed\n")
        server.may.set()
        with pytest.raises(StartupError, match="was changed while the batch ran"):
            await running
        assert one.workers.under_way == 0
