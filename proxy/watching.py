"""What the metrics read when they are scraped, and what is looked at beside all else, once a second.

Rule: a scrape touches neither a disk nor a provider: what takes time is looked up beforehand, in a thread.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

from proxy import __version__
from proxy.core.access import Grant
from proxy.core.breaker import Health
from proxy.core.budget import Purse, Purses
from proxy.core.entry import Entry
from proxy.core.history import History
from proxy.flights import Flights
from proxy.founding import Base
from proxy.interfaces import Clock
from proxy.limiter import Limiter
from proxy.meter import Meter
from proxy.settings import Settings
from proxy.store.tiered import TieredStore

SECOND: Final = 1.0
SPACE: Final = 15  # seconds between two looks at the free space

Labelled = dict[tuple[str, ...], float]


def watch(meter: Meter, settings: Settings, base: Base, limiter: Limiter, purses: Purses, flights: Flights) -> None:
    """Have all gauges read but those of whoever listens."""
    meter.watch("build_info", lambda: {(__version__,): 1})
    _watch_flights(meter, flights)
    _watch_store(meter, base.store, settings.cache.memory_limit)
    _watch_limits(meter, limiter, lambda: base.keyring.access.in_force(base.clock.wall()))
    _watch_budgets(meter, base, purses)
    _watch_health(meter, base.learned.health, base.clock, upstreams_of(settings))
    for name in ("data_free_bytes", "data_size_bytes"):
        meter.watch(name, dict)  # not known yet, which is not 0
    meter.watch_one("ledger_pending_rows", lambda: base.ledger.pending)
    meter.watch_one("ledger_lag_seconds", lambda: base.ledger.lag)


async def exposition(meter: Meter) -> bytes:
    """What a scraper reads. Its text is made in a thread: there may be tens of thousands of lines."""
    return await asyncio.to_thread(meter.exposition, meter.read())


class Pause(NamedTuple):
    """How long a model is still left alone, in seconds: as it failed, and as it answered 429. `open`: it has failed,
    and no call has succeeded since.
    """

    down: float = 0.0
    cooling: float = 0.0
    open: bool = False


def upstreams_of(settings: Settings) -> dict[tuple[str, str], str]:
    """The models of the settings: by provider and name, the provider's own name for it."""
    models = settings.models
    return {
        (settings.provider_of(name), name): (models[name].upstream if name in models else None) or name
        for name in sorted(settings.named_models)
    }


def pauses(
    meter: Meter, health: Health, upstreams: Mapping[tuple[str, str], str], now: float
) -> dict[tuple[str, str], Pause]:
    """By provider and label, the models of the settings and whatever else is left alone. The longest of all accounts,
    and of all models of one label.
    """
    names: dict[tuple[str, str], list[str]] = {}
    for (provider, name), upstream in upstreams.items():
        names.setdefault((provider, upstream), []).append(name)
    found = dict.fromkeys(upstreams, Pause())
    for each in health.snapshot(now):
        provider, upstream, *_ = each.key
        for name in names.get((provider, upstream)) or [meter.label(upstream)]:
            known = found.get((provider, name), Pause())
            down, cooling = each.condition.down(now), each.condition.cooling(now)
            is_open = known.open or each.condition.openings > 0
            found[provider, name] = Pause(max(known.down, down), max(known.cooling, cooling), is_open)
    return found


def _watch_flights(meter: Meter, flights: Flights) -> None:
    load = flights.load
    meter.watch_one("flights", lambda: len(flights))
    meter.watch_one("flights_started", lambda: flights.started)
    meter.watch_one("flights_joined", lambda: flights.joined)
    meter.watch_one("flights_abandoned", lambda: flights.ended_early)
    meter.watch_one("readers", lambda: load.readers)
    meter.watch_one("recorded_bytes", lambda: load.recorded)
    meter.watch_one("received_bytes", lambda: load.received)


