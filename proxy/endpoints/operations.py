"""`/livez`, `/readyz`, `/metrics`: for whoever runs Penstock. They touch no provider and no disk."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from proxy.core.call import header_map
from proxy.endpoints.gate import Gate
from proxy.endpoints.intake import Door
from proxy.errors import ShuttingDown

PLAIN = "text/plain; charset=utf-8"


class Operations:
    """`exposition` gives the metrics in Prometheus' text format, of `media_type`."""

    def __init__(self, exposition: Callable[[], Awaitable[bytes]], media_type: str, door: Door) -> None:
        self._door = door
        self._exposition = exposition
        self._media_type = media_type
        self.gate: Gate | None = None

    @property
    def routes(self) -> list[Route]:
        return [
            Route("/livez", self.livez),
            Route("/readyz", self.readyz),
            Route("/metrics", self.metrics),
        ]

    async def livez(self, _: Request) -> Response:
        """The process answers. Nothing else is asked: a check that looks further restarts healthy proxies."""
        return Response("ok\n", media_type=PLAIN)

    async def readyz(self, _: Request) -> Response:
        """Ready to serve. A provider that is down does not make Penstock unready: hits are still answered."""
        if self.gate is not None and self.gate.draining:
            return Response("shutting down\n", status_code=ShuttingDown.status, media_type=PLAIN)
        return Response("ready\n", media_type=PLAIN)

    async def metrics(self, request: Request) -> Response:
        """For a scraper, not for a web page. Raises Forbidden or Unauthorized."""
        self._door.check_scraper(header_map(request.scope["headers"]))
        return Response(await self._exposition(), media_type=self._media_type)
