"""What follows what: which model answered a prompt, and how many more requests will begin as it did.

Rule: a request that begins with most of an earlier prompt follows it: the next turn of a conversation, or another
question about the same document. So a prefix that is cached now is worth something then.
"""

from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Annotated, Generic, TypeVar

import msgspec

from proxy.core.experience import UNKNOWN, Mean
from proxy.core.prefixes import LINKS, SHARE, leading

HORIZON = 30.0  # followers to come that anything is planned for
MOST = 0.5  # of an earlier prompt: who begins with so much of it follows it
STEPS = (1, 2, 3, 4, 6, 9, 14, 22, 35)  # turns up to which figures are kept apart
GAPS = (60.0, 300.0, 1800.0, 3600.0, 86400.0)  # seconds between two turns, likewise

P = TypeVar("P", bound=Hashable)
L = TypeVar("L", bound=Hashable)
Count = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
BySteps = Annotated[list[Count], msgspec.Meta(min_length=len(STEPS) + 1, max_length=len(STEPS) + 1)]
ByGaps = Annotated[list[Count], msgspec.Meta(min_length=len(GAPS) + 1, max_length=len(GAPS) + 1)]


class Turn(msgspec.Struct, Generic[P], array_like=True):
    """An answer: made where and when (seconds), the how many-th in its row, to a prompt of how many tokens."""

    place: P
    at: float
    number: int
    tokens: int
    followed: bool = False


class Habits(msgspec.Struct):
    """How requests of one route follow each other. Lists run over STEPS and GAPS, and one more beyond the last.

    `seen`: turns that came; `followed`: those of them that another followed; `gaps`: how soon; `growth`: tokens by
    which a prompt is longer than the one before it; `shared`: the part of that one which it begins with.
    """

    seen: BySteps = msgspec.field(default_factory=lambda: [0.0] * (len(STEPS) + 1))
    followed: BySteps = msgspec.field(default_factory=lambda: [0.0] * (len(STEPS) + 1))
    gaps: ByGaps = msgspec.field(default_factory=lambda: [0.0] * (len(GAPS) + 1))
    growth: Mean = UNKNOWN
    shared: Mean = UNKNOWN

    def came(self, number: int) -> None:
        self._fade(step := _step(number))
        self.seen[step] += 1

    def went_on(self, number: int, *, gap: float, growth: int, shared: float) -> None:
        """The turn of this number was followed by another."""
        self.followed[_step(number)] += 1
        self.gaps[sum(gap > limit for limit in GAPS)] += 1
        if sum(self.gaps) > 1000:
            self.gaps = [count / 2 for count in self.gaps]
        self.growth = self.growth.after(max(0, growth))
        self.shared = self.shared.after(min(1.0, shared))

    def _fade(self, step: int) -> None:
        if self.seen[step] > 1000:
            self.seen[step] /= 2
            self.followed[step] /= 2

    def goes_on(self, number: int) -> float:
        """How likely another turn is after this one; 1/2 before anything is known."""
        step = _step(number)
        return min(1.0, (self.followed[step] + 1) / (self.seen[step] + 2))

    def within(self, seconds: float) -> float:
        """How likely the next turn, if there is one, comes within this time; likely before anything is known."""
        edges = (0.0, *GAPS, GAPS[-1] * 7)
        soon = 1.0
        for count, (start, end) in zip(self.gaps, pairwise(edges), strict=True):
            soon += count * min(1.0, max(0.0, (seconds - start) / (end - start)))
        return min(1.0, soon / (sum(self.gaps) + 1))

    def to_come(self, number: int, lifetime: float) -> float:
        """Turns expected after this one, each within `lifetime` seconds of the one before: then all is open again."""
        soon, likely, expected = self.within(lifetime), 1.0, 0.0
        for later in range(number, max(number, STEPS[-1]) + 1):
            likely *= self.goes_on(later) * soon
            expected += likely
        again = self.goes_on(STEPS[-1] + 1) * soon  # from there on it is always as likely
        return min(HORIZON, expected + likely * again / (1 - again)) if again < 1 else HORIZON


