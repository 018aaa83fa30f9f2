"""A request's body, within its bounds, and who may send one."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from functools import lru_cache, partial
from types import coroutine
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec
from starlette.types import Receive

from proxy.core.access import NO_GUARD, Access, Grant, Guard
from proxy.core.call import Headers
from proxy.core.load import Load
from proxy.errors import (
    BodyTooLarge,
    Forbidden,
    InvalidRequest,
    RequestTimeout,
    UnsupportedEncoding,
    UnsupportedMediaType,
)

# What proxies add to a request that they pass on.
FORWARDED = frozenset(
    {
        *(b"forwarded", b"via", b"x-real-ip", b"x-scheme", b"x-client-ip", b"client-ip", b"true-client-ip"),
        *(b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-port", b"x-forwarded-server"),
        *(b"x-forwarded-prefix", b"x-forwarded-scheme", b"x-original-forwarded-for", b"x-original-host"),
        *(b"cf-connecting-ip", b"cf-ray", b"fly-client-ip", b"fastly-client-ip", b"x-envoy-external-address"),
        *(b"x-cluster-client-ip", b"x-azure-clientip", b"x-appengine-user-ip", b"tailscale-user-login"),
    }
)
T = TypeVar("T")

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


class ClientLeftError(Exception):
    """The client hung up before its request was complete; there is nobody to answer."""


class Door(msgspec.Struct, frozen=True):
    """Who may come in. A web page elsewhere must not be able to spend: it has an Origin, and may rebind a name.

    `loopback_only`: nobody else reaches the port. `body_timeout`: seconds for a body to be there, however fast its
    pieces come.
    """

    origins: frozenset[str]
    loopback_only: bool
    max_body: int
    body_timeout: float
    access: Access
    load: Load
    wall: Callable[[], float]
    guard: Guard = NO_GUARD

    def check(self, headers: Headers) -> Grant:
        """Who comes in with a body that is understood.

        Raises Forbidden, Unauthorized, UnsupportedMediaType, UnsupportedEncoding, BodyTooLarge or InvalidRequest.
        """
        grant = self.enter(headers)
        self.check_body(headers)
        return grant

    def check_body(self, headers: Headers) -> None:
        """Raises UnsupportedMediaType, UnsupportedEncoding, BodyTooLarge or InvalidRequest."""
        media = headers.get(b"content-type", b"")
        if media != b"application/json" and not _is_json(media):
            raise UnsupportedMediaType("The body must be JSON and say so: `Content-Type: application/json`.")
        if headers.get(b"content-encoding", b"identity").lower() not in (b"identity", b""):
            raise UnsupportedEncoding("An encoded body is not accepted; send it without Content-Encoding.")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            raise InvalidRequest("`Content-Length` must be a number.")
        if int(length) > self.max_body:
            raise self.too_large()

    def enter(self, headers: Headers) -> Grant:
        """Who comes in. Raises Forbidden or Unauthorized."""
        self.check_origin(headers)
        return self.access.grant(headers, self.wall())

    def check_origin(self, headers: Headers) -> None:
        """Is it no page, one of our own, or one that is named? Raises Forbidden.

        A page that has rebound its name is our own by that name; what it lacks is loopback's, or a key.
        """
        origin, host = headers.get(b"origin"), headers.get(b"host", b"")
        if origin is not None and origin.decode("latin-1") not in self.origins and not _is_own(origin, host):
            raise Forbidden("This Origin is not named in server.cors_origins.")
        if self.loopback_only and not self.access.any_made and not _is_loopback(host):
            raise Forbidden("Without keys this proxy answers to loopback names only (localhost, 127.0.0.1, [::1]).")

    def check_admin(self, headers: Headers) -> None:
        """Raises Forbidden or Unauthorized."""
        self.check_origin(headers)
        self.guard.check_admin(headers)

    def check_viewer(self, headers: Headers) -> Grant | None:
        """Whose figures may it see? None: everybody's, by the admin key, or under loopback's own names without keys.

        Raises Forbidden or Unauthorized.
        """
        self.check_origin(headers)
        if self.guard.is_admin(headers):
            return None
        if self.access.any_made:
            return self.access.grant(headers, self.wall())
        if not self._is_direct(headers):
            self.guard.check_admin(headers)
        return None

    def check_scraper(self, headers: Headers) -> None:
        """May it read the metrics? Under loopback's own names without a key; what stands before it uses others.

        Raises Forbidden or Unauthorized.
        """
        self.check_origin(headers)
        if not self._is_direct(headers):
            self.guard.check_scraper(headers)

    def _is_direct(self, headers: Headers) -> bool:
        """Does it come from this machine, and not through another proxy?"""
        return self.loopback_only and FORWARDED.isdisjoint(headers) and _is_loopback(headers.get(b"host", b""))

    def too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The body is larger than {self.max_body} bytes (server.max_body).")


def _is_json(content_type: bytes) -> bool:
    media = content_type.partition(b";")[0].strip().lower()
    return media == b"application/json" or media.endswith(b"+json")


def _is_own(origin: bytes, host: bytes) -> bool:
    """Is this the Origin of a page that came from here? Its scheme is that of whatever ends TLS before us.

    Browsers write the name in lower case and leave the scheme's own port out, in both headers alike.
    """
    scheme, _, address = origin.partition(b"://")
    return scheme in (b"http", b"https") and address == host != b""


@lru_cache(maxsize=64)
def _is_loopback(host: bytes) -> bool:
    """Is this Host header one of loopback's names, with a port or without?"""
    try:
        name = urlsplit(b"//" + host).hostname
    except ValueError:
        return False
    return name is not None and name.decode("latin-1") in LOOPBACK_NAMES


