"""What of a finished flight goes into the store, and under which keys: its recording, or each part of it.

Rule: what is kept is what the provider would have answered to that request alone, and only as long as all who asked for
it allow.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import msgspec

from proxy.core import keep
from proxy.core.bill import said_usage
from proxy.core.embeddings import form_of, parts_of, usage_of_part
from proxy.core.entry import Entry, Meta, make_entry
from proxy.core.recording import Clean, Ending, Head
from proxy.core.routing import Option
from proxy.core.sse import Event
from proxy.flights import Flight
from proxy.interfaces import Clock, Epoch, Meter, Store
from proxy.plans import Plan, Plans
from proxy.producer import Job
from proxy.recorder import Recorder
from proxy.router import Router

AT_ONCE = 512 * 1024  # bytes of a list that are taken apart on the loop: two milliseconds or so


class Storing:
    """Between the end of an answer and its being found there is no moment at which it is neither."""

    def __init__(self, plans: Plans, store: Store, epoch: Epoch, meter: Meter, clock: Clock, router: Router) -> None:
        self._plans = plans
        self._store = store
        self._epoch = epoch
        self._meter = meter
        self._clock = clock
        self._router = router

    async def divide(self, job: Job, plan: Plan, end: Ending, epoch: int) -> None:
        """Before a list's flight is over: what it comes to for each of its keys. Nothing where it is not whole."""
        flight, recorder, option = job.flight, job.recorder, job.flight.served
        head, recording = flight.recording.head, flight.recording
        if not plan.pieces or not isinstance(end, Clean) or recorder is None or option is None or head is None:
            return
        if head.status != 200 or recording.oversized or recorder.progress.flaw() is not None:
            return
        counted = await self._router.weigh([plan.pieces[place].input for place in plan.places], option)
        body = b"".join(event.raw for event in recording.events)
        if len(body) <= AT_ONCE:
            parts = parts_of(body, counted)
        else:
            parts = await asyncio.to_thread(parts_of, body, counted)
        plain, at = self._meta(plan, flight, recorder, head, option, epoch), recording.times[-1:]
        form = form_of(plan.call.body)
        entries = {}
        for place, part in zip(plan.places, parts or (), strict=parts is not None):
            key, usage = plan.pieces[place].key, said_usage(usage_of_part(part))
            meta = msgspec.structs.replace(plain, key=key, form=form, usage=usage)
            entries[key] = make_entry(meta, [Event(part, None, None)], at)
        flight.entries = entries

    def keep(self, job: Job, plan: Plan, epoch: int) -> None:
        """Once it is over, at once."""
        flight, recorder, option = job.flight, job.recorder, job.flight.served
        if flight.ttl <= 0 or flight.outrun.issuperset(plan.keys) or recorder is None or option is None:
            return
        reason = keep.flaw(flight.recording, recorder.progress, plan.call)
        head = flight.recording.head
        if reason is None and head is not None:
            entries = flight.entries
            if plan.key is not None:
                entries = self._whole(plan, plan.key, self._meta(plan, flight, recorder, head, option, epoch), flight)
            reason = self._put(flight, entries)
        self._meter.stored(reason or "stored")

    def _whole(self, plan: Plan, key: bytes, meta: Meta, flight: Flight) -> Mapping[bytes, Entry]:
        if plan.reports_usage != self._plans.reports_usage(plan.choice):
            key = self._plans.key(plan.call, plan.choice)  # this very call found out; later ones have the new key
        meta = msgspec.structs.replace(meta, key=key)
        return {key: make_entry(meta, flight.recording.events, flight.recording.times)}

    def _meta(self, plan: Plan, flight: Flight, recorder: Recorder, head: Head, option: Option, epoch: int) -> Meta:
        return Meta(
            key=b"",
            kind=head.kind,
            provider=option.target.provider,
            model=option.target.upstream,
            ended=self._clock.wall(),
            ttl=flight.ttl,
            epoch=epoch,
            usage_asked=head.usage_asked,
            has_usage=flight.recording.has_usage,
            usage=flight.bill.usage if flight.bill is not None else None,
            service=recorder.progress.service,
            owner=plan.call.owner,
        )

    def _put(self, flight: Flight, entries: Mapping[bytes, Entry]) -> str | None:
        """Why they are not kept, all or one of them."""
        reason, landed = None if entries else "malformed", False
        for key, entry in entries.items():
            if key in flight.outrun:
                continue
            if not self._epoch.admits(entry.meta):
                reason = "purged"
                continue
            kept, ttl = entry, flight.ttl_of(key)
            if ttl <= 0:
                continue
            if entry.meta.ttl != ttl:  # who joined since then wants it to be kept for less
                kept = replace(entry, meta=msgspec.structs.replace(entry.meta, ttl=ttl))
            landed = True
            self._store.put(key, kept, expire=ttl + self._plans.terms.stale_if_error)
        if landed:
            flight.land()
        return reason if landed else reason or "ttl"
