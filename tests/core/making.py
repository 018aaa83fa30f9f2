"""Models, prompts and choices as the tests of routing state them: prices in USD per million tokens, as texts."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from pricing.cost import Rates, Tier
from pricing.models import Capability, Model, PromptCache
from pricing.tokens import Prompt
from proxy.core.needs import Needs
from proxy.core.routing import Choice, Option, Target

AT: Final = datetime(2026, 11, 23, 12, tzinfo=UTC)  # a Monday
AUTOMATIC: Final = PromptCache(automatic=True, least=1024, lifetime=300)


def rates(input: str | None, output: str | None, cached: str | None = None, **others: Any) -> Rates:  # noqa: A002
    """`others`: further prices as texts; `tiers`."""
    tiers: tuple[Tier, ...] = others.pop("tiers", ())
    parts = {"input": input, "output": output, "cached_input": cached, **others}
    known = {part: Decimal(price) for part, price in parts.items() if price is not None}
    return Rates(**known, tiers=tiers, moves="whole" if tiers else None)


def option(name: str, standard: Rates | None, cache: PromptCache | None = None, **members: Any) -> Option:
    """A model of that name at a provider of that name; `members` of a Model."""
    model = Model(provider=name, id=name, standard=standard, **members)
    return Option(name, Target(name, f"https://{name}.example/v1", name), model, cache)


def unknown(name: str) -> Option:
    """A model of which nothing is known."""
    return Option(name, Target(name, f"https://{name}.example/v1", name))


def route(*options: Option, baseline: int = 0) -> Choice:
    return Choice(options, options[baseline], named=False, route="r")


def prompt(tokens: int, *, seconds: float = 0.0) -> Prompt:
    """Prose of so many tokens, whatever the model, and sound, of which a second is 10 tokens."""
    return Prompt("o200k_base", (tokens, 0, 0, 0), seconds=seconds)


def needs(
    *capabilities: Capability,
    max_output: int | None = None,
    choices: int = 1,
    marks: bool = False,
    service: str | None = None,
) -> Needs:
    return Needs(capabilities, max_output, choices, marks, service, longest=max_output)
