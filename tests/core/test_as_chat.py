"""Whatever a model is shown is counted as in a chat, and nothing by which more could be charged is lost."""

import copy
import json
from collections.abc import Callable
from threading import Lock
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.encodings import NAMES, Encodings, roughly
from pricing.media import A_FILE
from pricing.models import Capability
from pricing.tokens import most, read_prompt
from proxy.core.as_chat import as_chat
from proxy.core.chain import links_of
from proxy.core.needs import Needs, last_made, read_needs

Json = dict[str, Any]

DATA = "data:image/png;base64,iVBORw0KGgo="
FLAT: Json = {"type": "function", "name": "f", "description": "Finds it.", "parameters": {"type": "object"}}
CALL: Json = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "{}"}
OUTPUT: Json = {"type": "function_call_output", "call_id": "call_1", "output": "22"}
THOUGHT: Json = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA"}
USER: Json = {"role": "user", "content": "Where is it?"}
SAID: Json = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Here.", "annotations": [], "logprobs": []}],
}


@pytest.fixture(scope="module")
def counts() -> dict[str, Callable[[str], int]]:
    encodings = Encodings(Lock())
    return {name: lambda text, name=name: encodings.count(text, name) for name in NAMES}  # type: ignore[misc]


def response(given: object = "hi", **members: Any) -> Json:
    return dict(as_chat("responses", {"model": "m", "input": given} | members))


def messages(given: object, **members: Any) -> list[Any]:
    found: list[Any] = response(given, **members)["messages"]
    return found


def needs(given: object = "hi", **members: Any) -> Needs:
    return read_needs(response(given, **members), 1)


def asked(*parts: Json) -> list[Json]:
    return [{"role": "user", "content": list(parts)}]


@pytest.mark.parametrize("body", [{}, {"messages": "x"}, {"input": "x", "prompt": {"id": "pmpt_1"}}])
def test_a_chat_is_its_own_likeness(body: Json) -> None:
    assert as_chat("chat/completions", body) is body


# --- Responses


def test_a_response_is_asked_as_a_chat_is() -> None:
    image = {"type": "input_image", "image_url": DATA, "detail": "low"}
    found = messages(
        [USER | {"type": "message"}, *asked({"type": "input_text", "text": "Look:"}, image), SAID],
        instructions="Be brief.",
    )
    assert found == [
        {"role": "system", "content": "Be brief."},
        USER,
        *asked({"type": "text", "text": "Look:"}, {"type": "image_url", "image_url": {"url": DATA, "detail": "low"}}),
        {"role": "assistant", "content": [{"type": "text", "text": "Here.", "annotations": []}]},
    ]


@pytest.mark.parametrize(
    "form", ["hi", [{"role": "user", "content": "hi"}], asked({"type": "input_text", "text": "hi"})]
)
def test_a_text_counts_the_same_in_each_of_its_forms(form: object) -> None:
    chat = {"messages": [{"role": "user", "content": "hi"}]}
    assert read_prompt(response(form), roughly) == read_prompt(chat, roughly)


def test_what_a_model_made_at_one_go_is_one_message_before_which_its_prompt_ends() -> None:
    custom = {"type": "custom_tool_call", "call_id": "call_2", "name": "shell", "input": "ls"}
    first, turn, answer, second = messages([USER, THOUGHT, SAID, CALL, custom, OUTPUT, SAID])
    assert first == USER
    assert turn["role"] == second["role"] == "assistant"
    assert turn["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "call_2", "type": "function", "function": {"name": "shell", "arguments": "ls"}},
    ]
    assert turn["content"] == second["content"] == [{"type": "text", "text": "Here.", "annotations": []}]
    assert answer == {"role": "tool", "tool_call_id": "call_1", "content": "22"}
    assert last_made([first, turn, answer, second]) == 1


