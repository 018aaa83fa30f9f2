"""One process owns a data directory.

Two proxies on one directory would each believe its own memory, count their own limits and overwrite each other's
entries. The lock is the kernel's (flock): it ends with the process, `kill -9` included, so it is never stale.
"""

import contextlib
import fcntl
import os
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

from proxy.errors import DirectoryInUse
from proxy.store.files import private_directory


class DataLock:
    """The lock on `<directory>/lock`; the file holds the owner's pid, for people."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._held: int | None = None

    def acquire(self) -> None:
        """Take the lock until `release` or the end of the process.

        Raises DirectoryInUse where another process holds it, OSError where the directory can't be written.
        """
        private_directory(self._directory)
        held = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(held, 0)
            os.pwrite(held, b"%d\n" % os.getpid(), 0)
        except BlockingIOError:
            owner = _owner(held)
            os.close(held)
            raise DirectoryInUse(_taken(self._directory, owner)) from None
        except OSError:
            os.close(held)
            raise
        self._held = held
        _drop_in_forks(self)

    def release(self) -> None:
        """Let another process have the directory. Does nothing where the lock is not held."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def _owner(held: int) -> str:
    # Empty for the moment between the owner's lock and its writing.
    pid = os.pread(held, 20, 0).strip()
    return f"process {int(pid)}" if pid.isdigit() else "another process"


def _taken(directory: Path, owner: str) -> str:
    return f"data.directory: {directory} is in use by {owner}; stop it, or give this one a data directory of its own"


def _drop_in_forks(lock: DataLock) -> None:
    """A fork shares the open file, and with it the lock, beyond our death. (An exec closes it by itself.)

    Closing the child's copy lets go of nothing that the parent holds. A hook can't be taken back: it must not keep
    the lock alive.
    """
    known = weakref.ref(lock)

    def in_child() -> None:
        owned = known()
        if owned is not None:
            with contextlib.suppress(OSError):
                owned.release()

    os.register_at_fork(after_in_child=in_child)
