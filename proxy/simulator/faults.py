"""What options do to a finished script. The normal path never comes here.

A fault takes a script and its option's value and returns another script. Where a stream has events, any other body has
two halves: `cut=1` of a JSON answer is its first half. A stall holds something back whatever its count: a body that had
come whole would be no stall, but a kept connection that answers nothing any more. Halves and bytes are those of what is
sent, so after `gzip`, and without comments.
"""

import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice, repeat
from types import MappingProxyType
from typing import Any

from msgspec.structs import replace

from proxy.simulator.behaviour import Behaviour
from proxy.simulator.errors import ApiError
from proxy.simulator.script import DONE, End, Script, whole

_PAGE = (
    b"<html><head><title>502 Bad Gateway</title></head>"
    b"<body><h1>502 Bad Gateway</h1><p>The simulator was told to send a page.</p></body></html>\n"
)

_NO_JSON = b'data: {"id": this is no JSON\n\n'

# The text of a JSON body: of an answer or of an error.
_TEXT = re.compile(rb'("(?:content|text|message|detail)":)(?:null|"(?:[^"\\]|\\.)*")')

Fault = Callable[[Script, Any], Script]


def spoil(script: Script, behaviour: Behaviour) -> Script:
    """The script with every fault that was asked for."""
    for option, fault in FAULTS.items():
        value = getattr(behaviour, option)
        if value is not None and value is not False and option not in script.obeyed:
            script = fault(script, value)
    return script


def _first(script: Script, count: int) -> Script:
    """The script's first events, with whatever Content-Length the whole would have had."""
    if not script.streamed:
        body = b"".join(script.events)
        half = len(body) // 2
        script = replace(script, events=(body[:half], body[half:]), tokens=(sum(script.tokens), 0), paced=0, again=b"")
    return _with_events(script, tuple(islice(_all_events(script), count)))


def _all_events(script: Script) -> Iterator[bytes]:
    return chain(script.events, repeat(script.again) if script.again else ())


def _with_events(script: Script, events: tuple[bytes, ...]) -> Script:
    """These are all that is left of its events, endless or not: whoever gets them gets no whole answer."""
    beyond = (1,) * (len(events) - len(script.tokens))
    tokens = (script.tokens + beyond)[: len(events)]
    return replace(script, events=events, tokens=tokens, paced=min(script.paced, len(events)), again=b"", failed=True)


def _cut(script: Script, count: int) -> Script:
    # Without a promised length: a client cannot see that this end is early.
    return replace(_first(script, count), length=None)


def _reset(script: Script, count: int) -> Script:
    return replace(_first(script, count), end=End.RESET)


def _stall(script: Script, count: int) -> Script:
    if not script.streamed:
        # Where there is no body, nothing but the head can be held back.
        count = min(count, 1 if any(script.events) and script.status != 304 else 0)
    return replace(_first(script, count), end=End.STALL)


def _first_bytes(script: Script, count: int) -> Script:
    """The head, and so many bytes of the body."""
    kept: list[bytes] = []
    for event in _all_events(script):
        if count <= 0:
            break
        kept.append(event[:count])
        count -= len(event)
    # An event of nothing lets the head leave.
    return _with_events(script, tuple(kept) or (b"",))


def _cut_at(script: Script, count: int) -> Script:
    return replace(_first_bytes(script, count), length=None)


def _reset_at(script: Script, count: int) -> Script:
    return replace(_first_bytes(script, count), end=End.RESET)


def _error(script: Script, count: int) -> Script:
    error = ApiError(500, "The server had an error while processing your request.", code="server_error")
    if not script.streamed:
        return replace(_with_body(script, error.body()), failed=True)
    kept = _first(script, count)
    event = script.manner.error(len(kept.events), error)
    return replace(kept, events=(*kept.events, event), tokens=(*kept.tokens, 0))


