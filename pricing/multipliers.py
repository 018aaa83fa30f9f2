"""What a provider's own counts teach of its models' tokenizers.

Rule: values that are replaced and never changed. One absurd `usage` spoils nothing, and what is kept stays bounded.
"""

import math
from typing import Annotated, Final

import msgspec

from pricing.tokens import Count

LEAST, SURE, STRIDE, FARTHEST = 1000, 20.0, 0.25, 2.0


class Learned(msgspec.Struct, frozen=True):
    """How far a provider's counts of a model's text are from ours: a mean of logarithms that no absurd count spoils.

    A new count is worth as much as those before, up to SURE; then older ones fade. It moves the mean as if it were at
    most STRIDE away from it, and a prompt of less than LEAST tokens moves it less, since it is mostly frame.
    """

    logarithm: Annotated[float, msgspec.Meta(ge=-FARTHEST, le=FARTHEST)] = 0.0
    weight: Annotated[float, msgspec.Meta(ge=1.0, le=SURE)] = 1.0

    @property
    def factor(self) -> float:
        return math.exp(self.logarithm)

    def after(self, counted: int, actual: int) -> "Learned":
        """What is known after a text that we counted as so many tokens (nothing learned in it), and they as so many."""
        if counted <= 0 or actual <= 0:
            return self
        worth = min(1.0, counted / LEAST)
        away = math.log(actual) - math.log(counted) - self.logarithm
        step = max(-STRIDE, min(STRIDE, away)) * worth / (self.weight + worth)
        logarithm = max(-FARTHEST, min(FARTHEST, self.logarithm + step))
        return Learned(logarithm, min(SURE, self.weight + worth))


UNTAUGHT: Final = Learned()
MODELS: Final = 1000  # that are remembered of a provider; the one that was not heard of for longest goes first


class Multipliers(msgspec.Struct, frozen=True):
    """What was learned, by provider and model. A value: `after` makes a new one. Kept as JSON by msgspec."""

    learned: dict[str, dict[str, Learned]] = {}

    def of(self, provider: str, model: str) -> float:
        """The factor for `Count.times`; 1.0 of what was never heard of."""
        return self.learned.get(provider, {}).get(model, UNTAUGHT).factor

    def after(self, provider: str, model: str, count: Count, prompt_tokens: int) -> "Multipliers":
        """After a usage's `prompt_tokens` for what `Prompt.under` counted. Only prompts of nothing but text teach."""
        if count.estimated or count.text <= 0 or prompt_tokens <= 0:
            return self
        models = dict(self.learned.get(provider, {}))
        models[model] = models.pop(model, UNTAUGHT).after(count.text, prompt_tokens)
        if len(models) > MODELS:
            del models[next(iter(models))]
        return Multipliers(self.learned | {provider: models})
