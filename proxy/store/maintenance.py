"""What commands do to the cache of a data directory, while a proxy runs on it or not."""

from pathlib import Path

from proxy.errors import StartupError
from proxy.store.disk import FAILURES, DiskStats, DiskTier
from proxy.store.epoch import Epoch

_ANY_SIZE = 1 << 62  # a command never evicts


def _open(directory: Path) -> DiskTier:
    if not (directory / "cache").is_dir():
        raise StartupError(f"{directory}: there is no cache here; name the proxy's data directory with --data-dir.")
    try:
        return DiskTier(directory / "cache", _ANY_SIZE)
    except FAILURES as error:
        raise StartupError(f"{directory}: the cache cannot be opened: {error}") from None


def cache_stats(directory: Path) -> DiskStats:
    """Raises StartupError where there is no cache."""
    disk = _open(directory)
    try:
        return disk.stats()
    finally:
        disk.close()


def purge_cache(directory: Path) -> int:
    """Forget every answer; how many there were. The epoch first: a running proxy must not store what it had begun."""
    disk = _open(directory)
    try:
        Epoch(directory / "purges").bump()
        return disk.clear()
    finally:
        disk.close()
