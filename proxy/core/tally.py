"""What was answered, paid and saved, added up under labels: what the metrics and the page's figures are read from.

Rule: both are read from these sums, so that they agree. A hit passes here, so it costs one look-up and a few additions.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import accumulate
from typing import NamedTuple

from proxy.core.bill import NOTHING, Bill
from proxy.core.books import Answered
from proxy.core.status import status_label

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
AGAIN = frozenset({"hit", "stale"})
GIVEN = AGAIN | {"collapsed"}


class Histogram:
    """How many values lie at or below each bound and above the one before; the last count is of those beyond all."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.sum += seconds

    def merge(self, counts: Iterable[int], total: float = 0.0) -> None:
        """Add what another one holds."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, counts, strict=True)]
        self.sum += total

    def upto(self) -> list[int]:
        """How many values lie at or below each bound; the last: all of them."""
        return list(accumulate(self.counts))


def quantile(counts: Sequence[int], part: float) -> float | None:
    """The value below which this part of all lies, as if those between two bounds lay evenly there; seconds."""
    wanted, seen = sum(counts) * part, 0
    if not wanted:
        return None
    for index, count in enumerate(counts):
        if seen + count >= wanted and count:
            low = SECONDS[index - 1] if index else 0.0
            high = SECONDS[min(index, len(SECONDS) - 1)]
            return low + (high - low) * (wanted - seen) / count
        seen += count
    return SECONDS[-1]


Key = tuple[str, str, str, str, str, str]


class Labels(NamedTuple):
    """Of requests that are counted together. `key`: Grant.id; `model` is one of a closed set."""

    endpoint: str
    model: str
    provider: str
    outcome: str
    status: str
    key: str

    @property
    def failed(self) -> bool:
        """No answer came, or a part of one. What Penstock refused is none."""
        return self.outcome == "broken" or (self.status[0] == "5" and self.outcome != "refused")


class Answers:
    """Requests of the same labels. `saved`: USD, of those where it is known; `input`, `output`: tokens not paid again.

    `total`, `token`, `overhead`: see Answered.
    """

    __slots__ = (
        "count",
        "input",
        "is_new",
        "labels",
        "output",
        "overhead",
        "saved",
        "shadow",
        "token",
        "total",
        "unknown",
    )

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.is_new = False  # counted since the history last looked
        self.count = 0
        self.total = Histogram()
        self.token = Histogram()
        self.overhead = Histogram()
        self.saved: dict[str, float] = {}  # by cause
        self.input: dict[str, int] = {}
        self.output: dict[str, int] = {}
        self.shadow: dict[str, int] = {}  # how many would have been what
        self.unknown = 0  # given again, and nobody knows what that saved

    def add(self, row: Answered) -> None:
        self.count += 1
        self.total.add(row.total)
        if row.token is not None:
            self.token.add(row.token)
        if row.overhead is not None:
            self.overhead.add(row.overhead)
        if row.saved is not None or row.leader is not None or row.outcome in AGAIN or row.again is not None:
            self._again(row)
        if row.shadow is not None:
            self.shadow[row.shadow] = self.shadow.get(row.shadow, 0) + 1

    def _again(self, row: Answered) -> None:
        """Nobody paid this answer again."""
        cause = "cache" if row.leader is None else "collapse"
        if row.saved:
            self.saved[cause] = self.saved.get(cause, 0.0) + float(row.saved)
        elif row.saved is None and row.outcome in GIVEN and row.status == 200:
            self.unknown += 1
        usage = row.again or row.usage
        if usage is not None and (row.leader is None or row.outcome == "collapsed"):
            self.input[cause] = self.input.get(cause, 0) + usage.input
            self.output[cause] = self.output.get(cause, 0) + usage.output


class Payer(NamedTuple):
    """Whose calls are counted together."""

    provider: str
    model: str
    key: str


class Paid:
    """Bills of the same payer, in USD; `tokens` by kind; `unpriced`: how many had no price.

    `would_save`: by cause, of what was paid in shadow mode.
    """

    __slots__ = (
        "estimated",
        "is_new",
        "overpaid",
        "payer",
        "prompt_cache",
        "routing",
        "said",
        "tokens",
        "unpriced",
        "would_save",
    )

    def __init__(self, payer: Payer) -> None:
        self.payer = payer
        self.is_new = False
        self.said: float | None = None  # None: never
        self.estimated: float | None = None
        self.routing = 0.0
        self.overpaid = 0.0
        self.prompt_cache = 0.0
        self.unpriced = 0
        self.tokens: dict[str, int] = {}
        self.would_save: dict[str, float] = {}

    @property
    def usd(self) -> float:
        return (self.said or 0.0) + (self.estimated or 0.0)

    def add(self, bill: Bill) -> None:
        if bill.usd is None:
            self.unpriced += 1
        elif bill.estimated:
            self.estimated = (self.estimated or 0.0) + float(bill.usd)
        else:
            self.said = (self.said or 0.0) + float(bill.usd)
        routing = bill.routing or NOTHING
        self.routing += float(max(routing, NOTHING))
        self.overpaid += float(max(-routing, NOTHING))
        self.prompt_cache += float(bill.prompt_cache or NOTHING)
        for kind, tokens in bill.usage.parts.items() if bill.usage is not None else ():
            if tokens:
                self.tokens[kind] = self.tokens.get(kind, 0) + tokens

    def would(self, cause: str, usd: Decimal) -> None:
        self.would_save[cause] = self.would_save.get(cause, 0.0) + float(usd)


class Tallies:
    """All of it. What changed since somebody last looked is in `new_answers` and `new_paid`."""

    def __init__(self) -> None:
        self.answers: dict[Key, Answers] = {}
        self.paid: dict[Payer, Paid] = {}
        self.tried_of: dict[tuple[str, str], tuple[int, int]] = {}  # by provider and model: attempts, failed ones
        self.names: dict[str, str] = {}  # of keys, by id
        self.new_answers: list[Answers] = []
        self.new_paid: list[Paid] = []

    def answered(self, row: Answered, model: str, key: str) -> None:
        """`model`: the label of row.model; `key`: the name of row.key."""
        labels = row.endpoint, model, row.provider, row.outcome, status_label(row.status), row.key
        found = self.answers.get(labels)  # a plain tuple: of a kind of its own, it costs as much as all the rest
        if found is None:
            found = self.answers[labels] = Answers(Labels(*labels))
            self.names[row.key] = key
        found.add(row)
        if not found.is_new:
            self._is_new(found)

    def tried(self, provider: str, model: str, *, failed: bool) -> None:
        """An attempt is over."""
        attempts, failures = self.tried_of.get((provider, model), (0, 0))
        self.tried_of[provider, model] = (attempts + 1, failures + failed)

    def refused(self, endpoint: str, status: int) -> None:
        """A request of which nothing else is known."""
        labels = Labels(endpoint, "", "", "refused", status_label(status), "")
        found = self.answers.setdefault(labels, Answers(labels))
        found.count += 1
        if not found.is_new:
            self._is_new(found)

    def _is_new(self, answers: Answers) -> None:
        answers.is_new = True
        self.new_answers.append(answers)

    def payer(self, provider: str, model: str, key_id: str, key: str) -> Paid:
        """To which a bill is to be added."""
        payer = Payer(provider, model, key_id)
        found = self.paid.get(payer)
        if found is None:
            found = self.paid[payer] = Paid(payer)
            self.names[key_id] = key
        if not found.is_new:
            found.is_new = True
            self.new_paid.append(found)
        return found
