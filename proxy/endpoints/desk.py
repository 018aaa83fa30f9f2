"""What every endpoint answers with, and who is told of each answer."""

from collections import deque
from dataclasses import dataclass

from proxy.complaints import Complaints
from proxy.core.access import Grant
from proxy.core.books import Answered
from proxy.ids import Ids
from proxy.interfaces import Clock, Ledger, Limiter, Log, Meter


@dataclass(frozen=True, slots=True)
class Desk:
    """What every endpoint answers with."""

    ids: Ids
    meter: Meter
    clock: Clock
    complaints: Complaints
    limiter: Limiter
    ledger: Ledger
    recent: deque[Answered]  # the newest last
    log: Log | None = None
    cost_comment: bool = False  # at the end of a stream

    def told(self, row: Answered, grant: Grant | None) -> None:
        """A request is over: all who count, write down and show it are told the same."""
        self.meter.answered(row, "" if grant is None else grant.name)
        if row.asked or row.provider:  # else nobody was asked anything
            self.recent.append(row)
        if self.log is not None:
            self.log.answered(row)
        if grant is not None:  # whoever has no key writes nothing into our ledger
            self.ledger.answered(row)
