"""Answers of one piece, sent at once: what is asked of the simulator apart from its models."""

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from proxy.simulator.errors import ApiError


async def reply(value: object, scope: Scope, receive: Receive, send: Send) -> None:
    """The value as JSON."""
    response = Response(msgspec.json.encode(value), media_type="application/json")
    await response(scope, receive, send)


async def refuse(error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
    """The error in OpenAI's shape."""
    response = Response(error.body(), error.status, dict(error.headers), "application/json")
    await response(scope, receive, send)
