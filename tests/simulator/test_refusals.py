"""Requests that OpenAI would refuse, and paths that it does not have."""

from typing import Any

import httpx
import openai
import pytest

from .asking import PATH, Json, as_json, request


def _tool(parameters: Json) -> Json:
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


def without(name: str) -> Json:
    return {member: value for member, value in request().items() if member != name}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (without("model"), "model"),
        (without("messages"), "messages"),
        (request(messages=[]), "messages"),
        (request(messages="hello"), "messages"),
        (request(messages=[{"content": "x"}]), "messages"),
        (request(n=0), "n"),
        (request(temperature=3), "temperature"),
        (request(max_tokens=-1), "max_tokens"),
        (request(stop=["a", "b", "c", "d", "e"]), "stop"),
        (request(top_logprobs=2), "top_logprobs"),
        (request(stream_options={"include_usage": True}), "stream_options"),
        (request(response_format={"type": "poem"}), "response_format.type"),
        (request(tools=[_tool({"type": "integer", "minimum": "low"})]), "tools"),
    ],
)
def test_a_bad_member_is_named(wire: httpx.Client, body: Json, param: str) -> None:
    response = wire.post(PATH, json=body)
    error = response.json()["error"]
    assert response.status_code == 400
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'"x"', b'{"model":"\\ud800"}', b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_refused(wire: httpx.Client, raw: bytes) -> None:
    response = wire.post(PATH, content=raw)
    assert response.status_code == 400
    assert "JSON" in response.json()["error"]["message"]


def test_odd_but_valid_members_are_let_pass(wire: httpx.Client) -> None:
    assert wire.post(PATH, json=request(seed=10**40, unheard_of={"a": [None, 1.5]}, stop=None)).status_code == 200


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        as_json(client, request(model="gpt-0"))
    assert refused.value.code == "model_not_found"


def test_the_bad_key_is_refused_everywhere(client: openai.OpenAI, wire: httpx.Client) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        as_json(client.with_options(api_key="bad-key"), request())
    assert refused.value.code == "invalid_api_key"
    assert wire.get("/v1/models", headers={"authorization": "Bearer bad-key"}).status_code == 401


def test_no_key_is_a_good_key(wire: httpx.Client) -> None:
    assert wire.post(PATH, json=request()).status_code == 200


def test_unknown_paths_and_methods_have_openais_errors(wire: httpx.Client) -> None:
    unknown = wire.post("/v1/chat/nothing", json={})
    assert unknown.status_code == 404
    assert "Invalid URL (POST /v1/chat/nothing)" in unknown.json()["error"]["message"]
    wrong = wire.get(PATH)
    assert wrong.status_code == 405
    assert wrong.headers["allow"] == "POST"
    assert wrong.json()["error"]["code"] == "method_not_supported"


def test_models_are_listed_as_at_openai(client: openai.OpenAI) -> None:
    listed = {model.id for model in client.models.list()}
    assert listed >= {"sim-small", "sim-medium", "sim-large", "sim-reasoning", "sim-instant"}
    assert client.models.retrieve("sim-large").owned_by == "penstock-simulator"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("sim-none")


@pytest.mark.parametrize("stream", [False, True])
def test_answers_have_openais_headers(wire: httpx.Client, stream: bool) -> None:
    headers: Any = wire.post(PATH, json=request(stream=stream)).headers
    assert headers["x-request-id"].startswith("req_")
    assert headers["openai-version"] == "2020-10-01"
    assert headers["openai-processing-ms"].isdigit()
    assert headers["x-ratelimit-limit-requests"].isdigit()
    assert headers["content-type"].startswith("text/event-stream" if stream else "application/json")
