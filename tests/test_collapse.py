"""Identical requests at once cost one call, and nobody notices who else asks."""

import asyncio
import json
import re
from collections.abc import Awaitable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.asking import USAGE
from tests.conftest import MakeProxy
from tests.scripted import DONE, Scripted, Turn, Wire, answer, chunk, events, post, whole_stream
from tests.support import CHAT, FakeClock, Json, Proxy, Simulator, ask, eventually, eventually_async, together

STREAM = [*whole_stream("one", " two", " three")]
SEEN = [one for one in STREAM if b'"usage"' not in one]  # by who did not ask for usage
ID = b"chatcmpl-scripted"


@pytest.fixture
def played(make_proxy: MakeProxy, scripted: Scripted) -> Proxy:
    """A proxy before the provider that the test plays."""
    return make_proxy(scripted.base_url)


def same_but_for_id(stream: list[bytes]) -> list[bytes]:
    """The stream with the provider's id in the place of a fresh one."""
    assert not any(ID in one for one in stream)
    return [re.sub(rb"chatcmpl-[0-9a-f]+", ID, one) for one in stream]


@contextmanager
def led(proxy: Proxy, scripted: Scripted, body: Json, **headers: Any) -> Iterator[tuple[Wire, Turn]]:
    """A streamed request that leads a flight, and the call that it makes."""
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    with Wire(proxy.url, {**body, "stream": True}, told) as wire:
        yield wire, scripted.turn()


def joined(proxy: Proxy, body: Json, readers: int = 2, **headers: Any) -> Wire:
    """A request that reads the same flight as `readers - 1` others."""
    wire = Wire(proxy.url, body, {name.replace("_", "-"): value for name, value in headers.items()})
    eventually(lambda: proxy.readers() == readers)
    return wire


