"""The way of a request, top to bottom: who may answer, key, look up, join or lead, rank, ask, account, keep, learn."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Self

import msgspec

from proxy.accounts import Accounts
from proxy.core import canonical, keep, policy
from proxy.core.call import Call
from proxy.core.chain import Links, account_of, links_for, namespace_of
from proxy.core.entry import Entry, Meta, make_entry
from proxy.core.policy import Freshness, Rules, Verdict
from proxy.core.recording import Broken, Clean, Ending, Head
from proxy.core.routing import Choice, Routes
from proxy.errors import NotCached, PenstockError, UpstreamError
from proxy.flights import Flight, Flights, Reader
from proxy.interfaces import Clock, Epoch, Meter, Provider, Store
from proxy.producer import Job, Producer
from proxy.router import Ranked, Router

KEY_VERSION = b"2"


class Terms(msgspec.Struct, frozen=True):
    """How answers are kept: the secret under the keys, what they ignore, who shares them, how long they may answer."""

    secret: bytes
    ignore: tuple[str, ...]
    shared: bool
    ttl: float
    stale_if_error: float


@dataclass(frozen=True, slots=True)
class Hit:
    """Answered from the store; what the answer would cost now is `saved`, in USD. `stale`: as the provider failed."""

    entry: Entry
    freshness: Freshness
    saved: Decimal | None
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What a call comes to: who may answer, on whose account, what it may do with the cache, and under which key.

    Follows from the call, the settings and `reports_usage` (of the providers, who may find out that they do not).
    `links`: its prompt as a chain, where that decides who answers.
    """

    call: Call
    choice: Choice
    account: str
    verdict: Verdict
    key: bytes | None
    links: Links
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
    router: Router
    producer: Producer
    accounts: Accounts


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
        choice = self._routes.choice(call.model, call.directives.route)
        rules = self._rules
        if choice.sampled is not None:
            rules = msgspec.structs.replace(rules, sampled=choice.sampled)
        verdict = policy.judge(call, [option.target.upstream for option in choice.options], rules)
        ranked = choice.routed or call.directives.max_cost is not None
        secret = self._terms.secret
        return Plan(
            call,
            choice,
            account_of(call, secret, client_pays=self._client_pays(choice)),
            verdict,
            key=self._key(call, choice) if verdict.lead else None,
            links=links_for(call, self._namespace(call, choice), secret) if ranked else (),
            reports_usage=self._reports_usage(choice),
        )

    async def begin(self, plan: Plan, ranked: Ranked | None = None) -> Hit | Live:
        """Answer from the store, or join or lead a flight. Waits for nothing but the store, and the ranking of a few.

        A request's own refusals come before it leads: what has a cap on its cost is ranked here, all others later.
        """
        if plan.reports_usage != self._reports_usage(plan.choice):
            plan = self.plan(plan.call)
        directives = plan.call.directives
        found = await self._look_up(plan.key, plan.call) if plan.key is not None and plan.verdict.look_up else None
        if found is not None and policy.accepts(directives, freshness := self._freshness(found)):
            return self._hit(plan, found, freshness)
        if directives.only_if_cached:
            raise NotCached("`only-if-cached` was asked for, and no stored answer can be given.")
        if (joined := self._join(plan, found)) is not None:
            return joined
        if directives.max_cost is not None and ranked is None:
            try:
                # While it is ranked another may lead, or even land: so look again.
                return await self.begin(plan, await self._rank(plan))
            except UpstreamError:
                if (stale := self._stale(plan, found)) is not None:
                    return stale
                raise
        return self._lead(plan, found, ranked)

    async def settle(self, live: Live) -> Head | Hit:
        """The head of a live answer once it is known, or a stale entry where the provider failed; UpstreamError."""
        try:
            head = await live.reader.head()
        except UpstreamError:
            if live.collapsed and live.reader.flight.capped:
                return await self._anew(live)
            if (stale := self._stale(live.plan, live.found)) is not None:
                return stale
            raise
        if head.status == 429 or head.status >= 500:
            if live.collapsed and live.reader.flight.capped:
                return await self._anew(live)
            if (stale := self._stale(live.plan, live.found)) is not None:
                return stale
        if not live.collapsed:
            return head
        # A refusal may be about what does not enter the key (`user`, `stream_options`): it answers the same bytes only.
        # Others ask for themselves, each alone, lest they wait for one refusal after the other.
        alone = 400 <= head.status < 429 and live.reader.flight.origin != live.plan.call.raw
        return await self._anew(live, alone=alone) if alone or not await self._fits(live, head) else head

    async def _anew(self, live: Live, *, alone: bool = False) -> Head | Hit:
        """Another flight for who joined one that is not for him, or from which its leader's cap kept models away."""
        left, plan = live.reader.flight, live.plan
        live.reader.leave()
        ranked = await self._rank(plan) if plan.call.directives.max_cost is not None else None
        again = None if alone else self._join(plan, live.found, unless=left)
        again = again or self._lead(plan, live.found, ranked)
        live.reader, live.collapsed = again.reader, again.collapsed
        return await self.settle(live)

    def _join(self, plan: Plan, found: Entry | None, *, unless: Flight | None = None) -> Live | None:
        """Read the newest flight of this key, if it takes one more. Synchronous, like `_lead`: nobody comes between."""
        if not plan.verdict.join or plan.key is None:
            return None
        flight = self._edges.flights.find(plan.key)
        if flight is None or flight is unless:
            return None
        return Live(plan, found, flight.reader(self._ttl(plan)), collapsed=True)

    def _lead(self, plan: Plan, found: Entry | None, ranked: Ranked | None) -> Live:
        reader = self._edges.flights.lead(
            plan.key, lambda flight: self._produce(flight, plan, ranked), ttl=self._ttl(plan), origin=plan.call.raw
        )
        reader.flight.capped = ranked is not None and ranked.capped
        return Live(plan, found, reader, collapsed=False)

    async def _rank(self, plan: Plan) -> Ranked:
        ranked = await self._edges.router.consider(plan.call, plan.choice, plan.account, plan.links)
        self._edges.meter.decided(plan.choice.route, ranked.ranking)
        if not ranked.ranking.order:
            raise self._edges.router.refusal(ranked)
        return ranked

    async def _produce(self, flight: Flight, plan: Plan, ranked: Ranked | None) -> None:
        """Make a recording: ask who is ranked, log what comes, account, tell the readers how it ended, keep, learn."""
        epoch, began = self._edges.epoch.current, self._edges.clock.wall()
        job = Job(flight, plan.call, plan.choice, plan.account)
        end: Ending
        try:
            if ranked is None and plan.choice.routed:
                ranked = await self._rank(plan)
            with self._edges.router.asking(ranked):
                end = await self._edges.producer.make(job, ranked.order if ranked is not None else plan.choice.options)
        except PenstockError as error:
            end = Broken(error)
        finally:
            self._edges.accounts.settle(job, began)  # what was received is paid, whoever has left
        flight.finish(end)
        # From here to the end nothing is awaited: whoever comes finds the flight, or the entry.
        self._keep(job, plan, epoch)
        self._learn(job, ranked, began)

    def _keep(self, job: Job, plan: Plan, epoch: int) -> None:
        flight, recorder, option = job.flight, job.recorder, job.flight.served
        if plan.key is None or flight.ttl <= 0 or flight.outrun or recorder is None or option is None:
            return
        recording = flight.recording
        reason = keep.flaw(recording, recorder.progress, plan.call)
        self._edges.meter.stored(reason or "stored")
        if reason is not None or recording.head is None:
            return
        key = plan.key
        if plan.reports_usage != self._reports_usage(plan.choice):
            key = self._key(plan.call, plan.choice)  # this very call found out, and later ones have the new key
        meta = Meta(
            key=key,
            kind=recording.head.kind,
            provider=option.target.provider,
            model=option.target.upstream,
            ended=self._edges.clock.wall(),
            ttl=flight.ttl,
            epoch=epoch,
            usage_asked=recording.head.usage_asked,
            has_usage=recording.has_usage,
            usage=flight.bill.usage if flight.bill is not None else None,
            service=recorder.progress.service,
        )
        entry = make_entry(meta, recording.events, recording.times)
        self._edges.store.put(key, entry, expire=flight.ttl + self._terms.stale_if_error)
        flight.land()

    def _learn(self, job: Job, ranked: Ranked | None, began: float) -> None:
        """What a whole answer teaches of who gave it."""
        recording, recorder, option = job.flight.recording, job.recorder, job.flight.served
        if ranked is None or recorder is None or option is None or not isinstance(recording.end, Clean):
            return
        if recording.head is None or recording.head.status != 200 or recorder.progress.flaw() is not None:
            return
        timed = recording.head.kind == "stream" and recording.times and not recording.dropped
        first = recording.times[0] if timed else None
        usage = job.flight.bill.usage if job.flight.bill is not None else None
        self._edges.router.learn(ranked, option, usage, first=first, began=began)

    def _namespace(self, call: Call, choice: Choice) -> object:
        return namespace_of(call, client_pays=self._client_pays(choice), shared=self._terms.shared)

    def _client_pays(self, choice: Choice) -> bool:
        return any(self._edges.providers[option.target.provider].client_pays for option in choice.options)

    def _reports_usage(self, choice: Choice) -> bool:
        providers = self._edges.providers
        return all(providers[option.target.provider].reports_usage for option in choice.options)

    def _key(self, call: Call, choice: Choice) -> bytes:
        """What makes two requests the same; see canonical.py for the body's part."""
        terms = self._terms
        # A provider that is not asked for the usage of streams has another answer for each form of a request.
        form = b"" if self._reports_usage(choice) else b"%d%d" % (call.stream, call.wants_usage)
        said = msgspec.json.encode((self._namespace(call, choice), call.account, call.forwarded, terms.ignore))
        targets = msgspec.json.encode(choice.identities)
        body = canonical.canonical(call.body, terms.ignore)
        parts = (KEY_VERSION, said, call.path.encode(), call.query, targets, form, call.directives.sample, body)
        return canonical.key(self._keyed, parts)

    def _ttl(self, plan: Plan) -> float:
        return policy.lifetime(plan.call.directives, self._terms.ttl) if plan.verdict.keep else 0.0

    async def _look_up(self, key: bytes, call: Call) -> Entry | None:
        entry = await self._edges.store.get(key)
        if entry is None or entry.meta.key != key or entry.meta.epoch != self._edges.epoch.current:
            return None
        return entry if entry.serves(stream=call.stream, usage=call.wants_usage) else None

    def _freshness(self, entry: Entry) -> Freshness:
        meta, terms = entry.meta, self._terms
        return policy.freshness(meta.ended, meta.ttl, now=self._edges.clock.wall(), ttl_today=terms.ttl)

    def _hit(self, plan: Plan, entry: Entry, freshness: Freshness, *, stale: bool = False) -> Hit:
        """What is given again is saved, and its conversation stays with the model that it is from."""
        option = plan.choice.option(entry.meta.provider, entry.meta.model)
        if option is None:
            return Hit(entry, freshness, None, stale)
        now = self._edges.clock.wall()
        if plan.links:
            self._edges.router.learned.given_again(plan.links, option.target.place(plan.account), now)
        return Hit(entry, freshness, self._edges.accounts.given_again(entry, option, now), stale)

    def _stale(self, plan: Plan, found: Entry | None) -> Hit | None:
        if found is None:
            return None
        freshness = self._freshness(found)
        allowed = policy.accepts_stale(plan.call.directives, freshness, stale_if_error=self._terms.stale_if_error)
        return self._hit(plan, found, freshness, stale=True) if allowed else None

    @staticmethod
    async def _fits(live: Live, head: Head) -> bool:
        """Does the answer fit this request's form? A stream is JSON only whole, with usage, and within `max_entry`."""
        if live.plan.call.stream or head.kind != "stream":
            return True
        end = await live.reader.ended()
        recording = live.reader.recording
        return isinstance(end, Broken) or (end is not None and recording.convertible and recording.has_usage)
