"""How many times the cache was purged, told from one process to the other by a small file.

A purge by command can't reach into a running proxy's memory. It raises the number in the file; the proxy looks twice a
second whether the file changed; an entry that was begun in another epoch than today's is a miss. Compare with `!=`, not
with `<`: a number that was lost starts at 0 again, and what it purged must stay purged.
"""

import os
from pathlib import Path

from proxy.store.files import replace, turn

_LONGEST = 20  # digits: what a file of ours can hold at most


class Epoch:
    """The number of purges, kept in `path`. Every process makes its own; none of them holds the file open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None

    def read(self) -> int:
        """The number of purges; 0 where the file is absent or unreadable. `changed` compares with this moment."""
        try:
            with self._path.open("rb") as file:
                # Of the opened file, not of its name: another process may put a new one there between the two calls.
                self._seen = _signature(os.fstat(file.fileno()))
                text = file.read(_LONGEST + 2).strip()
        except OSError:
            self._seen = None
            return 0
        return int(text) if text.isdigit() and len(text) <= _LONGEST else 0

    def changed(self) -> bool:
        """Is it another file than the one that was last read? One stat (about a microsecond), made to be polled."""
        try:
            now: tuple[int, int, int] | None = _signature(self._path.stat())
        except OSError:
            now = None
        return now != self._seen

    def bump(self) -> int:
        """Count one purge more and return the number; safe between processes. Raises OSError: nothing was purged."""
        with turn(self._path.parent):
            number = self.read() + 1
            replace(self._path, b"%d\n" % number)
            return self.read()


def _signature(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_mtime_ns, found.st_ino, found.st_size
