"""The health of what may answer: which model at which provider, for whose account, is left alone, and until when.

Rule 1: failures in a row open a breaker, and then one call at a time, the probe, finds out whether it may close.
Rule 2: whoever answers is well, whatever it says; what was sent before a breaker opened never keeps it open.
Rule 3: a provider that fails does so for everyone; one that is asked for less, or refuses a key, means one account.
Rule 4: no pause outlasts its bound. `now` is seconds since the epoch, so that pauses outlive a restart; one that would
begin in the future (the clock went back) counts as over: a call too early costs less than an hour without a provider.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

State = Literal["up", "cooling", "down"]
STATES: tuple[State, ...] = ("up", "cooling", "down")
Key = tuple[str, ...]  # (provider, upstream model, account)

FAILURES = 5  # in a row
PAUSE = 30.0  # seconds, times how often it has opened in a row
LONGEST_PAUSE = 300.0
LONGEST_COOLDOWN = 60.0
LOST_PROBE = 600.0  # a probe that has not reported for so many seconds is taken for lost
MOST_KEYS = 10_000


def _left(since: float, lasts: float, now: float) -> float:
    """Seconds left of a pause; 0 where it is over, or lies in the future."""
    gone = now - since
    return lasts - gone if 0 <= gone < lasts else 0.0


class Condition(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is remembered of one key, times in seconds since the epoch. The defaults: simply healthy.

    `failures` in a row while closed; `openings` in a row, 0 while closed, the last at `opened`; `probe`: when it was
    sent, None if none is under way; left alone from `cooled` on for `cooldown` seconds.
    """

    failures: int = 0
    openings: int = 0
    opened: float = 0.0
    probe: float | None = None
    cooled: float = 0.0
    cooldown: float = 0.0

    def state(self, now: float) -> State:
        if self.down(now) > 0:
            return "down"
        return "cooling" if self.cooling(now) > 0 else "up"

    def until(self, now: float) -> float:
        """Seconds until it may be asked again, 0 if it may; behind a probe, which ends nobody knows when, a guess."""
        return max(self.down(now), self.cooling(now))

    def cooling(self, now: float) -> float:
        return _left(self.cooled, self.cooldown, now)

    def down(self, now: float) -> float:
        if not self.openings:
            return 0.0
        pause = _left(self.opened, min(LONGEST_PAUSE, PAUSE * self.openings), now)
        return pause if self.probe is None else min(PAUSE, _left(self.probe, LOST_PROBE, now))

    def troubled(self, now: float) -> bool:
        return self.openings > 0 or self.cooling(now) > 0


HEALTHY = Condition()


class Sick(msgspec.Struct, frozen=True):
    """One key that is not simply healthy, as it is written down."""

    key: Key
    condition: Condition


Snapshot = list[Sick]


class Health:
    """The conditions of all keys. Only those that are not simply healthy cost memory, at most `limit` of them.

    `sent`: when the call was sent that reports, at its `take` or after. With it, what was under way before the breaker
    opened, or a probe that was taken for lost, is told from the probe; without it, whoever reports is the probe.
    """

    def __init__(
        self, *, failures: int = FAILURES, at: Mapping[str, int] | None = None, limit: int = MOST_KEYS
    ) -> None:
        """So many `failures` in a row open a breaker, `at` this provider (a key's first word) so many; 0: never."""
        self._failures = failures
        self._at = at or {}
        self._limit = limit
        self.changed = False  # since the last snapshot
        self.opened: dict[str, int] = {}  # how often, by a key's first word
        self._kept: OrderedDict[Key, Condition] = OrderedDict()  # the least recently touched first

    def _most(self, key: Key) -> int:
        return self._at.get(key[0], self._failures)

    def state(self, key: Key, now: float) -> State:
        """Changes nothing. "up" for a breaker whose pause is over and whose probe nobody has taken."""
        states = [self._kept.get(each, HEALTHY).state(now) for each in _both(key)]
        return max(states, key=STATES.index)

    def until(self, key: Key, now: float) -> float:
        """Seconds until it may be asked again; 0 if it is up."""
        return max(self._kept.get(each, HEALTHY).until(now) for each in _both(key))

    def take(self, key: Key, now: float) -> bool:
        """May a call be sent now? Where a pause is over, the first who asks has the probe. A cooldown forbids nothing.

        Whoever was let through says how it ended: `good`, `bad`, `cool` or `released`.
        """
        known = [(each, self._kept.get(each, HEALTHY)) for each in _both(key)]
        if any(kept.down(now) > 0 for _, kept in known):
            return False
        for each, kept in known:
            if kept.openings:
                self._put(each, msgspec.structs.replace(kept, probe=now), now)
        return True

    def good(self, key: Key, now: float) -> None:
        """It answered, with any status below 500 but 429. Even a late answer closes the breaker: the provider lives."""
        for each in _both(key):
            kept = self._kept.pop(each, HEALTHY)
            self.changed = self.changed or kept is not HEALTHY
            if kept.cooling(now) > 0:
                self._put(each, Condition(cooled=kept.cooled, cooldown=kept.cooldown), now)

    def bad(self, key: Key, now: float, *, sent: float | None = None, account: bool = False) -> None:
        """It failed: no answer, or a status of 500 and above. `account`: it refuses this account, and not all."""
        key = key if account else _shared(key)
        most = self._most(key)
        if not most:
            return
        kept = self._kept.get(key, HEALTHY)
        if not kept.openings:
            failures = kept.failures + 1
            if failures < most:
                self._put(key, msgspec.structs.replace(kept, failures=failures), now)
                return
        elif not _is_probe(kept, sent):
            return
        self.opened[key[0]] = self.opened.get(key[0], 0) + 1
        opened = msgspec.structs.replace(kept, failures=0, openings=kept.openings + 1, opened=now, probe=None)
        self._put(key, opened, now)

    def cool(self, key: Key, now: float, seconds: float, *, sent: float | None = None) -> None:
        """A 429: leave it alone for so many seconds, from 0 to 60. The breaker stays as it is, save for its probe.

        It lives, so this is no failure; nor does it work, so a probe that gets one is given back, for the next.
        """
        self.released(key, sent=sent)
        kept = self._kept.get(key, HEALTHY)
        seconds = min(LONGEST_COOLDOWN, seconds) if seconds > 0 else 0.0
        if seconds > kept.cooling(now):
            kept = msgspec.structs.replace(kept, cooled=now, cooldown=seconds)
            self._put(key, kept, now)

    def released(self, key: Key, *, sent: float | None = None) -> None:
        """A call ended without a verdict, as its clients left: if it was the probe, the next may try."""
        for each in _both(key):
            if each in self._kept and _is_probe(self._kept[each], sent):
                self._kept[each] = msgspec.structs.replace(self._kept[each], probe=None)

    def snapshot(self, now: float) -> Snapshot:
        """To be kept over a restart, and looked at by whoever likes with `Condition.state`."""
        return [Sick(key, kept) for key, kept in self._kept.items() if kept.failures or kept.troubled(now)]

    def restore(self, snapshot: Iterable[Sick], now: float) -> None:
        """Take over what a process before this one knew. Its probes ended with it."""
        for sick in snapshot:
            kept = sick.condition
            openings, failures = (kept.openings, kept.failures) if self._most(sick.key) else (0, 0)
            condition = Condition(
                failures=max(0, failures),
                openings=max(0, openings),
                opened=kept.opened,
                cooled=kept.cooled,
                cooldown=min(LONGEST_COOLDOWN, kept.cooldown),
            )
            if condition.failures or condition.troubled(now):
                self._put(sick.key, condition, now)

    def _put(self, key: Key, condition: Condition, now: float) -> None:
        self._kept[key] = condition
        self._kept.move_to_end(key)
        self.changed = True
        if len(self._kept) > self._limit:
            self._forget(now)

    def _forget(self, now: float) -> None:
        """The healthy go first, then the least recently touched; a tenth at once, so that it is seldom sorted."""
        worth = sorted(self._kept, key=lambda key: self._kept[key].troubled(now))
        for key in worth[: len(worth) - self._limit + self._limit // 10]:
            del self._kept[key]


def _shared(key: Key) -> Key:
    return (*key[:-1], "")


def _both(key: Key) -> tuple[Key, ...]:
    """What all accounts share, and what is this one's alone."""
    shared = _shared(key)
    return (key,) if key == shared else (shared, key)


def _is_probe(kept: Condition, sent: float | None) -> bool:
    return kept.probe is not None and (sent is None or sent >= kept.probe)