def test_what_goes_on_from_a_response_goes_on_from_its_prompt() -> None:
    tools = {"tools": [FLAT], "instructions": "Be brief."}
    began, went_on = (response(items, **tools) for items in ([USER], [USER, THOUGHT, CALL, OUTPUT]))
    links, further = (links_of(body, b"secret" * 8, b"") for body in (began, went_on))
    assert further[: len(links)] == links
    made = last_made(went_on["messages"])
    assert made is not None
    assert further[made] == links[-1]


@pytest.mark.parametrize(
    "item",
    [
        CALL,
        THOUGHT,
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"type": "compaction", "encrypted_content": "gAAAA"},
        {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "x"},
        {"type": "shell_call", "call_id": "c", "action": {"commands": ["ls"]}},
        {"type": "web_search_call", "id": "ws_1", "action": {}},
        {"type": "mcp_approval_request", "id": "mcpr_1", "name": "f", "arguments": "{}"},
        {"type": "image_generation_call", "id": "ig_1", "result": "iVBORw0KGgo="},
    ],
)
def test_what_only_its_model_can_go_on_from_holds_a_conversation_to_it(item: Json) -> None:
    assert last_made(messages([USER, item, OUTPUT])) == 1
    assert last_made(messages([USER, SAID, USER])) is None


def test_reasoning_is_counted_by_its_words_and_bounded_by_all_that_it_holds() -> None:
    told = [{"type": "summary_text", "text": "First."}, {"type": "summary_text", "text": "Second."}]
    more = THOUGHT | {"content": [{"type": "reasoning_text", "text": "Third."}], "encrypted_content": "A" * 1000}
    (turn,) = messages([THOUGHT | {"summary": told}, more])
    assert turn["reasoning_content"] == "First.\nSecond.\nThird."
    assert read_prompt({"messages": [turn]}, roughly).under(None).total < 30
    assert most({"messages": [turn]}).under(None).total > 1000


def test_whatever_else_an_answer_holds_is_in_its_bound() -> None:
    assert most(response([SAID | {"new": "word " * 100}])).under(None).total > 100
    assert most(response([CALL | {"new": "word " * 100}])).under(None).total > 100


def test_answers_of_tools_hold_parts_too() -> None:
    shot = {
        "type": "computer_call_output",
        "call_id": "c",
        "output": {"type": "computer_screenshot", "image_url": DATA},
    }
    parts = OUTPUT | {"output": [{"type": "input_text", "text": "See:"}, {"type": "input_image", "image_url": DATA}]}
    first, second = messages([shot, parts])
    image = {"type": "image_url", "image_url": {"url": DATA, "detail": None}}
    assert first == {"role": "tool", "tool_call_id": "c", "content": [image]}
    assert second["content"] == [{"type": "text", "text": "See:"}, image]


def test_files_and_sound_are_parts_of_a_chat() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}}
    (said,) = messages(asked({"type": "input_file", "filename": "a.pdf", "file_data": "AAAA"}, sound))
    assert said["content"] == [{"type": "file", "file": {"filename": "a.pdf", "file_data": "AAAA"}}, sound]


def test_declared_tools_count_as_those_of_a_chat(counts: dict[str, Callable[[str], int]]) -> None:
    nested = {"type": "function", "function": {name: value for name, value in FLAT.items() if name != "type"}}
    flat, chat = response(tools=[FLAT]), {"messages": [USER | {"content": "hi"}], "tools": [nested]}
    of = [read_prompt(body, counts["o200k_base"]).under("o200k").total for body in (flat, chat)]
    assert of[0] == of[1]


