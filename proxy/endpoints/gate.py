"""The outermost ASGI callable: counts what is open, and lets nobody new in while Penstock shuts down."""

import asyncio
from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from proxy.endpoints.client import send_error
from proxy.errors import ShuttingDown

WHILE_DRAINING = frozenset({"/livez", "/readyz", "/metrics"})


class Gate:
    """Pure ASGI middleware.

    `direct` are the endpoints that answer POST at an exact path, and every error of their own: each event that they
    send is spared the three callables which Starlette's middleware would put in its way.
    """

    def __init__(self, app: ASGIApp, direct: Mapping[str, ASGIApp]) -> None:
        self._app = app
        self._direct = direct
        self.open = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] in WHILE_DRAINING:
            await self._app(scope, receive, send)  # not counted: whoever scrapes would always find himself
            return
        if self.draining:
            error = ShuttingDown("This proxy is shutting down.", retry_after=1)
            await send_error(send, error, [(b"connection", b"close")])
            return
        self.open += 1
        self._idle.clear()
        try:
            app = self._direct.get(scope["path"], self._app) if scope["method"] == "POST" else self._app
            await app(scope, receive, send)
        finally:
            self.open -= 1
            if self.open == 0:
                self._idle.set()

    async def drain(self, seconds: float) -> bool:
        """Refuse what is new, wait for what is open. False if something was still open after `seconds`."""
        self.draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True
