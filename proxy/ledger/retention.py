"""What is older than it may be is deleted, a little at a time: who waits for a row of intent waits no longer for it.

Rule: what it had cost is carried over first, by key and day, in the same transaction, so budgets know all of it.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable

from sqlalchemy import Connection, Engine, Row, Select, delete, select
from sqlalchemy.dialects.sqlite import insert

from proxy.interfaces import Clock
from proxy.ledger.opening import describe, transaction
from proxy.ledger.schema import OPEN, attempts, carried, requests
from proxy.ledger.settling import RECENT
from proxy.ledger.spending import DAY

logger = logging.getLogger("penstock")

AT_ONCE = 100  # rows of a table: some ms
SOON = 0.05  # seconds between two parts
LATER = 60.0  # seconds between two looks


class Cleaner:
    """Has what is older than `retention` seconds deleted, for as long as it follows.

    `do` has something done by the thread that writes, in its turn.
    """

    def __init__(
        self,
        database: Engine,
        clock: Clock,
        retention: float,
        do: "Callable[[Callable[[], bool]], asyncio.Future[bool]]",
    ) -> None:
        self._database = database
        self._clock = clock
        self._retention = retention
        self._do = do

    async def follow(self) -> None:
        """For ever. Who cancels it waits for nothing: what is being deleted is deleted, and nothing after it."""
        while True:
            more = await self._clean()
            await asyncio.sleep(SOON if more else LATER)

    async def _clean(self) -> bool:
        """Is there more? Not where it failed: it is tried again later."""
        before = self._clock.wall() - self._retention
        try:
            return await self._do(lambda: self._delete_old(before))
        except Exception as error:  # noqa: BLE001 - whatever it is: the next try may succeed
            logger.warning("ledger: old rows could not be deleted: %s", describe(error))
            return False

    def _delete_old(self, before: float) -> bool:
        """In the thread."""
        with transaction(self._database) as connection:
            return delete_old(connection, before)


def delete_old(connection: Connection, before: float) -> bool:
    """Delete a few rows from before that moment; are there more? Within a transaction of the caller.

    What is under way stays. A request's row goes a day later than its attempts: without it they would look lost.
    """
    more = _delete_attempts(connection, before)
    return _delete_requests(connection, before - RECENT) or more


def _delete_attempts(connection: Connection, before: float) -> bool:
    until = _until(connection, select(attempts.c.at).where(attempts.c.at < before, ~OPEN), before)
    old = (attempts.c.at < before, attempts.c.at <= until, ~OPEN)
    _carry(connection, connection.execute(select(attempts.c.key, attempts.c.at, attempts.c.usd).where(*old)))
    connection.execute(delete(attempts).where(*old))
    return until < before


def _delete_requests(connection: Connection, before: float) -> bool:
    until = _until(connection, select(requests.c.at).where(requests.c.at < before), before)
    connection.execute(delete(requests).where(requests.c.at < before, requests.c.at <= until))
    return until < before


def _until(connection: Connection, old: Select[float], before: float) -> float:
    """The moment of the last that goes now; `before` where all go that are to go."""
    last = connection.execute(old.order_by("at").offset(AT_ONCE - 1).limit(1)).scalar()
    return before if last is None else last


def _carry(connection: Connection, rows: Iterable[Row[str, float, int | None]]) -> None:
    sums: dict[tuple[str, int], int] = defaultdict(int)
    for key, at, usd in rows:
        if usd is not None:
            sums[key, int(at // DAY)] += usd
    if sums:
        new = insert(carried)
        connection.execute(
            new.on_conflict_do_update(index_elements=["key", "day"], set_={"usd": carried.c.usd + new.excluded.usd}),
            [{"key": key, "day": day, "usd": usd} for (key, day), usd in sums.items()],
        )
