"""One call of /v1/chat/completions, from its bytes to its tally."""

import secrets
import time

import msgspec
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from proxy.simulator.answers import Answer, answer
from proxy.simulator.behaviour import Behaviour, on_any_answer
from proxy.simulator.delivery import CallerLeftError, Delivery, Outcome, Pace, read_body
from proxy.simulator.errors import ApiError
from proxy.simulator.faults import spoil
from proxy.simulator.memory import Memory
from proxy.simulator.render import Stamp, completion, stream
from proxy.simulator.request import Chat, read
from proxy.simulator.script import Script, whole
from proxy.simulator.tally import Counts, Line

_AT_ONCE = Pace(0.0, 0.0)
_NO_FAULT = Behaviour()


class Plan(msgspec.Struct, frozen=True):
    """What will be sent, and how fast."""

    script: Script
    pace: Pace
    answer: Answer | None = None


class ChatCompletions:
    """The endpoint and its counts."""

    def __init__(self, memory: Memory) -> None:
        self.counts = Counts()
        self._memory = memory

    def forget(self) -> None:
        """All counts to 0. A call that is open goes on counting where it began."""
        self.counts = Counts()
        self._memory.forget_failures()

    async def post(self, scope: Scope, receive: Receive, send: Send) -> None:
        counts = self.counts
        line = counts.begin()
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
            chat = read(raw, options)
        except ApiError as error:
            return await _deliver(Plan(refused(error, on_any_answer(options)), _AT_ONCE), began).run(receive, send)
        line.asked = chat.request.model
        plan = self._plan(chat, raw)
        counts.called(chat.model.id)
        delivery = _deliver(plan, began)
        try:
            return await delivery.run(receive, send)
        finally:
            if plan.answer is not None and plan.script.billed:
                prompt = plan.answer.prompt
                completion = delivery.tokens_sent
                counts.sent(line, chat.model.id, prompt=prompt.tokens, cached=prompt.cached, completion=completion)

    def _plan(self, chat: Chat, raw: bytes) -> Plan:
        if chat.behaviour.fail is not None:
            chat = msgspec.structs.replace(chat, behaviour=self._memory.while_failing(chat.behaviour, raw))
        return _plan(chat)


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


def _plan(chat: Chat) -> Plan:
    behaviour = chat.behaviour
    try:
        _refuse_on_demand(chat)
        said = answer(chat)
    except ApiError as error:
        return Plan(refused(error, behaviour), Pace(behaviour.first or 0.0, 0.0))
    stamp = Stamp("chatcmpl-" + secrets.token_hex(15)[:29], int(time.time()))
    streamed = bool(chat.request.stream) and not behaviour.json
    script = stream(said, chat, stamp) if streamed else completion(said, chat, stamp)
    pace = _pace(chat)
    if not streamed:
        # A JSON answer comes when its last token would have come.
        pace = Pace(pace.first + pace.gap * max(choice.tokens for choice in said.choices), 0.0)
    if behaviour != _NO_FAULT:
        script = spoil(script, behaviour)
    return Plan(script, pace, said)


def _refuse_on_demand(chat: Chat) -> None:
    behaviour = chat.behaviour
    behaviour.refuse()
    if behaviour.refuse_usage and chat.request.stream_options is not None:
        message = "Unknown parameter: 'stream_options'."
        raise ApiError(400, message, param="stream_options", code="unknown_parameter")


def _pace(chat: Chat) -> Pace:
    model, behaviour = chat.model, chat.behaviour
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
