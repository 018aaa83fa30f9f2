"""Who chooses the model for each request of a log.

Rule: what a policy knows is published (prices, terms, windows), in the request (its length, its blocks), or was told it
by `answered`. How long an answer will be is in the log too, and none of them looks at it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final, Protocol, overload

from pricing.cost import Price, Usage
from pricing.tokens import Prompt
from proxy.core.breaker import Health
from proxy.core.learned import Asked, Learned
from proxy.core.needs import Needs
from proxy.core.ranking import Ranking, rank
from proxy.core.routing import Choice, Target
from proxy.core.routing import Option as Known
from proxy.simulate.options import Option
from proxy.simulate.trace import Request

KEPT_FOR: Final = 7 * 86400.0  # seconds that a conversation is remembered
LINKS: Final = 2_000_000  # blocks that are remembered: they are shorter than the messages that the proxy remembers


class Policy(Protocol):
    def choose(self, request: Request, now: float, /) -> int:
        """The index of the option that is asked. `now`: seconds since the log began."""
        ...

    def answered(self, request: Request, option: int, usage: Usage, first: float, now: float, /) -> None:
        """An answer is complete. `first`: seconds that its first token took."""
        ...


class Always:
    """The model that the client named."""

    def __init__(self, option: int) -> None:
        self._option = option

    def choose(self, _request: Request, _now: float) -> int:
        return self._option

    def answered(self, *_: object) -> None:
        pass


class PerToken:
    """The model with the lowest price of an input and an output token at that moment, whatever the request, of those
    whose window is large enough. Of equals the first.
    """

    def __init__(self, options: Sequence[Option], start: datetime) -> None:
        self._options = options
        self._start = start

    def choose(self, request: Request, now: float) -> int:
        at = self._start + timedelta(seconds=now)
        return min(able(self._options, request), key=lambda index: _per_token(self._options[index], at))

    def answered(self, *_: object) -> None:
        pass


class Penstock:
    """Penstock's own ranking, by the code that the proxy runs."""

    def __init__(self, options: Sequence[Option], start: datetime, *, block: int, baseline: int = 0) -> None:
        self._start = start
        self._block = block
        known = tuple(Known(each.name, Target("", "", each.name), each.model, each.cache) for each in options)
        self._choice = Choice(known, known[baseline], route="simulated")
        self._learned = Learned(Health(), kept_for=KEPT_FOR, links=LINKS)
        self._asked: dict[int, tuple[Asked, Ranking]] = {}  # what is under way, by its request's identity

    def choose(self, request: Request, now: float) -> int:
        asked, at = self._ask(request), self._start + timedelta(seconds=now)
        ranking = rank(self._choice, self._learned.ask(asked, now), self._learned.views(asked, now), at)
        self._asked[id(request)] = asked, ranking
        self._learned.begun(asked, ranking.order[0].option)
        return self._choice.options.index(ranking.order[0].option)

    def answered(self, request: Request, option: int, usage: Usage, first: float, _now: float) -> None:
        asked, ranking = self._asked.pop(id(request))
        chosen = self._choice.options[option]
        found = next(each for each in ranking.order if each.option is chosen)
        self._learned.ended(asked, chosen)
        self._learned.answered(asked, found, usage, first=first, began=request.at)

    def _ask(self, request: Request) -> Asked:
        """The request as the proxy would know it: a link for each block, as if it were a message."""
        links = tuple(block.to_bytes(8) for first, last in request.blocks for block in range(first, last + 1))
        return Asked(
            choice=self._choice,
            account="",
            needs=Needs((), None, 1, marks=bool(links), service=None),
            links=links,
            upto=_Upto(request.input, self._block, len(links)),
            base=[*(min(request.input, self._block * count) for count in range(1, len(links) + 1)), request.input],
        )


class _Upto(Sequence[Prompt]):
    """The tokens of a prompt up to each of its blocks, and of the whole."""

    def __init__(self, tokens: int, block: int, blocks: int) -> None:
        self._tokens = tokens
        self._block = block
        self._blocks = blocks

    def __len__(self) -> int:
        return self._blocks + 1

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Prompt]: ...
    def __getitem__(self, index: int | slice) -> Prompt | Sequence[Prompt]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        tokens = self._tokens if number == self._blocks else min(self._tokens, (number + 1) * self._block)
        return Prompt("o200k_base", (tokens, 0, 0, 0))


def able(options: Sequence[Option], request: Request) -> list[int]:
    """The indexes of those whose window is large enough; of all if none is, since someone must be asked."""
    return [index for index, option in enumerate(options) if option.takes(request)] or list(range(len(options)))


def _per_token(option: Option, at: datetime) -> Decimal:
    price = option.model.rates(at) or Price()
    if price.input is None or price.output is None:
        return Decimal("Infinity")
    return price.input + price.output
