"""What differs between the endpoints whose answers are recorded: how one is read, and how it takes its other form.

Rule: everything else (keys, flights, the store, money, limits) is the same for all of them, and asks here.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from proxy.core.assemble import assemble
from proxy.core.progress import ChatProgress, EmbeddingsProgress, Progress
from proxy.core.response_events import assembled, streamed
from proxy.core.responses import ResponseProgress, output_texts
from proxy.core.split import split
from proxy.core.sse import DONE, Event, encode
from proxy.core.texts import assemble_text, split_text
from proxy.errors import PenstockError

Endpoint = Literal["chat", "completions", "responses", "embeddings"]

_json = msgspec.json.Encoder()


class Dialect(msgspec.Struct, frozen=True):
    """`name`: as a label. `path`: relative to a provider's base URL. `limits`: members of a request that bound an
    answer's tokens. `several`: it may ask for several choices. `id_prefix`: of a fresh id; "": an id stays, as it names
    state at the provider. `asks_usage`: a stream says its usage only to who asks. `least_event`: bytes that an event
    may have, whatever the settings say: where its last one holds all of the answer again.

    `progress(choices)`: takes an answer's events; `joined`: a whole stream's events as one JSON body; `cut`: the object
    of such a body as a stream's blocks, with or without usage where that is asked for; `texts`: what an answer says,
    where JSON was asked for; `failure`: the last block of a stream that failed.
    """

    name: Endpoint
    path: str
    limits: tuple[str, ...]
    several: bool
    id_prefix: bytes
    asks_usage: bool
    least_event: int
    progress: Callable[[int], Progress]
    joined: Callable[[Sequence[Event]], bytes]
    cut: Callable[[dict[str, Any], bool], list[bytes]]
    texts: Callable[[Mapping[str, Any]], list[object]]
    failure: Callable[[PenstockError], bytes]


def chunks_of(events: Sequence[Event]) -> list[dict[str, Any]]:
    """The JSON objects of a whole stream, without `[DONE]`."""
    said = (event.data for event in events)
    return [msgspec.json.decode(data) for data in said if data is not None and data.strip() != b"[DONE]"]


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


def _failed_response(error: PenstockError) -> bytes:
    """As this API tells it, and as SDKs find it whatever the API."""
    told = msgspec.json.decode(error.body())["error"]
    said = {name: told.get(name) for name in ("code", "message", "param")} if isinstance(told, dict) else {}
    return b"event: error\n" + encode(_json.encode({"type": "error", **said, "error": told}))


def _never_streamed(*_: object) -> Any:
    raise AssertionError("embeddings have no stream")


CHAT: Final = Dialect(
    name="chat",
    path="chat/completions",
    limits=("max_tokens", "max_completion_tokens"),
    several=True,
    id_prefix=b"chatcmpl-",
    asks_usage=True,
    least_event=0,
    progress=ChatProgress,
    joined=lambda events: _json.encode(assemble(chunks_of(events))),
    cut=lambda completion, usage: _blocks(split(completion), usage),
    texts=_texts_of_chat,
    failure=_failure,
)

COMPLETIONS: Final = Dialect(
    name="completions",
    path="completions",
    limits=("max_tokens",),
    several=True,
    id_prefix=b"cmpl-",
    asks_usage=True,
    least_event=0,
    progress=ChatProgress,
    joined=lambda events: _json.encode(assemble_text(chunks_of(events))),
    cut=lambda completion, usage: _blocks(split_text(completion), usage),
    texts=lambda _: [],
    failure=_failure,
)

RESPONSES: Final = Dialect(
    name="responses",
    path="responses",
    limits=("max_output_tokens",),
    several=False,
    id_prefix=b"",
    asks_usage=False,
    least_event=32 << 20,
    progress=ResponseProgress,
    joined=assembled,
    cut=lambda response, _: streamed(response),
    texts=lambda response: list(output_texts(response)),
    failure=_failed_response,
)

EMBEDDINGS: Final = Dialect(
    name="embeddings",
    path="embeddings",
    limits=(),
    several=False,
    id_prefix=b"",
    asks_usage=False,
    least_event=0,
    progress=EmbeddingsProgress,
    joined=_never_streamed,
    cut=_never_streamed,
    texts=lambda _: [],
    failure=_failure,
)

BY_PATH: Final = {dialect.path: dialect for dialect in (CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS)}
BY_NAME: Final[Mapping[str, Dialect]] = {dialect.name: dialect for dialect in BY_PATH.values()}
