"""One request and its answer on a connection: uvicorn's, but for how an answer's head is written.

uvicorn looks at each header by itself, and three times over: some 5 µs of each answer. Rule: what is written is what
uvicorn would write, and nothing is where a header would be two.
"""

from collections.abc import Coroutine
from typing import Any, Final

from uvicorn._types import ASGISendEvent, HTTPResponseStartEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from proxy.connection import Corked

# What says how the body ends, and what becomes of the connection. Names come in lower case, whoever made them.
MEANT: Final = frozenset({b"content-length", b"transfer-encoding", b"connection"})
FOLLOWED: Final = "penstock.followed"  # in a head's message: that of its body comes at once
NEVER: Final = bytes([*range(9), 11, 12, *range(14, 32), 127])  # bytes that no line of a head holds


class Cycle(RequestResponseCycle):
    """Made of uvicorn's by `adopt`, as its protocol makes no other class."""

    transport: Corked  # type: ignore[assignment]  # as far as anybody asks, it is an asyncio.Transport
    _closes = False  # its headers say so

    @classmethod
    def adopt(cls, cycle: RequestResponseCycle) -> None:
        """From now on it is one of these; what it has of its own is the class's."""
        cycle.__class__ = cls

    def send(self, message: ASGISendEvent) -> Coroutine[Any, Any, None]:
        if message["type"] != "http.response.start" or self.response_started or self.disconnected:
            return super().send(message)
        return self._begin(message)

    async def _begin(self, message: HTTPResponseStartEvent) -> None:
        if self.flow.write_paused:
            await self.flow.drain()
        self.response_started = True
        self.waiting_for_100_continue = False
        status, headers = message["status"], [*self.default_headers, *message.get("headers", ())]
        for name, value in headers:
            if name in MEANT:
                self._heed(name, value)
        if not self.keep_alive and not self._closes:
            headers.append((b"connection", b"close"))
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in (204, 304):
            self.chunked_encoding = True
            headers.append((b"transfer-encoding", b"chunked"))
        head = b"".join([STATUS_LINE[status], *[b"%b: %b\r\n" % header for header in headers], b"\r\n"])
        lines = len(headers) + 2
        if head.count(b"\n") != lines or head.count(b"\r") != lines or len(head.translate(None, NEVER)) != len(head):
            raise RuntimeError("a header of this answer holds what none may")
        is_followed = FOLLOWED in message and self.scope["method"] != "HEAD"  # whose body is not written
        (self.transport.hold if is_followed else self.transport.write)(head)

    def _heed(self, name: bytes, value: bytes) -> None:
        if name == b"content-length" and self.chunked_encoding is None:
            self.expected_content_length = int(value)
            self.chunked_encoding = False
        elif name == b"transfer-encoding" and value.lower() == b"chunked":
            self.expected_content_length = 0
            self.chunked_encoding = True
        elif name == b"connection" and b"close" in [token.lower().strip() for token in value.split(b",")]:
            self.keep_alive = False
            self._closes = True
