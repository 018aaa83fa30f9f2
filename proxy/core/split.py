"""A completion in, the chunks in which it would have been streamed out.

Rule: `assemble(split(completion))` is the completion again. Text is cut where clients expect a cut, and every other
value goes whole in one delta, since what comes whole needs no rule to be put together.

The order is OpenAI's: per choice the role, reasoning, content, refusal, function and tool calls, what else the message
has, then the finish reason; at the very end a chunk without choices that holds the usage. One choice follows the other.

A tool call's place in its list becomes its `index`: an `index` that a completion's own call has is lost.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

# A word with the space before it, as tokens mostly are; bounded, for what has no spaces (Chinese, base64).
_PIECE: Final = re.compile(r"\s{0,24}\S{1,24}|\s{1,24}")
# What every chunk of a stream repeats.
_REPEATED: Final = ("id", "object", "created", "model", "system_fingerprint", "service_tier")
_IN_PIECES: Final = ("reasoning_content", "reasoning", "content", "refusal")
# The members of a tool call that come in pieces, by the member that holds them.
_CALL_TEXT: Final = {"function": "arguments", "custom": "input"}

_Delta = dict[str, Any]


def split(completion: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The chunks of a completion, which stays as it is; the chunks share its inner values."""
    parts = [part for choice in completion.get("choices") or () for part in _parts(choice)]
    return in_chunks(completion, "chat.completion.chunk", parts)


def in_chunks(completion: Mapping[str, Any], kind: str, parts: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """A chunk for each part of a choice. The first has what a completion says once, one without choices the usage."""
    head = {name: completion[name] for name in _REPEATED if name in completion} | {"object": kind}
    chunks: list[dict[str, Any]] = [head | {"choices": [part]} for part in parts]
    if completion.get("usage") is not None or not chunks:
        chunks.append(head | {"choices": []})
    if completion.get("usage") is not None:
        chunks[-1]["usage"] = completion["usage"]
    once = {name: value for name, value in completion.items() if name not in (*_REPEATED, "choices", "usage")}
    chunks[0] = once | chunks[0]
    return chunks


def _parts(choice: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One choice's part of each of its chunks."""
    message: dict[str, Any] = choice.get("message") or {}
    tokens = _tokens(message, choice.get("logprobs"))
    for delta, logprobs in _deltas(message, tokens):
        part = {"index": choice.get("index", 0), "delta": delta}
        if "logprobs" in choice:
            nulls = {name: None for name, value in choice["logprobs"].items() if value is None} if logprobs else {}
            part["logprobs"] = nulls | logprobs or None
        yield part | {"finish_reason": None}
    last = {name: value for name, value in choice.items() if name != "message"} | {"delta": {}}
    if tokens:
        rest = {name: value for name, value in choice["logprobs"].items() if name not in tokens and value is not None}
        last["logprobs"] = rest or None
    yield last


def _tokens(message: Mapping[str, Any], logprobs: object) -> dict[str, list[Any]]:
    """The lists of logprobs whose tokens make up the text that they are of (they do not where one cuts a character)."""
    if not isinstance(logprobs, dict):
        return {}
    return {
        name: logprobs[name]
        for name in ("content", "refusal")
        if logprobs.get(name) and message.get(name) and text_of(logprobs[name]) == message[name]
    }


def text_of(tokens: object) -> str | None:
    """The text that a list of logprobs makes up; None if some have no token."""
    if not isinstance(tokens, list):
        return None
    texts = [token["token"] for token in tokens if isinstance(token, dict) and isinstance(token.get("token"), str)]
    return "".join(texts) if len(texts) == len(tokens) else None


def _deltas(message: Mapping[str, Any], tokens: Mapping[str, list[Any]]) -> Iterator[tuple[_Delta, dict[str, Any]]]:
    """The deltas of a message, each with the logprobs beside it."""
    rest = dict(message)
    yield _opening(rest), {}
    for name in _IN_PIECES:
        if name in tokens:
            del rest[name]
            for token in tokens[name]:
                yield {name: token["token"]}, {name: [token]}
        elif isinstance(rest.get(name), str):
            for piece in pieces(rest.pop(name)) or [""]:  # an empty text is not null
                yield {name: piece}, {}
    for delta in _call_deltas(rest):
        yield delta, {}
    if rest:
        yield rest, {}


def _opening(rest: dict[str, Any]) -> _Delta:
    """The first delta, as OpenAI sends it: the role, an empty or null `content`, a null `refusal`."""
    delta = {"role": rest.pop("role")} if "role" in rest else {}
    if isinstance(rest.get("content"), str):
        delta["content"] = ""
    if isinstance(rest.get("refusal"), str):
        delta["refusal"] = None
    for name in ("content", "refusal"):
        if name in rest and rest[name] is None:
            delta[name] = rest.pop(name)
    return delta


def _call_deltas(rest: dict[str, Any]) -> Iterator[_Delta]:
    call = rest.get("function_call")
    if isinstance(call, dict):
        del rest["function_call"]
        for part in _call_parts({"function": call}):
            yield {"function_call": part["function"]}
    calls = rest.get("tool_calls")
    if calls and isinstance(calls, list) and all(isinstance(call, dict) for call in calls):
        del rest["tool_calls"]
        for index, call in enumerate(calls):
            for part in _call_parts(call):
                yield {"tool_calls": [{"index": index} | part]}


def _call_parts(call: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A call with its texts empty, then the texts in pieces."""
    texts = {
        holder: call[holder][member]
        for holder, member in _CALL_TEXT.items()
        if isinstance(call.get(holder), dict) and isinstance(call[holder].get(member), str)
    }
    empty = {holder: call[holder] | {_CALL_TEXT[holder]: ""} for holder in texts}
    yield {name: value for name, value in call.items() if name != "index"} | empty
    for holder, text in texts.items():
        for piece in pieces(text):
            yield {holder: {_CALL_TEXT[holder]: piece}}


def pieces(text: str) -> list[str]:
    return _PIECE.findall(text)
