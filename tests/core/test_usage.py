"""Whatever came, the words of it are returned and nothing is raised."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.recording import Head, Recording
from proxy.core.sse import DONE, Decoder, Event, encode
from proxy.core.usage import said

JSON = Head(200, "json", b"application/json")
STREAM = Head(200, "stream", b"text/event-stream")


def streamed(*chunks: object) -> Recording:
    recording = Recording(1 << 20)
    recording.head = STREAM
    raw = b"".join(encode(json.dumps(chunk).encode()) for chunk in chunks) + DONE
    for event in Decoder().feed(raw):
        recording.append(event, 0.0)
    return recording


def completed(body: object, cut: int = 10) -> Recording:
    recording = Recording(1 << 20)
    recording.head = JSON
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    for piece in (raw[:cut], raw[cut:]):
        recording.append(Event(piece, None, None), 0.0)
    return recording


def delta(index: int = 0, **members: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": members}]}


def message(**members: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": members}]}


def call(**function: str) -> dict[str, Any]:
    return {"index": 0, "id": "call_1", "type": "function", "function": function}


def test_the_words_of_a_stream_are_those_of_all_its_chunks() -> None:
    assert said(streamed(delta(role="assistant", content=""), delta(content="Hel"), delta(content="lo"))) == "Hello"


def test_all_choices_count() -> None:
    assert said(streamed(delta(content="a"), delta(1, content="b"), delta(content="c"))) == "abc"


@pytest.mark.parametrize("make", [lambda **members: streamed(delta(**members)), lambda **m: completed(message(**m))])
@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"content": "Hello"}, "Hello"),
        ({"refusal": "No."}, "No."),
        ({"reasoning_content": "Let me think."}, "Let me think."),
        ({"reasoning": "Let me think.", "content": "Hello"}, "Let me think.Hello"),
        ({"tool_calls": [call(name="f", arguments="{}"), call(name="g", arguments="[1]")]}, "f{}g[1]"),
        ({"function_call": {"name": "f", "arguments": "{}"}}, "f{}"),
        ({"content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]}, "Hello"),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]}, "Hm"),
        ({"role": "assistant", "id": "x", "content": None, "audio": {"data": "UklGRg=="}}, ""),
        ({"reasoning": "Hm", "reasoning_details": [{"type": "reasoning.text", "text": "Hm"}]}, "Hm"),
    ],
)
def test_texts_refusals_reasoning_and_calls_are_words(make: Any, members: dict[str, Any], words: str) -> None:
    assert said(make(**members)) == words


def test_the_words_of_text_completions_are_their_texts() -> None:
    choices = [{"index": 0, "text": "Hel", "logprobs": None}, {"index": 1, "text": "x"}]
    assert said(streamed({"choices": choices}, {"choices": [{"index": 0, "text": "lo"}]})) == "Helxlo"
    assert said(completed({"object": "text_completion", "choices": choices})) == "Helx"


CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "{}"}
OUTPUT: list[dict[str, Any]] = [
    {
        "type": "reasoning",
        "id": "rs_1",
        "encrypted_content": "gAAA",
        "summary": [{"type": "summary_text", "text": "Hm."}],
    },
    CALL,
    {"type": "custom_tool_call", "call_id": "call_2", "name": "sh", "input": "ls"},
    {
        "type": "message",
        "content": [
            {
                "type": "output_text",
                "text": "Hello",
                "annotations": [{"type": "url_citation", "title": "x", "text": "y"}],
                "logprobs": [{"token": "Hello", "text": "z"}],
            },
            {"type": "refusal", "refusal": "No."},
        ],
    },
]


def test_the_words_of_a_response_are_those_of_its_items() -> None:
    body = {"object": "response", "instructions": "Be brief.", "text": {"format": {"name": "n"}}, "output": OUTPUT}
    assert said(completed(body)) == "Hm.f{}shlsHelloNo."


def test_of_a_responses_stream_each_word_counts_once() -> None:
    def event(kind: str, at: int, **members: Any) -> dict[str, Any]:
        return {"type": f"response.{kind}", "output_index": at} | members

    stream = [
        {"type": "response.created", "response": {"output": [], "instructions": "Be brief."}},
        event("output_item.added", 0, item=CALL | {"arguments": ""}),
        event("function_call_arguments.delta", 0, delta='{"a"'),
        event("function_call_arguments.delta", 0, delta=":1}"),
        event("function_call_arguments.done", 0, arguments='{"a":1}'),
        event("output_item.done", 0, item=CALL | {"arguments": '{"a":1}'}),
        event("output_text.delta", 1, delta="Hello"),
        event("output_text.done", 1, text="Hello"),
        event("content_part.done", 1, part={"type": "output_text", "text": "Hello"}),
        event("output_item.done", 1, item={"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}),
        {"type": "response.completed", "response": {"output": OUTPUT}},
    ]
    assert said(streamed(*stream)) == '{"a":1}fHello'
    assert said(streamed(*stream[:3])) == '{"a"'


def test_an_item_that_came_whole_counts_once_it_is_done() -> None:
    stream = [
        {"type": "response.output_item.added", "output_index": 0, "item": CALL},
        {"type": "response.output_item.done", "output_index": 0, "item": CALL},
        {"type": "response.output_item.done", "output_index": [], "item": CALL},
    ]
    assert said(streamed(*stream)) == "f{}f{}"


def test_sound_is_no_word() -> None:
    sound = {"type": "response.audio.delta", "delta": "UklGRg=="}
    words = {"type": "response.audio.transcript.delta", "delta": "Hello"}
    assert said(streamed(sound, words, {"type": "response.x.delta", "delta": {"stdout": "x"}})) == "Hello"


def test_of_a_completion_that_was_cut_nothing_can_be_read() -> None:
    assert said(completed(b'{"choices":[{"message":{"content":"Hel')) == ""


@pytest.mark.parametrize(
    "chunk",
    [
        {},
        {"choices": None},
        {"choices": {}},
        {"choices": "text"},
        {"choices": [None, 5, "x", [], {}]},
        {"choices": [{"delta": "text"}]},
        {"choices": [{"delta": None, "message": []}]},
        delta(content=5, tool_calls={"function": 5}, refusal=[["x"], 5]),
        {"error": {"message": "overloaded"}},
        {"choices": [{"text": 5}, {"text": None}]},
        {"output": [None, 5, "x", [], {}, {"content": 5}]},
        {"output": "text"},
        {"type": ["response.output_text.delta"], "delta": "x"},
        {"type": "response.output_text.delta", "delta": ["x"]},
        {"type": "response.output_item.done", "item": "x"},
    ],
)
def test_what_has_no_shape_has_no_words(chunk: object) -> None:
    assert said(streamed(chunk)) == said(completed(chunk)) == ""


@pytest.mark.parametrize(
    "raw", [b"", b"\xff", b"null", b"[1]", b"{", b"[" * 100_000, b'{"choices":' * 50_000, b'{"a":"\\ud800"}']
)
def test_what_is_no_json_has_no_words(raw: bytes) -> None:
    assert said(completed(raw)) == ""
    recording = Recording(1)
    recording.append(Event(raw, raw, None), 0.0)  # nor has it where not even a head came
    assert said(recording) == ""


def test_what_nests_without_end_ends() -> None:
    nested: Any = {"content": "deep"}
    for _ in range(200):
        nested = {"tool_calls": [nested]}
    assert said(streamed(delta(**nested))) == ""


names = st.sampled_from(
    ["choices", "delta", "message", "content", "tool_calls", "text", "output", "type", "item", "output_index"]
)
values = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner),
)


@settings(deadline=None)
@given(st.lists(values, max_size=4), st.integers(0, 9))
def test_any_json_is_read_without_an_error(chunks: list[Any], cut: int) -> None:
    assert isinstance(said(streamed(*chunks)), str)
    assert all(isinstance(said(completed(chunk, cut)), str) for chunk in chunks)


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=10), max_size=6))
def test_no_word_of_a_stream_is_lost(words: list[str]) -> None:
    assert said(streamed(*(delta(content=word) for word in words))) == "".join(words)
