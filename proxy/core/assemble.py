"""Chunks in, the completion that they add up to out.

Rule: nothing that came is lost, and nothing is there that did not come, but for what every completion has: a message's
`role` and `content` and a choice's `finish_reason` (null while none came). For what `split` makes of a completion,
`assemble` gives that completion again.

How values of one member add up:

    null               gives way to anything; stays if only nulls came
    text               pieces are joined
    any other string   joined too, unless it repeats what is there (ids, types and names come again in each delta)
    number, boolean    the last
    object             member by member
    list               extended; an item with an integer `index` joins the earlier item of that index
    tool calls         by index, or by id where providers leave `index` out or give the same to all

Members of the completion and of a choice do not add up: the last that is not null stands.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

# Strings that come in pieces under these names are joined even if a piece repeats all that is there ("ha", "ha").
_TEXT: Final = frozenset(
    {
        *("content", "refusal", "reasoning", "reasoning_content", "thinking", "text", "summary"),
        *("arguments", "input", "data", "transcript"),
    }
)
# These name a thing: the first stands, and no piece is ever added.
_NAMES: Final = frozenset({"id", "type", "role"})
# Azure's first chunk has these empty, and some providers change them from chunk to chunk.
_FIRST: Final = frozenset({"id", "created", "model"})
# `obfuscation` pads each chunk against a listener who counts bytes.
_NOT_KEPT: Final = frozenset({"choices", "usage", "obfuscation"})


def assemble(chunks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One chat.completion from its chat.completion.chunk objects, which stay as they are."""
    completion: dict[str, Any] = {}
    choices: dict[int, _Choice] = {}
    for chunk in chunks:
        for name, value in chunk.items():
            if name == "object":
                completion[name] = "chat.completion"
            elif name not in _NOT_KEPT:
                _stand(completion, name, value)
        if chunk.get("usage") is not None:
            completion["usage"] = chunk["usage"]
        for part in _objects(chunk.get("choices")):
            index = part.get("index")
            index = index if isinstance(index, int) else 0
            choices.setdefault(index, _Choice(index)).add(part)
    completion["object"] = "chat.completion"  # though no chunk may have said so
    completion["choices"] = [choices[index].whole() for index in sorted(choices)]
    return completion


def _objects(values: object) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


