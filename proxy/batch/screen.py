"""How far a batch is: a bar for who watches, a line now and then for a log, and what came of it at the end.

Rule: what goes on is told on stderr; stdout has the summary alone.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from proxy.core.batch_figures import Figures, counts, money, progress_words, seconds_left, several, span

EVERY = 10.0  # seconds between two lines
LOOK = 0.2  # the same of two looks at the figures, where a bar is shown


class Screen:
    """`console`: stderr's; `monotonic`: a clock that only goes on."""

    def __init__(self, console: Console, figures: Figures, monotonic: Callable[[], float]) -> None:
        self._console = console
        self._figures = figures
        self._monotonic = monotonic
        self._began = monotonic()

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Tell how far it is, as long as the context lasts."""
        self._began = self._monotonic()
        task = asyncio.ensure_future(self._bar() if self._console.is_terminal else self._lines())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _bar(self) -> None:
        figures = self._figures
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"), TimeRemainingColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task("", total=figures.total, completed=figures.done, said="")
            while True:
                said = ", ".join([*counts(figures), *money(figures)])
                progress.update(task, completed=figures.done, said=said)
                await asyncio.sleep(LOOK)

    async def _lines(self) -> None:
        while True:
            await asyncio.sleep(EVERY)
            self.say(progress_words(self._figures, seconds_left(self._figures, self.elapsed)))

    @property
    def elapsed(self) -> float:
        return self._monotonic() - self._began


def summary(figures: Figures, output: Path, elapsed: float) -> str:
    """What came of a whole batch."""
    before = f" ({figures.taken:,} answered before)" if figures.taken else ""
    said = ", ".join([several(figures.total, "line") + before, *counts(figures), *money(figures)])
    told = [f"{said}, in {span(elapsed)}.", *figures.faults.lines()]
    if figures.failed:
        told.append("What failed is asked anew when the same command is given again.")
    return "\n".join([*told, f"The results are in {output}."])
