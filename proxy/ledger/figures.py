"""Sums over requests and attempts, by what they have in common.

Rule: money is summed as it was written, exactly. What has no known cost adds nothing to a sum and is counted beside it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    String,
    and_,
    case,
    cast,
    func,
    or_,
    select,
)

from proxy.ledger.opening import database, explained, open_existing
from proxy.ledger.pico import dollars
from proxy.ledger.schema import NO_HIT, OPEN, attempts, keys, requests
from proxy.ledger.spending import DAY, HALF, joined

By = Literal["key", "model", "provider", "day", "outcome"]

UNDER_WAY = "under way"  # the outcome of what has no answer yet
TICK = 0.0001  # seconds: medians are told to this
_CACHED = ("hit", "stale")

# What programs are told of a group: name, attribute of Figures.
MEMBERS = {
    "requests": "requests",
    "hits": "hits",
    "collapsed": "collapsed",
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
    """Of one group. `unknown`: attempts whose cost is not known; `saved_unknown`: answers whose saving is not, by
    whatever it came.

    `estimated` is the part of `usd` that no provider said. `prompt_cache`: what the providers' own caches saved.
    `first`: the median of the seconds to the first byte, of what was answered with 200.
    """

    requests: int = 0
    hits: int = 0
    collapsed: int = 0
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
        """Of all requests; None where there were none."""
        return self.hits / self.requests if self.requests else None


@dataclass(frozen=True, slots=True)
class Summary:
    """`groups`: by their value in the rows. `names`: of the ledger's keys, by id."""

    groups: dict[str, Figures]
    total: Figures
    names: dict[str, str]


def summary(directory: Path, by: By, since: float | None) -> Summary | None:
    """What was written since then (seconds since the epoch; None: ever). None where there is no ledger.

    Reads beside a proxy that writes. Raises StartupError, OSError.
    """
    made = open_existing(directory, read_only=True)
    if made is None:
        return None
    with explained(database(directory)), made.connect() as connection:
        named = connection.execute(select(keys.c.id, keys.c.name))
        groups = _sums(connection, by, 0.0 if since is None else since)
        return Summary(_sorted(groups, by), _total(groups.values()), {row.id: row.name for row in named})


def told_of(by: By, group: str, figures: Figures, names: Mapping[str, str]) -> dict[str, object]:
    """A group as programs are told of it. `names`: of keys, by id."""
    name: dict[str, object] = {"name": names.get(group, "")} if by == "key" else {}
    return {by: group} | name | members_of(figures)


def members_of(figures: Figures) -> dict[str, object]:
    """Money as text, with all its digits: numbers of JSON are exact to few readers."""
    values = {name: getattr(figures, attribute) for name, attribute in MEMBERS.items()}
    return {name: digits(value) if isinstance(value, Decimal) else value for name, value in values.items()}


def digits(usd: Decimal) -> str:
    return format(usd.normalize(), "f")


def _sorted(groups: "dict[str, _Group]", by: By) -> dict[str, Figures]:
    """Days in their order; of others, who spent most comes first."""
    found = {name: group.figures for name, group in groups.items()}
    if by == "day":
        return {_date(day): found[day] for day in sorted(found, key=int)}
    return dict(sorted(found.items(), key=lambda item: (-item[1].usd, -item[1].requests, item[0])))


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
            groups[str(row["of"])].add(_read(row))
    ticks = cast(func.round(requests.c.first / TICK), Integer).label("ticks")
    timed = (requests.c.at >= since, requests.c.status == 200, requests.c.first.is_not(None))
    for group, each, count in connection.execute(
        select(of_request, ticks, func.count()).where(*timed).group_by(of_request, ticks)
    ):
        groups[str(group)].times[each] += count
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
        of_request, of_attempt = _day(requests.c.at), _day(attempts.c.at)
    else:
        of_request, of_attempt = requests.c[by], attempts.c[by]
    return of_request.label("of"), of_attempt.label("of"), tables


def _read(row: Any) -> dict[str, Any]:
    """The sums of a row; of money there are two halves."""
    sums = {name: value for name, value in row.items() if name != "of" and "__" not in name}
    for name in (name.removesuffix("__large") for name in row if name.endswith("__large")):
        sums[name] = dollars(joined(row[f"{name}__large"], row[f"{name}__small"]))
    return sums


def _of_requests() -> Iterable[ColumnElement[Any]]:
    hit, joined_in = requests.c.outcome.in_(_CACHED), requests.c.outcome == "collapsed"
    yield func.count().label("requests")
    yield _count(hit).label("hits")
    yield _count(joined_in).label("collapsed")
    yield from _money(case((hit, requests.c.saved)), "saved_cache")
    yield from _money(case((joined_in, requests.c.saved)), "saved_collapse")
    spared = and_(or_(hit, joined_in), requests.c.status == 200)
    yield _count(and_(spared, requests.c.saved.is_(None))).label("saved_unknown")


def _of_attempts() -> Iterable[ColumnElement[Any]]:
    yield func.count().label("attempts")
    for name in ("input", "cached", "output"):
        yield func.coalesce(func.sum(attempts.c[name]), 0).label(name)
    yield from _money(attempts.c.usd, "usd")
    yield from _money(case((or_(attempts.c.estimated, OPEN), attempts.c.usd)), "estimated")
    yield _count(attempts.c.usd.is_(None)).label("unknown")
    yield from _money(attempts.c.routing, "saved_routing")
    unknown = and_(attempts.c.input.is_not(None), attempts.c.usd.is_not(None), attempts.c.routing.is_(None))
    yield _count(unknown).label("saved_unknown")
    yield from _money(attempts.c.prompt_cache, "saved_prompt_cache")


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)


def _money(column: ColumnElement[Any], name: str) -> Iterable[ColumnElement[Any]]:
    yield func.sum(column // HALF).label(f"{name}__large")
    yield func.sum(column % HALF).label(f"{name}__small")


def _day(at: ColumnElement[float]) -> ColumnElement[str]:
    """The number of the UTC day: not a cast alone, by which some databases cut and others round."""
    return cast(cast(func.round(at / DAY - 0.5), Integer), String)


def _date(day: str) -> str:
    return datetime.fromtimestamp(int(day) * DAY, UTC).date().isoformat()
