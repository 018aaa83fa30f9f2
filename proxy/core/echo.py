"""What a Response repeats of its request, where requests share an answer that differ in it.

Rule: whoever is given an answer again finds in it what its own request said, not another's. Bytes change only where
they must.
"""

from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from proxy.core.sse import Event, encode, events_of

Echo = Mapping[str, bytes]
"""Values as JSON, by the name of their member."""

# The members that say nothing of the answer, and what a Response has in place of each that was not said; None: who
# knows, so that it stays.
ECHOED: Final[Mapping[str, bytes | None]] = {
    "metadata": b"{}",
    "user": b"null",
    "safety_identifier": b"null",
    "prompt_cache_key": b"null",
    "prompt_cache_retention": None,
}
NOTHING: Final = (b"null", b"{}")  # providers differ in how they say it

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_json = msgspec.json.Encoder(order="deterministic")


def echo_of(body: Mapping[str, Any], ignore: Collection[str]) -> Echo:
    """What a Response to this request repeats of those members that make no difference to its key."""
    said = {
        name: unsaid if body.get(name) is None else _json.encode(body[name])
        for name, unsaid in ECHOED.items()
        if name in ignore
    }
    return {name: value for name, value in said.items() if value is not None}


def echoing(response: bytes, echo: Echo) -> bytes:
    """A Response with these values in place of those that it has."""
    try:
        members = _members.decode(response)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return response
    found = [(name, said) for name, said in echo.items() if name in members]
    changed = {name: msgspec.Raw(said) for name, said in found if not _same(bytes(members[name]), said)}
    return msgspec.json.encode(members | changed) if changed else response


def echoing_body(body: bytes, echo: Echo, *, stream: bool) -> bytes:
    """A whole answer, as a stream or in one body."""
    if not stream:
        return echoing(body, echo)
    if b"\r" in body:  # lines that end otherwise than nearly all do
        return b"".join(echoing_event(event, echo).raw for event in events_of(body))
    parts, at = [], 0
    while (found := body.find(b'"response"', at)) >= 0:  # in a text it would be \"response\"
        start, end = body.rfind(b"\n\n", at, found), body.find(b"\n\n", found)
        start, end = at if start < 0 else start + 2, len(body) if end < 0 else end + 2
        parts += [body[at:start], *(echoing_event(event, echo).raw for event in events_of(body[start:end]))]
        at = end
    return b"".join([*parts, body[at:]]) if parts else body


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


def _same(told: bytes, said: bytes) -> bool:
    if said in NOTHING:
        return told in NOTHING
    return told == said or _json.encode(msgspec.json.decode(told)) == said
