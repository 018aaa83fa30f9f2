"""No ledger: where nothing can be written and nothing depends on it, every call goes on, and none has a row."""

from decimal import Decimal

from proxy.core.books import Answered, Attempted, Intent


class NoLedger:
    """What Ledger is asked, answered at once."""

    available = False
    pending = 0
    lag = 0.0

    async def intend(self, intent: Intent) -> None: ...

    def attempted(self, attempt: Attempted) -> None: ...

    def answered(self, answer: Answered) -> None: ...

    def spent(self, key: str, since: float) -> Decimal:  # noqa: ARG002
        """Of what is written down."""
        return Decimal(0)

    async def find_entry(self, request: str) -> bytes | None:  # noqa: ARG002
        return None

    async def follow(self) -> None: ...

    async def flush(self) -> None: ...

    async def close(self) -> None: ...
