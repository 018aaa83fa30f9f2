"""The tables: what migrations make is what the code expects, without a word that only SQLite knows."""

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import String, Text, create_mock_engine
from sqlalchemy.schema import CreateIndex, CreateTable

import proxy.ledger
from proxy.ledger.opening import open_database
from proxy.ledger.schema import HEAD, metadata
from tests.ledger.told import column

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
        *(f"requests.{name}" for name in "id key endpoint asked outcome code provider model leader".split()),
        *(f"attempts.{name}" for name in "request key endpoint asked provider model ended".split()),
        *(f"keys.{name}" for name in "id name models passthrough budget_usd budget_per".split()),
        "carried.key",
        "marks.name",
    }
