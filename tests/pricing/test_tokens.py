"""Prompts: counts that OpenAI published, and what may not happen whatever a body holds."""

import json
from functools import reduce
from itertools import accumulate
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.encodings import roughly
from pricing.families import FAMILIES
from pricing.media import A_FILE, Image
from pricing.tokens import (
    IMAGES,
    Count,
    Prompt,
    messages_of,
    most,
    read_frame,
    read_message,
    read_prompt,
    total,
)
from tests.pricing.support import Count1, Json, added, cl100k, o200k, read, user

JARGON: list[Json] = [
    {
        "role": "system",
        "content": "You are a helpful, pattern-following assistant that translates "
        "corporate jargon into plain English.",
    },
    {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
    {"role": "system", "name": "example_assistant", "content": "Things working well together will increase revenue."},
    {
        "role": "system",
        "name": "example_user",
        "content": "Let's circle back when we have more bandwidth to touch base on "
        "opportunities for increased leverage.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Let's talk later when we're less busy about how to do better.",
    },
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for the client deliverable.",
    },
]
WEATHER: Json = {
    "messages": [
        {"role": "system", "content": "You are a helpful assistant that can answer to questions about the weather."},
        {"role": "user", "content": "What's the weather like in San Francisco?"},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "get_current_weather",
                "description": "Get the current weather in a given location",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
                        "unit": {
                            "type": "string",
                            "description": "The unit of temperature to return",
                            "enum": ["celsius", "fahrenheit"],
                        },
                    },
                    "required": ["location"],
                },
            },
        }
    ],
}


def test_the_cookbooks_messages_have_the_tokens_that_openai_charged() -> None:
    assert read_prompt({"messages": JARGON}, cl100k, "cl100k_base").under("cl100k") == Count(129, exact=True)
    assert read_prompt({"messages": JARGON}, o200k, "o200k_base").under("o200k") == Count(124, exact=True)


def test_the_example_of_the_reference_has_the_usage_that_it_shows() -> None:
    # https://platform.openai.com/docs/api-reference/chat/create: "prompt_tokens": 19
    messages = [
        {"role": "developer", "content": "You are a helpful assistant."},
        {"role": "user", "content": [{"type": "text", "text": "Hello!"}]},
    ]
    assert read({"messages": messages}).under("o200k", "gpt-5") == Count(19, exact=True)


def test_the_cookbooks_tools_have_the_tokens_that_openai_charged() -> None:
    assert read_prompt(WEATHER, cl100k, "cl100k_base").under("cl100k") == Count(105)
    assert read_prompt(WEATHER, o200k, "o200k_base").under("o200k") == Count(101)


@settings(deadline=None)
@given(st.lists(st.sampled_from(JARGON), max_size=12), st.integers(0, 12))
def test_messages_add_up(messages: list[Json], at: int) -> None:
    def tokens(some: list[Json]) -> int:
        return read({"messages": some}).under("o200k").total

    nothing = tokens([])
    assert nothing == 3
    assert tokens(messages) == tokens(messages[:at]) + tokens(messages[at:]) - nothing


def test_calls_of_tools_and_their_answers_are_counted() -> None:
    arguments = '{"location":"Boston, MA","unit":"celsius"}'
    call = {"id": "call_1", "type": "function", "function": {"name": "get_current_weather", "arguments": arguments}}
    asked = {"role": "assistant", "content": None, "tool_calls": [call]}
    answer = {"role": "tool", "tool_call_id": "call_1", "content": "22"}
    count = read({"messages": [asked, answer]}).under("o200k")
    assert count == Count(3 + (3 + 1) + (3 + o200k("get_current_weather") + o200k(arguments)) + (3 + 1 + 1))


def test_reasoning_and_refusals_of_earlier_turns_count_and_nulls_do_not() -> None:
    plain = {"role": "assistant", "content": "Yes."}
    nulls = plain | {"refusal": None, "tool_calls": None, "audio": None, "annotations": None}
    assert read({"messages": [nulls]}).under("o200k") == read({"messages": [plain]}).under("o200k")
    told = read({"messages": [plain | {"reasoning_content": "I think so."}]}).under("o200k")
    assert (told.text - read({"messages": [plain]}).under("o200k").text, told.exact) == (o200k("I think so."), False)


