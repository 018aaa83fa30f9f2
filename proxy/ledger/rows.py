"""Rows as they are written: what the books say, in the order of the columns, and many of them in one statement.

Python's sqlite3 lets go of the interpreter around each statement and waits up to 5 ms to have it back from a busy event
loop. So rows go by the hundred: one statement, one flat tuple. Each statement is a transaction of its own, and may be
done twice: a row that is there already stays, or is settled once more.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from sqlalchemy import Insert, Table
from sqlalchemy.dialects import sqlite

from pricing.cost import Usage
from proxy.core.books import Answered, Attempted, Intent
from proxy.ledger.pico import charged, spared
from proxy.ledger.schema import TOKENS, attempts, requests

Row = tuple[Any, ...]
R = TypeVar("R")

# Rows in one statement. Each size is compiled once by the database; the largest has some 27,000 values of the 32,766
# that a statement may have.
SIZES = (1024, 512, 256, 128, 64, 32, 16, 8, 4, 2, 1)

FULL = 0.75  # of a statement that is to be filled up with a row that is there already

_SETTLED = ("ended", "status", *TOKENS, "usd", "estimated", "first", "total", "routing", "prompt_cache")
_NO_TOKENS = (None,) * len(TOKENS)


class Statement(Generic[R]):
    """An insert of rows made from R."""

    def __init__(self, insert: Insert, row: Callable[[R], Row]) -> None:
        one = str(insert.compile(dialect=sqlite.dialect()))
        values = f"({', '.join('?' * len(insert.table.columns))})"
        if one.count(values) != 1:
            raise ValueError(f"not an insert of one whole row: {one}")
        self._texts = {size: one.replace(values, ", ".join([values] * size)) for size in SIZES}
        self._row = row

    def parts(self, rows: Sequence[R]) -> Iterator[Sequence[R]]:
        """The rows in a few parts for `whole`, none of which it would have to fill up with many."""
        at = 0
        while left := len(rows) - at:
            size = _fitting(left)
            yield rows[at : at + size]
            at += size

    def whole(self, rows: Sequence[R]) -> tuple[str, Row]:
        """The statement and the values for up to SIZES[0] rows: filled up with the last, which by then is there."""
        size = next(size for size in reversed(SIZES) if size >= len(rows))
        flat: list[Any] = []
        for row in rows:
            flat.extend(self._row(row))
        return self._texts[size], (*flat, *self._row(rows[-1]) * (size - len(rows)))


def _fitting(count: int) -> int:
    """How many of so many rows go at once: all, where a statement is little larger than they are."""
    least = next((size for size in reversed(SIZES) if size >= count), SIZES[0])
    if count >= least * FULL:
        return min(count, least)
    return next(size for size in SIZES if size <= count)


class Ending:
    """An attempt that is over, and what it was meant to be."""

    __slots__ = ("attempt", "intent")

    def __init__(self, intent: Intent, attempt: Attempted) -> None:
        self.intent = intent
        self.attempt = attempt


def intents() -> Statement[Intent]:
    return Statement(_insert(attempts).on_conflict_do_nothing(), _intended)


def endings() -> Statement[Ending]:
    """Whole rows: the one of intent may never have been written."""
    upsert = _insert(attempts)
    settled = {name: upsert.excluded[name] for name in _SETTLED}
    return Statement(upsert.on_conflict_do_update(index_elements=["request", "number"], set_=settled), _ended)


def answers() -> Statement[Answered]:
    return Statement(_insert(requests).on_conflict_do_nothing(), _answered)


def _insert(table: Table) -> sqlite.Insert:
    return sqlite.insert(table).values(dict.fromkeys(table.columns.keys()))


def _intended(intent: Intent) -> Row:
    reserved = charged(intent.reserved)
    return (*_meant(intent, reserved), None, None, *_NO_TOKENS, reserved, False, None, None, None, None)


def _ended(ending: Ending) -> Row:
    end = ending.attempt
    return (
        *_meant(ending.intent, charged(ending.intent.reserved)),
        end.ended,
        end.status,
        *_tokens(end.usage),
        charged(end.usd),
        end.estimated,
        end.first,
        end.total,
        spared(end.routing),
        spared(end.prompt_cache),
    )


def _meant(intent: Intent, reserved: int | None) -> Row:
    return (
        intent.request,
        intent.number,
        intent.at,
        intent.key,
        intent.endpoint,
        intent.asked,
        intent.provider,
        intent.model,
        intent.stream,
        reserved,
    )


def _answered(answer: Answered) -> Row:
    return (
        answer.at,
        answer.request,
        answer.key,
        answer.endpoint,
        answer.asked,
        answer.outcome,
        answer.status,
        answer.code,
        answer.provider,
        answer.model,
        *_tokens(answer.usage),
        spared(answer.saved),
        answer.first,
        answer.total,
        answer.leader,
        answer.entry,
        answer.shadow,
    )


def _tokens(usage: Usage | None) -> Row:
    if usage is None:
        return _NO_TOKENS
    return (
        usage.input,
        usage.cached,
        usage.output,
        usage.written,
        usage.written_1h,
        usage.audio_input,
        usage.audio_cached,
        usage.reasoning,
        usage.audio_output,
    )


def unknown_intent(attempt: Attempted, at: float) -> Intent:
    """What stands in the row of an attempt of which nothing is known but its end."""
    return Intent(attempt.request, attempt.number, at, "", "", "", "", "", stream=False, reserved=None)
