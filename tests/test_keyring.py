"""Which keys are in force, as settings, commands, administrators and the clock would have it."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.core.access import Allowance, Grant, digest
from proxy.errors import InvalidRequest, LedgerUnavailable, StartupError, Unauthorized
from proxy.keyring import Keyring, Shelf
from proxy.ledger.keys import KeyRow, create_key, list_keys, revoke_key
from tests.fakes import Clock
from tests.support import eventually_async

OWN = {digest(b"sk-own"): Grant("own", "own")}


class Flaky(Shelf):
    """A ledger on a disk that fails, or hangs."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.failing = False
        self.looks = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def revision(self) -> int:
        self.looks += 1
        assert self.may_go_on.wait(20)
        if self.failing:
            raise LedgerUnavailable("no") from OSError("the disk is gone")
        return super().revision()


class Rig:
    def __init__(self, directory: Path, *, own: bool = True, unheeded: str = "") -> None:
        self.directory = directory
        self.clock = Clock()
        self.shelf = Flaky(directory)
        self.ring = Keyring(OWN if own else {}, self.shelf, self.clock.wall, unheeded=unheeded)

    def make(self, name: str, **rights: object) -> tuple[KeyRow, str]:
        """As another process does."""
        return create_key(self.directory, Grant(name, **rights), now=0.0)  # type: ignore[arg-type]

    def who(self, key: str) -> str | None:
        """The name of the key that is in force; None: it is refused."""
        try:
            return self.ring.access.grant({b"authorization": b"Bearer " + key.encode()}, self.clock.wall()).name
        except Unauthorized:
            return None

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        await self.ring.read()
        follower = asyncio.create_task(self.ring.follow())
        try:
            yield
        finally:
            self.shelf.may_go_on.set()
            follower.cancel()
            with pytest.raises(asyncio.CancelledError):
                await follower


def emptied(directory: Path) -> int:
    """How many files were there, which are gone."""
    files = list(directory.iterdir())
    for file in files:
        file.unlink()
    return len(files)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.keyring.POLL", 0.005)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


async def test_without_any_key_nobody_is_asked_for_one(tmp_path: Path) -> None:
    rig = Rig(tmp_path, own=False)
    await rig.ring.read()
    assert rig.who("anything") == ""
    assert (rig.ring.known, rig.ring.names) == ([], {})
    assert emptied(tmp_path) == 0  # nothing is made by looking


async def test_the_keys_of_settings_and_ledger_are_in_force_together(rig: Rig) -> None:
    row, secret = rig.make("team", budget=Allowance(usd=1, per="day"))  # type: ignore[arg-type]
    await rig.ring.read()
    assert [rig.who(key) for key in ("sk-own", secret, "sk-other", "")] == ["own", "team", None, None]
    assert rig.ring.names == {"own": "own", row.id: "team"}
    assert [(each.grant.name, each.source, each.created) for each in rig.ring.known] == [
        ("own", "settings", None),
        ("team", "ledger", 0.0),
    ]


async def test_what_another_process_makes_and_revokes_is_in_force_and_refused_by_itself(rig: Rig) -> None:
    async with rig.following():
        row, secret = rig.make("team")
        await eventually_async(lambda: rig.who(secret) == "team")
        revoke_key(rig.directory, row.id, now=5.0)
        await eventually_async(lambda: rig.who(secret) is None)
        assert [each.revoked for each in rig.ring.known] == [None, 5.0]


async def test_with_the_first_key_everybody_is_asked_for_one_and_stays_so_once_it_is_revoked(tmp_path: Path) -> None:
    rig = Rig(tmp_path, own=False)
    async with rig.following():
        assert rig.who("") == ""
        row, secret = rig.make("team")
        await eventually_async(lambda: rig.who("") is None)
        revoke_key(rig.directory, row.id, now=0.0)
        await eventually_async(lambda: rig.who(secret) is None)
        assert rig.who("") is None
    again = Rig(tmp_path, own=False)
    await again.ring.read()
    assert again.who("") is None


async def test_keys_are_asked_for_even_if_the_ledger_is_lost_while_it_runs(tmp_path: Path) -> None:
    rig = Rig(tmp_path, own=False)
    rig.make("team")
    await rig.ring.read()
    assert emptied(tmp_path) > 0
    await rig.ring.read()
    assert rig.who("") is None


async def test_a_key_expires_while_the_proxy_runs(rig: Rig) -> None:
    _, secret = rig.make("team", expires=2000.0)
    await rig.ring.read()
    assert rig.who(secret) == "team"
    rig.clock.now = 2000.0
    assert rig.who(secret) is None


async def test_a_disk_that_fails_changes_nothing_and_is_said_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    row, secret = rig.make("team")
    async with rig.following():
        rig.shelf.failing = True
        revoke_key(rig.directory, row.id, now=0.0)
        before = rig.shelf.looks
        await eventually_async(lambda: rig.shelf.looks > before + 3)
        assert rig.who(secret) == "team"
        rig.shelf.failing = False
        await eventually_async(lambda: rig.who(secret) is None)
    said = [record.message for record in caplog.records]
    assert said == ["the ledger's keys cannot be read and stay as they are: the disk is gone"]


