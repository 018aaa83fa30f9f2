"""What genai-prices says of a model at a moment, by its own code."""

import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any

from bench.catalogue.sources import package, plain
from pricing.cost import Rates, Tier
from pricing.names import undated

GENAI_PARTS = {
    "input": "input_mtok",
    "cached_input": "cache_read_mtok",
    "output": "output_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
    "audio_input": "input_audio_mtok",
    "audio_cached_input": "cache_audio_read_mtok",
    "audio_output": "output_audio_mtok",
    "reasoning": "output_reasoning_mtok",
}
GENAI_SERVICES = {
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "batch": {"processing": "batch"},
}


def read_genai(path: str | None) -> tuple[dict[str, Any], str]:
    version = package("genai-prices", path).version
    if path is not None:
        sys.path.insert(0, path)
    data = importlib.import_module("genai_prices.data")
    return {provider.id: provider for provider in data.providers}, version


def genai_rates(prices: Any) -> Rates | None:  # a ModelPrice
    said = {part: getattr(prices, key) for part, key in GENAI_PARTS.items()}
    said = {part: price for part, price in said.items() if price is not None}
    if "input" not in said:
        return None
    limits = sorted({tier.start for price in said.values() for tier in getattr(price, "tiers", ())})
    steps = [(limit, {part: genai_at(price, limit + 1) for part, price in said.items()}) for limit in limits]
    base = {part: genai_at(price, 0) for part, price in said.items()}
    tiers = tuple(Tier(above=limit, **parts) for limit, parts in steps)
    return Rates(**base, tiers=tiers, moves="whole" if tiers else None)


def genai_at(price: Any, prompt: int) -> Decimal:
    """A Decimal, or TieredPrices."""
    if isinstance(price, Decimal):
        return plain(price)
    reached = [tier.price for tier in price.tiers if prompt > tier.start]
    return plain(reached[-1] if reached else price.base)


def literals(clause: Any) -> Iterator[tuple[str, bool]]:
    """Names that a match clause spells out, and whether it means that name alone."""
    for part in getattr(clause, "or_", [clause]):
        if hasattr(part, "equals"):
            yield part.equals.lower(), True
        elif hasattr(part, "starts_with"):
            yield part.starts_with.lower(), False


@dataclass(frozen=True)
class Genai:
    """One model of genai-prices, at one moment."""

    info: Any
    now: datetime

    @property
    def daily(self) -> bool:
        """Its price depends on the hour, which genai-prices knows without the days of the week."""
        prices = self.info.prices
        return isinstance(prices, list) and any(hasattr(each.constraint, "start_time") for each in prices)

    def rates(self, service: str = "", at: datetime | None = None) -> Rates | None:
        when, at = GENAI_SERVICES.get(service, {}), at or self.now
        variants = self.info.price_variants or ()
        if service and not any(
            each.when == when and (each.constraint is None or each.constraint.active(at)) for each in variants
        ):
            return None
        return genai_rates(self.info.get_prices(at, when or None))

    def starts(self) -> list[datetime]:
        """Days to come on which a price changes."""
        prices = self.info.prices if isinstance(self.info.prices, list) else []
        dated = [getattr(each.constraint, "start_date", None) for each in (*prices, *(self.info.price_variants or ()))]
        days = sorted({day for day in dated if day is not None and day > self.now.date()})
        return [datetime.combine(day, time(), UTC) for day in days]

    @property
    def other_fees(self) -> tuple[str, ...]:
        prices = self.info.get_prices(self.now)
        fees = {"requests": "requests_kcount", "citations": "output_citation_mtok"}
        return tuple(fee for fee, key in fees.items() if getattr(prices, key) is not None)

    @property
    def text(self) -> bool:
        """Sold by the token, and text comes out (or a vector)."""
        prices = self.info.get_prices(self.now)
        if prices.input_mtok is None or prices.output_image_mtok is not None or prices.output_video_mtok is not None:
            return False
        return prices.output_mtok is not None or "embed" in self.info.id or "voyage" in self.info.id


def is_named(other: Genai, name: str) -> bool:
    named = {text for text, alone in literals(other.info.match) if alone}
    return name.lower() in named or undated(name.lower()) == undated(other.info.id.lower())
