"""What keys were charged since a moment."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert

from proxy.ledger.opening import open_database
from proxy.ledger.pico import MOST
from proxy.ledger.rows import Ending, endings, intents
from proxy.ledger.schema import attempts, carried
from proxy.ledger.spending import DAY, spent, spent_in, sum_of
from tests.ledger.told import AT, end, intent

TODAY = AT // DAY * DAY


@pytest.fixture
def connection(tmp_path: Path) -> Connection:
    return open_database(tmp_path).connect()


def charge(connection: Connection, request: str, usd: str | None, **intended: object) -> None:
    money = None if usd is None else Decimal(usd)
    connection.exec_driver_sql(*endings().whole([Ending(intent(request, **intended), end(request, usd=money))]))


def test_a_key_is_charged_for_its_own_attempts_since_the_moment(connection: Connection) -> None:
    charge(connection, "a", "0.1", at=TODAY - 0.001)
    charge(connection, "b", "0.02", at=TODAY)
    charge(connection, "c", "0.003", at=TODAY + 10)
    charge(connection, "d", "9", at=TODAY + 10, key="pk_2")
    assert spent(connection, "pk_1", TODAY) == Decimal("0.023")
    assert spent(connection, "pk_1", 0.0) == Decimal("0.123")
    assert spent(connection, "pk_3", 0.0) == 0


def test_what_is_under_way_counts_as_it_was_reserved(connection: Connection) -> None:
    connection.exec_driver_sql(*intents().whole([intent("a", reserved=Decimal("0.7"))]))
    assert spent(connection, "pk_1", 0.0) == Decimal("0.7")
    charge(connection, "a", "0.2", reserved=Decimal("0.7"))
    assert spent(connection, "pk_1", 0.0) == Decimal("0.2")


def test_what_has_no_price_adds_nothing(connection: Connection) -> None:
    charge(connection, "a", None)
    charge(connection, "b", "0.5")
    assert spent(connection, "pk_1", 0.0) == Decimal("0.5")


def test_what_was_deleted_is_still_told_by_the_day(connection: Connection) -> None:
    day = int(TODAY // DAY)
    rows = [{"key": "pk_1", "day": each, "usd": usd} for each, usd in ((day - 1, 100), (day, 20), (day + 1, 3))]
    connection.execute(insert(carried), rows)
    pico = Decimal(10) ** -12
    assert spent(connection, "pk_1", 0.0) == 123 * pico
    assert spent(connection, "pk_1", TODAY) == 23 * pico
    assert spent(connection, "pk_1", TODAY + DAY) == 3 * pico


def test_each_key_is_told_what_it_was_charged_itself(connection: Connection) -> None:
    charge(connection, "a", "1", key="pk_1")
    charge(connection, "b", "2", key="pk_2")
    charge(connection, "c", "4", key="pk_2")
    charge(connection, "d", "8", key="")
    connection.execute(insert(carried), {"key": "pk_9", "day": 1, "usd": 10**12})
    assert [spent(connection, key, 0.0) for key in ("", "pk_1", "pk_2", "pk_9", "pk_3")] == [8, 1, 6, 1, 0]


def test_it_is_read_beside_a_proxy_and_nothing_is_made_by_looking(tmp_path: Path) -> None:
    assert spent_in(tmp_path, "pk_1", 0.0) == 0
    assert list(tmp_path.iterdir()) == []
    with open_database(tmp_path).connect() as connection:
        charge(connection, "a", "1.5", key="pk_1")
        assert [spent_in(tmp_path, "pk_1", since) for since in (0.0, AT + 1)] == [Decimal("1.5"), 0]


def test_a_sum_is_exact_beyond_what_one_column_holds(connection: Connection) -> None:
    for number in range(5):
        charge(connection, f"req_{number}", "1e9")
    assert spent(connection, "pk_1", 0.0) == Decimal(5 * MOST).scaleb(-12)


def test_a_negative_sum_is_exact_too(connection: Connection) -> None:
    charge(connection, "a", "-1.000000000001")
    charge(connection, "b", "0.3")
    assert spent(connection, "pk_1", 0.0) == Decimal("-0.700000000001")


def plan(connection: Connection, run: Callable[[], object]) -> str:
    """How the database would find the rows of a query."""
    query = str(sum_of(attempts.c.usd).where(attempts.c.key == "x", attempts.c.at >= 1).compile(connection.engine))
    run()
    return " ".join(str(row[3]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", (10, 10, "x", 1)))


def test_it_reads_an_index_and_no_row(connection: Connection) -> None:
    said = plan(connection, lambda: spent(connection, "x", 1.0))
    assert "SEARCH attempts USING COVERING INDEX attempts_spent (key=? AND at>?)" in said
