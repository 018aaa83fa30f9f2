import asyncio
import json
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from proxy.core.access import NOBODY, Grant
from proxy.core.call import Call, read_call
from proxy.core.embeddings import parts_of
from proxy.core.entry import Entry
from proxy.core.policy import Rules
from proxy.core.recording import Clean, Ending, Head
from proxy.core.routing import Named, Routes
from proxy.errors import NoModelFits, NotCached, OverCostCap, UpstreamConnectError, UpstreamReset
from proxy.flights import Flights
from proxy.pipeline import Edges, Hit, Live, Pipeline
from proxy.plans import Plan, Plans, Terms
from proxy.producer import Job
from proxy.storing import AT_ONCE
from tests.fakes import Clock, Epoch, Meter, Provider, Reply, Store, Works, a_call, an_asker, roomy, some_routes, turns
from tests.scripted import DONE, chunk, whole_stream

STREAM = whole_stream("one", " two")
JSON_REPLY = b'{"id": "1", "choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}]}'
STREAMED: dict[str, Any] = {"stream": True}


class World:
    """A pipeline among fakes."""

    def __init__(
        self,
        *replies: Reply | Exception,
        stale: float = 0.0,
        finish: bool = False,
        routes: Routes | None = None,
        max_entry: int = 1 << 20,
        shadow: bool = False,
    ) -> None:
        self.provider, self.other = Provider(*replies), Provider(*replies)
        self.store, self.meter, self.clock, self.epoch = Store(), Meter(), Clock(), Epoch()
        self.flights = Flights(on_abandon="finish" if finish else "cancel", max_entry=max_entry, load=roomy())
        providers = {"sim": self.provider, "other": self.other}
        clock, meter = self.clock, self.meter
        works = self.works = Works(providers, self.flights, meter, clock)
        self.router = works.router
        edges = Edges(
            providers=providers,
            store=self.store,
            flights=self.flights,
            epoch=self.epoch,
            meter=meter,
            clock=clock,
            router=works.router,
            claims=works.claims,
            producer=works.producer,
            accounts=works.accounts,
        )
        routes = routes or Routes(
            base_urls={"sim": "http://sim/v1", "other": "http://other/v1"},
            default_provider="sim",
            models={"elsewhere": Named("other", "m")},
            routes={},
            describe=lambda _name, _target: (None, None),
        )
        terms = Terms(secret=b"s" * 32, ignore=(), shared=False, ttl=60.0, stale_if_error=stale, shadow=shadow)
        plans = Plans(terms, Rules(), routes, providers, works.limiter.counts_tokens)
        self.plans = plans
        self.pipeline = Pipeline(plans, edges)

    async def begin(self, call: Call, grant: Grant = NOBODY) -> Hit | Live:
        return await self.pipeline.begin(self.pipeline.plan(call, grant), an_asker(grant))

    async def live(self, call: Call, grant: Grant = NOBODY) -> Live:
        begun = await self.begin(call, grant)
        assert isinstance(begun, Live)
        return begun

    async def hit(self, call: Call) -> Hit:
        begun = await self.begin(call)
        assert isinstance(begun, Hit)
        return begun

    def key(self, call: Call) -> bytes | None:
        return self.plan(call).key

    def plan(self, call: Call, grant: Grant = NOBODY) -> Plan:
        return self.pipeline.plan(call, grant)


async def read(live: Live) -> list[bytes]:
    """Everything that a reader gets."""
    found: list[bytes] = []
    with live:
        while live.reader.recording.end is None or live.reader.position < live.reader.recording.length:
            found += [event.raw for event in await live.reader.more()]
    await turns()
    return found


async def test_a_miss_is_kept_and_the_next_one_is_a_hit() -> None:
    world = World(Reply(*STREAM, b""))
    assert await read(await world.live(a_call(**STREAMED))) == STREAM
    hit = await world.hit(a_call(**STREAMED))
    assert hit.entry.body == b"".join(STREAM)
    assert hit.freshness.age == 0
    assert (await world.hit(a_call())).entry is hit.entry
    assert len(world.provider.calls) == 1
    assert world.meter.results == ["ok"]
    assert world.meter.kept == ["stored"]


async def test_a_joiner_between_the_last_event_and_the_end_gets_all_of_it() -> None:
    reply = Reply(*STREAM)
    world = World(reply)
    leader = await world.live(a_call(**STREAMED))
    await turns()
    joiner = await world.live(a_call(**STREAMED))
    assert joiner.collapsed
    reply.end()
    assert list(await asyncio.gather(read(leader), read(joiner))) == [STREAM, STREAM]
    assert len(world.provider.calls) == 1


async def test_at_no_moment_is_there_neither_the_flight_nor_the_entry() -> None:
    reply = Reply()
    world = World(reply)
    key = world.key(a_call(**STREAMED)) or b""
    leader = await world.live(a_call(**STREAMED))
    seen = []

    def look() -> None:
        """Between any two steps of the loop."""
        seen.append((world.flights.find(key) is not None, key in world.store.entries))
        if len(seen) < 200:
            asyncio.get_running_loop().call_soon(look)

    look()
    reply.come(*STREAM, b"")
    assert await read(leader) == STREAM
    await turns(300)
    assert (True, False) in seen
    assert (False, True) in seen
    assert (False, False) not in seen


