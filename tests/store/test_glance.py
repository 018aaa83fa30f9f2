"""A look at a cache from outside: it finds what a proxy would find, and changes nothing."""

import os
from pathlib import Path

import pytest

from proxy.store.disk import DiskTier
from proxy.store.glance import glance

LIMIT = 64 << 20
SMALL, LARGE = b"s" * 32, b"l" * 32


def filled(directory: Path) -> DiskTier:
    disk = DiskTier(directory, LIMIT)
    disk.put(SMALL, b"small", 1e6)
    disk.put(LARGE, b"x" * (3 << 20), 1e6)
    return disk


def looked(directory: Path, key: bytes, now: float = 0.0) -> bytes | None:
    with glance(directory) as found:
        return found.get(key, now)


def state(directory: Path) -> dict[str, tuple[int, int]]:
    found = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): (path.stat().st_size, path.stat().st_mtime_ns) for path in found}


def test_it_finds_what_was_put_beside_who_puts_and_afterwards(tmp_path: Path) -> None:
    disk = filled(tmp_path)
    assert looked(tmp_path, SMALL) == b"small"
    disk.put(b"n" * 32, b"new", 1e6)
    assert looked(tmp_path, b"n" * 32) == b"new"
    disk.close()
    assert looked(tmp_path, LARGE) == b"x" * (3 << 20)
    assert looked(tmp_path, b"o" * 32) is None


def test_it_changes_and_makes_nothing(tmp_path: Path) -> None:
    filled(tmp_path).close()
    before = state(tmp_path)
    assert looked(tmp_path, SMALL) == b"small"
    assert state(tmp_path) == before
    assert looked(tmp_path / "absent", SMALL) is None
    assert not (tmp_path / "absent").exists()


def test_what_has_expired_or_was_altered_is_not_there(tmp_path: Path) -> None:
    disk = filled(tmp_path)
    disk.put(b"e" * 32, b"expires", 60)
    disk._cache._sql("UPDATE Cache SET key = ? WHERE key = ?", (b"m" * 32, SMALL))
    disk.close()
    assert looked(tmp_path, b"e" * 32) == b"expires"
    assert looked(tmp_path, b"e" * 32, now=1e12) is None
    assert looked(tmp_path, b"m" * 32) is None
    (file,) = tmp_path.rglob("*.val")
    file.write_bytes(file.read_bytes()[:-1])
    assert looked(tmp_path, LARGE) is None
    file.unlink()
    assert looked(tmp_path, LARGE) is None


def test_a_file_that_a_row_may_not_name_is_not_read(tmp_path: Path) -> None:
    disk = filled(tmp_path)
    disk._cache._sql("UPDATE Cache SET filename = ? WHERE key = ?", (str(Path(__file__)), LARGE))
    disk.close()
    assert looked(tmp_path, LARGE) is None


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    filled(tmp_path).close()
    os.truncate(tmp_path / "cache.db", 5000)
    with pytest.raises(OSError, match=str(tmp_path)):
        looked(tmp_path, SMALL)
    (tmp_path / "cache.db").write_bytes(b"no database at all" * 1000)
    with pytest.raises(OSError, match=str(tmp_path)):
        looked(tmp_path, SMALL)
