"""What makes no sense in settings, alone or together.

Rule: whoever starts with settings that passed here meets no surprise later. An error names the setting's path and says
what to do; it never repeats a secret.
"""

import math
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pricing.table import own_rates
from proxy.errors import StartupError
from proxy.rights import check_limits, check_name, check_names, check_rights, check_variable
from proxy.settings import LOOPBACK, Key, Model, Provider, Server, Settings

# What a request to a provider says by itself, or must not say.
_OWN_HEADERS = frozenset(
    "accept accept-encoding api-key authorization cache-control connection content-encoding content-length "
    "content-type cookie expect host openai-organization openai-project te trailer transfer-encoding upgrade "
    "user-agent x-api-key".split()
)
_OWN_PREFIXES = ("x-penstock-", "x-stainless-")
# Requests that differ in one of these have different answers.
_NEVER_IGNORED = frozenset("messages model prompt input tools functions n response_format".split())
_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - to know them
_PORTS = {"http": 80, "https": 443}
IN_LEDGER = "keys in the ledger"
LEDGER = "ledger.db"
_DAY = 86400
_CENTURY = 36_525  # days


def check(settings: Settings) -> None:
    """Raises StartupError where these settings make no sense. Later checks rely on earlier ones."""
    _check_providers(settings)
    _check_keys(settings)
    _check_models(settings)
    _check_routes(settings)
    _check_cache(settings)
    _check_loops(settings)
    _check_headers(settings.server)
    _check_bounds(settings)


def _check_providers(settings: Settings) -> None:
    if not settings.providers:
        raise StartupError("providers: at least one is needed: [providers.NAME] with a base_url, or --upstream URL.")
    for name, provider in settings.providers.items():
        _check_provider(f"providers.{name}", provider, shared=settings.cache.shared)
    if settings.routing.default_provider is None and len(settings.providers) > 1:
        raise StartupError(
            "routing.default_provider: there are several providers; name the one for models not listed in [models]."
        )
    named = {"routing.default_provider": settings.default_provider}
    named |= {f"models.{name}.provider": model.provider for name, model in settings.models.items() if model.provider}
    for path, provider_name in named.items():
        if provider_name not in settings.providers:
            raise StartupError(
                f"{path}: there is no [providers.{provider_name}]; there is: {', '.join(settings.providers)}."
            )


def _check_provider(path: str, provider: Provider, *, shared: bool) -> None:
    _check_address(f"{path}.base_url", provider.base_url)
    check_variable(f"{path}.api_key_env", provider.api_key_env)
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
    for name, most in {"max_retries": 10, "breaker_failures": 1000}.items():
        if not 0 <= getattr(provider, name) <= most:
            raise StartupError(f"{path}.{name}: must be from 0 to {most}.")
    check_limits(f"{path}.", provider)
    _check_positive(path, provider, ("connect_timeout", "first_event_timeout", "idle_timeout", "total_timeout"))


def _check_address(path: str, url: str) -> None:
    if not re.fullmatch(r"(?i:https?)://[^/\s?#@]+(/[^\s?#]*)?", url):
        raise StartupError(f"{path}: {url!r} is no address; write https://host/v1, without query or password.")
    try:
        address = urlsplit(url)
        (address.hostname or "").encode("idna"), address.port  # both raise where they make no sense
    except ValueError as error:
        raise StartupError(f"{path}: {url!r} is no address: {error}.") from None


def _check_keys(settings: Settings) -> None:
    for index, key in enumerate(settings.keys):
        path = f"keys[{index}]."
        check_name(path, key.name)
        _check_secret(path, key)
        check_rights(path, key)
        if any(key.name == other.name for other in settings.keys[:index]):
            raise StartupError(f"{path}name: there is another key named {key.name!r}.")
    if settings.keys and (why := unheeded(settings, "[[keys]]")):
        raise StartupError(why)


def unheeded(settings: Settings, keys: str) -> str:
    """Why these keys of ours cannot be in force: clients show their own to a provider. Empty: they can."""
    for name, provider in settings.providers.items():
        if provider.effective_auth == "client":
            return (
                f"providers.{name}.auth: with {keys} clients show keys of this proxy, not the provider's; "
                f'name the provider\'s own key in api_key_env, or say auth = "none".'
            )
    return ""


