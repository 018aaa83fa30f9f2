"""The real SDK over a real port: what it gets from a proxy is what it gets from the provider."""

import asyncio
import json
import re
from typing import Any

import openai
import pytest

from tests.asking import (
    CASES,
    USAGE,
    Client,
    Report,
    Way,
    assembled,
    comparable,
    created,
    helped,
    parsed,
    question,
    raw,
    streaming,
)
from tests.conftest import AsyncSdk, MakeProxy, Sdk
from tests.scripted import DONE, Scripted, Wire, answer, chunk, event, events, post, usage_chunk, whole_stream
from tests.support import Json, Proxy, Simulator, ask, eventually, together

FORMS: dict[str, Json] = {"JSON": {}, "a stream": {"stream": True}, "a stream with usage": USAGE}
ID = re.compile(rb'"id":"(chatcmpl-\w+)"')


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, sdk: Sdk, async_sdk: AsyncSdk) -> Any:
    """Makes SDK clients of one kind, by base URL."""
    return sdk if request.param == "sync" else async_sdk


async def everywhere(way: Way, at: Any, proxy: Proxy, simulator: Simulator, body: Json) -> dict[str, list[Json]]:
    """The answer without a proxy, as a miss, collapsed, and as a hit."""
    direct = await way(at(simulator.base_url), body)
    before = simulator.asked()
    through: Client = at(proxy.base_url)
    miss, collapsed = await together(proxy, simulator, lambda: way(through, body), lambda: way(through, body))
    hit = await way(through, body)
    assert simulator.asked() == before + 1
    return {"direct": direct, "miss": miss, "collapsed": collapsed, "hit": hit}


