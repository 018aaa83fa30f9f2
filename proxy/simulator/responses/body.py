"""The Response around an answer's items, with what was asked echoed as OpenAI echoes it."""

import msgspec

from proxy.simulator.answers import Choice
from proxy.simulator.request import Json
from proxy.simulator.responses.request import Reasoning, Responding, Text

_STATUS = {"length": ("incomplete", "max_output_tokens"), "content_filter": ("incomplete", "content_filter")}
_FAILURE = {"code": "server_error", "message": "The model failed to generate a response."}

# What was asked, where it was asked, else what OpenAI takes instead.
_ECHOED: Json = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "prompt_cache_retention": None,
    "safety_identifier": None,
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
    "metadata": {},
}


def status_of(asked: Responding, choice: Choice) -> tuple[str, str | None]:
    """The Response's status, and why it is incomplete if it is."""
    if asked.behaviour.failed:
        return "failed", None
    return _STATUS.get(choice.finish, ("completed", None))


def begun(asked: Responding, response_id: str, created: int) -> Json:
    """The Response before anything is said. `created`: seconds since 1970."""
    request = asked.request
    echoed = {name: default if asked.body.get(name) is None else asked.body[name] for name, default in _ECHOED.items()}
    return {
        "id": response_id,
        "object": "response",
        "created_at": created,
        "status": "in_progress",
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": asked.model.id,
        "output": [],
        **echoed,
        "reasoning": _reasoning(asked),
        "service_tier": request.service_tier if request.service_tier in {"flex", "priority"} else "default",
        "text": _text(request.text or Text()),
        "tools": [_tool(tool) for tool in request.tools or ()],
        "usage": None,
    }


def ended(start: Json, asked: Responding, choice: Choice, output: list[Json]) -> Json:
    """The whole Response. One that failed keeps nothing of what it said, and says no usage."""
    status, reason = status_of(asked, choice)
    if status == "failed":
        return {**start, "status": status, "error": _FAILURE}
    return {
        **start,
        "status": status,
        "completed_at": start["created_at"] if status == "completed" else None,
        "incomplete_details": {"reason": reason} if reason else None,
        "output": output,
        "usage": None if asked.behaviour.nousage else _usage(asked, choice),
    }


def _usage(asked: Responding, choice: Choice) -> Json:
    prompt = asked.prompt()
    return {
        "input_tokens": prompt.tokens,
        "input_tokens_details": {"cached_tokens": prompt.cached, "cache_write_tokens": 0},
        "output_tokens": choice.tokens,
        "output_tokens_details": {"reasoning_tokens": len(choice.reasoning)},
        "total_tokens": prompt.tokens + choice.tokens,
    }


def _reasoning(asked: Responding) -> Json:
    wanted = asked.request.reasoning or Reasoning()
    effort = wanted.effort or ("medium" if asked.model.reasoning else None)
    return {"effort": effort, "summary": wanted.summary or wanted.generate_summary}


def _text(wanted: Text) -> Json:
    shape = wanted.format or {"type": "text"}
    if shape.get("type") == "json_schema":
        shape = {"description": None, "strict": False, **shape}
    return {"format": shape, "verbosity": wanted.verbosity or "medium"}


def _tool(tool: Json) -> Json:
    match tool.get("type"):
        case "function":
            return {"description": None, "parameters": None, "strict": True, **tool}
        case "custom":
            return {"description": None, "format": {"type": "text"}, **tool}
        case _:
            return tool


def longer(choice: Choice, size: int) -> Choice:
    """The choice with so much more text, if it is one that has text."""
    if choice.content is None:
        return choice
    return msgspec.structs.replace(choice, content=(*choice.content, "x" * size))
