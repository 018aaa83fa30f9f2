"""What an answer whose provider says no usage has said so far, to be counted.

Rule: whatever came, something is returned and nothing is raised: an estimate is all that it is for.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from proxy.core.recording import Recording
from proxy.core.sse import Event

# `text` and `thinking` are what content in parts has.
WORDS = ("content", "refusal", "reasoning_content", "reasoning", "arguments", "name", "text", "thinking")
REPEATED = ("reasoning_details", "thinking_blocks")  # says the reasoning once more


def said(recording: Recording) -> str:
    """The words of an answer, of all its choices: text, refusals, reasoning, calls of tools."""
    if recording.head is not None and recording.head.kind == "json":
        return "".join(_words(b"".join(event.raw for event in recording.events)))
    return "".join(_of_events(recording.events))


def _of_events(events: Sequence[Event]) -> Iterator[str]:
    for event in events:
        if event.data is not None and event.data[:1] == b"{":
            yield from _words(event.data)


def _words(data: bytes) -> Iterator[str]:
    try:
        chunk = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            yield from _leaves(choice.get("delta") or choice.get("message"), 4)


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
