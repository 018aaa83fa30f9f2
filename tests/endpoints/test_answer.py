"""What is told of a request when it is over, whichever way it went."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from proxy.clock import SystemClock
from tests.conftest import MakeProxy
from tests.keyed import Ahead
from tests.scripted import DONE, Scripted, Turn, Wire, chunk, event, events, post, usage_chunk, whole_stream
from tests.support import CHAT, Json, Proxy, Simulator, ask, eventually, proxy_table

pytestmark = pytest.mark.usefixtures("unheard")

PAGE: Final = "/chat/stream"
AWAY: Final = 1000.0  # seconds by the test's clock that an answer is in others' hands; no test lasts as long
PRICED: Json = {"m": {"price": {"input": "10", "output": "10"}}}
ONCE: Json = {"max_retries": 0}
NO: Final = event({"error": {"message": "no"}}).removeprefix(b"data: ")
SAID: Final = (
    b'{"id": "1", "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}],'
    b' "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}'
)


class Clients:
    """Who asks in threads of their own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor()

    def asks(self, proxy: Proxy, body: Json, path: str = CHAT, **headers: str) -> "Future[Wire]":
        """The whole answer, as soon as it has ended, be it well or not."""
        return self._threads.submit(self._read, proxy, body, path, headers)

    @staticmethod
    def _read(proxy: Proxy, body: Json, path: str, headers: Json) -> Wire:
        with Wire(proxy.url, body, headers, path) as wire:
            wire.read_head().read_body()
            return wire


@pytest.fixture
def clients() -> Clients:
    return Clients()


def fails(turn: Turn, status: int = 500) -> None:
    turn.answer(NO, status=status, content_type="application/json")


def streams(turn: Turn, *words: str) -> None:
    turn.answer(*whole_stream(*words))


# How it ended.


