"""What differs between the endpoints: an answer in its other form, a fresh id or none, how a failure is told."""

import json
from typing import Any, get_args

import pytest

from proxy.core.call import read_call
from proxy.core.dialect import BY_NAME, BY_PATH, CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, Dialect, Endpoint
from proxy.core.sse import PLAIN, Decoder, Event
from proxy.core.view import ID_MARK, as_json, template_of
from proxy.errors import UpstreamFailed, UpstreamTruncated

USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello there"}, "finish_reason": "stop"}],
    "usage": USAGE,
}
TEXT: dict[str, Any] = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "text": "Hello there", "logprobs": None, "finish_reason": "stop"}],
    "usage": USAGE,
}
RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "output": [
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Hello there", "annotations": []}],
        }
    ],
    "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
}
ANSWERS = [(CHAT, COMPLETION), (COMPLETIONS, TEXT), (RESPONSES, RESPONSE)]


def body(value: object) -> list[Event]:
    return [Event(json.dumps(value).encode(), None, None)]


def stream_of(dialect: Dialect, answer: dict[str, Any]) -> list[Event]:
    return Decoder().feed(b"".join(dialect.cut(answer, True)))


@pytest.mark.parametrize(("dialect", "answer"), ANSWERS)
def test_an_answer_comes_back_from_its_other_form(dialect: Dialect, answer: dict[str, Any]) -> None:
    assert json.loads(dialect.joined(stream_of(dialect, answer))) == answer


@pytest.mark.parametrize(("dialect", "answer"), ANSWERS)
@pytest.mark.parametrize("stream", [True, False])
def test_an_id_is_fresh_where_it_names_nothing_at_the_provider(
    dialect: Dialect, answer: dict[str, Any], stream: bool
) -> None:
    template = template_of(dialect, "json", body(answer), stream=stream, usage=True, usage_asked=False)
    assert (len(template) > 1) == (dialect is not RESPONSES)
    assert (answer["id"].encode() in b"".join(template)) == (dialect is RESPONSES)
    assert ID_MARK not in b"".join(template)


@pytest.mark.parametrize(("dialect", "answer"), ANSWERS)
def test_whole_answers_of_either_form_have_no_flaw(dialect: Dialect, answer: dict[str, Any]) -> None:
    whole, streamed = dialect.progress(1), dialect.progress(1)
    whole.take(json.dumps(answer).encode())
    for event in stream_of(dialect, answer):
        if event.data is not None and not event.is_done:
            streamed.take(event.data)
    assert (whole.flaw(), streamed.flaw()) == (None, None)
    assert whole.usage == streamed.usage == answer["usage"]


def test_a_stream_without_usage_says_it_to_nobody_and_a_response_to_all() -> None:
    assert all(b"usage" not in block for block in CHAT.cut(COMPLETION, False))
    assert all(b"usage" not in block for block in COMPLETIONS.cut(TEXT, False))
    assert b'"input_tokens":1' in RESPONSES.cut(RESPONSE, False)[-1]


def test_what_an_answer_says_is_told_where_json_may_have_been_asked_for() -> None:
    assert CHAT.texts(COMPLETION) == RESPONSES.texts(RESPONSE) == ["Hello there"]


@pytest.mark.parametrize("dialect", [CHAT, COMPLETIONS, RESPONSES])
def test_a_failure_is_one_event_in_which_every_sdk_finds_the_error(dialect: Dialect) -> None:
    (event,) = Decoder().feed(dialect.failure(UpstreamTruncated("cut")))
    told = json.loads(event.data or b"")
    assert told["error"]["code"] == "upstream_truncated"
    assert (told.get("type") == "error") == (event.name == b"error") == (dialect is RESPONSES)


@pytest.mark.parametrize("said", ["no", None, ["x"], {"message": "no", "code": 7}])
def test_whatever_a_provider_calls_an_error_can_be_told(said: object) -> None:
    (event,) = Decoder().feed(RESPONSES.failure(UpstreamFailed(said)))
    assert json.loads(event.data or b"")["type"] == "error"


def test_every_path_and_every_name_has_its_dialect() -> None:
    assert tuple(BY_NAME) == get_args(Endpoint)
    assert {path: dialect.name for path, dialect in BY_PATH.items()} == {
        "chat/completions": "chat",
        "completions": "completions",
        "responses": "responses",
        "embeddings": "embeddings",
    }
    for path, dialect in BY_PATH.items():
        assert read_call(path, b'{"model":"m"}', {}).dialect is dialect


def test_a_list_of_vectors_is_whole_if_it_is_a_list() -> None:
    for said, flaw in (
        ({"data": [{"embedding": [1]}]}, None),
        ({"data": {}}, "unfinished"),
        ({"error": {"message": "no"}}, "error"),
        ([], "malformed"),
    ):
        progress = EMBEDDINGS.progress(1)
        progress.take(json.dumps(said).encode())
        assert progress.flaw() == flaw


def test_a_stored_stream_of_a_response_is_given_as_json_to_the_byte() -> None:
    raw = b'{"id":"resp_1","object":"response","status":"completed","output":[{"type":"x_call","n":1.50}],"usage":null}'
    event = Event(b'data: {"type":"response.completed","response":' + raw + b"}\n\n", PLAIN, None)
    assert as_json(RESPONSES, "stream", [event], new_id=None) == raw
