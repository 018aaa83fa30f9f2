"""Requests of Responses, and what came of them made comparable."""

from functools import partial
from typing import Any

import httpx
import msgspec

from .asking import Json, posted

PATH = "/v1/responses"
NEW_EACH_TIME = ("id", "created_at", "completed_at")
FUNCTION: Json = {
    "type": "function",
    "name": "open_gate",
    "parameters": {"type": "object", "properties": {"metres": {"type": "number"}}},
}
CUSTOM: Json = {"type": "custom", "name": "shell"}
SEARCH: Json = {"type": "web_search"}

whole = partial(posted, path=PATH)


def asking(given: Any = "What does a sluice do?", /, **members: Any) -> Json:
    return {"model": "sim-instant", "input": given, **members}


def told(wire: httpx.Client, body: Json) -> list[Json]:
    """The events of the stream; each is named beside what it says."""
    response = wire.post(PATH, json={**body, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream"), response.text
    found: list[Json] = []
    for block in response.text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        found.append(msgspec.json.decode(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def lasting(response: Json) -> Json:
    """The Response less what is new each time."""
    return {name: value for name, value in response.items() if name not in NEW_EACH_TIME}


def text_of(response: Json) -> str:
    parts = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(part.get("text", "") for part in parts)


def types(response: Json) -> list[str]:
    return [item["type"] for item in response["output"]]


def refusal(wire: httpx.Client, body: Json, status: int = 400) -> Json:
    response = wire.post(PATH, json=body)
    assert response.status_code == status, response.text
    error: Json = response.json()["error"]
    return error
