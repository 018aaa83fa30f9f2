"""The composition root: the only place that constructs edges, and what starts and stops with the process."""

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from starlette.types import ASGIApp

from proxy.accounts import Accounts
from proxy.claims import Claims
from proxy.clock import SystemClock
from proxy.complaints import Complaints
from proxy.core.access import NO_GUARD, Guard
from proxy.core.books import Answered
from proxy.core.budget import Purses
from proxy.core.history import History
from proxy.core.load import Load
from proxy.core.policy import Rules
from proxy.endpoints.admin import Admin
from proxy.endpoints.desk import Desk
from proxy.endpoints.figures import ConsoleFigures
from proxy.endpoints.gate import Gate
from proxy.endpoints.operations import Operations
from proxy.entrance import door_of, for_pages, gate_of
from proxy.errors import Overloaded, PenstockError
from proxy.flights import Flights
from proxy.founding import Base, follow, found
from proxy.ids import Ids
from proxy.interfaces import Clock, Log, Provider
from proxy.limiter import Limiter, tell_nobody
from proxy.meter import CONTENT_TYPE, Meter
from proxy.offers import price_table, routes_of
from proxy.office import office_of, sources_of
from proxy.piecemeal import Piecemeal
from proxy.pipeline import Edges, Pipeline
from proxy.plans import Plans, Terms
from proxy.producer import Means, Producer
from proxy.router import Router
from proxy.settings import Settings
from proxy.transport import AiohttpTransport
from proxy.upstream import Upstream
from proxy.watching import exposition, watch, watch_beside

RECENT = 1000  # requests that are remembered one by one

logger = logging.getLogger("penstock")


@dataclass(frozen=True, slots=True)
class Application:
    """A proxy that is ready to serve: the ASGI callable, and how it is asked to stop."""

    asgi: ASGIApp
    gate: Gate
    flights: Flights
    meter: Meter
    complaints: Complaints
    drain_seconds: float

    def refused(self, error: PenstockError) -> None:
        """A request that no endpoint saw was refused."""
        self.meter.turned_away(error.status)
        if isinstance(error, Overloaded):
            self.complaints.overloaded(error)

    async def drain(self) -> None:
        """Let what is open finish; after the time that the settings allow, end the rest with an error event."""
        if not await self.gate.drain(self.drain_seconds):
            logger.warning("%d answers were still open after the drain; they end with an error", self.gate.open)
            await self.flights.close()
            await self.gate.drain(1.0)


@asynccontextmanager
async def build_app(
    settings: Settings,
    *,
    api_keys: Mapping[str, str],
    client_keys: Mapping[str, bytes] | None = None,
    guard: Guard = NO_GUARD,
    clock: Clock | None = None,
    log: Log | None = None,
) -> AsyncIterator[Application]:
    """The proxy that these settings describe, as long as the context lasts.

    `api_keys`: by provider's name. `client_keys`: the SHA-256 of each of [[keys]], by its name.

    Raises StartupError: another process has the data directory, or it cannot be used.
    """
    clock = clock or SystemClock()
    meter = Meter(settings.named_models)
    async with AsyncExitStack() as stack:
        base = await found(settings, client_keys or {}, clock, meter, stack)
        limiter, purses = limiter_of(settings, clock, meter.refused, meter.waited), _purses(base)
        complaints = Complaints(clock.monotonic)
        providers = await _providers(settings, api_keys, stack)
        edges = _edges(settings, base, limiter, purses, complaints, providers)
        stack.push_async_callback(edges.accounts.close)
        # Before the transports close: what is still open then ends because we shut down, not because its provider left.
        # And before the accounts, so that what came of it is counted.
        stack.push_async_callback(edges.flights.close)
        routes = routes_of(settings, price_table(settings))
        for route in settings.routes:
            await edges.router.warm(routes.choice(route).options)  # here, since it would hold up answers later
        plans = Plans(terms_of(settings, base.secret), rules_of(settings), routes, providers, limiter.counts_tokens)
        watch(meter, settings, base, limiter, purses, edges.flights)
        history, recent = History(meter.tallies), deque[Answered](maxlen=RECENT)
        follow(watch_beside(meter, history, clock, settings.data.directory), stack)
        cost_comment = settings.server.cost_comment
        desk = Desk(Ids(), meter, clock, complaints, limiter, base.ledger, recent, log=log, cost_comment=cost_comment)
        door = door_of(settings, base.keyring.access, guard, edges.flights.load, clock)
        office = office_of(
            base.keyring, purses, edges.flights, clock, directory=settings.data.directory, purge=base.purges.purge
        )
        shown = sources_of(base, history, recent, office, settings)
        operations = Operations(lambda: exposition(meter), CONTENT_TYPE, door)
        own = [*Admin(office, door, desk).routes, *ConsoleFigures(shown, door).routes, *operations.routes]
        provider = providers[settings.default_provider]
        lists = Piecemeal(Pipeline(plans, edges), plans, base.store, edges.accounts, clock)
        gate = operations.gate = gate_of(settings, lists, provider, desk, door, own)
        meter.watch_one("requests_open", lambda: gate.open)
        asgi = for_pages(gate, settings.server.cors_origins)
        yield Application(asgi, gate, edges.flights, meter, complaints, settings.server.drain)


