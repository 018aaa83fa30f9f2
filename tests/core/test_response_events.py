"""The events that are made of a Response add up to it again, and look as OpenAI would have sent them."""

import copy
import itertools
import json
from collections.abc import Sequence
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given, settings
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from proxy.core.response_events import ENDS, assembled, streamed
from proxy.core.sse import Decoder, Event
from tests.core.making_responses import Json, message, odd_responses, response, responses, said

KINDS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
PLACED = {"type", "sequence_number", "output_index"}
INSIDE = PLACED | {"item_id", "content_index"}
SUMMED = PLACED | {"item_id", "summary_index"}
# What the reference requires of each event that is made here.
REQUIRED = {
    "response.created": {"type", "sequence_number", "response"},
    "response.in_progress": {"type", "sequence_number", "response"},
    "response.completed": {"type", "sequence_number", "response"},
    "response.incomplete": {"type", "sequence_number", "response"},
    "response.failed": {"type", "sequence_number", "response"},
    "response.output_item.added": PLACED | {"item"},
    "response.output_item.done": PLACED | {"item"},
    "response.content_part.added": INSIDE | {"part"},
    "response.content_part.done": INSIDE | {"part"},
    "response.output_text.delta": INSIDE | {"delta", "logprobs"},
    "response.output_text.done": INSIDE | {"text", "logprobs"},
    "response.output_text.annotation.added": INSIDE | {"annotation_index", "annotation"},
    "response.refusal.delta": INSIDE | {"delta"},
    "response.refusal.done": INSIDE | {"refusal"},
    "response.reasoning_text.delta": INSIDE | {"delta"},
    "response.reasoning_text.done": INSIDE | {"text"},
    "response.reasoning_summary_part.added": SUMMED | {"part"},
    "response.reasoning_summary_part.done": SUMMED | {"part"},
    "response.reasoning_summary_text.delta": SUMMED | {"delta"},
    "response.reasoning_summary_text.done": SUMMED | {"text"},
    "response.function_call_arguments.delta": PLACED | {"item_id", "delta"},
    "response.function_call_arguments.done": PLACED | {"item_id", "name", "arguments"},
    "response.custom_tool_call_input.delta": PLACED | {"item_id", "delta"},
    "response.custom_tool_call_input.done": PLACED | {"item_id", "input"},
}
MEMBERS = {"refusal": "refusal", "function_call_arguments": "arguments", "custom_tool_call_input": "input"}


def events_of(blocks: Sequence[bytes]) -> list[Event]:
    return Decoder(1 << 30).feed(b"".join(blocks))


def told(whole: Json) -> list[Json]:
    return [json.loads(event.data or b"") for event in events_of(streamed(whole))]


def plain(*events: object) -> list[Event]:
    """A stream without `event:` lines; bytes are no JSON of ours."""
    return events_of([b"data: " + (e if isinstance(e, bytes) else json.dumps(e).encode()) + b"\n\n" for e in events])


def done(item: Json, **members: Any) -> Json:
    return {"type": "response.output_item.done", "item": item} | members


@settings(deadline=None, max_examples=300)
@given(whole=responses() | odd_responses())
def test_the_events_of_a_response_add_up_to_it(whole: Json) -> None:
    before = copy.deepcopy(whole)
    events = events_of(streamed(whole))
    assert json.loads(assembled(events)) == before
    assert whole == before


@settings(deadline=None)
@given(whole=responses() | odd_responses())
def test_each_event_is_a_block_that_names_its_type_and_they_are_numbered(whole: Json) -> None:
    blocks = streamed(whole)
    events = events_of(blocks)
    assert [event.raw for event in events] == blocks
    said = [json.loads(event.data or b"") for event in events]
    assert [one["sequence_number"] for one in said] == list(range(len(events)))
    assert [one["type"].encode() for one in said] == [event.name for event in events]
    assert [one["type"] for one in said[:2]] == ["response.created", "response.in_progress"]
    assert [one["type"] in ENDS for one in said] == [False] * (len(said) - 1) + [True]


@settings(deadline=None)
@given(whole=responses())
def test_each_event_is_one_of_the_sdks_and_has_what_the_reference_requires(whole: Json) -> None:
    for event in told(whole):
        KINDS.validate_python(event)
        assert event.keys() == REQUIRED[event["type"]]


