"""The file of results: what is there already, what comes, and at the end the whole in its order.

Rule: what came is in the file `….partial` at once, a line for each result, in the order in which they came; after a
kill its last line may be torn, and is cut off. The output itself is replaced as a whole or not at all. One batch at a
time writes an output: the partial file is locked, by the kernel, for as long as the process lives.
"""

import contextlib
import fcntl
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from proxy.batch.requests import Item
from proxy.core.batch import answered_id, error_line
from proxy.errors import StartupError

AT_ONCE = 1 << 20  # bytes that are copied in one go


class Place(NamedTuple):
    """Where the line of a result is."""

    fd: int
    start: int
    length: int


def partial_of(output: Path) -> Path:
    return output.with_name(output.name + ".partial")


class Results:
    """Those of one output. `partial`: open and locked; `earlier`: an output that is there already."""

    def __init__(self, output: Path, partial: int, earlier: int | None, wanted: Collection[bytes]) -> None:
        self.output = output
        self.finished = False
        self._partial = partial
        self._found: dict[bytes, Place] = {}
        if earlier is not None:
            self._take(earlier, wanted)
        self._end = self._take(partial, wanted)
        os.ftruncate(partial, self._end)

    def _take(self, fd: int, wanted: Collection[bytes]) -> int:
        """Note the good answers to what is wanted; where the last whole line ends."""
        end = 0
        with os.fdopen(os.dup(fd), "rb") as file:
            file.seek(0)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                digest = answered_id(line)
                if digest is not None and digest in wanted:
                    self._found[digest] = Place(fd, end, len(line))
                end += len(line)
        return end

    def __contains__(self, item: Item) -> bool:
        return item.digest in self._found

    def add(self, item: Item, line: bytes) -> None:
        """A result has come. Raises StartupError: it cannot be written down."""
        with explained(partial_of(self.output)):
            left = memoryview(line)
            while left:
                left = left[os.write(self._partial, left) :]
        self._found[item.digest] = Place(self._partial, self._end, len(line))
        self._end += len(line)

    def finish(self, items: Iterable[Item]) -> None:
        """Put the output in its place, a line for each of these, in their order. The partial file is then of no use.

        Raises StartupError: what was there stays, and so does the partial file.
        """
        new = self.output.with_name(self.output.name + ".new")
        with explained(new):
            try:
                with new.open("wb") as file:
                    self._write(file, items)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    new.unlink()
                raise
            new.replace(self.output)
            _sync(self.output.parent)
        self.finished = True

    def _write(self, file: BinaryIO, items: Iterable[Item]) -> None:
        for item in items:
            if item.wrong is not None:
                file.write(error_line(item.digest, item.wrong.custom_id, item.wrong))
                continue
            fd, start, length = self._found[item.digest]
            steps = range(start, start + length, AT_ONCE)
            file.writelines(os.pread(fd, min(AT_ONCE, start + length - at), at) for at in steps)


@contextmanager
def open_results(output: Path, requests: Path, wanted: Collection[bytes]) -> Iterator[Results]:
    """Those of an output, whose partial file is locked meanwhile; one that is of no use any more is removed.

    `wanted`: the digests of the requests. Raises StartupError: another batch writes it, or it cannot be used.
    """
    output = output.resolve()
    _check(output, requests)
    with contextlib.ExitStack() as stack:
        with explained(output):
            partial = _locked(partial_of(output), stack)
            earlier = stack.enter_context(output.open("rb")).fileno() if output.exists() else None
            results = Results(output, partial, earlier, wanted)
        try:
            yield results
        finally:
            if results.finished or os.fstat(partial).st_size == 0:  # while it is locked: nobody has it but we
                with contextlib.suppress(OSError):
                    partial_of(output).unlink()


def look_at(output: Path, wanted: Collection[bytes]) -> set[bytes]:
    """The digests of those that are answered already, by this output or its partial file. Changes nothing."""
    found: set[bytes | None] = set()
    for path in (output, partial_of(output)):
        if path.is_file():
            with explained(path), path.open("rb") as file:
                found.update(answered_id(line) for line in file)
    return {digest for digest in found if digest is not None and digest in wanted}


def _check(output: Path, requests: Path) -> None:
    """Raises StartupError."""
    for path in (output, partial_of(output)):
        if path.exists() and not path.is_file():
            raise StartupError(f"--output: {path} is no file.")
        if path.exists() and path.samefile(requests):
            raise StartupError(f"--output: {path} is the file of the requests.")


def _locked(path: Path, stack: contextlib.ExitStack) -> int:
    """The file, locked until the stack ends; it is made if it is not there. Raises StartupError, OSError."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        stack.callback(os.close, fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartupError(f"--output: another batch is at work on {path}; let it end, or stop it.") from None
        # Whoever had the lock before may have removed the file after we opened it: then ours has no name any more.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), path.stat()):
                return fd


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """What goes wrong with files, for the person at the terminal."""
    try:
        yield
    except OSError as error:
        raise StartupError(f"{error.filename or path}: {error.strerror or error}.") from None


def _sync(directory: Path) -> None:
    """The rename itself is only durable with its directory."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
