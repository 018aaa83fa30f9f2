"""The tables: what migrations make is what the code expects, without a word that only SQLite knows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, String, Text, create_mock_engine, event
from sqlalchemy.schema import CreateIndex, CreateTable

import proxy.ledger
from proxy.ledger import marks
from proxy.ledger.entries import find
from proxy.ledger.opening import open_database, transaction
from proxy.ledger.retention import delete_old
from proxy.ledger.rows import Ending, answers, endings
from proxy.ledger.schema import HEAD, metadata
from proxy.ledger.settling import settle
from proxy.ledger.spending import spent
from tests.ledger.told import AT, answer, column, end, intent

MIGRATIONS = Path(proxy.ledger.__file__).parent / "migrations"


def test_migrations_make_the_tables_that_the_code_expects(tmp_path: Path) -> None:
    with open_database(tmp_path).connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_migrations_make_every_index(tmp_path: Path) -> None:
    open_database(tmp_path)
    made = {
        sql.replace('"', "").replace("(", " (").replace("  ", " ")
        for sql in column(tmp_path, "SELECT sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL")
    }
    assert made == {
        "CREATE INDEX requests_id ON requests (id) WHERE outcome <> 'hit'",
        "CREATE INDEX attempts_spent ON attempts (key, at, usd)",
        "CREATE INDEX attempts_at ON attempts (at)",
        "CREATE INDEX attempts_open ON attempts (at) WHERE ended IS NULL",
        "CREATE UNIQUE INDEX keys_name ON keys (name) WHERE revoked IS NULL",
    }


def test_a_database_at_head_is_at_the_newest_migration() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_heads() == [HEAD]


def test_another_database_could_hold_it() -> None:
    other = create_mock_engine("postgresql://", lambda *_: None).dialect
    for table in metadata.sorted_tables:
        said = [str(CreateTable(table).compile(dialect=other))]
        said += [str(CreateIndex(index).compile(dialect=other)) for index in table.indexes]
        assert all(word not in " ".join(said).lower() for word in ("rowid", "sqlite", "json", "autoincrement"))


def test_no_column_is_for_words_of_a_prompt_or_a_secret() -> None:
    words = {
        f"{table.name}.{each.name}"
        for table in metadata.sorted_tables
        for each in table.columns
        if isinstance(each.type, (String, Text))
    }
    assert words == {
        *(f"requests.{name}" for name in "id key endpoint asked outcome code provider model leader shadow".split()),
        *(f"attempts.{name}" for name in "request key endpoint asked provider model ended".split()),
        *(f"keys.{name}" for name in "id name models passthrough budget_usd budget_per".split()),
        "carried.key",
        "marks.name",
    }


def plans(database: Engine, use: Callable[[Connection], object]) -> list[str]:
    """How the database looks for the rows of each statement, a line a table."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        if not statement.startswith(("BEGIN", "COMMIT")):
            seen.append((statement, values))

    event.listen(database, "before_cursor_execute", note)
    with transaction(database) as connection:
        use(connection)
    event.remove(database, "before_cursor_execute", note)
    with database.connect() as connection:
        explained = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values) for text, values in seen]
        return [str(line) for rows in explained for *_, line in rows]


@pytest.mark.parametrize(
    "use",
    [
        settle,
        lambda connection: delete_old(connection, AT),
        lambda connection: find(connection, "req_1"),
        lambda connection: spent(connection, "pk_1", AT),
    ],
    ids=["settling", "retention", "entry", "spent"],
)
def test_nothing_that_cannot_wait_reads_a_whole_table(tmp_path: Path, use: Callable[[Connection], object]) -> None:
    database = open_database(tmp_path)
    with transaction(database) as connection:
        marks.add(connection, marks.RUNNING)
        connection.exec_driver_sql(*endings().whole([Ending(intent(), end())]))
        connection.exec_driver_sql(*answers().whole([answer()]))
    found = plans(database, use)
    assert found
    whole = [line for line in found if line.startswith(("SCAN requests", "SCAN attempts"))]
    assert [line for line in whole if not line.endswith("attempts_open")] == []  # which holds only what is under way
