"""What a page asks, and is told, in plain words: one chat completion each way, whatever its bytes are cut into."""

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.cost import Usage
from proxy.core.call import read_call
from proxy.core.canonical import canonical
from proxy.core.plain import Done, Plain, broken_event, chat_request, error_event, tokens
from proxy.core.sse import DONE, Decoder
from proxy.errors import InvalidRequest, UpstreamBadContentType, UpstreamFailed, UpstreamStall, UpstreamTruncated

Json = dict[str, Any]
HELLO: Json = {"messages": [{"role": "user", "content": "hello"}]}


def asked(body: Json, default: str | None = None) -> Json:
    found: Json = json.loads(chat_request(json.dumps(body).encode(), default))
    return found


def refusal(body: object, default: str | None = "m") -> InvalidRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(InvalidRequest) as raised:
        chat_request(raw, default)
    return raised.value


# What it asks.


def test_a_request_comes_to_the_stream_of_a_chat_completion() -> None:
    messages = [{"role": role, "content": f"as {role}\n"} for role in ("system", "developer", "user", "assistant")]
    body = {"messages": messages, "model": "m", "max_tokens": 7, "temperature": 0.5}
    assert asked(body) == {**body, "stream": True}


def test_only_who_names_no_model_gets_the_default() -> None:
    assert asked(HELLO, "economy")["model"] == "economy"
    assert asked({**HELLO, "model": None}, "economy")["model"] == "economy"
    assert asked({**HELLO, "model": "m"}, "economy")["model"] == "m"


def test_without_a_default_it_says_which_setting_would_be_one() -> None:
    error = refusal(HELLO, None)
    assert error.param == "model"
    assert "default_model" in error.message
    assert "[routing]" in error.message


def test_null_says_nothing() -> None:
    assert asked({**HELLO, "max_tokens": None, "temperature": None, "model": None}, "m") == asked(HELLO, "m")


def test_what_is_said_stays_to_the_byte() -> None:
    messages = rb'[{"role":"user","content":"\u00e9 \/ \ud83d\ude42"}]'
    made = chat_request(b'{"temperature": 0.70, "max_tokens":1e2,"messages": ' + messages + b"}", "m")
    for part in (b'"temperature":0.70', b'"max_tokens":1e2', messages):
        assert part in made


def test_it_is_the_same_request_as_that_of_a_client_with_an_sdk() -> None:
    body = {**HELLO, "model": "m", "temperature": 1.0}
    ours = read_call("chat/completions", chat_request(json.dumps(body).encode(), None), {})
    theirs = read_call("chat/completions", json.dumps(body).encode(), {})
    assert canonical(ours.body, ()) == canonical(theirs.body, ())
    assert (ours.stream, ours.wants_usage, ours.choices) == (True, False, 1)


MESSAGE = {"role": "user", "content": "hello"}
BAD: list[tuple[object, str | None]] = [
    (b"", None),
    (b"{", None),
    (b"[]", None),
    (b"\xef\xbb\xbf{}", None),
    (b'{"messages": [], "messages": []}', None),
    (b'{"temperature": NaN}', None),
    ({}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "hello"}, "messages"),
    ({"messages": {"role": "user", "content": "hello"}}, "messages"),
    ({"messages": ["hello"]}, "messages[0]"),
    ({"messages": [MESSAGE, None]}, "messages[1]"),
    ({"messages": [{"content": "hello"}]}, "messages[0].role"),
    ({"messages": [{**MESSAGE, "role": "tool"}]}, "messages[0].role"),
    ({"messages": [{**MESSAGE, "role": ["user"]}]}, "messages[0].role"),
    ({"messages": [MESSAGE, {"role": "user"}]}, "messages[1].content"),
    ({"messages": [{**MESSAGE, "content": None}]}, "messages[0].content"),
    ({"messages": [{**MESSAGE, "content": [{"type": "text", "text": "hello"}]}]}, "messages[0].content"),
    ({"messages": [{**MESSAGE, "name": "me"}]}, "messages[0].name"),
    ({"messages": [{**MESSAGE, "tool_calls": []}]}, "messages[0].tool_calls"),
    ({**HELLO, "n": 2}, "n"),
    ({**HELLO, "n": 1}, "n"),
    ({**HELLO, "tools": []}, "tools"),
    ({**HELLO, "stream": True}, "stream"),
    ({**HELLO, "stream_options": None}, "stream_options"),
    ({**HELLO, "base_url": "http://evil.example"}, "base_url"),
    ({**HELLO, "": 1}, ""),
    ({**HELLO, "x" * 100: 1}, "x" * 64),
    ({**HELLO, "temperature": "0"}, "temperature"),
    ({**HELLO, "temperature": True}, "temperature"),
]


