"""What each attempt cost: written down before it is made and after it, and told to all who reckon with it: its flight,
the metrics, the ledger, and what was set aside for it.

At once where the provider said its usage. Where it did not, or its answer was cut, what came is counted behind the
answer, in a thread, and marked as estimated.
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import assert_never

import msgspec

from pricing.cost import Usage
from proxy.claims import Claim
from proxy.core.asker import Asker
from proxy.core.bill import NOTHING, Bill, Charge, bill, bounded, charge_of, larger, said_usage, worth
from proxy.core.books import Attempted, Intent, cut
from proxy.core.call import Call
from proxy.core.entry import Entry
from proxy.core.ranking import Estimate
from proxy.core.recording import Broken, Clean, Ending, Recording
from proxy.core.routing import Choice, Option
from proxy.core.status import result_of
from proxy.errors import LedgerUnavailable
from proxy.flights import Flight
from proxy.interfaces import Clock, Ledger, Meter, Ticket
from proxy.recorder import Recorder
from proxy.router import Router

ABANDONED = "abandoned"
WOULD_SAVE = {"hit": "cache", "collapsed": "collapse"}  # what would have come of a request, and the cause of its saving


@dataclass(slots=True)
class Attempt:
    """One attempt, until it is settled. `at`: seconds since the epoch, `began`: by the monotonic clock; `taken`:
    when the breaker let it through.

    `intended`: the ledger knows of it; `sent`: bytes of it may have gone out. `status`: of the answer, once one
    came; `error`: what it failed with; `ended`: as a label. `passed_over`: another attempt is made after it.
    """

    call: Call
    choice: Choice
    flight: Flight
    asker: Asker
    number: int
    found: Estimate
    claim: Claim
    ticket: Ticket
    recorder: Recorder
    at: float
    began: float
    taken: float
    intended: bool = False
    sent: bool = False
    status: int | None = None
    end: Ending | None = None
    ended: str = ABANDONED
    passed_over: bool = False
    took: float = 0.0

    @property
    def option(self) -> Option:
        return self.found.option

    @property
    def received(self) -> Recording | None:
        """What came of an answer, if anything."""
        return self.flight.recording if self.flight.recording.length else None

    def charge(self, *, said: bool) -> Charge:
        """What it is charged; `said`: its usage is known."""
        recording, failed = self.flight.recording, self.recorder.progress.error is not None
        if failed and not said and recording.head is not None and recording.head.kind == "json":
            return "nothing"  # an error, whatever its status says
        found = charge_of(
            self.status,
            self.end.error if isinstance(self.end, Broken) else None,
            said=said,
            streamed=recording.head.kind == "stream" if recording.head is not None else self.call.stream,
            begun=recording.length > 0,
            whole=isinstance(self.end, Clean),
        )
        # In the background it is made to its end, whatever came of it here.
        return "reserve" if found == "counted" and self.call.body.get("background") else found

    @property
    def frees(self) -> Decimal:
        """What it gives back for sure of what was set aside for it, as it has ended: all, if it is charged nothing."""
        said = said_usage(self.recorder.progress.usage) is not None
        return self.claim.usd if self.charge(said=said) == "nothing" else NOTHING


class Accounts:
    """Counts are ended with `close`."""

    def __init__(self, router: Router, meter: Meter, ledger: Ledger, clock: Clock) -> None:
        self._router = router
        self._meter = meter
        self._ledger = ledger
        self._clock = clock
        self._counting: set[asyncio.Task[None]] = set()

    async def intend(self, attempt: Attempt) -> None:
        """Write down that it will be made. Raises LedgerUnavailable where a budget depends on it."""
        call, option = attempt.call, attempt.option
        intent = Intent(
            request=attempt.asker.request,
            number=attempt.number,
            at=attempt.at,
            key=attempt.asker.grant.id,
            endpoint=attempt.asker.endpoint,
            asked=cut(call.model),
            provider=option.target.provider,
            model=cut(option.name),
            stream=call.stream,
            reserved=attempt.found.reserve,
        )
        try:
            await self._ledger.intend(intent)
        except LedgerUnavailable:
            if attempt.asker.grant.budget is not None:
                raise  # it is not made, and needs no row
        attempt.intended = True  # if there is no row yet, its end makes it

    async def again(self, attempt: Attempt, status: int) -> None:
        """It was refused with this status, which costs nothing, and is made once more: as the next attempt.

        Raises what `intend` does; then nothing more was sent.
        """
        now = self._clock.monotonic()
        told = result_of(status)
        self._tell(attempt, Bill(attempt.option, usd=NOTHING), ended=told, status=status, total=now - attempt.began)
        attempt.number += 1
        attempt.at, attempt.began = self._clock.wall(), now
        attempt.sent = attempt.intended = False
        await self.intend(attempt)
        attempt.sent = True

    def settle(self, attempt: Attempt) -> None:
        """It is over, however it ended. What was received is paid, whoever has left."""
        attempt.took = self._clock.monotonic() - attempt.began
        if not attempt.sent:
            self._free(attempt)
            return
        recorder, at = attempt.recorder, datetime.fromtimestamp(attempt.at, UTC)
        usage = said_usage(recorder.progress.usage)
        match attempt.charge(said=usage is not None):
            case "nothing":
                self._free(attempt)
            case "said":
                found = bill(attempt.option, attempt.choice, usage, at, service=recorder.progress.service)
                self._paid(attempt, found)
            case "reserve":
                self._paid(attempt, Bill(attempt.option, usd=attempt.found.reserve, estimated=True))
            case "counted":
                # What came of it, now: another attempt may go on in the same recording while this one is counted.
                task = asyncio.get_running_loop().create_task(self._count(attempt, usage, attempt.received, at))
                self._counting.add(task)
                task.add_done_callback(self._counting.discard)
            case other:
                assert_never(other)

    def _free(self, attempt: Attempt) -> None:
        """It is charged nothing: that is known, but there is nothing to tell of a bill."""
        attempt.flight.free = not attempt.passed_over
        self._write(attempt, Bill(attempt.option, usd=NOTHING), 0)

    async def _count(self, attempt: Attempt, said: Usage | None, received: Recording | None, at: datetime) -> None:
        usage = larger(said, await self._router.estimate(attempt.call, attempt.option, received))
        service = attempt.recorder.progress.service
        found = bill(attempt.option, attempt.choice, usage, at, service=service, estimated=usage != said)
        self._paid(attempt, bounded(found, attempt.found.most) if found.estimated else found)

    def _paid(self, attempt: Attempt, found: Bill) -> None:
        usage = found.usage
        if found.usd is None and attempt.claim.usd:  # as at a price that is not known after all: nobody has it for less
            found = msgspec.structs.replace(found, usd=attempt.claim.usd, estimated=True)
        if not attempt.passed_over:
            attempt.flight.bill = found
        self._meter.billed(found, attempt.asker.grant)
        cause = WOULD_SAVE.get(attempt.flight.shadow or "")
        if cause is not None:
            self._meter.would_save(cause, attempt.option, found.usd, attempt.asker.grant)
        self._write(attempt, found, attempt.found.tokens if usage is None else usage.input + usage.output)

    def _write(self, attempt: Attempt, found: Bill, tokens: int) -> None:
        attempt.claim.settle(found.usd, tokens)
        attempt.ticket.settle(tokens)
        recording = attempt.flight.recording
        first = recording.times[0] if attempt.status == 200 and recording.times and not recording.dropped else None
        self._tell(attempt, found, ended=attempt.ended, status=attempt.status, total=attempt.took, first=first)

    def _tell(
        self, attempt: Attempt, found: Bill, *, ended: str, status: int | None, total: float, first: float | None = None
    ) -> None:
        """The ledger, of how it ended."""
        if not attempt.intended:
            return
        self._ledger.attempted(
            Attempted(
                request=attempt.asker.request,
                number=attempt.number,
                ended=ended,
                status=status,
                usage=found.usage,
                usd=found.usd,
                estimated=found.estimated,
                first=first,
                total=total,
                routing=found.routing,
                prompt_cache=found.prompt_cache,
            )
        )

    def given_again(self, entry: Entry, option: Option, now: float) -> Decimal | None:
        """What a stored answer would cost now on the model that gave it is saved. Once a minute: prices have hours."""
        note, minute = entry.worth, int(now) // 60
        if note.minute != minute:
            usage, at = entry.meta.usage, datetime.fromtimestamp(now, UTC)
            note.usd = None if usage is None else worth(option, usage, at, entry.meta.service)
            note.minute, note.said = minute, ()
        return note.usd

    async def close(self) -> None:
        """Wait for what is being counted."""
        await asyncio.gather(*self._counting, return_exceptions=True)
