"""Bytes only: what was cut, altered or moved is a miss, and what is replayed is what was recorded."""

import hashlib
import json
import sys
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.cost import Usage
from proxy.core.dialect import CHAT, RESPONSES
from proxy.core.entry import MAGIC, Entry, Meta, Worth, make_entry, meta_of, pack, unpack
from proxy.core.recording import Kind
from proxy.core.sse import DONE, Decoder, Event, encode

ID = b"chatcmpl-0123456789abcdef"
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def meta(kind: Kind = "stream", *, usage_asked: bool = True, has_usage: bool = True) -> Meta:
    return Meta(
        key=b"k" * 32,
        kind=kind,
        provider="openai",
        model="gpt-4.1",
        ended=1_700_000_000.5,
        ttl=604800.0,
        epoch=3,
        usage_asked=usage_asked,
        has_usage=has_usage,
    )


def chunks(words: list[str], name: str | None = "chatcmpl-1") -> list[dict[str, Any]]:
    head = {"object": "chat.completion.chunk"} if name is None else {"id": name, "object": "chat.completion.chunk"}
    said = [{**head, "choices": [{"index": 0, "delta": {"content": word}}], "usage": None} for word in words]
    end = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": None}
    return [*said, end, {**head, "choices": [], "usage": USAGE}]


def streamed(*words: str, name: str | None = "chatcmpl-1") -> Entry:
    raw = b"".join(encode(json.dumps(one).encode()) for one in chunks(list(words), name)) + DONE
    events = Decoder().feed(raw)
    return make_entry(meta(), events, [0.1 * number for number in range(len(events))])


def completed(content: str = "hello") -> Entry:
    message = {"role": "assistant", "content": content}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    raw = json.dumps({"id": "chatcmpl-1", "object": "chat.completion", "choices": choices, "usage": USAGE}).encode()
    return make_entry(meta("json"), [Event(raw[:30], None, None), Event(raw[30:], None, None)], [0.5, 0.7])


def same(one: Entry | None, other: Entry) -> bool:
    return one is not None and (one.meta, one.body, tuple(one.times)) == (other.meta, other.body, tuple(other.times))


ENTRIES = {"stream": streamed("Hel", "lo"), "json": completed(), "empty": Entry(meta("json"), b"", ())}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_what_is_packed_is_unpacked(entry: Entry) -> None:
    assert same(unpack(pack(entry)), entry)


@settings(deadline=None)
@given(st.binary(max_size=200), st.lists(st.floats(0, 1e6), max_size=10), st.binary(max_size=40), st.text(max_size=10))
def test_any_entry_survives_the_way_to_the_disk_and_back(
    body: bytes, times: list[float], key: bytes, model: str
) -> None:
    plain = meta("json")
    entry = Entry(Meta(key, "json", plain.provider, model, 1.0, 2.0, 0, False, False), body, tuple(times))
    assert same(unpack(pack(entry)), entry)


billed = st.builds(Usage, st.integers(1000, 10**8), st.integers(0, 500), st.integers(0, 10**8), st.integers(0, 500))


@settings(deadline=None)
@given(billed, st.none() | st.text(max_size=10))
def test_what_an_answer_used_survives_the_way_to_the_disk_and_back(usage: Usage, service: str | None) -> None:
    entry = Entry(msgspec.structs.replace(meta(), usage=usage, service=service), b"", ())
    again = unpack(pack(entry))
    assert again is not None
    assert (again.meta.usage, again.meta.service) == (usage, service)


def test_a_usage_that_no_call_has_makes_no_entry() -> None:
    said = msgspec.structs.astuple(meta())
    good = {"input": 5, "cached": 1, "output": 0}
    payload = msgspec.msgpack.encode([[*said[:9], good, None], b"", []])
    assert unpack(MAGIC + hashlib.sha256(payload).digest() + payload) is not None
    for usage in ({"input": 1, "cached": 5, "output": 0}, {"input": -1, "cached": 0, "output": 0}, {"input": 1}, [1]):
        payload = msgspec.msgpack.encode([[*said[:9], usage, None], b"", []])
        assert unpack(MAGIC + hashlib.sha256(payload).digest() + payload) is None


def test_an_entry_of_a_version_that_kept_no_usage_is_read_and_says_none() -> None:
    payload = msgspec.msgpack.encode([msgspec.structs.astuple(meta())[:9], b"body", [0.5]])
    found = unpack(MAGIC + hashlib.sha256(payload).digest() + payload)
    assert found is not None
    assert (found.meta.usage, found.meta.service, found.body) == (None, None, b"body")


def test_an_entry_of_a_version_that_knew_no_owner_says_none() -> None:
    payload = msgspec.msgpack.encode([msgspec.structs.astuple(meta())[:11], b"body", [0.5]])
    found = unpack(MAGIC + hashlib.sha256(payload).digest() + payload)
    assert found is not None
    assert found.meta.owner is None
    again = unpack(pack(Entry(msgspec.structs.replace(meta(), owner=""), b"", ())))
    assert again is not None
    assert again.meta.owner == ""


