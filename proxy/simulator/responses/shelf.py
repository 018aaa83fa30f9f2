"""The Responses that are kept: by id, the oldest forgotten once there are too many."""

from collections import OrderedDict
from typing import Final

import msgspec

from proxy.simulator.errors import ApiError
from proxy.simulator.request import Json

ROOM: Final = 2000


class Kept(msgspec.Struct, frozen=True):
    """`inputs`: all items that it answers, those of the conversation before it included. `queued`: nobody has asked yet
    what became of it.
    """

    body: Json
    inputs: tuple[Json, ...]
    queued: bool = False


class Shelf:
    """Where Responses are kept."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    def put(self, kept: Kept) -> None:
        """Keeps it under the id in its body."""
        self._kept[kept.body["id"]] = kept
        while len(self._kept) > self._room:
            self._kept.popitem(last=False)

    def get(self, response_id: str) -> Kept:
        """ApiError 404 of an id that is not known, or no more."""
        if response_id not in self._kept:
            raise ApiError(404, f"Response with id '{response_id}' not found.")
        return self._kept[response_id]

    def drop(self, response_id: str) -> None:
        """Forgets it; ApiError as `get` has it."""
        self.get(response_id)
        del self._kept[response_id]

    def conversation(self, response_id: str) -> tuple[Json, ...]:
        """All items up to this Response and with it, for the one that continues it."""
        if response_id not in self._kept:
            message = f"Previous response with id '{response_id}' not found."
            raise ApiError(400, message, param="previous_response_id", code="previous_response_not_found")
        kept = self._kept[response_id]
        return (*kept.inputs, *kept.body["output"])

    def item(self, item_id: str) -> Json:
        """The item that a reference means; ApiError 404."""
        for kept in reversed(self._kept.values()):
            items: tuple[Json, ...] = (*kept.body["output"], *kept.inputs)
            for item in items:
                if item["id"] == item_id:
                    return item
        raise ApiError(404, f"Item with id '{item_id}' not found.", param="input")
