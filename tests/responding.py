"""Every kind of Response that the simulator makes when it is asked so, and both forms of an answer made comparable."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from tests.asking import Report
from tests.scripted import Wire, event
from tests.support import Json

PATH: Final = "/v1/responses"
NEW_EACH_TIME: Final = ("id", "created_at", "completed_at")
REASONING: Final = "sim-reasoning;first=0;gap=0"
FUNCTION: Final[Json] = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
}
CUSTOM: Final[Json] = {"type": "custom", "name": "shell"}
_SCHEMA = {"type": "json_schema", "name": "report", "schema": Report.model_json_schema()}
_SEALED = {"include": ["reasoning.encrypted_content"], "store": False}

CASES: Final[Mapping[str, Json]] = {
    "plain": {},
    "instructions": {"instructions": "Be brief.", "temperature": 0.5, "metadata": {"a": "b"}},
    "logprobs": {"include": ["message.output_text.logprobs"], "top_logprobs": 3},
    "a function": {"tools": [FUNCTION], "tool_choice": "required", "parallel_tool_calls": False},
    "tools": {"tools": [FUNCTION, CUSTOM], "tool_choice": "required"},
    "a custom tool": {"tools": [CUSTOM], "tool_choice": {"type": "custom", "name": "shell"}},
    "a JSON object": {"text": {"format": {"type": "json_object"}, "verbosity": "low"}},
    "a JSON schema": {"text": {"format": _SCHEMA}},
    "reasoning": {"model": REASONING},
    "a summary of it": {"model": REASONING, "reasoning": {"effort": "low", "summary": "auto"}},
    "reasoning, sealed": {"model": REASONING, **_SEALED},
    "reasoning, shown": {"model": f"{REASONING};thoughts", "reasoning": {"summary": "detailed"}},
    "a refusal": {"model": "sim-instant;refusal"},
    "cut by max_output_tokens": {"model": "sim-instant;chunks=40", "max_output_tokens": 16},
    "no usage": {"model": "sim-instant;nousage"},
    "a cached prompt": {"instructions": "word " * 2000},
}


def respond(prompt: str | list[Json], model: str = "sim-instant", **members: Any) -> Json:
    """A request's body."""
    return {"model": model, "input": prompt, **members}


def posted(url: str, body: Json, path: str = PATH, **headers: str) -> Wire:
    """One request whose head has been read."""
    return Wire(url, body, {name.replace("_", "-"): value for name, value in headers.items()}, path=path).read_head()


def streamed(url: str, body: Json, path: str = PATH, **headers: str) -> list[bytes]:
    """All events of one streamed request."""
    with posted(url, {**body, "stream": True}, path, **headers) as wire:
        found = wire.read_events()
        assert wire.status == 200, found
        assert wire.clean
        return found


def whole(url: str, body: Json, path: str = PATH, **headers: str) -> Json:
    """One JSON answer."""
    with posted(url, body, path, **headers) as wire:
        said = wire.read_body()
        assert wire.status == 200, said
        answer: Json = json.loads(said)
        return answer


def status(url: str, body: Json, path: str = PATH, **headers: str) -> str:
    """What the cache did, without its name and how long an entry lives."""
    with posted(url, body, path, **headers) as wire:
        said = wire.read_body()
        assert wire.status == 200, said
        return wire.headers["cache-status"].removeprefix("penstock; ").partition("; ttl=")[0]


def data_of(block: bytes) -> Json:
    """What an event says."""
    said: Json = json.loads(block[block.index(b"data: ") + 6 :])
    return said


def ended(stream: list[bytes]) -> Json:
    """The Response in the last event."""
    response: Json = data_of(stream[-1])["response"]
    return response


def lasting(response: Json) -> Json:
    """The Response less what is new each time."""
    return {name: value for name, value in response.items() if name not in NEW_EACH_TIME}


def outline(stream: Iterable[bytes]) -> list[Json]:
    """A stream's events less numbers and what is new each time, with the pieces of each text put together.

    What an item that has only begun does not have yet may be left out or empty.
    """
    found: list[Json] = []
    for said in map(data_of, stream):
        del said["sequence_number"]
        if isinstance(response := said.get("response"), dict):
            said["response"] = lasting(response)
        if said["type"] == "response.output_item.added":
            said["item"] = {name: value for name, value in said["item"].items() if value not in (None, [])}
        if found and "delta" in said and found[-1]["type"] == said["type"]:
            found[-1]["delta"] += said["delta"]
            found[-1].setdefault("logprobs", []).extend(said.get("logprobs", []))
        else:
            found.append(said)
    return found


def typed(said: Json) -> bytes:
    """One event, named beside what it says."""
    return b"event: " + str(said["type"]).encode() + b"\n" + event(said)


def response(*output: Json, **members: Any) -> Json:
    """A completed Response, by a provider that the test plays."""
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    head = {"id": "resp_scripted", "object": "response", "created_at": 1, "model": "m", "status": "completed"}
    return {**head, "output": list(output), "usage": usage, **members}


def message(text: str) -> Json:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
