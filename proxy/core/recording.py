"""The log of one answer while it is made.

Rule: append-only. A reader that came late sees what the first one saw, in the same pieces. Only past `max_entry`, where
the answer can no longer be kept, is what every reader has passed let go; from then on nobody new can be served.
"""

import re
from array import array
from collections.abc import Mapping
from itertools import accumulate
from typing import Literal

import msgspec

from proxy.core.sse import Event
from proxy.errors import PenstockError

Kind = Literal["stream", "json"]


class Head(msgspec.Struct, frozen=True):
    """What is known before the body. `headers` are those that clients see, lower-case, as the provider sent them.

    `usage_asked`: the provider was asked to say the usage of this stream, by the client or by Penstock.
    """

    status: int
    kind: Kind
    content_type: bytes
    usage_asked: bool = False
    headers: tuple[tuple[bytes, bytes], ...] = ()


_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_PASSED = frozenset({"x-request-id", "x-should-retry", "retry-after", "retry-after-ms"})
_PASSED_PREFIXES = ("openai-", "x-ratelimit-")


def passed_headers(headers: Mapping[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    """Of a provider's headers (lower-case) those that clients see: SDKs obey them."""
    return tuple(
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in headers.items()
        if (name in _PASSED or name.startswith(_PASSED_PREFIXES)) and is_sendable(value)
    )


def is_sendable(value: str) -> bool:
    """May a header say this? Not if it holds what ends a header, or what a server refuses to send."""
    return _CONTROL.search(value) is None


class Clean(msgspec.Struct, frozen=True):
    """HTTP ended cleanly, and nothing says that the answer was cut."""


class Broken(msgspec.Struct, frozen=True):
    """The answer failed. `told`: the provider's own error event is the last one of the log."""

    error: PenstockError
    told: bool = False


Ending = Clean | Broken


class Recording:
    """Events with their offsets in time (seconds since the request was made), then how it ended.

    A JSON answer's pieces are events too: their `raw` is the piece as it came, joined they are the body.
    """

    __slots__ = (
        "_let_go",
        "convertible",
        "dropped",
        "end",
        "events",
        "first_token",
        "has_usage",
        "head",
        "max_entry",
        "size",
        "templates",
        "times",
    )

    def __init__(self, max_entry: int) -> None:
        self.max_entry = max_entry
        self.head: Head | None = None
        self.events: list[Event] = []
        self.times = array("d")
        self.end: Ending | None = None
        self.has_usage = False
        self.first_token: int | None = None  # which event of a stream was the first to say something
        self.templates: dict[tuple[bool, bool], list[bytes]] = {}  # by form, once it is finished
        self.convertible = False  # readable and complete: can be given in the other form
        self.size = 0  # bytes ever logged
        self._let_go = 0
        self.dropped = 0  # events let go, all of them from the front

    @property
    def length(self) -> int:
        """Events ever logged."""
        return self.dropped + len(self.events)

    @property
    def oversized(self) -> bool:
        """Too large to be kept; takes no more readers."""
        return self.size > self.max_entry

    @property
    def failing(self) -> bool:
        """Nobody should join this: it failed, or what comes is an error."""
        return isinstance(self.end, Broken) or (self.head is not None and self.head.status != 200)

    @property
    def held(self) -> int:
        """Bytes of events that were not let go."""
        return self.size - self._let_go

    def forgo(self) -> None:
        """Give up on keeping this: hold no more of it than its readers need."""
        self.max_entry = -1

    def append(self, event: Event, at: float) -> None:
        self.events.append(event)
        self.times.append(at)
        self.size += len(event.raw)

    def rewrite(self, body: bytes) -> None:
        """Of an answer in pieces that nobody has read yet: this is its whole body."""
        self.events = [Event(body, None, None)]
        del self.times[:-1]

    def since(self, position: int, count: int, size: int) -> list[Event]:
        """At most `count` events from `position` on, and no more after `size` bytes of them.

        `position` must not lie before what was let go.
        """
        start = position - self.dropped
        events = self.events[start : start + count]
        if len(events) > 1:
            ends = accumulate(len(event.raw) for event in events)
            del events[1 + sum(end < size for end in ends) :]
        return events

    def let_go(self, position: int) -> None:
        """Forget the events before `position`."""
        count = position - self.dropped
        if count > 0:
            self._let_go += sum(len(event.raw) for event in self.events[:count])
            del self.events[:count], self.times[:count]
            self.dropped = position
