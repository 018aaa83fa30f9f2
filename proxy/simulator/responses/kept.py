"""/v1/responses/{id} and what lies under it: the Responses that were kept."""

from starlette.datastructures import Headers, QueryParams
from starlette.types import Receive, Scope, Send

from proxy.simulator.calling import check_key
from proxy.simulator.errors import ApiError
from proxy.simulator.memory import Memory
from proxy.simulator.replies import refuse, reply
from proxy.simulator.request import Json
from proxy.simulator.responses.shelf import Kept, Shelf

_PAGE = 20
_MOST = 100


class KeptResponses:
    """GET, DELETE, `input_items` and `cancel`. What is asked here is no call of a model, and not counted as one."""

    def __init__(self, shelf: Shelf, memory: Memory) -> None:
        self._shelf = shelf
        self._memory = memory

    async def get(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer("get", scope, receive, send)

    async def delete(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer("delete", scope, receive, send)

    async def cancel(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer("cancel", scope, receive, send)

    async def input_items(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer("input_items", scope, receive, send)

    async def _answer(self, what: str, scope: Scope, receive: Receive, send: Send) -> None:
        self._memory.note(scope, b"")
        response_id: str = scope["path_params"]["id"]
        try:
            check_key(Headers(scope=scope))
            match what:
                case "get":
                    said = self._got(response_id, QueryParams(scope.get("query_string", b"")))
                case "delete":
                    self._shelf.drop(response_id)
                    said = {"id": response_id, "object": "response", "deleted": True}
                case "cancel":
                    said = self._cancelled(response_id)
                case _:
                    said = _page(self._shelf.get(response_id), QueryParams(scope.get("query_string", b"")))
        except ApiError as error:
            await refuse(error, scope, receive, send)
            return
        await reply(said, scope, receive, send)

    def _got(self, response_id: str, query: QueryParams) -> Json:
        kept = self._shelf.get(response_id)
        if query.get("stream") == "true":
            raise ApiError(400, "This response cannot be streamed: nothing of it is under way.", param="stream")
        if kept.queued:
            # The first who asks after it finds it ready.
            self._shelf.put(Kept(kept.body, kept.inputs))
        return kept.body

    def _cancelled(self, response_id: str) -> Json:
        kept = self._shelf.get(response_id)
        if not kept.body["background"]:
            raise ApiError(400, "Cannot cancel a synchronous response.")
        if kept.queued:
            body = {**kept.body, "status": "cancelled", "completed_at": None, "output": [], "usage": None}
            kept = Kept(body, kept.inputs)
            self._shelf.put(kept)
        return kept.body


def _page(kept: Kept, query: QueryParams) -> Json:
    """`{object, data, first_id, last_id, has_more}`: the newest first unless `order` says otherwise."""
    items = list(kept.inputs) if query.get("order") == "asc" else list(reversed(kept.inputs))
    ids = [item["id"] for item in items]
    begin = ids.index(query["after"]) + 1 if query.get("after") in ids else 0
    limit = _limit(query.get("limit", str(_PAGE)))
    data = items[begin : begin + limit]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    more = begin + limit < len(items)
    return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": more}


def _limit(said: str) -> int:
    if not said.isdecimal() or not 1 <= int(said) <= _MOST:
        raise ApiError(400, f"Invalid 'limit': an integer from 1 to {_MOST}.", param="limit", code="invalid_value")
    return int(said)