def test_a_schema_of_the_answer_counts_as_its_json() -> None:
    schema = {"name": "point", "schema": {"type": "object", "properties": {"x": {"type": "number"}}}}
    counted = added(user("", response_format={"type": "json_schema", "json_schema": schema}))
    assert counted == Count(o200k(json.dumps(schema, separators=(",", ":"))))
    assert added(user("", response_format={"type": "text"})) == Count(0, exact=True)


def test_what_is_nested_in_a_functions_schema_counts_too() -> None:
    def tool(parameters: Any) -> int:
        return added(user("", tools=[{"type": "function", "function": {"name": "f", "parameters": parameters}}])).text

    point: Json = {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}}}
    nothing: list[Any] = [None, {}, [], {"type": "object"}, {"type": "object", "properties": None}]
    for empty in nothing:
        assert tool(empty) == 7 + o200k("f:") + 12
    flat = tool({"type": "object", "properties": {"at": {"type": "object"}}})
    own = 3 + 3 + o200k("x:number:") + 3 + o200k("y:number:")
    assert tool({"type": "object", "properties": {"at": point}}) == flat + own
    listed = {"type": "object", "properties": {"at": {"type": "object", "items": point, "anyOf": [point, point]}}}
    assert tool(listed) == flat + 3 * own
    defined = {"type": "object", "properties": {"at": {"type": "object"}}, "$defs": {"point": point}}
    assert tool(defined) == flat + own


def test_functions_as_they_were_declared_before_tools_count_alike() -> None:
    functions = [tool["function"] for tool in WEATHER["tools"]]
    assert read({"messages": WEATHER["messages"], "functions": functions}).under("o200k").text == 101


