"""The way of a request, top to bottom: rights and targets, key, look up, join or lead, provider, recording, keep."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, assert_never

import msgspec

from proxy.complaints import Complaints
from proxy.core import canonical, keep, policy
from proxy.core.call import Call
from proxy.core.entry import Entry, Meta, make_entry
from proxy.core.policy import Freshness, Rules, Verdict
from proxy.core.recording import Broken, Clean, Ending, Head
from proxy.core.routing import Routes, Target
from proxy.core.status import result_of
from proxy.errors import NotCached, UpstreamError
from proxy.flights import Flight, Flights, Reader
from proxy.interfaces import Clock, Epoch, Meter, Provider, Store
from proxy.recorder import Recorder

KEY_VERSION = b"1"


class Terms(msgspec.Struct, frozen=True):
    """How answers are kept: the secret under the keys, what they ignore, who shares them, how long they may answer."""

    secret: bytes
    ignore: tuple[str, ...]
    shared: bool
    ttl: float
    stale_if_error: float


@dataclass(frozen=True, slots=True)
class Hit:
    """Answered from the store. `stale`: only because the provider failed."""

    entry: Entry
    freshness: Freshness
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What a call comes to: where it may go, what it may do with the cache, and under which key.

    Follows from the call, the settings and `reports_usage` (of the target's provider, which may find out that it does
    not).
    """

    call: Call
    target: Target
    verdict: Verdict
    key: bytes | None
    reports_usage: bool


@dataclass(slots=True)
class Live:
    """Answered by a recording that is being made. `with live:` leaves it on every exit."""

    plan: Plan
    found: Entry | None
    reader: Reader
    collapsed: bool

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.reader.leave()


@dataclass(frozen=True, slots=True)
class Edges:
    """What the pipeline acts through."""

    providers: Mapping[str, Provider]
    store: Store
    flights: Flights
    epoch: Epoch
    meter: Meter
    clock: Clock
    complaints: Complaints