async def test_who_comes_at_any_step_is_never_a_second_call() -> None:
    for wait in range(40):
        reply = Reply(*STREAM, b"")
        world = World(reply)
        leader = asyncio.ensure_future(read(await world.live(a_call(**STREAMED))))
        await turns(wait)
        begun = await world.begin(a_call(**STREAMED))
        if isinstance(begun, Live):
            assert await read(begun) == STREAM
        assert await leader == STREAM
        assert len(world.provider.calls) == 1


async def test_the_entry_is_visible_before_the_flight_goes() -> None:
    world = World(Reply(*STREAM, b""))
    there = []
    put = world.store.put

    def watched(key: bytes, entry: Any, *, expire: float) -> None:
        there.append(world.flights.find(key) is not None)
        put(key, entry, expire=expire)

    world.store.put = watched  # type: ignore[method-assign]
    await read(await world.live(a_call(**STREAMED)))
    await turns()
    assert there == [True]
    assert len(world.flights) == 0


async def test_an_older_flight_does_not_overwrite_what_a_newer_one_brought() -> None:
    old_reply = Reply(*whole_stream("old"))
    world = World(old_reply, Reply(*whole_stream("new"), b""))
    old = await world.live(a_call(**STREAMED))
    await turns()
    new = await world.live(a_call(headers={b"cache-control": b"no-cache"}, **STREAMED))
    assert not new.collapsed
    await read(new)
    old_reply.end()
    await read(old)
    await turns()
    assert b"new" in (await world.hit(a_call())).entry.body


async def test_a_newer_flight_that_fails_leaves_the_older_ones_answer() -> None:
    old_reply = Reply(*whole_stream("old"))
    world = World(old_reply, UpstreamReset("lost"))
    old = await world.live(a_call(**STREAMED))
    await turns()
    new = await world.live(a_call(headers={b"cache-control": b"no-cache"}, **STREAMED))
    with pytest.raises(UpstreamReset), new:
        await world.pipeline.settle(new)
    old_reply.end()
    await read(old)
    await turns()
    assert b"old" in (await world.hit(a_call())).entry.body


async def test_who_leaves_while_the_provider_is_dialled_ends_the_dialling() -> None:
    world = World()
    live = await world.live(a_call())
    await turns()
    with live:
        assert world.provider.cancelled == 0
    await turns()
    assert world.provider.cancelled == 1
    assert world.meter.results == ["abandoned"]
    assert len(world.flights) == 0


@pytest.mark.parametrize("pieces", [STREAM, STREAM[:1], [UpstreamReset("lost")], [STREAM[0], UpstreamReset("lost")]])
@pytest.mark.parametrize("leaves", [True, False])
async def test_a_reply_is_closed_once_on_every_way_out(pieces: list[Any], leaves: bool) -> None:
    reply = Reply(*pieces)
    world = World(reply)
    live = await world.live(a_call(**STREAMED))
    await turns()
    if leaves:
        live.reader.leave()
    reply.end()
    await turns()
    assert reply.closed == 1
    assert len(world.flights) == 0


async def test_what_was_begun_before_a_purge_is_no_hit_after_it() -> None:
    reply = Reply(*STREAM)
    world = World(reply, Reply(*STREAM, b""))
    live = await world.live(a_call(**STREAMED))
    await turns()
    world.epoch.current = 1
    reply.end()
    await read(live)
    await turns()
    assert world.store.entries == {}
    assert isinstance(await world.live(a_call(**STREAMED)), Live)
    await world.flights.close()


async def test_an_entry_under_the_key_of_another_is_a_miss() -> None:
    world = World(Reply(*STREAM, b""))
    await read(await world.live(a_call(**STREAMED)))
    await turns()
    (entry,) = world.store.entries.values()
    world.store.entries[world.key(a_call("another")) or b""] = entry
    await world.live(a_call("another"))
    await world.flights.close()


async def test_json_joiners_of_a_stream_without_usage_share_one_call_of_their_own() -> None:
    without = [chunk("a"), chunk(finish="stop"), DONE]
    stream = Reply(*without)
    world = World(stream, Reply(JSON_REPLY, b"", content_type="application/json"))
    leader = await world.live(a_call(**STREAMED))
    joiners = [await world.live(a_call()) for _ in range(3)]
    settled = [asyncio.ensure_future(world.pipeline.settle(joiner)) for joiner in joiners]
    await turns()
    stream.end()
    assert await read(leader) == without
    heads = await asyncio.gather(*settled)
    assert [head.kind for head in heads if isinstance(head, Head)] == ["json"] * 3
    assert sorted(joiner.collapsed for joiner in joiners) == [False, True, True]
    assert len(world.provider.calls) == 2
    for joiner in joiners:
        assert await read(joiner) == [JSON_REPLY]


