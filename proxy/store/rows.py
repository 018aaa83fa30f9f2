"""diskcache, kept to bytes.

Rule: nothing that lies in a cache directory is ever executed. diskcache unpickles what a row tells it to
(CVE-2025-69872, without a fix), opens whatever path a row names, and sets its own attributes from a table in the same
file. Here a key and a value are bytes or they are an error, a value's file has a name that diskcache could have given,
and what the table says about settings is not listened to.
"""

import contextlib
import os
import re
import sqlite3
import stat
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import diskcache
from diskcache.core import ENOVAL, METADATA, MODE_BINARY, MODE_RAW, UNKNOWN

MIN_FILE_SIZE = 1 << 20  # bytes; smaller values lie in the row
_EVERY_COLUMN = (
    "SELECT key, raw, store_time, expire_time, access_time, access_count, tag, size, mode, filename, value"
    " FROM Cache LIMIT 0"
)
_NAME = re.compile(r"[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{28}\.val")

# Every setting that diskcache knows is given: none is left for the file to choose.
_SETTINGS = diskcache.DEFAULT_SETTINGS | {
    "statistics": 0,  # counting in the file would turn each read into a write
    "eviction_policy": "least-recently-stored",  # for the same reason: 8 µs a read against 49
    # Culled at once by a put: few, because ten of the largest entries may be the whole cache. DiskTier culls the rest.
    "cull_limit": 2,
    "disk_min_file_size": MIN_FILE_SIZE,
    # Bytes: what a large transaction leaves of the write-ahead log, which no limit counts, is cut back to this.
    "sqlite_journal_size_limit": 4 << 20,
}


# size, mode, filename, value: what a row holds of a value
Columns = tuple[int, int, str | None, memoryview | None]


class RowHead(NamedTuple):
    """A row as it was when it was looked at: where, since when (put anew, it has another time), its key if that is
    one, and the first bytes of its value; empty where they are not to be had.
    """

    number: int
    stored: float
    key: object
    head: bytes


class RowError(ValueError):
    """What was found is not what was written: a planted, cut or altered row."""


class ByteDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
    """Stores and reads bytes. Everything else is a TypeError on the way in and a RowError on the way out."""

    def __init__(self, directory: str, **_from_the_file: object) -> None:
        super().__init__(directory, min_file_size=MIN_FILE_SIZE)
        self._last = threading.local()

    def put(self, key: object) -> tuple[Any, bool]:
        if type(key) is not bytes:
            raise TypeError("a key must be bytes")
        return sqlite3.Binary(key), True

    def get(self, key: object, raw: object) -> bytes:
        if raw != 1 or type(key) is not bytes:
            raise RowError("a key that is not bytes")
        return key

    def store(self, value: object, read: bool, key: object = UNKNOWN) -> Columns:  # noqa: ARG002  # diskcache's
        if type(value) is not bytes or read:
            raise TypeError("a value must be bytes")
        if len(value) < self.min_file_size:
            return 0, MODE_RAW, None, sqlite3.Binary(value)
        name, path = self.filename()
        self._last.name = name
        self._write(path, iter((value,)), "xb")
        return len(value), MODE_BINARY, name, None

    def fetch(self, mode: object, filename: object, value: object, read: bool) -> bytes:
        if read:
            raise TypeError("values are read whole")
        if mode == MODE_RAW and type(value) is bytes and filename is None:
            return value
        if mode == MODE_BINARY and value is None and is_ours(filename):
            return read_value(Path(self._directory, str(filename)))
        raise RowError("a value that is not bytes")

    def remove(self, file_path: object) -> None:
        # Rows say which files go when they are replaced or culled: a planted one must not choose.
        if is_ours(file_path):
            super().remove(file_path)

    def settle(self, *, stored: bool) -> None:
        """This thread's last `store` is over: where no row points to its file, the file goes."""
        name, self._last.name = getattr(self._last, "name", None), None
        if name is not None and not stored:
            self.remove(name)