@settings(deadline=None, max_examples=60)
@given(whole=responses())
def test_what_comes_piece_by_piece_is_what_the_last_event_says(whole: Json) -> None:
    assert pieced(told(whole)[:-1]) == [less_late(item) for item in whole["output"]]


def pieced(events: list[Json]) -> list[Json]:
    """The items as an application has them that takes no event but those that bring something new."""
    output: list[Json] = []
    for event in events:
        match event["type"].removeprefix("response.").split("."):
            case ["output_item", "added"]:
                assert event["output_index"] == len(output)
                output.append(less_late(event["item"]))
            case [("content_part" | "reasoning_summary_part") as kind, "added"]:
                parts = output[event["output_index"]]["content" if kind == "content_part" else "summary"]
                assert event["content_index" if kind == "content_part" else "summary_index"] == len(parts)
                parts.append(event["part"])
            case [kind, "delta"]:
                place = part_of(output, event)
                place[MEMBERS.get(kind, "text")] += event["delta"]
                place.get("logprobs", []).extend(event.get("logprobs", ()))
            case ["output_text", "annotation", "added"]:
                annotations = part_of(output, event)["annotations"]
                assert event["annotation_index"] == len(annotations)
                annotations.append(event["annotation"])
            case ["output_text", "done"]:
                if event["logprobs"]:  # beside no text of their own, they come at its end
                    part_of(output, event)["logprobs"] = event["logprobs"]
            case _:
                pass
    return output


def part_of(output: list[Json], event: Json) -> Json:
    item = output[event["output_index"]]
    assert event["item_id"] == item.get("id", "")
    if "summary_index" in event:
        item = item["summary"][event["summary_index"]]
    elif "content_index" in event:
        item = item["content"][event["content_index"]]
    return item


def less_late(item: Json) -> Json:
    """An item less what only its end says."""
    return {name: value for name, value in item.items() if name not in ("status", "encrypted_content")}


@settings(deadline=None, max_examples=30)
@given(whole=responses())
def test_the_sdk_gathers_from_the_events_what_it_reads_of_the_json(whole: Json) -> None:
    for number, item in enumerate(whole["output"]):
        item["id"] = item["call_id"] = f"item_{number}"  # it refuses two items of one name
    whole |= {"status": "completed", "error": None, "incomplete_details": None}
    answers = [
        httpx.Response(200, headers={"content-type": "text/event-stream"}, content=b"".join(streamed(whole))),
        httpx.Response(200, json=whole),
    ]
    http: Any = httpx.Client(transport=httpx.MockTransport(lambda _: answers.pop(0)))
    with openai.OpenAI(api_key="k", http_client=http) as client:
        with client.responses.stream(model="m", input="Hi") as stream:
            gathered = stream.get_final_response()
        read = client.responses.parse(model="m", input="Hi")
    assert gathered.output_text == read.output_text
    assert gathered.to_dict() == read.to_dict()


def test_a_message_comes_as_openai_sends_it() -> None:
    cited = {"type": "file_path", "file_id": "f", "index": 0}
    item = message(said("Hello there", annotations=[cited], logprobs=[]), {"type": "refusal", "refusal": "No"})
    whole = response(item, usage={"total_tokens": 3}, completed_at=9)
    begun = whole | {"status": "in_progress", "output": [], "usage": None, "completed_at": None}
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    then = where | {"content_index": 1}
    expected: list[tuple[str, Json]] = [
        ("created", {"response": begun}),
        ("in_progress", {"response": begun}),
        ("output_item.added", {"output_index": 0, "item": item | {"status": "in_progress", "content": []}}),
        ("content_part.added", where | {"part": said("", logprobs=[])}),
        ("output_text.delta", where | {"delta": "Hello", "logprobs": []}),
        ("output_text.delta", where | {"delta": " there", "logprobs": []}),
        ("output_text.annotation.added", where | {"annotation_index": 0, "annotation": cited}),
        ("output_text.done", where | {"text": "Hello there", "logprobs": []}),
        ("content_part.done", where | {"part": item["content"][0]}),
        ("content_part.added", then | {"part": {"type": "refusal", "refusal": ""}}),
        ("refusal.delta", then | {"delta": "No"}),
        ("refusal.done", then | {"refusal": "No"}),
        ("content_part.done", then | {"part": item["content"][1]}),
        ("output_item.done", {"output_index": 0, "item": item}),
        ("completed", {"response": whole}),
    ]
    assert told(whole) == [
        {"type": f"response.{kind}", "sequence_number": number} | members
        for number, (kind, members) in enumerate(expected)
    ]


