"""What a call cost: its tokens times the prices of its model.

Rule: every figure is exact. Nothing is rounded here; whoever shows an amount rounds it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation

DIGITS = 100  # more than tokens times prices can need; if ever they do, Inexact says so instead of rounding
PER_MILLION = -6


@dataclass(frozen=True, slots=True)
class Price:
    """USD per million tokens. `cached_input` is None where cached tokens cost what others cost.

    Raises ValueError: a price that is negative or no number.
    """

    input: Decimal
    cached_input: Decimal | None
    output: Decimal

    def __post_init__(self) -> None:
        given = (self.input, self.output, self.cached_input or Decimal(0))
        if not all(price.is_finite() and price >= 0 for price in given):
            raise ValueError(f"a price is a number of USD, 0 or more: {self}")


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. `input` is the whole prompt, `cached` the part of it that the provider had seen before.

    Raises ValueError: a negative count, or more cached than there are.
    """

    input: int
    cached: int
    output: int

    def __post_init__(self) -> None:
        if not 0 <= self.cached <= self.input or self.output < 0:
            raise ValueError(f"no call has such a usage: {self}")


def usage_of(body_usage: Mapping[str, object]) -> Usage | None:
    """The `usage` member of a chat completion, or of a stream's last chunk; None where it makes no sense.

    https://platform.openai.com/docs/api-reference/chat/object: `prompt_tokens` includes
    `prompt_tokens_details.cached_tokens`, and `completion_tokens` includes the reasoning.
    """
    details = body_usage.get("prompt_tokens_details") or {}
    if not isinstance(details, Mapping):
        return None
    prompt, completion = body_usage.get("prompt_tokens"), body_usage.get("completion_tokens")
    cached = details.get("cached_tokens")
    cached = 0 if cached is None else cached
    # `type`, since JSON's true is an int to isinstance.
    if type(prompt) is not int or type(cached) is not int or type(completion) is not int:
        return None
    try:
        return Usage(prompt, cached, completion)
    except ValueError:
        return None


def cost(usage: Usage, price: Price) -> Decimal:
    """USD, exact. A cached token is counted once, at its own price."""
    exact = Context(prec=DIGITS, traps=[Inexact, InvalidOperation])
    cached_input = price.input if price.cached_input is None else price.cached_input
    tokens = exact.multiply(usage.input - usage.cached, price.input)
    tokens = exact.fma(usage.cached, cached_input, tokens)
    tokens = exact.fma(usage.output, price.output, tokens)
    return exact.scaleb(tokens, PER_MILLION)
