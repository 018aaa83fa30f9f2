"""`/v1/models`: what this key may call of the settings' routes and models, and of what the default provider lists.

A provider may have no such list; then the settings' own names are all of it.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from proxy.core.access import Grant
from proxy.core.asker import Asker
from proxy.core.call import ACCOUNT, CREDENTIALS, announces_body, header_map
from proxy.endpoints.answer import Answer
from proxy.endpoints.calling import calling
from proxy.endpoints.client import Attendance
from proxy.endpoints.desk import Desk
from proxy.endpoints.forms import NO_PAGE
from proxy.endpoints.intake import ClientLeftError, Door
from proxy.errors import NotFound, UpstreamBadContentType
from proxy.interfaces import Listing, Provider

Headers = tuple[tuple[bytes, bytes], ...]

JSON: Headers = ((b"content-type", b"application/json"),)
NO_LIST = (404, 405, 501)  # of a provider that has none


class Models:
    """An ASGI endpoint for the list and, with a path parameter `model`, for one of it."""

    endpoint = "models"

    def __init__(self, named: Iterable[str], provider: Provider, door: Door, desk: Desk) -> None:
        self._named = [{"id": name, "object": "model", "created": 0, "owned_by": "penstock"} for name in named]
        self._provider = provider
        self._door = door
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with Answer(self.endpoint, send, self._desk) as answer:
            headers = header_map(scope["headers"])
            answer.unread = lambda: announces_body(headers)
            grant = self._door.enter(headers)
            wanted: str | None = scope["path_params"].get("model")
            if wanted == "":
                raise NotFound("There is no such path here: leave out the slash at its end.")
            asker = answer.admit(grant)
            answer.outcome = "bypass"
            async with Attendance(receive) as client:
                account = tuple((name, headers[name]) for name in CREDENTIALS + ACCOUNT if name in headers)
                listing = await self._listing(asker, account)
                await answer.whole(*self._answer(listing, wanted, grant))
            if client.left:
                raise ClientLeftError

    async def _listing(self, asker: Asker, account: Headers) -> Listing | None:
        """None: the provider has no list, and we have names. Raises UpstreamError."""
        try:
            async with calling(self._desk, asker, self._provider, free=True) as called:
                listing = await self._provider.models(account)
                called.status = listing.status
        except UpstreamBadContentType:  # a page, or a list of another shape
            if self._named:
                return None
            raise
        return None if listing.status in NO_LIST and self._named else listing

    def _answer(self, listing: Listing | None, wanted: str | None, grant: Grant) -> tuple[int, Headers, bytes]:
        """Status, headers, body. A provider that refuses the client's own key is not papered over with our part."""
        listed = [] if listing is None else listing.models
        if listing is not None and listed is None:
            headers = ((b"content-type", listing.content_type), *listing.headers, *NO_PAGE)
            return listing.status, headers, self._provider.scrub(listing.body)
        merged = self._merged(listed or [])
        found = {name: model for name, model in merged.items() if grant.may_call(name)}
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
