"""The tier on disk: bytes by key, bounded, shared by processes, and never trusted.

Layout: `<directory>/cache.db` (SQLite), values of 1 MiB and more as files beside it. Each value is stored after its key
and length, because the file may be altered beneath us: a flipped byte in an index leads from one key to another's row.
Rule: every failure here is one of FAILURES, and costs an answer from the cache, nothing else.
"""

import contextlib
import fcntl
import logging
import os
import sqlite3
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import diskcache

from proxy.store.files import private_directory
from proxy.store.rows import RowCache, RowError, RowHead, read_value

logger = logging.getLogger(__name__)

# sqlite3.Warning is no sqlite3.Error; ValueError is what diskcache runs into where rows are not what it expects.
FAILURES: tuple[type[Exception], ...] = (diskcache.Timeout, sqlite3.Error, sqlite3.Warning, OSError, ValueError)

_HEAD = struct.Struct(">HQ")  # length of the key, length of the blob; then the key, then the blob
_DATABASE = "cache.db"
_DAMAGED = "cache.damaged"
_ROWS = 100  # looked through at a time
_START = 4096  # bytes of a value that are looked at: its key, and what an entry says of itself
_ABANDONED = 600.0  # seconds after which a file without a row is nobody's write any more
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# Only while opening, where they mean tables of another shape; later a full disk may cause them too.
_MISSHAPEN = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH)


@dataclass(frozen=True, slots=True)
class DiskStats:
    """`bytes` counts the database's pages and the files, expired entries included, the write-ahead log not.
    `evictions`: entries that went to make room, or as they had expired, since this process opened it.
    """

    entries: int
    bytes: int
    limit: int
    evictions: int = 0


@dataclass(frozen=True, slots=True)
class Swept:
    """A part of the disk was looked through, up to row number `upto` (None: to the end); these keys were removed."""

    upto: int | None
    keys: list[bytes]


class ByteTier(Protocol):
    """What is asked of a disk tier (DiskTier; tests hand in others): synchronous, every failure one of FAILURES."""

    def get(self, key: bytes) -> bytes | None: ...
    def put(self, key: bytes, blob: bytes, expire: float) -> None: ...
    def delete(self, key: bytes) -> bool: ...
    def sweep(self, purged: Callable[[bytes], bool], after: int = 0) -> "Swept": ...
    def all_keys(self) -> list[bytes]: ...
    def clear(self) -> int: ...
    def stats(self) -> DiskStats: ...
    def close(self) -> None: ...


