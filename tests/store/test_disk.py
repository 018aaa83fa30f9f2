import logging
import os
import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from diskcache.core import MODE_BINARY, MODE_PICKLE, MODE_RAW, MODE_TEXT

from proxy.store.disk import FAILURES, DiskTier, describe
from proxy.store.rows import MIN_FILE_SIZE, RowError

KEY = b"k" * 32
LIMIT = 64 << 20
NAME = "ab/cd/" + "0" * 28 + ".val"


class Trap:
    """Unpickling this makes a directory: proof that something was executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def tier(tmp_path: Path) -> Iterator[DiskTier]:
    tier = DiskTier(tmp_path / "cache", LIMIT)
    yield tier
    tier.close()


def reach(directory: Path, sql: str, *values: object) -> list[Any]:
    """Alter the database behind the tier's back."""
    connection = sqlite3.connect(directory / "cache.db")
    with connection:
        rows = connection.execute(sql, values).fetchall()
    connection.close()
    return rows


def plant(directory: Path, key: bytes, raw: int, mode: int, filename: str | None, value: object) -> None:
    reach(
        directory,
        "INSERT INTO Cache (key, raw, store_time, expire_time, access_time, mode, filename, value)"
        " VALUES (?, ?, 1.0, NULL, 1.0, ?, ?, ?)",
        *(key, raw, mode, filename, value),
    )


def files(directory: Path) -> list[Path]:
    return list(directory.glob("*/*/*.val"))


@pytest.mark.parametrize("size", [0, 1, 1000, MIN_FILE_SIZE - 100, MIN_FILE_SIZE, 3 * MIN_FILE_SIZE])
def test_a_blob_of_any_size_comes_back_equal(tier: DiskTier, size: int) -> None:
    blob = os.urandom(size)
    tier.put(KEY, blob, 60)
    assert tier.get(KEY) == blob


def test_another_key_is_none(tier: DiskTier) -> None:
    tier.put(KEY, b"blob", 60)
    assert tier.get(b"other") is None


def test_the_newer_blob_replaces_the_older_and_its_file(tier: DiskTier, tmp_path: Path) -> None:
    tier.put(KEY, b"x" * MIN_FILE_SIZE, 60)
    tier.put(KEY, b"new", 60)
    assert tier.get(KEY) == b"new"
    assert files(tmp_path / "cache") == []


def test_what_was_deleted_is_none_and_its_file_is_gone(tier: DiskTier, tmp_path: Path) -> None:
    tier.put(KEY, b"x" * MIN_FILE_SIZE, 60)
    tier.delete(KEY)
    tier.delete(KEY)
    assert tier.get(KEY) is None
    assert files(tmp_path / "cache") == []


def test_a_removal_says_whether_there_was_anything(tier: DiskTier) -> None:
    tier.put(KEY, b"blob", 60)
    assert [tier.delete(KEY), tier.delete(KEY)] == [True, False]


def sweep(tier: DiskTier, purged: Callable[[bytes], bool]) -> tuple[list[bytes], int]:
    """What all parts removed, and how many parts there were."""
    removed: list[bytes] = []
    upto: int | None = 0
    parts = 0
    while upto is not None:
        part = tier.sweep(purged, upto)
        removed, upto, parts = removed + part.keys, part.upto, parts + 1
    return removed, parts


def test_a_sweep_removes_what_it_is_told_in_parts_of_a_hundred_rows(tier: DiskTier, tmp_path: Path) -> None:
    for number in range(250):
        tier.put(b"%d" % number, b"keep" if number % 2 else b"drop", 60)
    tier.put(b"large", b"drop" * MIN_FILE_SIZE, 60)
    tier.put(b"expired", b"drop", 0.0)
    removed, parts = sweep(tier, lambda start: start.startswith(b"drop"))
    assert parts == 3
    assert {b"large", b"expired"} < set(removed)
    assert len(removed) == 127
    assert tier.stats().entries == 125
    assert [tier.get(b"2"), tier.get(b"3")] == [None, b"keep"]
    assert files(tmp_path / "cache") == []
    assert sweep(tier, lambda start: start.startswith(b"drop")) == ([], 2)


def test_a_sweep_looks_at_the_first_bytes_of_blobs_only(tier: DiskTier) -> None:
    seen: list[bytes] = []

    def see(start: bytes) -> bool:
        seen.append(start)
        return False

    blobs = [b"", b"short", b"a" * 100_000, b"b" * MIN_FILE_SIZE]
    for number, blob in enumerate(blobs):
        tier.put(b"%032d" % number, blob, 60)
    assert sweep(tier, see) == ([], 1)
    assert [start[:5] for start in seen] == [b"", b"short", b"aaaaa", b"bbbbb"]
    assert all(len(start) <= 4096 for start in seen)
    assert [tier.get(b"%032d" % number) for number in range(4)] == blobs


