"""How the streams of an endpoint spell what a fault adds: text that was not to be said, and an error's event."""

from collections.abc import Callable, Sequence

import msgspec

from proxy.simulator.errors import ApiError

_encode = msgspec.json.encode


class Manner(msgspec.Struct, frozen=True):
    """`more(events, text)`: an event of the stream that begins with these events, saying `text` (which needs no
    escapes). `error(number, error)`: the event that says so, after so many others.
    """

    more: Callable[[Sequence[bytes], bytes], bytes]
    error: Callable[[int, ApiError], bytes]


def _chat_text(events: Sequence[bytes], text: bytes) -> bytes:
    chunk = msgspec.json.decode(events[0].removeprefix(b"data: "))
    chunk["choices"][0]["delta"] = {"content": text.decode()}
    return b"data: " + _encode(chunk) + b"\n\n"


def _plain_text(events: Sequence[bytes], text: bytes) -> bytes:
    chunk = msgspec.json.decode(events[0].removeprefix(b"data: "))
    chunk["choices"][0] |= {"text": text.decode(), "logprobs": None, "finish_reason": None}
    return b"data: " + _encode(chunk) + b"\n\n"


def _typed_text(events: Sequence[bytes], text: bytes) -> bytes:
    """As the last delta among the events; a stream without any says it of an item that it never began."""
    deltas = [event for event in events if b'.delta"' in event]
    delta = msgspec.json.decode(deltas[-1].partition(b"\ndata: ")[2]) if deltas else _NOTHING_BEGUN
    delta = {**delta, "sequence_number": len(events), "delta": text.decode()}
    return typed(delta)


_NOTHING_BEGUN = {
    "type": "response.output_text.delta",
    "item_id": "msg_0",
    "output_index": 0,
    "content_index": 0,
    "logprobs": [],
}


def _error(_: int, error: ApiError) -> bytes:
    return b"data: " + error.body() + b"\n\n"


def _typed_error(number: int, error: ApiError) -> bytes:
    said = {"code": error.code, "message": error.message, "param": error.param}
    return typed({"type": "error", "sequence_number": number, **said})


def typed(event: dict[str, object]) -> bytes:
    """An event of a kind that is named beside it as well as in it."""
    return b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), _encode(event))


CHAT = Manner(_chat_text, _error)
TEXT = Manner(_plain_text, _error)
TYPED = Manner(_typed_text, _typed_error)
