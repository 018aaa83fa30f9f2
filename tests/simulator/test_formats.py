"""Log probabilities, JSON by schema, and what the SDK parses out of it."""

from enum import Enum
from typing import Literal

import httpx
import msgspec
import openai
import pytest
from pydantic import BaseModel

from .asking import PATH, as_json, content, events, request


class Colour(Enum):
    GREY = "grey"
    BLUE = "blue"


class Part(BaseModel):
    name: str
    metres: float
    colour: Colour


class Mill(BaseModel):
    kind: Literal["mill"]
    parts: list[Part]
    wheels: int
    still_turns: bool
    owner: str | None
    annexe: "Mill | None"


def test_parse_gives_an_object_of_the_callers_class(client: openai.OpenAI) -> None:
    completion = client.chat.completions.parse(**request(), response_format=Mill)
    parsed = completion.choices[0].message.parsed
    assert isinstance(parsed, Mill)
    assert parsed.parts


def test_the_sdks_own_stream_parses_the_same_object(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(**request(), response_format=Mill) as stream:
        streamed = stream.get_final_completion().choices[0].message.parsed
    assert streamed == client.chat.completions.parse(**request(), response_format=Mill).choices[0].message.parsed


def test_a_refusal_stands_in_place_of_the_object(client: openai.OpenAI) -> None:
    completion = client.chat.completions.parse(**request(model="sim-instant;refusal"), response_format=Mill)
    message = completion.choices[0].message
    assert message.parsed is None
    assert message.content is None
    assert message.refusal


def test_json_mode_says_an_object(client: openai.OpenAI) -> None:
    answer = as_json(client, request(response_format={"type": "json_object"}))
    assert isinstance(msgspec.json.decode(content(answer)), dict)


def test_bad_json_on_demand_is_not_json(client: openai.OpenAI) -> None:
    answer = as_json(client, request(model="sim-instant;badjson", response_format={"type": "json_object"}))
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(content(answer))


def test_a_schema_needs_a_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        as_json(client, request(response_format={"type": "json_schema", "json_schema": {}}))
    assert refused.value.param == "response_format.json_schema.name"


def test_log_probabilities_spell_the_answer(client: openai.OpenAI) -> None:
    choice = as_json(client, request(logprobs=True, top_logprobs=2))["choices"][0]
    entries = choice["logprobs"]["content"]
    assert b"".join(bytes(entry["bytes"]) for entry in entries).decode() == choice["message"]["content"]
    assert all(entry["top_logprobs"][0]["token"] == entry["token"] for entry in entries)
    assert {len(entry["top_logprobs"]) for entry in entries} == {2}


def test_each_chunk_has_its_own_tokens_log_probability(wire: httpx.Client) -> None:
    body = request(model="sim-instant;chunks=3", stream=True, logprobs=True)
    first, *tokens, finish, _ = events(wire.post(PATH, json=body))
    assert first["choices"][0]["logprobs"] == {"content": [], "refusal": None}
    assert finish["choices"][0]["logprobs"] is None
    for chunk in tokens:
        (entry,) = chunk["choices"][0]["logprobs"]["content"]
        assert entry["token"] == chunk["choices"][0]["delta"]["content"]


def test_what_is_not_there_is_null_as_at_openai(wire: httpx.Client) -> None:
    (choice,) = wire.post(PATH, json=request()).json()["choices"]
    assert list(choice) == ["index", "message", "logprobs", "finish_reason"]
    assert choice["logprobs"] is None
    assert list(choice["message"]) == ["role", "content", "refusal"]
    assert choice["message"]["refusal"] is None
