"""A look at what a cache directory holds, beside a proxy that writes it or without one.

Rule: nothing there is changed or made by looking.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from diskcache.core import MODE_BINARY, MODE_RAW

from proxy.store.disk import FAILURES, blob_of
from proxy.store.rows import RowError, is_ours, read_value

PATIENCE = 5.0  # seconds that a look waits for another process's write
_ROW = "SELECT mode, filename, value FROM Cache WHERE key = ? AND raw = 1 AND (expire_time IS NULL OR expire_time > ?)"


class Glance:
    """An open directory."""

    def __init__(self, directory: Path, connection: sqlite3.Connection | None) -> None:
        self._directory = directory
        self._connection = connection

    def get(self, key: bytes, now: float) -> bytes | None:
        """The blob under this key; None where there is none, or what lies there is not what was put. Raises OSError."""
        if self._connection is None:
            return None
        try:
            row = self._connection.execute(_ROW, (key, now)).fetchone()
            return None if row is None else blob_of(key, self._value(*row))
        except (RowError, FileNotFoundError):
            return None
        except FAILURES as error:
            raise OSError(f"{self._directory}: {error}") from None

    def _value(self, mode: object, filename: object, value: object) -> bytes:
        if mode == MODE_RAW and isinstance(value, bytes):
            return value
        if mode == MODE_BINARY and is_ours(filename):
            return read_value(self._directory / str(filename))
        raise RowError("a value that is not bytes")


@contextmanager
def glance(directory: Path) -> Iterator[Glance]:
    """Look into a cache directory; one that is not there holds nothing. Raises OSError: it cannot be read."""
    path = directory / "cache.db"
    if not path.exists():
        yield Glance(directory, None)
        return
    # Without its log nobody has it open, and to open it as others would would make one.
    frozen = "" if path.with_name(path.name + "-wal").exists() else "&immutable=1"
    uri = f"{path.absolute().as_uri()}?mode=ro{frozen}"
    try:
        connection = sqlite3.connect(uri, uri=True, timeout=PATIENCE)
    except sqlite3.Error as error:
        raise OSError(f"{path}: {error}") from None
    with closing(connection):
        yield Glance(directory, connection)
