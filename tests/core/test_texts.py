"""Streams of text completions add up to them, and what is cut out of one looks as OpenAI would have streamed it."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import Completion

from proxy.core.texts import assemble_text, split_text

Json = dict[str, Any]

text = st.text(st.sampled_from("ha aé🌍 \n\u200d世界"), max_size=40) | st.text(max_size=12)
names = st.sampled_from(["id", "type", "text", "tokens", "index", "content", "x", "y"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
# Names that a provider may invent, at any level.
unknown = st.dictionaries(st.sampled_from(["x_extra", "prompt_logprobs", "stop_reason", "provider"]), values)


@st.composite
def logprobs(draw: st.DrawFn) -> Json:
    tokens = draw(st.lists(text, max_size=4))
    lists = {
        "token_logprobs": st.none() | st.floats(-9, 0),
        "top_logprobs": st.none() | st.dictionaries(text, st.floats(-9, 0), max_size=2),
        "text_offset": st.integers(0, 99),
    }
    found: Json = draw(unknown) | {"tokens": draw(st.none() | st.just(tokens))}
    for name, item in lists.items():
        short = st.lists(item, max_size=5)  # of no length that fits
        found[name] = draw(st.none() | short | st.lists(item, min_size=len(tokens), max_size=len(tokens)))
    return found


@st.composite
def choices(draw: st.DrawFn, index: int) -> Json:
    choice: Json = draw(unknown) | {"index": index, "text": draw(st.none() | text)}
    choice["finish_reason"] = draw(st.none() | st.sampled_from(["stop", "length", "content_filter"]))
    if draw(st.booleans()):
        choice["logprobs"] = draw(st.none() | logprobs() | values)
        told = choice["logprobs"].get("tokens") if isinstance(choice["logprobs"], dict) else None
        if isinstance(told, list) and all(isinstance(token, str) for token in told) and draw(st.booleans()):
            choice["text"] = "".join(told)  # as in truth: the tokens make up the text
    return choice


@st.composite
def completions(draw: st.DrawFn) -> Json:
    known: Json = {"id": draw(text), "object": "text_completion", "created": draw(st.integers(0)), "model": draw(text)}
    for name in ("system_fingerprint", "service_tier"):
        if draw(st.booleans()):
            known[name] = draw(st.none() | text)
    if draw(st.booleans()):
        known["usage"] = draw(st.dictionaries(names, values, max_size=3))
    count = draw(st.integers(0, 3))
    return draw(unknown) | known | {"choices": [draw(choices(index)) for index in range(count)]}


def completion(*of_choices: Json, **members: Any) -> Json:
    known = [{"index": index, "logprobs": None, "finish_reason": "stop"} for index in range(len(of_choices))]
    whole = [one | choice for one, choice in zip(known, of_choices, strict=True)]
    return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": whole} | members


def chunk(words: Any, **of_choice: Any) -> Json:
    choice = {"text": words, "index": 0, "logprobs": None, "finish_reason": None} | of_choice
    return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}


@settings(deadline=None, max_examples=300)
@given(whole=completions())
def test_the_chunks_of_a_completion_add_up_to_it(whole: Json) -> None:
    before = copy.deepcopy(whole)
    chunks = split_text(whole)
    between = copy.deepcopy(chunks)
    assert assemble_text(chunks) == before
    assert whole == before
    assert chunks == between


@settings(deadline=None, max_examples=50)
@given(whole=completions())
def test_each_choice_ends_once_in_its_last_chunk(whole: Json) -> None:
    for choice in whole["choices"]:
        parts = [part for chunk in split_text(whole) for part in chunk["choices"] if part["index"] == choice["index"]]
        assert [part["finish_reason"] for part in parts] == [None] * (len(parts) - 1) + [choice["finish_reason"]]
        assert "".join(part["text"] or "" for part in parts) == (choice["text"] or "")
        assert ["logprobs" in part for part in parts] == ["logprobs" in choice] * len(parts)


@settings(deadline=None, max_examples=50)
@given(words=text, usage=st.booleans())
def test_every_chunk_is_one_of_the_sdks(words: str, usage: bool) -> None:
    used = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    whole = completion({"text": words}, {"text": ""}, **({"usage": used} if usage else {}))
    for part in split_text(whole):
        for choice in part["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"  # its type forgets that OpenAI sends null
        Completion.model_validate(part, strict=True)
        assert part.keys() <= {"id", "object", "created", "model", "choices", "usage"}


def test_a_text_comes_a_word_at_a_time_and_then_its_end() -> None:
    used = {"total_tokens": 3}
    whole = completion({"text": "Hello  there,\n"}, {"text": "ha", "finish_reason": "length"}, usage=used, x=1)
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}
    assert split_text(whole) == [
        chunk("Hello") | {"x": 1},
        chunk("  there,"),
        chunk("\n"),
        chunk("", finish_reason="stop"),
        chunk("ha", index=1),
        chunk("", index=1, finish_reason="length"),
        head | {"choices": [], "usage": used},
    ]


@settings(deadline=None, max_examples=50)
@given(words=text)
def test_no_piece_is_long(words: str) -> None:
    whole = completion({"text": words + "世" * 500 + " " * 99})
    assert all(len(part["choices"][0]["text"]) <= 48 for part in split_text(whole))


def test_a_text_is_cut_by_its_tokens_with_their_logprobs_beside() -> None:
    """With `echo`, nothing is known of the first token."""
    told = {
        "tokens": ["Hel", "lo wor", "ld"],
        "token_logprobs": [None, -0.5, -0.25],
        "top_logprobs": [None, {"lo wor": -0.5}, {}],
        "text_offset": [0, 3, 9],
        "x_ids": [1, 2, 3],
        "x_other": [7],
        "x_none": None,
    }
    whole = completion({"text": "Hello world", "logprobs": told})
    parts = [part["choices"][0] for part in split_text(whole)]
    assert [(part["text"], part["logprobs"]) for part in parts[1:]] == [
        (
            "lo wor",
            {
                "tokens": ["lo wor"],
                "token_logprobs": [-0.5],
                "top_logprobs": [{"lo wor": -0.5}],
                "text_offset": [3],
                "x_ids": [2],
                "x_none": None,
            },
        ),
        (
            "ld",
            {
                "tokens": ["ld"],
                "token_logprobs": [-0.25],
                "top_logprobs": [{}],
                "text_offset": [9],
                "x_ids": [3],
                "x_none": None,
            },
        ),
        ("", {"x_other": [7]}),
    ]
    assert assemble_text(split_text(whole)) == whole
    only = {"tokens": ["a"], "token_logprobs": [-1.0]}
    parts = [part["choices"][0] for part in split_text(completion({"text": "a", "logprobs": only}))]
    assert [part["logprobs"] for part in parts] == [only, None]


def test_an_empty_text_is_its_last_chunk() -> None:
    told: Json = {"tokens": [], "token_logprobs": []}
    whole = completion({"text": "", "logprobs": told})
    assert split_text(whole) == [chunk("", finish_reason="stop", logprobs=told)]
    assert assemble_text(split_text(whole)) == whole


@pytest.mark.parametrize("tokens", [["bytes:\\xc3", "bytes:\\xa9"], [], [None], [5], "é", None])
def test_logprobs_that_do_not_make_up_the_text_come_whole_at_its_end(tokens: object) -> None:
    told = {"tokens": tokens, "token_logprobs": [-1.0, -2.0]}
    parts = [part["choices"][0] for part in split_text(completion({"text": "é", "logprobs": told}))]
    assert [(part["text"], part["logprobs"]) for part in parts] == [("é", None), ("", told)]


def test_a_stream_becomes_its_completion() -> None:
    told = [{"tokens": [word], "token_logprobs": [-0.5], "top_logprobs": None, "text_offset": [0]} for word in "ab"]
    chunks = [
        chunk("ha", logprobs=told[0]) | {"usage": None, "system_fingerprint": "fp"},
        chunk("x", index=1),
        chunk("ha", logprobs=told[1]) | {"usage": {"total_tokens": 2}},
        chunk("", index=1, finish_reason="length"),
        chunk("", finish_reason="stop"),
        chunk("") | {"choices": [], "usage": {"total_tokens": 5}, "obfuscation": "xY3"},
    ]
    before = copy.deepcopy(chunks)
    joined = {"tokens": ["a", "b"], "token_logprobs": [-0.5, -0.5], "top_logprobs": None, "text_offset": [0, 0]}
    assert assemble_text(chunks) == completion(
        {"text": "haha", "logprobs": joined},
        {"text": "x", "finish_reason": "length"},
        usage={"total_tokens": 5},
        system_fingerprint="fp",
    )
    assert chunks == before


@pytest.mark.parametrize("odd", [None, 1, "x", [1], [None], {"a": 1}])
def test_odd_choices_do_no_harm(odd: Any) -> None:
    assert assemble_text([chunk("Hi"), {"choices": odd}])["choices"][0]["text"] == "Hi"
    assert assemble_text([{"choices": odd}]) == {"object": "text_completion", "choices": []}


def test_a_choice_without_a_text_has_a_null_one() -> None:
    assert assemble_text([{"choices": [{"index": 0}]}])["choices"] == [
        {"index": 0, "text": None, "finish_reason": None}
    ]
    assert assemble_text([chunk(None), chunk("")])["choices"][0]["text"] == ""


def test_nothing_adds_up_to_no_choices() -> None:
    assert assemble_text([]) == {"object": "text_completion", "choices": []}
    nothing: tuple[object, ...] = ([], None)
    for none in nothing:
        assert split_text({"id": "c", "choices": none, "x": 1}) == [
            {"x": 1, "id": "c", "object": "text_completion", "choices": []}
        ]


def test_a_very_long_text_is_cut_and_joined_in_linear_time() -> None:
    for words in (" " * 100_000, "x" * 100_000, "a " * 50_000):
        assert assemble_text(split_text(completion({"text": words}))) == completion({"text": words})
