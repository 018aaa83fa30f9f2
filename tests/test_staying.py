"""A conversation that holds what only its model can go on from stays with that model, while it can."""

import json

import pytest

from tests.conftest import MakeProxy, Sdk
from tests.routed import by_whom, decided, goes_to, model, routing
from tests.scripted import Scripted, Wire, post
from tests.support import FakeClock, Json, Proxy, Simulator

pytestmark = pytest.mark.usefixtures("at_once")

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
CAN: Json = {"can": ["tools"]}

# Of 400 tokens and an answer of 50, alpha gets the first turn: 400 + 50 against 400 × 0.5 + 50 × 20. Of a turn that is
# answered by one token, beta would get every one: 400 + 1 against 400 × 0.5 + 20.
MODELS = {"alpha": model("alpha", "1", "1", **CAN), "beta": model("beta", "0.5", "20", **CAN)}


def first_turn(prompt: str) -> Json:
    return {"model": "any", "messages": [{"role": "user", "content": prompt + " the" * 380}], "tools": TOOLS}


def calling(call: str = "call_1") -> Json:
    """What a model says that calls a tool."""
    function = {"name": "f", "arguments": "{}"}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": call, "type": "function", "function": function}],
    }


def next_turn(turn: Json, said: Json, **members: object) -> Json:
    """The tool's answer to what was said."""
    result = {"role": "tool", "tool_call_id": said["tool_calls"][0]["id"], "content": "42"}
    return {**turn, "messages": [*turn["messages"], said, result], "max_tokens": 1, **members}


def begin(proxy: Proxy, turn: Json, **headers: str) -> tuple[str, Json]:
    """Who answers, and what it says: a call of the tool."""
    with post(proxy.url, turn, **headers) as wire:
        said: Json = json.loads(wire.read_body())["choices"][0]["message"]
        assert said["tool_calls"]
        return by_whom(wire, proxy), said


def test_a_tool_call_is_gone_on_from_by_the_model_that_made_it(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy(**routing(**MODELS))
    turn = first_turn(prompt)
    name, said = begin(proxy, turn)
    assert name == "alpha"
    seen = goes_to(proxy, next_turn(turn, said), "alpha", why="pinned")
    assert seen.usd("beta") < seen.usd("alpha")


def test_a_conversation_that_nobody_here_began_is_free(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy(**routing(**MODELS))
    goes_to(proxy, next_turn(first_turn(prompt), calling()), "beta")


def test_a_conversation_without_calls_is_free(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy(**routing(**MODELS))
    turn = first_turn(prompt)
    assert begin(proxy, turn)[0] == "alpha"
    plain = [{"role": "assistant", "content": "Well."}, {"role": "user", "content": "Yes?"}]
    found = decided(proxy, {**turn, "messages": [*turn["messages"], *plain], "max_tokens": 1})
    assert (found.first, found.why) == ("beta", "cheapest")


def test_the_conversation_of_another_key_is_free(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy(**routing(**MODELS))
    turn = first_turn(prompt)
    name, said = begin(proxy, turn, authorization="Bearer one")
    assert name == "alpha"
    goes_to(proxy, next_turn(turn, said), "beta", authorization="Bearer other")
    goes_to(proxy, next_turn(turn, said), "alpha", why="pinned", authorization="Bearer one")


def test_the_sdk_goes_on_with_the_model_that_called(make_proxy: MakeProxy, sdk: Sdk, prompt: str) -> None:
    proxy = make_proxy(**routing(**MODELS))
    client, turn = sdk(proxy.base_url), first_turn(prompt)
    with client.chat.completions.with_streaming_response.create(**turn, stream=True) as begun:
        calls: dict[int, Json] = {}
        for chunk in begun.parse():
            for call in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
                held = calls.setdefault(call.index, {"type": "function", "function": {"name": "f", "arguments": ""}})
                held["id"] = call.id or held["id"]
                held["function"]["arguments"] += (call.function.arguments if call.function else "") or ""
        asked = begun.headers["x-penstock-model"]
    said = {"role": "assistant", "tool_calls": list(calls.values())}
    raw = client.chat.completions.with_raw_response.create(**next_turn(turn, said))
    assert raw.headers["x-penstock-model"] == asked
    assert asked.startswith("sim-small")


def test_what_came_out_of_the_cache_is_gone_on_from_by_its_model(make_proxy: MakeProxy, prompt: str) -> None:
    clock = FakeClock()
    proxy = make_proxy(**routing(**MODELS), clock=clock, cache={"ttl": 60})
    given, left = first_turn(prompt), first_turn(prompt + "!")
    said = {0: begin(proxy, given), 1: begin(proxy, left)}
    clock.ahead = 50
    with post(proxy.url, given) as wire:
        wire.read_body()
        assert wire.headers["cache-status"].startswith("penstock; hit")
    clock.ahead = 100
    found = decided(proxy, next_turn(given, said[0][1]))
    assert (found.first, found.why) == ("alpha", "pinned")
    found = decided(proxy, next_turn(left, said[1][1]))
    assert (found.first, found.why) == ("beta", "cheapest")  # `ttl` is over, and nobody asked since


@pytest.fixture
def played(make_proxy: MakeProxy, scripted: Scripted) -> Proxy:
    """Alpha is played by the test, and left alone after one failure; beta is the simulator's."""
    other = {"base_url": scripted.base_url, "auth": "none", "breaker_failures": 1}
    models = {**MODELS, "alpha": {**MODELS["alpha"], "provider": "other"}}
    sections = {**routing(**models), "routing": {"default_provider": "sim"}, "providers": {"other": other}}
    return make_proxy(**sections, key="sk-operator")


def test_a_conversation_goes_on_elsewhere_while_its_model_is_down(
    played: Proxy, scripted: Scripted, simulator: Simulator, prompt: str
) -> None:
    turn, said = first_turn(prompt), calling()
    choice = {"index": 0, "message": said, "finish_reason": "tool_calls"}
    with Wire(played.url, turn) as wire:
        whole = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        scripted.turn().answer(json.dumps(whole).encode(), content_type="application/json")
        assert wire.read_head().status == 200
        wire.read_body()
    with Wire(played.url, next_turn(turn, said)) as wire:
        scripted.turn().answer(b"{}", content_type="application/json", status=503)
        assert wire.read_head().status == 200
        assert by_whom(wire, played) == "beta"
    again = next_turn(turn, said, max_tokens=2)
    goes_to(played, again, "beta", why="only", dropped={"alpha": "down"})  # alpha made the call, and is still down
    assert simulator.asked() == 2
