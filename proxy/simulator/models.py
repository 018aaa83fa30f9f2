"""The catalogue: what the simulator sells, how fast it is and what it costs."""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec


class Model(msgspec.Struct, frozen=True):
    """`first` and `gap` in seconds: to the first byte, then between events. Prices in USD per million tokens.

    `dimensions`: of a model of embeddings, the most that its vectors have; 0 of any other.
    """

    id: str
    created: int
    first: float
    gap: float
    input: str
    cached_input: str
    output: str
    reasoning: bool = False
    dimensions: int = 0

    def listing(self) -> dict[str, object]:
        """The model as `/v1/models` shows it."""
        return {"id": self.id, "object": "model", "created": self.created, "owned_by": "penstock-simulator"}


def _catalogue(*models: Model) -> Mapping[str, Model]:
    return MappingProxyType({model.id: model for model in models})


MODELS: Mapping[str, Model] = _catalogue(
    Model("sim-small", 1735689600, first=0.06, gap=0.005, input="0.10", cached_input="0.025", output="0.40"),
    Model("sim-medium", 1738368000, first=0.15, gap=0.008, input="0.40", cached_input="0.10", output="1.60"),
    Model("sim-large", 1740787200, first=0.30, gap=0.012, input="2.00", cached_input="0.50", output="8.00"),
    Model(
        "sim-reasoning",
        1743465600,
        first=0.40,
        gap=0.010,
        input="1.10",
        cached_input="0.275",
        output="4.40",
        reasoning=True,
    ),
    # For tests and benchmarks: whatever time is measured is not the provider's.
    Model("sim-instant", 1746057600, first=0.0, gap=0.0, input="0.10", cached_input="0.025", output="0.40"),
    Model("sim-embed", 1748736000, first=0.03, gap=0.0, input="0.02", cached_input="0.02", output="0", dimensions=256),
    Model(
        "sim-embed-large",
        1751328000,
        first=0.12,
        gap=0.0,
        input="0.13",
        cached_input="0.13",
        output="0",
        dimensions=1024,
    ),
)
