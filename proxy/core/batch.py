"""A batch of requests in OpenAI's file format: what a line asks, the line that answers it, when it is asked again.

Rule: a result belongs to the very text of its request: its id is made of that text, so that what was answered before
is known again, and a line that was changed since is asked anew. Bodies go out and come back as they are, to the byte.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from proxy.core.dialect import BY_PATH
from proxy.core.retry import retry_after

ENDPOINTS: Final = {f"/v1/{path}": path for path in BY_PATH}  # by url, the path relative to a provider's base URL
KEPT: Final = {429: 3600.0, 503: 300.0}  # seconds that a request waits in all, by what it is refused with
FIRST_PAUSE: Final = 0.5  # seconds, where nobody says how long to wait
LONGEST_PAUSE: Final = 30.0
SHOWN: Final = 64  # characters of what is wrong

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_raw = msgspec.json.Decoder(msgspec.Raw)
_any = msgspec.json.Decoder()


class Request(msgspec.Struct, frozen=True):
    """A line that is a request; `body` is the JSON object in it, as it stands there."""

    custom_id: str
    url: str
    body: bytes


class Wrong(msgspec.Struct, frozen=True):
    """A line that is none, and why. `custom_id`: if it has one."""

    code: str
    message: str
    custom_id: str | None = None


NO_MONEY: Final = b'"insufficient_quota"'  # an account's 429 that no waiting mends


class Answer(msgspec.Struct, frozen=True):
    """What a server said: `headers` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Failure(msgspec.Struct, frozen=True):
    """No answer came. `sent`: the request may have been heard, and paid for."""

    code: str
    message: str
    sent: bool = True


class Known(NamedTuple):
    """Whose result a line is, and whether it is a good answer."""

    digest: bytes
    good: bool


class _Response(msgspec.Struct, frozen=True):
    status_code: int = 0


class _Result(msgspec.Struct, frozen=True):
    id: str
    response: _Response | None = None
    error: object = None


_result = msgspec.json.Decoder(_Result)
_BEGINNING: Final = b'{"id":"batch_req_'


def digest_of(line: bytes) -> bytes:
    """What the id of a line's result is made of: of its text, less the blanks around it."""
    return hashlib.sha256(line.strip()).digest()[:16]


def result_id(digest: bytes) -> str:
    return f"batch_req_{digest.hex()}"


def read_request(line: bytes) -> Request | Wrong:
    """What a line asks, that is not blank."""
    try:
        said = _members.decode(line)
        custom_id, method, url = (_text(said.get(name)) for name in ("custom_id", "method", "url"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Wrong("invalid_json_line", f"This line is no JSON object: {error}.")
    if not custom_id:
        return Wrong("missing_custom_id", "`custom_id` must be a text, and not empty.")
    if method != "POST":
        return Wrong("invalid_method", f'`method` must be "POST", not {_shown(said.get("method"))}.', custom_id)
    if url not in ENDPOINTS:
        known = ", ".join(ENDPOINTS)
        return Wrong("invalid_url", f"`url` must be one of {known}, not {_shown(said.get('url'))}.", custom_id)
    body = bytes(said.get("body", b""))
    why = _of_body(body)
    return Request(custom_id, url, body) if why is None else Wrong(*why, custom_id)


def _of_body(body: bytes) -> tuple[str, str] | None:
    """What is wrong with it. All else is for the proxy to say."""
    if not body.startswith(b"{"):
        return "invalid_body", "`body` must be a JSON object."
    try:
        stream = _any.decode(_members.decode(body).get("stream", b"false"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return "invalid_body", f"`body` is no JSON object: {error}."
    return ("stream_not_supported", "`stream` must not be true in a batch.") if stream is True else None


def _text(value: msgspec.Raw | None) -> str | None:
    """A text that is one; anything else is None."""
    found = None if value is None else _any.decode(value)
    return found if isinstance(found, str) else None


def _shown(value: msgspec.Raw | None) -> str:
    said = b"missing" if value is None else bytes(value)
    text = said.decode(errors="replace")
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def again(custom_id: str) -> Wrong:
    """A line whose custom_id another line before it has."""
    return Wrong("duplicate_custom_id", "A line before this one has the same `custom_id`.", custom_id)


def result_line(digest: bytes, custom_id: str, answer: Answer | Failure) -> bytes:
    """The result of a request, whatever its status; with its line's end."""
    if isinstance(answer, Failure):
        return error_line(digest, custom_id, answer)
    response = {
        "status_code": answer.status,
        "request_id": answer.headers.get("x-request-id") or answer.headers.get("x-penstock-request-id"),
        "body": _as_json(answer.body),
    }
    return _line(digest, custom_id, response, None)


def error_line(digest: bytes, custom_id: str | None, error: Failure | Wrong) -> bytes:
    """The result of what was not answered."""
    return _line(digest, custom_id, None, {"code": error.code, "message": error.message})


def _line(digest: bytes, custom_id: str | None, response: object, error: object) -> bytes:
    said = {"id": result_id(digest), "custom_id": custom_id, "response": response, "error": error}
    return msgspec.json.encode(said) + b"\n"


def _as_json(body: bytes) -> object:
    """To the byte, in one line: in JSON an end of a line stands between values only. What is no JSON becomes a text."""
    try:
        body.decode()
        return _raw.decode(body.replace(b"\r", b" ").replace(b"\n", b" "))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _rescued(body)


def _rescued(body: bytes) -> object:
    """Half a character, written as an escape, is JSON to others."""
    try:
        return msgspec.Raw(json.dumps(json.loads(body)).encode())
    except (ValueError, RecursionError):
        return body.decode(errors="replace")


def read_result(line: bytes) -> Known | None:
    """Of a line of results: what it answers, and how. None: it is no result, or not one of ours."""
    try:
        found = _result.decode(line)
        digest = bytes.fromhex(found.id.removeprefix("batch_req_"))
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError):
        return None
    if found.id != result_id(digest):
        return None
    good = found.response is not None and 200 <= found.response.status_code < 300
    return Known(digest, good and found.error is None)


def may_be_torn(piece: bytes) -> bool:
    """Is this what a result begins with?"""
    return piece[: len(_BEGINNING)] == _BEGINNING[: len(piece)]


def pause(answer: Answer, *, waited: float, tries: int, now: float, luck: float) -> float | None:
    """Seconds until a request that got this answer is sent again; None: it is its result.

    `waited`: how long it has waited before, in `tries` pauses; `now`: seconds since the epoch; `luck`: in [0, 1), so
    that those who were refused together do not come back in step.
    """
    longest = KEPT.get(answer.status)
    if longest is None or answer.headers.get("x-should-retry") == "false" or NO_MONEY in answer.body:
        return None
    asked = retry_after(answer.headers, now=now)
    least = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(tries, 10))
    found = luck * least + least / 2 if asked is None else asked + luck * min(1.0, least)
    return found if waited + found <= longest else None


def is_good(answer: Answer) -> bool:
    return 200 <= answer.status < 300
