"""Drives a provider's answer into a recording: events as they come, its clock, and how it ended.

The timers are our own, since a read timeout never fires while single bytes dribble in.
"""

import asyncio
import json
import math
from collections.abc import Callable
from types import TracebackType
from typing import Self

import msgspec

from proxy.core.call import Call
from proxy.core.recording import Broken, Clean, Ending, Head, Recording, is_sendable, passed_headers
from proxy.core.sse import Decoder, Event
from proxy.errors import (
    PenstockError,
    UpstreamAuthError,
    UpstreamBadContentType,
    UpstreamError,
    UpstreamFailed,
    UpstreamStall,
    UpstreamTruncated,
    late_answer,
)
from proxy.flights import Flight
from proxy.interfaces import Provider, Reply

# A provider may hold the connection open after `[DONE]`; an answer that said so is not kept waiting for longer.
GRACE_AFTER_DONE = 5.0
AT_ONCE = 1 << 20  # bytes of JSON that are read on the loop: some milliseconds


class Watchdog:
    """Cancels the task around it after `silence` seconds in which `heard` did not move, and at `limit` in any case.

    Times are loop times. To say that something was heard costs an assignment, however often it is done: the timer finds
    out when it fires.
    """

    __slots__ = ("_handle", "_loop", "_silence", "_task", "expired", "heard", "limit")

    def __init__(self, heard: float, *, silence: float, limit: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._silence = silence
        self.heard = heard
        self.limit = limit
        self.expired = False
        self._handle = self._loop.call_at(self._due(), self._fire)

    def _due(self) -> float:
        return min(self.heard + self._silence, self.limit)

    def _fire(self) -> None:
        if self._loop.time() < self._due():
            self._handle = self._loop.call_at(self._due(), self._fire)
        elif self._task is not None:
            self.expired = True
            self._task.cancel()

    def allow(self, silence: float, *, since: float) -> None:
        """From `since` on, so much silence."""
        self.heard = since
        self._silence = silence
        self._handle.cancel()
        self._handle = self._loop.call_at(self._due(), self._fire)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> bool:
        """Swallow the cancellation that is ours, as asyncio.timeout does; `expired` says that it was."""
        self._handle.cancel()
        ours = self.expired and self._task is not None and self._task.uncancel() == 0
        return ours and kind is asyncio.CancelledError


class Recorder:
    """Records one call at one provider into one flight. `began` is loop time, the zero of all offsets."""

    def __init__(self, flight: Flight, call: Call, provider: Provider) -> None:
        self.flight = flight
        self.call = call
        self.provider = provider
        self.progress = call.dialect.progress(call.choices)
        self._now: Callable[[], float] = asyncio.get_running_loop().time
        self._began = self._now()
        self._done_at = 0.0
        self._held: Event | None = None  # `[DONE]`, until HTTP has ended cleanly behind it

    async def record(self, reply: Reply) -> Ending:
        """Read the reply to its end. Returns how it ended, and leaves telling the flight so to the caller."""
        try:
            head = head_of(reply, self.provider)
        except UpstreamError as error:
            return Broken(error)
        streamed = head.kind == "stream"
        silence = self.provider.first_event_timeout if streamed else math.inf
        end: Ending | None = None
        with Watchdog(self._began, silence=silence, limit=self._began + self.provider.total_timeout) as watchdog:
            try:
                end = await (self._stream(reply, head, watchdog) if streamed else self._body(reply, head))
            except UpstreamError as error:
                end = Broken(error)
        self.flight.recording.has_usage = self.progress.has_usage
        # Not where its other form would say nothing, though something came.
        lost = bool(self.progress.substance) and self.progress.flaw() == "empty"
        self.flight.recording.convertible = self.progress.finished and not self.progress.malformed and not lost
        if watchdog.expired:
            return self._timed_out()
        return end if end is not None else Broken(PenstockError("Penstock failed while it read this answer."))

    async def _body(self, reply: Reply, head: Head) -> Ending:
        """A JSON answer, or an error's body, piece by piece."""
        recording = self.flight.recording
        last = b""
        while piece := await reply.read():
            if recording.head is None:  # not before: a head of which no body comes is no answer yet
                self.flight.begin(head)
            if head.status >= 400:
                piece = self.provider.scrub(piece)
            last = piece.rstrip()[-1:] or last
            self.flight.append(Event(piece, None, None), self._now() - self._began)
            self.flight.wake()
            await self.flight.room()
        if head.status == 200 and recording.oversized:
            if last not in b"}]":  # all that is left to look at
                return Broken(UpstreamTruncated("The provider's answer is not whole: its JSON does not end."))
        elif head.status == 200:
            body = b"".join(event.raw for event in recording.events)
            await self._take_body(body)
            # An error that calls itself an answer may quote the key; so may one that cannot be read.
            wrong = self.progress.error is not None or self.progress.malformed
            if wrong and (scrubbed := self.provider.scrub(body)) != body:
                recording.rewrite(scrubbed)
            if self.progress.malformed and not self.progress.begun and is_cut(recording):
                return Broken(UpstreamTruncated("The provider's answer is not whole: its JSON cannot be read."))
        if recording.head is None:
            self.flight.begin(head)
        return Clean()

    async def _take_body(self, body: bytes) -> None:
        if len(body) <= AT_ONCE:
            self.progress.take(body)
        else:
            await asyncio.to_thread(self.progress.take, body)

    async def _stream(self, reply: Reply, head: Head, watchdog: Watchdog) -> Ending:
        """A stream, event by event. Before its first event only comments are signs of life, then every byte is."""
        decoder = Decoder(max(self.provider.max_event, self.call.dialect.least_event))
        recording = self.flight.recording
        begun, comments = False, 0
        while piece := await reply.read():
            events = decoder.feed(piece)
            now = self._now()
            if events and (error := self._take(head, events, now)) is not None:
                return error
            if self._held is not None:
                watchdog.allow(GRACE_AFTER_DONE, since=self._done_at)
            elif begun:
                watchdog.heard = now
            elif recording.length:
                begun = True
                watchdog.allow(self.provider.idle_timeout, since=now)
            elif decoder.comments > comments:
                comments = decoder.comments
                watchdog.heard = now
            if recording.oversized:
                # A slow reader holds an oversized answer back; that is no silence of the provider.
                watchdog.allow(math.inf, since=now)
                await self.flight.room()
                watchdog.allow(self.provider.idle_timeout, since=self._now())
        last = decoder.close()
        error = self._take(head, [last], self._now()) if last is not None else None
        return error or self._ended(head)

    def _take(self, head: Head, events: list[Event], now: float) -> Broken | None:
        """Log what came in one piece, and wake the readers once."""
        flight, progress, at = self.flight, self.progress, now - self._began
        before = flight.recording.length
        for event in events:
            data = event.data
            if data is not None and (data[:1] == b"{" or data.strip() != b"[DONE]"):
                progress.take(data)
                if progress.error is not None:
                    return self._provider_error(event, at)
                if flight.recording.first_token is None and progress.substance:
                    flight.recording.first_token = flight.recording.length
            elif data is not None:
                self._held = event
                self._done_at = now
                progress.done = True
                continue
            if self._held is not None:  # more came after `[DONE]`: it was not the last word
                flight.append(self._held, at)
                self._held = None
            if flight.recording.head is None:
                flight.begin(head)
            flight.append(event, at)
        if flight.recording.length > before:  # a reader that is woken for nothing takes it for silence, and pings
            flight.wake()
        return None

    def _provider_error(self, event: Event, at: float) -> Broken:
        """The provider's own error event: before anything else it is an answer with a status, later the last event."""
        said = self.progress.error
        code = said.get("code") if isinstance(said, dict) else None
        if self.provider.owns_key and code in (401, 403, "401", "403", "invalid_api_key"):
            return Broken(UpstreamAuthError(self.provider.name))
        event = event._replace(raw=self.provider.scrub(event.raw))
        error = UpstreamFailed(msgspec.json.decode(self.provider.scrub(msgspec.json.encode(said))))
        if self.flight.recording.length == 0:
            return Broken(error)
        self.flight.append(event, at)
        return Broken(error, told=True)

    def _ended(self, head: Head) -> Ending:
        """HTTP ended cleanly. Was that all?"""
        nothing = self.flight.recording.length == 0
        if self.progress.truncated or (nothing and not self.progress.done):
            return Broken(UpstreamTruncated("The provider's stream ended before the answer was whole."))
        self._release(head)
        return Clean()

    def _release(self, head: Head) -> None:
        if self._held is not None:
            if self.flight.recording.head is None:
                self.flight.begin(head)
            self.flight.append(self._held, self._done_at - self._began)
            self._held = None

    def _timed_out(self) -> Ending:
        recording = self.flight.recording
        if recording.head is not None and self._held is not None:
            # The answer is complete but for the end of HTTP. Its readers get it; it is not whole, so it is not kept.
            self.progress.malformed = True
            self._release(recording.head)
            return Clean()
        provider = self.provider
        streamed = recording.head is not None and recording.head.kind == "stream"
        if self._now() >= self._began + provider.total_timeout:
            if streamed and recording.length:
                took = f"took longer than {provider.total_timeout:g} seconds (total_timeout)"
                return Broken(UpstreamStall(f"The provider's answer {took}."))
            return Broken(late_answer(provider.total_timeout))
        if recording.length:
            silent = f"was silent for {provider.idle_timeout:g} seconds in the middle of its answer (idle_timeout)"
            return Broken(UpstreamStall(f"The provider {silent}."))
        return Broken(late_answer(provider.first_event_timeout))


def is_cut(recording: Recording) -> bool:
    """Is this body no JSON in anybody's eyes? What only we refuse (NaN, lone surrogates, a BOM) is passed on."""
    try:
        json.loads(b"".join(event.raw for event in recording.events))
    except (ValueError, RecursionError) as error:
        return not isinstance(error, RecursionError)
    return False


def head_of(reply: Reply, provider: Provider) -> Head:
    """The head that readers see. Raises UpstreamError where this is no answer."""
    status, headers = reply.status, reply.headers
    if status in (401, 403) and provider.owns_key:
        raise UpstreamAuthError(provider.name)
    if not 200 <= status < 600:
        raise UpstreamBadContentType(f"The provider answered with status {status}, which is none.")
    if 300 <= status < 400:
        raise UpstreamBadContentType(f"The provider answered with a redirect (status {status}), which is not followed.")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise UpstreamBadContentType("The provider answered in an encoding that it was not asked for.", answered=True)
    content_type = headers.get("content-type", "application/json")
    media = content_type.partition(";")[0].strip().lower()
    if status == 200 and media != "text/event-stream" and not media.endswith(("/json", "+json")):
        said = f"The provider answered with {media!r} instead of JSON or a stream of events."
        raise UpstreamBadContentType(said, answered=media not in ("text/html", ""))  # a page is no answer
    if not is_sendable(content_type):
        raise UpstreamBadContentType("The provider's content type holds what no header may.")
    streamed = status == 200 and media == "text/event-stream"
    return Head(
        status=status,
        kind="stream" if streamed else "json",
        content_type=content_type.encode("latin-1"),
        usage_asked=reply.usage_asked,
        headers=passed_headers(headers),
    )
