"""No ledger: what is asked of one is answered, and nothing is written."""

import inspect
from decimal import Decimal

from proxy.ledger import Ledger, NoLedger
from tests.ledger.told import answer, end, intent


async def test_every_call_goes_on_and_says_that_nothing_is_written() -> None:
    ledger = NoLedger()
    await ledger.intend(intent())
    ledger.attempted(end())
    ledger.answered(answer())
    await ledger.flush()
    assert (ledger.available, ledger.pending, ledger.lag) == (False, 0, 0.0)
    await ledger.follow()
    assert (ledger.spent("pk_1", 0.0), await ledger.find_entry("req_1")) == (Decimal(0), None)
    await ledger.close()


def test_it_is_asked_what_a_ledger_is_asked() -> None:
    def asked(of: type) -> dict[str, object]:
        public = {name: value for name, value in inspect.getmembers(of) if not name.startswith("_") and name != "open"}
        return {name: inspect.signature(value) if callable(value) else None for name, value in public.items()}

    assert asked(NoLedger) == asked(Ledger)
