"""What was asked, spent and saved in each of the last minutes, by key and model: what the page shows.

Rule: it is told by the difference between two looks at the same sums that the metrics are (core/tally.py). What came
between two looks belongs to the minute of the later one, so whoever looks does so often.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from proxy.core.tally import SECONDS, Answers, Paid, Tallies, quantile

MINUTE: Final = 60
MINUTES: Final = 60
GROUPS: Final = 2000  # of one minute: those beyond are added up as of nobody
OUTPUT: Final = frozenset({"output", "reasoning", "audio_output"})  # kinds of tokens; all others are input
TIMED: Final = ("hit", "miss", "collapsed", "bypass")  # outcomes whose first token is shown

_NO_TOKENS: Final = (0,) * (len(SECONDS) + 1)
FETCHED: Final = ("miss", "collapsed")  # which count where an answer came of it
_SHADOWS: Final = {"hit": "would_hit", "collapsed": "would_join", "miss": "would_miss"}
_COUNTED: Final = {
    "hit": "hits",
    "stale": "stale",
    "collapsed": "collapsed",
    "miss": "misses",
    "bypass": "bypassed",
    "refused": "refused",
}


@dataclass(slots=True)
class Figures:
    """Of some requests. Money in USD; `input`, `output`: tokens that were paid; `failed`: no answer, or a part of one;
    `first`: by outcome, how many first tokens came within which bounds.
    """

    requests: int = 0
    hits: int = 0
    stale: int = 0
    collapsed: int = 0
    misses: int = 0
    bypassed: int = 0
    refused: int = 0
    failed: int = 0
    input: int = 0
    output: int = 0
    spent: float = 0.0
    saved_cache: float = 0.0
    saved_collapse: float = 0.0
    saved_routing: float = 0.0
    would_save: float = 0.0
    would_hit: int = 0
    would_join: int = 0
    would_miss: int = 0
    saved_unknown: int = 0
    unpriced: int = 0
    first: dict[str, list[int]] = field(default_factory=dict)

    @property
    def saved(self) -> float:
        return self.saved_cache + self.saved_collapse + self.saved_routing

    @property
    def hit_ratio(self) -> float | None:
        """Of all that could be answered, what was out of the cache or by another's call; None where nothing was."""
        again = self.hits + self.stale + self.collapsed
        return again / (again + self.misses) if again + self.misses else None

    def median(self, outcome: str) -> float | None:
        """Seconds to the first token."""
        return quantile(self.first.get(outcome, _NO_TOKENS), 0.5)

    def add(self, other: "Figures") -> None:
        for name in NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for outcome, counts in other.first.items():
            self.time(outcome, counts)

    def time(self, outcome: str, counts: Iterable[int]) -> None:
        """So many first tokens more, by their bounds."""
        mine = self.first.get(outcome, _NO_TOKENS)
        self.first[outcome] = [one + more for one, more in zip(mine, counts, strict=True)]


NUMBERS: Final = tuple(name for name in Figures.__dataclass_fields__ if name != "first")


Place = tuple[str, str]  # provider, model
Minute = dict[str, dict[Place, Figures]]  # by the id of a key, then by place


@dataclass(slots=True)
class _Seen:
    """An answer's sums at the last look."""

    count: int = 0
    tokens: tuple[int, ...] = _NO_TOKENS
    saved: dict[str, float] = field(default_factory=dict)
    shadow: dict[str, int] = field(default_factory=dict)
    unknown: int = 0


