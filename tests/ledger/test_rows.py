"""Rows as they are written: each value in its column, and many in one statement."""

from decimal import Decimal
from pathlib import Path

import pytest
from msgspec.structs import replace
from sqlalchemy import Table, select

from pricing.cost import Usage
from proxy.ledger.opening import open_database
from proxy.ledger.rows import SIZES, Ending, Statement, answers, endings, intents, unknown_intent
from proxy.ledger.schema import TOKENS, attempts, requests
from tests.ledger.told import AT, answer, ask, end, intent

EVERY_TOKEN = Usage(
    input=100, cached=20, output=50, written=3, written_1h=4, audio_input=5, audio_cached=2, reasoning=7, audio_output=8
)


def write(directory: Path, text: str, values: tuple[object, ...]) -> None:
    with open_database(directory).connect() as connection:
        connection.exec_driver_sql(text, values)


def only_row(directory: Path, table: Table) -> dict[str, object]:
    with open_database(directory).connect() as connection:
        return dict(connection.execute(select(table)).mappings().one())


def test_an_intent_stands_in_its_columns_and_is_charged_what_is_reserved(tmp_path: Path) -> None:
    write(tmp_path, *intents().whole([intent()]))
    expected = dict.fromkeys(attempts.columns.keys())
    expected |= {"request": "req_1", "number": 1, "at": AT, "key": "pk_1", "endpoint": "chat", "asked": "fast"}
    expected |= {"provider": "sim", "model": "sim-1", "stream": 1, "estimated": 0}
    expected |= {"reserved": 500_000_000_000, "usd": 500_000_000_000}
    assert only_row(tmp_path, attempts) == expected


def test_an_end_completes_its_row_or_makes_it(tmp_path: Path) -> None:
    ending = Ending(intent(), end(usage=EVERY_TOKEN, estimated=True, status=207, ended="upstream_reset"))
    expected: dict[str, object] = {name: getattr(EVERY_TOKEN, name) for name in TOKENS}
    expected |= {"request": "req_1", "number": 1, "at": AT, "key": "pk_1", "endpoint": "chat", "asked": "fast"}
    expected |= {"provider": "sim", "model": "sim-1", "stream": 1, "reserved": 500_000_000_000}
    expected |= {"ended": "upstream_reset", "status": 207, "usd": 125_000_000_000, "estimated": 1}
    expected |= {"first": 0.25, "total": 1.5, "routing": 10_000_000_000, "prompt_cache": 2_000_000_000}
    write(tmp_path / "made", *endings().whole([ending]))
    assert only_row(tmp_path / "made", attempts) == expected
    write(tmp_path / "completed", *intents().whole([intent()]))
    write(tmp_path / "completed", *endings().whole([ending]))
    assert only_row(tmp_path / "completed", attempts) == expected


def test_an_end_whose_intent_nobody_knows_leaves_the_row_of_it_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, *intents().whole([intent()]))
    write(tmp_path, *endings().whole([Ending(unknown_intent(end(), AT + 9), end())]))
    row = only_row(tmp_path, attempts)
    assert (row["at"], row["key"], row["reserved"], row["ended"]) == (AT, "pk_1", 500_000_000_000, "ok")


def test_an_answer_stands_in_its_columns(tmp_path: Path) -> None:
    told = answer(usage=EVERY_TOKEN, outcome="collapsed", saved=Decimal("0.25"), leader="req_0", code="why", status=429)
    told = replace(told, shadow="hit")
    write(tmp_path, *answers().whole([told]))
    expected: dict[str, object] = {name: getattr(EVERY_TOKEN, name) for name in TOKENS}
    expected |= {"id": "req_1", "at": AT, "key": "pk_1", "endpoint": "chat", "asked": "fast", "outcome": "collapsed"}
    expected |= {"status": 429, "code": "why", "provider": "sim", "model": "sim-1", "saved": 250_000_000_000}
    expected |= {"first": 0.25, "total": 1.5, "leader": "req_0", "entry": b"entry", "shadow": "hit"}
    assert only_row(tmp_path, requests) == expected


def test_what_is_not_known_is_null(tmp_path: Path) -> None:
    unknown = end(usage=None, usd=None, status=None, first=None, routing=None, prompt_cache=None)
    write(tmp_path, *endings().whole([Ending(intent(reserved=None), unknown)]))
    row = only_row(tmp_path, attempts)
    names = [*TOKENS, "reserved", "usd", "status", "first", "routing", "prompt_cache"]
    assert {name: row[name] for name in names} == dict.fromkeys(names)


@pytest.mark.parametrize(
    ("count", "most"), [(1, 1), (2, 1), (3, 1), (7, 1), (9, 2), (255, 1), (257, 2), (600, 3), (750, 2), (3000, 3)]
)
def test_rows_go_in_few_statements_of_known_sizes(tmp_path: Path, count: int, most: int) -> None:
    statement, rows = answers(), [answer(f"req_{number}") for number in range(count)]
    parts = list(statement.parts(rows))
    assert [row for part in parts for row in part] == rows
    assert len(parts) <= most
    for part in parts:
        text, values = statement.whole(part)
        size = len(values) // len(requests.columns)
        assert size in SIZES
        assert len(part) >= 0.75 * size
        write(tmp_path, text, values)
    assert ask(tmp_path, "SELECT count(*), count(DISTINCT id) FROM requests") == [(count, count)]


@pytest.mark.parametrize("count", [1, 3, 5, 200, 256])
def test_a_group_of_intents_is_one_statement(tmp_path: Path, count: int) -> None:
    rows = [intent(f"req_{number}") for number in range(count)]
    write(tmp_path, *intents().whole(rows))
    assert ask(tmp_path, "SELECT count(*) FROM attempts") == [(count,)]


def test_what_is_written_twice_is_there_once(tmp_path: Path) -> None:
    for _ in range(2):
        write(tmp_path, *intents().whole([intent()]))
        write(tmp_path, *endings().whole([Ending(intent(), end())]))
        write(tmp_path, *answers().whole([answer()]))
    assert ask(tmp_path, "SELECT count(*) FROM attempts UNION ALL SELECT count(*) FROM requests") == [(1,), (1,)]


def test_no_statement_has_more_values_than_a_database_takes() -> None:
    most = SIZES[0] * max(len(attempts.columns), len(requests.columns))
    assert most <= 32_766


def test_a_statement_is_of_whole_rows_alone() -> None:
    partial = requests.insert().values(id="req_1", at=AT)
    with pytest.raises(ValueError, match="whole row"):
        Statement(partial, lambda _row: ())
