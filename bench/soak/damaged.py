"""Caches that were damaged or planted: never a wrong answer, and nothing in them is ever executed."""

import asyncio
import os
import pickle
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from bench.soak.answers import cache, is_good, meaning
from bench.soak.lab import STORED_ONLY, Lab, Proxy, chat
from bench.soak.storage import REFUSES, SERVES, refused
from bench.soak.wire import Call, finished, sent_at_once
from proxy.core.access import Grant
from proxy.ledger.keys import create_key
from proxy.ledger.opening import DATABASE

PLACES = 50
ENTRIES = 100
FILES = 3  # of them so large that they are files
STREAMED = "sim-instant;chunks=30"
LARGE = "sim-instant;big=1500000"
SLOWEST_START = 5.0  # seconds; what takes longer has read all of what is damaged

Known = dict[str, bytes]  # what each question was answered


async def corrupt(lab: Lab) -> str:
    """S2, for the cache."""
    lab.steps(PLACES)
    dice = random.Random(7)
    hits = slowest = 0.0
    aside = 0
    with tempfile.TemporaryDirectory() as directory:
        good = Path(directory, "good")
        known = await _filled(lab, good)
        for number in range(PLACES):
            damage = DAMAGES[number % len(DAMAGES)]
            data = Path(directory, "damaged")
            shutil.copytree(good, data)
            what = damage(data, dice)
            with lab.proxy(data=data, warns=True) as proxy:
                slowest = max(slowest, proxy.running.ready)
                lab.expect(proxy.running.ready < SLOWEST_START, f"{what}: start took {proxy.running.ready:.1f} s")
                hits += await _right_or_nothing(lab, proxy, known, what)
            aside += _found(data, "cache/cache.corrupt-*") > 0
            shutil.rmtree(data)
            lab.step()
    share = hits / (PLACES * len(known))
    return (
        f"{PLACES} damages: {share:.0%} of {PLACES * len(known):,} look-ups were hits, all of them compared; "
        f"{aside} databases set aside; slowest start {slowest:.2f} s"
    )


def _found(data: Path, pattern: str) -> int:
    return sum(1 for _ in data.glob(pattern))


def _model(question: str) -> str:
    return LARGE if question.startswith("large") else STREAMED


async def _filled(lab: Lab, data: Path) -> Known:
    """A cache with entries in the database and beside it."""
    questions = [f"large {number}" for number in range(FILES)]
    questions += [lab.question() for _ in range(ENTRIES - FILES)]
    with lab.proxy(data=data) as proxy:
        calls = await _all_asked(proxy, questions)
        for call in calls:
            lab.expect(is_good(call), f"before the damage: status {call.status}")
        known = {question: meaning(call) for question, call in zip(questions, calls, strict=True)}
    files = _found(data, "cache/*/*/*.val")
    lab.expect(files == FILES, f"{files} values are files, not {FILES}")
    return known


async def _all_asked(proxy: Proxy, questions: list[str], more: tuple[str, ...] = ()) -> list[Call]:
    requests = [chat(_model(each), each, stream=not each.startswith("large"), more=more) for each in questions]
    calls = await sent_at_once(proxy.port, requests)
    await finished(calls)
    return calls


async def _right_or_nothing(lab: Lab, proxy: Proxy, known: Known, what: str) -> int:
    """Each question is a hit and right, or a miss; and is answered rightly afterwards. How many were hits?"""
    questions = list(known)
    hits = 0
    for question, call in zip(questions, await _all_asked(proxy, questions, STORED_ONLY), strict=True):
        if call.status != 504:
            hits += 1
            lab.expect(is_good(call) and cache(call) == "hit", f"{what}: status {call.status}, {cache(call)}")
            lab.expect(is_good(call) and meaning(call) == known[question], f"{what}: a wrong answer")
    # The large ones take their time to be made, and are misses like the others.
    small = questions[FILES : FILES + 20]
    for question, call in zip(small, await _all_asked(proxy, small), strict=True):
        right = is_good(call) and _plain(meaning(call)) == _plain(known[question])
        lab.expect(right, f"{what}: afterwards status {call.status}, or other words")
    return hits


