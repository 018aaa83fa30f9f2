"""Whose turn it is at one provider, whose quota, or that of its models, is not enough for all at once.

Rule 1: first come first served within a share, one after the other between shares.
Rule 2: what the one in front waits for is kept for it until it goes, or what is large would wait for ever. While that
is the provider's own quota nobody else goes; its model's holds up that model only, what is stated that place only.
Rule 3: who has something kept for want of tokens owes for it, or one share that asks for nearly all there is, again and
again, would starve all others. Its share owes as many seconds as that took to each other share that waits for the same
with less: wholly to one that wants next to nothing, not at all to one that wants as much. While it owes, what it does
not fit into is not kept for it: others pass. So each share has things kept for no more than its part of the time, and
what is large waits for an hour at most until they are, behind those who came to the front before it.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from proxy.core.access import UNLIMITED, Limits
from proxy.core.bucket import Held, Quota
from proxy.core.routing import Place
from proxy.core.stated import Account, Accounts

A_CALL: Final = 2.0  # seconds that a call keeps its place, before any has shown it
NEW: Final = 0.1  # the part of the last call in the mean of that
SOON: Final = 0.05  # seconds that whoever does not go at once is expected to wait at least
OWED: Final = 3600.0  # seconds that a share owes at most

Thing = Quota | Place  # the provider's own quota, a model's, or what is stated at a place
Lane = tuple[Quota | None, Place]  # what is waited for besides the provider: its model's quota, if any, and the place


class Lack(NamedTuple):
    """What a turn does not fit into: the first of `things`; with the rest it is kept for it. `seconds`: until it fits,
    if nobody else takes of it. `tokens`: for want of those alone.
    """

    things: tuple[Thing, ...]
    seconds: float
    tokens: bool


class Turn:
    """One call's. It `waits`, or is `going`, or neither, before and after. `since`: when it joined, went, was sent."""

    __slots__ = ("_account", "_marks", "_model", "_own", "going", "lane", "number", "share", "since", "tokens", "waits")

    def __init__(self, share: str, lane: Lane, tokens: int, account: Account) -> None:
        self.share = share
        self.lane = lane
        self.tokens = tokens
        self.number = 0
        self.waits = False
        self.going = False
        self.since = 0.0
        self._account: Account | None = account
        self._own: Held | None = None
        self._model: Held | None = None
        self._marks: tuple[int, int] | None = None

    @property
    def was_sent(self) -> bool:
        return self._marks is not None

    def go(self, own: Quota, now: float) -> None:
        """Take of all three."""
        self.going, self.since = True, now
        self._own = own.take(self.tokens, now)
        if self.lane[0] is not None:
            self._model = self.lane[0].take(self.tokens, now)
        if self._account is not None:
            self._account.hold(self.tokens)

    def send(self, now: float) -> None:
        """From now on it counts, whatever comes of it."""
        if self.going and self._marks is None and self._account is not None:
            self._marks = self._account.send(self.tokens)
            self.since = now

    def heed(self, headers: Mapping[str, str], at: float, wall: float) -> None:
        """What the provider says to it. `at`: when it handled the call, `wall`: the same in seconds since the epoch."""
        if self._account is not None and self._marks is not None:
            self._account.heed(headers, self._marks, at, wall)

    def settle(self, tokens: int, now: float) -> None:
        """So many tokens were used; only the first time counts."""
        for held in (self._own, self._model):
            if held is not None:
                held.settle(tokens, now)

    def stated(self, now: float) -> float:
        """Seconds until what the provider has stated lets it go; 0: now."""
        return self._stated(self.tokens, now)

    def lack(self, own: Quota, now: float) -> Lack | None:
        """What keeps it from going; None: nothing."""
        model, place = self.lane
        if model is not None and not model.fits(self.tokens, now):
            return Lack((model, place), _until(model, self.tokens, now), model.fits(0, now))
        if (seconds := self._stated(self.tokens, now)) > 0:
            return Lack((place,), seconds, self._stated(0, now) <= 0)
        if not own.fits(self.tokens, now):
            return Lack((own,), _until(own, self.tokens, now), own.fits(0, now))
        return None

    def _stated(self, tokens: int, now: float) -> float:
        return 0.0 if self._account is None else self._account.wait(tokens, now)

    def end(self, accounts: Accounts, now: float) -> None:
        """Give back what it holds: all of it, if it was not sent. Once, whoever calls how often."""
        account, self._account = self._account, None
        if account is None:
            return
        sent = self._marks is not None
        for held in (self._own, self._model):
            if held is not None:
                held.leave() if sent else held.undo(now)
        if self.going and not sent:
            account.give_back(self.tokens)
        self.going = False
        accounts.leave(self.lane[1], account, now)


class Kept:
    """What is kept for a turn: the `thing`, and `since` when for want of tokens, inf: not for that. `owed`: seconds, by
    thing, for what was kept for it before.
    """

    __slots__ = ("owed", "since", "thing")

    def __init__(self, thing: Thing) -> None:
        self.thing = thing
        self.since = math.inf
        self.owed: dict[Thing, float] = {}