class History:
    """The last MINUTES. `now` is seconds since the epoch."""

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies
        self._minutes: dict[int, Minute] = {}  # by when they began, in order
        self._held = 0  # groups of the newest
        self._answers: dict[Answers, _Seen] = {}
        self._paid: dict[Paid, Figures] = {}
        self._rolled: dict[int, dict[Place, Figures]] = {}  # minutes that are over, of all keys
        self._tried: dict[int, dict[Place, tuple[int, int]]] = {}  # before each of the minutes
        self._before: dict[Place, tuple[int, int]] = {}  # at the last look

    def look(self, now: float) -> None:
        """Take over what has changed since the last look."""
        minute = int(now) // MINUTE * MINUTE
        newest = next(reversed(self._minutes), minute)
        if minute < newest - MINUTES * MINUTE:  # the clock was set back: all would stand in one minute for as long
            for held in (self._minutes, self._rolled, self._tried):
                held.clear()
        else:
            minute = max(minute, newest)
        for old in [each for each in self._minutes if each <= minute - MINUTES * MINUTE]:
            del self._minutes[old], self._tried[old]
            self._rolled.pop(old, None)
        if minute not in self._minutes:
            self._tried[minute] = self._before
            self._minutes[minute], self._held = {}, 0
            for over in self._minutes:
                self._of(over, None)  # now, lest whoever looks first adds up an hour
        groups = self._minutes[minute]
        tallies = self._tallies
        for answers in tallies.new_answers:
            answers.is_new = False
            labels = answers.labels
            self._take_answers(self._figures(groups, labels.key, (labels.provider, labels.model)), answers)
        for paid in tallies.new_paid:
            paid.is_new = False
            self._take_paid(self._figures(groups, paid.payer.key, (paid.payer.provider, paid.payer.model)), paid)
        tallies.new_answers, tallies.new_paid = [], []
        self._before = dict(tallies.tried_of)

    def _take_answers(self, figures: Figures, answers: Answers) -> None:
        labels, seen = answers.labels, self._answers.setdefault(answers, _Seen())
        count = answers.count - seen.count
        figures.requests += count
        if labels.outcome in _COUNTED and (labels.outcome not in FETCHED or labels.status[0] in "23"):
            _add(figures, _COUNTED[labels.outcome], count)
        if labels.failed:
            figures.failed += count
        figures.saved_unknown += answers.unknown - seen.unknown
        for would, name in _SHADOWS.items():
            _add(figures, name, answers.shadow.get(would, 0) - seen.shadow.get(would, 0))
        figures.saved_cache += answers.saved.get("cache", 0.0) - seen.saved.get("cache", 0.0)
        figures.saved_collapse += answers.saved.get("collapse", 0.0) - seen.saved.get("collapse", 0.0)
        tokens = tuple(answers.token.counts)
        if tokens != seen.tokens and labels.outcome in TIMED:
            figures.time(labels.outcome, (now - then for now, then in zip(tokens, seen.tokens, strict=True)))
        self._answers[answers] = _Seen(
            answers.count, tokens, dict(answers.saved), dict(answers.shadow), answers.unknown
        )

    def _take_paid(self, figures: Figures, paid: Paid) -> None:
        now = Figures(
            input=sum(tokens for kind, tokens in paid.tokens.items() if kind not in OUTPUT),
            output=sum(tokens for kind, tokens in paid.tokens.items() if kind in OUTPUT),
            spent=paid.usd,
            saved_routing=paid.routing,
            would_save=sum(paid.would_save.values()),
            unpriced=paid.unpriced,
        )
        seen = self._paid.get(paid, Figures())
        for name in ("input", "output", "spent", "saved_routing", "would_save", "unpriced"):
            _add(figures, name, getattr(now, name) - getattr(seen, name))
        self._paid[paid] = now

    def minutes(self, now: float, key: str | None = None) -> Iterator[tuple[int, Figures]]:
        """When each began, and what it holds of this key, or of all; none is left out between the first and now."""
        first = next(iter(self._minutes), None)
        if first is None:
            return
        for began in range(first, max(int(now), next(reversed(self._minutes))) + 1, MINUTE):
            total = Figures()
            for figures in self._of(began, key).values():
                total.add(figures)
            yield began, total

    def tried(self) -> dict[tuple[str, str], tuple[int, int]]:
        """By provider and model: attempts of these minutes, and how many of them failed."""
        before = next(iter(self._tried.values()), {})
        found = {}
        for place, (attempts, failed) in self._tallies.tried_of.items():
            earlier, failed_earlier = before.get(place, (0, 0))
            found[place] = (attempts - earlier, failed - failed_earlier)
        return found

    def models(self, key: str | None = None) -> dict[tuple[str, str], Figures]:
        """Of all minutes, by provider and model, of this key or of all."""
        found: dict[tuple[str, str], Figures] = {}
        for began in self._minutes:
            for place, figures in self._of(began, key).items():
                found.setdefault(place, Figures()).add(figures)
        return found

    def _of(self, began: int, key: str | None) -> dict[Place, Figures]:
        """One minute, by provider and model; of all keys it is added up once, when it is over."""
        keys = self._minutes.get(began, {})
        if key is not None:
            return keys.get(key, {})
        if began in self._rolled:
            return self._rolled[began]
        found: dict[Place, Figures] = {}
        for places in keys.values():
            for place, figures in places.items():
                found.setdefault(place, Figures()).add(figures)
        if self._minutes and began < next(reversed(self._minutes)):
            self._rolled[began] = found
        return found

    def _figures(self, minute: Minute, key: str, place: Place) -> Figures:
        found = minute.get(key, {}).get(place)
        if found is None and self._held >= GROUPS:
            key, place = "", ("", "")
            found = minute.get(key, {}).get(place)
        if found is None:
            found = minute.setdefault(key, {})[place] = Figures()
            self._held += 1
        return found


def _add(figures: Figures, name: str, more: float) -> None:
    setattr(figures, name, getattr(figures, name) + more)
