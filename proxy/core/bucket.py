"""What was used in the last 60 seconds, what is under way, and whether more fits.

Rule 1: no 60 seconds, wherever they begin, hold more than the limit. What is not exact errs to the late side: what came
within one tick counts until the last of it is 60 seconds old. So a window costs at most 60 / TICK cells.
Rule 2: of requests, tokens and places all are taken or none, and each is given back or settled once.

`now` is seconds of a clock that never goes back. Should it do so all the same, what lies in the future counts from now:
nothing is held for more than 60 seconds.
"""

import math
from collections import deque
from typing import Final, Literal, Self

import msgspec

from proxy.core.access import UNLIMITED, Limits

MINUTE: Final = 60.0
TICK: Final = 1 / 16
OFTEN: Final = 256  # quotas that are kept before idle ones are looked for

Kind = Literal["requests", "tokens", "concurrent"]


class Cell:
    """What came within one tick, and when the last of it did. `live`: it is still in its window."""

    __slots__ = ("amount", "began", "last", "live")

    def __init__(self, amount: int, now: float) -> None:
        self.amount = amount
        self.began = now
        self.last = now
        self.live = True


class Window:
    """Amounts of the last 60 seconds. The limit is whoever's asks: it may change while the window lasts."""

    __slots__ = ("_cells", "_used")

    def __init__(self) -> None:
        self._cells: deque[Cell] = deque()
        self._used = 0

    def used(self, now: float) -> int:
        cells = self._cells
        if cells and (now - cells[0].last >= MINUTE or now < cells[-1].last):
            self._turn(now)
        return self._used

    def empty(self, now: float) -> bool:
        """Is there nothing left that could be changed?"""
        self.used(now)
        return not self._cells

    def add(self, amount: int, now: float) -> Cell:
        """Count it, whether it fits or not; `amount` is above 0. The cell is what `change` wants."""
        self.used(now)
        cells = self._cells
        self._used += amount
        if cells:
            cell = cells[-1]
            if now - cell.began < TICK:
                cell.amount += amount
                cell.last = now
                return cell
        cell = Cell(amount, now)
        cells.append(cell)
        return cell

    def change(self, cell: Cell, by: int, now: float) -> Cell:
        """Count more, or less, of what was added in this cell; the cell in which the rest is now.

        What has left the window is not given back, and what is used beyond it counts from now.
        """
        self.used(now)
        if not cell.live:
            return self.add(by, now) if by > 0 else cell
        cell.amount += by
        self._used += by
        cells = self._cells
        while cells and not cells[-1].amount:
            cells.pop().live = False
        return cell

    def wait(self, amount: int, limit: int, now: float) -> float:
        """Seconds until so much more fits; 0: now, inf: never."""
        over = self.used(now) + amount - limit
        if over <= 0:
            return 0.0
        if amount <= limit:
            for cell in self._cells:
                over -= cell.amount
                if over <= 0:
                    return cell.last + MINUTE - now
        return math.inf

    def standing(self, now: float) -> tuple[int, float]:
        """What is used, and in how many seconds nothing of that will be in it any more."""
        used = self.used(now)
        return used, self._cells[-1].last + MINUTE - now if used else 0.0

    def _turn(self, now: float) -> None:
        cells = self._cells
        while cells and now - cells[0].last >= MINUTE:
            cell = cells.popleft()
            cell.live = False
            self._used -= cell.amount
        if cells and now < cells[-1].last:
            for cell in cells:
                cell.began, cell.last = min(cell.began, now), min(cell.last, now)


class Full(msgspec.Struct, frozen=True):
    """Why a request does not fit. `seconds`: until it does, if nothing else comes; inf: it is larger than the limit
    `of` its kind; 0, for what is under way: nobody knows.
    """

    of: Kind
    seconds: float
    limit: int