def _plain(said: bytes) -> bytes:
    """Less the time at which the answer was made."""
    return re.sub(rb'"created":\d+', b"", said)


# Damages: each takes a data directory, and says what it did.


def _flip_bytes(path: Path, dice: random.Random, count: int) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(count):
        data[dice.randrange(len(data))] ^= dice.randrange(1, 256)
    path.write_bytes(data)


def _database(data: Path) -> Path:
    return data / "cache" / "cache.db"


def _value(data: Path, dice: random.Random) -> Path:
    return dice.choice(sorted(data.glob("cache/*/*/*.val")))


def _flip_one(data: Path, dice: random.Random) -> str:
    _flip_bytes(_database(data), dice, 1)
    return "a byte of the database"


def _flip_many(data: Path, dice: random.Random) -> str:
    _flip_bytes(_database(data), dice, 200)
    return "200 bytes of the database"


def _flip_head(data: Path, dice: random.Random) -> str:
    path = _database(data)
    head, rest = path.read_bytes()[:100], path.read_bytes()[100:]
    bad = bytearray(head)
    bad[dice.randrange(100)] ^= 0xFF
    path.write_bytes(bytes(bad) + rest)
    return "a byte of the database's head"


def _flip_value(data: Path, dice: random.Random) -> str:
    _flip_bytes(_value(data, dice), dice, 1)
    return "a byte of a value's file"


def _truncate(data: Path, dice: random.Random) -> str:
    path = _database(data)
    os.truncate(path, dice.randrange(path.stat().st_size))
    return "a truncated database"


def _truncate_value(data: Path, dice: random.Random) -> str:
    path = _value(data, dice)
    os.truncate(path, dice.randrange(path.stat().st_size))
    return "a truncated value's file"


def _swap_values(data: Path, dice: random.Random) -> str:
    """Each row leads to another's value."""
    with closing(sqlite3.connect(_database(data))) as connection, connection:
        rows = connection.execute("SELECT rowid, mode, filename, value, size FROM Cache").fetchall()
        others = dice.sample(rows, len(rows))
        for (row, *_), (_, *other) in zip(rows, others, strict=True):
            connection.execute("UPDATE Cache SET mode=?, filename=?, value=?, size=? WHERE rowid=?", (*other, row))
    return "rows that lead to others' values"


def _nonsense(data: Path, dice: random.Random) -> str:
    _database(data).write_bytes(dice.randbytes(200_000))
    return "a database of nonsense"


def _empty(data: Path, dice: random.Random) -> str:
    gone = dice.choice((_database(data), _value(data, dice)))
    gone.write_bytes(b"")
    return f"an empty {gone.suffix}"


def _log_of_nonsense(data: Path, dice: random.Random) -> str:
    (data / "cache" / "cache.db-wal").write_bytes(dice.randbytes(50_000))
    return "a write-ahead log of nonsense"


DAMAGES: tuple[Callable[[Path, random.Random], str], ...] = (
    *(_flip_one, _flip_many, _flip_head, _flip_value, _truncate),
    *(_truncate_value, _swap_values, _nonsense, _empty, _log_of_nonsense),
)


LEDGERS = 24
_RECOVERED = re.compile(r"`(sqlite3 [^`]+)`")


