"""The way of a request whose answer is put together of pieces: a list of inputs, each known, under way, or asked for.

Rule: each input is a request of its own, under its own key, as long as that costs nobody more. What a client lacks goes
out in one call of its own; it joins others' calls for what those ask already, and a call lives while anybody reads it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from proxy.accounts import Accounts
from proxy.core import policy
from proxy.core.asker import Asker
from proxy.core.embeddings import form_of, joined
from proxy.core.recording import Broken
from proxy.errors import NotCached, Overloaded, PenstockError, UpstreamBadContentType, UpstreamError
from proxy.flights import Flight
from proxy.gathered import Gathered, Listed, listed_of
from proxy.interfaces import Clock, Store
from proxy.pipeline import Live, Pipeline, is_anothers
from proxy.plans import Piece, Plan, Plans
from proxy.router import Ranked

AT_ONCE = 512 * 1024  # bytes of vectors that are put together on the loop


class Piecemeal:
    """The acts are the pipeline's; here is their order for a list."""

    def __init__(self, pipeline: Pipeline, plans: Plans, store: Store, accounts: Accounts, clock: Clock) -> None:
        self.pipeline = pipeline
        self._plans = plans
        self._store = store
        self._accounts = accounts
        self._clock = clock

    async def begin(self, plan: Plan, asker: Asker) -> Gathered | Live:
        """Look up, join, and ask for the rest. Raises what Pipeline.begin does; nothing is left behind then."""
        gathered = Gathered(plan, asker)
        if self._plans.terms.shadow:
            return await self._in_shadow(gathered)
        await self._gather(gathered)
        return gathered

    async def _in_shadow(self, gathered: Gathered) -> Live:
        """All of it is asked for, whatever is known: what would have come of it counts as one, as it is paid as one."""
        plan, asker = gathered.plan, gathered.asker
        ranked = await self.pipeline.rank(plan, asker) if plan.ranked == "first" else None
        await self._look_up(gathered)
        flights = [self._under_way(plan, piece.key, ()) for piece in gathered.missing]
        verdict = policy.shadowed(plan.verdict, fresh=not gathered.missing, under_way=None not in flights)
        noted = replace(plan, verdict=verdict, pieces=plan.pieces if verdict.lead else ())
        live = self.pipeline.lead(noted, None, asker, ranked)
        live.reader.flight.outrun.update(gathered.found)  # who is known already stays as old as it is
        return live

    async def _gather(self, gathered: Gathered, unless: Sequence[Flight] = (), *, alone: bool = False) -> None:
        """Have each missing piece made. `unless`: flights that were not for it; `alone`: none is."""
        plan, asker, ranked, ranked_for = gathered.plan, gathered.asker, None, frozenset[bytes]()
        while True:
            await self._look_up(gathered)
            if not gathered.missing:
                return
            if plan.call.directives.only_if_cached:
                raise NotCached("`only-if-cached` was asked for, and not all of this is stored.")
            # From here to a flight nothing is awaited but a ranking, and after that all is looked at anew.
            flights = {
                piece.key: None if alone else self._under_way(plan, piece.key, unless) for piece in gathered.missing
            }
            own = [piece for piece in gathered.missing if flights[piece.key] is None]
            if plan.ranked != "first" or ranked_for.issuperset(piece.key for piece in own):
                break
            try:
                ranked = await self.pipeline.rank(self._plans.reduced(plan, own), asker)
            except UpstreamError:  # nobody may be asked now
                if not self._take_stale(gathered, [piece.key for piece in own]):
                    raise
            ranked_for = frozenset(piece.key for piece in own)
        self._take(gathered, flights, own, ranked)

    def _take(
        self,
        gathered: Gathered,
        flights: Mapping[bytes, Flight | None],
        own: Sequence[Piece],
        ranked: Ranked | None,
    ) -> None:
        """Read those flights, and lead one for its `own` pieces."""
        plan, asker = gathered.plan, gathered.asker
        joined: dict[Flight, list[Piece]] = {}
        for piece in gathered.missing:
            if (flight := flights[piece.key]) is not None:
                joined.setdefault(flight, []).append(piece)
        for flight, pieces in joined.items():
            reader = flight.reader(self._plans.ttl(plan), asker, keys=[piece.key for piece in pieces])
            gathered.others.append(Live(replace(plan, pieces=tuple(pieces)), None, reader, collapsed=True))
        if not own:
            return
        stale = next(iter(gathered.stale.values()), None)
        try:
            gathered.own.append(self.pipeline.lead(self._plans.reduced(plan, own), stale, asker, ranked))
        except PenstockError:
            gathered.leave()
            raise

    def _under_way(self, plan: Plan, key: bytes, unless: Sequence[Flight]) -> Flight | None:
        flight = self.pipeline.flights.find(key) if plan.verdict.join else None
        return None if flight in unless else flight

    async def _look_up(self, gathered: Gathered) -> None:
        plan = gathered.plan
        if not plan.verdict.look_up:
            return
        for key, entry in (await self._store.get_many([piece.key for piece in gathered.missing])).items():
            if not self.pipeline.stands(entry, key):
                continue
            fresh = policy.accepts(plan.call.directives, self.pipeline.freshness(entry))
            (gathered.found if fresh else gathered.stale)[key] = entry

    async def settle(self, gathered: Gathered) -> Live | None:
        """Wait until all of it is there; or the call whose answer, an error for one, is that of the whole list.

        Raises what a call failed with.
        """
        waiting = [*gathered.own, *gathered.others]
        while waiting:
            live = waiting.pop(0)
            flight, missing = live.reader.flight, {piece.key for piece in gathered.missing}
            wanted = [piece.key for piece in live.plan.pieces if piece.key in missing]
            if not wanted:
                continue
            error = await self._failure(live)
            if error is None and flight.entries:
                there = gathered.shared if live.is_free else gathered.made
                there.update({key: flight.entries[key] for key in wanted})
            elif _is_not_for_it(live, error):
                before = [*gathered.own, *gathered.others]
                refused = error is None  # who was refused together does not wait for one refusal after the other
                await self._gather(gathered, unless=[each.reader.flight for each in before], alone=refused)
                waiting += [each for each in (*gathered.own, *gathered.others) if each not in before]
            elif not (_is_failure(live, error) and self._take_stale(gathered, wanted)):
                if error is not None:
                    raise error
                return self._alone(gathered, live)
        return None

    @staticmethod
    async def _failure(live: Live) -> PenstockError | None:
        """Once a call is over, or too large to be taken apart: what it failed with."""
        try:
            await live.reader.head()
        except PenstockError as error:
            return error
        end = await live.reader.ended()
        return end.error if isinstance(end, Broken) else None

    @staticmethod
    def _alone(gathered: Gathered, live: Live) -> Live:
        """A call that came to nothing which could be taken apart: what the client is told in its place.

        Raises UpstreamBadContentType or Overloaded where it asked for more than that call.
        """
        recording = live.reader.recording
        if gathered.is_plain or (recording.head is not None and recording.head.status != 200):
            return live
        if recording.oversized:
            raise Overloaded("As much is held of answers that are being made as may be (server.max_buffered).")
        raise UpstreamBadContentType("The provider's answer does not hold one embedding for each input.", answered=True)

    def _take_stale(self, gathered: Gathered, wanted: list[bytes]) -> bool:
        """Old answers in place of a failure, if there is one for each."""
        kept = {key: gathered.stale[key] for key in wanted if key in gathered.stale}
        if len(kept) < len(wanted) or not all(self.pipeline.serves_stale(gathered.plan, old) for old in kept.values()):
            return False
        gathered.found |= kept
        gathered.is_stale = True
        return True

    async def body(self, gathered: Gathered) -> bytes:
        """What the client is told, once all of it is there."""
        parts, form = gathered.parts, form_of(gathered.plan.call.body) or ""
        if sum(len(part.body) for part in parts) <= AT_ONCE:
            return joined(parts, form)
        return await asyncio.to_thread(joined, parts, form)

    def listed(self, gathered: Gathered) -> Listed:
        """What it took, and what it saved, once all of it is there."""
        now = self._clock.wall()
        worth = partial(self._accounts.given_again, now=now)
        return listed_of(gathered, worth, self.pipeline.freshness)


def _is_failure(live: Live, error: PenstockError | None) -> bool:
    """Of the provider, for which an old answer may stand in."""
    head = live.reader.recording.head
    return isinstance(error, UpstreamError) or (head is not None and (head.status == 429 or head.status >= 500))


def _is_not_for_it(live: Live, error: PenstockError | None) -> bool:
    """Did the call of another fail for a reason that this client does not share? It asks for itself then."""
    head = live.reader.recording.head
    if error is not None or head is None or head.status == 429 or head.status >= 500:
        return is_anothers(live, error) and not live.reader.recording.length
    return live.collapsed  # refused, or of no use: that may be about what else it asks for
