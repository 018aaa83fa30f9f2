"""Keys in the ledger: made and revoked by any process, shown once, kept as a hash."""

import hashlib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from proxy.core.access import Access, Allowance, Grant, Limits
from proxy.errors import InvalidRequest, NotFound, StartupError, Unauthorized
from proxy.ledger import keys, opening
from proxy.ledger.keys import create_key, grants, list_keys, revision, revoke_key
from proxy.ledger.opening import DATABASE, open_database, transaction
from tests.ledger.sharing import share
from tests.ledger.told import ask

EVERYTHING = Grant(
    "team-a",
    models=("gpt-*", "economy"),
    passthrough=frozenset({b"files", b"batches"}),
    limits=Limits(60, 120_000, 10),
    budget=Allowance(Decimal("50.005"), "month"),
    expires=2e9,
)


def test_a_key_is_read_as_it_was_made(tmp_path: Path) -> None:
    made, _ = create_key(tmp_path, EVERYTHING, now=5.0)
    plain, _ = create_key(tmp_path, Grant("plain"), now=6.0)
    assert made.grant == Grant(
        **{name: getattr(EVERYTHING, name) for name in Grant.__struct_fields__} | {"id": made.id}
    )
    assert list_keys(tmp_path) == [made, plain]
    assert (made.created, made.revoked, made.name) == (5.0, None, "team-a")


def test_a_secret_is_told_once_and_kept_nowhere(tmp_path: Path) -> None:
    made, secret = create_key(tmp_path, EVERYTHING, now=5.0)
    assert secret.startswith("sk-penstock-")
    assert len(secret) > 50
    assert made.digest == hashlib.sha256(secret.encode()).digest()
    said = b"".join(path.read_bytes() for path in tmp_path.iterdir()) + repr(made).encode()
    assert secret.encode() not in said
    assert secret.removeprefix("sk-penstock-").encode() not in said


def test_ids_and_secrets_are_never_the_same_twice(tmp_path: Path) -> None:
    made = [create_key(tmp_path, Grant(f"k{number}"), now=1.0) for number in range(20)]
    assert len({row.id for row, _ in made} | {secret for _, secret in made}) == 40
    assert all(row.id.startswith("pk_") and len(row.id) == 19 for row, _ in made)


def test_a_name_is_one_keys_while_it_is_in_force(tmp_path: Path) -> None:
    first, _ = create_key(tmp_path, Grant("a"), now=1.0)
    with pytest.raises(InvalidRequest, match="'a' is in force"):
        create_key(tmp_path, Grant("a"), now=2.0)
    revoke_key(tmp_path, "a", now=3.0)
    second, _ = create_key(tmp_path, Grant("a"), now=4.0)
    assert [(row.id, row.revoked) for row in list_keys(tmp_path)] == [(first.id, 3.0), (second.id, None)]
    assert revoke_key(tmp_path, "a", now=5.0).id == second.id
    assert revoke_key(tmp_path, "a", now=6.0).id == second.id  # of those that are over, the newest


def test_a_revoked_key_stays_known_and_grants_nothing(tmp_path: Path) -> None:
    (made, secret), (other, other_secret) = (create_key(tmp_path, Grant(name), now=1.0) for name in "ab")
    access = Access(grants(list_keys(tmp_path)))
    asked = {b"authorization": b"Bearer " + secret.encode()}
    assert access.grant(asked, 9.0) == made.grant
    revoke_key(tmp_path, made.id, now=2.0)
    assert revoke_key(tmp_path, made.id, now=3.0).revoked == 2.0
    rows = list_keys(tmp_path)
    access.replace(grants(rows), any_made=bool(rows))
    with pytest.raises(Unauthorized):
        access.grant(asked, 9.0)
    assert access.grant({b"api-key": other_secret.encode()}, 9.0) == other.grant


def test_each_change_is_another_revision_and_nothing_else_is(tmp_path: Path) -> None:
    seen = [revision(tmp_path)]
    for change in (
        lambda: create_key(tmp_path, Grant("a"), now=1.0),
        lambda: create_key(tmp_path, Grant("b"), now=1.0),
        lambda: revoke_key(tmp_path, "a", now=2.0),
    ):
        change()
        seen.append(revision(tmp_path))
    assert seen == [0, 1, 2, 3]
    revoke_key(tmp_path, "a", now=3.0)
    with pytest.raises(InvalidRequest):
        create_key(tmp_path, Grant("b"), now=3.0)
    assert revision(tmp_path) == 3


def test_nothing_is_made_by_looking(tmp_path: Path) -> None:
    nowhere = tmp_path / "none"
    assert (list_keys(nowhere), revision(nowhere)) == ([], 0)
    with pytest.raises(NotFound, match="no key 'a'"):
        revoke_key(nowhere, "a", now=1.0)
    assert list(tmp_path.iterdir()) == []


def test_a_key_that_was_never_made_is_not_found(tmp_path: Path) -> None:
    create_key(tmp_path, Grant("a"), now=1.0)
    with pytest.raises(NotFound):
        revoke_key(tmp_path, "b", now=1.0)


def test_a_damaged_ledger_tells_no_keys_and_how_to_repair_it(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"not a ledger" * 100)
    uses: list[Callable[[], object]] = [
        lambda: list_keys(tmp_path),
        lambda: revision(tmp_path),
        lambda: create_key(tmp_path, Grant("a"), now=1.0),
    ]
    for use in uses:
        with pytest.raises(StartupError, match=r"\.dump"):
            use()


def test_who_finds_it_locked_tries_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_database(tmp_path)
    monkeypatch.setattr(opening, "PATIENCE", 0.0)
    locked = open_database(tmp_path)
    tries = 0
    change = keys._changed

    def while_locked(*arguments: object) -> object:
        nonlocal tries
        tries += 1
        if tries > 3:
            return change(*arguments)  # type: ignore[arg-type]
        with transaction(locked):
            return change(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(keys, "_changed", while_locked)
    create_key(tmp_path, Grant("a"), now=1.0)
    assert (tries, len(list_keys(tmp_path))) == (4, 1)


def test_who_finds_it_locked_for_ever_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = open_database(tmp_path)
    tried = []

    def fails(*_: object) -> object:
        tried.append(1)
        with transaction(made), transaction(open_now):
            raise AssertionError

    monkeypatch.setattr(opening, "PATIENCE", 0.0)
    open_now = opening.engine(tmp_path / DATABASE)
    monkeypatch.setattr(keys, "_changed", fails)
    monkeypatch.setattr(keys, "open_database", lambda _: made)
    with pytest.raises(OSError, match="locked") as caught:
        create_key(tmp_path, Grant("a"), now=1.0)
    assert len(tried) == keys.TRIES
    assert not isinstance(caught.value, OperationalError)


def test_processes_that_share_a_ledger_lose_nothing_and_lock_nobody_out(tmp_path: Path) -> None:
    missing = share(tmp_path, 75)
    assert missing == dict.fromkeys(missing, 0)
    assert ask(tmp_path, "PRAGMA integrity_check") == [("ok",)]