async def received(proxy: Proxy, body: Json) -> bytes:
    """A whole answer with its head, over a connection of its own; httpx takes ten seconds for 500 of them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]))
    raw = json.dumps(body).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(raw)}\r\n\r\n".encode() + raw)
    found = await reader.read()
    writer.close()
    await writer.wait_closed()
    return found


async def many(proxy: Proxy, bodies: list[Json], provider: Simulator) -> list[bytes]:
    """The answers to all of these at once."""
    with provider.closed():
        tasks = [asyncio.create_task(received(proxy, body)) for body in bodies]
        await eventually_async(lambda: proxy.readers() == len(bodies))
    return list(await asyncio.gather(*tasks))


def said(answer: bytes) -> str:
    """The text of the first choice, of either form."""
    pieces = re.findall(rb'"content":("(?:[^"\\]|\\.)*")', answer)
    return "".join(json.loads(piece) for piece in pieces)


async def test_500_identical_at_once_are_one_call_and_equal_answers(
    proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    answers = await many(proxy, [ask(prompt, stream=True)] * 500, simulator)
    ids = {next(iter(re.findall(rb"chatcmpl-[0-9a-f]+", one))) for one in answers}
    bodies = {re.sub(rb"chatcmpl-[0-9a-f]+", b"", one.partition(b"\r\n\r\n")[2]) for one in answers}
    heads = b"".join(one.partition(b"\r\n\r\n")[0] for one in answers)
    assert simulator.asked() == 1
    assert len(ids) == 500
    assert len({len(body) for body in bodies}) <= 2  # the provider's id has another length than ours
    assert len({said(body) for body in bodies}) == 1
    assert all(body.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n") for body in bodies)
    assert heads.count(b"penstock; fwd=miss; stored") == 1
    assert heads.count(b"penstock; fwd=miss; collapsed") == 499


async def test_streamed_and_json_requests_at_once_are_one_call(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    bodies = [ask(prompt), ask(prompt, stream=True), ask(prompt, **USAGE), ask(prompt)] * 10
    answers = await many(proxy, bodies, simulator)
    assert simulator.asked() == 1
    assert len({said(one) for one in answers}) == 1
    streamed = [one for one, body in zip(answers, bodies, strict=True) if body.get("stream")]
    assert all(b"data: [DONE]" in one for one in streamed)
    assert len(streamed) == 20


@pytest.mark.parametrize("after", range(len(STREAM) + 1))
def test_a_late_joiner_gets_everything_from_the_start(
    after: int, played: Proxy, scripted: Scripted, prompt: str
) -> None:
    body = ask(prompt, **USAGE)
    with led(played, scripted, body) as (leader, turn):
        turn.head()
        turn.send(*STREAM[:after])
        if after:
            leader.read_head()
        for one in STREAM[: min(after, len(STREAM) - 1)]:  # `[DONE]` waits for the end of HTTP
            assert leader.read_event() == one
        with joined(played, body) as late:
            turn.send(*STREAM[after:])
            turn.end()
            assert same_but_for_id(late.read_head().read_events()) == STREAM
            assert late.clean
            assert late.headers["cache-status"] == "penstock; fwd=miss; collapsed"
    assert same_but_for_id(events(played.url, body)) == STREAM


@pytest.mark.parametrize("after", range(len(STREAM)))
@pytest.mark.parametrize("by", ["RST", "FIN"])
def test_the_first_client_harms_nobody_by_leaving(
    by: str, after: int, played: Proxy, scripted: Scripted, prompt: str
) -> None:
    body = ask(prompt, **USAGE)
    with led(played, scripted, body) as (leader, turn), joined(played, body) as other:
        turn.head()
        for one in STREAM[:after]:
            turn.send(one)
        if after:
            leader.read_head()
        for one in STREAM[: min(after, len(STREAM) - 1)]:
            assert leader.read_event() == one
        leader.reset() if by == "RST" else leader.close()
        eventually(lambda: played.readers() == 1)
        turn.send(*STREAM[after:])
        turn.end()
        assert same_but_for_id(other.read_head().read_events()) == STREAM
        assert other.clean
    assert same_but_for_id(events(played.url, body)) == STREAM  # and it was kept


def test_a_leader_of_json_harms_no_joiner_by_leaving(played: Proxy, scripted: Scripted, prompt: str) -> None:
    completion = {"id": "1", "choices": [{"index": 0, "message": {"content": "b"}, "finish_reason": "stop"}]}
    leader = Wire(played.url, ask(prompt))
    turn = scripted.turn()
    with joined(played, ask(prompt)) as other:
        leader.reset()
        eventually(lambda: played.readers() == 1)
        turn.answer(json.dumps(completion).encode(), content_type="application/json")
        assert json.loads(other.read_head().read_body())["choices"] == completion["choices"]


def test_a_joiner_that_leaves_harms_nobody(played: Proxy, scripted: Scripted, prompt: str) -> None:
    with led(played, scripted, ask(prompt)) as (leader, turn):
        turn.head()
        turn.send(STREAM[0])
        joined(played, ask(prompt)).reset()
        eventually(lambda: played.readers() == 1)
        turn.send(*STREAM[1:])
        turn.end()
        assert leader.read_head().read_events() == SEEN


def test_no_cache_leads_a_flight_of_its_own_and_later_requests_join_the_newest(
    played: Proxy, scripted: Scripted, prompt: str
) -> None:
    body = ask(prompt)
    with (
        led(played, scripted, body) as (old, old_turn),
        led(played, scripted, body, cache_control="no-cache") as (new, turn),
        joined(played, {**body, "stream": True}, readers=3) as late,
    ):
        old_turn.answer(*whole_stream("old"))
        turn.answer(*whole_stream("new"))
        assert b'"old"' in b"".join(old.read_head().read_events())
        assert b'"new"' in b"".join(new.read_head().read_events())
        assert b'"new"' in b"".join(late.read_head().read_events())
        assert new.headers["cache-status"] == "penstock; fwd=request; stored"


@pytest.mark.parametrize("last", ["old", "new"])
def test_an_older_flight_never_overwrites_a_newer_entry(
    last: str, played: Proxy, scripted: Scripted, prompt: str
) -> None:
    body = ask(prompt)
    with (
        led(played, scripted, body) as (old, old_turn),
        led(played, scripted, body, cache_control="no-cache") as (new, turn),
    ):
        both = [(old, old_turn, "old"), (new, turn, "new")]
        for wire, its_turn, word in both if last == "new" else reversed(both):
            its_turn.answer(*whole_stream(word))
            wire.read_head().read_events()
    assert b'"new"' in b"".join(events(played.url, body))


def test_an_older_flight_never_overwrites_an_entry_that_came_after_a_failure(
    played: Proxy, scripted: Scripted, prompt: str
) -> None:
    body = ask(prompt)
    with led(played, scripted, body) as (old, old_turn):
        with led(played, scripted, body, cache_control="no-cache", x_stainless_retry_count="0") as (failing, turn):
            turn.answer(b'{"error": {}}', status=500, content_type="application/json")
            assert failing.read_head().status == 500
            failing.read_body()
        eventually(lambda: played.flights() == 1)
        with led(played, scripted, body, cache_control="no-cache") as (new, turn):
            turn.answer(*whole_stream("new"))
            new.read_head().read_events()
        old_turn.answer(*whole_stream("old"))
        old.read_head().read_events()
    eventually(lambda: played.flights() == 0)
    assert b'"new"' in b"".join(events(played.url, body))


def test_no_store_neither_joins_nor_is_joined_nor_read_nor_kept(played: Proxy, scripted: Scripted, prompt: str) -> None:
    body = ask(prompt)
    with (
        led(played, scripted, body, cache_control="no-store") as (alone, first),
        led(played, scripted, body) as (leader, second),
        led(played, scripted, body, cache_control="no-store") as (also_alone, third),
    ):
        for turn, word in ((first, "1"), (second, "2"), (third, "3")):
            turn.answer(*whole_stream(word))
        answers = [b"".join(wire.read_head().read_events()) for wire in (alone, leader, also_alone)]
        assert [f'"{word}"'.encode() in text for word, text in zip("123", answers, strict=True)] == [True] * 3
    assert b'"2"' in b"".join(events(played.url, body))
    with led(played, scripted, body, cache_control="no-store") as (alone, turn):
        turn.answer(*whole_stream("4"))
        assert b'"4"' in b"".join(alone.read_head().read_events())
    assert b'"2"' in b"".join(events(played.url, body))


def test_a_ttl_of_0_can_be_joined_and_is_not_kept(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    async def asking() -> list[list[bytes]]:
        asks = [lambda: asyncio.to_thread(events, proxy.url, ask(prompt), x_penstock_ttl="0")] * 2
        return await together(proxy, simulator, *asks)

    first, second = asyncio.run(asking())
    assert len(first) == len(second)
    assert simulator.asked() == 1
    events(proxy.url, ask(prompt))
    assert simulator.asked() == 2


@pytest.mark.parametrize(("leaders", "joiners"), [("50", "1000"), ("1000", "50"), (None, "50"), ("50", None)])
def test_the_shortest_ttl_of_a_flight_counts(
    leaders: str | None, joiners: str | None, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    clock = FakeClock()
    proxy = make_proxy(clock=clock)

    def asks(ttl: str | None) -> Any:
        headers = {} if ttl is None else {"x_penstock_ttl": ttl}
        return lambda: asyncio.to_thread(events, proxy.url, ask(prompt), **headers)

    asyncio.run(together(proxy, simulator, asks(leaders), asks(joiners)))
    clock.ahead = 45
    events(proxy.url, ask(prompt))
    assert simulator.asked() == 1
    clock.ahead = 55
    events(proxy.url, ask(prompt))
    assert simulator.asked() == 2


def test_samples_are_answers_of_their_own(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    for sample in (None, "1", "2", "01", "1", None):
        answer(proxy.url, ask(prompt), **({} if sample is None else {"x_penstock_sample": sample}))
    assert simulator.asked() == 3


@pytest.mark.parametrize("form", [{}, {"stream": True}])
def test_only_if_cached_is_a_504_where_nothing_is_and_a_hit_where_something_is(
    form: Json, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = ask(prompt) | form
    with post(proxy.url, body, cache_control="only-if-cached") as wire:
        assert wire.status == 504
        assert wire.headers["x-should-retry"] == "false"
        assert json.loads(wire.read_body())["error"]["code"] == "not_cached"
    assert simulator.asked() == 0
    answer(proxy.url, ask(prompt))
    with post(proxy.url, body, cache_control="only-if-cached") as wire:
        assert wire.status == 200


def test_only_if_cached_joins_nothing(played: Proxy, scripted: Scripted, prompt: str) -> None:
    with led(played, scripted, ask(prompt)) as (leader, turn):
        with post(played.url, ask(prompt), cache_control="only-if-cached") as wire:
            assert wire.status == 504
        turn.answer(*STREAM)
        leader.read_head().read_events()


def test_max_age_accepts_no_older_answer(make_proxy: MakeProxy, simulator: Simulator, prompt: str) -> None:
    clock = FakeClock()
    proxy = make_proxy(clock=clock)
    answer(proxy.url, ask(prompt))
    clock.ahead = 100
    with post(proxy.url, ask(prompt), cache_control="max-age=200") as wire:
        assert 100 <= int(wire.headers["age"]) < 200
    assert simulator.asked() == 1
    answer(proxy.url, ask(prompt), cache_control="max-age=50")
    assert simulator.asked() == 2
    with post(proxy.url, ask(prompt), cache_control="max-age=50") as wire:
        assert int(wire.headers["age"]) < 50
    assert simulator.asked() == 2


def test_an_expired_answer_is_fetched_anew_and_a_clock_that_went_back_gives_no_negative_age(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    clock = FakeClock()
    proxy = make_proxy(clock=clock, cache={"ttl": "1h"})
    answer(proxy.url, ask(prompt))
    clock.ahead = -500
    with post(proxy.url, ask(prompt)) as wire:
        assert wire.headers["age"] == "0"
    clock.ahead = 3601
    with post(proxy.url, ask(prompt)) as wire:
        assert wire.headers["cache-status"] == "penstock; fwd=stale; stored"
    assert simulator.asked() == 2


def test_a_json_joiner_of_a_stream_without_usage_gets_its_own_call(
    played: Proxy, scripted: Scripted, prompt: str
) -> None:
    without = [chunk("a"), chunk(finish="stop"), DONE]
    completion = {"id": "1", "choices": [{"index": 0, "message": {"content": "b"}, "finish_reason": "stop"}]}
    with led(played, scripted, ask(prompt)) as (leader, turn), joined(played, ask(prompt)) as late:
        turn.answer(*without)
        assert leader.read_head().read_events() == without
        scripted.turn().answer(json.dumps(completion).encode(), content_type="application/json")
        assert json.loads(late.read_head().read_body()) == completion
        assert late.headers["cache-status"] == "penstock; fwd=miss; stored"


def test_a_provider_that_says_no_usage_has_an_answer_for_each_form(
    proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = ask(prompt, model="sim-instant;nousage")
    first = events(proxy.url, body)
    assert events(proxy.url, body)[1:][-1] == first[-1]
    assert simulator.asked() == 1
    assert "usage" not in answer(proxy.url, body)
    assert simulator.asked() == 2


def test_a_json_joiner_of_a_stream_that_cannot_be_read_gets_its_own_call(
    played: Proxy, scripted: Scripted, prompt: str
) -> None:
    odd = [chunk("a"), b"data: {not json\n\n", *whole_stream()]
    completion = {"id": "1", "choices": [{"index": 0, "message": {"content": "b"}, "finish_reason": "stop"}]}
    with led(played, scripted, ask(prompt, **USAGE)) as (leader, turn), joined(played, ask(prompt)) as late:
        turn.answer(*odd)
        assert leader.read_head().read_events() == odd
        scripted.turn().answer(json.dumps(completion).encode(), content_type="application/json")
        assert late.read_head().status == 200
        assert json.loads(late.read_body()) == completion


def test_a_json_joiner_of_a_stream_without_a_finish_gets_its_own_call(
    played: Proxy, scripted: Scripted, prompt: str
) -> None:
    unfinished = [chunk("a"), whole_stream()[-2], DONE]
    completion = {"id": "1", "choices": [{"index": 0, "message": {"content": "b"}, "finish_reason": "stop"}]}
    with led(played, scripted, ask(prompt, **USAGE)) as (leader, turn), joined(played, ask(prompt)) as late:
        turn.answer(*unfinished)
        assert leader.read_head().read_events() == unfinished
        scripted.turn().answer(json.dumps(completion).encode(), content_type="application/json")
        assert json.loads(late.read_head().read_body()) == completion


@pytest.mark.parametrize(
    "body", [b'{"error": {"message": "busy"}}', b'{"choices": 7}', b'{"choices": [1]}', b"[]", b"{"]
)
def test_a_streaming_joiner_of_an_odd_completion_gets_an_answer_or_an_error(
    body: bytes, played: Proxy, scripted: Scripted, prompt: str
) -> None:
    with Wire(played.url, ask(prompt)) as leader:
        turn = scripted.turn()
        with joined(played, ask(prompt, stream=True)) as late:
            turn.answer(body, content_type="application/json")
            leader.read_head().read_body()
            late.read_head()
            assert late.status != 500
            assert b"[DONE]" not in late.read_body()


def test_a_flight_that_is_failing_takes_no_joiners(played: Proxy, scripted: Scripted, prompt: str) -> None:
    with led(played, scripted, ask(prompt), x_stainless_retry_count="0") as (leader, turn):
        turn.head(500, "application/json")
        turn.send(b'{"error": ')
        eventually(
            lambda: played.loop.call(lambda: [f.recording.head for f in played.app.flights._all if f.recording.head])
        )
        with led(played, scripted, ask(prompt)) as (other, next_turn):
            next_turn.answer(*STREAM)
            assert other.read_head().read_events() == SEEN
        turn.send(b"{}}")
        turn.end()
        assert leader.read_head().status == 500


@pytest.mark.parametrize("mode", ["collapse", "bypass"])
def test_what_is_sampled_is_kept_only_as_far_as_the_setting_says(
    mode: str, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(cache={"sampled": mode})
    sampled, greedy = ask(prompt), ask(prompt, temperature=0)

    async def at_once() -> None:
        def one() -> Awaitable[Json]:
            return asyncio.to_thread(answer, proxy.url, sampled)

        if mode == "collapse":
            await together(proxy, simulator, one, one)
        else:
            await asyncio.gather(one(), one())

    asyncio.run(at_once())
    assert simulator.asked() == (1 if mode == "collapse" else 2)
    answer(proxy.url, sampled)
    assert simulator.asked() == (2 if mode == "collapse" else 3)
    answer(proxy.url, greedy), answer(proxy.url, greedy)
    assert simulator.asked() == (3 if mode == "collapse" else 4)


def test_no_cache_leads_a_flight_of_its_own_even_where_answers_are_only_collapsed(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url, cache={"sampled": "collapse"})
    with led(proxy, scripted, ask(prompt)) as (old, turn):
        with led(proxy, scripted, ask(prompt), cache_control="no-cache") as (new, new_turn):
            new_turn.answer(*whole_stream("new"))
            assert b'"new"' in b"".join(new.read_head().read_events())
        turn.answer(*whole_stream("old"))
        assert b'"old"' in b"".join(old.read_head().read_events())


def test_a_slow_reader_slows_nobody_below_max_entry(make_proxy: MakeProxy, scripted: Scripted, prompt: str) -> None:
    proxy = make_proxy(scripted.base_url)
    big = whole_stream(*["x" * 50_000] * 60)
    with led(proxy, scripted, ask(prompt, **USAGE)) as (slow, turn), joined(proxy, ask(prompt, **USAGE)) as fast:
        turn.answer(*big)
        assert same_but_for_id(fast.read_head().read_events()) == big
        eventually(lambda: proxy.flights() == 0)
        assert slow.read_head().read_events() == big


def test_past_max_entry_nothing_is_kept_and_nobody_joins_and_the_slowest_reader_sets_the_pace(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url, cache={"max_entry": "64KiB"})
    body = ask(prompt, **USAGE)
    big = whole_stream(*["x" * 50_000] * 200)
    with ExitStack() as stack:
        slow, turn = stack.enter_context(led(proxy, scripted, body))
        fast = stack.enter_context(joined(proxy, body))
        turn.answer(*big)
        assert same_but_for_id([fast.read_head().read_event()]) == big[:1]
        other, other_turn = stack.enter_context(led(proxy, scripted, body))  # nobody to join
        other_turn.answer(*whole_stream("small"))
        assert other.read_head().read_events() == whole_stream("small")
        reading = asyncio.run(_both(slow.read_head(), fast))
        assert reading[0] == big
        assert same_but_for_id(reading[1]) == big[1:]
    assert b"small" in b"".join(events(proxy.url, body))


async def _both(one: Wire, other: Wire) -> tuple[list[bytes], list[bytes]]:
    first, second = await asyncio.gather(asyncio.to_thread(one.read_events), asyncio.to_thread(other.read_events))
    return first, second


def test_a_refusal_of_what_only_the_leader_said_is_not_given_to_others(
    played: Proxy, scripted: Scripted, prompt: str
) -> None:
    """`user` does not enter the key; a provider may refuse it all the same."""
    with Wire(played.url, ask(prompt, user=5, stream=True)) as leader:
        refused = scripted.turn()
        with joined(played, ask(prompt, stream=True)) as innocent, joined(played, ask(prompt, stream=True), 3) as other:
            refused.answer(b'{"error": {}}', status=400, content_type="application/json")
            assert leader.read_head().status == 400
            for _ in range(2):
                scripted.turn().answer(*whole_stream("fine"))
            assert [wire.read_head().status for wire in (innocent, other)] == [200, 200]
            assert all(b"fine" in wire.read_body() for wire in (innocent, other))


def test_a_late_joiner_of_a_long_stream_gets_all_of_it(played: Proxy, scripted: Scripted, prompt: str) -> None:
    words = [f" {number}" for number in range(1000)]
    stream = whole_stream(*words)
    with led(played, scripted, ask(prompt, **USAGE)) as (leader, turn):
        turn.head()
        turn.send(*stream[:-1])
        leader.read_head()
        assert [leader.read_event() for _ in stream[:-1]] == stream[:-1]
        with joined(played, ask(prompt, **USAGE)) as late:
            late.read_head()
            for one in stream[:-1]:
                assert late.read_event().partition(b",")[2] == one.partition(b",")[2]
            turn.send(DONE)
            turn.end()
            assert late.read_events() == [DONE]
            assert late.clean
