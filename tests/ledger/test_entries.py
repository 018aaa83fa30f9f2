"""A command finds an answer's entry by the request, and makes nothing by looking."""

from pathlib import Path

import pytest
from sqlalchemy import insert

from proxy.errors import StartupError
from proxy.ledger.entries import entry_of
from proxy.ledger.opening import open_database
from proxy.ledger.schema import requests

ROW = {
    "key": "",
    "endpoint": "chat",
    "asked": "m",
    "outcome": "miss",
    "status": 200,
    "provider": "p",
    "model": "m",
    "total": 1.0,
}


def told(directory: Path, *rows: dict[str, object]) -> None:
    made = open_database(directory)
    with made.connect() as connection:
        for row in rows:
            connection.execute(insert(requests), {**ROW, **row})
    made.dispose()


def test_the_entry_of_a_request_is_found(tmp_path: Path) -> None:
    told(tmp_path, {"at": 1.0, "id": "r1", "entry": b"one"}, {"at": 2.0, "id": "r2", "entry": b"two", "outcome": "hit"})
    assert entry_of(tmp_path, "r1") == b"one"
    assert entry_of(tmp_path, "r2") == b"two"


def test_a_request_that_is_unknown_or_kept_no_answer_has_none(tmp_path: Path) -> None:
    told(tmp_path, {"at": 1.0, "id": "r1", "entry": None})
    assert entry_of(tmp_path, "r1") is None
    assert entry_of(tmp_path, "r2") is None


def test_where_there_is_no_ledger_none_is_made(tmp_path: Path) -> None:
    assert entry_of(tmp_path, "r1") is None
    assert not list(tmp_path.iterdir())


def test_a_damaged_ledger_is_said(tmp_path: Path) -> None:
    told(tmp_path, {"at": 1.0, "id": "r1", "entry": b"one"})
    (tmp_path / "ledger.db").write_bytes(b"no database " * 1000)
    with pytest.raises(StartupError, match="is damaged"):
        entry_of(tmp_path, "r1")
