"""Responses through the whole proxy: both forms from one recording, state at the provider, faults."""

import asyncio
import json
import typing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import openai
import pytest
from openai.types.responses import ResponseStreamEvent

from tests.conftest import MakeProxy, Sdk
from tests.responding import (
    CASES,
    FUNCTION,
    PATH,
    REASONING,
    data_of,
    ended,
    lasting,
    message,
    outline,
    posted,
    respond,
    response,
    status,
    streamed,
    typed,
    whole,
)
from tests.scripted import DONE, STREAM, Scripted, Wire, event
from tests.support import Json, Proxy, Simulator, eventually, together

MISS: Final = "fwd=miss; stored"
STATE: Final = "fwd=bypass; detail=state"
KINDS: Final = [  # of events, as the SDK knows them
    typing.get_args(each.model_fields["type"].annotation)[0]
    for each in typing.get_args(typing.get_args(ResponseStreamEvent)[0])
]
ENDS: Final = ("response.completed", "response.incomplete", "response.failed", "error")


def direct(simulator: Simulator, body: Json) -> Json:
    """The JSON answer without a proxy."""
    return whole(simulator.url, body)


# Both forms from one recording.


@pytest.mark.parametrize("case", CASES)
def test_a_streamed_response_is_given_again_byte_for_byte_and_as_json(
    case: str, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = respond(prompt) | CASES[case]
    miss, hit = streamed(proxy.url, body), streamed(proxy.url, body)
    assert hit == miss
    assert [data_of(one)["sequence_number"] for one in hit] == list(range(len(hit)))
    assert outline(hit) == outline(streamed(simulator.url, body))
    assert whole(proxy.url, body) == ended(miss)
    assert simulator.asked() == 2


@pytest.mark.parametrize("case", CASES)
def test_a_response_that_came_as_json_is_streamed_as_the_provider_would(
    case: str, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = respond(prompt) | CASES[case]
    first, stream = whole(proxy.url, body), streamed(proxy.url, body)
    assert ended(stream) == first
    assert [data_of(one)["sequence_number"] for one in stream] == list(range(len(stream)))
    assert outline(stream) == outline(streamed(simulator.url, body))
    assert whole(proxy.url, body) == first
    assert simulator.asked() == 2


@pytest.mark.parametrize("first", ["JSON", "a stream"])
def test_a_replay_at_the_recorded_pace_is_the_same_stream(first: str, proxy: Proxy, prompt: str) -> None:
    body = respond(prompt, model="sim-instant;chunks=2")
    made = whole(proxy.url, body) if first == "JSON" else ended(streamed(proxy.url, body))
    paced = streamed(proxy.url, body, x_penstock_replay="recorded")
    assert paced == streamed(proxy.url, body)
    assert ended(paced) == made


@pytest.mark.parametrize("first", ["JSON", "a stream"])
def test_the_sdk_puts_the_same_response_together_whichever_form_came_first(
    first: str, proxy: Proxy, sdk: Sdk, prompt: str
) -> None:
    client, body = sdk(proxy.base_url), respond(prompt, tools=[FUNCTION], model=REASONING)

    def streams() -> Any:
        with client.responses.stream(**body) as stream:
            return stream.get_final_response().to_dict()

    def creates() -> Any:
        return client.responses.create(**body).to_dict()

    ways: list[Callable[[], Any]] = [creates, streams] if first == "JSON" else [streams, creates]
    one, other = (without_parsed(way()) for way in ways)
    assert one == other


def without_parsed(value: Any) -> Any:
    """Less what the SDK adds to what it streams."""
    if isinstance(value, dict):
        return {name: without_parsed(each) for name, each in value.items() if not name.startswith("parsed")}
    return [without_parsed(each) for each in value] if isinstance(value, list) else value


def test_every_type_of_event_that_the_sdk_knows_is_given_again_byte_for_byte(
    make_proxy: MakeProxy, scripted: Scripted
) -> None:
    proxy = make_proxy(scripted.base_url)
    assert len(KINDS) > 50
    between = [kind for kind in KINDS if kind not in (*ENDS, "response.created")]
    said: list[tuple[str, Json]] = [("response.created", {"response": response(status="in_progress")})]
    said += [(kind, {"output_index": 0, "item_id": "x", "delta": "words"}) for kind in between]
    said += [("response.completed", {"response": response(message("words"))})]
    stream = [typed({"type": kind, "sequence_number": at, **members}) for at, (kind, members) in enumerate(said)]
    body = respond("all of them")
    with Wire(proxy.url, {**body, "stream": True}, path=PATH) as wire:
        scripted.turn().answer(*stream)
        assert wire.read_head().read_events() == stream
    assert streamed(proxy.url, body) == stream
    assert whole(proxy.url, body) == response(message("words"))


# What differs from what OpenAI sends.

SAID: Final[list[Json]] = [
    {"type": "response.created", "response": response(status="in_progress")},
    {"type": "response.output_text.delta", "output_index": 0, "item_id": "msg_1", "delta": "é水"},
    {"type": "response.completed", "response": response(message("é水"))},
]
BARE: Final = [event(each) for each in SAID]
ODD: Final[dict[str, list[bytes]]] = {
    "no event lines and no numbers": BARE,
    "[DONE]": [*(typed(each) for each in SAID), DONE],
    "numbers that start at 7": [typed({**each, "sequence_number": at}) for at, each in enumerate(SAID, 7)],
    "unknown events": [BARE[0], event({"type": "x.y", "z": [1.0]}), b"event: z\ndata: {}\n\n", *BARE[1:]],
    "no created": BARE[1:],
    "only the end": BARE[2:],
}


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_stream_is_kept_and_given_again_as_it_came(odd: str, make_proxy: MakeProxy, scripted: Scripted) -> None:
    proxy, body, stream = make_proxy(scripted.base_url), respond("odd"), ODD[odd]
    with Wire(proxy.url, {**body, "stream": True}, path=PATH) as wire:
        scripted.turn().answer(*stream)
        assert wire.read_head().read_events() == stream
        assert wire.clean
    assert streamed(proxy.url, body) == stream
    assert whole(proxy.url, body) == response(message("é水"))


def test_a_last_event_may_be_longer_than_any_other(make_proxy: MakeProxy, simulator: Simulator, prompt: str) -> None:
    proxy = make_proxy(provider={"max_event": "64KiB"})
    body = respond(prompt, model="sim-instant;big=300000")
    miss = streamed(proxy.url, body)
    assert len(miss[-1]) > 300_000
    assert streamed(proxy.url, body) == miss
    assert simulator.asked() == 1


def test_a_response_of_one_form_to_a_request_of_the_other_passes_as_it_is_and_is_kept(
    make_proxy: MakeProxy, scripted: Scripted
) -> None:
    proxy = make_proxy(scripted.base_url)
    with Wire(proxy.url, respond("json"), path=PATH) as wire:
        scripted.turn().answer(*BARE)
        assert wire.read_head().headers["content-type"].startswith(STREAM)
        assert wire.read_events() == BARE
    assert whole(proxy.url, respond("json")) == response(message("é水"))
    with Wire(proxy.url, respond("stream", stream=True), path=PATH) as wire:
        scripted.turn().answer(json.dumps(response(message("b"))).encode(), content_type="application/json")
        assert wire.read_head().headers["content-type"] == "application/json"
        assert json.loads(wire.read_body()) == response(message("b"))
    assert ended(streamed(proxy.url, respond("stream"))) == response(message("b"))


# State at the provider.


def continuing(made: Json, prompt: str, **members: Any) -> Json:
    return respond(f"{prompt} and now?", previous_response_id=made["id"], **members)


@pytest.mark.parametrize("first", ["JSON", "a stream"])
def test_a_conversation_goes_on_from_a_response_out_of_the_cache(
    first: str, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = respond(prompt)
    made = whole(proxy.url, body) if first == "JSON" else ended(streamed(proxy.url, body))
    for again in (whole(proxy.url, body), ended(streamed(proxy.url, body))):
        assert again["id"] == made["id"]
    assert simulator.http.get(f"{PATH}/{made['id']}").json() == made
    further = continuing(made, prompt)
    with posted(proxy.url, further) as wire:
        said = json.loads(wire.read_body())
        assert wire.headers["cache-status"] == f"penstock; {STATE}"
    assert lasting(said) == lasting(direct(simulator, further))
    assert outline(streamed(proxy.url, further)) == outline(streamed(simulator.url, further))
    assert whole(proxy.url, continuing(said, prompt))["usage"]["input_tokens"] > said["usage"]["input_tokens"]


def test_a_call_of_a_tool_out_of_the_cache_is_answered_through_the_response_that_made_it(
    proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = respond(prompt, tools=[FUNCTION], tool_choice="required", parallel_tool_calls=False)
    whole(proxy.url, body)
    made = whole(proxy.url, body)
    (call,) = made["output"]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "sun"}
    further = {**body, "input": [result], "previous_response_id": made["id"], "tool_choice": "auto"}
    assert lasting(whole(proxy.url, further)) == lasting(direct(simulator, further))


def test_a_response_that_was_deleted_is_gone_through_the_proxy_too(proxy: Proxy, sdk: Sdk, prompt: str) -> None:
    client = sdk(proxy.base_url)
    made = client.responses.create(**respond(prompt))
    assert client.responses.retrieve(made.id) == made
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(**continuing({"id": made.id}, prompt))
    assert (refused.value.code, refused.value.param) == ("previous_response_not_found", "previous_response_id")
    assert client.responses.create(**respond(prompt)).id != made.id


def item(**members: Any) -> Json:
    return {"input": [{"role": "user", "content": "Go on."}, members]}


def part(**members: Any) -> Json:
    return {"input": [{"role": "user", "content": [members]}]}


BEYOND: Final[dict[str, tuple[Json, str]]] = {
    "the response before": ({"previous_response_id": "resp_0"}, "state"),
    "a conversation": ({"conversation": {"id": "conv_1"}}, "state"),
    "a conversation by its name": ({"conversation": "conv_1"}, "state"),
    "the background": ({"background": True}, "state"),
    "a template": ({"prompt": {"id": "pmpt_1"}}, "state"),
    "a template that names the model": ({"prompt": {"id": "pmpt_1"}, "model": None}, "state"),
    "a reference": (item(type="item_reference", id="msg_1"), "state"),
    "a reference without its type": (item(id="msg_1"), "state"),
    "reasoning that the provider holds": (item(type="reasoning", id="rs_1", summary=[]), "state"),
    "a file": (part(type="input_file", file_id="file-1"), "state"),
    "an image among the files": (part(type="input_image", file_id="file-1"), "state"),
    "a hosted tool": ({"tools": [{"type": "web_search"}]}, "tools"),
    "one hosted tool of two": ({"tools": [FUNCTION, {"type": "file_search", "vector_store_ids": ["v"]}]}, "tools"),
    "a server of tools": ({"tools": [{"type": "mcp", "server_label": "x", "server_url": "https://x"}]}, "tools"),
    "an image elsewhere": (part(type="input_image", image_url="https://x/y.png"), "remote-media"),
    "a file elsewhere": (part(type="input_file", file_url="https://x/y.pdf"), "remote-media"),
    "a model that searches": ({"model": "gpt-4o-search-preview"}, "search"),
    "a model that researches": ({"model": "o3-deep-research"}, "search"),
}


@pytest.mark.parametrize("what", BEYOND)
def test_what_depends_on_more_than_the_request_is_a_bypass(what: str, proxy: Proxy, simulator: Simulator) -> None:
    members, why = BEYOND[what]
    body = {name: value for name, value in (respond(what) | members).items() if value is not None}
    for form in (False, True, False):
        with posted(proxy.url, body | {"stream": form}) as wire:
            wire.read_body()
            assert wire.headers["cache-status"] == f"penstock; fwd=bypass; detail={why}"
    assert simulator.last()["body"] == body | {"stream": False}
    assert simulator.asked() == 3


@pytest.mark.parametrize(
    "members",
    [
        {"store": True},
        {"store": False},
        {},
        {"conversation": None, "previous_response_id": None, "prompt": None, "background": False},
        item(type="reasoning", id="rs_1", summary=[], encrypted_content="gAAAA"),
        part(type="input_image", image_url="data:image/png;base64,iVBORw0KGgo="),
        part(type="input_text", text="https://x/y.png"),
        {"tools": [FUNCTION, {"type": "custom", "name": "shell"}]},
    ],
)
def test_what_depends_on_the_request_alone_is_kept(
    members: Json, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = {**respond(prompt), "instructions": prompt, **members}
    assert [status(proxy.url, body) for _ in range(2)] == [MISS, "hit"]
    assert simulator.asked() == 1


# What the provider may do wrong.

CUT: Final = {"cut=4": "upstream_truncated", "reset=4": "upstream_reset", "reset-at=2600": "upstream_reset"}


def assert_not_kept(proxy: Proxy, body: Json) -> None:
    with posted(proxy.url, body, cache_control="only-if-cached") as wire:
        assert wire.status == 504


@pytest.mark.parametrize("fault", CUT)
def test_a_stream_that_is_cut_ends_with_one_error_event_and_an_unclean_end(
    fault: str, proxy: Proxy, simulator: Simulator, sdk: Sdk, prompt: str
) -> None:
    body = respond(prompt, model=f"sim-instant;chunks=8;{fault}", stream=True)
    with posted(proxy.url, body) as wire:
        *before, last = wire.read_events()
        assert not wire.clean
    assert len(before) >= 2
    assert all(data_of(one)["type"].startswith("response.") for one in before)
    assert last.startswith(b"event: error\n")
    said = data_of(last)
    assert (said["type"], said["code"], said["error"]["code"]) == ("error", CUT[fault], CUT[fault])
    with pytest.raises(openai.APIError, match="provider") as raised:
        list(sdk(proxy.base_url).responses.create(**body))
    assert raised.value.code == CUT[fault]
    with pytest.raises(openai.APIError), sdk(proxy.base_url).responses.stream(**without_stream(body)) as stream:
        stream.get_final_response()
    assert_not_kept(proxy, body)
    assert simulator.asked() == 3


def without_stream(body: Json) -> Json:
    return {name: value for name, value in body.items() if name != "stream"}


def test_an_error_event_of_the_provider_is_the_last_that_comes(
    proxy: Proxy, simulator: Simulator, sdk: Sdk, prompt: str
) -> None:
    body = respond(prompt, model="sim-instant;chunks=8;error=4", stream=True)
    with posted(proxy.url, body) as wire:
        found = wire.read_events()
        assert not wire.clean
    assert outline(found) == outline(streamed(simulator.url, body))
    assert data_of(found[-1])["type"] == "error"
    with pytest.raises(openai.APIError):
        list(sdk(proxy.base_url).responses.create(**body))
    assert_not_kept(proxy, body)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("error=0", (502, "server_error")),
        ("cut=0", (502, "upstream_truncated")),
        ("reset=0", (502, "upstream_reset")),
        ("html", (502, "upstream_bad_content_type")),
    ],
)
def test_a_stream_that_fails_before_its_first_event_is_an_error_with_a_status(
    fault: str, expected: tuple[int, str], proxy: Proxy, prompt: str
) -> None:
    body = respond(prompt, model=f"sim-instant;{fault}", stream=True)
    with posted(proxy.url, body) as wire:
        error = json.loads(wire.read_body())["error"]
        assert (wire.status, error["code"]) == expected
        assert set(error) == {"message", "type", "param", "code"}
    assert_not_kept(proxy, body)


FORGOTTEN: Final = ["failed", "finish=content_filter", "empty"]
BOTH: Final = [(fault, form) for fault in FORGOTTEN for form in (False, True)]


@pytest.mark.parametrize(("fault", "form"), [*BOTH, ("malformed=3", True)])
def test_an_answer_that_is_no_good_is_passed_on_as_it_is_and_forgotten(
    fault: str, form: bool, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = respond(prompt, model=f"sim-instant;chunks=8;{fault}", stream=form)
    expected = simulator.http.post(PATH, json=body)
    with posted(proxy.url, body) as wire:
        said = wire.read_body()
        assert (wire.status, wire.clean) == (200, True)
    assert len(said) == len(expected.content)  # all but the ids and the time
    assert_not_kept(proxy, body)
    assert simulator.asked() == 2


@pytest.mark.parametrize("form", [False, True], ids=["JSON", "a stream"])
def test_what_was_to_be_json_and_is_none_is_passed_on_and_forgotten(form: bool, proxy: Proxy, prompt: str) -> None:
    body = respond(prompt, "sim-instant;badjson", text={"format": {"type": "json_object"}}, stream=form)
    assert status(proxy.url, body).startswith("fwd=miss")
    assert_not_kept(proxy, body)


@pytest.mark.parametrize("fault", ["max_output_tokens", "json", "nousage"])
def test_an_answer_that_will_do_is_kept(fault: str, proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    limit = {"max_output_tokens": 16} if fault == "max_output_tokens" else {}
    options = "chunks=40" if limit else fault
    body = respond(prompt, model=f"sim-instant;{options}", stream=True, **limit)
    assert [status(proxy.url, body) for _ in range(2)] == [MISS, "hit"]
    assert ended(streamed(proxy.url, body))["status"] == ("incomplete" if limit else "completed")
    assert simulator.asked() == 1


@pytest.mark.parametrize("form", [False, True], ids=["JSON", "a stream"])
@pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 422, 429, 500, 503])
def test_the_status_of_the_provider_is_passed_on(
    code: int, form: bool, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = respond(prompt, model=f"sim-instant;status={code};retry-after=7", stream=form)
    expected = simulator.http.post(PATH, json=body)
    with posted(proxy.url, body, x_stainless_retry_count="0") as wire:
        assert json.loads(wire.read_body()) == expected.json()
        assert (wire.status, wire.headers["retry-after"]) == (code, "7")
    assert_not_kept(proxy, body)


# Identical requests at once.


@pytest.mark.parametrize("first", [0, 1], ids=["JSON leads", "a stream leads"])
async def test_five_at_once_of_either_form_are_one_call_and_have_the_id_of_the_provider(
    first: int, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = respond(prompt)
    answers = await at_once(proxy, simulator, [body | {"stream": (first + at) % 2 == 1} for at in range(5)])
    assert simulator.asked() == 1
    (made,) = {answer["id"] for answer in answers}
    assert all(answer == answers[0] for answer in answers)
    assert simulator.http.get(f"{PATH}/{made}").json() == answers[0]


async def at_once(proxy: Proxy, simulator: Simulator, bodies: list[Json]) -> list[Json]:
    """The Responses of all these, each of which joins the first."""

    def answer(body: Json) -> Json:
        return ended(streamed(proxy.url, body)) if body["stream"] else whole(proxy.url, body)

    ways = [lambda body=body: asyncio.to_thread(answer, body) for body in bodies]
    return await together(proxy, simulator, *ways)


def test_who_joins_a_stream_late_gets_all_of_it_in_either_form(make_proxy: MakeProxy, scripted: Scripted) -> None:
    proxy, body = make_proxy(scripted.base_url), respond("late")
    with Wire(proxy.url, {**body, "stream": True}, path=PATH) as leader:
        turn = scripted.turn()
        turn.head()
        turn.send(*BARE[:2])
        leader.read_head()
        assert [leader.read_event() for _ in range(2)] == BARE[:2]
        with Wire(proxy.url, {**body, "stream": True}, path=PATH) as late, Wire(proxy.url, body, path=PATH) as plain:
            eventually(lambda: proxy.readers() == 3)
            turn.send(BARE[2])
            turn.end()
            assert late.read_head().read_events() == BARE
            assert json.loads(plain.read_head().read_body()) == SAID[-1]["response"]
            assert plain.headers["cache-status"] == "penstock; fwd=miss; collapsed"


# Whose words it repeats.


def repeating(*output: Json, **members: Any) -> Json:
    """A scripted Response that repeats these."""
    return response(*(output or [message("Hello")]), **{"metadata": {}, "user": None, **members})


@pytest.mark.parametrize("form", [False, True], ids=["JSON", "a stream"])
@pytest.mark.parametrize("again", [False, True], ids=["JSON again", "a stream again"])
def test_a_response_that_is_given_again_repeats_what_this_request_said(
    form: bool, again: bool, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    theirs: Json = {"metadata": {"customer": "theirs"}, "user": "they"}
    with posted(proxy.url, respond(prompt, stream=form, **theirs)) as first:
        first.read_body()
    each: list[Json] = [{"metadata": {"customer": "ours"}}, {}, theirs]
    for ours in each:
        body = respond(prompt, stream=again, **ours)
        expected = whole(simulator.url, body | {"stream": False})
        found = ended(streamed(proxy.url, body)) if again else whole(proxy.url, body)
        assert (found["metadata"], found["user"]) == (expected["metadata"], expected["user"])
        if again:
            opened = data_of(streamed(proxy.url, body)[0])["response"]
            assert opened["metadata"] == expected["metadata"]


@pytest.mark.parametrize("nothing", [None, {}])
def test_however_a_provider_says_nothing_a_hit_says_it_too(
    nothing: object, make_proxy: MakeProxy, scripted: Scripted
) -> None:
    proxy = make_proxy(scripted.base_url)
    said = json.dumps(repeating(metadata=nothing)).encode()
    with ThreadPoolExecutor(1) as threads:
        cold = threads.submit(whole, proxy.url, respond("x"))
        scripted.turn().answer(said, content_type="application/json")
        assert cold.result() == whole(proxy.url, respond("x")) == json.loads(said)


def test_nobody_reads_anothers_words_in_an_answer_that_is_too_large_to_be_kept(
    make_proxy: MakeProxy, scripted: Scripted
) -> None:
    proxy = make_proxy(scripted.base_url, cache={"max_entry": "64KiB"})
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(whole, proxy.url, respond("x", user="they"))
        turn = scripted.turn()
        second = threads.submit(whole, proxy.url, respond("x", user="we"))
        eventually(lambda: proxy.readers() == 2)
        large = repeating(user="they", instructions="long " * 30_000)
        turn.answer(json.dumps(large).encode(), content_type="application/json")
        scripted.turn().answer(json.dumps(repeating(user="we")).encode(), content_type="application/json")
        assert (first.result()["user"], second.result()["user"]) == ("they", "we")


def test_a_joiner_is_not_given_a_form_in_which_the_answer_says_nothing(
    make_proxy: MakeProxy, scripted: Scripted
) -> None:
    proxy = make_proxy(scripted.base_url)
    delta = {"type": "response.output_text.delta", "delta": "Hello", "item_id": "msg_1", "output_index": 0}
    end = {"type": "response.completed", "response": repeating() | {"output": []}}
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(streamed, proxy.url, respond("x"))
        turn = scripted.turn()
        second = threads.submit(whole, proxy.url, respond("x"))
        eventually(lambda: proxy.readers() == 2)
        turn.answer(event(delta), event(end))
        scripted.turn().answer(json.dumps(repeating()).encode(), content_type="application/json")
        assert second.result() == repeating()
        assert first.result() == [event(delta), event(end)]


def test_equal_requests_join_an_answer_however_large_it_is_and_whatever_it_lacks(
    make_proxy: MakeProxy, scripted: Scripted
) -> None:
    proxy = make_proxy(scripted.base_url, cache={"max_entry": "64KiB"})
    large = repeating(instructions="long " * 30_000)
    bare = {"id": "resp_1", "output": [message("Hello")], "metadata": {}}
    for said in (large, bare):
        with ThreadPoolExecutor(3) as threads:
            asked = [threads.submit(whole, proxy.url, respond("x")) for _ in range(3)]
            turn = scripted.turn()
            eventually(lambda: proxy.readers() == 3)
            turn.answer(json.dumps(said).encode(), content_type="application/json")
            assert [each.result() for each in asked] == [said] * 3


def test_a_response_that_is_deleted_while_it_is_made_is_not_kept(make_proxy: MakeProxy, scripted: Scripted) -> None:
    proxy = make_proxy(scripted.base_url)
    opened = event({"type": "response.created", "response": repeating() | {"status": "in_progress", "output": []}})
    end = event({"type": "response.completed", "response": repeating()})
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(streamed, proxy.url, respond("x"))
        turn = scripted.turn()
        turn.head()
        turn.send(opened)
        eventually(lambda: any(flight.recording.length for flight in proxy.loop.call(lambda: list(proxy.app.flights))))
        deleted = threads.submit(proxy.http.delete, f"{PATH}/resp_scripted")
        scripted.turn().answer(b'{"deleted": true}', content_type="application/json")
        assert deleted.result().status_code == 200
        turn.send(end)
        turn.end()
        first.result()
        again = threads.submit(streamed, proxy.url, respond("x"))
        scripted.turn().answer(opened, end)
        assert again.result() == [opened, end]


def test_to_delete_a_response_forgets_none_that_has_taken_its_place(
    proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    old = whole(proxy.url, respond(prompt))
    new = whole(proxy.url, respond(prompt), **{"cache-control": "no-cache"})
    assert proxy.http.delete(f"{PATH}/{old['id']}").status_code == 200
    simulator.forget()
    assert whole(proxy.url, respond(prompt)) == new
    assert simulator.asked() == 0
    assert proxy.http.delete(f"{PATH}/{new['id']}").status_code == 200
    assert whole(proxy.url, respond(prompt))["id"] != new["id"]
