"""What the ledger is told in these tests, and how they look into it."""

import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from pricing.cost import Usage
from proxy.core.books import Answered, Attempted, Intent
from proxy.ledger.opening import DATABASE

AT = 1_700_000_000.0  # 2023-11-14 22:13:20 UTC
DAY = 86_400.0
USAGE = Usage(input=1000, cached=200, output=50, reasoning=10)

_INTENT = Intent("req_1", 1, AT, "pk_1", "chat", "fast", "sim", "sim-1", stream=True, reserved=Decimal("0.5"))
_END = Attempted("req_1", 1, "ok", 200, USAGE, Decimal("0.125"), False, 0.25, 1.5, Decimal("0.01"), Decimal("0.002"))
_ANSWER = Answered(
    "req_1", AT, "pk_1", "chat", "fast", "miss", 200, None, "sim", "sim-1", USAGE, None, 0.25, 1.5, None, b"entry"
)


def intent(request: str = "req_1", **different: Any) -> Intent:
    return msgspec.structs.replace(_INTENT, request=request, **different)


def end(request: str = "req_1", **different: Any) -> Attempted:
    return msgspec.structs.replace(_END, request=request, **different)


def answer(request: str = "req_1", **different: Any) -> Answered:
    return msgspec.structs.replace(_ANSWER, request=request, **different)


def hit(request: str, **different: Any) -> Answered:
    return answer(request, **{"outcome": "hit", "saved": Decimal("0.125"), **different})


def ask(directory: Path, sql: str) -> list[tuple[Any, ...]]:
    """Rows as another process sees them."""
    with closing(sqlite3.connect(directory / DATABASE, timeout=20)) as connection, connection:
        return connection.execute(sql).fetchall()


def column(directory: Path, sql: str) -> list[Any]:
    return [row[0] for row in ask(directory, sql)]
