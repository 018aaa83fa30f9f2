"""Which tools an answer calls, and with what."""

from typing import Any, Literal

import msgspec

from proxy.simulator.errors import ApiError
from proxy.simulator.request import Request
from proxy.simulator.schema import fitting_text
from proxy.simulator.text import Dice, pieces, words

Kind = Literal["function", "custom", "legacy"]
Mode = Literal["none", "auto", "required"]


class Tool(msgspec.Struct, frozen=True):
    """`legacy`: one of the old `functions`, called by `function_call`."""

    kind: Kind
    name: str
    schema: dict[str, Any]


class Call(msgspec.Struct, frozen=True):
    """`pieces` joined are the arguments (JSON) or the custom tool's input (text)."""

    id: str
    kind: Kind
    name: str
    pieces: tuple[str, ...]


def calls(request: Request, dice: Dice) -> tuple[Call, ...]:
    """No call, one, or by the seed two at once."""
    mode, offered, named = _choice(request)
    last_is_user = request.messages[-1].role == "user"
    if mode == "none" or not offered or (mode == "auto" and not last_is_user):
        return ()
    may_two = not named and request.parallel_tool_calls is not False and offered[0].kind != "legacy"
    count = 2 if may_two and dice.below(3) == 0 else 1
    return tuple(_call(dice.pick(offered), dice) for _ in range(count))


def _call(tool: Tool, dice: Dice) -> Call:
    if tool.kind == "custom":
        text = words(dice, 3 + dice.below(6))
    else:
        text = fitting_text(tool.schema, dice, "tools")
    return Call("call_" + dice.token(24), tool.kind, tool.name, pieces(text))


def _choice(request: Request) -> tuple[Mode, tuple[Tool, ...], bool]:
    """The mode, the tools that it leaves, and whether one of them was named."""
    if request.tools:
        return _tool_choice(request.tool_choice or "auto", tuple(map(_tool, request.tools)))
    legacy = tuple(_defined("legacy", function, "functions") for function in request.functions or ())
    wanted = request.function_call or "auto"
    if isinstance(wanted, dict):
        return "required", _only(legacy, wanted.get("name"), "function_call"), True
    return _mode(wanted, "function_call"), legacy, False


def _tool_choice(wanted: str | dict[str, Any], tools: tuple[Tool, ...]) -> tuple[Mode, tuple[Tool, ...], bool]:
    if isinstance(wanted, str):
        return _mode(wanted, "tool_choice"), tools, False
    if wanted.get("type") == "allowed_tools":
        allowed = wanted.get("allowed_tools") or {}
        names = [_tool(tool).name for tool in allowed.get("tools", ())]
        return _mode(allowed.get("mode", "auto"), "tool_choice"), tuple(t for t in tools if t.name in names), False
    named = wanted.get(str(wanted.get("type"))) or {}
    return "required", _only(tools, named.get("name"), "tool_choice"), True


def _mode(wanted: str, param: str) -> Mode:
    if wanted == "none":
        return "none"
    if wanted == "auto":
        return "auto"
    if wanted == "required":
        return "required"
    raise ApiError(400, f"Invalid value: '{wanted}'.", param=param, code="invalid_value")


def _only(tools: tuple[Tool, ...], name: object, param: str) -> tuple[Tool, ...]:
    found = tuple(tool for tool in tools if tool.name == name)
    if not found:
        raise ApiError(400, f"Tool choice '{name}' not found in 'tools' parameter.", param=param)
    return found


def _tool(tool: dict[str, Any]) -> Tool:
    match tool.get("type"):
        case "function":
            return _defined("function", tool.get("function"), "tools")
        case "custom":
            return _defined("custom", tool.get("custom"), "tools")
        case other:
            raise ApiError(400, f"Invalid value: '{other}'. Supported: 'function', 'custom'.", param="tools")


def _defined(kind: Kind, definition: object, param: str) -> Tool:
    if not isinstance(definition, dict) or not isinstance(definition.get("name"), str):
        raise ApiError(400, "Missing required parameter: a tool's name.", param=param)
    schema = definition.get("parameters")
    # A function without parameters is called with an empty object.
    return Tool(kind, definition["name"], schema if isinstance(schema, dict) else {"type": "object"})
