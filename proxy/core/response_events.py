"""The events of a stream in, its Response out, and the reverse.

Rule: `assembled(streamed(response))` is the Response again. A stream's last event holds the Response as it is, so
nothing can be lost; only where a provider leaves its output out, the items are those that came one by one.

The events before it tell the same, piece by piece, in OpenAI's order: texts, refusals, reasoning and the arguments of
calls in pieces, any other item (that of a hosted tool above all) whole.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from proxy.core.split import pieces, text_of
from proxy.core.sse import Event

# The events that end a stream, and what they say of the Response.
ENDS: Final = {
    "response.completed": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
}
# What of a Response that has only begun is null, and what of an item is empty.
_NOT_YET: Final = {"completed_at": None, "error": None, "incomplete_details": None}
_EMPTY_ITEM: Final[dict[str, Any]] = {"status": "in_progress", "content": [], "summary": [], "encrypted_content": None}
# The member of a part that comes in pieces, and the events that bring it.
_PARTS: Final = {
    "output_text": ("text", "response.output_text"),
    "refusal": ("refusal", "response.refusal"),
    "reasoning_text": ("text", "response.reasoning_text"),
    "summary_text": ("text", "response.reasoning_summary_text"),
}
_CALLS: Final = {
    "function_call": ("arguments", "response.function_call_arguments"),
    "custom_tool_call": ("input", "response.custom_tool_call_input"),
}
_Told = tuple[str, dict[str, Any]]  # an event's type, and its members less that and the number


class _Seen(msgspec.Struct, frozen=True):
    """What of an event is looked at once more; the rest is never decoded."""

    type: Any = None
    object: Any = None
    response: msgspec.Raw = msgspec.Raw(b"")
    item: msgspec.Raw = msgspec.Raw(b"")
    output_index: Any = None


_seen = msgspec.json.Decoder(_Seen)
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_json = msgspec.json.Encoder()


def is_response(event: Mapping[str, Any]) -> bool:
    """Is this no event but a Response itself? A few providers stream nothing but that."""
    return event.get("object") == "response"


def assembled(events: Sequence[Event]) -> bytes:
    """The Response of a whole stream, as JSON. ValueError if none came that says how it ended."""
    for event in reversed(events):
        seen = _look(event)
        kind = str(seen.type)
        if kind in ENDS and _is_object(seen.response):
            return _with_items(bytes(seen.response), events)
        if seen.object == "response" and not kind.startswith("response."):
            return _with_items(event.data or b"", events)
    raise ValueError("No event of this stream says how it ended.")


def _look(event: Event) -> _Seen:
    try:
        return _seen.decode(event.data or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Seen()  # `[DONE]`, or malformed


def _with_items(response: bytes, events: Sequence[Event]) -> bytes:
    """The Response as it came if it has an output, else with the items that came before it."""
    members = _members.decode(response)
    if bytes(members.get("output", b"")).strip(b"[] \t\r\n") not in (b"", b"null"):
        return response
    items: dict[int, msgspec.Raw] = {}
    for seen in map(_look, events):
        if seen.type == "response.output_item.done" and _is_object(seen.item):
            items[seen.output_index if type(seen.output_index) is int else len(items)] = seen.item
    if not items:
        return response
    members["output"] = msgspec.Raw(_json.encode([items[index] for index in sorted(items)]))
    return _json.encode(members)


def _is_object(value: msgspec.Raw) -> bool:
    return bytes(value)[:1] == b"{"


def streamed(response: Mapping[str, Any]) -> list[bytes]:
    """The events of a Response, each an SSE block of its own with its `event:` line, numbered from 0."""
    return [_block(number, kind, members) for number, (kind, members) in enumerate(_events(response))]


def _block(number: int, kind: str, members: dict[str, Any]) -> bytes:
    data = _json.encode({"type": kind, "sequence_number": number, **members})
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


def _events(response: Mapping[str, Any]) -> Iterator[_Told]:
    begun = {**response, **_of(response, _NOT_YET), "status": "in_progress", "output": [], "usage": None}
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    for index, item in enumerate(_listed(response.get("output"))):
        yield from _item(index, item)
    end = f"response.{response.get('status')}"
    yield end if end in ENDS else "response.incomplete", {"response": response}  # the others are anything but complete


def _item(index: int, item: Any) -> Iterator[_Told]:
    place = {"output_index": index}
    begun: Any = item
    between: Iterator[_Told] = iter(())
    if isinstance(item, dict):
        # Providers leave out a call's id; the event must have one.
        where = {"item_id": item["id"] if isinstance(item.get("id"), str) else "", **place}
        begun, between = _inside(where, item)
    yield "response.output_item.added", place | {"item": begun}
    yield from between
    yield "response.output_item.done", place | {"item": item}


def _inside(where: dict[str, Any], item: dict[str, Any]) -> tuple[dict[str, Any], Iterator[_Told]]:
    """An item as it is when it has only begun, and the events that fill it."""
    kind = str(item.get("type"))
    if kind in ("message", "reasoning"):
        return item | _of(item, _EMPTY_ITEM), _content(where, item)
    member, stem = _CALLS.get(kind, ("", ""))
    if isinstance(text := item.get(member), str):
        named = {"name": item["name"]} if kind == "function_call" and "name" in item else {}
        begun = item | _of(item, {"status": "in_progress"}) | {member: ""}
        return begun, _pieces(stem, where, text, {member: text, **named})
    return item, iter(())


def _content(where: dict[str, Any], item: dict[str, Any]) -> Iterator[_Told]:
    for index, part in enumerate(_listed(item.get("summary"))):
        yield from _part("response.reasoning_summary_part", where | {"summary_index": index}, part)
    for index, part in enumerate(_listed(item.get("content"))):
        yield from _part("response.content_part", where | {"content_index": index}, part)


def _part(events: str, where: dict[str, Any], part: Any) -> Iterator[_Told]:
    kind = str(part.get("type")) if isinstance(part, dict) else ""
    member, stem = _PARTS.get(kind, ("", ""))
    if not member or not isinstance(part.get(member), str):
        yield events + ".added", where | {"part": part}
    else:
        lists: dict[str, Any] = {name: [] for name in ("annotations", "logprobs") if isinstance(part.get(name), list)}
        yield events + ".added", where | {"part": part | lists | {member: ""}}
        text = part[member]
        yield from _text(where, part) if kind == "output_text" else _pieces(stem, where, text, {member: text})
    yield events + ".done", where | {"part": part}


def _pieces(stem: str, where: dict[str, Any], text: str, whole: dict[str, Any]) -> Iterator[_Told]:
    """A text in deltas, then what says it whole."""
    for piece in pieces(text):
        yield stem + ".delta", where | {"delta": piece}
    yield stem + ".done", where | whole


def _text(where: dict[str, Any], part: dict[str, Any]) -> Iterator[_Told]:
    """Cut by its tokens, with the logprobs beside them, where these make up the text."""
    text, tokens = part["text"], _listed(part.get("logprobs"))
    if text_of(tokens) == text:
        cut = [(token["token"], [token]) for token in tokens]
    else:
        cut = [(piece, []) for piece in pieces(text)]
    for piece, logprobs in cut:
        yield "response.output_text.delta", where | {"delta": piece, "logprobs": logprobs}
    for index, annotation in enumerate(_listed(part.get("annotations"))):
        added = {"annotation_index": index, "annotation": annotation}
        yield "response.output_text.annotation.added", where | added
    yield "response.output_text.done", where | {"text": text, "logprobs": tokens}


def _of(whole: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `values` that `whole` has a member for."""
    return {name: value for name, value in values.items() if whole.get(name) is not None}


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
