"""One policy over a log, and what came of it.

Rule: time goes forward. Answers that were complete before a request are told to the policy before it chooses, in the
order in which they were; those that are under way it does not know.
"""

import heapq
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count

from proxy.simulate.answers import Answers
from proxy.simulate.policies import Policy
from proxy.simulate.trace import Request
from proxy.simulate.world import FIRST, Call, World


@dataclass(slots=True)
class Tally:
    """Tokens are each model's own. `usd`: of the calls whose cost is known; `unpriced` calls have none. `switches`:
    calls of a session that another model answered than the one before. `calls` and `too_long` by index of the option;
    `too_long`: calls with a prompt that is longer than the window.
    """

    requests: int = 0
    hits: int = 0
    collapsed: int = 0
    usd: Decimal = Decimal(0)
    unpriced: int = 0
    input: int = 0
    cached: int = 0
    switches: int = 0
    calls: Counter[int] = field(default_factory=Counter)
    too_long: Counter[int] = field(default_factory=Counter)

    @property
    def prompt_hits(self) -> float:
        """The share of input tokens that providers had cached."""
        return self.cached / self.input if self.input else 0.0

    @property
    def answer_hits(self) -> float:
        """The share of requests that were not asked again."""
        return (self.hits + self.collapsed) / self.requests if self.requests else 0.0

    def add(self, option: int, call: Call) -> None:
        self.calls[option] += 1
        self.input += call.usage.input
        self.cached += call.usage.cached
        if call.usd is None:
            self.unpriced += 1
        else:
            self.usd += call.usd


class Run:
    """`answers`: Penstock's cache, where it is on. `take` the requests in their order, then `finish`."""

    def __init__(self, policy: Policy, world: World, answers: Answers | None = None) -> None:
        self.tally = Tally()
        self._policy = policy
        self._world = world
        self._answers = answers
        self._under_way: list[tuple[float, int, Request, int, Call]] = []
        self._numbers = count()  # of two that end together the first asked comes first
        self._last: dict[int, int] = {}

    def take(self, request: Request) -> None:
        self._settle(request.at)
        self.tally.requests += 1
        match self._answers.find(request) if self._answers else None:
            case "hit":
                self.tally.hits += 1
            case "collapsed":
                self.tally.collapsed += 1
            case None:
                self._call(request)

    def finish(self) -> Tally:
        """Wait for what is under way."""
        self._settle(float("inf"))
        return self.tally

    def _call(self, request: Request) -> None:
        option = self._policy.choose(request, request.at)
        call = self._world.call(option, request)
        self.tally.add(option, call)
        if not self._world.takes(option, request):
            self.tally.too_long[option] += 1
        if request.session is not None:
            self.tally.switches += self._last.get(request.session, option) != option
            self._last[request.session] = option
        if self._answers:
            self._answers.put(request, call.done)
        heapq.heappush(self._under_way, (call.done, next(self._numbers), request, option, call))

    def _settle(self, now: float) -> None:
        while self._under_way and self._under_way[0][0] <= now:
            done, _, request, option, call = heapq.heappop(self._under_way)
            self._policy.answered(request, option, call.usage, FIRST, done)
