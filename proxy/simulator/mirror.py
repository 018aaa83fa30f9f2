"""Everything under `/v1/mirror/`: says what came, byte for byte, whatever the method; `bytes/N` sends N bytes.

A test of a proxy compares what it sent with what arrived. Bodies are hashed as they come and never held.
"""

import hashlib
import re

import msgspec
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from proxy.simulator.behaviour import Behaviour, on_any_answer, parse
from proxy.simulator.calling import check_key, refused
from proxy.simulator.delivery import CallerLeftError, Delivery, Pace
from proxy.simulator.errors import ApiError
from proxy.simulator.faults import spoil
from proxy.simulator.memory import Memory
from proxy.simulator.script import Script, whole

PREFIX = "/v1/mirror/"

# A request's body up to here is shown by /simulator/last, a longer one is not.
_SHOWN = 64 * 1024
_MOST = 1 << 30

_BYTES = re.compile(re.escape(PREFIX) + r"bytes/(\d{1,10})")
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")

# A prime length: a part that begins at the wrong place differs.
_BLOCK = hashlib.shake_256(b"mirror").digest(65_521)


class Mirror:
    """The endpoint; what it is asked is no chat completion and not counted as one."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            came = await _take_in(receive)
        except CallerLeftError:
            return
        self._memory.note(scope, came.shown)
        headers = Headers(scope=scope)
        options = ";".join(headers.getlist("x-simulator"))
        pace = Pace(0.0, 0.0)
        try:
            check_key(headers)
            _, asked = parse("", options)
            behaviour = self._memory.while_failing(asked, _request(scope, came))
            pace = Pace(behaviour.first or 0.0, behaviour.gap or 0.0)
            script = _answer(scope, headers, came, behaviour)
        except ApiError as error:
            script = refused(error, on_any_answer(options))
        await Delivery(script, pace, _head(script)).run(receive, send)


class _Came(msgspec.Struct, frozen=True):
    """A request's body: bytes, hex digest, and the body itself if it is small."""

    length: int
    sha256: str
    shown: bytes


async def _take_in(receive: Receive) -> _Came:
    digest = hashlib.sha256()
    length, shown = 0, b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerLeftError
        part = message.get("body", b"")
        digest.update(part)
        length += len(part)
        shown = shown + part if length <= _SHOWN else b""
        more = message.get("more_body", False)
    return _Came(length, digest.hexdigest(), shown)


def _target(scope: Scope) -> str:
    """Path and query as they came."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    query: bytes = scope.get("query_string", b"")
    return (path + b"?" + query if query else path).decode("latin-1")


def _request(scope: Scope, came: _Came) -> bytes:
    return f"{scope['method']} {_target(scope)} {came.sha256}".encode()


def _answer(scope: Scope, headers: Headers, came: _Came, behaviour: Behaviour) -> Script:
    try:
        behaviour.refuse()
        sized = _BYTES.fullmatch(scope["path"])
        if sized and scope["method"] in {"GET", "HEAD"}:
            script = _some_bytes(int(sized[1]), headers)
        else:
            script = _reflection(scope, headers, came)
    except ApiError as error:
        return refused(error, behaviour)
    return spoil(script, behaviour)


def _reflection(scope: Scope, headers: Headers, came: _Came) -> Script:
    """`{method, target, headers: [[name, value]], length, sha256}`"""
    seen = {
        "method": scope["method"],
        "target": _target(scope),
        "headers": headers.items(),
        "length": came.length,
        "sha256": came.sha256,
    }
    return whole(msgspec.json.encode(seen))


def _some_bytes(size: int, headers: Headers) -> Script:
    """The first `size` bytes of an endless sequence, or the part of them that `Range` names; ApiError 416."""
    if size > _MOST:
        raise ApiError(400, f"At most {_MOST} bytes.", param="bytes")
    etag = f'"bytes-{size}"'
    told = (("etag", etag), ("accept-ranges", "bytes"))
    part = _part(headers.get("range", ""), size) if headers.get("if-range", etag) == etag else None
    if part is None:
        return _piece(0, size, 200, told)
    begin, end = part
    return _piece(begin, end, 206, (*told, ("content-range", f"bytes {begin}-{end - 1}/{size}")))


def _part(wanted: str, size: int) -> tuple[int, int] | None:
    """From where to before where; None for the whole, as when several ranges are wanted or the header is nonsense."""
    found = _RANGE.fullmatch(wanted)
    if found is None or wanted == "bytes=-" or (found[1] and found[2] and int(found[1]) > int(found[2])):
        return None
    if found[1]:
        begin, end = int(found[1]), min(int(found[2]) + 1 if found[2] else size, size)
    else:
        begin, end = max(0, size - int(found[2])), size
    if begin >= end:
        headers = (("content-range", f"bytes */{size}"),)
        raise ApiError(416, "The range is not satisfiable.", code="range_not_satisfiable", headers=headers)
    return begin, end


def _piece(begin: int, end: int, status: int, headers: tuple[tuple[str, str], ...]) -> Script:
    """One block, held once however often it is sent."""
    length = len(_BLOCK)
    events: list[bytes] = []
    while begin < end:
        at = begin % length
        events.append(_BLOCK[at : at + end - begin])
        begin += len(events[-1])
    size = sum(map(len, events))
    return Script(
        tuple(events),
        (0,) * len(events),
        len(events),
        "application/octet-stream",
        status=status,
        length=size,
        headers=headers,
    )


def _head(script: Script) -> list[tuple[bytes, bytes]]:
    headers = [("content-type", script.content_type), *script.headers]
    if script.length is not None:
        headers.append(("content-length", str(script.length)))
    return [(name.encode(), value.encode("latin-1")) for name, value in headers]
