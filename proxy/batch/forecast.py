"""What was foreseen of a batch, as a table and in words.

Rule: beneath the figures stands what is not in them.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from proxy.batch.foresight import Foreseen, Share


def show(found: Foreseen, console: Console, *, title: str) -> None:
    """Print all of it."""
    for line in _lines(found, title):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if found.models:
        console.print(_table(found.models))
    for note in _notes(found):
        console.print(note, markup=False, highlight=False, soft_wrap=True)


def _lines(found: Foreseen, title: str) -> Iterable[str]:
    refused = f", {found.refused:,} would be refused" if found.refused else ""
    yield f"{title}: {found.lines:,} lines, {found.wrong:,} of them are no requests{refused}."
    for number, message in found.why:
        yield f"  line {number}: {message}"
    if found.wrong + found.refused > len(found.why):
        yield f"  and {found.wrong + found.refused - len(found.why):,} more"
    if found.taken:
        yield f"{found.taken:,} are answered already."
    asked = found.lines - found.wrong - found.refused - found.taken
    blind = f"the cache cannot be looked at ({found.unseen})"
    held = blind if found.held is None else f"the cache holds {found.held:,} of these"
    yield f"{asked:,} requests, {found.distinct:,} of them distinct; {held}, so {found.asked:,} would be asked."


def _table(models: Mapping[str, Share]) -> Table:
    table = Table(show_footer=len(models) > 1)
    total = _sum(models.values())
    table.add_column("model", "all", overflow="fold")
    for heading, shown in zip(("requests", "input tokens", "USD expected", "USD at most"), _row(total), strict=True):
        table.add_column(heading, shown, justify="right", no_wrap=True)
    for name, share in models.items():
        table.add_row(escape(name), *_row(share))
    return table


def _sum(shares: Iterable[Share]) -> Share:
    total = Share()
    for each in shares:
        total.requests += each.requests
        total.input += each.input
        total.usd += each.usd
        total.unpriced += each.unpriced
        total.most += each.most
        total.unbounded += each.unbounded
    return total


def _row(share: Share) -> tuple[str, ...]:
    counts = f"{share.requests:,}", f"{share.input:,}"
    return *counts, _usd(share.usd, share.requests - share.unpriced), _usd(share.most, share.requests - share.unbounded)


def _usd(usd: Decimal, known: int) -> str:
    """`?` where it is known of none of them."""
    return f"{usd:,.6f}" if known else "?"


def _notes(found: Foreseen) -> Iterable[str]:
    for name, share in found.models.items():
        if share.unpriced:
            told = f'no price is known of {share.unpriced:,} requests, which are in no sum; set models."{name}".price'
            yield f"{name}: {told}."
        elif share.unbounded:
            yield f"{name}: nothing bounds what {share.unbounded:,} requests may cost; max_tokens would."
    total = _sum(found.models.values())
    if found.left is not None and total.usd > found.left:
        yield f"Of this key's budget {max(found.left, Decimal(0)).normalize():f} USD are left: it will not do."
    if found.models:
        yield (
            "Expected: answers as long as these models' have been here, or as max_tokens allows; what providers charge "
            "less for prompts that they have seen, as far as that is known now."
        )
