"""Sums over requests and attempts, by what they have in common.

Rule: money is summed as it was written, exactly. What has no known cost adds nothing to a sum and is counted beside it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Connection, FromClause, Integer, and_, case, cast, func, or_, select

from proxy.ledger.schema import NO_HIT, OPEN, attempts, keys, requests
from proxy.ledger.sums import By, count, day, group_of, money, ordered, read, reading, told

F = TypeVar("F")

UNDER_WAY = "under way"  # the outcome of what has no answer yet
TICK = 0.0001  # seconds: medians are told to this
_CACHED = ("hit", "stale")

# What programs are told of a group: name, attribute of Figures.
MEMBERS = {
    "requests": "requests",
    "hits": "hits",
    "collapsed": "collapsed",
    "misses": "misses",
    "hit_ratio": "hit_ratio",
    "attempts": "attempts",
    "input_tokens": "input",
    "cached_tokens": "cached",
    "output_tokens": "output",
    "usd": "usd",
    "estimated_usd": "estimated",
    "unknown_costs": "unknown",
    "saved_cache_usd": "saved_cache",
    "saved_collapse_usd": "saved_collapse",
    "saved_routing_usd": "saved_routing",
    "saved_prompt_cache_usd": "saved_prompt_cache",
    "unknown_savings": "saved_unknown",
    "median_first_byte_seconds": "first",
}


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one group. `collapsed`, `misses`: those that were answered. `unknown`: attempts whose cost is not known;
    `saved_unknown`: answers whose saving is not, by whatever it came.

    `estimated` is the part of `usd` that no provider said. `prompt_cache`: what the providers' own caches saved.
    `first`: the median of the seconds to the first byte, of what was answered with 200.
    """

    requests: int = 0
    hits: int = 0
    collapsed: int = 0
    misses: int = 0
    attempts: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0
    usd: Decimal = Decimal(0)
    estimated: Decimal = Decimal(0)
    unknown: int = 0
    saved_cache: Decimal = Decimal(0)
    saved_collapse: Decimal = Decimal(0)
    saved_routing: Decimal = Decimal(0)
    saved_prompt_cache: Decimal = Decimal(0)
    saved_unknown: int = 0
    first: float | None = None

    @property
    def hit_ratio(self) -> float | None:
        """Of what the cache might have answered, what it did, or another's call; None where there was none."""
        again = self.hits + self.collapsed
        return again / (again + self.misses) if again + self.misses else None


@dataclass(frozen=True, slots=True)
class Summary(Generic[F]):
    """`groups`: by their value in the rows. `names`: of the ledger's keys, by id."""

    groups: dict[str, F]
    total: F
    names: dict[str, str]


def summary(directory: Path, by: By, since: float | None) -> Summary[Figures] | None:
    """What was written since then (seconds since the epoch; None: ever). None where there is no ledger.

    Reads beside a proxy that writes. Raises StartupError, OSError.
    """
    with reading(directory) as connection:
        if connection is None:
            return None
        groups = _sums(connection, by, 0.0 if since is None else since)
        found = {name: group.figures for name, group in groups.items()}
        by_size = ordered(found, by, lambda each: (each.usd, each.requests))
        return Summary(by_size, _total(groups.values()), names_of(connection))


def told_of(by: By, group: str, figures: Figures, names: Mapping[str, str]) -> dict[str, object]:
    """A group as programs are told of it. `names`: of keys, by id."""
    return group_of(by, group, names) | told(figures, MEMBERS)


def names_of(connection: Connection) -> dict[str, str]:
    """Of the ledger's keys, by id."""
    return {row.id: row.name for row in connection.execute(select(keys.c.id, keys.c.name))}


def _total(groups: "Iterable[_Group]") -> Figures:
    total = _Group()
    for group in groups:
        total.add(group.sums)
        total.times.update(group.times)
    return total.figures


