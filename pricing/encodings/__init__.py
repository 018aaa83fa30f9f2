"""The encodings of tiktoken, built from the ranks that are packaged here, and counting with them.

Rule: nothing is downloaded and nothing is cached on disk. tiktoken fetches its ranks at run time, with no timeout, in
`get_encoding` and `encoding_for_model`: neither is ever called.

A file `NAME.xz` holds the tokens in the order of their ranks, each with its length before it, in one byte. They are
OpenAI's own (MIT); `python -m bench.encodings` makes the files.
"""

import lzma
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from importlib import resources
from typing import Final, Literal, get_args

from tiktoken import Encoding

Name = Literal["o200k_base", "cl100k_base"]
NAMES: Final[tuple[Name, ...]] = get_args(Name)

PIECE: Final = 20_000
"""Characters that are encoded at a time: beyond it a run of one character takes long, or makes tiktoken panic."""

# As in tiktoken_ext/openai_public.py, to the letter.
_O200K = (
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
    r"""\p{N}{1,3}""",
    r""" ?[^\s\p{L}\p{N}]+[\r\n/]*""",
    r"""\s*[\r\n]+""",
    r"""\s+(?!\S)""",
    r"""\s+""",
)
_CL100K = (
    r"""'(?i:[sdmt]|ll|ve|re)""",
    r"""[^\r\n\p{L}\p{N}]?+\p{L}++""",
    r"""\p{N}{1,3}+""",
    r""" ?[^\s\p{L}\p{N}]++[\r\n]*+""",
    r"""\s++$""",
    r"""\s*[\r\n]""",
    r"""\s+(?!\S)""",
    r"""\s""",
)
_PATTERNS: Final[dict[Name, str]] = {"o200k_base": "|".join(_O200K), "cl100k_base": "|".join(_CL100K)}
_SPECIAL: Final[dict[Name, dict[str, int]]] = {
    "o200k_base": {"<|endoftext|>": 199999, "<|endofprompt|>": 200018},
    "cl100k_base": {
        "<|endoftext|>": 100257,
        "<|fim_prefix|>": 100258,
        "<|fim_middle|>": 100259,
        "<|fim_suffix|>": 100260,
        "<|endofprompt|>": 100276,
    },
}


class Encodings:
    """The encodings, each loaded when it is first asked for, and once: 0.3 s and 70 MB, so ask first in a thread.

    `lock` keeps two threads from loading the same one: a `threading.Lock()` that nobody else holds.
    """

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        self._lock = lock
        self._loaded: dict[Name, Encoding] = {}

    def get(self, name: Name) -> Encoding:
        encoding = self._loaded.get(name)
        if encoding is None:
            with self._lock:
                encoding = self._loaded.get(name)  # another thread may have loaded it while this one waited
                if encoding is None:
                    encoding = self._loaded[name] = load(name)
        return encoding

    def count(self, text: str, name: Name) -> int:
        """Tokens of a text under an encoding. What reads as a special token is text, a lone surrogate is U+FFFD.

        The GIL is free while it encodes: 8 KB take a millisecond or two, and longer texts belong in a thread.
        """
        encode = self.get(name).encode
        return sum(len(encode(piece, disallowed_special=())) for piece in pieces(text))


def load(name: Name) -> Encoding:
    """A new encoding. Raises KeyError for a name that is none of NAMES."""
    pattern, special = _PATTERNS[name], _SPECIAL[name]
    ranks = {token: rank for rank, token in enumerate(tokens(name))}
    return Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=special)


def tokens(name: Name) -> Iterator[bytes]:
    """The tokens of an encoding in the order of their ranks."""
    packed = lzma.decompress(resources.files(__name__).joinpath(f"{name}.xz").read_bytes())
    start, end = 0, len(packed)
    while start < end:
        after = start + 1 + packed[start]
        yield packed[start + 1 : after]
        start = after


def pieces(text: str, size: int = PIECE) -> Iterator[str]:
    """The text in pieces of at most `size` characters, each cut before a space where there is one.

    No token reaches over the space between two words, so the tokens of the pieces are those of the whole.
    """
    start = 0
    while len(text) - start > size:
        cut = _before_space(text, start, start + size)
        yield text[start:cut]
        start = cut
    yield text[start:]


def _before_space(text: str, start: int, end: int) -> int:
    """Where to cut text[start:end + 1]: before its last run of spaces; at `end` where there is none."""
    space = text.rfind(" ", start + 1, end + 1)
    # A run of spaces is one token, and the last of them begins the word: the cut goes before all of them.
    before = _before_run(text, start, space) if space > 0 else start
    return before if before > start else end


def _before_run(text: str, start: int, end: int) -> int:
    """Where the spaces begin that text[start:end] ends with: `rstrip(" ")` would look at each of them, slowly."""
    length = 1 << (end - start).bit_length()
    while length:
        if text.endswith(" " * length, start, end):
            end -= length
        length >>= 1
    return end


_LETTERS: Final = bytes(range(0x41, 0x5B)) + bytes(range(0x61, 0x7B))
_SPACES: Final = b" \t\r\n"
_BEYOND: Final = bytes(range(0x80, 0x100))  # the bytes of what is not ASCII


def roughly(text: str) -> int:
    """More tokens than a text has under either encoding, fast (5 ms for 1 MiB) and with nothing loaded.

    1.2 to 2 times the count of prose, code and data, 2 to 3 times of other scripts; only a text made for it has more.
    """
    return sum(map(_roughly, pieces(text)))


def _roughly(text: str) -> int:
    raw = text.encode("utf-8", "replace")
    unlettered = raw.translate(None, _LETTERS)
    marks = unlettered.translate(None, _SPACES)
    letters, spaces = len(raw) - len(unlettered), len(unlettered) - len(marks)
    if len(raw) == len(text):
        if 40 * spaces < len(raw):
            return len(raw)  # no words: base64, a key, a run of something
        return math.ceil(0.4 * letters + 0.25 * spaces) + len(marks)
    ascii_marks = marks.translate(None, _BEYOND)
    return math.ceil(0.4 * letters + 0.25 * spaces + 0.5 * (len(marks) - len(ascii_marks))) + len(ascii_marks)
