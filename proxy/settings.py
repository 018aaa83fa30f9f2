"""What may be configured, with defaults, and what makes no sense together; reading.py reads it from a file.

Sizes are bytes, times seconds. Secrets are named by environment variable, never written here.
"""

import re
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

import msgspec

from pricing.table import own_rates
from proxy.core.policy import Sampled
from proxy.errors import StartupError

Auth = Literal["client", "key", "none"]

# What a request to a provider says by itself, or must not say.
_OWN_HEADERS = frozenset(
    "accept accept-encoding api-key authorization cache-control connection content-encoding content-length "
    "content-type cookie expect host openai-organization openai-project te trailer transfer-encoding upgrade "
    "user-agent x-api-key".split()
)
_OWN_PREFIXES = ("x-penstock-", "x-stainless-")
# Requests that differ in one of these have different answers.
_NEVER_IGNORED = frozenset("messages model prompt input tools functions n response_format".split())
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - to know them
_PORTS = {"http": 80, "https": 443}


class Size(int):
    """Bytes."""


class Seconds(float):
    """Seconds."""


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

    @property
    def loopback(self) -> bool:
        return self.host in _LOOPBACK


class Data(_Strict, frozen=True):
    directory: Path = Path(".penstock")


class Cache(_Strict, frozen=True):
    mode: Literal["on", "off"] = "on"
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


class Provider(_Strict, frozen=True):
    base_url: str
    auth: Auth | None = None
    api_key_env: str | None = None
    connect_timeout: Seconds = Seconds(10)
    first_event_timeout: Seconds = Seconds(600)
    idle_timeout: Seconds = Seconds(300)
    total_timeout: Seconds = Seconds(3600)
    max_event: Size = Size(1 << 20)
    usage: Literal["ask", "never"] = "ask"
    max_retries: int = 2

    @property
    def effective_auth(self) -> Auth:
        """`key` where a key is named, else the client's own credentials."""
        return self.auth or ("key" if self.api_key_env else "client")


class Model(_Strict, frozen=True):
    """`price`: USD per million tokens, by kind (pricing/README.md), as decimal numbers in quotes."""

    provider: str | None = None
    upstream: str | None = None
    price: dict[str, str] = {}


class Routing(_Strict, frozen=True):
    default_provider: str | None = None


class Key(_Strict, frozen=True):
    """A key that clients show to this proxy. `passthrough`: leading segments of paths that it may pass through."""

    name: str
    key_env: str | None = None
    key_sha256: str | None = None
    passthrough: tuple[str, ...] = ()


class Settings(_Strict, frozen=True):
    server: Server = Server()
    data: Data = Data()
    cache: Cache = Cache()
    providers: dict[str, Provider] = {}
    models: dict[str, Model] = {}
    routing: Routing = Routing()
    keys: tuple[Key, ...] = ()

    def checked(self) -> Self:
        """These settings, if they make sense together; else StartupError."""
        if not self.providers:
            raise StartupError(
                "providers: at least one is needed: [providers.NAME] with a base_url, or --upstream URL."
            )
        for name, provider in self.providers.items():
            _check_provider(f"providers.{name}", provider, shared=self.cache.shared)
        if self.routing.default_provider is None and len(self.providers) > 1:
            raise StartupError(
                "routing.default_provider: there are several providers; name the one for models not listed in [models]."
            )
        self._check_names()
        self._check_keys()
        self._check_prices()
        self._check_ignored()
        self._check_host()
        self._check_loops()
        self._check_headers()
        self._check_bounds()
        return self

    @property
    def default_provider(self) -> str:
        return self.routing.default_provider or next(iter(self.providers))

    def _check_names(self) -> None:
        named = {"routing.default_provider": self.default_provider}
        named |= {f"models.{name}.provider": model.provider for name, model in self.models.items() if model.provider}
        for path, provider in named.items():
            if provider not in self.providers:
                there = ", ".join(self.providers)
                raise StartupError(f"{path}: there is no [providers.{provider}]; there is: {there}.")

    def _check_prices(self) -> None:
        for name, model in self.models.items():
            try:
                own_rates(model.price)
            except ValueError as error:
                raise StartupError(f"models.{name}.price: {error}.") from None

    def _check_keys(self) -> None:
        for index, key in enumerate(self.keys):
            _check_key(f"keys[{index}]", key)
            if any(key.name == other.name for other in self.keys[:index]):
                raise StartupError(f"keys[{index}].name: there is another key named {key.name!r}.")
        for name, provider in self.providers.items():
            if self.keys and provider.effective_auth == "client":
                raise StartupError(
                    f"providers.{name}.auth: with [[keys]] clients show keys of this proxy, not the provider's; "
                    f'name the provider\'s own key in api_key_env, or say auth = "none".'
                )

    def doubts(self) -> list[str]:
        """What is allowed and most likely a mistake."""
        found = []
        for name, provider in self.providers.items():
            path = urlsplit(provider.base_url).path.rstrip("/")
            where = f"providers.{name}.base_url: {provider.base_url}"
            if path.endswith("/chat/completions"):
                found.append(f"{where} names an endpoint; Penstock adds /chat/completions itself.")
            elif not path:
                found.append(f"{where} has no path; most providers' ends in /v1.")
        return found

    def _check_ignored(self) -> None:
        for name in self.cache.ignore:
            if not name or name in _NEVER_IGNORED:
                raise StartupError(f"cache.ignore: {name!r} cannot be ignored: other requests would get its answer.")

    def _check_loops(self) -> None:
        """A provider must not be this proxy: each of its calls would be another request to it, for ever."""
        host, port = self.server.host.lower(), self.server.port
        own = {host, *_LOOPBACK, *_EVERYWHERE} if self.server.loopback or host in _EVERYWHERE else {host}
        for name, provider in self.providers.items():
            address = urlsplit(provider.base_url)
            if address.hostname in own and (address.port or _PORTS[address.scheme]) == port:
                raise StartupError(
                    f"providers.{name}.base_url: {provider.base_url} is this proxy itself; give it the provider's "
                    f"address, or give the proxy another server.port."
                )

    def _check_host(self) -> None:
        if self.server.loopback or self.keys:
            return
        for name, provider in self.providers.items():
            if provider.effective_auth != "client":
                raise StartupError(
                    f"server.host: {self.server.host} is public, and providers.{name} pays for whoever reaches it. "
                    f'Use host = "127.0.0.1", declare [[keys]], or say auth = "client" for each provider.'
                )

    def _check_bounds(self) -> None:
        server = self.server
        if not 0 <= server.port <= 65535:
            raise StartupError("server.port: must be from 0 (any free one) to 65535.")
        sizes = {f"server.{name}": getattr(server, name) for name in ("max_body", "max_header_size", "max_buffered")}
        sizes |= {f"providers.{name}.max_event": provider.max_event for name, provider in self.providers.items()}
        _check_least(sizes | {"cache.max_entry": self.cache.max_entry}, 1024, "at least 1KiB")
        if server.max_buffered < server.max_body:
            raise StartupError("server.max_buffered: must be at least server.max_body, or no such body could come in.")
        counts = ("max_headers", "max_connections", "max_flights", "max_readers")
        _check_least({f"server.{name}": getattr(server, name) for name in counts}, 1, "at least 1")
        _check_positive("server", server, ("head_timeout", "body_timeout", "send_timeout"))

    def _check_headers(self) -> None:
        for name in self.server.forward_headers:
            if not re.fullmatch(r"[A-Za-z0-9-]+", name) or _is_own(name.lower()):
                raise StartupError(f"server.forward_headers: {name!r} is no header that clients may set at a provider.")
        for origin in self.server.cors_origins:
            if not re.fullmatch(r"https?://[^/\s*]+", origin):
                raise StartupError(
                    f"server.cors_origins: {origin!r} is no origin; write https://host or http://host:port."
                )


