"""What no endpoint answers: an unknown path, another method, an error that nobody caught; in OpenAI's shape."""

from collections.abc import Awaitable, Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from proxy.core.call import announces_body, header_map
from proxy.errors import MethodNotAllowed, NotFound, PenstockError
from proxy.ids import Ids

Handler = Callable[[Request, Exception], Awaitable[Response]]


class Refusals:
    """Starlette's handlers of exceptions. `on_refused`: told of each with its status."""

    def __init__(self, ids: Ids, on_refused: Callable[[int], None]) -> None:
        self._ids = ids
        self._on_refused = on_refused

    @property
    def handlers(self) -> Mapping[type[Exception], Handler]:
        return {HTTPException: self._refuse, PenstockError: self._told, Exception: self._crash}

    async def _refuse(self, request: Request, error: Exception) -> Response:
        """Starlette's own refusals. It names the methods of a 405 in the order of a set."""
        if isinstance(error, HTTPException) and error.status_code == 405:
            methods = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
            return self._shaped(request, MethodNotAllowed(f"{request.method} is not allowed here."), allow=methods)
        told = "There is no such path here. An SDK's base_url ends in /v1; Azure's addresses are here too."
        return self._shaped(request, NotFound(told))

    async def _told(self, request: Request, error: Exception) -> Response:
        return self._shaped(request, error if isinstance(error, PenstockError) else PenstockError(str(error)))

    async def _crash(self, request: Request, _: Exception) -> Response:
        return self._shaped(request, PenstockError("Penstock failed; its log says why."))

    def _shaped(self, request: Request, error: PenstockError, **headers: str) -> Response:
        self._on_refused(error.status)
        ours = self._ids.request().decode()
        said = {"x-penstock-request-id": ours, "x-request-id": ours, **headers}
        if announces_body(header_map(request.scope["headers"])):  # which nobody reads
            said["connection"] = "close"
        return Response(error.body(), status_code=error.status, headers=said, media_type="application/json")
