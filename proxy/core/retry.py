"""Whether a provider's status is worth asking again, and how long to wait first.

Rule: only before the first byte, and only what the provider says it did not do. The caller sends each attempt.
"""

from collections.abc import Mapping
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
    if told == "false" or (told != "true" and status not in RETRIED and status < 500):
        return None
    asked = retry_after(headers, now=now)
    if asked is not None:
        return asked if asked <= LONGEST_WAIT else None
    if status == 429:
        return None
    return float(luck * min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt))


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds that the provider asks for (`retry-after-ms`, or `retry-after` as seconds or a date); never negative."""
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    except (KeyError, ValueError):
        pass
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except ValueError:
        return None
