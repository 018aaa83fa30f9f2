"""What commands do to the cache of a data directory, while a proxy runs on it or not."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from proxy.errors import StartupError
from proxy.store.disk import FAILURES, DiskStats, DiskTier, describe
from proxy.store.epoch import Epoch

_ANY_SIZE = 1 << 62  # a command never evicts


@contextmanager
def _opened(directory: Path) -> Iterator[DiskTier]:
    """The disk of a cache that is there. Raises StartupError, also for what fails within."""
    if not (directory / "cache").is_dir():
        raise StartupError(f"{directory}: there is no cache here; name the proxy's data directory with --data-dir.")
    try:
        with closing(DiskTier(directory / "cache", _ANY_SIZE)) as disk:
            yield disk
    except FAILURES as error:
        raise StartupError(f"{directory}: the cache cannot be used: {describe(error)}") from None


def cache_stats(directory: Path) -> DiskStats:
    """Raises StartupError where there is no cache, or it cannot be read."""
    with _opened(directory) as disk:
        return disk.stats()


def purge_cache(directory: Path) -> int:
    """Forget every answer; how many there were. The epoch first: a running proxy must not store what it had begun.

    Raises StartupError as `cache_stats` does; a part may be forgotten then.
    """
    with _opened(directory) as disk:
        Epoch(directory / "purges").bump()
        return disk.clear()
