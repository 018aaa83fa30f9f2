"""/v1/completions, the legacy endpoint: prompts, each continued `n` times.

A prompt of a list is continued as it would be alone. The models of chat serve it too, but show none of their reasoning.
"""

import secrets
import time
from typing import Annotated

import msgspec

from proxy.simulator.answers import Wish, choices
from proxy.simulator.calling import Spoken
from proxy.simulator.continuations import Continuation, Printed, completion, stream
from proxy.simulator.errors import ApiError
from proxy.simulator.render import Stamp
from proxy.simulator.request import (
    NOT_IN_SEED,
    Asked,
    StreamOptions,
    check_speaks,
    check_streaming,
    checked,
    decoded,
    model_of,
    seed_of,
)
from proxy.simulator.tokens import Prompt, of_input

Text = str | tuple[int, ...]  # a prompt: text, or tokens

_NOT_IN_SEED = NOT_IN_SEED | {"best_of", "echo"}
_LIMIT = 16


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """The members that shape an answer; all others only enter its seed."""

    model: str
    prompt: str | Annotated[list[str | int | list[int]], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    best_of: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=5)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    stop: str | Annotated[list[str], msgspec.Meta(max_length=4)] | None = None


class Completing(Asked, frozen=True, kw_only=True):
    """A checked call."""

    request: Request
    prompts: tuple[Text, ...]

    @property
    def wanted(self) -> tuple[int, int]:
        """How many continuations of each prompt are made, and how many of them are given."""
        n = self.request.n or 1
        return max(n, self.request.best_of or n), n

    def wish(self, prompt: Text) -> Wish:
        """What this prompt's continuations are made from."""
        limit = self.request.max_tokens
        return Wish(
            seed=seed_of(self.model.id, {**self.body, "prompt": prompt}, _NOT_IN_SEED),
            behaviour=self.behaviour,
            limit=_LIMIT if limit is None else limit,
            stop=self.request.stop,
        )


class Completions:
    """The endpoint, to be called by `Calls`."""

    name = "completions"

    def read(self, raw: bytes, header: str) -> Completing:
        body = decoded(raw)
        request = checked(body, Request)
        model, behaviour = model_of(request.model, header)
        check_speaks(model, "completions")
        _check_together(request)
        prompts = _prompts(request.prompt)
        return Completing(
            named=request.model, model=model, behaviour=behaviour, body=body, request=request, prompts=prompts
        )

    def speak(self, asked: Completing) -> Spoken:
        made = [each for prompt in asked.prompts for each in _continued(asked, prompt)]
        given = [msgspec.structs.replace(each, index=index) for index, each in enumerate(_best(asked, made))]
        options, stamp = asked.request.stream_options, Stamp("cmpl-" + secrets.token_hex(15)[:29], int(time.time()))
        printed = Printed(
            stamp=stamp,
            model=asked.model.id,
            continuations=tuple(given),
            prompt_tokens=sum(map(of_input, asked.prompts)),
            completion_tokens=sum(len(each.said) for each in made),
            asked_usage=bool(options and options.include_usage),
            behaviour=asked.behaviour,
        )
        streamed = bool(asked.request.stream) and not asked.behaviour.json
        script = stream(printed) if streamed else completion(printed)
        return Spoken(script, Prompt(printed.prompt_tokens, 0), max(len(each.said) for each in made))


def _continued(asked: Completing, prompt: Text) -> list[Continuation]:
    request, wish = asked.request, asked.wish(prompt)
    made, _ = asked.wanted
    return [
        Continuation(
            prompt=prompt,
            said=choice.refusal or choice.content or (),
            finish=choice.finish,
            echo=bool(request.echo),
            top=request.logprobs,
            seed=wish.seed + bytes((choice.index,)),
        )
        for choice in choices(wish, made)
    ]


def _best(asked: Completing, made: list[Continuation]) -> list[Continuation]:
    """Of each prompt's continuations the `n` likeliest, the likeliest first where there is a choice."""
    each, n = asked.wanted
    if each == n:
        return made
    groups = [made[at : at + each] for at in range(0, len(made), each)]
    return [one for group in groups for one in sorted(group, key=Continuation.likelihood, reverse=True)[:n]]


def _check_together(request: Request) -> None:
    """Members that need each other."""
    check_streaming(request.stream, request.stream_options)
    n = request.n or 1
    best_of = request.best_of or n
    if best_of < n:
        message = (
            "You requested that the server return more choices than it will generate (HINT: you must set 'n' "
            f"(currently {n}) to be at most 'best_of' (currently {best_of}), or omit either parameter)."
        )
        raise ApiError(400, message, param="best_of")
    if request.stream and best_of > n:
        raise ApiError(400, "Results of 'best_of' cannot be streamed.", param="best_of")


def _prompts(given: str | list[str | int | list[int]]) -> tuple[Text, ...]:
    if isinstance(given, str):
        return (given,)
    texts = [each for each in given if isinstance(each, str)]
    tokens = [each for each in given if isinstance(each, int)]
    arrays = [tuple(each) for each in given if isinstance(each, list) and each]
    if len(tokens) == len(given):
        return (tuple(tokens),)
    found: tuple[Text, ...] = (*texts, *arrays)
    if len(given) not in (len(texts), len(arrays)):
        message = "Invalid value for 'prompt': a string, an array of strings, of tokens or of token arrays."
        raise ApiError(400, message, param="prompt", code="invalid_type")
    return found
