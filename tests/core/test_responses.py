"""A Response is whole once it says how it ended, whether it comes event by event or as one body."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.progress import FAILED_FINISHES
from proxy.core.response_events import streamed
from proxy.core.responses import ResponseProgress, output_texts
from proxy.core.sse import Decoder
from tests.core.making_responses import (
    Json,
    message,
    odd_responses,
    put_somewhere,
    response,
    responses,
    said,
    values,
)


def progress(*events: object) -> ResponseProgress:
    found = ResponseProgress(1)
    for event in events:
        found.take(event if isinstance(event, bytes) else json.dumps(event).encode())
    return found


def data_of(whole: Json) -> list[bytes]:
    return [event.data or b"" for event in Decoder(1 << 30).feed(b"".join(streamed(whole)))]


def delta(words: object, kind: str = "output_text") -> Json:
    return {"type": f"response.{kind}.delta", "output_index": 0, "delta": words}


def end(*output: Any, kind: str = "completed", **members: Any) -> Json:
    return {"type": f"response.{kind}", "response": response(*output, status=kind) | members}


HI = message(said("Hi"))
WHOLE = end(HI)
CREATED = {"type": "response.created", "response": response(status="in_progress")}


def test_a_stream_is_whole_once_its_response_is_complete() -> None:
    found = progress(CREATED, delta("Hi"))
    assert (found.begun, found.finished, found.truncated, found.flaw()) == (True, False, True, "unfinished")
    found.take(json.dumps(WHOLE).encode())
    assert (found.finished, found.truncated, found.flaw()) == (True, False, None)


def test_a_body_is_judged_as_a_stream_is() -> None:
    found = progress(response(HI, usage={"total_tokens": 3}, service_tier="flex"))
    assert (found.begun, found.finished, found.truncated, found.flaw()) == (True, True, False, None)
    assert (found.usage, found.service, bool(found.substance)) == ({"total_tokens": 3}, "flex", True)


@settings(deadline=None)
@given(whole=responses() | odd_responses())
def test_a_response_is_judged_alike_in_both_forms(whole: Json) -> None:
    whole |= {"object": "response", "status": str(whole.get("status"))}
    body, stream = progress(whole), progress(*data_of(whole))
    assert (stream.usage, stream.error) == (body.usage, body.error)
    assert stream.service == body.service
    if body.finished:
        assert stream.flaw() == body.flaw()
    else:
        assert {stream.flaw(), body.flaw()} <= {"unfinished", "malformed", "error"}


@settings(deadline=None)
@given(whole=responses())
def test_only_a_response_that_ended_well_and_says_something_is_kept(whole: Json) -> None:
    speaks = any(
        item["type"].endswith("_call") or any(part.get("text") or part.get("refusal") for part in item["content"])
        for item in whole["output"]
        if item["type"] != "reasoning"
    )
    well = whole["status"] == "completed" or whole["incomplete_details"] == {"reason": "max_output_tokens"}
    for found in (progress(whole), progress(*data_of(whole))):
        assert (found.flaw() is None) is (well and speaks)
        assert (found.finished, found.malformed, found.error) == (True, False, None)


def test_nothing_at_all_is_not_whole() -> None:
    found = ResponseProgress(1)
    assert (found.begun, found.finished, found.truncated, found.flaw()) == (False, False, True, "unfinished")


def test_done_is_neither_needed_nor_enough() -> None:
    found = progress(CREATED, delta("Hi"))
    found.done = True
    assert not found.truncated  # HTTP ended as the provider wanted it to
    assert found.flaw() == "unfinished"
    assert not progress(WHOLE).done


def test_a_response_that_ends_twice_is_not_to_be_trusted() -> None:
    assert progress(WHOLE, WHOLE).flaw() == "unfinished"
    assert progress(WHOLE, end(HI, kind="incomplete")).flaw() == "unfinished"
    assert progress(WHOLE, response(HI)).flaw() == "unfinished"


@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelled", "thinking", None, 5, ["completed"], {}])
def test_a_response_of_any_other_status_is_not_finished(status: object) -> None:
    found = progress(response(HI, status=status))
    assert (found.finished, found.truncated, found.flaw()) == (False, True, "unfinished")


@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelled", 5, ["completed"]])
def test_an_end_whose_response_says_that_it_goes_on_is_not_kept(status: object) -> None:
    found = progress(end(HI) | {"response": response(HI, status=status)})
    assert (found.finished, found.truncated, found.flaw()) == (True, False, "unfinished")


def test_an_end_need_not_say_its_status_twice() -> None:
    whole = response(HI)
    del whole["status"]
    assert progress({"type": "response.completed", "response": whole}).flaw() is None
    assert progress({"type": "response.incomplete", "response": whole}).flaw() is None
    assert progress({"type": "response.failed", "response": whole}).flaw() == "error"


def test_an_answer_that_ran_out_of_tokens_is_kept() -> None:
    for event in (
        end(HI, kind="incomplete", incomplete_details={"reason": "max_output_tokens"}),
        end(HI, kind="incomplete", incomplete_details=None),
        response(HI, status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
    ):
        assert progress(event).flaw() is None


@pytest.mark.parametrize("reason", sorted(FAILED_FINISHES))
def test_an_answer_that_was_cut_by_the_provider_is_filtered(reason: str) -> None:
    why = {"reason": reason}
    assert progress(end(HI, kind="incomplete", incomplete_details=why)).flaw() == "filtered"
    assert progress(end(HI, kind="completed", incomplete_details=why)).flaw() == "filtered"
    assert progress(response(HI, status="incomplete", incomplete_details=why)).flaw() == "filtered"


@pytest.mark.parametrize("details", ["content_filter", 5, ["content_filter"], {}, {"reason": ["content_filter"]}])
def test_a_reason_of_no_shape_is_none(details: object) -> None:
    assert progress(end(HI, kind="incomplete", incomplete_details=details)).flaw() is None


def test_a_response_that_says_it_failed_ends_cleanly_and_is_not_kept() -> None:
    why = {"code": "server_error", "message": "No."}
    for event in (
        end(HI, kind="failed", error=why),
        response(HI, status="failed", error=why),
        response(HI, status="failed", error=None),
        {"type": "response.failed", "response": response(HI)},
        end(HI, error=why),
        {"type": "response.completed", "response": response(HI, status="failed")},
    ):
        found = progress(event)
        assert (found.error, found.finished, found.truncated, found.flaw()) == (None, True, False, "error")


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (
            {"type": "error", "code": "server_error", "message": "No.", "param": None, "sequence_number": 3},
            {"type": "error", "code": "server_error", "message": "No.", "param": None},
        ),
        ({"type": "error", "sequence_number": 3, "error": {"message": "No."}}, {"message": "No."}),
        ({"error": {"message": "No.", "code": 503}}, {"message": "No.", "code": 503}),
        ({"error": "overloaded"}, "overloaded"),
        ({"type": "response.output_text.delta", "delta": "a", "error": {"code": 5}}, {"code": 5}),
        ({"error": {}}, {"error": {}}),
        ({"type": "error"}, {"type": "error"}),
    ],
)
def test_an_error_is_remembered_as_it_was_said(event: Json, error: object) -> None:
    found = progress(CREATED, event, WHOLE)
    assert (found.error, found.flaw()) == (error, "error")


def test_an_error_that_says_null_is_none() -> None:
    assert progress({**delta("Hi"), "error": None}, {**WHOLE, "error": None}).flaw() is None


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"{", b"nonsense", b"[1]", b"null", b'"text"', b"\xff", b'{"a":"\x00"}', b"[" * 100_000),
        b'{"type":"response.created","x":"\xff"}',
        b'{"type":"x","x":' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"object":"response","output":' + b'[{"a":' * 200 + b"1" + b"}]" * 200 + b"}",
    ],
)
def test_an_event_that_cannot_be_read_is_malformed(data: bytes) -> None:
    assert progress(WHOLE, data).flaw() == "malformed"


@pytest.mark.parametrize("words", [None, 5, True, ["a"], {"text": "a"}])
@pytest.mark.parametrize(
    "kind",
    [
        *("output_text", "refusal", "function_call_arguments", "custom_tool_call_input"),
        *("reasoning_text", "reasoning_summary_text"),
    ],
)
def test_a_delta_that_is_no_text_is_malformed(kind: str, words: object) -> None:
    found = progress(delta(words, kind))
    assert (found.malformed, list(found.substance)) == (True, [])
    assert progress(delta(words, kind), WHOLE).flaw() == "malformed"


@pytest.mark.parametrize("whole", [None, 5, "x", [], [1]])
def test_an_end_without_a_response_is_malformed(whole: object) -> None:
    assert progress({"type": "response.completed", "response": whole}).flaw() == "malformed"
    assert progress({"type": "response.completed"}).flaw() == "malformed"


@pytest.mark.parametrize("output", ["x", 5, False, {"a": 1}])
def test_an_output_that_is_no_list_is_malformed(output: object) -> None:
    assert progress(response(output=output)).flaw() == "malformed"
    assert progress(delta("Hi"), end() | {"response": response(output=output)}).flaw() == "malformed"


def test_events_that_nobody_knows_do_no_harm() -> None:
    others = [{"type": "keepalive", "sequence_number": 3}, {}, {"type": None}, {"type": ["error"]}, {"type": "x.delta"}]
    assert progress(*others, CREATED, {"type": "response.x.delta", "delta": 5}, WHOLE).flaw() is None
    assert not progress(*others).begun


@pytest.mark.parametrize(
    "event",
    [
        delta("a"),
        delta("a", "refusal"),
        delta("a", "function_call_arguments"),
        delta("a", "custom_tool_call_input"),
        {"type": "response.output_text.done", "text": "a"},
        {"type": "response.refusal.done", "refusal": "a"},
        {"type": "response.function_call_arguments.done", "arguments": "{}"},
        {"type": "response.custom_tool_call_input.done", "input": "a"},
        {"type": "response.output_item.added", "item": {"type": "function_call", "arguments": ""}},
        {"type": "response.output_item.added", "item": {"type": "web_search_call"}},
        {"type": "response.output_item.done", "item": HI},
        WHOLE,
        response(HI),
    ],
)
def test_what_says_something_is_substance_at_once(event: Json) -> None:
    assert not progress(CREATED).substance
    for found in (progress(CREATED, event), progress(event)):
        assert found.substance
        assert found.begun


@pytest.mark.parametrize(
    "event",
    [
        CREATED,
        delta(""),
        delta("Hm", "reasoning_text"),
        delta("Hm", "reasoning_summary_text"),
        {"type": "response.output_text.done", "text": ""},
        {"type": "response.output_text.done", "text": ["a"]},
        {"type": "response.refusal.done"},
        {"type": "response.reasoning_text.done", "text": "Hm"},
        {"type": "response.output_item.added", "item": message()},
        {"type": "response.output_item.added", "item": {"type": "reasoning", "summary": []}},
        {"type": "response.output_item.added", "item": None},
        {"type": "response.x.added", "item": HI},
        {"type": "response.content_part.added", "part": said("")},
    ],
)
def test_what_says_nothing_is_no_substance(event: Json) -> None:
    assert not progress(event).substance


@pytest.mark.parametrize(
    "item",
    [
        HI,
        message(said(""), said("Hi")),
        message({"type": "refusal", "refusal": "No"}),
        {"type": "function_call", "name": "f", "arguments": ""},
        {"type": "custom_tool_call", "name": "f", "input": ""},
        {"type": "web_search_call"},
        {"type": "mcp_approval_request"},
        {"type": "program"},
    ],
)
def test_texts_refusals_and_calls_are_answers(item: Json) -> None:
    assert progress(response(item)).flaw() is progress(end(item)).flaw() is None


@pytest.mark.parametrize(
    "item",
    [
        message(),
        message(said("")),
        message(said(""), {"type": "refusal", "refusal": ""}),
        message({"type": "output_text", "text": 5}, {"type": "summary_text", "text": "Hm"}, None, "Hi"),
        {"type": "message", "content": "Hi"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm"}], "encrypted_content": "gAAA"},
        {"type": "compaction", "encrypted_content": "gAAA"},
        {"type": ["function_call"]},
        {},
        "Hi",
        None,
    ],
)
def test_reasoning_alone_or_nothing_is_empty(item: Any) -> None:
    assert progress(response(item)).flaw() == progress(delta("Hi"), end(item)).flaw() == "empty"
    assert progress(response()).flaw() == progress(end()).flaw() == "empty"


@pytest.mark.parametrize("output", [{}, {"output": None}, {"output": []}])
def test_an_output_that_only_came_item_by_item_counts(output: Json) -> None:
    last = {"type": "response.completed", "response": {"id": "r", "status": "completed", "usage": None} | output}
    assert progress(CREATED, {"type": "response.output_item.done", "item": HI}, last).flaw() is None
    # Not so one whose items never were whole: as JSON, this answer would say nothing.
    assert progress(CREATED, {"type": "response.output_item.added", "item": HI}, delta("Hi"), last).flaw() == "empty"


def test_a_stream_as_other_servers_send_it_is_whole() -> None:
    """No `event:` lines, no numbers, no usage, no output at the end, and a `[DONE]` that nobody passes on."""
    item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]}
    found = progress(
        {"type": "response.created", "response": {"id": "r"}},
        {"type": "response.output_text.delta", "delta": "Hi"},
        {"type": "response.output_item.done", "item": item},
        {"type": "response.completed", "response": {"id": "r", "usage": None}},
    )
    assert (found.flaw(), found.usage, found.has_usage) == (None, None, True)


def test_usage_and_service_are_the_last_that_a_response_says() -> None:
    first = {"type": "response.in_progress", "response": {"usage": {"total_tokens": 1}, "service_tier": "auto"}}
    last = {"type": "response.completed", "response": {"usage": {"total_tokens": 5}, "service_tier": "flex"}}
    assert progress(CREATED).usage is None
    assert progress(CREATED).service is None
    found = progress(first, last, {"type": "response.x", "response": {"usage": None, "service_tier": None}})
    assert (found.usage, found.service) == ({"total_tokens": 5}, "flex")
    assert progress({"type": "response.x", "response": {"usage": "odd", "service_tier": ["odd"]}}).service is None


EVENTS = [json.loads(data) for data in data_of(response(HI, {"type": "function_call", "arguments": "{}"}))]
EVENTS += [response(HI), {"type": "error", "code": "x", "message": "m"}, {"error": {"message": "m"}}]


@settings(deadline=None, max_examples=500)
@given(st.data())
def test_no_nonsense_is_too_odd_to_be_taken(data: st.DataObject) -> None:
    found = ResponseProgress(data.draw(st.integers(0, 3)))
    for event in data.draw(st.lists(st.sampled_from(EVENTS), max_size=4)):
        odd = json.loads(json.dumps(event))
        put_somewhere(data.draw, odd, lambda: data.draw(values))
        found.take(json.dumps(odd).encode())
        assert found.flaw() in ("error", "malformed", "unfinished", "filtered", "empty", None)
        assert found.truncated is not found.finished
        assert found.service is None or isinstance(found.service, str)
        output_texts(odd)


def test_the_texts_of_an_output_are_those_of_its_messages() -> None:
    whole = response(
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]},
        message(said('{"a":'), {"type": "refusal", "refusal": "No"}, said("1}")),
        {"type": "function_call", "name": "f", "arguments": "{}"},
        {"type": "web_search_call", "content": [said("found")]},
        message({"type": "refusal", "refusal": "No"}),
        message(),
        message(said("")),
        message(said("b")),
    )
    assert output_texts(whole) == ['{"a":1}', "", "b"]


@pytest.mark.parametrize("output", [None, "x", 5, {}, [None, 5, "x", [], {}], [message(None), {"type": "message"}]])
def test_an_odd_output_has_no_texts(output: Any) -> None:
    assert output_texts({"output": output}) == []
    assert output_texts({}) == []
