"""What may be configured, with defaults; reading.py reads it from a file, checks.py refuses what makes no sense.

Sizes are bytes, times seconds. Secrets are named by environment variable, never written here.
"""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from pricing.models import Capability
from proxy.core.access import UNLIMITED, Allowance, Grant, Limits, Period
from proxy.core.dialect import Endpoint
from proxy.core.policy import Sampled

Auth = Literal["client", "key", "none"]

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Size(int):
    """Bytes."""


class Seconds(float):
    """Seconds."""


class Moment(float):
    """Seconds since the epoch."""


class Usd(Decimal):
    """US dollars, exactly as they were written."""


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table whose unknown members are refused."""


class Server(_Strict, frozen=True):
    host: str = "127.0.0.1"
    port: int = 8080
    max_body: Size = Size(32 << 20)
    max_headers: int = 100
    max_header_size: Size = Size(32 << 10)
    head_timeout: Seconds = Seconds(20)
    body_timeout: Seconds = Seconds(60)
    send_timeout: Seconds = Seconds(120)
    max_connections: int = 8192
    max_flights: int = 2000
    max_readers: int = 10_000
    max_buffered: Size = Size(512 << 20)
    drain: Seconds = Seconds(30)
    cors_origins: tuple[str, ...] = ()
    forward_headers: tuple[str, ...] = ("OpenAI-Beta",)
    cost_comment: bool = False
    admin_key_env: str | None = None
    metrics_key_env: str | None = None

    @property
    def loopback(self) -> bool:
        return self.host in LOOPBACK


class Data(_Strict, frozen=True):
    directory: Path = Path(".penstock")


class Cache(_Strict, frozen=True):
    mode: Literal["on", "shadow", "off"] = "on"
    sampled: Sampled = "cache"
    ignore: tuple[str, ...] = ("user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention")
    remote_media: bool = False
    size_limit: Size = Size(2 << 30)
    memory_limit: Size = Size(256 << 20)
    ttl: Seconds = Seconds(7 * 86400)
    max_entry: Size = Size(32 << 20)
    shared: bool = False
    replay: Literal["instant", "recorded"] = "instant"
    on_abandon: Literal["cancel", "finish"] = "cancel"
    stale_if_error: Seconds = Seconds(0)


class Log(_Strict, frozen=True):
    """`format`: auto is text on a terminal, else JSON. `requests`: a line for each. `level`: the least that is told."""

    format: Literal["auto", "json", "text"] = "auto"
    requests: bool = True
    level: Literal["info", "warning", "error"] = "info"


class Ledger(_Strict, frozen=True):
    """`retention`: what is older is deleted."""

    retention: Seconds = Seconds(400 * 86400)


class _Limited(_Strict, frozen=True, kw_only=True):
    """What may be used in any 60 seconds, and at once."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrent: int | None = None

    @property
    def limits(self) -> Limits:
        return Limits(self.requests_per_minute, self.tokens_per_minute, self.max_concurrent)


class Provider(_Limited, frozen=True, kw_only=True):
    """`queue_timeout`: how long a call may wait for its turn at these limits. `endpoints`: that it has; None: nobody
    knows, and a route finds out.
    """

    base_url: str
    auth: Auth | None = None
    api_key_env: str | None = None
    connect_timeout: Seconds = Seconds(10)
    first_event_timeout: Seconds = Seconds(600)
    idle_timeout: Seconds = Seconds(300)
    total_timeout: Seconds = Seconds(3600)
    max_event: Size = Size(1 << 20)
    usage: Literal["ask", "never"] = "ask"
    endpoints: tuple[Endpoint, ...] | None = None
    max_retries: int = 2
    breaker_failures: int = 5
    queue_timeout: Seconds = Seconds(60)

    @property
    def effective_auth(self) -> Auth:
        """`key` where a key is named, else the client's own credentials."""
        return self.auth or ("key" if self.api_key_env else "client")


class Model(_Limited, frozen=True, kw_only=True):
    """`price`: USD per million tokens, by kind (pricing/README.md), as decimal numbers in quotes. It, `window` and
    `max_output` (tokens) replace the catalogue's, and so do `can` and `cannot` for the capabilities that they name.
    `verbosity`: how many tokens it writes where another writes one. Limits: of this model at its provider.
    """

    provider: str | None = None
    upstream: str | None = None
    tier: str | None = None
    price: dict[str, str] = {}
    window: int | None = None
    max_output: int | None = None
    can: tuple[Capability, ...] = ()
    cannot: tuple[Capability, ...] = ()
    verbosity: float = 1.0


class Routing(_Strict, frozen=True):
    """`tiers`: the words that models' tiers may be, ascending. `default_model`: a model or route, for requests to
    /chat/stream that name none.
    """

    default_provider: str | None = None
    tiers: tuple[str, ...] = ()
    default_model: str | None = None


class Route(_Strict, frozen=True):
    """A name that clients may ask for, and who may answer: `models`, or all of [models] from `min_tier` up."""

    models: tuple[str, ...] = ()
    min_tier: str | None = None
    baseline: str | None = None
    retry_lost: bool = False
    sampled: Sampled | None = None


class Budget(_Strict, frozen=True):
    usd: Usd
    per: Period


