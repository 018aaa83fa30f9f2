"""Limits, acted on: a client's key is refused at once, a call to a provider waits for its turn.

The core says what fits (core/bucket.py), what a provider has left (core/stated.py) and whose turn it is
(core/turns.py). Whatever is given back is given back once, on every exit, and then the line is looked at again.
"""

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Final, Self

from proxy.core.access import Grant, Limits
from proxy.core.bucket import Cell, Full, Held, Kind, Quota, Quotas, Window
from proxy.core.routing import Place
from proxy.core.stated import Accounts, write_duration
from proxy.core.turns import Turn, Turns
from proxy.errors import OverLimit, QueueTimeout, RateLimited
from proxy.interfaces import Clock

QUEUE_TIMEOUT: Final = 60.0  # seconds, where the settings say none
LEAST: Final = 0.001  # seconds; timers are no finer
SOONEST: Final = 1.0  # seconds that a client is told to wait at least
LATEST: Final = 60.0  # and at most

Headers = tuple[tuple[bytes, bytes], ...]

WORDS: Final[dict[Kind, str]] = {
    "requests": "requests per minute",
    "tokens": "tokens per minute",
    "concurrent": "requests at once",
}


def tell_nobody(*_: object) -> None:
    """Where nobody wants to know."""


class TokenClaim:
    """Tokens that are reserved of a key's minute; `settle` once it is known how many were used."""

    __slots__ = ("_cell", "_clock", "_grant", "_quotas", "_tokens")

    def __init__(self, quotas: Quotas | None, clock: Clock, grant: Grant, tokens: int, cell: Cell | None) -> None:
        self._quotas = quotas
        self._clock = clock
        self._grant = grant
        self._tokens = tokens
        self._cell = cell

    def settle(self, tokens: int) -> None:
        """So many were used; only the first time counts."""
        quotas, self._quotas = self._quotas, None
        if quotas is None:
            return
        now = self._clock.monotonic()
        # By its id: where nothing was left in it, the quota of then has been dropped, and this may be another.
        window = quotas.of(self._grant.id, self._grant.limits, now).tokens
        if self._cell is not None:
            window.change(self._cell, tokens - self._tokens, now)
        elif tokens > 0:
            window.add(tokens, now)