def _check_secret(path: str, key: Key) -> None:
    check_variable(f"{path}key_env", key.key_env)
    if (key.key_env is None) == (key.key_sha256 is None):
        raise StartupError(
            f"{path[:-1]}: give either key_env, the environment variable that holds the key, or key_sha256, its digest."
        )
    if key.key_sha256 is not None and not re.fullmatch(r"[0-9A-Fa-f]{64}", key.key_sha256):
        raise StartupError(
            f"{path}key_sha256: must be 64 hexadecimal digits and no more: printf %s KEY | sha256sum | cut -c1-64"
        )


def _check_models(settings: Settings) -> None:
    tiers = settings.routing.tiers
    check_names("routing.tiers", tiers)
    check_names("models", settings.models)
    for name, model in settings.models.items():
        path = f"models.{name}"
        _check_tier(f"{path}.tier", model.tier, tiers)
        _check_model(path, model)


def _check_model(path: str, model: Model) -> None:
    try:
        own_rates(model.price)
    except ValueError as error:
        raise StartupError(f"{path}.price: {error}.") from None
    check_limits(f"{path}.", model)
    counts = {f"{path}.window": model.window, f"{path}.max_output": model.max_output}
    _check_least({where: count for where, count in counts.items() if count is not None}, 1, "at least 1 token")
    if both := [each for each in model.can if each in model.cannot]:
        raise StartupError(f"{path}.cannot: {both[0]} stands in can too; leave it in one of them.")
    if not 0 < model.verbosity < math.inf:
        raise StartupError(f"{path}.verbosity: must be more than 0: 2 writes twice what another would.")


def _check_tier(path: str, tier: str | None, tiers: tuple[str, ...]) -> None:
    if tier is not None and tier not in tiers:
        there = f"there is: {', '.join(tiers)}" if tiers else 'say there what tiers there are, as ["small", "large"]'
        raise StartupError(f"{path}: {tier!r} is not in routing.tiers; {there}.")


def _check_routes(settings: Settings) -> None:
    check_names("routes", settings.routes)
    if settings.routing.default_model == "":
        raise StartupError("routing.default_model: it is empty; name a model or a route, or leave it out.")
    for name, route in settings.routes.items():
        path = f"routes.{name}"
        if bool(route.models) == (route.min_tier is not None):
            raise StartupError(
                f"{path}: give either models, the names of those that may answer, or min_tier, for all of [models] "
                f"from that tier up."
            )
        check_names(f"{path}.models", route.models)
        _check_tier(f"{path}.min_tier", route.min_tier, settings.routing.tiers)
        models = settings.route_models(name)
        if not models:
            raise StartupError(
                f"{path}.min_tier: no model in [models] has tier {route.min_tier!r} or one above; give one of them one."
            )
        if route.baseline is not None and route.baseline not in models:
            raise StartupError(
                f"{path}.baseline: {route.baseline!r} is not a model of this route; there is: {', '.join(models)}."
            )
        _check_payer(f"{path}.{'min_tier' if route.min_tier else 'models'}", models, settings)


def _check_payer(path: str, models: Iterable[str], settings: Settings) -> None:
    """A client's own key is for one provider: no other may see it, nor would it be worth anything there."""
    at = dict.fromkeys(map(settings.provider_of, models))
    for name in at if len(at) > 1 else ():
        if settings.providers[name].effective_auth == "client":
            raise StartupError(
                f'{path}: these lie at several providers ({", ".join(at)}), and at {name} (auth = "client") each '
                f"client pays for itself; name models of one provider, or give providers.{name} an api_key_env."
            )


def _check_cache(settings: Settings) -> None:
    for name in settings.cache.ignore:
        if not name or name in _NEVER_IGNORED:
            raise StartupError(f"cache.ignore: {name!r} cannot be ignored: other requests would get its answer.")


