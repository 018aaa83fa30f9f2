"""Everything that one call will send, encoded before the first byte leaves."""

import enum

import msgspec

EVENT_STREAM = "text/event-stream; charset=utf-8"
JSON = "application/json"
DONE = b"data: [DONE]\n\n"


class End(enum.Enum):
    """How the connection is left: the response complete, torn down by a TCP reset, or open and silent for ever."""

    CLEAN = "clean"
    RESET = "reset"
    STALL = "stall"


class Script(msgspec.Struct, frozen=True):
    """`events` with the completion tokens that each holds; the first `paced` of them are a gap apart, the rest at once.

    `length` is the Content-Length that is promised (None: chunked). `failed`: whoever gets this got no whole answer.
    `billed`: the prompt counts as consumed.
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

    @property
    def streamed(self) -> bool:
        return self.content_type == EVENT_STREAM


def whole(body: bytes, tokens: int = 0, content_type: str = JSON) -> Script:
    """A script of one body."""
    return Script((body,), (tokens,), 1, content_type, length=len(body))
