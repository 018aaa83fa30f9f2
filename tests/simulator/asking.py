"""Requests, and the two forms of an answer made comparable."""

import time
from typing import Any

import httpx
import msgspec
import openai
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion

Json = dict[str, Any]

PATH = "/v1/chat/completions"


def request(text: str = "What does a sluice do?", **members: Any) -> Json:
    return {"model": "sim-instant", "messages": [{"role": "user", "content": text}], **members}


def posted(wire: httpx.Client, body: Json, path: str) -> Json:
    """The JSON answer, as it came."""
    response = wire.post(path, json=body)
    assert response.status_code == 200, response.text
    answer: Json = response.json()
    return answer


def as_json(client: openai.OpenAI, body: Json) -> Json:
    """The JSON answer, less what is new each time."""
    return _comparable(client.chat.completions.create(**body).to_dict())


def as_stream(client: openai.OpenAI, body: Json) -> Json:
    """The streamed answer as the SDK assembles it, in the shape of the JSON one."""
    state = ChatCompletionStreamState()
    for chunk in client.chat.completions.create(**body, stream=True, stream_options={"include_usage": True}):
        state.handle_chunk(chunk)
    answer: Json = state.current_completion_snapshot.to_dict()
    for choice in answer["choices"]:
        choice["message"].pop("parsed", None)
        for call in choice["message"].get("tool_calls") or ():
            call.pop("index", None)
            (call.get("function") or {}).pop("parsed_arguments", None)
    return _comparable(answer)


def events(response: httpx.Response) -> list[Any]:
    """The stream's events: JSON values, `"[DONE]"` as itself."""
    said = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    return [text if text == "[DONE]" else msgspec.json.decode(text) for text in said]


def content(answer: Json) -> str:
    text: str = answer["choices"][0]["message"]["content"]
    return text


def calls(wire: httpx.Client) -> Json:
    counts: Json = wire.get("/simulator/calls").json()
    return counts


def settled(wire: httpx.Client, still_open: int = 0) -> Json:
    """The counts once so many calls are open: a hang-up is noticed within a moment, not at once."""
    deadline = time.monotonic() + 5
    while (counts := calls(wire))["open"] != still_open:
        assert time.monotonic() < deadline, counts
        time.sleep(0.01)
    return counts


def _comparable(answer: Json) -> Json:
    """Less what is new each time, and less nulls: the SDK adds one for each member that it knows."""
    shown: Json = ChatCompletion.model_validate(answer).model_dump(exclude_none=True)
    return {name: value for name, value in shown.items() if name not in {"id", "created"}}
