"""What was foreseen of a batch, as a table and in words.

Rule: a sum of which a part is not known is not known; beneath the table stands what is known of it, and why no more.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from proxy.batch.foresight import Foreseen, Share
from proxy.core.batch_figures import several


def show(found: Foreseen, console: Console, *, title: str) -> None:
    """Print all of it."""
    for line in _lines(found, title):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if found.models:
        console.print(_table(found.models))
    for note in _notes(found):
        console.print(note, markup=False, highlight=False, soft_wrap=True)


def _lines(found: Foreseen, title: str) -> Iterable[str]:
    wrong = f"{found.wrong:,} {'is no request' if found.wrong == 1 else 'are no requests'}" if found.wrong else ""
    refused = f"{found.refused:,} would be refused" if found.refused else ""
    yield f"{title}: {', '.join(filter(None, [several(found.lines, 'line'), wrong, refused]))}."
    for number, message in found.why:
        yield f"  line {number}: {message}"
    if found.wrong + found.refused > len(found.why):
        yield f"  and {found.wrong + found.refused - len(found.why):,} more"
    if found.taken:
        yield f"{found.taken:,} {'is' if found.taken == 1 else 'are'} answered already."
    asked = found.lines - found.wrong - found.refused - found.taken
    blind = f"the cache cannot be looked at ({found.unseen})"
    held = blind if found.held is None else f"the cache holds {found.held:,} of these"
    yield f"{several(asked, 'request')}, {found.distinct:,} distinct; {held}, so {found.asked:,} would be asked."


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
        total.members |= each.members
    return total


def _row(share: Share) -> tuple[str, ...]:
    counts = f"{share.requests:,}", f"{share.input:,}"
    return *counts, _usd(share.usd, unknown=share.unpriced), _usd(share.most, unknown=share.unbounded)


def _usd(usd: Decimal, *, unknown: int) -> str:
    return "?" if unknown else f"{usd:,.6f}"


def _notes(found: Foreseen) -> Iterable[str]:
    for name, share in found.models.items():
        if share.unpriced:
            rest = _rest(share.requests - share.unpriced, share.usd, "expected")
            yield f'{name}: no price is known of {several(share.unpriced, "request")}{rest}; set models."{name}".price.'
        elif share.unbounded:
            rest = _rest(share.requests - share.unbounded, share.most, "at most")
            remedy = f"; name {' or '.join(sorted(share.members))} where it lacks" if share.members else ""
            yield f"{name}: nothing bounds what {several(share.unbounded, 'request')} may cost{rest}{remedy}."
    total = _sum(found.models.values())
    if found.left is not None and total.usd > found.left:
        yield f"Of this key's budget {max(found.left, Decimal(0)).normalize():f} USD are left: it will not do."
    if found.models:
        yield (
            "Expected: answers as long as these models' have been here, or as the requests allow; what providers "
            "charge less for prompts that they have seen, as far as that is known now."
        )


def _rest(known: int, usd: Decimal, how: str) -> str:
    """What is known all the same."""
    return f" (all others: {usd:,.6f} USD {how})" if known else ""
