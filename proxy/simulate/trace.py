"""A log to simulate: a CSV file of times, lengths and prefix blocks, without any text.

    t_seconds,kind,input_tokens,output_tokens,prefix_ids,session,turn

`prefix_ids`: the blocks that a prompt begins with, first block first, separated by spaces; `a-b` is the run from a to
b. An id stands for its text and all that is before it: who has the same id has the same beginning. `prefix_ids`,
`session` and `turn` may be empty.

Rule: what does not fit is said with its line and column, and nothing is guessed in its place.
"""

import csv
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import msgspec

from proxy.errors import StartupError

Blocks = tuple[tuple[int, int], ...]
"""Runs of ids, both ends included: ((1, 1), (15, 28)) are 15 blocks."""

COLUMNS: Final = ("t_seconds", "kind", "input_tokens", "output_tokens", "prefix_ids", "session", "turn")
BLOCKS: Final = (1024, 512, 256, 128, 64, 32, 16)  # tokens that a block may have
LOOKED_AT: Final = 10_000  # rows by which the size of a block is told

_COUNT: Final = re.compile(r"[0-9]{1,12}")  # more is no count of tokens, nor an id
_SECONDS: Final = re.compile(r"[0-9]{1,10}(\.[0-9]*)?")
_RUN: Final = re.compile(r"([0-9]{1,12})(?:-([0-9]{1,12}))?")

Value = TypeVar("Value")


class Request(msgspec.Struct, frozen=True):
    """One row. `at`: seconds since the log began. `turn`: 1 for the first of a session."""

    at: float
    kind: str
    input: int
    output: int
    blocks: Blocks = ()
    session: int | None = None
    turn: int | None = None

    @property
    def prompt(self) -> tuple[int, int] | None:
        """Equal where the prompts are: the last id stands for all before it. None: nobody knows."""
        return (self.blocks[-1][1], self.input) if self.blocks else None


class Shape(NamedTuple):
    """What must be known of a log before it is simulated: its rows, its length in seconds, tokens of a block (0: it
    has no ids).
    """

    rows: int
    seconds: float
    block: int


def length(blocks: Blocks) -> int:
    """How many blocks there are."""
    return sum(last - first + 1 for first, last in blocks)


def head(blocks: Blocks, count: int) -> Blocks:
    """The first so many blocks."""
    found = []
    for first, last in blocks:
        if count <= 0:
            break
        found.append((first, min(last, first + count - 1)))
        count -= last - first + 1
    return tuple(found)


def read_trace(path: Path, limit: int | None = None) -> Iterator[Request]:
    """The rows (at most `limit`), one after another. Raises StartupError."""
    return islice(_rows(path), limit)


def shape_of(path: Path, *, limit: int | None = None, block: int | None = None) -> Shape:
    """Reads the file once. `block`: tokens of a block, where it is known.

    Else it is the largest of BLOCKS of which no prompt has more than fit: the last block may be a part of one.
    Raises StartupError: no rows, or nothing fits.
    """
    rows, seconds, fitting, named = 0, 0.0, set(BLOCKS), False
    for index, request in enumerate(read_trace(path, None if limit is None else max(limit, LOOKED_AT))):
        if limit is None or index < limit:
            rows, seconds = index + 1, request.at
        blocks = length(request.blocks)
        named = named or blocks > 0
        fitting = {size for size in fitting if (blocks - 1) * size <= request.input}
    if not rows:
        raise StartupError(f"{path}: it holds no requests.")
    if block is None and not fitting:
        raise StartupError(f"{path}: it has prompts with more blocks than blocks of {BLOCKS[-1]} tokens; give --block.")
    return Shape(rows, seconds, (block or max(fitting)) if named else 0)


def _rows(path: Path) -> Iterator[Request]:
    at = 0.0
    for line, row in _lines(path):
        try:
            request = _request(row)
        except ValueError as error:
            raise StartupError(f"{path}:{line}: {error}.") from None
        if request.at < at:
            raise StartupError(f"{path}:{line}: t_seconds: it is before the row above; sort the rows by time.")
        at = request.at
        yield request


def _lines(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, its fields by column). Columns may be in any order, and others beside them."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            names = [name.strip() for name in next(reader, [])]
            if missing := [column for column in COLUMNS if column not in names]:
                raise StartupError(f"{path}:1: no column {missing[0]}; the first line is: {','.join(COLUMNS)}")
            for fields in reader:
                if fields and len(fields) != len(names):
                    raise StartupError(f"{path}:{reader.line_num}: {len(fields)} fields, not {len(names)}.")
                if fields:
                    yield reader.line_num, dict(zip(names, fields, strict=True))
    except OSError as error:
        raise StartupError(f"{path}: cannot be read: {error.strerror or error}.") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise StartupError(f"{path}: is no CSV file in UTF-8: {error}.") from None


def _request(row: dict[str, str]) -> Request:
    """Raises ValueError, naming the column."""
    return Request(
        at=_field(row, "t_seconds", _seconds),
        kind=row["kind"].strip(),
        input=_field(row, "input_tokens", _count),
        output=_field(row, "output_tokens", _count),
        blocks=_field(row, "prefix_ids", _blocks),
        session=_field(row, "session", _number),
        turn=_field(row, "turn", _number),
    )


def _field(row: dict[str, str], column: str, read: Callable[[str], Value]) -> Value:
    try:
        return read(row[column].strip())
    except ValueError as error:
        raise ValueError(f"{column}: {error}") from None


def _seconds(text: str) -> float:
    if not _SECONDS.fullmatch(text):
        raise ValueError(f"{_shown(text)} is no time in seconds since the log began, as 12.5")
    return float(text)


def _count(text: str) -> int:
    if not _COUNT.fullmatch(text):
        raise ValueError(f"{_shown(text)} is no whole number of 0 or more")
    return int(text)


def _number(text: str) -> int | None:
    return _count(text) if text else None


def _blocks(text: str) -> Blocks:
    """Neighbours become one run, so that the same blocks are always the same runs."""
    runs: list[tuple[int, int]] = []
    for each in text.split():
        found = _RUN.fullmatch(each)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, -1)
        if last < first:
            raise ValueError(f"{_shown(each)} is neither an id nor a run of ids, as 15-28")
        if runs and runs[-1][1] + 1 == first:
            first = runs.pop()[0]
        runs.append((first, last))
    return tuple(runs)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
