"""Prompts: counts that OpenAI published, and what may not happen whatever a body holds."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.encodings import roughly
from pricing.tokens import Count, read_prompt
from tests.pricing.support import Json, added, cl100k, o200k, read, user

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
    def total(some: list[Json]) -> int:
        return read({"messages": some}).under("o200k").total

    nothing = total([])
    assert nothing == 3
    assert total(messages) == total(messages[:at]) + total(messages[at:]) - nothing


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
    prompt = read_prompt(body | {"messages": messages}, roughly)
    for family in ("o200k", "claude", "?"):
        assert prompt.under(family, "gpt-4o").total >= 3


def test_what_was_learned_is_applied_to_the_text_alone() -> None:
    count = Count(1_000, images=85, exact=True)
    assert count.times(1.5) == Count(1_500, images=85)
    assert count.times(1.0) == count
    assert (count.total, count.estimated) == (1_085, 85)