async def test_not_even_a_fault_of_ours_ends_the_following(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    _, secret = rig.make("team")
    async with rig.following():
        with monkeypatch.context() as patch:
            patch.setattr(rig.shelf, "rows", lambda: 1 / 0)
            revoke_key(rig.directory, "team", now=0.0)
            before = rig.shelf.looks
            await eventually_async(lambda: rig.shelf.looks > before + 3)
            assert rig.who(secret) == "team"
        await eventually_async(lambda: rig.who(secret) is None)


async def test_a_disk_that_hangs_harms_nobody(rig: Rig) -> None:
    _, secret = rig.make("team")
    async with rig.following():
        rig.shelf.may_go_on.clear()
        before = rig.shelf.looks
        await eventually_async(lambda: rig.shelf.looks > before)
        assert [rig.who(key) for key in ("sk-own", secret, "")] == ["own", "team", None]


async def test_a_ledger_that_cannot_be_read_at_all_is_an_error_to_who_starts(rig: Rig) -> None:
    (rig.directory / "ledger.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(LedgerUnavailable) as caught:
        await rig.ring.read()
    assert isinstance(caught.value.__cause__, StartupError | OSError)


async def test_of_one_key_in_settings_and_ledger_the_settings_rights_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(tmp_path)
    row, secret = rig.make("team", models=("m",))
    mine = Grant("mine", "mine")
    ring = Keyring({digest(secret.encode()): mine}, rig.shelf, rig.clock.wall)
    await ring.read()
    assert ring.access.grant({b"api-key": secret.encode()}, 0.0) is mine
    (said,) = [record.message for record in caplog.records]
    assert said == f"key {row.id} of the ledger is mine of the settings too: its rights there count"


async def test_where_clients_show_their_own_keys_those_of_the_ledger_are_not_in_force_and_it_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(tmp_path, own=False, unheeded="at p clients pay for themselves.")
    async with rig.following():
        row, _ = rig.make("team")
        await eventually_async(lambda: len(rig.ring.known) == 1)
        assert rig.who("sk-anything") == ""
        with pytest.raises(InvalidRequest, match="clients pay for themselves"):
            await rig.ring.create({"name": "other"})
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.ERROR, "the 1 keys in the ledger are not in force: at p clients pay for themselves.")
    ]
    assert [each.id for each in list_keys(tmp_path)] == [row.id]


async def test_what_an_administrator_makes_and_revokes_is_so_at_once(rig: Rig) -> None:
    known, secret = await rig.ring.create({"name": "team", "models": ["m"], "expires": "1h"})
    assert rig.who(secret) == "team"
    assert (known.created, known.grant.expires, known.grant.models) == (1000.0, 4600.0, ("m",))
    assert known in rig.ring.known
    rig.clock.now = 1001.0
    revoked = await rig.ring.revoke(known)
    assert rig.who(secret) is None
    assert (revoked.revoked, revoked in rig.ring.known) == (1001.0, True)
    assert secret.encode() not in (rig.directory / "ledger.db").read_bytes()


@pytest.mark.parametrize(
    ("table", "error"),
    [({}, StartupError), ({"name": "own"}, InvalidRequest), ({"name": "team"}, InvalidRequest)],
)
async def test_a_key_that_makes_no_sense_or_whose_name_is_taken_is_not_made(
    table: dict[str, str], error: type[Exception], rig: Rig
) -> None:
    rig.make("team")
    await rig.ring.read()
    with pytest.raises(error):
        await rig.ring.create(table)
    assert len(list_keys(rig.directory)) == 1


async def test_many_changes_at_once_leave_the_last_state_in_force(rig: Rig) -> None:
    made = await asyncio.gather(*(rig.ring.create({"name": f"team-{number}"}) for number in range(8)))
    assert all(rig.who(secret) for _, secret in made)
    await asyncio.gather(*(rig.ring.revoke(known) for known, _ in made), *(rig.ring.read() for _ in range(8)))
    assert not any(rig.who(secret) for _, secret in made)


async def test_what_cannot_be_written_makes_no_key_and_the_log_says_why(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    (rig.directory / "ledger.db").mkdir()
    with pytest.raises(LedgerUnavailable, match="the proxy's log says why"):
        await rig.ring.create({"name": "team"})
    (said,) = [record.message for record in caplog.records]
    assert said.startswith("the ledger's keys cannot be changed: ")


async def test_of_keys_that_are_not_in_force_anyway_nothing_is_said_once_they_are_revoked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(tmp_path, own=False, unheeded="at p clients pay for themselves.")
    row, _ = rig.make("team")
    async with rig.following():
        revoke_key(tmp_path, row.id, now=5.0)
        await eventually_async(lambda: rig.ring.made == {row.id: False})
    assert caplog.records == []
