"""The database file: private, made once, brought up to date, refused where it is damaged."""

import os
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy.exc import OperationalError

from proxy.errors import StartupError
from proxy.ledger import opening
from proxy.ledger.opening import DATABASE, open_database, open_existing, transaction
from proxy.ledger.rows import answers
from proxy.ledger.schema import HEAD, attempts, metadata
from tests.ledger.told import answer, ask, column

ROOT = Path(__file__).resolve().parents[2]
PAGE = 4096


def modes(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}


def filled(directory: Path, rows: int = 300) -> Path:
    """A ledger with some pages of each table and index, at rest."""
    made = open_database(directory)
    row = dict.fromkeys(attempts.columns.keys())
    row |= {"at": 1.0, "key": "pk", "endpoint": "chat", "asked": "m", "provider": "p", "model": "m", "number": 1}
    row |= {"stream": False, "estimated": False}
    with transaction(made) as connection:
        connection.execute(attempts.insert(), [row | {"request": f"req_{number}"} for number in range(rows)])
    return directory / DATABASE


def test_the_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    made = open_database(directory)
    with transaction(made) as connection:
        connection.exec_driver_sql("INSERT INTO marks VALUES ('one', 1)")
        assert modes(directory) == {DATABASE: 0o600, f"{DATABASE}-wal": 0o600, f"{DATABASE}-shm": 0o600}
    assert directory.stat().st_mode & 0o777 == 0o700


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    open_database(tmp_path)
    (tmp_path / DATABASE).chmod(0o644)
    open_database(tmp_path)
    assert modes(tmp_path)[DATABASE] == 0o600


def test_commits_go_to_a_write_ahead_log_and_wait_for_no_disk(tmp_path: Path) -> None:
    with open_database(tmp_path).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 5000


