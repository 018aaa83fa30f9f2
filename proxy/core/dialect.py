"""What differs between the endpoints whose answers are recorded: how one is read, and how it takes its other form.

Rule: everything else (keys, flights, the store, money, limits) is the same for all of them, and asks here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from proxy.core.assemble import assemble
from proxy.core.progress import ChatProgress, Progress
from proxy.core.split import split
from proxy.core.sse import DONE, Event, encode
from proxy.errors import PenstockError

_json = msgspec.json.Encoder()


class Dialect(msgspec.Struct, frozen=True):
    """`name`: as a label. `path`: relative to a provider's base URL. `id_prefix`: of a fresh id; "": an id stays, as it
    names state at the provider. `asks_usage`: a stream says its usage only to who asks.

    `progress(choices)`: takes an answer's events; `joined`: a whole stream's events as one JSON body; `cut`: the object
    of such a body as a stream's blocks, with or without usage where that is asked for; `texts`: what an answer says,
    where JSON was asked for; `failure`: the last block of a stream that failed.
    """

    name: str
    path: str
    id_prefix: bytes
    asks_usage: bool
    progress: Callable[[int], Progress]
    joined: Callable[[Sequence[Event]], bytes]
    cut: Callable[[dict[str, Any], bool], list[bytes]]
    texts: Callable[[Mapping[str, Any]], list[object]]
    failure: Callable[[PenstockError], bytes]


def chunks_of(events: Sequence[Event]) -> list[dict[str, Any]]:
    """The JSON objects of a whole stream, without `[DONE]`."""
    said = (event.data for event in events)
    return [msgspec.json.decode(data) for data in said if data is not None and data.strip() != b"[DONE]"]


def _joined_chat(events: Sequence[Event]) -> bytes:
    return _json.encode(assemble(chunks_of(events)))


def _cut_chat(completion: dict[str, Any], usage: bool) -> list[bytes]:
    return _blocks(split(completion), usage)


def _blocks(chunks: list[dict[str, Any]], usage: bool) -> list[bytes]:
    if usage:
        chunks = [chunk if chunk.get("usage") else {**chunk, "usage": None} for chunk in chunks]
    else:
        chunks = [chunk for chunk in chunks if not chunk.pop("usage", None)]
    return [encode(_json.encode(chunk)) for chunk in chunks] + [DONE]


def _texts_of_chat(completion: Mapping[str, Any]) -> list[object]:
    messages = [choice.get("message") or {} for choice in completion.get("choices") or ()]
    return [message.get("content") for message in messages]


def _failure(error: PenstockError) -> bytes:
    return b"data: " + error.body() + b"\n\n"


CHAT: Final = Dialect(
    name="chat",
    path="chat/completions",
    id_prefix=b"chatcmpl-",
    asks_usage=True,
    progress=ChatProgress,
    joined=_joined_chat,
    cut=_cut_chat,
    texts=_texts_of_chat,
    failure=_failure,
)

BY_PATH: Final = {dialect.path: dialect for dialect in (CHAT,)}