def test_what_the_answer_is_to_look_like_is_said_as_in_a_chat() -> None:
    schema = {"name": "x", "schema": {"type": "object"}, "strict": True}
    found = response(text={"format": {"type": "json_schema", **schema}, "verbosity": "low", "new": "thing"})
    assert found["response_format"] == {"type": "json_schema", "json_schema": schema}
    assert (found["verbosity"], found["text"]) == ("low", {"new": "thing"})
    assert response(text={"format": {"type": "json_object"}})["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(
    ("members", "capabilities"),
    [
        ({}, ()),
        ({"text": {"format": {"type": "text"}}, "reasoning": {"effort": "none"}, "tools": [], "top_logprobs": 0}, ()),
        ({"include": ["message.input_image.image_url"]}, ()),
        ({"input": asked({"type": "input_file", "file_data": "AAAA"})}, ()),
        ({"tools": [FLAT]}, ("tools",)),
        ({"tools": [{"type": "custom", "name": "f"}]}, ("tools",)),
        ({"input": [USER, CALL]}, ("tools",)),
        ({"input": [OUTPUT]}, ("tools",)),
        ({"input": asked({"type": "input_image", "image_url": DATA})}, ("vision",)),
        ({"input": [OUTPUT | {"output": [{"type": "input_image", "image_url": DATA}]}]}, ("tools", "vision")),
        ({"input": asked({"type": "input_audio", "input_audio": {}})}, ("audio",)),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {}}}}, ("json_schema",)),
        ({"reasoning": {"effort": "low"}}, ("reasoning",)),
        ({"include": ["reasoning.encrypted_content"]}, ("reasoning",)),
        ({"include": ["reasoning.encrypted_content"], "reasoning": {"effort": "none"}}, ("reasoning",)),
        ({"include": ["message.output_text.logprobs"]}, ("logprobs",)),
        ({"top_logprobs": 3}, ("logprobs",)),
    ],
)
def test_a_response_needs_what_a_chat_would(members: Json, capabilities: tuple[Capability, ...]) -> None:
    assert read_needs(as_chat("responses", {"input": "hi"} | members), 1).capabilities == capabilities


def test_the_longest_answer_is_what_a_response_says_of_it() -> None:
    found = needs(max_output_tokens=100, max_tokens=5, max_completion_tokens=6)
    assert (found.max_output, found.longest) == (100, 100)
    assert needs(max_tokens=5).longest is needs(max_output_tokens=0).longest is None


def test_a_response_keeps_what_any_request_may_say() -> None:
    found = needs(service_tier="flex", tools=[FLAT | {"cache_control": {"type": "ephemeral"}}])
    assert (found.service, found.marks) == ("flex", True)
    assert response(temperature=0.5, new={"a": 1})["new"] == {"a": 1}


@pytest.mark.parametrize(
    "members",
    [
        {"previous_response_id": "resp_1"},
        {"conversation": {"id": "conv_1"}},
        {"background": True},
        {"prompt": {"id": "pmpt_1"}},
        {"context_management": [{"type": "compaction"}]},
        {"tools": [{"type": "web_search"}]},
        {"tools": [FLAT, {"type": "mcp", "server_label": "x"}]},
        {"models": ["a dearer one"]},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"input": [{"id": "msg_1"}]},
        {"input": [{"type": "reasoning", "id": "rs_1", "summary": []}]},
        {"input": [{"type": "web_search_call", "id": "ws_1"}]},
        {"input": [{"type": "image_generation_call", "id": "ig_1"}]},
        {"input": [{"type": "additional_tools", "role": "developer", "tools": [{"type": "web_search"}]}]},
        {"input": [{"type": "compaction_trigger"}]},
        {"input": asked({"type": "input_image", "image_url": "https://example.org/a.png"})},
        {"input": asked({"type": "input_image", "file_id": "file-1"})},
        {"input": asked({"type": "input_file", "file_id": "file-1"})},
        {"input": asked({"type": "input_file", "file_url": "https://example.org/a.pdf"})},
        {"input": asked({"type": "input_audio", "input_audio": {"data": "AAAA"}})},
        {"input": [OUTPUT | {"output": [{"type": "input_image", "image_url": "https://example.org/a.png"}]}]},
    ],
)
def test_what_may_be_charged_besides_a_responses_tokens_has_no_bound(members: Json) -> None:
    assert read_needs(as_chat("responses", {"input": "hi"} | members), 1).unbounded