def test_a_text_with_logprobs_is_cut_by_its_tokens() -> None:
    tokens = [{"token": "Hel", "logprob": -0.1}, {"token": "lo world", "logprob": -0.2}]
    events = told(response(message(said("Hello world", logprobs=tokens))))
    deltas = [(e["delta"], e["logprobs"]) for e in events if e["type"] == "response.output_text.delta"]
    assert deltas == [("Hel", [tokens[0]]), ("lo world", [tokens[1]])]
    assert [e["logprobs"] for e in events if e["type"] == "response.output_text.done"] == [tokens]


@pytest.mark.parametrize("tokens", [[{"token": "\ufffd"}, {"token": "\ufffd"}], ["é"], [{}], [{"token": None}]])
def test_logprobs_that_do_not_make_up_the_text_come_whole_at_its_end(tokens: list[Any]) -> None:
    events = told(response(message(said("é", logprobs=tokens))))
    found = [(e["type"].rpartition(".")[2], e["logprobs"]) for e in events if "logprobs" in e]
    assert found == [("delta", []), ("done", tokens)]


def test_an_empty_text_has_no_delta() -> None:
    call = {"type": "function_call", "name": "f", "arguments": ""}
    events = told(response(message(said(""), said("", logprobs=[{}]), {"type": "refusal", "refusal": ""}), call))
    kinds = [event["type"].removeprefix("response.").rpartition(".") for event in events]
    assert not any(last == "delta" for _, _, last in kinds)
    assert [first for first, _, last in kinds if last == "done"].count("output_text") == 2


@pytest.mark.parametrize("name", [{}, {"id": None}, {"id": 5}])
def test_what_fills_an_item_without_an_id_names_none(name: Json) -> None:
    call = {"type": "function_call", "name": "f", "arguments": "{}"} | name
    assert [event.get("item_id") for event in told(response(call))[2:-1]] == [None, "", "", None]


def test_reasoning_comes_before_it_is_sealed() -> None:
    item = {
        "id": "rs_1",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "Hm"}],
        "content": [{"type": "reasoning_text", "text": "So"}],
        "encrypted_content": "gAAA",
    }
    events = told(response(item))[2:-1]
    assert events[0]["item"] == item | {"summary": [], "content": [], "encrypted_content": None}
    assert [event["type"].removeprefix("response.") for event in events[1:-1]] == [
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
    ]
    assert events[-1]["item"] == item


def test_the_arguments_and_inputs_of_calls_come_in_pieces() -> None:
    call = {"id": "fc", "type": "function_call", "name": "f", "call_id": "c", "arguments": '{"a": 1}'}
    custom = {"id": "ctc", "type": "custom_tool_call", "name": "sh", "call_id": "d", "input": "ls -l"}
    first, second = told(response(call | {"status": "completed"}, custom))[2:7], told(response(call, custom))[7:-1]
    assert first[0]["item"] == call | {"status": "in_progress", "arguments": ""}
    assert [event.get("delta") for event in first] == [None, '{"a":', " 1}", None, None]
    assert (first[3]["name"], first[3]["arguments"], first[3]["item_id"]) == ("f", '{"a": 1}', "fc")
    assert second[0]["item"] == custom | {"input": ""}
    assert [event.get("delta") for event in second] == [None, "ls", " -l", None, None]
    assert second[3]["input"] == "ls -l"


@pytest.mark.parametrize(
    "item",
    [
        {"id": "ws", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}},
        {"type": "openrouter:thing", "x": 1},
        {"type": "function_call", "name": "f", "arguments": None},
        {"type": ["message"], "content": [said("Hi")]},
        {},
        "item",
        None,
    ],
)
def test_any_other_item_comes_whole(item: Any) -> None:
    assert [(e["type"], e["item"]) for e in told(response(item))[2:-1]] == [
        ("response.output_item.added", item),
        ("response.output_item.done", item),
    ]


@pytest.mark.parametrize("part", [{"type": "output_audio", "data": "UklG"}, {"type": "output_text"}, "text", None, 5])
def test_any_other_part_comes_whole(part: Any) -> None:
    assert [(e["type"], e["part"]) for e in told(response(message(part)))[3:-2]] == [
        ("response.content_part.added", part),
        ("response.content_part.done", part),
    ]


@pytest.mark.parametrize("status", ["completed", "incomplete", "failed"])
def test_the_last_event_says_how_the_response_ended(status: str) -> None:
    assert told(response(status=status))[-1]["type"] == f"response.{status}"


