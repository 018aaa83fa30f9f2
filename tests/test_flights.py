import asyncio
import gc

import pytest

from proxy.core.load import Load
from proxy.core.recording import Broken, Clean, Head
from proxy.core.sse import Event
from proxy.errors import Overloaded, PenstockError, ShuttingDown, UpstreamReset
from proxy.flights import WINDOW, Flight, Flights, Produce
from tests.fakes import roomy, turns

KEY = b"key"
HEAD = Head(200, "stream", b"text/event-stream")
BIG = 64 * 1024


def one(text: bytes) -> Event:
    return Event(b"data: " + text + b"\n\n", text, None)


def flights(*, finish: bool = False, max_entry: int = 1 << 20, load: Load | None = None) -> Flights:
    return Flights(on_abandon="finish" if finish else "cancel", max_entry=max_entry, load=load or roomy())


async def waits(flight: Flight) -> None:
    """A producer that is still waiting for its provider."""
    await asyncio.Event().wait()


def makes(*texts: bytes, then: Produce = waits) -> Produce:
    """A producer of these events, one each turn of the loop."""

    async def produce(flight: Flight) -> None:
        flight.begin(HEAD)
        for text in texts:
            flight.append(one(text), 0.0)
            flight.wake()
            await asyncio.sleep(0)
        await then(flight)

    return produce


async def ends(flight: Flight) -> None:
    flight.finish(Clean())


async def test_a_flight_is_found_by_its_key_until_it_is_done() -> None:
    sky = flights()
    reader = sky.lead((KEY,), makes(b"a", then=ends), ttl=60)
    assert sky.find(KEY) is reader.flight
    assert sky.find(b"other") is None
    await turns()
    assert sky.find(KEY) is None
    assert len(sky) == 0
    assert isinstance(await reader.ended(), Clean)


async def test_a_flight_without_a_key_is_found_by_nobody() -> None:
    sky = flights()
    reader = sky.lead((), makes(b"a"), ttl=60)
    assert sky.find(b"") is None
    assert len(sky) == 1
    reader.leave()
    await turns()
    assert len(sky) == 0


@pytest.mark.parametrize("after", range(5))
async def test_a_reader_gets_the_past_at_once_and_then_what_comes(after: int) -> None:
    sky = flights()
    leader = sky.lead((KEY,), makes(b"1", b"2", b"3", then=ends), ttl=60)
    flight = leader.flight
    await turns(after)
    late = flight.reader(60)
    seen: list[bytes | None] = []
    while flight.recording.end is None or late.position < flight.recording.length:
        seen += [event.data for event in await late.more()]
    assert seen == [b"1", b"2", b"3"]


async def test_a_failure_before_the_first_event_is_raised_to_every_reader() -> None:
    async def fails(flight: Flight) -> None:
        flight.finish(Broken(UpstreamReset("lost")))

    sky = flights()
    readers = [sky.lead((KEY,), fails, ttl=60)]
    readers.append(readers[0].flight.reader(60))
    for reader in readers:
        with pytest.raises(UpstreamReset):
            await reader.head()


async def test_a_nudge_returns_with_nothing_and_waking_for_nothing_does_not() -> None:
    sky = flights()
    reader = sky.lead((KEY,), makes(), ttl=60)
    waiting = asyncio.ensure_future(reader.more())
    await turns()
    reader.flight.wake()
    await turns()
    assert not waiting.done()
    reader.nudge()
    assert await waiting == []
    reader.leave()


async def test_the_last_reader_to_leave_ends_the_flight_at_once() -> None:
    sky = flights()
    first = sky.lead((KEY,), makes(b"a"), ttl=60)
    second = first.flight.reader(60)
    await turns()
    first.leave()
    assert sky.find(KEY) is first.flight
    second.leave()
    assert sky.find(KEY) is None  # though its producer has not noticed yet
    await turns()
    assert len(sky) == 0


async def test_a_flight_that_is_left_before_its_producer_ran_is_gone() -> None:
    sky = flights()
    sky.lead((KEY,), makes(b"a"), ttl=60).leave()
    await turns()
    assert len(sky) == 0


async def test_leaving_twice_is_leaving_once() -> None:
    sky = flights()
    first = sky.lead((KEY,), makes(b"a"), ttl=60)
    second = first.flight.reader(60)
    first.leave()
    first.leave()
    await turns()
    assert sky.find(KEY) is second.flight
    second.leave()
    await turns()