@pytest.mark.parametrize(
    "given",
    [
        "hi",
        None,
        [USER, THOUGHT, SAID, CALL, OUTPUT, USER],
        asked({"type": "input_image", "image_url": DATA}),
        [
            {"type": "shell_call", "call_id": "c", "action": {}},
            {"type": "shell_call_output", "call_id": "c", "output": "x"},
        ],
        [{"type": "image_generation_call", "id": "ig_1", "result": "iVBORw0KGgo="}],
        [SAID | {"content": [{"type": "refusal", "refusal": "No."}]}],
    ],
)
def test_text_calls_and_images_that_are_there_have_one(given: object) -> None:
    assert not needs(given, tools=[FLAT], store=True, prompt=None).unbounded


ODD: list[Any] = [None, 5, True, "words of some length", ["words of some length"], {"words": "of some length"}]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("member", ["instructions", "input", "text", "tools", "include", "reasoning", "prompt"])
def test_a_member_of_an_unexpected_type_is_counted_as_it_is(member: str, odd: Any) -> None:
    found = as_chat("responses", {"model": "m", "input": "hi"} | {member: odd})
    assert read_needs(found, 1).choices == 1
    silent = member == "include" or odd in (None, 5, True)
    assert silent or most(found).under(None).total >= most(response("")).under(None).total + 3


def test_an_item_of_an_unknown_kind_is_a_part_of_an_unknown_kind() -> None:
    item = {"type": "something_new", "says": "a word " * 1000}
    assert messages([item]) == [{"content": [item]}]
    assert most(response([item])).under(None).total > 2000
    assert read_prompt(response([item]), roughly).under(None).total >= A_FILE


# --- text completions and embeddings


def test_prompts_and_the_suffix_are_bare_texts() -> None:
    found = as_chat(
        "completions", {"model": "m", "prompt": ["one", "two"], "suffix": "end", "echo": True, "best_of": 3}
    )
    assert found["messages"] == ["one", "two", "end"]
    assert as_chat("completions", {"prompt": "one", "n": 2})["messages"] == ["one"]
    assert as_chat("completions", {})["messages"] == []
    assert not {"prompt", "suffix", "echo", "best_of"} & found.keys()


@pytest.mark.parametrize(
    ("members", "longest"), [({}, 16), ({"max_tokens": None}, 16), ({"max_tokens": 99, "max_completion_tokens": 1}, 99)]
)
def test_a_text_completion_has_16_tokens_unless_it_says_how_many(members: Json, longest: int) -> None:
    found = read_needs(as_chat("completions", {"prompt": "x"} | members), 1)
    assert (found.max_output, found.longest, found.unbounded) == (longest, longest, False)


@pytest.mark.parametrize(("value", "asks"), [(3, True), (0, True), (None, False), (False, False)])
def test_a_number_of_logprobs_asks_for_them(value: object, asks: bool) -> None:
    assert (
        "logprobs" in read_needs(as_chat("completions", {"prompt": "x", "logprobs": value}), 1).capabilities
    ) is asks


def test_what_a_text_completion_finds_at_its_provider_has_no_bound() -> None:
    assert read_needs(as_chat("completions", {"prompt": {"id": "pmpt_1"}}), 1).unbounded


def test_embeddings_have_no_words() -> None:
    body = {"model": "m", "input": ["one", "two"], "dimensions": 256, "encoding_format": "base64", "max_tokens": 50}
    found = as_chat("embeddings", body)
    assert found == {"model": "m", "messages": ["one", "two"]}
    read = read_needs(found, 1)
    assert (read.max_output, read.longest, read.unbounded, read.capabilities) == (0, 0, False, ())


def test_no_body_that_a_client_sends_is_taken_for_one_without_words() -> None:
    body = json.loads(json.dumps(as_chat("embeddings", {"input": "x"})))
    assert read_needs(as_chat("chat/completions", body), 1).longest is None


def test_an_input_with_members_is_a_part_of_an_unknown_kind() -> None:
    found = as_chat("embeddings", {"input": [{"image": "https://example.org/a.png"}, "two"]})
    assert found["messages"] == [{"content": [{"image": "https://example.org/a.png"}]}, "two"]
    assert read_needs(found, 1).unbounded


