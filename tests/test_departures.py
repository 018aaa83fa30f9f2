"""A client that leaves: the provider hears of it, and nothing stays behind."""

import asyncio
import random
from collections.abc import Callable

import pytest

from tests.conftest import MakeProxy
from tests.scripted import Scripted, Wire, chunk, events, whole_stream
from tests.support import Json, Proxy, Simulator, ask, eventually

SLOW = "sim-instant;gap=30"
LEAVES: dict[str, Callable[[Wire], None]] = {"RST": Wire.reset, "FIN": Wire.close}


def assert_gone(proxy: Proxy, simulator: Simulator, callers: int = 1) -> None:
    """The provider has seen its callers leave, and the proxy has forgotten all about them."""
    eventually(lambda: simulator.calls()["hung_up"] == callers)
    assert simulator.calls()["open"] == 0
    proxy.becomes_quiet()


@pytest.mark.parametrize("by", LEAVES)
@pytest.mark.parametrize("form", [{}, {"stream": True}])
def test_who_leaves_before_the_head_takes_the_call_along(
    by: str, form: Json, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    wire = Wire(proxy.url, ask(prompt, model="sim-instant;first=30", **form))
    eventually(lambda: simulator.calls()["open"] == 1)
    LEAVES[by](wire)
    assert_gone(proxy, simulator)


@pytest.mark.parametrize("by", LEAVES)
@pytest.mark.parametrize("after", range(4))
def test_who_leaves_a_stream_takes_the_call_along(
    by: str, after: int, make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url)
    wire = Wire(proxy.url, ask(prompt, stream=True))
    turn = scripted.turn()
    turn.head()
    for number in range(after):
        turn.send(chunk(f"word {number}"))
        if number == 0:
            wire.read_head()
        wire.read_event()
    LEAVES[by](wire)
    assert turn.gone.wait(20)
    proxy.becomes_quiet()


@pytest.mark.parametrize("by", LEAVES)
def test_who_leaves_in_the_middle_of_a_json_answer_takes_the_call_along(
    by: str, make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url)
    wire = Wire(proxy.url, ask(prompt))
    turn = scripted.turn()
    turn.head(200, "application/json")
    turn.send(b'{"choices": [')
    eventually(lambda: proxy.loop.call(lambda: any(one.recording.length for one in proxy.app.flights._all)))
    LEAVES[by](wire)
    assert turn.gone.wait(20)
    proxy.becomes_quiet()


def test_who_leaves_before_the_request_is_whole_costs_nothing(proxy: Proxy, simulator: Simulator) -> None:
    wire = Wire(proxy.url, b'{"model": "sim-instant", ', {"content-length": 1000})
    eventually(lambda: proxy.metrics()["penstock_requests_open"] == 1)
    wire.reset()
    proxy.becomes_quiet()
    assert simulator.asked() == 0


def test_who_leaves_while_a_refused_body_is_read_takes_the_call_along(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url)
    wire = Wire(proxy.url, ask(prompt, stream=True))
    turn = scripted.turn()
    turn.head(400, "application/json", content_length="100")
    turn.send(b"{")
    eventually(lambda: proxy.left_behind().get("upstream") == 1)
    wire.reset()
    assert turn.gone.wait(20)
    proxy.becomes_quiet()


def test_who_leaves_while_a_retry_waits_is_not_asked_for_again(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url)
    wire = Wire(proxy.url, ask(prompt))
    scripted.turn().answer(b"{}", status=429, content_type="application/json", retry_after="9")
    eventually(lambda: "upstream" not in proxy.left_behind())
    wire.reset()
    proxy.becomes_quiet()


def test_who_leaves_while_the_provider_is_dialled_leaves_nothing(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy("http://192.0.2.1:9/v1", provider={"connect_timeout": 60})  # an address that never answers
    wire = Wire(proxy.url, ask(prompt))
    eventually(lambda: proxy.flights() == 1)
    wire.reset()
    proxy.becomes_quiet()


def test_with_finish_an_abandoned_answer_is_made_to_its_end_and_kept(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url, cache={"on_abandon": "finish"})
    wire = Wire(proxy.url, ask(prompt, stream=True))
    turn = scripted.turn()
    turn.head()
    turn.send(chunk("one"))
    wire.read_head().read_event()
    wire.reset()
    eventually(lambda: proxy.readers() == 0)
    assert proxy.flights() == 1
    turn.send(*whole_stream(" two"))
    turn.end()
    proxy.becomes_quiet()
    assert b" two" in b"".join(events(proxy.url, ask(prompt)))


def test_with_finish_an_abandoned_answer_can_be_joined(make_proxy: MakeProxy, scripted: Scripted, prompt: str) -> None:
    proxy = make_proxy(scripted.base_url, cache={"on_abandon": "finish"})
    first = Wire(proxy.url, ask(prompt, stream=True))
    turn = scripted.turn()
    first.reset()
    eventually(lambda: proxy.readers() == 0)
    with Wire(proxy.url, ask(prompt, stream=True)) as second:
        eventually(lambda: proxy.readers() == 1)
        turn.answer(*whole_stream("word"))
        assert len(second.read_head().read_events()) == 3


def test_with_finish_an_abandoned_answer_that_cannot_be_kept_is_given_up(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url, cache={"on_abandon": "finish", "max_entry": "64KiB"})
    wire = Wire(proxy.url, ask(prompt, stream=True))
    turn = scripted.turn()
    turn.head()
    turn.send(chunk("one"))
    wire.read_head().read_event()
    wire.reset()
    eventually(lambda: proxy.readers() == 0)
    turn.send(*[chunk("x" * 50_000)] * 60)
    assert turn.gone.wait(5)
    proxy.becomes_quiet()


@pytest.mark.parametrize("header", [{"cache-control": "no-store"}, {"x-penstock-ttl": "0"}])
def test_with_finish_an_abandoned_answer_that_nobody_would_keep_is_given_up(
    header: Json, make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url, cache={"on_abandon": "finish"})
    wire = Wire(proxy.url, ask(prompt, stream=True), header)
    turn = scripted.turn()
    wire.reset()
    assert turn.gone.wait(5)
    proxy.becomes_quiet()


async def test_300_departures_at_random_leave_nothing(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    dice = random.Random(7)
    bodies = [
        ask(
            f"{prompt} {number // 3}",
            model=dice.choice(["sim-instant;gap=0.01", "sim-instant;first=0.05", "sim-instant", SLOW]),
            **dice.choice([{}, {"stream": True}]),
        )
        for number in range(300)
    ]
    await asyncio.gather(*(_leave_somewhere(proxy, body, dice.random() / 5) for body in bodies))
    await asyncio.to_thread(proxy.becomes_quiet)
    await asyncio.to_thread(eventually, lambda: simulator.calls()["open"] == 0)
    assert simulator.calls()["hung_up"] > 0


async def _leave_somewhere(proxy: Proxy, body: Json, patience: float) -> None:
    """Ask, and leave after a while, by then perhaps with an answer; by RST or FIN, as the first byte says."""
    wire = await asyncio.to_thread(Wire, proxy.url, body)
    await asyncio.sleep(patience)
    LEAVES["RST" if patience < 0.1 else "FIN"](wire)