METAS = st.builds(
    Meta,
    key=st.binary(max_size=40),
    kind=st.sampled_from(["json", "stream"]),
    provider=st.text(max_size=40),
    model=st.text(max_size=300),
    ended=st.floats(0, 1e10),
    ttl=st.floats(0, 1e10),
    epoch=st.integers(0, 2**40),
    usage_asked=st.booleans(),
    has_usage=st.booleans(),
    usage=st.none() | billed,
    service=st.none() | st.text(max_size=10),
    owner=st.none() | st.text(max_size=70),
)


@settings(deadline=None)
@given(METAS, st.binary(max_size=50))
def test_what_is_known_of_an_entry_is_read_from_its_first_bytes(said: Meta, body: bytes) -> None:
    packed = pack(Entry(said, body, (0.5,)))
    alone = 37 + len(msgspec.msgpack.encode(said))
    for length in range(alone, len(packed) + 1):
        assert meta_of(packed[:length]) == said
    for length in range(alone):
        assert meta_of(packed[:length]) is None


@settings(deadline=None)
@given(st.binary(max_size=120))
def test_of_other_bytes_nothing_is_known(blob: bytes) -> None:
    assert meta_of(blob) is None
    meta_of(MAGIC + b"d" * 32 + b"\x93" + blob)  # whatever it is, it is no error


@pytest.mark.parametrize(
    "value", [None, [], {"meta": 1}, [[b"k"], b"", []], [[1] * 70_000, b"", []], [{"a": "b" * 300}]]
)
def test_of_a_payload_of_another_shape_nothing_is_known(value: object) -> None:
    assert meta_of(MAGIC + b"d" * 32 + msgspec.msgpack.encode(value)) is None


def test_what_an_answer_is_worth_is_a_note_of_each_process_and_of_each_entry() -> None:
    one, other = completed(), completed()
    one.worth.minute, one.worth.usd = 5, Decimal("0.01")
    assert other.worth == Worth(-1, None)
    again = unpack(pack(one))
    assert again is not None
    assert again.worth == Worth()


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_an_entry_with_any_byte_flipped_is_none(entry: Entry) -> None:
    packed = pack(entry)
    for position in range(len(packed)):
        for bit in (0x01, 0x80):
            flipped = bytearray(packed)
            flipped[position] ^= bit
            assert unpack(bytes(flipped)) is None, position


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_an_entry_that_was_cut_or_has_grown_is_none(entry: Entry) -> None:
    packed = pack(entry)
    assert not [length for length in range(len(packed)) if unpack(packed[:length]) is not None]
    assert unpack(packed + b"\x00") is None
    assert unpack(packed[1:]) is None


@settings(deadline=None)
@given(st.binary(max_size=120))
def test_other_bytes_are_no_entry(blob: bytes) -> None:
    assert unpack(blob) is None
    assert unpack(MAGIC + blob) is None


def test_a_payload_of_another_shape_is_none_though_its_digest_is_right() -> None:
    for value in (None, [], [1, 2, 3], {"meta": 1}, [[b"k"], b"", []]):
        payload = msgspec.msgpack.encode(value)
        assert unpack(MAGIC + hashlib.sha256(payload).digest() + payload) is None


def test_a_streams_events_come_back_with_their_boundaries_and_times() -> None:
    raw = [*(encode(json.dumps(one).encode()) for one in chunks(["a", "b"])), DONE]
    entry = streamed("a", "b")
    assert [event.raw for event in entry.events()] == raw
    assert len(entry.times) == len(raw)


