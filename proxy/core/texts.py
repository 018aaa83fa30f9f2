"""Legacy text completions: chunks in, the completion out, and the reverse.

Rule: `assemble_text(split_text(completion))` is the completion again. A choice's `text` adds up as the `content` of a
message does in `assemble`, everything else as it does there; so nothing that came is lost.

The chunks have OpenAI's order: per choice its text in pieces, then an empty text with the finish reason; at the very
end a chunk without choices that holds the usage. One choice follows the other.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from proxy.core.assemble import assemble
from proxy.core.split import in_chunks, pieces

_KIND: Final = "text_completion"  # of completions and chunks alike


def assemble_text(chunks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One completion from its chunks, which stay as they are. A choice whose text never came has a null one."""
    whole = assemble({**chunk, "choices": _as_chat(chunk.get("choices"))} for chunk in chunks)
    return whole | {"object": _KIND, "choices": [_as_text(choice) for choice in whole["choices"]]}


def _as_chat(choices: object) -> list[dict[str, Any]]:
    if not isinstance(choices, list):
        return []
    return [choice | {"delta": {"content": choice.get("text")}} for choice in choices if isinstance(choice, dict)]


def _as_text(choice: dict[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in choice.items() if name != "message"}
    return {**rest, "text": choice["message"]["content"]}


def split_text(completion: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The chunks of a completion, which stays as it is; the chunks share its inner values."""
    parts = [part for choice in completion.get("choices") or () for part in _parts(choice)]
    return in_chunks(completion, _KIND, parts)


def _parts(choice: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One choice's part of each of its chunks."""
    text, logprobs = choice.get("text"), _members(choice.get("logprobs"))
    aligned = _aligned(text, logprobs)
    last = dict(choice)
    if isinstance(text, str):
        last["text"] = ""
        nulls = {name: None for name, value in logprobs.items() if value is None}
        for number, piece in enumerate(aligned["tokens"] if aligned else pieces(text)):
            part = {"text": piece, "index": choice.get("index", 0), "finish_reason": None}
            if "logprobs" in choice:
                beside = {name: [values[number]] for name, values in aligned.items()}
                part["logprobs"] = nulls | beside if beside else None
            yield part
    if aligned:
        last["logprobs"] = {n: value for n, value in logprobs.items() if n not in aligned and value is not None} or None
    yield last


def _members(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _aligned(text: object, logprobs: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The lists of logprobs with one item for each token, if the tokens make up the text (they do not where one cuts a
    character)."""
    tokens = logprobs.get("tokens")
    if not text or not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        return {}
    if "".join(tokens) != text:
        return {}
    lists = {name: value for name, value in logprobs.items() if isinstance(value, list)}
    return {name: value for name, value in lists.items() if len(value) == len(tokens)}
