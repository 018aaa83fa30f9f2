"""Which blocks a provider has seen, and when last.

Rule: runs of ids are kept as runs. A prompt of 1,600 blocks touches a few of them, and what has expired is dropped.
"""

from bisect import bisect_left, bisect_right
from typing import Final

from proxy.simulate.trace import Blocks

SWEPT_FROM: Final = 1000  # runs below which nothing is dropped


class Seen:
    """Disjoint runs of ids, ascending, each with the moment at which it was last seen. Seconds."""

    def __init__(self, lifetime: float) -> None:
        self._lifetime = lifetime
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self._times: list[float] = []
        self._sweep_at = SWEPT_FROM

    def __len__(self) -> int:
        return len(self._firsts)

    def leading(self, blocks: Blocks, now: float) -> int:
        """How many of the first blocks were all seen within the lifetime."""
        found = 0
        for first, last in blocks:
            known = self._reach(first, last, now - self._lifetime) - first
            found += known
            if known <= last - first:
                break
        return found

    def _reach(self, first: int, last: int, since: float) -> int:
        """The first id of this run that was not seen since then; last + 1 if all were."""
        wanted, index = first, bisect_left(self._lasts, first)
        while wanted <= last and index < len(self._firsts):
            if self._firsts[index] > wanted or self._times[index] < since:
                break
            wanted = self._lasts[index] + 1
            index += 1
        return min(wanted, last + 1)

    def touch(self, blocks: Blocks, at: float) -> None:
        """These were seen at this moment; what was seen later stays so."""
        for first, last in blocks:
            self._paint(first, last, at)
        if len(self) > self._sweep_at:
            self._sweep(at - self._lifetime)

    def _paint(self, first: int, last: int, at: float) -> None:
        begin, end = bisect_left(self._lasts, first), bisect_right(self._firsts, last)
        painted: list[tuple[int, int, float]] = []
        wanted = first
        for index in range(begin, end):
            low, high, time = self._firsts[index], self._lasts[index], self._times[index]
            if low < first:
                painted.append((low, first - 1, time))
            if wanted < low:
                _append(painted, wanted, low - 1, at)
            _append(painted, max(low, first), min(high, last), max(time, at))
            if high > last:
                painted.append((last + 1, high, time))
            wanted = high + 1
        if wanted <= last:
            _append(painted, wanted, last, at)
        self._firsts[begin:end] = [run[0] for run in painted]
        self._lasts[begin:end] = [run[1] for run in painted]
        self._times[begin:end] = [run[2] for run in painted]

    def _sweep(self, since: float) -> None:
        kept = [index for index, time in enumerate(self._times) if time >= since]
        self._firsts = [self._firsts[index] for index in kept]
        self._lasts = [self._lasts[index] for index in kept]
        self._times = [self._times[index] for index in kept]
        self._sweep_at = max(SWEPT_FROM, 2 * len(self))


def _append(runs: list[tuple[int, int, float]], first: int, last: int, time: float) -> None:
    """As one run with its neighbour, if both were seen at the same moment."""
    if runs and runs[-1][2] == time and runs[-1][1] + 1 == first:
        first = runs.pop()[0]
    runs.append((first, last, time))
