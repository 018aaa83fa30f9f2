"""Which tools an answer calls, and with what.

A chat completion writes a tool as `{"type": T, T: {"name", …}}`, a Response `flat`, as `{"type": T, "name", …}`.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from proxy.simulator.errors import ApiError
from proxy.simulator.request import Json
from proxy.simulator.schema import fitting_text
from proxy.simulator.text import Dice, pieces, words

Kind = Literal["function", "custom", "legacy", "search", "hosted"]
Mode = Literal["none", "auto", "required"]

_SEARCHES = frozenset(("web_search", "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11"))
# Known to OpenAI, never called here.
_HOSTED = frozenset(
    ("apply_patch", "code_interpreter", "computer", "computer_use_preview", "file_search", "image_generation")
) | {"local_shell", "mcp", "namespace", "shell", "tool_search"}


class Tool(msgspec.Struct, frozen=True):
    """`legacy`: one of the old `functions`, called by `function_call`. `search`, `hosted`: the provider's own, named
    by their type.
    """

    kind: Kind
    name: str
    schema: Json


class Call(msgspec.Struct, frozen=True):
    """`pieces` joined are the arguments (JSON) or the custom tool's input (text)."""

    id: str
    kind: Kind
    name: str
    pieces: tuple[str, ...]


class Offer(msgspec.Struct, frozen=True):
    """What the caller's choice leaves of its tools. `named`: it was one of them. `parallel`: two may be called at once.
    `answers_user`: the last word is the user's, so that `auto` calls.
    """

    mode: Mode = "none"
    tools: tuple[Tool, ...] = ()
    named: bool = False
    parallel: bool = True
    answers_user: bool = True

    @property
    def open(self) -> bool:
        return self.mode == "required" or (self.mode == "auto" and self.answers_user)

    @property
    def searches(self) -> bool:
        """The web is searched before the answer."""
        return self.open and any(tool.kind == "search" for tool in self.tools)


def calls(offer: Offer, dice: Dice) -> tuple[Call, ...]:
    """No call, one, or by the seed two at once."""
    callable_ = tuple(tool for tool in offer.tools if tool.kind not in {"search", "hosted"})
    if not offer.open or not callable_:
        return ()
    may_two = not offer.named and offer.parallel and callable_[0].kind != "legacy"
    count = 2 if may_two and dice.below(3) == 0 else 1
    return tuple(_call(dice.pick(callable_), dice) for _ in range(count))


def _call(tool: Tool, dice: Dice) -> Call:
    if tool.kind == "custom":
        text = words(dice, 3 + dice.below(6))
    else:
        text = fitting_text(tool.schema, dice, "tools")
    return Call("call_" + dice.token(24), tool.kind, tool.name, pieces(text))


def offer(
    given: Sequence[Json], wanted: str | Json | None, *, parallel: bool, answers_user: bool, flat: bool = False
) -> Offer:
    """`tools` and `tool_choice`."""
    wanted = wanted or "auto"
    tools = tuple(_tool(tool, flat) for tool in given)
    if isinstance(wanted, str):
        return Offer(_mode(wanted, "tool_choice"), tools, False, parallel, answers_user)
    if wanted.get("type") == "allowed_tools":
        allowed = wanted if flat else wanted.get("allowed_tools") or {}
        names = [_tool(tool, flat).name for tool in allowed.get("tools", ())]
        mode = _mode(allowed.get("mode", "auto"), "tool_choice")
        return Offer(mode, tuple(t for t in tools if t.name in names), False, parallel, answers_user)
    name = wanted.get("name", wanted.get("type")) if flat else (wanted.get(str(wanted.get("type"))) or {}).get("name")
    return Offer("required", _only(tools, name, "tool_choice"), True, parallel, answers_user)


def legacy(functions: Sequence[Json], wanted: str | Json | None, *, answers_user: bool) -> Offer:
    """`functions` and `function_call`."""
    wanted = wanted or "auto"
    tools = tuple(_defined("legacy", function, "functions") for function in functions)
    if isinstance(wanted, dict):
        return Offer("required", _only(tools, wanted.get("name"), "function_call"), True, False, answers_user)
    return Offer(_mode(wanted, "function_call"), tools, False, False, answers_user)


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


def _tool(tool: Json, flat: bool) -> Tool:
    match tool.get("type"):
        case "function":
            return _defined("function", tool if flat else tool.get("function"), "tools")
        case "custom":
            return _defined("custom", tool if flat else tool.get("custom"), "tools")
        case str(kind) if flat and kind in _SEARCHES:
            return Tool("search", kind, {})
        case str(kind) if flat and kind in _HOSTED:
            return Tool("hosted", kind, {})
        case kind:
            supported = "'function', 'custom', 'web_search'" if flat else "'function', 'custom'"
            raise ApiError(400, f"Invalid value: '{kind}'. Supported: {supported}.", param="tools")


def _defined(kind: Kind, definition: object, param: str) -> Tool:
    if not isinstance(definition, dict) or not isinstance(definition.get("name"), str):
        raise ApiError(400, "Missing required parameter: a tool's name.", param=param)
    schema = definition.get("parameters")
    # A function without parameters is called with an empty object.
    return Tool(kind, definition["name"], schema if isinstance(schema, dict) else {"type": "object"})
