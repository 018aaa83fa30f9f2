"""Heads travel with what follows them, nothing changes places, and a server says where it listens and drains once."""

import asyncio
import gc
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from proxy.server import Server, _Corked

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Wire:
    """A transport that notes each system call that it would make, and a loop whose next turn the test decides."""

    def __init__(self) -> None:
        self.calls: list[tuple[bytes, ...]] = []
        self.closed = False
        self.later: list[Any] = []
        self.corked = _Corked(cast("asyncio.Transport", self), cast("asyncio.AbstractEventLoop", self))

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
        self.server = Server(application, host=host, port=0, drain=self._drain, ready=self._ready)
        self.announced = asyncio.Event()

    def _ready(self, url: str) -> None:
        self.said.append(url)
        self.announced.set()

    async def _drain(self) -> None:
        self.drains += 1
        await self.may_end.wait()


@asynccontextmanager
async def running(application: Any = app, *, host: str = "127.0.0.1") -> AsyncIterator[Running]:
    made = Running(application, host=host)
    task = asyncio.ensure_future(made.server._serve())
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