def test_what_is_no_blob_of_ours_is_judged_as_an_empty_one(tier: DiskTier, tmp_path: Path) -> None:
    plant(tmp_path / "cache", b"text", 1, MODE_TEXT, NAME, None)
    plant(tmp_path / "cache", b"number", 1, MODE_RAW, None, 5)
    plant(tmp_path / "cache", b"nothing", 1, MODE_RAW, None, None)
    plant(tmp_path / "cache", b"gone", 1, MODE_BINARY, NAME, None)
    tier.put(KEY, b"of another", 60)
    reach(tmp_path / "cache", "UPDATE Cache SET key = ? WHERE key = ?", b"m" * 32, KEY)
    tier.put(b"good", b"good", 60)
    removed, _ = sweep(tier, lambda start: start == b"")
    assert set(removed) == {b"text", b"number", b"nothing", b"gone", b"m" * 32}
    assert tier.get(b"good") == b"good"
    assert tier.stats().entries == 1


def test_what_was_put_anew_since_it_was_looked_at_is_not_removed(tier: DiskTier) -> None:
    tier.put(KEY, b"old", 60)
    tier.put(b"other", b"old", 60)

    def judge(start: bytes) -> bool:
        tier.put(KEY, b"new", 60)
        return start == b"old"

    assert tier.sweep(judge).keys == [b"other"]
    assert [tier.get(KEY), tier.get(b"other")] == [b"new", None]


def test_clearing_counts_what_it_removed(tier: DiskTier, tmp_path: Path) -> None:
    for number in range(250):
        tier.put(b"%d" % number, b"blob", 60)
    tier.put(KEY, b"x" * MIN_FILE_SIZE, 60)
    assert tier.stats().entries == 251
    assert tier.clear() == 251
    assert tier.stats().entries == 0
    assert files(tmp_path / "cache") == []


def test_it_outlives_the_process_that_wrote_it(tmp_path: Path) -> None:
    first = DiskTier(tmp_path, LIMIT)
    first.put(KEY, b"blob", 60)
    first.close()
    second = DiskTier(tmp_path, LIMIT)
    assert second.get(KEY) == b"blob"
    second.close()


def test_the_directory_is_closed_to_others(tier: DiskTier, tmp_path: Path) -> None:
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_an_expired_blob_is_none(tier: DiskTier, tmp_path: Path) -> None:
    tier.put(b"at once", b"blob", 0.0)
    assert tier.get(b"at once") is None
    tier.put(KEY, b"blob", 60)
    ((left,),) = reach(tmp_path / "cache", "SELECT expire_time - store_time FROM Cache WHERE key = ?", KEY)
    assert left == pytest.approx(60)
    reach(tmp_path / "cache", "UPDATE Cache SET expire_time = expire_time - 61")
    assert tier.get(KEY) is None


