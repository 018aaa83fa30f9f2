"""What a body needs of a model, and which of its turns hold it to one."""

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.models import SERVICES, Capability
from proxy.core.as_chat import Wordless
from proxy.core.needs import MADE, MADE_PARTS, MOST, Needs, last_made, read_needs

Json = dict[str, Any]

USER: Json = {"role": "user", "content": "Hello"}
ANSWER: Json = {"role": "assistant", "content": "Hello."}
TOOL: Json = {"type": "function", "function": {"name": "f", "parameters": {}}}
CALLED: Json = {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "function": {"name": "f"}}]}
MARK: Json = {"type": "ephemeral"}


def said(*parts: object, role: str = "user") -> Json:
    return {"role": role, "content": list(parts)}


def test_a_plain_request_needs_nothing() -> None:
    body = {"model": "m", "messages": [{"role": "system", "content": "Be brief."}, USER, ANSWER, USER]}
    assert read_needs(body, 1) == Needs(capabilities=(), max_output=None, choices=1, marks=False, service=None)


@pytest.mark.parametrize(
    ("members", "capability"),
    [
        ({"tools": [TOOL]}, "tools"),
        ({"tools": [TOOL], "tool_choice": "none"}, "tools"),
        ({"functions": [TOOL["function"]]}, "tools"),
        ({"messages": [USER, CALLED]}, "tools"),
        ({"messages": [{"role": "assistant", "function_call": {"name": "f", "arguments": ""}}]}, "tools"),
        ({"messages": [{"role": "tool", "tool_call_id": "call_1", "content": "22"}]}, "tools"),
        ({"messages": [{"role": "function", "name": "f", "content": "22"}]}, "tools"),
        ({"messages": [said({"type": "text", "text": "See:"}, {"type": "image_url", "image_url": {}})]}, "vision"),
        ({"messages": [said({"type": "input_audio", "input_audio": {}})]}, "audio"),
        ({"messages": [ANSWER | {"audio": {"id": "audio_1"}}]}, "audio"),
        ({"modalities": ["text", "audio"]}, "audio"),
        ({"audio": {"voice": "alloy", "format": "mp3"}}, "audio"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "json_schema"),
        ({"reasoning_effort": "low"}, "reasoning"),
        ({"reasoning": {"effort": "high"}}, "reasoning"),
        ({"reasoning": {"max_tokens": 2000}}, "reasoning"),
        ({"reasoning": {"enabled": True}}, "reasoning"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "reasoning"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 5}, "logprobs"),
    ],
)
def test_a_member_that_asks_for_a_capability_needs_it_alone(members: Json, capability: Capability) -> None:
    assert read_needs({"messages": [USER], **members}, 1).capabilities == (capability,)


@pytest.mark.parametrize(
    "members",
    [
        {"tools": [], "functions": [], "tool_choice": "none"},
        {"tools": None, "functions": None, "response_format": None, "audio": None, "modalities": None},
        {"messages": [ANSWER | {"tool_calls": [], "function_call": None, "audio": None}]},
        {"modalities": ["text"]},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "text"}},
        {"reasoning_effort": "none"},
        {"reasoning_effort": "minimal"},
        {"reasoning_effort": None},
        {"reasoning": {"effort": "none"}},
        {"reasoning": {"enabled": False, "effort": "high"}},
        {"reasoning": {"exclude": True}},
        {"thinking": {"type": "disabled"}},
        {"logprobs": False, "top_logprobs": 0},
    ],
)
def test_a_member_that_asks_for_nothing_needs_nothing(members: Json) -> None:
    assert read_needs({"messages": [USER], **members}, 1).capabilities == ()