async def test_only_if_cached_asks_nobody() -> None:
    world = World()
    with pytest.raises(NotCached):
        await world.begin(a_call(headers={b"cache-control": b"only-if-cached"}))
    assert world.provider.calls == []


async def test_an_entry_answers_only_while_it_is_fresh() -> None:
    world = World(Reply(*STREAM, b""), Reply(*STREAM, b""))
    await read(await world.live(a_call(**STREAMED)))
    world.clock.now += 59
    assert (await world.hit(a_call())).freshness.left == pytest.approx(1)
    world.clock.now += 2
    with await world.live(a_call(**STREAMED)) as live:
        assert live.found is not None


@pytest.mark.parametrize("ago", [61, 120])
async def test_a_stale_entry_answers_where_the_provider_fails_and_no_longer_than_it_may(ago: float) -> None:
    world = World(Reply(*STREAM, b""), UpstreamConnectError("refused"), stale=30)
    await read(await world.live(a_call(**STREAMED)))
    world.clock.now += ago
    with await world.live(a_call(**STREAMED)) as live:
        if ago > 90:
            with pytest.raises(UpstreamConnectError):
                await world.pipeline.settle(live)
        else:
            settled = await world.pipeline.settle(live)
            assert isinstance(settled, Hit)
            assert settled.stale


async def test_the_key_depends_on_who_asks_where_it_goes_and_what_is_asked() -> None:
    world = World()
    same = [a_call(), a_call(stream=True), a_call(n=1)]
    assert len({world.key(call) for call in same}) == 1
    different = [
        a_call(),
        a_call("other words"),
        a_call(temperature=1),
        a_call(model="elsewhere"),
        a_call(model="n"),
        a_call(headers={b"authorization": b"Bearer 1"}),
        a_call(headers={b"api-key": b"Bearer 1"}),
        a_call(headers={b"openai-organization": b"1"}),
        a_call(headers={b"x-penstock-sample": b"1"}),
    ]
    assert len({world.key(call) for call in different}) == len(different)


async def test_a_provider_without_usage_has_a_key_for_each_form() -> None:
    world = World()
    world.provider.reports_usage = False
    assert world.key(a_call()) != world.key(a_call(stream=True))


async def test_a_plan_that_was_made_before_a_provider_refused_usage_is_made_anew() -> None:
    world = World(Reply(*STREAM, b""))
    plan = world.plan(a_call(stream=True))
    world.provider.reports_usage = False
    begun = await world.pipeline.begin(plan, an_asker())
    assert isinstance(begun, Live)
    assert begun.plan.key == world.key(a_call(stream=True)) != plan.key
    await read(begun)


async def test_what_was_found_out_while_it_was_recorded_is_in_the_key_under_which_it_is_kept() -> None:
    world = World(Reply(chunk("a"), chunk(finish="stop"), b""))
    with await world.live(a_call(stream=True)) as live:
        world.provider.reports_usage = False
        await live.reader.ended()
    await turns()
    await world.hit(a_call(stream=True))


async def test_with_finish_a_kept_answer_needs_no_reader() -> None:
    reply = Reply(*STREAM)
    world = World(reply, finish=True)
    with await world.live(a_call(**STREAMED)):
        await turns()
    reply.end()
    await turns()
    assert (await world.hit(a_call())).entry.meta.has_usage


async def test_what_is_not_worth_keeping_is_counted_with_its_reason() -> None:
    world = World(Reply(chunk("a"), DONE, b""), Reply(b"{}", b"", status=500, content_type="application/json"))
    live = await world.live(a_call(**STREAMED))
    await read(live)
    assert live.reader.recording.end == Clean()
    await read(await world.live(a_call(headers={b"x-stainless-retry-count": b"0"}, **STREAMED)))
    assert world.meter.kept == ["unfinished", "failed"]
    assert world.meter.results == ["ok", "status_500"]
    assert world.store.entries == {}


# Where there is something to choose.

MODELS: dict[str, dict[str, Any]] = {
    "cheap": {"price": {"input": "1", "output": "2"}, "window": 1000, "max_output": 100},
    "dear": {"price": {"input": "10", "output": "20"}, "window": 1000, "max_output": 1000},
}
ROUTED: dict[str, Any] = {"model": "any", "stream": True}


def routed(*replies: Reply | Exception, **said: Any) -> World:
    return World(*replies, routes=some_routes(MODELS), **said)


def capped(usd: str, prompt: str = "hello") -> Call:
    return a_call(prompt, headers={b"x-penstock-max-cost-usd": usd.encode()}, **ROUTED)


async def ended(live: Live) -> None:
    """Whatever came of it is known, though what is ranked in a thread takes a moment."""
    await live.reader.ended()
    await turns()


