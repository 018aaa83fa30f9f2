"""Embeddings, one input at a time: each input of a list is looked up and kept alone, and the answers become one list.

Rule: what is kept of an input is what the provider would have answered to that input alone. A vector is never made or
moved: a response in which each input's cannot be told from the others' has no parts. What is not understood stays to
the byte.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from proxy.core.call import with_members
from proxy.core.vectors import BASE64, FLOAT, in_form

Input = str | list[int]

# What else a request may say of the numbers in a vector (Mistral and Voyage, Cohere, vLLM), and what means float32 in
# the order that base64 has here. Anything else is not ours to convert.
_NUMBERS: Final[Mapping[str, tuple[object, ...]]] = {
    "output_dtype": (None, "float"),
    "embedding_types": (None, ["float"]),
    "embed_dtype": (None, "float32"),
    "endianness": (None, "native", "little"),
}

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_index = msgspec.json.Decoder(int)


class Part(msgspec.Struct, frozen=True):
    """The response to one input. `asked`: the form that was asked for when it was made; `fresh`: it was made just now,
    for this request."""

    body: bytes
    asked: str
    fresh: bool


MOST_INPUTS: Final = 8192  # four times what OpenAI takes: to tell more of them apart would take too long


def inputs_of(body: Mapping[str, Any]) -> list[Input] | None:
    """The inputs of a request, in order; None where they cannot be told apart, which is for the provider to judge."""
    asked: Any = body.get("input")
    if body.get("late_chunking"):
        return None  # each vector depends on the whole list (Jina)
    if _is_input(asked):
        return [asked]
    if type(asked) is list and 0 < len(asked) <= MOST_INPUTS and all(map(_is_input, asked)):
        return list(asked)
    return None


def _is_input(value: object) -> bool:
    """A text, or tokens. No tokens at all could as well be no inputs."""
    return type(value) is str or (type(value) is list and set(map(type, value)) == {int})


def form_of(body: Mapping[str, Any]) -> str | None:
    """The form that the vectors are asked in; None where it is not one of the two that can be made from each other."""
    if any(body.get(name) not in plain for name, plain in _NUMBERS.items()):
        return None
    match body.get("encoding_format"):
        case None | "float":
            return FLOAT
        case "base64":
            return BASE64
    return None


def common_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """What the keys of all inputs share: the body less the inputs, and less a form that can be made from the other."""
    left_out = ("input",) if form_of(body) is None else ("input", "encoding_format")
    return {name: value for name, value in body.items() if name not in left_out}


def asking(call_raw: bytes, inputs: Sequence[Input]) -> bytes:
    """The client's body with these inputs, as a list; to the byte as it came if they are what it asks already."""
    asked = bytes(_members.decode(call_raw).get("input", b"null"))
    own = inputs_of({"input": msgspec.json.decode(asked)})
    return call_raw if own == list(inputs) else with_members(call_raw, {"input": list(inputs)})


def parts_of(body: bytes, counted: Sequence[int]) -> list[bytes] | None:
    """The response to so many inputs as one to each of them, in their order; None if it is not whole.

    `counted`: tokens of each input by our own count, for what of the usage falls to it. The vectors are passed over
    unread: some 3 ms for each MB of them.
    """
    try:
        members = _whole(body)
        items = _in_order(_items.decode(members["data"]), len(counted))
        usages = _shared(_usage(members), counted)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError):
        return None
    parts = []
    for item, usage in zip(items, usages, strict=True):
        members["data"] = [item | {"index": 0}]
        if usage is not None:
            members["usage"] = usage
        parts.append(msgspec.json.encode(members))
    return parts


def _whole(body: bytes) -> dict[str, Any]:
    """The raw members of a response.

    Raises LookupError for one that tells an error, msgspec's and UnicodeDecodeError for what is no object of JSON.
    """
    if not body.isascii():
        body.decode()  # in what msgspec passes over it does not look for UTF-8
    members = _members.decode(body)
    if msgspec.json.decode(members.get("error", b"null")):
        raise LookupError("error")
    return members