class _Group:
    """What is known of one. `times`: how often each, in TICKs."""

    def __init__(self) -> None:
        self.sums: dict[str, Any] = {}
        self.times: Counter[int] = Counter()

    def add(self, sums: Mapping[str, Any]) -> None:
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0) + value

    @property
    def figures(self) -> Figures:
        return Figures(**self.sums, first=self._median())

    def _median(self) -> float | None:
        left = (self.times.total() + 1) // 2
        for ticks in sorted(self.times):
            left -= self.times[ticks]
            if left <= 0:
                return round(ticks * TICK, 4)  # as it is told: a product of floats has digits of its own
        return None


def _sums(connection: Connection, by: By, since: float) -> dict[str, _Group]:
    groups: dict[str, _Group] = defaultdict(_Group)
    of_request, of_attempt, tables = _grouping(by)
    asked = select(of_request, *_of_requests()).where(requests.c.at >= since)
    tried = select(of_attempt, *_of_attempts()).select_from(tables).where(attempts.c.at >= since)
    for rows in (asked.group_by(of_request), tried.group_by(of_attempt)):
        for row in connection.execute(rows).mappings():
            groups[str(row["of"])].add(read(row))
    ticks = cast(func.round(requests.c.first / TICK), Integer).label("ticks")
    timed = (requests.c.at >= since, requests.c.status == 200, requests.c.first.is_not(None))
    for group, each, often in connection.execute(
        select(of_request, ticks, func.count()).where(*timed).group_by(of_request, ticks)
    ):
        groups[str(group)].times[each] += often
    return groups


def _grouping(by: By) -> tuple[ColumnElement[Any], ColumnElement[Any], FromClause]:
    """What requests and attempts have in common, and where it stands for attempts."""
    tables: FromClause = attempts
    of_request: ColumnElement[Any]
    of_attempt: ColumnElement[Any]
    if by == "outcome":
        of_request = requests.c.outcome
        of_attempt = func.coalesce(of_request, UNDER_WAY)
        tables = attempts.outerjoin(requests, and_(requests.c.id == attempts.c.request, NO_HIT))
    elif by == "day":
        of_request, of_attempt = day(requests.c.at), day(attempts.c.at)
    else:
        of_request, of_attempt = requests.c[by], attempts.c[by]
    return of_request.label("of"), of_attempt.label("of"), tables


def _of_requests() -> Iterable[ColumnElement[Any]]:
    answered = requests.c.status < 400
    hit, joined_in = requests.c.outcome.in_(_CACHED), and_(requests.c.outcome == "collapsed", answered)
    yield func.count().label("requests")
    yield count(hit).label("hits")
    yield count(joined_in).label("collapsed")
    yield count(and_(requests.c.outcome == "miss", answered)).label("misses")
    in_part = requests.c.outcome == "miss"  # of a list some inputs may have been known
    yield from money(case((or_(hit, in_part), requests.c.saved)), "saved_cache")
    yield from money(case((joined_in, requests.c.saved)), "saved_collapse")
    free = or_(hit, and_(joined_in, requests.c.leader.is_not(None)))  # some pay, as their leader had left
    spared = and_(free, requests.c.status == 200)
    yield count(and_(spared, requests.c.saved.is_(None))).label("saved_unknown")


def _of_attempts() -> Iterable[ColumnElement[Any]]:
    yield func.count().label("attempts")
    for name in ("input", "cached", "output"):
        yield func.coalesce(func.sum(attempts.c[name]), 0).label(name)
    yield from money(attempts.c.usd, "usd")
    yield from money(case((or_(attempts.c.estimated, OPEN), attempts.c.usd)), "estimated")
    yield count(attempts.c.usd.is_(None)).label("unknown")
    yield from money(attempts.c.routing, "saved_routing")
    unknown = and_(attempts.c.input.is_not(None), attempts.c.usd.is_not(None), attempts.c.routing.is_(None))
    yield count(unknown).label("saved_unknown")
    yield from money(attempts.c.prompt_cache, "saved_prompt_cache")
