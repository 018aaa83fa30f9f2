"""Heads travel with what follows them, nothing changes places, and a server says where it listens and drains once."""

import asyncio
import gc
import json
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from proxy.connection import Corked
from proxy.errors import PenstockError
from proxy.server import Server
from proxy.wire import PIPELINED, Bounds, Protocol

HEADERS, HEAD_BYTES = Bounds().headers, Bounds().head
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Wire:
    """A transport that notes each system call that it would make, and a loop whose next turn the test decides."""

    def __init__(self) -> None:
        self.calls: list[tuple[bytes, ...]] = []
        self.closed = False
        self.later: list[Any] = []
        self.corked = Corked(cast("asyncio.Transport", self), cast("asyncio.AbstractEventLoop", self))

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.calls.append((data,))

    def writelines(self, pieces: tuple[bytes, ...]) -> None:
        assert not self.closed
        self.calls.append(tuple(piece for piece in pieces if piece))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def call_soon(self, function: Any) -> None:
        self.later.append(function)

    def turn(self) -> None:
        """The loop has run what was ready."""
        ready, self.later = self.later, []
        for function in ready:
            function()

    def sent(self) -> bytes:
        return b"".join(piece for call in self.calls for piece in call)


def test_a_head_and_the_first_piece_of_its_body_are_one_call() -> None:
    wire = Wire()
    wire.corked.write(HEAD)
    assert wire.calls == []
    wire.corked.write(b"hi")
    wire.corked.write(b"more")
    wire.turn()
    assert wire.calls == [(HEAD, b"hi"), (b"more",)]


def test_a_head_that_nothing_follows_goes_out_alone_at_the_next_turn() -> None:
    wire = Wire()
    wire.corked.write(HEAD)
    wire.turn()
    assert wire.calls == [(HEAD,)]
    wire.corked.write(b"late")
    assert wire.calls == [(HEAD,), (b"late",)]


def test_closing_sends_a_head_that_is_held() -> None:
    wire = Wire()
    wire.corked.write(HEAD)
    wire.corked.close()
    wire.turn()
    assert (wire.calls, wire.closed) == ([(HEAD,)], True)
    assert wire.corked.is_closing()


def test_nothing_is_written_to_a_transport_that_closes() -> None:
    wire = Wire()
    wire.corked.write(HEAD)
    wire.closed = True  # by the client, before the loop came round
    wire.turn()
    for piece in (HEAD, b"hi", CONTINUE):
        wire.corked.write(piece)
    wire.corked.close()
    wire.turn()
    assert wire.calls == []


def test_what_a_client_waits_for_before_it_sends_its_body_is_not_held() -> None:
    wire = Wire()
    wire.corked.write(CONTINUE)
    assert wire.calls == [(CONTINUE,)]


def test_two_heads_at_once_keep_their_order() -> None:
    wire = Wire()
    for piece in (HEAD, HEAD, b"hi"):
        wire.corked.write(piece)
    wire.turn()
    assert wire.sent() == HEAD + HEAD + b"hi"


pieces = st.sampled_from(
    [HEAD, CONTINUE, b"", b"data: 1\n\n", b"HTTP/1.1 200 is what the body says", "a turn", "the end"]
)


@settings(deadline=None)
@given(st.lists(pieces, max_size=12))
def test_whatever_is_written_goes_out_whole_and_in_order(told: list[bytes | str]) -> None:
    wire = Wire()
    written = b""
    for piece in told:
        if isinstance(piece, bytes):
            wire.corked.write(piece)
            written += piece
        elif piece == "a turn":
            wire.turn()
            assert wire.sent() == written
        else:
            break
    wire.corked.close()
    wire.turn()
    assert wire.sent() == written


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


async def aborting(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"half", "more_body": True})


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """A server settles the garbage collector and a log for the whole process."""
    thresholds, log = gc.get_threshold(), logging.getLogger("uvicorn.error")
    filters = log.filters[:]
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)
    log.filters[:] = filters


