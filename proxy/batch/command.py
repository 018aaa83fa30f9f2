"""All of it together: files, whoever is asked, workers, signals, and what is said in the end."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from proxy.app import build_app
from proxy.batch.client import Client, in_process, over_http
from proxy.batch.forecast import show
from proxy.batch.foresight import Foresight
from proxy.batch.requests import Requests, open_requests
from proxy.batch.results import Results, look_at, old_of, open_results
from proxy.batch.screen import Screen, summary
from proxy.batch.stopping import STOPPED, STOPPERS, TO_GO_ON
from proxy.batch.workers import Workers
from proxy.clock import SystemClock
from proxy.core.batch_figures import Figures, several
from proxy.errors import DirectoryInUse, StartupError
from proxy.logs import logged
from proxy.settings import Log, Settings


@dataclass(frozen=True, slots=True)
class Own:
    """A proxy of our own, as `serve` would run it: its settings and the keys that they name."""

    settings: Settings
    api_keys: Mapping[str, str]
    client_keys: Mapping[str, bytes]


def run_batch(
    requests: Path, output: Path, proxy: Own | str, *, key: str | None, concurrency: int, console: Console
) -> int:
    """Ask them all: 0, 1 if a line has an error, 130 if it was stopped before the end.

    `proxy`: our own, or the address of one that runs; `console`: for the summary. Raises StartupError.
    """
    errors = Console(stderr=True)
    log = _log(proxy.settings.log) if isinstance(proxy, Own) else Log(format="text")
    with open_requests(requests) as asked, open_results(output, asked) as results, logged(log):
        batch = _Batch(asked, results, errors, concurrency)
        for line in proxy.settings.notices() if isinstance(proxy, Own) else ():
            batch.screen.say(f"note: {line}")
        old = old_of(results.output)
        if results.others:
            others = f"{several(results.others, 'line')} of none of these requests"
            batch.screen.say(f"note: {output} has {others}; the end will move them to {old}.")
        code = uvloop.run(batch.run(proxy, key))
        if code != STOPPED:
            told = summary(batch.figures, output, batch.screen.elapsed)
            told += f"\nWhat it held of none of these requests is in {old}." if results.others else ""
            console.print(told, markup=False, highlight=False, soft_wrap=True)
        return code


def dry_run(requests: Path, output: Path | None, proxy: Own, *, key: str | None, console: Console) -> int:
    """Say what it would cost, and ask nobody: 0, 1 if a line is wrong or would be refused. Raises StartupError."""
    foresight = Foresight(proxy.settings, proxy.client_keys, key)
    screen = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with open_requests(requests) as asked:
        taken = set() if output is None else look_at(output, asked)
        with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
            told = progress.track(asked.items, description=requests.name)
            found = asyncio.run(foresight.of(asked, taken, told))
    show(found, console, title=requests.name)
    return 1 if found.wrong or found.refused else 0


def _log(settings: Log) -> Log:
    """No line for each request: that is in the ledger, and would be in the way here."""
    return msgspec.structs.replace(settings, level="error" if settings.level == "error" else "warning")


class _Batch:
    def __init__(self, requests: Requests, results: Results, errors: Console, concurrency: int) -> None:
        self._requests = requests
        self._results = results
        self._concurrency = concurrency
        clock = SystemClock()
        taken = sum(item in results for item in requests.good)
        self.figures = Figures(len(requests.items), taken=taken)
        for item in requests.items:
            if item.wrong is not None:
                self.figures.found_wrong(item.wrong)
        self.screen = Screen(errors, self.figures, clock.monotonic)
        self._asking: asyncio.Task[int] | None = None
        self._workers = Workers(requests, results, self.figures, clock.wall)

    async def run(self, proxy: Own | str, key: str | None) -> int:
        with self._stoppable():
            if self.figures.left:  # else nobody need be there
                await self._ask(proxy, key)
            if self.figures.left:
                done = f"{self.figures.done:,} of {several(self.figures.total, 'line')}"
                self.screen.say("\n".join([*self.figures.faults.lines(), f"{done} done. {TO_GO_ON}"]))
                return STOPPED
            self._results.finish(self._requests.items)
        return 1 if self.figures.errors else 0

    async def _ask(self, proxy: Own | str, key: str | None) -> None:
        """Until all are done, or it is stopped."""
        self._asking = asyncio.current_task()
        try:
            async with _client(proxy, key) as client, self.screen.shown():
                pending = (item for item in self._requests.good if item not in self._results)
                await self._workers.run(client, pending, self._concurrency)
        except asyncio.CancelledError:
            if self._asking is None or not self._workers.stopping:
                raise
            while self._asking.uncancel():  # the signal may have come several times
                pass

    @contextmanager
    def _stoppable(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in STOPPERS:
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in STOPPERS:
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        if not self._workers.began and self._asking is not None:
            self._asking.cancel()  # whoever is asked is not even there yet
        elif not self._workers.stopping:
            rest = f"{self._workers.under_way:,} under way are finished"
            self.screen.say(f"Stopping: nothing new is begun, {rest}; Ctrl-C once more ends them.")
        self._workers.stop()


@asynccontextmanager
async def _client(proxy: Own | str, key: str | None) -> AsyncIterator[Client]:
    """Raises StartupError."""
    async with AsyncExitStack() as stack:
        if isinstance(proxy, str):
            yield await stack.enter_async_context(over_http(proxy, key))
            return
        made = build_app(proxy.settings, api_keys=proxy.api_keys, client_keys=proxy.client_keys)
        try:
            app = await stack.enter_async_context(made)
        except DirectoryInUse as error:
            told = "or let the proxy that runs there do the work: --proxy http://HOST:PORT"
            raise StartupError(f"{error}; {told}") from None
        yield await stack.enter_async_context(in_process(app.asgi, key))
