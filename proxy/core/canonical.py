"""What makes two requests the same: the canonical form of a body, and the key made from it.

Rule: two bodies have one canonical form only if every provider must take them for the same request. So the whole body
counts, fields unknown to us included; what is left out means nothing anywhere, or the operator said to ignore it.
A sampling parameter or a null is never left out: providers' defaults differ.
What is judged is what is sent: a body that two parsers may read in two ways is refused.
"""

import hmac
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from proxy.core.plain_form import in_plain_form
from proxy.errors import InvalidRequest

MAX_DEPTH: Final = 128
"""Levels of nesting that a body may have: no later pass that recurses over a parsed body can fail."""

# How an answer is delivered is no part of what is asked.
_DELIVERY: Final = frozenset({"stream", "stream_options"})


def parse(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`, strictly read; anything else raises InvalidRequest and says what is wrong.

    Stricter than RFC 8259 where it leaves a choice: no duplicate members, lone surrogates, BOM, numbers beyond a double
    (or integers of more than 4,300 characters, sign included), nor more than MAX_DEPTH levels.
    """
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(_what_is_wrong(raw, error)) from error
    if type(body) is not dict:
        raise InvalidRequest(f"The body must be a JSON object, not {_kind(body)}.")
    if is_too_deep(raw, body):
        raise InvalidRequest(_TOO_DEEP)
    # msgspec keeps the last of duplicate members without a word. Each member has one colon of its own and strings keep
    # theirs, so a member was lost exactly if a colon was; only a colon written \u003a upsets the count.
    if raw.count(b":") != msgspec.json.encode(body).count(b":") or b"\\u003" in raw:
        _refuse_duplicates(raw)
    return body


def canonical(body: Mapping[str, Any], ignore: Collection[str]) -> bytes:
    """The canonical JSON of a parsed body, less the top-level fields in `ignore`. What has an unexpected type stays."""
    kept = {
        name: value
        for name, value in body.items()
        if name not in _DELIVERY and name not in ignore and not _means_nothing(name, value)
    }
    kept |= in_plain_form(kept)
    # Few bodies hold such a number, and to look costs half of a copy.
    return msgspec.json.encode(_plain_numbers(kept) if _has_integral_float(kept) else kept, order="sorted")


def keyed(secret: bytes) -> hmac.HMAC:
    """The beginning of every key: made once, since to set up OpenSSL's HMAC costs ten times what it then takes."""
    return hmac.new(secret, digestmod="sha256")


def key(prototype: hmac.HMAC, parts: Sequence[bytes]) -> bytes:
    """HMAC-SHA256 over `parts`, each with its length before it (as MessagePack), so that no two lists read the same."""
    mac = prototype.copy()
    mac.update(msgspec.msgpack.encode(parts))
    return mac.digest()


def _means_nothing(name: str, value: object) -> bool:
    """Whether a top-level member says what every provider assumes without it."""
    if name == "n":
        return value == 1 and value is not True
    if name == "logprobs":
        return value is False
    return name == "logit_bias" and value == {}


def _has_integral_float(body: dict[str, Any]) -> bool:
    parents: list[Any] = [body]
    for parent in parents:  # grows as it goes
        for value in parent.values() if type(parent) is dict else parent:
            kind = type(value)
            if kind is dict or kind is list:
                parents.append(value)
            elif kind is float and value.is_integer():
                return True
    return False


def _plain_numbers(value: Any) -> Any:
    """A copy in which integral floats are integers: 1.0 and 1, 1e22 and 10**22, -0.0 and 0 are one number in JSON."""
    kind = type(value)
    if kind is dict:
        return {name: item if type(item) is str else _plain_numbers(item) for name, item in value.items()}
    if kind is list:
        return [item if type(item) is str else _plain_numbers(item) for item in value]
    if kind is float and value.is_integer():
        return int(value)
    return value


_TOO_DEEP: Final = f"The body nests deeper than {MAX_DEPTH} levels."


def is_too_deep(raw: bytes, body: dict[str, Any]) -> bool:
    """Does `body`, which was parsed from `raw`, have more than MAX_DEPTH levels?"""
    if raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH:
        return False  # with so few openings it cannot
    level: list[Any] = [body]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if type(parent) is dict else parent)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return True


class _RefusedError(Exception):
    """Carries what json's hooks found out of its parser."""


def _unique(members: list[tuple[str, Any]]) -> None:
    names: set[str] = set()
    for name, _ in members:
        if name in names:
            raise _RefusedError(f'The body has a duplicate member: "{name[:64]}".')
        names.add(name)


def _no_constant(name: str) -> None:
    raise _RefusedError(f"The body is not JSON: {name} is not a JSON value.")


def _refuse_duplicates(raw: bytes) -> None:
    """The exact and slow way, for few bodies; names the member."""
    try:
        json.loads(raw, object_pairs_hook=_unique)
    except _RefusedError as refused:
        raise InvalidRequest(str(refused)) from None
    except RecursionError:
        raise InvalidRequest(_TOO_DEEP) from None


def _what_is_wrong(raw: bytes, error: Exception) -> str:
    if not raw.strip():
        return "The body is empty; it must be a JSON object."
    if raw.startswith(b"\xef\xbb\xbf"):
        return "The body begins with a byte order mark; JSON has none."
    if isinstance(error, msgspec.ValidationError):
        return "The body holds a number that is out of range."
    try:
        return _why_not_json(raw.decode(), error)
    except UnicodeDecodeError as bad:
        return f"The body is not UTF-8: byte {bad.start} is no part of a character."


def _why_not_json(text: str, error: Exception) -> str:
    """The stdlib's parser takes lone surrogates and names NaN: so it can tell them from other faults."""
    try:
        json.loads(text, parse_constant=_no_constant)
    except _RefusedError as refused:
        return str(refused)
    except RecursionError:
        return _TOO_DEEP
    except ValueError:
        return f"The body is not JSON: {error}."
    if isinstance(error, RecursionError):
        return _TOO_DEEP
    return "The body holds a lone surrogate (\\ud800 to \\udfff without its pair), which no UTF-8 text can carry."


def _kind(value: object) -> str:
    if isinstance(value, str):
        return "a string"
    if isinstance(value, list):
        return "an array"
    return "null" if value is None else "a boolean" if isinstance(value, bool) else "a number"
