"""`penstock report`: what was asked, spent and saved, by key, model, provider, day or outcome; or with `--shadow`, what
the cache would have answered and saved.

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
from typing import Any, Generic, Literal, TypeVar

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from proxy.ledger.figures import MEMBERS, Figures, Summary, summary
from proxy.ledger.shadows import SHADOW_MEMBERS, Shadows, shadow_summary
from proxy.ledger.sums import By, digits, group_of
from proxy.ledger.sums import told as members_of

F = TypeVar("F")
Format = Literal["table", "csv", "json"]
Columns = dict[str, Callable[[F], str]]

WIDEST = 10_000
WHERE = "name the proxy's settings with --config, or its data directory with --data-dir"

ASKED: Columns[Figures] = {
    "requests": lambda each: f"{each.requests:,}",
    "hits": lambda each: f"{each.hits:,}",
    "joined": lambda each: f"{each.collapsed:,}",
    "misses": lambda each: f"{each.misses:,}",
    "hit\nratio": lambda each: _percent(each.hit_ratio),
    "attempts": lambda each: f"{each.attempts:,}",
    "tokens\nin": lambda each: f"{each.input:,}",
    "of it\ncached": lambda each: f"{each.cached:,}",
    "tokens\nout": lambda each: f"{each.output:,}",
    "first\nbyte": lambda each: "-" if each.first is None else f"{each.first:.4f} s",  # the median
}
MONEY: Columns[Figures] = {
    "spent": lambda each: digits(each.usd),
    "of it\nestimated": lambda each: digits(each.estimated),
    "cost\nunknown": lambda each: f"{each.unknown:,}",
    "saved by\ncache": lambda each: digits(each.saved_cache),
    "saved by\njoining": lambda each: digits(each.saved_collapse),
    "saved by\nrouting": lambda each: digits(each.saved_routing),
    "saving\nunknown": lambda each: f"{each.saved_unknown:,}",
    "prompt\ncaches": lambda each: digits(each.saved_prompt_cache),
}
WOULD: Columns[Shadows] = {
    "looked at": lambda each: f"{each.requests:,}",
    "would\nhit": lambda each: f"{each.hits:,}",
    "would\nbe joined": lambda each: f"{each.collapsed:,}",
    "ratio": lambda each: _percent(each.ratio),
    "spent": lambda each: digits(each.usd),
    "of it\nestimated": lambda each: digits(each.estimated),
    "cost\nunknown": lambda each: f"{each.unknown:,}",
    "would save\nby cache": lambda each: digits(each.saved_cache),
    "would save\nby joining": lambda each: digits(each.saved_collapse),
    "of what\nwas spent": lambda each: _percent(each.share),
}


@dataclass(frozen=True, slots=True)
class View(Generic[F]):
    """How figures of one kind are come by and told. `nothing`: figures of no rows at all; `empty`: what is said then,
    and `hint`: what to do about it.
    """

    summed: Callable[[Path, By, float | None], Summary[F] | None]
    members: Mapping[str, str]
    nothing: F
    tables: Mapping[str, Columns[F]]
    notes: Callable[[F], Iterator[str]]
    empty: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Report(Generic[F]):
    """A summary, and how its groups are called."""

    view: View[F]
    by: By
    since: float | None
    names: Mapping[str, str]
    found: Summary[F]


def report(
    directory: Path,
    console: Console,
    *,
    since: float | None = None,
    by: By = "key",
    format: Format = "table",  # noqa: A002 - it is the option's name
    names: Mapping[str, str] | None = None,
    shadow: bool = False,
) -> int:
    """Print what the ledger of this directory holds since then (seconds since the epoch); 1 where there is none.

    `names`: of keys by their ids, besides those of the ledger. `shadow`: what shadow mode saw. Raises StartupError,
    OSError.
    """
    view: View[Any] = SHADOW if shadow else USUAL
    found = view.summed(directory, by, since)
    if found is None:
        console.print(f"There is no ledger in {directory}; {WHERE}.", markup=False, highlight=False, soft_wrap=True)
        return 1
    told = Report(view, by, since, {**found.names, **(names or {})}, found)
    if format == "csv":
        console.file.write(_csv(told))  # the console itself would leave out some characters
    elif format == "json":
        console.file.write(_json(told))
    elif found.groups:
        console.file.write(_tables(told))
    else:
        console.print(f"{view.empty}{_since(since)}.{view.hint}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _csv(told: Report[Any]) -> str:
    """A line for each group, under one of names. No total: a program that adds the lines up would count it twice."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    for number, (group, figures) in enumerate(told.found.groups.items()):
        values = _line(told, group, figures)
        if number == 0:
            lines.writerow(values)
        lines.writerow("" if value is None else value for value in values.values())
    if not told.found.groups:
        lines.writerow(_line(told, "", told.view.nothing))
    return text.getvalue()


