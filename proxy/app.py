"""The composition root: the only place that constructs edges, and what starts and stops with the process."""

import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp

from proxy.accounts import Accounts
from proxy.claims import Claims
from proxy.clock import SystemClock
from proxy.complaints import Complaints
from proxy.core.access import NO_GUARD, Access, Guard
from proxy.core.budget import Purses
from proxy.core.entry import Entry
from proxy.core.load import Load
from proxy.core.policy import Rules
from proxy.endpoints.admin import Admin, Office
from proxy.endpoints.answer import Desk
from proxy.endpoints.chat import ChatCompletions, Options
from proxy.endpoints.gate import Gate
from proxy.endpoints.intake import Door
from proxy.endpoints.models import Models
from proxy.endpoints.operations import Operations
from proxy.endpoints.passthrough import Passthrough
from proxy.endpoints.refusals import Refusals
from proxy.errors import Overloaded, PenstockError
from proxy.flights import Flights
from proxy.founding import Base, found
from proxy.ids import Ids
from proxy.interfaces import Clock, Provider
from proxy.limiter import Limiter
from proxy.meter import CONTENT_TYPE, Budgeted, Meter
from proxy.offers import price_table, routes_of
from proxy.office import office_of
from proxy.pipeline import Edges, Pipeline
from proxy.plans import Plans, Terms
from proxy.producer import Means, Producer
from proxy.router import Router
from proxy.settings import Settings
from proxy.store.tiered import TieredStore
from proxy.transport import AiohttpTransport
from proxy.upstream import Upstream

CHAT = ("/v1/chat/completions", "/chat/completions")  # some SDKs are given a base_url without /v1

# Headers that pages may read; a browser takes no prefix.
EXPOSED = """
cache-status age x-request-id x-penstock-request-id x-penstock-model x-penstock-provider
x-penstock-cost-usd x-penstock-saved-usd x-penstock-saved-by x-penstock-prompt-cache-saved-usd
retry-after retry-after-ms x-should-retry openai-processing-ms openai-version
x-ratelimit-limit-requests x-ratelimit-remaining-requests x-ratelimit-reset-requests
x-ratelimit-limit-tokens x-ratelimit-remaining-tokens x-ratelimit-reset-tokens
"""

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
        self.meter.request("wire", "refused", error.status)
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
) -> AsyncIterator[Application]:
    """The proxy that these settings describe, as long as the context lasts.

    `api_keys`: by provider's name. `client_keys`: the SHA-256 of each of [[keys]], by its name.

    Raises StartupError: another process has the data directory, or it cannot be used.
    """
    clock = clock or SystemClock()
    meter = Meter({*settings.models, *(model for route in settings.routes for model in settings.route_models(route))})
    async with AsyncExitStack() as stack:
        base = await found(settings, client_keys or {}, clock, meter, stack)
        limiter, purses = _limiter(settings, clock, meter), _purses(base)
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
        plans = Plans(_terms(settings, base.secret), _rules(settings), routes, providers, limiter.counts_tokens)
        _watch_sizes(meter, edges.flights, base.store)
        _watch_money(base, limiter, purses)
        desk = Desk(Ids(), meter, clock, complaints, limiter, base.ledger, cost_comment=settings.server.cost_comment)
        door = _door(settings, base.keyring.access, guard, edges.flights.load, clock)
        office = office_of(
            base.keyring, purses, edges.flights, clock, directory=settings.data.directory, purge=base.purges.purge
        )
        gate = _endpoints(settings, Pipeline(plans, edges), edges, meter, desk, door, office=office)
        asgi = _for_pages(gate, settings.server.cors_origins)
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


def _limiter(settings: Settings, clock: Clock, meter: Meter) -> Limiter:
    return Limiter(
        clock,
        providers={name: provider.limits for name, provider in settings.providers.items()},
        models={(settings.provider_of(name), name): model.limits for name, model in settings.models.items()},
        queue_timeout={name: float(provider.queue_timeout) for name, provider in settings.providers.items()},
        on_refused=meter.refused,
        on_waited=meter.waited,
    )


