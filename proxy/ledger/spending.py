"""What keys were charged since a moment: what budgets begin with.

An attempt that is under way counts with what was reserved for it, one whose price is not known with nothing. What rows
that were deleted had cost is kept by day (`carried`), so that a moment that begins a UTC day is told exactly.
"""

import math
from decimal import Decimal
from pathlib import Path

from sqlalchemy import Column, Connection, Select, func, select

from proxy.ledger.opening import database, explained, open_existing
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


def spent_in(directory: Path, key: str, since: float) -> Decimal:
    """The same of the ledger in a directory, beside a proxy that writes; nothing where there is none.

    Raises StartupError, OSError.
    """
    made = open_existing(directory, read_only=True)
    if made is None:
        return Decimal(0)
    with explained(database(directory)), made.connect() as connection:
        return spent(connection, key, since)


def sum_of(money: "Column[int]") -> Select[int | None, int | None]:
    """Two sums that `joined` makes one of: a sum of BIGINTs may be too large for one."""
    return select(func.sum(money // HALF), func.sum(money % HALF))


def joined(large: int | None, small: int | None) -> int:
    return (large or 0) * HALF + (small or 0)
