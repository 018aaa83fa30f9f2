"""The composition root: the only place that constructs edges, and what starts and stops with the process."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp

from proxy.accounts import Accounts
from proxy.clock import SystemClock
from proxy.complaints import Complaints
from proxy.core.access import Access, Grant
from proxy.core.breaker import Health
from proxy.core.entry import Entry, pack, unpack
from proxy.core.learned import Learned
from proxy.core.load import Load
from proxy.core.policy import Rules
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
from proxy.ids import Ids
from proxy.interfaces import Clock
from proxy.keeping import Keeper
from proxy.meter import CONTENT_TYPE, Meter
from proxy.offers import price_table, routes_of
from proxy.pipeline import Edges, Pipeline, Terms
from proxy.producer import Producer
from proxy.router import Router
from proxy.settings import Settings
from proxy.store.disk import FAILURES, DiskTier
from proxy.store.epoch import Epoch
from proxy.store.lock import DataLock
from proxy.store.memory import MemoryTier
from proxy.store.notebook import Notebook
from proxy.store.secret import secret
from proxy.store.tiered import TieredStore
from proxy.transport import AiohttpTransport
from proxy.upstream import Upstream

EPOCH_POLL = 0.5  # seconds: a purge by command is in force within a second

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


class PurgeWatch:
    """The epoch in force: follows purges that other processes made, and forgets what is in memory then."""

    def __init__(self, epoch: Epoch, store: TieredStore[Entry]) -> None:
        self._epoch = epoch
        self._store = store
        self.current = epoch.read()

    async def follow(self) -> None:
        while True:
            await asyncio.sleep(EPOCH_POLL)
            # In a thread: a disk that hangs must not hold up those who need nothing of it.
            if await asyncio.to_thread(self._epoch.changed):
                self.current = await asyncio.to_thread(self._epoch.read)
                self._store.forget()


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
    clock: Clock | None = None,
) -> AsyncIterator[Application]:
    """The proxy that these settings describe, as long as the context lasts.

    `api_keys`: by provider's name. `client_keys`: the SHA-256 of each of [[keys]], by its name.

    Raises StartupError: another process has the data directory, or it cannot be used.
    """
    clock = clock or SystemClock()
    meter = Meter({*settings.models, *(model for route in settings.routes for model in settings.route_models(route))})
    directory = settings.data.directory
    async with AsyncExitStack() as stack:
        key_secret = _claim(directory, stack, meter)
        store = _open_store(settings, meter, on_disk=key_secret is not None)
        stack.push_async_callback(store.close)
        learner = asyncio.create_task(store.learn())
        stack.callback(learner.cancel)
        load = _load(settings)
        flights = Flights(on_abandon=settings.cache.on_abandon, max_entry=settings.cache.max_entry, load=load)
        purges = PurgeWatch(Epoch(directory / "purges"), store)
        follower = asyncio.create_task(purges.follow())
        stack.callback(follower.cancel)
        providers = {}
        for name, provider in settings.providers.items():
            transport = AiohttpTransport(connect_timeout=provider.connect_timeout)
            await stack.enter_async_context(transport)
            providers[name] = Upstream(name, provider, transport=transport, api_key=api_keys.get(name))
        complaints = Complaints(clock.monotonic)
        health = Health(at={name: provider.breaker_failures for name, provider in settings.providers.items()})
        learned = Learned(health, kept_for=settings.cache.ttl)
        await _keep(learned, Notebook(directory) if key_secret is not None else None, clock, stack)
        router = Router(learned, clock)
        accounts = Accounts(router, meter)
        stack.push_async_callback(accounts.close)
        # Before the transports close: what is still open then ends because we shut down, not because its provider left.
        # And before the accounts, so that what came of it is counted.
        stack.push_async_callback(flights.close)
        routes = routes_of(settings, price_table(settings))
        for route in settings.routes:
            await router.warm(routes.choice(route).options)  # here, since it would hold up answers later
        producer = Producer(providers, health, load, clock=clock, meter=meter, complaints=complaints)
        edges = Edges(providers, store, flights, purges, meter, clock, router, producer, accounts)
        pipeline = Pipeline(_terms(settings, key_secret or os.urandom(32)), _rules(settings), routes, edges)
        _watch_sizes(meter, flights, store)
        desk = Desk(Ids(), meter, clock, complaints, cost_comment=settings.server.cost_comment)
        gate = _endpoints(settings, pipeline, edges, meter, desk, _door(settings, client_keys or {}, load, clock))
        asgi = _for_pages(gate, settings.server.cors_origins)
        yield Application(asgi, gate, flights, meter, complaints, settings.server.drain)


async def _keep(learned: Learned, notebook: Notebook | None, clock: Clock, stack: AsyncExitStack) -> None:
    """What was learned outlives the process."""
    keeper = Keeper(learned, notebook, clock)
    keeper.recall()
    stack.push_async_callback(keeper.write)
    follower = asyncio.create_task(keeper.follow())
    stack.callback(follower.cancel)


def _claim(directory: Path, stack: AsyncExitStack, meter: Meter) -> bytes | None:
    """Own the data directory, and read its secret. None where it cannot be written: the cache lives in memory then."""
    try:
        stack.enter_context(DataLock(directory))
        return secret(directory)
    except OSError as error:
        logger.warning("data.directory: %s cannot be used, so the cache has no disk: %s", directory, error)
        meter.store_event("disk_unavailable")
        return None


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


def _door(settings: Settings, client_keys: Mapping[str, bytes], load: Load, clock: Clock) -> Door:
    server = settings.server
    grants = {
        client_keys[key.name]: Grant(
            key.name, key.name, passthrough=frozenset(segment.encode() for segment in key.passthrough)
        )
        for key in settings.keys
    }
    return Door(
        origins=frozenset(server.cors_origins),
        loopback_only=server.loopback and not grants,
        max_body=server.max_body,
        body_timeout=server.body_timeout,
        access=Access(grants),
        wall=clock.wall,
        load=load,
    )


def _endpoints(settings: Settings, pipeline: Pipeline, edges: Edges, meter: Meter, desk: Desk, door: Door) -> Gate:
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


def _watch_sizes(meter: Meter, flights: Flights, store: TieredStore[Entry]) -> None:
    """Gauges that are read when they are scraped."""
    load = flights.load
    meter.flights.set_function(lambda: len(flights))
    meter.readers.set_function(lambda: load.readers)
    meter.recorded.set_function(lambda: load.recorded)
    meter.received.set_function(lambda: load.received)
    meter.memory_bytes.set_function(lambda: store.stats().memory_bytes)
    meter.memory_entries.set_function(lambda: store.stats().memory_entries)
