"""What each answer cost and saved, told to its flight and to the metrics.

At once where the provider said its usage. Where it did not, or its answer was cut, what came is counted behind the
answer, in a thread, and marked as estimated.
"""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

from proxy.core.bill import bill, said_usage, worth
from proxy.core.entry import Entry
from proxy.core.routing import Option
from proxy.interfaces import Meter
from proxy.producer import Job
from proxy.router import Router


class Accounts:
    """Counts are ended with `close`."""

    def __init__(self, router: Router, meter: Meter) -> None:
        self._router = router
        self._meter = meter
        self._counting: set[asyncio.Task[None]] = set()

    def settle(self, job: Job, began: float) -> None:
        """A call has ended, however. `began`: seconds since the epoch; its prices are those of then."""
        head, option, recorder = job.flight.recording.head, job.flight.served, job.recorder
        if head is None or head.status != 200 or option is None or recorder is None:
            return  # nothing came, or an error, which is charged nothing
        usage, at = said_usage(recorder.progress.usage), datetime.fromtimestamp(began, UTC)
        if usage is None and head.kind == "stream":
            task = asyncio.get_running_loop().create_task(self._estimate(job, option, at))
            self._counting.add(task)
            task.add_done_callback(self._counting.discard)
            return
        job.flight.bill = bill(option, job.choice, usage, at, service=recorder.progress.service)
        self._meter.billed(job.flight.bill)

    async def _estimate(self, job: Job, option: Option, at: datetime) -> None:
        usage = await self._router.estimate(job.call, option, job.flight.recording)
        job.flight.bill = bill(option, job.choice, usage, at, service=None, estimated=True)
        self._meter.billed(job.flight.bill)

    def given_again(self, entry: Entry, option: Option, now: float) -> Decimal | None:
        """What a stored answer would cost now on the model that gave it is saved. Once a minute: prices have hours."""
        note, minute = entry.worth, int(now) // 60
        if note.minute != minute:
            usage, at = entry.meta.usage, datetime.fromtimestamp(now, UTC)
            note.usd = None if usage is None else worth(option, usage, at, entry.meta.service)
            note.minute = minute
        if note.usd is not None:
            self._meter.saved("cache", option, note.usd)
        return note.usd

    async def close(self) -> None:
        """Wait for what is being counted."""
        await asyncio.gather(*self._counting, return_exceptions=True)
