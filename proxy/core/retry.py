"""Whether a provider's status is worth asking again, and how long to wait first.

Rule: only before the first byte, and only what the provider says it did not do. The caller sends each attempt.
"""

import math
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

RETRIED = frozenset({408, 409, 429})
LONGEST_WAIT = 10.0  # seconds; a provider that wants longer is believed, and its answer passed on
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 8.0


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
