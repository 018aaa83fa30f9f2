"""Only what is whole, and what an application could use again, is worth keeping."""

import json
from typing import Any

import pytest

from proxy.core.call import Call, read_call
from proxy.core.keep import flaw
from proxy.core.progress import ChatProgress
from proxy.core.recording import Broken, Clean, Ending, Head, Kind, Recording
from proxy.core.sse import DONE, Decoder, Event, encode
from proxy.errors import UpstreamTruncated

JSON_MODES = [{"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}]


def asked(**members: Any) -> Call:
    body = {"model": "m", "messages": []} | members
    return read_call("chat/completions", query=b"", raw=json.dumps(body).encode(), headers={}, forward=())


def completion(content: object = "hi", *, finish: str = "stop", **message: Any) -> dict[str, Any]:
    said = {"role": "assistant", "content": content, **message}
    return {"id": "c", "object": "chat.completion", "choices": [{"index": 0, "message": said, "finish_reason": finish}]}


def recorded(pieces: list[bytes], *, kind: Kind, status: int = 200, end: Ending | None = None) -> Recording:
    recording = Recording(max_entry=1000)
    recording.head = Head(status, kind, b"")
    events = Decoder().feed(b"".join(pieces)) if kind == "stream" else [Event(piece, None, None) for piece in pieces]
    for event in events:
        recording.append(event, 0.0)
    recording.end = end or Clean()
    return recording


def progress_of(recording: Recording) -> ChatProgress:
    progress = ChatProgress(1)
    if recording.head is not None and recording.head.kind == "json":
        progress.take(b"".join(event.raw for event in recording.events))
    else:
        for event in recording.events:
            if event.data is not None and not event.is_done:
                progress.take(event.data)
    return progress


def verdict(recording: Recording, **members: Any) -> str | None:
    return flaw(recording, progress_of(recording), asked(**members))


def whole(value: dict[str, Any], **members: Any) -> str | None:
    """The verdict on a JSON answer."""
    return verdict(recorded([json.dumps(value).encode()], kind="json"), **members)


def stream(*deltas: dict[str, Any]) -> Recording:
    chunks = [{"id": "c", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    end = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return recorded([*(encode(json.dumps(one).encode()) for one in [*chunks, end]), DONE], kind="stream")


def test_a_whole_answer_is_kept_in_either_form() -> None:
    assert whole(completion()) is None
    assert verdict(stream({"content": "h"}, {"content": "i"})) is None


def test_only_what_ended_cleanly_with_status_200_is_kept() -> None:
    raw = [json.dumps(completion()).encode()]
    assert verdict(recorded(raw, kind="json", end=Broken(UpstreamTruncated("cut")))) == "failed"
    assert [verdict(recorded(raw, kind="json", status=status)) for status in (201, 206, 400, 500)] == ["failed"] * 4
    unfinished = recorded(raw, kind="json")
    unfinished.end = None
    headless = recorded(raw, kind="json")
    headless.head = None
    assert flaw(unfinished, progress_of(unfinished), asked()) == "failed"
    assert flaw(headless, ChatProgress(1), asked()) == "failed"


def test_what_is_over_max_entry_is_not_kept() -> None:
    assert whole(completion("x" * 2000)) == "too-large"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"error": {"message": "no"}}, "error"),
        ({"detail": "no"}, "unfinished"),
        (completion(""), "empty"),
        (completion(None, reasoning_content="hm"), "empty"),
        (completion(finish="content_filter"), "filtered"),
        ({"choices": [None]}, "malformed"),
        ({"choices": [{"index": 0, "message": "hi", "finish_reason": "stop"}]}, "malformed"),
    ],
)
def test_what_the_progress_says_against_it_stands(value: dict[str, Any], reason: str) -> None:
    assert whole(value) == reason
    assert whole(value, response_format={"type": "json_object"}) == reason


