"""Whoever is given a Response again finds its own words in it."""

import json
from typing import Any

import pytest

from proxy.core.echo import ECHOED, echo_of, echoing, echoing_event
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
