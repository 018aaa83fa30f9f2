"""What may be configured, with defaults. TOML, every setting optional, unknown ones refused; an error names its path.

Sizes are bytes (`"2GiB"`), times seconds (`"7d"`). Secrets are named by environment variable, never written here.
"""

import re
import tomllib
from pathlib import Path
from typing import Any, Literal, Self, get_args
from urllib.parse import urlsplit

import msgspec

from proxy.core.policy import Sampled
from proxy.errors import StartupError

Auth = Literal["client", "key", "none"]

_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_TIMES = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
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
    usage: Literal["ask", "never"] = "ask"
    max_retries: int = 2

    @property
    def effective_auth(self) -> Auth:
        """`key` where a key is named, else the client's own credentials."""
        return self.auth or ("key" if self.api_key_env else "client")


class Model(_Strict, frozen=True):
    provider: str | None = None
    upstream: str | None = None


class Routing(_Strict, frozen=True):
    default_provider: str | None = None


class Settings(_Strict, frozen=True):
    server: Server = Server()
    data: Data = Data()
    cache: Cache = Cache()
    providers: dict[str, Provider] = {}
    models: dict[str, Model] = {}
    routing: Routing = Routing()

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
        self._check_ignored()
        self._check_host()
        self._check_loops()
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
        if self.server.loopback:
            return
        for name, provider in self.providers.items():
            if provider.effective_auth != "client":
                raise StartupError(
                    f"server.host: {self.server.host} is public, and providers.{name} pays for whoever reaches it. "
                    f'Use host = "127.0.0.1", or auth = "client" for each provider.'
                )

    def _check_bounds(self) -> None:
        for name in self.server.forward_headers:
            if not re.fullmatch(r"[A-Za-z0-9-]+", name) or _is_own(name.lower()):
                raise StartupError(f"server.forward_headers: {name!r} is no header that clients may set at a provider.")
        if not 0 <= self.server.port <= 65535:
            raise StartupError("server.port: must be from 0 (any free one) to 65535.")
        for path, value in (("server.max_body", self.server.max_body), ("cache.max_entry", self.cache.max_entry)):
            if value < 1024:
                raise StartupError(f"{path}: must be at least 1KiB.")
        for origin in self.server.cors_origins:
            if not re.fullmatch(r"https?://[^/\s*]+", origin):
                raise StartupError(
                    f"server.cors_origins: {origin!r} is no origin; write https://host or http://host:port."
                )


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
    for name in ("connect_timeout", "first_event_timeout", "idle_timeout", "total_timeout"):
        if getattr(provider, name) <= 0:
            raise StartupError(f"{path}.{name}: must be more than 0.")


Table = dict[str, Any]


def read_settings(table: Table, *, source: str, overrides: Table | None = None) -> Settings:
    """The settings in a parsed table. `overrides`: sections that the command line says over it.

    Raises StartupError, naming `source` and the setting's path.
    """
    for section, values in (overrides or {}).items():
        said = table.get(section)
        table = {**table, section: {**said, **values} if isinstance(said, dict) else values} if values else table
    try:
        return msgspec.convert(table, Settings, dec_hook=_measure).checked()
    except msgspec.ValidationError as error:
        raise StartupError(f"{source}: {_with_path(str(error), table)}") from None
    except StartupError as error:
        raise StartupError(f"{source}: {error}") from None


def load_settings(path: Path, overrides: Table | None = None) -> Settings:
    """The settings in a file. Raises StartupError."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise StartupError(f"{path}: this is not TOML: {error}") from None
    return read_settings(table, source=str(path), overrides=overrides)


def _with_path(message: str, table: Table) -> str:
    """msgspec says "Expected … - at `$.cache.ttl`"; a person looks for the path first."""
    what, _, where = message.partition(" - at `$")
    path = where.strip(".`")
    if "[...]" in path:
        path = path.replace("[...]", "." + _culprit(path.partition("[")[0], table), 1)
    unknown = re.search(r"unknown field `(.+)`", what)
    if unknown:
        return f"{path}{'.' if path else ''}{unknown[1]}: there is no such setting."
    if what.startswith("Invalid enum value"):
        what = f"must be one of: {', '.join(_choices(path))}"
    return f"{path}: {what}" if path else what


def _choices(path: str) -> list[str]:
    """What the setting at this path may be. Only names of providers and models hold dots, and those stand between."""
    section, name = path.partition(".")[0], path.rpartition(".")[2]
    kinds: Table = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    kinds |= {"providers": Provider, "models": Model}
    kind = next(field.type for field in msgspec.structs.fields(kinds[section]) if field.name == name)
    return _literals(kind)


def _literals(kind: Any) -> list[str]:
    """The words of a Literal, and of one that may be left out."""
    return [word for each in get_args(kind) for word in ([each] if isinstance(each, str) else _literals(each))]


def _culprit(section: str, table: Table) -> str:
    """Which member of [providers] or [models] does not convert; msgspec does not say."""
    kind = {"providers": Provider, "models": Model}.get(section)
    for name, value in table[section].items() if kind else ():
        try:
            msgspec.convert(value, kind, dec_hook=_measure)
        except msgspec.ValidationError:
            return str(name)
    return "…"


def _measure(kind: type, value: Any) -> Any:
    if kind is Size:
        return Size(_scaled(value, _UNITS, 'bytes, such as 1048576 or "32MiB"'))
    if kind is Seconds:
        return Seconds(_scaled(value, _TIMES, 'a time, such as 90, "90s", "15m", "12h" or "7d"'))
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    raise ValueError(f"Expected {kind.__name__}, got {value!r}")


def _scaled(value: object, units: dict[str, float] | dict[str, int], wanted: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e15:
        return value
    found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([A-Za-z]+)", value) if isinstance(value, str) else None
    if found is None or found[2] not in units:
        raise ValueError(f"Expected {wanted}, got {value!r}")
    return float(found[1]) * units[found[2]]
