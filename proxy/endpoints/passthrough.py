"""What else there is under `/v1/`: passed to the default provider as it came, and back, in constant memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self

from starlette.types import Receive, Scope, Send

from proxy.core.access import NOBODY, Grant, check_passthrough, digest
from proxy.core.asker import Asker
from proxy.core.call import Headers, header_map
from proxy.core.passage import PREFIX, Passage, deleted_response, read_passage, returned_headers
from proxy.endpoints.answer import Answer
from proxy.endpoints.calling import Called, calling
from proxy.endpoints.client import Attendance
from proxy.endpoints.desk import Desk
from proxy.endpoints.intake import ClientLeftError, Door, late_body
from proxy.errors import (
    MethodNotAllowed,
    NotFound,
    NoWebSocket,
    PenstockError,
    UpstreamAuthError,
    UpstreamBadContentType,
    UpstreamError,
    UpstreamReset,
    UpstreamStall,
    late_answer,
)
from proxy.interfaces import Provider, Reply

OnDeleted = Callable[[str], Awaitable[None]]

NEVER = frozenset({"CONNECT", "TRACE"})  # one reaches another host, the other tells what the provider was sent


class Upload:
    """A request's body on its way through, piece by piece, and the task that sends it.

    `over` is set once nobody takes more of it, `whole` if that was its end. The client may be silent for `silence`
    seconds, and the provider may take as long as `patience` for a piece; after that, or once the client has gone, the
    task around is cancelled, and raises `failure`.
    """

    def __init__(self, receive: Receive, *, silence: float, patience: float) -> None:
        self.over = asyncio.Event()
        self.whole = False
        self.failure: PenstockError | ClientLeftError | None = None
        self._receive = receive
        self._silence = silence
        self._patience = patience
        self._begun = False
        self._task: asyncio.Task[Any] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        task, self._task = self._task, None
        if self.failure is None or kind is None:
            return
        if kind is asyncio.CancelledError and task is not None and task.uncancel() > 0:
            return  # somebody else's too
        raise self.failure from None

    def give_up(self, failure: PenstockError | ClientLeftError) -> None:
        """End the task that sends."""
        if self.failure is None and self._task is not None:
            self.failure = failure
            self._task.cancel()

    def __aiter__(self) -> AsyncIterator[bytes]:
        if self._begun:  # what has been sent is held by nobody
            raise UpstreamReset("The connection to the provider was lost in the middle of the request.")
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        self._begun = True
        loop = asyncio.get_running_loop()
        late = late_answer(self._patience)
        try:
            more = True
            while more:
                message = await self._next()
                more = message.get("more_body", False)
                if body := message.get("body"):
                    stuck = loop.call_later(self._patience, self.give_up, late)
                    try:
                        yield body
                    finally:
                        stuck.cancel()
            self.whole = True
        finally:
            self.over.set()

    async def _next(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._silence):
                message = await self._receive()
        except TimeoutError:
            self.failure = late_body(self._silence)
            raise self.failure from None
        if message["type"] == "http.disconnect":
            self.failure = ClientLeftError()
            raise self.failure
        return dict(message)


class Passthrough:
    """An ASGI endpoint."""

    endpoint = "passthrough"

    def __init__(
        self, provider: Provider, door: Door, forward: tuple[bytes, ...], desk: Desk, on_deleted: OnDeleted
    ) -> None:
        """`on_deleted`: told the name of a stored Response that the provider has deleted."""
        self._on_deleted = on_deleted
        self._provider = provider
        self._door = door
        self._forward = forward
        self._desk = desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with Answer(self.endpoint, send, self._desk) as answer:
            headers = header_map(scope["headers"])
            grant = answer.grant = self._door.enter(headers)
            passage = self._passage(scope, headers, grant)
            asker = answer.admit(grant)
            upload = Upload(receive, silence=self._door.body_timeout, patience=self._provider.idle_timeout)
            if not passage.has_body:
                upload.whole = True
                upload.over.set()
            answer.unread = lambda: not upload.whole
            answer.passed(self._provider.name)
            when_lost = scope.get("extensions", {}).get("penstock.when_lost")
            if when_lost is not None:
                when_lost["call"](lambda: upload.give_up(ClientLeftError()))
            with self._door.load.reading():
                async with upload, Attendance(receive, after=upload.over) as client:
                    await self._pass(passage, upload, asker, answer)
            if client.left:
                raise ClientLeftError

    def _passage(self, scope: Scope, headers: Headers, grant: Grant) -> Passage:
        """Raises NoWebSocket, MethodNotAllowed, NotFound, InvalidRequest or Forbidden."""
        if scope["method"] in NEVER:
            raise MethodNotAllowed(f"{scope['method']} is not passed through.")
        if headers.get(b"upgrade", b"").lower() == b"websocket":
            raise NoWebSocket("WebSockets are not passed through; connect to the provider itself.")
        raw_path: bytes = scope["raw_path"]
        if not raw_path.startswith(PREFIX + b"/"):
            raise NotFound("There is no such path here. An SDK's base_url ends in /v1.")
        if self._provider.owns_key or grant is not NOBODY:
            check_passthrough(raw_path.removeprefix(PREFIX + b"/"), grant)
        return read_passage(scope["method"], raw_path, scope["query_string"], headers, self._forward)

    async def _pass(self, passage: Passage, upload: Upload, asker: Asker, answer: Answer) -> None:
        async with calling(self._desk, asker, self._provider, account=self._account(passage)) as called:
            try:
                reply = await self._provider.relay(passage, upload if passage.has_body else None)
            except UpstreamError:
                if upload.failure is not None:  # the provider's connection was given up since the client's was
                    raise upload.failure from None
                raise
            try:
                name = deleted_response(passage)
                if name is not None and 200 <= reply.status < 300:
                    await self._on_deleted(name)
                await self._return(reply, upload, answer, called)
            finally:
                reply.close()

    def _account(self, passage: Passage) -> str:
        """Whose is used at the provider; "": the operator's."""
        if not self._provider.client_pays:
            return ""
        return digest(repr((passage.credentials, passage.account)).encode()).hex()

    async def _return(self, reply: Reply, upload: Upload, answer: Answer, called: Called) -> None:
        """Pass the answer on. Raises UpstreamError before anything was sent."""
        called.status = reply.status
        if not 200 <= reply.status < 600:
            raise UpstreamBadContentType(f"The provider answered with status {reply.status}, which is none.")
        headers = returned_headers(reply.headers)
        scrubbed = self._provider.owns_key and reply.status >= 400
        if scrubbed:
            if reply.status in (401, 403):
                raise UpstreamAuthError(self._provider.name)
            if b"content-encoding" in dict(headers):
                raise UpstreamBadContentType("The provider's error came in an encoding that was not asked for.")
        if scrubbed or reply.status in (204, 304):  # another length than that of what is sent
            headers = tuple(header for header in headers if header[0] != b"content-length")
        if not upload.whole:  # the client may still send what nobody waits for
            headers += ((b"connection", b"close"),)
        called.error = await answer.pass_on(reply.status, headers, self._pieces(reply, scrubbed=scrubbed))

    async def _pieces(self, reply: Reply, *, scrubbed: bool) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises UpstreamError."""
        streamed = reply.headers.get("content-type", "").lower().startswith("text/event-stream")
        silence = self._provider.idle_timeout if streamed else self._provider.total_timeout
        while True:
            try:
                async with asyncio.timeout(silence):
                    piece = await reply.read()
            except TimeoutError:
                raise UpstreamStall(f"The provider was silent for {silence:g} seconds in its answer.") from None
            if not piece:
                return
            yield self._provider.scrub(piece) if scrubbed else piece
