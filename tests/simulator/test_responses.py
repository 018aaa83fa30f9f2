"""What a Response says: the same in both forms and each time, of the types of the SDK, as long as was asked for."""

from collections import Counter
from typing import Any, Literal

import httpx
import msgspec
import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

from .asking import PATH as CHAT
from .asking import Json, content, request, settled
from .asking_responses import CUSTOM, FUNCTION, SEARCH, asking, lasting, refusal, text_of, told, types, whole

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
REASONS = "sim-reasoning;first=0;gap=0"
SHAPES: dict[str, Json] = {
    "text": {},
    "another text": {"temperature": 0.5, "instructions": "Be brief.", "metadata": {"a": "b"}},
    "items": {"input": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "And a weir?"}]},
    "parts": {"input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Weir?"}]}]},
    "cut short": {"max_output_tokens": 16, "model": "sim-instant;chunks=40"},
    "log probabilities": {"include": ["message.output_text.logprobs"], "top_logprobs": 3},
    "a function": {"tools": [FUNCTION], "tool_choice": "required"},
    "one function of two": {"tools": [FUNCTION, CUSTOM], "tool_choice": {"type": "function", "name": "open_gate"}},
    "a custom tool": {"tools": [CUSTOM], "tool_choice": {"type": "custom", "name": "shell"}},
    "a search": {"tools": [SEARCH], "include": ["web_search_call.action.sources"]},
    "a search and a function": {"tools": [SEARCH, FUNCTION]},
    "an object": {"text": {"format": {"type": "json_object"}, "verbosity": "low"}},
    "a schema": {"text": {"format": {"type": "json_schema", "name": "x", "schema": FUNCTION["parameters"]}}},
    "reasoning": {"model": REASONS},
    "a summary": {"model": REASONS, "reasoning": {"effort": "low", "summary": "auto"}},
    "reasoning, sealed": {"model": REASONS, "include": ["reasoning.encrypted_content"], "store": False},
    "reasoning, shown": {"model": REASONS + ";thoughts", "reasoning": {"summary": "detailed"}},
    "reasoning cut short": {"model": REASONS, "max_output_tokens": 16, "input": "7", "reasoning": {"summary": "auto"}},
    "a refusal": {"model": "sim-instant;refusal"},
    "nothing": {"model": "sim-instant;empty"},
    "filtered": {"model": "sim-instant;finish=content_filter"},
    "failed": {"model": "sim-instant;failed"},
    "no usage": {"model": "sim-instant;nousage"},
    "two hundred bytes more": {"model": "sim-instant;big=200"},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_stream_ends_with_the_json_answer(wire: httpx.Client, shape: str) -> None:
    body = asking(**SHAPES[shape])
    last = told(wire, body)[-1]
    answer = whole(wire, body)
    assert last["type"] == f"response.{answer['status']}"
    assert lasting(last["response"]) == lasting(answer)


@pytest.mark.parametrize("shape", SHAPES)
def test_everything_said_is_of_the_sdks_types(wire: httpx.Client, shape: str) -> None:
    body = asking(**SHAPES[shape])
    assert Response.model_validate(whole(wire, body)).object == "response"
    for event in told(wire, body):
        assert EVENT.validate_python(event).type == event["type"]


@pytest.mark.parametrize("shape", SHAPES)
def test_the_deltas_of_each_item_spell_it(wire: httpx.Client, shape: str) -> None:
    events = told(wire, asking(**SHAPES[shape]))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    said: Counter[tuple[Any, ...]] = Counter()
    spelled: dict[tuple[Any, ...], str] = {}
    for event in events:
        *_, what, step = event["type"].split(".")
        place = (what, event.get("item_id"), event.get("content_index", event.get("summary_index")))
        if step == "delta":
            spelled[place] = spelled.get(place, "") + event["delta"]
            said[place] += 1
        elif step == "done" and place in spelled:
            (ending,) = {"text", "refusal", "arguments", "input"} & set(event)
            assert spelled.pop(place) == event[ending]
    assert not spelled or events[-1]["type"] == "response.failed"
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == events[-1]["response"]["output"]


def test_all_kinds_of_events_are_told(wire: httpx.Client) -> None:
    said = {event["type"] for shape in SHAPES.values() for event in told(wire, asking(**shape))}
    assert said == {
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.output_item.done",
        "response.content_part.added",
        "response.content_part.done",
        "response.output_text.delta",
        "response.output_text.annotation.added",
        "response.output_text.done",
        "response.refusal.delta",
        "response.refusal.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.custom_tool_call_input.delta",
        "response.custom_tool_call_input.done",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_part.done",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.web_search_call.in_progress",
        "response.web_search_call.searching",
        "response.web_search_call.completed",
        "response.completed",
        "response.incomplete",
        "response.failed",
    }


