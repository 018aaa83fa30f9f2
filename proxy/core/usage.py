"""What an answer whose provider says no usage has said so far, to be counted.

Rule: whatever came, something is returned and nothing is raised: an estimate is all that it is for.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from proxy.core.recording import Recording

# `text` and `thinking` are what content in parts has, `input` and `code` what calls of other tools than functions do.
WORDS: Final = frozenset("content refusal reasoning_content reasoning arguments name text thinking input code".split())
# What says the reasoning once more, or what the words were made from.
REPEATED: Final = ("reasoning_details", "thinking_blocks", "annotations", "logprobs")
DEPTH: Final = 4

DELTA: Final = ".delta"
SOUND: Final = "response.audio.delta"


def said(recording: Recording) -> str:
    """The words of an answer, of all its choices or items: text, refusals, reasoning, calls of tools."""
    if recording.head is not None and recording.head.kind == "json":
        return "".join(_words([b"".join(event.raw for event in recording.events)]))
    return "".join(_words(event.data for event in recording.events if event.data is not None))


def _words(pieces: Iterable[bytes]) -> Iterator[str]:
    """Of a JSON answer, or of the events of a stream."""
    heard: set[int] = set()  # items of a Response of which something came already
    for piece in pieces:
        match _parsed(piece):
            case {"choices": list(choices)}:
                for choice in choices:
                    yield from _of_choice(choice)
            case {"output": list(items)}:
                for item in items:
                    yield from _leaves(item, DEPTH)
            case {"type": str(kind), "delta": str(delta), **more} if kind.endswith(DELTA) and kind != SOUND:
                yield delta
                heard.update(at for at in [more.get("output_index")] if type(at) is int)
            case {"type": "response.output_item.done", "item": dict(item), **more}:
                came = type(at := more.get("output_index")) is int and at in heard
                yield from _leaves({"name": item.get("name")} if came else item, DEPTH)


def _parsed(piece: bytes) -> object:
    try:
        return msgspec.json.decode(piece) if piece[:1] not in (b"[", b"") else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _of_choice(choice: object) -> Iterator[str]:
    if isinstance(choice, dict):
        if isinstance(text := choice.get("text"), str):
            yield text
        yield from _leaves(choice.get("delta") or choice.get("message"), DEPTH)


def _leaves(value: Any, depth: int) -> Iterator[str]:
    if not isinstance(value, dict) or not depth:
        return
    for name, inner in value.items():
        if name in REPEATED:
            continue
        if isinstance(inner, str) and name in WORDS:
            yield inner
        elif isinstance(inner, list):
            for item in inner:
                yield from _leaves(item, depth - 1)
        else:
            yield from _leaves(inner, depth - 1)
