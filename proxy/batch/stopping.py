"""What ends a batch, from its first moment on: Ctrl-C and SIGTERM.

Rule: whenever they come, the exit code is 130, and who gave the signal is told how to go on. This imports next to
nothing, as what a batch needs takes half a second to import.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

STOPPED: Final = 130  # as shells say of a process that Ctrl-C ended
STOPPERS: Final = (signal.SIGINT, signal.SIGTERM)
TO_GO_ON: Final = "To go on, give the same command again: what was answered is not asked again."
NOBODY_ASKED: Final = "Stopped; nobody was asked."


@contextmanager
def stoppable(told: str) -> Iterator[None]:
    """Where no loop heeds them, either signal ends what is within: these words on stderr, and SystemExit."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in STOPPERS}
    try:
        yield
    except KeyboardInterrupt:
        for number in STOPPERS:
            signal.signal(number, signal.SIG_IGN)  # a second one would only hide the words
        print(told, file=sys.stderr)
        sys.exit(STOPPED)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
