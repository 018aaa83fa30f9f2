"""Lines of batches: what they ask, their results, and when a request is sent again."""

import json
from typing import Any

import pytest

from proxy.core.batch import (
    ENDPOINTS,
    Answer,
    Failure,
    Request,
    Wrong,
    again,
    digest_of,
    error_line,
    may_be_torn,
    pause,
    read_request,
    read_result,
    result_id,
    result_line,
)
from proxy.core.dialect import BY_PATH

BODY = '{"model": "m",  "messages": []}'


def line(**members: Any) -> bytes:
    said = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m"}, **members}
    return json.dumps({name: value for name, value in said.items() if value is not ...}).encode()


def result(answer: Answer | Failure) -> Any:
    written = result_line(digest_of(b"line"), "one", answer)
    assert written.count(b"\n") == 1
    return json.loads(written)


def answer(status: int = 200, body: bytes = b"{}", **headers: str) -> Answer:
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


@pytest.mark.parametrize("url", ["chat/completions", "responses", "embeddings", "completions"])
def test_a_line_is_a_request_whose_body_stays_to_the_byte(url: str) -> None:
    written = f'{{"custom_id":"one", "method":"POST","url":"/v1/{url}","body": {BODY} ,"more":1}}\r\n'
    assert read_request(written.encode()) == Request("one", f"/v1/{url}", BODY.encode())


@pytest.mark.parametrize(
    ("written", "code", "custom_id"),
    [
        (b"not json", "invalid_json_line", None),
        (b"[]", "invalid_json_line", None),
        (b'{"custom_id": "one"', "invalid_json_line", None),
        (b'\xff{"custom_id": "one"}', "invalid_json_line", None),
        (b'{"custom_id": "\\ud800"}', "invalid_json_line", None),
        (b"[" * 100_000, "invalid_json_line", None),
        (line(custom_id=...), "missing_custom_id", None),
        (line(custom_id=""), "missing_custom_id", None),
        (line(custom_id=7), "missing_custom_id", None),
        (line(method="GET"), "invalid_method", "one"),
        (line(method=...), "invalid_method", "one"),
        (line(url="/v1/images/generations"), "invalid_url", "one"),
        (line(url="/chat/completions"), "invalid_url", "one"),
        (line(url=["/v1/chat/completions"]), "invalid_url", "one"),
        (line(body=...), "invalid_body", "one"),
        (line(body="{}"), "invalid_body", "one"),
        (line(body=[]), "invalid_body", "one"),
        (line(body={"stream": True}), "stream_not_supported", "one"),
    ],
)
def test_a_line_that_is_no_request_says_why(written: bytes, code: str, custom_id: str | None) -> None:
    found = read_request(written)
    assert isinstance(found, Wrong)
    assert (found.code, found.custom_id) == (code, custom_id)
    assert found.message.endswith(".")


def test_what_is_wrong_is_quoted_shortly() -> None:
    found = read_request(line(url="x" * 10_000))
    assert isinstance(found, Wrong)
    assert len(found.message) < 300


@pytest.mark.parametrize("stream", [False, None, "true", 1])
def test_only_a_stream_is_refused_and_all_else_is_for_the_proxy_to_say(stream: object) -> None:
    assert isinstance(read_request(line(body={"stream": stream})), Request)


def test_an_id_says_which_text_is_answered_whatever_blanks_are_around_it() -> None:
    assert digest_of(b" {} \r\n") == digest_of(b"{}")
    assert digest_of(b"{ }") != digest_of(b"{}")
    assert result_id(digest_of(b"{}")) == "batch_req_44136fa355b3678a1146ad16f7e8649e"


def test_a_result_holds_the_answer_and_its_body_to_the_byte_in_one_line() -> None:
    body = b'{\r\n  "id": "x",\n  "n": 1.10, "text": "a\\nb\xe2\x80\xa8" }\n'
    written = result_line(digest_of(b"line"), "one", answer(body=body, x_request_id="req_1"))
    assert b'"body":{    "id": "x",   "n": 1.10, "text": "a\\nb\xe2\x80\xa8" }' in written
    assert result(answer(body=body, x_request_id="req_1")) == {
        "id": result_id(digest_of(b"line")),
        "custom_id": "one",
        "response": {"status_code": 200, "request_id": "req_1", "body": json.loads(body)},
        "error": None,
    }


def test_an_error_that_is_an_answer_stays_in_its_line() -> None:
    found = result(answer(400, b'{"error": {"code": "bad"}}', x_penstock_request_id="req_ours"))
    assert found["error"] is None
    assert found["response"]["status_code"] == 400
    assert found["response"]["request_id"] == "req_ours"
    assert found["response"]["body"] == {"error": {"code": "bad"}}


