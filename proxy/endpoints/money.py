"""What an answer says of its cost, in headers or at the end of a stream: never more than is known."""

from decimal import Decimal

from proxy.core.bill import NOTHING, dollars
from proxy.endpoints.client import Header
from proxy.gathered import Listed
from proxy.pipeline import Hit, Live


def hit_money(hit: Hit) -> list[Header]:
    """An answer out of the store is free, and saves what it would cost now."""
    return _money(NOTHING, hit.saved, b"cache")


def live_money(live: Live) -> list[Header]:
    """What this reader's answer cost, once that is known. Where another pays it is free."""
    bill = live.reader.flight.bill
    if bill is None:
        return []
    if live.is_free:
        return _money(NOTHING, bill.usd, b"collapse")
    said = _money(bill.usd, bill.routing, b"routing; estimated")
    if bill.prompt_cache:
        said.append((b"x-penstock-prompt-cache-saved-usd", dollars(bill.prompt_cache)))
    return said


def list_money(listed: Listed) -> list[Header]:
    """Of a list: what its own calls cost, and what it had not to ask for."""
    by = b"collapse" if listed.outcome == "collapsed" else b"cache"
    return _money(listed.cost, listed.saved, by)


def comment(live: Live) -> bytes:
    """What a stream's headers could not say; every client stands a comment."""
    said = dict(live_money(live))
    cost, saved = said.get(b"x-penstock-cost-usd"), said.get(b"x-penstock-saved-usd", b"?")
    return b"" if cost is None else b": penstock cost=" + cost + b" saved=" + saved + b"\n\n"


def _money(cost: Decimal | None, saved: Decimal | None, by: bytes) -> list[Header]:
    said = [] if cost is None else [(b"x-penstock-cost-usd", dollars(cost))]
    if saved is not None:
        said.append((b"x-penstock-saved-usd", dollars(saved)))
        said += [(b"x-penstock-saved-by", by)] if saved else []
    return said