async def test_a_route_is_answered_by_its_cheapest_model_and_kept_under_its_name() -> None:
    world = routed(Reply(*STREAM, b""))
    live = await world.live(a_call(**ROUTED))
    await ended(live)
    assert world.meter.attempts == [("sim", "cheap", "ok")]
    assert live.reader.flight.served is not None
    assert live.reader.flight.served.name == "cheap"
    (bill,) = world.meter.bills
    assert (bill.usd, bill.routing) == (Decimal("0.000005"), Decimal("0.000045"))
    hit = await world.hit(a_call(**ROUTED))
    assert (hit.entry.meta.model, hit.saved) == ("cheap", bill.usd)


async def test_those_who_ask_the_same_at_once_cost_one_decision() -> None:
    reply = Reply()
    world = routed(reply)
    lives = [await world.live(a_call(**ROUTED)) for _ in range(3)]
    reply.come(*STREAM, b"")
    for live in lives:
        await ended(live)
    assert [(route, ranking.why) for route, ranking in world.meter.rankings] == [("any", "cheapest")]
    assert [live.collapsed for live in lives] == [False, True, True]


async def test_what_failed_over_is_kept_under_who_answered() -> None:
    world = routed(UpstreamConnectError("refused"), Reply(*STREAM, b""))
    await ended(await world.live(a_call(**ROUTED)))
    assert [(model, result) for _, model, result in world.meter.attempts] == [
        ("cheap", "upstream_connect_error"),
        ("dear", "ok"),
    ]
    assert (await world.hit(a_call(**ROUTED))).entry.meta.model == "dear"


async def test_a_request_that_no_model_can_answer_is_counted_and_asks_nobody() -> None:
    world = routed()
    with await world.live(a_call("word " * 1000, **ROUTED)) as live, pytest.raises(NoModelFits):
        await world.pipeline.settle(live)
    assert [(route, ranking.why, len(ranking.dropped)) for route, ranking in world.meter.rankings] == [
        ("any", "none", 2)
    ]
    assert world.provider.calls == []
    assert world.meter.bills == []
    await turns()
    assert len(world.flights) == 0


async def test_a_request_over_its_cap_is_refused_before_it_leads() -> None:
    world = routed()
    with pytest.raises(OverCostCap):
        await world.begin(capped("0.00001"))
    assert len(world.flights) == 0
    assert world.provider.calls == []
    assert [ranking.why for _, ranking in world.meter.rankings] == ["none"]


async def test_a_cap_counts_for_what_is_paid_and_not_for_what_is_stored_or_under_way() -> None:
    reply = Reply()
    world = routed(reply)
    live = await world.live(a_call(**ROUTED))
    joiner = await world.live(capped("0"))
    assert joiner.collapsed
    reply.come(*STREAM, b"")
    await ended(live)
    await world.hit(capped("0"))
    assert len(world.meter.rankings) == 1


async def test_who_was_being_ranked_while_another_led_joins_it() -> None:
    reply = Reply()
    world = routed(reply)
    first, second = await asyncio.gather(world.begin(capped("1")), world.begin(capped("1")))
    assert isinstance(first, Live)
    assert isinstance(second, Live)
    assert sorted((first.collapsed, second.collapsed)) == [False, True]
    reply.come(*STREAM, b"")
    await ended(first)
    assert len(world.provider.calls) == 1


async def test_a_model_that_was_named_is_not_ranked_unless_it_is_capped() -> None:
    world = routed(Reply(*STREAM, b""), Reply(*STREAM, b""))
    await ended(await world.live(a_call(model="dear", stream=True)))
    assert world.meter.rankings == []
    named = a_call("other", model="dear", stream=True, headers={b"x-penstock-max-cost-usd": b"1"})
    await ended(await world.live(named))
    assert [(route, ranking.why) for route, ranking in world.meter.rankings] == [(None, "only")]


async def test_who_leaves_while_it_is_ranked_has_asked_nobody() -> None:
    world = routed()
    with await world.live(a_call(**ROUTED)):
        await turns(1)
    await turns()
    assert len(world.flights) == 0
    assert world.provider.calls == []
    assert world.meter.attempts == []
    assert not world.router.learned._waiting


@pytest.mark.parametrize(
    ("reply", "learns"),
    [
        (lambda: Reply(*STREAM, b""), True),
        (lambda: Reply(chunk("a"), chunk(finish="stop"), DONE, b""), True),  # its usage is not known, but its time
        (lambda: Reply(*STREAM[:1], UpstreamReset("lost")), False),
        (lambda: Reply(chunk("a"), DONE, b""), False),
        (lambda: Reply(chunk("a"), chunk(finish="content_filter"), DONE, b""), False),
        (lambda: Reply(JSON_REPLY, b"", content_type="application/json"), True),
    ],
)
async def test_only_a_whole_answer_teaches(reply: Callable[[], Reply], learns: bool) -> None:
    world = routed(reply())
    await ended(await world.live(a_call(**ROUTED)))
    assert world.router.learned.changed == learns
    assert not world.router.learned._waiting


