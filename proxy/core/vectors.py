"""A vector in the two forms that an embedding has: a list of numbers, and base64 of little-endian float32.

Rule: a vector is put into the other form only where nothing of it is lost but what float32 cannot hold; any other
stays as the provider wrote it.
"""

import base64
import binascii
import math
import struct
from typing import Final

import msgspec

FLOAT: Final = "float"
BASE64: Final = "base64"

_SIZE: Final = 4  # bytes of a float32

_text = msgspec.json.Decoder(str)
_numbers = msgspec.json.Decoder(list[float])


def in_form(embedding: bytes, form: str) -> bytes:
    """The JSON of an embedding in this form; as it is if it has it already, cannot have it, or `form` is neither."""
    if form == FLOAT and embedding[:1] == b'"':
        return _as_numbers(embedding) or embedding
    if form == BASE64 and embedding[:1] == b"[":
        return _as_base64(embedding) or embedding
    return embedding


def _as_numbers(embedding: bytes) -> bytes | None:
    """Each float32 widened and printed as the shortest double: what an SDK makes of base64."""
    try:
        packed = base64.b64decode(_text.decode(embedding), validate=True)
    except (msgspec.DecodeError, binascii.Error, ValueError):
        return None
    count, rest = divmod(len(packed), _SIZE)
    if not count or rest:
        return None
    numbers = struct.unpack(f"<{count}f", packed)
    if not all(map(math.isfinite, numbers)):
        return None  # JSON has no word for them
    return msgspec.json.encode(numbers)


def _as_base64(embedding: bytes) -> bytes | None:
    # Whole numbers alone may be of an int8 or a bit vector, which base64 holds in fewer bytes.
    if not any(mark in embedding for mark in (b".", b"e", b"E")):
        return None
    try:
        numbers = _numbers.decode(embedding)
        packed = struct.pack(f"<{len(numbers)}f", *numbers)
    except (msgspec.DecodeError, OverflowError):
        return None  # no list of numbers, or one beyond float32
    return b'"' + base64.b64encode(packed) + b'"'
