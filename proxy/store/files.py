"""Small files that are replaced whole: after any crash they hold the old bytes or the new ones, never a part."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def private_directory(directory: Path) -> None:
    """Make the directory, or close an existing one to everybody else (0700). Raises OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if directory.stat().st_mode & 0o077:
        # A volume that was mounted for us may belong to somebody else: its rights are then not ours to set.
        with contextlib.suppress(PermissionError):
            directory.chmod(0o700)


@contextlib.contextmanager
def turn(directory: Path) -> Iterator[None]:
    """Processes take turns in this directory: it is locked itself, so no lock file is left behind. Raises OSError."""
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


@contextlib.contextmanager
def turn_if_free(directory: Path) -> Iterator[bool]:
    """`turn`, but False at once while another process has it. Raises OSError."""
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(held)


def replace(path: Path, data: bytes) -> None:
    """Put `data` in the place of the file (0600), durably; the caller holds `turn(path.parent)`. Raises OSError."""
    new = path.with_name(path.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()  # left by a process that was killed, perhaps with other rights
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)  # the rename itself is only durable with its directory
    finally:
        os.close(directory)
