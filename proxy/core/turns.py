"""Whose turn it is at one provider, whose quota, or that of its models, is not enough for all at once.

Rule 1: first come first served within a share, one after the other between shares.
Rule 2: nobody passes whoever waits for the provider's own quota, or what is large would wait for ever. Whoever waits
for its model's quota holds up that model only, whoever waits for what the provider has stated that place only. So
whatever the one in front waits for is kept for it.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from proxy.core.access import UNLIMITED, Limits
from proxy.core.bucket import Held, Quota
from proxy.core.routing import Place
from proxy.core.stated import Account, Accounts

A_CALL: Final = 2.0  # seconds that a call keeps its place, before any has shown it
NEW: Final = 0.1  # the part of the last call in the mean of that
SOON: Final = 0.05  # seconds that whoever does not go at once is expected to wait at least

Lane = tuple[Quota | None, Place]  # what is waited for besides the provider: its model's quota, if any, and the place


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
        return 0.0 if self._account is None else self._account.wait(self.tokens, now)

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
        self._stuck = False  # whoever is in front waits for the provider's own quota
        self._blocked: set[Quota | Place] = set()

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
        model, tokens = turn.lane[0], turn.tokens
        if self.waiting or not self.quota.fits(tokens, now) or turn.stated(now) > 0:
            return False
        if model is not None and not model.fits(tokens, now):
            return False
        turn.go(self.quota, now)
        return True

    def join(self, turn: Turn, now: float) -> bool:
        """Wait, at the end of the share's line. False: whoever holds up the others holds it up too."""
        held_up = self.waiting > 0 and (self._stuck or self._is_blocked(turn.lane))
        turn.waits, turn.since = True, now
        self._add(turn)
        return not held_up

    def move(self, turn: Turn, share: str) -> None:
        """It is another's now, and waits at the end of that one's line."""
        if turn.waits and share != turn.share:
            self._remove(turn)
            turn.share = share
            self._add(turn)
        turn.share = share

    def leave(self, turn: Turn, now: float) -> None:
        """It is over, or is given up."""
        if turn.waits:
            self._remove(turn)
            turn.waits = False
        elif turn.going and turn.was_sent:
            self._lasting += NEW * (max(0.0, now - turn.since) - self._lasting)
        turn.end(self._accounts, now)

    def look(self, now: float) -> tuple[list[Turn], float]:
        """Who goes now; and in how many seconds to look again, inf: not before something is given back or said."""
        gone: list[Turn] = []
        again = math.inf
        self._stuck = False
        self._blocked.clear()
        while (turn := self._next()) is not None:
            model, place = turn.lane
            if model is not None and not model.fits(turn.tokens, now):
                self._blocked |= {model, place}
                again = min(again, _until(model, turn.tokens, now))
            elif (seconds := turn.stated(now)) > 0:
                self._blocked.add(place)
                again = min(again, seconds)
            elif not self.quota.fits(turn.tokens, now):
                self._stuck = True
                return gone, min(again, _until(self.quota, turn.tokens, now))
            else:
                self._remove(turn)
                if turn.share in self._lines:
                    self._lines.move_to_end(turn.share)
                turn.waits = False
                turn.go(self.quota, now)
                gone.append(turn)
        return gone, again

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
        held_up = self.waiting > 0 and (self._stuck or self._is_blocked((quota, place)))
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

    def _next(self) -> Turn | None:
        """The first of the first share that is not held up."""
        if all(self._is_blocked(lane) for lane in self._lanes):
            return None
        for line in self._lines.values():
            fronts = [next(iter(turns)) for lane, turns in line.items() if not self._is_blocked(lane)]
            if fronts:
                return min(fronts, key=_came)
        return None

    def _is_blocked(self, lane: Lane) -> bool:
        return lane[1] in self._blocked or lane[0] in self._blocked

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
