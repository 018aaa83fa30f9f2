"""Responses that providers hold for later requests to go on from: where each lies, for whom, and how much of it.

Rule: no name is written down, only what stands for it. Whatever is not known here is nobody's.
"""

import hashlib
from typing import Annotated, Final

import msgspec

from proxy.core.routing import Place

LASTING: Final = 30 * 86400.0  # seconds for which OpenAI keeps a Response
MOST: Final = 100_000  # that are remembered, some 30 MB

_LENGTH: Final = 16


class Stored(msgspec.Struct, array_like=True):
    """One of them. `owners`: ids of the keys that it was given to; `at`: when, in seconds since the epoch. `tokens`: of
    it and of all that it goes on from, 0 where nobody knows; `entry`: under which it may lie in the cache.
    """

    place: Place
    at: float
    owners: list[str]
    tokens: Annotated[int, msgspec.Meta(ge=0)] = 0
    entry: bytes = b""


class Shelf:
    """By what stands for a name, the one that was told of longest ago first."""

    def __init__(self, *, lasting: float = LASTING, most: int = MOST) -> None:
        """`lasting`: seconds for which one is remembered."""
        self._lasting = lasting
        self._most = most
        self._stored: dict[bytes, Stored] = {}

    def put(self, name: str, place: Place, owner: str, now: float, *, tokens: int = 0, entry: bytes = b"") -> None:
        """It lies there, and this key may go on from it."""
        known = self._stored.pop(key := _stand_in(name), None)
        owners = [] if known is None else [each for each in known.owners if each != owner]
        self._stored[key] = Stored(place, now, [*owners, owner], tokens, entry)
        if len(self._stored) > self._most:
            del self._stored[next(iter(self._stored))]

    def find(self, name: object, now: float) -> Stored | None:
        """What is known of it; None: nothing, or it is no name."""
        found = self._stored.get(_stand_in(name)) if isinstance(name, str) and name else None
        return found if found is not None and now - found.at <= self._lasting else None

    def drop(self, name: str) -> Stored | None:
        """It has been deleted there."""
        return self._stored.pop(_stand_in(name), None)

    def is_anothers(self, name: object, owner: str, now: float) -> bool:
        """Was it given to other keys, and not to this one?"""
        found = self.find(name, now)
        return found is not None and owner not in found.owners

    def snapshot(self) -> dict[bytes, Stored]:
        return self._stored

    def restore(self, stored: dict[bytes, Stored]) -> None:
        self._stored = stored


def _stand_in(name: str) -> bytes:
    return hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=_LENGTH, person=b"stored").digest()
