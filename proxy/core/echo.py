"""What a Response repeats of its request, where requests share an answer that differ in it.

Rule: whoever is given an answer again finds in it what its own request said, not another's. Bytes change only where
they must.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from proxy.core.recording import Kind
from proxy.core.sse import Event, encode

Echo = Mapping[str, bytes]
"""Values as JSON, by the name of their member."""

# The members that say nothing of the answer, and what a Response has in place of each that was not said.
ECHOED: Final = {"metadata": b"{}", "user": b"null", "safety_identifier": b"null", "prompt_cache_key": b"null"}

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_json = msgspec.json.Encoder(order="deterministic")


def echo_of(body: Mapping[str, Any], ignore: Collection[str]) -> Echo:
    """What a Response to this request repeats of those members that make no difference to its key."""
    return {
        name: unsaid if body.get(name) is None else _json.encode(body[name])
        for name, unsaid in ECHOED.items()
        if name in ignore
    }


def echoing(response: bytes, echo: Echo) -> bytes:
    """A Response with these values in place of those that it has."""
    try:
        members = _members.decode(response)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return response
    changed = {name: msgspec.Raw(said) for name, said in echo.items() if name in members}
    if all(_same(bytes(members[name]), bytes(said)) for name, said in changed.items()):
        return response
    return msgspec.json.encode(members | changed)


def echoing_event(event: Event, echo: Echo) -> Event:
    """An event of a stream, in which a Response may stand."""
    data = event.data
    if data is None or b'"response"' not in data:
        return event
    try:
        members = _members.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return event
    before = bytes(members.get("response", b""))
    after = echoing(before, echo)
    if after is before:
        return event
    said = msgspec.json.encode(members | {"response": msgspec.Raw(after)})
    prefix = b"event: " + event.name + b"\n" if event.name else b""
    return Event(prefix + encode(said), said, event.name)


def echoing_all(kind: Kind, events: Sequence[Event], echo: Echo | None) -> Sequence[Event]:
    """A whole answer, streamed or in one body."""
    if not echo:
        return events
    if kind == "stream":
        return [echoing_event(event, echo) for event in events]
    return [Event(echoing(b"".join(event.raw for event in events), echo), None, None)]


def _same(one: bytes, other: bytes) -> bool:
    return one == other or _json.encode(msgspec.json.decode(one)) == other
