"""Every option does what it says."""

from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import openai
import pytest

from proxy.simulator.behaviour import Behaviour, parse
from proxy.simulator.errors import ApiError

from .asking import PATH, as_json, content, events, request, settled


def streamed(wire: httpx.Client, options: str, **members: Any) -> httpx.Response:
    return wire.post(PATH, json=request(model=f"sim-instant;{options}", stream=True, **members))


def until_broken(chunks: Iterator[bytes]) -> tuple[bytes, bool]:
    """What came, and whether the connection broke instead of ending."""
    received = bytearray()
    try:
        for chunk in chunks:
            received += chunk
    except httpx.TransportError:
        return bytes(received), True
    return bytes(received), False


def test_the_grammar_reads_suffix_and_header() -> None:
    name, behaviour = parse("sim-small;first=0.5; gap=0.02;nodone;status=503;retry-after=1;should-retry=false", "gap=1")
    assert name == "sim-small"
    assert behaviour == Behaviour(first=0.5, gap=1.0, nodone=True, status=503, retry_after="1", should_retry=False)
    assert parse("sim-small", "") == ("sim-small", Behaviour())


@pytest.mark.parametrize(
    ("model", "named"),
    [
        ("m;bogus=1;worse", "bogus, worse"),
        ("m;retry_after=1", "retry_after"),
        ("m;cut=x", "cut=x"),
        ("m;cut=-1", "cut=-1"),
        ("m;status=200", "status=200"),
        ("m;first=nan", "first=nan"),
        ("m;retry-after=a\nb", "retry-after=a"),
        ("m;retry-after-ms=1;nodone=maybe", "nodone=maybe"),
        ("m;comments=0", "comments=0"),
        ("m;header=no value", "header=no value"),
        ("m;header=a b:c", "header=a b:c"),
        ("m;cookie=a,b", "cookie=a,b"),
        ("m;cut_at=1", "cut_at"),
    ],
)
def test_an_option_that_does_not_exist_or_fit_is_named(model: str, named: str) -> None:
    with pytest.raises(ApiError, match=named) as refused:
        parse(model, "")
    assert refused.value.status == 400


def test_the_header_asks_for_the_same_as_the_suffix(wire: httpx.Client) -> None:
    response = wire.post(PATH, json=request(), headers={"x-simulator": "status=418"})
    assert response.status_code == 418
    assert wire.post(PATH, json=request(), headers={"x-simulator": "bogus"}).status_code == 400


def test_chunks_sets_the_number_of_content_chunks(wire: httpx.Client) -> None:
    assert len(events(streamed(wire, "chunks=50"))) == 1 + 50 + 1 + 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 422, 429, 500, 502, 503, 529])
def test_status_fails_in_openais_shape(client: openai.OpenAI, status: int) -> None:
    with pytest.raises(openai.APIStatusError) as failed:
        as_json(client, request(model=f"sim-instant;status={status}"))
    assert failed.value.status_code == status
    assert isinstance(failed.value.body, dict)
    assert set(failed.value.body) == {"message", "type", "param", "code"}


def test_an_error_says_when_to_try_again(wire: httpx.Client) -> None:
    response = streamed(wire, "status=429;retry-after=7;retry-after-ms=50;should-retry=false")
    assert response.json()["error"]["code"] == "rate_limit_exceeded"
    told = {name: response.headers[name] for name in ("retry-after", "retry-after-ms", "x-should-retry")}
    assert told == {"retry-after": "7", "retry-after-ms": "50", "x-should-retry": "false"}


def test_fail_spares_later_calls_of_the_same_request_only(wire: httpx.Client) -> None:
    def status(text: str) -> int:
        return wire.post(PATH, json=request(text, model="sim-instant;fail=2;status=500")).status_code

    assert [status("a"), status("b"), status("a"), status("a"), status("b"), status("b")] == [500] * 3 + [200, 500, 200]


def test_fail_alone_means_503(wire: httpx.Client) -> None:
    codes = [streamed(wire, "fail=1;retry-after-ms=1").status_code for _ in range(2)]
    assert codes == [503, 200]


def test_fail_limits_any_fault(wire: httpx.Client) -> None:
    first, second = (events(streamed(wire, "fail=1;error=1;chunks=2")) for _ in range(2))
    assert "error" in first[-1]
    assert second[-1] == "[DONE]"


def test_the_sdk_retries_until_the_failures_are_used_up(client: openai.OpenAI, wire: httpx.Client) -> None:
    body = request(model="sim-instant;fail=2;status=503;retry-after-ms=1")
    assert content(as_json(client.with_options(max_retries=2), body))
    counts = settled(wire)
    assert (counts["failed"], counts["answered"]) == (2, 1)