CALL: Json = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_current_weather", "arguments": '{"location":"Bonn"}'},
}
TURNS: list[Json] = [
    {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "I must look."},
    {"role": "tool", "tool_call_id": "call_1", "content": "22"},
    {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}, "audio": {"id": "audio_1"}},
]
PARTS: list[Any] = [
    {"type": "text", "text": "What is this?"},
    {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
    {"type": "image_url", "image_url": "https://example.org/b.png"},
    {"type": "input_audio", "input_audio": {"data": "A" * 64_000, "format": "mp3"}},
    {"type": "file", "file": {"file_data": "A" * 400_000}},
    {"type": "odd"},
    None,
    "plain",
]
SCHEMA: Json = {"name": "point", "schema": {"type": "object", "properties": {"x": {"type": "number"}}}}
SHAPE: Json = {"type": "json_schema", "json_schema": SCHEMA}
LOW, UNSEEN = Image(1024, 1024, "low"), Image(1024, 1024)
# What bodies hold: words, frame, functions, tools, schemas, images, seconds, files, exact.
HELD: dict[str, tuple[Json, tuple[Any, ...]]] = {
    "nothing": ({}, ((0, 0, 0, 0), 3, 0, 12, 0, (), 0.0, 0, True)),
    "names": ({"messages": JARGON}, ((83, 10, 0, 0), 31, 0, 12, 0, (), 0.0, 0, True)),
    "tools": (WEATHER, ((22, 0, 0, 0), 11, 1, 61, 85, (), 0.0, 0, False)),
    "functions": (
        {"messages": [], "functions": [WEATHER["tools"][0]["function"], "odd"]},
        ((0, 0, 0, 0), 3, 2, 64, 81, (), 0.0, 0, False),
    ),
    "turns": (
        {"messages": TURNS, "response_format": {"type": "text"}},
        ((5, 1, 6, 0), 25, 0, 12, 0, (), 30.0, 0, False),
    ),
    "parts": (
        {"messages": [{"role": "user", "content": PARTS}, {"role": "user", "content": PARTS[1:3]}]},
        ((5, 0, 0, 0), 11, 0, 12, 0, (LOW, UNSEEN, LOW, UNSEEN), 3.0, 18_000, False),
    ),
    "a schema": (user("Where?", response_format=SHAPE), ((2, 0, 20, 0), 7, 0, 12, 0, (), 0.0, 0, False)),
    "kinds of text": (
        {"messages": [{"role": "user", "content": text} for text in ("f(x)[0] = {};", '{"a":1,"b":2}', "你好，世界")]},
        ((0, 7, 9, 3), 15, 0, 12, 0, (), 0.0, 0, True),
    ),
    "everything": (
        {
            "messages": [*JARGON, *TURNS, {"role": "user", "content": PARTS}],
            "tools": WEATHER["tools"] * 2,
            "functions": [{}],
            "response_format": SHAPE,
        },
        ((93, 11, 26, 0), 57, 3, 111, 171, (LOW, UNSEEN), 33.0, 18_000, False),
    ),
    "odd types": (
        {
            "messages": ["text", 7, None, [], {"role": 3, "content": {"a": 1}, "name": ["x"], "extra": 1}],
            "tools": ["x"],
        },
        ((2, 3, 5, 0), 8, 1, 14, 2, (), 0.0, 0, False),
    ),
    "no list": (
        {"messages": {"role": "user", "content": "Hello"}, "tools": {"a": 1}, "response_format": "json"},
        ((1, 0, 0, 0), 7, 0, 12, 0, (), 0.0, 0, True),
    ),
}


def in_parts(body: Json, count: Count1 = o200k) -> list[Prompt]:
    return [*(read_message(message, count) for message in messages_of(body)), read_frame(body, count)]


@pytest.mark.parametrize("name", HELD)
def test_a_body_holds_the_same_whether_read_at_once_or_message_by_message(name: str) -> None:
    body, held = HELD[name]
    prompt = Prompt("o200k_base", *held)
    assert read(body) == prompt
    assert total(in_parts(body)) == prompt
    assert reduce(Prompt.plus, in_parts(body)) == prompt


def test_bare_texts_are_no_conversation_and_have_no_frame() -> None:
    assert read({"messages": ["water", "river"]}).under("o200k").total == 2
    assert read({"messages": [{"role": "user", "content": "water"}]}).frame > 0


def test_what_ends_a_prompt_is_in_its_frame_alone() -> None:
    nothing = read_message({}, o200k)
    assert (nothing.frame, nothing.tools) == (3, 0)
    assert read_frame({"messages": JARGON}, o200k) == read({})
    declared = read_frame(WEATHER, o200k).under("o200k").text - read_frame({}, o200k).under("o200k").text
    assert declared == read(WEATHER).under("o200k").text - read({"messages": WEATHER["messages"]}).under("o200k").text


def test_the_tokens_up_to_each_message_grow_to_those_of_the_whole() -> None:
    *messages, frame = in_parts({"messages": JARGON})
    upto = [each.under("o200k").total for each in accumulate(messages, Prompt.plus, initial=frame)]
    assert upto == [read({"messages": JARGON[:at]}).under("o200k").total for at in range(len(JARGON) + 1)]
    assert upto[-1] == 124


def test_a_sum_is_exact_only_if_its_parts_are() -> None:
    text, image = read_message(JARGON[0], o200k), read_message({"role": "user", "content": PARTS[1:2]}, o200k)
    assert [text.plus(text).exact, text.plus(image).exact, image.plus(text).exact] == [True, False, False]


def test_counts_of_two_encodings_or_of_nothing_make_no_sum() -> None:
    with pytest.raises(ValueError):
        read_message(JARGON[0], o200k).plus(read_message(JARGON[0], cl100k, "cl100k_base"))
    with pytest.raises(ValueError):
        total([])


@pytest.mark.parametrize("family", [*FAMILIES, "unknown"])
def test_the_most_that_a_prompt_may_have_is_no_fewer_than_it_has(family: str) -> None:
    for body, _ in HELD.values():
        assert most(body).under(family, "gpt-4o").total >= read(body).under(family, "gpt-4o").total
    tokens = read(WEATHER).under(family).total
    assert tokens < most(WEATHER).under(family).total < 3 * tokens


LONG = "Words that somebody may be shown. " * 40
RUN = "QUJDREVGRw" * 120  # as base64 is: no word in it
IMAGE: Json = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}