def test_a_ledger_that_is_up_to_date_is_opened_without_alembic(tmp_path: Path) -> None:
    open_database(tmp_path)
    code = f"""
import sys, pathlib
from proxy.ledger import Ledger
from proxy.clock import SystemClock
Ledger.open(pathlib.Path({str(tmp_path)!r}), SystemClock())
assert not [name for name in sys.modules if name.startswith("alembic")]
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_many_may_open_a_directory_at_once_that_has_none(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: open_database(tmp_path), range(8)))
    assert column(tmp_path, "SELECT version_num FROM alembic_version") == [HEAD]


def test_a_transaction_is_the_only_writer_from_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = open_database(tmp_path)
    monkeypatch.setattr(opening, "PATIENCE", 0.0)
    other = open_database(tmp_path)
    with transaction(made), pytest.raises(OperationalError, match="locked") as caught, transaction(other):
        pass
    assert opening.is_busy(caught.value)


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    made = open_database(tmp_path)

    def half() -> None:
        with transaction(made) as connection:
            connection.exec_driver_sql("INSERT INTO marks VALUES ('one', 1)")
            raise KeyError

    with pytest.raises(KeyError):
        half()
    assert ask(tmp_path, "SELECT * FROM marks") == []


def test_a_transaction_that_the_database_undid_fails_with_its_own_reason(tmp_path: Path) -> None:
    def undone() -> None:
        with transaction(open_database(tmp_path)) as connection:
            connection.exec_driver_sql("ROLLBACK")
            connection.exec_driver_sql("SELECT * FROM nowhere")

    with pytest.raises(OperationalError, match="no such table"):
        undone()


def test_nothing_is_made_by_looking(tmp_path: Path) -> None:
    assert open_existing(tmp_path / "none", read_only=True) is None
    assert open_existing(tmp_path / "none") is None
    assert list(tmp_path.iterdir()) == []


def test_a_reader_can_change_nothing(tmp_path: Path) -> None:
    open_database(tmp_path)
    reading = open_existing(tmp_path, read_only=True)
    assert reading is not None
    with reading.connect() as connection, pytest.raises(OperationalError, match="readonly"):
        connection.exec_driver_sql("INSERT INTO marks VALUES ('one', 1)")


def test_a_newer_penstocks_ledger_is_refused_and_left_alone(tmp_path: Path) -> None:
    open_database(tmp_path)
    ask(tmp_path, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StartupError, match="newer version"):
        open_database(tmp_path)
    with pytest.raises(StartupError, match=r"made by a newer version of Penstock; use that one"):
        open_existing(tmp_path, read_only=True)
    assert column(tmp_path, "SELECT version_num FROM alembic_version") == ["9999"]


def made_by_the_first_penstock(directory: Path) -> None:
    """A ledger at the first migration, with a row in each table."""
    (directory / DATABASE).touch(mode=0o600)
    config = Config()
    config.set_main_option("script_location", str(opening._MIGRATIONS))
    with transaction(opening.engine(directory / DATABASE)) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql(
            "INSERT INTO requests (at, id, key, endpoint, asked, outcome, status, provider, model, total, entry)"
            " VALUES (7.0, 'req_1', 'pk', 'chat', 'm', 'miss', 200, 'p', 'm', 0.5, x'aa')"
        )
        connection.exec_driver_sql(
            "INSERT INTO attempts (request, number, at, key, endpoint, asked, provider, model, stream, usd, estimated)"
            " VALUES ('req_1', 1, 7.0, 'pk', 'chat', 'm', 'p', 'm', 0, 125, 0)"
        )
        connection.exec_driver_sql("INSERT INTO carried VALUES ('pk', 3, 250)")
        connection.exec_driver_sql("INSERT INTO marks VALUES ('keys', 2)")


def test_an_older_penstocks_ledger_is_brought_up_to_date_with_all_that_it_holds(tmp_path: Path) -> None:
    made_by_the_first_penstock(tmp_path)
    with pytest.raises(StartupError, match="of an older version of Penstock; start the proxy once"):
        open_existing(tmp_path, read_only=True)
    open_database(tmp_path)
    assert column(tmp_path, "SELECT version_num FROM alembic_version") == [HEAD]
    assert ask(tmp_path, "SELECT id, outcome, entry, shadow FROM requests") == [("req_1", "miss", b"\xaa", None)]
    assert ask(tmp_path, "SELECT request, usd FROM attempts") == [("req_1", 125)]
    assert ask(tmp_path, "SELECT * FROM carried") == [("pk", 3, 250)]
    assert ask(tmp_path, "SELECT * FROM marks") == [("keys", 2)]


def test_an_older_penstocks_ledger_is_written_as_one_that_is_new(tmp_path: Path) -> None:
    made_by_the_first_penstock(tmp_path)
    with open_database(tmp_path).connect() as connection:
        connection.exec_driver_sql(*answers().whole([answer("req_2", shadow="collapsed")]))
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    assert ask(tmp_path, "SELECT id, shadow FROM requests ORDER BY id") == [("req_1", None), ("req_2", "collapsed")]


def at_rest(path: Path, damaged: bytes) -> None:
    path.write_bytes(damaged)
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def refusal(directory: Path) -> str:
    before = (directory / DATABASE).read_bytes()
    with pytest.raises(StartupError) as caught:
        open_database(directory)
    assert (directory / DATABASE).read_bytes() == before
    return str(caught.value)


@pytest.mark.parametrize(
    ("at", "byte"),
    [(0, b"s"), (16, b"\xff"), (18, b"\x09"), (47, b"\x09"), (100, b"\x00"), (PAGE - 100, b"\xff" * 90)],
    ids=["magic", "page size", "write version", "schema format", "root page", "schema"],
)
def test_a_damaged_head_is_refused_with_the_way_to_repair_it(tmp_path: Path, at: int, byte: bytes) -> None:
    path = filled(tmp_path)
    sound = path.read_bytes()
    at_rest(path, sound[:at] + byte + sound[at + len(byte) :])
    said = refusal(tmp_path)
    assert f"sqlite3 {path} .dump" in said
    assert str(path) in said
    assert "\n" not in said


def test_every_page_that_holds_no_page_is_seen(tmp_path: Path) -> None:
    path = filled(tmp_path)
    sound = path.read_bytes()
    for number in range(1, len(sound) // PAGE):
        at_rest(path, sound[: number * PAGE] + b"\xa5" * PAGE + sound[(number + 1) * PAGE :])
        assert ".dump" in refusal(tmp_path), number


def test_a_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    path = filled(tmp_path)
    at_rest(path, path.read_bytes()[: 5 * PAGE])
    assert ".dump" in refusal(tmp_path)


def test_a_text_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_text("my notes\n" * 200)
    assert ".dump" in refusal(tmp_path)


def test_of_a_large_file_the_schema_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = filled(tmp_path)
    monkeypatch.setattr(opening, "CHECKED_WHOLE", 0)
    open_database(tmp_path)
    sound = path.read_bytes()
    at_rest(path, sound[:100] + b"\xa5" * (PAGE - 100) + sound[PAGE:])
    assert ".dump" in refusal(tmp_path)


def test_a_directory_that_cannot_be_one_is_an_error_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        open_database(tmp_path / "file")
    (tmp_path / "data" / DATABASE).mkdir(parents=True)
    with pytest.raises(OSError, match=DATABASE):
        open_database(tmp_path / "data")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_directory_that_cannot_be_written_is_an_error_of_the_system(tmp_path: Path) -> None:
    open_database(tmp_path)
    for mode, what in ((0o500, tmp_path), (0o400, tmp_path / DATABASE)):
        before = what.stat().st_mode
        what.chmod(mode)
        try:
            with pytest.raises(OSError, match=DATABASE):
                open_database(tmp_path)
        finally:
            what.chmod(before)


def test_an_error_is_described_without_the_statement_that_it_came_from(tmp_path: Path) -> None:
    made = open_database(tmp_path)
    with made.connect() as connection, pytest.raises(OperationalError) as caught:
        connection.exec_driver_sql("SELECT * FROM nowhere WHERE secret = ?", ("sk-planted",))
    assert opening.describe(caught.value) == "OperationalError: no such table: nowhere"
    assert "sk-planted" not in str(caught.value)


def test_a_reader_does_not_need_the_log_of_a_writer(tmp_path: Path) -> None:
    open_database(tmp_path)
    with closing(sqlite3.connect(tmp_path / DATABASE)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert modes(tmp_path).keys() == {DATABASE}
    reading = open_existing(tmp_path, read_only=True)
    assert reading is not None
    with reading.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM marks").scalar() == 0


def test_what_a_damaged_page_holds_makes_no_second_line() -> None:
    error = sqlite3.DatabaseError('malformed database schema (keys) - unrecognized token: "\n\x1b[2J"')
    assert opening.describe(error) == 'DatabaseError: malformed database schema (keys) - unrecognized token: "??[2J"'
