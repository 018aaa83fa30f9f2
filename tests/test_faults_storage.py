"""Disks that are full, damaged or not to be written, through the whole proxy: every client gets its answer.

What the tiers do at each single operation is in tests/store.
"""

import logging
import os
import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from proxy.clock import SystemClock
from proxy.ledger.opening import open_database
from proxy.ledger.rows import answers
from tests.conftest import MakeProxy
from tests.ledger.told import answer as told
from tests.ledger.told import column
from tests.routed import counted
from tests.scripted import answer, events, post
from tests.support import Json, Proxy, Simulator, ask, eventually, proxy_table
from tests.test_commands import served
from tests.test_tenants import alter, fetched

FORMS: dict[str, Json] = {"JSON": {}, "a stream": {"stream": True}}
ON_DISK = {"memory_limit": 0}  # every hit comes from the disk


def store_events(proxy: Proxy) -> dict[str, float]:
    """What went wrong in the store, by tier and kind."""
    found = counted(proxy.metrics(), "penstock_store_failures_total", "tier", "event")
    return {"_".join(labels): count for labels, count in found.items()}


def warnings(caplog: pytest.LogCaptureFixture, word: str) -> int:
    return sum(record.levelno == logging.WARNING and word in record.getMessage() for record in caplog.records)


def written(directory: Path, entries: int) -> None:
    """Wait until so many entries are on the disk."""
    eventually(lambda: alter(directory, lambda _: None) == entries)


@contextmanager
def running(simulator: Simulator, directory: Path) -> Iterator[Proxy]:
    """A proxy whose every hit comes from the disk; stopped at the end, so that another may have the directory."""
    proxy = Proxy(proxy_table(simulator.base_url, directory, {}, {"cache": ON_DISK}), {}, SystemClock())
    try:
        yield proxy
    finally:
        proxy.stop()


