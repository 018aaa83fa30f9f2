"""What every request is checked for, as OpenAI would check it, and the seed of its answer."""

import hashlib
import re
from collections.abc import Set as AbstractSet
from typing import Any, TypeVar

import msgspec

from proxy.simulator.behaviour import Behaviour, parse
from proxy.simulator.errors import ApiError
from proxy.simulator.models import MODELS, Model

Json = dict[str, Any]
_Checked = TypeVar("_Checked")

# What may differ while the answer's words stay the same: its form, and the caller's own book-keeping.
NOT_IN_SEED = frozenset(
    ("stream", "stream_options", "n", "logprobs", "top_logprobs", "user", "metadata", "safety_identifier")
) | {"prompt_cache_key", "prompt_cache_retention"}

_MEMBER = re.compile(r"at `\$\.([A-Za-z_]+)|required field `(\w+)`$")


class StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A checked call of any endpoint. `named`: the model as it was asked for, options and all; `body`: as sent."""

    named: str
    model: Model
    behaviour: Behaviour
    body: Json

    def inputs(self) -> tuple[str, ...]:
        """Of embeddings, what is to be embedded, each as JSON."""
        return ()


def decoded(raw: bytes) -> Json:
    """The body, if it is a JSON object."""
    try:
        return msgspec.json.decode(raw, type=Json)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        message = "We could not parse the JSON body of your request. The API expects a JSON payload."
        raise ApiError(400, message) from None


def checked(body: Json, kind: type[_Checked]) -> _Checked:
    """The members that shape an answer; ApiError names the first that is missing or wrong."""
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise _refusal(str(error), body) from None


def model_of(named: str, header: str) -> tuple[Model, Behaviour]:
    """The model and what is asked of it, in its own name and in the header `x-simulator`."""
    name, behaviour = parse(named, header)
    if name not in MODELS:
        message = f"The model `{name}` does not exist or you do not have access to it."
        raise ApiError(404, message, code="model_not_found")
    return MODELS[name], behaviour


def check_streaming(stream: bool | None, options: object) -> None:
    if options is not None and not stream:
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise ApiError(400, message, param="stream_options")


def check_speaks(model: Model, path: str) -> None:
    """ApiError for a model that only embeds."""
    if model.dimensions:
        message = (
            f"This is not a chat model and thus not supported in the v1/{path} endpoint. "
            "Did you mean to use v1/embeddings?"
        )
        raise ApiError(404, message, param="model")


def seed_of(model: str, body: Json, left_out: AbstractSet[str] = NOT_IN_SEED) -> bytes:
    """What the answer's words come from."""
    said = {name: value for name, value in body.items() if name not in left_out} | {"model": model}
    return hashlib.sha256(msgspec.json.encode(said, order="deterministic")).digest()


def _refusal(said: str, body: Json) -> ApiError:
    found = _MEMBER.search(said)
    param = (found[1] or found[2]) if found else None
    if param is not None and param not in body:
        if param == "model":
            return ApiError(400, "you must provide a model parameter", param=param)
        message = f"Missing required parameter: '{param}'."
        return ApiError(400, message, param=param, code="missing_required_parameter")
    return ApiError(400, f"Invalid value for '{param}': {said}.", param=param, code="invalid_type")
