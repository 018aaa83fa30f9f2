"""One call as an application makes it, timed: its answer, or a DemoError that says in one line what was wrong."""

import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from pricing.cost import usage_of
from proxy.demo.figures import Answer, Tally, outcome_of
from proxy.simulator import MODELS

Heard = Callable[[str], None]


class DemoError(Exception):
    """The demo cannot go on; the message is its one line."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request to be sent: the kind of work that it belongs to, and its body."""

    work: str
    body: Mapping[str, Any]


class _Said(msgspec.Struct, frozen=True):
    """A message, or a delta of one."""

    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class _Choice(msgspec.Struct, frozen=True):
    message: _Said = _Said()
    delta: _Said = _Said()


class _Body(msgspec.Struct, frozen=True):
    """A completion, or a chunk of one."""

    model: str = ""
    choices: list[_Choice] = []
    usage: dict[str, Any] | None = None
    error: object = None


@dataclass(slots=True)
class _Heard:
    """What has come of an answer so far. `first`: the clock at its first token."""

    model: str = ""
    text: str = ""
    first: float | None = None
    usage: Mapping[str, Any] | None = None


def _silent(piece: str) -> None:
    """Nobody listens."""


async def ask(http: httpx.AsyncClient, call: Call, heard: Heard = _silent) -> Answer:
    """Send it and read the answer to its end; `heard` gets each piece of a stream's text as it comes."""
    began = time.perf_counter()
    streamed = bool(call.body.get("stream"))
    try:
        async with http.stream("POST", "chat/completions", json=call.body) as response:
            if response.status_code != 200:
                text = " ".join((await response.aread()).decode(errors="replace").split())
                raise DemoError(f"an answer failed ({call.work}): HTTP {response.status_code} {text[:200]}")
            found = await _stream(response, heard) if streamed else await _whole(response)
    except (httpx.HTTPError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DemoError(f"an answer failed ({call.work}): {type(error).__name__} {error}") from error
    return _answer(call, response, found, began)


def _answer(call: Call, response: httpx.Response, found: _Heard, began: float) -> Answer:
    status = response.headers.get("cache-status", "")
    outcome, usage = outcome_of(status), usage_of(found.usage or {})
    model = response.headers.get("x-penstock-model", found.model)
    if outcome is None:
        raise DemoError(f"an answer ({call.work}) has an unexpected Cache-Status: '{status}'")
    if usage is None or model not in MODELS:
        raise DemoError(f"an answer ({call.work}) cannot be priced: model '{model}', usage {found.usage}")
    if call.body.get("stream") and found.first is None:
        raise DemoError(f"an answer ({call.work}) is empty")
    first = None if found.first is None else found.first - began
    return Answer(call.work, model, outcome, usage, first, found.text)


async def _whole(response: httpx.Response) -> _Heard:
    body = msgspec.json.decode(await response.aread(), type=_Body)
    text = "".join(choice.message.content or "" for choice in body.choices)
    return _Heard(body.model, text, usage=body.usage)


async def _stream(response: httpx.Response, heard: Heard) -> _Heard:
    found = _Heard()
    async for body in _events(response):
        if body.error is not None:
            raise DemoError(f"an answer broke off: {str(body.error)[:200]}")
        found.model = body.model or found.model
        found.usage = body.usage or found.usage
        for choice in body.choices:
            said = choice.delta
            # A reasoning model's first thought counts: it shows that the answer has begun, hit or miss.
            if found.first is None and (said.content or said.reasoning_content or said.tool_calls):
                found.first = time.perf_counter()
            if said.content:
                heard(said.content)
                found.text += said.content
    return found


async def _events(response: httpx.Response) -> AsyncIterator[_Body]:
    """The events up to `[DONE]`; DemoError where it never comes. Not by lines: for httpx U+2028 ends one."""
    rest = b""
    done = False
    async for part in response.aiter_bytes():
        *events, rest = (rest + part).split(b"\n\n")
        for event in events:
            if event == b"data: [DONE]":
                done = True
            elif event.startswith(b"data: "):
                yield msgspec.json.decode(event[6:], type=_Body)
    if not done:
        raise DemoError("an answer broke off: its stream has no [DONE]")


async def tally(http: httpx.AsyncClient) -> Tally:
    """The simulator's own count; the client's base URL is where it keeps it."""
    try:
        response = await http.get("calls")
        return msgspec.json.decode(response.raise_for_status().content, type=Tally)
    except (httpx.HTTPError, msgspec.MsgspecError) as error:
        raise DemoError(f"the provider's count cannot be had: {type(error).__name__} {error}") from error