def test_capabilities_come_in_the_order_of_their_type_and_once() -> None:
    image, sound = {"type": "image_url", "image_url": "x"}, {"type": "input_audio"}
    everything = {
        "top_logprobs": 1,
        "logprobs": True,
        "reasoning_effort": "high",
        "response_format": {"type": "json_schema"},
        "messages": [CALLED, said(sound, image, image)],
        "tools": [TOOL],
    }
    found = read_needs(everything, 2)
    assert found.capabilities == get_args(Capability)
    assert found.choices == 2


def test_more_than_one_choice_is_a_need() -> None:
    assert [read_needs({}, choices).capabilities for choices in (1, 2)] == [(), ("n",)]


@pytest.mark.parametrize(
    ("members", "most"),
    [
        ({"max_tokens": 100}, 100),
        ({"max_completion_tokens": 200}, 200),
        ({"max_tokens": 100, "max_completion_tokens": 50}, 50),
        ({"max_tokens": 50, "max_completion_tokens": 100}, 50),
        ({"max_tokens": None, "max_completion_tokens": 100}, 100),
        ({"max_tokens": 0, "max_completion_tokens": 100}, 100),
        ({"max_tokens": 100.0}, 100),
        ({"max_tokens": True}, None),
        ({"max_tokens": -1}, None),
        ({"max_tokens": "100"}, None),
        ({"max_tokens": 1.5}, None),
    ],
)
def test_the_longest_answer_is_the_smaller_limit_that_is_one(members: Json, most: int | None) -> None:
    assert read_needs(members, 1).max_output == most


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [USER | {"cache_control": MARK}]},
        {"messages": [USER, said({"type": "text", "text": "x"}, {"type": "text", "text": "y", "cache_control": MARK})]},
        {"tools": [TOOL, TOOL | {"cache_control": MARK}]},
        {"tools": [{"type": "function", "function": TOOL["function"] | {"cache_control": MARK}}]},
        {"cache_control": MARK},
    ],
)
def test_a_marked_prefix_is_seen_wherever_it_ends(body: Json) -> None:
    assert read_needs(body, 1).marks


def test_a_mark_of_null_or_inside_what_is_data_is_none() -> None:
    schema = {"properties": {"cache_control": {"type": "object"}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema, "cache_control": None}}
    assert not read_needs({"messages": [USER | {"cache_control": None}], "tools": [tool]}, 1).marks


def test_the_service_is_what_the_request_calls_it() -> None:
    assert [read_needs({"service_tier": tier}, 1).service for tier in ("flex", "", None)] == ["flex", "", None]


@pytest.mark.parametrize("tier", [3, True, ["flex"], {}])
def test_a_service_that_is_no_text_is_none_that_is_known(tier: object) -> None:
    assert read_needs({"service_tier": tier}, 1).service not in SERVICES


@pytest.mark.parametrize("member", MADE)
def test_a_turn_with_what_only_its_model_can_go_on_from_is_found(member: str) -> None:
    made = ANSWER | {member: [{"id": "1"}]}
    assert last_made([USER, made, USER, made, USER, ANSWER]) == 3


@pytest.mark.parametrize("empty", [None, [], "", {}])
def test_a_turn_that_holds_none_of_it_leaves_the_choice(empty: object) -> None:
    assert last_made([USER, ANSWER | dict.fromkeys(MADE, empty)]) is None


@pytest.mark.parametrize("kind", MADE_PARTS)
def test_a_turn_with_a_part_of_reasoning_is_found(kind: str) -> None:
    assert last_made([USER, said({"type": "text", "text": "x"}, {"type": kind}, role="assistant"), USER]) == 1


def test_only_an_assistants_message_was_made_by_a_model() -> None:
    assert last_made([USER | {"reasoning": "I think so."}, said({"type": "thinking"}), ANSWER]) is None


NAMES = st.sampled_from(
    "role content tool_calls function_call function type cache_control messages tools functions modalities audio "
    "response_format reasoning effort max_tokens enabled thinking reasoning_effort logprobs top_logprobs service_tier "
    "max_completion_tokens".split()
)
WORDS = st.sampled_from("assistant tool audio image_url thinking json_schema".split())
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | WORDS
ANYTHING = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=20,
)
BODIES = st.dictionaries(NAMES, ANYTHING | st.lists(st.dictionaries(NAMES, ANYTHING), max_size=4))


