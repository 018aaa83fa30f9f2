"""A call to a provider that no flight makes: in the ledger before it is sent, counted, and the log told if it fails."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from decimal import Decimal

from proxy.core.asker import Asker
from proxy.core.bill import NOTHING, UNCHARGED
from proxy.core.books import Attempted, Intent
from proxy.core.status import result_of
from proxy.endpoints.desk import Desk
from proxy.errors import LedgerUnavailable, UpstreamError
from proxy.interfaces import Provider, Ticket


@dataclass(slots=True)
class Called:
    """A call to a provider: how it was answered, or failed. Neither: its client left."""

    status: int | None = None
    error: UpstreamError | None = None

    @property
    def result(self) -> str:
        """As a label."""
        if self.error is not None:
            return self.error.code or "failed"
        return "abandoned" if self.status is None else result_of(self.status)

    @property
    def is_free(self) -> bool:
        """Was it refused, or never sent? Else nobody knows what it costs."""
        refused = self.status is not None and self.status >= 400
        return refused or isinstance(self.error, UNCHARGED)


@asynccontextmanager
async def calling(
    desk: Desk, asker: Asker, provider: Provider, *, account: str = "", free: bool = False
) -> AsyncIterator[Called]:
    """Wait for its turn, and see how it goes. `free`: nobody pays for it, and it waits for nobody.

    `account`: whose turn it takes where there are no keys of ours; "": the operator's.

    Raises QueueTimeout, OverLimit or LedgerUnavailable, and what is raised within.
    """
    called, sent = Called(), False
    began, cost = desk.clock.monotonic(), NOTHING if free else None
    try:
        with nullcontext() if free else _ticket(desk, asker, provider, account) as ticket:
            if ticket is not None:
                await ticket.turn()
                ticket.sent()
            await _intend(desk, asker, provider, cost)
            sent = True
            yield called
    except UpstreamError as error:
        called.error = error
        raise
    finally:
        took, usd = desk.clock.monotonic() - began, NOTHING if called.is_free else cost
        ended = Attempted(asker.request, 1, called.result, called.status, None, usd, False, None, took)
        if sent:
            desk.meter.attempt(provider.name, "", called.result, took)
            desk.ledger.attempted(ended)
        if called.error is not None:
            desk.complaints.failed(provider.name, called.error)
        elif called.status is not None:
            desk.complaints.answered(provider.name, called.status)


def _ticket(desk: Desk, asker: Asker, provider: Provider, account: str) -> Ticket:
    place = (provider.name, "", "")
    return desk.limiter.ticket(provider.name, "", place, share=asker.grant.id or account, tokens=0)


async def _intend(desk: Desk, asker: Asker, provider: Provider, cost: Decimal | None) -> None:
    intent = Intent(
        request=asker.request,
        number=1,
        at=desk.clock.wall(),
        key=asker.grant.id,
        endpoint=asker.endpoint,
        asked="",
        provider=provider.name,
        model="",
        stream=False,
        reserved=cost,
    )
    try:
        await desk.ledger.intend(intent)
    except LedgerUnavailable:
        if asker.grant.budget is not None:
            raise