class Rights(_Limited, frozen=True, kw_only=True):
    """What a key may do. `models`: names of models and routes, or of many with a "*" at their end. `passthrough`:
    leading segments of paths that it may pass through. `expires`: from then on it is refused.
    """

    models: tuple[str, ...] = ("*",)
    passthrough: tuple[str, ...] = ()
    budget: Budget | None = None
    expires: Moment | None = None

    def granted(self, name: str, key_id: str) -> Grant:
        """These rights as those of one key."""
        return Grant(
            name=name,
            id=key_id,
            models=self.models,
            passthrough=frozenset(segment.encode() for segment in self.passthrough),
            limits=self.limits,
            budget=None if self.budget is None else Allowance(Decimal(self.budget.usd), self.budget.per),
            expires=None if self.expires is None else float(self.expires),
        )


class NewKey(Rights, frozen=True, kw_only=True):
    """A key that is to be made and kept in the ledger."""

    name: str


class Key(Rights, frozen=True, kw_only=True):
    """A key that clients show to this proxy."""

    name: str
    key_env: str | None = None
    key_sha256: str | None = None

    @property
    def grant(self) -> Grant:
        """What it may do. Its name is what it owns its answers and spendings by."""
        return self.granted(self.name, self.name)


class Settings(_Strict, frozen=True):
    server: Server = Server()
    data: Data = Data()
    cache: Cache = Cache()
    ledger: Ledger = Ledger()
    log: Log = Log()
    providers: dict[str, Provider] = {}
    models: dict[str, Model] = {}
    routing: Routing = Routing()
    routes: dict[str, Route] = {}
    keys: tuple[Key, ...] = ()

    @property
    def default_provider(self) -> str:
        return self.routing.default_provider or next(iter(self.providers))

    def provider_of(self, model_name: str) -> str:
        """Who has this model: the default provider where [models] does not say."""
        model = self.models.get(model_name)
        return (model.provider if model else None) or self.default_provider

    def route_models(self, route_name: str) -> tuple[str, ...]:
        """The models that may answer for a route, in the file's order. A name among them never means a route.

        Raises KeyError: there is no such route.
        """
        route = self.routes[route_name]
        if route.min_tier is None:
            return route.models
        tiers = self.routing.tiers
        enough = tiers[tiers.index(route.min_tier) :]
        return tuple(name for name, model in self.models.items() if model.tier in enough)

    @property
    def named_models(self) -> set[str]:
        """Those of [models], and those that routes name besides."""
        return {*self.models, *(model for route in self.routes for model in self.route_models(route))}

    def route_baseline(self, route_name: str) -> str:
        """The model that savings by this route are measured against. Raises KeyError: there is no such route."""
        return self.routes[route_name].baseline or self.route_models(route_name)[0]

    def notices(self) -> list[str]:
        """What is meant so, and whoever starts a proxy should know."""
        if self.cache.mode != "shadow":
            return []
        told = "every request goes to the provider and is paid, and nothing is answered from the cache"
        return [f'cache.mode is "shadow": {told}; `penstock report --shadow` says what it would have saved.']

    def doubts(self) -> list[str]:
        """What is allowed and most likely a mistake."""
        return [
            *self._doubted_addresses(),
            *self._doubted_limits(),
            *self._doubted_routes(),
            *self._doubted_keys(),
        ]

    def _doubted_addresses(self) -> Iterator[str]:
        for name, provider in self.providers.items():
            path = urlsplit(provider.base_url).path.rstrip("/")
            where = f"providers.{name}.base_url: {provider.base_url}"
            if path.endswith("/chat/completions"):
                yield f"{where} names an endpoint; Penstock adds /chat/completions itself."
            elif not path:
                yield f"{where} has no path; most providers' ends in /v1."

    def _doubted_limits(self) -> Iterator[str]:
        first: dict[tuple[str, str], str] = {}
        for name, model in self.models.items():
            other = first.setdefault((self.provider_of(name), model.upstream or name), name)
            if other != name and UNLIMITED not in (model.limits, self.models[other].limits):
                yield f"models.{name}: it is the same model as models.{other}, and each name has limits of its own."

    def _doubted_routes(self) -> Iterator[str]:
        known = {*self.models, *(model for route in self.routes.values() for model in route.models)}
        for name in self.routes:
            models = self.route_models(name)
            if len(models) == 1:
                yield f"routes.{name}: {models[0]} is its only model; there is nothing to choose."
            if name in known and name not in models:
                yield f"routes.{name}: it has the name of a model and does not list it; list it, or rename the route."

    def _doubted_keys(self) -> Iterator[str]:
        for index, key in enumerate(self.keys):
            if key.passthrough and key.models != ("*",):
                yield f"keys[{index}].passthrough: what passes through may name any model, whatever this key's models."
            for name in self.unlisted(key.models):
                yield f"keys[{index}].models: {self.unlisted_words(name)}"

    def unlisted(self, models: tuple[str, ...]) -> list[str]:
        """Those of a key's `models` that mean no model or route of these settings."""
        known = {*self.named_models, *self.routes}
        listed = [wanted for wanted in models if any(Grant("", models=(wanted,)).may_call(name) for name in known)]
        return [wanted for wanted in models if wanted not in ("*", *listed)]

    def unlisted_words(self, model: str) -> str:
        return f"{model!r} is no model or route of these settings; it goes to {self.default_provider}."
