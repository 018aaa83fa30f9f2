"""uvicorn, told to drain: on SIGTERM it keeps listening, so that `/readyz` can say so, until what is open has ended."""

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from proxy.errors import InvalidRequest

KEEP_ALIVE = 75  # seconds; longer than clients keep a connection, so that they are the ones who let go
CLOSING = 5  # seconds for connections to close once nothing is left to answer
HEADERS = 100  # in one request
HEAD = 32 * 1024  # bytes of them, the URL included
ONLY_ONE = frozenset({b"authorization", b"host"})  # of two, others may heed the one that Penstock does not
PIPELINED = 16  # requests that may wait for their turn on one connection
LINGER = 2  # seconds in which what a refused client still sends is let fall; a reset would take our answer from it


class _Expected(logging.Filter):
    """Drops what uvicorn takes for a mistake: a stream that fails is ended by leaving it incomplete, on purpose."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "returned without completing response" not in record.getMessage()


class _Corked:
    """A transport that sends an answer's head together with the first piece of its body: one system call, not two.

    uvicorn writes the head as soon as it knows it. What is held goes out when anything else is written, and at the
    latest when the loop has run what is ready now. Nothing is written once the transport closes: uvloop would raise.
    """

    __slots__ = ("_held", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def write(self, data: bytes) -> None:
        if self._transport.is_closing():
            self._held = b""
        elif self._held:
            held, self._held = self._held, b""
            self._transport.writelines((held, data))
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 1"):
            self._held = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def _flush(self) -> None:
        if self._held:
            self.write(b"")

    def close(self) -> None:
        self._flush()
        if not self._transport.is_closing():
            self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def _too_large() -> InvalidRequest:
    error = InvalidRequest(f"A request may have {HEADERS} headers, and {HEAD} bytes of them.")
    error.status = 431
    error.code = "request_headers_too_large"
    return error


class _Protocol(HttpToolsProtocol):
    """uvicorn's, over a corked transport, with bounds, and with an eye on every request of a connection.

    It does not ask the system for both addresses of each connection, as uvicorn does: nobody reads them, and to ask
    takes a tenth of the time to a stream's first event when many begin at once.
    """

    _running: RequestResponseCycle | None = None  # the one that is being answered; `cycle` is the newest
    _in_head = False
    _head_size = 0  # of the headers that are complete
    _unfinished = 0  # bytes that came since the head began, its first piece not counted
    _refusal: InvalidRequest | None = None  # why the parser was stopped, if it was not by the parser itself
    _refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.connections.add(self)
        self.transport = cast("asyncio.Transport", _Corked(transport, self.loop))
        self.flow = FlowControl(transport)
        self.scheme = "http"

    def connection_lost(self, exc: Exception | None) -> None:
        """uvicorn tells only the newest request, which may be one that waits behind the one that is answered."""
        for cycle in (self._running, *[waiting for waiting, _ in self.pipeline]):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        head = self.headers if self._in_head else None
        super().data_received(data)
        if head is not None and self._in_head and self.headers is head and not self._refused:
            self._unfinished += len(data)  # of a header without an end, `on_header` does not hear
            if self._unfinished > HEAD:
                self._refuse(_too_large())

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_size = self._unfinished = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._head_size += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return  # a trailer; uvicorn would take it for a header of the request that is being answered
        name = name.lower()
        self._head_size += len(name) + len(value)
        if len(self.headers) >= HEADERS or self._head_size > HEAD:
            self._stop(_too_large())
        if name in ONLY_ONE and any(name == other for other, _ in self.headers):
            self._stop(InvalidRequest(f"There may be only one `{name.decode().title()}` header."))
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._head_size > HEAD:  # a URL alone, before the first header
            self._stop(_too_large())
        self._in_head = False
        super().on_headers_complete()
        if len(self.pipeline) > PIPELINED:
            self._stop(InvalidRequest("Too many requests wait on this connection."))
        if self.pipeline:
            self.flow.resume_reading()  # uvicorn pauses here, and whoever pauses does not see the client leave

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        if self.flow.read_paused and self.cycle is not self._running:
            self._stop(InvalidRequest("A request with a large body waits on this connection."))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _stop(self, error: InvalidRequest) -> None:
        """Stop the parser. It raises an error of its own, for which uvicorn calls `send_400_response`."""
        self._refusal = error
        raise error

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal or InvalidRequest(msg))

    def _refuse(self, error: InvalidRequest) -> None:
        """Hear no more from this client. What it asked before is answered first, and is then the last answer."""
        self._refused = True
        self.flow.resume_reading()  # to see it leave
        running = self._running
        if running is None or running.response_complete:
            self._tell(error)
        elif not running.more_body:
            running.keep_alive = False
        elif running.response_started:
            self.transport.close()
        else:
            running.disconnected = True  # it never becomes whole: nobody else may answer it
            running.message_event.set()
            self._tell(error)

    def _tell(self, error: InvalidRequest) -> None:
        if self.transport.is_closing():
            return
        body = error.body()
        head = [STATUS_LINE[error.status], *[b"%b: %b\r\n" % pair for pair in self.server_state.default_headers]]
        head.append(b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body))
        self.transport.write(b"".join([*head, body]))
        self.transport.write(b"")  # lets go of the cork
        self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.close)

    def shutdown(self) -> None:
        """An answer that was left incomplete, to a client that does not read, need not be waited for."""
        if self._running is not None and not self._running.response_complete and self.transport.is_closing():
            self.transport.abort()
        super().shutdown()


class Server(uvicorn.Server):
    """`drain` runs once at the first SIGTERM or SIGINT, before the listener is closed; a second one ends it at once."""

    def __init__(
        self, app: ASGIApp, *, host: str, port: int, drain: Callable[[], Awaitable[None]], ready: Callable[[str], None]
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                loop="uvloop",
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=CLOSING,
                backlog=2048,
            )
        )
        self._drain = drain
        self._ready = ready
        self._draining: asyncio.Future[None] | None = None
        logging.getLogger("uvicorn.error").addFilter(_Expected())

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What was made until now lives as long as the process: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        self._ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        caught = (signal.SIGTERM, signal.SIGINT)
        for number in caught:
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in caught:
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        if self._draining is not None:
            self.should_exit = self.force_exit = True
            return
        self._draining = asyncio.ensure_future(self._drained())

    async def _drained(self) -> None:
        try:
            await self._drain()
        finally:
            self.should_exit = True
