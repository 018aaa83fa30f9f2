"""Sums over what was fetched in shadow mode: what the cache would have answered of it, and what that had cost.

Rule: what would have been saved is what the attempts of these very requests were charged: no price of today, no guess.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, case, func, or_, select

from proxy.ledger.figures import Summary, names_of
from proxy.ledger.schema import OPEN, attempts, requests
from proxy.ledger.sums import By, count, day, money, ordered, read, reading

# What programs are told of a group: name, attribute of Shadows.
SHADOW_MEMBERS = {
    "requests": "requests",
    "would_hit": "hits",
    "would_join": "collapsed",
    "would_ratio": "ratio",
    "usd": "usd",
    "estimated_usd": "estimated",
    "unknown_costs": "unknown",
    "would_save_cache_usd": "saved_cache",
    "would_save_collapse_usd": "saved_collapse",
    "would_save_ratio": "share",
}

_HIT, _JOINED = requests.c.shadow == "hit", requests.c.shadow == "collapsed"


@dataclass(frozen=True, slots=True)
class Shadows:
    """Of one group: `requests` that the cache might have answered, less those that it must not, which are in no figure.

    `hits`, `collapsed`: that it would have. `usd`: of their attempts, of which no provider said `estimated`; `unknown`:
    attempts whose cost is not known.
    """

    requests: int = 0
    hits: int = 0
    collapsed: int = 0
    usd: Decimal = Decimal(0)
    estimated: Decimal = Decimal(0)
    unknown: int = 0
    saved_cache: Decimal = Decimal(0)
    saved_collapse: Decimal = Decimal(0)

    @property
    def answered(self) -> int:
        """Requests that nobody would have paid."""
        return self.hits + self.collapsed

    @property
    def saved(self) -> Decimal:
        return self.saved_cache + self.saved_collapse

    @property
    def ratio(self) -> float | None:
        """Of all requests; None where there were none."""
        return self.answered / self.requests if self.requests else None

    @property
    def share(self) -> float | None:
        """Of what was spent; None where nothing was."""
        return float(self.saved / self.usd) if self.usd else None


def shadow_summary(directory: Path, by: By, since: float | None) -> Summary[Shadows] | None:
    """Of requests that came since then (seconds since the epoch; None: ever) and are over. None: there is no ledger.

    Reads beside a proxy that writes. Raises StartupError, OSError.
    """
    with reading(directory) as connection:
        if connection is None:
            return None
        groups = _sums(connection, by, 0.0 if since is None else since)
        by_size = ordered(groups, by, lambda each: (each.usd, each.requests))
        return Summary(by_size, _total(groups.values()), names_of(connection))


def _total(groups: Iterable[Shadows]) -> Shadows:
    found, nothing = list(groups), Shadows()
    names = Shadows.__dataclass_fields__
    return Shadows(**{name: sum((getattr(each, name) for each in found), getattr(nothing, name)) for name in names})


def _sums(connection: Connection, by: By, since: float) -> dict[str, Shadows]:
    """Attempts count for what their requests have in common: a model that could not answer, for the one that did."""
    of = (day(requests.c.at) if by == "day" else requests.c[by]).label("of")
    meant = and_(requests.c.at >= since, requests.c.shadow.is_not(None))
    paid = requests.join(attempts, attempts.c.request == requests.c.id)
    sums: dict[str, dict[str, Any]] = {}
    for rows in (
        select(of, *_of_requests()).where(meant).group_by(of),
        select(of, *_of_attempts()).select_from(paid).where(meant).group_by(of),
    ):
        for row in connection.execute(rows).mappings():
            sums.setdefault(str(row["of"]), {}).update(read(row))
    return {group: Shadows(**each) for group, each in sums.items()}


def _of_requests() -> Iterable[ColumnElement[Any]]:
    yield func.count().label("requests")
    yield count(_HIT).label("hits")
    yield count(_JOINED).label("collapsed")


def _of_attempts() -> Iterable[ColumnElement[Any]]:
    yield from money(attempts.c.usd, "usd")
    yield from money(case((or_(attempts.c.estimated, OPEN), attempts.c.usd)), "estimated")
    yield count(attempts.c.usd.is_(None)).label("unknown")
    yield from money(case((_HIT, attempts.c.usd)), "saved_cache")
    yield from money(case((_JOINED, attempts.c.usd)), "saved_collapse")