async def test_the_time_to_the_first_event_is_learned_only_where_it_is_still_known() -> None:
    def soon(world: World) -> float | None:
        (option, _) = world.plan(a_call(**ROUTED)).choice.options
        account = world.plan(a_call(**ROUTED)).account
        return world.router.learned._experience.soon(option.target.place(account))

    found = []
    for max_entry in (1 << 20, 10):
        reply = Reply()
        world = routed(reply, max_entry=max_entry)
        await world.router.warm(world.plan(a_call(**ROUTED)).choice.options)
        reading = asyncio.ensure_future(read(await world.live(a_call(**ROUTED))))
        for piece in [*STREAM, b""]:
            reply.come(piece)
            await turns()
        assert await reading == STREAM
        found.append(soon(world) is not None)
    assert found == [True, False]


async def test_a_conversation_stays_with_the_model_of_an_answer_that_was_given_again() -> None:
    """Who made it is known from the cache alone: another proxy had asked."""
    before = routed(UpstreamConnectError("refused"), Reply(*STREAM, b""))
    await ended(await before.live(a_call(**ROUTED)))
    world = routed(Reply(*STREAM, b""), Reply(*STREAM, b""))
    world.store.entries = before.store.entries
    asked = {"role": "user", "content": "hello"}
    called = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "f"}}]}
    told = {"role": "tool", "tool_call_id": "1", "content": "22"}
    await ended(await world.live(a_call(messages=[asked, called, told], **ROUTED)))
    assert (await world.hit(a_call(**ROUTED))).entry.meta.model == "dear"
    await ended(await world.live(a_call(messages=[asked, called, told, asked], **ROUTED)))
    decisions = [(ranking.order[0].option.name, ranking.why) for _, ranking in world.meter.rankings]
    assert decisions == [("cheap", "cheapest"), ("dear", "pinned")]


# In shadow mode.

NO_CACHE = {b"cache-control": b"no-cache"}


def whole() -> Reply:
    return Reply(*STREAM, b"")


def would(live: Live) -> tuple[str | None, str | None]:
    """What would have come of it, and what `Cache-Status` says of it."""
    assert not live.collapsed
    assert live.found is None
    assert live.reader.flight.shadow == live.plan.verdict.shadow
    return live.plan.verdict.shadow, live.plan.verdict.reason


async def test_in_shadow_mode_everything_is_asked_and_what_was_found_is_noted() -> None:
    world = World(whole(), whole(), whole(), shadow=True)
    for shadow in ("miss", "hit", "hit"):
        live = await world.live(a_call(**STREAMED))
        assert would(live) == (shadow, f"shadow-{shadow}")
        assert await read(live) == STREAM
    assert len(world.provider.calls) == 3
    assert world.meter.kept == ["stored"]


async def test_in_shadow_mode_an_entry_ends_when_it_would_have() -> None:
    world = World(*(whole() for _ in range(4)), shadow=True)
    found = []
    for now in (0, 40, 59, 61):
        world.clock.now = 1000.0 + now
        live = await world.live(a_call(**STREAMED))
        await read(live)
        found.append(would(live)[0])
    assert found == ["miss", "hit", "hit", "miss"]
    (entry,) = world.store.entries.values()
    assert entry.meta.ended == 1061


async def test_in_shadow_mode_nobody_joins_and_it_is_noted_who_would_have() -> None:
    replies = [Reply(), Reply(), Reply()]
    world = World(*replies, shadow=True)
    lives = [await world.live(a_call(**STREAMED)) for _ in replies]
    await turns()
    assert [would(live)[0] for live in lives] == ["miss", "collapsed", "collapsed"]
    assert len({live.reader.flight for live in lives}) == len(world.provider.calls) == 3
    assert world.flights.find(world.key(a_call()) or b"") is lives[0].reader.flight
    for reply in reversed(replies):
        reply.come(*STREAM, b"")
    assert [await read(live) for live in reversed(lives)] == [STREAM] * 3
    assert world.meter.kept == ["stored"]  # of the one that would have been the only one
    assert len(world.flights) == 0


async def test_in_shadow_mode_who_would_have_joined_shortens_the_life_of_the_answer() -> None:
    reply = Reply()
    world = World(reply, whole(), shadow=True)
    leader = await world.live(a_call(**STREAMED))
    await read(await world.live(a_call(headers={b"x-penstock-ttl": b"5"}, **STREAMED)))
    reply.come(*STREAM, b"")
    await read(leader)
    (entry,) = world.store.entries.values()
    assert entry.meta.ttl == 5


async def test_in_shadow_mode_directives_mean_what_they_always_mean() -> None:
    world = World(*(whole() for _ in range(4)), shadow=True)
    await read(await world.live(a_call(**STREAMED)))
    world.clock.now += 10
    tried = {b"max-age=5": "miss", b"no-cache": "miss", b"max-age=15": "hit"}
    for said, shadow in tried.items():
        live = await world.live(a_call(headers={b"cache-control": said}, **STREAMED))
        assert would(live)[0] == shadow, said
        await read(live)
    (entry,) = world.store.entries.values()
    assert entry.meta.ended == 1010  # it was fetched anew, as it would have been
    with pytest.raises(NotCached):
        await world.begin(a_call(headers={b"cache-control": b"only-if-cached"}))
    assert len(world.provider.calls) == 4


