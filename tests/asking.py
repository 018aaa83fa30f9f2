"""Every kind of question that the SDK can ask of chat completions, every way to ask it, and answers made comparable."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import openai
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from tests.support import Json, Simulator, ask

USAGE: Final[Json] = {"stream": True, "stream_options": {"include_usage": True}}


class Report(BaseModel):
    """What `.parse()` is asked for."""

    title: str
    tags: list[str]
    score: int


_WEATHER = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
_STRICT = _WEATHER | {"required": ["city", "days"], "additionalProperties": False}
_FUNCTION = {"type": "function", "function": {"name": "weather", "parameters": _STRICT, "strict": True}}
_CLOCK = {"type": "function", "function": {"name": "clock", "parameters": _STRICT, "strict": True}}
_CUSTOM = {"type": "custom", "custom": {"name": "shell"}}
_SCHEMA = {"type": "json_schema", "json_schema": {"name": "report", "schema": Report.model_json_schema()}}

CASES: Final[Mapping[str, Json]] = {
    "plain": {},
    "two choices": {"n": 2},
    "logprobs": {"logprobs": True, "top_logprobs": 3},
    "two choices with logprobs": {"n": 2, "logprobs": True},
    "a function": {"tools": [_FUNCTION], "tool_choice": "required", "parallel_tool_calls": False},
    "parallel functions": {"tools": [_FUNCTION, _CLOCK], "tool_choice": "required"},
    "a custom tool": {"tools": [_CUSTOM], "tool_choice": "required"},
    "a JSON object": {"response_format": {"type": "json_object"}},
    "a JSON schema": {"response_format": _SCHEMA},
    "reasoning": {"model": "sim-reasoning;first=0;gap=0"},
    "a refusal": {"model": "sim-instant;refusal"},
    "a legacy function": {"functions": [{"name": "weather", "parameters": _WEATHER}], "function_call": "auto"},
    "cut by max_tokens": {"max_tokens": 5},
    "a cached prompt": {"user": "word " * 2000},
}


def question(case: str, simulator: Simulator, prompt: str) -> Json:
    """A request of this kind. What the simulator says is drawn from the words, so some words must be looked for."""
    body = ask(prompt) | CASES[case]
    if case == "a cached prompt":
        body["messages"] = [{"role": "system", "content": body.pop("user")}, *body["messages"]]
    if case == "parallel functions":
        body = next(
            one for one in (ask(f"{prompt} {i}") | CASES[case] for i in range(99)) if _calls(simulator, one) == 2
        )
        simulator.forget()
    return body


def _calls(simulator: Simulator, body: Json) -> int:
    return len(simulator.direct(body)["choices"][0]["message"].get("tool_calls") or ())


def without_ids(value: BaseModel) -> Json:
    """An SDK's object less what is new each time."""
    return value.model_dump(mode="json", exclude={"id", "created"}, exclude_unset=True, warnings=False)


Client = openai.OpenAI | openai.AsyncOpenAI
Way = Callable[[Client, Json], Awaitable[list[Json]]]


async def created(client: Client, body: Json) -> list[Json]:
    """The completion, or each of its chunks."""
    if isinstance(client, openai.OpenAI):
        return await asyncio.to_thread(_created, client, body)
    found: Any = await client.chat.completions.create(**body)
    return [without_ids(chunk) async for chunk in found] if body.get("stream") else [without_ids(found)]


def _created(client: openai.OpenAI, body: Json) -> list[Json]:
    found: Any = client.chat.completions.create(**body)
    return [without_ids(chunk) for chunk in found] if body.get("stream") else [without_ids(found)]


async def raw(client: Client, body: Json) -> list[Json]:
    """Through `.with_raw_response`."""
    if isinstance(client, openai.OpenAI):
        return await asyncio.to_thread(_raw, client, body)
    found: Any = (await client.chat.completions.with_raw_response.create(**body)).parse()
    return [without_ids(chunk) async for chunk in found] if body.get("stream") else [without_ids(found)]


def _raw(client: openai.OpenAI, body: Json) -> list[Json]:
    found: Any = client.chat.completions.with_raw_response.create(**body).parse()
    return [without_ids(chunk) for chunk in found] if body.get("stream") else [without_ids(found)]


async def streaming(client: Client, body: Json) -> list[Json]:
    """Through `.with_streaming_response`."""
    if isinstance(client, openai.OpenAI):
        return await asyncio.to_thread(_streaming, client, body)
    async with client.chat.completions.with_streaming_response.create(**body) as response:
        found: Any = await response.parse()
        return [without_ids(chunk) async for chunk in found] if body.get("stream") else [without_ids(found)]


def _streaming(client: openai.OpenAI, body: Json) -> list[Json]:
    with client.chat.completions.with_streaming_response.create(**body) as response:
        found: Any = response.parse()
        return [without_ids(chunk) for chunk in found] if body.get("stream") else [without_ids(found)]


async def helped(client: Client, body: Json) -> list[Json]:
    """Through the `.stream()` helper: its events, then the completion that it puts together."""
    body = {name: value for name, value in body.items() if name != "stream"}
    if isinstance(client, openai.OpenAI):
        return await asyncio.to_thread(_helped, client, body)
    async with client.chat.completions.stream(**body) as stream:
        types = [{"event": event.type} async for event in stream]
        return [*types, without_ids(await stream.get_final_completion())]


def _helped(client: openai.OpenAI, body: Json) -> list[Json]:
    with client.chat.completions.stream(**body) as stream:
        types = [{"event": event.type} for event in stream]
        return [*types, without_ids(stream.get_final_completion())]


async def parsed(client: Client, body: Json) -> list[Json]:
    """Through `.parse()`."""
    if isinstance(client, openai.OpenAI):
        parse: Any = client.chat.completions.parse
        return [without_ids(await asyncio.to_thread(parse, **body))]
    return [without_ids(await client.chat.completions.parse(**body))]


def assembled(chunks: list[Json]) -> Json:
    """The completion that the SDK makes of a stream's chunks."""
    state = ChatCompletionStreamState()
    for one in chunks:
        state.handle_chunk(ChatCompletionChunk.construct(**{"id": "x", "created": 1, **one}))
    whole: Json = state.current_completion_snapshot.to_dict(warnings=False)
    for choice in whole["choices"]:
        choice["message"].pop("parsed", None)
        for call in choice["message"].get("tool_calls") or ():
            call.pop("index", None)
            (call.get("function") or {}).pop("parsed_arguments", None)
    return comparable(whole)


def comparable(completion: Json) -> Json:
    """Less nulls, of which the SDK adds one for each member that it knows."""
    full = {"id": "x", "created": 1, **completion}
    shown = ChatCompletion.model_validate(full).model_dump(exclude_none=True, warnings=False)
    return {name: value for name, value in shown.items() if name not in {"id", "created"}}