@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelled", "created", None, 5, ["completed"]])
def test_a_response_that_is_not_complete_never_ends_as_if_it_were(status: object) -> None:
    assert told(response(status=status))[-1]["type"] == "response.incomplete"


def test_a_very_long_text_is_cut_in_linear_time() -> None:
    for words in (" " * 100_000, "x" * 100_000, "a " * 50_000):
        whole = response(message(said(words)))
        deltas = [event["delta"] for event in told(whole) if "delta" in event]
        assert "".join(deltas) == words
        assert max(map(len, deltas)) <= 48


def test_the_response_is_given_out_to_the_byte() -> None:
    raw = b'{"output":[ {"type":"message"} ],  "usage" : null, "temperature":1.0, "x":"\\u00e9"}'
    events = plain({"type": "response.created"}, b'{"type":"response.completed","response": ' + raw + b" }", b"[DONE]")
    assert assembled(events) == raw


@pytest.mark.parametrize("output", [{}, {"output": None}, {"output": []}])
def test_where_the_last_event_has_no_output_it_is_that_of_the_items_that_came(output: Json) -> None:
    """Some servers send it once only; one sends an empty list in its place."""
    a, b, c = (message(said(word), id=word) for word in "abc")
    end = {"type": "response.completed", "response": {"id": "r", "usage": None, **output, "model": "m"}}
    in_order = plain(done(a, output_index=0), done(b, output_index=1), done(c, output_index=2), end)
    mixed = plain(done(b, output_index=1), done(c, output_index=7), done(a, output_index=0), end, b"[DONE]")
    unplaced = plain(done(a), done(b, output_index=None), done(c, output_index="0"), end)
    for events in (in_order, mixed, unplaced):
        assert json.loads(assembled(events)) == {"id": "r", "usage": None, "model": "m", "output": [a, b, c]}


def test_an_item_that_is_done_twice_is_what_it_was_last() -> None:
    first, last = message(said("a")), message(said("ab"))
    end = {"type": "response.completed", "response": {}}
    events = plain(done(first, output_index=0), done(last, output_index=0), end)
    assert json.loads(assembled(events))["output"] == [last]


def test_an_output_that_was_said_is_not_replaced() -> None:
    kept, other = message(said("a")), message(said("b"))
    events = plain(done(other), {"type": "response.completed", "response": response(kept)})
    assert json.loads(assembled(events)) == response(kept)


def test_no_output_and_no_item_stays_so() -> None:
    wholes: list[Json] = [{"id": "r"}, {"output": []}, {"output": None}]
    for whole in wholes:
        events = plain(done({}) | {"item": None}, b"nonsense", {"type": "response.completed", "response": whole})
        assert json.loads(assembled(events)) == whole


def test_a_response_that_came_as_the_only_event_is_the_response() -> None:
    whole = response(message(said("Hi")))
    assert json.loads(assembled(plain(whole, b"[DONE]"))) == whole


@pytest.mark.parametrize(
    "last",
    [
        b"[DONE]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        {"type": "response.in_progress", "object": "response", "response": {"object": "response"}},
        {"type": "response.completed"},
        {"type": "response.completed", "response": None},
        {"type": "response.completed", "response": []},
        {"type": ["response.completed"], "response": {}},
    ],
)
def test_a_stream_without_an_end_has_no_response(last: object) -> None:
    with pytest.raises(ValueError, match="says how it ended"):
        assembled(plain({"type": "response.created", "response": {}}, last))
    assert json.loads(assembled(plain({"type": "response.failed", "response": {"a": 1}}, last))) == {"a": 1}


def test_the_types_of_all_events_that_are_made_are_tried() -> None:
    """Else the table of what is required would say less than it seems to."""
    item = message(said("a", annotations=[{"type": "file_path", "file_id": "f", "index": 0}]))
    item["content"].append({"type": "refusal", "refusal": "a"})
    thought: Json = {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "a"}]}
    thought["content"] = [{"type": "reasoning_text", "text": "a"}]
    call = {"type": "function_call", "name": "f", "arguments": "{}"}
    custom = {"type": "custom_tool_call", "name": "f", "input": "a"}
    wholes = [response(item, thought, call, custom, status=status) for status in ENDS.values()]
    made = {event["type"] for event in itertools.chain.from_iterable(map(told, wholes))}
    assert made == REQUIRED.keys()
