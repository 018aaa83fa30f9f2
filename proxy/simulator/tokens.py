"""How many tokens a prompt has, and how many of them a provider would find in its own cache.

A token is four bytes of text, begun ones counted: rough, the same each time, and easy to foresee in a test.
"""

from collections.abc import Sequence

import msgspec

_PER_MESSAGE = 4
_PER_ANSWER = 3
_PER_MEDIUM = 85
_MEDIA = frozenset(("image_url", "input_audio", "file", "input_image", "input_file"))
_CACHE_FROM = 1024
_CACHE_STEP = 128


class Prompt(msgspec.Struct, frozen=True):
    """Tokens of the whole prompt, and those of them that are billed as cached."""

    tokens: int
    cached: int


def prompt(messages: Sequence[object], *definitions: object) -> Prompt:
    """Known from the request alone: a long prompt's prefix, all but its last message, counts as seen before.

    `definitions`: of tools and of the answer's form, where there are any.
    """
    counted = [_PER_MESSAGE + _of(message) for message in messages]
    total = _PER_ANSWER + _defined([each for each in definitions if each]) + sum(counted)
    prefix = total - counted[-1] if counted and total >= _CACHE_FROM else 0
    return Prompt(total, prefix - prefix % _CACHE_STEP)


def of_input(value: str | Sequence[int]) -> int:
    """Of a text, or of tokens, that stand alone."""
    return in_text(value) if isinstance(value, str) else len(value)


def _defined(given: list[object]) -> int:
    return in_text(msgspec.json.encode(given).decode()) if given else 0


def _of(value: object) -> int:
    if isinstance(value, str):
        return in_text(value)
    if isinstance(value, list):
        return sum(map(_of, value))
    if isinstance(value, dict):
        kind = value.get("type")
        if isinstance(kind, str) and kind in _MEDIA:
            return _PER_MEDIUM
        return sum(_of(member) for name, member in value.items() if name not in {"role", "type"})
    return 0


def in_text(text: str) -> int:
    return -(-len(text.encode()) // 4)