def on_disk(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


LOG = 6 << 20  # bytes: the write-ahead log may grow to 4 MiB and a transaction before it is cut back


@pytest.mark.parametrize("size", [20_000, 300_000, MIN_FILE_SIZE])
def test_three_times_the_limit_stays_within_it(tmp_path: Path, size: int) -> None:
    limit = 6 << 20
    tier = DiskTier(tmp_path, limit)
    count = 3 * limit // size
    blob = os.urandom(size)
    for number in range(count):
        tier.put(b"%d" % number, blob, 60)
        assert tier.stats().bytes <= limit
        assert on_disk(tmp_path) <= limit + LOG
    assert tier.get(b"%d" % (count - 1)) == blob
    assert tier.get(b"0") is None
    stats = tier.stats()
    assert stats.bytes > limit // 2
    assert stats.entries + stats.evictions == count
    tier.close()
    assert on_disk(tmp_path) <= limit + LOG


def test_what_has_expired_counts_as_an_eviction_once_it_goes(tier: DiskTier) -> None:
    for number in range(3):
        tier.put(b"%d" % number, b"blob", -1.0)
    for _ in range(10):
        tier.put(KEY, b"blob", 60)
    assert (tier.stats().entries, tier.stats().evictions) == (1, 3)
    assert tier.delete(KEY)
    assert tier.stats().evictions == 3


def test_a_large_blob_after_many_small_ones_stays_within_the_limit(tmp_path: Path) -> None:
    limit = 4 << 20
    tier = DiskTier(tmp_path, limit)
    for number in range(900):
        tier.put(b"%d" % number, b"x" * 4000, 60)
    tier.put(KEY, b"x" * (3 << 20), 60)
    assert tier.stats().bytes <= limit
    assert tier.get(KEY) is not None
    tier.close()


def test_a_blob_larger_than_the_limit_is_not_kept_and_neither_is_the_older_one(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path, 1 << 20)
    tier.put(b"other", b"blob", 60)
    tier.put(KEY, b"old", 60)
    tier.put(KEY, b"x" * (2 << 20), 60)
    assert tier.get(KEY) is None
    assert tier.get(b"other") == b"blob"
    tier.close()


def test_a_planted_pickle_in_a_row_is_a_failure_and_is_not_loaded(tier: DiskTier, tmp_path: Path) -> None:
    plant(tmp_path / "cache", KEY, 1, MODE_PICKLE, None, pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(RowError):
        tier.get(KEY)
    tier.delete(KEY)
    assert tier.get(KEY) is None
    assert not (tmp_path / "sprung").exists()


def test_a_planted_pickle_in_a_file_is_a_failure_and_is_not_loaded(tier: DiskTier, tmp_path: Path) -> None:
    (tmp_path / "cache" / "ab" / "cd").mkdir(parents=True)
    (tmp_path / "cache" / NAME).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    plant(tmp_path / "cache", KEY, 1, MODE_PICKLE, NAME, None)
    with pytest.raises(RowError):
        tier.get(KEY)
    assert not (tmp_path / "sprung").exists()


def test_a_planted_pickled_key_is_loaded_by_nothing_that_the_tier_does(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    DiskTier(directory, 1 << 20).close()
    plant(directory, pickle.dumps(Trap(tmp_path / "sprung")), 0, MODE_RAW, None, b"value")
    tier = DiskTier(directory, 1 << 20)
    with pytest.raises(RowError):
        list(tier._cache)
    with pytest.raises(RowError):
        list(tier._cache.iterkeys())
    for number in range(8):
        tier.put(b"%d" % number, b"x" * 300_000, 60)
        tier.get(b"%d" % number)
    tier.stats()
    tier.clear()
    tier.close()
    assert not (tmp_path / "sprung").exists()


def test_the_traps_of_these_tests_do_spring(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))  # noqa: S301
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize("filename", ["../victim", "ab/../../victim", "{absolute}"])
def test_a_planted_path_is_neither_read_nor_removed(tier: DiskTier, tmp_path: Path, filename: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"secret")
    plant(tmp_path / "cache", KEY, 1, MODE_BINARY, filename.format(absolute=victim), None)
    with pytest.raises(RowError):
        tier.get(KEY)
    tier.put(KEY, b"new", 60)
    assert tier.get(KEY) == b"new"
    plant(tmp_path / "cache", b"second", 1, MODE_BINARY, filename.format(absolute=victim), None)
    tier.clear()
    assert victim.read_bytes() == b"secret"


def test_a_row_of_text_or_of_another_key_is_a_failure(tier: DiskTier, tmp_path: Path) -> None:
    plant(tmp_path / "cache", b"text", 1, MODE_TEXT, NAME, None)
    plant(tmp_path / "cache", b"number", 1, MODE_RAW, None, 5)
    for key in (b"text", b"number"):
        with pytest.raises(RowError):
            tier.get(key)
    tier.put(KEY, b"of another tenant", 60)
    reach(tmp_path / "cache", "UPDATE Cache SET key = ? WHERE key = ?", b"m" * 32, KEY)
    with pytest.raises(RowError):
        tier.get(b"m" * 32)


@pytest.mark.parametrize("length", [0, 1, 40, MIN_FILE_SIZE - 1, MIN_FILE_SIZE + 41])
def test_a_truncated_file_is_a_failure(tier: DiskTier, tmp_path: Path, length: int) -> None:
    tier.put(KEY, b"x" * MIN_FILE_SIZE, 60)
    (file,) = files(tmp_path / "cache")
    os.truncate(file, length)
    with pytest.raises(RowError):
        tier.get(KEY)


def test_a_file_that_is_gone_is_none(tier: DiskTier, tmp_path: Path) -> None:
    tier.put(KEY, b"x" * MIN_FILE_SIZE, 60)
    files(tmp_path / "cache")[0].unlink()
    assert tier.get(KEY) is None


def test_files_that_no_row_points_to_are_removed_at_the_next_start_once_they_are_old(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path, LIMIT)
    for key in (b"a", b"b"):
        tier.put(key, key * MIN_FILE_SIZE, 60)
    tier.close()
    (tmp_path / "ab" / "cd").mkdir(parents=True, exist_ok=True)
    for name in (NAME, NAME.replace("0", "1")):
        (tmp_path / name).write_bytes(files(tmp_path)[0].read_bytes())
    for path in files(tmp_path):
        if path.name != "1" * 28 + ".val":
            os.utime(path, (1, 1))
    tier = DiskTier(tmp_path, LIMIT)
    assert not (tmp_path / NAME).exists()
    assert (tmp_path / NAME.replace("0", "1")).exists()  # perhaps being written by another process
    assert tier.get(b"a") == b"a" * MIN_FILE_SIZE
    assert tier.get(b"b") == b"b" * MIN_FILE_SIZE
    tier.close()


def test_a_sweep_that_fails_is_left_to_the_next_start(tmp_path: Path) -> None:
    class Unsure(DiskTier):
        def _is_known(self, path: Path) -> bool:  # noqa: ARG002
            raise sqlite3.OperationalError("disk I/O error")

    (tmp_path / "ab" / "cd").mkdir(parents=True)
    (tmp_path / NAME).write_bytes(b"orphan")
    os.utime(tmp_path / NAME, (1, 1))
    (tmp_path / "ab" / "cd" / "dangling.val").symlink_to(tmp_path / "nowhere")
    os.utime(tmp_path / "ab" / "cd" / "dangling.val", (1, 1), follow_symlinks=False)
    Unsure(tmp_path, LIMIT).close()
    assert (tmp_path / NAME).exists()
    DiskTier(tmp_path, LIMIT).close()
    assert not (tmp_path / NAME).exists()


BROKEN = {
    "no database": lambda path: path.write_bytes(b"this is no database at all " * 400),
    "a header only": lambda path: path.write_bytes(path.read_bytes()[:100]),
    "zeros": lambda path: path.write_bytes(bytes(len(path.read_bytes()))),
    "the schema overwritten": lambda path: path.write_bytes(
        path.read_bytes()[:100] + b"\xff" * 3996 + path.read_bytes()[4096:]
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_corrupt_database_is_set_aside_and_the_cache_starts_empty(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    tier = DiskTier(tmp_path, LIMIT)
    tier.put(KEY, b"blob", 60)
    tier.close()
    BROKEN[how](tmp_path / "cache.db")
    tier = DiskTier(tmp_path, LIMIT)
    assert tier.get(KEY) is None
    tier.put(KEY, b"new", 60)
    assert tier.get(KEY) == b"new"
    tier.close()
    assert (tmp_path / "cache.corrupt-1").exists()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "cache.corrupt-1" in caplog.text


def test_tables_of_another_shape_are_set_aside_too(tmp_path: Path) -> None:
    DiskTier(tmp_path, LIMIT).close()
    reach(tmp_path, "ALTER TABLE Cache RENAME COLUMN value TO other")
    tier = DiskTier(tmp_path, LIMIT)
    tier.put(KEY, b"new", 60)
    assert tier.get(KEY) == b"new"
    tier.close()


def test_only_the_last_database_that_was_set_aside_is_kept(tmp_path: Path) -> None:
    for _ in range(3):
        DiskTier(tmp_path, LIMIT).close()
        (tmp_path / "cache.db").write_bytes(b"no database " * 1000)
    DiskTier(tmp_path, LIMIT).close()
    assert [path.name for path in tmp_path.glob("cache.corrupt-*")] == ["cache.corrupt-3"]


def test_the_database_of_another_process_is_not_set_aside_beneath_it(tmp_path: Path) -> None:
    other = DiskTier(tmp_path, LIMIT)
    (tmp_path / "cache.damaged").write_bytes(b"")
    with pytest.raises(BlockingIOError):
        DiskTier(tmp_path, LIMIT)
    other.close()
    DiskTier(tmp_path, LIMIT).close()
    assert (tmp_path / "cache.corrupt-1").exists()
    assert not (tmp_path / "cache.damaged").exists()


def test_damage_that_is_found_later_is_set_aside_at_the_next_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tier = DiskTier(tmp_path, LIMIT)
    for number in range(200):
        tier.put(b"%d" % number, b"x" * 3000, 60)
    tier.close()
    tier = DiskTier(tmp_path, LIMIT)
    whole = (tmp_path / "cache.db").read_bytes()
    (tmp_path / "cache.db").write_bytes(whole[: 4096 * 20] + b"\xff" * (len(whole) - 4096 * 20))
    failures = 0
    for number in range(200):
        try:
            assert tier.get(b"%d" % number) in {None, b"x" * 3000}
        except FAILURES:
            failures += 1
    assert failures > 100
    assert (tmp_path / "cache.damaged").exists()
    assert len(caplog.records) == 1
    tier.close()
    tier = DiskTier(tmp_path, LIMIT)
    assert tier.stats().entries == 0
    tier.close()


def test_flipped_bytes_are_a_miss_a_failure_or_a_blob_of_the_same_length(tmp_path: Path) -> None:
    tier = DiskTier(tmp_path, LIMIT)
    blobs = {b"%032d" % number: os.urandom(500 * number) for number in range(40)}
    for key, blob in blobs.items():
        tier.put(key, blob, 60)
    tier.close()
    whole = (tmp_path / "cache.db").read_bytes()
    for start in range(0, 97, 8):
        flipped = bytearray(whole)
        for at in range(4096 + start * 11, len(whole), 1511 + start):
            flipped[at] ^= 0x55
        (tmp_path / "cache.db").write_bytes(flipped)
        survey(tmp_path, blobs)


def survey(directory: Path, blobs: dict[bytes, bytes]) -> None:
    try:
        tier = DiskTier(directory, LIMIT)
    except FAILURES:
        return
    for key, blob in blobs.items():
        try:
            found = tier.get(key)
        except FAILURES:
            continue
        assert found is None or len(found) == len(blob)  # the digest is the entry's own
    tier.close()


def test_a_directory_that_can_not_be_used_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FAILURES):
        DiskTier(tmp_path / "file", LIMIT)
    (tmp_path / "cache" / "cache.db").mkdir(parents=True)
    with pytest.raises(FAILURES):
        DiskTier(tmp_path / "cache", LIMIT)


@pytest.mark.skipif(os.geteuid() == 0, reason="root ignores modes")
def test_a_directory_that_can_not_be_written_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o500)
    with pytest.raises(FAILURES):
        DiskTier(tmp_path / "cache", LIMIT)


def test_a_full_disk_is_a_failure_that_leaves_no_file_and_passes(tier: DiskTier, tmp_path: Path) -> None:
    tier.put(b"before", b"blob", 60)
    pages = tier._cache._sql("PRAGMA page_count").fetchone()[0]
    tier._cache._sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(FAILURES):
        tier.put(KEY, b"x" * 900_000, 60)
    assert tier.get(b"before") == b"blob"  # on a new connection, without the bound of the old one
    tier.put(KEY, b"x" * 900_000, 60)
    assert tier.get(KEY) == b"x" * 900_000
    assert files(tmp_path / "cache") == []


def test_a_writer_elsewhere_that_never_ends_is_a_failure_and_reads_go_on(tier: DiskTier, tmp_path: Path) -> None:
    tier.put(b"before", b"blob", 60)
    tier._cache._timeout = 0.01
    tier._cache.close()
    other = sqlite3.connect(tmp_path / "cache" / "cache.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(FAILURES):
        tier.put(KEY, b"x" * MIN_FILE_SIZE, 60)
    assert tier.get(b"before") == b"blob"
    assert files(tmp_path / "cache") == []
    other.execute("ROLLBACK")
    other.close()
    tier.put(KEY, b"blob", 60)
    assert tier.get(KEY) == b"blob"


def test_two_processes_share_it(tier: DiskTier, tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from proxy.store.disk import DiskTier\n"
        "tier = DiskTier(pathlib.Path(sys.argv[1]), 64 << 20)\n"
        "for n in range(100): tier.put(b'theirs%d' % n, b'x' * 20000, 60)\n"
        "print(tier.get(b'ours')); tier.close()"
    )
    tier.put(b"ours", b"blob", 60)
    other = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "cache")], stdout=subprocess.PIPE, text=True)
    for number in range(100):
        tier.put(b"ours%d" % number, b"y" * 20_000, 60)
    out, _ = other.communicate(timeout=20)
    assert out == "b'blob'\n"
    assert tier.stats().entries == 201
    assert all(tier.get(b"theirs%d" % number) == b"x" * 20_000 for number in range(100))
    assert all(tier.get(b"ours%d" % number) == b"y" * 20_000 for number in range(100))


def test_what_is_logged_of_a_failure_quotes_the_system_and_never_an_entry() -> None:
    assert describe(OSError(28, "No space left on device")) == "OSError: [Errno 28] No space left on device"
    assert describe(sqlite3.OperationalError("database or disk is full")).endswith("disk is full")
    assert describe(ValueError("a prompt")) == "ValueError"
