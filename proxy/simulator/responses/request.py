"""The request of a Response, checked, and the conversation that it continues."""

from typing import Annotated, Literal

import msgspec

from proxy.simulator.answers import Wish
from proxy.simulator.errors import ApiError
from proxy.simulator.forms import Form, form
from proxy.simulator.request import NOT_IN_SEED, Asked, Json, check_streaming, checked, decoded, model_of, seed_of
from proxy.simulator.responses.conversation import check_calls, identified, items, meant
from proxy.simulator.responses.shelf import Shelf
from proxy.simulator.tokens import Prompt, prompt
from proxy.simulator.tools import Offer, offer

_NOT_IN_SEED = NOT_IN_SEED | {"include", "background", "store", "previous_response_id"}


class Reasoning(msgspec.Struct, frozen=True):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class Text(msgspec.Struct, frozen=True):
    format: Json | None = None
    verbosity: str | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """The members that shape an answer; all others only enter its seed, or are echoed."""

    model: str
    input: str | list[Json] | None = None
    instructions: str | None = None
    stream: bool | None = None
    stream_options: Json | None = None
    max_output_tokens: Annotated[int, msgspec.Meta(ge=16)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    tools: list[Json] | None = None
    tool_choice: str | Json | None = None
    parallel_tool_calls: bool | None = None
    text: Text | None = None
    reasoning: Reasoning | None = None
    include: list[str] | None = None
    metadata: dict[str, str] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    service_tier: str | None = None
    previous_response_id: str | None = None
    prompt: Json | None = None
    store: bool | None = None
    background: bool | None = None


class Responding(Asked, frozen=True, kw_only=True):
    """A checked call. `before`: the items of the conversation that it continues; `given`: those of its own input."""

    request: Request
    before: tuple[Json, ...]
    given: tuple[Json, ...]
    seed: bytes

    @property
    def conversation(self) -> tuple[Json, ...]:
        return (*self.before, *self.given)

    @property
    def stored(self) -> bool:
        return self.request.store is not False

    def includes(self, what: str) -> bool:
        return what in (self.request.include or ())

    def prompt(self) -> Prompt:
        said = meant(self.conversation)
        instructions = [self.request.instructions] if self.request.instructions else []
        wanted = (self.request.text or Text()).format or {}
        return prompt([*instructions, *said], self.request.tools, wanted if wanted.get("type") != "text" else None)

    def wish(self) -> Wish:
        """What the answer is made from."""
        return Wish(
            seed=self.seed,
            behaviour=self.behaviour,
            reasons=self.model.reasoning,
            limit=self.request.max_output_tokens,
            offer=self.offer,
            form=self._form,
        )

    def offer(self) -> Offer:
        """The tools that the answer may call."""
        request = self.request
        last_is_user = bool(self.conversation) and self.conversation[-1].get("role") == "user"
        may_two = request.parallel_tool_calls is not False
        return offer(request.tools or [], request.tool_choice, parallel=may_two, answers_user=last_is_user, flat=True)

    def _form(self) -> Form | None:
        wanted = (self.request.text or Text()).format or {}
        return form(wanted, wanted, "text.format", "text.format")


def read(raw: bytes, header: str, shelf: Shelf) -> Responding:
    """The call behind these bytes and the header `x-simulator`; ApiError where OpenAI would refuse."""
    body = decoded(raw)
    request = checked(body, Request)
    model, behaviour = model_of(request.model, header)
    if model.dimensions:
        message = f"The requested model '{model.id}' cannot be used with the Responses API."
        raise ApiError(400, message, param="model", code="unsupported_value")
    _check_together(request)
    previous = request.previous_response_id
    before = shelf.conversation(previous) if previous is not None else ()
    given = tuple(
        shelf.item(item["id"]) if item["type"] == "item_reference" else item for item in items(_said(request))
    )
    check_calls((*before, *given))
    seed = seed_of(model.id, {**body, "input": meant((*before, *given))}, _NOT_IN_SEED)
    return Responding(
        named=request.model,
        model=model,
        behaviour=behaviour,
        body=body,
        request=request,
        before=before,
        given=identified(given, seed),
        seed=seed,
    )


def _said(request: Request) -> str | list[Json]:
    return request.input if request.input is not None else []


def _check_together(request: Request) -> None:
    """Members that need each other."""
    if not request.input and request.previous_response_id is None and request.prompt is None:
        message = "One of 'input', 'previous_response_id' or 'prompt' must be provided."
        raise ApiError(400, message, param="input", code="missing_required_parameter")
    check_streaming(request.stream, request.stream_options)
    if request.background and request.store is False:
        raise ApiError(400, "Background mode requires 'store' to be true.", param="background")
