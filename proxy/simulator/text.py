"""Deterministic text: the same seed says the same, on every machine and every Python."""

import hashlib
import re
from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")

_VOCABULARY = (
    "water river valley turbine sluice gate channel reservoir pressure current stream flow meter pipe wheel mill "
    "dam lake level season winter spring autumn summer rain snow cloud mountain forest meadow village harbour bridge "
    "engine shaft bearing copper iron timber stone concrete steel signal needle measure record ledger answer question "
    "reason number figure letter morning evening moment hour century distance weight balance motion silence "
    "carries opens closes follows remembers measures returns crosses reaches gathers releases lowers raises holds "
    "keeps turns begins ends waits moves stores counts shows explains allows prevents repeats saves "
    "quiet steady narrow broad deep shallow cold warm bright hidden patient careful ancient gentle sudden regular "
    "small large early late clear heavy light whole empty certain likely always never often seldom again therefore "
    "because while until after before under above between beyond toward without within along across around "
    "the the the the a a an of of of and and in in to to with for from by at on as is is was its their each every "
    "café naïve Zürich Ærø señor fjord déjà façade 水 川 東京 μm → ½ 🙂 🌊"
)
_WORDS = tuple(_VOCABULARY.split())

# One token: a word's first seven letters with the blank before them, its next seven, a run of newlines, or one sign.
_PIECE = re.compile(r" ?\w{1,7}|\n+|[^\w]")


class Dice:
    """Throws that depend on the seed alone."""

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._block = 0
        self._bytes = iter(b"")

    def byte(self) -> int:
        """0 … 255"""
        for value in self._bytes:
            return value
        self._bytes = iter(hashlib.shake_256(self._seed + self._block.to_bytes(8, "big")).digest(256))
        self._block += 1
        return next(self._bytes)

    def below(self, limit: int) -> int:
        """0 … limit - 1"""
        if limit <= 256:
            return self.byte() % limit
        return int.from_bytes(bytes(self.byte() for _ in range(8)), "big") % limit

    def pick(self, values: Sequence[_T]) -> _T:
        return values[self.below(len(values))]

    def token(self, length: int) -> str:
        """Letters and digits, as in an id."""
        return "".join(self.pick("ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789") for _ in range(length))


def words(dice: Dice, count: int) -> str:
    return " ".join(dice.pick(_WORDS) for _ in range(count))


def pieces(text: str) -> tuple[str, ...]:
    """The text cut into its tokens; joined again they are the text."""
    return tuple(_PIECE.findall(text))


def prose(dice: Dice, at_least: int) -> str:
    """Sentences of at least so many words, a paragraph's end now and then."""
    parts: list[str] = []
    written = 0
    while written < at_least:
        length = 4 + dice.below(9)
        written += length
        parts.extend((_sentence(dice, length), dice.pick((" ", " ", " ", " ", "\n", "\n\n"))))
    return "".join(parts).rstrip()


def _sentence(dice: Dice, length: int) -> str:
    chosen = [dice.pick(_WORDS) for _ in range(length)]
    if length > 7:
        chosen[length // 2] += ","
    text = " ".join(chosen)
    return text[:1].upper() + text[1:] + dice.pick("......!?")