def test_what_fails_behind_its_head_is_broken(
    make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch, prompt: str
) -> None:
    proxy = make_proxy()
    proxy.http.post(CHAT, json=ask(prompt))

    async def breaks(*_: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr("proxy.endpoints.answer.send_whole", breaks)
    proxy.http.post(CHAT, json=ask(prompt))
    (row,) = proxy.told(2)[1:]
    assert (row.outcome, row.status, row.code) == ("broken", 200, "internal_error")


def test_what_a_shutdown_ends_before_its_head_is_refused(
    make_proxy: MakeProxy, scripted: Scripted, clients: Clients
) -> None:
    proxy = make_proxy(scripted.base_url)
    asked = clients.asks(proxy, {"x": 1}, "/v1/moderations")
    scripted.turn()
    proxy.loop.call(proxy.app.gate.end)
    asked.exception()
    (row,) = proxy.told()
    assert (row.outcome, row.status, row.code) == ("refused", 503, "shutting_down")
    assert not proxy.count("penstock_requests_total", status="0")


def test_a_replay_that_its_client_left_is_left(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy()
    body = ask(prompt, model="sim-instant;chunks=3;gap=0.2", stream=True)
    events(proxy.url, body)
    with post(proxy.url, body, x_penstock_replay="recorded") as wire:
        wire.read_event()
    (_, row) = proxy.told(2)
    assert (row.outcome, row.status) == ("left", 200)


def test_an_oversized_answer_that_breaks_says_why(make_proxy: MakeProxy, scripted: Scripted) -> None:
    proxy = make_proxy(scripted.base_url, provider=ONCE, cache={"max_entry": "1KiB"})
    with Wire(proxy.url, ask("x", model="m")) as wire:
        turn = scripted.turn()
        turn.head(content_type="application/json")
        turn.send(b'{"a": "' + b"x" * 5000)
        wire.read_head()
        turn.abort()
        wire.read_body()
        assert not wire.clean
    (row,) = proxy.told()
    assert (row.outcome, row.code) == ("broken", "upstream_reset")


# What it cost, and what it saved.


def test_what_was_passed_through_cost_nobody_knows_what(make_proxy: MakeProxy) -> None:
    proxy = make_proxy()
    proxy.http.post("/v1/mirror/x", json={})
    (row,) = proxy.told()
    assert (row.outcome, row.cost) == ("bypass", None)


def test_what_a_provider_refused_cost_nothing(make_proxy: MakeProxy, scripted: Scripted, clients: Clients) -> None:
    proxy = make_proxy(scripted.base_url, provider=ONCE, models=PRICED)
    asked = clients.asks(proxy, ask("x", model="m"))
    fails(scripted.turn(), 400)
    asked.result()
    (row,) = proxy.told()
    assert row.cost == 0
    assert proxy.count("penstock_cost_usd_total") == 0


def test_a_stale_answer_costs_what_the_failed_call_did_and_adds_nothing_to_its_wait(
    make_proxy: MakeProxy, scripted: Scripted, clients: Clients
) -> None:
    clock = Ahead()
    proxy = make_proxy(
        scripted.base_url,
        clock=clock,
        provider=ONCE,
        models=PRICED,
        cache={"ttl": "10s", "stale_if_error": "1h"},
    )
    body = ask("x", model="m", stream=True, max_tokens=1000)
    asked = clients.asks(proxy, body)
    streams(scripted.turn(), "a")
    asked.result()
    (first,) = proxy.told()
    clock.seconds += 20
    asked = clients.asks(proxy, body)
    turn = scripted.turn()
    clock.seconds += AWAY
    turn.head()
    turn.abort()  # what was sent may have to be paid
    assert asked.result().headers["cache-status"].startswith("penstock; hit")
    (row,) = proxy.told(2)[1:]
    assert row.outcome == "stale"
    assert row.overhead is not None
    assert row.overhead < AWAY / 2
    paid = proxy.count("penstock_cost_usd_total") - float(first.cost or 0)
    assert paid > 0
    assert row.cost is None or float(row.cost) == pytest.approx(paid)


@pytest.mark.parametrize("broken", [False, True])
def test_only_a_whole_answer_of_a_page_saves_what_it_would_have_cost(
    broken: bool, make_proxy: MakeProxy, scripted: Scripted, clients: Clients
) -> None:
    proxy = make_proxy(scripted.base_url, provider=ONCE, models=PRICED)
    page = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    asked = [clients.asks(proxy, page, PAGE)]
    turn = scripted.turn()
    asked.append(clients.asks(proxy, page, PAGE))
    eventually(lambda: proxy.readers() == 2)
    turn.answer(chunk("a"), *([] if broken else [chunk(finish="stop")]), usage_chunk(), DONE)
    assert [each.result().clean for each in asked] == [not broken] * 2
    (joined,) = [row for row in proxy.told(2) if row.leader is not None]
    assert joined.outcome == ("broken" if broken else "collapsed")
    assert (joined.saved is None) == broken
    assert (proxy.count("penstock_saved_usd_total") == 0) == broken


# In whose place it was answered.


def test_who_left_an_answer_that_was_not_for_it_has_missed_and_waited_from_then_on(
    make_proxy: MakeProxy, scripted: Scripted, clients: Clients
) -> None:
    clock = Ahead()
    proxy = make_proxy(scripted.base_url, clock=clock, provider=ONCE, models=PRICED)
    first = clients.asks(proxy, ask("x", model="m", user="a"))
    turn = scripted.turn()
    second = clients.asks(proxy, ask("x", model="m", user="b"))
    eventually(lambda: proxy.readers() == 2)
    clock.seconds += AWAY
    fails(turn, 400)  # perhaps for what only the first had said
    turn = scripted.turn()
    clock.seconds += AWAY
    turn.answer(SAID, content_type="application/json")
    assert [first.result().status, second.result().status] == [400, 200]
    (row,) = [row for row in proxy.told(2) if row.status == 200]
    assert (row.outcome, row.leader, row.saved) == ("miss", None, None)
    assert row.cost is not None
    assert float(row.cost) == proxy.count("penstock_cost_usd_total") > 0
    assert row.overhead is not None
    assert row.overhead < AWAY / 2


def test_the_wait_of_who_took_over_an_answer_is_its_own(
    make_proxy: MakeProxy, scripted: Scripted, clients: Clients
) -> None:
    clock = Ahead()
    proxy = make_proxy(scripted.base_url, clock=clock, provider={"max_concurrent": 1, "queue_timeout": "2h"})
    other = clients.asks(proxy, ask("other", stream=True))
    others = scripted.turn()
    left = Wire(proxy.url, ask("x", stream=True))
    eventually(lambda: proxy.readers() == 2)
    clock.seconds += AWAY
    heir = clients.asks(proxy, ask("x", stream=True))
    eventually(lambda: proxy.readers() == 3)
    left.close()
    eventually(lambda: proxy.readers() == 2)
    streams(others, "a")
    streams(scripted.turn(), "b")
    assert other.result().clean
    assert heir.result().clean
    rows = {row.outcome: row for row in proxy.told(3)}
    assert rows.keys() == {"miss", "left", "collapsed"}
    assert rows["collapsed"].overhead is not None
    assert 0 < rows["collapsed"].overhead < AWAY / 2  # what passed before it came is neither added nor taken off


def test_a_flight_that_goes_on_without_its_leader_is_joined(
    make_proxy: MakeProxy, scripted: Scripted, clients: Clients
) -> None:
    proxy = make_proxy(scripted.base_url, cache={"on_abandon": "finish"})
    with Wire(proxy.url, ask("x", stream=True)) as wire:
        turn = scripted.turn()
        turn.head()
        turn.send(chunk("a"))
        wire.read_head().read_event()
    eventually(lambda: proxy.readers() == 0)
    joined = clients.asks(proxy, ask("x", stream=True))
    eventually(lambda: proxy.readers() == 1)
    turn.send(chunk(finish="stop"), usage_chunk(), DONE)
    turn.end()
    assert joined.result().clean
    assert proxy.count("penstock_flights_joined_total") == proxy.count("penstock_requests_total", outcome="collapsed")
    assert proxy.count("penstock_flights_joined_total") == 1


# While it is under way, and after a restart.


def test_a_stream_that_passes_through_is_open(make_proxy: MakeProxy, scripted: Scripted) -> None:
    proxy = make_proxy(scripted.base_url)
    with Wire(proxy.url, {"stream": True}, path="/v1/realtime/x") as wire:
        turn = scripted.turn()
        turn.head()
        turn.send(chunk("a"))
        wire.read_head().read_event()
        assert proxy.count("penstock_streams") == 1
        turn.end()
        wire.read_body()
    proxy.becomes_quiet()
    assert proxy.count("penstock_streams") == 0


def test_a_hit_after_a_restart_is_told_by_its_model(simulator: Simulator, tmp_path: Path, prompt: str) -> None:
    for outcome in ("miss", "hit"):
        proxy = Proxy(proxy_table(simulator.base_url, tmp_path, {}, {}), {}, SystemClock())
        proxy.http.post(CHAT, json=ask(prompt))
        counted = proxy.count("penstock_requests_total", outcome=outcome, model="sim-instant")
        proxy.stop()  # which writes down what is to be kept
        assert counted == 1
