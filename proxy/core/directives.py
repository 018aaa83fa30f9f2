"""How a request wants to be answered: what its `Cache-Control` and `x-penstock-*` headers say.

Rule: one of ours that makes no sense is refused by its name; what is HTTP's counts as far as it can be read.
"""

from decimal import Decimal
from typing import Literal

import msgspec

from proxy.core.access import Headers
from proxy.errors import InvalidRequest

DIRECTIVES = (
    b"cache-control",
    b"x-penstock-ttl",
    b"x-penstock-sample",
    b"x-penstock-replay",
    b"x-penstock-route",
    b"x-penstock-max-cost-usd",
)

Replay = Literal["instant", "recorded"]
Wish = Literal["cheapest", "exact"]


class Directives(msgspec.Struct, frozen=True):
    """How a request wants to be answered: its `Cache-Control` and `x-penstock-*` headers. Times in seconds.

    `route`: forbid or allow another model than the one named, if anything was said. `max_cost` in USD.
    """

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age: float | None = None
    ttl: float | None = None
    sample: bytes = b""
    replay: Replay | None = None
    route: Wish | None = None
    max_cost: Decimal | None = None


_NO_DIRECTIVES = Directives()


def read_directives(headers: Headers) -> Directives:
    """The directives of a request. Unknown Cache-Control directives are ignored (RFC 9111, 5.2.3)."""
    if headers.keys().isdisjoint(DIRECTIVES):
        return _NO_DIRECTIVES
    said = _cache_control(headers.get(b"cache-control", b""))
    replay = _one_of(headers, "x-penstock-replay", ("instant", "recorded"))
    route = _one_of(headers, "x-penstock-route", ("cheapest", "exact"))
    return Directives(
        no_cache="no-cache" in said,
        no_store="no-store" in said,
        only_if_cached="only-if-cached" in said,
        # What cannot be read as an age is taken for stale (RFC 9111, 4.2.1).
        max_age=(_seconds(said["max-age"]) or 0.0) if "max-age" in said else None,
        ttl=_ttl(headers),
        sample=_sample(headers),
        replay="recorded" if replay == "recorded" else "instant" if replay else None,
        route="exact" if route == "exact" else "cheapest" if route else None,
        max_cost=_max_cost(headers),
    )


def _cache_control(value: bytes) -> dict[str, str]:
    said = {}
    for part in value.decode("latin-1").lower().split(","):
        name, _, argument = part.partition("=")
        said[name.strip()] = argument.strip().strip('"')
    return said


def _seconds(text: str) -> float | None:
    """Digits, with a fraction or without; not `nan`, `inf`, `1e9`, `1_000`, a sign or other scripts' digits."""
    whole, _, fraction = text.partition(".")
    digits = whole + fraction
    if not digits.isascii() or not digits.isdigit() or not whole:
        return None
    return float(text)


def _ttl(headers: Headers) -> float | None:
    value = headers.get(b"x-penstock-ttl")
    if value is None:
        return None
    ttl = _seconds(value.decode("latin-1").strip())
    if ttl is None:
        raise InvalidRequest("`x-penstock-ttl` must be a number of seconds, 0 or more.", param="x-penstock-ttl")
    return ttl


def _max_cost(headers: Headers) -> Decimal | None:
    value = headers.get(b"x-penstock-max-cost-usd")
    if value is None:
        return None
    text = value.decode("latin-1").strip()
    if _seconds(text) is None or len(text) > 30:  # the same digits, with a fraction or without
        raise InvalidRequest(
            "`x-penstock-max-cost-usd` must be a number of US dollars, 0 or more, such as 0.05.",
            param="x-penstock-max-cost-usd",
        )
    return Decimal(text)


def _sample(headers: Headers) -> bytes:
    value = headers.get(b"x-penstock-sample", b"").strip()
    if value and (not value.isdigit() or len(value) > 18):
        raise InvalidRequest("`x-penstock-sample` must be a whole number, 0 or more.", param="x-penstock-sample")
    return value.lstrip(b"0") or value[:1]


def _one_of(headers: Headers, name: str, allowed: tuple[str, ...]) -> str | None:
    value = headers.get(name.encode())
    if value is None:
        return None
    word = value.decode("latin-1").strip().lower()
    if word not in allowed:
        raise InvalidRequest(f"`{name}` must be one of: {', '.join(allowed)}.", param=name)
    return word
