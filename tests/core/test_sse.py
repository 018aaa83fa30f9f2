"""Every event comes whole, once, and the same however the bytes are split."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.sse import DONE, Decoder, Event, encode
from proxy.errors import UpstreamTooLarge

CHUNK = '{"id":"c","choices":[{"index":0,"delta":{"content":"Grüße 🌍"},"finish_reason":null}]}'.encode()

RECORDED = {
    "openai": encode(CHUNK) * 3 + DONE,
    "crlf, as sse-starlette sends": (b"data: " + CHUNK + b"\r\n\r\n") * 3 + b"data: [DONE]\r\n\r\n",
    "cr": (b"data: " + CHUNK + b"\r\r") * 3,
    "cr, then crlf": b"data: 1\r\r\ndata: 2\r\n\r\ndata: 3\r\rdata: 4\r\r\n\r\n",
    "lf, then cr": b"data: 1\n\rdata: 2\r\n\rdata: 3\n\r\ndata: 4\n\r",
    "openrouter": b": OPENROUTER PROCESSING\n\n" * 2 + encode(CHUNK) + b": OPENROUTER PROCESSING\n\n" + DONE,
    "responses": b"event: response.created\ndata: " + CHUNK + b"\n\nevent: response.completed\ndata: {}\n\n",
    "bom": b"\xef\xbb\xbf" + encode(CHUNK) + b"\xef\xbb\xbfdata: 1\n\n",
    "many lines": b"id: 7\ndata: {\r\ndata:  1\rdata\n: word\ndata:}\nretry: 5\n\n\n\n\nevent: ping\n\nother\n\n",
    "no last blank line": encode(CHUNK) + b"data: [DONE]",
}


def decoded(pieces: list[bytes], **bounds: int) -> tuple[list[Event], int]:
    decoder = Decoder(**bounds)
    events = [event for piece in pieces for event in decoder.feed(piece)]
    last = decoder.close()
    return [*events, last] if last else events, decoder.comments


def by_the_book(stream: bytes) -> list[tuple[bytes | None, bytes | None]]:
    """Data and name of each whole block, read as slowly and plainly as the standard is written."""
    lines = re.sub(rb"\r\n?", b"\n", stream.removeprefix(b"\xef\xbb\xbf")).split(b"\n")[:-1]
    events = []
    block: list[tuple[bytes, bytes]] = []
    for line in lines:
        field, _, value = line.partition(b":")
        if line and field:
            block.append((field, value.removeprefix(b" ")))
        elif not line and block:
            data = [value for field, value in block if field == b"data"]
            names = [value for field, value in block if field == b"event"]
            events.append((b"\n".join(data) if data else None, names[-1] if names else None))
            block = []
    return events


def fragments() -> st.SearchStrategy[bytes]:
    words = [b"data: a", b"data:b", b"data", b": c", b"event: e", b"id: 1", b"\xef\xbb\xbf", "é🌍".encode(), b"\xff"]
    return st.lists(st.sampled_from([*words, b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\n", b"\r"]), max_size=24).map(
        b"".join
    )


@pytest.mark.parametrize("name", RECORDED)
def test_every_split_point_gives_the_same_events(name: str) -> None:
    stream = RECORDED[name]
    whole = decoded([stream])
    for at in range(len(stream) + 1):
        assert decoded([stream[:at], stream[at:]]) == whole
    assert decoded([stream[at : at + 1] for at in range(len(stream))]) == whole


@settings(deadline=None, max_examples=400)
@given(stream=fragments(), data=st.data())
def test_any_split_gives_the_same_events(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert decoded(pieces) == decoded([stream])


@settings(deadline=None, max_examples=400)
@given(stream=fragments())
def test_events_are_those_of_the_standard(stream: bytes) -> None:
    events, comments = decoded([stream + b"\n\n"])
    assert [(event.data, event.name) for event in events] == by_the_book(stream + b"\n\n")
    assert comments == len(re.findall(rb"(?:\A|[\r\n]):", stream.removeprefix(b"\xef\xbb\xbf")))


@settings(deadline=None, max_examples=400)
@given(stream=fragments())
def test_the_raw_blocks_one_after_another_say_the_same_again(stream: bytes) -> None:
    events, _ = decoded([stream])
    # The empty line first: a second BOM is no BOM, but would be one at the start.
    again, _ = decoded([b"\n", *(event.raw for event in events)])
    assert [(event.data, event.name) for event in again] == [(event.data, event.name) for event in events]


def test_raw_is_the_block_as_it_came() -> None:
    blocks = [b"data: 1\n\n", b"event: x\r\ndata: 2\r\n\r\n", b": c\ndata: 3\n\n", b"data:4\r\r"]
    assert [event.raw for event in Decoder().feed(b"".join(blocks))] == blocks


def test_an_event_has_its_data_and_name() -> None:
    assert Decoder().feed(b"event: x\ndata: 1\ndata:  2\n\n") == [
        (b"event: x\ndata: 1\ndata:  2\n\n", b"1\n 2", b"x"),
    ]
    assert Decoder().feed(b"event: ping\n\n") == [(b"event: ping\n\n", None, b"ping")]
    assert Decoder().feed(b"data\n\n")[0].data == b""


def test_done_is_told_from_data() -> None:
    done, spaced, quoted, none = Decoder().feed(DONE + b"data:  [DONE] \n\n" + encode(b'"[DONE]"') + b"event: x\n\n")
    assert (done.is_done, spaced.is_done, quoted.is_done, none.is_done) == (True, True, False, False)


def test_a_lone_cr_gives_its_event_at_once_and_swallows_a_late_lf() -> None:
    decoder = Decoder()
    assert decoder.feed(b"data: 1\r\r") == [(b"data: 1\r\r", b"1", None)]
    assert decoder.feed(b"\ndata: 2\r\r\n") == [(b"data: 2\r\r", b"2", None)]


def test_a_cr_after_lf_lines_waits_for_one_byte_or_the_end() -> None:
    decoder = Decoder()
    assert decoder.feed(b"data: 1\n\r") == []
    assert decoder.feed(b"\n") == [(b"data: 1\n\r\n", b"1", None)]
    assert decoder.feed(b"data: half\n\r") == []
    assert decoder.close() == (b"data: half\n\r", b"half", None)


def test_comments_are_counted_as_they_come_and_give_no_event() -> None:
    decoder = Decoder()
    assert decoder.feed(b": ping\n") == []
    assert decoder.comments == 1
    assert decoder.feed(b"\n: ping\n: pi") == []
    assert decoder.comments == 3
    assert decoder.feed(b"ng\n\n") == []
    assert decoder.comments == 3


@pytest.mark.parametrize("end", [b"", b"\n", b"\r", b"\r\n"])
def test_a_clean_end_without_a_blank_line_completes_whole_data(end: bytes) -> None:
    for data in (CHUNK, b"[DONE]", b"null"):
        decoder = Decoder()
        assert decoder.feed(b"data: " + data + end) == []
        event = decoder.close()
        assert event is not None
        assert event.data == data
        assert Decoder().feed(event.raw) == [event]
        assert decoder.close() is None


@pytest.mark.parametrize("rest", [CHUNK[:-1], b"", b"12", b'"a', b"[DON", b'"\xff"', b"[" * 9999])
def test_a_partial_block_is_never_forwarded(rest: bytes) -> None:
    decoder = Decoder()
    assert decoder.feed(b"data: " + rest) == []
    assert decoder.close() is None


def test_nothing_is_left_of_an_empty_or_finished_stream() -> None:
    assert Decoder().close() is None
    for stream in (DONE[:0], b"\n\r\n", b": c\n", b"\xef\xbb", b"event: x"):
        decoder = Decoder()
        assert decoder.feed(stream) == []
        assert decoder.close() is None


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r", b""])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_block_over_its_bound_is_refused_whole_or_not(end: bytes, size: int) -> None:
    stream = b"data: " + b"x" * 94 + end
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    for bound in (99, len(stream) - 1):
        with pytest.raises(UpstreamTooLarge):
            decoded(pieces, max_event=bound)
    assert decoded(pieces, max_event=len(stream)) == decoded(pieces)


@settings(deadline=None, max_examples=300)
@given(stream=fragments(), data=st.data())
def test_events_before_one_over_its_bound_come_out_for_any_split(stream: bytes, data: st.DataObject) -> None:
    def until_refused(pieces: list[bytes]) -> tuple[list[Event], bool]:
        decoder, events = Decoder(max_event=16), list[Event]()
        try:
            for piece in pieces:
                events += decoder.feed(piece)
            decoder.feed(b"")
        except UpstreamTooLarge:
            return events, True
        return events, False

    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert until_refused(pieces) == until_refused([stream])


def test_once_refused_the_stream_stays_refused() -> None:
    decoder = Decoder(max_event=16)
    assert len(decoder.feed(b"data: 1\n\ndata: 2\n\ndata: much too large\n\ndata: 3\n\n")) == 2
    for call in (lambda: decoder.feed(b"data: 4\n\n"), lambda: decoder.feed(b""), decoder.close):
        with pytest.raises(UpstreamTooLarge):
            call()


def test_a_large_event_in_small_pieces_is_searched_once() -> None:
    """A megabyte in pieces of 16 bytes: 65,536 pieces. Searched from the start each time, that is 34 GB."""
    stream = encode(b"x" * (1 << 20))
    decoder = Decoder(max_event=1 << 21)
    events = [event for at in range(0, len(stream), 16) for event in decoder.feed(stream[at : at + 16])]
    assert [event.raw for event in events] == [stream]
