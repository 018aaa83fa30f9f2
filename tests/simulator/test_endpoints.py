"""What is the same at every endpoint: options, faults, the tally."""

from typing import Any

import httpx
import msgspec
import openai
import pytest

from .asking import Json, settled

BODIES: dict[str, tuple[str, Json]] = {
    "chat": ("/v1/chat/completions", {"model": "sim-instant", "messages": [{"role": "user", "content": "hi"}]}),
    "completions": ("/v1/completions", {"model": "sim-instant", "prompt": "hi"}),
    "responses": ("/v1/responses", {"model": "sim-instant", "input": "hi"}),
    "embeddings": ("/v1/embeddings", {"model": "sim-embed;first=0", "input": "hi"}),
}
STREAMING = [name for name in BODIES if name != "embeddings"]
every_endpoint = pytest.mark.parametrize("name", BODIES)
each_that_streams = pytest.mark.parametrize("name", STREAMING)


def ask(wire: httpx.Client, name: str, options: str = "", **members: Any) -> httpx.Response:
    path, body = BODIES[name]
    return wire.post(path, json={**body, **members}, headers={"x-simulator": options})


def blocks(response: httpx.Response) -> list[str]:
    return response.text.split("\n\n")[:-1]


def data(block: str) -> Any:
    return msgspec.json.decode(block.rpartition("data: ")[2])


@every_endpoint
def test_a_line_names_its_endpoint(wire: httpx.Client, name: str) -> None:
    assert ask(wire, name).status_code == 200
    settled(wire)
    (line,) = wire.get("/simulator/served").json()
    assert (line["endpoint"], line["asked"], line["ended"]) == (name, BODIES[name][1]["model"], "answered")


@every_endpoint
def test_status_and_fail_refuse(wire: httpx.Client, name: str) -> None:
    assert ask(wire, name, "status=429;retry-after=3").headers["retry-after"] == "3"
    assert [ask(wire, name, "fail=2").status_code for _ in range(3)] == [503, 503, 200]
    assert ask(wire, name, "bogus").status_code == 400
    counts = settled(wire)
    assert (counts["failed"], counts["answered"]) == (4, 1)


@every_endpoint
def test_the_bad_key_and_what_is_no_json_are_refused(wire: httpx.Client, name: str) -> None:
    path, body = BODIES[name]
    assert wire.post(path, json=body, headers={"authorization": "Bearer bad-key"}).status_code == 401
    refused = wire.post(path, content=b"{", headers={"x-simulator": "header=x-odd:1"})
    assert (refused.status_code, refused.headers["x-odd"]) == (400, "1")
    assert "parse the JSON" in refused.json()["error"]["message"]
    wrong = wire.get(path)
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


@every_endpoint
@pytest.mark.parametrize("options", ["cut=1", "html", "malformed=0", "error=0", "gzip", "cut-at=20"])
def test_faults_spoil_a_json_answer(wire: httpx.Client, name: str, options: str) -> None:
    plain, spoilt = ask(wire, name), ask(wire, name, options)
    assert spoilt.status_code == 200
    if options == "gzip":
        assert set(spoilt.json()) == set(plain.json())
    else:
        assert len(spoilt.content) < len(plain.content)


@each_that_streams
def test_cut_ends_a_stream_after_so_many_events(wire: httpx.Client, name: str) -> None:
    assert len(blocks(ask(wire, name, "cut=3", stream=True))) == 3


@each_that_streams
def test_malformed_is_one_event_more_that_is_no_json(wire: httpx.Client, name: str) -> None:
    plain, spoilt = (blocks(ask(wire, name, options, stream=True)) for options in ("", "malformed=2"))
    assert len(spoilt) == len(plain) + 1
    with pytest.raises(msgspec.DecodeError):
        data(spoilt[2])


@each_that_streams
def test_json_answers_a_stream_request_in_one_piece(wire: httpx.Client, name: str) -> None:
    response = ask(wire, name, "json", stream=True)
    assert response.headers["content-type"] == "application/json"
    assert response.json()["object"] == ask(wire, name).json()["object"]


@pytest.mark.parametrize("name", ["chat", "completions"])
def test_error_ends_a_stream_of_chunks_as_openai_does(wire: httpx.Client, name: str) -> None:
    *before, last = blocks(ask(wire, name, "error=2", stream=True))
    assert len(before) == 2
    assert data(last)["error"]["code"] == "server_error"


def test_error_ends_the_stream_of_a_response_with_an_event_of_its_own_kind(
    client: openai.OpenAI, wire: httpx.Client
) -> None:
    *before, last = blocks(ask(wire, "responses", "error=4", stream=True))
    assert len(before) == 4
    assert last.startswith("event: error\n")
    message = "The server had an error while processing your request."
    told = {"type": "error", "sequence_number": 4, "code": "server_error", "message": message, "param": None}
    assert data(last) == told
    *_, event = client.responses.create(model="sim-instant;error=4", input="hi", stream=True)
    assert event.type == "error"
    assert event.to_dict() == told


@pytest.mark.parametrize("name", ["completions", "responses"])
def test_big_is_so_much_text_in_either_form(wire: httpx.Client, name: str) -> None:
    for stream in (False, True):
        response = ask(wire, name, "big=300000;chunks=3", stream=stream)
        assert "x" * 300_000 in response.text
    assert len(ask(wire, name, "status=500;big=70000").json()["error"]["message"]) == 70_000


@pytest.mark.parametrize("name", ["completions", "responses"])
def test_an_endless_stream_goes_on_with_text(wire: httpx.Client, name: str) -> None:
    said = blocks(ask(wire, name, "endless;chunks=3;cut=60", stream=True))
    assert len(said) == 60
    last = data(said[-1])
    assert (last["delta"] if name == "responses" else last["choices"][0]["text"]) == " on"


@pytest.mark.parametrize("shape", ["empty", "refusal"])
def test_an_endless_response_may_begin_without_a_text(wire: httpx.Client, shape: str) -> None:
    last = data(blocks(ask(wire, "responses", f"endless;{shape};cut=40", stream=True))[-1])
    assert last["type"] in {"response.output_text.delta", "response.refusal.delta"}
    assert last["delta"] == " on"


@each_that_streams
def test_a_streaming_caller_who_leaves_is_billed_so_far(wire: httpx.Client, name: str) -> None:
    path, body = BODIES[name]
    asked = {**body, "stream": True, "model": "sim-instant;gap=0.01;chunks=1000"}
    if name == "completions":
        asked["max_tokens"] = 1000
    with wire.stream("POST", path, json=asked) as response:
        assert next(response.iter_bytes())
    counts = settled(wire)
    assert counts["hung_up"] == 1
    assert counts["by_model"]["sim-instant"]["completion_tokens"] < 1000


def test_a_response_that_fails_at_first_succeeds_later(wire: httpx.Client) -> None:
    said = [ask(wire, "responses", "fail=1;failed").json()["status"] for _ in range(2)]
    assert said == ["failed", "completed"]
    usages = [ask(wire, "completions", "nousage").json(), ask(wire, "completions").json()]
    assert ["usage" in answer for answer in usages] == [False, True]


def test_refuse_usage_refuses_whoever_asks_for_it(wire: httpx.Client) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    for name in ("chat", "completions"):
        assert ask(wire, name, "refuse-usage", **options).status_code == 400
        assert ask(wire, name, "refuse-usage", stream=True).status_code == 200