class Running:
    """A server in this loop, without signals of its own."""

    def __init__(self, application: Any = app, *, host: str = "127.0.0.1") -> None:
        self.said: list[str] = []
        self.drains = 0
        self.may_end = asyncio.Event()
        self.refused: list[int] = []
        self.server = Server(
            application, host=host, port=0, drain=self._drain, ready=self._ready, on_refused=self._refuse
        )
        self.announced = asyncio.Event()

    def _refuse(self, error: PenstockError) -> None:
        self.refused.append(error.status)

    def _ready(self, url: str) -> None:
        self.said.append(url)
        self.announced.set()

    async def _drain(self) -> None:
        self.drains += 1
        await self.may_end.wait()


@asynccontextmanager
async def running(
    application: Any = app, *, host: str = "127.0.0.1", sockets: list[socket.socket] | None = None
) -> AsyncIterator[Running]:
    made = Running(application, host=host)
    task = asyncio.ensure_future(made.server._serve(sockets))
    async with asyncio.timeout(10):
        await made.announced.wait()
        yield made
        made.server.should_exit = True
        await task


async def got(url: str) -> bytes:
    """All that an address answers to one request."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_it_announces_the_address_at_which_it_answers() -> None:
    async with running() as made:
        (url,) = made.said
        answer = await got(url)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\nhi")
        assert b"server:" not in answer.lower()


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as listener:
            listener.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
async def test_an_ipv6_address_is_announced_as_a_client_must_write_it() -> None:
    async with running(host="::1") as made:
        (url,) = made.said
        assert url.startswith("http://[::1]:")
        assert (await got(url)).endswith(b"hi")


async def test_the_first_signal_drains_while_it_still_listens_and_the_second_ends_it() -> None:
    async with running() as made:
        made.server._stop()
        await asyncio.sleep(0)
        assert (made.drains, made.server.should_exit) == (1, False)
        assert (await got(made.said[0])).endswith(b"hi")
        made.server._stop()
        assert (made.server.should_exit, made.server.force_exit) == (True, True)
        assert made.drains == 1
        made.may_end.set()


async def test_it_ends_by_itself_once_it_has_drained() -> None:
    async with running() as made:
        made.may_end.set()
        made.server._stop()
        draining = made.server._draining
        assert draining is not None
        await draining
        assert (made.server.should_exit, made.server.force_exit) == (True, False)


async def test_a_drain_that_fails_ends_it_all_the_same() -> None:
    async def failing() -> None:
        raise RuntimeError("no")

    async with running() as made:
        made.server._drain = failing
        made.server._stop()
        draining = made.server._draining
        assert draining is not None
        with pytest.raises(RuntimeError):
            await draining
        assert made.server.should_exit


async def test_an_answer_that_is_left_incomplete_has_no_clean_end_and_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(aborting) as made:
        answer = await got(made.said[0])
    assert answer.endswith(b"4\r\nhalf\r\n")
    assert caplog.text == ""


async def test_it_serves_at_a_socket_that_was_bound_for_it() -> None:
    bound = socket.create_server(("127.0.0.1", 0))
    port = bound.getsockname()[1]
    async with running(sockets=[bound]) as made:
        assert made.said == [f"http://127.0.0.1:{port}"]
        assert (await got(made.said[0])).endswith(b"hi")


GET = b"GET / HTTP/1.1\r\nhost: x\r\n"


@asynccontextmanager
async def connected(made: Running) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    host, _, port = made.said[0].removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    yield reader, writer
    writer.transport.abort()


async def refused(made: Running, data: bytes) -> tuple[int, dict[str, Any]]:
    """The status and the error of the last answer to these bytes, after which the connection was closed."""
    async with connected(made) as (reader, writer):
        writer.write(data)
        async with asyncio.timeout(5):
            head, _, body = (await reader.read()).rpartition(b"\r\n\r\n")
        last = head.rpartition(b"HTTP/1.1 ")[2].lower()
        assert b"connection: close" in last
        assert b"content-type: application/json" in last
        return int(last[:3]), json.loads(body)["error"]


TOO_LARGE = {
    "too many headers": GET + b"x: a\r\n" * HEADERS + b"\r\n",
    "hundreds of thousands of them": GET + b"x: a\r\n" * 400_000 + b"\r\n",
    "too many bytes": GET + b"".join(b"x%d: %b\r\n" % (number, b"a" * 1000) for number in range(40)) + b"\r\n",
    "one header that is too large": GET + b"x: " + b"a" * HEAD_BYTES + b"\r\n\r\n",
    "a header without an end": GET + b"x: " + b"a" * 2_000_000,
    "a name without an end": GET + b"a" * 2_000_000,
    "a URL that is too large": b"GET /" + b"a" * HEAD_BYTES + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    "a URL without a header": b"GET /" + b"a" * HEAD_BYTES + b" HTTP/1.1\r\n\r\n",
    "a second request's": GET + b"\r\n" + GET + b"x: a\r\n" * HEADERS + b"\r\n",
}


@pytest.mark.parametrize("data", TOO_LARGE.values(), ids=TOO_LARGE)
async def test_headers_have_a_bound(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with running() as made:
        if data.count(GET) == 2:  # while the first is answered, its answer would come instead
            async with connected(made) as (reader, writer):
                writer.write(data)
                assert (await reader.read()).count(b"HTTP/1.1 ") == 1
        else:
            assert await refused(made, data) == (
                431,
                {
                    "message": "A request may have 100 headers (server.max_headers), and 32768 bytes of them "
                    "(server.max_header_size).",
                    "type": "invalid_request_error",
                    "param": None,
                    "code": "request_headers_too_large",
                },
            )
        assert (await got(made.said[0])).endswith(b"hi")
    assert "Traceback" not in caplog.text


async def test_headers_within_the_bound_are_let_in_however_they_are_cut() -> None:
    request = GET + b"x: a\r\n" * (HEADERS - 2) + b"y: " + b"a" * 30_000 + b"\r\n\r\n"
    async with running() as made, connected(made) as (reader, writer):
        for _ in range(3):
            for start in range(0, len(request), 7000):
                writer.write(request[start : start + 7000])
                await asyncio.sleep(0.005)
            assert (await reader.readuntil(b"hi")).startswith(b"HTTP/1.1 200")


async def test_blanks_around_a_value_are_none_of_it() -> None:
    seen: list[bytes] = []

    async def look(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(value for name, value in scope["headers"] if name == b"x")
        await app(scope, receive, send)

    async with running(look) as made, connected(made) as (reader, writer):
        writer.write(GET + b"x: \t a b\t \r\nx:c\r\nx:   \r\n\r\n")
        await reader.readuntil(b"hi")
    assert seen == [b"a b", b"c", b""]


async def read_all(_: Scope, receive: Receive, send: Send) -> None:
    message = await receive()
    while message.get("more_body"):
        message = await receive()
    await app({}, receive, send)


async def test_what_follows_a_large_body_is_not_taken_for_a_large_head() -> None:
    post = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n"
    async with running(read_all) as made, connected(made) as (reader, writer):
        writer.write(post)
        await asyncio.sleep(0.05)
        writer.write(b"\r\n" + b"a" * 100_000 + GET)
        await reader.readuntil(b"hi")
        writer.write(b"\r\n")
        assert (await reader.readuntil(b"hi")).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("name", ["Authorization", "Host"])
async def test_of_two_that_contradict_each_other_neither_is_heeded(name: str) -> None:
    two = f"{name}: a\r\n{name.lower()}: b\r\n\r\n".encode()
    async with running() as made:
        status, error = await refused(made, b"GET / HTTP/1.1\r\n" + two)
        assert (status, error["message"]) == (400, f"There may be only one `{name}` header.")


MALFORMED = [
    b"hello\r\n\r\n",
    GET + b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nno number\r\n",
]


@pytest.mark.parametrize("data", MALFORMED)
async def test_what_is_no_http_is_told_so_in_openais_shape(data: bytes) -> None:
    async with running(read_all) as made:
        status, error = await refused(made, data)
        assert (status, error["type"]) == (400, "invalid_request_error")


async def test_a_trailer_is_no_header() -> None:
    seen: list[Any] = []

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        await read_all(scope, receive, send)
        seen.extend(name for name, _ in scope["headers"])

    post = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\nauthorization: b\r\n\r\n"
    async with running(noting) as made, connected(made) as (reader, writer):
        writer.write(post)
        await reader.readuntil(b"hi")
    assert seen == [b"host", b"transfer-encoding"]


class Attended:
    """An application whose first request waits until its client has left, or until it is let go."""

    def __init__(self) -> None:
        self.came = 0
        self.left = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.came += 1
        await receive()
        if self.came == 1:
            leaving = asyncio.ensure_future(self._leaving(receive))
            await asyncio.wait([leaving, asyncio.ensure_future(self.go.wait())], return_when="FIRST_COMPLETED")
            leaving.cancel()
        await app(scope, receive, send)

    async def _leaving(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.set()


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize(
    "behind", [b"", GET + b"\r\n", GET, (GET + b"\r\n") * (PIPELINED + 1), b"no http\r\n\r\n", b"\r\n"]
)
async def test_who_pipelined_and_leaves_is_seen_to_leave(behind: bytes, later: bool) -> None:
    attended = Attended()
    async with running(attended) as made, connected(made) as (_, writer):
        if later:
            writer.write(GET + b"\r\n")
            await asyncio.sleep(0.05)
            writer.write(behind)
        else:
            writer.write(GET + b"\r\n" + behind)
        await asyncio.sleep(0.05)
        writer.transport.abort()
        async with asyncio.timeout(5):
            await attended.left.wait()
        assert attended.came == 1


async def test_who_pipelined_a_large_body_and_leaves_is_seen_to_leave() -> None:
    attended = Attended()
    async with running(attended) as made, connected(made) as (_, writer):
        writer.write(GET + b"\r\n")
        await asyncio.sleep(0.05)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n" + b"a" * 1_000_000)
        await asyncio.sleep(0.05)
        writer.transport.abort()
        async with asyncio.timeout(5):
            await attended.left.wait()


@pytest.mark.parametrize(("many", "answered"), [(3, 3), (PIPELINED + 1, PIPELINED + 1), (PIPELINED + 2, 1)])
async def test_pipelined_requests_are_answered_in_turn_and_too_many_end_with_the_first(
    many: int, answered: int
) -> None:
    attended = Attended()
    async with running(attended) as made, connected(made) as (reader, writer):
        writer.write((GET + b"\r\n") * (many - 1) + GET + b"connection: close\r\n\r\n")
        await asyncio.sleep(0.05)
        attended.go.set()
        async with asyncio.timeout(5):
            assert (await reader.read()).count(b"\r\n\r\nhi") == answered


async def test_an_answer_that_nobody_reads_does_not_hold_up_the_end() -> None:
    async def endless(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                while True:
                    await send({"type": "http.response.body", "body": b"x" * 1_000_000, "more_body": True})

    async with running(endless) as made, connected(made) as (_, writer):
        cast("asyncio.Transport", writer.transport).pause_reading()
        writer.write(GET + b"\r\n")
        await asyncio.sleep(0.5)
        started = asyncio.get_running_loop().time()
        await made.server.shutdown()
        assert asyncio.get_running_loop().time() - started < 2


async def test_who_is_answered_while_it_still_sends_gets_the_answer_before_the_connection_ends() -> None:
    """To close with something unread sends a reset, which takes an answer that was not read yet with it."""

    async def refuse(_: Scope, __: Receive, send: Send) -> None:
        headers = [(b"content-length", b"2"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": b"no"})

    async with running(refuse) as made, connected(made) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000\r\n\r\n" + b"a" * 300_000)
        await asyncio.sleep(0.05)
        for _ in range(20):
            writer.write(b"a" * 100_000)  # raises where the connection was reset
            await writer.drain()
            await asyncio.sleep(0.002)
        assert (await reader.read()).endswith(b"\r\n\r\nno")


async def test_what_no_endpoint_sees_is_told_to_whoever_counts() -> None:
    async with running() as made, connected(made) as (reader, writer):
        writer.write(b"nonsense\r\n\r\n")
        await reader.read()
        assert (made.refused, made.server.connections) == ([400], 1)


ENDLESS = {
    "a trailer": b"0\r\nx: " + b"a" * 300_000,
    "a trailer's name": b"0\r\n" + b"a" * 300_000,
    "trailers": b"0\r\n" + b"x: a\r\n" * 50_000,
    "a chunk's extension": b"1;" + b"a" * 300_000,
}


@pytest.mark.parametrize("what", ENDLESS)
async def test_what_follows_a_body_has_a_bound(what: str) -> None:
    head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n"
    async with running(read_all) as made, connected(made) as (reader, writer):
        writer.write(head)
        with suppress(ConnectionError):
            for start in range(0, len(ENDLESS[what]), 10_000):
                writer.write(ENDLESS[what][start : start + 10_000])
                await writer.drain()
                await asyncio.sleep(0.001)
        assert (await reader.read()).startswith(b"HTTP/1.1 431 ")


H2C = b"connection: upgrade\r\nupgrade: h2c\r\n"


async def test_offers_of_another_protocol_that_are_pipelined_stay_apart() -> None:
    """What a header of the one says is never taken for the other."""
    seen: list[str] = []

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["path"])
        await app(scope, receive, send)

    for filling in (*range(0, 40, 3), *range(60, 120, 5)):
        seen.clear()
        first = b"GET /first HTTP/1.1\r\nhost: x\r\n" + H2C + b"\r\n"
        hidden = b"x: " + b"a" * filling + b"GET /hidden HTTP/1.1\r\nhost: x\r\n"
        second = b"GET /second HTTP/1.1\r\nhost: x\r\n" + H2C + hidden.replace(b"\r\nhost", b"\r\nshost") + b"\r\n"
        async with running(note) as made, connected(made) as (reader, writer):
            writer.write(first + second + b"GET /third HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            await reader.read()
        assert seen == ["/first", "/second", "/third"]


async def test_an_offer_with_a_body_of_no_length_is_answered() -> None:
    request = b"POST / HTTP/1.1\r\nhost: x\r\n" + H2C + b"content-length: 0\r\n\r\n"
    async with running(read_all) as made, connected(made) as (reader, writer):
        writer.write(request)
        assert (await reader.readuntil(b"hi")).startswith(b"HTTP/1.1 200 ")


async def test_a_client_that_is_not_read_from_is_seen_to_leave() -> None:
    lost = asyncio.Event()

    async def stuck(scope: Scope, receive: Receive, _: Send) -> None:
        scope["extensions"]["penstock.when_lost"]["call"](lost.set)
        await receive()
        await asyncio.wait_for(lost.wait(), 10)

    async with running(stuck) as made, connected(made) as (_, writer):
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n" + b"a" * 1_000_000)
        await asyncio.sleep(0.1)
        writer.transport.abort()
        await asyncio.wait_for(lost.wait(), 10)


async def test_a_connection_that_has_ended_is_no_garbage_that_waits_for_the_collector() -> None:
    def protocols() -> int:
        return sum(isinstance(found, Protocol) for found in gc.get_objects())

    async with running() as made:
        await got(made.said[0])
        gc.collect()
        before = protocols()
        gc.disable()
        try:
            for _ in range(5):
                await got(made.said[0])
            await asyncio.sleep(0.05)
            assert protocols() <= before
        finally:
            gc.enable()
