"""What is set aside before an attempt, of the minute and of the budget of who pays, and settled after it."""

from collections.abc import Sequence
from decimal import Decimal

from proxy.core.access import Grant
from proxy.core.bill import NOTHING
from proxy.core.budget import Hold, Purses
from proxy.core.ranking import Estimate
from proxy.core.routing import Option
from proxy.errors import ModelNotPriced, PenstockError
from proxy.interfaces import Clock, Limiter, TokenClaim


class Claim:
    """Of one attempt."""

    __slots__ = ("_money", "_tokens", "at")

    def __init__(self, tokens: TokenClaim | None = None, money: Hold | None = None, at: float | None = None) -> None:
        """`at`: when money was set aside, seconds since the epoch: what it pays for is of that time."""
        self._tokens = tokens
        self._money = money
        self.at = at

    @property
    def usd(self) -> Decimal:
        """That are set aside."""
        return NOTHING if self._money is None else self._money.usd

    def settle(self, usd: Decimal | None, tokens: int) -> None:
        """It cost so much; what nobody knows counts as what was set aside. Only the first time counts."""
        if self._tokens is not None:
            self._tokens.settle(tokens)
        if self._money is not None:
            self._money.settle(self._money.usd if usd is None else usd)


class Claimed:
    """What is set aside for a call's next attempt, and at which model; nothing to begin with."""

    __slots__ = ("_claim", "option")

    def __init__(self, claim: Claim | None = None, option: Option | None = None) -> None:
        self._claim = claim
        self.option = option

    def put(self, claim: Claim, option: Option) -> None:
        self._claim, self.option = claim, option

    def take(self) -> Claim:
        """From now on it is the attempt's."""
        claim, self._claim, self.option = self._claim or Claim(), None, None
        return claim

    def give_back(self) -> None:
        """It is not needed."""
        self.take().settle(NOTHING, 0)


class Claims:
    """Every method is synchronous: between looking and setting aside, nobody else does."""

    def __init__(self, limiter: Limiter, purses: Purses, clock: Clock) -> None:
        self._limiter = limiter
        self._purses = purses
        self._clock = clock

    def left(self, grant: Grant) -> Decimal | None:
        """USD that this key may still spend. None: it has no budget."""
        now = self._clock.wall()
        purse = self._purses.of(grant, now)
        return None if purse is None else purse.left(now)

    def refusal(self, grant: Grant, dropped: Sequence[Estimate]) -> PenstockError | None:
        """Why none of these may be asked, where that is the budget's doing."""
        now = self._clock.wall()
        purse, reasons = self._purses.of(grant, now), {each.reason for each in dropped}
        if purse is None or "down" in reasons:
            return None
        if "budget" in reasons:
            wanted = [each.reserve for each in dropped if each.reason == "budget" and each.reserve is not None]
            return purse.exhausted(min(wanted, default=None), now)
        unpriced = [each for each in dropped if each.reason == "unpriced"]
        return not_priced(unpriced) if unpriced else None

    def make(self, grant: Grant, found: Estimate) -> Claim:
        """Set aside what this attempt may take. Raises InsufficientQuota, ModelNotPriced, RateLimited or OverLimit."""
        if grant.budget is None and grant.limits.tokens_per_minute is None:
            return Claim()
        money = self._hold(grant, found)
        try:
            tokens = self._limiter.claim(grant, found.tokens)
        except BaseException:
            if money is not None:
                money.settle(NOTHING)
            raise
        return Claim(tokens, money, None if money is None else self._clock.wall())

    def first(self, grant: Grant, order: Sequence[Estimate]) -> Claimed:
        """For the first of these for which there is enough. Raises what `make` does: there is not enough for any."""
        refusal: PenstockError | None = None
        for found in order:
            try:
                return Claimed(self.make(grant, found), found.option)
            except PenstockError as error:
                refusal = refusal or error
        if refusal is not None:
            raise refusal
        return Claimed()

    def _hold(self, grant: Grant, found: Estimate) -> Hold | None:
        now = self._clock.wall()
        purse = self._purses.of(grant, now)
        if purse is None:
            return None
        if found.usd is None or found.reserve is None:
            raise not_priced([found])
        return purse.hold(found.reserve, now)

    def affords(self, grant: Grant, found: Estimate, *, freed: Decimal = NOTHING) -> bool:
        """Could what this attempt may cost be set aside, once so much is given back?"""
        left = self.left(grant)
        return left is None or (found.reserve is not None and found.reserve <= left + freed)


def not_priced(unpriced: Sequence[Estimate]) -> ModelNotPriced:
    """None of these has a known price: of some no more than that of the service tier is missing."""
    names = ", ".join(
        each.option.name if each.service is None else f'{each.option.name} with `service_tier` "{each.service}"'
        for each in unpriced
    )
    tiered = all(each.service is not None and each.usd is not None for each in unpriced)
    remedy = "leave `service_tier` out" if tiered else 'its operator may set one (models."…".price)'
    return ModelNotPriced(
        f"This key has a budget, and no price of {names} is known to this proxy: {remedy}.",
        param="service_tier" if tiered else "model",
    )