def assert_same(answers: dict[str, list[Json]]) -> None:
    direct = answers.pop("direct")
    assert direct
    for where, found in answers.items():
        assert found == direct, where


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES)
async def test_miss_collapsed_and_hit_are_the_objects_of_the_provider(
    case: str, form: str, client: Any, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = question(case, simulator, prompt) | FORMS[form]
    assert_same(await everywhere(created, client, proxy, simulator, body))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", [raw, streaming])
async def test_raw_and_streaming_responses_are_those_of_the_provider(
    way: Way, form: str, client: Any, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = question("parallel functions", simulator, prompt) | FORMS[form]
    assert_same(await everywhere(way, client, proxy, simulator, body))


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": True}}])
@pytest.mark.parametrize("case", ["plain", "two choices", "logprobs", "parallel functions", "reasoning", "a refusal"])
async def test_the_stream_helper_sees_the_events_of_the_provider(
    case: str, options: Json, client: Any, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = question(case, simulator, prompt) | options
    assert_same(await everywhere(helped, client, proxy, simulator, body))


@pytest.mark.parametrize("way", [parsed, helped])
async def test_parsed_answers_are_those_of_the_provider(
    way: Way, client: Any, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    answers = await everywhere(way, client, proxy, simulator, ask(prompt) | {"response_format": Report})
    assert Report.model_validate(answers["hit"][-1]["choices"][0]["message"]["parsed"])
    assert_same(answers)


@pytest.mark.parametrize("form", ["a stream", "a stream with usage"])
@pytest.mark.parametrize("case", CASES)
async def test_a_recorded_stream_answers_a_json_request(
    case: str, form: str, async_sdk: AsyncSdk, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = question(case, simulator, prompt)
    (direct,) = await created(async_sdk(simulator.base_url), body)
    through = async_sdk(proxy.base_url)
    stream, collapsed = await together(
        proxy, simulator, lambda: created(through, body | FORMS[form]), lambda: created(through, body)
    )
    hit = await created(through, body)
    assert comparable(collapsed[0]) == comparable(hit[0]) == comparable(direct)
    assert assembled(stream) | {"usage": comparable(direct)["usage"]} == comparable(direct)
    assert simulator.asked() == 2


@pytest.mark.parametrize("case", CASES)
async def test_a_recorded_completion_answers_a_streamed_request(
    case: str, async_sdk: AsyncSdk, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = question(case, simulator, prompt)
    (direct,) = await created(async_sdk(simulator.base_url), body)
    through = async_sdk(proxy.base_url)
    _, collapsed = await together(
        proxy, simulator, lambda: created(through, body), lambda: created(through, body | USAGE)
    )
    hit = await created(through, body | USAGE)
    unasked = await created(through, body | {"stream": True})
    assert assembled(collapsed) == assembled(hit) == comparable(direct)
    assert collapsed == hit
    assert assembled(unasked) == {name: value for name, value in comparable(direct).items() if name != "usage"}
    assert not any(one.get("usage") for one in unasked)
    assert simulator.asked() == 2


def test_a_completion_is_cut_into_chunks_of_a_word_or_so(proxy: Proxy, prompt: str) -> None:
    body = ask(prompt, model="sim-instant;chunks=40")
    text = answer(proxy.url, body)["choices"][0]["message"]["content"]
    chunks = [json.loads(one[6:]) for one in events(proxy.url, body)[:-1]]
    said = [one["choices"][0]["delta"].get("content") or "" for one in chunks]
    assert "".join(said) == text
    assert len([word for word in said if word]) >= len(text.split())


def test_a_hit_has_the_recorded_chunks_byte_for_byte_but_for_the_id(
    proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = ask(prompt, n=2, logprobs=True, **USAGE)
    miss, hit, again = (events(proxy.url, body) for _ in range(3))
    ids = [ID.search(stream[0])[1] for stream in (miss, hit, again)]  # type: ignore[index]
    assert len(set(ids)) == 3
    assert [one.replace(ids[1], ids[0]) for one in hit] == miss
    assert [one.replace(ids[2], ids[0]) for one in again] == miss
    assert simulator.asked() == 1


def test_a_miss_is_the_bytes_of_the_provider(make_proxy: MakeProxy, scripted: Scripted, prompt: str) -> None:
    odd = [b": comment\n\n", b'event: x\ndata: {"unknown": [1.0, 1e3], "choices": []}\n\n']
    stream = [chunk("a"), b"id: 7\n" + chunk("b"), *odd[1:], chunk(finish="stop"), usage_chunk(), DONE]
    proxy = make_proxy(scripted.base_url)
    with Wire(proxy.url, ask(prompt, **USAGE)) as wire:
        turn = scripted.turn()
        turn.head()
        for piece in stream:
            turn.send(piece)
        turn.end()
        assert wire.read_head().read_events() == stream
        assert wire.clean


def test_each_event_is_forwarded_before_the_next_one_is_sent(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url)
    stream = whole_stream("one", " two", " three")
    with Wire(proxy.url, ask(prompt, **USAGE)) as wire:
        turn = scripted.turn()
        turn.head()
        for number, one in enumerate(stream[:-1]):
            turn.send(one)
            if number == 0:
                wire.read_head()
            assert wire.read_event() == one
        turn.send(DONE)
        turn.end()
        assert wire.read_events() == [DONE]
        assert wire.clean


def test_nothing_is_forwarded_that_the_provider_did_not_send(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url)
    stream = whole_stream("a")
    with Wire(proxy.url, ask(prompt, **USAGE)) as wire:
        turn = scripted.turn()
        turn.head()
        turn.send(stream[0])
        assert wire.read_head().read_event() == stream[0]
        turn.send(*stream[1:-1])
        for one in stream[1:-1]:
            assert wire.read_event() == one
        turn.send(stream[-1])
        with Wire(proxy.url, ask(prompt + "!", **USAGE)) as other:
            scripted.turn().answer(*stream)
            other.read_head().read_events()  # now Penstock has read the first `[DONE]`, but not the end behind it
        turn.end()
        assert wire.read_events() == stream[-1:]


def test_an_event_is_forwarded_whole_however_it_comes(make_proxy: MakeProxy, scripted: Scripted, prompt: str) -> None:
    proxy = make_proxy(scripted.base_url)
    stream = whole_stream("é水", " two")
    with Wire(proxy.url, ask(prompt, **USAGE)) as wire:
        turn = scripted.turn()
        turn.head()
        for byte in b"".join(stream):
            turn.send(bytes((byte,)))
        turn.end()
        pieces = list(iter(wire.read_head()._read_piece, b""))
    assert b"".join(pieces) == b"".join(stream)
    assert all(piece.endswith(b"\n\n") for piece in pieces)


@pytest.mark.parametrize("recorder", FORMS)
def test_who_did_not_ask_for_usage_sees_no_trace_of_it(recorder: str, proxy: Proxy, prompt: str) -> None:
    body = ask(prompt)
    with post(proxy.url, body | FORMS[recorder]) as wire:
        recorded = wire.read_body()
    assert (b"usage" in recorded) == (recorder != "a stream")
    assert b"usage" not in b"".join(events(proxy.url, body))
    asked = events(proxy.url, body | USAGE)
    assert json.loads(asked[-2][6:])["usage"]["total_tokens"]
    assert all(json.loads(one[6:])["usage"] is None for one in asked[:-2])
    assert answer(proxy.url, body)["usage"]["total_tokens"]


async def test_who_joined_and_did_not_ask_for_usage_sees_no_trace_of_it(
    proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = ask(prompt)
    asked, unasked = await together(
        proxy,
        simulator,
        lambda: asyncio.to_thread(events, proxy.url, body | USAGE),
        lambda: asyncio.to_thread(events, proxy.url, body),
    )
    assert b'"usage":{' in asked[-2]
    assert b"usage" not in b"".join(unasked)
    assert len(unasked) == len(asked) - 1


def test_the_provider_is_asked_for_usage_and_else_for_what_the_client_asked(
    proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = ask(prompt, temperature=1.0, unknown={"kept": [1.0]}, stream=True)
    events(proxy.url, body)
    assert simulator.last()["body"] == body | {"stream_options": {"include_usage": True}}
    asked = ask(prompt + "!", **USAGE)
    raw_body = json.dumps(asked, indent=3).encode()
    with post(proxy.url, raw_body) as wire:
        wire.read_body()
    assert simulator.last()["raw"].encode() == raw_body


async def test_the_first_reader_sees_the_id_of_the_provider_and_every_other_a_fresh_one(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url)
    body = ask(prompt)
    leader = asyncio.create_task(asyncio.to_thread(events, proxy.url, body))
    turn = await asyncio.to_thread(scripted.turn)
    joiner = asyncio.create_task(asyncio.to_thread(events, proxy.url, body))
    await asyncio.to_thread(eventually, lambda: proxy.readers() == 2)
    turn.answer(*whole_stream("a"))
    first, second = ids_of(await leader), ids_of(await joiner)
    third, fourth = (answer(proxy.url, body)["id"] for _ in range(2))
    assert first == "chatcmpl-scripted"
    assert len({first, second, third, fourth}) == 4
    assert all(one.startswith("chatcmpl-") for one in (second, third, fourth))


def ids_of(stream: list[bytes]) -> str:
    """The one id that all chunks of a stream have."""
    (found,) = {json.loads(one[6:])["id"] for one in stream if one != DONE}
    return str(found)


def test_the_ids_of_tool_calls_stay_as_they_were_recorded(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    body = question("parallel functions", simulator, prompt)
    calls = [answer(proxy.url, body)["choices"][0]["message"]["tool_calls"] for _ in range(2)]
    streamed = b"".join(events(proxy.url, body))
    assert calls[0] == calls[1]
    assert all(call["id"].encode() in streamed for call in calls[0])


def test_a_replay_at_the_recorded_pace_is_the_same_bytes_in_the_same_pieces(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url)
    stream = whole_stream("a", " b", " c")
    with Wire(proxy.url, ask(prompt, **USAGE)) as wire:
        scripted.turn().answer(*stream)
        assert wire.read_head().read_events() == stream
    with post(proxy.url, ask(prompt, **USAGE), x_penstock_replay="recorded") as wire:
        pieces = list(iter(wire._read_piece, b""))
        assert wire.headers["cache-status"].startswith("penstock; hit")
        assert wire.clean
    new = ids_of(pieces).encode()
    assert [piece.replace(new, b"chatcmpl-scripted") for piece in pieces] == stream


def test_the_pace_can_be_the_setting_and_a_request_can_say_otherwise(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(cache={"replay": "recorded"})
    body = ask(prompt, stream=True)
    events(proxy.url, body)
    with post(proxy.url, body) as paced, post(proxy.url, body, x_penstock_replay="instant") as instant:
        assert "transfer-encoding" in paced.headers
        assert "content-length" in instant.headers
        assert len(paced.read_events()) == len(instant.read_events())
    assert simulator.asked() == 1


def test_a_client_may_leave_a_replay_at_the_recorded_pace(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy()
    body = ask(prompt, model="sim-instant;chunks=3;first=0.3", stream=True)
    events(proxy.url, body)
    wire = Wire(proxy.url, body, {"x-penstock-replay": "recorded"})
    eventually(lambda: proxy.metrics()["penstock_requests_open"] == 1)
    wire.reset()
    proxy.becomes_quiet()


@pytest.mark.parametrize("form", ["JSON", "a stream"])
def test_what_every_answer_says_in_its_headers(form: str, proxy: Proxy, prompt: str) -> None:
    body = ask(prompt) | FORMS[form]
    with post(proxy.url, body) as miss, post(proxy.url, body) as hit:
        miss.read_body(), hit.read_body()
        assert miss.headers["cache-status"] == "penstock; fwd=miss; stored"
        assert re.fullmatch(r"penstock; hit; ttl=\d+", hit.headers["cache-status"])
        assert 604700 < int(hit.headers["cache-status"].rpartition("=")[2]) <= 604800
        assert int(hit.headers["age"]) >= 0
        assert "age" not in miss.headers
        for wire in (miss, hit):
            assert wire.headers["x-penstock-provider"] == "sim"
            assert wire.headers["x-penstock-model"] == "sim-instant"
            assert wire.headers.get("x-accel-buffering") == ("no" if form == "a stream" else None)
            assert wire.headers["content-type"].startswith(
                "text/event-stream" if form == "a stream" else "application/json"
            )
            assert wire.headers["x-penstock-request-id"].startswith("req_")
        assert miss.headers["x-penstock-request-id"] != hit.headers["x-penstock-request-id"]
        assert miss.headers["x-request-id"] != miss.headers["x-penstock-request-id"]  # the provider's
        assert hit.headers["x-request-id"] == hit.headers["x-penstock-request-id"]


def test_the_headers_of_the_provider_pass_on_a_miss_and_are_gone_on_a_hit(proxy: Proxy, prompt: str) -> None:
    with post(proxy.url, ask(prompt)) as miss, post(proxy.url, ask(prompt)) as hit:
        miss.read_body(), hit.read_body()
        assert miss.headers["x-ratelimit-limit-requests"] == "10000"
        assert miss.headers["x-ratelimit-remaining-tokens"] == "1999000"
        assert miss.headers["openai-version"] == "2020-10-01"
        assert not [name for name in hit.headers if name.startswith(("x-ratelimit-", "openai-"))]


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"cache_control": "no-store"}, "penstock; fwd=bypass; detail=no-store"),
        ({"cache_control": "no-cache"}, "penstock; fwd=request; stored"),
        ({"x_penstock_ttl": "0"}, "penstock; fwd=miss"),
        ({}, "penstock; fwd=miss; stored"),
    ],
)
def test_cache_status_says_what_the_cache_did_and_why(headers: Json, said: str, proxy: Proxy, prompt: str) -> None:
    with post(proxy.url, ask(prompt), **headers) as wire:
        assert wire.headers["cache-status"] == said
        wire.read_body()


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ({"store": True}, "state"),
        ({"web_search_options": {}}, "search"),
        ({"web_search_options": {"search_context_size": "low"}}, "search"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y"}}]}]},
            "remote-media",
        ),
    ],
)
def test_what_depends_on_more_than_the_request_is_a_bypass(
    members: Json, why: str | None, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    for _ in range(2):
        with post(proxy.url, ask(prompt) | members) as wire:
            wire.read_body()
            if why is not None:
                assert wire.headers["cache-status"] == f"penstock; fwd=bypass; detail={why}"
    assert simulator.asked() == 2


async def test_a_collapsed_answer_says_so(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    def headers() -> dict[str, str]:
        with post(proxy.url, ask(prompt, stream=True)) as wire:
            wire.read_events()
            return wire.headers

    leader, joiner = await together(proxy, simulator, *[lambda: asyncio.to_thread(headers)] * 2)
    assert leader["cache-status"] == "penstock; fwd=miss; stored"
    assert joiner["cache-status"] == "penstock; fwd=miss; collapsed"
    assert leader["x-request-id"] == joiner["x-request-id"]
    assert leader["x-penstock-request-id"] != joiner["x-penstock-request-id"]


def test_a_name_that_no_header_can_hold_is_escaped(proxy: Proxy, prompt: str) -> None:
    with post(proxy.url, ask(prompt, model="é\r\nset-cookie: x")) as wire:
        assert wire.status == 404
        assert "set-cookie" not in wire.headers
        assert wire.headers["x-penstock-model"] == r"\xe9\r\nset-cookie: x"


def test_the_models_of_the_provider_are_listed(proxy: Proxy, simulator: Simulator, sdk: Sdk) -> None:
    def listed(base_url: str) -> set[str]:
        return {model.id for model in sdk(base_url).models.list()}

    assert listed(proxy.base_url) == listed(simulator.base_url) != set()
    assert sdk(proxy.base_url).models.retrieve("sim-small").id == "sim-small"
    with pytest.raises(openai.NotFoundError):
        sdk(proxy.base_url).models.retrieve("nothing")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/livez", 200),
        ("GET", "/readyz", 200),
        ("HEAD", "/v1/models", 200),
        ("GET", "/v1/chat/completions", 405),
        ("POST", "/v1/nothing", 404),
    ],
)
def test_what_else_there_is(method: str, path: str, status: int, proxy: Proxy) -> None:
    response = proxy.http.request(method, path)
    assert response.status_code == status
    if status >= 400:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_the_metrics_count_outcomes_and_what_was_asked_of_the_provider(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy()
    for _ in range(3):
        answer(proxy.url, ask(prompt))
    for outcome, count in (("miss", 1), ("hit", 2)):
        labels = {"endpoint": "chat", "outcome": outcome, "status": "200", "model": "sim-instant", "provider": "sim"}
        assert proxy.count("penstock_requests_total", **labels) == count
        assert proxy.count("penstock_request_seconds_count", **labels) == count
    found = proxy.metrics()
    assert found['penstock_attempts_total{model="sim-instant",provider="sim",result="ok"}'] == 1
    assert found['penstock_recordings_total{result="stored"}'] == 1


def test_an_answer_of_one_form_to_a_request_of_the_other_passes_as_it_is(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url)
    with Wire(proxy.url, ask(prompt)) as wire:
        scripted.turn().answer(*whole_stream("a"))
        assert wire.read_head().headers["content-type"].startswith("text/event-stream")
        assert wire.read_events()[0] == chunk("a")
    completion = {"id": "1", "choices": [{"index": 0, "message": {"content": "b"}, "finish_reason": "stop"}]}
    with Wire(proxy.url, ask(prompt + "!", stream=True)) as wire:
        scripted.turn().answer(json.dumps(completion).encode(), content_type="application/json")
        assert wire.read_head().headers["content-type"] == "application/json"
        assert json.loads(wire.read_body()) == completion
    assert event(completion)  # and it was whole, so it answers again
    assert b'"b"' in b"".join(events(proxy.url, ask(prompt + "!")))
