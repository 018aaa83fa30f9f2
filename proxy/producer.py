"""Makes a recording: asks the models of a ranking one after the other, until one has begun to answer.

Before the first event only: what a client has seen of an answer is never taken back. The core says what follows from
how an attempt ended (core/retry.py) and who may be asked (core/breaker.py).
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from proxy.complaints import Complaints
from proxy.core import retry
from proxy.core.breaker import Health
from proxy.core.call import Call
from proxy.core.load import Load
from proxy.core.recording import Broken, Clean, Ending
from proxy.core.retry import Attempt, Baseline, Budget, Final, Repeat, Step
from proxy.core.routing import Choice, Option, Place
from proxy.core.status import result_of
from proxy.errors import PenstockError, UpstreamAuthError, UpstreamError, UpstreamFailed, UpstreamUnavailable
from proxy.flights import Flight
from proxy.interfaces import Clock, Meter, Provider, Reply
from proxy.recorder import Recorder

OF_THE_ACCOUNT = frozenset({401, 402, 403, 404, 410})  # or of a model that this account does not have


@dataclass(slots=True)
class Job:
    """One call that is to be answered. `left`: who was not asked yet."""

    flight: Flight
    call: Call
    choice: Choice
    account: str
    left: list[Option] = field(default_factory=list)
    repeats: int = 0  # on the model that was asked last
    repeating: bool = False  # holds a place in the budget
    recorder: Recorder | None = None  # of the last attempt

    def place(self, option: Option) -> Place:
        return option.target.place(self.account)


class Producer:
    """Shared by all flights, as are the health of what may answer and the budget of repeats."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        health: Health,
        load: Load,
        *,
        clock: Clock,
        meter: Meter,
        complaints: Complaints,
    ) -> None:
        self._providers = providers
        self._health = health
        self._load = load
        self._budget = Budget()
        self._clock = clock
        self._meter = meter
        self._complaints = complaints

    async def make(self, job: Job, order: Sequence[Option]) -> Ending:
        """Record the first answer that is none to turn away from, else the last one: how it ended.

        Raises UpstreamUnavailable: nobody may be asked. A cancellation passes through.
        """
        job.left = list(order)
        option = self._next(job)
        if option is None:
            raise self._unavailable(job, order)
        try:
            while True:
                end, step = await self._attempt(job, option)
                if isinstance(step, Final):
                    return end
                if isinstance(step, Repeat):
                    await asyncio.sleep(step.pause)
                    job.repeats += 1
                    if not self._health.take(job.place(option), self._clock.wall()):
                        raise self._unavailable(job, [option])
                else:
                    wanted = job.choice.baseline if isinstance(step, Baseline) else None
                    option = self._next(job, wanted) or option  # there is one: nothing was awaited since it was seen
                    self._moves_on(job)
                job.flight.restart()
        finally:
            self._moves_on(job)

    def _moves_on(self, job: Job) -> None:
        """This model is not asked again."""
        job.repeats = 0
        if job.repeating:
            job.repeating = False
            self._budget.give_back()

    def _next(self, job: Job, wanted: Option | None = None) -> Option | None:
        """Take the next that may be asked, or the one that is wanted, out of those that are left."""
        now = self._clock.wall()
        for option in [wanted] if wanted is not None else list(job.left):
            job.left.remove(option)
            if self._health.take(job.place(option), now):
                return option
        return None

    def _unavailable(self, job: Job, order: Sequence[Option]) -> UpstreamUnavailable:
        now = self._clock.wall()
        job.flight.served = order[0]
        return UpstreamUnavailable(min(self._health.until(job.place(option), now) for option in order))

    async def _attempt(self, job: Job, option: Option) -> tuple[Ending, Step]:
        """Ask once. What is final is recorded; of everything else nothing was seen."""
        flight, place, sent = job.flight, job.place(option), self._clock.wall()
        provider = self._providers[option.target.provider]
        flight.served = option
        flight.begun = lambda: self._health.good(place, self._clock.wall())
        recorder = job.recorder = Recorder(flight, job.call, provider)
        result = "abandoned"
        end: Ending
        try:
            try:
                reply = await provider.open(job.call, option.target)
            except UpstreamError as error:
                end, step = Broken(error), self._failed(job, option, error, sent)
                result = error.code or "failed"
            else:
                end, step = await self._answered(job, option, recorder, reply, sent)
                result = _result(end, reply.status)
        finally:
            if result == "abandoned":
                self._health.released(place, sent=sent)
            self._meter.attempt(option.target.provider, option.name, result)
        return end, step

    async def _answered(
        self, job: Job, option: Option, recorder: Recorder, reply: Reply, sent: float
    ) -> tuple[Ending, Step]:
        """A status has come: is it worth recording? If so, how did that end?"""
        try:
            step: Step = Final()
            if reply.status >= 400:
                self._judge(job, option, reply.status, reply.headers, sent)
                step = self._step(job, option, status=reply.status, headers=reply.headers)
            if not isinstance(step, Final):
                self._complaints.answered(option.target.provider, reply.status, model=option.target.upstream)
                return Clean(), step
            end = await recorder.record(reply)
        finally:
            reply.close()
        if isinstance(end, Broken) and isinstance(end.error, UpstreamError):
            if reply.status < 400 and job.flight.recording.length == 0:
                return end, self._failed(job, option, end.error, sent)
            self._complaints.failed(option.target.provider, end.error, model=option.target.upstream)
        else:
            self._complaints.answered(option.target.provider, reply.status, model=option.target.upstream)
        return end, step

    def _failed(self, job: Job, option: Option, error: UpstreamError, sent: float) -> Step:
        """Nothing of an answer came."""
        status = error.status if isinstance(error, UpstreamFailed) else 502
        self._judge(job, option, status, {}, sent)
        self._complaints.failed(option.target.provider, error, model=option.target.upstream)
        return self._step(job, option, error=error)

    def _judge(self, job: Job, option: Option, status: int, headers: Mapping[str, str], sent: float) -> None:
        """What an attempt that brought no answer says of the health of what was asked."""
        place, now = job.place(option), self._clock.wall()
        # Where somebody else can answer, an account that is refused is left alone like one that fails.
        ours = not self._providers[option.target.provider].client_pays
        refused = status in OF_THE_ACCOUNT and job.choice.routed and ours
        match "refused" if refused else retry.verdict_of_status(status):
            case "refused":
                self._health.bad(place, now, sent=sent, account=True)
            case "cool":
                self._health.cool(place, now, retry.cooldown(headers, now), sent=sent)
            case "bad":
                self._health.bad(place, now, sent=sent)
            case _:
                self._health.good(place, now)

    def _step(
        self,
        job: Job,
        option: Option,
        *,
        status: int | None = None,
        error: PenstockError | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Step:
        """What to do now; a repeat has its place in the budget then."""
        now, provider = self._clock.wall(), self._providers[option.target.provider]
        able = [each for each in job.left if self._health.state(job.place(each), now) == "up"]
        attempt = Attempt(
            status=status,
            error=error,
            headers=headers or {},
            repeats=job.repeats,
            max_retries=provider.max_retries,
            retries_itself=job.call.retries_itself,
            others=bool(able),
            is_baseline=option == job.choice.baseline,
            baseline_left=job.choice.baseline in able,
            retry_lost=job.choice.retry_lost,
            ours=not provider.client_pays,
        )
        step = retry.next_step(attempt, now=now, luck=random.random())  # noqa: S311 - jitter
        if isinstance(step, Repeat):
            down = self._health.state(job.place(option), now) == "down"
            if down or not (job.repeating or self._budget.take(self._load.flights)):
                return Final()
            job.repeating = True
        return step


def _result(end: Ending, status: int) -> str:
    """How an attempt ended, as a label."""
    if isinstance(end, Broken) and not isinstance(end.error, UpstreamAuthError):
        return end.error.code or "failed"
    return result_of(status)
