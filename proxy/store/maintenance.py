"""What commands do to the cache of a data directory, while a proxy runs on it or not."""

from contextlib import closing
from pathlib import Path
from typing import assert_never

from proxy.core.purges import EVERYTHING, PurgeLog, Selection
from proxy.errors import StartupError
from proxy.store.disk import FAILURES, DiskStats, DiskTier, describe
from proxy.store.files import turn
from proxy.store.purges import PurgeFile

_ANY_SIZE = 1 << 62  # a command never evicts
_ABSENT = "{}: there is no cache here; name the proxy's settings with --config, or its data directory with --data-dir."


def cache_stats(directory: Path) -> DiskStats:
    """Raises StartupError where there is no cache, or it cannot be read."""
    if not (directory / "cache").is_dir():
        raise StartupError(_ABSENT.format(directory))
    try:
        with closing(DiskTier(directory / "cache", _ANY_SIZE)) as disk:
            return disk.stats()
    except FAILURES as error:
        raise StartupError(f"{directory}: the cache cannot be used: {describe(error)}") from None


def purge_cache(directory: Path, selection: Selection = EVERYTHING) -> int:
    """Forget the answers that are meant; how many were on the disk.

    They are marked first: none of them answers from then on, what a running proxy has in memory or under way included,
    and what is left on the disk is removed at its next start. So it is marked without a cache here, too: a proxy whose
    disk failed has answers in memory. Raises StartupError: nothing was purged; or all is forgotten, and still takes
    its space.
    """
    if not directory.is_dir():
        raise StartupError(_ABSENT.format(directory))
    try:
        log = PurgeFile(directory / "purges").add(selection)
    except (OSError, ValueError) as error:
        raise StartupError(f"{directory}: nothing was purged: {describe(error)}") from None
    if not (directory / "cache").is_dir():
        return 0
    try:
        # A running proxy removes what it finds, too: after us, or nobody knew how many there were.
        with turn(directory / "cache"), closing(DiskTier(directory / "cache", _ANY_SIZE)) as disk:
            return _remove(disk, selection, log)
    except FAILURES as error:
        said = f"the answers are forgotten, but their space could not be freed: {describe(error)}"
        raise StartupError(f"{directory}: {said}") from None


def _remove(disk: DiskTier, selection: Selection, log: PurgeLog) -> int:
    match selection.kind:
        case "all":
            return disk.clear()
        case "entry":
            return sum(disk.delete(bytes.fromhex(key)) for key in selection.values)
        case "key" | "model":
            removed = 0
            upto: int | None = 0
            while upto is not None:
                part = disk.sweep(log.covers_row, upto)
                removed, upto = removed + len(part.keys), part.upto
            return removed
        case _:
            assert_never(selection.kind)