def held_in(text: str) -> dict[str, Json]:
    """Bodies that hold a text where read_prompt does not look."""

    def said(**members: Any) -> Json:
        return {"messages": [{"role": "assistant", "content": "Yes.", **members}]}

    def in_part(**members: Any) -> Json:
        return said(content=[members])

    return {
        "a refusal": in_part(type="refusal", refusal=text),
        "thinking": in_part(type="thinking", thinking=text, signature="c2ln"),
        "reasoning": in_part(type="reasoning", summary=[{"type": "summary_text", "text": text}]),
        "redacted thinking": in_part(type="redacted_thinking", data=text),
        "an unknown part": in_part(type="new", new={"a": [{"b": text}]}),
        "a name in an unknown part": in_part(type="new", new={text: 1}),
        "beside a part's text": in_part(type="text", text="Yes.", annotations=[text]),
        "a part's type": in_part(type=text),
        "a text that is none": in_part(type="text", text=[text]),
        "beside an image": in_part(**IMAGE, caption=text),
        "a text beside an image": in_part(**IMAGE, text=text),
        "within an image": in_part(type="image_url", image_url={"url": "https://example.org/a.png", "alt": text}),
        "a sound that is none": in_part(type="input_audio", input_audio={"data": [text]}),
        "a file that is none": in_part(type="file", file=[text]),
        "a file's name": in_part(type="file", file={"file_data": "AAAA", "filename": text}),
        "a list in a content": {"messages": [{"role": "user", "content": [[text]]}]},
        "reasoning details": said(reasoning_details=[{"type": "reasoning.text", "text": text}]),
        "thinking blocks": said(thinking_blocks=[{"type": "thinking", "thinking": text}]),
        "an id": said(tool_call_id=text),
        "an unknown member": said(new={"a": text}),
        "an unknown member's name": said(**{text: None}),
        "a transcript": said(audio={"id": "audio_1", "transcript": text}),
        "beside a call": said(tool_calls=[{**CALL, "extra_content": {"thought": text}}]),
        "a call's id": said(tool_calls=[{**CALL, "id": text}]),
        "within a call's function": said(tool_calls=[{"function": {"name": "f", "arguments": "", "new": text}}]),
        "a call beside no function": said(tool_calls=[{"function": None, "name": text}]),
        "documents": {"documents": [{"title": "A", "text": text}]},
        "a prediction": {"prediction": {"type": "content", "content": text}},
        "system": {"system": [{"type": "text", "text": text}]},
        "instructions": {"instructions": text},
        "beside a schema": {"response_format": {"type": "json_object", "schema": {"description": text}}},
        "tools that are no list": {"tools": {"description": text}},
        "functions that are none": {"functions": text},
        "beside a function": {"tools": [{"type": "function", "new": text, "function": {"name": "f"}}]},
        "within a function": {"functions": [{"name": "f", "parameters": {"title": text}}]},
    }


@pytest.mark.parametrize("family", ["o200k", "cl100k", "claude", "gemini", "unknown"])
@pytest.mark.parametrize("text", [LONG, RUN])
@pytest.mark.parametrize("name", held_in(""))
def test_the_most_has_every_text_wherever_it_is(name: str, text: str, family: str) -> None:
    without, within = (most(held_in(each)[name]).under(family).total for each in ("", text))
    assert within - without >= o200k(text)


def test_the_data_of_media_is_no_text_however_much_there_is() -> None:
    data = "QUJD" * 25_000
    for part, tokens in (
        ({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}", "detail": "high"}}, 1500),
        ({"type": "image_url", "image_url": f"data:image/png;base64,{data}"}, 1500),
        ({"type": "input_audio", "input_audio": {"data": data, "format": "mp3"}}, 100),
        ({"type": "file", "file": {"file_data": data}}, 3800),
    ):
        assert most({"messages": [{"role": "user", "content": [part]}]}).under("o200k", "gpt-4o").total < tokens
    spoken = {"role": "assistant", "audio": {"id": "audio_1", "data": data}}
    assert most({"messages": [spoken]}).under("o200k", "gpt-4o").total < 400


def test_what_no_model_is_shown_is_not_in_the_most() -> None:
    settings = {"model": LONG, "user": LONG, "metadata": {"a": LONG}, "stop": [LONG], "max_tokens": 10, "n": 2}
    plain: Json = {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]}
    assert most(plain | settings) == most(plain)
    assert most(plain).under("o200k") == read(plain, roughly).under("o200k")


def test_an_image_that_does_not_say_its_pixels_is_a_large_one_in_the_most() -> None:
    assert added_most([IMAGE], "gpt-4o") == 85 + 170 * 8  # 2,048 by 768
    assert added_most([IMAGE], "gpt-4.1-mini") > 0.95 * 1536 * 1.62
    low = {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}}
    assert added_most([low], "gpt-4o") == 85


