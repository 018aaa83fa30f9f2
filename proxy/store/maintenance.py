"""What commands do to the cache of a data directory, while a proxy runs on it or not."""

from contextlib import closing
from pathlib import Path

from proxy.errors import StartupError
from proxy.store.disk import FAILURES, DiskStats, DiskTier, describe
from proxy.store.epoch import Epoch

_ANY_SIZE = 1 << 62  # a command never evicts
_ABSENT = "{}: there is no cache here; name the proxy's data directory with --data-dir."


def cache_stats(directory: Path) -> DiskStats:
    """Raises StartupError where there is no cache, or it cannot be read."""
    if not (directory / "cache").is_dir():
        raise StartupError(_ABSENT.format(directory))
    try:
        with closing(DiskTier(directory / "cache", _ANY_SIZE)) as disk:
            return disk.stats()
    except FAILURES as error:
        raise StartupError(f"{directory}: the cache cannot be used: {describe(error)}") from None


def purge_cache(directory: Path) -> int:
    """Forget every answer; how many were on the disk. The epoch first: what a running proxy had begun is forgotten too.

    A proxy whose disk failed has answers in memory, so the epoch is raised without a cache here, too.
    Raises StartupError: nothing was purged; or all is forgotten, and still takes its space.
    """
    if not directory.is_dir():
        raise StartupError(_ABSENT.format(directory))
    try:
        Epoch(directory / "purges").bump()
    except OSError as error:
        raise StartupError(f"{directory}: nothing was purged: {describe(error)}") from None
    if not (directory / "cache").is_dir():
        return 0
    try:
        with closing(DiskTier(directory / "cache", _ANY_SIZE)) as disk:
            return disk.clear()
    except FAILURES as error:
        said = f"the answers are forgotten, but their space could not be freed: {describe(error)}"
        raise StartupError(f"{directory}: {said}") from None