async def read_body(receive: Receive, door: Door) -> bytes:
    """The whole body. Raises BodyTooLarge, RequestTimeout, Overloaded, or ClientLeftError."""
    pieces = _pieces(receive, door)
    try:
        waits = pieces.send(None)
    except StopIteration as end:  # it was all there: a timer would cost a hit as much as its look-up
        whole: bytes = end.value
        return whole
    task = asyncio.current_task()
    late = False

    def expire() -> None:
        nonlocal late
        late = True
        if task is not None:
            task.cancel()

    # asyncio.timeout does the same and costs four times as much, which every hit would pay.
    deadline = asyncio.get_running_loop().call_later(door.body_timeout, expire)
    try:
        return await _go_on(pieces, waits)
    except asyncio.CancelledError:
        if not late or task is None or task.uncancel() > 0:
            raise
        raise late_body(door.body_timeout) from None
    finally:
        deadline.cancel()


@coroutine
def _go_on(begun: Coroutine[object, object, T], waits: object) -> Generator[object, object, T]:
    """The rest of a coroutine whose first step was made: what that waits for, the task waits for."""
    while True:
        try:
            came = yield waits
        except BaseException as error:  # noqa: BLE001 - it is the coroutine's
            step = partial(begun.throw, error)
        else:
            step = partial(begun.send, came)
        try:
            waits = step()
        except StopIteration as end:
            whole: T = end.value
            return whole


def late_body(seconds: float) -> RequestTimeout:
    return RequestTimeout(f"The body did not come within {seconds:g} seconds (server.body_timeout).")


async def _pieces(receive: Receive, door: Door) -> bytes:
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        if len(body) > door.max_body:
            raise door.too_large()
        return body
    pieces, size = [], 0
    try:
        while True:
            if message["type"] == "http.disconnect":
                raise ClientLeftError
            piece = message.get("body", b"")
            pieces.append(piece)
            size += len(piece)
            door.load.receive(len(piece))
            if size > door.max_body:
                raise door.too_large()
            if not message.get("more_body", False):
                return b"".join(pieces)
            message = await receive()
    finally:
        door.load.received -= size
