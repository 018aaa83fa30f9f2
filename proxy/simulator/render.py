"""A chat's answer → script: one JSON body, or the events of a stream, as OpenAI writes them."""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import msgspec

from proxy.simulator.answers import Choice, choices
from proxy.simulator.chat_request import Chat
from proxy.simulator.logprobs import logprobs
from proxy.simulator.script import DONE, EVENT_STREAM, Script, whole
from proxy.simulator.tokens import Prompt, prompt
from proxy.simulator.tools import Call

_encode = msgspec.json.encode

Event = tuple[bytes, int]


class Stamp(msgspec.Struct, frozen=True):
    """What differs between two answers to the same request. `created`: seconds since 1970."""

    id: str
    created: int

    def members(self, kind: str, model: str) -> dict[str, object]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": model,
            "service_tier": "default",
            "system_fingerprint": "fp_simulator",
        }


class Answer(msgspec.Struct, frozen=True):
    choices: tuple[Choice, ...]
    prompt: Prompt

    @property
    def completion_tokens(self) -> int:
        return sum(choice.tokens for choice in self.choices)

    @property
    def reasoning_tokens(self) -> int:
        return sum(len(choice.reasoning) for choice in self.choices)

    @property
    def longest(self) -> int:
        """Tokens of the longest choice."""
        return max(choice.tokens for choice in self.choices)


def answer(chat: Chat) -> Answer:
    """What the simulator says to this; ApiError where its tools or its response_format make no sense."""
    definitions = (chat.body.get(name) for name in ("tools", "functions", "response_format"))
    return Answer(choices(chat.wish(), chat.request.n or 1), prompt(chat.body["messages"], *definitions))


