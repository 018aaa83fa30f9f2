"""The first tables: requests, attempts, what they had cost before they were deleted, keys, marks."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TOKENS = (
    "input",
    "cached",
    "output",
    "written",
    "written_1h",
    "audio_input",
    "audio_cached",
    "reasoning",
    "audio_output",
)


def upgrade() -> None:
    _requests()
    _attempts()
    op.create_table(
        "carried",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("usd", sa.BigInteger, nullable=False),
    )
    _keys()
    op.create_table(
        "marks",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )


def _requests() -> None:
    op.create_table(
        "requests",
        sa.Column("at", sa.Double, primary_key=True),
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("endpoint", sa.String, nullable=False),
        sa.Column("asked", sa.String, nullable=False),
        sa.Column("outcome", sa.String, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("code", sa.String),
        sa.Column("provider", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        *(sa.Column(name, sa.BigInteger) for name in TOKENS),
        sa.Column("saved", sa.BigInteger),
        sa.Column("first", sa.Double),
        sa.Column("total", sa.Double, nullable=False),
        sa.Column("leader", sa.String),
        sa.Column("entry", sa.LargeBinary),
        sqlite_with_rowid=False,
    )
    no_hit = sa.text("outcome <> 'hit'")
    op.create_index("requests_id", "requests", ["id"], sqlite_where=no_hit, postgresql_where=no_hit)


def _attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("request", sa.String, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("endpoint", sa.String, nullable=False),
        sa.Column("asked", sa.String, nullable=False),
        sa.Column("provider", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("stream", sa.Boolean, nullable=False),
        sa.Column("reserved", sa.BigInteger),
        sa.Column("ended", sa.String),
        sa.Column("status", sa.Integer),
        *(sa.Column(name, sa.BigInteger) for name in TOKENS),
        sa.Column("usd", sa.BigInteger),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.Column("first", sa.Double),
        sa.Column("total", sa.Double),
        sa.Column("routing", sa.BigInteger),
        sa.Column("prompt_cache", sa.BigInteger),
    )
    still_open = sa.text("ended IS NULL")
    op.create_index("attempts_spent", "attempts", ["key", "at", "usd"])
    op.create_index("attempts_at", "attempts", ["at"])
    op.create_index("attempts_open", "attempts", ["at"], sqlite_where=still_open, postgresql_where=still_open)


def _keys() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("expires", sa.Double),
        sa.Column("revoked", sa.Double),
        sa.Column("models", sa.Text, nullable=False),
        sa.Column("passthrough", sa.Text, nullable=False),
        sa.Column("requests_per_minute", sa.BigInteger),
        sa.Column("tokens_per_minute", sa.BigInteger),
        sa.Column("max_concurrent", sa.BigInteger),
        sa.Column("budget_usd", sa.String),
        sa.Column("budget_per", sa.String),
    )
    in_force = sa.text("revoked IS NULL")
    op.create_index("keys_name", "keys", ["name"], unique=True, sqlite_where=in_force, postgresql_where=in_force)


def downgrade() -> None:
    raise NotImplementedError("the ledger is never taken apart")
