"""The tables of the ledger, as SQLAlchemy Core has them; migrations/ makes them.

Rule: no prompts, no answers, no secrets, and nothing that only SQLite knows. Money is a BIGINT of 1e-12 USD (pico.py),
a time is seconds since the epoch (UTC) and a duration is seconds, both as a double. NULL: not known.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    literal_column,
)

from pricing.cost import Usage

HEAD = "0002"  # the newest of migrations/versions; a database at it needs no Alembic

TOKENS = tuple(Usage.__dataclass_fields__)  # columns of both tables, by the fields' names

metadata = MetaData()


def _tokens() -> list[Column[int]]:
    return [Column(name, BigInteger) for name in TOKENS]


# A row a request (books.Answered). Most are hits, at thousands a second. So the primary key begins with the time: an
# index of random ids alone costs a hit two to four times as much, since each row dirties another page of it.
requests = Table(
    "requests",
    metadata,
    Column("at", Double, primary_key=True),
    Column("id", String, primary_key=True),
    Column("key", String, nullable=False),
    Column("endpoint", String, nullable=False),
    Column("asked", String, nullable=False),
    Column("outcome", String, nullable=False),
    Column("status", Integer, nullable=False),
    Column("code", String),
    Column("provider", String, nullable=False),
    Column("model", String, nullable=False),
    *_tokens(),
    Column("saved", BigInteger),
    Column("first", Double),
    Column("total", Double, nullable=False),
    Column("leader", String),
    Column("entry", LargeBinary),
    Column("shadow", String),
    sqlite_with_rowid=False,  # the key's own order is the rows': one tree to write, not two
)
# Written out: a bound value would hide from the database that the index has what is looked for.
NO_HIT = requests.c.outcome != literal_column("'hit'")
Index("requests_id", requests.c.id, sqlite_where=NO_HIT, postgresql_where=NO_HIT)

# A row an attempt: books.Intent, to which books.Attempted is added. While `ended` is NULL it is under way, and `usd`
# is what was reserved: the sum of `usd` is what a key was charged.
attempts = Table(
    "attempts",
    metadata,
    Column("request", String, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("key", String, nullable=False),
    Column("endpoint", String, nullable=False),
    Column("asked", String, nullable=False),
    Column("provider", String, nullable=False),
    Column("model", String, nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("reserved", BigInteger),
    Column("ended", String),
    Column("status", Integer),
    *_tokens(),
    Column("usd", BigInteger),
    Column("estimated", Boolean, nullable=False),
    Column("first", Double),
    Column("total", Double),
    Column("routing", BigInteger),
    Column("prompt_cache", BigInteger),
)
Index("attempts_spent", attempts.c.key, attempts.c.at, attempts.c.usd)  # with usd: summed without reading a row
Index("attempts_at", attempts.c.at)
OPEN = attempts.c.ended.is_(None)
Index("attempts_open", attempts.c.at, sqlite_where=OPEN, postgresql_where=OPEN)

# What rows that were deleted for their age had cost, by key and UTC day (days since the epoch). Budgets begin with a
# UTC day, so that they add up whatever was deleted.
carried = Table(
    "carried",
    metadata,
    Column("key", String, primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("usd", BigInteger, nullable=False),
)

# Keys are never deleted, and an id is never used twice: entries and spendings are owned by it.
keys = Table(
    "keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("digest", LargeBinary, nullable=False, unique=True),  # SHA-256 of the secret, which nobody keeps
    Column("created", Double, nullable=False),
    Column("expires", Double),
    Column("revoked", Double),
    Column("models", Text, nullable=False),  # JSON, a list; so is the next
    Column("passthrough", Text, nullable=False),
    Column("requests_per_minute", BigInteger),
    Column("tokens_per_minute", BigInteger),
    Column("max_concurrent", BigInteger),
    Column("budget_usd", String),  # decimal
    Column("budget_per", String),
)
IN_FORCE = keys.c.revoked.is_(None)
Index("keys_name", keys.c.name, unique=True, sqlite_where=IN_FORCE, postgresql_where=IN_FORCE)

# Numbers by name: how often keys changed; whether a proxy is at work, or died so; how often a write was tried.
marks = Table(
    "marks",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", BigInteger, nullable=False),
)