async def test_in_shadow_mode_no_cache_leads_the_newest_flight() -> None:
    world = World(Reply(), Reply(), Reply(), shadow=True)
    first = await world.live(a_call(**STREAMED))
    anew = await world.live(a_call(headers=NO_CACHE, **STREAMED))
    assert would(anew)[0] == "miss"
    assert world.flights.find(world.key(a_call()) or b"") is anew.reader.flight
    assert would(await world.live(a_call(**STREAMED)))[0] == "collapsed"
    assert world.flights.find(world.key(a_call()) or b"") is anew.reader.flight is not first.reader.flight
    await world.flights.close()


async def test_in_shadow_mode_a_bypass_has_no_shadow_and_is_not_kept() -> None:
    world = World(whole(), shadow=True)
    live = await world.live(a_call(headers={b"cache-control": b"no-store"}, **STREAMED))
    assert would(live) == (None, "no-store")
    await read(live)
    assert (world.store.entries, world.meter.would) == ({}, [])


async def test_in_shadow_mode_no_stale_answer_hides_that_the_provider_failed() -> None:
    world = World(whole(), UpstreamConnectError("refused"), stale=30, shadow=True)
    await read(await world.live(a_call(**STREAMED)))
    world.clock.now += 61
    with await world.live(a_call(**STREAMED)) as live, pytest.raises(UpstreamConnectError):
        await world.pipeline.settle(live)


async def test_in_shadow_mode_who_leaves_ends_the_call_that_was_his_alone() -> None:
    world = World(Reply(), Reply(), shadow=True)
    leader, other = [await world.live(a_call(**STREAMED)) for _ in range(2)]
    await turns()
    with leader:
        pass
    await turns()
    assert list(world.flights) == [other.reader.flight]
    await world.flights.close()


async def test_in_shadow_mode_what_would_have_been_saved_is_what_was_paid_for_it() -> None:
    leading = Reply()
    world = routed(leading, whole(), whole(), shadow=True)
    named = a_call(model="cheap", stream=True)
    leader = await world.live(named, Grant("team-a", "pk_1"))
    await turns()
    await ended(await world.live(named, Grant("team-b", "pk_2")))
    leading.come(*STREAM, b"")
    await ended(leader)
    await ended(await world.live(named, Grant("team-c", "pk_3")))
    paid = Decimal("0.000005")
    assert [bill.usd for bill in world.meter.bills] == [paid] * 3
    assert world.meter.would == [("collapse", "cheap", paid, "team-b"), ("cache", "cheap", paid, "team-c")]


async def test_in_shadow_mode_a_request_is_refused_for_its_cost_though_the_cache_would_have_answered() -> None:
    world = routed(whole(), shadow=True)
    live = await world.live(capped("1"))
    await ended(live)
    assert would(live)[0] == "miss"
    with pytest.raises(OverCostCap):
        await world.begin(capped("0.00000001"))
    assert len(world.provider.calls) == 1


async def test_an_answer_of_shadow_mode_is_a_hit_once_the_cache_is_on() -> None:
    before = World(whole(), shadow=True)
    await read(await before.live(a_call(**STREAMED)))
    world = World()
    world.store.entries = before.store.entries
    assert (await world.hit(a_call())).entry.body == b"".join(STREAM)


# Lists of embeddings: what each input is kept under, and what of a list's answer is kept.


def embedding(given: object, headers: dict[bytes, bytes] | None = None, **members: Any) -> Call:
    return read_call("embeddings", json.dumps({"model": "m", "input": given} | members).encode(), headers or {})


def embeds(*inputs: object, headers: dict[bytes, bytes] | None = None, **members: Any) -> Call:
    """A list of these."""
    return embedding(list(inputs), headers, **members)


