"""Numbers by name, beside the rows: each a look-up by primary key."""

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from proxy.ledger.schema import marks

RUNNING = "running"  # there while a proxy is at work, and after one that died
KEYS = "keys"  # how often a key was made or revoked


def read(connection: Connection, name: str) -> int:
    """The number; 0 where there is none."""
    return connection.execute(select(marks.c.value).where(marks.c.name == name)).scalar() or 0


def add(connection: Connection, name: str) -> None:
    """Count one more."""
    start = insert(marks).values(name=name, value=1)
    connection.execute(start.on_conflict_do_update(index_elements=["name"], set_={"value": marks.c.value + 1}))


def remove(connection: Connection, name: str) -> None:
    """From now on there is none."""
    connection.execute(delete(marks).where(marks.c.name == name))
