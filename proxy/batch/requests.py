"""The file of requests: where its lines are, and which of them are none.

Rule: what is kept of a line is where it stands; it is read again when it is its turn. A file that is changed meanwhile
is not asked on.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from proxy.core.batch import Request, Wrong, again, digest_of, read_request
from proxy.errors import StartupError

BOM = b"\xef\xbb\xbf"


class Item(msgspec.Struct, frozen=True, gc=False):
    """A line that is not blank: its `number` from 1, where its bytes are, and what its result's id is made of."""

    number: int
    start: int
    length: int
    digest: bytes
    wrong: Wrong | None = None


class Requests:
    """An open file of requests."""

    def __init__(self, path: Path, file: BinaryIO, items: Sequence[Item]) -> None:
        self.path = path
        self.items = items
        self._fd = file.fileno()

    @property
    def good(self) -> Iterator[Item]:
        """Those that are requests."""
        return (item for item in self.items if item.wrong is None)

    def read(self, item: Item) -> Request:
        """One of the good ones. Raises StartupError: the file is not what it was."""
        line = os.pread(self._fd, item.length, item.start)
        found = read_request(line) if digest_of(line) == item.digest else None
        if not isinstance(found, Request):
            raise StartupError(f"{self.path}: line {item.number} was changed while the batch ran; start it again.")
        return found


@contextmanager
def open_requests(path: Path) -> Iterator[Requests]:
    """Find the lines of a file. Raises StartupError: it cannot be read."""
    if path.exists() and not path.is_file():
        raise StartupError(f"{path}: it must be a file, for it is read more than once.")
    try:
        file = path.open("rb")
    except OSError as error:
        raise StartupError(f"{path}: {error.strerror}.") from None
    with file:
        yield Requests(path, file, list(_items(file)))


def _items(file: BinaryIO) -> Iterator[Item]:
    known: set[bytes] = set()
    start = 0
    for number, line in enumerate(file, 1):
        skipped = len(BOM) if number == 1 and line.startswith(BOM) else 0
        said = line[skipped:]
        if said.strip():
            found = _checked(read_request(said), known)
            wrong = found if isinstance(found, Wrong) else None
            yield Item(number, start + skipped, len(said), digest_of(said), wrong)
        start += len(line)


def _checked(found: Request | Wrong, known: set[bytes]) -> Request | Wrong:
    """The same, but that nobody before may have had its custom_id. Of those only digests are kept."""
    if isinstance(found, Wrong):
        return found
    mark = digest_of(b"custom_id " + found.custom_id.encode())
    if mark in known:
        return again(found.custom_id)
    known.add(mark)
    return found