def test_cut_ends_early_but_cleanly(wire: httpx.Client) -> None:
    assert len(events(streamed(wire, "cut=3"))) == 3
    assert events(streamed(wire, "cut=0")) == []


def test_cut_of_a_json_answer_sends_its_first_half(wire: httpx.Client) -> None:
    whole, cut = (wire.post(PATH, json=request(model=f"sim-instant{o}")) for o in ("", ";cut=1"))
    assert cut.status_code == 200
    assert len(cut.content) == len(whole.content) // 2


@pytest.mark.parametrize("gap", ["0", "0.001"])
def test_reset_breaks_the_connection_after_so_many_events(wire: httpx.Client, gap: str) -> None:
    body = request(model=f"sim-instant;reset=3;gap={gap}", stream=True)
    with wire.stream("POST", PATH, json=body) as response:
        received, broken = until_broken(response.iter_bytes())
    assert broken
    assert received.count(b"\n\n") == 3


@pytest.mark.parametrize("stream", [False, True])
def test_reset_before_the_first_event_sends_nothing_at_all(wire: httpx.Client, stream: bool) -> None:
    with pytest.raises(httpx.ReadError):
        wire.post(PATH, json=request(model="sim-instant;reset=0", stream=stream))


def test_reset_of_a_json_answer_breaks_it_in_half(wire: httpx.Client) -> None:
    with wire.stream("POST", PATH, json=request(model="sim-instant;reset=1")) as response:
        promised = int(response.headers["content-length"])
        received, broken = until_broken(response.iter_bytes())
    assert broken
    assert len(received) == promised // 2


def test_stall_is_silent_until_the_caller_leaves(wire: httpx.Client) -> None:
    body = request(model="sim-instant;stall=2", stream=True)
    with wire.stream("POST", PATH, json=body, timeout=0.2) as response:
        received, broken = until_broken(response.iter_bytes())
    assert broken
    assert received.count(b"\n\n") == 2
    assert settled(wire)["hung_up"] == 1


@pytest.mark.parametrize("count", [1, 2, 50])
@pytest.mark.parametrize("options", ["", ";gzip", ";status=500", ";status=500;detail;gzip", ";html", ";json"])
def test_a_stall_holds_back_half_of_what_is_no_stream(wire: httpx.Client, options: str, count: int) -> None:
    body = request(model=f"sim-instant;stall={count}{options}", stream="json" in options)
    with wire.stream("POST", PATH, json=body, timeout=0.1) as response:
        promised = int(response.headers["content-length"])
        received, broken = until_broken(response.iter_raw())
    assert broken
    assert len(received) == promised // 2
    assert settled(wire)["hung_up"] == 1


def test_error_sends_an_error_event_and_ends(client: openai.OpenAI, wire: httpx.Client) -> None:
    *before, last = events(streamed(wire, "error=2"))
    assert len(before) == 2
    assert last["error"]["code"] == "server_error"
    with pytest.raises(openai.APIError, match="had an error"):
        list(client.chat.completions.create(**request(model="sim-instant;error=2"), stream=True))


def test_error_of_a_json_answer_is_an_error_under_200(wire: httpx.Client) -> None:
    response = wire.post(PATH, json=request(model="sim-instant;error=0"))
    assert response.status_code == 200
    assert "error" in response.json()


def test_nodone_leaves_out_the_last_event(wire: httpx.Client) -> None:
    last = events(streamed(wire, "nodone"))[-1]
    assert last["choices"][0]["finish_reason"] == "stop"


def test_nousage_gives_none_in_either_form(wire: httpx.Client) -> None:
    asked = streamed(wire, "nousage", stream_options={"include_usage": True})
    assert "usage" not in asked.text
    assert "usage" not in wire.post(PATH, json=request(model="sim-instant;nousage")).json()


def test_refuse_usage_refuses_only_who_asks_for_it(wire: httpx.Client) -> None:
    refused = streamed(wire, "refuse-usage", stream_options={"include_usage": True})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "stream_options"
    assert streamed(wire, "refuse-usage").status_code == 200


def test_html_is_a_page_under_200(wire: httpx.Client) -> None:
    response = streamed(wire, "html")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html"
    assert response.text.startswith("<html>")


def test_json_answers_a_stream_request_in_one_piece(wire: httpx.Client) -> None:
    response = streamed(wire, "json")
    assert response.headers["content-type"] == "application/json"
    assert response.json()["object"] == "chat.completion"


