"""What administrators work with, and what the page shows, put together out of the parts of a running proxy."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast, get_args

from proxy.core.access import Grant
from proxy.core.books import Answered
from proxy.core.breaker import Health
from proxy.core.budget import Purses
from proxy.core.history import History
from proxy.endpoints.admin import Balance, Office, Purge, UnderWay
from proxy.endpoints.figures import Sources, Standing, State
from proxy.errors import StartupError
from proxy.flights import Flight, Flights
from proxy.founding import Base
from proxy.interfaces import Clock
from proxy.keyring import Keyring
from proxy.ledger.figures import summary, told_of
from proxy.ledger.sums import By
from proxy.meter import Meter
from proxy.reading import read_since
from proxy.settings import Settings
from proxy.watching import Pause, pauses, upstreams_of


def office_of(
    keyring: Keyring, purses: Purses, flights: Flights, clock: Clock, *, directory: Path, purge: Purge
) -> Office:
    """`directory`: in which the ledger is."""

    def balance(grant: Grant) -> Balance | None:
        now = clock.wall()
        purse = purses.of(grant, now)
        return None if purse is None else Balance(purse.spent, purse.reserved, purse.left(now))

    def under_way() -> Iterator[UnderWay]:
        now = asyncio.get_running_loop().time()
        return (_told(flight, now) for flight in flights)

    def spend(since: str, by: str) -> object:
        return _spent(directory, keyring.names, read_since(since, now=clock.wall()), by)

    return Office(keyring, balance, spend, under_way, purge)


def sources_of(base: Base, history: History, recent: Sequence[Answered], office: Office, settings: Settings) -> Sources:
    """What the page shows."""
    upstreams, health, clock = upstreams_of(settings), base.learned.health, base.clock

    def standings() -> Iterator[Standing]:
        return _standings(base.meter, health, upstreams, clock.wall())

    return Sources(history, recent, standings, office.balance, clock.wall, settings.cache.mode)


def _spent(directory: Path, names: Mapping[str, str], since: float, by: str) -> list[dict[str, object]]:
    """In the words of `penstock report --format json`. Raises StartupError, OSError."""
    if by not in get_args(By):
        raise StartupError(f"by: must be one of: {', '.join(get_args(By))}")
    found = summary(directory, cast("By", by), since)
    groups = {} if found is None else found.groups
    return [told_of(cast("By", by), group, figures, names) for group, figures in groups.items()]


def _told(flight: Flight, now: float) -> UnderWay:
    served = flight.served
    return UnderWay(
        endpoint=flight.asker.endpoint,
        key=flight.asker.grant.id,
        asked=flight.asked,
        provider=None if served is None else served.target.provider,
        model=None if served is None else served.name,
        age=now - flight.began,
        readers=len(flight.readers),
        bytes=flight.recording.size,
        waits=flight.waits,
    )


def _standings(
    meter: Meter, health: Health, upstreams: Mapping[tuple[str, str], str], now: float
) -> Iterator[Standing]:
    """Of the models of the settings, and of those that were asked besides."""
    found = pauses(meter, health, upstreams, now)
    for provider, model in meter.tallies.tried_of:
        if model:
            found.setdefault((provider, model), Pause())
    for (provider, model), pause in found.items():
        yield Standing(provider, model, _state(pause), max(pause.down, pause.cooling), (provider, model) in upstreams)


def _state(pause: Pause) -> State:
    if pause.down > 0:
        return "down"
    if pause.cooling > 0:
        return "cooling"
    return "trying" if pause.open else "up"