def at_rest(directory: Path) -> Path:
    """The database, with all that was in its write-ahead log."""
    alter(directory, lambda database: database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
    for name in ("cache.db-wal", "cache.db-shm"):
        (directory / "cache" / name).unlink(missing_ok=True)
    return directory / "cache" / "cache.db"


# S1: full. A limit on the size of files is a disk that this process alone finds full.


def test_on_a_full_disk_everybody_is_answered_and_once_there_is_room_answers_are_kept_again(
    simulator: Simulator, tmp_path: Path
) -> None:
    with served(simulator.base_url, tmp_path) as proxy:
        assert proxy.ask(ask("before")).status_code == 200
        written(tmp_path, 1)
        process = proxy.process.pid
        _, hard = resource.prlimit(process, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        for number in range(10):
            for form in FORMS.values():
                body = ask(f"full {number}", **form)
                assert proxy.ask(body).status_code == 200
                assert proxy.ask(body).headers["cache-status"].startswith("penstock; hit")  # from memory
        assert simulator.asked() == 11
        eventually(
            lambda: (
                'penstock_store_failures_total{event="write_failed",tier="disk"}'
                in httpx.get(f"{proxy.url}/metrics").text
            )
        )
        resource.prlimit(process, resource.RLIMIT_FSIZE, (hard, hard))
        assert proxy.ask(ask("after")).status_code == 200
        eventually(lambda: alter(tmp_path, lambda _: None) >= 2)
        code, said = proxy.end()
        assert code == 0
        assert said.count("disk_write_failed") == 1
        assert "Traceback" not in said


# S2: damaged. More kinds of it are in store/test_disk.py.

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "nonsense": lambda whole: b"this is no database at all " * (len(whole) // 27),
    "the schema overwritten": lambda whole: whole[:100] + b"\xff" * 3996 + whole[4096:],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_cache_is_set_aside_and_filled_anew(
    kind: str, simulator: Simulator, tmp_path: Path, caplog: pytest.LogCaptureFixture, prompt: str
) -> None:
    with running(simulator, tmp_path) as proxy:
        assert fetched(proxy, ask(prompt), {}) == "penstock; fwd=miss; stored"
        written(tmp_path, 1)
    database = at_rest(tmp_path)
    database.write_bytes(DAMAGE[kind](database.read_bytes()))
    with running(simulator, tmp_path) as proxy:
        assert fetched(proxy, ask(prompt), {}) == "penstock; fwd=miss; stored"
        written(tmp_path, 1)
    with running(simulator, tmp_path) as proxy:
        assert fetched(proxy, ask(prompt, stream=True), {}).startswith("penstock; hit")
    assert simulator.asked() == 2
    assert warnings(caplog, "cache.corrupt-1") == 1
    assert (tmp_path / "cache" / "cache.corrupt-1").exists()


def flip(database: sqlite3.Connection) -> None:
    """One bit of each stored answer."""
    for row, value in database.execute("SELECT rowid, value FROM Cache").fetchall():
        flipped = bytearray(value)
        flipped[len(flipped) // 2] ^= 1
        database.execute("UPDATE Cache SET value = ? WHERE rowid = ?", (bytes(flipped), row))


@pytest.mark.parametrize("form", FORMS)
def test_a_stored_answer_that_was_altered_is_a_miss_and_counted(
    form: str,
    make_proxy: MakeProxy,
    simulator: Simulator,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    prompt: str,
) -> None:
    proxy = make_proxy(directory=tmp_path, cache=ON_DISK)
    bodies = [ask(f"{prompt} {number}", **FORMS[form]) for number in range(5)]
    for body in bodies:
        fetched(proxy, body, {})
    written(tmp_path, 5)
    alter(tmp_path, flip)
    assert [fetched(proxy, body, {}) for body in bodies] == ["penstock; fwd=miss; stored"] * 5
    assert simulator.asked() == 10
    assert store_events(proxy) == {"disk_corrupt": 5}
    assert warnings(caplog, "disk_corrupt") == 1  # of one kind once a minute
    written(tmp_path, 5)
    assert all(fetched(proxy, body, {}).startswith("penstock; hit") for body in bodies)
    assert simulator.asked() == 10


def test_a_database_that_is_overwritten_beneath_a_running_proxy_costs_misses_only(
    simulator: Simulator, tmp_path: Path, caplog: pytest.LogCaptureFixture, prompt: str
) -> None:
    bodies = [ask(f"{prompt} {number}") for number in range(20)]
    with running(simulator, tmp_path) as proxy:
        for body in bodies:
            answer(proxy.url, body)
        written(tmp_path, 20)
    database = at_rest(tmp_path)
    with running(simulator, tmp_path) as proxy:
        whole = database.read_bytes()
        database.write_bytes(whole[: 4096 * 4] + b"\xff" * (len(whole) - 4096 * 4))
        for body in bodies:
            assert answer(proxy.url, body)["choices"]
            assert events(proxy.url, body)
        assert simulator.asked() > 20
        assert store_events(proxy).keys() & {"disk_corrupt", "disk_read_failed", "disk_write_failed"}
        assert warnings(caplog, "set aside at the next start") == 1
    with running(simulator, tmp_path) as proxy:
        assert answer(proxy.url, bodies[0])["choices"]
        assert store_events(proxy) == {"disk_set_aside": 1}


# S4: not to be written.


def occupied(path: Path) -> None:
    path.mkdir(mode=0o700)
    (path / "cache").touch()


UNUSABLE: dict[str, Callable[[Path], object]] = {
    "a file in its place": Path.touch,
    "a dangling link": lambda path: path.symlink_to(path.parent / "nowhere" / "deeper"),
    "a file in the place of the cache": occupied,
    "read-only": lambda path: path.mkdir(mode=0o500),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_without_a_directory_that_can_be_written_everybody_is_answered(
    kind: str,
    make_proxy: MakeProxy,
    simulator: Simulator,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    prompt: str,
) -> None:
    if kind == "read-only" and os.geteuid() == 0:
        pytest.skip("root ignores modes")
    directory = tmp_path / "data"
    UNUSABLE[kind](directory)
    proxy = make_proxy(directory=directory)
    assert store_events(proxy) == {"disk_unavailable": 1}
    assert warnings(caplog, "the cache has no disk") == 1
    assert warnings(caplog, "there is no ledger") == (kind != "a file in the place of the cache")
    for form in FORMS.values():
        with post(proxy.url, ask(prompt, **form)) as wire:
            assert wire.status == 200
            wire.read_body()
            assert wire.clean
    assert simulator.asked() == 1  # memory is still there
    assert proxy.http.get("/readyz").status_code == 200


# Old rows.


def test_old_rows_go_though_nobody_asks_anything(make_proxy: MakeProxy, tmp_path: Path) -> None:
    database = open_database(tmp_path)
    with database.connect() as connection:
        connection.exec_driver_sql(*answers().whole([told(at=1.0), told("new", at=SystemClock().wall())]))
    database.dispose()
    make_proxy(directory=tmp_path, ledger={"retention": "1d"})
    eventually(lambda: column(tmp_path, "SELECT id FROM requests") == ["new"])
