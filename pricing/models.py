"""What the catalogue says of a model: its rows, typed, and what a call at a moment costs by them.

Rule: what the catalogue does not say is None or "unknown", never 0 and never False. README.md tells what each field is.
"""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Literal

import msgspec

from pricing.cost import Charge, Rates, Usage, charge

Kind = Literal["chat", "responses", "completion", "embedding"]
# `n` and `logprobs`: more than one answer, and how likely its tokens were. No source of the catalogue knows them.
Capability = Literal["tools", "vision", "audio", "json_schema", "reasoning", "n", "logprobs"]
Service = Literal["standard", "flex", "priority", "batch"]

# What answers and requests call the service that they had. Any other word is a price that is not known.
SERVICES: Mapping[str | None, Service] = {
    None: "standard",
    "auto": "standard",
    "default": "standard",
    "standard": "standard",
    "on_demand": "standard",
    "flex": "flex",
    "priority": "priority",
    "batch": "batch",
}


class _Struct(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    pass


class Period(_Struct, frozen=True):
    """Hours of some days of the week (Monday is 1), in UTC: from `start` until before `end`, as 06:00 and 24:00."""

    days: tuple[int, ...]
    start: str
    end: str

    def __post_init__(self) -> None:
        clock = re.compile(r"([01]\d|2[0-3]):[0-5]\d|24:00")
        if not (clock.fullmatch(self.start) and clock.fullmatch(self.end) and self.start < self.end):
            raise ValueError(f"hours run from 00:00 to 24:00: {self.start} to {self.end}")
        if not self.days or not set(self.days) <= set(range(1, 8)):
            raise ValueError(f"days run from 1 (Monday) to 7: {self.days}")

    def holds(self, at: datetime) -> bool:
        return at.isoweekday() in self.days and self.start <= f"{at:%H:%M}" < self.end


class Hours(_Struct, frozen=True):
    """Prices that take the place of the standard ones within these periods."""

    periods: tuple[Period, ...]
    standard: Rates


class Prices(_Struct, frozen=True):
    """By service. None: no such service, or its price is not known."""

    standard: Rates | None = None
    flex: Rates | None = None
    priority: Rates | None = None
    batch: Rates | None = None
    hours: tuple[Hours, ...] = ()


class Later(Prices, frozen=True, kw_only=True):
    """All prices from a day on that had not come when the catalogue was built."""

    since: date


class PromptCache(_Struct, frozen=True):
    """A provider's own cache of prefixes; what it costs is in the prices. None: not published.

    `automatic`: needs no mark in the request. `least`: tokens below which nothing is kept. `lifetime`: seconds from
    the last hit, the least that is promised; `longest` where a request may ask for more. `write`: a written token
    costs so many times an input token, where the prices do not say.
    """

    automatic: bool | None = None
    least: int | None = None
    lifetime: int | None = None
    longest: int | None = None
    write: Decimal | None = None


class Source(_Struct, frozen=True):
    """Where a number comes from, and the day on which it was taken from there."""

    name: str
    version: str = ""
    taken: date | None = None
    url: str = ""


class Provider(_Struct, frozen=True):
    """Who sells. `names`: what it is called, and what stands before the / of its models' names. `maker`: a bare name
    means its own models. `pages`: where it publishes its prices.
    """

    names: tuple[str, ...]
    maker: bool
    pages: tuple[str, ...] = ()


class Model(Prices, frozen=True, kw_only=True):
    """One model at one provider. `window`: most tokens of a prompt. `yes` and `no`: capabilities that are known.
    `other_fees`: what it is charged besides tokens. `origin`: by name in Catalogue.sources, the fields that it gave.
    """

    provider: str
    id: str
    aliases: tuple[str, ...] = ()
    kind: Kind | None = None
    window: int | None = None
    max_output: int | None = None
    yes: tuple[Capability, ...] = ()
    no: tuple[Capability, ...] = ()
    tokenizer: str = "unknown"
    cache: str | None = None
    cache_least: int | None = None
    other_fees: tuple[str, ...] = ()
    deprecated: bool = False
    retires: date | None = None
    later: tuple[Later, ...] = ()
    origin: Mapping[str, str] = {}

    def can(self, capability: Capability) -> bool | None:
        """None: not known."""
        return True if capability in self.yes else False if capability in self.no else None

    def rates(self, at: datetime, service: str | None = None) -> Rates | None:
        """What a token costs at this moment (a datetime with its zone). None: not known."""
        if at.tzinfo is None:
            raise ValueError("a moment needs its zone")
        at = at.astimezone(UTC)
        prices: Prices = next((each for each in reversed(self.later) if at.date() >= each.since), self)
        served = SERVICES.get(service)
        if served == "standard":
            special = (each.standard for each in prices.hours if any(period.holds(at) for period in each.periods))
            return next(special, prices.standard)
        found: Rates | None = getattr(prices, served) if served else None
        return found

    def charge(self, usage: Usage, at: datetime, service: str | None = None) -> Charge:
        """What a call cost that began at this moment. `service`: as the answer's `service_tier` says."""
        rates = self.rates(at, service)
        if rates is None:
            return Charge(None, {}, (f"service {service}" if SERVICES.get(service) != "standard" else "prices",))
        charged = charge(usage, rates.at(usage.input))
        if self.other_fees:
            return Charge(None, charged.parts, (*charged.unknown, *self.other_fees))
        return charged


class Catalogue(_Struct, frozen=True, kw_only=True):
    sources: Mapping[str, Source]
    providers: Mapping[str, Provider]
    caches: Mapping[str, PromptCache]
    models: tuple[Model, ...]
