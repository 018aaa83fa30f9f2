"""More than there is room for: what is new is refused in words, what is stored is served, and later all is well."""

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from bench.soak.answers import error_code
from bench.soak.hostile import HOST, JSON, request
from bench.soak.wire import connected, exchanged, parsed
from tests.asking import USAGE
from tests.conftest import MakeProxy
from tests.scripted import Scripted, Wire, answer, events, post, whole_stream
from tests.support import Json, Proxy, Simulator, ask, eventually, eventually_async
from tests.test_collapse import led, received

FORMS: dict[str, Json] = {"JSON": {}, "a stream": {"stream": True}}


def port(proxy: Proxy) -> int:
    return int(proxy.url.rpartition(":")[2])


def assert_overloaded(wire: Wire) -> None:
    """Refused, and worth another try in a moment."""
    assert wire.status == 503
    error = json.loads(wire.read_body())["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == "overloaded"
    assert int(wire.headers["retry-after"]) >= 1
    assert wire.headers.get("x-should-retry") != "false"
    assert wire.clean


def assert_refused(proxy: Proxy, body: Json) -> None:
    with post(proxy.url, body) as wire:
        assert_overloaded(wire)


def assert_hit(proxy: Proxy, body: Json) -> None:
    for form in FORMS.values():
        with post(proxy.url, body | form) as wire:
            assert wire.status == 200
            assert wire.headers["cache-status"].startswith("penstock; hit")
            wire.read_body()


def assert_answered(wires: list[Wire]) -> None:
    for wire in wires:
        assert wire.read_head().status == 200
        wire.read_body()
        assert wire.clean


@contextmanager
def asked(proxy: Proxy, bodies: list[Json]) -> Iterator[list[Wire]]:
    """These requests, each with its reader."""
    before = proxy.readers()
    with ExitStack() as stack:
        wires = [stack.enter_context(Wire(proxy.url, body)) for body in bodies]
        eventually(lambda: proxy.readers() == before + len(bodies))
        yield wires


def test_no_more_answers_are_made_than_there_may_be(make_proxy: MakeProxy, simulator: Simulator, prompt: str) -> None:
    proxy = make_proxy(server={"max_flights": 2})
    kept, *new = [ask(f"{prompt} {number}") for number in range(4)]
    answer(proxy.url, kept)
    with ExitStack() as stack:
        with simulator.closed():
            wires = stack.enter_context(asked(proxy, [*new[:2], new[0]]))
            for form in FORMS.values():
                assert_refused(proxy, new[2] | form)
                assert_refused(proxy, new[2] | form)
                assert_hit(proxy, kept)
            assert proxy.count("penstock_requests_total", endpoint="chat", outcome="refused", status="503") == 4
            eventually(lambda: simulator.waiting() == 2)
        assert_answered(wires)
    assert answer(proxy.url, new[2])["choices"]
    assert simulator.asked() == 4


@pytest.mark.parametrize("form", FORMS)
def test_a_flight_takes_no_more_readers_than_there_may_be(
    form: str, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(server={"max_readers": 3})
    kept, body, other = (ask(f"{prompt} {number}", **FORMS[form]) for number in range(3))
    with post(proxy.url, kept) as wire:
        wire.read_body()
    with ExitStack() as stack:
        with simulator.closed():
            wires = stack.enter_context(asked(proxy, [body] * 3))
            for one in (body, other):
                assert_refused(proxy, one)
            assert_hit(proxy, kept)
            wires.pop().reset()
            eventually(lambda: proxy.readers() == 2)
            wires += stack.enter_context(asked(proxy, [body]))
            assert_refused(proxy, body)
        assert_answered(wires)
    with post(proxy.url, other) as wire:
        assert wire.status == 200
        wire.read_body()
    assert simulator.asked() == 3


def test_while_recordings_hold_too_much_nothing_is_begun_and_all_that_is_under_way_ends_well(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url, server={"max_buffered": "128KiB", "max_body": "128KiB"})
    load = proxy.app.flights.load
    kept, body, other = (ask(f"{prompt} {number}") for number in range(3))
    with led(proxy, scripted, kept) as (wire, turn):
        turn.answer(*whole_stream("kept"))
        wire.read_head().read_events()
    stream = whole_stream(*["x" * 50_000] * 200)
    with led(proxy, scripted, body | USAGE) as (slow, turn):
        turn.answer(*stream)
        # Once nothing changes any more, all buffers on the way to this reader are full.
        eventually(lambda: load.pressed and len({proxy.loop.call(lambda: load.recorded) for _ in range(50)}) == 1)
        for one in (other, body):  # what is no longer kept whole cannot be joined
            assert_refused(proxy, one)
        assert_hit(proxy, kept)
        assert slow.read_head().read_events() == stream
        assert slow.clean
    proxy.becomes_quiet()
    assert proxy.loop.call(lambda: (load.recorded, load.readers)) == (0, 0)
    with led(proxy, scripted, other) as (wire, turn):
        turn.answer(*whole_stream("other"))
        assert b"other" in b"".join(wire.read_head().read_events())
    assert b"other" in b"".join(events(proxy.url, other))


def test_while_bodies_hold_too_much_the_next_is_refused_and_what_is_stored_is_served(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(server={"max_buffered": "256KiB", "max_body": "256KiB"})
    kept = ask(prompt)
    answer(proxy.url, kept)
    whole = json.dumps(ask(f"{prompt} large")).encode().ljust(200_000)
    with Wire(proxy.url, whole[:150_000], {"content-length": len(whole)}) as first:
        eventually(lambda: proxy.loop.call(lambda: proxy.app.flights.load.received) == 150_000)
        with Wire(proxy.url, whole[:150_000], {"content-length": len(whole)}) as second:
            assert_overloaded(second.read_head())
        assert_hit(proxy, kept)
        eventually(lambda: proxy.loop.call(lambda: proxy.app.flights.load.received) == 150_000)
        first._socket.sendall(whole[150_000:])
        assert first.read_head().status == 200
        first.read_body()
    with post(proxy.url, json.dumps(ask(f"{prompt} later")).encode().ljust(200_000)) as later:
        assert later.status == 200
        later.read_body()
    assert simulator.asked() == 3
    assert proxy.loop.call(lambda: proxy.app.flights.load.received) == 0


async def test_no_more_connections_are_served_than_there_may_be(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(server={"max_connections": 5})
    await asyncio.to_thread(answer, proxy.url, ask(prompt))
    await eventually_async(lambda: proxy.loop.call(lambda: len(proxy.server.server_state.connections)) == 0)
    idle = [await connected(port(proxy)) for _ in range(5)]
    await eventually_async(lambda: proxy.loop.call(lambda: len(proxy.server.server_state.connections)) == 5)
    body = json.dumps(ask(prompt)).encode()
    raw = request(HOST, JSON, f"Content-Length: {len(body)}", body=body)
    for _ in range(3):
        call = parsed(await exchanged(port(proxy)))
        assert (call.status, error_code(call)) == (503, "overloaded")
        assert int(call.headers["retry-after"]) >= 1
        assert call.headers["connection"] == "close"
    for one in idle:  # those that are open are served
        one.send(raw)
        await one.over
        assert one.status == 200
        assert one.headers["cache-status"].startswith("penstock; hit")
    await asyncio.to_thread(assert_hit, proxy, ask(prompt))
    assert simulator.asked() == 1


async def test_of_many_at_once_as_many_are_answered_as_there_is_room_for_and_then_all(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(server={"max_flights": 10})
    kept = [ask(f"{prompt} kept {number}") for number in range(5)]
    await asyncio.gather(*(received(proxy, body) for body in kept))
    new = [ask(f"{prompt} new {number}", stream=True) for number in range(60)]
    with simulator.closed():
        asking = [asyncio.create_task(received(proxy, body)) for body in new]
        await eventually_async(lambda: sum(one.done() for one in asking) == 50)
        hits = await asyncio.gather(*(received(proxy, body) for body in kept * 4))
    answers = await asyncio.gather(*asking)
    assert [one[:12] for one in hits] == [b"HTTP/1.1 200"] * 20
    assert all(b"cache-status: penstock; hit" in one for one in hits)
    statuses = [one[9:12] for one in answers]
    assert (statuses.count(b"200"), statuses.count(b"503")) == (10, 50)
    assert all(re.search(rb"\r\nretry-after: \d+\r\n", one) for one in answers if one[9:12] == b"503")
    assert simulator.asked() == 15
    for start in range(0, 60, 10):
        again = await asyncio.gather(*(received(proxy, body) for body in new[start : start + 10]))
        assert [one[:12] for one in again] == [b"HTTP/1.1 200"] * 10
    assert simulator.asked() == 65
