"""/v1/embeddings."""

import base64
import struct
from typing import Annotated, Literal

import msgspec

from proxy.simulator.calling import Spoken
from proxy.simulator.errors import ApiError
from proxy.simulator.request import Asked, checked, decoded, model_of
from proxy.simulator.script import whole
from proxy.simulator.tokens import Prompt, of_input
from proxy.simulator.vectors import vector

Input = str | tuple[int, ...]  # text, or tokens
Token = Annotated[int, msgspec.Meta(ge=0)]

_INPUTS = 2048
_TOKENS_EACH = 8192
_TOKENS = 300_000


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """The members that shape an answer."""

    model: str
    input: str | list[str | Token | list[Token]]
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    encoding_format: Literal["float", "base64"] | None = None


class Embedding(Asked, frozen=True, kw_only=True):
    """A checked call: what is to be embedded, in order."""

    request: Request
    given: tuple[Input, ...]

    def inputs(self) -> tuple[str, ...]:
        return tuple(msgspec.json.encode(each).decode() for each in self.given)


class Embeddings:
    """The endpoint, to be called by `Calls`."""

    name = "embeddings"

    def read(self, raw: bytes, header: str) -> Embedding:
        body = decoded(raw)
        request = checked(body, Request)
        model, behaviour = model_of(request.model, header)
        if not model.dimensions:
            raise ApiError(400, "You are not allowed to generate embeddings from this model", param="model")
        if (request.dimensions or 1) > model.dimensions:
            message = (
                f"Invalid value for 'dimensions' = {request.dimensions}. "
                f"Must be less than or equal to {model.dimensions}."
            )
            raise ApiError(400, message, param="dimensions")
        given = _inputs(request.input)
        _check_length(given)
        return Embedding(named=request.model, model=model, behaviour=behaviour, body=body, request=request, given=given)

    def speak(self, asked: Embedding) -> Spoken:
        tokens = sum(map(of_input, asked.given))
        behaviour = asked.behaviour
        body: dict[str, object] = {
            "object": "list",
            "data": [] if behaviour.empty else [_shown(asked, at, each) for at, each in enumerate(asked.inputs())],
            "model": asked.model.id,
        }
        if not behaviour.nousage:
            body["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
        # There is no text to make longer.
        encoded = msgspec.json.encode(body) + b" " * (behaviour.big or 0)
        script = msgspec.structs.replace(whole(encoded), obeyed=("big",))
        return Spoken(script, Prompt(tokens, 0), 0)


def _shown(asked: Embedding, index: int, text: str) -> dict[str, object]:
    model, request = asked.model, asked.request
    values = vector(model.id, model.dimensions, text, request.dimensions or model.dimensions)
    packed = struct.pack(f"<{len(values)}f", *values)
    shown: object = base64.b64encode(packed).decode() if request.encoding_format == "base64" else values
    return {"object": "embedding", "index": index, "embedding": shown}


def _inputs(given: str | list[str | int | list[int]]) -> tuple[Input, ...]:
    if isinstance(given, list) and len(given) > _INPUTS:
        message = (
            f"Invalid 'input': array too long. Expected an array with maximum length {_INPUTS}, "
            f"but got an array with length {len(given)} instead."
        )
        raise ApiError(400, message, param="input", code="array_above_max_length")
    if isinstance(given, list) and given and all(isinstance(each, int) for each in given):
        given = [[each for each in given if isinstance(each, int)]]
    found = [given] if isinstance(given, str) else given
    kinds = {type(each) for each in found}
    if not all(found) or len(kinds) != 1 or int in kinds:
        message = "Invalid 'input': a string, an array of strings, of tokens or of token arrays, none of them empty."
        raise ApiError(400, message, param="input", code="invalid_value")
    return tuple(each if isinstance(each, str) else tuple(each) for each in found if not isinstance(each, int))


def _check_length(given: tuple[Input, ...]) -> None:
    counted = [of_input(each) for each in given]
    if max(counted) > _TOKENS_EACH:
        message = (
            f"This model's maximum context length is {_TOKENS_EACH} tokens, however you requested {max(counted)} "
            f"tokens ({max(counted)} in your prompt; 0 for the completion). Please reduce your prompt."
        )
        raise ApiError(400, message, param="input")
    if sum(counted) > _TOKENS:
        message = f"Requested {sum(counted)} tokens, max {_TOKENS} tokens per request."
        raise ApiError(400, message, param="input", code="max_tokens_per_request")