@pytest.mark.parametrize(
    ("body", "held"),
    [
        (b"<p>\xff\n</p>", "<p>\ufffd\n</p>"),
        (b'{"cut": ', '{"cut": '),
        (b"", ""),
        (b'{"half": "\\ud800"}', {"half": "\ud800"}),
        (b'"\xff"', '"\ufffd"'),
    ],
)
def test_a_body_that_is_no_json_is_a_text(body: bytes, held: object) -> None:
    assert result(answer(502, body))["response"]["body"] == held


def test_what_was_not_answered_is_an_error() -> None:
    found = result(Failure("connection_lost", "It broke."))
    assert (found["response"], found["error"]) == (None, {"code": "connection_lost", "message": "It broke."})
    written = json.loads(error_line(digest_of(b"x"), None, Wrong("invalid_json_line", "No.")))
    assert (written["custom_id"], written["error"]["code"]) == (None, "invalid_json_line")
    assert again("one").custom_id == "one"


def test_a_result_says_whose_it_is_and_whether_it_is_good() -> None:
    digest = digest_of(b"line")
    assert read_result(result_line(digest, "one", answer(200))) == (digest, True)
    assert read_result(result_line(digest, "one", answer(429))) == (digest, False)
    assert read_result(result_line(digest, "one", Failure("lost", "."))) == (digest, False)
    good = json.loads(result_line(digest, "one", answer(200)))
    assert read_result(json.dumps({**good, "error": {}}).encode()) == (digest, False)
    for other in ({**good, "id": "batch_req_xyz"}, {**good, "id": 7}, {**good, "response": 1}):
        assert read_result(json.dumps(other).encode()) is None
    for torn in (b"", b"[]", b'{"id": "batch', b"\xff"):
        assert read_result(torn) is None


def test_what_a_kill_has_torn_is_known_by_its_beginning() -> None:
    whole = result_line(digest_of(b"line"), "one", answer(200))
    assert all(may_be_torn(whole[:length]) for length in range(len(whole)))
    assert not any(map(may_be_torn, (b"nonsense", b'{"id":"other', b"\0\0\0", b"{}")))


def test_every_endpoint_that_is_recorded_may_be_asked() -> None:
    assert list(ENDPOINTS.values()) == list(BY_PATH)


def paused(found: Answer, *, waited: float = 0.0, tries: int = 0, luck: float = 0.5) -> float | None:
    return pause(found, waited=waited, tries=tries, now=0.0, luck=luck)


@pytest.mark.parametrize("status", [200, 400, 401, 500, 502, 504])
def test_only_429_and_503_are_tried_again(status: int) -> None:
    assert paused(answer(status, retry_after="1")) is None


@pytest.mark.parametrize("status", [429, 503])
def test_a_request_waits_as_long_as_it_is_told_and_a_little_more_by_chance(status: int) -> None:
    found = paused(answer(status, retry_after="7"), luck=0.9)
    assert found is not None
    assert 7 < found < 8
    assert paused(answer(status, retry_after="7"), luck=0.0) == 7
    assert paused(answer(status, retry_after_ms="250"), luck=0.0) == 0.25
    assert paused(answer(status, retry_after="Thu, 01 Jan 1970 00:00:09 GMT"), luck=0.0) == 9
    assert paused(answer(status, retry_after="7", x_should_retry="false")) is None


def test_without_a_word_each_pause_is_longer_than_the_one_before_up_to_a_bound() -> None:
    pauses = [paused(answer(429), tries=tries, luck=0.0) for tries in range(12)]
    assert pauses[:4] == [0.25, 0.5, 1.0, 2.0]
    assert pauses[-1] == 15
    assert paused(answer(429), tries=10**6, luck=0.0) == 15


def test_nobody_waits_for_ever() -> None:
    assert paused(answer(503, retry_after="200"), waited=99.0, luck=0.0) == 200
    assert paused(answer(503, retry_after="200"), waited=101.0, luck=0.0) is None
    assert paused(answer(429, retry_after="200"), waited=101.0, luck=0.0) == 200
    assert paused(answer(429, retry_after="86400"), luck=0.0) is None


def test_nobody_waits_for_an_account_without_money() -> None:
    said = (
        b'{"error": {"message": "You exceeded your quota", "type": "insufficient_quota", "code": "insufficient_quota"}}'
    )
    assert pause(Answer(429, {}, said), waited=0, tries=0, now=0, luck=0.5) is None
    assert pause(Answer(429, {}, b'{"error": {"code": "rate_limit"}}'), waited=0, tries=0, now=0, luck=0.5) is not None
