"""build_simulator(): the ASGI application, all of its state made here."""

from collections.abc import Awaitable, Callable, Mapping

import msgspec
from starlette.datastructures import Headers
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy.simulator.calling import Calls, check_key
from proxy.simulator.chat import ChatCompletions
from proxy.simulator.completions import Completions
from proxy.simulator.embeddings import Embeddings
from proxy.simulator.errors import ApiError
from proxy.simulator.memory import Memory
from proxy.simulator.mirror import PREFIX, Mirror
from proxy.simulator.models import MODELS
from proxy.simulator.replies import refuse, reply
from proxy.simulator.responses import KeptResponses, Responses, Shelf
from proxy.simulator.tally import Tally

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


def build_simulator() -> ASGIApp:
    """An OpenAI-compatible provider, with `/simulator/calls`, `/simulator/inputs`, `/simulator/served` and
    `/simulator/last` to see what reached it.

    Everything under `/v1/mirror/` says what came.
    """
    memory, tally = Memory(), Tally()
    shelf = Shelf()
    kept = KeptResponses(shelf, memory)
    mirror = Mirror(memory)
    inspection = _Inspection(tally, memory)

    async def elsewhere(scope: Scope, receive: Receive, send: Send) -> None:
        # No route of Starlette's takes a path with a newline in it (`%0A`).
        answer = mirror if scope["path"].startswith(PREFIX) else _unknown
        await answer(scope, receive, send)

    routes = [
        _route("/v1/chat/completions", {"POST": Calls(ChatCompletions(), memory, tally).post}),
        _route("/v1/completions", {"POST": Calls(Completions(), memory, tally).post}),
        _route("/v1/embeddings", {"POST": Calls(Embeddings(), memory, tally).post}),
        _route("/v1/responses", {"POST": Calls(Responses(shelf), memory, tally).post}),
        _route("/v1/responses/{id}", {"GET": kept.get, "DELETE": kept.delete}),
        _route("/v1/responses/{id}/cancel", {"POST": kept.cancel}),
        _route("/v1/responses/{id}/input_items", {"GET": kept.input_items}),
        _route("/v1/models", {"GET": _models}),
        _route("/v1/models/{id:path}", {"GET": _model}),
        _route("/simulator/calls", {"GET": inspection.calls, "DELETE": inspection.forget}),
        _route("/simulator/inputs", {"GET": inspection.inputs}),
        _route("/simulator/served", {"GET": inspection.served}),
        _route("/simulator/last", {"GET": inspection.last}),
    ]
    # Neither redirects nor Starlette's own middleware: what is wrapped around `send` hides the transport from `reset`.
    return Router(routes, redirect_slashes=False, default=elsewhere)


class _ByMethod:
    """Pure ASGI: Starlette would take a bare function for `request -> response`."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = self._handlers.get(scope["method"])
        if handler is not None:
            await handler(scope, receive, send)
            return
        allow = (("allow", ", ".join(self._handlers)),)
        message = f"Not allowed to {scope['method']} on {scope['path']}."
        error = ApiError(405, message, code="method_not_supported", headers=allow)
        await refuse(error, scope, receive, send)


class _Inspection:
    def __init__(self, tally: Tally, memory: Memory) -> None:
        self._tally = tally
        self._memory = memory

    async def calls(self, scope: Scope, receive: Receive, send: Send) -> None:
        await reply(self._tally.counts.shown(), scope, receive, send)

    async def forget(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._tally.forget()
        self._memory.forget_failures()
        await self.calls(scope, receive, send)

    async def inputs(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`{input: times}`: what was to be embedded, each as JSON."""
        await reply(self._tally.counts.inputs, scope, receive, send)

    async def served(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`[{endpoint, asked, ended, prompt_tokens, completion_tokens, cached_tokens}]`: each call, as they came."""
        await reply(list(self._tally.counts.lines), scope, receive, send)

    async def last(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`{method, path, query, headers: {name: value}, pairs: [[name, value]], body, raw}`; body null if no JSON."""
        last = self._memory.last
        if last is None:
            await refuse(ApiError(404, "No call has been made yet."), scope, receive, send)
            return
        try:
            body = msgspec.json.decode(last.raw)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            body = None
        seen = {
            "method": last.method,
            "path": last.path,
            "query": last.query,
            "headers": dict(last.headers),
            "pairs": last.headers,
            "body": body,
            "raw": last.raw.decode(errors="replace"),
        }
        await reply(seen, scope, receive, send)


async def _models(scope: Scope, receive: Receive, send: Send) -> None:
    data = [model.listing() for model in MODELS.values()]
    await _keyed({"object": "list", "data": data}, scope, receive, send)


async def _model(scope: Scope, receive: Receive, send: Send) -> None:
    name = scope["path_params"]["id"]
    if name not in MODELS:
        error = ApiError(404, f"The model '{name}' does not exist", param="model", code="model_not_found")
        await refuse(error, scope, receive, send)
        return
    await _keyed(MODELS[name].listing(), scope, receive, send)


async def _unknown(scope: Scope, receive: Receive, send: Send) -> None:
    error = ApiError(404, f"Invalid URL ({scope['method']} {scope['path']})", code="unknown_url")
    await refuse(error, scope, receive, send)


async def _keyed(value: object, scope: Scope, receive: Receive, send: Send) -> None:
    try:
        check_key(Headers(scope=scope))
    except ApiError as error:
        await refuse(error, scope, receive, send)
        return
    await reply(value, scope, receive, send)


def _route(path: str, handlers: Mapping[str, Handler]) -> Route:
    return Route(path, _ByMethod(handlers))
