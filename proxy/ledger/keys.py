"""Keys that are made by command or by an administrator, and live in the ledger's database.

Rule: a secret is shown once and kept as its SHA-256. A key is never deleted and its id never used again: spendings and
entries are owned by it. Any process may call these, beside a running proxy; each has a connection of its own.
"""

import secrets
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Engine, insert, select, update
from sqlalchemy.exc import OperationalError

from proxy.core.access import Allowance, Grant, Limits, digest
from proxy.errors import InvalidRequest, NotFound
from proxy.ledger import marks
from proxy.ledger.opening import database, explained, is_busy, open_database, open_existing, transaction
from proxy.ledger.schema import keys

PREFIX = "sk-penstock-"
TRIES = 6  # each waits for as long as opening.PATIENCE says

T = TypeVar("T")


class KeyRow(msgspec.Struct, frozen=True):
    """A key as it is kept. Times are seconds since the epoch; `revoked`: since when it is not in force."""

    grant: Grant
    digest: bytes
    created: float
    revoked: float | None = None

    @property
    def id(self) -> str:
        return self.grant.id

    @property
    def name(self) -> str:
        return self.grant.name


def create_key(directory: Path, grant: Grant, *, now: float) -> tuple[KeyRow, str]:
    """A new key with these rights (its `id` is chosen here), and its secret, which nobody can tell again.

    The ledger is made if there is none. Raises InvalidRequest where a key of this name is in force, StartupError or
    OSError where the ledger is of no use.
    """
    secret = PREFIX + secrets.token_urlsafe(32)

    def create(connection: Connection) -> KeyRow:
        same = _named(connection, grant.name)
        if same is not None and same.revoked is None:
            raise InvalidRequest(
                f"A key named {grant.name!r} is in force: revoke it first, or choose another name.", param="name"
            )
        row = KeyRow(msgspec.structs.replace(grant, id=_new_id(connection)), digest(secret.encode()), now)
        connection.execute(insert(keys).values(_values(row)))
        marks.add(connection, marks.KEYS)
        return row

    return _change(directory, create), secret


def revoke_key(directory: Path, wanted: str, *, now: float) -> KeyRow:
    """The key of this id or name, which is not in force from now on; one that was revoked stays as it was.

    Raises NotFound, StartupError, OSError.
    """

    def revoke(connection: Connection) -> KeyRow:
        row = _found(connection, wanted)
        if row.revoked is None:
            connection.execute(update(keys).where(keys.c.id == row.id).values(revoked=now))
            marks.add(connection, marks.KEYS)
        return _found(connection, row.id)

    if not database(directory).exists():
        raise _unknown(wanted)
    return _change(directory, revoke)


def list_keys(directory: Path) -> list[KeyRow]:
    """Every key that was ever made, the oldest first; none where there is no ledger. Raises StartupError, OSError."""
    order = (keys.c.created, keys.c.id)
    return _read(directory, [], lambda there: [_row(each) for each in there.execute(select(keys).order_by(*order))])


def revision(directory: Path) -> int:
    """A number that is another after each key that was made or revoked. Made to be polled: it takes less than 1 ms.

    Raises StartupError, OSError.
    """
    return _read(directory, 0, lambda connection: marks.read(connection, marks.KEYS))


def grants(rows: Iterable[KeyRow]) -> dict[bytes, Grant]:
    """Of the keys that are not revoked, by the SHA-256 of their secret. Expiry is judged at each request."""
    return {row.digest: row.grant for row in rows if row.revoked is None}


def _read(directory: Path, absent: T, read: Callable[[Connection], T]) -> T:
    made = open_existing(directory, read_only=True)
    if made is None:
        return absent
    with explained(database(directory)), made.connect() as connection:
        return read(connection)


def _change(directory: Path, change: Callable[[Connection], T]) -> T:
    with explained(database(directory)):
        made = open_database(directory)
        for _ in range(TRIES - 1):
            try:
                return _changed(made, change)
            except OperationalError as error:
                if not is_busy(error):
                    raise
        return _changed(made, change)


def _changed(made: Engine, change: Callable[[Connection], T]) -> T:
    with transaction(made) as connection:
        return change(connection)


def _new_id(connection: Connection) -> str:
    while True:
        new = f"pk_{secrets.token_hex(8)}"
        if connection.execute(select(keys.c.id).where(keys.c.id == new)).first() is None:
            return new


def _found(connection: Connection, wanted: str) -> KeyRow:
    row = connection.execute(select(keys).where(keys.c.id == wanted)).first()
    found = _row(row) if row is not None else _named(connection, wanted)
    if found is None:
        raise _unknown(wanted)
    return found


def _named(connection: Connection, name: str) -> KeyRow | None:
    named = select(keys).where(keys.c.name == name).order_by(keys.c.revoked.is_(None).desc(), keys.c.created.desc())
    row = connection.execute(named.limit(1)).first()
    return None if row is None else _row(row)


def _unknown(wanted: str) -> NotFound:
    return NotFound(f"There is no key {wanted!r} in the ledger.")


def _values(row: KeyRow) -> dict[str, Any]:
    grant = row.grant
    return {
        "id": grant.id,
        "name": grant.name,
        "digest": row.digest,
        "created": row.created,
        "expires": grant.expires,
        "revoked": row.revoked,
        "models": msgspec.json.encode(grant.models).decode(),
        "passthrough": msgspec.json.encode(sorted(segment.decode() for segment in grant.passthrough)).decode(),
        "requests_per_minute": grant.limits.requests_per_minute,
        "tokens_per_minute": grant.limits.tokens_per_minute,
        "max_concurrent": grant.limits.max_concurrent,
        "budget_usd": None if grant.budget is None else str(grant.budget.usd),
        "budget_per": None if grant.budget is None else grant.budget.per,
    }


def _row(found: Any) -> KeyRow:
    budget = None
    if found.budget_usd is not None:
        budget = Allowance(Decimal(found.budget_usd), found.budget_per)
    passthrough = msgspec.json.decode(found.passthrough, type=list[str])
    grant = Grant(
        name=found.name,
        id=found.id,
        models=msgspec.json.decode(found.models, type=tuple[str, ...]),
        passthrough=frozenset(segment.encode() for segment in passthrough),
        limits=Limits(found.requests_per_minute, found.tokens_per_minute, found.max_concurrent),
        budget=budget,
        expires=found.expires,
    )
    return KeyRow(grant, bytes(found.digest), found.created, found.revoked)
