"""What is under way, and how much of it there may be at once.

Rule: what is refused for want of room is refused before it costs anything, and what is in the store is never refused.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from proxy.errors import Overloaded


class Load:
    """Counts of `flights` and `readers`; `recorded` and `received`: bytes of answers and of request bodies held."""

    __slots__ = ("_max_buffered", "_max_flights", "_max_readers", "flights", "readers", "received", "recorded")

    def __init__(self, *, max_flights: int, max_readers: int, max_buffered: int) -> None:
        self._max_flights = max_flights
        self._max_readers = max_readers
        self._max_buffered = max_buffered
        self.flights = 0
        self.readers = 0
        self.recorded = 0
        self.received = 0

    @property
    def pressed(self) -> bool:
        """Are the recordings under way over their bound? Then they hold no more than their slowest reader needs."""
        return self.recorded > self._max_buffered

    def admit_reader(self) -> None:
        """Raises Overloaded."""
        if self.readers >= self._max_readers:
            raise Overloaded("As many answers are open as may be (server.max_readers).")

    @contextmanager
    def reading(self) -> Iterator[None]:
        """One answer that is open and has no flight. Raises Overloaded."""
        self.admit_reader()
        self.readers += 1
        try:
            yield
        finally:
            self.readers -= 1

    def admit_flight(self) -> None:
        """Raises Overloaded."""
        self.admit_reader()
        if self.flights >= self._max_flights:
            raise Overloaded("As many answers are being made as may be (server.max_flights).")
        if self.pressed:
            raise Overloaded("As much is held of answers that are being made as may be (server.max_buffered).")

    def receive(self, size: int) -> None:
        """So many bytes more of a request's body, to be taken off again. Raises Overloaded."""
        self.received += size
        if self.received > self._max_buffered:
            raise Overloaded("As much is held of request bodies as may be (server.max_buffered).")
