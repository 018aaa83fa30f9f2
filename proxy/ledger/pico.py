"""Money as the database holds it: an integer of 1e-12 USD, which is exact for every price that is known.

Rule: a charge that is finer is rounded up and a saving down, so that neither looks better than it is. None stays None.
"""

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

MOST = 2**63 - 1  # of a BIGINT: 9.2 million USD in one row; what is more is written as this

_PLACES = 12
_DIGITS = 100  # of what pricing.cost can give
_UP = Context(prec=_DIGITS, rounding=ROUND_CEILING)
_DOWN = Context(prec=_DIGITS, rounding=ROUND_FLOOR)


def charged(usd: Decimal | None) -> int | None:
    """USD that somebody pays."""
    return None if usd is None else _whole(usd, _UP)


def spared(usd: Decimal | None) -> int | None:
    """USD that nobody paid; negative where it cost more."""
    return None if usd is None else _whole(usd, _DOWN)


def dollars(pico: int) -> Decimal:
    """USD, exact, without an exponent."""
    return Decimal(pico).scaleb(-_PLACES, _UP)


def _whole(usd: Decimal, context: Context) -> int:
    whole = int(usd.scaleb(_PLACES, context).to_integral_value(context=context))
    return whole if -MOST <= whole <= MOST else MOST if whole > 0 else -MOST