async def _providers(settings: Settings, api_keys: Mapping[str, str], stack: AsyncExitStack) -> dict[str, Upstream]:
    providers = {}
    for name, provider in settings.providers.items():
        transport = AiohttpTransport(connect_timeout=provider.connect_timeout)
        await stack.enter_async_context(transport)
        providers[name] = Upstream(name, provider, transport=transport, api_key=api_keys.get(name))
    return providers


def _purses(base: Base) -> Purses:
    """Each key has spent what the ledger says."""
    purses = Purses()
    for known in base.keyring.known:
        if known.revoked is None:
            purses.tell(known.grant, base.clock.wall(), base.ledger.spent)
    return purses


def _edges(
    settings: Settings,
    base: Base,
    limiter: Limiter,
    purses: Purses,
    complaints: Complaints,
    providers: Mapping[str, Provider],
) -> Edges:
    clock, meter, learned, load, cache = base.clock, base.meter, base.learned, _load(settings), settings.cache
    flights = Flights(on_abandon=cache.on_abandon, max_entry=cache.max_entry, load=load)
    router, claims = Router(learned, clock, limiter), Claims(limiter, purses, clock)
    accounts = Accounts(router, meter, base.ledger, clock)
    means = Means(providers, learned.health, load, limiter, claims, accounts, clock, meter, complaints)
    return Edges(providers, base.store, flights, base.purges, meter, clock, router, claims, Producer(means), accounts)


def limiter_of(
    settings: Settings,
    clock: Clock,
    on_refused: Callable[[str, str], None] = tell_nobody,
    on_waited: Callable[[str, float], None] = tell_nobody,
) -> Limiter:
    """All limits of these settings."""
    return Limiter(
        clock,
        providers={name: provider.limits for name, provider in settings.providers.items()},
        models={(settings.provider_of(name), name): model.limits for name, model in settings.models.items()},
        queue_timeout={name: float(provider.queue_timeout) for name, provider in settings.providers.items()},
        on_refused=on_refused,
        on_waited=on_waited,
    )


def terms_of(settings: Settings, key_secret: bytes) -> Terms:
    """How answers are kept, by these settings and under this secret."""
    cache = settings.cache
    return Terms(
        secret=key_secret,
        ignore=cache.ignore,
        shared=cache.shared,
        ttl=float(cache.ttl),
        stale_if_error=float(cache.stale_if_error),
        shadow=cache.mode == "shadow",
    )


def rules_of(settings: Settings) -> Rules:
    """What these settings let the cache do."""
    cache = settings.cache
    return Rules(enabled=cache.mode != "off", sampled=cache.sampled, remote_media=cache.remote_media)


def _load(settings: Settings) -> Load:
    server = settings.server
    return Load(max_flights=server.max_flights, max_readers=server.max_readers, max_buffered=server.max_buffered)
