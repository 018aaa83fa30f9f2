"""What the ledger is told: a row for each attempt, before it is made and once it is over, and one for each answer.

Rule: no prompts, no answers, no keys. Costs are exact, in USD; what is not known is None, never 0.
"""

from decimal import Decimal
from typing import Literal

import msgspec

from pricing.cost import Usage

Shadow = Literal["hit", "collapsed", "miss"]  # what would have become of a request if the cache had been on

LONGEST = 256  # characters of a model's name: a client may name a model whatever it likes


def cut(name: str) -> str:
    """A name as the ledger keeps it: no longer than names of models are."""
    return name[:LONGEST]


class Intent(msgspec.Struct, frozen=True):
    """An attempt that is about to be made: the `number`-th (from 1) for this request. `at`: seconds since the epoch.

    `key`: Grant.id of who pays, "" where there are no keys. `asked`: the model or route that the client named, `model`:
    the name of who is asked. `reserved`: USD that it is charged if nobody learns how it ended.
    """

    request: str
    number: int
    at: float
    key: str
    endpoint: str
    asked: str
    provider: str
    model: str
    stream: bool
    reserved: Decimal | None


class Attempted(msgspec.Struct, frozen=True):
    """How an attempt ended: `ok`, a status, an error's code, or `abandoned` by all its clients.

    `estimated`: the provider did not say its usage, or was cut off. `first`, `total`: seconds to the first event and to
    the end. `routing`, `prompt_cache`: USD saved, see bill.py.
    """

    request: str
    number: int
    ended: str
    status: int | None
    usage: Usage | None
    usd: Decimal | None
    estimated: bool
    first: float | None
    total: float
    routing: Decimal | None = None
    prompt_cache: Decimal | None = None


class Decided(msgspec.Struct, frozen=True):
    """Who answers, and why; see Answered."""

    route: str | None = None
    why: str | None = None
    passed_over: tuple[tuple[str, str], ...] = ()
    attempts: tuple[tuple[str, str], ...] = ()


UNDECIDED = Decided()


class Answered(msgspec.Struct, frozen=True):
    """A request that is over. `outcome`: hit, stale, miss, collapsed, bypass, refused, left or broken, as in metrics;
    in the ledger also lost: the process died, and the next start wrote the row.

    `code`: of the error that it was answered with. `usage`: of the answer; `again`: of the part of it that nobody paid
    again, where that is not all or nothing; `saved`: USD that nobody paid again, for hits, who joined, and such parts.
    `first`, `total`: seconds to the first byte and to the last. `leader`: whose attempts answered it, where another
    request did. `entry`: the key of its answer in the cache.

    `cost`: USD that its own last attempt cost, as far as that is known by now; 0 where nobody was asked for it.
    `token`: of a stream, seconds to the first event that says something; `overhead`: seconds to the first byte that no
    provider and no line took. `shadow`: see there. `routing`: USD that it saved, an estimate (bill.py). `route`, `why`:
    who answers was decided there, and why (fallback: whoever was chosen failed); `passed_over`: the models that could
    not answer, and why; `attempts`: those that were asked, and how that ended.
    """

    request: str
    at: float
    key: str
    endpoint: str
    asked: str
    outcome: str
    status: int
    code: str | None
    provider: str
    model: str
    usage: Usage | None
    saved: Decimal | None
    first: float | None
    total: float
    leader: str | None
    entry: bytes | None
    cost: Decimal | None = None
    token: float | None = None
    overhead: float | None = None
    shadow: Shadow | None = None
    route: str | None = None
    why: str | None = None
    passed_over: tuple[tuple[str, str], ...] = ()
    attempts: tuple[tuple[str, str], ...] = ()
    routing: Decimal | None = None
    again: Usage | None = None

    @property
    def spared(self) -> Decimal | None:
        """USD that it saved, by whatever it did; a routing that cost more than the baseline saved nothing."""
        if self.saved is not None or self.routing is None:
            return self.saved
        return self.routing if self.routing > 0 else None
