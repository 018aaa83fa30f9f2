"""Commands look at a cache and empty it, beside a running proxy too, and never make one."""

from pathlib import Path

import pytest

from proxy.errors import StartupError
from proxy.store.disk import DiskTier
from proxy.store.epoch import Epoch
from proxy.store.maintenance import cache_stats, purge_cache

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
    epoch = Epoch(directory / "purges")
    before = epoch.read()
    assert purge_cache(directory) == 3
    assert epoch.changed()
    assert epoch.read() == before + 1
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


def test_the_epoch_is_raised_before_anything_is_removed(directory: Path) -> None:
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
    assert Epoch(tmp_path / "purges").read() == 1
    assert not (tmp_path / "cache").exists()


def test_a_disk_that_cannot_be_emptied_is_forgotten_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "cache" / "cache.db").mkdir(parents=True)
    with pytest.raises(StartupError, match="the answers are forgotten, but their space could not be freed: ") as caught:
        purge_cache(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert "\n" not in str(caught.value)
    assert Epoch(tmp_path / "purges").read() == 1


def test_a_cache_that_cannot_be_opened_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "cache.db").mkdir()
    with pytest.raises(StartupError, match="the cache cannot be used") as caught:
        cache_stats(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert "\n" not in str(caught.value)
