"""A client's connection, as the system sees it and as uvicorn writes to it."""

import asyncio
import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Any

LINGER = 2  # seconds in which what a refused client still sends is let fall; a reset would take our answer from it
ESTABLISHED = 1  # the first byte of Linux's tcp_info


def untaken(transport: asyncio.Transport) -> int:
    """Bytes that the client has not taken: those here, and those that the system holds for it."""
    held = transport.get_write_buffer_size()
    with suppress(OSError):
        (system,) = struct.unpack("i", fcntl.ioctl(_socket(transport).fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))
        held += system
    return held


def is_gone(transport: asyncio.Transport) -> bool:
    """Has the client ended the connection? One that is not read from is not seen to, unless the system is asked."""
    try:
        return _socket(transport).getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != ESTABLISHED
    except OSError:
        return False


def _socket(transport: asyncio.Transport) -> socket.socket:
    found: socket.socket = transport.get_extra_info("socket")
    return found


def never() -> bool:
    return False


def nothing() -> None:
    pass


class Corked:
    """A transport that sends an answer's head together with the first piece of its body: one system call, not two.

    uvicorn writes the head as soon as it knows it. What is held goes out when anything else is written, and at the
    latest when the loop has run what is ready now. Nothing is written once the transport closes: uvloop would raise.
    """

    __slots__ = ("_held", "_loop", "_transport", "closing", "lingers")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""
        self.lingers: Callable[[], bool] = never  # does the client still send? Then a reset would await it
        self.closing: Callable[[], None] = nothing

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

    def hold(self, head: bytes) -> None:
        """Write it together with what is written next, which is at once: no turn of the loop comes in between."""
        if not self._transport.is_closing():
            self._held += head

    def _flush(self) -> None:
        if self._held:
            self.write(b"")

    def close(self) -> None:
        self._flush()
        if self._transport.is_closing():
            return
        if self.lingers():
            self._transport.write_eof()
            self._loop.call_later(LINGER, self._transport.close)
        else:
            self._transport.close()
        self.closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
