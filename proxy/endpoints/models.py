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

Headers = tuple[tuple[bytes, bytes], ...]

JSON: Headers = ((b"content-type", b"application/json"),)


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
        ids = ((b"x-penstock-request-id", ours), (b"x-request-id", ours))
        wanted: str | None = scope["path_params"].get("model")
        status = PenstockError.status
        try:
            headers = header_map(scope["headers"])
            self._door.enter(headers)
            if wanted == "":
                raise NotFound("There is no such path here: leave out the slash at its end.")
            async with Attendance(receive) as client:
                account = tuple((name, headers[name]) for name in CREDENTIALS + ACCOUNT if name in headers)
                listing = await self._provider.models(account)
                status, said, body = self._answer(listing, wanted)
                theirs = {name for name, _ in said}
                await send_whole(send, status, [*said, *(each for each in ids if each[0] not in theirs)], body)
            if client.left:
                status = 499
        except PenstockError as error:
            status = error.status
            await send_error(send, error, ids)
        finally:
            self._meter.request(self.endpoint, "bypass", status)

    def _answer(self, listing: Listing, wanted: str | None) -> tuple[int, Headers, bytes]:
        """Status, headers, body. A provider that refuses the client's own key is not papered over with our part."""
        if listing.models is None:
            headers = ((b"content-type", listing.content_type), *listing.headers)
            return listing.status, headers, self._provider.scrub(listing.body)
        found = self._merged(listing.models)
        if wanted is None:
            return 200, JSON, msgspec.json.encode({"object": "list", "data": list(found.values())})
        if wanted not in found:
            raise NotFound(f"The model {wanted!r} does not exist, or this key may not call it.", param="model")
        return 200, JSON, msgspec.json.encode(found[wanted])

    def _merged(self, listed: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """By id. What the provider says of a model is more than we know of its name."""
        merged = {model["id"]: model for model in listed if isinstance(model.get("id"), str)}
        for model in self._named:
            merged.setdefault(model["id"], model)
        return merged
