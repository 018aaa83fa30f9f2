"""The request as OpenAI would check it, and the seed of its answer."""

import hashlib
import re
from typing import Annotated, Any

import msgspec

from proxy.simulator.behaviour import Behaviour, parse
from proxy.simulator.errors import ApiError
from proxy.simulator.models import MODELS, Model

Json = dict[str, Any]

# What may differ while the answer's words stay the same: its form, and the caller's own book-keeping.
_NOT_IN_SEED = frozenset(
    ("stream", "stream_options", "n", "logprobs", "top_logprobs", "user", "metadata", "safety_identifier")
) | {"prompt_cache_key", "prompt_cache_retention"}

_MEMBER = re.compile(r"at `\$\.([A-Za-z_]+)|required field `(\w+)`$")


class Message(msgspec.Struct, frozen=True):
    role: str
    content: str | list[Json] | None = None


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """The members that shape an answer; all others only enter its seed."""

    model: str
    messages: Annotated[tuple[Message, ...], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    stop: str | Annotated[list[str], msgspec.Meta(max_length=4)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    response_format: Json | None = None
    tools: list[Json] | None = None
    tool_choice: str | Json | None = None
    parallel_tool_calls: bool | None = None
    functions: list[Json] | None = None
    function_call: str | Json | None = None


class Chat(msgspec.Struct, frozen=True):
    """A checked call: `body` is the request as it was sent, `seed` what the answer's words come from."""

    request: Request
    body: Json
    model: Model
    behaviour: Behaviour
    seed: bytes

    @property
    def limit(self) -> int | None:
        """The most tokens that each choice may have."""
        given = [n for n in (self.request.max_tokens, self.request.max_completion_tokens) if n is not None]
        return min(given, default=None)

    @property
    def include_usage(self) -> bool:
        options = self.request.stream_options
        return bool(options and options.include_usage) and not self.behaviour.nousage


def read(raw: bytes, header: str) -> Chat:
    """The call behind these bytes and the header `x-simulator`; ApiError where OpenAI would refuse."""
    body = _body(raw)
    try:
        request = msgspec.convert(body, Request)
    except msgspec.ValidationError as error:
        raise _refusal(str(error), body) from None
    name, behaviour = parse(request.model, header)
    if name not in MODELS:
        message = f"The model `{name}` does not exist or you do not have access to it."
        raise ApiError(404, message, code="model_not_found")
    _check_together(request)
    return Chat(request, body, MODELS[name], behaviour, _seed(name, body))


def _body(raw: bytes) -> Json:
    try:
        return msgspec.json.decode(raw, type=Json)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        message = "We could not parse the JSON body of your request. The API expects a JSON payload."
        raise ApiError(400, message) from None


def _refusal(said: str, body: Json) -> ApiError:
    found = _MEMBER.search(said)
    param = (found[1] or found[2]) if found else None
    if param is not None and param not in body:
        if param == "model":
            return ApiError(400, "you must provide a model parameter", param=param)
        message = f"Missing required parameter: '{param}'."
        return ApiError(400, message, param=param, code="missing_required_parameter")
    return ApiError(400, f"Invalid value for '{param}': {said}.", param=param, code="invalid_type")


def _check_together(request: Request) -> None:
    """Members that need each other."""
    if request.stream_options is not None and not request.stream:
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise ApiError(400, message, param="stream_options")
    if request.top_logprobs is not None and not request.logprobs:
        message = "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled."
        raise ApiError(400, message, param="top_logprobs")
    if request.tool_choice is not None and not request.tools:
        message = "'tool_choice' is only allowed when 'tools' are specified."
        raise ApiError(400, message, param="tool_choice")


def _seed(model: str, body: Json) -> bytes:
    said = {name: value for name, value in body.items() if name not in _NOT_IN_SEED} | {"model": model}
    return hashlib.sha256(msgspec.json.encode(said, order="deterministic")).digest()