def added_most(content: list[Json], model: str) -> int:
    return most(user(content)).under("o200k", model).total - most(user([])).under("o200k", model).total


def test_other_makers_show_their_models_the_json_of_the_tools() -> None:
    shown = o200k(json.dumps(WEATHER["tools"][0], separators=(",", ":")))
    prompt, bare = read(WEATHER), read({"messages": WEATHER["messages"]})
    assert prompt.under("llama3").text - bare.under("llama3").text == shown
    twice = read(WEATHER | {"tools": WEATHER["tools"] * 2})
    assert prompt.under("claude").text - bare.under("claude").text == pytest.approx(shown * 1.05 + 346, abs=1)
    assert twice.under("claude").text - prompt.under("claude").text == pytest.approx(shown * 1.05, abs=1)


def test_each_character_is_counted_once() -> None:
    seen: list[str] = []

    def count(text: str) -> int:
        seen.append(text)
        return 1

    text = "word " * 50_000
    read_prompt(user(text), count)
    assert "".join(seen) == "user" + text


NAMES_IN_BODIES = st.sampled_from(
    "role content name tool_calls function_call function arguments type text image_url url detail input_audio data "
    "file file_data messages tools functions parameters properties items enum anyOf $defs description response_format "
    "json_schema audio reasoning_content".split()
)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.just("data:image/png;base64,iVBO"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES_IN_BODIES, inner, max_size=6),
    max_leaves=12,
)
MESSAGES = st.lists(st.dictionaries(NAMES_IN_BODIES, ANYTHING, max_size=6), max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES_IN_BODIES, ANYTHING), MESSAGES | ANYTHING)
def test_whatever_a_body_holds_is_counted_and_never_raises(body: Json, messages: Any) -> None:
    body |= {"messages": messages}
    prompt = read_prompt(body, roughly)
    summed = total(in_parts(body, roughly))
    assert summed.seconds == pytest.approx(prompt.seconds)
    assert msgspec.structs.replace(summed, seconds=prompt.seconds) == prompt
    for family in ("o200k", "claude", "?"):
        assert prompt.under(family, "gpt-4o").total >= 3


ODD_NAMES = st.sampled_from(
    "refusal thinking reasoning_details transcript documents system id new extra_content tool_call_id".split()
)
KINDS = st.sampled_from("text image_url input_audio file refusal thinking new".split())
ODD = st.dictionaries(NAMES_IN_BODIES | ODD_NAMES, ANYTHING | st.text(max_size=60), max_size=6)
ODD_PARTS = st.builds(lambda part, kind: part | {"type": kind}, ODD, KINDS)
ODD_MESSAGES = st.builds(
    lambda message, content: message | {"content": content}, ODD, st.lists(ODD_PARTS | ANYTHING, max_size=3) | ANYTHING
)


@settings(max_examples=200, deadline=None)
@given(ODD, st.lists(ODD_MESSAGES | ANYTHING, max_size=3) | ANYTHING)
def test_the_most_is_no_fewer_than_are_read_whatever_a_body_holds(body: Json, messages: Any) -> None:
    body |= {"messages": messages}
    bound, found = most(body), read_prompt(body, roughly)
    for family in (*FAMILIES, "unknown"):
        for model in ("gpt-4o", "gpt-4.1-mini", "gemini-2.5-pro"):
            assert bound.under(family, model).total >= found.under(family, model).total


def test_what_was_learned_is_applied_to_the_text_alone() -> None:
    count = Count(1_000, images=85, exact=True)
    assert count.times(1.5) == Count(1_500, images=85)
    assert count.times(1.0) == count
    assert (count.total, count.estimated) == (1_085, 85)


def test_of_absurdly_many_images_the_first_are_told_apart() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    message = {"role": "user", "content": [image] * (IMAGES + 10)}
    one = read_message(message, len)
    assert (len(one.images), one.files) == (IMAGES, 10 * A_FILE)
    two = one.plus(one)
    assert (len(two.images), two.files) == (IMAGES, 20 * A_FILE + IMAGES * A_FILE)
    assert read_prompt({"messages": [message, message]}, len).images == two.images