class _Choice:
    """One choice while its parts come."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._fields: dict[str, Any] = {"finish_reason": None}
        self._message: dict[str, Any] = {}
        self._calls = _ToolCalls()

    def add(self, part: dict[str, Any]) -> None:
        delta = part.get("delta")
        # Some providers end with the whole `message`, which the deltas have told already; a few send nothing but that.
        if delta is None and not self._message:
            delta = part.get("message")
        if isinstance(delta, dict):
            self._add_delta(delta)
        for name, value in part.items():
            if name == "logprobs":
                self._fields[name] = _joined_logprobs(self._fields.get(name), value)
            elif name not in ("index", "delta", "message"):
                _stand(self._fields, name, value)

    def _add_delta(self, delta: dict[str, Any]) -> None:
        for name, value in delta.items():
            if name == "tool_calls" and isinstance(value, list):
                self._message[name] = self._calls.add(value)
            else:
                self._message[name] = _joined(name, self._message.get(name), value)

    def whole(self) -> dict[str, Any]:
        message = {name: _settled(value) for name, value in self._message.items()}
        message["role"] = message.get("role") or "assistant"
        message.setdefault("content", None)
        return {"index": self._index, "message": message} | {n: _settled(v) for n, v in self._fields.items()}


class _ToolCalls:
    """The calls of one message, in order of appearance."""

    def __init__(self) -> None:
        self._calls: list[Any] = []
        self._by_index: dict[int, dict[str, Any]] = {}
        self._by_id: dict[str, dict[str, Any]] = {}
        self._last: dict[str, Any] | None = None

    def add(self, parts: list[Any]) -> list[Any]:
        for part in parts:
            if isinstance(part, dict):
                self._add(part)
            else:
                self._calls.append(part)
        return self._calls

    def _add(self, part: dict[str, Any]) -> None:
        index, name = part.get("index"), part.get("id")
        call = self._begun(index, name, part)
        if call is None:
            call = {}
            self._calls.append(call)
        for member, value in part.items():
            if member != "index":
                call[member] = _joined(member, call.get(member), value)
        self._last = call
        if isinstance(index, int):
            self._by_index[index] = call
        if isinstance(name, str) and name:
            self._by_id[name] = call

    def _begun(self, index: object, name: object, part: dict[str, Any]) -> dict[str, Any] | None:
        """The call that `part` goes on with, if any."""
        if isinstance(index, int):
            call = self._by_index.get(index)
            known = str(call.get("id") or "") if call else ""
            # Index 0 again with another id: some providers number each delta's calls from 0.
            if not known or not name or name == known:
                return call
        if isinstance(name, str) and name:
            return self._by_id.get(name)
        # Neither index nor id: what says the tool's name begins a call (Gemini), arguments alone go on with the last.
        return None if _says_name(part) else self._last


def _says_name(part: dict[str, Any]) -> bool:
    return any(isinstance(tool := part.get(kind), dict) and tool.get("name") for kind in ("function", "custom"))


def _stand(fields: dict[str, Any], name: str, value: Any) -> None:
    """The last value that is not null stands; but a name that stands is not replaced, nor a finish reason by ""."""
    old = fields.get(name)
    loses = old and (name in _FIRST or (name == "finish_reason" and not value))
    if name not in fields or not (value is None or loses):
        fields[name] = value


class _Text:
    """A string in pieces: joining them one by one would take time in the square of their number."""

    __slots__ = ("_pieces", "_size")

    def __init__(self, piece: str) -> None:
        self._pieces = [piece]
        self._size = len(piece)

    def add(self, piece: str) -> None:
        self._pieces.append(piece)
        self._size += len(piece)

    def __str__(self) -> str:
        return "".join(self._pieces)

    def is_all(self, piece: str) -> bool:
        return len(piece) == self._size and piece == str(self)


def _joined(name: str, old: Any, new: Any) -> Any:
    """What `old` becomes when `new` comes. `old` is ours to change, `new` is not."""
    if new is None:
        return old
    if isinstance(old, _Text) and isinstance(new, str):
        return _joined_text(name, old, new)
    if isinstance(old, dict) and isinstance(new, dict):
        return _joined_members(old, new)
    if old is not None and (isinstance(old, list) or isinstance(new, list)):
        return _joined_lists(_as_parts(old), _as_parts(new))
    return _ours(new)


def _joined_members(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    for member, value in new.items():
        old[member] = _joined(member, old.get(member), value)
    return old


def _joined_text(name: str, old: _Text, new: str) -> _Text:
    if name in _NAMES:
        return _Text(new) if old.is_all("") else old
    if name in _TEXT or not old.is_all(new):
        old.add(new)
    return old


def _joined_lists(old: list[Any], new: list[Any]) -> list[Any]:
    """Items of one delta are distinct: an item joins only what came before its delta."""
    before = {item["index"]: item for item in old if _has_index(item)} if any(map(_has_index, new)) else {}
    for item in new:
        if _has_index(item) and (earlier := before.get(item["index"])):
            _joined_members(earlier, item)
        else:
            old.append(_ours(item))
    return old


def _joined_logprobs(old: Any, new: Any) -> Any:
    """Tokens are never one another's, so their lists are only extended."""
    if not isinstance(new, dict) or not isinstance(old, dict):
        return _ours(new) if new is not None else old
    for member, value in new.items():
        tokens = old.get(member)
        if isinstance(tokens, list) and isinstance(value, list):
            tokens.extend(map(_ours, value))
        else:
            old[member] = _joined(member, tokens, value)
    return old


def _has_index(item: object) -> bool:
    return isinstance(item, dict) and type(item.get("index")) is int


def _as_parts(value: Any) -> list[Any]:
    """Content that comes now as a string, now as a list of parts (Mistral's thinking) becomes parts."""
    if isinstance(value, list):
        return value
    if isinstance(value, str | _Text):
        return [{"type": _Text("text"), "text": _Text(str(value))}] if str(value) else []
    return [value]


def _ours(value: Any) -> Any:
    """A copy to add to."""
    if isinstance(value, str):
        return _Text(value)
    if isinstance(value, dict):
        return {name: _ours(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_ours(item) for item in value]
    return value


def _settled(value: Any) -> Any:
    """A copy with every text joined."""
    if isinstance(value, _Text):
        return str(value)
    if isinstance(value, dict):
        return {name: _settled(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_settled(item) for item in value]
    return value
