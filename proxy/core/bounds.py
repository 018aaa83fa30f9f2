"""What a request can cost at most at a model: what is set aside for it, and what a cap is held to.

Rule: nothing here is an estimate. What nothing bounds is None; of figures that may be meant the dearest is.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

import msgspec

from pricing.cost import Price, Usage, charge
from pricing.models import Model, PromptCache
from pricing.tokens import Prompt
from proxy.core.needs import Needs
from proxy.core.routing import Option

A_WAIT: Final = timedelta(minutes=10)  # between this and an attempt, and its repeats


def longest_answer(model: Model | None, needs: Needs) -> int | None:
    """Tokens that all choices together cannot exceed; None where that is not known."""
    longest = [each for each in (needs.longest, None if model is None else model.max_output) if each is not None]
    # The whole window: how much of it the prompt leaves is not known, as `most` is more than it has.
    each = min(longest, default=None if model is None else model.window)
    return None if each is None else each * needs.choices


def cost_within(
    option: Option, needs: Needs, most: Prompt, at: datetime, *, output: int, factor: float = 1.0, held: int = 0
) -> Decimal | None:
    """USD that this prompt at most and an answer of `output` tokens cannot exceed; None: a price is missing.

    `factor`: what was learned of the tokenizer, which counts where it is above 1; `held`: tokens besides that the
    provider holds.
    """
    model = option.model
    if model is None or model.other_fees:
        return None
    # A provider may serve at its standard prices what asked for others; and an attempt may have to wait its turn.
    asked = [model.rates(when, service) for service in {needs.service, None} for when in (at, at + A_WAIT)]
    priced = [rates for rates in asked if rates is not None]
    if len(priced) < len(asked):
        return None
    count = most.under(model.tokenizer, option.target.upstream).times(max(1.0, factor))
    total = count.total + held
    usage = Usage(input=total, cached=0, output=output, audio_input=count.audio)
    # The prompt may turn out shorter than its bound, and have the prices of a tier below.
    tiers: list[Price] = [*priced, *(tier for rates in priced for tier in rates.tiers if total > tier.above)]
    spoken = "audio" in needs.capabilities
    costs = [charge(usage, _dearest(price, option.cache, spoken=spoken)).usd for price in _apart(tiers)]
    known = [each for each in costs if each is not None]
    return max(known) if len(known) == len(costs) else None


def _apart(prices: Sequence[Price]) -> Iterable[Price]:
    """Each once: the same prices are the same object at every moment."""
    return {id(price): price for price in prices}.values()


def _dearest(price: Price, terms: PromptCache | None, *, spoken: bool) -> Price:
    """Every token at the most that one of its kind may cost: written, reasoned, or spoken."""
    bare = bare_price(price)
    read = [bare.input, write_price(price, terms), price.cache_write_1h]
    made = [bare.output, price.of("reasoning"), price.audio_output if spoken else None]
    return msgspec.structs.replace(
        bare,
        input=None if bare.input is None else max(each for each in read if each is not None),
        output=None if bare.output is None else max(each for each in made if each is not None),
    )


def write_price(price: Price, terms: PromptCache | None) -> Decimal | None:
    """USD per million tokens that are kept, if that has a price of its own."""
    if price.cache_write is None and terms is not None and terms.write is not None and price.input is not None:
        return price.input * terms.write
    return price.cache_write


def bare_price(price: Price) -> Price:
    """The prices without their tiers."""
    return Price(**{part: getattr(price, part) for part in Price.__struct_fields__})
