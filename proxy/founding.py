"""What outlives the process: the data directory with its ledger, its cache, its keys and what was learned."""

import asyncio
import logging
import os
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from proxy.checks import IN_LEDGER, check_host, namesakes, unheeded
from proxy.core.breaker import Health
from proxy.core.entry import Entry, pack, unpack
from proxy.core.learned import Learned
from proxy.errors import LedgerUnavailable, StartupError
from proxy.interfaces import Clock
from proxy.keeping import Keeper
from proxy.keyring import Keyring, Shelf
from proxy.ledger import Ledger, NoLedger, keys
from proxy.meter import Meter
from proxy.purging import PurgeWatch
from proxy.settings import Settings
from proxy.store.disk import FAILURES, DiskTier
from proxy.store.lock import DataLock
from proxy.store.memory import MemoryTier
from proxy.store.notebook import Notebook
from proxy.store.purges import PurgeFile
from proxy.store.secret import secret
from proxy.store.tiered import TieredStore

logger = logging.getLogger("penstock")


@dataclass(frozen=True, slots=True)
class Base:
    """What all else is built on. `secret`: under the cache's keys; this process's own where nothing can be written."""

    clock: Clock
    meter: Meter
    secret: bytes
    ledger: Ledger | NoLedger
    store: TieredStore[Entry]
    purges: PurgeWatch
    keyring: Keyring
    learned: Learned


async def found(
    settings: Settings, client_keys: Mapping[str, bytes], clock: Clock, meter: Meter, stack: AsyncExitStack
) -> Base:
    """Open all of it, until the stack ends. `client_keys`: the SHA-256 of each of [[keys]], by its name.

    Raises StartupError: another process has the data directory, or it cannot be used.
    """
    directory = settings.data.directory
    key_secret = _claim(settings, stack, meter)
    ledger = _open_ledger(settings, meter, clock, writable=key_secret is not None)
    stack.push_async_callback(ledger.close)  # after whatever may still tell it something
    follow(ledger.follow(), stack)
    store = _open_store(settings, meter, on_disk=key_secret is not None)
    stack.push_async_callback(store.close)
    follow(store.learn(), stack)
    upstreams = {name: model.upstream or name for name, model in settings.models.items()}
    file = PurgeFile(directory / "purges")
    purges = PurgeWatch(file, store, directory / "cache", upstreams=upstreams, entry_of=ledger.find_entry)
    follow(purges.follow(), stack)
    health = Health(at={name: provider.breaker_failures for name, provider in settings.providers.items()})
    learned = Learned(health, kept_for=settings.cache.ttl)
    _keep(learned, Notebook(directory) if key_secret is not None else None, clock, stack)
    keyring = await _keyring(settings, client_keys, clock, stack)
    return Base(clock, meter, key_secret or os.urandom(32), ledger, store, purges, keyring, learned)


def follow(work: Coroutine[None, None, None], stack: AsyncExitStack) -> None:
    """Do this beside everything else."""
    task = asyncio.create_task(work)
    stack.callback(task.cancel)


def _keep(learned: Learned, notebook: Notebook | None, clock: Clock, stack: AsyncExitStack) -> None:
    """What was learned outlives the process."""
    keeper = Keeper(learned, notebook, clock)
    keeper.recall()
    stack.push_async_callback(keeper.write)
    follow(keeper.follow(), stack)


def _claim(settings: Settings, stack: AsyncExitStack, meter: Meter) -> bytes | None:
    """Own the data directory, and read its secret. None where it cannot be written: the cache lives in memory then.

    Raises StartupError where keys or budgets depend on it.
    """
    directory = settings.data.directory
    try:
        stack.enter_context(DataLock(directory))
        return secret(directory)
    except OSError as error:
        _do_without_ledger(settings, "it cannot be written")
        logger.warning("data.directory: %s cannot be used, so the cache has no disk: %s", directory, error)
        meter.store_event("disk_unavailable")
        return None


async def _keyring(
    settings: Settings, client_keys: Mapping[str, bytes], clock: Clock, stack: AsyncExitStack
) -> Keyring:
    """The keys in force. Raises StartupError where they cannot be read, or do not go with these settings."""
    own = {client_keys[key.name]: key.grant for key in settings.keys}
    keyring = Keyring(own, Shelf(settings.data.directory), clock.wall, unheeded=unheeded(settings, IN_LEDGER))
    try:
        await keyring.read()
    except LedgerUnavailable as error:
        raise StartupError(f"data.directory: the keys in the ledger cannot be read: {error.__cause__}") from None
    check_host(settings, keyring.made)
    good = [each.grant for each in keyring.known if each.source == "ledger" and each.revoked is None]
    for line in namesakes(settings, {grant.id: grant.name for grant in good}):
        logger.warning("%s", line)
    follow(keyring.follow(), stack)
    return keyring


def _open_ledger(settings: Settings, meter: Meter, clock: Clock, *, writable: bool) -> Ledger | NoLedger:
    """Raises StartupError where it is damaged, or cannot be written and keys or budgets depend on it."""
    directory, why = settings.data.directory, "it cannot be written"
    if writable:
        try:
            return Ledger.open(
                directory, clock, retention=settings.ledger.retention or None, on_event=meter.ledger_event
            )
        except OSError as error:
            why = str(error)
    _do_without_ledger(settings, why)
    logger.warning("data.directory: %s: there is no ledger, so nothing is written down: %s", directory, why)
    meter.ledger_event("unavailable")
    return NoLedger()


def _do_without_ledger(settings: Settings, why: str) -> None:
    """Raises StartupError where keys or budgets depend on it. `why` there is none."""
    directory = settings.data.directory
    depends = [f"keys[{index}].budget" for index, key in enumerate(settings.keys) if key.budget is not None]
    if depends or _holds_keys(directory):
        what = f"{depends[0]} depends on it" if depends else "it holds keys"
        raise StartupError(f"data.directory: {directory}: no ledger can be kept ({why}), and {what}; make it writable.")


def _holds_keys(directory: Path) -> bool:
    """Raises StartupError where nobody can tell."""
    try:
        return bool(keys.list_keys(directory))
    except OSError as error:
        raise StartupError(
            f"data.directory: {directory}: the ledger can be neither written nor read ({error}), and it may hold keys; "
            f"make it writable."
        ) from None


def _open_store(settings: Settings, meter: Meter, *, on_disk: bool) -> TieredStore[Entry]:
    """Memory in front of disk; without the disk where it cannot be had, said aloud."""
    cache = settings.cache
    disk = None
    if on_disk:
        try:
            disk = DiskTier(settings.data.directory / "cache", cache.size_limit)
            if disk.was_set_aside:
                meter.store_event("disk_set_aside")
        except FAILURES as error:
            logger.warning("data.directory: the cache has no disk: %s", error)
            meter.store_event("disk_unavailable")
    return TieredStore(
        memory=MemoryTier(cache.memory_limit), disk=disk, pack=pack, unpack=unpack, on_event=meter.store_event
    )
