"""What a file of results holds already: answers to what is asked, and what belongs to none of it.

Rule: a line counts once it is whole, which its end shows. A file that holds something, but no result of these requests,
is somebody else's, and is not touched.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from proxy.batch.requests import Requests
from proxy.core.batch import may_be_torn, read_result
from proxy.core.batch_figures import several
from proxy.errors import StartupError

AT_ONCE = 1 << 20  # bytes that are copied in one go

Asked = Mapping[bytes, bool]


class Place(NamedTuple):
    """Where something is in an open file; a line, say."""

    fd: int
    start: int
    length: int

    def copy(self, file: BinaryIO) -> None:
        steps = range(self.start, self.start + self.length, AT_ONCE)
        file.writelines(os.pread(self.fd, min(AT_ONCE, self.start + self.length - at), at) for at in steps)

    @property
    def is_whole(self) -> bool:
        """Is it empty, or does it end as lines do?"""
        return not self.length or os.pread(self.fd, 1, self.start + self.length - 1) == b"\n"


@dataclass(slots=True)
class Held:
    """What a file holds. `answers`: good ones, by the digest of what they answer; `others`: lines that belong to
    nothing that is asked. `own`: lines that do belong, `strange`: those that do not, `results`: how many of these are
    results all the same. `end`: of the last whole line; `torn`: what follows that.
    """

    answers: dict[bytes, Place] = field(default_factory=dict)
    others: list[Place] = field(default_factory=list)
    own: int = 0
    strange: int = 0
    results: int = 0
    end: int = 0
    torn: Place | None = None


def asked_of(requests: Requests) -> Asked:
    """By the digest of each line, whether it is a request: one that stands there twice is, once."""
    found: dict[bytes, bool] = {}
    for item in requests.items:
        found[item.digest] = found.get(item.digest, False) or item.wrong is None
    return found


def held_by(fd: int, asked: Asked, path: Path) -> Held:
    """What the file at this path holds. Raises StartupError: something, but no result of what is asked."""
    held = Held()
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        for line in file:
            _take(held, line, Place(fd, held.end, len(line)), asked)
    if held.strange and not held.own:
        results = held.results == held.strange
        what = several(held.strange, "result") + " of other requests" if results else several(held.strange, "line")
        told = "and no result of these requests; name another file, or remove it"
        raise StartupError(f"--output: {path} holds {what}, {told}.")
    return held


def _take(held: Held, line: bytes, place: Place, asked: Asked) -> None:
    """Note one more line."""
    whole, known = line.endswith(b"\n"), read_result(line)
    held.end += len(line) if whole else 0
    if not line.strip():
        return
    if known is not None and known.digest in asked:
        held.own += 1
    elif whole or known is not None or not may_be_torn(line):
        held.strange += 1
        held.results += known is not None
    if not whole:
        held.torn = place
    elif known is not None and known.good and asked.get(known.digest):
        held.answers[known.digest] = place
    elif known is None or known.good or known.digest not in asked:
        held.others.append(place)