@pytest.mark.parametrize("response_format", JSON_MODES)
@pytest.mark.parametrize(
    "content", ["not JSON", '{"a": 1', '{"a":1} and so on', "```json\n{}\n```", "[" * 100_000, [1]]
)
def test_where_json_was_asked_for_what_is_none_is_not_kept(response_format: dict[str, Any], content: object) -> None:
    recording = recorded([json.dumps(completion(content)).encode()], kind="json")
    recording.max_entry = 1 << 20
    assert verdict(recording, response_format=response_format) == "invalid-json"
    assert verdict(recording) is None


@pytest.mark.parametrize("response_format", JSON_MODES)
@pytest.mark.parametrize(
    "value",
    [
        completion(' {"a": [1, 2]}\n'),
        completion(None, refusal="I can't."),
        completion(None, tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]),
        completion("", refusal="I can't."),
    ],
)
def test_json_a_refusal_and_a_tool_call_are_kept(response_format: dict[str, Any], value: dict[str, Any]) -> None:
    assert whole(value, response_format=response_format) is None


@pytest.mark.parametrize("response_format", [None, {"type": "text"}, "json_object", [], {"type": ["json_object"]}, {}])
def test_text_is_kept_where_no_json_was_asked_for(response_format: object) -> None:
    assert whole(completion("not JSON"), response_format=response_format) is None


def test_json_in_pieces_is_judged_by_what_it_adds_up_to() -> None:
    asks = {"response_format": {"type": "json_object"}}
    assert verdict(stream({"content": '{"a"'}, {"content": ":1}"}), **asks) is None
    assert verdict(stream({"content": '{"a"'}, {"content": ":1"}), **asks) == "invalid-json"


def test_one_choice_of_invalid_json_spoils_all() -> None:
    good = completion("{}")["choices"][0]
    bad = completion("{")["choices"][0] | {"index": 1}
    recording = recorded([json.dumps({"choices": [good, bad]}).encode()], kind="json")
    assert verdict(recording, response_format={"type": "json_object"}) == "invalid-json"


# Other endpoints than chat.


def to(path: str, **members: Any) -> Call:
    return read_call(path, json.dumps({"model": "m"} | members).encode(), {})


def judged(call: Call, *pieces: bytes, kind: Kind = "json") -> str | None:
    recording, progress = recorded(list(pieces), kind=kind), call.dialect.progress(1)
    for event in recording.events:
        if not event.is_done:
            progress.take(event.raw if event.data is None else event.data)
    return flaw(recording, progress, call)


def response_of(text: str) -> dict[str, Any]:
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    return {"id": "resp_1", "object": "response", "status": "completed", "output": [said], "usage": {}}


SHAPES: list[dict[str, Any]] = [
    {"type": "json_object"},
    {"type": "json_schema", "name": "x", "schema": {"type": "object"}},
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("streamed", [True, False])
def test_a_response_that_was_to_be_json_is_kept_only_if_it_is(shape: dict[str, Any], streamed: bool) -> None:
    for text, reason in (('{"a": 1}', None), ('{"a": 1', "invalid-json")):
        said = response_of(text)
        raw = json.dumps({"type": "response.completed", "response": said} if streamed else said).encode()
        pieces, kind = ([encode(raw)], "stream") if streamed else ([raw], "json")
        assert judged(to("responses", text={"format": shape}), *pieces, kind=kind) == reason  # type: ignore[arg-type]
        assert judged(to("responses"), *pieces, kind=kind) is None  # type: ignore[arg-type]


def test_a_text_completion_is_asked_for_no_json() -> None:
    raw = json.dumps({"id": "c", "choices": [{"index": 0, "text": "no JSON", "finish_reason": "stop"}]}).encode()
    assert judged(to("completions", prompt="a", response_format={"type": "json_object"}), raw) is None


def test_a_list_of_embeddings_is_kept_for_what_it_is() -> None:
    call = to("embeddings", input="a", response_format={"type": "json_object"})
    assert judged(call, b'{"data": [{"index": 0, "embedding": [1]}]}') is None
    assert judged(call, b'{"data": [{"index": 0, "emb') == "malformed"
    assert judged(call, b'{"object": "list"}') == "unfinished"
