"""How long an answer was in others' hands: a provider's, or a line's at its limits. The rest is what Penstock added.

Rule: a stream is back with its first event, a JSON answer with its end: until then there is nothing to give.
`now` is seconds of a clock that never goes back.
"""


class Elsewhere:
    """Time adds up between each `go` and the first `back` after it."""

    __slots__ = ("_away", "_since", "_total")

    def __init__(self) -> None:
        self._total = 0.0
        self._since = 0.0
        self._away = False

    def go(self, now: float) -> None:
        self._since, self._away = now, True

    def back(self, now: float) -> None:
        if self._away:
            self._total += now - self._since
            self._since, self._away = now, False

    def added(self, began: float, now: float) -> float:
        """Seconds since `began` that were not spent elsewhere, for whoever caused all of this."""
        away = self._total + (now - self._since if self._away else 0.0)
        return max(0.0, now - began - away)

    def kept(self, began: float, now: float) -> float:
        """For whoever joined at `began`: seconds since there was something to give, and he was there."""
        return 0.0 if self._away else max(0.0, now - max(began, self._since))
