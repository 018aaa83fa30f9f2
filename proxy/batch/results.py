"""The file of results: what is there already, what comes, and at the end the whole in its order.

Rule 1: what came is in the file `….partial` at once, a line for each result, in the order in which they came; after a
kill its last line may be torn, and is cut off. The output itself is replaced as a whole or not at all. One batch at a
time writes an output: the partial file is locked, by the kernel, for as long as the process lives.
Rule 2: nothing that is there already is lost. A file that holds no result of these requests is not touched; what stands
beside such results and belongs to no request is moved to the file `….old`.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from proxy.batch.held import Asked, Place, asked_of, held_by
from proxy.batch.requests import Item, Requests
from proxy.core.batch import error_line
from proxy.errors import StartupError


def partial_of(output: Path) -> Path:
    return output.with_name(output.name + ".partial")


def old_of(output: Path) -> Path:
    return output.with_name(output.name + ".old")


def new_of(output: Path) -> Path:
    return output.with_name(output.name + ".new")


class Results:
    """Those of one output. `partial`: open and locked; `earlier`: an output that is there already."""

    def __init__(self, output: Path, partial: int, earlier: int | None, asked: Asked) -> None:
        """Raises StartupError: a file is not ours, and nothing has been changed."""
        self.output = output
        self.finished = False
        self._partial = partial
        self._found: dict[bytes, Place] = {}
        self._others: list[Place] = []
        if earlier is not None:
            held = held_by(earlier, asked, output)
            self._found.update(held.answers)
            self._others += [*held.others, *([] if held.torn is None else [held.torn])]
        held = held_by(partial, asked, partial_of(output))
        self._found.update(held.answers)
        self._others += held.others
        self._end = held.end
        os.ftruncate(partial, self._end)

    @property
    def others(self) -> int:
        """How many lines belong to none of the requests."""
        return len(self._others)

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
        new = new_of(self.output)
        try:
            with explained(new):
                new.unlink(missing_ok=True)  # whatever it was, or led to
            with explained(new), new.open("xb") as file:
                self._write(file, items)
                _flush(file)
            self._set_aside()
            with explained(new):
                new.replace(self.output)
                _sync(self.output.parent)
        except StartupError:
            with contextlib.suppress(OSError):
                new.unlink()
            raise
        self.finished = True

    def _write(self, file: BinaryIO, items: Iterable[Item]) -> None:
        for item in items:
            if item.wrong is not None:
                file.write(error_line(item.digest, item.wrong.custom_id, item.wrong))
            else:
                self._found[item.digest].copy(file)

    def _set_aside(self) -> None:
        """Keep what belongs to none of the requests, after what was kept before."""
        if not self._others:
            return
        path = old_of(self.output)
        with explained(path), path.open("ab+") as file:
            before = Place(file.fileno(), 0, os.fstat(file.fileno()).st_size)
            if not before.is_whole:  # it was torn by a kill
                file.write(b"\n")
            for place in self._others:
                place.copy(file)
                if not place.is_whole:
                    file.write(b"\n")
            _flush(file)


@contextmanager
def open_results(output: Path, requests: Requests) -> Iterator[Results]:
    """Those of an output, whose partial file is locked meanwhile; one that is of no use any more is removed.

    Raises StartupError: another batch writes it, it is somebody else's, or it cannot be used.
    """
    output = output.resolve()
    _check(output, requests.path)
    results = None
    with contextlib.ExitStack() as stack:
        with explained(output):
            partial = _locked(partial_of(output), stack)
        try:
            with explained(output):
                asked = asked_of(requests)
                _held(new_of(output), asked)
                earlier = stack.enter_context(output.open("rb")).fileno() if output.exists() else None
                results = Results(output, partial, earlier, asked)
            yield results
        finally:
            done = results is not None and results.finished
            if done or os.fstat(partial).st_size == 0:  # while it is locked: nobody has it but we
                with contextlib.suppress(OSError):
                    partial_of(output).unlink()


def look_at(output: Path, requests: Requests) -> set[bytes]:
    """The digests of those that are answered already, by this output or its partial file. Changes nothing.

    Raises StartupError: a batch could not write there.
    """
    output = output.resolve()
    _check(output, requests.path)
    asked = asked_of(requests)
    _held(new_of(output), asked)
    return _held(output, asked) | _held(partial_of(output), asked)


def _held(path: Path, asked: Asked) -> set[bytes]:
    """What a file answers, if there is one. Raises StartupError: it is somebody else's."""
    if not path.is_file():
        return set()
    with explained(path), path.open("rb") as file:
        return set(held_by(file.fileno(), asked, path).answers)


def _check(output: Path, requests: Path) -> None:
    """Raises StartupError."""
    for path in (output, partial_of(output)):
        if path.exists() and not path.is_file():
            raise StartupError(f"--output: {path} is no file.")
    for path in (output, partial_of(output), old_of(output), new_of(output)):
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


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    """The rename itself is only durable with its directory."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
