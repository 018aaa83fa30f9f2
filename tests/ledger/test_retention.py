"""What is too old is deleted a little at a time, and budgets know it all the same."""

from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Engine

from proxy.ledger import retention
from proxy.ledger.opening import open_database, transaction
from proxy.ledger.retention import delete_old
from proxy.ledger.rows import Ending, answers, endings, intents
from proxy.ledger.settling import RECENT
from proxy.ledger.spending import spent
from tests.ledger.told import AT, DAY, answer, ask, column, end, hit, intent


def tell(database: Engine, *what: tuple[str, tuple[object, ...]]) -> None:
    with database.connect() as connection:
        for each in what:
            connection.exec_driver_sql(*each)


def tried(database: Engine, request: str, at: float, usd: str | None = "0.125", key: str = "pk_1") -> None:
    money = None if usd is None else Decimal(usd)
    tell(database, endings().whole([Ending(intent(request, at=at, key=key), end(request, usd=money))]))


def clean(database: Engine, before: float) -> bool:
    with transaction(database) as connection:
        return delete_old(connection, before)


def charged(database: Engine, since: float, key: str = "pk_1") -> Decimal:
    with database.connect() as connection:
        return spent(connection, key, since)


def test_what_is_old_goes_and_what_is_not_stays(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    for name, at in (("old", AT - 1), ("just", AT), ("new", AT + 1)):
        tried(database, name, at)
        tell(database, answers().whole([answer(name, at=at), hit(f"{name}-hit", at=at)]))
    assert not clean(database, AT)
    assert column(tmp_path, "SELECT request FROM attempts") == ["just", "new"]
    assert not clean(database, AT + RECENT)
    assert column(tmp_path, "SELECT id FROM requests ORDER BY at, id") == ["just", "just-hit", "new", "new-hit"]


def test_a_request_outlives_its_attempts_for_a_day(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    tried(database, "a", AT)
    tell(database, answers().whole([answer("a")]))
    clean(database, AT + 1)
    assert (column(tmp_path, "SELECT request FROM attempts"), column(tmp_path, "SELECT id FROM requests")) == (
        [],
        ["a"],
    )


def test_what_is_under_way_stays(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    tell(database, intents().whole([intent("open", at=AT - DAY)]))
    assert not clean(database, AT)
    assert column(tmp_path, "SELECT request FROM attempts") == ["open"]


def test_budgets_know_what_deleted_rows_had_cost(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    today = AT // DAY * DAY
    spendings = [("a", today - DAY, "1"), ("b", today - 1, "0.2"), ("c", today, "0.03"), ("d", today + 1, "0.004")]
    for name, at, usd in spendings:
        tried(database, name, at, usd)
    tried(database, "other", today, "7", key="pk_2")
    tried(database, "unpriced", today, None)
    before = {since: charged(database, since) for since in (0.0, today - DAY, today, today + DAY)}
    for until in (today - 10, today, today + 1, today + 2):
        clean(database, until)
        assert {since: charged(database, since) for since in before} == before
    assert column(tmp_path, "SELECT request FROM attempts") == []
    assert charged(database, 0.0) == Decimal("1.234")
    assert charged(database, today, "pk_2") == 7


def test_it_goes_a_part_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "AT_ONCE", 10)
    database = open_database(tmp_path)
    for number in range(25):
        tried(database, f"req_{number}", AT + number)
    left = []
    while clean(database, AT + DAY):
        left += column(tmp_path, "SELECT count(*) FROM attempts")
    assert left == [15, 5]
    assert ask(tmp_path, "SELECT count(*) FROM attempts") == [(0,)]
    assert charged(database, 0.0) == 25 * Decimal("0.125")


def test_rows_of_one_moment_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "AT_ONCE", 2)
    database = open_database(tmp_path)
    for number in range(5):
        tried(database, f"req_{number}", AT)
    assert clean(database, AT + 1)
    assert column(tmp_path, "SELECT count(*) FROM attempts") == [0]
    assert charged(database, 0.0) == 5 * Decimal("0.125")
