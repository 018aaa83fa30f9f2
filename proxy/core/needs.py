"""What a body needs of a model that answers it: that of a chat completion, or another's likeness (as_chat.py).

Rule: a need is what a model without that capability would refuse or leave out. Whatever else a body holds, of whatever
type, needs nothing and raises nothing. It takes as long as there are messages.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from pricing.models import Capability
from pricing.tokens import IMAGES
from proxy.core.as_chat import Wordless
from proxy.core.policy import PRESENT, PURE_TOOLS, STATE

# What a model made and another cannot go on from: ids of its calls, reasoning that it signed, an answer that it spoke.
MADE: Final = (
    "tool_calls",
    "function_call",
    "reasoning_content",
    "reasoning",
    "reasoning_details",
    "thinking_blocks",
    "audio",
)
MADE_PARTS: Final = ("thinking", "redacted_thinking", "reasoning")

MOST: Final = 10**9  # tokens; more are no limit, and no sum

LIMITS: Final = ("max_completion_tokens", "max_tokens")

# Members by which more is charged than the tokens of the request and of the answer, at the prices of its model:
# searches, what the provider holds, models that it may ask instead (OpenRouter), and a summary that it makes meanwhile.
ELSEWHERE: Final = (*PRESENT, *STATE, "models", "context_management")

# Parts whose tokens can be bounded by what they hold.
BOUNDED: Final = ("text", "image_url", *MADE_PARTS, "refusal")

_NO_EFFORT: Final = ("", "none", "minimal")


class Needs(msgspec.Struct, frozen=True):
    """`capabilities` in the order of Capability, each once. `max_output`: tokens that each of the `choices` may have.

    `marks`: the request marks a prefix for the provider's prompt cache. `service`: its `service_tier`. `longest`: the
    same as max_output, by whichever limit a provider heeds; None where it may take one of them for none. `unbounded`:
    it may be charged more than its tokens show.
    """

    capabilities: tuple[Capability, ...]
    max_output: int | None
    choices: int
    marks: bool
    service: str | None
    longest: int | None = None
    unbounded: bool = False


def read_needs(body: Mapping[str, Any], choices: int) -> Needs:
    """What a parsed body needs, or a likeness; `choices`: that are made."""
    messages, parts = _held(body.get("messages"))
    kinds = [part.get("type") for part in parts]
    tools = list(_tools(body))
    needed: dict[Capability, bool] = {
        # Tools that are declared are sent, and a model that has none refuses them even if it is to call none.
        "tools": bool(tools) or any(map(_calls, messages)),
        "vision": "image_url" in kinds,
        "audio": "input_audio" in kinds or _speaks(body) or any(map(_spoke, messages)),
        "json_schema": _member(body, "response_format", "type") == "json_schema",
        "reasoning": _reasons(body),
        "n": choices > 1,
        "logprobs": body.get("logprobs") is True or _whole(body.get("top_logprobs")) > 0,
    }
    service, wordless = body.get("service_tier"), type(body) is Wordless
    return Needs(
        capabilities=tuple([capability for capability, needs in needed.items() if needs]),
        max_output=0 if wordless else _max_output(body),
        choices=choices,
        longest=0 if wordless else _longest(body),
        unbounded=_is_unbounded(body, kinds, parts) or any(map(_spoke, messages)),
        marks=any(each.get("cache_control") for each in (body, *messages, *parts, *tools)),
        service=service if service is None or type(service) is str else repr(service),
    )


def last_made(messages: object) -> int | None:
    """The index of the last assistant message that only its model can go on from (MADE, MADE_PARTS); None: no such."""
    turns = messages if type(messages) is list else []
    return next((at for at in range(len(turns) - 1, -1, -1) if _is_turn(turns[at]) and _is_made(turns[at])), None)


def _is_turn(message: object) -> bool:
    return type(message) is dict and message.get("role") == "assistant"


def _is_made(message: dict[str, Any]) -> bool:
    if any(map(message.get, MADE)):
        return True
    content = message.get("content")
    return type(content) is list and any(type(part) is dict and part.get("type") in MADE_PARTS for part in content)


def _held(messages: object) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(messages, the parts of their contents), as far as they are objects."""
    found = [each for each in messages if type(each) is dict] if type(messages) is list else []
    contents = [message.get("content") for message in found]
    return found, [part for each in contents if type(each) is list for part in each if type(part) is dict]


