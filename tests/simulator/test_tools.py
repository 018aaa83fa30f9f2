"""Which tools are called, and with what."""

from typing import Any

import msgspec
import openai
import pytest

from .asking import Json, as_json, request

GATE = {
    "type": "object",
    "properties": {
        "gate": {"type": "string", "enum": ["north", "south"]},
        "metres": {"type": "number", "minimum": 0, "maximum": 5},
        "times": {"type": "integer"},
        "slowly": {"type": "boolean"},
        "notes": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["gate"],
}
TOOLS: list[Json] = [
    {"type": "function", "function": {"name": "open_gate", "parameters": GATE}},
    {"type": "function", "function": {"name": "read_level"}},
]


def message(client: openai.OpenAI, text: str = "Open it", **members: Any) -> Json:
    found: Json = as_json(client, request(text, **members))["choices"][0]["message"]
    return found


def names(said: Json) -> list[str]:
    return [call["function"]["name"] for call in said.get("tool_calls", ())]


def test_a_users_message_calls_a_tool(client: openai.OpenAI) -> None:
    answer = as_json(client, request(tools=TOOLS))
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert "content" not in choice["message"]
    assert set(names(choice["message"])) <= {"open_gate", "read_level"}


def test_a_tools_result_is_answered_in_words(client: openai.OpenAI) -> None:
    body = request(tools=TOOLS)
    called = client.chat.completions.create(**body).choices[0].message
    assert called.tool_calls
    results = [{"role": "tool", "tool_call_id": call.id, "content": "done"} for call in called.tool_calls]
    body["messages"] = [*body["messages"], called.to_dict(), *results]
    said = as_json(client, body)["choices"][0]
    assert said["message"]["content"]
    assert said["finish_reason"] == "stop"


def test_none_forbids_and_required_demands_a_call(client: openai.OpenAI) -> None:
    assert "tool_calls" not in message(client, tools=TOOLS, tool_choice="none")
    body = request(tools=TOOLS, tool_choice="required")
    body["messages"] = [*body["messages"], {"role": "assistant", "content": "Well."}]
    assert as_json(client, body)["choices"][0]["message"]["tool_calls"]


def test_a_named_tool_is_called_once(client: openai.OpenAI) -> None:
    wanted = {"type": "function", "function": {"name": "read_level"}}
    for n in range(8):
        assert names(message(client, f"{n}", tools=TOOLS, tool_choice=wanted)) == ["read_level"]


def test_only_allowed_tools_are_called(client: openai.OpenAI) -> None:
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "read_level"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    for n in range(8):
        assert set(names(message(client, f"{n}", tools=TOOLS, tool_choice=choice))) == {"read_level"}


def test_two_calls_at_once_happen_unless_they_are_forbidden(client: openai.OpenAI) -> None:
    free = {len(names(message(client, f"{n}", tools=TOOLS))) for n in range(16)}
    single = {len(names(message(client, f"{n}", tools=TOOLS, parallel_tool_calls=False))) for n in range(16)}
    assert free == {1, 2}
    assert single == {1}


def test_arguments_fit_the_parameters(client: openai.OpenAI) -> None:
    wanted = {"type": "function", "function": {"name": "open_gate"}}
    (call,) = message(client, tools=TOOLS, tool_choice=wanted)["tool_calls"]
    given = msgspec.json.decode(call["function"]["arguments"])
    assert set(given) == set(GATE["properties"])
    assert given["gate"] in {"north", "south"}
    assert 0 <= given["metres"] <= 5
    assert isinstance(given["times"], int)
    assert isinstance(given["slowly"], bool)
    assert all(isinstance(note, str) for note in given["notes"])


def test_a_function_without_parameters_gets_an_empty_object(client: openai.OpenAI) -> None:
    wanted = {"type": "function", "function": {"name": "read_level"}}
    (call,) = message(client, tools=TOOLS, tool_choice=wanted)["tool_calls"]
    assert call["function"]["arguments"] == "{}"


def test_a_custom_tool_gets_plain_text(client: openai.OpenAI) -> None:
    tools = [{"type": "custom", "custom": {"name": "shell"}}]
    call = message(client, tools=tools)["tool_calls"][0]
    assert call["type"] == "custom"
    assert call["custom"]["name"] == "shell"
    assert call["custom"]["input"]


def test_a_legacy_function_is_called_the_old_way(client: openai.OpenAI) -> None:
    functions = [{"name": "open_gate", "parameters": GATE}]
    choice = as_json(client, request(functions=functions))["choices"][0]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"]["name"] == "open_gate"
    assert "function_call" not in message(client, functions=functions, function_call="none")
    assert "function_call" in message(client, functions=functions, function_call={"name": "open_gate"})


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tools": [{"type": "web"}]}, "tools"),
        ({"tools": TOOLS, "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"tool_choice": "auto"}, "tool_choice"),
    ],
)
def test_tools_that_make_no_sense_are_refused(client: openai.OpenAI, members: Json, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        message(client, **members)
    assert refused.value.param == param


def test_the_sdk_parses_the_arguments_of_a_strict_tool(client: openai.OpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "open_gate", "strict": True, "parameters": GATE}}
    with client.chat.completions.stream(**request(), tools=[tool]) as stream:
        calls = stream.get_final_completion().choices[0].message.tool_calls
    assert calls
    assert isinstance(calls[0].function.parsed_arguments, dict)
