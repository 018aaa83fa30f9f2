"""What an answer looks like on the wire: its media, the names in its headers, its body in either form and in pieces."""

from collections.abc import Iterable, Iterator

from proxy.core.dialect import Dialect
from proxy.core.echo import Echo, echoing_body
from proxy.core.recording import Head, Recording
from proxy.core.view import template_of
from proxy.endpoints.client import PIECE, Header
from proxy.endpoints.money import hit_money
from proxy.pipeline import Hit

EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")
JSON = (b"content-type", b"application/json")
LONGEST_NAME = 256  # characters of a model's name in a header; clients refuse headers without end
UNBUFFERED = (b"x-accel-buffering", b"no")
# What a provider passes through us, a page that somebody has stored there say, is no page of ours, for a browser.
NO_PAGE = ((b"content-security-policy", b"sandbox"), (b"x-content-type-options", b"nosniff"))


def worth(hit: Hit) -> tuple[Header, ...]:
    """Who gave the answer, and what it saves: the same for a minute, and remembered as long."""
    note, meta = hit.entry.worth, hit.entry.meta
    if note.said and hit.saved is note.usd:
        return note.said
    said = (*hit_money(hit), *target(meta.provider, meta.model))
    if hit.saved is note.usd:
        note.said = said
    return said


def recording_template(
    dialect: Dialect, recording: Recording, head: Head, *, stream: bool, usage: bool, echo: Echo | None
) -> list[bytes]:
    """A finished recording in the form that a joiner asked for, cut where the id goes; made once for all joiners."""
    asked = head.usage_asked
    wanted = (stream, stream and usage)
    template = recording.templates.get(wanted)
    if template is None:
        template = template_of(dialect, head.kind, recording.events, stream=stream, usage=usage, usage_asked=asked)
        recording.templates[wanted] = template
    return [echoing_body(b"".join(template), echo, stream=stream)] if echo else template


def pieces_of(template: list[bytes], new_id: bytes) -> Iterator[bytes]:
    """`new_id.join(template)` in pieces of PIECE bytes or a little more."""
    held = bytearray()
    for number, part in enumerate(template):
        held += new_id if number else b""
        for start in range(0, len(part), PIECE):
            held += part[start : start + PIECE]
            if len(held) >= PIECE:
                yield bytes(held)
                held.clear()
    if held:
        yield bytes(held)


def is_open_stream(headers: Iterable[Header]) -> bool:
    """Events, with no promise of how many bytes: one more may follow."""
    said = dict(headers)
    is_stream = said.get(b"content-type", b"").lower().startswith(b"text/event-stream")
    return is_stream and said.keys().isdisjoint((b"content-length", b"content-encoding"))


def target(provider: str, model: str) -> tuple[Header, Header]:
    """Names from a request may hold what a header may not; those are escaped."""
    return (b"x-penstock-provider", token(provider)), (b"x-penstock-model", token(model))


def token(name: str) -> bytes:
    short = name[:LONGEST_NAME]
    return short.encode() if short.isascii() and short.isprintable() else short.encode("unicode_escape")