async def test_with_finish_an_abandoned_flight_goes_on_and_can_be_joined() -> None:
    go_on = asyncio.Event()

    async def later(flight: Flight) -> None:
        await go_on.wait()
        flight.append(one(b"b"), 0.0)
        flight.finish(Clean())

    sky = flights(finish=True)
    reader = sky.lead((KEY,), makes(b"a", then=later), ttl=60)
    reader.leave()
    await turns()
    flight = sky.find(KEY)
    assert flight is reader.flight
    late = flight.reader(60)
    go_on.set()
    assert isinstance(await late.ended(), Clean)
    assert [event.data for event in await late.more()] == [b"a", b"b"]


async def test_with_finish_what_nobody_would_keep_is_given_up() -> None:
    sky = flights(finish=True)
    sky.lead((KEY,), makes(b"a"), ttl=0).leave()
    await turns()
    assert len(sky) == 0


async def test_with_finish_what_outgrows_its_bound_unread_is_given_up() -> None:
    async def grows(flight: Flight) -> None:
        while True:
            flight.append(one(b"x" * BIG), 0.0)
            flight.wake()
            await flight.room()
            await asyncio.sleep(0)

    sky = flights(finish=True, max_entry=BIG * 2)
    sky.lead((KEY,), makes(then=grows), ttl=60).leave()
    await turns(50)
    assert len(sky) == 0


async def test_a_producer_that_fails_is_an_error_for_its_readers(caplog: pytest.LogCaptureFixture) -> None:
    async def crashes(flight: Flight) -> None:
        raise ZeroDivisionError

    sky = flights()
    reader = sky.lead((KEY,), makes(b"a", then=crashes), ttl=60)
    end = await reader.ended()
    assert isinstance(end, Broken)
    assert end.error.code == "internal_error"
    assert "a producer failed" in caplog.text
    assert len(sky) == 0


async def test_a_shutdown_is_an_error_for_every_reader() -> None:
    sky = flights()
    readers = [sky.lead(keys, makes(b"a"), ttl=60) for keys in ((KEY,), (b"other",), ())]
    await turns()
    await sky.close()
    for reader in readers:
        end = await reader.ended()
        assert isinstance(end, Broken)
        assert isinstance(end.error, ShuttingDown)
    assert len(sky) == 0


@pytest.mark.parametrize("spoil", ["failing", "broken", "oversized", "ending"])
async def test_what_cannot_be_shared_is_not_joined(spoil: str) -> None:
    sky = flights(max_entry=10)
    reader = sky.lead((KEY,), waits, ttl=60)
    await turns()
    flight = reader.flight
    if spoil == "failing":
        flight.begin(Head(500, "json", b"application/json"))
    elif spoil == "broken":
        flight.finish(Broken(PenstockError("broken")))
    elif spoil == "oversized":
        flight.append(one(b"x" * 100), 0.0)
    elif flight.task is not None:
        flight.task.cancel()
    assert sky.find(KEY) is None
    reader.leave()
    await turns()


async def test_requests_join_the_newest_flight_of_their_key() -> None:
    sky = flights()
    old = sky.lead((KEY,), makes(b"a"), ttl=60)
    new = sky.lead((KEY,), makes(b"b"), ttl=60)
    assert sky.find(KEY) is new.flight
    old.leave()
    await turns()
    assert sky.find(KEY) is new.flight
    new.leave()
    await turns()
    assert len(sky) == 0


async def test_a_flight_is_outrun_by_any_that_began_later_and_was_kept() -> None:
    sky = flights()
    first, second, third = (sky.lead((KEY,), makes(b"a"), ttl=60) for _ in range(3))
    second.leave()  # it fails to bring anything
    await turns()
    fourth = sky.lead((KEY,), makes(b"a"), ttl=60)
    third.flight.land()
    assert [reader.flight.outrun for reader in (first, third, fourth)] == [{KEY}, set(), set()]
    fourth.flight.land()
    assert third.flight.outrun == {KEY}
    for reader in (first, third, fourth):
        reader.leave()
    await turns()
    assert len(sky) == 0


async def test_the_shortest_ttl_of_a_flight_counts() -> None:
    sky = flights()
    reader = sky.lead((KEY,), waits, ttl=60)
    for ttl in (20, 90):
        reader.flight.reader(ttl)
    assert reader.flight.ttl == 20
    await sky.close()


