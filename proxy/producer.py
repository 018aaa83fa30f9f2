"""Makes a recording: asks the models of a ranking one after the other, until one has begun to answer.

Before the first event only: what a client has seen of an answer is never taken back. The core says what follows from
how an attempt ended (core/retry.py) and who may be asked (core/breaker.py). Each attempt waits for its turn, and is in
the ledger before it is sent.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from proxy.accounts import ABANDONED, Accounts, Attempt
from proxy.claims import Claimed, Claims
from proxy.complaints import Complaints
from proxy.core import retry
from proxy.core.asker import Asker
from proxy.core.bill import NOTHING
from proxy.core.breaker import Health
from proxy.core.call import Call
from proxy.core.load import Load
from proxy.core.ranking import Estimate
from proxy.core.recording import Broken, Clean, Ending
from proxy.core.retry import Another, Baseline, Budget, Final, Repeat, Step
from proxy.core.routing import Choice, Option, Place
from proxy.core.status import result_of
from proxy.errors import PenstockError, UpstreamAuthError, UpstreamError, UpstreamFailed, UpstreamUnavailable
from proxy.flights import Flight
from proxy.interfaces import Clock, Limiter, Meter, Provider, Reply, Ticket
from proxy.recorder import Recorder

A_WHILE = 0.1  # seconds of waiting in which much may have happened
REFUSED = 400
OF_THE_ACCOUNT = frozenset({401, 402, 403, 404, 410})  # or of a model that this account does not have


@dataclass(slots=True)
class Job:
    """One call that is to be answered. `asker`: who pays; `claimed`: what it set aside; `left`: who was not asked."""

    flight: Flight
    call: Call
    choice: Choice
    account: str
    asker: Asker
    claimed: Claimed
    left: list[Estimate] = field(default_factory=list)
    attempts: int = 0
    repeats: int = 0  # on the model that was asked last
    repeating: bool = False  # holds a place in the budget of repeats
    refusal: PenstockError | None = None  # why a model that is up is not asked
    recorder: Recorder | None = None  # of the last attempt

    def place(self, option: Option) -> Place:
        return option.target.place(self.account)

    @property
    def share(self) -> str:
        """Whose turn it takes at a provider."""
        return self.asker.grant.id or self.account


@dataclass(frozen=True, slots=True)
class Means:
    """What a producer acts through."""

    providers: Mapping[str, Provider]
    health: Health
    load: Load
    limiter: Limiter
    claims: Claims
    accounts: Accounts
    clock: Clock
    meter: Meter
    complaints: Complaints


class Producer:
    """Shared by all flights, as are the health of what may answer and the budget of repeats."""

    def __init__(self, means: Means) -> None:
        self._providers = means.providers
        self._health = means.health
        self._load = means.load
        self._limiter = means.limiter
        self._claims = means.claims
        self._accounts = means.accounts
        self._clock = means.clock
        self._meter = means.meter
        self._complaints = means.complaints
        self._budget = Budget()

    async def make(self, job: Job, order: Sequence[Estimate]) -> Ending:
        """Record the first answer that is none to turn away from, else the last one: how it ended.

        Raises UpstreamUnavailable: nobody may be asked; or why its turn did not come, or nothing could be set aside for
        it. A cancellation passes through.
        """
        job.left = list(order)
        found = self._next(job)
        if found is None:
            raise job.refusal or self._unavailable(job, order)
        try:
            while True:
                end, step = await self._attempt(job, found)
                if isinstance(step, Final):
                    return end
                if isinstance(step, Repeat):
                    await self._pause(job, step.pause)
                    job.repeats += 1
                    if not self._take(job, found):
                        raise job.refusal or self._unavailable(job, [found])
                    self._meter.retried(found.option.target.provider, found.option.name, "repeat")
                else:
                    wanted = job.choice.baseline if isinstance(step, Baseline) else None
                    self._moves_on(job)
                    if (following := self._next(job, wanted)) is None:  # there was one, but not enough for it now
                        raise job.refusal or self._unavailable(job, [found])
                    found = following
                    self._meter.retried(found.option.target.provider, found.option.name, "fallback")
                job.flight.restart()
        finally:
            self._moves_on(job)
            job.claimed.give_back()

    async def _pause(self, job: Job, seconds: float) -> None:
        job.flight.elsewhere.go(self._clock.monotonic())
        await asyncio.sleep(seconds)
        job.flight.elsewhere.back(self._clock.monotonic())

    def _moves_on(self, job: Job) -> None:
        """This model is not asked again."""
        job.repeats = 0
        if job.repeating:
            job.repeating = False
            self._budget.give_back()

    def _next(self, job: Job, wanted: Option | None = None) -> Estimate | None:
        """Take the next that may be asked, or the one that is wanted, out of those that are left."""
        for found in [each for each in job.left if wanted is None or each.option == wanted]:
            job.left.remove(found)
            if self._take(job, found):
                return found
        return None

    def _take(self, job: Job, found: Estimate) -> bool:
        """May it be asked? Then something is set aside for it, and the breaker has let it through."""
        if not self._health.take(job.place(found.option), self._clock.wall()):
            return False
        try:
            self._claim(job, found)
        except PenstockError as error:
            job.refusal, job.flight.capped = error, True
            self._health.released(job.place(found.option), sent=self._clock.wall())
            return False
        return True

    def _claim(self, job: Job, found: Estimate) -> None:
        """Set aside what an attempt there may take, instead of what was for another."""
        if job.claimed.option is not found.option:
            job.claimed.give_back()
            job.claimed.put(self._claims.make(job.asker.grant, found), found.option)

    def _unavailable(self, job: Job, order: Sequence[Estimate]) -> UpstreamUnavailable:
        now = self._clock.wall()
        job.flight.served = order[0].option
        return UpstreamUnavailable(min(self._health.until(job.place(each.option), now) for each in order))

    async def _attempt(self, job: Job, found: Estimate) -> tuple[Ending, Step]:
        """Wait for its turn, and ask once. What is final is recorded; of everything else nothing was seen."""
        flight, option = job.flight, found.option
        target, place = option.target, job.place(option)
        flight.served = option
        ticket = self._limiter.ticket(target.provider, option.name, place, share=job.share, tokens=found.tokens)
        attempt, taken, began = None, self._clock.wall(), self._clock.monotonic()
        try:
            with ticket:
                await self._turn(job, found, ticket)
                if self._clock.monotonic() - began > A_WHILE:  # it may have failed all the others meanwhile
                    self._health.released(place, sent=taken)
                    taken = self._clock.wall()
                    if not self._health.take(place, taken):
                        able = any(self._is_able(job, each, taken) for each in job.left)
                        return Broken(self._unavailable(job, [found])), Another() if able else Final()
                recorder = job.recorder = Recorder(flight, job.call, self._providers[target.provider])
                attempt = self._begin(job, found, ticket, recorder, taken)
                await self._accounts.intend(attempt)
                ticket.sent()
                flight.begun = lambda: self._begun(flight, place)
                return await self._ask(job, attempt)
        finally:
            if attempt is None or attempt.ended == ABANDONED:
                self._health.released(place, sent=taken)
            flight.elsewhere.back(self._clock.monotonic())
            if attempt is not None and attempt.sent:
                seconds = self._clock.monotonic() - attempt.began
                self._meter.attempt(target.provider, option.name, attempt.ended, seconds)
                flight.attempts.append((option.name, attempt.ended))
                self._tell_pace(attempt)
            if attempt is not None:
                self._accounts.settle(attempt)

    def _begun(self, flight: Flight, place: Place) -> None:
        """An answer begins: a stream's readers have their first event."""
        self._health.good(place, self._clock.wall())
        if flight.recording.head is not None and flight.recording.head.kind == "stream":
            flight.elsewhere.back(self._clock.monotonic())

    async def _turn(self, job: Job, found: Estimate, ticket: Ticket) -> None:
        """Wait for it, on behalf of whoever is there to pay."""
        flight, task = job.flight, asyncio.current_task()
        refused: PenstockError | None = None

        def orphaned() -> None:
            nonlocal refused
            refused = self._hand_over(job, found, ticket)
            if refused is not None and task is not None:
                task.cancel()

        if flight.readers and flight.payer not in flight.readers:  # it left while this call was ranked
            refused = self._hand_over(job, found, ticket)
            if refused is not None:
                raise refused
        flight.orphaned = orphaned
        flight.elsewhere.go(self._clock.monotonic())
        try:
            await ticket.turn()
        except asyncio.CancelledError:
            if refused is not None and task is not None and task.uncancel() == 0:
                raise refused from None
            raise
        finally:
            flight.orphaned = None
            flight.elsewhere.back(self._clock.monotonic())

    def _hand_over(self, job: Job, found: Estimate, ticket: Ticket) -> PenstockError | None:
        """Who was to pay has left before anything was sent: the next reader that can takes over. Why none can."""
        refused: PenstockError | None = None
        job.claimed.give_back()
        if len(job.flight.keys) > 1:  # who joined a list wants a part of it, and asks for that alone
            job.flight.capped = True
            return PenstockError("Whoever asked for this list has left.")
        for reader in job.flight.readers:
            job.asker = reader.asker
            try:
                self._claim(job, found)
            except PenstockError as error:
                refused = refused or error
                continue
            job.flight.payer, ticket.share = reader, job.share
            return None
        return refused

    def _begin(self, job: Job, found: Estimate, ticket: Ticket, recorder: Recorder, taken: float) -> Attempt:
        job.attempts += 1
        claim = job.claimed.take()
        return Attempt(
            call=job.call,
            choice=job.choice,
            flight=job.flight,
            asker=job.asker,
            number=job.attempts,
            found=found,
            claim=claim,
            ticket=ticket,
            recorder=recorder,
            at=self._clock.wall() if claim.at is None else claim.at,
            began=self._clock.monotonic(),
            taken=taken,
        )

    async def _ask(self, job: Job, attempt: Attempt) -> tuple[Ending, Step]:
        """Send it, and record what comes."""
        option, provider = attempt.option, attempt.recorder.provider
        attempt.sent = True
        job.flight.elsewhere.go(self._clock.monotonic())
        try:
            reply = await provider.open(job.call, option.target, again=lambda: self._again(job, attempt))
        except UpstreamError as error:
            attempt.end = Broken(error)
            attempt.ended = error.code or "failed"
            step = self._failed(job, attempt, error)
            attempt.passed_over = not isinstance(step, Final)
            return attempt.end, step
        attempt.status = reply.status
        attempt.ticket.heed(reply.headers, reply.status)
        attempt.end, step = await self._answered(job, attempt, reply)
        attempt.ended = _result(attempt.end, reply.status)
        attempt.passed_over = not isinstance(step, Final)
        return attempt.end, step

    def _tell_pace(self, attempt: Attempt) -> None:
        """How fast a stream came, once it said something."""
        recording = attempt.flight.recording
        if recording.first_token is not None and not recording.dropped:
            times = recording.times[recording.first_token :]
            self._meter.spoke(attempt.option.target.provider, attempt.option.name, times)

    async def _again(self, job: Job, attempt: Attempt) -> None:
        """It was refused for a member that we added, and is sent once more without: that is another attempt."""
        seconds, option = self._clock.monotonic() - attempt.began, attempt.option
        self._meter.attempt(option.target.provider, option.name, result_of(REFUSED), seconds)
        job.flight.attempts.append((option.name, result_of(REFUSED)))
        job.attempts += 1
        await self._accounts.again(attempt, REFUSED)

    async def _answered(self, job: Job, attempt: Attempt, reply: Reply) -> tuple[Ending, Step]:
        """A status has come: is it worth recording? If so, how did that end?"""
        provider, model = attempt.option.target.provider, attempt.option.target.upstream
        try:
            step: Step = Final()
            if reply.status >= 400:
                self._judge(job, attempt, reply.status, reply.headers)
                step = self._step(job, attempt, status=reply.status, headers=reply.headers)
            if not isinstance(step, Final):
                self._complaints.answered(provider, reply.status, model=model)
                return Clean(), step
            end = await attempt.recorder.record(reply)
        finally:
            reply.close()
        if isinstance(end, Broken) and isinstance(end.error, UpstreamError):
            if reply.status < 400 and job.flight.recording.length == 0:
                attempt.end = end
                return end, self._failed(job, attempt, end.error)
            self._complaints.failed(provider, end.error, model=model)
        else:
            self._complaints.answered(provider, reply.status, model=model)
        return end, step

    def _failed(self, job: Job, attempt: Attempt, error: UpstreamError) -> Step:
        """Nothing of an answer came."""
        status = error.status if isinstance(error, UpstreamFailed) else 502
        self._judge(job, attempt, status, {})
        target = attempt.option.target
        self._complaints.failed(target.provider, error, model=target.upstream)
        return self._step(job, attempt, error=error)

    def _judge(self, job: Job, attempt: Attempt, status: int, headers: Mapping[str, str]) -> None:
        """What an attempt that brought no answer says of the health of what was asked."""
        place, now, sent = job.place(attempt.option), self._clock.wall(), attempt.taken
        # Where somebody else can answer, an account that is refused is left alone like one that fails.
        ours = not attempt.recorder.provider.client_pays
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
        attempt: Attempt,
        *,
        status: int | None = None,
        error: PenstockError | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Step:
        """What to do now; a repeat has its place in the budget then."""
        now, provider, found = self._clock.wall(), attempt.recorder.provider, attempt.found
        able = [each.option for each in job.left if self._is_able(job, each, now, freed=attempt.frees)]
        past = retry.Attempt(
            status=status,
            error=error,
            headers=headers or {},
            repeats=job.repeats,
            max_retries=provider.max_retries,
            retries_itself=job.call.retries_itself,
            others=bool(able),
            is_baseline=found.option == job.choice.baseline,
            baseline_left=job.choice.baseline in able,
            retry_lost=job.choice.retry_lost,
            ours=not provider.client_pays,
        )
        step = retry.next_step(past, now=now, luck=random.random())  # noqa: S311 - jitter
        if isinstance(step, Repeat):
            down = self._health.state(job.place(found.option), now) == "down"
            if down or not (job.repeating or self._budget.take(self._load.flights)):
                return Final()
            job.repeating = True
        return step

    def _is_able(self, job: Job, found: Estimate, now: float, *, freed: Decimal = NOTHING) -> bool:
        """Could it be asked now, and paid once so much of what is set aside is given back?"""
        if self._health.state(job.place(found.option), now) != "up":
            return False
        affords = self._claims.affords(job.asker.grant, found, freed=freed)
        job.flight.capped = job.flight.capped or not affords  # whoever joined may have the money
        return affords


def _result(end: Ending, status: int) -> str:
    """How an attempt ended, as a label."""
    if isinstance(end, Broken) and not isinstance(end.error, UpstreamAuthError):
        return end.error.code or "failed"
    return result_of(status)
