"""Tells the log that a provider fails or that there is no more room: at once, and of each kind not every time."""

import logging
import math
from collections.abc import Callable

from proxy.errors import Overloaded, UpstreamError, UpstreamFailed

QUIET = 10.0  # seconds between two lines of one kind
KINDS = 1000  # that are told apart
LONGEST = 500  # characters of a line

logger = logging.getLogger("penstock")


class Complaints:
    """`now`: monotonic seconds. The lines in between are counted, and the next one says how many there were."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._last: dict[tuple[str, ...], float] = {}
        self._kept_back: dict[tuple[str, ...], int] = {}

    def failed(self, provider: str, error: UpstreamError, *, model: str = "") -> None:
        """A call to a provider failed, in whatever way."""
        detail = f" ({error.detail})" if error.detail else ""
        about = f", model {model}" if model else ""
        # A provider's own words may quote what it was asked.
        said = "it reported an error" if isinstance(error, UpstreamFailed) else error.message
        self._say((provider, error.code or "", said), f"provider {provider}{about}: {error.code}: {said}{detail}")

    def answered(self, provider: str, status: int, *, model: str = "") -> None:
        """A provider answered that it could not."""
        if status >= 500:
            about = f", model {model}" if model else ""
            self._say((provider, str(status)), f"provider {provider}{about}: answered with status {status}")

    def overloaded(self, error: Overloaded) -> None:
        """Somebody was refused for want of room."""
        self._say(("overloaded", error.message), f"overloaded: {error.message}")

    def _say(self, kind: tuple[str, ...], words: str) -> None:
        now = self._now()
        if now - self._last.get(kind, -math.inf) < QUIET:
            self._kept_back[kind] = self._kept_back.get(kind, 0) + 1
            return
        if len(self._last) >= KINDS:  # what a provider says has no end
            self._last.clear()
            self._kept_back.clear()
        self._last[kind] = now
        more = self._kept_back.pop(kind, 0)
        line = "".join(each if each.isprintable() else " " for each in words[:LONGEST])
        logger.warning("%s%s", line, f" ({more} more since the last line)" if more else "")
