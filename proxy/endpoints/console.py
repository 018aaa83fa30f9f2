"""`/` and `/console/…`: the page on which one asks and sees what came of it; plain files, read once at the start.

Rule: a request's path never becomes a file's. What is served stands in FILES, at exactly its own address, and the page
may load and ask nothing but its own origin. It holds no secret, so whoever reaches the port may have it.
"""

import hashlib
from collections.abc import Callable
from importlib.resources import files
from importlib.resources.abc import Traversable

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from proxy.core.call import header_map
from proxy.endpoints.intake import Door

TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
NAMES = """
style.css icon.svg main.js playground.js conversation.js answer.js code.js combobox.js figures.js cards.js chart.js
tables.js requests.js events.js api.js keys.js mend.js words.js dom.js
"""
FILES = {"/": "index.html", **{f"/console/{name}": name for name in NAMES.split()}}

# The last two: no script can make HTML out of text, not by mistake either.
POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "cache-control": "no-cache",  # asked for anew each time, and a 304 unless Penstock is another version
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class About(msgspec.Struct, frozen=True):
    """What the page must know before it asks anything; no secrets.

    `keys`: clients must show a key of this proxy. `provider_key`: they send their provider's own.
    """

    version: str
    keys: bool
    provider_key: bool
    default_model: str | None
    mode: str


class Console:
    """The page's routes; every other path has none and is refused as such. `about` is asked for each time."""

    def __init__(self, door: Door, about: Callable[[], About]) -> None:
        self._door = door
        self._about = about
        folder = files("proxy") / "console"
        self._files = {path: _File(path, folder / name) for path, name in FILES.items()}

    @property
    def routes(self) -> list[Route]:
        about = Route("/console/about", self._tell, methods=["GET"])
        return [*(Route(path, file, methods=["GET"]) for path, file in self._files.items()), about]

    async def _tell(self, request: Request) -> Response:
        """Raises Forbidden: for a page elsewhere it is not."""
        self._door.check_origin(header_map(request.scope["headers"]))
        told = {**HEADERS, "cache-control": "no-store"}
        return Response(msgspec.json.encode(self._about()), headers=told, media_type="application/json")


class _File:
    """One file, as it was at the start."""

    def __init__(self, path: str, source: Traversable) -> None:
        self._path = path.encode()
        self._body = source.read_bytes()
        self._etag = f'"{hashlib.sha256(self._body).hexdigest()[:32]}"'
        self._headers = {**HEADERS, "etag": self._etag}
        self._type = TYPES[source.name.rpartition(".")[2]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["raw_path"] != self._path:  # the same, but in another way of writing it
            raise HTTPException(404)
        known = header_map(scope["headers"]).get(b"if-none-match", b"").decode("latin-1")
        if self._is_known(known):
            answer = Response(status_code=304, headers=self._headers)
        else:
            answer = Response(self._body, headers={**self._headers, "content-type": self._type})
        await answer(scope, receive, send)

    def _is_known(self, said: str) -> bool:
        """Is it one of those that the client has? As RFC 9110 13.1.2 compares: weakly."""
        tags = [tag.strip().removeprefix("W/") for tag in said.split(",")]
        return "*" in tags or self._etag in tags
