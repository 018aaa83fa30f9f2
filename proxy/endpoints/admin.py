"""`/admin/…`: keys, spendings, what is under way and what the cache holds, for whoever has the admin key.

Rule: each path asks for the admin key before anything else. No hash of a key is told, and a secret only once: in the
answer to the request that made it. What needs the disk is done in a thread.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol, get_args
from urllib.parse import parse_qsl

import msgspec
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from proxy.core.access import Grant, KnownKey, meant_keys, revocable_key
from proxy.core.call import Headers, announces_body, header_map
from proxy.core.purges import Wanted
from proxy.endpoints.answer import Answer
from proxy.endpoints.desk import Desk
from proxy.endpoints.intake import Door, read_body
from proxy.errors import InvalidRequest, LedgerUnavailable, MethodNotAllowed, NotFound, StartupError

# Times are as SDKs read them, and no cache keeps a secret.
HEADERS = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
PURGES: tuple[Wanted, ...] = get_args(Wanted)
Purge = Callable[[Wanted, str], Awaitable[int]]
SINCE = "7d"

logger = logging.getLogger("penstock")


class UnderWay(msgspec.Struct, frozen=True):
    """An answer that is being made. `key`: the id of whose it is; `age`: in seconds; `waits`: for its turn."""

    endpoint: str
    key: str
    asked: str
    provider: str | None
    model: str | None
    age: float
    readers: int
    bytes: int
    waits: bool


class Balance(msgspec.Struct, frozen=True):
    """Of a budget, in USD, in the window that runs."""

    spent: Decimal
    reserved: Decimal
    left: Decimal


class Keys(Protocol):
    """Every key, in force or not. What is changed is in force at once; each change may raise LedgerUnavailable."""

    @property
    def known(self) -> list[KnownKey]: ...

    async def create(self, table: dict[str, Any]) -> tuple[KnownKey, str]:
        """A key in the words of [[keys]], and its secret. Raises StartupError or InvalidRequest: it makes no sense."""
        ...

    async def revoke(self, key: KnownKey) -> KnownKey: ...


class Office(msgspec.Struct, frozen=True):
    """What administrators work with.

    `spend(since, by)`, in the words of the command, is called in a thread. `purge(kind, value)` tells how many answers
    it removed; of a key the value is its id. Both may raise OSError.
    """

    keys: Keys
    balance: Callable[[Grant], Balance | None]
    spend: Callable[[str, str], object]
    flights: Callable[[], Iterable[UnderWay]]
    purge: Purge


class Asked(msgspec.Struct, frozen=True):
    """A request that has shown the admin key. `path`: what stands for the variable part of its path."""

    headers: Headers
    query: dict[str, str]
    path: dict[str, str]
    receive: Receive

    def only(self, *names: str) -> None:
        """Raises InvalidRequest where the query says something else."""
        for name in self.query:
            if name not in names:
                there = ", ".join(names) or "nothing"
                raise InvalidRequest(f"{name!r} means nothing here; the query may say: {there}.", param=name)


Said = tuple[int, object]
Handler = Callable[[Asked], Awaitable[Said]]


class _Guarded:
    """An ASGI endpoint: the admin key first, whatever the method; then one of these."""

    def __init__(self, handlers: dict[str, Handler], door: Door, desk: Desk) -> None:
        self._handlers = handlers
        self._door = door
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with Answer("admin", send, self._desk) as answer:
            headers = header_map(scope["headers"])
            answer.unread = lambda: announces_body(headers)
            self._door.check_admin(headers)
            if not self._handlers:
                raise NotFound("There is no such path under /admin.")
            handler = self._handlers.get(scope["method"])
            if handler is None:
                raise MethodNotAllowed(f"{scope['method']} is not allowed here; try {', '.join(self._handlers)}.")
            status, said = await handler(Asked(headers, _query(scope), scope["path_params"], receive))
            answer.outcome = "bypass"
            await answer.whole(status, HEADERS, msgspec.json.encode(said))


class Admin:
    """The routes under `/admin`."""

    def __init__(self, office: Office, door: Door, desk: Desk) -> None:
        self._office = office
        self._door = door
        self._desk = desk

    @property
    def routes(self) -> list[Route]:
        """Of every path under `/admin`, those that are not there included."""
        return [
            self._route("/admin/keys", GET=self._list, POST=self._create),
            self._route("/admin/keys/{key}", DELETE=self._revoke),
            self._route("/admin/spend", GET=self._spend),
            self._route("/admin/flights", GET=self._flights),
            self._route("/admin/cache", DELETE=self._purge),
            self._route("/admin"),
            self._route("/admin/{path:path}"),
        ]

    def _route(self, path: str, **handlers: Handler) -> Route:
        return Route(path, _Guarded(handlers, self._door, self._desk))

    async def _list(self, asked: Asked) -> Said:
        asked.only()
        return 200, {"object": "list", "data": [self._told(each) for each in self._office.keys.known]}

    async def _create(self, asked: Asked) -> Said:
        asked.only()
        self._door.check_body(asked.headers)
        try:
            table = msgspec.json.decode(await read_body(asked.receive, self._door))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequest(f"The body is not JSON: {error}.") from None
        if not isinstance(table, dict):
            raise InvalidRequest('The body must be an object, such as {"name": "team-a"}.')
        try:
            made, secret = await self._office.keys.create(table)
        except StartupError as error:
            raise _wrong(error) from None
        return 201, {**self._told(made), "secret": secret}

    async def _revoke(self, asked: Asked) -> Said:
        asked.only()
        key = revocable_key(self._office.keys.known, asked.path["key"])
        return 200, self._told(key if key.revoked else await self._office.keys.revoke(key))

    async def _spend(self, asked: Asked) -> Said:
        asked.only("since", "by")
        since, by = asked.query.get("since", SINCE), asked.query.get("by", "key")
        try:
            with _on_disk():
                found = await asyncio.to_thread(self._office.spend, since, by)
        except StartupError as error:
            raise _wrong(error) from None
        return 200, {"object": "list", "since": since, "by": by, "data": found}

    async def _flights(self, asked: Asked) -> Said:
        asked.only()
        return 200, {"object": "list", "data": list(self._office.flights())}

    async def _purge(self, asked: Asked) -> Said:
        asked.only(*PURGES)
        if len(asked.query) != 1:
            raise InvalidRequest("Say exactly one of key, model, request and all=true.")
        kind = next(each for each in PURGES if each in asked.query)
        value = asked.query[kind]
        if not value or (kind == "all" and value != "true"):
            raise InvalidRequest(f"{kind}={value} means nothing.", param=kind)
        known = self._office.keys.known
        values = [each.grant.id for each in meant_keys(known, value)] if kind == "key" else [value]
        with _on_disk():
            purged = [await self._office.purge(kind, each) for each in values]
        return 200, {"purged": sum(purged)}

    def _told(self, known: KnownKey) -> dict[str, Any]:
        grant, limits = known.grant, known.grant.limits
        return {
            "id": grant.id,
            "object": "key",
            "name": grant.name,
            "source": known.source,
            "models": grant.models,
            "passthrough": sorted(segment.decode() for segment in grant.passthrough),
            **{name: getattr(limits, name) for name in limits.__struct_fields__},
            "budget": self._budget(known),
            "created": _time(known.created),
            "expires": _time(grant.expires),
            "revoked": _time(known.revoked),
        }

    def _budget(self, known: KnownKey) -> dict[str, Any] | None:
        grant = known.grant
        if grant.budget is None:
            return None
        balance = self._office.balance(grant) if known.revoked is None else None  # nobody can spend what is left
        told = {} if balance is None else {name: _usd(getattr(balance, name)) for name in balance.__struct_fields__}
        return {"usd": _usd(grant.budget.usd), "per": grant.budget.per, **told}


@contextmanager
def _on_disk() -> Iterator[None]:
    """Raises LedgerUnavailable where the disk fails; its path is for the log."""
    try:
        yield
    except OSError as error:
        logger.warning("admin: %s", error)
        raise LedgerUnavailable("The ledger cannot be read; the proxy's log says why.") from error


def _query(scope: Scope) -> dict[str, str]:
    """Raises InvalidRequest where a name stands twice: which of them was meant?"""
    pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidRequest("The query says the same name twice.")
    return found


def _wrong(error: StartupError) -> InvalidRequest:
    """What makes no sense, with the member's path as its param."""
    path, colon, _ = str(error).partition(": ")
    return InvalidRequest(str(error), param=path if colon and " " not in path else None)


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _usd(usd: Decimal) -> str:
    return f"{usd:f}"