def test_a_text_is_told_as_openai_tells_it(wire: httpx.Client) -> None:
    events = told(wire, asking(model="sim-instant;chunks=2"))
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    begun = events[1]["response"]
    assert (begun["status"], begun["output"], begun["usage"]) == ("in_progress", [], None)
    assert (events[2]["item"]["status"], events[2]["item"]["content"]) == ("in_progress", [])
    assert {event["response"]["id"] for event in (events[0], events[1], events[-1])} == {begun["id"]}


def test_the_sdk_makes_its_response_of_the_stream(client: openai.OpenAI) -> None:
    tools: Any = [FUNCTION]
    for body in (asking(), asking(tools=tools, tool_choice="required"), asking(model=REASONS, tools=[SEARCH])):
        with client.responses.stream(**body) as stream:
            final = stream.get_final_response()
        assert lasting(unparsed(final.to_dict())) == lasting(client.responses.create(**body).to_dict())


def unparsed(response: Any) -> Json:
    """Less what the SDK adds to a stream's."""
    for item in response["output"]:
        for each in (item, *item.get("content", ())):
            each.pop("parsed_arguments", None)
            each.pop("parsed", None)
    found: Json = response
    return found


class Sluice(BaseModel):
    kind: Literal["sluice"]
    metres: float
    gates: list[str]
    owner: str | None


def test_the_sdk_parses_an_object_of_the_callers_class(client: openai.OpenAI) -> None:
    parsed = client.responses.parse(**asking(), text_format=Sluice).output_parsed
    assert isinstance(parsed, Sluice)
    with client.responses.stream(**asking(), text_format=Sluice) as stream:
        assert stream.get_final_response().output_parsed == parsed


def test_bad_json_on_demand_is_not_json(wire: httpx.Client) -> None:
    body = asking(model="sim-instant;badjson", text={"format": {"type": "json_object"}})
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(text_of(whole(wire, body)))


def test_the_same_request_is_answered_the_same_under_a_new_id(wire: httpx.Client) -> None:
    one, other = (whole(wire, asking(tools=[FUNCTION])) for _ in range(2))
    assert lasting(one) == lasting(other)
    assert one["id"] != other["id"]


def test_form_and_book_keeping_do_not_change_the_words(wire: httpx.Client) -> None:
    plain = text_of(whole(wire, asking()))
    kept = {"metadata": {"a": "b"}, "user": "someone", "store": False, "include": ["message.output_text.logprobs"]}
    listed = [{"type": "message", "role": "user", "content": "What does a sluice do?"}]
    assert text_of(whole(wire, asking(**kept))) == text_of(whole(wire, asking(listed))) == plain
    assert text_of(whole(wire, asking(temperature=0.3))) != plain


