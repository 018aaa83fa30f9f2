"""A provider of a row's own: it notes what came to the byte, and answers in bytes, pauses and rude ends."""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import Callable, Iterable
from enum import Enum, auto
from types import TracebackType
from typing import Any, Self

DONE = b"data: [DONE]\n\n"
STREAM = b"text/event-stream"
_LAST = b"0\r\n\r\n"


class Act(Enum):
    """What a provider does besides sending bytes and waiting some seconds."""

    RESET = auto()  # RST
    CLOSE = auto()  # FIN
    WAIT = auto()  # until the caller has gone


Step = bytes | float | Act
Answer = Callable[[bytes], Iterable[Step]]  # of a request's bytes


class Provider:
    """Answers each request with what `answer` makes of it. `connections` counts what was accepted, TLS or not."""

    def __init__(
        self, answer: Answer, *, tls: ssl.SSLContext | None = None, listener: socket.socket | None = None
    ) -> None:
        self._answer = answer
        self._tls = tls
        self._listener = listener
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.requests: list[bytes] = []
        self.connections = 0

    async def __aenter__(self) -> Self:
        listener = self._listener or bound()
        self.port: int = listener.getsockname()[1]
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accepted, sock=listener, ssl=self._tls, backlog=2048)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._server.close()
        for writer in self._open.values():
            writer.transport.abort()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _accepted(self) -> asyncio.StreamReaderProtocol:
        self.connections += 1
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), self._serve)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        try:
            while await self._answered(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass  # the caller has gone
        finally:
            self._open.pop(task)
            writer.close()

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; False if that was the last on this connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        request = head + await reader.readexactly(int(length[0]) if length else 0)
        self.requests.append(request)
        for step in self._answer(request):
            match step:
                case bytes():
                    writer.write(step)
                    await writer.drain()
                case float():
                    await asyncio.sleep(step)
                case Act.WAIT:
                    await reader.readexactly(1)
                case _:
                    await _end(writer, rudely=step is Act.RESET)
                    return False
        return True


class Silent:
    """A listener at which nobody should knock: `touched` counts those who did."""

    async def __aenter__(self) -> Self:
        listener = bound()
        self.port: int = listener.getsockname()[1]
        self.touched = 0
        self._server = await asyncio.get_running_loop().create_server(self._accepted, sock=listener)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._server.close()

    def _accepted(self) -> asyncio.Protocol:
        self.touched += 1
        return asyncio.Protocol()


def bound(port: int = 0) -> socket.socket:
    """A socket with this port, or one of its own, at which it does not listen yet."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener


async def _end(writer: asyncio.StreamWriter, *, rudely: bool) -> None:
    # A transport has no event for "all is written".
    while writer.transport.get_write_buffer_size():  # noqa: ASYNC110
        await asyncio.sleep(0)
    if rudely:
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
    else:
        writer.close()


def body_of(request: bytes) -> Any:
    """What a request asks, from its JSON."""
    return json.loads(request.partition(b"\r\n\r\n")[2])


def question_of(request: bytes) -> str:
    """The text of its last message."""
    asked: str = body_of(request)["messages"][-1]["content"]
    return asked


# Pieces of answers.


def whole(body: bytes, *headers: bytes, status: bytes = b"200 OK", media: bytes = b"application/json") -> bytes:
    """A whole answer."""
    return head(*headers, b"content-length: %d" % len(body), status=status, media=media) + body


def head(*headers: bytes, status: bytes = b"200 OK", media: bytes = STREAM) -> bytes:
    kind = (b"content-type: " + media,) if media else ()
    return b"\r\n".join((b"HTTP/1.1 " + status, *kind, *headers)) + b"\r\n\r\n"


def chunked_head(media: bytes = STREAM) -> bytes:
    return head(b"transfer-encoding: chunked", media=media)


def chunk(data: bytes) -> bytes:
    """One piece of a body that has no length; without data, its end."""
    return b"%x\r\n%s\r\n" % (len(data), data) if data else _LAST


def event(text: str = "word ", *, finish: str | None = None, new_line: bytes = b"\n") -> bytes:
    """One event of a chat stream."""
    return b"data: " + chunk_json(text, finish=finish).encode() + new_line * 2


def chunk_json(text: str, *, finish: str | None = None) -> str:
    delta = {} if finish else {"role": "assistant", "content": text}
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    made = {"id": "chatcmpl-own", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
    return json.dumps(made, ensure_ascii=False)


def completion(text: str = "a word") -> bytes:
    """One JSON answer."""
    choices = [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    made = {"id": "chatcmpl-own", "object": "chat.completion", "created": 1, "model": "m", "choices": choices}
    return json.dumps({**made, "usage": usage}).encode()


def good(request: bytes) -> list[Step]:
    """A good answer to any chat completion."""
    if not body_of(request).get("stream"):
        return [whole(completion())]
    return [chunked_head(), chunk(event() + event(finish="stop") + DONE), chunk(b"")]