def embedded(*vectors: list[float], tokens: int = 0, status: int = 200, **members: Any) -> Reply:
    data = [{"object": "embedding", "index": place, "embedding": vector} for place, vector in enumerate(vectors)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    body = {"object": "list", "data": data, "model": "m", "usage": usage} | members
    return Reply(json.dumps(body).encode(), b"", status=status, content_type="application/json")


def piece_keys(world: World, call: Call, grant: Grant = NOBODY) -> list[bytes]:
    """At each place of a list."""
    plan = world.plan(call, grant)
    return [plan.pieces[place].key for place in plan.places]


def vector_of(entry: Entry) -> Any:
    (item,) = json.loads(entry.body)["data"]
    assert item["index"] == 0
    return item["embedding"]


def test_each_input_of_a_list_has_a_key_and_what_stands_twice_has_one() -> None:
    plan = World().plan(embeds("a", [1, 2], "a", "b"))
    assert [piece.input for piece in plan.pieces] == ["a", [1, 2], "b"]
    assert plan.places == (0, 1, 0, 2)
    assert plan.key is None
    assert plan.keys == tuple(piece.key for piece in plan.pieces)
    assert len(set(plan.keys)) == 3
    chat = World().plan(a_call())
    assert (chat.pieces, chat.keys) == ((), (chat.key,))


def test_an_input_has_one_key_whatever_list_and_form_it_stands_in() -> None:
    world = World()
    (key,) = piece_keys(world, embedding("alone"))
    same = [
        embeds("alone"),
        embeds("b", "alone", "c"),
        embeds("b", "alone", encoding_format="base64"),
        embeds("b", "alone", encoding_format="float"),
        embeds("b", "alone", output_dtype="float"),
    ]
    assert [key in piece_keys(world, call) for call in same] == [True] * 4 + [False]  # another word, another request


def test_the_key_of_an_input_depends_on_all_else_that_is_asked() -> None:
    world = World()
    different = [
        embeds("1", "b"),
        embeds([1], "b"),
        embeds([1, 1], "b"),
        embeds("1", "b", dimensions=8),
        embeds("1", "b", model="n"),
        embeds("1", "b", model="elsewhere"),
        embeds("1", "b", headers={b"authorization": b"Bearer 1"}),
        embeds("1", "b", headers={b"x-penstock-sample": b"1"}),
        embeds("1", "b", encoding_format="int8"),
        embeds("1", "b", output_dtype="int8"),
        embeds("1", "b", output_dtype="int8", encoding_format="base64"),  # what is no float is not made from base64
    ]
    assert len({piece_keys(world, call)[0] for call in different}) == len(different)
    assert piece_keys(world, embeds("b", "1")) == piece_keys(world, embeds("1", "b"))[::-1]


def test_no_answer_of_another_endpoint_has_the_key_of_an_input() -> None:
    world = World()
    said = b'{"model": "m", "input": ["a"]}'
    keys = {world.plan(read_call(path, said, {})).keys for path in ("embeddings", "responses", "completions")}
    assert len(keys) == 3


@pytest.mark.parametrize("odd", [[], {}, 7, None, {"text": "a"}, [{"text": "a"}], [["a"], ["b"]], ["a", 7], ["a", []]])
def test_a_list_whose_inputs_cannot_be_told_apart_is_a_bypass(odd: object) -> None:
    plan = World().plan(embedding(odd))
    assert (plan.verdict.reason, plan.verdict.lead, plan.verdict.keep) == ("input", False, False)
    assert (plan.pieces, plan.places, plan.keys) == ((), (), ())


def test_a_bypass_for_another_reason_says_that_one() -> None:
    for inputs in (["a"], []):
        plan = World().plan(embeds(*inputs, headers={b"cache-control": b"no-store"}))
        assert (plan.verdict.reason, plan.keys) == ("no-store", ())


def test_a_list_may_be_asked_for_a_part_of_it() -> None:
    world = routed()
    headers = {b"x-penstock-max-cost-usd": b"1"}
    plan = world.plan(embeds("a", "b", "c", "b", model="any", dimensions=8, headers=headers))
    part = world.plans.reduced(plan, [plan.pieces[2], plan.pieces[0]])
    assert json.loads(part.call.raw) == part.call.body == {"model": "any", "input": ["c", "a"], "dimensions": 8}
    assert part.call.likeness == read_call("embeddings", part.call.raw, {}).likeness
    assert part.keys == (plan.pieces[2].key, plan.pieces[0].key)
    assert part.places == (0, 1)
    again = world.plan(read_call("embeddings", part.call.raw, headers))
    assert (part.pieces, part.links) == (again.pieces, again.links)
    assert part.links
    assert part.links != plan.links
    assert (part.choice, part.account, part.verdict) == (plan.choice, plan.account, plan.verdict)


def test_a_list_that_is_asked_whole_goes_out_to_the_byte() -> None:
    world = World()
    for raw in (b'{"input":  "a", "model":"m"}', b'{"input" :["a", "b"],"model":"m"}'):
        plan = world.plan(read_call("embeddings", raw, {}))
        assert world.plans.reduced(plan, plan.pieces) is plan
    plan = world.plan(embeds("a", "b", "a"))
    once = world.plans.reduced(plan, plan.pieces)  # but what stands twice goes out once
    assert (once.call.body["input"], once.places) == (["a", "b"], (0, 1))


def test_a_plan_that_nobody_ranks_has_no_links_in_part_either() -> None:
    world = World()
    plan = world.plan(embeds("a", "b"))
    assert (plan.links, world.plans.reduced(plan, plan.pieces[:1]).links) == ((), ())


async def test_of_a_list_each_input_is_kept_as_if_it_had_been_asked_alone() -> None:
    world = World(embedded([0.5], [0.25], tokens=9, extra="x"))
    call = embeds("a long text of many words indeed", "short", encoding_format="base64")
    await ended(await world.live(call))
    first, second = (world.store.entries[key] for key in piece_keys(world, call))
    assert [vector_of(entry) for entry in (first, second)] == [[0.5], [0.25]]
    for entry, key in zip((first, second), piece_keys(world, call), strict=True):
        meta = entry.meta
        assert (meta.key, meta.form, meta.kind, meta.model, meta.ttl) == (key, "base64", "json", "m", 60)
        assert json.loads(entry.body)["extra"] == "x"
        assert meta.usage is not None
        assert meta.usage.input == json.loads(entry.body)["usage"]["prompt_tokens"]
    assert first.meta.usage is not None
    assert second.meta.usage is not None
    assert first.meta.usage.input + second.meta.usage.input == 9
    assert first.meta.usage.input > second.meta.usage.input > 0
    assert world.meter.kept == ["stored"]


async def test_what_a_list_comes_to_is_known_before_its_flight_is_over() -> None:
    world = World(embedded([0.5], [0.25]))
    live = await world.live(embeds("a", "b"))
    await live.reader.ended()
    assert [vector_of(entry) for entry in live.reader.flight.entries.values()] == [[0.5], [0.25]]
    assert tuple(live.reader.flight.entries) == live.plan.keys


async def test_what_no_input_can_be_told_of_is_passed_on_and_not_kept() -> None:
    short = World(embedded([0.5]))
    live = await short.live(embeds("a", "b"))
    assert len(await read(live)) == 1
    assert (live.reader.flight.entries, short.store.entries, short.meter.kept) == ({}, {}, ["malformed"])
    for status in (201, 400):
        odd = World(embedded([0.5], [0.25], status=status))
        live = await odd.live(embeds("a", "b"))
        await ended(live)
        assert (live.reader.flight.entries, odd.store.entries, odd.meter.kept) == ({}, {}, ["failed"])


async def test_a_list_that_nobody_wants_kept_is_shared_all_the_same() -> None:
    world = World(embedded([0.5], [0.25]))
    live = await world.live(embeds("a", "b", headers={b"x-penstock-ttl": b"0"}))
    await ended(live)
    assert len(live.reader.flight.entries) == 2
    assert (world.store.entries, world.meter.kept) == ({}, [])


async def test_each_part_of_a_list_is_kept_no_longer_than_the_last_who_joined_allows() -> None:
    world = World(embedded([0.5], [0.25]))
    live = await world.live(embeds("a", "b"))
    divide = world.pipeline._storing.divide

    async def joined_meanwhile(job: Job, plan: Plan, end: Ending, epoch: int) -> None:
        await divide(job, plan, end, epoch)
        live.reader.flight.reader(5, keys=plan.keys[:1])

    world.pipeline._storing.divide = joined_meanwhile  # type: ignore[method-assign]
    await ended(live)
    assert [entry.meta.ttl for entry in world.store.entries.values()] == [5, 60]


async def test_an_older_list_overwrites_nothing_that_a_newer_one_brought() -> None:
    slow = Reply(content_type="application/json")
    world = World(slow, embedded([2.0]))
    old, new = embeds("a", "b"), embeds("b", headers=NO_CACHE)
    leader = await world.live(old)
    await turns()
    await ended(await world.live(new))
    body = json.dumps({"data": [{"index": place, "embedding": [1.0]} for place in (0, 1)]}).encode()
    slow.come(body, b"")
    await ended(leader)
    assert [vector_of(world.store.entries[key]) for key in piece_keys(world, old)] == [[1.0], [2.0]]
    assert world.meter.kept == ["stored", "stored"]


async def test_a_list_of_which_all_was_fetched_anew_meanwhile_is_not_kept_again() -> None:
    slow = Reply(content_type="application/json")
    world = World(slow, embedded([2.0], [3.0]))
    leader = await world.live(embeds("a", "b"))
    await turns()
    await ended(await world.live(embeds("b", "a", headers=NO_CACHE)))
    slow.come(b'{"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1]}]}', b"")
    await ended(leader)
    assert [vector_of(entry) for entry in world.store.entries.values()] == [[2.0], [3.0]]
    assert world.meter.kept == ["stored"]


async def test_no_part_of_a_list_that_was_begun_before_a_purge_is_kept_after_it() -> None:
    slow = Reply(content_type="application/json")
    world = World(slow)
    live = await world.live(embeds("a"))
    await turns()
    world.epoch.current = 1
    slow.come(b'{"data": [{"index": 0, "embedding": [1]}]}', b"")
    await ended(live)
    assert (world.store.entries, world.meter.kept, live.reader.flight.kept) == ({}, ["purged"], False)


@pytest.mark.parametrize("large", [False, True])
async def test_a_large_list_is_taken_apart_in_a_thread(large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    on_loop = []

    def noted(body: bytes, counted: Any) -> Any:
        on_loop.append(threading.current_thread() is threading.main_thread())
        return parts_of(body, counted)

    monkeypatch.setattr("proxy.storing.parts_of", noted)
    world = World(embedded([0.5] * (AT_ONCE // 5 + 1 if large else 1), [0.25]))
    live = await world.live(embeds("a", "b"))
    await live.reader.ended()
    assert on_loop == [not large]
    assert vector_of(live.reader.flight.entries[live.plan.keys[1]]) == [0.25]
