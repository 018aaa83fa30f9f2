"""What a call cost: its tokens, each counted once, times the prices of its model.

Rule: every figure is exact. Nothing is rounded here; whoever shows an amount rounds it. What has no price makes the
sum unknown, and says which part it was; 0 is a price like any other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Literal

import msgspec

DIGITS = 100  # more than tokens times prices can need; if ever they do, Inexact says so instead of rounding
PER_MILLION = -6


class UnknownPrice(ValueError):
    """Tokens were used that have no known price."""


class Price(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """USD per million tokens. None: not known. Where `reasoning` has no price of its own, it costs what output costs.

    Raises ValueError: a price that is negative or no number.
    """

    input: Decimal | None = None
    cached_input: Decimal | None = None
    output: Decimal | None = None
    cache_write: Decimal | None = None  # a prefix that the provider keeps for its shortest lifetime
    cache_write_1h: Decimal | None = None
    audio_input: Decimal | None = None
    audio_cached_input: Decimal | None = None
    audio_output: Decimal | None = None
    reasoning: Decimal | None = None

    def __post_init__(self) -> None:
        for part in PARTS:
            price: Decimal | None = getattr(self, part)
            if price is not None and not (price.is_finite() and price >= 0):
                raise ValueError(f"a price is a number of USD, 0 or more: {part} = {price}")

    def of(self, part: str) -> Decimal | None:
        """The price of one of PARTS."""
        price: Decimal | None = getattr(self, part)
        return self.output if price is None and part == "reasoning" else price


PARTS = Price.__struct_fields__


class Tier(Price, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """The prices of a request whose whole prompt has more than `above` tokens."""

    above: int


class Rates(Price, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Prices that may depend on the length of the prompt. `moves`: past a tier's limit all tokens cost what it says,
    not only those in excess; it is the one rule that providers have, and named so that another cannot slip in.
    """

    tiers: tuple[Tier, ...] = ()  # ascending; each holds all its prices
    moves: Literal["whole"] | None = None

    def __post_init__(self) -> None:
        Price.__post_init__(self)
        limits = [tier.above for tier in self.tiers]
        if limits != sorted(set(limits)) or bool(limits) != (self.moves == "whole"):
            raise ValueError("tiers ascend, and say that the whole request moves")

    def at(self, prompt: int) -> Price:
        """The prices of a request with so many prompt tokens, cached ones included."""
        reached = [tier for tier in self.tiers if prompt > tier.above]
        return reached[-1] if reached else self


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call. `input` is the whole prompt: `cached` of it the provider had seen before, `written` and
    `written_1h` it was told to keep, `audio_input` are sound (`audio_cached`: both). `output` is the whole answer,
    `reasoning` and `audio_output` included.

    Raises ValueError: a negative count, or parts that exceed their whole.
    """

    input: int
    cached: int
    output: int
    written: int = 0
    written_1h: int = 0
    audio_input: int = 0
    audio_cached: int = 0
    reasoning: int = 0
    audio_output: int = 0

    def __post_init__(self) -> None:
        if min(*self.parts.values(), self.written, self.written_1h, self.audio_cached) < 0:
            raise ValueError(f"no call has such a usage: {self}")

    @property
    def parts(self) -> dict[str, int]:
        """Tokens by their price (PARTS): each in one part only."""
        audio = self.audio_input - self.audio_cached
        return {
            "input": self.input - self.cached - self.written - self.written_1h - audio,
            "cached_input": self.cached - self.audio_cached,
            "output": self.output - self.reasoning - self.audio_output,
            "cache_write": self.written,
            "cache_write_1h": self.written_1h,
            "audio_input": audio,
            "audio_cached_input": self.audio_cached,
            "audio_output": self.audio_output,
            "reasoning": self.reasoning,
        }


@dataclass(frozen=True, slots=True)
class Charge:
    """What a call cost. `usd` is None where something of it has no price; `unknown` says what, `parts` what is known.

    `unknown` names PARTS, or what is not known of the whole: a service tier, a fee that goes by no token.
    """

    usd: Decimal | None
    parts: Mapping[str, Decimal]
    unknown: tuple[str, ...] = ()


def charge(usage: Usage, price: Price) -> Charge:
    """USD, exact, by part. A part without tokens costs nothing and needs no price."""
    exact = _exact()
    spent = {part: (tokens, price.of(part)) for part, tokens in usage.parts.items() if tokens}
    unknown = tuple(part for part, (_, each) in spent.items() if each is None)
    parts = {
        part: exact.scaleb(exact.multiply(tokens, each), PER_MILLION)
        for part, (tokens, each) in spent.items()
        if each is not None
    }
    return Charge(None if unknown else _sum(parts), parts, unknown)


def cost(usage: Usage, price: Price) -> Decimal:
    """USD, exact.

    Raises UnknownPrice: tokens without a price; `charge` says it without raising.
    """
    charged = charge(usage, price)
    if charged.usd is None:
        raise UnknownPrice(f"no price is known for {', '.join(charged.unknown)}")
    return charged.usd


def _exact() -> Context:
    return Context(prec=DIGITS, traps=[Inexact, InvalidOperation])


def _sum(parts: Mapping[str, Decimal]) -> Decimal:
    exact, total = _exact(), Decimal(0)
    for part in parts.values():
        total = exact.add(total, part)
    return total


def usage_of(body_usage: Mapping[str, object]) -> Usage | None:
    """The `usage` of a chat completion, of a stream's last chunk, of a Response or of embeddings; None of nonsense.

    Read as the field says it: https://platform.openai.com/docs/api-reference/chat/object,
    https://api-docs.deepseek.com/guides/kv_cache, https://docs.claude.com/en/docs/build-with-claude/prompt-caching.
    """
    try:
        return _usage(body_usage)
    except ValueError:
        return None


def _usage(body: Mapping[str, object]) -> Usage:
    chat = body.get("prompt_tokens") is not None
    of_input, of_output = ("prompt_tokens", "completion_tokens") if chat else ("input_tokens", "output_tokens")
    before, after = _within(body, f"{of_input}_details"), _within(body, f"{of_output}_details")
    cached = max(
        _count(before, "cached_tokens"),
        _count(body, "cached_tokens"),  # Moonshot
        _count(body, "prompt_cache_hit_tokens"),  # DeepSeek
        _count(body, "cache_read_input_tokens"),  # Anthropic
    )
    written = max(_count(before, "cache_write_tokens"), _count(body, "cache_creation_input_tokens"))
    kept_long = _count(_within(body, "cache_creation"), "ephemeral_1h_input_tokens")
    prompt = _needed(body, of_input) + _beside(body, cached + written, chat=chat, known=bool(before))
    answer, reasoning = _answer(body, of_output, prompt, after)
    return Usage(
        input=prompt,
        cached=cached,
        output=answer,
        written=written - kept_long,
        written_1h=kept_long,
        audio_input=_count(before, "audio_tokens"),
        audio_cached=_count(_within(before, "cached_tokens_details"), "audio_tokens"),
        reasoning=reasoning,
        audio_output=_count(after, "audio_tokens"),
    )


def _beside(body: Mapping[str, object], held: int, *, chat: bool, known: bool) -> int:
    """How many of the tokens that a cache holds or takes are not in the prompt's count.

    OpenAI's count has them, Anthropic's has not. Between the two are those who give Anthropic's figures beside
    `prompt_tokens`: they mean it as Anthropic does where it cannot be meant otherwise, or where the total says so.
    """
    names = ("cache_read_input_tokens", "cache_creation_input_tokens")
    if known or not any(body.get(name) is not None for name in names):
        return 0
    if not chat:
        return held
    prompt = _needed(body, "prompt_tokens")
    apart = held > prompt or _count(body, "total_tokens") == prompt + held + _count(body, "completion_tokens")
    return held if apart else 0


def _answer(body: Mapping[str, object], name: str, prompt: int, details: Mapping[str, object]) -> tuple[int, int]:
    """(output, reasoning). Most count reasoning in their output. xAI does not, nor does Gemini's OpenAI endpoint, which
    does not even name it; both have it in the total. Embeddings have a total that is their prompt, and no output.
    """
    total = _count(body, "total_tokens")
    output = 0 if body.get(name) is None and total and total == prompt else _needed(body, name)
    reasoning = max(_count(details, "reasoning_tokens"), _count(details, "thinking_tokens"))
    apart = max(0, total - prompt - output) if total else 0
    if not apart and reasoning > output:
        apart = reasoning
    return output + apart, reasoning or apart


def _within(body: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = body.get(name)
    if found is None or isinstance(found, Mapping):
        return found or {}
    raise ValueError(name)


def _count(body: Mapping[str, object], name: str) -> int:
    """A count that may be missing."""
    return 0 if body.get(name) is None else _needed(body, name)


def _needed(body: Mapping[str, object], name: str) -> int:
    found = body.get(name)
    # `type`, since JSON's true is an int to isinstance.
    if type(found) is not int or found < 0:
        raise ValueError(name)
    return found
