"""What has come of a batch so far, and the same in words.

Rule: what is not known is counted apart, and in no sum.
"""

from decimal import Decimal, InvalidOperation
from typing import Literal

import msgspec

from proxy.core.batch import Answer, Failure, Wrong, is_good
from proxy.core.batch_faults import Faults

Outcome = Literal["hit", "joined", "asked"]


class Figures(msgspec.Struct):
    """What has come of a batch so far. Of its `total` lines `taken` were answered by an earlier run, and `wrong` are no
    requests; the others are counted as their results come. `hits` and `joined` are of those that were `answered`. USD:
    as far as that is known, which it is of `priced` calls and not of `unpriced` ones. `faults`: what went wrong.
    """

    total: int
    taken: int = 0
    wrong: int = 0
    answered: int = 0
    hits: int = 0
    joined: int = 0
    failed: int = 0
    cost: Decimal = Decimal(0)
    saved: Decimal = Decimal(0)
    priced: int = 0
    unpriced: int = 0
    faults: Faults = msgspec.field(default_factory=Faults)

    @property
    def done(self) -> int:
        return self.taken + self.wrong + self.answered + self.failed

    @property
    def left(self) -> int:
        return self.total - self.done

    @property
    def errors(self) -> int:
        return self.wrong + self.failed

    def found_wrong(self, wrong: Wrong) -> None:
        """A line is no request."""
        self.wrong += 1
        self.faults.add(wrong)

    def add(self, answer: Answer | Failure) -> None:
        """One more result."""
        if isinstance(answer, Failure):
            self.failed += 1
            self.unpriced += answer.sent
            self.faults.add(answer)
            return
        good, outcome = is_good(answer), outcome_of(answer.headers.get("cache-status", ""))
        self.answered += good
        self.hits += good and outcome == "hit"
        self.joined += good and outcome == "joined"
        if not good:
            self.failed += 1
            self.faults.add(answer)
        cost = _usd(answer.headers.get("x-penstock-cost-usd"))
        self.cost += cost or 0
        self.saved += _usd(answer.headers.get("x-penstock-saved-usd")) or 0
        self.priced += cost is not None and outcome == "asked"
        self.unpriced += cost is None and good


def outcome_of(cache_status: str) -> Outcome:
    """What `Cache-Status` says of an answer; whoever was asked for a part of it was asked."""
    said = {part.strip() for part in cache_status.split(";")}
    return "hit" if "hit" in said else "joined" if "collapsed" in said else "asked"


def _usd(said: str | None) -> Decimal | None:
    try:
        found = None if said is None else Decimal(said)
    except InvalidOperation:
        return None
    return found if found is not None and found.is_finite() else None


def seconds_left(figures: Figures, elapsed: float) -> float | None:
    """Seconds until all is done, if it goes on as it has in these; None where nobody can tell."""
    came = figures.answered + figures.failed
    return figures.left * elapsed / came if came and elapsed > 0 else None


def progress_words(figures: Figures, left: float | None) -> str:
    """A line that says how far it is. `left` in seconds."""
    share = figures.done / figures.total if figures.total else 1.0
    said = [f"{figures.done:,} of {figures.total:,} done ({share:.0%})", *counts(figures), *money(figures)]
    if left is not None:
        said.append(f"about {span(left)} left")
    return ", ".join(said)


def counts(figures: Figures) -> list[str]:
    """`312 hits`, `40 joined`, `3 errors`: in words, what there is always, errors where there are some."""
    said = [several(figures.hits, "hit"), f"{figures.joined:,} joined"]
    return [*said, several(figures.errors, "error")] if figures.errors else said


def several(count: int, noun: str) -> str:
    """`1 line`, `5,000 lines`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def money(figures: Figures) -> list[str]:
    """What it cost, as far as that is known, and what it saved."""
    known = f"cost {dollars(figures.cost)}" if figures.priced or not figures.unpriced else "cost unknown"
    unknown = f" and {figures.unpriced:,} of unknown cost" if figures.unpriced and figures.priced else ""
    return [known + unknown, f"saved {dollars(figures.saved)}"]


def dollars(usd: Decimal) -> str:
    """For people: to the cent, and of less than a hundred dollars more of it."""
    return f"${usd:,.2f}" if usd >= 100 else f"${usd:,.4f}" if usd >= Decimal("0.01") or not usd else f"${usd:.6f}"


def span(seconds: float) -> str:
    """A time for people: its largest unit, and a figure of it."""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(1, round(seconds))} s"