@pytest.mark.parametrize(("body", "param"), BAD, ids=lambda value: str(value)[:40])
def test_what_is_no_such_request_is_refused_by_name(body: object, param: str | None) -> None:
    error = refusal(body)
    assert (error.status, error.param) == (400, param)


# What it is told.


def chunk(finish: str | None = None, **delta: object) -> bytes:
    return (
        b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}).encode() + b"\n\n"
    )


def events(told: bytes) -> list[Json]:
    """What a page reads: each event's data."""
    decoder = Decoder()
    found = [json.loads(event.data or b"") for event in decoder.feed(told)]
    assert decoder.close() is None
    return found


def texts(told: bytes, channel: str = "content") -> str:
    return "".join(event.get(channel, "") for event in events(told))


def test_each_piece_of_text_is_an_event() -> None:
    plain = Plain()
    assert plain.feed(chunk(role="assistant", content="")) == b""
    assert plain.begun is False
    assert plain.feed(chunk(content="Hel")) == b'data: {"content":"Hel"}\n\n'
    began: bool = plain.begun
    assert began
    assert plain.feed(chunk(content="lo") + chunk("stop") + DONE) == b'data: {"content":"lo"}\n\n'
    assert (plain.finish, plain.failed, plain.flaw()) == ("stop", False, None)


def test_what_is_refused_or_thought_is_said_as_such_thoughts_first() -> None:
    plain = Plain()
    told = plain.feed(chunk(content="c", refusal="r", reasoning_content="t", reasoning="t"))
    assert events(told) == [{"reasoning": "t"}, {"content": "c"}, {"refusal": "r"}]
    assert events(plain.feed(chunk(reasoning="u", reasoning_content=None))) == [{"reasoning": "u"}]


def test_content_in_parts_is_told_as_text_and_thoughts() -> None:
    thoughts = {"type": "thinking", "thinking": [{"type": "text", "text": "t"}, 1]}
    told = Plain().feed(chunk(content=[thoughts, {"type": "text", "text": "c"}, {"thinking": "u"}, None, {"text": 1}]))
    assert events(told) == [{"reasoning": "t"}, {"content": "c"}, {"reasoning": "u"}]


def test_a_comment_stays_a_sign_of_life() -> None:
    plain = Plain()
    assert plain.feed(b": ping\n\n") == b": ping\n\n"
    assert plain.feed(b"") == b""
    assert plain.feed(b": a\n" + chunk(content="x")) == b'data: {"content":"x"}\n\n'


def test_only_the_first_choice_is_told() -> None:
    other = b'data: {"choices": [{"index": 1, "delta": {"content": "other"}, "finish_reason": "stop"}]}\n\n'
    plain = Plain()
    assert plain.feed(other) == b""
    assert plain.finish is None


@pytest.mark.parametrize(
    "data",
    [
        b'{"choices": null}',
        b'{"choices": [null]}',
        b'{"choices": []}',
        b'{"choices": [{}]}',
        b'{"choices": [{"delta": "x"}]}',
        b'{"choices": [{"delta": {"content": 5, "refusal": {}, "reasoning": []}}]}',
        b'{"choices": [{"finish_reason": ""}]}',
        b'{"error": null}',
        b"{}",
        b"",
    ],
)
def test_what_says_nothing_is_told_as_nothing(data: bytes) -> None:
    plain = Plain()
    assert plain.feed(b"data: " + data + b"\n\n") == b""
    assert plain.feed(chunk("stop")) == b""
    assert plain.flaw() is None


