"""What a key may still spend: set aside before each attempt, settled after it.

Rule: what is spent and what is set aside never exceed the allowance, as long as nobody is charged more than was set
aside. Windows are those of UTC and turn once: a clock that goes back opens none anew.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from proxy.core.access import Allowance, Grant, Period
from proxy.core.bill import dollars
from proxy.errors import InsufficientQuota

NEARLY: Final = Decimal("0.8")  # of a budget: time to say so
EARLY: Final = 24  # a forecast is made as if at least this part (one 24th) of the window had passed

WORDS: Final[dict[Period, str]] = {
    "day": "per day (UTC)",
    "week": "per week (from Monday, UTC)",
    "month": "per month (UTC)",
    "total": "in all",
}


def window(per: Period, now: float) -> tuple[float, float | None]:
    """When the window of this moment began, and when it ends: seconds since the epoch. (0, None): it never turns."""
    if per == "total":
        return 0.0, None
    day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if per == "day":
        first, after = day, day + timedelta(days=1)
    elif per == "week":
        first = day - timedelta(days=day.weekday())
        after = first + timedelta(days=7)
    else:
        first = day.replace(day=1)
        after = (first + timedelta(days=31)).replace(day=1)
    return first.timestamp(), after.timestamp()


class Hold:
    """USD set aside for one attempt. `settle` once it is known what it cost; whatever is done again does nothing."""

    __slots__ = ("_purse", "_since", "usd")

    def __init__(self, purse: "Purse", usd: Decimal, since: float) -> None:
        self._purse: Purse | None = purse
        self._since = since
        self.usd = usd

    def settle(self, usd: Decimal) -> None:
        """It cost so much: in the window in which it was set aside, even if that is over."""
        purse, self._purse = self._purse, None
        if purse is not None:
            purse.settled(self, usd, self._since)


class Purse:
    """One key's budget in the window that runs. Amounts in USD."""

    def __init__(self, allowance: Allowance, spent: Decimal, now: float) -> None:
        """`spent`: so far, in the window of `now`."""
        self.allowance = allowance
        self.since, self._until = window(allowance.per, now)
        self.spent = spent
        self.reserved = Decimal(0)

    def turn(self, now: float) -> None:
        """Begin a new window where the old one is over; what was set aside in that one is settled there."""
        if self._until is not None and now >= self._until:
            self.since, self._until = window(self.allowance.per, now)
            self.spent = self.reserved = Decimal(0)

    def left(self, now: float) -> Decimal:
        """What may still be set aside; below 0 where more was charged than was set aside."""
        self.turn(now)
        return self.allowance.usd - self.spent - self.reserved

    def hold(self, usd: Decimal, now: float) -> Hold:
        """Set so much aside. Raises InsufficientQuota."""
        left = self.left(now)
        if usd > left:
            raise self.exhausted(usd, now)
        self.reserved += usd
        return Hold(self, usd, self.since)

    def settled(self, hold: Hold, usd: Decimal, since: float) -> None:
        """Called by Hold.settle."""
        if since == self.since:
            self.reserved -= hold.usd
            self.spent += usd

    def exhausted(self, usd: Decimal | None, now: float) -> InsufficientQuota:
        """`usd`: what was wanted at least."""
        left, whole = max(Decimal(0), self.left(now)), self.allowance
        said = f"Of this key's budget of {_usd(whole.usd)} USD {WORDS[whole.per]} {_usd(left)} are left"
        if usd is not None:
            said += f", and this request may cost {_usd(usd)}"
        if self._until is not None:
            said += f"; it begins anew at {datetime.fromtimestamp(self._until, UTC):%FT%TZ}"
        return InsufficientQuota(said + ".")

    @property
    def nearly(self) -> bool:
        """Is most of it spent?"""
        return self.spent >= self.allowance.usd * NEARLY

    def forecast(self, now: float) -> Decimal | None:
        """What will be spent in this window, if it goes on as so far. None: it has no end."""
        self.turn(now)
        if self._until is None:
            return None
        length = self._until - self.since
        passed = min(length, max(now - self.since, length / EARLY))
        return self.spent * Decimal(str(round(length / passed, 6)))


class Purses:
    """The budgets of all keys, by id. Whoever was not told of begins with nothing spent: it is new."""

    def __init__(self) -> None:
        self._purses: dict[str, Purse] = {}

    def tell(self, grant: Grant, now: float, spent_since: Callable[[str, float], Decimal]) -> None:
        """What a key, by its id, had spent before this process, since a moment."""
        if grant.budget is not None:
            since, _ = window(grant.budget.per, now)
            self._purses[grant.id] = Purse(grant.budget, spent_since(grant.id, since), now)

    def of(self, grant: Grant, now: float) -> Purse | None:
        """None: this key has no budget."""
        if grant.budget is None:
            return None
        purse = self._purses.get(grant.id)
        if purse is None:
            purse = self._purses[grant.id] = Purse(grant.budget, Decimal(0), now)
        purse.turn(now)
        return purse


def _usd(usd: Decimal) -> str:
    return dollars(usd).decode()
