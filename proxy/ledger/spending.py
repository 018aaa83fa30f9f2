"""What keys were charged since a moment: what budgets begin with.

An attempt that is under way counts with what was reserved for it, one whose price is not known with nothing. What rows
that were deleted had cost is kept by day (`carried`), so that a moment that begins a UTC day is told exactly.
"""

import math
from collections.abc import Iterator
from decimal import Decimal

from sqlalchemy import Column, Connection, Select, func, select

from proxy.ledger.pico import dollars
from proxy.ledger.schema import attempts, carried

DAY = 86_400
HALF = 1_000_000


def spent(connection: Connection, key: str, since: float) -> Decimal:
    """USD that this key (Grant.id) was charged for attempts since then (seconds since the epoch, 0: of all time)."""
    rows = sum_of(attempts.c.usd).where(attempts.c.key == key, attempts.c.at >= since)
    first_day = math.ceil(since / DAY)
    before = sum_of(carried.c.usd).where(carried.c.key == key, carried.c.day >= first_day)
    return dollars(joined(*connection.execute(rows).one()) + joined(*connection.execute(before).one()))


def spendings(connection: Connection, since: float) -> dict[str, Decimal]:
    """The same of every key that has rows, by Grant.id."""
    return {key: spent(connection, key, since) for key in _known(connection)}


def sum_of(money: "Column[int]") -> Select[int | None, int | None]:
    """Two sums that `joined` makes one of: a sum of BIGINTs may be too large for one."""
    return select(func.sum(money // HALF), func.sum(money % HALF))


def joined(large: int | None, small: int | None) -> int:
    return (large or 0) * HALF + (small or 0)


def _known(connection: Connection) -> set[str]:
    kept = connection.execute(select(carried.c.key).distinct()).scalars()
    return {*kept, *_with_attempts(connection)}


def _with_attempts(connection: Connection) -> Iterator[str]:
    """From one key to the next in the index: DISTINCT would read all of it."""
    key = connection.execute(select(func.min(attempts.c.key))).scalar()
    while key is not None:
        yield key
        key = connection.execute(select(func.min(attempts.c.key)).where(attempts.c.key > key)).scalar()