LINE_ENDS = [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r", b"\r\n\r", b"\n\r\n"]
pieces = st.tuples(
    st.sampled_from(["data: ", "data:", ": word\ndata: ", "event: e\ndata: "]), st.sampled_from(LINE_ENDS)
)


@settings(deadline=None)
@given(st.lists(pieces, min_size=1, max_size=6))
def test_whatever_line_ends_were_recorded_the_same_events_come_back(told: list[tuple[str, bytes]]) -> None:
    body = b"".join(start.encode() + b'{"n":%d}' % number + end for number, (start, end) in enumerate(told))
    decoder = Decoder()
    events = decoder.feed(body)
    last = decoder.close()
    events = events if last is None else [*events, last]
    assert make_entry(meta(), events, [0.0] * len(events)).events() == events


def test_of_a_body_in_pieces_the_time_of_the_last_one_is_kept() -> None:
    entry = completed()
    assert entry.times == (0.7,)
    (event,) = entry.events()
    assert event.data == entry.body
    assert make_entry(meta("json"), [], []).times == ()


def test_a_stream_that_was_recorded_without_usage_is_no_json_answer() -> None:
    bare = Entry(meta(has_usage=False), b"", ())
    assert bare.serves(stream=True, usage=False)
    assert not bare.serves(stream=False, usage=False)
    assert streamed("a").serves(stream=False, usage=False)
    json_without = Entry(meta("json", has_usage=False), b"", ())
    assert json_without.serves(stream=False, usage=False)
    assert json_without.serves(stream=True, usage=True)


def test_a_stream_whose_usage_may_have_been_cut_off_is_no_answer_to_who_asks_for_it() -> None:
    cut = Entry(meta(has_usage=False), b'data: {"choices":[]}\n\n', ())
    assert cut.serves(stream=True, usage=False)
    assert not cut.serves(stream=True, usage=True)
    assert Entry(cut.meta, cut.body + DONE, ()).serves(stream=True, usage=True)


WAYS = [(True, True), (True, False), (False, False)]
CASES = {
    "a stream": streamed("Hel", "lo ", "wörld 🌍"),
    "a stream without ids": streamed("a", name=None),
    "a stream with empty ids": streamed("a", name=""),
    "a stream that says its own id": streamed("the id is ", "chatcmpl-1", '"chatcmpl-1"'),
    "a stream with a NUL in its text": streamed("a\x00b", "\x00"),
    "a completion": completed(),
    "a completion that says its own id": completed('"chatcmpl-1" \x00'),
}


@pytest.mark.parametrize("entry", CASES.values(), ids=CASES)
def test_a_template_joined_with_an_id_is_what_the_frames_say(entry: Entry) -> None:
    for usage in (True, False):
        frames = b"".join(entry.frames(CHAT, usage=usage, new_id=b'"' + ID + b'"'))
        assert ID.join(entry.template(CHAT, stream=True, usage=usage)) == frames
        assert (b'"usage"' in frames) is usage


@pytest.mark.parametrize("entry", CASES.values(), ids=CASES)
@pytest.mark.parametrize(("stream", "usage"), WAYS)
def test_a_template_is_the_same_the_second_time_and_after_the_disk(entry: Entry, stream: bool, usage: bool) -> None:
    once = entry.template(CHAT, stream=stream, usage=usage)
    assert entry.template(CHAT, stream=stream, usage=usage) == once
    again = unpack(pack(entry))
    assert again is not None
    assert again.template(CHAT, stream=stream, usage=usage) == once


def test_a_json_template_has_a_place_for_one_id_and_its_usage() -> None:
    for entry in (streamed("hello"), completed()):
        found = json.loads(ID.join(entry.template(CHAT, stream=False, usage=False)))
        assert found["id"] == ID.decode()
        assert found["usage"] == USAGE
        assert found["choices"][0]["message"]["content"] == "hello"


def test_usage_that_penstock_did_not_ask_for_is_shown_as_the_provider_sent_it() -> None:
    entry = Entry(meta(usage_asked=False), streamed("a").body, (0.0,) * 4)
    assert b'"usage"' in b"".join(entry.template(CHAT, stream=True, usage=False))


def held_by(entry: Entry) -> int:
    """Bytes that this entry really holds."""
    lists = list(entry._templates.values())
    parts = sum(sys.getsizeof(part) for found in lists for part in found)
    objects = [entry, entry.meta, entry.body, entry.times, entry._templates, *lists, *entry.times]
    return parts + sum(map(sys.getsizeof, objects))


@pytest.mark.parametrize(
    "entry",
    [streamed(*["x"] * 2000), streamed(*["word " * 40] * 200), streamed("x"), completed("x" * 50_000), completed("x")],
    ids=["many small events", "large events", "one event", "a large completion", "a small completion"],
)
def test_an_entry_is_charged_for_at_least_what_it_holds_once_every_form_was_asked(entry: Entry) -> None:
    charged = entry.footprint
    for stream, usage in WAYS:
        entry.template(CHAT, stream=stream, usage=usage)
    assert held_by(entry) <= charged == entry.footprint


def test_templates_beyond_what_is_charged_are_made_anew_each_time() -> None:
    entry = completed(" " * 30 + "a " * 3000)  # two letters a chunk: far larger as a stream
    once = entry.template(CHAT, stream=True, usage=True)
    assert sum(map(len, once)) > 3 * len(entry.body)
    assert entry.template(CHAT, stream=True, usage=True) == once
    assert not entry._templates
    assert held_by(entry) <= entry.footprint


def test_a_response_that_is_given_again_repeats_what_its_own_request_said() -> None:
    said = {"id": "resp_1", "object": "response", "status": "completed", "output": [], "metadata": {"a": "1"}}
    body = json.dumps(said, separators=(",", ":")).encode()
    entry = Entry(meta(kind="json"), body, ())
    for echo, metadata in (({"metadata": b'{"a":"1"}'}, {"a": "1"}), ({"metadata": b"{}"}, {}), ({}, {"a": "1"})):
        whole = b"".join(entry.template(RESPONSES, stream=False, usage=True, echo=echo))
        assert json.loads(whole)["metadata"] == metadata
        blocks = entry.frames(RESPONSES, usage=True, new_id=None, echo=echo)
        assert [json.loads(block.partition(b"data: ")[2])["response"]["metadata"] for block in blocks] == [metadata] * 3
