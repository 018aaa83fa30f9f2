"""What to do after an attempt that brought no answer: ask the same model again, another one, or nobody.

Rule: only before the first byte, and only what the provider says it did not do. The caller sends each attempt.
Another model is as good for everyone; the same one is asked again only for clients that do not do so themselves, and
only in so far as all these repeats together stay a small part of the traffic.
"""

import math
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Literal

import msgspec

from proxy.core.breaker import LONGEST_COOLDOWN
from proxy.errors import (
    PenstockError,
    UpstreamAuthError,
    UpstreamBadContentType,
    UpstreamConnectError,
    UpstreamError,
    UpstreamFailed,
    UpstreamTLSError,
)

RETRIED = frozenset({408, 409, 429})
LONGEST_WAIT = 10.0  # seconds; a provider that wants longer is believed, and its answer passed on
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 8.0
COOLDOWN = 10.0  # seconds, where a 429 names none
REPEATS = 0.2  # of what is in flight
LEAST_REPEATS = 3

# Nothing was sent, or the provider has said that it failed. With any other of its errors the call may have been paid.
ELSEWHERE = (UpstreamConnectError, UpstreamTLSError, UpstreamFailed, UpstreamBadContentType, UpstreamAuthError)
NOT_HERE = frozenset({401, 402, 403, 408, 409, 429})  # says something of this account or this moment, not of the call
NO_SUCH_MODEL = frozenset({404, 410})
LATE = frozenset({504, 524})  # a gateway gave up waiting: what is behind it may have answered


class Repeat(msgspec.Struct, frozen=True):
    """The same model again, after `pause` seconds."""

    pause: float


class Another(msgspec.Struct, frozen=True):
    """The next allowed model, at once."""


class Baseline(msgspec.Struct, frozen=True):
    """The model that the client named: its refusal would have come without routing too."""


class Final(msgspec.Struct, frozen=True):
    """Pass this answer, or this error, on."""


Step = Repeat | Another | Baseline | Final


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of which nothing was forwarded: how it ended, and what else may be done.

    It ended with an `error`, or else with a `status` and `headers` (lower-case names). `repeats` counts those on this
    model so far. `others`: an allowed model is left that was not asked; `baseline_left`: so is the one that the client
    named. `ours`: the operator pays, not the client. `retry_lost`: what may have been paid may be asked anew.
    """

    status: int | None = None
    error: PenstockError | None = None
    headers: Mapping[str, str] = {}
    repeats: int
    max_retries: int
    retries_itself: bool
    others: bool
    is_baseline: bool
    baseline_left: bool
    retry_lost: bool
    ours: bool


def next_step(attempt: Attempt, *, now: float, luck: float) -> Step:
    """What to do after this attempt. `now` is seconds since the epoch, `luck` a random number in [0, 1)."""
    status = attempt.status
    if attempt.error is not None or status is None:
        lost = isinstance(attempt.error, UpstreamBadContentType) and attempt.error.answered
        excused = isinstance(attempt.error, UpstreamError if attempt.retry_lost else ELSEWHERE)
        return Another() if attempt.others and excused and (attempt.retry_lost or not lost) else Final()
    if status < 400:
        return Final()
    if status in LATE and not attempt.retry_lost:
        return _repeat(attempt, status, now, luck)
    if status in NOT_HERE or status >= 500 or (status in NO_SUCH_MODEL and attempt.ours):
        return Another() if attempt.others else _repeat(attempt, status, now, luck)
    if attempt.baseline_left and not attempt.is_baseline:
        return Baseline()
    return _repeat(attempt, status, now, luck)


def _repeat(attempt: Attempt, status: int, now: float, luck: float) -> Repeat | Final:
    if attempt.retries_itself or attempt.repeats >= attempt.max_retries:
        return Final()
    pause = pause_before_retry(status, attempt.headers, attempt=attempt.repeats, now=now, luck=luck)
    return Final() if pause is None else Repeat(pause)


class Budget:
    """The one purse out of which every repeat on the same model comes, so that a failing provider is not swamped.

    A repeat holds its place from the pause before it until it ends; `held`: how many do now.
    """

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = 0

    def take(self, in_flight: int) -> bool:
        """May one more repeat begin, with so many calls in flight? Whoever was let through gives its place back."""
        if self.held >= max(LEAST_REPEATS, int(in_flight * REPEATS)):
            return False
        self.held += 1
        return True

    def give_back(self) -> None:
        self.held -= 1


def verdict_of_status(status: int) -> Literal["good", "cool", "bad"]:
    """What a status says of the health of the model that gave it."""
    if status == 429:
        return "cool"
    return "bad" if status >= 500 else "good"


def cooldown(headers: Mapping[str, str], now: float) -> float:
    """Seconds to leave a model alone after a 429 with these headers: from 0 to 60."""
    asked = retry_after(headers, now=now)
    return COOLDOWN if asked is None else min(LONGEST_COOLDOWN, asked)


def pause_before_retry(
    status: int, headers: Mapping[str, str], *, attempt: int, now: float, luck: float
) -> float | None:
    """Seconds to wait before the same request is sent again, or None: pass this answer on.

    `headers` have lower-case names, `attempt` counts from 0, `now` is seconds since the epoch, `luck` is a random
    number in [0, 1): full jitter, so that many clients do not come back in step.
    """
    told = headers.get("x-should-retry")
    if status < 400 or told == "false" or (told != "true" and status not in RETRIED and status < 500):
        return None
    asked = retry_after(headers, now=now)
    if asked is not None:
        return asked if asked <= LONGEST_WAIT else None
    if status == 429:
        return None
    return float(luck * min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt))


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds that the provider asks for (`retry-after-ms`, or `retry-after` as seconds or a date); never negative."""
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return max(0.0, milliseconds / 1000)
    value = headers.get("retry-after", "")
    seconds = _number(value)
    return _until(value, now) if seconds is None else max(0.0, seconds)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _until(date: str, now: float) -> float | None:
    try:
        when = parsedate_to_datetime(date)
        # An HTTP date is in GMT, even one that does not say so.
        return max(0.0, (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() - now)
    except (ValueError, OverflowError):
        return None
