"""One model out of what the two sources say of it, each field with its origin."""

from typing import Any

import msgspec

from bench.catalogue.families import NO_TEXT, SEARCHES, cache_of, tokenizer_of
from bench.catalogue.genai import Genai
from bench.catalogue.litellm import LITELLM_PARTS, SERVICES, Row, litellm_rates, off_peak
from bench.catalogue.sellers import Seller
from pricing.cost import Rates, Tier
from pricing.models import Later, Model, Prices


def replaced(model: Model, **changes: Any) -> Model:
    return msgspec.structs.replace(model, **changes)


def from_genai(model: Model, other: Genai) -> Model:
    """The model with what genai-prices says of its prices."""
    prices = {service: other.rates(service) for service in SERVICES}
    prices = {"standard": other.rates(), **prices}
    later = [
        Later(
            since=at.date(),
            standard=other.rates("", at),
            flex=other.rates("flex", at),
            priority=other.rates("priority", at),
            batch=other.rates("batch", at),
        )
        for at in other.starts()
    ]
    model = replaced(
        model,
        **prices,
        later=tuple(later),
        other_fees=other.other_fees,
        deprecated=bool(other.info.deprecated),
    )
    return said_by(model, "genai", *prices, "later", "other_fees", "deprecated")


def with_litellm(model: Model, row: Row) -> Model:
    """The model with what litellm adds: rates that are missing, and parts of rates where both agree on the rest."""
    changes: dict[str, Any] = {}
    for name, suffix in {"standard": "", **SERVICES}.items():
        ours, theirs = litellm_rates(row, suffix), getattr(model, name)
        if ours is not None and (merged := ours if theirs is None else completed(theirs, ours)) != theirs:
            changes[name] = merged
    if hours := off_peak(row):
        changes["hours"] = hours
    if not model.other_fees and (row.get("input_cost_per_request") or SEARCHES.search(model.id)):
        changes["other_fees"] = ("searches",) if SEARCHES.search(model.id) else ("requests",)
    return said_by(replaced(model, **changes), "litellm", *changes)


def said_by(model: Model, source: str, *fields: str) -> Model:
    """The model, its origins telling that these fields, where it has them, come from there."""
    there = {**{name: getattr(model, name) for name in model.__struct_fields__}, "capabilities": model.yes or model.no}
    known = model.origin.get(source, "").split()
    named = " ".join(dict.fromkeys([*known, *(name for name in fields if there[name])]))
    return replaced(model, origin={**model.origin, source: named}) if named else model


def completed(theirs: Rates, ours: Rates) -> Rates:
    if not same_price(theirs, ours) or theirs.tiers:
        return theirs
    lacking = [part for part in LITELLM_PARTS if getattr(theirs, part) is None and getattr(ours, part) is not None]
    return msgspec.structs.replace(theirs, **{part: getattr(ours, part) for part in lacking})


def same_price(one: Rates, other: Rates) -> bool:
    """Alike in all that both say, tiers included."""
    if (one.input, one.output or 0) != (other.input, other.output or 0):
        return False
    return [(t.above, t.input, t.output) for t in one.tiers] == [(t.above, t.input, t.output) for t in other.tiers]


def finished(model: Model, seller: Seller) -> Model | None:
    """With its family's terms; None of what has neither price nor window."""
    nameless = NO_TEXT.search(model.id.lower()) or not model.id[-1].isalnum()
    if nameless or (model.standard is None and model.window is None):
        return None
    if model.kind == "embedding" and model.standard is not None:
        model = replaced(model, standard=msgspec.structs.replace(model.standard, output=None))
    if seller.id == "google" and "audio" in model.yes and model.standard is not None:
        later = tuple(msgspec.structs.replace(each, **hearing(each)) for each in model.later)
        model = replaced(model, **hearing(model), later=later)
    model = replaced(model, **{name: without_guess(getattr(model, name), model.standard) for name in SERVICES})
    return replaced(model, tokenizer=tokenizer_of(model.id), cache=cache_of(model, seller))


def without_guess(service: Rates | None, standard: Rates | None) -> Rates | None:
    """A service listed without tiers beside standard prices that have some: past their limit nothing is known of it."""
    if service is None or standard is None or service.tiers or not standard.tiers:
        return service
    return msgspec.structs.replace(service, tiers=(Tier(above=standard.tiers[0].above),), moves="whole")


def hearing(prices: Prices) -> dict[str, Rates | None]:
    return {name: audio_as_text(getattr(prices, name)) for name in ("standard", *SERVICES)}


def audio_as_text(listed: Rates | None) -> Rates | None:
    """Google lists one input price where sound costs what text costs."""
    if listed is None or listed.audio_input is not None:
        return listed
    tiers = tuple(
        msgspec.structs.replace(tier, audio_input=tier.input, audio_cached_input=tier.cached_input)
        for tier in listed.tiers
    )
    return msgspec.structs.replace(
        listed, audio_input=listed.input, audio_cached_input=listed.cached_input, tiers=tiers
    )