class Turns:
    """All of one provider. Whenever something was given back, or said, and after as many seconds as it says: `look`."""

    def __init__(self, limits: Limits, models: Mapping[str, Limits], accounts: Accounts) -> None:
        """`models`: those that may have limits of their own."""
        self.quota = Quota(limits)
        self._models = {name: Quota(of) for name, of in models.items() if of != UNLIMITED}
        self._accounts = accounts
        self._lines: OrderedDict[str, dict[Lane, OrderedDict[Turn, None]]] = OrderedDict()  # by share, the next first
        self._lanes: dict[Lane, list[int]] = {}  # how many wait in each, and of how many tokens together
        self.waiting = 0  # how many
        self._came = 0
        self._lasting = A_CALL
        self._kept: set[Thing] = set()  # of which nobody takes
        self._passed: set[tuple[str, Thing]] = set()  # by others, of this share
        self._keeping: dict[Turn, Kept] = {}  # who came to the front first, first
        self._owes: dict[tuple[str, Thing], float] = {}  # until when

    def turn(self, share: str, model: str, place: Place, tokens: int) -> Turn:
        """Follow with `leave`."""
        return Turn(share, (self._models.get(model), place), tokens, self._accounts.use(place))

    def too_large(self, turn: Turn) -> int | None:
        """The limit of tokens that is smaller than this one call; None: there is no such."""
        for quota in (self.quota, turn.lane[0]):
            if quota is not None and quota.never(turn.tokens):
                return quota.limits.tokens_per_minute
        return None

    def go(self, turn: Turn, now: float) -> bool:
        """Did it go at once? Only where nobody waits."""
        if self.waiting or turn.lack(self.quota, now) is not None:
            return False
        turn.go(self.quota, now)
        return True

    def join(self, turn: Turn, now: float) -> bool:
        """Wait, at the end of the share's line. False: whoever holds up the others holds it up too."""
        held_up = self.waiting > 0 and self._is_held_up(turn.share, turn.lane)
        turn.waits, turn.since = True, now
        self._add(turn)
        return not held_up

    def move(self, turn: Turn, share: str, now: float) -> None:
        """It is another's now, and waits at the end of that one's line."""
        if turn.waits and share != turn.share:
            self._release(turn, now)
            self._remove(turn)
            turn.share = share
            self._add(turn)
        turn.share = share

    def leave(self, turn: Turn, now: float) -> None:
        """It is over, or is given up."""
        if turn.waits:
            self._release(turn, now)
            self._remove(turn)
            turn.waits = False
        elif turn.going and turn.was_sent:
            self._lasting += NEW * (max(0.0, now - turn.since) - self._lasting)
        turn.end(self._accounts, now)

    def look(self, now: float) -> tuple[list[Turn], float]:
        """Who goes now; and in how many seconds to look again, inf: not before something is given back or said."""
        gone: list[Turn] = []
        again = math.inf
        while True:
            before = len(gone)
            again = min(again, self._round(gone, now))
            # Whom others passed may lack its model's quota first by now, as they took of that, and hold up less.
            if not self._passed or len(gone) == before:
                return gone, again

    def _round(self, gone: list[Turn], now: float) -> float:
        """Those go whose turn it is; in how many seconds one of those that do not will fit."""
        again = math.inf
        self._kept.clear()
        self._passed.clear()
        for turn in self._in_turn():
            if (lack := turn.lack(self.quota, now)) is not None:
                self._keep(turn, lack, now)
                again = min(again, lack.seconds)
                continue
            self._release(turn, now)
            self._remove(turn)
            if turn.share in self._lines:
                self._lines.move_to_end(turn.share)
            turn.waits = False
            turn.go(self.quota, now)
            gone.append(turn)
        return again

    def counts_tokens(self, model: str) -> bool:
        quotas = (self.quota, self._models.get(model))
        return any(each is not None and each.limits.tokens_per_minute is not None for each in quotas)

    def wait(self, model: str, place: Place, tokens: int, now: float) -> float:
        """About how many seconds such a call would wait for its turn; 0: it would go at once, inf: it never fits."""
        quota, account = self._models.get(model), self._accounts.get(place)
        quotas = (self.quota,) if quota is None else (self.quota, quota)
        if any(each.never(tokens) for each in quotas):
            return math.inf
        seconds = 0.0 if account is None else account.wait(tokens, now)
        held_up = self.waiting > 0 and self._is_kept((quota, place))
        if not (held_up or seconds) and all(each.fits(tokens, now) for each in quotas):
            return 0.0
        return max(seconds, self._behind(quotas, 1, tokens, now))

    def expected(self, turn: Turn, now: float) -> float:
        """About how many seconds it will wait on; it is among those who wait."""
        quota = turn.lane[0]
        quotas = (self.quota,) if quota is None else (self.quota, quota)
        return max(turn.stated(now), self._behind(quotas, 0, 0, now))

    def _behind(self, quotas: tuple[Quota, ...], requests: int, tokens: int, now: float) -> float:
        """Seconds until all who wait for these, and so many more, have come in."""
        seconds = SOON
        for each in quotas:
            waiting = [of for lane, of in self._lanes.items() if each in (self.quota, lane[0])]
            requests_in, tokens_in = requests + sum(of[0] for of in waiting), tokens + sum(of[1] for of in waiting)
            seconds = max(seconds, each.behind(requests_in, tokens_in, now, self._lasting))
        return seconds

    def _in_turn(self) -> Iterator[Turn]:
        """For whom something is kept, then who is in front, share by share: each that is not held up when it comes to
        it. Whoever asks lets it go, or keeps something for it, or has it passed, before the next one.
        """
        for turn in list(self._keeping):
            if not self._is_held_up(turn.share, turn.lane):
                yield turn
        if self._are_all_kept():
            return
        shares = deque(self._lines)
        while shares:
            share = shares.popleft()
            front = self._front(share)
            if front is None:
                continue
            yield front
            if not front.waits:
                shares.append(share)
            elif self._are_all_kept():
                return
            else:
                shares.appendleft(share)

    def _front(self, share: str) -> Turn | None:
        """The first of this share that is not held up."""
        line = self._lines.get(share, {})
        fronts = [next(iter(turns)) for lane, turns in line.items() if not self._is_held_up(share, lane)]
        return min(fronts, key=_came, default=None)

    def _are_all_kept(self) -> bool:
        return all(self._is_kept(lane) for lane in self._lanes)

    def _is_kept(self, lane: Lane) -> bool:
        return not self._kept.isdisjoint((self.quota, *lane))

    def _is_held_up(self, share: str, lane: Lane) -> bool:
        if self._is_kept(lane):
            return True
        passed = self._passed
        return bool(passed) and any((share, thing) in passed for thing in (self.quota, *lane))

    def _keep(self, turn: Turn, lack: Lack, now: float) -> None:
        """Keep for it what it lacks, unless its share owes for that. What it owes itself counts once it has gone: if it
        had to make up for one thing before the next was kept for it, both might never be there at once.
        """
        thing, kept = lack.things[0], self._keeping.get(turn)
        if self._owes.get((turn.share, thing), now) > now:
            self._release(turn, now)
            self._passed.update((turn.share, each) for each in lack.things)
            return
        self._kept.update(lack.things)
        if kept is None:
            kept = self._keeping[turn] = Kept(thing)
        elif kept.thing is not thing:
            self._count(turn, kept, now)
        kept.thing = thing
        kept.owed.setdefault(thing, 0.0)
        if lack.tokens:
            kept.since = min(kept.since, now)

    def _release(self, turn: Turn, now: float) -> None:
        """Nothing is kept for it any more, and its share owes for what was."""
        kept = self._keeping.pop(turn, None)
        if kept is None:
            return
        self._count(turn, kept, now)
        if any(kept.owed.values()):
            self._owes = {whose: until for whose, until in self._owes.items() if until > now}
        for thing, owed in kept.owed.items():
            if owed:
                self._owes[turn.share, thing] = now + min(OWED, owed)

    def _count(self, turn: Turn, kept: Kept, now: float) -> None:
        """The time for which the thing has been kept for want of tokens."""
        if kept.since < now:
            kept.owed[kept.thing] += (now - kept.since) * self._held_up(turn, kept.thing)
        kept.since = math.inf

    def _held_up(self, turn: Turn, thing: Thing) -> float:
        """How many other shares wait for this thing too, each counted by how much less it wants: from 0 to 1."""
        count = 0.0
        for share, line in self._lines.items():
            wanted = [next(iter(turns)).tokens for lane, turns in line.items() if thing in (self.quota, *lane)]
            if wanted and share != turn.share:
                count += max(0.0, 1 - min(wanted) / turn.tokens)
        return count

    def _add(self, turn: Turn) -> None:
        self._came += 1
        turn.number = self._came
        self._lines.setdefault(turn.share, {}).setdefault(turn.lane, OrderedDict())[turn] = None
        lane = self._lanes.setdefault(turn.lane, [0, 0])
        lane[0] += 1
        lane[1] += turn.tokens
        self.waiting += 1

    def _remove(self, turn: Turn) -> None:
        line = self._lines[turn.share]
        del line[turn.lane][turn]
        if not line[turn.lane]:
            del line[turn.lane]
        if not line:
            del self._lines[turn.share]
        lane = self._lanes[turn.lane]
        lane[0] -= 1
        lane[1] -= turn.tokens
        if not lane[0]:
            del self._lanes[turn.lane]
        self.waiting -= 1


def _came(turn: Turn) -> int:
    return turn.number


def _until(quota: Quota, tokens: int, now: float) -> float:
    """Seconds until it may fit; inf: as soon as a call gives its place back, which nobody knows."""
    full = quota.full(tokens, now)
    return math.inf if full is None or full.of == "concurrent" else full.seconds