def test_finish_empty_and_refusal_shape_the_message(client: openai.OpenAI) -> None:
    assert as_json(client, request(model="sim-instant;finish=length"))["choices"][0]["finish_reason"] == "length"
    assert content(as_json(client, request(model="sim-instant;empty"))) == ""
    assert as_json(client, request(model="sim-instant;refusal"))["choices"][0]["message"]["refusal"]


def test_malformed_is_one_event_more_that_is_no_json(wire: httpx.Client) -> None:
    lines = streamed(wire, "malformed=2;chunks=3").text.split("\n\n")[:-1]
    assert len(lines) == 1 + 3 + 1 + 1 + 1
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(lines.pop(2).removeprefix("data: "))
    assert all(msgspec.json.decode(line.removeprefix("data: ")) for line in lines[:-1])
    assert lines[-1] == "data: [DONE]"


def test_a_malformed_json_answer_is_no_json(wire: httpx.Client) -> None:
    response = wire.post(PATH, json=request(model="sim-instant;malformed=0"))
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(response.content)


def test_big_is_one_event_more_of_so_much_text(wire: httpx.Client) -> None:
    said = events(streamed(wire, "big=2000000;chunks=3"))
    assert len(said) == 1 + 1 + 3 + 1 + 1
    assert len(said[1]["choices"][0]["delta"]["content"]) == 2_000_000
    assert {name for chunk in said[:-1] for name in chunk} == set(said[1])


@pytest.mark.parametrize("shape", ["chunks=3", "refusal", "empty"])
def test_a_big_json_answer_holds_so_much_text(wire: httpx.Client, shape: str) -> None:
    response = wire.post(PATH, json=request(model=f"sim-instant;big=2000000;{shape}"))
    assert len(content(response.json())) == 2_000_000


def test_a_big_error_holds_so_much_text(wire: httpx.Client) -> None:
    assert len(streamed(wire, "status=500;big=70000").json()["error"]["message"]) == 70_000
    assert len(streamed(wire, "status=500;big=70000;detail").json()["detail"]) == 70_000


@pytest.mark.parametrize("options", ["type=text/plain", "type=text/plain;cut=3", "type=text/plain;status=500"])
def test_type_is_the_content_type_of_any_answer(wire: httpx.Client, options: str) -> None:
    assert streamed(wire, options).headers["content-type"] == "text/plain"


def test_redirect_points_elsewhere(wire: httpx.Client) -> None:
    response = streamed(wire, "redirect=http://127.0.0.1:9/v1?a=b")
    assert (response.status_code, response.headers["location"]) == (307, "http://127.0.0.1:9/v1?a=b")
    assert streamed(wire, "redirect=/x;status=303").status_code == 303
    assert settled(wire)["failed"] == 2


def test_usage_comes_with_the_finish_unasked(wire: httpx.Client) -> None:
    for members in ({}, {"stream_options": {"include_usage": True}}):
        *chunks, finish, done = events(streamed(wire, "usage;chunks=3", **members))
        assert done == "[DONE]"
        assert finish["choices"][0]["finish_reason"] == "stop"
        assert finish["usage"]["completion_tokens"] == 3
        assert not any(chunk.get("usage") for chunk in chunks)


def test_detail_is_another_shape_of_error(wire: httpx.Client) -> None:
    refusals = [
        streamed(wire, "detail;status=500"),
        streamed(wire, "detail", response_format={"type": "poem"}),
        wire.post(PATH, content=b"{", headers={"x-simulator": "detail"}),
    ]
    assert [refusal.status_code for refusal in refusals] == [500, 400, 400]
    assert [list(refusal.json()) for refusal in refusals] == [["detail"]] * 3


def test_header_and_cookie_are_on_every_answer(wire: httpx.Client) -> None:
    told = "header=X-Odd:a=b: c;cookie=crumb"
    answers = [streamed(wire, told), streamed(wire, f"{told};status=503"), streamed(wire, f"{told};fail=0;html")]
    answers.append(wire.post(PATH, content=b"{", headers={"x-simulator": told}))
    wire.cookies.clear()
    assert [answer.status_code for answer in answers] == [200, 503, 200, 400]
    for answer in answers:
        assert (answer.headers["x-odd"], answer.headers["set-cookie"]) == ("a=b: c", "sim=crumb; Path=/")


def test_faults_of_the_body_spoil_errors_too(wire: httpx.Client) -> None:
    whole, half = streamed(wire, "status=500"), streamed(wire, "status=500;cut=1")
    assert len(half.content) == len(whole.content) // 2
    page = streamed(wire, "status=502;html;retry-after=3")
    assert (page.status_code, page.headers["content-type"], page.headers["retry-after"]) == (502, "text/html", "3")
