"""Log probabilities that depend on the token, its place and the seed alone: the same in a stream and in JSON."""

from typing import Any

from proxy.simulator.text import Dice, words


def logprobs(tokens: tuple[str, ...], seed: bytes, top: int) -> list[dict[str, Any]]:
    """For each token `{token, logprob, bytes, top_logprobs}`; `top` alternatives, the token itself the first."""
    dice = Dice(seed + b"logprobs")
    return [_entry(token, dice, top) for token in tokens]


def _entry(token: str, dice: Dice, top: int) -> dict[str, Any]:
    likely = -dice.below(100) / 100
    own = _told(token, likely)
    others = [_told(" " + words(dice, 1), round(likely - 1.5 * rank, 2)) for rank in range(1, top)]
    return {**own, "top_logprobs": [own, *others] if top else []}


def _told(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}
