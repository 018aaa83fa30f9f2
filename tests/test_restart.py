"""What a ledger holds after a proxy that was killed, beside other processes, damaged, or where it cannot be written."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from bench.soak.books import Books, shared, survived
from bench.soak.tenants import alike
from proxy.core.access import Grant
from proxy.ledger.keys import create_key, list_keys
from proxy.ledger.opening import DATABASE, open_database
from tests.support import DEADLINE, Simulator, ask
from tests.test_books import small
from tests.test_commands import EX_CONFIG, penstock, served


def test_after_kills_every_call_has_its_row_and_those_under_way_are_marked_and_charged_as_reserved() -> None:
    small(lambda lab: survived(lab, 2, 10, within=DEADLINE))


def test_the_proxy_and_commands_that_make_and_revoke_keys_lose_nothing_and_lock_nobody_out() -> None:
    small(lambda lab: shared(lab, 12, within=DEADLINE))


def overwritten(database: Path) -> None:
    whole = database.read_bytes()
    database.write_bytes(whole[:100] + b"\xff" * 3996 + whole[4096:])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "nonsense": lambda database: database.write_bytes(b"this is no database at all " * 4000),
    "the schema overwritten": overwritten,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_ledger_is_refused_with_one_line_and_moved_away_as_it_says_begins_anew(
    kind: str, simulator: Simulator, tmp_path: Path
) -> None:
    create_key(tmp_path, Grant("team"), now=0.0)
    DAMAGE[kind](tmp_path / DATABASE)
    damaged = (tmp_path / DATABASE).read_bytes()
    said = penstock("serve", "--upstream", simulator.base_url, "--port", "0", "--data-dir", str(tmp_path))
    assert said.returncode == EX_CONFIG
    (line,) = said.stderr.splitlines()
    assert f"{tmp_path / DATABASE} is damaged" in line
    assert (tmp_path / DATABASE).read_bytes() == damaged
    for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"):
        assert name in line
        (tmp_path / name).unlink(missing_ok=True)
    with served(simulator.base_url, tmp_path) as proxy:
        assert proxy.ask(ask("anew")).status_code == 200
        assert proxy.end()[0] == 0
    assert len(Books(tmp_path).attempts) == 1


def test_what_a_damaged_ledger_still_says_is_saved_as_the_line_tells(tmp_path: Path) -> None:
    create_key(tmp_path, Grant("team"), now=0.0)
    made = open_database(tmp_path)
    made.dispose()
    path = tmp_path / DATABASE
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'attempts_at'").fetchone()
    whole = path.read_bytes()
    path.write_bytes(whole[: 4096 * (page - 1)] + b"\xff" * 4096 + whole[4096 * page :])
    said = penstock("serve", "--upstream", "http://127.0.0.1:9/v1", "--port", "0", "--data-dir", str(tmp_path))
    assert said.returncode == EX_CONFIG
    command = said.stderr.split("`")[1]
    if os.system("command -v sqlite3 >/dev/null") != 0:  # noqa: S605
        pytest.skip("this machine has no sqlite3 command")
    assert os.system(f"{command} 2>/dev/null") == 0  # noqa: S605
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    path.with_name(f"{DATABASE}.new").replace(path)
    assert [row.name for row in list_keys(tmp_path)] == ["team"]
    open_database(tmp_path).dispose()


@pytest.mark.parametrize("depends", ["a budget", "a key in the ledger", "nothing"])
def test_where_a_ledger_cannot_be_written_there_is_one_clear_line_if_anything_depends_on_it(
    depends: str, simulator: Simulator, tmp_path: Path
) -> None:
    if os.geteuid() == 0:
        pytest.skip("root ignores modes")
    data = tmp_path / "data"
    data.mkdir()
    if depends == "a key in the ledger":
        create_key(data, Grant("team"), now=0.0)
    budget = f'[[keys]]\nname = "a"\nkey_sha256 = "{"0" * 64}"\nbudget = {{ usd = "1", per = "day" }}\n'
    file = tmp_path / "penstock.toml"
    file.write_text(
        f'[providers.p]\nbase_url = "{simulator.base_url}"\nauth = "none"\n{budget * (depends == "a budget")}'
    )
    data.chmod(0o500)
    try:
        if depends == "nothing":
            with served(simulator.base_url, data) as proxy:
                assert proxy.ask(ask("without it")).status_code == 200
                assert proxy.end()[1].count("there is no ledger") == 1
            return
        said = penstock("serve", "--config", str(file), "--port", "0", "--data-dir", str(data))
        assert said.returncode == EX_CONFIG
        (line,) = said.stderr.splitlines()
        assert "make it writable" in line
    finally:
        data.chmod(0o700)


def test_samples_of_one_kind_are_alike_and_those_of_two_are_not() -> None:
    one = [number % 97 for number in range(250)]
    assert alike([*map(float, one)], [*map(float, reversed(one))]) > 0.9
    assert alike([*map(float, one)], [each + 30.0 for each in one]) < 0.001
