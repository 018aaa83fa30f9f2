"""What a provider allows: calls wait for their turn, fairly, and nobody is lost; what it says of it is heeded."""

import json
from typing import Any

import pytest

from tests.conftest import MakeProxy
from tests.keyed import FORMS, Ahead, asks, gauge, key, read, shows
from tests.routed import counted, decided, model
from tests.scripted import Scripted, Turn, Wire, whole_stream
from tests.support import Json, Proxy, Simulator, ask, eventually

pytestmark = pytest.mark.usefixtures("loaded")

KEYS = [key(name, passthrough=["mirror"]) for name in ("a", "b", "c")]


def waiting(proxy: Proxy) -> int:
    return gauge(proxy, "penstock_calls_waiting")


def under_way(proxy: Proxy) -> int:
    return gauge(proxy, "penstock_calls_under_way")


def who(turn: Turn) -> str:
    """The prompt, which is who asks and a number."""
    content: str = turn.body["messages"][0]["content"]
    return content


def answers(turn: Turn, **headers: Any) -> None:
    """Give a whole answer in the form that was asked for."""
    if turn.body.get("stream"):
        turn.answer(*whole_stream("yes"), **headers)
        return
    message = {"role": "assistant", "content": "yes"}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    said = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices}
    turn.answer(json.dumps({**said, "usage": usage}).encode(), content_type="application/json", **headers)


class Line:
    """Clients that ask one after the other, each once the one before has come in."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.wires: dict[str, Wire] = {}

    def asks(self, name: str, body: Json | None = None) -> Wire:
        """`name`: of the client, which begins with its key's."""
        known = waiting(self.proxy) + under_way(self.proxy)
        form = FORMS[len(self.wires) % 3]
        wire = self.wires[name] = Wire(self.proxy.url, ask(name) | form | (body or {}), shows(name[0]))
        eventually(lambda: waiting(self.proxy) + under_way(self.proxy) == known + 1)
        return wire

    def all_are_answered(self) -> bool:
        found = [read(wire) for wire in self.wires.values()]
        return all(one.status == 200 and one.whole for one in found)


def test_ninety_from_three_keys_are_served_in_turns_in_order_and_never_too_many(
    make_proxy: MakeProxy, scripted: Scripted
) -> None:
    """A fifth of them: whoever came first fills the provider and the line, and has no more of it than the others."""
    proxy = make_proxy(scripted.base_url, key="sk-operator", keys=KEYS, provider={"max_concurrent": 2})
    line = Line(proxy)
    for name in ("a", "b", "c"):
        for number in range(6):
            line.asks(f"{name}{number}")
    assert (waiting(proxy), under_way(proxy)) == (16, 2)
    open_calls, order = [scripted.turn(), scripted.turn()], []
    while open_calls:
        assert scripted.nothing_came()
        assert under_way(proxy) == len(open_calls) <= 2
        turn = open_calls.pop(0)
        order.append(who(turn))
        left = waiting(proxy)
        answers(turn)
        if left:
            open_calls.append(scripted.turn())
        else:
            eventually(lambda: under_way(proxy) == len(open_calls))
    for name in ("a", "b", "c"):
        assert [one for one in order if one[0] == name] == [f"{name}{number}" for number in range(6)]
    # The first two went at once, before anybody else was there.
    assert "".join(one[0] for one in order) == "aa" + "abc" * 4 + "bcbc"
    assert line.all_are_answered()
    waits = counted(proxy.metrics(), "penstock_turn_wait_seconds_count")
    assert waits == {("sim",): 16}


