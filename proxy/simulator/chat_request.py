"""The request of a chat completion."""

from typing import Annotated

import msgspec

from proxy.simulator.answers import Wish
from proxy.simulator.errors import ApiError
from proxy.simulator.forms import Form, form
from proxy.simulator.request import (
    Asked,
    Json,
    StreamOptions,
    check_speaks,
    check_streaming,
    checked,
    decoded,
    model_of,
    seed_of,
)
from proxy.simulator.tools import Offer, legacy, offer


class Message(msgspec.Struct, frozen=True):
    role: str
    content: str | list[Json] | None = None


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


class Chat(Asked, frozen=True, kw_only=True):
    """A checked call; `seed` is what the answer's words come from."""

    request: Request
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

    def wish(self) -> Wish:
        """What the answer is made from."""
        return Wish(
            seed=self.seed,
            behaviour=self.behaviour,
            reasons=self.model.reasoning,
            limit=self.limit,
            stop=self.request.stop,
            offer=self._offer,
            form=self._form,
        )

    def _offer(self) -> Offer:
        request = self.request
        last_is_user = request.messages[-1].role == "user"
        if not request.tools:
            return legacy(request.functions or [], request.function_call, answers_user=last_is_user)
        may_two = request.parallel_tool_calls is not False
        return offer(request.tools, request.tool_choice, parallel=may_two, answers_user=last_is_user)

    def _form(self) -> Form | None:
        wanted = self.request.response_format or {}
        return form(wanted, wanted.get("json_schema"), "response_format", "response_format.json_schema")


def read(raw: bytes, header: str) -> Chat:
    """The call behind these bytes and the header `x-simulator`; ApiError where OpenAI would refuse."""
    body = decoded(raw)
    request = checked(body, Request)
    model, behaviour = model_of(request.model, header)
    check_speaks(model, "chat/completions")
    _check_together(request)
    seed = seed_of(model.id, body)
    return Chat(named=request.model, model=model, behaviour=behaviour, body=body, request=request, seed=seed)


def _check_together(request: Request) -> None:
    """Members that need each other."""
    check_streaming(request.stream, request.stream_options)
    if request.top_logprobs is not None and not request.logprobs:
        message = "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled."
        raise ApiError(400, message, param="top_logprobs")
    if request.tool_choice is not None and not request.tools:
        message = "'tool_choice' is only allowed when 'tools' are specified."
        raise ApiError(400, message, param="tool_choice")