async def corrupt_ledger(lab: Lab) -> str:
    """S2, for the ledger: it is never replaced by an empty one, and what the one line says to do does help."""
    lab.steps(LEDGERS)
    dice = random.Random(7)
    refusals = served = saved = 0
    with tempfile.TemporaryDirectory() as directory:
        good = Path(directory, "good")
        row, secret = create_key(good, Grant("team"), now=0.0)
        with lab.proxy(data=good, settings='auth = "none"') as proxy:
            calls = await sent_at_once(proxy.port, [chat(STREAMED, lab.question(), key=secret) for _ in range(200)])
            await finished(calls)
        rows = _rows(good)
        lab.expect(rows == 200, f"{rows} rows of 200 calls")
        for number in range(LEDGERS):
            what, damage = _LEDGER_DAMAGES[number % len(_LEDGER_DAMAGES)]
            data = Path(directory, "damaged")
            shutil.copytree(good, data)
            damage(data / DATABASE, dice)
            code, said = await asyncio.to_thread(refused, lab, data, "")
            if code == REFUSES:
                refusals += 1
                lab.expect(len(said) == 1 and "is damaged" in said[0], f"{what}: {said}")
                saved += await _repaired(lab, data, said, secret, what)
            else:  # a byte that no page's order depends on
                served += 1
                lab.expect(code == SERVES, f"{what}: exit {code}, {said[-1:]}")
                lab.expect(what in _MAY_SERVE, f"{what}: a ledger that is damaged was taken")
            shutil.rmtree(data)
            lab.step()
    return (
        f"{LEDGERS} damages: {refusals} refused with exit {REFUSES} and one line, {served} (a byte or some) unseen; "
        f"repaired as it says: {saved:,} of {refusals * rows:,} rows, with the key of {row.name!r}, else begun anew"
    )


def _rows(data: Path) -> int:
    with closing(sqlite3.connect(data / DATABASE)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM attempts").fetchone()
    return int(count)


async def _repaired(lab: Lab, data: Path, said: list[str], secret: str, what: str) -> int:
    """How many rows were saved by what the line says; where nothing was, it is moved away, as it says too."""
    saved, path = 0, data / DATABASE
    command = _RECOVERED.search(said[0])
    lab.expect(command is not None, f"{what}: no command in {said[0]!r}")
    if command is not None and shutil.which("sqlite3"):
        saved = _restored(path, command[1])
    if saved:
        code, again = await asyncio.to_thread(refused, lab, data, "")
        if code != SERVES:  # what could be read was not enough
            lab.expect(code == REFUSES and len(again) == 1, f"{what}: repaired, then exit {code}, {again[-1:]}")
            saved = 0
    if not saved:
        _moved_away(path)
    before = _rows(data) if saved else 0
    try:
        with lab.proxy(data=data, settings='auth = "none"', warns=True) as proxy:
            key = secret if saved else "bench"
            (call,) = await sent_at_once(proxy.port, [chat(STREAMED, lab.question(), key=key)])
            await finished([call])
            lab.expect(is_good(call), f"{what}: repaired ({saved} rows), then status {call.status}")
    except RuntimeError as error:
        lab.expect(held=False, otherwise=f"{what}: repaired ({saved} rows), then {str(error)[-60:]}")
        return 0
    lab.expect(_rows(data) == before + 1, f"{what}: repaired, {before} rows, then {_rows(data)}")
    return saved


def _restored(path: Path, command: str) -> int:
    """How many rows are in what the command makes, which is put in the place of the ledger."""
    subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=False)
    with suppress(OSError, sqlite3.Error):
        new = path.with_name(f"{path.name}.new")
        _moved_away(path)
        new.replace(path)
        return _rows(path.parent)
    return 0


def _moved_away(path: Path) -> None:
    for each in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
        each.unlink(missing_ok=True)