class Line:
    """Those who wait for one provider."""

    def __init__(self, limiter: "Limiter", provider: str, turns: Turns, timeout: float) -> None:
        self.turns = turns
        self.clock = limiter.clock
        self._limiter = limiter
        self._provider = provider
        self._timeout = timeout
        self._waiters: dict[Turn, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def look(self) -> None:
        """Let those go who may, and look again when the next one may."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.turns.waiting:
            return
        gone, again = self.turns.look(self.clock.monotonic())
        for turn in gone:
            if turn in self._waiters:
                _wake(self._waiters[turn])
        if self.turns.waiting and again < math.inf:
            self._timer = asyncio.get_running_loop().call_later(max(LEAST, again), self.look)

    async def wait(self, turn: Turn) -> None:
        """Until it goes. Raises QueueTimeout, OverLimit. Whatever is raised, the turn is to be left."""
        limit = self.turns.too_large(turn)
        if limit is not None:
            self._limiter.on_refused("over_limit", "")
            raise _over_limit(turn.tokens, limit, f"the provider {self._provider!r} allows")
        began = self.clock.monotonic()
        if self.turns.join(turn, began):
            self.look()
        if turn.waits:
            await self._woken(turn)
            self._limiter.on_waited(self._provider, self.clock.monotonic() - began)
        if not turn.going:
            self._limiter.on_refused("queue_timeout", "")
            raise self._late(turn)

    async def _woken(self, turn: Turn) -> None:
        """By whoever lets it go, or by the time."""
        loop = asyncio.get_running_loop()
        waiter = self._waiters[turn] = loop.create_future()
        timeout = loop.call_later(self._timeout, _wake, waiter)
        try:
            await waiter
        finally:
            timeout.cancel()
            del self._waiters[turn]

    def _late(self, turn: Turn) -> QueueTimeout:
        seconds = self.turns.expected(turn, self.clock.monotonic())
        return QueueTimeout(
            f"This call's turn at the provider {self._provider!r} did not come within {self._timeout:g} seconds.",
            retry_after=_told(seconds),
        )


class Ticket:
    """A call's place in a provider's line, then among those under way. `with` leaves it, on every exit."""

    __slots__ = ("_line", "_model", "_place", "_share", "_tokens", "_turn")

    def __init__(self, line: Line, model: str, place: Place, share: str, tokens: int) -> None:
        self._line = line
        self._model = model
        self._place = place
        self._share = share
        self._tokens = tokens
        self._turn: Turn | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    @property
    def share(self) -> str:
        """Whose turn it takes. Another's, once whoever led has left: then it waits at the end of that one's line."""
        return self._share

    @share.setter
    def share(self, share: str) -> None:
        self._share = share
        if self._turn is not None and self._turn.waits:
            self._line.turns.move(self._turn, share, self._line.clock.monotonic())
            self._line.look()

    async def turn(self) -> None:
        """Wait for it, once. Raises QueueTimeout, or OverLimit where it never comes."""
        if self._turn is not None:
            raise AssertionError("a ticket has one turn")
        turns = self._line.turns
        self._turn = turns.turn(self._share, self._model, self._place, self._tokens)
        if turns.go(self._turn, self._line.clock.monotonic()):
            return
        try:
            await self._line.wait(self._turn)
        except BaseException:
            self.leave()  # it may have been let go just as it was cancelled
            raise

    def sent(self) -> None:
        """From now on it counts, however it ends. Without this nothing of it does."""
        if self._turn is not None:
            self._turn.send(self._line.clock.monotonic())

    def heed(self, headers: Mapping[str, str], status: int) -> None:
        """What the provider's answer says of its quota; lower-case names."""
        if self._turn is None:
            return
        clock = self._line.clock
        now = clock.monotonic()
        # What it says is of when it took the call, but a refusal was not long in the making.
        at = now if status == 429 else self._turn.since
        self._turn.heed(headers, at, clock.wall() - (now - at))
        self._line.look()

    def settle(self, tokens: int) -> None:
        """So many tokens were used; only the first time counts. Also after it has left."""
        if self._turn is not None:
            self._turn.settle(tokens, self._line.clock.monotonic())
            self._line.look()

    def leave(self) -> None:
        """Leave the line, or give the place back; what was not sent is given back whole."""
        if self._turn is not None:
            self._line.turns.leave(self._turn, self._line.clock.monotonic())
            self._line.look()


class Limiter:
    """All limits. Nothing of it waits but `Ticket.turn`; one event loop uses it.

    `on_refused`: told of each refusal: requests, tokens or concurrent (a key's), over_limit, queue_timeout; and the
    name of the key, "" where it was at a provider's limits.
    `on_waited`: told the provider and the seconds that a call waited, unless it left.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        providers: Mapping[str, Limits],
        models: Mapping[tuple[str, str], Limits],
        queue_timeout: Mapping[str, float],
        on_refused: Callable[[str, str], None] = tell_nobody,
        on_waited: Callable[[str, float], None] = tell_nobody,
    ) -> None:
        """`models`: by provider and the name that tickets call them by. `queue_timeout`: seconds, by provider."""
        self.clock = clock
        self.on_refused = on_refused
        self.on_waited = on_waited
        self._quotas = Quotas()
        accounts = Accounts()
        self._lines: dict[str, Line] = {}
        for name, limits in providers.items():
            own = {model: of for (provider, model), of in models.items() if provider == name}
            turns = Turns(limits, own, accounts)
            self._lines[name] = Line(self, name, turns, queue_timeout.get(name, QUEUE_TIMEOUT))
        self._no_visit = Quota().take(0, 0.0)
        self._no_visit.leave()
        self._no_claim = TokenClaim(None, clock, Grant(""), 0, None)

    @property
    def waiting(self) -> dict[str, int]:
        """Calls that wait for their turn, by provider."""
        return {name: line.turns.waiting for name, line in self._lines.items()}

    @property
    def in_use(self) -> dict[str, int]:
        """Calls that had their turn and are under way, by provider."""
        return {name: line.turns.quota.inside for name, line in self._lines.items()}

    def used(self, grant: Grant) -> dict[Kind, tuple[int, int]]:
        """Of each limit of this key, what it is and how much of it is used."""
        quota, now = self._quotas.get(grant.id), self.clock.monotonic()
        return _used(grant.limits, quota, now)

    @property
    def used_of_providers(self) -> dict[str, dict[Kind, tuple[int, int]]]:
        """The same of the providers' limits, by provider."""
        now = self.clock.monotonic()
        return {name: _used(line.turns.quota.limits, line.turns.quota, now) for name, line in self._lines.items()}

    def visit(self, grant: Grant) -> Held:
        """Count one request of this key; leave it when it is over. Raises RateLimited, and then nothing is counted."""
        limits = grant.limits
        if limits.requests_per_minute is None and limits.max_concurrent is None:
            return self._no_visit
        now = self.clock.monotonic()
        quota = self._quotas.of(grant.id, limits, now)
        if quota.fits(0, now):
            return quota.take(0, now)
        raise self._refused(grant, quota.full(0, now))

    def claim(self, grant: Grant, tokens: int) -> TokenClaim:
        """Reserve tokens of this key's minute. Raises RateLimited, or OverLimit: more than a whole minute's."""
        limit = grant.limits.tokens_per_minute
        if limit is None:
            return self._no_claim
        if tokens > limit:
            self.on_refused("over_limit", grant.name)
            raise _over_limit(tokens, limit, "this key is allowed")
        now = self.clock.monotonic()
        window = self._quotas.of(grant.id, grant.limits, now).tokens
        if tokens and (seconds := window.wait(tokens, limit, now)):
            raise self._refused(grant, Full("tokens", seconds, limit))
        cell = window.add(tokens, now) if tokens else None
        return TokenClaim(self._quotas, self.clock, grant, tokens, cell)

    def standing(self, grant: Grant) -> Headers:
        """What of its limits this key has left, in the headers that OpenAI has for it; () where it has none."""
        limits = grant.limits
        requests, tokens = limits.requests_per_minute, limits.tokens_per_minute
        if requests is None and tokens is None:
            return ()
        now, quota = self.clock.monotonic(), self._quotas.get(grant.id)
        found: Headers = ()
        if requests is not None:
            left, reset = _left(None if quota is None else quota.requests, requests, now)
            found = (
                (b"x-ratelimit-limit-requests", b"%d" % requests),
                (b"x-ratelimit-remaining-requests", left),
                (b"x-ratelimit-reset-requests", reset),
            )
        if tokens is not None:
            left, reset = _left(None if quota is None else quota.tokens, tokens, now)
            found += (
                (b"x-ratelimit-limit-tokens", b"%d" % tokens),
                (b"x-ratelimit-remaining-tokens", left),
                (b"x-ratelimit-reset-tokens", reset),
            )
        return found

    def counts_tokens(self, provider: str, model: str) -> bool:
        """Is there a limit of tokens in the settings that such a call comes under?"""
        return self._lines[provider].turns.counts_tokens(model)

    def wait(self, provider: str, model: str, place: Place, tokens: int) -> float:
        """About how many seconds such a call would wait for its turn; 0: it would go at once, inf: it never fits."""
        return self._lines[provider].turns.wait(model, place, tokens, self.clock.monotonic())

    def ticket(self, provider: str, model: str, place: Place, *, share: str, tokens: int) -> Ticket:
        """For one call of this model. `share`: those whose calls take turns with all other shares'."""
        return Ticket(self._lines[provider], model, place, share, tokens)

    def _refused(self, grant: Grant, full: Full | None) -> RateLimited:
        if full is None:
            raise AssertionError("what fits is not refused")
        self.on_refused(full.of, grant.name)
        seconds = _told(full.seconds)
        return RateLimited(
            f"This key is at its limit of {full.limit} {WORDS[full.of]}. Try again in {seconds:.3g} seconds.",
            of="tokens" if full.of == "tokens" else "requests",
            retry_after=seconds,
        )


def _used(limits: Limits, quota: Quota | None, now: float) -> dict[Kind, tuple[int, int]]:
    used: dict[Kind, int] = {"requests": 0, "tokens": 0, "concurrent": 0}
    if quota is not None:
        used = {"requests": quota.requests.used(now), "tokens": quota.tokens.used(now), "concurrent": quota.inside}
    most = (limits.requests_per_minute, limits.tokens_per_minute, limits.max_concurrent)
    return {kind: (limit, used[kind]) for kind, limit in zip(used, most, strict=True) if limit is not None}


def _left(window: Window | None, limit: int, now: float) -> tuple[bytes, bytes]:
    if window is None:
        return b"%d" % limit, b"0s"
    used, reset = window.standing(now)
    return b"%d" % max(0, limit - used), write_duration(reset)


def _told(seconds: float) -> float:
    return min(LATEST, max(SOONEST, seconds))


def _over_limit(tokens: int, limit: int, whose: str) -> OverLimit:
    return OverLimit(f"This request may take {tokens} tokens, and {whose} {limit} per minute.", of="tokens")


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
