"""What sums over rows are made of, whatever is summed.

Rule: money is summed as it was written, exactly.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeVar

from sqlalchemy import ColumnElement, Connection, Integer, String, case, cast, func

from proxy.ledger.opening import database, explained, open_existing
from proxy.ledger.pico import dollars
from proxy.ledger.spending import DAY, HALF, joined

By = Literal["key", "model", "provider", "day", "outcome"]
F = TypeVar("F")


@contextmanager
def reading(directory: Path) -> Iterator[Connection | None]:
    """The ledger of this directory, beside a proxy that writes; None where there is none.

    Raises StartupError, OSError.
    """
    made = open_existing(directory, read_only=True)
    if made is None:
        yield None
        return
    with explained(database(directory)), made.connect() as connection:
        yield connection


def count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    """Of the rows of which it is true."""
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)


def money(column: ColumnElement[Any], name: str) -> Iterable[ColumnElement[Any]]:
    """Two halves, of which `read` makes USD under this name."""
    yield func.sum(column // HALF).label(f"{name}__large")
    yield func.sum(column % HALF).label(f"{name}__small")


def day(at: ColumnElement[float]) -> ColumnElement[str]:
    """The number of the UTC day: not a cast alone, by which some databases cut and others round."""
    return cast(cast(func.round(at / DAY - 0.5), Integer), String)


def read(row: Mapping[Any, Any]) -> dict[str, Any]:
    """The sums of a row by their names, less what they are sums of, which is `of`."""
    sums = {name: value for name, value in row.items() if name != "of" and "__" not in name}
    for name in (name.removesuffix("__large") for name in row if name.endswith("__large")):
        sums[name] = dollars(joined(row[f"{name}__large"], row[f"{name}__small"]))
    return sums


def ordered(groups: dict[str, F], by: By, size: Callable[[F], tuple[Decimal, int]]) -> dict[str, F]:
    """Days in their order, as dates; of others, the largest comes first."""
    if by == "day":
        return {_date(number): groups[number] for number in sorted(groups, key=int)}

    def place(name: str) -> tuple[Decimal, int, str]:
        usd, requests = size(groups[name])
        return -usd, -requests, name

    return {name: groups[name] for name in sorted(groups, key=place)}


def digits(usd: Decimal) -> str:
    """All of them, and no exponent."""
    return format(usd.normalize(), "f")


def told(figures: object, members: Mapping[str, str]) -> dict[str, object]:
    """Figures as programs are told of them: `members` are attributes by name. Money is text, with all its digits:
    numbers of JSON are exact to few readers.
    """
    values = {name: getattr(figures, attribute) for name, attribute in members.items()}
    return {name: digits(value) if isinstance(value, Decimal) else value for name, value in values.items()}


def group_of(by: By, group: str, names: Mapping[str, str]) -> dict[str, object]:
    """The same of what a group is called. `names`: of keys, by id."""
    name: dict[str, object] = {"name": names.get(group, "")} if by == "key" else {}
    return {by: group} | name


def _date(number: str) -> str:
    return datetime.fromtimestamp(int(number) * DAY, UTC).date().isoformat()