def _watch_store(meter: Meter, store: TieredStore[Entry], memory_limit: int) -> None:
    def by_tier(memory: float, disk: float | None) -> Labelled:
        found: Labelled = {("memory",): memory}
        return found if disk is None else {**found, ("disk",): disk}

    def watch_tiers(name: str, in_memory: str, on_disk: str) -> None:
        def read() -> Labelled:
            stats = store.stats()
            return by_tier(getattr(stats, in_memory), None if stats.disk is None else getattr(stats.disk, on_disk))

        meter.watch(name, read)

    def limits() -> Labelled:
        disk = store.stats().disk
        return by_tier(memory_limit, None if disk is None else disk.limit)

    watch_tiers("store_entries", "memory_entries", "entries")
    watch_tiers("store_bytes", "memory_bytes", "bytes")
    watch_tiers("store_evictions", "evictions", "evictions")
    meter.watch("store_limit_bytes", limits)
    meter.watch_one("store_queue_bytes", lambda: store.stats().queued_bytes)


def _watch_limits(meter: Meter, limiter: Limiter, grants: Callable[[], Iterable[Grant]]) -> None:
    def of_keys(which: int) -> Labelled:
        """The limit (0), or what is used of it (1)."""
        told: Labelled = {}
        for grant in grants():
            for kind, found in limiter.used(grant).items():
                told[grant.name, kind] = told.get((grant.name, kind), 0) + found[which]  # names may be alike
        return told

    def of_providers(which: int) -> Labelled:
        found = limiter.used_of_providers
        return {(name, kind): used[which] for name, kinds in found.items() for kind, used in kinds.items()}

    def by_provider(read: Mapping[str, int]) -> Labelled:
        return {(provider,): count for provider, count in read.items()}

    meter.watch("limit", lambda: of_keys(0))
    meter.watch("limit_used", lambda: of_keys(1))
    meter.watch("provider_limit", lambda: of_providers(0))
    meter.watch("provider_limit_used", lambda: of_providers(1))
    meter.watch("calls_waiting", lambda: by_provider(limiter.waiting))
    meter.watch("calls_under_way", lambda: by_provider(limiter.in_use))


def _watch_budgets(meter: Meter, base: Base, purses: Purses) -> None:
    def watch_purses(name: str, value_of: Callable[[Purse, float], float | None]) -> None:
        def read() -> Labelled:
            found: Labelled = {}
            now = base.clock.wall()
            for grant in base.keyring.access.in_force(now):
                purse = purses.of(grant, now)
                value = None if purse is None else value_of(purse, now)
                if value is not None:
                    found[grant.name, grant.id] = value
            return found

        meter.watch(name, read)

    def forecast(purse: Purse, now: float) -> float | None:
        usd = purse.forecast(now)
        return None if usd is None else float(usd)

    watch_purses("budget_usd", lambda purse, _: float(purse.allowance.usd))
    watch_purses("budget_spent_usd", lambda purse, _: float(purse.spent))
    watch_purses("budget_reserved_usd", lambda purse, _: float(purse.reserved))
    watch_purses("budget_forecast_usd", forecast)
    watch_purses("budget_nearly_spent", lambda purse, _: float(purse.nearly))


def _watch_health(meter: Meter, health: Health, clock: Clock, upstreams: Mapping[tuple[str, str], str]) -> None:
    def read(told: Callable[[Pause], float]) -> Labelled:
        found = pauses(meter, health, upstreams, clock.wall())
        return {place: told(pause) for place, pause in found.items()}

    meter.watch("breaker_open", lambda: read(lambda pause: float(pause.open)))
    meter.watch("cooldown_seconds", lambda: read(lambda pause: pause.cooling))
    meter.watch("breaker_openings", lambda: {(provider,): count for provider, count in health.opened.items()})


async def watch_beside(meter: Meter, history: History, clock: Clock, directory: Path) -> None:
    """Once a second: how late the loop is, what is new; now and then how much space is left."""
    for second in count():
        if second % SPACE == 0:
            free, size = await asyncio.to_thread(_space, directory)
            meter.watch("data_free_bytes", partial(dict, free))
            meter.watch("data_size_bytes", partial(dict, size))
        due = clock.monotonic() + SECOND
        await asyncio.sleep(SECOND)
        meter.late(max(0.0, clock.monotonic() - due))
        history.look(clock.wall())


def _space(directory: Path) -> tuple[Labelled, Labelled]:
    """Bytes that are free, and all; nothing where that can't be told."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return {}, {}
    return {(): found.f_bavail * found.f_frsize}, {(): found.f_blocks * found.f_frsize}
