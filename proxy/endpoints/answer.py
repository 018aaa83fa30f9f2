"""One answer on its way out: a hit, a live recording, an error; and what the metrics will say of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from decimal import Decimal
from typing import Self

from starlette.types import Send

from proxy.core.access import Grant
from proxy.core.asker import Asker
from proxy.core.bill import NOTHING
from proxy.core.books import UNDECIDED, Answered, cut
from proxy.core.call import Call
from proxy.core.dialect import Dialect
from proxy.core.echo import Echo, echoing_event
from proxy.core.recording import Broken, Head
from proxy.core.sse import PING
from proxy.core.status import forward_status, hit_status, passed_status, unanswered_status
from proxy.core.view import shown
from proxy.endpoints.client import PIECE, Header, Heartbeat, send_error, send_whole
from proxy.endpoints.desk import Desk
from proxy.endpoints.forms import (
    EVENT_STREAM,
    JSON,
    NO_PAGE,
    UNBUFFERED,
    is_open_stream,
    pieces_of,
    recording_template,
    target,
    token,
    worth,
)
from proxy.endpoints.intake import ClientLeftError
from proxy.endpoints.money import comment, list_money, live_money
from proxy.errors import InsufficientQuota, Overloaded, PenstockError, ShuttingDown, UpstreamError
from proxy.gathered import Listed
from proxy.interfaces import Visit
from proxy.pipeline import Hit, Live
from proxy.plans import Plan


def _unread() -> bool:
    return True


def _id_of(headers: Iterable[Header]) -> bytes | None:
    """What the provider calls its answer."""
    return next((value for name, value in headers if name == b"x-request-id"), None)


class Answer:
    """One answer on its way out, and what the metrics will say of it."""

    outcome = "refused"
    grant: Grant | None = None  # of whoever asks, once that is known
    _visit: Visit | None = None
    _status = 0
    _code: str | None = None  # of the error that is answered
    _plan: Plan | None = None
    _hit: Hit | None = None
    _live: Live | None = None
    _listed: Listed | None = None
    _first: float | None = None
    _token: float | None = None
    _overhead: float | None = None
    _credited = False  # what its answer would have cost is saved
    _known: tuple[Header, ...] = ()  # what an error says too
    _passed_to = ""
    _cost: Decimal | None = NOTHING  # where no flight knows it

    def __init__(self, endpoint: str, send: Send, desk: Desk) -> None:
        self._desk = desk
        self._ids = desk.ids
        self.id = desk.ids.request()
        self.unread: Callable[[], bool] = _unread  # is there something of the request's body yet to come?
        self._endpoint = endpoint
        self._send = send
        self._now: Callable[[], float] = desk.clock.monotonic
        self._began = self._now()
        self._at = desk.clock.wall()

    def admit(self, grant: Grant) -> Asker:
        """Count it against the limits of its key. Raises RateLimited."""
        self.grant = grant
        self._visit = self._desk.limiter.visit(grant)
        return Asker(self.id.decode(), self._endpoint, grant)

    def understood(self, plan: Plan) -> None:
        """What it comes to is known."""
        self._plan = plan

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        """What goes wrong within is answered, as long as nothing was sent; Penstock's own faults are raised on."""
        try:
            if isinstance(error, PenstockError):
                await self.refuse(error)
                return True
            if isinstance(error, ClientLeftError):
                self.left()
                return True
            if isinstance(error, Exception):
                await self._crash()
            elif error is not None and self._status == 0:  # we shut down, and the gate says so
                self._status, self._code, self.outcome = ShuttingDown.status, ShuttingDown.code, "refused"
            return False
        finally:
            self._leave()
            self._desk.told(self._row(), self.grant)

    def _leave(self) -> None:
        """Give the key's place back. An answer that is made to its end though nobody reads it keeps it until then."""
        visit, flight = self._visit, None if self._live is None else self._live.reader.flight
        if visit is None:
            return
        if flight is None or flight.readers or flight.task is None or flight.task.done():
            visit.leave()
        else:
            flight.task.add_done_callback(lambda _: visit.leave())

    def _row(self) -> Answered:
        """What is told of it."""
        plan, hit, live, listed = self._plan, self._hit, self._live, self._listed
        provider, model = self._passed_to, ""
        usage, saved, leader, routing = None, None, None, None
        decided = UNDECIDED
        cost = self._cost
        if listed is not None:
            provider, model, usage, leader = listed.provider, listed.model, listed.usage, listed.leader
            saved, cost, decided = listed.saved, listed.cost, UNDECIDED if live is None else live.decided
        elif hit is not None:
            provider, model = hit.entry.meta.provider, hit.name
            usage, saved = hit.entry.meta.usage, hit.saved
            if live is not None and not live.is_free:  # who was asked first failed
                cost = live.cost
        elif live is not None:
            flight = live.reader.flight
            served, paid = flight.served, flight.bill
            provider, model = ("", "") if served is None else (served.target.provider, served.name)
            usage, decided = None if paid is None else paid.usage, live.decided
            if live.is_free:
                leader = flight.asker.request
                saved = paid.usd if paid is not None and self._credited else None
            else:
                cost, routing = live.cost, None if paid is None else paid.routing
        return Answered(
            request=self.id.decode(),
            at=self._at,
            key="" if self.grant is None else self.grant.id,
            endpoint=self._endpoint,
            asked="" if plan is None else cut(plan.call.model),
            outcome=self.outcome,
            status=self._status,
            code=self._code,
            provider=provider,
            model=cut(model),
            usage=usage,
            saved=saved,
            first=self._first,
            total=self._now() - self._began,
            leader=leader,
            entry=None if plan is None else plan.key,
            cost=cost,
            token=self._token,
            overhead=self._overhead,
            routing=routing,
            again=None if listed is None else listed.again,
            route=decided.route,
            why=decided.why,
            passed_over=decided.passed_over,
            attempts=decided.attempts,
            shadow=None if live is None else live.plan.verdict.shadow,
        )

    @property
    def _echo(self) -> Echo | None:
        return None if self._plan is None else self._plan.echo

    def _new_id(self, dialect: Dialect) -> bytes | None:
        """For a reader that is not the first of its recording; JSON text. None: its id stays."""
        return b'"' + self._ids.answer(dialect.id_prefix) + b'"' if dialect.id_prefix else None

    def _first_byte(self) -> None:
        now = self._now()
        self._first, live = now - self._began, self._live
        if live is not None:  # also where a stale answer takes the place of a failure
            away = live.reader.flight.elsewhere
            self._overhead = (away.kept if live.collapsed else away.added)(live.since or self._began, now)
        elif self._hit is not None or self._listed is not None:
            self._overhead = self._first

    def _spoke(self, live: Live) -> None:
        """An event of a stream has been sent: was it the first that says something?"""
        said = live.reader.recording.first_token
        if self._token is None and said is not None and live.reader.position > said:
            self._token = self._now() - self._began

    async def refuse(self, error: PenstockError) -> None:
        self._status = error.status
        self._code = error.code or error.type
        if not isinstance(error, UpstreamError):
            self.outcome = "refused"
        if isinstance(error, Overloaded):
            self._desk.complaints.overloaded(error)
        if isinstance(error, InsufficientQuota) and self.grant is not None:
            self._desk.meter.refused("budget", self.grant.name)
        known = self._known if self._live is None else self._forwarded_headers(self._live)
        await send_error(self._send, error, [*known, *self._ours(None)], close=self.unread())

    def unanswered(self) -> None:
        """Nothing is stored, and nothing else was wanted."""
        self._known = ((b"cache-status", unanswered_status()),)

    def forwarded(self, live: Live) -> None:
        """The provider is asked, or was for somebody else."""
        alone = live.plan.key is None and not live.plan.pieces
        beside_the_cache = alone or live.plan.verdict.shadow is not None
        self.outcome = "collapsed" if live.collapsed else "bypass" if beside_the_cache else "miss"
        self._live = live

    def _forwarded_headers(self, live: Live, *, stored: bool = False) -> tuple[Header, ...]:
        status = (b"cache-status", self._forward_status(live, stored=stored))
        served = live.reader.flight.served
        return (status,) if served is None else (status, *target(served.target.provider, served.target.upstream))

    @property
    def given(self) -> Hit | Live | None:
        """Where what is answered comes from, once that is known."""
        return self._hit or self._live

    def broke(self, error: PenstockError) -> None:
        """It failed after its head was sent."""
        self.outcome = "broken"
        self._code = error.code

    async def _break_off(self, said: Iterable[Header], tail: bytes, error: PenstockError) -> None:
        """One error event where a whole one ended, then no clean end."""
        self.broke(error)
        if is_open_stream(said) and tail.endswith((b"\n\n", b"\r\r", b"\r\n\r\n")):
            await self._body(b"data: " + error.body() + b"\n\n")

    async def whole(self, status: int, headers: Iterable[Header], body: bytes) -> None:
        """What a provider says, put together here."""
        self._status = status
        said = list(headers)
        theirs = {name for name, _ in said}
        await send_whole(
            self._send, status, [*said, *(each for each in self._ours(None) if each[0] not in theirs)], body
        )

    def passed(self, provider: str) -> None:
        """The provider is asked what Penstock does not understand."""
        self.outcome = "bypass"
        self._passed_to, self._cost = provider, None
        self._known = ((b"cache-status", passed_status()), (b"x-penstock-provider", token(provider)), *NO_PAGE)

    async def pass_on(
        self, status: int, headers: Iterable[Header], pieces: AsyncIterator[bytes]
    ) -> UpstreamError | None:
        """What the provider sends, as it comes; left incomplete where it fails, which is returned."""
        said = list(headers)
        provider_id = _id_of(said)
        said = self._theirs(said)
        self._status = status
        await self._start(status, [*said, *self._known, *self._ours(provider_id)])
        self._first_byte()
        tail = b"\n\n"
        try:
            with self._streaming() if is_open_stream(said) else nullcontext():
                async for piece in pieces:
                    await self._body(piece)
                    tail = (tail + piece)[-4:]
        except UpstreamError as error:
            await self._break_off(said, tail, error)
            return error
        except asyncio.CancelledError:  # we shut down, or the client has left; then nothing is sent any more
            await self._break_off(
                said, tail, ShuttingDown("Penstock is shutting down and could not finish this answer.")
            )
            raise
        await self._body(b"", more=False)
        return None

    def left(self) -> None:
        """Nobody waits for it any more."""
        self.outcome = "left"
        self._status = self._status or 499  # as nginx has it

    async def _crash(self) -> None:
        """Penstock's own fault, which the server will log: an error as long as nothing was sent."""
        error = PenstockError("Penstock failed; its log says why.")
        if self._status == 0:
            await self.refuse(error)
        else:
            self.broke(error)

    async def hit(self, call: Call, hit: Hit) -> None:
        """All at once."""
        template = hit.entry.template(call.dialect, stream=call.stream, usage=call.wants_usage, echo=self._echo)
        headers = self._hit_headers(call, hit)
        self._first_byte()
        self._token = self._first if call.stream else None
        new_id = self._ids.answer(call.dialect.id_prefix)
        if len(hit.entry.body) <= PIECE // 2:  # in whatever form it is told, it is not much longer
            await send_whole(self._send, 200, headers, new_id.join(template))
            return
        size = sum(map(len, template)) + len(new_id) * (len(template) - 1)
        await self._send_pieces(headers, size, pieces_of(template, new_id))

    async def _send_pieces(self, headers: list[Header], size: int, pieces: Iterable[bytes]) -> None:
        """A large body, of which no more is copied than this client takes."""
        await self._start(200, [*headers, (b"content-length", b"%d" % size)])
        for piece in pieces:
            await self._body(piece)
        await self._body(b"", more=False)

    async def replay(self, call: Call, hit: Hit) -> None:
        """At the pace at which it first came."""
        dialect, usage = call.dialect, call.wants_usage
        frames = hit.entry.frames(dialect, usage=usage, new_id=self._new_id(dialect), echo=self._echo)
        times = hit.entry.times
        await self._start(200, self._hit_headers(call, hit))
        began = self._now()
        with self._streaming():
            for index, frame in enumerate(frames):
                due = began + times[min(index, len(times) - 1)]
                await asyncio.sleep(max(0.0, due - self._now()))
                if index == 0:
                    self._first_byte()
                    self._overhead, self._token = None, self._first  # as it was recorded: nobody's fault
                await self._body(frame)
        await self._body(b"", more=False)

    def _hit_headers(self, call: Call, hit: Hit) -> list[Header]:
        self._hit = hit
        self.outcome = "stale" if hit.stale else "hit"
        self._status = 200
        freshness = hit.freshness
        return [
            *worth(hit),
            *((EVENT_STREAM, UNBUFFERED) if call.stream else (JSON,)),
            (b"cache-status", hit_status(freshness.left, stale=hit.stale)),
            (b"age", b"%d" % freshness.age),
            *self._ours(None),
        ]

    async def listed(self, listed: Listed, body: bytes) -> None:
        """A list that was put together here."""
        self._listed, self._status, self.outcome = listed, 200, listed.outcome
        freshness, known, live = listed.freshness, listed.outcome in ("hit", "stale"), self._live
        if known or live is None:
            status = hit_status(freshness.left, stale=listed.outcome == "stale")
        else:
            status = forward_status(
                live.plan.verdict,
                found_stale=listed.found_stale,
                collapsed=not listed.asked,
                stored=listed.stored,
                partial=listed.partial,
            )
        head = None if live is None or not listed.asked else live.reader.recording.head
        provider_id = None if head is None else _id_of(head.headers)
        self._first_byte()
        headers = [
            *list_money(listed),
            *target(listed.provider, listed.upstream),
            JSON,
            (b"cache-status", status),
            *(((b"age", b"%d" % freshness.age),) if known else ()),
            *self._ours(provider_id),
            *(self._theirs(head.headers) if head is not None else ()),
        ]
        await send_whole(self._send, 200, headers, body)

    def _ours(self, provider_id: bytes | None) -> list[Header]:
        ids = [(b"x-penstock-request-id", self.id), (b"x-request-id", provider_id or self.id)]
        return ids if self.grant is None else [*ids, *self._desk.limiter.standing(self.grant)]

    def _theirs(self, headers: Iterable[Header]) -> list[Header]:
        """Of the provider's headers those that say what we do not: its id is among ours, and a key's limits are its."""
        limited = self.grant is not None and self._desk.limiter.standing(self.grant) != ()
        return [
            header
            for header in headers
            if header[0] != b"x-request-id" and not (limited and header[0].startswith(b"x-ratelimit-"))
        ]

    async def live(self, call: Call, live: Live, head: Head) -> None:
        """What a recording holds and will hold, as this reader is to see it."""
        # The leader gets what the provider sent, as it sent it, even if it asked for the other form.
        wants_stream = call.stream if live.collapsed and head.status == 200 else head.kind == "stream"
        if wants_stream and head.kind == "stream":
            await self._stream(call, live, head)
            return
        end = await live.reader.ended()
        if isinstance(end, Broken):
            raise end.error
        if end is None:
            await self._oversized(live, head)
            return
        recording = live.reader.recording
        media = (b"content-type", head.content_type)
        if not live.collapsed or head.status != 200 or not recording.convertible:
            body = b"".join(event.raw for event in recording.events)
        else:
            template = recording_template(
                call.dialect, recording, head, stream=wants_stream, usage=call.wants_usage, echo=self._echo
            )
            body = self._ids.answer(call.dialect.id_prefix).join(template)
            media = EVENT_STREAM if wants_stream else JSON
        self._first_byte()
        self._token = self._first if media is EVENT_STREAM else None
        headers = [media, *self._live_headers(live, head, keeps=live.reader.flight.kept), *live_money(live)]
        await send_whole(self._send, head.status, headers, body)
        self._credit(live)

    def _credit(self, live: Live) -> None:
        """A joiner has had its whole answer: what it would have cost is saved."""
        flight = live.reader.flight
        if self.outcome != "broken" and live.is_free and flight.bill is not None and flight.served is not None:
            self._credited = True

    async def _stream(self, call: Call, live: Live, head: Head) -> None:
        reader, recording = live.reader, live.reader.recording
        new_id = self._new_id(call.dialect) if live.collapsed else None
        strip = head.usage_asked and not call.wants_usage
        echo = self._echo if live.collapsed else None
        keeps = live.plan.key is not None and reader.flight.ttl > 0  # if it turns out whole
        headers = self._live_headers(live, head, keeps=keeps)
        await self._start(200, [(b"content-type", head.content_type), UNBUFFERED, *headers])
        self._first_byte()
        with self._streaming(), Heartbeat(live.reader):
            while True:
                events = await reader.more()
                if echo:
                    events = [echoing_event(event, echo) for event in events]
                body = b"".join([shown(event, strip_usage=strip, new_id=new_id) for event in events])
                if recording.end is not None and reader.position == recording.length:
                    break
                if body or not events:
                    await self._send({"type": "http.response.body", "body": body or PING, "more_body": True})
                    self._spoke(live)
            await self._close(live, body)
            self._spoke(live)

    @contextmanager
    def _streaming(self) -> Iterator[None]:
        self._desk.meter.streams += 1
        try:
            yield
        finally:
            self._desk.meter.streams -= 1

    async def _close(self, live: Live, last: bytes) -> None:
        """The last events. After a failure: one error event, then no clean end, which is what makes a client raise."""
        recording = live.reader.recording
        if isinstance(recording.end, Broken):
            frame = b"" if recording.end.told else live.plan.call.dialect.failure(recording.end.error)
            self.broke(recording.end.error)
            await self._body(last + frame)
        else:
            tail = comment(live) if self._desk.cost_comment else b""
            await self._body(last + tail, more=False)
            self._credit(live)

    async def _oversized(self, live: Live, head: Head) -> None:
        """A body too large to be kept: passed on as it comes."""
        recording = live.reader.recording
        headers = self._live_headers(live, head, keeps=False)
        await self._start(head.status, [(b"content-type", head.content_type), *headers])
        self._first_byte()
        while recording.end is None or live.reader.position < recording.length:
            await self._body(b"".join(event.raw for event in await live.reader.more()))
        if isinstance(recording.end, Broken):
            self.broke(recording.end.error)
        else:
            await self._body(b"", more=False)

    def _live_headers(self, live: Live, head: Head, *, keeps: bool) -> list[Header]:
        self._status = head.status
        provider_id = _id_of(head.headers)
        return [
            *self._forwarded_headers(live, stored=keeps),
            *self._ours(provider_id),
            *self._theirs(head.headers),
            *(() if head.status == 200 else NO_PAGE),
        ]

    @staticmethod
    def _forward_status(live: Live, *, stored: bool) -> bytes:
        found_stale = live.found is not None
        return forward_status(live.plan.verdict, found_stale=found_stale, collapsed=live.collapsed, stored=stored)

    async def _start(self, status: int, headers: Iterable[Header]) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def _body(self, body: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
