"""What was measured, and what follows from it. Pure: no I/O, no clock."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import msgspec

from pricing.cost import Price, Usage, cost
from proxy.simulator import MODELS

Outcome = Literal["miss", "collapsed", "hit"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as the client got it. `first`: seconds to the first token; None where it was not streamed."""

    work: str
    model: str
    outcome: Outcome
    usage: Usage
    first: float | None
    text: str = ""


class Served(msgspec.Struct, frozen=True):
    """What the provider counted for one model."""

    calls: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int

    @property
    def usage(self) -> Usage:
        return Usage(self.prompt_tokens, self.cached_tokens, self.completion_tokens)


class Tally(msgspec.Struct, frozen=True):
    """`GET /simulator/calls`: the provider's own count, which knows nothing of the proxy."""

    calls: int
    open: int
    answered: int
    by_model: dict[str, Served]


@dataclass(frozen=True, slots=True)
class Money:
    """USD, exact."""

    without: Decimal
    with_penstock: Decimal

    @property
    def saved(self) -> Decimal:
        return self.without - self.with_penstock

    @property
    def percent(self) -> float:
        return float(self.saved / self.without * 100) if self.without else 0.0


def outcome_of(cache_status: str) -> Outcome | None:
    """What `Cache-Status` says; None for what the demo never asks for (a bypass, a stale answer)."""
    cache, *said = (part.strip() for part in cache_status.split(";"))
    if cache != "penstock":
        return None
    if "hit" in said:
        return "hit"
    if "fwd=miss" in said:
        return "collapsed" if "collapsed" in said else "miss"
    return None


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that so great a share (0 … 1) of all does not exceed; None of none."""
    if not values:
        return None
    rank = max(1, math.ceil(share * len(values)))
    return sorted(values)[rank - 1]


def first_tokens(answers: Iterable[Answer], outcome: Outcome) -> list[float]:
    return [answer.first for answer in answers if answer.outcome == outcome and answer.first is not None]


def total(usages: Iterable[Usage]) -> Usage:
    listed = list(usages)
    return Usage(*(sum(getattr(usage, name) for usage in listed) for name in ("input", "cached", "output")))


def paid(answers: Iterable[Answer]) -> dict[str, Served]:
    """What the provider should have counted, going by the answers: one call per miss."""
    by_model: dict[str, list[Usage]] = {}
    for answer in answers:
        if answer.outcome == "miss":
            by_model.setdefault(answer.model, []).append(answer.usage)
    return {model: _served(usages) for model, usages in by_model.items()}


def _served(usages: list[Usage]) -> Served:
    usage = total(usages)
    return Served(len(usages), usage.input, usage.cached, usage.output)


def disagreement(answers: Sequence[Answer], tally: Tally) -> str | None:
    """In what the provider's count and the answers differ, in one line; None where they agree."""
    expected = paid(answers)
    misses = sum(served.calls for served in expected.values())
    if (tally.calls, tally.answered) != (misses, misses):
        return f"the provider counted {tally.calls} calls ({tally.answered} answered), the answers say {misses}"
    for model in sorted(expected.keys() | tally.by_model):
        ours, theirs = expected.get(model), tally.by_model.get(model)
        if ours != theirs:
            return f"{model}: the provider counted {theirs}, the answers say {ours}"
    return None


def price_of(model: str) -> Price:
    """The simulator's own price."""
    listed = MODELS[model]
    return Price(Decimal(listed.input), Decimal(listed.cached_input), Decimal(listed.output))


def money(answers: Iterable[Answer], by_model: Mapping[str, Served]) -> Money:
    """Every asked call at its own usage and price, against what the provider counted."""
    asked = sum((cost(answer.usage, price_of(answer.model)) for answer in answers), Decimal(0))
    billed = sum((cost(served.usage, price_of(model)) for model, served in by_model.items()), Decimal(0))
    return Money(asked, billed)
