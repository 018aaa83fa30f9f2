"""What was asked and served: the other side of the proxy's own figures."""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from proxy.simulator.delivery import Outcome

REMEMBERED: Final = 100_000  # calls, one by one, and inputs


@dataclass(slots=True)
class Served:
    """Per model. Tokens are those that were sent: of a caller who left half-way, those up to there."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(slots=True)
class Line:
    """One call: the model as it was named, options and all, how it ended (`open` until then), the tokens sent."""

    endpoint: str
    asked: str = ""
    ended: str = "open"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(slots=True)
class Counts:
    """`calls` = `open` + `hung_up` + `answered` + `failed`, always. `inputs`: of embeddings, each as JSON."""

    calls: int = 0
    open: int = 0
    hung_up: int = 0
    answered: int = 0
    failed: int = 0
    by_model: dict[str, Served] = field(default_factory=dict)
    inputs: Counter[str] = field(default_factory=Counter)
    lines: deque[Line] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def begin(self, endpoint: str) -> Line:
        self.calls += 1
        self.open += 1
        line = Line(endpoint)
        self.lines.append(line)
        return line

    def end(self, line: Line, outcome: Outcome) -> None:
        self.open -= 1
        line.ended = outcome.value
        match outcome:
            case Outcome.ANSWERED:
                self.answered += 1
            case Outcome.HUNG_UP:
                self.hung_up += 1
            case Outcome.FAILED:
                self.failed += 1

    def called(self, model: str, inputs: Iterable[str]) -> None:
        """It is a call of this model."""
        self._of(model).calls += 1
        for each in inputs:
            if each in self.inputs or len(self.inputs) < REMEMBERED:
                self.inputs[each] += 1

    def sent(self, line: Line, model: str, *, prompt: int, cached: int, completion: int) -> None:
        """It was sent so many tokens, and is billed for them."""
        for each in (self._of(model), line):
            each.prompt_tokens += prompt
            each.cached_tokens += cached
            each.completion_tokens += completion

    def _of(self, model: str) -> Served:
        return self.by_model.setdefault(model, Served())

    def shown(self) -> dict[str, Any]:
        """All but the single calls."""
        figures = ("calls", "open", "hung_up", "answered", "failed")
        by_model = {model: asdict(served) for model, served in self.by_model.items()}
        return {**{name: getattr(self, name) for name in figures}, "by_model": by_model}


class Tally:
    """The counts since they were last forgotten."""

    def __init__(self) -> None:
        self.counts = Counts()

    def forget(self) -> None:
        """All to 0. A call that is open goes on counting where it began."""
        self.counts = Counts()