def usage(answer: Answer) -> dict[str, Any]:
    completion = answer.completion_tokens
    return {
        "prompt_tokens": answer.prompt.tokens,
        "completion_tokens": completion,
        "total_tokens": answer.prompt.tokens + completion,
        "prompt_tokens_details": {"cached_tokens": answer.prompt.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": answer.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def completion(answer: Answer, chat: Chat, stamp: Stamp) -> Script:
    """The answer as one `chat.completion`."""
    body = stamp.members("chat.completion", chat.model.id)
    body["choices"] = [_whole_choice(choice, chat) for choice in answer.choices]
    if not chat.behaviour.nousage:
        body["usage"] = usage(answer)
    return whole(_encode(body), answer.completion_tokens)


def stream(answer: Answer, chat: Chat, stamp: Stamp) -> Script:
    """The answer as `chat.completion.chunk` events, the choices' chunks in turn."""
    head = b"data: " + _encode(stamp.members("chat.completion.chunk", chat.model.id))[:-1] + b',"choices":['
    tail = b'],"usage":null}\n\n' if chat.include_usage else b"]}\n\n"
    of_choices = [list(_chunks(choice, chat)) for choice in answer.choices]
    chunks = [chunk for turn in zip_longest(*of_choices) for chunk in turn if chunk is not None]
    events = [head + body + tail for body, _ in chunks]
    if chat.behaviour.usage:
        events[-1] = head + chunks[-1][0] + b'],"usage":' + _encode(usage(answer)) + b"}\n\n"
    # The end comes with the last token: a provider does not pause between its last word and its full stop.
    paced = len(events) - 1
    if chat.include_usage and not chat.behaviour.usage:
        events.append(head + b'],"usage":' + _encode(usage(answer)) + b"}\n\n")
    events.append(DONE)
    tokens = [count for _, count in chunks]
    tokens += [0] * (len(events) - len(tokens))
    return Script(tuple(events), tuple(tokens), paced, EVENT_STREAM)


def _whole_choice(choice: Choice, chat: Chat) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": _joined(choice.content)}
    if choice.reasoning:
        message["reasoning_content"] = _joined(choice.reasoning)
    if choice.calls and choice.calls[0].kind == "legacy":
        message["function_call"] = _legacy(choice.calls[0])
    elif choice.calls:
        message["tool_calls"] = [_tool_call(call) for call in choice.calls]
    message["refusal"] = _joined(choice.refusal)
    probabilities = None
    if _has_logprobs(choice, chat):
        probabilities = _logprobs(choice, _entries(choice, chat))
    return {"index": choice.index, "message": message, "logprobs": probabilities, "finish_reason": choice.finish}


def _joined(tokens: tuple[str, ...] | None) -> str | None:
    return None if tokens is None else "".join(tokens)


def _tool_call(call: Call) -> dict[str, Any]:
    if call.kind == "custom":
        return {"id": call.id, "type": "custom", "custom": {"name": call.name, "input": "".join(call.pieces)}}
    return {"id": call.id, "type": "function", "function": _legacy(call)}


def _legacy(call: Call) -> dict[str, str]:
    return {"name": call.name, "arguments": "".join(call.pieces)}


def _has_logprobs(choice: Choice, chat: Chat) -> bool:
    # As at OpenAI, a message of nothing but calls has none.
    return bool(chat.request.logprobs) and not choice.calls


def _entries(choice: Choice, chat: Chat) -> list[dict[str, Any]]:
    said = choice.refusal if choice.refusal is not None else choice.content or ()
    return logprobs(said, chat.seed + bytes((choice.index,)), chat.request.top_logprobs or 0)


def _logprobs(choice: Choice, entries: list[dict[str, Any]]) -> dict[str, Any]:
    if choice.refusal is not None:
        return {"content": None, "refusal": entries}
    return {"content": entries, "refusal": None}


def _chunks(choice: Choice, chat: Chat) -> Iterator[Event]:
    """The choice's members of `choices`, encoded, with the tokens that each holds; the last one has the finish."""
    head = b'{"index":%d,"delta":' % choice.index
    plain = b',"logprobs":null,"finish_reason":null}'
    said = choice.refusal if choice.refusal is not None else choice.content or ()
    name = b'{"refusal":' if choice.refusal is not None else b'{"content":'
    ends = [plain] * len(said)
    opening_end = plain
    if _has_logprobs(choice, chat):
        ends = [_with_logprobs(choice, [entry]) for entry in _entries(choice, chat)]
        opening_end = _with_logprobs(choice, [])
    called = list(_call_deltas(choice.calls))
    opening = _opening(choice)
    if called and not choice.reasoning:
        opening |= called.pop(0)
    yield head + _encode(opening) + opening_end, 1 if choice.calls and not choice.reasoning else 0
    for piece in choice.reasoning:
        yield head + b'{"reasoning_content":' + _encode(piece) + b"}" + plain, 1
    for piece, end in zip(said, ends, strict=True):
        yield head + name + _encode(piece) + b"}" + end, 1
    for delta in called:
        yield head + _encode(delta) + plain, 1
    yield head + b'{},"logprobs":null,"finish_reason":' + _encode(choice.finish) + b"}", 0


def _opening(choice: Choice) -> dict[str, Any]:
    if choice.refusal is not None:
        return {"role": "assistant", "content": None, "refusal": ""}
    return {"role": "assistant", "content": None if choice.content is None else "", "refusal": None}


def _with_logprobs(choice: Choice, entries: list[dict[str, Any]]) -> bytes:
    return b',"logprobs":' + _encode(_logprobs(choice, entries)) + b',"finish_reason":null}'


def _call_deltas(called: tuple[Call, ...]) -> Iterator[dict[str, Any]]:
    """First a call's name, then its arguments piece by piece, call after call."""
    for index, call in enumerate(called):
        if call.kind == "legacy":
            yield {"function_call": {"name": call.name, "arguments": ""}}
            yield from ({"function_call": {"arguments": piece}} for piece in call.pieces)
            continue
        member, text = ("custom", "input") if call.kind == "custom" else ("function", "arguments")
        start = {"index": index, "id": call.id, "type": member, member: {"name": call.name, text: ""}}
        yield {"tool_calls": [start]}
        yield from ({"tool_calls": [{"index": index, member: {text: piece}}]} for piece in call.pieces)
