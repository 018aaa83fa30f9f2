"""The outermost ASGI callable: counts what is open, and lets nobody new in while Penstock shuts down."""

import asyncio
from collections.abc import Awaitable, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proxy.endpoints.client import send_error
from proxy.errors import ShuttingDown

WHILE_DRAINING = frozenset({"/livez", "/readyz", "/metrics"})


class _Open:
    """A request that is open: the task that answers it, and whether its answer has begun."""

    __slots__ = ("_send", "_task", "ended", "started")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._task = asyncio.current_task()
        self.started = False
        self.ended = False

    def send(self, message: Message) -> Awaitable[None]:
        self.started = True  # not a coroutine of its own: this is in the way of every event
        return self._send(message)

    def end(self) -> None:
        if self._task is not None and not self.ended:
            self.ended = True
            self._task.cancel()

    def is_our_end(self) -> bool:
        """Is the cancellation that has just arrived ours, and no other's? It is taken back then."""
        return self.ended and self._task is not None and self._task.uncancel() == 0


class Gate:
    """Pure ASGI middleware.

    `direct` are the endpoints that answer POST at an exact path, and every error of their own: each event that they
    send is spared the three callables which Starlette's middleware would put in its way.
    """

    def __init__(self, app: ASGIApp, direct: Mapping[str, ASGIApp]) -> None:
        self._app = app
        self._direct = direct
        self._all: set[_Open] = set()
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
            await _refuse(send)
            return
        one = _Open(send)
        self._all.add(one)
        self._idle.clear()
        try:
            app = self._direct.get(scope["path"], self._app) if scope["method"] == "POST" else self._app
            await app(scope, receive, one.send)
        except asyncio.CancelledError:
            if not one.is_our_end():
                raise
            if not one.started:
                await _refuse(send)
        finally:
            self._all.remove(one)
            if not self._all:
                self._idle.set()

    @property
    def open(self) -> int:
        """How many requests are being answered."""
        return len(self._all)

    def end(self) -> None:
        """Cancel what is open: an answer that has not begun is a refusal, one that has is left incomplete."""
        for one in self._all:
            one.end()

    async def drain(self, seconds: float) -> bool:
        """Refuse what is new, wait for what is open. False if something was still open after `seconds`.

        Whoever asks a second time has already ended what it could: what is open then is ended here.
        """
        again, self.draining = self.draining, True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            if again:
                self.end()
            return False
        return True


async def _refuse(send: Send) -> None:
    error = ShuttingDown("This proxy is shutting down.", retry_after=1)
    await send_error(send, error, close=True)
