"""What two answers have in common, and what they must not: everything but their ids."""

from typing import Any

import msgspec

from bench.soak.wire import Call

Json = dict[str, Any]

DONE = b"[DONE]"
_decode = msgspec.json.decode
_sorted = msgspec.json.Encoder(order="sorted").encode


def is_stream(call: Call) -> bool:
    return call.headers.get("content-type", "").startswith("text/event-stream")


def data_of(call: Call) -> list[bytes]:
    """The data of each event."""
    return [line[6:] for line in bytes(call.body).splitlines() if line.startswith(b"data: ")]


def messages(call: Call) -> list[Json]:
    """The chunks of a stream, or the one completion."""
    found = [data for data in data_of(call) if data != DONE] if is_stream(call) else [bytes(call.body)]
    return [_decode(each) for each in found]


def meaning(call: Call) -> bytes:
    """The whole answer but for its id, so that two of them can be compared."""
    done = is_stream(call) and data_of(call)[-1:] == [DONE]
    return _sorted([done, *({**each, "id": None} for each in messages(call))])


def id_of(call: Call) -> str:
    """The one id of all its chunks; "" if they differ."""
    found = {str(each.get("id")) for each in messages(call)}
    return found.pop() if len(found) == 1 else ""


def text(call: Call) -> str:
    """What is said in it, the same for a stream and for JSON."""
    return "".join(_said(choice) for each in messages(call) for choice in each.get("choices", ()))


def _said(choice: Json) -> str:
    said = choice.get("delta") or choice.get("message") or {}
    return str(said.get("content") or "")


def is_good(call: Call) -> bool:
    """A whole answer with a whole end."""
    if call.status != 200 or not call.whole:
        return False
    return not is_stream(call) or data_of(call)[-1:] == [DONE]


def error_of(call: Call) -> Json | None:
    """The error that an answer is, or that it ends with; None if that is not in OpenAI's shape."""
    last = data_of(call)[-1:] if is_stream(call) else [bytes(call.body)]
    try:
        error: Json = _decode(last[0])["error"]
        return error if error.keys() == {"message", "type", "param", "code"} else None
    except (IndexError, KeyError, TypeError, AttributeError, msgspec.DecodeError):
        return None


def error_code(call: Call) -> str | None:
    """The code of that error."""
    error = error_of(call)
    return None if error is None else str(error["code"])


def cache(call: Call) -> str:
    """`hit`, `collapsed`, `miss` or what else `Cache-Status` says."""
    status = call.headers.get("cache-status", "nothing")
    for outcome in ("hit", "collapsed"):
        if f"; {outcome}" in status:
            return outcome
    return "miss" if "fwd=miss" in status else status