def test_calls_wait_until_the_minute_has_room_again(make_proxy: MakeProxy, scripted: Scripted) -> None:
    clock = Ahead()
    provider = {"requests_per_minute": 3}
    proxy = make_proxy(scripted.base_url, key="sk-operator", keys=KEYS, clock=clock, provider=provider)
    line = Line(proxy)
    turns = []
    for number in range(5):
        line.asks(f"a{number}")
        turns += [scripted.turn()] if number < 3 else []
    assert waiting(proxy) == 2
    answers(turns[0])
    eventually(lambda: under_way(proxy) == 2)
    assert waiting(proxy) == 2  # a place was given back, which is not what they wait for
    assert scripted.nothing_came()
    clock.seconds += 61
    for turn in turns[1:]:
        answers(turn)
    for turn in (scripted.turn(), scripted.turn()):
        answers(turn)
    assert line.all_are_answered()


@pytest.mark.parametrize("form", FORMS[:2], ids=["JSON", "a stream"])
def test_whose_turn_does_not_come_in_time_is_told_when_to_come_back(
    form: Json, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    provider = {"requests_per_minute": 1, "queue_timeout": "0.05s"}
    proxy = make_proxy(key="sk-operator", keys=KEYS, provider=provider)
    assert asks(proxy, ask(prompt), "a").status == 200
    late = asks(proxy, ask(prompt + "!") | form, "b")
    assert (late.status, late.code) == (429, "queue_timeout")
    assert 50 <= int(late.headers["retry-after"]) <= 60
    assert "x-should-retry" not in late.headers
    assert (waiting(proxy), under_way(proxy), simulator.asked()) == (0, 0, 1)
    assert counted(proxy.metrics(), "penstock_limit_refusals_total") == {("", "queue_timeout"): 1}
    assert counted(proxy.metrics(), "penstock_attempts_total") == {("sim-instant", "sim", "ok"): 1}


def test_a_client_that_leaves_the_line_lets_the_next_one_pass(make_proxy: MakeProxy, scripted: Scripted) -> None:
    proxy = make_proxy(scripted.base_url, key="sk-operator", keys=KEYS, provider={"max_concurrent": 1})
    line = Line(proxy)
    line.asks("a0")
    first = scripted.turn()
    for name in ("a1", "a2"):
        line.asks(name)
    line.wires.pop("a1").reset()
    eventually(lambda: waiting(proxy) == 1)
    answers(first)
    second = scripted.turn()
    assert who(second) == "a2"
    line.wires.pop("a2").reset()  # and one that is under way gives its place back
    eventually(lambda: under_way(proxy) == 0)
    line.asks("b0")
    answers(scripted.turn())
    assert line.all_are_answered()


def test_where_the_first_of_those_who_ask_the_same_leaves_the_line_the_others_keep_their_place(
    make_proxy: MakeProxy, scripted: Scripted
) -> None:
    proxy = make_proxy(scripted.base_url, key="sk-operator", keys=KEYS, provider={"max_concurrent": 1})
    line = Line(proxy)
    line.asks("a0")
    first = scripted.turn()
    leader = line.asks("a1")
    joiner = Wire(proxy.url, ask("a1", stream=True), shows("a"))
    eventually(lambda: proxy.readers() == 3)
    line.asks("a2")
    leader.reset()
    eventually(lambda: proxy.readers() == 3)
    assert waiting(proxy) == 2
    answers(first)
    for name in ("a1", "a2"):
        turn = scripted.turn()
        assert who(turn) == name
        answers(turn)
    del line.wires["a1"]
    assert line.all_are_answered()
    assert read(joiner).status == 200


def test_who_takes_over_waits_among_its_own_keys_calls(make_proxy: MakeProxy, scripted: Scripted) -> None:
    proxy = make_proxy(
        scripted.base_url, key="sk-operator", keys=KEYS, provider={"max_concurrent": 1}, cache={"shared": True}
    )
    line = Line(proxy)
    line.asks("c0")
    turn = scripted.turn()
    leader = line.asks("a0")
    joiner = Wire(proxy.url, ask("a0", stream=True), shows("b"))
    eventually(lambda: proxy.readers() == 3)
    for name in ("a1", "b0"):
        line.asks(name)
    leader.reset()
    eventually(lambda: proxy.readers() == 4)
    order = []
    for _ in range(3):
        answers(turn)
        turn = scripted.turn()
        order.append(who(turn))
    answers(turn)
    assert order == ["a1", "b0", "a0"]
    del line.wires["a0"]
    assert line.all_are_answered()
    assert read(joiner).status == 200


def test_a_model_that_is_full_holds_up_nobody_else(make_proxy: MakeProxy, scripted: Scripted) -> None:
    models = {"narrow": {"max_concurrent": 1}}
    proxy = make_proxy(scripted.base_url, key="sk-operator", keys=KEYS, models=models)
    line = Line(proxy)
    for name in ("a0", "a1"):
        line.asks(name, {"model": "narrow"})
    line.asks("a2")
    turns = {who(turn): turn for turn in (scripted.turn(), scripted.turn())}
    assert turns.keys() == {"a0", "a2"}
    assert waiting(proxy) == 1
    answers(turns["a0"])
    answers(scripted.turn())
    answers(turns["a2"])
    assert line.all_are_answered()


def two_providers(make_proxy: MakeProxy, simulator: Simulator, **limits: object) -> Proxy:
    """Routes over models of a provider that has these limits, `any` with one of another's besides."""
    models = {
        "cheap": model("alpha", "1", "1"),
        "same": model("gamma", "3", "3"),
        "dear": {**model("beta", "2", "2"), "provider": "other"},
    }
    other = {"base_url": simulator.base_url, "auth": "none"}
    return make_proxy(
        key="sk-operator",
        keys=KEYS,
        provider=limits,
        providers={"other": other},
        routing={"default_provider": "sim"},
        models=models,
        routes={"any": {"models": ["cheap", "dear"]}, "full": {"models": ["cheap", "same"]}},
    )


def test_a_model_whose_provider_has_no_room_is_passed_over_where_another_can_answer(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = two_providers(make_proxy, simulator, max_concurrent=1)
    with simulator.closed():
        busy = Wire(proxy.url, ask(prompt + " busy", model="any"), shows("a"))
        eventually(lambda: simulator.waiting() == 1)
        beside = Wire(proxy.url, ask(prompt, model="any"), shows("a"))
        eventually(lambda: simulator.waiting() == 2)
        alone = Wire(proxy.url, ask(prompt, model="full"), shows("a"))
        eventually(lambda: waiting(proxy) == 1)
    assert [read(wire).headers["x-penstock-provider"] for wire in (busy, beside, alone)] == ["sim", "other", "sim"]
    metrics = proxy.metrics()
    assert counted(metrics, "penstock_options_dropped_total") == {("cheap", "quota", "any"): 1}
    decisions = counted(metrics, "penstock_decisions_total")
    assert decisions == {("cheap", "any", "cheapest"): 1, ("dear", "any", "only"): 1, ("cheap", "full", "waiting"): 1}


def test_a_request_that_a_provider_never_allows_is_answered_by_another_or_refused_at_once(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = two_providers(make_proxy, simulator, tokens_per_minute=50)
    found = decided(proxy, ask(prompt, model="any", max_tokens=60), **shows("a"))
    assert (found.status, found.first, found.dropped) == (200, "dear", {"cheap": "quota"})
    for name in ("full", "cheap"):
        refused = asks(proxy, ask(prompt, model=name, max_tokens=60), "a")
        assert (refused.status, refused.code) == (429, "request_over_limit")
        assert refused.headers["x-should-retry"] == "false"
    assert simulator.asked() == 1


STATED = {"x_ratelimit_limit_requests": "10", "x_ratelimit_remaining_requests": "0"}


def test_what_a_provider_says_is_left_is_waited_for(make_proxy: MakeProxy, scripted: Scripted) -> None:
    """It refills ten in a second, so one in a tenth of it."""
    proxy = make_proxy(scripted.base_url, key="sk-operator", keys=KEYS)
    line = Line(proxy)
    line.asks("a0")
    answers(scripted.turn(), **STATED, x_ratelimit_reset_requests="1s")
    eventually(lambda: under_way(proxy) == 0)
    line.asks("b0")
    answers(scripted.turn())
    assert line.all_are_answered()
    assert counted(proxy.metrics(), "penstock_turn_wait_seconds_count") == {("sim",): 1}


@pytest.mark.parametrize("status", [200, 429])
def test_until_then_nothing_is_sent(status: int, make_proxy: MakeProxy, scripted: Scripted) -> None:
    provider = {"queue_timeout": "0.1s"}
    proxy = make_proxy(scripted.base_url, key="sk-operator", keys=KEYS, provider=provider)
    line = Line(proxy)
    first = Wire(proxy.url, ask("a0"), shows("a", x_stainless_retry_count="0"))
    said = {"x_ratelimit_remaining_requests": "0", "x_ratelimit_reset_requests": "30m0s"}
    if status == 200:
        answers(scripted.turn(), **said)
    else:
        scripted.turn().answer(b'{"error": {}}', status=status, content_type="application/json", **said)
    assert read(first).status == status
    for name in ("a", "b"):
        late = asks(proxy, ask(f"{name}1"), name, x_stainless_retry_count="0")
        assert (late.status, late.code) == (429, "queue_timeout")
        assert late.headers["retry-after"] == "60"
    assert scripted.nothing_came()
    assert line.all_are_answered()


def test_what_passes_through_waits_for_its_turn_and_counts(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    provider = {"max_concurrent": 1, "requests_per_minute": 3, "queue_timeout": "5s"}
    proxy = make_proxy(key="sk-operator", keys=KEYS, provider=provider)
    with simulator.closed():
        busy = Wire(proxy.url, ask(prompt), shows("a"))
        eventually(lambda: simulator.waiting() == 1)
        passing = [Wire(proxy.url, b"{}", shows("b"), path="/v1/mirror/x") for _ in range(2)]
        eventually(lambda: waiting(proxy) == 2)
        assert simulator.asked() == 0
        passing.pop().reset()
        eventually(lambda: waiting(proxy) == 1)
    assert read(busy).status == 200
    assert read(passing[0]).status == 200
    eventually(lambda: (waiting(proxy), under_way(proxy)) == (0, 0))
    assert read(Wire(proxy.url, b"{}", shows("b"), path="/v1/mirror/x")).status == 200
    last = Wire(proxy.url, b"{}", shows("b"), path="/v1/mirror/x")
    eventually(lambda: waiting(proxy) == 1)
    last.reset()


def test_the_list_of_models_waits_for_nobody(make_proxy: MakeProxy, simulator: Simulator, prompt: str) -> None:
    proxy = make_proxy(key="sk-operator", keys=KEYS, provider={"max_concurrent": 1})
    with simulator.closed():
        busy = Wire(proxy.url, ask(prompt), shows("a"))
        eventually(lambda: simulator.waiting() == 1)
        assert proxy.http.get("/v1/models", headers=shows("b")).status_code == 200
    assert read(busy).status == 200


def test_clients_who_pay_for_themselves_take_turns_with_what_passes_through_too(
    make_proxy: MakeProxy, scripted: Scripted
) -> None:
    proxy = make_proxy(scripted.base_url, provider={"max_concurrent": 1})
    wires: list[Wire] = []
    for name in ("a0", "a1", "a2", "b0"):
        wires.append(Wire(proxy.url, {"name": name}, shows(name[0]), path="/v1/files"))
        eventually(lambda: waiting(proxy) + under_way(proxy) == len(wires))
    order = []
    for _ in wires:
        turn = scripted.turn()
        order.append(turn.body["name"])
        turn.answer(b"{}", content_type="application/json")
    assert order == ["a0", "a1", "b0", "a2"]
    assert all(read(wire).status == 200 for wire in wires)
