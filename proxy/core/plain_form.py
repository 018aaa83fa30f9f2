"""Forms of what a request says that mean the same: messages of a chat, and items of a Response's input.

Rule: two forms become one only if every provider must take them for the same. An id may be renamed where it does no
more than tie things together within the request; nowhere can a new name be taken for one that was left as it was.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

_TELLING: Final = 6  # characters of an id that is not found in a text by chance

_ASKING: Final = ("user", "system", "developer")
_ANSWERED: Final = ("function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output")

Rename = Callable[[str], str]


def in_plain_form(body: Mapping[str, Any]) -> dict[str, Any]:
    """Those members of a body that have a plain form, in it. What has an unexpected type stays."""
    plain: dict[str, Any] = {}
    messages, items = body.get("messages"), body.get("input")
    if type(messages) is list:
        names: dict[str, str] = {}
        plain["messages"] = _plain_messages(messages, lambda old: names.setdefault(old, str(len(names))))
        # An id that is named elsewhere too (in a text, in a part) means something: it stays, and so do the others.
        if names and _stand_in(names, {**body, "messages": _plain_messages(messages, lambda _: "")}):
            plain["messages"] = _plain_messages(messages, lambda old: old)
    # Of a chat or a text completion, `input` is whatever its provider says.
    elif "prompt" not in body and type(items) is list and items and all(type(item) is dict for item in items):
        plain["input"] = _plain_input(items, body)
    return plain


def _plain_messages(messages: list[Any], rename: Rename) -> list[Any]:
    """The messages in their plain form, each id of a tool call by what `rename` makes of it."""
    return [_plain_message(message, rename) if type(message) is dict else message for message in messages]


def _plain_input(items: list[dict[str, Any]], body: Mapping[str, Any]) -> list[Any] | str:
    """A Response's items in their plain form; a text alone is what the user says."""
    names: dict[str, str] = {}
    plain = [_plain_item(item, lambda old: names.setdefault(old, str(len(names)))) for item in items]
    rest = {**body, "input": [_plain_item(item, lambda _: "") for item in items]} if names else {}
    # An item may be named by more members than are known here, so that a short id is looked for as well.
    if _stand_in(names, rest) or any(text in names for text in _strings(list(rest.values()))):
        plain = [_plain_item(item, lambda old: f"={old}") for item in items]
    match plain:
        case [{"role": "user", "content": str(text), **more}] if not more:
            return text
    return plain


def _plain_item(item: dict[str, Any], rename: Rename) -> dict[str, Any]:
    kind = item.get("type", "message")
    if kind == "message" and type(item.get("role")) is str and "content" in item:
        return _renamed(_plain_saying(item), "id", rename)
    if kind in _ANSWERED:
        return _renamed(_renamed(item, "id", rename), "call_id", rename)
    # Without its content it is what the provider has under this id. So are items that the provider's tools made.
    return _renamed(item, "id", rename) if kind == "reasoning" and item.get("encrypted_content") else item


def _plain_saying(item: dict[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in item.items() if name != "type"}
    match item["content"]:
        case [{"type": "input_text", "text": str(text), **more}] if not more and item["role"] in _ASKING:
            plain["content"] = text
    return plain


def _stand_in(ids: Collection[str], body: dict[str, Any]) -> bool:
    """Whether any of these ids stands in a string of the body. A very short one would by chance."""
    long = [each for each in ids if len(each) >= _TELLING]
    return bool(long) and any(each in text for text in _strings(list(body.values())) for each in long)


def _strings(values: list[Any]) -> Iterator[str]:
    """Every string among these values, at any depth."""
    for value in values:
        if type(value) is str:
            yield value
        elif type(value) is dict:
            yield from _strings(list(value.values()))
        elif type(value) is list:
            yield from _strings(value)


def _plain_message(message: dict[str, Any], rename: Rename) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    content = message.get("content")
    if type(content) is list and len(content) == 1:
        changed["content"] = _plain_content(content)
    if type(calls := message.get("tool_calls")) is list:
        changed["tool_calls"] = [_renamed(call, "id", rename) if type(call) is dict else call for call in calls]
    if changed:
        message = message | changed
    return _renamed(message, "tool_call_id", rename) if "tool_call_id" in message else message


def _plain_content(content: list[Any]) -> str | list[Any]:
    match content:
        case [{"type": "text", "text": str(text), **more}] if not more:
            return text
    return content


def _renamed(holder: dict[str, Any], member: str, rename: Rename) -> dict[str, Any]:
    old = holder.get(member)
    # An empty id names nothing; and being left as it is, it can equal no new name.
    if type(old) is not str or not old:
        return holder
    return holder | {member: rename(old)}
