"""uvicorn, told to drain: on SIGTERM it keeps listening, so that `/readyz` can say so, until what is open has ended."""

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from proxy.wire import Bounds, OnRefused, Protocol

KEEP_ALIVE = 75  # seconds; longer than clients keep a connection, so that they are the ones who let go
CLOSING = 5  # seconds for connections to close once nothing is left to answer


class _Expected(logging.Filter):
    """Drops what uvicorn takes for a mistake of ours.

    A stream that fails is ended by leaving it incomplete, on purpose; a client that sends no HTTP is told so.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.getMessage()
        return "returned without completing response" not in said and said != "Invalid HTTP request received."


class Server(uvicorn.Server):
    """`drain` runs once at the first SIGTERM or SIGINT, before the listener is closed; a second one ends it at once.

    `on_refused` hears of requests that no endpoint sees: connections too many, heads late, too large or no HTTP.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str,
        port: int,
        drain: Callable[[], Awaitable[None]],
        ready: Callable[[str], None],
        bounds: Bounds | None = None,
        on_refused: OnRefused = lambda _: None,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                loop="uvloop",
                http=partial(Protocol, bounds=bounds or Bounds(), on_refused=on_refused),  # type: ignore[arg-type]
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
        # Nor more often at what is young: what is under way would be taken for old, and its remains stay for long.
        gc.set_threshold(20_000, 20, 20)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        self._ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self.server_state.connections)

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
