"""Two inputs of a Response are one only if they mean the same; for messages of a chat, see test_canonical.py."""

import copy
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from proxy.core.canonical import canonical

IGNORE = ("user", "metadata")
Json = dict[str, Any]

USER: Json = {"role": "user", "content": "hi"}
PART: Json = {"type": "input_text", "text": "hi"}
CALL: Json = {"type": "function_call", "id": "fc_one", "call_id": "call_one", "name": "f", "arguments": "{}"}
OUTPUT: Json = {"type": "function_call_output", "call_id": "call_one", "output": "22"}


def of(given: object, **members: Any) -> bytes:
    return canonical({"model": "m", "input": given} | members, IGNORE)


@pytest.mark.parametrize(
    "form",
    [
        [USER],
        [USER | {"type": "message"}],
        [{"role": "user", "content": [PART]}],
        [{"content": [PART], "role": "user", "type": "message"}],
    ],
)
def test_a_text_is_the_users_only_message_in_each_of_its_forms(form: object) -> None:
    assert of(form) == of("hi")


def test_anything_more_is_another_request() -> None:
    others: list[Any] = [
        "hi",
        ["hi"],
        "",
        [],
        [USER, USER],
        [{"role": "system", "content": "hi"}],
        [{"role": "assistant", "content": "hi"}],
        [{"role": "assistant", "content": [PART]}],
        [{"role": "assistant", "content": [{"type": "output_text", "text": "hi"}]}],
        [{"role": "user", "content": [PART, PART]}],
        [{"role": "user", "content": [PART | {"prompt_cache_breakpoint": {"mode": "explicit"}}]}],
        [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        [{"role": "user", "content": [{"text": "hi"}]}],
        [{"role": "user", "content": ["hi"]}],
        [{"role": "user", "content": PART}],
        [{"role": "user", "content": None}],
        [{"role": "user"}],
        [USER | {"id": "msg_1"}],
        [USER | {"status": "completed"}],
        [USER | {"type": None}],
        [USER | {"type": "reasoning"}],
        [{"content": "hi"}],
        [{"type": "message", "content": "hi"}],
        USER,
        None,
    ]
    assert len({of(other) for other in others}) == len(others)


@pytest.mark.parametrize("role", ["user", "system", "developer"])
def test_who_asks_may_say_a_text_as_a_part(role: str) -> None:
    other = {"role": "user", "content": "go on"}
    assert of([{"role": role, "content": [PART]}, other]) == of([{"role": role, "content": "hi"}, other])


def test_a_type_that_is_not_that_of_a_message_stays() -> None:
    assert of([{"type": "message", "id": "msg_1"}]) != of([{"id": "msg_1"}])
    assert of([USER | {"type": ["message"]}]) != of([USER])


def renamed(items: list[Json], names: dict[str, str]) -> list[Json]:
    return [
        {key: names.get(value, value) if key in ("id", "call_id") else value for key, value in item.items()}
        for item in items
    ]


KINDS: list[Json] = [
    CALL,
    OUTPUT | {"id": "fco_one"},
    {"type": "custom_tool_call", "id": "ctc_one", "call_id": "call_one", "name": "f", "input": "x"},
    {"type": "custom_tool_call_output", "call_id": "call_one", "output": "x"},
    {"type": "message", "id": "msg_one", "role": "assistant", "content": []},
    {"type": "reasoning", "id": "rs_one", "summary": [], "encrypted_content": "gAAAA"},
]


@pytest.mark.parametrize("item", KINDS, ids=[each["type"] for each in KINDS])
def test_ids_matter_only_by_what_they_tie_together(item: Json) -> None:
    ids = [item[name] for name in ("id", "call_id") if name in item]
    assert of([item]) == of(renamed([item], {each: f"another_{at}" for at, each in enumerate(ids)}))
    assert of([item, item]) != of([item, *renamed([item], dict.fromkeys(ids, "another"))])


@pytest.mark.parametrize(
    "item",
    [
        {"type": "item_reference", "id": "msg_one"},
        {"id": "msg_one"},
        {"type": "reasoning", "id": "msg_one", "summary": []},
        {"type": "reasoning", "id": "msg_one", "encrypted_content": ""},
        {"type": "web_search_call", "id": "msg_one", "status": "completed"},
        {"type": "image_generation_call", "id": "msg_one"},
        {"type": "something_new", "id": "msg_one", "call_id": "call_one"},
        {"type": "message", "id": "msg_one"},
        {"type": ["message"], "id": "msg_one"},
    ],
)
def test_an_id_that_names_what_the_provider_holds_stays(item: Json) -> None:
    assert of([USER, item]) != of([USER, item | {"id": "msg_two"}])


def test_answers_that_are_exchanged_between_calls_differ() -> None:
    def asked(first: str, second: str) -> bytes:
        calls = [CALL, CALL | {"call_id": "call_two", "id": "fc_two"}]
        return of([*calls, OUTPUT | {"call_id": first}, OUTPUT | {"call_id": second, "output": "23"}])

    assert asked("call_one", "call_two") != asked("call_two", "call_one")
    assert asked("call_one", "call_six") != asked("call_one", "call_two")


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("where", ["text", "item", "top"])
def test_ids_that_are_named_elsewhere_are_not_renamed(where: str, *, short: bool) -> None:
    one, two, six = ("1", "2", "6") if short else ("call_one", "call_two", "call_six")

    def asked(first: str, second: str) -> bytes:
        names: dict[str, Json] = {
            "text": {"role": "user", "content": one if short else f"what did {one} say?"},
            "item": {"type": "mcp_approval_response", "approval_request_id": one, "approve": True},
            "top": USER,
        }
        calls = [CALL | {"call_id": first}, CALL | {"call_id": second, "id": "fc_two"}]
        return of([*calls, names[where]], seen=one if where == "top" else "")

    assert asked(one, two) != asked(two, one)
    assert asked(six, two) == asked(two, six)


def test_no_new_name_is_taken_for_an_id_that_stays() -> None:
    """In the first, nothing is named; in the second, the call is."""
    naming = {"type": "mcp_approval_response", "approval_request_id": "0", "approve": True}
    assert of([CALL | {"id": "fc_one", "call_id": "fc_one"}, naming]) != of(
        [CALL | {"id": "0", "call_id": "0"}, naming]
    )
    assert of([CALL | {"call_id": ""}]) != of([CALL | {"call_id": "x"}]) != of([CALL | {"call_id": None}])


@pytest.mark.parametrize("given", ["hi", ["hi", "ho"], [1, 2], [[1], [2]], [USER, "hi"], [USER, None], [], {"a": 1}])
def test_what_is_no_list_of_items_is_left_as_it_is(given: object) -> None:
    assert of(given).endswith(canonical({"input": given}, ())[1:-1] + b',"model":"m"}')


def test_an_input_beside_messages_or_a_prompt_is_left_as_it_is() -> None:
    assert of([USER], messages=[USER]) != of("hi", messages=[USER])
    assert of([USER], prompt="x") != of("hi", prompt="x")


# --- by properties

IDS = st.sampled_from(["call_a", "call_b", "call_c", "0", "1", "=0", ""])
TEXTS = st.sampled_from(["", "hi", "ho", "0", "call_a", "is call_b done?"])
CONTENTS = (
    TEXTS
    | st.none()
    | st.lists(
        st.fixed_dictionaries(
            {"type": st.sampled_from(["input_text", "output_text", "text"])}, optional={"text": TEXTS, "detail": TEXTS}
        ),
        max_size=2,
    )
)
ITEMS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(
                ["message", "function_call", "function_call_output", "reasoning", "item_reference", "web_search_call"]
            ),
            "role": st.sampled_from(["user", "assistant", "system", "developer"]),
            "content": CONTENTS,
            "id": IDS,
            "call_id": IDS | st.none(),
            "output": TEXTS,
            "encrypted_content": TEXTS,
        },
    )
    | st.sampled_from([USER, CALL, OUTPUT, *KINDS]),
    max_size=3,
)
INPUTS = TEXTS | ITEMS | st.lists(TEXTS, max_size=2)


