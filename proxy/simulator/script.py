"""Everything that one call will send, encoded before the first byte leaves."""

import enum

import msgspec

from proxy.simulator.manner import CHAT, Manner

EVENT_STREAM = "text/event-stream; charset=utf-8"
JSON = "application/json"
DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"


class End(enum.Enum):
    """How the connection is left: the response complete, torn down by a TCP reset, or open and silent for ever."""

    CLEAN = "clean"
    RESET = "reset"
    STALL = "stall"


class Script(msgspec.Struct, frozen=True):
    """`events` with the completion tokens that each holds; the first `paced` of them are a gap apart, the rest at once.

    `length` is the Content-Length that is promised (None: chunked). `failed`: whoever gets this got no whole answer.
    `billed`: the prompt counts as consumed. `again`: an event of one token that follows for ever; no end is reached.
    `dribble`: seconds between any two bytes. `comments`: seconds of silence after which a comment is sent, 0 for none.
    `manner`: of a stream. `obeyed`: the options that it was written to, which are no faults to be added to it.
    """

    events: tuple[bytes, ...]
    tokens: tuple[int, ...]
    paced: int
    content_type: str
    status: int = 200
    length: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    end: End = End.CLEAN
    failed: bool = False
    billed: bool = True
    again: bytes = b""
    dribble: float | None = None
    comments: float = 0.0
    manner: Manner = CHAT
    obeyed: tuple[str, ...] = ()

    @property
    def streamed(self) -> bool:
        return self.content_type == EVENT_STREAM

    @property
    def slow(self) -> bool:
        """It takes more than one sleep and one send per event."""
        return bool(self.again or self.comments or self.dribble is not None)


def whole(body: bytes, tokens: int = 0, content_type: str = JSON) -> Script:
    """A script of one body."""
    return Script((body,), (tokens,), 1, content_type, length=len(body))
