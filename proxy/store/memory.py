"""The hot entries, in memory.

Rule: bounded in bytes, whatever the entries are. Used from one thread, the event loop's: nothing here waits or locks.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

OVERHEAD = 256  # bytes an entry costs here besides its footprint: its key, its place in the order (measured: 74 to 228)


class Sized(Protocol):
    @property
    def footprint(self) -> int:
        """Bytes of memory that this is charged for."""
        ...


E = TypeVar("E", bound=Sized)


class MemoryTier(Generic[E]):
    """Entries by key up to `limit` bytes; the one that was used longest ago goes first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self.evictions = 0
        # With what it was charged: a footprint that changed meanwhile would put the sum wrong for good.
        self._entries: OrderedDict[bytes, tuple[E, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> E | None:
        """The entry, which is now the one used last."""
        found = self._entries.get(key)
        if found is None:
            return None
        self._entries.move_to_end(key)
        return found[0]

    def put(self, key: bytes, entry: E) -> None:
        """Keep the entry and make room for it. One over the limit is not kept, and neither is what it replaces."""
        self.discard(key)
        charge = entry.footprint + OVERHEAD
        if charge > self.limit:
            return
        while self.bytes + charge > self.limit:
            _, (_, freed) = self._entries.popitem(last=False)
            self.bytes -= freed
            self.evictions += 1
        self._entries[key] = (entry, charge)
        self.bytes += charge

    def discard(self, key: bytes) -> None:
        """Forget one key; a missing one is fine."""
        found = self._entries.pop(key, None)
        if found is not None:
            self.bytes -= found[1]

    def keys(self) -> list[bytes]:
        return list(self._entries)

    def discard_if(self, key: bytes, condition: Callable[[E], bool]) -> bool:
        """Forget the key where its entry meets the condition, and say so. To be looked at is not to be used."""
        found = self._entries.get(key)
        if found is None or not condition(found[0]):
            return False
        self.discard(key)
        return True

    def clear(self) -> None:
        """Forget everything. Not counted as evictions."""
        self._entries.clear()
        self.bytes = 0