async def test_past_its_bound_a_flight_keeps_to_its_slowest_reader() -> None:
    made = 0

    async def grows(flight: Flight) -> None:
        nonlocal made
        for _ in range(100):
            flight.append(one(b"x" * BIG), 0.0)
            made += 1
            flight.wake()
            await flight.room()
        flight.finish(Clean())

    sky = flights(max_entry=BIG)
    fast = sky.lead((KEY,), makes(then=grows), ttl=60)
    slow = fast.flight.reader(60)
    await turns(200)
    assert made * BIG <= WINDOW + 2 * BIG
    assert await fast.ended() is None
    while fast.position < made:
        await fast.more()
    await turns(200)
    assert made * BIG <= WINDOW + 2 * BIG  # the fast one waits for the slow one
    seen = await slow.more()
    await turns(200)
    assert made > len(seen)
    slow.leave()
    while fast.flight.recording.end is None:
        await fast.more()
        await turns(3)
    assert made == 100


async def test_below_its_bound_nobody_waits_for_anybody() -> None:
    async def much(flight: Flight) -> None:
        for _ in range(100):
            flight.append(one(b"x" * BIG), 0.0)
            await flight.room()
        flight.finish(Clean())

    sky = flights(max_entry=BIG * 200)
    slow = sky.lead((KEY,), makes(then=much), ttl=60)
    assert isinstance(await slow.ended(), Clean)
    assert [len(await slow.more()) for _ in range(100)] == [1] * 100  # no more at once than a reader may hold
    assert slow.position == slow.recording.length


async def test_small_events_are_given_in_batches() -> None:
    sky = flights()
    reader = sky.lead((KEY,), makes(*[b"x"] * 100, then=ends), ttl=60)
    await reader.ended()
    assert [len(await reader.more()) for _ in range(2)] == [64, 36]


async def test_a_flight_that_is_over_is_no_garbage_that_waits_for_the_collector() -> None:
    sky = flights()
    reader = sky.lead((KEY,), makes(b"a", then=ends), ttl=60)
    await reader.ended()
    await turns()
    gc.collect()
    assert len(sky) == 0
    assert sky._by_key == {}


async def test_there_are_no_more_flights_than_there_may_be() -> None:
    load = Load(max_flights=2, max_readers=10, max_buffered=1 << 20)
    sky = flights(load=load)
    first = sky.lead((b"1",), makes(b"a"), ttl=60)
    sky.lead((b"2",), makes(b"a"), ttl=60)
    with pytest.raises(Overloaded):
        sky.lead((b"3",), makes(b"a"), ttl=60)
    assert sky.find(b"1") is first.flight  # who joins makes no flight
    first.leave()
    await turns()
    sky.lead((b"3",), makes(b"a"), ttl=60)
    assert (load.flights, load.readers, len(sky)) == (2, 2, 2)
    await sky.close()


async def test_there_are_no_more_readers_than_there_may_be() -> None:
    load = Load(max_flights=10, max_readers=2, max_buffered=1 << 20)
    sky = flights(load=load)
    first = sky.lead((KEY,), makes(b"a"), ttl=60)
    second = first.flight.reader(60)
    for over in (lambda: sky.find(KEY), lambda: sky.lead((b"other",), makes(b"a"), ttl=60)):
        with pytest.raises(Overloaded) as caught:
            over()
        assert (caught.value.status, caught.value.code, caught.value.retry_after) == (503, "overloaded", 1)
    assert sky.find(b"other") is None
    second.leave()
    second.leave()
    assert (load.readers, sky.find(KEY)) == (1, first.flight)
    await sky.close()
    first.leave()
    assert load.readers == 0


async def test_what_is_held_is_counted_until_nobody_needs_it() -> None:
    load = roomy()
    sky = flights(load=load)
    reader = sky.lead((KEY,), makes(b"a" * 100, b"b" * 100, then=ends), ttl=60, origin=b"request")
    await turns()
    assert load.recorded == reader.recording.size + len(b"request") > 200
    assert len(sky) == 0  # it is over, and still to be read
    await reader.more()
    reader.leave()
    assert (load.recorded, load.readers, load.flights) == (0, 0, 0)


@pytest.mark.parametrize("leave_first", [True, False])
async def test_nothing_is_counted_of_a_flight_that_failed_or_was_left(leave_first: bool) -> None:
    async def fails(flight: Flight) -> None:
        raise RuntimeError

    load = roomy()
    sky = flights(load=load)
    reader = sky.lead((KEY,), makes(b"a" * 100, then=waits if leave_first else fails), ttl=60)
    await turns()
    reader.leave()
    await turns()
    assert (load.recorded, load.readers, load.flights) == (0, 0, 0)


