"""Commands look at a cache and empty it, beside a running proxy too, and never make one."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy.core.entry import Entry, Meta, pack
from proxy.core.purges import Selection
from proxy.errors import StartupError
from proxy.store.disk import DiskTier
from proxy.store.files import turn
from proxy.store.maintenance import cache_stats, purge_cache
from proxy.store.purges import PurgeFile
from tests.support import eventually

LIMIT = 64 << 20


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A data directory whose cache holds three entries."""
    disk = DiskTier(tmp_path / "cache", LIMIT)
    for number in range(3):
        disk.put(b"%032d" % number, b"x" * 1000, 60)
    disk.close()
    return tmp_path


def test_the_figures_are_those_of_the_disk(directory: Path) -> None:
    found = cache_stats(directory)
    assert found.entries == 3
    assert found.bytes >= 3000


def test_a_purge_forgets_all_counts_it_and_tells_the_proxy(directory: Path) -> None:
    file = PurgeFile(directory / "purges")
    before = file.read()
    assert purge_cache(directory) == 3
    assert file.changed()
    assert file.read().floor == before.number + 1
    assert cache_stats(directory).entries == 0
    assert purge_cache(directory) == 0


def test_a_running_proxys_disk_is_emptied_and_goes_on(directory: Path) -> None:
    running = DiskTier(directory / "cache", LIMIT)
    assert cache_stats(directory).entries == 3
    assert purge_cache(directory) == 3
    assert running.get(b"%032d" % 0) is None
    running.put(b"k" * 32, b"new", 60)
    assert running.get(b"k" * 32) == b"new"
    assert cache_stats(directory).entries == 1
    assert running.stats().limit == LIMIT  # a command's own limit is no one else's
    running.close()


def test_a_purge_is_written_down_before_anything_is_removed(directory: Path) -> None:
    (directory / "purges").mkdir()  # no number can be written here
    with pytest.raises(StartupError, match="nothing was purged: IsADirectoryError"):
        purge_cache(directory)
    assert cache_stats(directory).entries == 3


@pytest.mark.parametrize("command", [cache_stats, purge_cache])
def test_where_nothing_is_nothing_is_made(command: object, tmp_path: Path) -> None:
    assert callable(command)
    with pytest.raises(StartupError, match="there is no cache here"):
        command(tmp_path / "absent")
    with pytest.raises(StartupError, match="there is no cache here"):
        cache_stats(tmp_path)
    assert not list(tmp_path.iterdir())


def test_answers_that_are_in_memory_only_are_forgotten_too(tmp_path: Path) -> None:
    assert purge_cache(tmp_path) == 0
    assert PurgeFile(tmp_path / "purges").read().floor == 1
    assert not (tmp_path / "cache").exists()


def test_a_disk_that_cannot_be_emptied_is_forgotten_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "cache" / "cache.db").mkdir(parents=True)
    with pytest.raises(StartupError, match="the answers are forgotten, but their space could not be freed: ") as caught:
        purge_cache(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert "\n" not in str(caught.value)
    assert PurgeFile(tmp_path / "purges").read().floor == 1


def test_a_cache_that_cannot_be_opened_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "cache.db").mkdir()
    with pytest.raises(StartupError, match="the cache cannot be used") as caught:
        cache_stats(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert "\n" not in str(caught.value)


def entry(number: int, *, owner: str | None = "a", model: str = "m") -> Entry:
    key = b"%032d" % number
    return Entry(Meta(key, "json", "p", model, 1.0, 60.0, 0, False, True, owner=owner), b"{}", ())


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A data directory with answers of two keys and two models, and of an older version."""
    disk = DiskTier(tmp_path / "cache", LIMIT)
    for number, (owner, model) in enumerate([("a", "m"), ("a", "n"), ("b", "m"), ("b", "n"), (None, "n")]):
        disk.put(b"%032d" % number, pack(entry(number, owner=owner, model=model)), 60)
    disk.close()
    return tmp_path


def left(directory: Path) -> list[int]:
    disk = DiskTier(directory / "cache", LIMIT)
    found = sorted(int(key) for key in disk.all_keys())
    disk.close()
    return found


@pytest.mark.parametrize(
    ("selection", "remain"),
    [
        (Selection("key", ("a",)), [2, 3]),  # whose the older version's is nobody knows
        (Selection("key", ("c",)), [0, 1, 2, 3]),
        (Selection("model", ("m",)), [1, 3, 4]),
        (Selection("model", ("m", "n")), []),
        (Selection("entry", ((b"%032d" % 3).hex(), b"absent".hex())), [0, 1, 2, 4]),
        (Selection(), []),
    ],
)
def test_a_purge_of_some_removes_these_and_no_others(kept: Path, selection: Selection, remain: list[int]) -> None:
    assert purge_cache(kept, selection) == 5 - len(remain)
    assert left(kept) == remain
    log = PurgeFile(kept / "purges").read()
    assert (log.number, log.swept) == (1, 0)  # a proxy may still be writing some


def test_what_is_written_anew_after_a_purge_outlives_the_next_of_another(kept: Path) -> None:
    purge_cache(kept, Selection("key", ("a",)))
    disk = DiskTier(kept / "cache", LIMIT)
    meta = Meta(b"%032d" % 0, "json", "p", "m", 1.0, 60.0, 1, False, True, owner="a")
    disk.put(meta.key, pack(Entry(meta, b"{}", ())), 60)
    disk.close()
    assert purge_cache(kept, Selection("model", ("n",))) == 1
    assert left(kept) == [0, 2]


def test_a_name_that_is_no_text_is_refused_in_one_line(kept: Path) -> None:
    with pytest.raises(StartupError, match="nothing was purged") as caught:
        purge_cache(kept, Selection("key", ("\udc80",)))
    assert "\n" not in str(caught.value)
    assert left(kept) == [0, 1, 2, 3, 4]


def test_a_purge_is_told_at_once_and_removes_when_it_is_its_turn(kept: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        with turn(kept / "cache"):  # a proxy sweeps
            purging = threads.submit(purge_cache, kept, Selection("key", ("a",)))
            eventually(lambda: PurgeFile(kept / "purges").read().number == 1)
            assert left(kept) == [0, 1, 2, 3, 4]
            assert not purging.done()
        assert purging.result(20) == 3