class Pipeline:
    """The decisions are the core's, the acts the edges'; here is their order."""

    def __init__(self, terms: Terms, rules: Rules, routes: Routes, edges: Edges) -> None:
        self._terms = terms
        self._keyed = canonical.keyed(terms.secret)
        self._rules = rules
        self._routes = routes
        self._edges = edges

    def plan(self, call: Call) -> Plan:
        """Judge a call and make its key."""
        target = self._routes.target(call.model)
        verdict = policy.judge(call, (target.upstream,), self._rules)
        key = self._key(call, target) if verdict.lead else None
        return Plan(call, target, verdict, key, self._edges.providers[target.provider].reports_usage)

    async def begin(self, plan: Plan) -> Hit | Live:
        """Answer from the store, or join or lead a flight. Waits for nothing but the store."""
        if plan.reports_usage != self._edges.providers[plan.target.provider].reports_usage:
            plan = self.plan(plan.call)
        directives = plan.call.directives
        found = await self._look_up(plan.key, plan.call) if plan.key is not None and plan.verdict.look_up else None
        if found is not None and policy.accepts(directives, freshness := self._freshness(found)):
            return Hit(found, freshness)
        if directives.only_if_cached:
            raise NotCached("`only-if-cached` was asked for, and no stored answer can be given.")
        return self._fly(plan, found)

    async def settle(self, live: Live) -> Head | Hit:
        """The head of a live answer once it is known, or a stale entry where the provider failed; UpstreamError."""
        try:
            head = await live.reader.head()
        except UpstreamError:
            if (stale := self._stale(live)) is not None:
                return stale
            raise
        if (head.status == 429 or head.status >= 500) and (stale := self._stale(live)) is not None:
            return stale
        if not live.collapsed:
            return head
        # A refusal may be about what does not enter the key (`user`, `stream_options`): it answers the same bytes only.
        # Others ask for themselves, each alone, lest they wait for one refusal after the other.
        alone = 400 <= head.status < 429 and live.reader.flight.origin != live.plan.call.raw
        if alone or not await self._fits(live, head):
            left = live.reader.flight
            live.reader.leave()
            again = self._fly(live.plan, live.found, unless=left, alone=alone)
            live.reader, live.collapsed = again.reader, again.collapsed
            return await self.settle(live)
        return head

    def _fly(self, plan: Plan, found: Entry | None, *, unless: Flight | None = None, alone: bool = False) -> Live:
        """Join the newest flight of this key, or lead one. Synchronous: nobody else can act in between."""
        ttl = policy.lifetime(plan.call.directives, self._terms.ttl) if plan.verdict.keep else 0.0
        if plan.verdict.join and plan.key is not None and not alone:
            flight = self._edges.flights.find(plan.key)
            if flight is not None and flight is not unless:
                return Live(plan, found, flight.reader(ttl), collapsed=True)
        reader = self._edges.flights.lead(
            plan.key, lambda flight: self._produce(flight, plan), ttl=ttl, origin=plan.call.raw
        )
        return Live(plan, found, reader, collapsed=False)

    async def _produce(self, flight: Flight, plan: Plan) -> None:
        """Make a recording: ask the provider, log what comes, tell the readers how it ended, keep what is worth it."""
        provider = self._edges.providers[plan.target.provider]
        epoch = self._edges.epoch.current
        recorder = Recorder(flight, plan.call, provider)
        end: Ending | None = None
        try:
            reply = await provider.open(plan.call, plan.target)
            try:
                end = await recorder.record(reply)
            finally:
                reply.close()
        except UpstreamError as error:
            end = Broken(error)
        finally:
            self._edges.meter.upstream(provider.name, _result(end, flight))
        flight.finish(end)
        self._complain(flight, plan.target, end)
        # From here to the end nothing is awaited: whoever comes finds the flight, or the entry.
        self._keep(flight, plan, recorder, epoch)

    def _complain(self, flight: Flight, target: Target, end: Ending) -> None:
        head = flight.recording.head
        if isinstance(end, Broken) and isinstance(end.error, UpstreamError):
            self._edges.complaints.failed(target.provider, end.error, model=target.upstream)
        elif head is not None:
            self._edges.complaints.answered(target.provider, head.status, model=target.upstream)

    def _keep(self, flight: Flight, plan: Plan, recorder: Recorder, epoch: int) -> None:
        if plan.key is None or flight.ttl <= 0 or flight.outrun:
            return
        recording = flight.recording
        reason = keep.flaw(recording, recorder.progress, plan.call)
        self._edges.meter.stored(reason or "stored")
        if reason is not None or recording.head is None:
            return
        key = plan.key
        if plan.reports_usage != self._edges.providers[plan.target.provider].reports_usage:
            key = self._key(plan.call, plan.target)  # this very call found out, and later ones have the new key
        meta = Meta(
            key=key,
            kind=recording.head.kind,
            provider=plan.target.provider,
            model=plan.target.upstream,
            ended=self._edges.clock.wall(),
            ttl=flight.ttl,
            epoch=epoch,
            usage_asked=recording.head.usage_asked,
            has_usage=recording.has_usage,
        )
        entry = make_entry(meta, recording.events, recording.times)
        self._edges.store.put(key, entry, expire=flight.ttl + self._terms.stale_if_error)
        flight.land()

    def _key(self, call: Call, target: Target) -> bytes:
        """What makes two requests the same; see canonical.py for the body's part."""
        terms, provider = self._terms, self._edges.providers[target.provider]
        namespace = call.credentials if provider.client_pays else "" if terms.shared else call.owner
        # A provider that is not asked for the usage of streams has another answer for each form of a request.
        form = b"" if provider.reports_usage else b"%d%d" % (call.stream, call.wants_usage)
        said = msgspec.json.encode((namespace, call.account, call.forwarded, terms.ignore))
        body = canonical.canonical(call.body, terms.ignore)
        parts = (KEY_VERSION, said, call.path.encode(), call.query, target.identity, form, call.directives.sample, body)
        return canonical.key(self._keyed, parts)

    async def _look_up(self, key: bytes, call: Call) -> Entry | None:
        entry = await self._edges.store.get(key)
        if entry is None or entry.meta.key != key or entry.meta.epoch != self._edges.epoch.current:
            return None
        return entry if entry.serves(stream=call.stream, usage=call.wants_usage) else None

    def _freshness(self, entry: Entry) -> Freshness:
        meta, terms = entry.meta, self._terms
        return policy.freshness(meta.ended, meta.ttl, now=self._edges.clock.wall(), ttl_today=terms.ttl)

    def _stale(self, live: Live) -> Hit | None:
        if live.found is None:
            return None
        freshness = self._freshness(live.found)
        allowed = policy.accepts_stale(live.plan.call.directives, freshness, stale_if_error=self._terms.stale_if_error)
        return Hit(live.found, freshness, stale=True) if allowed else None

    @staticmethod
    async def _fits(live: Live, head: Head) -> bool:
        """Does the answer fit this request's form? A stream is JSON only whole, with usage, and within `max_entry`."""
        if live.plan.call.stream or head.kind != "stream":
            return True
        end = await live.reader.ended()
        recording = live.reader.recording
        return isinstance(end, Broken) or (end is not None and recording.convertible and recording.has_usage)


def _result(end: Ending | None, flight: Flight) -> str:
    """How a call ended, as a label."""
    match end:
        case None:
            return "abandoned"
        case Broken(error=error):
            return error.code or "failed"
        case Clean():
            return result_of(flight.recording.head.status if flight.recording.head is not None else 200)
        case _:
            assert_never(end)
