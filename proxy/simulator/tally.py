"""What was asked and served: the other side of the proxy's own figures."""

from dataclasses import asdict, dataclass, field
from typing import Any

from proxy.simulator.delivery import Outcome


@dataclass(slots=True)
class Served:
    """Per model. Tokens are those that were sent: of a caller who left half-way, those up to there."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(slots=True)
class Counts:
    """`calls` = `open` + `hung_up` + `answered` + `failed`, always."""

    calls: int = 0
    open: int = 0
    hung_up: int = 0
    answered: int = 0
    failed: int = 0
    by_model: dict[str, Served] = field(default_factory=dict)

    def begin(self) -> None:
        self.calls += 1
        self.open += 1

    def end(self, outcome: Outcome) -> None:
        self.open -= 1
        match outcome:
            case Outcome.ANSWERED:
                self.answered += 1
            case Outcome.HUNG_UP:
                self.hung_up += 1
            case Outcome.FAILED:
                self.failed += 1

    def served(self, model: str) -> Served:
        return self.by_model.setdefault(model, Served())

    def shown(self) -> dict[str, Any]:
        return asdict(self)
