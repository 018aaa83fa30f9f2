"""Server-sent events: bytes in, whole events out.

Rule 1: the same bytes give the same events, `raw` included, however they are split.
Rule 2: an event is given out as soon as no later byte can change it, and never before it is whole.
Rule 3: the time is linear in the bytes, and no more than one block is held.

LF, CR and CRLF end a line, mixed as they come. A lone CR on a blank line is the one place where Rules 1 and 2 pull
apart, since an LF may follow. When the line before ended in a lone CR, the sender's line end is CR: the event goes out
at once and an LF right after is dropped. Else the CR waits for one more byte.
https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

import re
from typing import Final, Literal, NamedTuple

import msgspec

from proxy.errors import UpstreamTooLarge

DONE: Final = b"data: [DONE]\n\n"
PING: Final = b": ping\n\n"  # a comment, which every client stands, and nothing else: a sign of life

_BOM: Final = b"\xef\xbb\xbf"
# The end of a block. In "\r\n" only the LF counts, so CRLF needs no case of its own before a blank line.
_END: Final = re.compile(rb"\n(?:\n|\r\n|\r(?=[^\n]))|\r\r")
# An END that is not yet sure begins at most two bytes before the end of what is held.
_UNSURE: Final = 2
_LINE_ENDS: Final = (b"\n", b"\r")
# A whole block of one data line, perhaps after an event line: nearly all there are.
_PLAIN: Final = re.compile(rb"(?:event: ?([^\r\n]*)(?:\r\n|\n|\r))?data: ?([^\r\n]*)[\r\n]+").fullmatch
PLAIN: Final = True  # `data: …` and a blank line, in LFs
# The NamedTuple's own constructor costs twice as much, and this one runs per event.
_new: Final = tuple.__new__


class Event(NamedTuple):
    """One block: `raw` as it came with its blank line, the `event:` field, and what its `data:` lines say.

    `lines`: those joined with LF, None where there are none; PLAIN where `raw` is one such line and no more, as nearly
    all are. So they are held once.
    """

    raw: bytes
    lines: bytes | Literal[True] | None
    name: bytes | None

    @property
    def data(self) -> bytes | None:
        """The `data:` lines, joined with LF."""
        return self.raw[6:-2] if self.lines is True else self.lines

    @property
    def is_done(self) -> bool:
        """Whether this is the `[DONE]` with which most providers end a stream."""
        return self.data is not None and self.data.strip() == b"[DONE]"


class Decoder:
    """An incremental decoder. `comments` counts the comment lines so far: signs of life that carry no event.

    A block of more than `max_event` bytes raises UpstreamTooLarge; whole events before it are given out first.
    """

    def __init__(self, max_event: int = 1 << 20) -> None:
        self.comments = 0
        self._max_event = max_event
        self._opening: bytes | None = b""  # what may yet become a BOM; None once that is settled
        self._held = bytearray()  # the start of a block, searched once for its end
        self._too_large = False

    def feed(self, piece: bytes) -> list[Event]:
        """The events that `piece` completes, in order."""
        self._raise_if_too_large()
        if self._opening is not None:
            piece = self._after_bom(piece)
        events: list[Event] = []
        if self._held:
            piece = self._complete_held(piece, events)
        if piece and not self._too_large:
            self._take(piece, events)
        if not events:
            self._raise_if_too_large()
        return events

    def close(self) -> Event | None:
        """HTTP has ended cleanly: the last event if only its blank line is missing, else None."""
        self._raise_if_too_large()
        raw = bytes(self._held)
        self._held.clear()
        if raw.endswith(b"\n\r"):  # a blank line whose CR waited for an LF
            return _parse(raw)
        raw += b"\n" if raw.endswith(b"\n") else b"\n\n"
        event = _plain(raw) or _parse(raw)
        if event is None or event.data is None or not (event.is_done or _is_whole_json(event.data)):
            return None
        return event

    def _after_bom(self, piece: bytes) -> bytes:
        piece = (self._opening or b"") + piece
        if len(piece) < len(_BOM) and _BOM.startswith(piece):
            self._opening = piece
            return b""
        self._opening = None
        return piece.removeprefix(_BOM)

    def _complete_held(self, piece: bytes, events: list[Event]) -> bytes:
        """Add to the held block; returns what follows its end, if that came."""
        held = self._held
        before = len(held)
        held += piece
        match = _END.search(held, max(0, before - _UNSURE))
        end = match.end() if match else len(held)
        self.comments += held.count(b"\n:", before - 1, end) + held.count(b"\r:", before - 1, end)
        if end > self._max_event:
            self._too_large = True
        elif match:
            raw = bytes(held[:end])
            event = _plain(raw) or _parse(raw)
            if event is not None:
                events.append(event)
        if not match:
            return b""
        rest = piece[end - before :]
        held.clear()
        return rest

    def _take(self, piece: bytes, events: list[Event]) -> None:
        """Take `piece`, which begins where a block may begin."""
        if b"\r" in piece:
            self._take_any(piece, events)
            return
        limit = self._max_event - 2
        *blocks, rest = piece.split(b"\n\n")
        for block in blocks:
            if block[:6] == b"data: " and b"\n" not in block and len(block) <= limit:
                events.append(_new(Event, (block + b"\n\n", PLAIN, None)))
            elif (lines := block.lstrip(b"\n")) and not self._take_block(lines + b"\n\n", events):
                return
        if rest:
            self._hold(rest.lstrip(b"\n"))

    def _take_any(self, piece: bytes, events: list[Event]) -> None:
        """`_take` for any line ends. Empty lines before a block, a swallowed LF among them, belong to no block."""
        start = len(piece) - len(piece.lstrip(b"\r\n"))
        while match := _END.search(piece, start):
            if not self._take_block(piece[start : match.end()], events):
                return
            start = match.end()
            while piece[start : start + 1] in _LINE_ENDS:
                start += 1
        self._hold(piece[start:])

    def _take_block(self, raw: bytes, events: list[Event]) -> bool:
        """Take one whole block; False if it is too large."""
        if len(raw) > self._max_event:
            self._too_large = True
            return False
        event = _plain(raw)
        if event is None:
            self.comments += _comments(raw)
            event = _parse(raw)
        if event is not None:
            events.append(event)
        return True

    def _hold(self, rest: bytes) -> None:
        self.comments += _comments(rest)
        self._held += rest
        self._too_large = len(rest) > self._max_event

    def _raise_if_too_large(self) -> None:
        if self._too_large:
            self._held.clear()
            raise UpstreamTooLarge(f"The provider sent an event of more than {self._max_event} bytes.")


def encode(data: bytes) -> bytes:
    """An event of one line; `data` has no line end."""
    return b"data: " + data + b"\n\n"


def _plain(raw: bytes) -> Event | None:
    match = _PLAIN(raw)
    if not match:
        return None
    plain = raw.startswith(b"data: ") and raw.endswith(b"\n\n") and len(match[2]) + 8 == len(raw)
    return _new(Event, (raw, PLAIN if plain else match[2], match[1]))


def events_of(body: bytes) -> list[Event]:
    """All events of a whole stream, which were bounded when they came."""
    decoder = Decoder(max_event=len(body))
    events = decoder.feed(body)
    last = decoder.close()  # its blank line may end in a CR, behind which an LF could have come
    return events if last is None else [*events, last]


def _parse(raw: bytes) -> Event | None:
    """The event of a whole block; None if it has no field."""
    data: list[bytes] = []
    name = None
    empty = True
    for line in raw.splitlines():
        if not line or line.startswith(b":"):
            continue
        empty = False
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return None if empty else Event(raw, b"\n".join(data) if data else None, name)


def _comments(lines: bytes) -> int:
    return lines.startswith(b":") + lines.count(b"\n:") + lines.count(b"\r:")


def _is_whole_json(data: bytes) -> bool:
    """Whether `data` is JSON and cannot be the start of longer JSON, as `12` may be of `123`."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(value, bool) or not isinstance(value, int | float)
