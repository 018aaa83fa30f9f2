"""What is cut out of a completion adds up to it again, and looks as OpenAI would have streamed it."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.assemble import assemble
from proxy.core.split import split

Json = dict[str, Any]

text = st.text(st.sampled_from("ha aé🌍 \n\u200d世界"), max_size=40) | st.text(max_size=12)
names = st.sampled_from(["id", "type", "text", "name", "index", "input", "data", "role", "x", "y", "content"]) | text
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
# Names that a provider may invent, at any level.
unknown = st.dictionaries(st.sampled_from(["x_extra", "citations", "stop_reason", "provider", "matched_stop"]), values)


def _with_unknown(known: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    return st.tuples(unknown, known).map(lambda pair: pair[0] | pair[1])


functions = _with_unknown(st.fixed_dictionaries({}, optional={"name": text, "arguments": text | st.none()}))
customs = _with_unknown(st.fixed_dictionaries({"name": text}, optional={"input": text}))
calls = _with_unknown(
    st.fixed_dictionaries(
        {"id": st.sampled_from(["call_a", "call_b", ""]) | st.none()},
        optional={"type": text, "function": functions | st.none(), "custom": customs},
    )
)
items = st.dictionaries(names, values, max_size=4)
messages = _with_unknown(
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": st.none() | st.just("") | text},
        optional={
            "refusal": st.none() | text,
            "reasoning_content": st.none() | text,
            "reasoning": st.none() | text,
            "reasoning_details": st.lists(items, max_size=3),
            "tool_calls": st.none() | st.lists(calls, max_size=3),
            "function_call": st.none() | functions,
            "audio": st.none() | items,
            "annotations": st.none() | st.lists(items, max_size=3),
        },
    )
)
tokens = st.lists(st.tuples(text, items).map(lambda pair: pair[1] | {"token": pair[0]}), max_size=4)


@st.composite
def choices(draw: st.DrawFn, index: int) -> Json:
    message = draw(messages)
    choice: Json = draw(unknown) | {"index": index, "message": message}
    choice["finish_reason"] = draw(st.none() | st.sampled_from(["stop", "length", "tool_calls"]))
    if draw(st.booleans()):
        choice["logprobs"] = draw(st.none() | unknown)
        for name in ("content", "refusal"):
            if choice["logprobs"] is not None and draw(st.booleans()):
                listed = draw(st.none() | tokens)
                choice["logprobs"][name] = listed
                if listed and draw(st.booleans()):  # as in truth: the tokens make up the text
                    message[name] = "".join(token["token"] for token in listed)
    return choice


@st.composite
def completions(draw: st.DrawFn) -> Json:
    known: Json = {"id": draw(text), "object": "chat.completion", "created": draw(st.integers(0)), "model": draw(text)}
    for name in ("system_fingerprint", "service_tier"):
        if draw(st.booleans()):
            known[name] = draw(st.none() | text)
    if draw(st.booleans()):
        known["usage"] = draw(items)
    count = draw(st.integers(0, 3))
    return draw(unknown) | known | {"choices": [draw(choices(index)) for index in range(count)]}


def completion(message: Json, **of_choice: Any) -> Json:
    choice = {"index": 0, "message": {"role": "assistant", "content": None} | message, "finish_reason": "stop"}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice | of_choice],
    }


def deltas(chunks: list[Json]) -> list[Json]:
    return [choice["delta"] for chunk in chunks for choice in chunk["choices"]]


@settings(deadline=None, max_examples=300)
@given(whole=completions())
def test_the_chunks_of_a_completion_add_up_to_it(whole: Json) -> None:
    before = copy.deepcopy(whole)
    chunks = split(whole)
    between = copy.deepcopy(chunks)
    assert assemble(chunks) == before
    assert whole == before
    assert chunks == between


@settings(deadline=None, max_examples=50)
@given(whole=completions())
def test_every_chunk_is_one_and_says_whose_it_is(whole: Json) -> None:
    chunks = split(whole)
    for chunk in chunks:
        assert chunk["object"] == "chat.completion.chunk"
        for name in ("id", "created", "model", "system_fingerprint", "service_tier"):
            assert (name in chunk, chunk.get(name)) == (name in whole, whole.get(name))
    own = {"id", "object", "created", "model", "system_fingerprint", "service_tier", "choices", "usage"}
    assert [set(chunk) - own for chunk in chunks] == [set(whole) - own] + [set()] * (len(chunks) - 1)


@settings(deadline=None, max_examples=50)
@given(whole=completions())
def test_each_choice_ends_once_in_its_last_chunk(whole: Json) -> None:
    for choice in whole["choices"]:
        parts = [part for chunk in split(whole) for part in chunk["choices"] if part["index"] == choice["index"]]
        assert [part["finish_reason"] for part in parts] == [None] * (len(parts) - 1) + [choice["finish_reason"]]
        assert parts[-1]["delta"] == {}


def test_a_text_comes_a_word_at_a_time_after_the_role() -> None:
    assert deltas(split(completion({"content": "Hello  there,\nworld ", "refusal": None}))) == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": "Hello"},
        {"content": "  there,"},
        {"content": "\nworld"},
        {"content": " "},
        {},
    ]


@settings(deadline=None, max_examples=50)
@given(content=text)
def test_no_piece_is_long_or_empty(content: str) -> None:
    pieces = [
        delta["content"] for delta in deltas(split(completion({"content": content + "世" * 500 + " " * 99})))[1:-1]
    ]
    assert "".join(pieces) == content + "世" * 500 + " " * 99
    assert all(0 < len(piece) <= 48 for piece in pieces)


def test_a_very_long_text_is_cut_in_linear_time() -> None:
    for content in (" " * 300_000, "x" * 300_000, "a " * 150_000):
        assert assemble(split(completion({"content": content})))["choices"][0]["message"]["content"] == content


def test_the_order_is_reasoning_content_tool_calls_then_the_rest() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    message = {"annotations": [], "tool_calls": [call], "content": "Hi", "reasoning_content": "Hm", "role": "assistant"}
    assert deltas(split(completion(message))) == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "Hm"},
        {"content": "Hi"},
        {"tool_calls": [{"index": 0, **call, "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": " 1}"}}]},
        {"annotations": []},
        {},
    ]


def test_a_custom_tools_input_and_an_old_function_call_come_in_pieces() -> None:
    custom = {"id": "c", "type": "custom", "custom": {"name": "sh", "input": "ls -l"}}
    message = {"tool_calls": [custom], "function_call": {"name": "f", "arguments": "{ }"}}
    assert deltas(split(completion(message)))[1:-1] == [
        {"function_call": {"name": "f", "arguments": ""}},
        {"function_call": {"arguments": "{"}},
        {"function_call": {"arguments": " }"}},
        {"tool_calls": [{"index": 0, "id": "c", "type": "custom", "custom": {"name": "sh", "input": ""}}]},
        {"tool_calls": [{"index": 0, "custom": {"input": "ls"}}]},
        {"tool_calls": [{"index": 0, "custom": {"input": " -l"}}]},
    ]


def test_a_text_with_logprobs_is_cut_by_its_tokens() -> None:
    listed = [{"token": "Hel", "logprob": -0.1, "top_logprobs": []}, {"token": "lo world", "logprob": -0.2}]
    chunks = split(completion({"content": "Hello world"}, logprobs={"content": listed, "refusal": None}))
    assert [(part["delta"], part["logprobs"]) for chunk in chunks for part in chunk["choices"]] == [
        ({"role": "assistant", "content": ""}, None),
        ({"content": "Hel"}, {"content": [listed[0]], "refusal": None}),
        ({"content": "lo world"}, {"content": [listed[1]], "refusal": None}),
        ({}, None),
    ]


@pytest.mark.parametrize("listed", [[{"token": "\ufffd"}, {"token": "\ufffd"}], ["é"], [{}], [{"token": None}]])
def test_logprobs_that_do_not_make_up_the_text_come_whole_at_the_end(listed: list[Any]) -> None:
    chunks = split(completion({"content": "é"}, logprobs={"content": listed}))
    assert [part["logprobs"] for chunk in chunks for part in chunk["choices"]] == [None, None, {"content": listed}]


def test_the_usage_comes_last_in_a_chunk_without_choices() -> None:
    whole = completion({"content": "Hi"}) | {"usage": {"total_tokens": 3}}
    last = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []}
    chunks = split(whole)
    assert chunks[-1] == last | {"usage": {"total_tokens": 3}}
    assert all("usage" not in chunk and chunk["choices"] for chunk in chunks[:-1])


def test_what_has_no_choices_is_one_chunk() -> None:
    assert split({"id": "c", "choices": [], "x": 1}) == [
        {"x": 1, "id": "c", "object": "chat.completion.chunk", "choices": []}
    ]


def test_a_calls_own_index_gives_way_to_its_place() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    whole = completion({"tool_calls": [call | {"index": 7}, call | {"index": 7}]})
    assert assemble(split(whole)) == completion({"tool_calls": [call, call]})