def _json(told: Report[Any]) -> str:
    groups = [_line(told, group, figures) for group, figures in told.found.groups.items()]
    since = None if told.since is None else _moment(told.since)
    total = members_of(told.found.total, told.view.members)
    return json.dumps({"by": told.by, "since": since, "groups": groups, "total": total}, indent=2) + "\n"


def _line(told: Report[F], group: str, figures: F) -> dict[str, object]:
    return group_of(told.by, group, told.names) | members_of(figures, told.view.members)


def _tables(told: Report[Any]) -> str:
    """As wide as they must be, however wide the screen is: a number that is cut in two is read as another."""
    text = io.StringIO()
    screen = Console(file=text, width=WIDEST, color_system=None)
    for title, columns in told.view.tables.items():
        table = Table(title=f"By {told.by}, {title}{_since(told.since)}", title_justify="left", box=SIMPLE_HEAD)
        table.add_column(told.by)
        for column in columns:
            table.add_column(column, justify="right")
        for group, figures in told.found.groups.items():
            table.add_row(_called(told, group), *(show(figures) for show in columns.values()))
        table.add_section()
        table.add_row("total", *(show(told.found.total) for show in columns.values()))
        screen.print(table)
    for note in told.view.notes(told.found.total):
        screen.print(note, markup=False, highlight=False)
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def _notes(total: Figures) -> Iterator[str]:
    if total.unknown:
        yield f"The cost of {total.unknown:,} attempts is not known: no price, or no usage was said. It is in no sum."
    if total.saved_unknown:
        yield f"What {total.saved_unknown:,} answers saved is not known, and is in no sum."


def _would_notes(total: Shadows) -> Iterator[str]:
    if total.unknown:
        yield f"The cost of {total.unknown:,} attempts is not known: no price, or no usage was said. It is in no sum."
    share = "" if total.share is None else f" ({100 * total.share:.1f} %)"
    yield (
        f"With the cache on, {total.answered:,} of {total.requests:,} requests would not have been paid: "
        f"${digits(total.saved)} of ${digits(total.usd)}{share}."
    )


USUAL = View(
    summed=summary,
    members=MEMBERS,
    nothing=Figures(),
    tables={"asked": ASKED, "spent and saved, in USD": MONEY},
    notes=_notes,
    empty="Nothing was written down",
)
SHADOW = View(
    summed=shadow_summary,
    members=SHADOW_MEMBERS,
    nothing=Shadows(),
    tables={"in shadow mode, in USD": WOULD},
    notes=_would_notes,
    empty="Nothing was written down in shadow mode",
    hint=' To begin, set mode = "shadow" under [cache] and start the proxy anew.',
)


def _percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.1%}"


def _called(told: Report[F], group: str) -> Text:
    """As people know it. A name may be a client's own words: nothing in it is a command to the terminal."""
    called = told.names.get(group, group) if told.by == "key" else group
    return Text("".join(each if each.isprintable() else "?" for each in called) or "-")


def _since(since: float | None) -> str:
    return "" if since is None else f" since {_moment(since)}"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
