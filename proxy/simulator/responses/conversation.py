"""The items of a conversation, made alike whatever way they were written, and what of them an answer depends on."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from proxy.simulator.errors import ApiError
from proxy.simulator.request import Json

_ROLES = ("user", "assistant", "system", "developer")
_PARTS = frozenset(("input_text", "input_image", "input_file", "input_audio"))
_SAID_PARTS = frozenset(("output_text", "refusal"))

# By type: what an item must have, its id's prefix, and the members that an answer depends on.
_Kind = tuple[tuple[str, ...], str, tuple[str, ...]]
_CALL: _Kind = (("call_id", "name", "arguments"), "fc_", ("name", "arguments"))
_CUSTOM_CALL: _Kind = (("call_id", "name", "input"), "ctc_", ("name", "input"))
_OUTPUT: _Kind = (("call_id", "output"), "fco_", ("output",))
_KINDS: Mapping[str, _Kind] = MappingProxyType(
    {
        "message": (("role", "content"), "msg_", ("content",)),
        "function_call": _CALL,
        "function_call_output": _OUTPUT,
        "custom_tool_call": _CUSTOM_CALL,
        "custom_tool_call_output": _OUTPUT,
        "reasoning": (("summary",), "rs_", ()),
        "web_search_call": ((), "ws_", ("action",)),
        "item_reference": (("id",), "", ()),
    }
)
_CALLS = {"function_call_output": "function_call", "custom_tool_call_output": "custom_tool_call"}


def items(given: str | Sequence[Json]) -> tuple[Json, ...]:
    """The input as a list of items that each name their type; ApiError names the place of one that makes no sense."""
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    return tuple(_item(each, f"input[{at}]") for at, each in enumerate(given))


def _item(given: Json, place: str) -> Json:
    kind = given.get("type", "message" if "role" in given else None)
    if not isinstance(kind, str) or kind not in _KINDS:
        known = ", ".join(f"'{name}'" for name in _KINDS)
        message = f"Invalid value: '{kind}'. Supported values are: {known}."
        raise ApiError(400, message, param=f"{place}.type", code="invalid_value")
    for member in _KINDS[kind][0]:
        if member not in given:
            message = f"Missing required parameter: '{place}.{member}'."
            raise ApiError(400, message, param=f"{place}.{member}", code="missing_required_parameter")
    if kind != "message":
        return {**given, "type": kind}
    role = given["role"]
    if role not in _ROLES:
        message = f"Invalid value: '{role}'. Supported values are: 'assistant', 'system', 'developer', and 'user'."
        raise ApiError(400, message, param=f"{place}.role", code="invalid_value")
    parts = _parts(given["content"], role == "assistant", f"{place}.content")
    return {**given, "type": kind, "role": role, "status": given.get("status") or "completed", "content": parts}


def _parts(content: object, assistant: bool, place: str) -> list[Json]:
    if isinstance(content, str):
        said: Json = {"type": "output_text", "text": content, "annotations": [], "logprobs": []}
        return [said if assistant else {"type": "input_text", "text": content}]
    if not isinstance(content, list):
        raise ApiError(400, f"Invalid type for '{place}'.", param=place, code="invalid_type")
    known = _SAID_PARTS if assistant else _PARTS
    for at, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in known:
            supported = ", ".join(f"'{name}'" for name in sorted(known))
            message = f"Invalid value: '{kind}'. Supported values are: {supported}."
            raise ApiError(400, message, param=f"{place}[{at}].type", code="invalid_value")
    return content


def identified(given: Iterable[Json], seed: bytes) -> tuple[Json, ...]:
    """Each with an id, the same each time for the same seed."""
    return tuple({**item, "id": item.get("id") or _id(item, seed, at)} for at, item in enumerate(given))


def _id(item: Json, seed: bytes, at: int) -> str:
    digest = hashlib.sha256(b"%b input %d" % (seed, at)).hexdigest()
    return _KINDS[item["type"]][1] + digest[:48]


def meant(conversation: Iterable[Json]) -> list[Json]:
    """What an answer depends on: no ids, no reasoning, nothing that is said about a text."""
    return [_meaning(item) for item in conversation if item["type"] != "reasoning"]


def _meaning(item: Json) -> Json:
    kept = {name: item[name] for name in _KINDS[item["type"]][2] if name in item}
    if item["type"] != "message":
        return {"type": item["type"], **kept}
    about = ("annotations", "logprobs")
    content = [{name: value for name, value in part.items() if name not in about} for part in kept["content"]]
    return {"type": "message", "role": item["role"], "content": content}


def check_calls(conversation: Sequence[Json]) -> None:
    """ApiError where a call has no output, or an output no call before it."""
    open_calls: set[tuple[str, str]] = set()
    known: set[tuple[str, str]] = set()
    for item in conversation:
        kind, call_id = item["type"], str(item.get("call_id"))
        if kind in _CALLS:
            call = (_CALLS[kind], call_id)
            if call not in known:
                message = f"No tool call found for {kind.replace('_', ' ')} with call_id {call_id}."
                raise ApiError(400, message, param="input")
            open_calls.discard(call)
        elif kind in _CALLS.values():
            known.add((kind, call_id))
            open_calls.add((kind, call_id))
    for kind, call_id in sorted(open_calls):
        raise ApiError(400, f"No tool output found for {kind.replace('_', ' ')} {call_id}.", param="input")
