"""The truth that no policy is told: what each call would really have cost.

Rule: a provider's prompt cache is simulated on the terms that it publishes, with the blocks that the log says two
prompts share. Nothing is drawn by chance: the same log costs the same each time.
"""

from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from pricing.cost import Usage
from proxy.core.learned import LIFETIME
from proxy.simulate.options import Option
from proxy.simulate.seen import Seen
from proxy.simulate.trace import Blocks, Request, head

START: Final = datetime(2026, 11, 23, tzinfo=UTC)  # a Monday: prices may depend on the hour and the day
READABLE: Final = 1.0  # seconds after a call began from which the prefix that it wrote can be read
FIRST: Final = 1.0  # seconds to the first token of an answer
PER_SECOND: Final = 50.0  # tokens of an answer after that


class Call(NamedTuple):
    """What came of a call. `usd` None: something of it has no price. `done`: when its answer was complete."""

    usage: Usage
    usd: Decimal | None
    done: float


class World:
    """All providers, for one policy. `block`: the log's tokens in a block. Calls come in the order of their times."""

    def __init__(self, options: Sequence[Option], *, block: int, start: datetime = START) -> None:
        self._options = options
        self._caches = [_Cache(option, block) for option in options]
        self._start = start

    def call(self, index: int, request: Request) -> Call:
        """One option answers a request at its time."""
        option = self._options[index]
        prompt = option.input(request.input)
        cached = self._caches[index].read(request, prompt)
        written = prompt - cached if self._writes(option, request, prompt) else 0
        usage = Usage(input=prompt, cached=cached, output=option.output(request.output), written=written)
        charged = option.model.charge(usage, self._start + timedelta(seconds=request.at))
        return Call(usage, charged.usd, request.at + FIRST + usage.output / PER_SECOND)

    def takes(self, index: int, request: Request) -> bool:
        """Is the window of this option large enough?"""
        return self._options[index].takes(request)

    def _writes(self, option: Option, request: Request, prompt: int) -> bool:
        """Is what was not cached written, at a price of its own? All of it: clients mark the end of their prompts.

        Of a prompt without ids nobody knows that it shares a beginning; who has none to share marks none.
        """
        terms, rates = option.cache, option.model.rates(self._start + timedelta(seconds=request.at))
        if terms is None or rates is None or rates.cache_write is None or prompt < (terms.least or 0):
            return False
        return terms.automatic is True or bool(request.blocks)


class _Cache:
    """The prompt cache of one provider for one model."""

    def __init__(self, option: Option, block: int) -> None:
        self._option = option
        self._block = block
        self._terms = option.cache
        self._seen = Seen((self._terms.lifetime if self._terms else None) or LIFETIME)
        self._written: deque[tuple[float, Blocks]] = deque()  # what cannot be read yet

    def read(self, request: Request, prompt: int) -> int:
        """How many tokens of this prompt are cached; from now on it is itself.

        A hit restarts the lifetime of what it read at once. What it adds is there a moment later: of two calls that
        come together, both pay.
        """
        if self._terms is None or not request.blocks or prompt < (self._terms.least or 0):
            return 0
        while self._written and self._written[0][0] + READABLE <= request.at:
            at, blocks = self._written.popleft()
            self._seen.touch(blocks, at)
        known = self._seen.leading(request.blocks, request.at)
        self._seen.touch(head(request.blocks, known), request.at)
        self._written.append((request.at, request.blocks))
        cached = min(prompt, self._option.input(min(known * self._block, request.input)))
        return cached if cached >= (self._terms.least or 0) else 0