@pytest.mark.parametrize("path", ["completions", "embeddings"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [1, 15, 16, 17, 3000])
def test_tokens_count_about_as_many(path: str, name: str, length: int, counts: dict[str, Callable[[str], int]]) -> None:
    tokens = [(each * 7919) % 100_000 for each in range(length)]
    (said,) = as_chat(path, {"prompt": tokens, "input": tokens})["messages"]
    count = counts[name](said if isinstance(said, str) else json.dumps(said, separators=(",", ":")))
    assert count == length if length > 15 else length <= count <= 4 * length
    assert not isinstance(said, str) or roughly(said) >= length


def test_lists_of_tokens_are_told_apart() -> None:
    lists = [[1], [2], [1, 2], list(range(20)), list(range(1, 21)), list(range(100)), [*range(99), 7]]
    found = as_chat("embeddings", {"input": lists})["messages"]
    assert len({json.dumps(said) for said in found}) == len(lists)


@pytest.mark.parametrize("odd", [5, True, 1.5, [True, 2], [[1, "a"]], [None, "one"], [[]], []])
def test_prompts_of_unexpected_types_are_read_and_counted(odd: object) -> None:
    for path in ("completions", "embeddings"):
        found = as_chat(path, {"prompt": odd, "input": odd})
        assert read_prompt(found, roughly).under(None).total <= most(found).under(None).total


# --- whatever comes

NAMED = st.sampled_from(
    "type role content text output input id call_id name arguments summary encrypted_content image_url file_id status "
    "tools detail refusal result format reasoning effort include instructions prompt suffix max_output_tokens".split()
)
KINDS = st.sampled_from(
    "message reasoning function_call function_call_output custom_tool_call web_search_call item_reference input_text "
    "output_text input_image input_file json_schema assistant user compaction image_generation_call".split()
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 300) | KINDS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMED, inner, max_size=5),
    max_leaves=20,
)
ITEMS = st.lists(st.dictionaries(NAMED, VALUES, max_size=6), max_size=5)
BODIES = st.builds(
    lambda body, items: body | items,
    st.dictionaries(NAMED, VALUES, max_size=4),
    st.fixed_dictionaries({"input": ITEMS}),
)
PATHS = st.sampled_from(["responses", "completions", "embeddings"])


@settings(deadline=None, max_examples=300)
@given(PATHS, BODIES)
def test_whatever_a_body_holds_is_read_counted_and_left_as_it_was(path: str, body: Json) -> None:
    before = copy.deepcopy(body)
    found = as_chat(path, body)
    needed = read_needs(found, 1)
    assert read_prompt(found, roughly).under(None).total <= most(found).under(None).total
    made = last_made(found["messages"])
    assert made is None or found["messages"][made]["role"] == "assistant"
    assert len(links_of(found, b"secret" * 8, b"")) == len(found["messages"]) + 1
    assert needed.unbounded in (True, False)
    assert body == before


@settings(deadline=None, max_examples=200)
@given(
    st.lists(
        st.tuples(st.sampled_from(["user", "assistant", "tool", "call", "system"]), st.text(min_size=20)), max_size=6
    )
)
def test_no_text_of_a_conversation_is_lost(turns: list[tuple[str, str]]) -> None:
    items = [item_of(role, text) for role, text in turns]
    told = list(strings(response(items)["messages"]))
    assert all(text in told for _, text in turns)


def item_of(role: str, text: str) -> Json:
    if role == "tool":
        return OUTPUT | {"output": text}
    if role == "call":
        return CALL | {"arguments": text}
    if role == "assistant":
        return SAID | {"content": [{"type": "output_text", "text": text, "annotations": []}]}
    return {"role": role, "content": text}


def strings(value: Any) -> list[str]:
    if isinstance(value, dict | list):
        return [text for each in (value.values() if isinstance(value, dict) else value) for text in strings(each)]
    return [value] if isinstance(value, str) else []
