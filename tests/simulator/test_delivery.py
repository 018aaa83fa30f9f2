"""Options that change how an answer is sent, byte by byte on a bare socket."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise

import httpx
import msgspec
import pytest

from tests.scripted import Wire

from .asking import PATH, events, request, settled

COMMENT = b": keep-alive\n\n"
Ask = Callable[..., Wire]


@pytest.fixture
def ask(address: str) -> Iterator[Ask]:
    """A call with these options whose head is still to be read."""
    opened: list[Wire] = []

    def call(options: str, *, stream: bool = True) -> Wire:
        opened.append(Wire(address, request(model=f"sim-instant;chunks=3;{options}", stream=stream)))
        return opened[-1]

    yield call
    for one in opened:
        one.close()


def stamped(options: str, wire: httpx.Client, *, stream: bool = True) -> httpx.Response:
    return wire.post(PATH, json=request(model=f"sim-instant;chunks=3;{options}", stream=stream))


def pieces(one: Wire) -> list[bytes]:
    """What came, chunk by chunk."""
    return list(iter(one._read_piece, b""))


@pytest.mark.parametrize("option", ["cut-at", "reset-at"])
@pytest.mark.parametrize("count", [0, 1, 7, 200, 201])
@pytest.mark.parametrize("stream", [True, False])
def test_the_body_ends_after_exactly_so_many_bytes(ask: Ask, option: str, count: int, stream: bool) -> None:
    one = ask(f"{option}={count}", stream=stream).read_head()
    assert one.status == 200
    assert len(one.read_body()) == count
    assert one.clean == (option == "cut-at")


@pytest.mark.parametrize("gap", ["0", "0.001"])
def test_a_body_shorter_than_the_reset_is_sent_whole_and_then_reset(ask: Ask, gap: str) -> None:
    one = ask(f"reset-at=100000;gap={gap}").read_head()
    assert one.read_body().endswith(b"data: [DONE]\n\n")
    assert not one.clean


def test_reset_at_keeps_the_promised_length(ask: Ask) -> None:
    one = ask("reset-at=10", stream=False).read_head()
    assert int(one.headers["content-length"]) > 10
    assert "content-length" not in ask("cut-at=10", stream=False).read_head().headers


@pytest.mark.parametrize("spacing", ["0", "0.00001"])
def test_a_dribble_sends_each_byte_alone(ask: Ask, spacing: str) -> None:
    sent = pieces(ask(f"dribble={spacing};cut-at=120").read_head())
    assert [len(piece) for piece in sent] == [1] * 120
    assert b"".join(sent).startswith(b'data: {"id":"chatcmpl-')


def test_a_dribbled_json_answer_is_whole(wire: httpx.Client) -> None:
    assert stamped("dribble=0", wire, stream=False).json()["choices"][0]["finish_reason"] == "stop"
    counts = settled(wire)
    assert (counts["answered"], counts["by_model"]["sim-instant"]["completion_tokens"]) == (1, 3)


def test_a_dribbled_error_is_an_error(wire: httpx.Client) -> None:
    response = stamped("status=500;dribble=0", wire)
    assert (response.status_code, set(response.json())) == (500, {"error"})


def test_comments_come_before_the_first_event_and_in_the_gaps(ask: Ask) -> None:
    said = ask("first=0.05;gap=0.08;comments=0.01").read_head().read_events()
    assert said[0] == COMMENT
    assert said[-1] == b"data: [DONE]\n\n"
    data = [at for at, one in enumerate(said) if one != COMMENT]
    assert len(data) == 6
    # A machine that is busy may be late for one gap, not for each.
    assert any(after - before > 1 for before, after in pairwise(data))


def test_comments_go_on_in_a_stall(ask: Ask, wire: httpx.Client) -> None:
    one = ask("stall=2;comments=0.005").read_head()
    said = [one.read_event() for _ in range(7)]
    assert [each == COMMENT for each in said] == [False] * 2 + [True] * 5
    one.close()
    assert settled(wire)["hung_up"] == 1


def test_comments_come_where_there_is_no_event_at_all(ask: Ask) -> None:
    one = ask("stall=0;comments=0.005").read_head()
    assert [one.read_event() for _ in range(2)] == [COMMENT] * 2


def test_no_comment_breaks_a_line_an_error_or_packed_bytes(ask: Ask) -> None:
    for options in ("dribble=0.002;cut-at=40", "status=500;first=0.02", "gzip;gap=0.01"):
        one = ask(f"comments=0.001;{options}").read_head()
        assert COMMENT not in one.read_body()


@pytest.mark.parametrize("leave", [Wire.close, Wire.reset])
@pytest.mark.parametrize(
    "options",
    ["dribble=0.001", "dribble=60", "comments=0.001;first=60", "comments=60;stall=2", "endless", "endless;gap=60"],
)
def test_a_caller_who_leaves_is_noticed(
    ask: Ask, wire: httpx.Client, options: str, leave: Callable[[Wire], None]
) -> None:
    one = ask(options).read_head()
    assert one._read_piece()
    leave(one)
    counts = settled(wire)
    assert (counts["calls"], counts["hung_up"]) == (1, 1)


@pytest.mark.parametrize("options", ["endless", "endless;gap=0.0001", "endless;gzip"])
def test_an_endless_stream_goes_on_with_content(ask: Ask, options: str) -> None:
    one = ask(options).read_head()
    unpacked = zlib.decompressobj(wbits=31) if "gzip" in options else None
    came = b""
    while came.count(b"\n\n") < 500:
        piece = one._read_piece()
        came += unpacked.decompress(piece) if unpacked else piece
    said = [msgspec.json.decode(line.removeprefix(b"data: ")) for line in came.split(b"\n\n")[:500]]
    assert [each["choices"][0]["delta"] for each in said[4:]] == [{"content": " on"}] * 496
    assert len({each["id"] for each in said}) == 1
    assert {each["choices"][0]["finish_reason"] for each in said} == {None}


def test_an_endless_json_answer_is_one_string_that_never_closes(ask: Ask, wire: httpx.Client) -> None:
    one = ask("endless", stream=False).read_head()
    came = b""
    while len(came) < 100_000:
        came += one._read_piece()
    one.close()
    _, text = came.split(b'"content":"')
    assert b'"' not in text
    assert settled(wire)["hung_up"] == 1


def test_what_is_endless_can_be_cut(ask: Ask, wire: httpx.Client) -> None:
    one = ask("endless;cut-at=50000").read_head()
    assert (len(one.read_body()), one.clean) == (50_000, True)
    assert len(ask("endless;cut=40").read_head().read_events()) == 40
    counts = settled(wire)
    assert (counts["failed"], counts["answered"]) == (2, 0)


def test_a_caller_who_leaves_an_endless_stream_pays_for_what_was_sent(ask: Ask, wire: httpx.Client) -> None:
    one = ask("endless;gap=0.001").read_head()
    for _ in range(20):
        one.read_event()
    one.close()
    assert settled(wire)["by_model"]["sim-instant"]["completion_tokens"] >= 19


def test_gzip_packs_each_event_by_itself_though_identity_was_asked(ask: Ask) -> None:
    one = ask("gzip;gap=0.001").read_head()
    assert one.headers["content-encoding"] == "gzip"
    unpacked = zlib.decompressobj(wbits=31)
    said = [unpacked.decompress(piece) for piece in pieces(one)]
    assert [each.count(b"\n\n") for each in said] == [1] * 6
    assert unpacked.eof


def test_gzip_of_a_json_answer_keeps_a_length_and_may_be_cut(wire: httpx.Client, ask: Ask) -> None:
    response = wire.post(PATH, json=request(model="sim-instant;gzip"), headers={"accept-encoding": "identity"})
    assert response.json()["object"] == "chat.completion"
    packed = ask("gzip", stream=False).read_head()
    body = packed.read_body()
    assert packed.clean
    assert int(packed.headers["content-length"]) == len(body)
    assert gzip.decompress(body).endswith(b"}")
    assert len(ask("gzip;cut-at=30", stream=False).read_head().read_body()) == 30


def test_faults_stop_after_so_many_calls(wire: httpx.Client) -> None:
    told = "fail=1;cut-at=100;dribble=0;gzip;type=text/plain;malformed=0"
    first, second = stamped(told, wire), stamped(told, wire)
    assert (first.headers["content-type"], first.headers["content-encoding"]) == ("text/plain", "gzip")
    assert events(second)[-1] == "[DONE]"
    assert "content-encoding" not in second.headers
