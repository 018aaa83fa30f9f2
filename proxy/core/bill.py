"""What an answer cost, and what it saved.

Rule: what is not known is None, and saved is only what would have been paid otherwise: on the model that gave the
answer, or on the baseline that would have given it.
"""

from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Literal

import msgspec

from pricing.cost import Usage, charge, usage_of
from proxy.core.routing import Choice, Option
from proxy.errors import (
    PenstockError,
    UpstreamAuthError,
    UpstreamBadContentType,
    UpstreamConnectError,
    UpstreamFailed,
    UpstreamStall,
    UpstreamTimeout,
    UpstreamTLSError,
)

NOTHING = Decimal(0)
MOST = 100_000_000  # tokens of a call, ten times the largest window: who says more says nonsense, not money


Charge = Literal["nothing", "said", "counted", "reserve"]
UNCHARGED = (UpstreamConnectError, UpstreamTLSError, UpstreamAuthError)  # never sent, or refused at the door


def charge_of(
    status: int | None, error: PenstockError | None, *, said: bool, streamed: bool, begun: bool, whole: bool
) -> Charge:
    """What an attempt that was sent is charged: the usage that was said; what was counted; or all that was set aside.

    `status`: of the answer, None if none came; `error`: what it failed with; neither: it was abandoned. `said`: so was
    its usage. `streamed`: a stream was asked for, or came; `begun`: an event of it has come; `whole`: nothing lacks.
    """
    if isinstance(error, UNCHARGED):
        return "nothing"
    if status is not None and not 200 <= status < 300:
        return "nothing"
    if isinstance(error, UpstreamBadContentType):
        return "reserve" if error.answered else "nothing"
    if said and (whole or not streamed):  # in a stream that was cut, more may have come than it had said until then
        return "said"
    if isinstance(error, UpstreamFailed) and not begun:
        return "nothing"
    late = isinstance(error, (UpstreamTimeout, UpstreamStall)) and not begun
    return "counted" if whole or (streamed and not late) else "reserve"


class Bill(msgspec.Struct, frozen=True):
    """In USD, None where a price is not known. `estimated`: the provider said no usage.

    `routing`: what the same usage would have cost on the baseline less what it did, negative where that was cheaper:
    another model would have used other tokens, so it is an estimate. `prompt_cache`: what the provider's own cache
    of prefixes saved.
    """

    option: Option
    usage: Usage | None = None
    usd: Decimal | None = None
    estimated: bool = False
    routing: Decimal | None = None
    prompt_cache: Decimal | None = None


def bill(
    option: Option, choice: Choice, usage: Usage | None, at: datetime, *, service: str | None, estimated: bool = False
) -> Bill:
    """Of an answer that this option gave to a call that began at this moment."""
    if usage is None:
        return Bill(option)
    usd = worth(option, usage, at, service)
    routing: Decimal | None = NOTHING
    if option != choice.baseline:
        instead = worth(choice.baseline, usage, at, service)
        routing = instead - usd if usd is not None and instead is not None else None
    return Bill(option, usage, usd, estimated, routing, _spared(option, usage, usd, at, service))


def larger(said: Usage | None, counted: Usage) -> Usage:
    """Of a stream that was cut: what it had said itself, with the answer as long as what came of it."""
    return counted if said is None else replace(said, output=max(said.output, counted.output))


def bounded(found: Bill, most: Decimal | None) -> Bill:
    """What was only counted: no more than the call can cost, even where more came than was asked for."""
    if found.usd is None or most is None or found.usd <= most:
        return found
    return msgspec.structs.replace(found, usd=most)


def worth(option: Option, usage: Usage, at: datetime, service: str | None) -> Decimal | None:
    """What such a usage costs at this moment. None: not known."""
    return None if option.model is None else option.model.charge(usage, at, service).usd


def said_usage(said: object) -> Usage | None:
    """The usage that a provider's answer says, if it makes sense."""
    usage = usage_of(said) if isinstance(said, dict) else None
    return usage if usage is not None and max(usage.input, usage.output) <= MOST else None


def _spared(option: Option, usage: Usage, usd: Decimal | None, at: datetime, service: str | None) -> Decimal | None:
    """What the cached tokens would have cost besides, had they not been cached."""
    rates = None if option.model is None else option.model.rates(at, service)
    if usd is None or rates is None:
        return None
    price = rates.at(usage.input)
    only_cached = Usage(
        input=usage.cached,
        cached=usage.cached,
        output=0,
        audio_input=usage.audio_cached,
        audio_cached=usage.audio_cached,
    )
    new = Usage(input=usage.cached, cached=0, output=0, audio_input=usage.audio_cached)
    cached, uncached = charge(only_cached, price).usd, charge(new, price).usd
    return None if cached is None or uncached is None else max(NOTHING, uncached - cached)


def dollars(usd: Decimal) -> bytes:
    """As headers and comments say it: all digits, no exponent."""
    return format(usd.normalize(), "f").encode() if usd else b"0"
