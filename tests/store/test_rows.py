import os
import pickle
import sqlite3
from pathlib import Path
from typing import Any

import diskcache
import pytest
from diskcache.core import MODE_BINARY, MODE_PICKLE, MODE_RAW, MODE_TEXT

from proxy.store.rows import MIN_FILE_SIZE, ByteDisk, RowCache, RowError, read_value

NAME = "ab/cd/" + "0" * 28 + ".val"


class Trap:
    """Unpickling this makes a file: proof that something was executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def disk(tmp_path: Path) -> ByteDisk:
    return ByteDisk(str(tmp_path))


@pytest.mark.parametrize("key", ["text", 1, 1.5, None, ("a",), bytearray(b"a")])
def test_a_key_that_is_not_bytes_is_refused(disk: ByteDisk, key: object) -> None:
    with pytest.raises(TypeError):
        disk.put(key)


@pytest.mark.parametrize("value", ["text", 1, 1.5, None, ("a",), bytearray(b"a")])
def test_a_value_that_is_not_bytes_is_refused(disk: ByteDisk, value: object) -> None:
    with pytest.raises(TypeError):
        disk.store(value, False)


@pytest.mark.parametrize(("key", "raw"), [(b"a", 0), (pickle.dumps("a"), False), ("a", 1), (1, 1), (b"a", "1")])
def test_a_stored_key_that_is_not_plain_bytes_is_never_loaded(disk: ByteDisk, key: object, raw: object) -> None:
    with pytest.raises(RowError):
        disk.get(key, raw)


@pytest.mark.parametrize("mode", [None, 0, MODE_TEXT, MODE_PICKLE, 5, "1", b"1", 1.5])
@pytest.mark.parametrize(("filename", "value"), [(None, b"value"), (NAME, None)])
def test_a_row_of_any_other_mode_is_refused(
    disk: ByteDisk, mode: object, filename: object, value: object, tmp_path: Path
) -> None:
    (tmp_path / "ab" / "cd").mkdir(parents=True)
    (tmp_path / NAME).write_bytes(b"value")
    with pytest.raises(RowError):
        disk.fetch(mode, filename, value, False)


@pytest.mark.parametrize("value", ["text", 1, 1.5, None])
def test_a_raw_value_that_is_not_bytes_is_refused(disk: ByteDisk, value: object) -> None:
    with pytest.raises(RowError):
        disk.fetch(MODE_RAW, None, value, False)


ESCAPES = [
    "../secret",
    "/etc/passwd",
    "ab/../../secret",
    "ab/cd/../../../secret",
    NAME + "\n",
    NAME + "\0",
    "./" + NAME,
    "cache.db",
    "",
    b"ab/cd/" + b"0" * 28 + b".val",
    1,
    None,
]


@pytest.mark.parametrize("filename", ESCAPES)
def test_a_filename_that_diskcache_would_not_have_made_is_neither_read_nor_removed(
    tmp_path: Path, filename: object
) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "inside" / "cache.db").write_bytes(b"")
    disk = ByteDisk(str(tmp_path / "inside"))
    with pytest.raises(RowError):
        disk.fetch(MODE_BINARY, filename, None, False)
    disk.remove(filename)
    assert (tmp_path / "secret").exists()
    assert (tmp_path / "inside" / "cache.db").exists()


def test_the_file_that_is_named_like_ours_is_read_and_removed(disk: ByteDisk, tmp_path: Path) -> None:
    (tmp_path / "ab" / "cd").mkdir(parents=True)
    (tmp_path / NAME).write_bytes(b"value")
    assert disk.fetch(MODE_BINARY, NAME, None, False) == b"value"
    disk.remove(NAME)
    assert not (tmp_path / NAME).exists()


def test_a_link_is_not_followed_and_a_pipe_does_not_hold_the_reader(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError):
        read_value(tmp_path / "link")
    with pytest.raises(RowError):
        read_value(tmp_path / "pipe")
    assert read_value(tmp_path / "secret", 3) == b"sec"


def test_values_of_a_mebibyte_and_more_lie_in_files(tmp_path: Path) -> None:
    cache = RowCache(tmp_path, 1 << 30)
    cache.set(b"small", b"x" * (MIN_FILE_SIZE - 1), 60)
    assert list(tmp_path.glob("*/*/*.val")) == []
    cache.set(b"large", b"x" * MIN_FILE_SIZE, 60)
    (file,) = tmp_path.glob("*/*/*.val")
    assert cache.filename_of(b"large") == file.relative_to(tmp_path).as_posix()
    assert cache.filename_of(b"small") is None
    assert len(cache.get(b"large")) == MIN_FILE_SIZE
    cache.close()


def test_a_row_that_is_refused_leaves_no_file(tmp_path: Path) -> None:
    cache = RowCache(tmp_path, 1 << 30)
    cache._sql("CREATE TRIGGER full BEFORE INSERT ON Cache BEGIN SELECT RAISE(ABORT, 'full'); END")
    with pytest.raises(sqlite3.IntegrityError):
        cache.set(b"large", b"x" * MIN_FILE_SIZE, 60)
    assert list(tmp_path.glob("*/*/*.val")) == []
    cache.close()


def plant(directory: Path, sql: str, *values: object) -> None:
    connection = sqlite3.connect(directory / "cache.db")
    with connection:
        connection.execute(sql, values)
    connection.close()


def test_planted_settings_choose_neither_class_nor_directory_nor_method(tmp_path: Path) -> None:
    diskcache.Cache(str(tmp_path / "cache")).close()
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    for key, value in {
        "_directory": str(tmp_path / "elsewhere"),
        "_disk": trap,
        "_timeout": 10**9,
        "disk": "diskcache.JSONDisk",
        "disk_fetch": trap,
        "disk__directory": str(tmp_path / "elsewhere"),
        "disk_min_file_size": 0,
        "disk_pickle_protocol": trap,
        "eviction_policy": "none",
        "statistics": 1,
        "size_limit": 10**15,
        "sqlite_journal_mode": "off",
        "sqlite_cache_size = 1; ATTACH 'x' AS y": 1,
        "get": trap,
        "set": trap,
    }.items():
        plant(tmp_path / "cache", "INSERT OR REPLACE INTO Settings VALUES (?, ?)", key, value)
    cache = RowCache(tmp_path / "cache", 1 << 30)
    cache.set(b"key", b"value", 60)
    assert cache.get(b"key") == b"value"
    assert type(cache.disk) is ByteDisk
    assert cache.disk.min_file_size == MIN_FILE_SIZE
    assert (cache.directory, cache.size_limit) == (str(tmp_path / "cache"), 1 << 30)
    assert (cache.eviction_policy, cache.statistics) == ("least-recently-stored", 0)
    assert cache._sql("PRAGMA journal_mode").fetchone() == ("wal",)
    cache.close()
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


@pytest.mark.parametrize("planted", ["text", 1.5, None, b"\x80\x04."])
def test_a_planted_size_that_is_no_number_is_refused(tmp_path: Path, planted: object) -> None:
    RowCache(tmp_path, 1 << 30).close()
    plant(tmp_path, "UPDATE Settings SET value = ? WHERE key = 'size'", planted)
    with pytest.raises(RowError):
        RowCache(tmp_path, 1 << 30)


def test_a_directory_that_diskcache_would_rename_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELSEWHERE", str(tmp_path / "b"))
    with pytest.raises(OSError, match="variable"):
        RowCache(tmp_path / "$ELSEWHERE", 1 << 30)