def _patched(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


_LEDGER_DAMAGES: tuple[tuple[str, Callable[[Path, random.Random], object]], ...] = (
    ("nonsense", lambda path, dice: path.write_bytes(dice.randbytes(100_000))),
    ("half of it", lambda path, _: os.truncate(path, path.stat().st_size // 2)),
    ("the head", lambda path, _: _patched(path, 0, b"\xff" * 16)),
    ("the schema", lambda path, _: _patched(path, 100, b"\xff" * 3000)),
    (
        "a page",
        lambda path, dice: _patched(path, dice.randrange(4, path.stat().st_size // 4096) * 4096, b"\xff" * 4096),
    ),
    ("bytes", lambda path, dice: _flip_bytes(path, dice, 200)),
    ("a byte", lambda path, dice: _flip_bytes(path, dice, 1)),
    ("empty", lambda path, _: path.write_bytes(b"")),
)
_MAY_SERVE = ("bytes", "a byte", "a page", "empty")


class Trap:
    """Whoever unpickles this makes a directory: proof that something was executed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._path),)


async def planted(lab: Lab) -> str:
    """T8: in every place of a cache from which the library under it would load one; and what the locks pin."""
    lab.steps(len(list(_plants(Path(), b""))) + 1)
    with tempfile.TemporaryDirectory() as directory:
        good, data, sprung = (Path(directory, name) for name in ("good", "planted", "sprung"))
        known = await _filled(lab, good)
        trap = pickle.dumps(Trap(sprung))
        _check_trap(lab, trap, sprung)
        count = ran = 0
        for what, plant in _plants(data, trap):
            shutil.copytree(good, data)
            plant()
            with lab.proxy(data=data, warns=True) as proxy:
                await _right_or_nothing(lab, proxy, known, what)
            ran += _sprung(sprung)
            lab.expect(not _sprung(sprung), f"{what}: was executed")
            shutil.rmtree(data)
            shutil.rmtree(sprung, ignore_errors=True)
            count += 1
            lab.step()
    pinned = _check_locks(lab)
    lab.step()
    return f"{count} kinds of planted pickles, {ran} of them ran; {pinned} lines in the locks"


def _sprung(trap: Path) -> bool:
    return trap.exists()


def _check_trap(lab: Lab, trap: bytes, sprung: Path) -> None:
    """In a process of its own: what never springs proves nothing."""
    code = "import pickle, sys; pickle.loads(sys.stdin.buffer.read())"
    subprocess.run([sys.executable, "-c", code], input=trap, check=True)
    lab.expect(sprung.exists(), "the trap does not work")
    shutil.rmtree(sprung, ignore_errors=True)


def _plants(data: Path, trap: bytes) -> Iterator[tuple[str, Callable[[], None]]]:
    def sql(statement: str, *values: object) -> None:
        with closing(sqlite3.connect(_database(data))) as connection, connection:
            connection.execute(statement, values)

    def in_files() -> None:
        for path in data.glob("cache/*/*/*.val"):
            path.write_bytes(trap)
        sql("UPDATE Cache SET mode = 4 WHERE filename IS NOT NULL")

    def settings() -> None:
        for name in ("disk", "_disk", "disk_pickle_protocol", "eviction_policy", "directory", "timeout", "cull_limit"):
            sql("INSERT OR REPLACE INTO Settings (key, value) VALUES (?, ?)", name, trap)

    yield "pickled values", lambda: sql("UPDATE Cache SET mode = 4, filename = NULL, value = ?", trap)
    yield "pickled values, raw", lambda: sql("UPDATE Cache SET mode = 1, filename = NULL, value = ?", trap)
    yield "pickled values as text", lambda: sql("UPDATE Cache SET mode = 3, filename = NULL, value = ?", trap)
    yield "pickled values in files", in_files
    yield "pickled keys", lambda: sql("UPDATE Cache SET raw = 0")
    yield "a trap for a key", lambda: sql("UPDATE Cache SET raw = 0, key = ? WHERE rowid = 1", trap)
    yield "pickled settings", settings
    yield "a pickled tag", lambda: sql("UPDATE Cache SET tag = ?", trap)


def _check_locks(lab: Lab) -> int:
    """Every requirement of every lock has a version and a hash, and nothing names where to get it."""
    locks = sorted(Path(__file__).parents[2].glob("requirements*.lock"))
    lab.expect(len(locks) >= 2, f"{len(locks)} locks")
    count = 0
    for lock in locks:
        text = re.sub(r"\s*\\\n\s*", " ", lock.read_text(encoding="utf-8"))
        for line in filter(None, (line.partition(" #")[0].strip() for line in text.splitlines())):
            if line.startswith("#"):
                continue
            pinned = re.fullmatch(r"[A-Za-z0-9._-]+==[^\s;]+( ;[^-]*)?(\s+--hash=sha256:[0-9a-f]{64})+", line)
            lab.expect(pinned is not None, f"{lock.name}: {line[:60]!r} is no pinned package with a hash")
            count += 1
    lab.expect(count > 0, "the locks are empty")
    return count
