"""`penstock simulate`: four policies over one log, side by side.

Rule: the table goes to the given console, progress to stderr and only where someone sees it. What is supposed stands
beneath the figures.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as Shown

from pricing.table import Table
from proxy.settings import Settings
from proxy.simulate.answers import Answers
from proxy.simulate.options import Field, field_of
from proxy.simulate.policies import Always, Penstock, PerToken
from proxy.simulate.run import Run, Tally
from proxy.simulate.trace import Request, Shape, read_trace, shape_of
from proxy.simulate.world import START, World

NAMED: Final = "named"  # the policy that savings are measured against
STEP: Final = 50  # rows between two steps of the progress


def run_simulate(
    trace: Path,
    settings: Settings,
    table: Table,
    console: Console,
    *,
    route: str | None = None,
    limit: int | None = None,
    block: int | None = None,
) -> int:
    """Print what the log would have cost. `limit`: rows; `block`: tokens of a block. Raises StartupError."""
    field = field_of(settings, table, route)
    shape = shape_of(trace, limit=limit, block=block)
    runs = runs_of(field, block=shape.block, ttl=settings.cache.ttl)
    screen = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task(trace.name, total=shape.rows)
        for number, request in enumerate(read_trace(trace, limit), 1):
            _take(request, runs.values())
            if number % STEP == 0:
                progress.update(task, completed=number)
    print_tallies({name: run.finish() for name, run in runs.items()}, field, shape, console, title=trace.name)
    return 0


def runs_of(field: Field, *, block: int, ttl: float, start: datetime = START) -> dict[str, Run]:
    """Each policy in a world of its own. `ttl`: seconds for which an answer is given again."""
    options = field.options

    def world() -> World:
        return World(options, block=block, start=start)

    def penstock() -> Penstock:
        return Penstock(options, start, block=block, baseline=field.baseline)

    return {
        NAMED: Run(Always(field.baseline), world()),
        "per token": Run(PerToken(options, start), world()),
        "penstock": Run(penstock(), world()),
        "penstock + cache": Run(penstock(), world(), Answers(ttl)),
    }


def _take(request: Request, runs: Iterable[Run]) -> None:
    for run in runs:
        run.take(request)


def print_tallies(tallies: Mapping[str, Tally], field: Field, shape: Shape, console: Console, *, title: str) -> None:
    """The table, and what must be said of it."""
    shown = Shown(title=f"{title}: {shape.rows:,} requests in {_span(shape.seconds)}")
    shown.add_column("policy", no_wrap=True)
    for heading in ("USD", "saved", "", "prompt cache", "answer cache", "switches"):
        shown.add_column(heading, justify="right", no_wrap=" " not in heading)
    for name, tally in tallies.items():
        saved = tallies[NAMED].usd - tally.usd
        shown.add_row(
            name,
            usd(tally.usd),
            usd(saved) if name != NAMED else "",
            f"{saved / tallies[NAMED].usd:.1%}" if name != NAMED and tallies[NAMED].usd else "",
            f"{tally.prompt_hits:.1%}",
            f"{tally.answer_hits:.1%}",
            f"{tally.switches:,}",
        )
    console.print(shown)
    for note in _notes(tallies, field, shape):
        console.print(note, markup=False, highlight=False)


def usd(amount: Decimal) -> str:
    """To the cent, and below a hundred dollars to a hundredth of it."""
    return f"{amount:,.2f}" if abs(amount) >= 100 else f"{amount:,.4f}"


def _notes(tallies: Mapping[str, Tally], field: Field, shape: Shape) -> Iterable[str]:
    for name, tally in tallies.items():
        asked = ", ".join(f"{field.options[index].name} {count:,}" for index, count in sorted(tally.calls.items()))
        yield f"{name}: {asked}"
    for name, why in field.left_out.items():
        yield f"{name} is left out: {why}."
    for name, tally in tallies.items():
        if tally.unpriced:
            yield f"{name}: {tally.unpriced:,} calls have no known cost and are not in its sum."
        for index, calls in sorted(tally.too_long.items()):
            model = field.options[index]
            yield f"{name}: {calls:,} prompts are longer than {model.name}'s window; counted as if it took them."
    yield "prompt cache: input tokens that providers had cached; answer cache: requests that were not asked again."
    if not shape.block:
        yield "The log names no blocks: nothing is known to be shared or to come again, so no cache is in its figures."
    yield (
        f"Supposed: {f'blocks of {shape.block} tokens, ' if shape.block else ''}counts by each model's tokenizer as of "
        f"prose, answers as long as the log's times the model's verbosity, prompt caches as their providers promise."
    )


def _span(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