@pytest.mark.parametrize("data", [b"{", b"12", b'"x"', b"[]", b"\xff", b"[" * 100_000, b'{"choices": [{"delta"'])
def test_what_cannot_be_read_is_passed_over_and_the_answer_is_not_whole(data: bytes) -> None:
    plain = Plain()
    assert plain.feed(b"data: " + data + b"\n\n") == b""
    assert texts(plain.feed(chunk("stop", content="on"))) == "on"
    assert type(plain.flaw()) is UpstreamTruncated


def test_an_answer_that_does_not_say_why_it_ended_is_not_whole() -> None:
    plain = Plain()
    plain.feed(chunk(content="x") + DONE)
    assert type(plain.flaw()) is UpstreamTruncated


def test_a_message_at_the_end_of_its_deltas_is_not_said_again() -> None:
    last = b'data: {"choices": [{"message": {"content": "all"}, "finish_reason": "stop"}]}\n\n'
    assert texts(Plain().feed(last)) == "all"
    assert texts(Plain().feed(chunk(content="all") + last)) == "all"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"message": "m", "type": "t", "param": "p", "code": 5, "more": 1}, ("m", "t", "p", 5)),
        ({}, ("The provider reported an error.", "upstream_error", None, None)),
        ("overloaded", ("overloaded", "upstream_error", None, None)),
        ({"message": "half \ud83d"}, ("half \ud83d", "upstream_error", None, None)),
        ({"message": "m", "code": float("nan"), "param": {"a": [1]}}, ("m", "upstream_error", "{'a': [1]}", "nan")),
    ],
)
def test_an_error_is_told_in_one_shape_and_is_the_last_word(said: object, told: tuple[object, ...]) -> None:
    plain = Plain()
    found = plain.feed(b"data: " + json.dumps({"error": said}).encode() + b"\n\n" + chunk("stop", content="more"))
    assert found == error_event(said)
    assert found.startswith(b"event: error\ndata: {")
    (event,) = events(found)
    assert tuple(event["error"].values()) == told
    assert plain.failed
    assert plain.feed(chunk(content="still")) == b""


def test_an_error_of_ours_has_the_same_shape() -> None:
    told = broken_event(UpstreamStall("The provider was silent."))
    error = {"message": "The provider was silent.", "type": "upstream_error", "param": None, "code": "upstream_stall"}
    assert (told[:13], events(told)) == (b"event: error\n", [{"error": error}])


# Every character, whole.

AWKWARD = (
    'a\nb\r\nc\rd\te\x00\x0b\x0c\x1c\x1e\x85f\u2028g\u2029h\x7f\ufeff"\\/ é 川 🙂 👩\u200d👩\u200d👧 \U0010ffff '
    "data: x\n\n: y"
)


def test_an_event_is_one_line_for_every_reader_of_lines() -> None:
    told = Plain().feed(chunk(content=AWKWARD))
    assert [line for line in told.decode().splitlines() if line] == [told.decode().rstrip("\n")]
    assert texts(told) == AWKWARD


WORDS = st.lists(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(AWKWARD), max_size=12), max_size=6)
CUTS = st.lists(st.integers(0, 10_000), max_size=12)


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    marks = sorted({0, len(stream), *(each % (len(stream) + 1) for each in cuts)})
    return [stream[start:end] for start, end in pairwise(marks)]


