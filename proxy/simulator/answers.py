"""Request → answer: what each choice says, before it takes a form.

Every word comes from the seed, so the JSON body and the stream of one request say the same.
"""

from itertools import accumulate

import msgspec

from proxy.simulator.errors import ApiError
from proxy.simulator.request import Chat, Json
from proxy.simulator.schema import fitting_text
from proxy.simulator.text import Dice, pieces, prose, words
from proxy.simulator.tokens import Prompt, prompt
from proxy.simulator.tools import Call, calls

Pieces = tuple[str, ...]

_JSON_OBJECT: Json = {
    "type": "object",
    "properties": {
        "answer": {"type": "string"},
        "words": {"type": "array", "items": {"type": "string"}},
        "count": {"type": "integer", "minimum": 0},
        "sure": {"type": "boolean"},
    },
}


class Choice(msgspec.Struct, frozen=True):
    """One of `n` answers, in tokens. `content` and `refusal` are None where the message says null."""

    index: int
    reasoning: Pieces
    content: Pieces | None
    refusal: Pieces | None
    calls: tuple[Call, ...]
    finish: str

    @property
    def tokens(self) -> int:
        called = sum(1 + len(call.pieces) for call in self.calls)
        return len(self.reasoning) + len(self.content or ()) + len(self.refusal or ()) + called


class Answer(msgspec.Struct, frozen=True):
    choices: tuple[Choice, ...]
    prompt: Prompt

    @property
    def completion_tokens(self) -> int:
        return sum(choice.tokens for choice in self.choices)

    @property
    def reasoning_tokens(self) -> int:
        return sum(len(choice.reasoning) for choice in self.choices)


def answer(chat: Chat) -> Answer:
    """What the simulator says to this; ApiError where its tools or its response_format make no sense."""
    count = chat.request.n or 1
    return Answer(tuple(_choice(chat, index) for index in range(count)), prompt(chat.body))


def _choice(chat: Chat, index: int) -> Choice:
    dice = Dice(chat.seed + index.to_bytes(2, "big"))
    reasoning = pieces(prose(dice, 6 + dice.below(20))) if chat.model.reasoning else ()
    said = _said(chat, index, dice, reasoning)
    limited = _limited(said, chat.limit) if chat.limit is not None else said
    if chat.behaviour.finish is not None:
        return msgspec.structs.replace(limited, finish=chat.behaviour.finish)
    return limited


def _said(chat: Chat, index: int, dice: Dice, reasoning: Pieces) -> Choice:
    behaviour = chat.behaviour
    if behaviour.refusal:
        sorry = pieces("I'm sorry, but I can't help with " + words(dice, 4) + ".")
        return Choice(index, reasoning, None, sorry, (), "stop")
    if behaviour.empty:
        return Choice(index, reasoning, (), None, (), "stop")
    called = calls(chat.request, dice)
    if called:
        finish = "function_call" if called[0].kind == "legacy" else "tool_calls"
        return Choice(index, reasoning, None, None, called, finish)
    content = _json(chat, dice)
    if content is None:
        content = _prose(behaviour.chunks, dice)
    return Choice(index, reasoning, _stopped(content, chat.request.stop), None, (), "stop")


def _prose(chunks: int | None, dice: Dice) -> Pieces:
    # The length is thrown either way: fewer or more chunks then are the same text, shorter or longer.
    natural = 12 + dice.below(60)
    if chunks is None:
        return pieces(prose(dice, natural))
    return pieces(prose(dice, chunks))[:chunks]


def _json(chat: Chat, dice: Dice) -> Pieces | None:
    """An object that fits the response_format; None where text is wanted."""
    wanted = chat.request.response_format or {}
    match wanted.get("type", "text"):
        case "text":
            return None
        case "json_object":
            schema = _JSON_OBJECT
        case "json_schema":
            schema = _schema(wanted.get("json_schema"))
        case other:
            message = f"Invalid value: '{other}'. Supported values are: 'json_object', 'json_schema', and 'text'."
            raise ApiError(400, message, param="response_format.type", code="invalid_value")
    text = fitting_text(schema, dice, "response_format")
    return pieces(text[:-1] + ",") if chat.behaviour.badjson else pieces(text)


def _schema(given: object) -> Json:
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        message = "Missing required parameter: 'response_format.json_schema.name'."
        raise ApiError(400, message, param="response_format.json_schema.name", code="missing_required_parameter")
    schema = given.get("schema")
    return schema if isinstance(schema, dict) else _JSON_OBJECT


def _stopped(content: Pieces, stop: str | list[str] | None) -> Pieces:
    """The content up to the first stop sequence, which may begin in the middle of a token."""
    sequences = [stop] if isinstance(stop, str) else stop or []
    text = "".join(content)
    found = [at for sequence in sequences if sequence and (at := text.find(sequence)) >= 0]
    if not found:
        return content
    end = min(found)
    starts = accumulate(map(len, content), initial=0)
    return tuple(piece[: end - start] for piece, start in zip(content, starts, strict=False) if start < end)


def _limited(choice: Choice, limit: int) -> Choice:
    """The choice's first tokens; reasoning counts, as it does at OpenAI."""
    if choice.tokens <= limit:
        return choice
    left = max(0, limit - len(choice.reasoning))
    called = _limited_calls(choice.calls, left)
    content = choice.content[:left] if choice.content is not None else None
    if choice.calls and not called:
        content = ()
    refusal = choice.refusal[:left] if choice.refusal is not None else None
    return Choice(choice.index, choice.reasoning[:limit], content, refusal, called, "length")


def _limited_calls(called: tuple[Call, ...], left: int) -> tuple[Call, ...]:
    kept: list[Call] = []
    for call in called:
        if left > 0:
            kept.append(msgspec.structs.replace(call, pieces=call.pieces[: left - 1]))
        left -= 1 + len(call.pieces)
    return tuple(kept)
