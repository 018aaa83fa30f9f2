"""Penstock's own cache of answers, as far as a log shows it: the same prompt again is not asked again.

Rule: the same prompt is the same blocks and the same length. A prompt without ids is never taken for another.
"""

from typing import Final, Literal

from proxy.simulate.trace import Request

SWEPT_FROM: Final = 1000  # answers below which nothing is dropped


class Answers:
    """When the answer to each prompt was complete. `ttl`: seconds from then on in which it is given again."""

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._done: dict[tuple[int, int], float] = {}
        self._sweep_at = SWEPT_FROM

    def find(self, request: Request) -> Literal["hit", "collapsed"] | None:
        """None: it must be asked. `collapsed`: it is being asked, and will be answered with that."""
        done = self._done.get(request.prompt) if request.prompt else None
        if done is None or request.at - done >= self._ttl:
            return None
        return "hit" if done <= request.at else "collapsed"

    def put(self, request: Request, done: float) -> None:
        """It was asked, and the answer is complete at this moment."""
        if request.prompt is None:
            return
        self._done[request.prompt] = done
        if len(self._done) > self._sweep_at:
            self._done = {prompt: at for prompt, at in self._done.items() if request.at - at < self._ttl}
            self._sweep_at = max(SWEPT_FROM, 2 * len(self._done))
