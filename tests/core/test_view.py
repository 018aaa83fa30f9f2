"""The recorded bytes, save for three things: the id, the usage, and the form."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.dialect import CHAT, chunks_of
from proxy.core.sse import DONE, Decoder, Event, encode
from proxy.core.view import as_json, as_stream, shown

OURS = b'"chatcmpl-ours"'
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello there"}, "finish_reason": "stop"}],
    "usage": USAGE,
}


def event(raw: bytes) -> Event:
    (found,) = Decoder().feed(raw)
    return found


def chunk(content: str | None = None, *, finish: str | None = None, **members: Any) -> dict[str, Any]:
    delta = {} if content is None else {"content": content}
    return {**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **members}


def sent(value: object) -> Event:
    """An event as providers write it: without spaces."""
    return event(encode(json.dumps(value, separators=(",", ":")).encode()))


def seen(raw: bytes, *, strip: bool = False, new_id: bytes | None = None) -> bytes:
    return shown(event(raw), strip_usage=strip, new_id=new_id)


def stripped(value: object) -> Any:
    """What a reader sees of this event who did not ask for usage; None if nothing."""
    raw = shown(sent(value), strip_usage=True, new_id=None)
    return json.loads(event(raw).data or b"") if raw else None


def stream(*, usage: bool) -> list[Event]:
    null: dict[str, Any] = {"usage": None} if usage else {}
    chunks = [chunk("Hel", **null), chunk("lo", **null), chunk(finish="stop", **null)]
    last = [{**HEAD, "choices": [], "usage": USAGE}] if usage else []
    return [*map(sent, [*chunks, *last]), event(DONE)]


ODD = [
    b'data:{"id" : "a" ,\t"choices":[ ]}\r\n\r\n',
    b'event: message\ndata: {"id":"a"}\n\n',
    b': word\nid: 7\ndata: {"id":"a",\ndata: "choices":[]}\n\n',
    b"data: [DONE]\n\n",
    b"data: {nonsense\n\n",
    b"data: [1]\n\n",
    b"data: \xff\n\n",
    b"event: ping\n\n",
    b"retry: 5\n\n",
]


@pytest.mark.parametrize("raw", ODD)
def test_the_first_reader_who_asked_for_usage_sees_the_bytes_as_they_came(raw: bytes) -> None:
    assert seen(raw) == raw


@pytest.mark.parametrize("raw", ODD)
def test_without_usage_in_it_nothing_of_an_event_is_stripped(raw: bytes) -> None:
    assert seen(raw, strip=True) == raw


@pytest.mark.parametrize("raw", ODD[3:])
def test_what_has_no_members_is_passed_on_as_it_came(raw: bytes) -> None:
    assert seen(raw, strip=True, new_id=OURS) == raw


@pytest.mark.parametrize("raw", ODD[:3])
def test_a_fresh_id_changes_nothing_but_the_id(raw: bytes) -> None:
    assert seen(raw, new_id=OURS) == raw.replace(b'"a"', OURS)
    assert seen(raw, strip=True, new_id=OURS) == raw.replace(b'"a"', OURS)


def test_an_id_that_stands_in_the_content_too_is_changed_only_where_it_is_the_id() -> None:
    said = chunk('the id is "chatcmpl-1"', echo="chatcmpl-1")
    raw = shown(sent(said), strip_usage=False, new_id=OURS)
    assert json.loads(event(raw).data or b"") == said | {"id": "chatcmpl-ours"}
    assert seen(b'data: {"id":"id"}\n\n', new_id=OURS) == b'data: {"id":"chatcmpl-ours"}\n\n'


def test_an_inner_id_stays() -> None:
    call = {"index": 0, "id": "call_1", "function": {"name": "f"}}
    said = {**HEAD, "choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}
    raw = shown(sent(said), strip_usage=False, new_id=OURS)
    assert json.loads(event(raw).data or b"") == said | {"id": "chatcmpl-ours"}


@pytest.mark.parametrize("old", [b'""', b"null", b"5", b'["a"]'])
def test_an_empty_id_and_one_that_is_no_text_are_kept(old: bytes) -> None:
    raw = b'data: {"id": ' + old + b', "choices": []}\n\n'
    assert seen(raw, new_id=OURS) == seen(raw, new_id=OURS, strip=True) == raw


def test_an_event_without_an_id_gets_none() -> None:
    assert seen(b'data: {"choices":[]}\n\n', new_id=OURS) == b'data: {"choices":[]}\n\n'


def test_the_name_of_an_event_that_is_written_anew_is_kept() -> None:
    raw = b'event: chunk\ndata: {"id":"a","usage":null}\n\n'
    assert seen(raw, strip=True) == b'event: chunk\ndata: {"id":"a"}\n\n'
    assert seen(raw, strip=True, new_id=OURS) == b'event: chunk\ndata: {"id":"chatcmpl-ours"}\n\n'


def test_data_of_several_lines_is_one_line_once_it_is_written_anew() -> None:
    raw = b'data: {"id":"a",\ndata: "usage":\ndata: null}\n\n'
    assert seen(raw, strip=True) == b'data: {"id":"a"}\n\n'


@pytest.mark.parametrize("members", [{"choices": []}, {}, {"choices": None}])
def test_the_event_that_says_the_usage_vanishes(members: dict[str, Any]) -> None:
    assert stripped({**HEAD, **members, "usage": USAGE}) is None


def test_a_usage_of_null_leaves_no_trace() -> None:
    assert stripped(chunk("hi", usage=None)) == chunk("hi")
    filters = {**HEAD, "choices": [], "prompt_filter_results": []}  # Azure's first event
    assert stripped({**filters, "usage": None}) == filters


def test_usage_on_an_event_with_choices_goes_alone() -> None:
    assert stripped(chunk("hi", finish="stop", usage=USAGE)) == chunk("hi", finish="stop")


def test_usage_written_with_spaces_goes_too() -> None:
    raw = b'data: {"id":"a" , "choices" : [ ] , "usage" :  { "total_tokens" : 3 } }\n\n'
    assert seen(raw, strip=True) == b""
    null = b'data: { "choices" : [ {} ] , "usage" :  null }\n\n'
    assert json.loads(event(seen(null, strip=True)).data or b"") == {"choices": [{}]}


def test_an_error_is_shown_even_where_it_says_usage() -> None:
    assert stripped({"error": {"message": "cut"}, "usage": USAGE}) == {"error": {"message": "cut"}}


def test_the_word_usage_in_the_content_is_content() -> None:
    said = chunk('"usage":null', logprobs={"usage": 1})
    assert stripped(said) == said
    assert shown(sent(said), strip_usage=True, new_id=None) == sent(said).raw


def test_what_is_kept_is_kept_to_the_byte() -> None:
    raw = rb'data: {"id":"a","big":1e400,"dup":{"x":1,"x":2},"text":"\u00e9\ud83c\udf0d","usage":null}' + b"\n\n"
    assert seen(raw, strip=True) == raw.replace(b',"usage":null', b"")


def test_a_recorded_stream_is_replayed_event_by_event() -> None:
    events = stream(usage=True)
    frames = as_stream(CHAT, "stream", events, usage=True, strip_usage=False, new_id=OURS)
    assert frames == [one.raw.replace(b'"chatcmpl-1"', OURS) for one in events]
    bare = as_stream(CHAT, "stream", events, usage=False, strip_usage=True, new_id=OURS)
    assert len(bare) == len(events)
    plain = [one.raw.replace(b'"chatcmpl-1"', OURS) for one in stream(usage=False)]
    assert bare == [*plain[:-1], b"", plain[-1]]
    assert as_stream(CHAT, "stream", stream(usage=False), usage=False, strip_usage=True, new_id=OURS) == plain


def body(completion: dict[str, Any]) -> list[Event]:
    """A completion as it is recorded: in pieces that are no events."""
    raw = json.dumps(completion).encode()
    return [Event(raw[:20], None, None), Event(raw[20:], None, None)]


def test_a_completion_is_cut_into_chunks_with_usage_at_the_end_for_who_asked() -> None:
    *frames, done = as_stream(CHAT, "json", body(COMPLETION), usage=True, strip_usage=False, new_id=OURS)
    chunks = [json.loads(event(frame).data or b"") for frame in frames]
    assert done == DONE
    assert {one["id"] for one in chunks} == {"chatcmpl-ours"}
    assert {one["object"] for one in chunks} == {"chat.completion.chunk"}
    assert [one["usage"] for one in chunks] == [None] * (len(chunks) - 1) + [USAGE]
    assert chunks[-1]["choices"] == []
    assert "".join(part["delta"].get("content") or "" for one in chunks for part in one["choices"]) == "Hello there"


def test_who_did_not_ask_sees_no_trace_of_a_completions_usage() -> None:
    frames = as_stream(CHAT, "json", body(COMPLETION), usage=False, strip_usage=False, new_id=OURS)
    assert b"usage" not in b"".join(frames)
    assert all(json.loads(event(frame).data or b"")["choices"] for frame in frames[:-1])
    without = {name: value for name, value in COMPLETION.items() if name != "usage"}
    assert as_stream(CHAT, "json", body(without), usage=False, strip_usage=False, new_id=OURS) == frames


def test_a_completion_without_usage_has_none_to_show() -> None:
    without = {name: value for name, value in COMPLETION.items() if name != "usage"}
    *frames, _ = as_stream(CHAT, "json", body(without), usage=True, strip_usage=False, new_id=OURS)
    assert [json.loads(event(frame).data or b"")["usage"] for frame in frames] == [None] * len(frames)


def test_a_stream_as_json_is_the_completion_that_it_adds_up_to() -> None:
    found = json.loads(as_json(CHAT, "stream", stream(usage=True), new_id=OURS))
    message = {"role": "assistant", "content": "Hello"}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    assert found == COMPLETION | {"id": "chatcmpl-ours", "choices": choices}
    assert json.loads(as_json(CHAT, "stream", stream(usage=True), new_id=None))["id"] == "chatcmpl-1"
    assert len(chunks_of(stream(usage=True))) == 4


def test_a_completion_as_json_is_the_recorded_bytes_with_a_fresh_id() -> None:
    raw = json.dumps(COMPLETION, indent=1).encode()
    pieces = [Event(raw[:9], None, None), Event(raw[9:], None, None)]
    assert as_json(CHAT, "json", pieces, new_id=None) == raw
    assert as_json(CHAT, "json", pieces, new_id=OURS) == raw.replace(b'"chatcmpl-1"', OURS)


def test_a_completion_whose_content_is_its_id_keeps_its_content() -> None:
    message = {"role": "assistant", "content": "chatcmpl-1"}
    said = COMPLETION | {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    assert json.loads(as_json(CHAT, "json", body(said), new_id=OURS)) == said | {"id": "chatcmpl-ours"}


@pytest.mark.parametrize("completion", [{"choices": []}, {"id": "", "choices": []}, {"id": None, "choices": []}])
def test_a_completion_without_an_id_is_given_as_it_is(completion: dict[str, Any]) -> None:
    assert as_json(CHAT, "json", body(completion), new_id=OURS) == json.dumps(completion).encode()
    frames = as_stream(
        CHAT,
        "json",
        body(completion | {"x": 1, "choices": COMPLETION["choices"]}),
        usage=False,
        strip_usage=False,
        new_id=OURS,
    )
    assert b"chatcmpl" not in b"".join(frames)


leaves = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["chatcmpl-1", "usage", "id"])
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
members = st.dictionaries(st.sampled_from(["id", "usage", "choices", "model", "x", "chatcmpl-1"]), values, max_size=5)


@settings(deadline=None)
@given(members, st.booleans(), st.booleans())
def test_nothing_but_id_and_usage_ever_changes(said: dict[str, Any], strip: bool, renewed: bool) -> None:
    raw = shown(sent(said), strip_usage=strip, new_id=OURS if renewed else None)
    expected = {name: value for name, value in said.items() if not (strip and name == "usage")}
    if renewed and isinstance(said.get("id"), str) and said["id"]:
        expected["id"] = "chatcmpl-ours"
    if raw:
        assert json.loads(event(raw).data or b"") == expected
    else:
        assert strip
        assert said["usage"] is not None
        assert not said.get("choices")
