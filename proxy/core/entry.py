"""A finished recording as it is kept.

Rule: bytes only. An entry carries its own key, length and digest, so that a row that was cut, altered or moved to
another key is a miss, and nothing in a cache directory is ever executed.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import msgspec

from pricing.cost import Usage
from proxy.core.dialect import Dialect
from proxy.core.echo import Echo, echoing_body
from proxy.core.recording import Kind
from proxy.core.sse import Event, events_of
from proxy.core.view import as_stream, template_of

MAGIC = b"PSK1"
_OVERHEAD = 2048  # bytes of Python objects around an entry, measured generously
_PER_EVENT = 64
# An entry is charged for its body and for templates up to three times its size; larger ones are made anew each time.
_TEMPLATES = 3


class Meta(msgspec.Struct, frozen=True, array_like=True):
    """What is known of an entry besides its bytes. Times in seconds; `ended` since the epoch. `model` is the provider's
    name of it; `usage` what was billed, None where the provider did not say. `epoch`: how often the cache had been
    purged when it was begun; `owner`: the id of the key that led, "" without keys, None in entries of older versions.
    `form`: the encoding that was asked for, of an embedding.
    """

    key: bytes
    kind: Kind
    provider: str
    model: str
    ended: float
    ttl: float
    epoch: int
    usage_asked: bool
    has_usage: bool
    usage: Usage | None = None
    service: str | None = None  # the `service_tier` that it had
    owner: str | None = None
    form: str | None = None


@dataclass(slots=True)
class Worth:
    """What an answer would cost in USD, as it was reckoned last; `minute` since the epoch. `said`: in headers."""

    minute: int = -1
    usd: Decimal | None = None
    said: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One stored answer: `body` is all events joined, `times[i]` when event i came (seconds after the request).

    `worth` is a note of whoever gives it.
    """

    meta: Meta
    body: bytes
    times: Sequence[float]
    worth: Worth = field(default_factory=Worth)
    _templates: dict[tuple[bool, bool], list[bytes]] = field(default_factory=dict)
    _repeated: dict[str, bytes] = field(default_factory=dict)  # the echo that its events are known to hold

    @property
    def footprint(self) -> int:
        """Bytes of memory that this entry is charged for."""
        if self.meta.form is not None:  # of which no template is made
            return len(self.body) + _OVERHEAD
        return len(self.body) * (1 + _TEMPLATES) + len(self.times) * _PER_EVENT + _OVERHEAD

    def serves(self, *, stream: bool, usage: bool) -> bool:
        """Can this entry answer in that form? A stream that was recorded without usage is no JSON answer.

        Nor is it an answer to a stream that asks for `usage`, where nobody asked, or it may have been cut off.
        """
        if self.meta.has_usage or self.meta.kind == "json":
            return True
        return stream and (not usage or (self.meta.usage_asked and self.body.rstrip().endswith(b"[DONE]")))

    def events(self) -> list[Event]:
        """The events with their recorded boundaries (the decoder finds the same ones in any split of the bytes)."""
        if self.meta.kind == "json":
            return [Event(self.body, self.body, None)]
        return events_of(self.body)

    def frames(self, dialect: Dialect, *, usage: bool, new_id: bytes | None, echo: Echo | None = None) -> list[bytes]:
        """The stream as a client that asked for usage, or did not, sees it, event by event."""
        strip = self.meta.usage_asked and not usage
        frames = as_stream(dialect, self.meta.kind, self.events(), usage=usage, strip_usage=strip, new_id=new_id)
        return [echoing_body(frame, echo, stream=True) for frame in frames] if echo else frames

    def template(self, dialect: Dialect, *, stream: bool, usage: bool, echo: Echo | None = None) -> list[bytes]:
        """The whole body, cut where the id goes: `id.join(template)` is what a client receives."""
        if echo and echo != self._repeated:
            whole = b"".join(self.template(dialect, stream=stream, usage=usage))  # there is no place for an id in it
            repeating = echoing_body(whole, echo, stream=stream)
            if repeating is not whole:
                return [repeating]
            self._repeated.clear()
            self._repeated.update(echo)
        wanted = (stream, stream and usage)
        found = self._templates.get(wanted)
        if found is None:
            meta = self.meta
            asked = meta.usage_asked
            found = template_of(dialect, meta.kind, self.events(), stream=stream, usage=usage, usage_asked=asked)
            spent = sum(len(part) for template in self._templates.values() for part in template)
            if spent + sum(map(len, found)) <= len(self.body) * _TEMPLATES:
                self._templates[wanted] = found
        return found


def make_entry(meta: Meta, events: Sequence[Event], times: Sequence[float]) -> Entry:
    """The entry of a whole recording. Of a body that came in pieces, the time of the last one is kept."""
    kept = tuple(times) if meta.kind == "stream" else tuple(times[-1:])
    return Entry(meta, b"".join(event.raw for event in events), kept)


def pack(entry: Entry) -> bytes:
    """The entry as bytes: magic, SHA-256 of the rest, the rest."""
    payload = msgspec.msgpack.encode((entry.meta, entry.body, entry.times))
    return MAGIC + hashlib.sha256(payload).digest() + payload


_payload = msgspec.msgpack.Decoder(tuple[Meta, bytes, tuple[float, ...]])


def unpack(blob: bytes) -> Entry | None:
    """The entry that `pack` made, or None for anything else."""
    digest, payload = blob[4:36], blob[36:]
    if blob[:4] != MAGIC or hashlib.sha256(payload).digest() != digest:
        return None
    try:
        return Entry(*_payload.decode(payload))
    except msgspec.DecodeError:
        return None


_meta = msgspec.msgpack.Decoder(Meta)
# Bytes that follow the first one of a value of fixed size, or the bytes in which it says its size or how many follow.
_FIXED = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8} | {0xCC + n: 1 << n for n in range(4)}
_FIXED |= {0xD0 + n: 1 << n for n in range(4)}
_SIZED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_COUNTED = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


def meta_of(head: bytes) -> Meta | None:
    """Of the first bytes of what `pack` made, unverified; None for anything else, or where they are too few."""
    if head[:4] != MAGIC or head[36:37] != b"\x93":
        return None
    try:
        return _meta.decode(head[37 : _end(head, 37)])
    except (msgspec.DecodeError, IndexError, KeyError):
        return None


def _end(data: bytes, at: int) -> int:
    """Where the MessagePack value ends that begins there. Raises IndexError or KeyError: it is cut, or none."""
    left = 1
    while left:
        left -= 1
        first = data[at]
        at += 1
        if first < 0x80 or first >= 0xE0:  # a small number, all in this byte
            continue
        if first < 0xA0:
            left += (first & 0x0F) * (2 if first < 0x90 else 1)
        elif first < 0xC0:
            at += first & 0x1F
        elif first in _FIXED:
            at += _FIXED[first]
        elif first in _SIZED:
            at += _SIZED[first] + int.from_bytes(data[at : at + _SIZED[first]], "big")
        else:
            size, each = _COUNTED[first]
            left += int.from_bytes(data[at : at + size], "big") * each
            at += size
    return at
