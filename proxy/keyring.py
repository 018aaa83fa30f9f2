"""The keys in force: those of the settings and those of the ledger, together, as they change.

Rule: whoever was asked for a key once is asked for one until the process ends. A ledger that does not answer changes
nothing: what was in force stays in force.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from proxy.core.access import Access, Grant, KnownKey
from proxy.errors import InvalidRequest, LedgerUnavailable, StartupError
from proxy.ledger.keys import KeyRow, create_key, grants, list_keys, revision, revoke_key
from proxy.reading import read_new_key

POLL = 0.5  # seconds: a key that was revoked by another process is refused within one second

logger = logging.getLogger("penstock")


class Shelf:
    """The ledger's keys of a data directory. All of it uses the disk, and raises LedgerUnavailable where it cannot."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def revision(self) -> int:
        """Another number after every change, by whichever process."""
        with _explained():
            return revision(self._directory)

    def rows(self) -> list[KeyRow]:
        """Every key that was ever made."""
        with _explained():
            return list_keys(self._directory)

    def create(self, grant: Grant, now: float) -> tuple[KeyRow, str]:
        """A key with these rights and its secret. Raises InvalidRequest: there is one of this name."""
        with _explained(changing=True):
            return create_key(self._directory, grant, now=now)

    def revoke(self, key_id: str, now: float) -> KeyRow:
        with _explained(changing=True):
            return revoke_key(self._directory, key_id, now=now)


def kept(row: KeyRow) -> KnownKey:
    """A key of the ledger as people are told of it."""
    return KnownKey(row.grant, "ledger", row.created, row.revoked)


class Keyring:
    """`own`: the settings' keys, by digest. `access` follows both, and so does `names`, by id.

    `unheeded`: why the ledger's keys are not put in force; empty where they are.
    """

    def __init__(
        self, own: Mapping[bytes, Grant], shelf: Shelf, wall: Callable[[], float], *, unheeded: str = ""
    ) -> None:
        self._own = own
        self._shelf = shelf
        self._wall = wall
        self._unheeded = unheeded
        self._settings = [KnownKey(grant, "settings") for grant in own.values()]
        self._kept: list[KnownKey] = []
        self._seen: int | None = None
        self._failing = False
        self._turn = asyncio.Lock()
        self.access = Access(own)
        self.names: Mapping[str, str] = {grant.id: grant.name for grant in own.values()}

    @property
    def known(self) -> list[KnownKey]:
        """Every key, the settings' first; of what other processes changed just now it may not be told yet."""
        return [*self._settings, *self._kept]

    @property
    def made(self) -> dict[str, bool]:
        """Every key of the ledger by its id, and is it not revoked?"""
        return {each.grant.id: each.revoked is None for each in self._kept}

    async def read(self) -> None:
        """Put in force what the ledger holds now. Raises LedgerUnavailable."""
        # One after the other: what was read before must not be put in force after what was read later.
        async with self._turn:
            seen, rows = await asyncio.to_thread(self._read)
            self._use(rows)
            self._seen = seen

    def _read(self) -> tuple[int, list[KeyRow]]:
        # The revision first: what is changed meanwhile is read once more, not overlooked.
        return self._shelf.revision(), self._shelf.rows()

    def _use(self, rows: Sequence[KeyRow]) -> None:
        self._kept = [kept(row) for row in rows]
        self.names = {each.grant.id: each.grant.name for each in (*self._kept, *self._settings)}
        if self._unheeded:
            good = sum(row.revoked is None for row in rows)
            if good and self._seen is not None:  # at the start nobody starts with them
                logger.error("the %d keys in the ledger are not in force: %s", good, self._unheeded)
            return
        found = grants(rows)
        for digest in found.keys() & self._own.keys():
            logger.warning("key %s of the ledger is %s of the settings too: its rights there count",
                           found[digest].id, self._own[digest].name)  # fmt: skip
        self.access.replace({**found, **self._own}, any_made=self.access.any_made or bool(rows))

    async def follow(self) -> None:
        """Put in force what other processes change, as it is changed."""
        while True:
            await asyncio.sleep(POLL)
            try:
                # In a thread: a disk that hangs must not hold up those who need nothing of it.
                if await asyncio.to_thread(self._shelf.revision) != self._seen:
                    await self.read()
            except Exception as error:  # noqa: BLE001 - whatever it is: the next key that is revoked must be heard of
                if not self._failing:
                    why = error.__cause__ or repr(error)
                    logger.warning("the ledger's keys cannot be read and stay as they are: %s", why)
                self._failing = True
            else:
                self._failing = False

    async def create(self, table: dict[str, Any]) -> tuple[KnownKey, str]:
        """Make a key in the ledger, in the words of [[keys]]: in force at once, and its secret is told only here.

        Raises StartupError where it makes no sense, InvalidRequest where there is such a name, LedgerUnavailable.
        """
        now = self._wall()
        wanted = read_new_key(table, now=now)
        if self._unheeded:
            raise InvalidRequest(f"A key would not be in force here: {self._unheeded}")
        if wanted.name in {each.grant.name for each in self._settings}:
            raise InvalidRequest(f"The settings have a key named {wanted.name!r}.", param="name")
        row, secret = await asyncio.to_thread(self._shelf.create, wanted.granted(wanted.name, ""), now)
        await self.read()
        return kept(row), secret

    async def revoke(self, key: KnownKey) -> KnownKey:
        """A key of the ledger is refused from now on. Raises LedgerUnavailable."""
        row = await asyncio.to_thread(self._shelf.revoke, key.grant.id, self._wall())
        await self.read()
        return msgspec.structs.replace(key, revoked=row.revoked)


@contextmanager
def _explained(*, changing: bool = False) -> Iterator[None]:
    """What goes wrong on the disk is for the log; a client hears that it did."""
    try:
        yield
    except (OSError, StartupError) as error:
        if changing:
            logger.warning("the ledger's keys cannot be changed: %s", error)
        raise LedgerUnavailable("The ledger's keys cannot be read or changed; the proxy's log says why.") from error
