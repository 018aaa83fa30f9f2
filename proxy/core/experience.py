"""What models have really answered: how long, how soon, and how much of a prompt their provider had cached.

Rule: old answers fade, one odd answer moves little, and what nobody knows yet is taken for better than it probably is:
a model that is never tried is never known.

An answer's length = what this kind of request gets in this route (by the length of its prompt) × the model's verbosity.
Models get different requests, since they are ranked by request: their plain means would not compare.
"""

from math import sqrt
from typing import Annotated, Final

import msgspec

from proxy.core.routing import Place

MODELS: Final = 2000  # of a route, and places, that are remembered
RECENT: Final = 300.0  # answers that a mean is made of, more or less
AN_ANSWER: Final = 200.0  # tokens, before anything is known
RARELY: Final = 4.0 * AN_ANSWER
EXCEEDED: Final = 4.0  # times the mean: lengths are about exponential, so that one in 50 is longer
UNTRIED: Final = 0.25  # a model that was not tried is taken for so much terser than the tersest that was
DOUBT: Final = 0.5  # after n answers a model is taken for so much / √n terser than they say
ELSEWHERE: Final = 8.0  # answers to requests of other kinds that make as sure as one to this kind
ODD: Final = 100.0  # times what was expected: an answer that is longer counts as so long, and so for a model
FEW: Final = 3.0  # answers below which a kind is thought of as all others are

Weight = Annotated[float, msgspec.Meta(ge=0, le=1e15)]


class Mean(msgspec.Struct, frozen=True, array_like=True):
    """A mean of the last values, RECENT of them or so, each counting the same until then."""

    value: Weight = 0.0
    weight: Annotated[float, msgspec.Meta(ge=0, le=RECENT)] = 0.0

    def after(self, value: float) -> "Mean":
        weight = min(RECENT, self.weight + 1)
        return Mean(self.value + (value - self.value) / weight, weight)

    def toward(self, prior: float, weight: float = 1.0) -> float:
        """The mean, with so many values more that it was taken for before anything was known."""
        return (self.value * self.weight + prior * weight) / (self.weight + weight)


UNKNOWN: Final = Mean()


class Verbosity(msgspec.Struct, frozen=True, array_like=True):
    """Tokens that a model wrote, and that were to be expected of a model of verbosity 1; `answers`: how many of them,
    `kinds`: by kind of request.

    Sums, not a mean of ratios: a long answer costs more than a short one, and counts for more.
    """

    wrote: Weight = 0.0
    expected: Weight = 0.0
    answers: Annotated[float, msgspec.Meta(ge=0, le=RECENT)] = 0.0
    kinds: dict[int, Weight] = {}

    def after(self, wrote: float, expected: float, kind: int) -> "Verbosity":
        fade = 1.0 if self.answers < RECENT else 1.0 - 1.0 / RECENT
        kinds = {**self.kinds, kind: min(RECENT, self.kinds.get(kind, 0.0) + 1)}
        return Verbosity(
            self.wrote * fade + wrote, self.expected * fade + expected, min(RECENT, self.answers + 1), kinds
        )

    @property
    def factor(self) -> float:
        return min(ODD, self.wrote / self.expected) if self.expected > 0 else 1.0

    def hoped(self, waiting: int, terse: float, kind: int) -> float:
        """What is hoped of it for a request of this kind; `terse`: the factor of the tersest model.

        `waiting` answers are under way: the short ones come first, so those that are there are not all.
        """
        count = self.answers + waiting
        if not count:
            return UNTRIED * terse
        pending = max(self.factor, terse) if self.answers else terse
        likely = (self.factor * self.answers + pending * waiting) / count
        return likely * max(UNTRIED, 1.0 - DOUBT / sqrt(self.kinds.get(kind, 0.0) + count / ELSEWHERE))


NEVER: Final = Verbosity()


class Lengths(msgspec.Struct):
    """The lengths of one route's answers: what each kind of request gets, and how verbose each model is."""

    kinds: dict[int, Mean] = {}
    every: Mean = Mean(AN_ANSWER, FEW)
    models: dict[Place, Verbosity] = {}

    def usual(self, prompt: int, *, follows: bool) -> float:
        """Tokens that a model of verbosity 1 answers to a prompt of so many tokens, the first of its row or a later."""
        return self.kinds.get(_kind(prompt, follows), UNKNOWN).toward(self.every.value, FEW)

    def hoped(self, place: Place, waiting: int, prompt: int, *, follows: bool) -> float:
        """The same of this model, as far as anyone hopes; `waiting`: its answers that are under way."""
        terse = min((known.factor for known in self.models.values()), default=1.0)
        verbosity = self.models.get(place, NEVER).hoped(waiting, terse, _kind(prompt, follows))
        return verbosity * self.usual(prompt, follows=follows)

    def rarely(self, place: Place, prompt: int, *, follows: bool) -> float:
        """Tokens that this model's answers rarely exceed."""
        known = self.models.get(place, NEVER)
        return EXCEEDED * max(known.factor, 0.01) * self.usual(prompt, follows=follows)

    def answered(self, place: Place, prompt: int, output: float, *, follows: bool) -> None:
        expected, kind = self.usual(prompt, follows=follows), _kind(prompt, follows)
        output = max(1.0, min(output, ODD * max(expected, AN_ANSWER)))  # none is empty: who says 0 does not count
        known = self.models[place] = self.models.pop(place, NEVER).after(output, expected, kind)
        plain = output / max(known.factor, 0.01)
        self.kinds[kind] = self.kinds.get(kind, UNKNOWN).after(plain)
        self.every = self.every.after(plain)
        if len(self.models) > MODELS:
            del self.models[next(iter(self.models))]


def _kind(prompt: int, follows: bool) -> int:
    """Requests are told apart by the binary logarithm of their tokens, and by whether they follow another."""
    return 2 * max(0, prompt).bit_length() + follows


class Experience(msgspec.Struct):
    """`lengths` by route, `first` (seconds to the first token) and `trust` by place: the share of what was believed to
    be cached that was billed as such.
    """

    lengths: dict[str, Lengths] = {}
    first: dict[Place, Mean] = {}
    trust: dict[Place, Mean] = {}

    def of(self, route: str) -> Lengths:
        return self.lengths.setdefault(route, Lengths())

    def soon(self, place: Place) -> float | None:
        """Seconds to the first token; None: nobody knows."""
        known = self.first.get(place)
        return None if known is None else known.value

    def trusted(self, place: Place, prior: float) -> float:
        """How much of what is believed to be cached there is: 0 to 1."""
        return self.trust.get(place, UNKNOWN).toward(prior)

    def streamed(self, place: Place, first: float) -> None:
        """The first token came after so many seconds."""
        _keep(self.first, place, first)

    def cached(self, place: Place, *, believed: int, billed: int) -> None:
        """So many tokens were believed to be cached, so many were billed as such."""
        if believed > 0:
            _keep(self.trust, place, min(1.0, billed / believed))


def _keep(means: dict[Place, Mean], place: Place, value: float) -> None:
    means[place] = means.pop(place, UNKNOWN).after(value)
    if len(means) > MODELS:
        del means[next(iter(means))]