def _is_unbounded(body: Mapping[str, Any], kinds: list[Any], parts: list[Any]) -> bool:
    """Sound, files and images by address, searches and tools that the provider runs, what it holds, other models."""
    if any(body.get(name) or body.get(name) == {} for name in ELSEWHERE) or any(kind not in BOUNDED for kind in kinds):
        return True
    if type(body.get("prompt")) is dict:  # a template that the provider holds
        return True
    tools = body.get("tools")
    for tool in tools if type(tools) is list else [tools] if tools else []:
        if type(tool) is not dict or tool.get("type", "function") not in PURE_TOOLS:
            return True
    wanted = body.get("modalities")
    if type(wanted) is list and any(each not in ("text", "audio") for each in wanted):
        return True
    return kinds.count("image_url") > IMAGES or any(_is_remote(part) for part in parts)


def _is_remote(part: Mapping[str, Any]) -> bool:
    given = part.get("image_url")
    url = given.get("url") if type(given) is dict else given
    return part.get("type") == "image_url" and not (type(url) is str and url.startswith("data:image/"))


def _tools(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What a body declares as tools, each followed by its function, as far as they are objects."""
    for given in (body.get("tools"), body.get("functions")):
        for tool in given if type(given) is list else ():
            yield tool if type(tool) is dict else {}
            if type(tool) is dict and type(function := tool.get("function")) is dict:
                yield function


def _calls(message: dict[str, Any]) -> bool:
    """A call of a tool, or what a tool answered."""
    return bool(
        message.get("tool_calls") or message.get("function_call") or message.get("role") in ("tool", "function")
    )


def _speaks(body: Mapping[str, Any]) -> bool:
    wanted = body.get("modalities")
    return (type(wanted) is list and "audio" in wanted) or type(body.get("audio")) is dict


def _spoke(message: dict[str, Any]) -> bool:
    """An earlier answer that was spoken, and is given by its id."""
    return type(message.get("audio")) is dict


def _reasons(body: Mapping[str, Any]) -> bool:
    """As OpenAI says it, as OpenRouter does (`reasoning`), and as DeepSeek and Anthropic do (`thinking`)."""
    if _is_effort(body.get("reasoning_effort")) or _member(body, "thinking", "type") in ("enabled", "adaptive"):
        return True
    enabled = _member(body, "reasoning", "enabled")
    asked = _is_effort(_member(body, "reasoning", "effort")) or _whole(_member(body, "reasoning", "max_tokens")) > 0
    return enabled is True or (asked and enabled is not False)


def _is_effort(value: object) -> bool:
    return type(value) is str and value not in _NO_EFFORT


def _max_output(body: Mapping[str, Any]) -> int | None:
    return min(_limits(body), default=None)


def _longest(body: Mapping[str, Any]) -> int | None:
    limits = _limits(body)
    said = [name for name in LIMITS if body.get(name) is not None]
    return max(limits, default=None) if len(limits) == len(said) else None


def _limits(body: Mapping[str, Any]) -> list[int]:
    limits = [_whole(body.get(name)) for name in LIMITS]
    return [limit for limit in limits if limit > 0]


def _whole(value: object) -> int:
    """The whole number that a value is, 0 where it is none. 2.0 is 2 in JSON, and has its key."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return min(value, MOST) if type(value) is int else 0


def _member(body: Mapping[str, Any], name: str, member: str) -> object:
    given = body.get(name)
    return given.get(member) if type(given) is dict else None