def _nodone(script: Script, _: int) -> Script:
    if script.events[-1:] != (DONE,):
        return script
    return replace(script, events=script.events[:-1], tokens=script.tokens[:-1])


def _html(script: Script, _: int) -> Script:
    return replace(_with_body(script, _PAGE), content_type="text/html", failed=True, billed=False)


def _with_body(script: Script, body: bytes) -> Script:
    """One body instead, under the same head."""
    return replace(whole(body), status=script.status, headers=script.headers, billed=script.billed)


def _malformed(script: Script, count: int) -> Script:
    if not script.streamed:
        return replace(_with_body(script, b"".join(script.events)[:-1]), tokens=script.tokens, failed=True)
    return _inserted(script, count, _NO_JSON)


def _big(script: Script, count: int) -> Script:
    text = b"x" * count
    if script.streamed:
        return _inserted(script, 1, script.manner.more(script.events, text))
    before, after = _around_text(b"".join(script.events))
    body = before + text + after
    return replace(script, events=(body,), tokens=(sum(script.tokens),), paced=1, length=len(body))


def _endless(script: Script, _: int) -> Script:
    if script.streamed:
        # Everything before the finish.
        kept = _with_events(script, script.events[: script.paced])
        again = script.manner.more(kept.events or script.events, b" on")
    else:
        before, _after = _around_text(b"".join(script.events))
        kept, again = _with_events(script, (before,)), b"on and on " * 100
    return replace(kept, again=again, paced=sys.maxsize, length=None)


def _inserted(script: Script, at: int, event: bytes) -> Script:
    events = (*script.events[:at], event, *script.events[at:])
    return replace(
        script,
        events=events,
        tokens=(*script.tokens[:at], 0, *script.tokens[at:]),
        paced=script.paced + (at <= script.paced),
    )


def _around_text(body: bytes) -> tuple[bytes, bytes]:
    """What stands before and after the text of a JSON body; of any other body all stands before."""
    found = _TEXT.search(body)
    if found is None:
        return body, b""
    return body[: found.end(1)] + b'"', b'"' + body[found.end() :]


def _comments(script: Script, seconds: float) -> Script:
    return replace(script, comments=seconds) if script.streamed else script


def _gzip(script: Script, _: int) -> Script:
    # A full flush after each event: it can be read as soon as it comes, and be sent again and again.
    packer = zlib.compressobj(wbits=31)
    events = [packer.compress(event) + packer.flush(zlib.Z_FULL_FLUSH) for event in script.events]
    again = packer.compress(script.again) + packer.flush(zlib.Z_FULL_FLUSH) if script.again else b""
    if events and not again:
        events[-1] += packer.flush()
    return replace(
        script,
        events=tuple(events),
        again=again,
        length=None if script.length is None else sum(map(len, events)),
        headers=(*script.headers, ("content-encoding", "gzip")),
        comments=0.0,  # plain text would break it
    )


def _dribble(script: Script, seconds: float) -> Script:
    return replace(script, dribble=seconds)


def _type(script: Script, media: str) -> Script:
    return replace(script, content_type=media)


def _cookie(script: Script, word: str) -> Script:
    return replace(script, headers=(*script.headers, ("set-cookie", f"sim={word}; Path=/")))


def _header(script: Script, field: str) -> Script:
    name, _, value = field.partition(":")
    return replace(script, headers=(*script.headers, (name, value.strip())))


# By option, in the order in which they are applied: `type` last of those that look whether this is a stream.
FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "html": _html,
        "nodone": _nodone,
        "big": _big,
        "endless": _endless,
        "malformed": _malformed,
        "error": _error,
        "comments": _comments,
        "gzip": _gzip,
        "cut": _cut,
        "reset": _reset,
        "stall": _stall,
        "cut_at": _cut_at,
        "reset_at": _reset_at,
        "dribble": _dribble,
        "type": _type,
        "cookie": _cookie,
        "header": _header,
    }
)
