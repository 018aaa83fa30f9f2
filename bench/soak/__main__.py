"""`make soak`: every row, then the table. `python -m bench.soak K1 U4` tries only those. 1 if a row fell short."""

import argparse
import asyncio
import resource
import sys
import time
from dataclasses import dataclass

import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.servers import started
from bench.soak.lab import Lab
from bench.soak.rows import ROWS, Row

LIMIT = 120.0  # seconds for a row; the slowest takes three quarters of it
FELL_OVER = (OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, TimeoutError)
SHOWN = 5  # shortcomings of a row that the table has room for


@dataclass(frozen=True, slots=True)
class Result:
    row: Row
    seen: str
    short: dict[str, int]
    seconds: float


def run(row: Row, progress: Progress) -> Result:
    """One row, on a simulator of its own. Whatever goes wrong is a row that fell short."""
    task = progress.add_task(row.name)
    began = time.perf_counter()
    with started("proxy", "simulator", "--port", "0") as simulator:
        lab = Lab(
            simulator,
            steps=lambda count: progress.update(task, total=count),
            step=lambda: progress.advance(task),
        )
        seen = uvloop.run(_limited(row, lab))
    progress.stop_task(task)
    return Result(row, seen, dict(lab.short), time.perf_counter() - began)


async def _limited(row: Row, lab: Lab) -> str:
    try:
        async with asyncio.timeout(LIMIT):
            return await row.run(lab)
    except FELL_OVER as error:  # the other rows are still worth trying
        lab.expect(held=False, otherwise=f"given up: {error!r}")
        return ""


def table_of(results: list[Result]) -> Table:
    table = Table("", "tried", "seen", "seconds", "verdict", show_lines=True)
    for result in results:
        counted = sorted(result.short.items(), key=lambda each: -each[1])
        lines = [result.seen, *(f"{count} × {words}" for words, count in counted[:SHOWN])]
        if len(counted) > SHOWN:
            lines.append(f"and {len(counted) - SHOWN} kinds more")
        verdict = "[red]FELL SHORT[/]" if result.short else "[green]held[/]"
        seen = "\n".join(filter(None, lines)).replace("[", r"\[")
        table.add_row(result.row.name, result.row.tried, seen, f"{result.seconds:.0f}", verdict)
    return table


def names_of(arguments: list[str]) -> list[str]:
    """The rows that are wanted, by name. SystemExit: 2 if there is no such row, 0 after the help."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak",
        description="Tries each fault of the list at full size, then shows the table. 1 if a row fell short.",
        epilog="\n".join(["rows:", *(f"  {row.name:3} {row.tried}" for row in ROWS)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="ROW", help="only these (default: all)")
    names: list[str] = parser.parse_args(arguments).names
    if unknown := set(names) - {row.name for row in ROWS}:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(row.name for row in ROWS)}")
    return names


def main(arguments: list[str]) -> int:
    """The table; 1 if a row fell short."""
    names = names_of(arguments)
    console = Console()
    # 500 clients and their proxy need more than the 1,024 files that a shell may allow.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        results = [run(row, progress) for row in ROWS if not names or row.name in names]
    console.print(table_of(results))
    return 1 if any(result.short for result in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
