"""`penstock report`: what was asked, spent and saved, by key, model, provider, day or outcome.

Rule: an amount is exact in every format, and what is not known is counted, never taken for nothing. CSV and JSON are
for programs: names that stay, all digits, money in JSON as text (its numbers are exact to few readers).
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from proxy.ledger.figures import By, Figures, Summary, digits, members_of, summary, told_of

Format = Literal["table", "csv", "json"]

WIDEST = 10_000
WHERE = "name the proxy's settings with --config, or its data directory with --data-dir"

ASKED: dict[str, Callable[[Figures], str]] = {
    "requests": lambda each: f"{each.requests:,}",
    "hits": lambda each: f"{each.hits:,}",
    "joined": lambda each: f"{each.collapsed:,}",
    "hit\nratio": lambda each: "-" if each.hit_ratio is None else f"{each.hit_ratio:.1%}",
    "attempts": lambda each: f"{each.attempts:,}",
    "tokens\nin": lambda each: f"{each.input:,}",
    "of it\ncached": lambda each: f"{each.cached:,}",
    "tokens\nout": lambda each: f"{each.output:,}",
    "first\nbyte": lambda each: "-" if each.first is None else f"{each.first:.4f} s",  # the median
}
MONEY: dict[str, Callable[[Figures], str]] = {
    "spent": lambda each: digits(each.usd),
    "of it\nestimated": lambda each: digits(each.estimated),
    "cost\nunknown": lambda each: f"{each.unknown:,}",
    "saved by\ncache": lambda each: digits(each.saved_cache),
    "saved by\njoining": lambda each: digits(each.saved_collapse),
    "saved by\nrouting": lambda each: digits(each.saved_routing),
    "saving\nunknown": lambda each: f"{each.saved_unknown:,}",
    "prompt\ncaches": lambda each: digits(each.saved_prompt_cache),
}


@dataclass(frozen=True, slots=True)
class Report:
    """A summary, and how its groups are called."""

    by: By
    since: float | None
    names: Mapping[str, str]
    found: Summary


def report(
    directory: Path,
    console: Console,
    *,
    since: float | None = None,
    by: By = "key",
    format: Format = "table",  # noqa: A002 - it is the option's name
    names: Mapping[str, str] | None = None,
) -> int:
    """Print what the ledger of this directory holds since then (seconds since the epoch); 1 where there is none.

    `names`: of keys by their ids, besides those of the ledger. Raises StartupError, OSError.
    """
    found = summary(directory, by, since)
    if found is None:
        console.print(f"There is no ledger in {directory}; {WHERE}.", markup=False, highlight=False, soft_wrap=True)
        return 1
    told = Report(by, since, {**found.names, **(names or {})}, found)
    if format == "csv":
        console.file.write(_csv(told))  # the console itself would leave out some characters
    elif format == "json":
        console.file.write(_json(told))
    elif found.groups:
        console.file.write(_tables(told))
    else:
        console.print(f"Nothing was written down{_since(since)}.", highlight=False)
    return 0


def _csv(told: Report) -> str:
    """A line for each group, under one of names. No total: a program that adds the lines up would count it twice."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    for number, (group, figures) in enumerate(told.found.groups.items()):
        values = told_of(told.by, group, figures, told.names)
        if number == 0:
            lines.writerow(values)
        lines.writerow("" if value is None else value for value in values.values())
    if not told.found.groups:
        lines.writerow(told_of(told.by, "", Figures(), told.names))
    return text.getvalue()


def _json(told: Report) -> str:
    groups = [told_of(told.by, group, figures, told.names) for group, figures in told.found.groups.items()]
    since = None if told.since is None else _moment(told.since)
    return (
        json.dumps({"by": told.by, "since": since, "groups": groups, "total": members_of(told.found.total)}, indent=2)
        + "\n"
    )


def _tables(told: Report) -> str:
    """As wide as they must be, however wide the screen is: a number that is cut in two is read as another."""
    text = io.StringIO()
    screen = Console(file=text, width=WIDEST, color_system=None)
    for title, columns in (("asked", ASKED), ("spent and saved, in USD", MONEY)):
        table = Table(title=f"By {told.by}, {title}{_since(told.since)}", title_justify="left", box=SIMPLE_HEAD)
        table.add_column(told.by)
        for column in columns:
            table.add_column(column, justify="right")
        for group, figures in told.found.groups.items():
            table.add_row(_called(told, group), *(show(figures) for show in columns.values()))
        table.add_section()
        table.add_row("total", *(show(told.found.total) for show in columns.values()))
        screen.print(table)
    for note in _notes(told.found.total):
        screen.print(note, markup=False, highlight=False)
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def _notes(total: Figures) -> Iterator[str]:
    if total.unknown:
        yield f"The cost of {total.unknown:,} attempts is not known: no price, or no usage was said. It is in no sum."
    if total.saved_unknown:
        yield f"What {total.saved_unknown:,} answers saved is not known, and is in no sum."


def _called(told: Report, group: str) -> Text:
    """As people know it. A name may be a client's own words: nothing in it is a command to the terminal."""
    called = told.names.get(group, group) if told.by == "key" else group
    return Text("".join(each if each.isprintable() else "?" for each in called) or "-")


def _since(since: float | None) -> str:
    return "" if since is None else f" since {_moment(since)}"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
