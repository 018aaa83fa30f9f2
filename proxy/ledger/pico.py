"""Money as the database holds it: an integer of 1e-12 USD, which is exact for every price that is known.

Rule: a charge that is finer is rounded up and a saving down, so that neither looks better than it is. None stays None.
"""

from decimal import Context, Decimal
from math import ceil, floor

MOST = 2**63 - 1  # of a BIGINT: 9.2 million USD in one row; what is more is written as this

_PLACES = 12
_EXACT = Context(prec=100)  # digits, of what pricing.cost can give


def charged(usd: Decimal | None) -> int | None:
    """USD that somebody pays."""
    return None if usd is None else _bounded(ceil(usd.scaleb(_PLACES, _EXACT)))


def spared(usd: Decimal | None) -> int | None:
    """USD that nobody paid; negative where it cost more."""
    return None if usd is None else _bounded(floor(usd.scaleb(_PLACES, _EXACT)))


def dollars(pico: int) -> Decimal:
    """USD, exact."""
    return Decimal(pico).scaleb(-_PLACES, _EXACT)


def _bounded(pico: int) -> int:
    return pico if -MOST <= pico <= MOST else MOST if pico > 0 else -MOST
