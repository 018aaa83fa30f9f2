"""How an answer's head is written: as uvicorn writes it, byte for byte."""

import asyncio
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from proxy.cycle import Cycle

Header = tuple[bytes, bytes]
DATE = (b"date", b"Wed, 25 Nov 2026 12:00:00 GMT")
USUAL: list[Header] = [(b"content-type", b"application/json"), (b"x-request-id", b"req_1"), (b"age", b"3")]
FRAMING: list[Header] = [
    (b"content-length", b"12"),
    (b"transfer-encoding", b"chunked"),
    (b"transfer-encoding", b"gzip"),
    (b"connection", b"close"),
    (b"connection", b"keep-alive, Close"),
    (b"connection", b"keep-alive"),
]


class Wire:
    """What is written; the rest of a transport is not needed."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data


def begun(kind: type[RequestResponseCycle], headers: list[Header], status: int, method: str, *, alive: bool) -> Any:
    """What a cycle of that kind writes, and what it remembers for the body."""
    wire = Wire()
    cycle = RequestResponseCycle(
        scope={"method": method},  # type: ignore[typeddict-item]
        transport=wire,  # type: ignore[arg-type]
        flow=FlowControl(wire),  # type: ignore[arg-type]
        logger=logging.getLogger(),
        access_logger=logging.getLogger(),
        access_log=False,
        default_headers=[DATE],
        message_event=asyncio.Event(),
        expect_100_continue=True,
        keep_alive=alive,
        on_response=lambda: None,
    )
    if kind is Cycle:
        Cycle.adopt(cycle)
    start = cycle.send({"type": "http.response.start", "status": status, "headers": headers})
    with pytest.raises(StopIteration):
        start.send(None)
    return wire.written, cycle.chunked_encoding, cycle.expected_content_length, cycle.keep_alive


@given(
    st.lists(st.sampled_from(USUAL + FRAMING), max_size=6),
    st.sampled_from([200, 204, 304, 404, 503]),
    st.sampled_from(["GET", "HEAD", "POST"]),
    st.booleans(),
)
def test_a_head_is_written_as_uvicorn_writes_it(headers: list[Header], status: int, method: str, alive: bool) -> None:
    ours = begun(Cycle, headers, status, method, alive=alive)
    assert ours == begun(RequestResponseCycle, headers, status, method, alive=alive)


@pytest.mark.parametrize("said", [b"a\r\nset-cookie: b=1", b"a\nb", b"a\rb", b"a\x00", b"\x7f", b"\x1b[0m"])
@pytest.mark.parametrize("where", ["name", "value"])
def test_a_header_that_would_be_two_or_none_is_refused_and_nothing_is_written(said: bytes, where: str) -> None:
    header = (said, b"1") if where == "name" else (b"x-a", said)
    with pytest.raises(RuntimeError, match="holds what none may"):
        begun(Cycle, [header], 200, "GET", alive=True)