class DiskTier:
    """Blobs by key in `directory`, at most `size_limit` bytes; the one that was stored longest ago goes first.

    Synchronous and slow at times (a put may take 100 ms): never called on an event loop. Any thread may call it.
    The constructor raises FAILURES where the directory can't be used; a corrupt database is set aside instead, of which
    `was_set_aside` tells.
    """

    was_set_aside = False

    def __init__(self, directory: Path, size_limit: int) -> None:
        self._directory = directory.absolute()
        self._limit = size_limit
        self._unmeasured = 0  # bytes put since the volume was last asked for
        private_directory(self._directory)
        self._presence = os.open(self._directory / "in-use", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._presence, fcntl.LOCK_SH)
            self._cache = self._open()
            self._sweep(time.time() - _ABANDONED)
            self._cache.close()  # this thread's connection: the tier is used from others
        except BaseException:
            os.close(self._presence)
            raise

    def get(self, key: bytes) -> bytes | None:
        """The blob, or None where there is none. Raises FAILURES; RowError where the row is not one that we wrote."""
        try:
            value = self._cache.get(key)
        except FAILURES as error:
            self._failed(error)
            raise
        return None if value is None else blob_of(key, value)

    def put(self, key: bytes, blob: bytes, expire: float) -> None:
        """Keep the blob for `expire` seconds. One larger than the limit is not kept. Raises FAILURES."""
        value = _head(key, len(blob)) + blob
        if len(value) > self._limit:
            self.delete(key)
            return
        try:
            self._cache.set(key, value, expire)
            # diskcache culls a fixed number of rows a put: a large value after many small ones would go past the limit.
            # To ask costs as much as to put, so it is asked once in a while, at most 1 % of the limit late.
            self._unmeasured += len(value)
            if self._unmeasured > self._limit // 100:
                self._unmeasured = 0
                if self._cache.volume() > self._limit:
                    self._cache.cull()
        except FAILURES as error:
            self._failed(error)
            raise

    def delete(self, key: bytes) -> bool:
        """Remove one key; was it there? Raises FAILURES."""
        try:
            return bool(self._cache.delete(key))
        except FAILURES as error:
            self._failed(error)
            raise

    def sweep(self, purged: Callable[[bytes], bool], after: int = 0) -> Swept:
        """Remove those of the next few blobs behind row `after` of whose first bytes `purged` is true.

        What is no blob of ours is judged as an empty one. Takes milliseconds. Raises FAILURES.
        """
        try:
            rows = self._cache.heads(after, _ROWS, _START)
            found = [row for row in rows if purged(_start(row))]
            removed = self._cache.remove(found) if found else []
        except FAILURES as error:
            self._failed(error)
            raise
        keys = [row.key for row in removed if isinstance(row.key, bytes)]
        return Swept(rows[-1].number if len(rows) == _ROWS else None, keys)

    def all_keys(self) -> list[bytes]:
        """Every key that has a row, expired ones included. Raises FAILURES."""
        try:
            return [key for key in self._cache.all_keys() if isinstance(key, bytes)]
        except FAILURES as error:
            self._failed(error)
            raise

    def clear(self) -> int:
        """Remove everything; how many rows there were. Raises FAILURES, with a part removed."""
        try:
            return int(self._cache.clear())
        except FAILURES as error:
            self._failed(error)
            raise

    def stats(self) -> DiskStats:
        """Raises FAILURES."""
        try:
            return DiskStats(len(self._cache), self._cache.volume(), self._limit, self._cache.culled)
        except FAILURES as error:
            self._failed(error)
            raise

    def close(self) -> None:
        """Close this thread's connection (others close with their threads) and say that we are gone."""
        self._cache.close()
        if self._presence >= 0:
            os.close(self._presence)
            self._presence = -1

    def _failed(self, error: Exception) -> None:
        # A COMMIT that failed leaves its transaction open on this connection, and every later put would fail too.
        self._cache.close()
        if _code(error) in _CORRUPT:
            self._remember_damage()

    def _remember_damage(self) -> None:
        """Have the database set aside at the next start.

        Not now: SQLite deletes the write-ahead log by its name when a connection closes, so connections of other
        threads to the renamed database would take the new one's log away. What can still be read is read until then.
        """
        try:
            os.close(os.open(self._directory / _DAMAGED, os.O_CREAT | os.O_EXCL, 0o600))
        except OSError:
            return  # it is known, or can't be written down
        logger.warning("cache: %s is damaged; it is set aside at the next start", self._directory / _DATABASE)

    def _open(self) -> RowCache:
        if not (self._directory / _DAMAGED).exists():
            try:
                return RowCache(self._directory, self._limit)
            except FAILURES as error:
                if not isinstance(error, ValueError) and _code(error) not in _CORRUPT + _MISSHAPEN:
                    raise
        self._set_aside()
        return RowCache(self._directory, self._limit)

    def _set_aside(self) -> None:
        """Rename the database. The one set aside before goes: a failing disk must not fill itself with them."""
        # Raises BlockingIOError while another process has the database open; see _remember_damage.
        fcntl.flock(self._presence, fcntl.LOCK_EX | fcntl.LOCK_NB)
        before = list(self._directory.glob("cache.corrupt-*"))
        numbers = [int(number) for _, _, number in (path.name.partition("-") for path in before) if number.isdigit()]
        aside = self._directory / f"cache.corrupt-{max(numbers, default=0) + 1}"
        for path in before:
            path.unlink()
        for suffix in ("", "-wal", "-shm"):
            path = self._directory / (_DATABASE + suffix)
            if path.exists():
                path.rename(str(aside) + suffix)
        (self._directory / _DAMAGED).unlink(missing_ok=True)
        fcntl.flock(self._presence, fcntl.LOCK_SH)
        self.was_set_aside = True
        logger.warning("cache: %s was damaged; it is kept as %s, the cache starts empty", _DATABASE, aside)

    def _sweep(self, before: float) -> None:
        """Remove files that no row points to: `kill -9` between file and row leaves one, and no limit counts it."""
        try:
            # os.walk, because another process may remove a directory while we look into it: Path.glob raises then.
            for folder, _, names in os.walk(self._directory):
                for path in (Path(folder, name) for name in names if name.endswith(".val")):
                    with contextlib.suppress(OSError):
                        if path.lstat().st_mtime < before and not self._is_known(path):
                            self._cache.disk.remove(path.relative_to(self._directory).as_posix())
        except FAILURES as error:
            self._failed(error)  # the next start sweeps again

    def _is_known(self, path: Path) -> bool:
        # The file begins with its key: one look into an index, where a search for its name would read every row.
        try:
            start = read_value(path, _HEAD.size + 0xFFFF)
            key = start[_HEAD.size :][: _HEAD.unpack_from(start)[0]]
        except (RowError, struct.error):
            return False
        name = path.relative_to(self._directory).as_posix()
        return self._cache.filename_of(key) == name


def describe(error: BaseException) -> str:
    """A failure for the log: the words of the system, and of anything else the type only (it may quote an entry)."""
    kind = type(error).__name__
    return f"{kind}: {error}" if isinstance(error, OSError | sqlite3.Error) else kind


def _code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code of an extended one


def _head(key: bytes, length: int) -> bytes:
    return _HEAD.pack(len(key), length) + key


def _start(row: RowHead) -> bytes:
    """The first bytes of its blob, or nothing."""
    if not isinstance(row.key, bytes):
        return b""
    start = _HEAD.size + len(row.key)
    return row.head[start:] if row.head[_HEAD.size : start] == row.key else b""


def blob_of(key: bytes, value: bytes) -> bytes:
    """What was put under this key, of what lies there. Raises RowError: it is another's, or cut."""
    head = _head(key, max(0, len(value) - _HEAD.size - len(key)))
    if not value.startswith(head):
        raise RowError("a value of another key or length")
    return value[len(head) :]