def meaning(given: Any) -> Any:
    """What an input means, as a value: the reference for `canonical`. Ids are what they tie together, and no more."""
    if not isinstance(given, list) or not given or not all(isinstance(item, dict) for item in given):
        return frozen([user(given)] if isinstance(given, str) else given)
    ids: list[str] = []
    telling = [value for item in given for key, value in item.items() if (key in ids_of(item)) and value]
    rest = [value for item in given for key, value in item.items() if key not in ids_of(item)]
    named = any(word in text if len(word) >= 6 else word == text for word in telling for text in strings(rest))
    return frozen([item_meaning(item, ids, named=named) for item in given])


def user(text: str) -> Json:
    return {"role": "user", "content": text}


def ids_of(item: Json) -> tuple[str, ...]:
    kind = item.get("type", "message")
    if kind == "message":
        return ("id",) if "role" in item and "content" in item else ()
    if kind == "reasoning":
        return ("id",) if item.get("encrypted_content") else ()
    return ("id", "call_id") if kind.startswith(("function_call", "custom_tool_call")) else ()


def item_meaning(item: Json, ids: list[str], *, named: bool) -> Json:
    told = dict(item)
    for name in ids_of(item):
        if (old := told.get(name)) and not named:
            if old not in ids:
                ids.append(old)
            told[name] = ("id", ids.index(old))
    if item.get("type", "message") == "message" and "role" in item and "content" in item:
        told.pop("type", None)
        content = item["content"]
        if item["role"] != "assistant" and isinstance(content, list) and len(content) == 1:
            part = content[0]
            if part.keys() == {"type", "text"} and part["type"] == "input_text":
                told["content"] = part["text"]
    return told


