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
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

KEEP_ALIVE = 75  # seconds; longer than clients keep a connection, so that they are the ones who let go
CLOSING = 5  # seconds for connections to close once nothing is left to answer


class _Expected(logging.Filter):
    """Drops what uvicorn takes for a mistake and is none, and what the command says in a line of its own.

    A stream that fails is ended by leaving it incomplete, on purpose; a port that is taken stops the start.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        return "returned without completing response" not in message and not message.startswith("[Errno")


class _Corked:
    """A transport that sends an answer's head together with the first piece of its body: one system call, not two.

    uvicorn writes the head as soon as it knows it. What is held goes out when anything else is written, and at the
    latest when the loop has run what is ready now.
    """

    __slots__ = ("_held", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def write(self, data: bytes) -> None:
        if self._held:
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
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Protocol(HttpToolsProtocol):
    """uvicorn's, over a corked transport.

    It does not ask the system for both addresses of each connection, as uvicorn does: nobody reads them, and to ask
    takes a tenth of the time to a stream's first event when many begin at once.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.connections.add(self)
        self.transport = cast("asyncio.Transport", _Corked(transport, self.loop))
        self.flow = FlowControl(transport)
        self.scheme = "http"


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
