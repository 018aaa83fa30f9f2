"""HTTP as clients speak it: uvicorn's protocol with bounds, and with an eye on every request of a connection."""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from proxy.connection import LINGER, Corked, is_gone, never, nothing, untaken
from proxy.cycle import Cycle
from proxy.errors import HeadersTooLarge, InvalidRequest, Overloaded, PenstockError, RequestTimeout

ONLY_ONE = frozenset({b"authorization", b"host"})  # of two, others may heed the one that Penstock does not
FRAMING = frozenset({b"content-length", b"transfer-encoding"})  # where a request's body ends
PIPELINED = 16  # requests that may wait for their turn on one connection
SEPARATORS = 4  # bytes around a header: a colon, a blank, a line end
WATCH = 1.0  # seconds between two looks at a client that is not read from
WHEN_LOST = "penstock.when_lost"  # an extension of the scope: {"call": a function that takes a callback}


Header = tuple[bytes, bytes]
OnRefused = Callable[[PenstockError], None]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one client may take up. Times in seconds, sizes in bytes.

    `head_timeout`: for a request's head to be complete, once the connection is open or a byte of it has come.
    `send_timeout`: for a client to take anything at all of what waits for it.
    """

    headers: int = 100
    head: int = 32 * 1024
    head_timeout: float = 20.0
    send_timeout: float = 120.0
    connections: int = 8192


class Protocol(HttpToolsProtocol):
    """uvicorn's, over a corked transport, with bounds, and with an eye on every request of a connection.

    It does not ask the system for both addresses of each connection, as uvicorn does: nobody reads them, and to ask
    takes a tenth of the time to a stream's first event when many begin at once.
    """

    def __init__(self, *arguments: Any, bounds: Bounds, on_refused: OnRefused, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._bounds = bounds
        self._on_refused = on_refused
        self.scope: dict[str, Any] = {}  # type: ignore[assignment]
        self._said: set[bytes] = set()  # of ONLY_ONE, in the head that comes

    _running: RequestResponseCycle | None = None  # the one that is being answered; `cycle` is the newest
    _in_head = False
    _head_size = 0  # of the headers and trailers that are complete
    _heard = False  # something whole came with these bytes: a head, a piece of a body, an end
    _unfinished = 0  # bytes that came since then
    _refusal: PenstockError | None = None  # why the parser was stopped, if it was not by the parser itself
    _refused = False
    _fed = b""  # what the parser is at
    _priming = False  # the parser is told what another has heard already
    _deadline: asyncio.TimerHandle | None = None  # for a head to be complete
    _stuck: asyncio.TimerHandle | None = None  # looks whether the client has taken anything since
    _unsent = 0  # bytes that waited for the client at the last look
    _watch: asyncio.TimerHandle | None = None  # looks whether a client is there that is not read from
    _when_lost: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.connections.add(self)
        self._corked = Corked(transport, self.loop)
        self._corked.lingers, self._corked.closing = self._lingers, self.closing
        self.transport = cast("asyncio.Transport", self._corked)
        self.flow = FlowControl(transport)
        self.scheme = "http"
        if len(self.connections) > self._bounds.connections:
            self._refuse(Overloaded("As many connections are open as may be (server.max_connections)."))
        else:
            self._await_head(self._bounds.head_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """uvicorn tells only the newest request, which may be one that waits behind the one that is answered."""
        for timer in (self._deadline, self._stuck, self._watch):
            if timer is not None:
                timer.cancel()
        if self._when_lost is not None:
            self._when_lost()
        for cycle in (self._running, *[waiting for waiting, _ in self.pipeline]):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)
        # What knows this connection by its methods lets go of it, so that it need not wait for the garbage collector.
        self._corked.lingers, self._corked.closing = never, nothing
        self._when_lost = None
        self.scope.pop("extensions", None)

    def data_received(self, data: bytes) -> None:
        if self._deaf():
            return
        self._heard = False
        began, self._fed = self._in_head, data
        super().data_received(data)
        self._fed = b""
        if self._deaf():
            return
        # Of a header or a trailer without an end, `on_header` does not hear. The first piece of a head is not counted.
        self._unfinished = 0 if self._heard or (self._in_head and not began) else self._unfinished + len(data)
        if self._unfinished > self._bounds.head:
            self._refuse(self._too_large())
        elif self._deadline is None and self._in_head:
            self._await_head(self._bounds.head_timeout)
        elif self._deadline is None and self._is_idle():  # what came was nothing; uvicorn waits no longer
            self._await_head(self.timeout_keep_alive)

    def _deaf(self) -> bool:
        return self._refused

    def _lingers(self) -> bool:
        """Is there something of a request that nobody will read? It is let fall, so that our answer arrives."""
        unread = self._running is not None and self._running.more_body and not self._refused
        if unread:
            self._refused = True
            self.flow.resume_reading()
        return unread

    def _is_idle(self) -> bool:
        return self._running is None or self._running.response_complete

    def _await_head(self, seconds: float) -> None:
        self._deadline = self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        """No whole head in time. Who has sent nothing of one is not waiting for an answer."""
        self._deadline = None
        if self._in_head:
            self._refuse(
                RequestTimeout(
                    f"The headers did not come within {self._bounds.head_timeout:g} seconds (server.head_timeout)."
                )
            )
        elif self._is_idle():
            self.transport.close()

    def _too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(
            f"A request may have {self._bounds.headers} headers (server.max_headers), and {self._bounds.head} bytes of "
            f"them (server.max_header_size)."
        )

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_again()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def closing(self) -> None:
        """The connection ends once the client has taken what waits for it."""
        if self._stuck is None and self.transport.get_write_buffer_size():
            self._look_again()

    def _look_again(self) -> None:
        self._unsent = untaken(self.transport)
        self._stuck = self.loop.call_later(self._bounds.send_timeout, self._look)

    def _look(self) -> None:
        """A slow client is waited for, one that takes nothing is not: what it was sent is held all the while."""
        if untaken(self.transport) < self._unsent:
            self._look_again()
        else:
            self.transport.abort()

    def _watch_client(self) -> None:
        """uvicorn does not read on while much of a body waits, and so does not see the client leave."""
        self._watch = None
        if not self.flow.read_paused or self.transport.is_closing():
            return
        if is_gone(self.transport):
            self.transport.abort()
            return
        self._watch = self.loop.call_later(WATCH, self._watch_client)

    def when_lost(self, callback: Callable[[], None]) -> None:
        """Call it once when the client has gone, be it while nobody receives."""
        self._when_lost = callback

    def on_message_begin(self) -> None:
        if self._priming:
            return
        self._in_head = True
        self._head_size = 0
        self._said.clear()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        if self._priming:
            return
        self._head_size += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:  # a trailer; uvicorn would take it for a header of the request that is being answered
            self._head_size += len(name) + len(value) + SEPARATORS
            if self._head_size > self._bounds.head:
                self._stop(self._too_large())
            return
        name, value = name.lower(), value.rstrip(b" \t")  # which is none of it (RFC 9110, 5.5); the parser leaves it
        self._head_size += len(name) + len(value)
        if len(self.headers) >= self._bounds.headers or self._head_size > self._bounds.head:
            self._stop(self._too_large())
        if name in ONLY_ONE:
            if name in self._said:
                self._stop(InvalidRequest(f"There may be only one `{name.decode().title()}` header."))
            self._said.add(name)
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._priming:
            return
        if self._head_size > self._bounds.head:  # a URL alone, before the first header
            self._stop(self._too_large())
        self._in_head = False
        self._heard = True
        self._cancel_deadline()
        super().on_headers_complete()
        self.scope["extensions"] = {WHEN_LOST: {"call": self.when_lost}}
        if len(self.pipeline) > PIPELINED:
            self._stop(InvalidRequest("Too many requests wait on this connection."))
        if self.pipeline:
            self.flow.resume_reading()  # uvicorn pauses here, and whoever pauses does not see the client leave

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def on_body(self, body: bytes) -> None:
        self._heard = True
        super().on_body(body)
        if self.flow.read_paused and self._watch is None:
            self._watch = self.loop.call_later(WATCH, self._watch_client)
        if self.flow.read_paused and self.cycle is not self._running:
            self._stop(InvalidRequest("A request with a large body waits on this connection."))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        Cycle.adopt(cycle)
        super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        self._heard = True
        if not self._priming and not (self.parser.should_upgrade() and self._framing()):
            super().on_message_complete()

    def _framing(self) -> list[Header]:
        """The headers that say where a body ends; none where there is no body."""
        return [(name, value) for name, value in self.headers if name in FRAMING and value.strip(b"0")]

    def _unsupported_upgrade_warning(self) -> None:
        """Another protocol was offered (Java's client always offers one), which a server may ignore.

        The parser takes all that follows for that protocol, the request's own body as well. Another parser is told of
        the body, and gets it.
        """
        offered = sys.exc_info()[1]
        rest = self._fed[offered.args[0] :] if offered is not None else b""
        lines = [b"%b: %b\r\n" % header for header in self._framing()]
        self.parser = httptools.HttpRequestParser(self)
        if lines:
            self._priming = True
            self.parser.feed_data(b"".join([b"POST / HTTP/1.1\r\n", *lines, b"\r\n"]))
            self._priming = False
        if rest:
            self._fed = rest  # there may be another one in it
            super().data_received(rest)

    def _stop(self, error: PenstockError) -> None:
        """Stop the parser. It raises an error of its own, for which uvicorn calls `send_400_response`."""
        self._refusal = error
        raise error

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal or InvalidRequest(msg))

    def _refuse(self, error: PenstockError) -> None:
        """Hear no more from this client. What it asked before is answered first, and is then the last answer."""
        if self._refused:
            return
        self._refused = True
        self._cancel_deadline()
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

    def _tell(self, error: PenstockError) -> None:
        if self.transport.is_closing():
            return
        body = error.body()
        head = [STATUS_LINE[error.status], *[b"%b: %b\r\n" % pair for pair in self.server_state.default_headers]]
        if error.retry_after is not None:
            head.append(b"retry-after: %d\r\n" % error.retry_after)
        head.append(b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body))
        self._on_refused(error)
        self.transport.write(b"".join([*head, body]))
        self.transport.write(b"")  # lets go of the cork
        self.transport.write_eof()
        self.loop.call_later(LINGER, self.transport.close)

    def shutdown(self) -> None:
        """An answer that was left incomplete, to a client that does not read, need not be waited for."""
        if self._running is not None and not self._running.response_complete and self.transport.is_closing():
            self.transport.abort()
        super().shutdown()
