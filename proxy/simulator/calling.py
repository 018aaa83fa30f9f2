"""One call of any endpoint, from its bytes to its tally."""

import secrets
import time
from typing import Generic, Protocol, TypeVar

import msgspec
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from proxy.simulator.behaviour import Behaviour, on_any_answer
from proxy.simulator.delivery import CallerLeftError, Delivery, Outcome, Pace, read_body
from proxy.simulator.errors import ApiError
from proxy.simulator.faults import spoil
from proxy.simulator.memory import Memory
from proxy.simulator.request import Asked
from proxy.simulator.script import Script, whole
from proxy.simulator.tally import Counts, Line, Tally
from proxy.simulator.tokens import Prompt

_AT_ONCE = Pace(0.0, 0.0)
_NO_FAULT = Behaviour()
_A = TypeVar("_A", bound=Asked)


class Spoken(msgspec.Struct, frozen=True):
    """An answer before its faults. `longest`: tokens that are waited for where it is one JSON body."""

    script: Script
    prompt: Prompt
    longest: int


class Endpoint(Protocol[_A]):
    """What an endpoint is, apart from how it is called. Both raise ApiError: `read` for what is no call of a model,
    `speak` for what this one cannot answer.
    """

    @property
    def name(self) -> str: ...
    def read(self, raw: bytes, header: str) -> _A: ...
    def speak(self, asked: _A) -> Spoken: ...


class Plan(msgspec.Struct, frozen=True):
    """What will be sent, and how fast. `prompt` is None where nothing was answered."""

    script: Script
    pace: Pace
    prompt: Prompt | None = None


class Calls(Generic[_A]):
    """The calls of one endpoint."""

    def __init__(self, endpoint: Endpoint[_A], memory: Memory, tally: Tally) -> None:
        self._endpoint = endpoint
        self._memory = memory
        self._tally = tally

    async def post(self, scope: Scope, receive: Receive, send: Send) -> None:
        counts = self._tally.counts
        line = counts.begin(self._endpoint.name)
        outcome = Outcome.FAILED
        try:
            outcome = await self._answer(counts, line, scope, receive, send)
        except CallerLeftError:
            outcome = Outcome.HUNG_UP
        finally:
            counts.end(line, outcome)

    async def _answer(self, counts: Counts, line: Line, scope: Scope, receive: Receive, send: Send) -> Outcome:
        began = time.monotonic()
        headers = Headers(scope=scope)
        options = ";".join(headers.getlist("x-simulator"))
        raw = await read_body(receive)
        self._memory.note(scope, raw)
        try:
            check_key(headers)
            asked = self._endpoint.read(raw, options)
        except ApiError as error:
            return await _deliver(Plan(refused(error, on_any_answer(options)), _AT_ONCE), began).run(receive, send)
        line.asked = asked.named
        plan = self._plan(asked, raw)
        counts.called(asked.model.id, asked.inputs())
        delivery = _deliver(plan, began)
        try:
            return await delivery.run(receive, send)
        finally:
            if plan.prompt is not None and plan.script.billed:
                prompt, completion = plan.prompt, delivery.tokens_sent
                counts.sent(line, asked.model.id, prompt=prompt.tokens, cached=prompt.cached, completion=completion)

    def _plan(self, asked: _A, raw: bytes) -> Plan:
        if asked.behaviour.fail is not None:
            asked = msgspec.structs.replace(asked, behaviour=self._memory.while_failing(asked.behaviour, raw))
        return _plan(self._endpoint, asked)


def check_key(headers: Headers) -> None:
    """ApiError 401 for the one key that is refused; every other key is good, and so is none."""
    if headers.get("authorization", "").removeprefix("Bearer ").strip() == "bad-key":
        raise ApiError(
            401,
            "Incorrect API key provided: bad-key. You can find your API key at https://platform.openai.com/account/api-keys.",
            code="invalid_api_key",
        )


def refused(error: ApiError, behaviour: Behaviour) -> Script:
    """The error, with what the options do to it."""
    script = whole(error.body(detail=behaviour.detail))
    told = msgspec.structs.replace(script, status=error.status, headers=error.headers, failed=True, billed=False)
    return spoil(told, behaviour)


def _plan(endpoint: Endpoint[_A], asked: _A) -> Plan:
    behaviour = asked.behaviour
    try:
        _refuse_on_demand(asked)
        spoken = endpoint.speak(asked)
    except ApiError as error:
        return Plan(refused(error, behaviour), Pace(behaviour.first or 0.0, 0.0))
    script, pace = spoken.script, _pace(asked)
    if not script.streamed:
        # A JSON answer comes when its last token would have come.
        pace = Pace(pace.first + pace.gap * spoken.longest, 0.0)
    if behaviour != _NO_FAULT:
        script = spoil(script, behaviour)
    return Plan(script, pace, spoken.prompt)


def _refuse_on_demand(asked: Asked) -> None:
    behaviour = asked.behaviour
    behaviour.refuse()
    if behaviour.refuse_usage and asked.body.get("stream_options") is not None:
        message = "Unknown parameter: 'stream_options'."
        raise ApiError(400, message, param="stream_options", code="unknown_parameter")


def _pace(asked: Asked) -> Pace:
    model, behaviour = asked.model, asked.behaviour
    first = model.first if behaviour.first is None else behaviour.first
    return Pace(first, model.gap if behaviour.gap is None else behaviour.gap)


def _deliver(plan: Plan, began: float) -> Delivery:
    """`began`: monotonic seconds at which the call came in."""
    script = plan.script
    headers = [
        ("content-type", script.content_type),
        ("x-request-id", "req_" + secrets.token_hex(16)),
        ("openai-version", "2020-10-01"),
        ("openai-processing-ms", str(int((time.monotonic() - began + plan.pace.first) * 1000))),
        ("x-ratelimit-limit-requests", "10000"),
        ("x-ratelimit-limit-tokens", "2000000"),
        ("x-ratelimit-remaining-requests", "9999"),
        ("x-ratelimit-remaining-tokens", "1999000"),
        ("x-ratelimit-reset-requests", "6ms"),
        ("x-ratelimit-reset-tokens", "30ms"),
        *script.headers,
    ]
    if script.length is not None:
        headers.append(("content-length", str(script.length)))
    return Delivery(script, plan.pace, [(name.encode(), value.encode("latin-1")) for name, value in headers])
