"""What was purged, told from one process to the other by a small file.

A purge by command can't reach into a running proxy's memory. It adds itself to the file; the proxy looks twice a second
whether the file changed. A file that was lost starts at 0 again: entries that know a higher number are misses.
"""

import os
from pathlib import Path

from proxy.core.purges import EVERYTHING, PurgeLog, Selection, read_log, write_log
from proxy.store.files import replace, turn


class PurgeFile:
    """The log of purges, kept in `path`. Every process makes its own; none of them holds the file open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None

    def read(self) -> PurgeLog:
        """The log; of no purge where the file is absent or unreadable. `changed` compares with this moment."""
        try:
            with self._path.open("rb") as file:
                # Of the opened file, not of its name: another process may put a new one there between the two calls.
                self._seen = _signature(os.fstat(file.fileno()))
                text = file.read()
        except OSError:
            self._seen = None
            return PurgeLog()
        return read_log(text)

    def changed(self) -> bool:
        """Is it another file than the one that was last read? One stat (about a microsecond), made to be polled."""
        try:
            now: tuple[int, int, int] | None = _signature(self._path.stat())
        except OSError:
            now = None
        return now != self._seen

    def add(self, selection: Selection, *, above: int = 0) -> PurgeLog:
        """One purge more; safe between processes. Raises OSError, or ValueError (no text): nothing was purged.

        `above`: the number of a purge that could not be written. Others may have counted the same number since, so
        nothing of that time can be told apart: all of it is purged.
        """
        with turn(self._path.parent):
            log = self.read()
            if above:
                log = PurgeLog(max(above, log.number), swept=log.swept).plus(EVERYTHING)
            replace(self._path, write_log(log.plus(selection)))
            return self.read()

    def clean(self, upto: int) -> PurgeLog:
        """All that purges up to this number meant is removed from the disk. Raises OSError."""
        with turn(self._path.parent):
            replace(self._path, write_log(self.read().cleaned(upto)))
            return self.read()


def _signature(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_mtime_ns, found.st_ino, found.st_size