def strings(value: Any) -> list[str]:
    if isinstance(value, dict | list):
        return [text for each in (value.values() if isinstance(value, dict) else value) for text in strings(each)]
    return [value] if isinstance(value, str) else []


def frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return ("object", frozenset((name, frozen(item)) for name, item in value.items()))
    if isinstance(value, list):
        return ("array", tuple(map(frozen, value)))
    return value


@settings(deadline=None, max_examples=400)
@given(one=INPUTS, other=INPUTS)
def test_inputs_are_the_same_exactly_if_they_mean_the_same(one: Any, other: Any) -> None:
    assert (of(one) == of(other)) is (meaning(one) == meaning(other))


@settings(deadline=None, max_examples=400)
@given(items=ITEMS, data=st.data())
def test_any_change_of_an_item_matters_exactly_if_it_changes_the_meaning(
    items: list[Json], data: st.DataObject
) -> None:
    assume(items)
    changed = copy.deepcopy(items)
    item = data.draw(st.sampled_from(changed))
    name = data.draw(st.sampled_from(["type", "role", "content", "id", "call_id", "output", "encrypted_content"]))
    if name in item and data.draw(st.booleans()):
        del item[name]
    else:
        item[name] = data.draw({"content": CONTENTS, "id": IDS, "call_id": IDS}.get(name, TEXTS))
    assert (of(changed) == of(items)) is (meaning(changed) == meaning(items))


@settings(deadline=None, max_examples=200)
@given(items=ITEMS, order=st.permutations(["fresh_a", "fresh_b", "fresh_c", "fresh_d", "fresh_e", "fresh_f"]))
def test_other_ids_are_the_same_request_unless_they_are_named(items: list[Json], order: list[str]) -> None:
    words = dict(zip(["call_a", "call_b", "call_c", "0", "1", "=0"], order, strict=True))
    other = [
        {key: words.get(value, value) if key in ids_of(item) else value for key, value in item.items()}
        for item in items
    ]
    assert (of(other) == of(items)) is (meaning(other) == meaning(items))


@settings(deadline=None, max_examples=100)
@given(given=INPUTS)
def test_an_input_is_left_as_it_was(given: Any) -> None:
    before = copy.deepcopy(given)
    of(given)
    assert given == before
