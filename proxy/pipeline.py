"""The way of a request, top to bottom: who may answer, key, look up, join or lead, rank, ask, account, keep, learn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Self

import msgspec

from proxy.accounts import Accounts
from proxy.claims import Claimed, Claims
from proxy.core import policy
from proxy.core.asker import Asker
from proxy.core.bill import NOTHING
from proxy.core.books import Decided
from proxy.core.entry import Entry
from proxy.core.policy import Freshness
from proxy.core.ranking import Estimate
from proxy.core.recording import Broken, Clean, Ending, Head
from proxy.errors import (
    InsufficientQuota,
    LedgerUnavailable,
    ModelNotPriced,
    NotCached,
    PenstockError,
    QueueTimeout,
    RateLimited,
    UpstreamError,
)
from proxy.flights import Flight, Flights, Reader
from proxy.interfaces import Clock, Epoch, Meter, Provider, Store
from proxy.plans import Plan, Plans
from proxy.producer import Job, Producer
from proxy.router import Ranked, Router
from proxy.storing import Storing

OF_THE_PAYER = (InsufficientQuota, ModelNotPriced, RateLimited, LedgerUnavailable)


class Hit(msgspec.Struct, frozen=True):
    """Answered from the store; what the answer would cost now is `saved`, in USD. `stale`: as the provider failed."""

    entry: Entry
    freshness: Freshness
    saved: Decimal | None
    name: str  # of the model, as the settings call it
    stale: bool = False


@dataclass(slots=True)
class Live:
    """Answered by a recording that is being made. `with live:` leaves it on every exit."""

    plan: Plan
    found: Entry | None
    reader: Reader
    collapsed: bool
    since: float | None = None  # when it left a flight that was not for it, by the monotonic clock

    @property
    def is_free(self) -> bool:
        """Does another pay? Who joined does where the leader left before anything was sent."""
        return self.collapsed and self.reader.flight.payer is not self.reader

    @property
    def cost(self) -> Decimal | None:
        """What the one who pays has paid, as far as that is known."""
        flight = self.reader.flight
        if flight.bill is None:
            return NOTHING if flight.free else None
        return flight.bill.usd

    @property
    def decided(self) -> Decided:
        """Who was to answer, and who did."""
        flight = self.reader.flight
        ranking, attempts = flight.ranking, tuple(flight.attempts)
        if ranking is None:
            return Decided(attempts=attempts)
        first = ranking.order[0].option if ranking.order else None
        why = "fallback" if flight.served not in (None, first) else ranking.why
        dropped = tuple([(each.option.name, each.reason or "") for each in ranking.dropped])
        return Decided(self.plan.choice.route, why, dropped, attempts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.leave()


def _is_of_the_payer(error: PenstockError | None) -> bool:
    return isinstance(error, OF_THE_PAYER) and not isinstance(error, QueueTimeout)


def is_anothers(live: Live, error: PenstockError | None = None) -> bool:
    """Did it fail as whoever was to pay could not, or would not? That is no refusal of who joined."""
    return live.collapsed and (_is_of_the_payer(error) or live.reader.flight.capped)


@dataclass(frozen=True, slots=True)
class Edges:
    """What the pipeline acts through."""

    providers: Mapping[str, Provider]
    store: Store
    flights: Flights
    epoch: Epoch
    meter: Meter
    clock: Clock
    router: Router
    claims: Claims
    producer: Producer
    accounts: Accounts


class Pipeline:
    """The decisions are the core's, the acts the edges'; here is their order."""

    def __init__(self, plans: Plans, edges: Edges) -> None:
        self._plans = plans
        self._terms = plans.terms
        self._edges = edges
        self._storing = Storing(plans, edges.store, edges.epoch, edges.meter, edges.clock, edges.router)
        self.plan = plans.make

    @property
    def flights(self) -> Flights:
        return self._edges.flights

    async def begin(self, plan: Plan, asker: Asker, ranked: Ranked | None = None) -> Hit | Live:
        """Answer from the store, or join or lead a flight. Waits for nothing but the store, and the ranking of a few.

        A request's own refusals come before it leads: InsufficientQuota, ModelNotPriced, RateLimited, OverCostCap.
        """
        if plan.reports_usage != self._plans.reports_usage(plan.choice):
            plan = self.plan(plan.call, asker.grant)
        directives = plan.call.directives
        found = None if self._terms.shadow else await self._look_up(plan)
        if found is not None and policy.accepts(directives, freshness := self.freshness(found)):
            return self._hit(plan, found, freshness)
        if directives.only_if_cached:
            raise NotCached("`only-if-cached` was asked for, and no stored answer can be given.")
        if self._terms.shadow and plan.key is not None:
            return await self._in_shadow(plan, asker)
        if (joined := self._join(plan, found, asker)) is not None:
            return joined
        if plan.ranked == "first" and ranked is None:
            try:
                # While it is ranked another may lead, or even land: so look again.
                return await self.begin(plan, asker, await self.rank(plan, asker))
            except UpstreamError:
                if (stale := self._stale(plan, found)) is not None:
                    return stale
                raise
        return self.lead(plan, found, asker, ranked)

    async def _in_shadow(self, plan: Plan, asker: Asker) -> Live:
        """Ask the provider whatever the cache holds, which says what would have come of it. Nothing found is given."""
        ranked = await self.rank(plan, asker) if plan.ranked == "first" else None
        found = await self._look_up(plan)
        # From here to the end nothing is awaited: who would have joined is told by what he would have found.
        fresh = found is not None and policy.accepts(plan.call.directives, self.freshness(found))
        flight = self._under_way(plan)
        verdict = policy.shadowed(plan.verdict, fresh=fresh, under_way=flight is not None)
        if flight is not None and verdict.shadow == "collapsed":
            flight.ttl = min(flight.ttl, self._plans.ttl(plan))  # as if it had joined
        return self.lead(replace(plan, verdict=verdict, key=plan.key if verdict.lead else None), None, asker, ranked)

    async def settle(self, live: Live) -> Head | Hit:
        """The head of a live answer once it is known, or a stale entry where the provider failed; UpstreamError."""
        try:
            head = await live.reader.head()
        except (UpstreamError, *OF_THE_PAYER) as error:
            if (instead := await self._instead(live, error)) is not None:
                return instead
            raise
        if (head.status == 429 or head.status >= 500) and (instead := await self._instead(live)) is not None:
            return instead
        if not live.collapsed:
            return head
        # A refusal may be about what does not enter the key (`user`, `stream_options`): it answers the same bytes only.
        # Others ask for themselves, each alone, lest they wait for one refusal after the other.
        alone = 400 <= head.status < 429 and live.reader.flight.origin != live.plan.call.raw
        return await self._anew(live, alone=alone) if alone or not await self._fits(live, head) else head

    async def _instead(self, live: Live, error: PenstockError | None = None) -> Head | Hit | None:
        """What a reader gets in place of a failure, if anything."""
        if is_anothers(live, error):
            return await self._anew(live)
        return None if _is_of_the_payer(error) else self._stale(live.plan, live.found)

    async def _anew(self, live: Live, *, alone: bool = False) -> Head | Hit:
        """Another flight for who joined one that is not for him, or from which its leader's cap kept models away."""
        left, plan, asker = live.reader.flight, live.plan, live.reader.asker
        live.reader.leave()
        ranked = await self.rank(plan, asker) if plan.ranked == "first" else None
        again = None if alone else self._join(plan, live.found, asker, unless=left)
        again = again or self.lead(plan, live.found, asker, ranked)
        live.reader, live.collapsed, live.since = again.reader, again.collapsed, self._edges.clock.monotonic()
        return await self.settle(live)

    def _join(self, plan: Plan, found: Entry | None, asker: Asker, *, unless: Flight | None = None) -> Live | None:
        """Read the newest flight of this key, if it takes one more. Synchronous, like `lead`: nobody comes between."""
        flight = self._under_way(plan)
        if flight is None or flight is unless:
            return None
        return Live(plan, found, flight.reader(self._plans.ttl(plan), asker), collapsed=True)

    def _under_way(self, plan: Plan) -> Flight | None:
        return self._edges.flights.find(plan.key) if plan.key is not None and plan.verdict.join else None

    def lead(self, plan: Plan, found: Entry | None, asker: Asker, ranked: Ranked | None) -> Live:
        """Set aside what it may take, and begin. Raises the refusals of `begin`, Overloaded or InvalidRequest."""
        if not self._terms.shared:
            self._edges.router.check_held(plan.call)
        claimed = self._edges.claims.first(asker.grant, ranked.ranking.order) if ranked is not None else Claimed()
        try:
            reader = self._edges.flights.lead(
                plan.keys,
                lambda flight: self._produce(flight, plan, ranked, claimed),
                ttl=self._plans.ttl(plan),
                origin=plan.call.raw,
                asker=asker,
            )
        except PenstockError:
            claimed.give_back()
            raise
        reader.flight.asked = plan.call.model
        reader.flight.divided = bool(plan.pieces)
        reader.flight.shadow = plan.verdict.shadow
        reader.flight.capped = ranked is not None and ranked.capped
        if reader.flight.task is not None:  # which may be cancelled before it begins
            reader.flight.task.add_done_callback(lambda _: claimed.give_back())
        return Live(plan, found, reader, collapsed=False)

    async def rank(self, plan: Plan, asker: Asker) -> Ranked:
        left = self._edges.claims.left(asker.grant)
        ranked = await self._edges.router.consider(plan.call, plan.choice, plan.account, plan.links, left)
        self._edges.meter.decided(plan.choice.route, ranked.ranking)
        if not ranked.ranking.order:
            spent = self._edges.claims.refusal(asker.grant, ranked.ranking.dropped)
            raise spent or self._edges.router.refusal(ranked)
        return ranked

    async def _produce(self, flight: Flight, plan: Plan, ranked: Ranked | None, claimed: Claimed) -> None:
        """Make a recording: ask who is ranked, log what comes, tell the readers how it ended, keep, learn.

        What each attempt costs is told to all who reckon with it as soon as it is over (accounts.py).
        """
        epoch, began = self._edges.epoch.current, self._edges.clock.wall()
        job = Job(flight, plan.call, plan.choice, plan.account, flight.asker, claimed)
        end: Ending
        try:
            if ranked is None and plan.ranked is not None:
                ranked = await self.rank(plan, job.asker)
            flight.ranking = None if ranked is None else ranked.ranking
            with self._edges.router.asking(ranked):
                end = await self._edges.producer.make(job, await self._order(plan, ranked))
        except PenstockError as error:
            end = Broken(error)
        finally:
            self._note_stored(job, plan)  # whatever becomes of it, and whoever has left
        await self._storing.divide(job, plan, end, epoch)
        flight.finish(end)
        # From here to the end nothing is awaited: whoever comes finds the flight, or the entry.
        self._storing.keep(job, plan, epoch)
        self._learn(job, ranked, began)

    async def _order(self, plan: Plan, ranked: Ranked | None) -> Sequence[Estimate]:
        if ranked is not None:
            return ranked.ranking.order
        return [await self._edges.router.suppose(plan.call, option) for option in plan.choice.options]

    def _note_stored(self, job: Job, plan: Plan) -> None:
        """The provider may hold this Response from now on, for others to go on from."""
        flight, recorder, option = job.flight, job.recorder, job.flight.served
        name = None if recorder is None else recorder.progress.name
        if name is None or option is None or plan.call.body.get("store") is False:
            return
        usage, place = None if flight.bill is None else flight.bill.usage, option.target.place(job.account)
        learned, now = self._edges.router.learned, self._edges.clock.wall()
        learned.holds(name, job.asker.grant.id, place, now, usage=usage, entry=plan.key)

    async def forget_stored(self, name: str) -> None:
        """A Response was deleted at its provider: nobody is given it again."""
        said, store = b'"%b"' % name.encode("latin-1"), self._edges.store
        for flight in self._edges.flights:
            if any(said in event.raw for event in flight.recording.events[:1]):
                flight.ttl = 0
        stored = self._edges.router.learned.stored.drop(name)
        entry = None if stored is None else await store.get(stored.entry)
        if stored is not None and entry is not None and said in entry.body:  # else a younger one has taken its place
            await store.delete(stored.entry)

    def _learn(self, job: Job, ranked: Ranked | None, began: float) -> None:
        """What a whole answer teaches of who gave it."""
        recording, recorder, option = job.flight.recording, job.recorder, job.flight.served
        if ranked is None or recorder is None or option is None or not isinstance(recording.end, Clean):
            return
        if recording.head is None or recording.head.status != 200 or recorder.progress.flaw() is not None:
            return
        usage = job.flight.bill.usage if job.flight.bill is not None else None
        timed = recording.head.kind == "stream" and recording.times and not recording.dropped
        first = recording.times[0] if timed else None
        self._edges.router.learn(ranked, option, usage, first=first, began=began)

    async def _look_up(self, plan: Plan) -> Entry | None:
        key, call = plan.key, plan.call
        if key is None or not plan.verdict.look_up:
            return None
        entry = await self._edges.store.get(key)
        if entry is None or not self.stands(entry, key):
            return None
        return entry if entry.serves(stream=call.stream, usage=call.wants_usage) else None

    def stands(self, entry: Entry, key: bytes) -> bool:
        """Is it this key's, and has no purge meant it?"""
        epoch = self._edges.epoch
        return entry.meta.key == key and (entry.meta.epoch == epoch.current or epoch.spares(entry.meta))

    def freshness(self, entry: Entry) -> Freshness:
        meta, terms = entry.meta, self._terms
        return policy.freshness(meta.ended, meta.ttl, now=self._edges.clock.wall(), ttl_today=terms.ttl)

    def _hit(self, plan: Plan, entry: Entry, freshness: Freshness, *, stale: bool = False) -> Hit:
        """What is given again is saved, and its conversation stays with the model that it is from."""
        option = plan.choice.option(entry.meta.provider, entry.meta.model)
        if option is None:
            return Hit(entry, freshness, None, entry.meta.model, stale)
        now = self._edges.clock.wall()
        if plan.links:
            self._edges.router.learned.given_again(plan.links, option.target.place(plan.account), now)
        return Hit(entry, freshness, self._edges.accounts.given_again(entry, option, now), option.name, stale)

    def _stale(self, plan: Plan, found: Entry | None) -> Hit | None:
        if found is None or not self.serves_stale(plan, found):
            return None
        return self._hit(plan, found, self.freshness(found), stale=True)

    def serves_stale(self, plan: Plan, found: Entry) -> bool:
        """May it answer where the provider failed?"""
        limit = self._terms.stale_if_error
        return policy.accepts_stale(plan.call.directives, self.freshness(found), stale_if_error=limit)

    @staticmethod
    async def _fits(live: Live, head: Head) -> bool:
        """Does the answer fit this request's form? A stream is JSON only whole, with usage, and within `max_entry`; and
        only so can JSON repeat what this request said.
        """
        streamed = head.kind == "stream"
        echo = live.plan.echo if live.reader.flight.origin != live.plan.call.raw else None  # else it says the same
        as_it_is = (streamed or not echo) if live.plan.call.stream else not (streamed or echo)
        if as_it_is or head.status != 200:
            return True
        end = await live.reader.ended()
        recording = live.reader.recording
        return isinstance(end, Broken) or (end is not None and recording.convertible and recording.has_usage)
