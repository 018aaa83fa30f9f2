"""What providers have probably cached: prefixes of prompts, by where they were sent, and when.

Rule: a prefix is there if a call that held it was answered there within the lifetime. Whoever sends a prefix sends all
shorter ones with it, so of a chain's links the first ones are never older than the last.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

LINKS = 50_000  # that are remembered: of all places together, and of conversations as many
SHARE = 4  # of them one prompt takes at most so large a part: who sends a million messages does not empty the rest

P = TypeVar("P", bound=Hashable)
L = TypeVar("L", bound=Hashable)


def leading(chain: Sequence[L], holds: Callable[[L], bool]) -> int:
    """How many of the first links this holds for; of a chain it never holds for a later one alone."""
    low, high = 0, len(chain)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(chain[middle - 1]) else (low, middle - 1)
    return low


class Prefixes(Generic[P, L]):
    """By place, when (in seconds) each link was last sent there. A link stands for a prompt up to it (chain.py)."""

    def __init__(self, limit: int = LINKS) -> None:
        self._limit = limit
        self._sent: dict[P, dict[L, float]] = {}
        self._count = 0
        self._latest = 0.0

    def longest(self, place: P, chain: Sequence[L], since: float) -> int:
        """How many links of this chain the place has seen since then."""
        sent = self._sent.get(place)
        if not sent:
            return 0
        return leading(chain, lambda link: sent.get(link, since - 1) >= since)

    def sent(self, place: P, chain: Sequence[L], now: float) -> None:
        """This prompt was answered there."""
        chain = chain[: max(1, self._limit // SHARE)]
        sent = self._sent.setdefault(place, {})
        before = len(sent)
        # A call that was overtaken must not make its links older than they are.
        overtaken = now < self._latest
        sent.update(dict.fromkeys((link for link in chain if sent.get(link, now) <= now) if overtaken else chain, now))
        self._latest = max(self._latest, now)
        self._count += len(sent) - before
        if self._count > self._limit:
            self._forget_older_half()

    def _forget_older_half(self) -> None:
        times = sorted(at for sent in self._sent.values() for at in sent.values())
        self.forget(times[len(times) // 2])

    def forget(self, until: float) -> None:
        """Forget what was not sent after this moment: of a chain always the longest links first."""
        kept = {place: {link: at for link, at in sent.items() if at > until} for place, sent in self._sent.items()}
        self._sent = {place: sent for place, sent in kept.items() if sent}
        self._count = sum(map(len, self._sent.values()))

    def snapshot(self) -> list[tuple[P, dict[L, float]]]:
        return list(self._sent.items())

    def restore(self, kept: list[tuple[P, dict[L, float]]]) -> None:
        self._sent = dict(kept)
        self._count = sum(map(len, self._sent.values()))
        self._latest = max((at for sent in self._sent.values() for at in sent.values()), default=0.0)