async def test_under_pressure_nothing_is_begun_and_what_is_under_way_is_no_longer_kept_whole() -> None:
    load = Load(max_flights=10, max_readers=10, max_buffered=BIG)
    sky = flights(load=load)
    taken = 0

    async def flows(flight: Flight) -> None:
        nonlocal taken
        flight.begin(HEAD)
        while True:
            flight.append(one(b"x" * 10_000), 0.0)
            flight.wake()
            taken += 1
            await asyncio.sleep(0)
            if flight.recording.oversized:
                await flight.room()

    reader = sky.lead((KEY,), flows, ttl=60)
    await turns(200)
    assert reader.recording.oversized
    assert BIG < reader.recording.held < BIG + 20_000  # it waits for its reader
    assert sky.find(KEY) is None
    with pytest.raises(Overloaded):
        sky.lead((b"other",), makes(b"a"), ttl=60)
    before = taken
    while taken < before + 50 and await reader.more():
        await turns(1)
    assert taken >= before + 50  # with its reader it goes on
    reader.leave()
    await turns()
    assert load.recorded == 0
    sky.lead((b"other",), makes(b"a"), ttl=60).leave()
    await turns()


@pytest.mark.parametrize(("status", "told"), [(200, 1), (204, 1), (400, 0), (500, 0)])
async def test_that_an_answer_begins_is_told_once_and_of_an_error_never(status: int, told: int) -> None:
    begun: list[Flight] = []

    async def produce(flight: Flight) -> None:
        flight.begun = lambda: begun.append(flight)
        flight.begin(Head(status, "json", b"application/json"))
        flight.append(one(b"a"), 0.0)
        flight.finish(Clean())

    reader = flights().lead((KEY,), produce, ttl=0)
    await reader.ended()
    assert begun == [reader.flight] * told


async def test_a_flight_that_starts_again_takes_joiners_and_has_the_head_of_the_last() -> None:
    again = asyncio.Event()

    async def produce(flight: Flight) -> None:
        flight.begin(Head(500, "json", b"application/json"))
        flight.restart()
        await again.wait()
        flight.begin(HEAD)
        flight.append(one(b"a"), 0.0)
        flight.finish(Clean())

    sky = flights()
    reader = sky.lead((KEY,), produce, ttl=60)
    await turns()
    assert sky.find(KEY) is reader.flight
    again.set()
    assert await reader.head() == HEAD


# With several keys.

A, B, C = b"a", b"b", b"c"


async def test_a_flight_of_several_keys_is_found_by_each_until_it_is_done() -> None:
    sky = flights()
    reader = sky.lead((A, B), makes(b"1", then=ends), ttl=60)
    assert [sky.find(key) for key in (A, B, C)] == [reader.flight, reader.flight, None]
    assert (len(sky), sky.started, reader.flight.keys) == (1, 1, (A, B))
    await turns()
    assert [sky.find(key) for key in (A, B)] == [None, None]
    assert sky._by_key == {}


async def test_each_key_has_its_own_newest_flight() -> None:
    sky = flights()
    first = sky.lead((A, B), makes(b"1"), ttl=60)
    second = sky.lead((B, C), makes(b"2"), ttl=60)
    assert [sky.find(key) for key in (A, B, C)] == [first.flight, second.flight, second.flight]
    second.leave()
    assert [sky.find(key) for key in (A, B, C)] == [first.flight, first.flight, None]
    first.leave()
    assert sky._by_key == {}
    await turns()


async def test_a_flight_is_outrun_for_those_keys_alone_that_a_later_one_kept() -> None:
    sky = flights()
    first = sky.lead((A, B), makes(b"1"), ttl=60)
    second = sky.lead((B, C), makes(b"2"), ttl=60)
    third = sky.lead((C,), makes(b"3"), ttl=60)
    second.flight.land()
    assert [reader.flight.outrun for reader in (first, second, third)] == [{B}, set(), set()]
    third.flight.land()
    assert [reader.flight.outrun for reader in (first, second)] == [{B}, {C}]
    await sky.close()


@pytest.mark.parametrize(("keys", "oversized"), [((A,), True), ((), True), ((A, B), True), ((A, B, C), False)])
async def test_an_answer_to_many_keys_may_have_the_size_of_an_entry_for_each(
    keys: tuple[bytes, ...], oversized: bool
) -> None:
    sky = flights(max_entry=100)
    reader = sky.lead(keys, makes(b"x" * 250), ttl=60)
    await turns()
    assert reader.recording.oversized == oversized
    reader.leave()
    await turns()
