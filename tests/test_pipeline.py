import asyncio
from typing import Any

import pytest

from proxy.complaints import Complaints
from proxy.core.call import Call
from proxy.core.policy import Rules
from proxy.core.recording import Clean, Head
from proxy.core.routing import Named, Routes
from proxy.errors import NotCached, UpstreamConnectError, UpstreamReset
from proxy.flights import Flights
from proxy.pipeline import Edges, Hit, Live, Pipeline, Terms
from tests.fakes import Clock, Epoch, Meter, Provider, Reply, Store, a_call, roomy, turns
from tests.scripted import DONE, chunk, whole_stream

STREAM = whole_stream("one", " two")
JSON_REPLY = b'{"id": "1", "choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}]}'
STREAMED: dict[str, Any] = {"stream": True}


class World:
    """A pipeline among fakes."""

    def __init__(self, *replies: Reply | Exception, stale: float = 0.0, finish: bool = False) -> None:
        self.provider, self.other = Provider(*replies), Provider(*replies)
        self.store, self.meter, self.clock, self.epoch = Store(), Meter(), Clock(), Epoch()
        self.flights = Flights(on_abandon="finish" if finish else "cancel", max_entry=1 << 20, load=roomy())
        providers = {"sim": self.provider, "other": self.other}
        edges = Edges(
            providers, self.store, self.flights, self.epoch, self.meter, self.clock, Complaints(self.clock.monotonic)
        )
        urls = {"sim": "http://sim/v1", "other": "http://other/v1"}
        routes = Routes(urls, "sim", {"elsewhere": Named("other", "m")})
        terms = Terms(secret=b"s" * 32, ignore=(), shared=False, ttl=60.0, stale_if_error=stale)
        self.pipeline = Pipeline(terms, Rules(), routes, edges)

    async def begin(self, call: Call) -> Hit | Live:
        return await self.pipeline.begin(self.pipeline.plan(call))

    async def live(self, call: Call) -> Live:
        begun = await self.begin(call)
        assert isinstance(begun, Live)
        return begun

    async def hit(self, call: Call) -> Hit:
        begun = await self.begin(call)
        assert isinstance(begun, Hit)
        return begun

    def key(self, call: Call) -> bytes | None:
        return self.pipeline.plan(call).key


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
    plan = world.pipeline.plan(a_call(stream=True))
    world.provider.reports_usage = False
    begun = await world.pipeline.begin(plan)
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
    await read(await world.live(a_call(**STREAMED)))
    assert world.meter.kept == ["unfinished", "failed"]
    assert world.meter.results == ["ok", "status_500"]
    assert world.store.entries == {}
