"""What was understood of a request, kept for when the same bytes come again.

Rule: what is remembered follows from its key alone. Applications that repeat a request repeat it to the byte, and to
parse, judge and hash a long chat costs ten times what it takes to send its stored answer.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memo(Generic[K, V]):
    """Values by key, the least recently used forgotten first, at most `limit` bytes as `put` was told them."""

    __slots__ = ("_bytes", "_kept", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def get(self, key: K) -> V | None:
        found = self._kept.get(key)
        if found is None:
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V, size: int) -> None:
        """Remember, unless it alone would take more than a sixteenth of everything."""
        if size * 16 > self._limit:
            return
        replaced = self._kept.pop(key, None)
        self._bytes += size - (replaced[1] if replaced else 0)
        self._kept[key] = value, size
        while self._bytes > self._limit:
            _, (_, freed) = self._kept.popitem(last=False)
            self._bytes -= freed