@given(WORDS, CUTS, st.booleans(), st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_split_of_the_bytes_gives_the_same_text(
    words: list[str], cuts: list[int], ascii_only: bool, end: str
) -> None:
    chunks = [{"choices": [{"index": 0, "delta": {"content": word}}]} for word in words]
    data = [json.dumps(each, ensure_ascii=ascii_only) for each in [*chunks, {"choices": [{"finish_reason": "stop"}]}]]
    stream = "".join(f"data: {each}{end}{end}" for each in [*data, "[DONE]"]).encode()
    plain = Plain()
    told = b"".join([plain.feed(piece) for piece in cut(stream, cuts)]) + plain.close()
    assert texts(told) == "".join(words)
    assert (plain.finish, plain.flaw()) == ("stop", None)


def test_a_split_at_every_byte_gives_the_same_events() -> None:
    stream = b": hello\n\n" + b"".join(chunk(content=word) for word in ("🙂\n", "川", "\u2028")) + chunk("stop") + DONE
    whole = [event for event in events(Plain().feed(stream)) if event]
    for at in range(len(stream) + 1):
        plain = Plain()
        assert events(plain.feed(stream[:at]) + plain.feed(stream[at:])) == whole


@given(st.text(st.sampled_from("a\n川🙂\U0010ffff") | st.characters(exclude_categories=["Cs"])), CUTS)
def test_characters_that_were_cut_in_halves_come_together_again(text: str, cuts: list[int]) -> None:
    """As of a provider that cuts UTF-16 between two events."""
    units = text.encode("utf-16-le")
    pieces = [piece.decode("utf-16-le", "surrogatepass") for piece in cut_units(units, cuts)]
    plain = Plain()
    told = plain.feed(b"".join(chunk(content=piece) for piece in pieces)) + plain.close()
    assert texts(told) == text


def cut_units(units: bytes, cuts: list[int]) -> list[bytes]:
    pairs = [units[at : at + 2] for at in range(0, len(units), 2)]
    marks = sorted({0, len(pairs), *(each % (len(pairs) + 1) for each in cuts)})
    return [b"".join(pairs[start:end]) for start, end in pairwise(marks)]


@given(st.lists(st.text(st.sampled_from(["a", "🙂", "\ud83d", "\ude42", "\udfff", "\udbff"]))))
def test_half_a_character_without_the_other_is_a_replacement_character_and_nothing_else_is_lost(
    words: list[str],
) -> None:
    plain = Plain()
    told = plain.feed(b"".join(chunk(content=word) for word in words)) + plain.close()
    said = "".join(words)
    assert texts(told) == said.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def test_halves_wait_for_their_own_kind() -> None:
    plain = Plain()
    told = plain.feed(chunk(content="\ud83d") + chunk(reasoning="\ude42 t") + chunk(content="\ude42"))
    assert (texts(told), texts(told, "reasoning")) == ("🙂", "\ufffd t")


# A body of JSON.


def test_a_body_of_json_is_told_as_its_text() -> None:
    message = {"role": "assistant", "content": AWKWARD, "refusal": None, "reasoning_content": "t"}
    plain = Plain()
    told = plain.completion(
        msgspec.json.encode({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    )
    assert (texts(told), texts(told, "reasoning"), plain.finish, plain.flaw()) == (AWKWARD, "t", "stop", None)


def test_a_body_of_json_may_end_in_half_a_character() -> None:
    body = rb'{"choices": [{"message": {"content": "x\ud83d"}, "finish_reason": "length"}]}'
    assert texts(Plain().completion(body)) == "x\ufffd"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{"message": null}]}'])
def test_a_body_that_is_no_chat_completion_is_an_error_with_a_status(body: bytes) -> None:
    with pytest.raises(UpstreamBadContentType) as raised:
        Plain().completion(body)
    assert raised.value.status == 502


def test_a_body_that_is_an_error_is_one_in_the_providers_words() -> None:
    with pytest.raises(UpstreamFailed) as raised:
        Plain().completion(b'{"error": {"message": "no more", "code": 429}}')
    assert (raised.value.status, json.loads(raised.value.body())["error"]["message"]) == (429, "no more")


# The figures.


def test_the_figures_are_the_last_event() -> None:
    usage = tokens(Usage(input=10, cached=4, output=5, reasoning=2))
    done = Done("req_1", "m", "p", "stop", usage, "0.00012", None, "miss", 0.25, 0.5)
    told = done.event()
    assert told.startswith(b"event: done\ndata: {")
    assert events(told) == [
        {
            "id": "req_1",
            "model": "m",
            "provider": "p",
            "finish_reason": "stop",
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "cached_tokens": 4, "reasoning_tokens": 2},
            "cost_usd": "0.00012",
            "saved_usd": None,
            "cache": "miss",
            "first_token_seconds": 0.25,
            "total_seconds": 0.5,
        }
    ]
    assert tokens(None) is None