class RowCache(diskcache.Cache):  # type: ignore[misc]
    """A diskcache.Cache of bytes in `directory`, bounded to `size_limit` bytes, that waits a second for a lock."""

    def __init__(self, directory: Path, size_limit: int) -> None:
        self._ours = _SETTINGS | {"size_limit": size_limit}
        self.culled = 0  # rows that went as others came, or as they had expired
        if os.path.expandvars(directory) != str(directory):
            raise OSError(f"{directory}: diskcache would take $ for a variable")
        super().__init__(str(directory), timeout=1, disk=ByteDisk, **self._ours)
        # A table of another shape is taken as it is, and then fails at every put: better now, when it can be set aside.
        self._sql(_EVERY_COLUMN).close()

    def reset(self, key: str, value: Any = ENOVAL, update: bool = True) -> Any:
        """Called by diskcache with each row of the Settings table: it sets attributes, pragmas and numbers from it.

        A row named `_directory` would lead elsewhere, `disk_fetch` would replace a method: only what we know gets
        through, and with our value.
        """
        if key in self._ours:
            return super().reset(key, self._ours[key], update)
        if key not in METADATA:
            return None
        found = super().reset(key, value, update)
        if type(found) is not int:
            raise RowError(f"the cache's {key} is not a number")
        return found

    def set(self, key: bytes, value: bytes, expire: float) -> None:
        """Store, or leave no file behind: diskcache forgets it when a full disk refuses the row."""
        stored = False
        try:
            super().set(key, value, expire=expire)
            stored = True
        finally:
            self.disk.settle(stored=stored)

    def _cull(self, now: float, sql: Any, cleanup: Callable[[object], None], limit: int | None = None) -> None:
        """diskcache's own part of a put, which tells of each row that goes."""

        def counted(filename: object) -> None:
            self.culled += 1
            cleanup(filename)

        super()._cull(now, sql, counted, limit)

    def cull(self, retry: bool = False) -> int:
        count = int(super().cull(retry))
        self.culled += count
        return count

    def all_keys(self) -> list[object]:
        """What stands in the key column, unchecked, expired rows included."""
        return [row[0] for row in self._sql("SELECT key FROM Cache WHERE raw = 1")]

    def filename_of(self, key: bytes) -> str | None:
        """The file that holds this key's value, expired or not."""
        rows = self._sql("SELECT filename FROM Cache WHERE key = ? AND raw = 1", (key,)).fetchall()
        return rows[0][0] if rows else None

    def heads(self, after: int, count: int, size: int) -> list[RowHead]:
        """At most `count` rows behind row number `after`, expired ones included, with `size` bytes of their values."""
        chosen = "SELECT rowid, store_time, key, mode, filename FROM Cache WHERE rowid > ? ORDER BY rowid LIMIT ?"
        self._sql("BEGIN")  # else a row may go between its key and its value
        try:
            rows = self._sql(chosen, (after, count)).fetchall()
            heads = [
                RowHead(number, stored, key, self._head(number, mode, filename, size))
                for number, stored, key, mode, filename in rows
            ]
            self._sql("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._sql("ROLLBACK")
            raise
        return heads

    def _head(self, number: int, mode: object, filename: object, size: int) -> bytes:
        try:
            if mode == MODE_BINARY and is_ours(filename):
                return read_value(Path(self._directory, str(filename)), size)
            # A select would read the whole value to cut it.
            with self._con.blobopen("Cache", "value", number, readonly=True) as value:
                head: bytes = value.read(size)
                return head
        except (OSError, RowError, sqlite3.OperationalError):  # the last: a value that is not bytes
            return b""

    def remove(self, rows: Sequence[RowHead]) -> list[RowHead]:
        """Remove these rows with their files, save those that were put anew; which ones were removed."""
        removed: list[RowHead] = []
        with self._transact() as (sql, cleanup):
            for row in rows:
                where = (row.number, row.stored)
                found = sql("SELECT filename FROM Cache WHERE rowid = ? AND store_time = ?", where).fetchall()
                for (filename,) in found:
                    sql("DELETE FROM Cache WHERE rowid = ?", (row.number,))
                    cleanup(filename)
                    removed.append(row)
        return removed


def read_value(path: Path, limit: int = -1) -> bytes:
    """The first `limit` bytes (-1: all) of a value's file. Raises OSError, RowError where it is no plain file."""
    # Neither a link out of the directory nor a pipe that would hold a reader for ever.
    opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(opened, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            raise RowError("a value's file that is no file")
        return file.readall() if limit < 0 else file.read(limit)


def is_ours(name: object) -> bool:
    """Could diskcache have given this name to a value's file?"""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None