def _in_order(items: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """So many items by their index; as they stand where none has one. Raises LookupError if one is missing or empty."""
    if len(items) != count or not all(_is_vector(bytes(item["embedding"])) for item in items):
        raise LookupError("embedding")
    indices = [bytes(item.get("index", b"null")) for item in items]
    if all(index == b"null" for index in indices):
        return items
    placed = {_index.decode(index): item for index, item in zip(indices, items, strict=True)}
    return [placed[place] for place in range(count)]


def _is_vector(embedding: bytes) -> bool:
    """Is there something in it? A server that reckoned with NaN may say null for each of its numbers."""
    kind, inner = embedding[:1], embedding[1:-1]
    return kind in {b"[", b'"', b"{"} and bool(inner.strip()) and not (kind == b"[" and b"null" in inner)


def joined(parts: Sequence[Part], form: str) -> bytes:
    """One response to all inputs, at least one, whose parts these are. Each vector is in `form` if it can be.

    What a response says beside its data and its usage is the newest part's: the last fresh one's, else the last one's.
    """
    bodies = [_members.decode(part.body) for part in parts]
    newest = max(range(len(parts)), key=lambda place: (parts[place].fresh, place))
    answer: dict[str, Any] = dict(bodies[newest])
    answer["data"] = [
        _placed(members, place, form if part.asked != form else "")
        for place, (members, part) in enumerate(zip(bodies, parts, strict=True))
    ]
    answer["usage"] = _of_all([_usage(members) for members in bodies], newest)
    if not answer["usage"]:
        del answer["usage"]
    return msgspec.json.encode(answer)


def _placed(members: Mapping[str, msgspec.Raw], place: int, form: str) -> dict[str, Any]:
    """The one item of a part, at its place in the list; `form`: what its vector is yet to be put in, if anything."""
    (item,) = _items.decode(members["data"])
    item["embedding"] = msgspec.Raw(in_form(bytes(item["embedding"]), form))
    return item | {"index": place}


def usage_of_part(part: bytes) -> dict[str, Any] | None:
    """The usage of a part; None where it says none."""
    return _usage(_members.decode(part))


def _usage(members: Mapping[str, msgspec.Raw]) -> dict[str, Any] | None:
    usage = msgspec.json.decode(members.get("usage", b"null"))
    return usage if type(usage) is dict else None


def shares(total: int, counted: Sequence[int]) -> list[int]:
    """Whole parts of `total` in proportion to `counted`, by largest remainder (the earlier of equals first): their sum
    is `total`. Where nothing was counted, the parts are equal."""
    weights = _weights(counted)
    whole = sum(weights)
    parts = [total * weight // whole for weight in weights]
    by_remainder = sorted(range(len(parts)), key=lambda place: -(total * weights[place] % whole))
    for place in by_remainder[: total - sum(parts)]:
        parts[place] += 1
    return parts


def _weights(counted: Sequence[int]) -> Sequence[int]:
    return counted if any(counted) else [1] * len(counted)


def _shared(usage: Any, counted: Sequence[int]) -> list[Any]:
    """What of a usage falls to each input: whole numbers as `shares`, fractions (a cost) in proportion, at any depth.
    What is no number says the same of each."""
    if type(usage) is int:
        return shares(usage, counted)
    if type(usage) is float:
        weights = _weights(counted)
        whole = sum(weights)
        return [usage * (weight / whole) for weight in weights]
    if type(usage) is dict:
        columns = {name: _shared(value, counted) for name, value in usage.items()}
        return [{name: column[place] for name, column in columns.items()} for place in range(len(counted))]
    return [usage] * len(counted)


def _of_all(usages: Sequence[dict[str, Any] | None], newest: int) -> dict[str, Any] | None:
    told = [usage for usage in usages if usage is not None]
    return _added(told, told[newest]) if len(told) == len(usages) else None


def _added(usages: Sequence[Mapping[str, Any]], newest: Mapping[str, Any]) -> dict[str, Any]:
    """The sum, at any depth, of every number that all of them say; of what is no number, what the newest says."""
    total: dict[str, Any] = {}
    for name, value in newest.items():
        values: list[Any] = [usage.get(name) for usage in usages]
        kinds = set(map(type, values))
        if kinds == {dict}:
            total[name] = _added(values, value)
        elif kinds == {int}:
            total[name] = sum(values)
        elif kinds <= {int, float}:
            with suppress(OverflowError):
                total[name] = math.fsum(values)
        elif type(value) not in {int, float, dict}:
            total[name] = value
    return total