def _terms(settings: Settings, key_secret: bytes) -> Terms:
    cache = settings.cache
    return Terms(
        secret=key_secret,
        ignore=cache.ignore,
        shared=cache.shared,
        ttl=float(cache.ttl),
        stale_if_error=float(cache.stale_if_error),
    )


def _rules(settings: Settings) -> Rules:
    cache = settings.cache
    return Rules(enabled=cache.mode == "on", sampled=cache.sampled, remote_media=cache.remote_media)


def _load(settings: Settings) -> Load:
    server = settings.server
    return Load(max_flights=server.max_flights, max_readers=server.max_readers, max_buffered=server.max_buffered)


def _door(settings: Settings, access: Access, guard: Guard, load: Load, clock: Clock) -> Door:
    server = settings.server
    return Door(
        origins=frozenset(server.cors_origins),
        loopback_only=server.loopback,
        max_body=server.max_body,
        body_timeout=server.body_timeout,
        access=access,
        wall=clock.wall,
        load=load,
        guard=guard,
    )


def _endpoints(
    settings: Settings, pipeline: Pipeline, edges: Edges, meter: Meter, desk: Desk, door: Door, *, office: Office
) -> Gate:
    forward = tuple(sorted(name.lower().encode() for name in settings.server.forward_headers))
    options = Options(forward=forward, recorded_pace=settings.cache.replay == "recorded")
    provider = edges.providers[settings.default_provider]
    chat = ChatCompletions(pipeline, door, options, desk)
    models = Models([*settings.routes, *settings.models], provider, door, desk)
    passthrough = Passthrough(provider, door, forward, desk)
    operations = Operations(meter.exposition, CONTENT_TYPE, door)
    routes = [
        *(Route(path, chat, methods=["POST"]) for path in CHAT),
        Route("/openai/deployments/{deployment:path}/chat/completions", chat, methods=["POST"]),
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/models/{model:path}", models, methods=["GET"]),
        Route("/v1/{path:path}", passthrough),
        *Admin(office, door, desk).routes,
        Route("/livez", operations.livez),
        Route("/readyz", operations.readyz),
        Route("/metrics", operations.metrics),
    ]
    app = Starlette(routes=routes, exception_handlers=Refusals(desk.ids).handlers)
    app.router.redirect_slashes = False  # its redirect goes to whatever Host the request names
    gate = operations.gate = Gate(app, dict.fromkeys(CHAT, chat))
    meter.requests_open.set_function(lambda: gate.open)
    return gate


def _for_pages(app: ASGIApp, origins: tuple[str, ...]) -> ASGIApp:
    """Pages of these origins may call the proxy and read what it says of an answer."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),
        allow_private_network=True,
        expose_headers=EXPOSED.split(),
    )


def _watch_money(base: Base, limiter: Limiter, purses: Purses) -> None:
    """The same of limits, budgets and the ledger."""
    meter, ledger = base.meter, base.ledger

    def budgets() -> Iterator[Budgeted]:
        now = base.clock.wall()
        for grant in base.keyring.access.in_force(now):
            purse = purses.of(grant, now)
            if purse is not None:
                spent, usd = purse.spent, purse.allowance.usd
                yield Budgeted(grant, usd, spent, purse.reserved, purse.forecast(now), nearly=purse.nearly)

    meter.watch_limits(lambda: limiter.waiting, lambda: limiter.in_use)
    meter.watch_budgets(budgets)
    meter.ledger_pending.set_function(lambda: ledger.pending)
    meter.ledger_lag.set_function(lambda: ledger.lag)


def _watch_sizes(meter: Meter, flights: Flights, store: TieredStore[Entry]) -> None:
    """Gauges that are read when they are scraped."""
    load = flights.load
    meter.flights.set_function(lambda: len(flights))
    meter.readers.set_function(lambda: load.readers)
    meter.recorded.set_function(lambda: load.recorded)
    meter.received.set_function(lambda: load.received)
    meter.memory_bytes.set_function(lambda: store.stats().memory_bytes)
    meter.memory_entries.set_function(lambda: store.stats().memory_entries)
