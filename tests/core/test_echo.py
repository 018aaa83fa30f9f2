"""Whoever is given a Response again finds its own words in it."""

import json
from typing import Any

import pytest

from proxy.core.echo import ECHOED, echo_of, echoing, echoing_body, echoing_event
from proxy.core.sse import Decoder, Event

IGNORED = (*ECHOED, "prompt_cache_retention")


def response(**members: Any) -> bytes:
    return json.dumps({"id": "resp_1", "output": [], "metadata": {"a": "1"}, "user": None, **members}).encode()


def event(raw: bytes) -> Event:
    (found,) = Decoder().feed(raw)
    return found


def test_what_a_request_says_is_repeated_to_it() -> None:
    echo = echo_of({"metadata": {"b": "2"}, "user": "u"}, IGNORED)
    told = json.loads(echoing(response(), echo))
    assert (told["metadata"], told["user"]) == ({"b": "2"}, "u")
    assert told.keys() == json.loads(response()).keys()


def test_what_it_does_not_say_is_repeated_as_unsaid() -> None:
    told = json.loads(echoing(response(user="another"), echo_of({}, IGNORED)))
    assert (told["metadata"], told["user"]) == ({}, None)


def test_what_makes_a_difference_to_the_key_is_never_changed() -> None:
    assert echo_of({"metadata": {"b": "2"}}, ()) == {}
    assert echo_of({"metadata": {"b": "2"}, "user": "u"}, ("user",)) == {"user": b'"u"'}


@pytest.mark.parametrize(
    "raw", [response(), b'{"metadata" : {"a":\t"1"},"user":null}', b"{nonsense", b"[]", b"7", b"", b'{"output":[]}']
)
def test_what_says_the_same_already_stays_to_the_byte(raw: bytes) -> None:
    assert echoing(raw, echo_of({"metadata": {"a": "1"}}, IGNORED)) == raw


def test_the_response_in_an_event_repeats_it_too() -> None:
    raw = b'event: response.created\ndata: {"type":"response.created","response":' + response() + b',"x":1.50}\n\n'
    told = echoing_event(event(raw), echo_of({"user": "u"}, IGNORED))
    assert told == event(told.raw)
    assert told.name == b"response.created"
    assert b'"x":1.50' in (told.data or b"")
    assert json.loads(told.data or b"")["response"]["user"] == "u"


def test_an_event_without_a_name_gets_none() -> None:
    told = echoing_event(event(b'data: {"response":' + response() + b"}\n\n"), echo_of({"user": "u"}, IGNORED))
    assert (told.data, told.name) == (event(told.raw).data, None)
    assert json.loads(told.raw.removeprefix(b"data: "))["response"]["user"] == "u"


def test_an_event_whose_response_says_the_same_in_other_spacing_stays_to_the_byte() -> None:
    raw = b'data: {"response": {"metadata" : {"a" :\t"1"}, "user":null}}\n\n'
    assert echoing_event(event(raw), echo_of({"metadata": {"a": "1"}}, IGNORED)).raw == raw


@pytest.mark.parametrize(
    "raw",
    [
        b'data: {"type":"response.output_text.delta","delta":"\\"response\\""}\n\n',
        b'data: {"response":7}\n\n',
        b'data: {"response"\n\n',
        b"data: [DONE]\n\n",
        b": word\nevent: x\ndata: y\n\n",
    ],
)
def test_other_events_stay_to_the_byte(raw: bytes) -> None:
    assert echoing_event(event(raw), echo_of({"user": "u"}, IGNORED)).raw == raw


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("cut", [0, 1, 2])
def test_a_whole_stream_repeats_it_wherever_a_response_stands(end: bytes, cut: int) -> None:
    echo = echo_of({"user": "u"}, IGNORED)
    raws = [
        b'event: a\ndata: {"type":"a","response":' + response() + b"}\n\n",
        b'data: {"type":"b","delta":"\\"response\\": not one"}\n\n',
        b'data: {"response":' + response(metadata={}, user="u") + b"}\n\n",
        b"event: c\ndata: " + response(x="y") + b"\n\n",
        b'event: d\ndata: {"response":' + response() + b"}\n\n",
    ]
    body = b"".join(raws).replace(b"\n", end)
    told = echoing_body(body[: len(body) - cut * len(end)], echo, stream=True)
    first, last = (echoing_event(event(raw.replace(b"\n", end)), echo).raw for raw in (raws[0], raws[-1]))
    assert told == first + b"".join(raws[1:-1]).replace(b"\n", end) + last


def test_a_stream_that_says_the_same_already_stays_and_so_does_a_body() -> None:
    echo = echo_of({"metadata": {"a": "1"}}, IGNORED)
    whole, stream = response(), b'data: {"response":' + response() + b"}\n\ndata: [DONE]\n\n"
    assert (echoing_body(whole, echo, stream=False), echoing_body(stream, echo, stream=True)) == (whole, stream)
    assert echoing_body(whole, echo_of({}, IGNORED), stream=False) == echoing(whole, echo_of({}, IGNORED)) != whole


def test_however_a_server_writes_its_members_the_response_in_a_stream_repeats_it() -> None:
    told = b'data: {"type": "x.delta", "delta": "a \\"response\\": b"}\n\n'
    for colon in (b":", b" : ", b": "):
        body = told + b'data: {"response"' + colon + response(user="they") + b"}\n\n" + told
        again = echoing_body(body, {"user": b'"we"'}, stream=True)
        assert again.startswith(told)
        assert again.endswith(told)
        assert b'"we"' in again
        assert b"they" not in again