def _step(number: int) -> int:
    return sum(number > limit for limit in STEPS)


class Conversations(Generic[P, L]):
    """The last turn that held each link (chain.py), who answered each prompt, and the habits of each route."""

    def __init__(self, limit: int = LINKS) -> None:
        self._limit = limit
        self._turns: dict[L, Turn[P]] = {}
        self._made: dict[L, tuple[P, float]] = {}  # by the last link of a prompt, the least recent first
        self._latest = 0.0
        self.habits: dict[str, Habits] = {}

    def of(self, route: str) -> Habits:
        return self.habits.setdefault(route, Habits())

    def turn(self, link: L | None, since: float) -> Turn[P] | None:
        """The last turn whose prompt held this, if it was since then."""
        found = None if link is None else self._turns.get(link)
        return found if found is not None and found.at >= since else None

    def maker(self, link: L | None, since: float) -> P | None:
        """Who answered the prompt that ends with this, if it was since then."""
        found = None if link is None else self._made.get(link)
        return found[0] if found is not None and found[1] >= since else None

    def given(self, link: L, place: P, now: float) -> None:
        """The prompt that ends with this had its answer from there; out of the cache, perhaps."""
        self._made.pop(link, None)
        self._made[link] = place, now
        if len(self._made) > self._limit:
            del self._made[next(iter(self._made))]

    def before(self, links: Sequence[L], upto: Sequence[int], since: float) -> tuple[Turn[P] | None, float]:
        """The turn that a request follows, and the part of that one's prompt that it begins with. `upto`: tokens up to
        each link.

        Who sends a link sends all before it, so those that are known are the first ones.
        """
        known = leading(links, self._turns.__contains__)
        turn = self.turn(links[known - 1], since) if known else None
        share = upto[known - 1] / turn.tokens if turn is not None and turn.tokens else 0.0
        return (turn, share) if share >= MOST else (None, 0.0)

    def came(self, route: str, before: Turn[P] | None, share: float, *, tokens: int, now: float) -> int:
        """A request that follows this turn was sent; which one of its row it is."""
        habits = self.of(route)
        number = before.number + 1 if before is not None else 1
        habits.came(number)
        if before is not None and not before.followed:
            before.followed = True
            habits.went_on(before.number, gap=now - before.at, growth=tokens - before.tokens, shared=share)
        return number

    def made(self, links: Sequence[L], turn: Turn[P]) -> None:
        """This prompt was answered so."""
        links = links[: max(1, self._limit // SHARE)]
        if turn.at < self._latest:  # overtaken: who holds a link of it since then still does
            links = [link for link in links if (known := self._turns.get(link)) is None or known.at <= turn.at]
        self._latest = max(self._latest, turn.at)
        self._turns.update(dict.fromkeys(links, turn))
        if len(self._turns) > self._limit:
            self._forget_older_half()

    def _forget_older_half(self) -> None:
        times = sorted(turn.at for turn in self._turns.values())
        until = times[len(times) // 2]
        self._turns = {link: turn for link, turn in self._turns.items() if turn.at > until}

    def snapshot(self) -> tuple[list[Turn[P]], dict[L, int], dict[L, tuple[P, float]]]:
        """The turns, which of them held each link last, and who answered each prompt when."""
        turns = {id(turn): turn for turn in self._turns.values()}
        index = {key: number for number, key in enumerate(turns)}
        held = {link: index[id(turn)] for link, turn in self._turns.items()}
        return list(turns.values()), held, self._made

    def restore(self, turns: list[Turn[P]], held: dict[L, int], made: dict[L, tuple[P, float]]) -> None:
        """Raises IndexError: not what `snapshot` made."""
        self._turns, self._made = {link: turns[number] for link, number in held.items()}, made
        self._latest = max((turn.at for turn in turns), default=0.0)
