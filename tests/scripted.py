"""A provider whose every byte the test decides, and a client that sees every byte: for what depends on order."""

import asyncio
import json
import queue
import socket
import struct
import threading
from contextlib import AsyncExitStack
from typing import Any, Self

from starlette.types import Receive, Scope, Send

from tests.support import CHAT, DEADLINE, Json, Running, plain_server, serving

STREAM = "text/event-stream"
DONE = b"data: [DONE]\n\n"


def event(value: object) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def chunk(content: str | None = None, *, finish: str | None = None, **members: Any) -> bytes:
    """One event of a streamed completion of one choice."""
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    head = {"id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return event({**head, "choices": [choice], **members})


def usage_chunk() -> bytes:
    """The last event of a provider that was asked for usage."""
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    head = {"id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return event({**head, "choices": [], "usage": usage})


def whole_stream(*words: str) -> list[bytes]:
    """A stream that is worth keeping, event by event."""
    return [*(chunk(word) for word in words), chunk(finish="stop"), usage_chunk(), DONE]


class Turn:
    """One call that reached the provider. Nothing is sent but what the test says."""

    def __init__(self, scope: Scope, body: bytes, loop: asyncio.AbstractEventLoop) -> None:
        self.headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.query: bytes = scope["query_string"]
        self.body: Json = json.loads(body) if body else {}
        self.gone = threading.Event()  # the caller has left
        self._loop = loop
        self.script: asyncio.Queue[Json | None] = asyncio.Queue()

    def _say(self, message: Json | None) -> None:
        self._loop.call_soon_threadsafe(self.script.put_nowait, message)

    def head(self, status: int = 200, content_type: str = STREAM, **headers: str) -> None:
        pairs = [(b"content-type", content_type.encode())]
        pairs += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self._say({"type": "http.response.start", "status": status, "headers": pairs})

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self._say({"type": "http.response.body", "body": piece, "more_body": True})

    def end(self) -> None:
        self._say({"type": "http.response.body", "body": b"", "more_body": False})

    def abort(self) -> None:
        """Close the connection in the middle of the answer."""
        self._say(None)

    def answer(self, *pieces: bytes, content_type: str = STREAM, status: int = 200, **headers: str) -> None:
        """All at once."""
        self.head(status, content_type, **headers)
        self.send(*pieces)
        self.end()


class Scripted(Running):
    """The provider: each call that comes is a `Turn`."""

    def __init__(self) -> None:
        self._turns: queue.Queue[Turn] = queue.Queue()
        super().__init__()

    async def _start(self, stack: AsyncExitStack) -> str:
        return await stack.enter_async_context(serving(plain_server(self._answer)))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        turn = Turn(scope, body, asyncio.get_running_loop())
        self._turns.put(turn)
        leaving = asyncio.ensure_future(self._watch(receive, turn))
        try:
            while (said := await turn.script.get()) is not None:
                await send(said)
                if said.get("more_body") is False:
                    return
        finally:
            leaving.cancel()

    async def _watch(self, receive: Receive, turn: Turn) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        turn.gone.set()
        turn.script.put_nowait(None)

    def turn(self) -> Turn:
        """The next call, as soon as it comes."""
        return self._turns.get(timeout=DEADLINE)

    def nothing_came(self) -> bool:
        return self._turns.empty()


class Wire:
    """One request on a bare socket, and its answer byte by byte."""

    def __init__(self, url: str, body: Json | bytes, headers: Json | None = None, path: str = CHAT) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        told = {"host": "localhost", "content-type": "application/json", "content-length": len(raw), **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
        self._socket = socket.create_connection((host, int(port)), timeout=DEADLINE)
        self._file = self._socket.makefile("rb")
        self._socket.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + raw)
        self._held = b""
        self._missing: int | None = None  # bytes of a promised length that have not come yet
        self.clean = False  # did the answer end as HTTP ends
        self.status = 0
        self.headers: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read_head(self) -> "Wire":
        self.status = int(self._file.readline().split()[1])
        while (line := self._file.readline().strip()) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            self.headers[name.lower()] = value.strip()
        length = self.headers.get("content-length")
        self._missing = None if length is None else int(length)
        return self

    def _read_piece(self) -> bytes:
        """What arrives next; empty at the end, be it clean or not."""
        try:
            return self._read_chunk() if self._missing is None else self._read_promised(self._missing)
        except ConnectionError:
            return b""

    def _read_chunk(self) -> bytes:
        size = self._file.readline().strip()
        if not size:
            return b""
        piece = self._file.read(int(size, 16))
        self._file.readline()
        self.clean = size == b"0"
        return piece

    def _read_promised(self, missing: int) -> bytes:
        piece = self._file.read1(missing) if missing else b""
        self._missing = missing - len(piece)
        self.clean = self._missing == 0
        return piece

    def read_event(self) -> bytes:
        """The next whole event; empty at the end."""
        while b"\n\n" not in self._held:
            piece = self._read_piece()
            if not piece:
                rest, self._held = self._held, b""
                return rest
            self._held += piece
        found, _, self._held = self._held.partition(b"\n\n")
        return found + b"\n\n"

    def read_events(self) -> list[bytes]:
        """Every event up to the end."""
        found = []
        while one := self.read_event():
            found.append(one)
        return found

    def read_body(self) -> bytes:
        """All that comes."""
        return b"".join(iter(self._read_piece, b""))

    def close(self) -> None:
        """Leave by FIN."""
        self._file.close()
        self._socket.close()

    def reset(self) -> None:
        """Leave by RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()


def post(url: str, body: Json | bytes, **headers: Any) -> Wire:
    """One request whose head has been read."""
    return Wire(url, body, {name.replace("_", "-"): value for name, value in headers.items()}).read_head()


def events(url: str, body: Json, **headers: Any) -> list[bytes]:
    """All events of one streamed request."""
    with post(url, {**body, "stream": True}, **headers) as wire:
        assert wire.status == 200, wire.read_body()
        return wire.read_events()


def answer(url: str, body: Json, **headers: Any) -> Json:
    """One JSON answer."""
    with post(url, body, **headers) as wire:
        assert wire.status == 200, wire.read_body()
        said: Json = json.loads(wire.read_body())
        return said