class Quota:
    """What one key, one provider or one model of it may use, and what it uses. `inside`: requests under way.

    `limits` may be replaced at any time: what was used stays used.
    """

    __slots__ = ("inside", "limits", "requests", "tokens")

    def __init__(self, limits: Limits = UNLIMITED) -> None:
        self.limits = limits
        self.requests = Window()
        self.tokens = Window()
        self.inside = 0

    def fits(self, tokens: int, now: float) -> bool:
        """One request more, of so many tokens. With 0 only requests and places count."""
        limits = self.limits
        most = limits.max_concurrent
        if most is not None and self.inside >= most:
            return False
        most = limits.requests_per_minute
        if most is not None and self.requests.used(now) >= most:
            return False
        most = limits.tokens_per_minute
        return most is None or not tokens or self.tokens.used(now) + tokens <= most

    def take(self, tokens: int, now: float) -> "Held":
        """Count one request more, which `fits`."""
        limits = self.limits
        self.inside += 1
        request = None if limits.requests_per_minute is None else self.requests.add(1, now)
        spent = self.tokens.add(tokens, now) if tokens and limits.tokens_per_minute is not None else None
        return Held(self, request, spent, tokens)

    def full(self, tokens: int, now: float) -> Full | None:
        """What stands longest against one request more; None: it fits."""
        limits, found = self.limits, None
        if limits.max_concurrent is not None and self.inside >= limits.max_concurrent:
            found = Full("concurrent", 0.0, limits.max_concurrent)
        if (most := limits.requests_per_minute) is not None:
            found = _longer(found, Full("requests", self.requests.wait(1, most, now), most))
        if (most := limits.tokens_per_minute) is not None and tokens:
            found = _longer(found, Full("tokens", self.tokens.wait(tokens, most, now), most))
        return found

    def never(self, tokens: int) -> bool:
        """Is a request of so many tokens larger than the whole limit?"""
        most = self.limits.tokens_per_minute
        return most is not None and tokens > most

    def behind(self, requests: int, tokens: int, now: float, lasting: float) -> float:
        """About how many seconds until so many requests have come in, of so many tokens together, each of which keeps
        its place for `lasting` seconds.
        """
        limits, seconds = self.limits, 0.0
        if (most := limits.max_concurrent) is not None:
            seconds = max(0, self.inside + requests - most) * lasting / most
        if (most := limits.requests_per_minute) is not None:
            seconds = max(seconds, _rounds(self.requests, requests, most, now))
        if (most := limits.tokens_per_minute) is not None and tokens:
            seconds = max(seconds, _rounds(self.tokens, tokens, most, now))
        return seconds

    def idle(self, now: float) -> bool:
        """Is it as if it had never been used? Both windows are looked at, which lets go of what left them."""
        return self.requests.empty(now) & self.tokens.empty(now) and not self.inside


def _longer(found: Full | None, other: Full) -> Full | None:
    return other if other.seconds > (0.0 if found is None else found.seconds) else found


def _rounds(window: Window, amount: int, limit: int, now: float) -> float:
    """Seconds until so much has fitted, one limit's worth a minute."""
    minutes = (amount - 1) // limit
    return minutes * MINUTE + window.wait(amount - minutes * limit, limit, now)


class Held:
    """What one request has of a quota. The end of `with` gives its place back."""

    __slots__ = ("_inside", "_quota", "_request", "_settled", "_spent", "_tokens")

    def __init__(self, quota: Quota, request: Cell | None, spent: Cell | None, tokens: int) -> None:
        self._quota = quota
        self._request = request
        self._spent = spent
        self._tokens = tokens
        self._inside = True
        self._settled = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Give the place back. Once, whoever calls how often, like all the others."""
        if self._inside:
            self._inside = False
            self._quota.inside -= 1

    def settle(self, tokens: int, now: float) -> None:
        """So many tokens were used in the end; only the first time counts."""
        if self._settled:
            return
        self._settled = True
        if self._spent is not None:
            self._quota.tokens.change(self._spent, tokens - self._tokens, now)
        elif tokens > 0 and self._quota.limits.tokens_per_minute is not None:
            self._quota.tokens.add(tokens, now)

    def undo(self, now: float) -> None:
        """It was never made: give all back."""
        self.leave()
        request, self._request = self._request, None
        if request is not None:
            self._quota.requests.change(request, -1, now)
        self.settle(0, now)


class Quotas:
    """Those of many keys, by id. Idle ones are dropped as new ones come, so that at most half of them are."""

    __slots__ = ("_kept", "_most")

    def __init__(self) -> None:
        self._kept: dict[str, Quota] = {}
        self._most = OFTEN

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> Quota | None:
        return self._kept.get(key)

    def of(self, key: str, limits: Limits, now: float) -> Quota:
        """The quota of this key, with these limits from now on. Not to be kept while nothing in it is used."""
        quota = self._kept.get(key)
        if quota is None:
            if len(self._kept) >= self._most:
                self._kept = {id_: kept for id_, kept in self._kept.items() if not kept.idle(now)}
                self._most = max(OFTEN, 2 * len(self._kept))
            quota = self._kept[key] = Quota()
        quota.limits = limits
        return quota
