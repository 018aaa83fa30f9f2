"""So many requests at once, until all are done or somebody stops it.

Rule: a worker that has begun a request ends it, unless it is told twice. One that waits to be let in again has not
begun: it is left for the next run.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from proxy.batch.requests import Item, Requests
from proxy.batch.results import Results
from proxy.core.batch import Answer, Failure, Request, pause, result_line
from proxy.core.batch_figures import Figures

UNREACHED = Answer(503, {}, b"")  # when it is tried again: as if somebody had said that nobody is there


class Asks(Protocol):
    async def ask(self, request: Request, /) -> Answer | Failure: ...


class Workers:
    """`figures` are kept up to date; `wall`: seconds since the epoch."""

    def __init__(
        self,
        requests: Requests,
        results: Results,
        figures: Figures,
        wall: Callable[[], float],
        *,
        luck: Callable[[], float] = random.random,
    ) -> None:
        self._requests = requests
        self._results = results
        self._figures = figures
        self._wall = wall
        self._luck = luck
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self.under_way = 0

    def stop(self) -> None:
        """Begin nothing new; the second time, end what is under way."""
        if self._stopping.is_set():
            for task in self._tasks:
                task.cancel()
        self._stopping.set()

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    @property
    def began(self) -> bool:
        return bool(self._tasks)

    async def run(self, client: Asks, items: Iterable[Item], concurrency: int) -> None:
        """Ask them, so many at once. Raises StartupError: a file is of no use any more."""
        waiting = iter(items)
        self._tasks = [asyncio.ensure_future(self._work(client, waiting)) for _ in range(concurrency)]
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in self._tasks:
                task.cancel()
            ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise error

    async def _work(self, client: Asks, waiting: Iterator[Item]) -> None:
        for item in waiting:
            if self._stopping.is_set():
                return
            request = self._requests.read(item)
            answer = await self._ask(client, request)
            if answer is None:
                return
            self._results.add(item, result_line(item.digest, request.custom_id, answer))
            self._figures.add(answer)

    async def _ask(self, client: Asks, request: Request) -> Answer | Failure | None:
        """What comes of a request in the end; None: it was stopped before."""
        waited, tries = 0.0, 0
        while not self._stopping.is_set():
            answer = await self._once(client, request)
            refused = answer if isinstance(answer, Answer) else None if answer.sent else UNREACHED
            if refused is None:
                return answer
            seconds = pause(refused, waited=waited, tries=tries, now=self._wall(), luck=self._luck())
            if seconds is None:
                return answer
            await self._stopped_within(seconds)
            waited, tries = waited + seconds, tries + 1
        return None

    async def _once(self, client: Asks, request: Request) -> Answer | Failure:
        self.under_way += 1
        try:
            return await client.ask(request)
        finally:
            self.under_way -= 1

    async def _stopped_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass
