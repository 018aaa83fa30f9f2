"""A list on its way, and what it came to: what piecemeal.py gathers, and the sums over it.

Rule: nothing is awaited and no clock is read. Each place of a list counts as one thing: known, joined, or asked for.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Self

import msgspec

from pricing.cost import Usage
from proxy.core.asker import Asker
from proxy.core.bill import NOTHING
from proxy.core.embeddings import Part, form_of
from proxy.core.entry import Entry
from proxy.core.policy import Freshness
from proxy.core.routing import Option
from proxy.pipeline import Live
from proxy.plans import Piece, Plan

Worth = Callable[[Entry, Option], Decimal | None]
"""USD that an answer of this model would cost now; None: nobody knows."""


class Listed(msgspec.Struct, frozen=True):
    """What a list came to. `partial`: a part of it was known, or made for another. `known`, `joined`, `asked`: how many
    of its places were that; what it holds twice is asked for once, and known then.

    `usage`: of all of it; `again`: of what nobody paid again, which `saved` so much USD; `cost`: USD of its own calls.
    None: not known, or nothing. `found_stale`: a part of it was known and too old; `stored`: what it asked for is kept.
    `provider`, `model`, `upstream`: of whoever made the last part of it.
    """

    outcome: str
    partial: bool
    known: int
    joined: int
    asked: int
    usage: Usage | None
    again: Usage | None
    saved: Decimal | None
    cost: Decimal | None
    freshness: Freshness
    found_stale: bool
    stored: bool
    provider: str
    model: str
    upstream: str
    leader: str | None = None


@dataclass(slots=True)
class Gathered:
    """A list on its way. `found`: what is known of it, by key, and `stale` what is too old; `own`: the calls that are
    made for it alone, of one if all is well; `others`: those it joined. `with gathered:` leaves all on every exit.
    """

    plan: Plan
    asker: Asker
    found: dict[bytes, Entry] = field(default_factory=dict)
    stale: dict[bytes, Entry] = field(default_factory=dict)
    own: list[Live] = field(default_factory=list)
    others: list[Live] = field(default_factory=list)
    made: dict[bytes, Entry] = field(default_factory=dict)  # by calls of its own
    shared: dict[bytes, Entry] = field(default_factory=dict)  # by others'
    is_stale: bool = False

    @property
    def missing(self) -> list[Piece]:
        """Neither known nor made yet."""
        there = (self.found, self.made, self.shared)
        return [piece for piece in self.plan.pieces if not any(piece.key in entries for entries in there)]

    @property
    def keys(self) -> list[bytes]:
        """At each place of the list."""
        return [self.plan.pieces[place].key for place in self.plan.places]

    @property
    def entries(self) -> list[Entry]:
        """At each place, once all of it is there."""
        by_key = self.found | self.made | self.shared
        return [by_key[key] for key in self.keys]

    @property
    def is_plain(self) -> bool:
        """Is its answer that of its one call, as it came?"""
        alone = not self.found and not self.shared and len(self.own) == 1
        return alone and self.own[0].plan is self.plan  # else there may be others that it joined, and pays now

    @property
    def outcome(self) -> str:
        if self.own and self.made:
            return "miss"
        if self.is_stale:
            return "stale"
        return "collapsed" if self.shared or self.made else "hit"  # made: it pays, as who led has left

    @property
    def leader(self) -> str | None:
        """Whose attempts answered it, where it had none of its own."""
        live = next((each for each in self.others if each.is_free), None)
        return None if live is None or self.outcome != "collapsed" else live.reader.flight.asker.request

    @property
    def cost(self) -> Decimal | None:
        """USD of its own calls, as far as they are known; None: of one of them that is not."""
        costs = [live.cost for live in (*self.own, *self.others) if not live.is_free]
        return None if None in costs else sum(filter(None, costs), NOTHING)

    @property
    def parts(self) -> list[Part]:
        """What it is put together of."""
        keys, form = self.keys, form_of(self.plan.call.body)
        return [
            Part(entry.body, entry.meta.form or form or "", key in self.made)
            for key, entry in zip(keys, self.entries, strict=True)
        ]

    @property
    def first(self) -> Live | None:
        """Whose call stands for it: its own, if it has one."""
        return next(iter((*self.own, *self.others)), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        for live in (*self.own, *self.others):
            live.reader.leave()


def listed_of(gathered: Gathered, worth: Worth, freshness: Callable[[Entry], Freshness]) -> Listed:
    """What it took, and what it saved, once all of it is there."""
    plan, entries, keys = gathered.plan, gathered.entries, gathered.keys
    once = set({key: place for place, key in enumerate(keys) if key in gathered.made}.values())
    again = [entry for place, entry in enumerate(entries) if place not in once]
    joined = sum(key in gathered.shared for key in keys)
    last = next((entry for entry in reversed(entries) if entry.meta.key in gathered.made), entries[-1])
    option = plan.choice.option(last.meta.provider, last.meta.model)
    return Listed(
        outcome=gathered.outcome,
        partial=bool(gathered.found) or (joined > 0 and bool(once)),
        known=len(keys) - joined - len(once),
        joined=joined,
        asked=len(once),
        usage=_added(entries),
        again=_added(again) if again else None,
        saved=_saved(gathered, again, worth) if again else None,
        cost=gathered.cost,
        freshness=_oldest([freshness(entry) for entry in gathered.found.values()]),
        found_stale=bool(gathered.stale),
        stored=any(live.reader.flight.kept for live in gathered.own),
        provider=last.meta.provider,
        model=last.meta.model if option is None else option.name,
        upstream=last.meta.model,
        leader=gathered.leader,
    )


def _saved(gathered: Gathered, again: Sequence[Entry], worth: Worth) -> Decimal | None:
    total = NOTHING
    for entry in again:
        option = gathered.plan.choice.option(entry.meta.provider, entry.meta.model)
        usd = None if option is None else worth(entry, option)
        if usd is None:
            return None
        total += usd
    return total


def _oldest(found: Sequence[Freshness]) -> Freshness:
    """Of what was known; fresh for ever where nothing was."""
    left = min((each.left for each in found), default=math.inf)
    return Freshness(max((each.age for each in found), default=0.0), left)


def _added(entries: Sequence[Entry]) -> Usage | None:
    """Of embeddings, which have no output. None: of one of them it is not known."""
    usages = [entry.meta.usage for entry in entries]
    if None in usages:
        return None
    return Usage(input=sum(usage.input for usage in usages if usage is not None), cached=0, output=0)
