"""The time, as edges are handed it."""

import time


class SystemClock:
    """The clock of a running process."""

    # Not methods around them: each hit asks several times.
    wall = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
