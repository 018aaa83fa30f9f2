"""Who is asking: the key that a client shows, and what it may do.

Rule: a key is known by its digest only. One refusal for all keys that are not in force, so that none can be guessed.
"""

import hashlib
from collections.abc import Mapping

import msgspec

from proxy.errors import Forbidden, InvalidRequest, Unauthorized

Headers = Mapping[bytes, bytes]

# In raw paths these mean something else to some servers than to others: `files/../batches` may be either.
_AMBIGUOUS = (b"\\", b"%2e", b"%2f", b"%5c", b"%25", b"%00", b"%c0", b"%c1", b"%u")
_EMPTY = frozenset({b"", b"."})


class Grant(msgspec.Struct, frozen=True):
    """What a key may do; `name` is unique among keys. `passthrough`: leading segments of paths relative to `/v1/`."""

    name: str
    passthrough: frozenset[bytes] = frozenset()


NOBODY = Grant("")


class Access:
    """The keys in force, by their SHA-256; without any, everybody is NOBODY and has no rights of a key."""

    def __init__(self, grants: Mapping[bytes, Grant]) -> None:
        self._grants = grants

    def grant(self, headers: Headers) -> Grant:
        """The grant of the key in `Authorization` or `api-key`. Raises Unauthorized."""
        if not self._grants:
            return NOBODY
        shown = headers.get(b"authorization") or headers.get(b"api-key", b"")
        scheme, _, token = shown.partition(b" ")
        key = token.strip() if scheme.lower() == b"bearer" else shown
        found = self._grants.get(digest(key))
        if found is None:
            raise Unauthorized("No key of this proxy was given, or one that is not in force.")
        return found


def digest(key: bytes) -> bytes:
    """The SHA-256 under which a key is known."""
    return hashlib.sha256(key).digest()


def check_passthrough(path: bytes, grant: Grant) -> None:
    """May this raw path, relative to `/v1/`, pass to a provider that is paid with the operator's own key?

    Files and stored objects of all clients lie in one account there. Raises InvalidRequest or Forbidden.
    """
    segments = path.split(b"/")
    lowered = path.lower()
    dots = not _EMPTY.isdisjoint(segments) or any(segment.startswith(b"..") for segment in segments)
    if dots or any(mark in lowered for mark in _AMBIGUOUS):
        raise InvalidRequest("The path may hold no empty or dot segments, no backslash, and none of them encoded.")
    if segments[0] not in grant.passthrough:
        named = segments[0].decode("latin-1")
        raise Forbidden(
            f"The paths under /v1/{named} reach the account of this proxy's operator; "
            f"only a key whose `passthrough` names {named!r} may use them."
        )