def _check_least(values: dict[str, int], least: int, words: str) -> None:
    for path, value in values.items():
        if value < least:
            raise StartupError(f"{path}: must be {words}.")


def _check_positive(path: str, table: Server | Provider, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(table, name) <= 0:
            raise StartupError(f"{path}.{name}: must be more than 0.")


def _is_own(header: str) -> bool:
    return header in _OWN_HEADERS or header.startswith(_OWN_PREFIXES)


def _check_provider(path: str, provider: Provider, *, shared: bool) -> None:
    if not re.fullmatch(r"(?i:https?)://[^/\s?#@]+(/[^\s?#]*)?", provider.base_url):
        raise StartupError(
            f"{path}.base_url: {provider.base_url!r} is no address; write https://host/v1, without query or password."
        )
    try:
        address = urlsplit(provider.base_url)
        (address.hostname or "").encode("idna"), address.port  # both raise where they make no sense
    except ValueError as error:
        raise StartupError(f"{path}.base_url: {provider.base_url!r} is no address: {error}.") from None
    _check_variable(f"{path}.api_key_env", provider.api_key_env)
    auth = provider.effective_auth
    if auth == "key" and not provider.api_key_env:
        raise StartupError(f'{path}.api_key_env: auth = "key" needs the environment variable that holds the key.')
    if auth == "client" and provider.api_key_env:
        raise StartupError(
            f'{path}.auth: with "client" each client\'s own key is sent, and {provider.api_key_env} never would be; '
            f'leave api_key_env out, or say auth = "key".'
        )
    if auth == "client" and shared:
        raise StartupError(f'{path}.auth: with "client" each client pays for itself; cache.shared = true is refused.')
    if not 0 <= provider.max_retries <= 10:
        raise StartupError(f"{path}.max_retries: must be from 0 to 10.")
    _check_positive(path, provider, ("connect_timeout", "first_event_timeout", "idle_timeout", "total_timeout"))


def _check_variable(path: str, name: str | None) -> None:
    """A name of an environment variable; a secret that was put there by mistake is not repeated."""
    if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise StartupError(f"{path}: must be the name of an environment variable that holds the key, not the key.")


def _check_key(path: str, key: Key) -> None:
    _check_variable(f"{path}.key_env", key.key_env)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", key.name):
        raise StartupError(f"{path}.name: {key.name!r}: up to 64 letters, digits, '.', '_' and '-'.")
    if (key.key_env is None) == (key.key_sha256 is None):
        raise StartupError(
            f"{path}: give either key_env, the environment variable that holds the key, or key_sha256, its digest."
        )
    if key.key_sha256 is not None and not re.fullmatch(r"[0-9A-Fa-f]{64}", key.key_sha256):
        raise StartupError(
            f"{path}.key_sha256: must be 64 hexadecimal digits and no more: printf %s KEY | sha256sum | cut -c1-64"
        )
    for segment in key.passthrough:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", segment):
            raise StartupError(f'{path}.passthrough: {segment!r} is no leading segment of a path, such as "files".')