def check_host(settings: Settings, made: Mapping[str, bool]) -> None:
    """May these settings be served where they say? `made`: every key of the ledger by its id, and is it in force?

    Raises StartupError.
    """
    why = unheeded(settings, IN_LEDGER)
    good = [key for key, in_force in made.items() if in_force]
    if why and good:
        raise StartupError(f"{why} {_revocation(settings.data.directory, good)}")
    if settings.server.loopback or settings.keys or (made and not why):
        return
    for name, provider in settings.providers.items():
        if provider.effective_auth != "client":
            raise StartupError(
                f"server.host: {settings.server.host} is public, and providers.{name} pays for whoever reaches it. "
                f'Use host = "127.0.0.1", declare [[keys]], make one with `penstock keys create`, or say '
                f'auth = "client" for each provider.'
            )


def _revocation(directory: Path, ids: list[str]) -> str:
    """How to be rid of these keys."""
    each = f", and so each of the {len(ids)}" if len(ids) > 1 else ""
    return (
        f"Or revoke what is in {directory / LEDGER}: "
        f"penstock keys revoke {ids[0]} --data-dir {shlex.quote(str(directory))}{each}."
    )


def namesakes(settings: Settings, kept: Mapping[str, str]) -> Iterator[str]:
    """Of what is most likely a mistake: keys that are named alike. `kept`: names of the ledger's, in force, by id."""
    for index, key in enumerate(settings.keys):
        for key_id, name in kept.items():
            if name == key.name:
                yield f"keys[{index}].name: the key {key_id} of the ledger is named {name!r} too; rename or revoke one."


def _check_loops(settings: Settings) -> None:
    """A provider must not be this proxy: each of its calls would be another request to it, for ever."""
    host, port = settings.server.host.lower(), settings.server.port
    own = {host, *LOOPBACK, *_EVERYWHERE} if settings.server.loopback or host in _EVERYWHERE else {host}
    for name, provider in settings.providers.items():
        address = urlsplit(provider.base_url)
        if address.hostname in own and (address.port or _PORTS[address.scheme]) == port:
            raise StartupError(
                f"providers.{name}.base_url: {provider.base_url} is this proxy itself; give it the provider's "
                f"address, or give the proxy another server.port."
            )


def _check_headers(server: Server) -> None:
    for name in ("admin_key_env", "metrics_key_env"):
        check_variable(f"server.{name}", getattr(server, name))
    if server.metrics_key_env is not None and server.metrics_key_env == server.admin_key_env:
        raise StartupError(
            "server.metrics_key_env: it names the variable of server.admin_key_env, so who reads the metrics could do "
            "all; give the metrics a key of their own, or leave it out: the admin key opens them too."
        )
    for name in server.forward_headers:
        own = name.lower() in _OWN_HEADERS or name.lower().startswith(_OWN_PREFIXES)
        if own or not re.fullmatch(r"[A-Za-z0-9-]+", name):
            raise StartupError(f"server.forward_headers: {name!r} is no header that clients may set at a provider.")
    for origin in server.cors_origins:
        if not re.fullmatch(r"https?://[^/\s*]+", origin):
            raise StartupError(f"server.cors_origins: {origin!r} is no origin; write https://host or http://host:port.")


def _check_bounds(settings: Settings) -> None:
    server = settings.server
    if not 0 <= server.port <= 65535:
        raise StartupError("server.port: must be from 0 (any free one) to 65535.")
    sizes = {f"server.{name}": getattr(server, name) for name in ("max_body", "max_header_size", "max_buffered")}
    sizes |= {f"providers.{name}.max_event": provider.max_event for name, provider in settings.providers.items()}
    _check_least(sizes | {"cache.max_entry": settings.cache.max_entry}, 1024, "at least 1KiB")
    if server.max_buffered < server.max_body:
        raise StartupError("server.max_buffered: must be at least server.max_body, or no such body could come in.")
    counts = ("max_headers", "max_connections", "max_flights", "max_readers")
    _check_least({f"server.{name}": getattr(server, name) for name in counts}, 1, "at least 1")
    _check_positive("server", server, ("head_timeout", "body_timeout", "send_timeout"))
    if not _DAY <= settings.ledger.retention <= _CENTURY * _DAY:
        raise StartupError(f"ledger.retention: must be from 1d to {_CENTURY}d.")


def _check_least(values: dict[str, int], least: int, words: str) -> None:
    for path, value in values.items():
        if value < least:
            raise StartupError(f"{path}: must be {words}.")


def _check_positive(path: str, table: Server | Provider, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(table, name) <= 0:
            raise StartupError(f"{path}.{name}: must be more than 0.")
