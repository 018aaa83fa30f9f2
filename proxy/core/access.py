"""Who is asking: the key that a client shows, and what it may do.

Rule: a key is known by its digest only. One refusal for all keys that are not in force, so that none can be guessed.
"""

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Literal

import msgspec

from proxy.errors import Forbidden, InvalidRequest, ModelNotAllowed, NotFound, Unauthorized

Headers = Mapping[bytes, bytes]
Period = Literal["day", "week", "month", "total"]

# In raw paths these mean something else to some servers than to others: `files/../batches` may be either.
_AMBIGUOUS = (b"\\", b"%2e", b"%2f", b"%5c", b"%25", b"%00", b"%c0", b"%c1", b"%u")
_EMPTY = frozenset({b"", b"."})


class Limits(msgspec.Struct, frozen=True):
    """What may be used in any 60 seconds, and at once. None: as much as one likes."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrent: int | None = None


UNLIMITED = Limits()


class Allowance(msgspec.Struct, frozen=True):
    """A budget: so many USD in each UTC day, week (from Monday) or month, or in all."""

    usd: Decimal
    per: Period


class Grant(msgspec.Struct, frozen=True):
    """What a key may do. `id` is what it owns answers and spendings by: of a ledger's key never used twice, of a
    settings' key its name. `name` is for people.

    `models`: names of models and routes, or "*" at the end of one for all that begin so. `passthrough`: leading
    segments of paths relative to `/v1/`. `expires`: seconds since the epoch.
    """

    name: str
    id: str = ""
    models: tuple[str, ...] = ("*",)
    passthrough: frozenset[bytes] = frozenset()
    limits: Limits = UNLIMITED
    budget: Allowance | None = None
    expires: float | None = None

    def is_over(self, now: float) -> bool:
        """Has it expired?"""
        return self.expires is not None and self.expires <= now

    def may_call(self, name: str) -> bool:
        """May it ask for this model or route?"""
        return any(name == each or (each[-1:] == "*" and name.startswith(each[:-1])) for each in self.models)

    def check_model(self, name: str) -> None:
        """Raises ModelNotAllowed."""
        if self.models != ("*",) and not self.may_call(name):
            raise ModelNotAllowed(f"This key may not call {name!r}.", param="model")


NOBODY = Grant("")


class KnownKey(msgspec.Struct, frozen=True):
    """A key as people are told of it, in force or not. Times are seconds since the epoch."""

    grant: Grant
    source: Literal["settings", "ledger"]
    created: float | None = None
    revoked: float | None = None

    def meant(self, said: str) -> bool:
        """Is this its id or its name?"""
        return said in (self.grant.id, self.grant.name)


def meant_keys(known: Iterable[KnownKey], said: str) -> list[KnownKey]:
    """The keys of this id or name; several may have had that name, one after the other. Raises NotFound."""
    found = [each for each in known if each.meant(said)]
    if not found:
        raise NotFound(f"There is no key {said!r}.", param="key")
    return found


def meant_key(known: Iterable[KnownKey], said: str) -> KnownKey:
    """The key of this id or name; of a name the one in force, else the newest. Raises NotFound."""
    found = meant_keys(known, said)
    return next((each for each in found if each.revoked is None), found[-1])


def revocable_key(known: Sequence[KnownKey], said: str) -> KnownKey:
    """The same, where it can be revoked. Raises NotFound, or InvalidRequest: it is one of the settings."""
    found = meant_key(known, said)
    if found.source == "settings":
        others = [each.grant.id for each in known if each.meant(said) and each.source == "ledger" and not each.revoked]
        other = f"; the ledger's key of that name is {others[0]}" if others else ""
        raise InvalidRequest(f"The key {said!r} stands in the settings: remove it there{other}.", param="key")
    return found


class Access:
    """The keys in force, by their SHA-256. Where none was ever made, everybody is NOBODY and has no rights of a key."""

    def __init__(self, grants: Mapping[bytes, Grant], *, any_made: bool | None = None) -> None:
        self.replace(grants, any_made=bool(grants) if any_made is None else any_made)

    def replace(self, grants: Mapping[bytes, Grant], *, any_made: bool) -> None:
        """From now on these. `any_made`: keys are asked for, even if none of them is in force any more."""
        self._grants = grants
        self.any_made = any_made

    def grant(self, headers: Headers, now: float) -> Grant:
        """The grant of the key in `Authorization` or `api-key`. Raises Unauthorized."""
        if not self.any_made:
            return NOBODY
        found = self._grants.get(digest(shown_key(headers)))
        if found is None or found.is_over(now):
            raise no_key()
        return found

    def in_force(self, now: float) -> Iterator[Grant]:
        """Of every key that is good now."""
        return (grant for grant in self._grants.values() if not grant.is_over(now))


class Guard(msgspec.Struct, frozen=True):
    """SHA-256 of the keys of those who run this proxy: the admin's, and one for the metrics alone; None: no such."""

    admin: bytes | None = None
    metrics: bytes | None = None

    def is_admin(self, headers: Headers) -> bool:
        """Does it show the admin key?"""
        return self.admin is not None and hmac.compare_digest(digest(shown_key(headers)), self.admin)

    def check_admin(self, headers: Headers) -> None:
        """Raises Unauthorized, or Forbidden where there is no admin key."""
        if self.admin is None:
            raise Forbidden(
                "Nobody may do this: server.admin_key_env names no environment variable that holds the admin key."
            )
        _check_shown(headers, (self.admin,))

    def check_scraper(self, headers: Headers) -> None:
        """May it read the metrics? Raises Unauthorized, or Forbidden where there is neither key."""
        keys = [key for key in (self.admin, self.metrics) if key is not None]
        if not keys:
            raise Forbidden(
                "The metrics are for loopback: neither server.metrics_key_env nor server.admin_key_env names an "
                "environment variable that holds a key to them."
            )
        _check_shown(headers, keys)


NO_GUARD = Guard()


def _check_shown(headers: Headers, keys: Iterable[bytes]) -> None:
    """In the same time whichever of them it is, and whether it is one. Raises Unauthorized."""
    shown = digest(shown_key(headers))
    if not sum([hmac.compare_digest(shown, key) for key in keys]):
        raise no_key()


def no_key() -> Unauthorized:
    """The one refusal."""
    return Unauthorized("No key of this proxy was given, or one that is not in force.")


def shown_key(headers: Headers) -> bytes:
    """The key that a request shows; empty if none."""
    shown = headers.get(b"authorization") or headers.get(b"api-key", b"")
    scheme, _, token = shown.partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else shown


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