@given(BODIES)
def test_whatever_a_body_holds_is_read_and_never_raises(body: Json) -> None:
    needs, messages = read_needs(body, 1), body.get("messages")
    assert list(needs.capabilities) == [each for each in get_args(Capability) if each in needs.capabilities]
    assert needs.max_output is None or needs.max_output > 0
    made = last_made(messages)
    assert made is None or (isinstance(messages, list) and messages[made]["role"] == "assistant")


@pytest.mark.parametrize("value", [10**400, 1e300, 10**10])
def test_absurd_numbers_are_large_ones_that_can_be_summed(value: float) -> None:
    found = read_needs({"max_tokens": value}, 1)
    assert (found.max_output, found.longest) == (MOST, MOST)


def test_the_longest_answer_is_by_whichever_limit_a_provider_heeds() -> None:
    found = read_needs({"max_tokens": 10, "max_completion_tokens": 500}, 1)
    assert (found.max_output, found.longest) == (10, 500)


@pytest.mark.parametrize("limit", [-1, 0, -(10**400), "100", 1.5, True, [], {}])
def test_a_limit_that_a_provider_may_take_for_none_bounds_no_answer(limit: object) -> None:
    assert read_needs({"max_tokens": limit}, 1).longest is None
    found = read_needs({"max_tokens": limit, "max_completion_tokens": 100}, 1)
    assert (found.max_output, found.longest) == (100, None)
    assert read_needs({"max_tokens": None, "max_completion_tokens": 100}, 1).longest == 100


def part(**members: Any) -> Json:
    return {"messages": [{"role": "user", "content": [members]}]}


DATA = "data:image/png;base64,AAAA"


@pytest.mark.parametrize(
    "body",
    [
        {"web_search_options": {}},
        {"plugins": [{"id": "web"}]},
        {"models": ["a dearer one"]},
        {"conversation": "conv_1"},
        {"prompt": {"id": "pmpt_1"}},
        {"context_management": [{"type": "compaction", "compact_threshold": 1000}]},
        {"modalities": ["text", "image"]},
        {"messages": [ANSWER | {"audio": {"id": "audio_1"}}]},
        {"tools": ["web_search"]},
        {"tools": "web_search"},
        {"tools": [{"type": "web_search"}]},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"tools": [{"type": "code_interpreter", "container": {}}]},
        part(type="input_audio", input_audio={"data": "AAAA", "format": "mp3"}),
        part(type="file", file={"file_data": "AAAA"}),
        part(type="image_url", image_url={"url": "https://example.org/a.png"}),
        part(type="image_url", image_url={"url": "data:application/pdf;base64,AAAA"}),
        part(type="something new"),
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": DATA}}] * 65}]},
    ],
)
def test_what_may_be_charged_besides_its_tokens_has_no_bound(body: Json) -> None:
    assert read_needs(body, 1).unbounded


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"tools": [{"type": "function", "function": {"name": "f"}}, {"type": "custom", "custom": {"name": "g"}}]},
        {"functions": [{"name": "f"}], "tools": None},
        {"modalities": ["text"], "models": None, "prompt": "Once", "context_management": None},
        part(type="text", text="a"),
        part(type="image_url", image_url={"url": DATA}),
    ],
)
def test_text_tools_of_the_clients_own_and_images_that_are_there_have_one(body: Json) -> None:
    assert not read_needs(body, 1).unbounded


def test_an_answer_without_words_has_no_tokens_whatever_its_limits() -> None:
    found = read_needs(Wordless(max_tokens=100, tools=[TOOL]), 1)
    assert (found.max_output, found.longest, found.capabilities) == (0, 0, ("tools",))
    assert read_needs({}, 1).longest is None
