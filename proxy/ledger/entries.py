"""Which kept answer a request was given: asked by commands, beside a running proxy or without one."""

from pathlib import Path

from sqlalchemy import Connection, select

from proxy.ledger.opening import database, explained, open_existing
from proxy.ledger.schema import NO_HIT, requests


def entry_of(directory: Path, request: str) -> bytes | None:
    """The cache's key of this request's answer. None: it has none, or there is no such request, or no ledger.

    Raises StartupError where the ledger is damaged or of another version, OSError where it cannot be read.
    """
    made = open_existing(directory, read_only=True)
    if made is None:
        return None
    with explained(database(directory)), made.connect() as connection:
        return find(connection, request)


def find(connection: Connection, request: str) -> bytes | None:
    """The same of an open ledger. Hits are in no index by their id: of those, the newest are looked through first."""
    wanted = select(requests.c.entry).where(requests.c.id == request)
    indexed = connection.execute(wanted.where(NO_HIT)).first()
    if indexed is None:
        indexed = connection.execute(wanted.order_by(requests.c.at.desc()).limit(1)).first()
    return None if indexed is None else indexed[0]
