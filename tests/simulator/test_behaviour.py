"""Every option does what it says."""

from collections.abc import Iterator
from typing import Any

import httpx
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
