"""The time, as edges are handed it."""

import time


class SystemClock:
    """The clock of a running process."""

    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()
