"""What one reader sees of an answer.

Rule: the recorded bytes, save for three things: the id (fresh for every reader but the first), the usage (gone without
a trace for a client that did not ask), and the form (a stream asked as JSON, or the reverse).
"""

from collections.abc import Sequence

import msgspec

from proxy.core.dialect import Dialect
from proxy.core.recording import Kind
from proxy.core.sse import PLAIN, Event, encode

# Stands in a template where the id goes. JSON text never holds a NUL, so it can't be mistaken for content.
ID_MARK = b"\x00"
MARKED_ID = b'"' + ID_MARK + b'"'

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_json = msgspec.json.Encoder()


def shown(event: Event, *, strip_usage: bool, new_id: bytes | None) -> bytes:
    """One event as a reader sees it; empty if it sees nothing of it.

    `new_id` is JSON text, or None to leave the id as it is. Bytes change only where they must.
    """
    if (not strip_usage and new_id is None) or (data := event.data) is None:
        return event.raw
    try:
        members = _members.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return event.raw  # `[DONE]`, or malformed: passed on as it came
    stripped = strip_usage and "usage" in members
    if stripped:
        usage = bytes(members.pop("usage"))
        if usage != b"null" and "error" not in members and _is_empty(members.get("choices")):
            return b""
    old_id = bytes(members.get("id", b""))
    if new_id is not None and len(old_id) > 2 and old_id[:1] == b'"':
        if not stripped and event.raw.count(old_id) == 1:
            return event.raw.replace(old_id, new_id)
        members["id"] = msgspec.Raw(new_id)
    elif not stripped:
        return event.raw
    prefix = b"event: " + event.name + b"\n" if event.name else b""
    return prefix + encode(_json.encode(members))


def _is_empty(choices: msgspec.Raw | None) -> bool:
    return choices is None or msgspec.json.decode(choices) in ([], None)


def as_stream(
    dialect: Dialect, kind: Kind, events: Sequence[Event], *, usage: bool, strip_usage: bool, new_id: bytes | None
) -> list[bytes]:
    """A finished answer as a stream's events.

    `usage`: did the reader ask for it; `strip_usage`: must what the recorded stream says of it go. One item for each
    recorded event (maybe empty), or, cut out of a JSON body, as many as there are.
    """
    if kind == "json":
        body = msgspec.json.decode(b"".join(event.raw for event in events))
        events, strip_usage = [Event(block, PLAIN, None) for block in dialect.cut(body, usage)], False
    return [shown(event, strip_usage=strip_usage, new_id=new_id) for event in events]


def as_json(dialect: Dialect, kind: Kind, events: Sequence[Event], *, new_id: bytes | None) -> bytes:
    """A finished answer as one JSON body."""
    body = dialect.joined(events) if kind == "stream" else b"".join(event.raw for event in events)
    if new_id is None:
        return body
    members = _members.decode(body)
    old_id = bytes(members.get("id", b""))
    if len(old_id) <= 2 or old_id[:1] != b'"':
        return body
    if body.count(old_id) == 1:
        return body.replace(old_id, new_id)
    members["id"] = msgspec.Raw(new_id)
    return _json.encode(members)


def template_of(
    dialect: Dialect, kind: Kind, events: Sequence[Event], *, stream: bool, usage: bool, usage_asked: bool
) -> list[bytes]:
    """A finished answer in either form, cut where the id goes: `id.join(template)` is what a reader receives.

    Of one piece where ids stay as they are.
    """
    mark = MARKED_ID if dialect.id_prefix else None
    if not stream:
        return as_json(dialect, kind, events, new_id=mark).split(ID_MARK)
    strip = usage_asked and not usage
    return b"".join(as_stream(dialect, kind, events, usage=usage, strip_usage=strip, new_id=mark)).split(ID_MARK)