def test_usage_is_the_one_that_the_tally_counts(wire: httpx.Client) -> None:
    long = [{"role": "user", "content": "x" * 6000}, {"role": "user", "content": "And now?"}]
    body = asking(long, model=REASONS)
    usage = whole(wire, body)["usage"]
    told(wire, body)
    served = settled(wire)["by_model"]["sim-reasoning"]
    assert served["calls"] == 2
    assert served["prompt_tokens"] == 2 * usage["input_tokens"]
    assert served["completion_tokens"] == 2 * usage["output_tokens"]
    assert served["cached_tokens"] == 2 * usage["input_tokens_details"]["cached_tokens"] > 0
    assert 0 < usage["output_tokens_details"]["reasoning_tokens"] < usage["output_tokens"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


@pytest.mark.parametrize("shape", [name for name in SHAPES if name != "failed"])
def test_both_forms_count_the_same_tokens(wire: httpx.Client, shape: str) -> None:
    body = asking(**SHAPES[shape])
    name = body["model"].partition(";")[0]
    whole(wire, body)
    one = settled(wire)["by_model"][name]
    told(wire, body)
    assert settled(wire)["by_model"][name] == {figure: 2 * count for figure, count in one.items()}


def test_a_prompt_has_as_many_tokens_as_the_same_chat(wire: httpx.Client) -> None:
    chat = wire.post(CHAT, json=request()).json()
    assert whole(wire, asking())["usage"]["input_tokens"] == chat["usage"]["prompt_tokens"]
    assert content(chat)


def test_a_limit_cuts_and_says_so(wire: httpx.Client) -> None:
    answer = whole(wire, asking(model="sim-instant;chunks=40", max_output_tokens=16))
    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert answer["output"][-1]["status"] == "incomplete"
    assert answer["usage"]["output_tokens"] == 16
    filtered = whole(wire, asking(**SHAPES["filtered"]))
    assert filtered["incomplete_details"] == {"reason": "content_filter"}


def test_a_failure_keeps_nothing_and_costs_nothing(wire: httpx.Client) -> None:
    answer = whole(wire, asking(model="sim-instant;failed"))
    assert (answer["status"], answer["output"], answer["usage"]) == ("failed", [], None)
    assert answer["error"]["code"] == "server_error"
    events = told(wire, asking(model="sim-instant;failed;chunks=5"))
    assert [event["type"] for event in events[-2:]] == ["response.output_text.delta", "response.failed"]
    counts = settled(wire)
    assert (counts["failed"], counts["by_model"]["sim-instant"]["completion_tokens"]) == (2, 0)


def test_what_was_asked_is_echoed(wire: httpx.Client) -> None:
    asked = {
        "instructions": "Be brief.",
        "max_output_tokens": 200,
        "metadata": {"team": "a"},
        "parallel_tool_calls": False,
        "store": False,
        "temperature": 0.25,
        "tool_choice": "none",
        "top_p": 0.5,
        "truncation": "auto",
        "user": "someone",
    }
    echoed = whole(wire, asking(**asked, tools=[FUNCTION], service_tier="flex", reasoning={"effort": "low"}))
    assert {name: echoed[name] for name in asked} == asked
    assert echoed["tools"] == [{"description": None, "strict": True, **FUNCTION}]
    assert (echoed["service_tier"], echoed["reasoning"]) == ("flex", {"effort": "low", "summary": None})
    plain = whole(wire, asking())
    assert (plain["tool_choice"], plain["tools"], plain["temperature"]) == ("auto", [], 1.0)
    assert plain["text"] == {"format": {"type": "text"}, "verbosity": "medium"}


def test_reasoning_comes_first_and_shows_what_was_asked(wire: httpx.Client) -> None:
    bare, *_ = whole(wire, asking(model=REASONS))["output"]
    assert bare == {"id": bare["id"], "type": "reasoning", "summary": []}
    asked = {"reasoning": {"summary": "auto"}, "include": ["reasoning.encrypted_content"]}
    shown, message = whole(wire, asking(model=f"{REASONS};thoughts", **asked))["output"]
    assert message["type"] == "message"
    assert "".join(part["text"] for part in shown["summary"]) == shown["content"][0]["text"] != ""
    assert shown["encrypted_content"]


def test_a_search_is_cited_within_the_text(wire: httpx.Client) -> None:
    answer = whole(wire, asking(tools=[SEARCH], include=["web_search_call.action.sources"]))
    search, message = answer["output"]
    (part,) = message["content"]
    (cited,) = part["annotations"]
    assert (search["status"], search["action"]["type"]) == ("completed", "search")
    assert [source["url"] for source in search["action"]["sources"]] == [cited["url"]]
    assert 0 <= cited["start_index"] < cited["end_index"] <= len(part["text"])
    assert types(whole(wire, asking(tools=[SEARCH], tool_choice="none"))) == ["message"]


def test_a_tools_result_is_answered_in_words(wire: httpx.Client) -> None:
    body = asking(tools=[FUNCTION, CUSTOM])
    called = whole(wire, body)["output"]
    assert {item["type"] for item in called} <= {"function_call", "custom_tool_call"}
    results = [{"type": f"{i['type']}_output", "call_id": i["call_id"], "output": "done"} for i in called]
    conversation = [{"role": "user", "content": body["input"]}, *called, *results]
    assert types(whole(wire, {**body, "input": conversation})) == ["message"]


def test_only_allowed_tools_are_called(wire: httpx.Client) -> None:
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "custom", "name": "shell"}]}
    for number in range(8):
        answer = whole(wire, asking(str(number), tools=[FUNCTION, CUSTOM, SEARCH], tool_choice=choice))
        assert set(types(answer)) == {"custom_tool_call"}


def test_two_calls_at_once_happen_unless_they_are_forbidden(wire: httpx.Client) -> None:
    def counts(**members: Any) -> set[int]:
        return {len(types(whole(wire, asking(str(n), tools=[FUNCTION], **members)))) for n in range(16)}

    assert counts() == {1, 2}
    assert counts(parallel_tool_calls=False) == {1}


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"type": "poem"}]}, "input[0].type"),
        ({"input": [{"type": ["poem"]}]}, "input[0].type"),
        ({"input": [{"role": "poet", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": 1}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f"}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]}, "input"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input"),
        ({"max_output_tokens": 15}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"truncation": "never"}, "truncation"),
        ({"tools": [{"type": "poem"}]}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice"),
        ({"text": {"format": {"type": "poem"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.name"),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options"),
        ({"background": True, "store": False}, "background"),
        ({"model": "sim-embed"}, "model"),
    ],
)
def test_a_bad_member_is_named(wire: httpx.Client, members: Json, param: str) -> None:
    error = refusal(wire, asking(**members))
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


def test_an_unknown_model_is_not_found(wire: httpx.Client) -> None:
    assert refusal(wire, asking(model="gpt-0"), 404)["code"] == "model_not_found"
