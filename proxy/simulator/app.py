"""build_simulator(): the ASGI application, all of its state made here."""

from collections.abc import Awaitable, Callable, Mapping

import msgspec
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy.simulator.chat import ChatCompletions, check_key
from proxy.simulator.errors import ApiError
from proxy.simulator.memory import Memory
from proxy.simulator.mirror import PREFIX, Mirror
from proxy.simulator.models import MODELS

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


def build_simulator() -> ASGIApp:
    """An OpenAI-compatible provider, with `/simulator/calls`, `/simulator/served` and `/simulator/last` to
    see what reached it.

    Everything under `/v1/mirror/` says what came.
    """
    memory = Memory()
    chat = ChatCompletions(memory)
    mirror = Mirror(memory)
    inspection = _Inspection(chat, memory)

    async def elsewhere(scope: Scope, receive: Receive, send: Send) -> None:
        # No route of Starlette's takes a path with a newline in it (`%0A`).
        answer = mirror if scope["path"].startswith(PREFIX) else _unknown
        await answer(scope, receive, send)

    routes = [
        _route("/v1/chat/completions", {"POST": chat.post}),
        _route("/v1/models", {"GET": _models}),
        _route("/v1/models/{id:path}", {"GET": _model}),
        _route("/simulator/calls", {"GET": inspection.calls, "DELETE": inspection.forget}),
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
        await _refuse(error, scope, receive, send)


class _Inspection:
    def __init__(self, chat: ChatCompletions, memory: Memory) -> None:
        self._chat = chat
        self._memory = memory

    async def calls(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _json(self._chat.counts.shown(), scope, receive, send)

    async def forget(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._chat.forget()
        await self.calls(scope, receive, send)

    async def served(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`[{asked, ended, prompt_tokens, completion_tokens, cached_tokens}]`: each call, in the order they came."""
        await _json(list(self._chat.counts.lines), scope, receive, send)

    async def last(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`{method, path, query, headers: {name: value}, pairs: [[name, value]], body, raw}`; body null if no JSON."""
        last = self._memory.last
        if last is None:
            await _refuse(ApiError(404, "No call has been made yet."), scope, receive, send)
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
        await _json(seen, scope, receive, send)


async def _models(scope: Scope, receive: Receive, send: Send) -> None:
    data = [model.listing() for model in MODELS.values()]
    await _keyed({"object": "list", "data": data}, scope, receive, send)


async def _model(scope: Scope, receive: Receive, send: Send) -> None:
    name = scope["path_params"]["id"]
    if name not in MODELS:
        error = ApiError(404, f"The model '{name}' does not exist", param="model", code="model_not_found")
        await _refuse(error, scope, receive, send)
        return
    await _keyed(MODELS[name].listing(), scope, receive, send)


async def _unknown(scope: Scope, receive: Receive, send: Send) -> None:
    error = ApiError(404, f"Invalid URL ({scope['method']} {scope['path']})", code="unknown_url")
    await _refuse(error, scope, receive, send)


async def _keyed(value: object, scope: Scope, receive: Receive, send: Send) -> None:
    try:
        check_key(Headers(scope=scope))
    except ApiError as error:
        await _refuse(error, scope, receive, send)
        return
    await _json(value, scope, receive, send)


async def _json(value: object, scope: Scope, receive: Receive, send: Send) -> None:
    response = Response(msgspec.json.encode(value), media_type="application/json")
    await response(scope, receive, send)


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    response = Response(error.body(), error.status, dict(error.headers), "application/json")
    await response(scope, receive, send)


def _route(path: str, handlers: Mapping[str, Handler]) -> Route:
    return Route(path, _ByMethod(handlers))
