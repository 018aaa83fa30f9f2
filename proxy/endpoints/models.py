"""`/v1/models`: what may be called: the models that the settings name, and what the default provider lists."""

from collections.abc import Iterable
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from proxy.core.call import ACCOUNT, CREDENTIALS, header_map
from proxy.endpoints.client import Attendance, send_error, send_whole
from proxy.endpoints.intake import Door
from proxy.errors import NotFound, PenstockError
from proxy.ids import Ids
from proxy.interfaces import Listing, Meter, Provider

JSON = (b"content-type", b"application/json")


class Models:
    """An ASGI endpoint for the list and, with a path parameter `model`, for one of it."""

    endpoint = "models"

    def __init__(self, named: Iterable[str], provider: Provider, door: Door, *, ids: Ids, meter: Meter) -> None:
        self._named = [{"id": name, "object": "model", "created": 0, "owned_by": "penstock"} for name in named]
        self._provider = provider
        self._door = door
        self._ids = ids
        self._meter = meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ours = self._ids.request()
        ids = [(b"x-penstock-request-id", ours), (b"x-request-id", ours)]
        status = 499
        try:
            headers = header_map(scope["headers"])
            self._door.check_origin(headers)
            async with Attendance(receive):
                account = tuple((name, headers[name]) for name in CREDENTIALS + ACCOUNT if name in headers)
                listing = await self._provider.models(account)
                status, body = self._answer(listing, scope["path_params"].get("model"))
                await send_whole(send, status, [JSON, *ids], body)
        except PenstockError as error:
            status = error.status
            await send_error(send, error, ids)
        finally:
            self._meter.request(self.endpoint, "bypass", status)

    def _answer(self, listing: Listing, wanted: str | None) -> tuple[int, bytes]:
        """Status and body. A provider that refuses the client's own key is not papered over with our part."""
        if listing.models is None:
            return listing.status, listing.body
        listed = [model for model in listing.models if isinstance(model.get("id"), str)]
        merged = {model["id"]: model for model in [*listed, *self._named]}
        if wanted is None:
            return 200, msgspec.json.encode({"object": "list", "data": list(merged.values())})
        found: dict[str, Any] | None = merged.get(wanted)
        if found is None:
            raise NotFound(f"The model {wanted!r} does not exist, or this key may not call it.", param="model")
        return 200, msgspec.json.encode(found)
