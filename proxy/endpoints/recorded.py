"""The endpoints whose answers are recorded, with or without `/v1`, and Azure's addresses of them: a call's bytes, its
answer's bytes.
"""

from collections.abc import Callable, Mapping

import msgspec
from starlette.types import Receive, Scope, Send

from proxy.core.access import Grant
from proxy.core.asker import Asker
from proxy.core.call import HEEDED, Call, Headers, header_map, read_call
from proxy.core.dialect import Dialect
from proxy.core.memo import Memo
from proxy.endpoints.answer import Answer
from proxy.endpoints.client import Attendance
from proxy.endpoints.desk import Desk
from proxy.endpoints.intake import Door, read_body
from proxy.errors import NotCached
from proxy.pipeline import Hit, Live, Pipeline
from proxy.plans import Plan

PLANS = 32 * 1024 * 1024  # bytes of requests whose meaning is remembered
_PLAN_WEIGHT = 4  # a parsed body takes so many times the room of its bytes, the bytes included
_PLAN_OVERHEAD = 2048


def _read() -> bool:
    return False


_NONE: Mapping[str, str] = {}

# The query as it came, and the deployment that an address in Azure's style names.
Address = tuple[bytes, str | None]


class Options(msgspec.Struct, frozen=True):
    """The settings that this endpoint heeds."""

    forward: tuple[bytes, ...]
    recorded_pace: bool


class Recorded:
    """An ASGI endpoint: chat completions, text completions or Responses, by its dialect."""

    def __init__(self, dialect: Dialect, pipeline: Pipeline, door: Door, options: Options, desk: Desk) -> None:
        self.endpoint = dialect.name
        self._path = dialect.path
        self._desk = desk
        self._pipeline = pipeline
        self._door = door
        self._options = options
        self._heeded = (*HEEDED, *options.forward)
        self._plans: Memo[tuple[bytes, Address, tuple[bytes | None, ...]], Plan] = Memo(PLANS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with Answer(self.endpoint, send, self._desk) as answer:
            await self.answer(scope, receive, answer)

    async def answer(
        self, scope: Scope, receive: Receive, answer: Answer, meaning: Callable[[bytes], bytes] | None = None
    ) -> None:
        """Within an Answer. `meaning`: the body of this endpoint that another one comes to."""
        headers = header_map(scope["headers"])
        grant = answer.grant = self._door.check(headers)
        raw = await read_body(receive, self._door)
        answer.unread = _read
        if meaning is not None:
            raw = meaning(raw)
        address = scope["query_string"], scope.get("path_params", _NONE).get("deployment")
        plan = self._plan(raw, address, headers, grant)
        answer.understood(plan)
        asker = answer.admit(grant)  # what makes no sense, or may not be asked for, does not count
        try:
            await self._answer(plan, asker, receive, answer)
        except NotCached:
            answer.unanswered()
            raise

    def _plan(self, raw: bytes, address: Address, headers: Headers, grant: Grant) -> Plan:
        """What the request comes to; remembered, for when the same bytes come again."""
        request = raw, address, tuple(map(headers.get, self._heeded))
        plan = self._plans.get(request)
        if plan is None:
            query, deployment = address
            forward = self._options.forward
            call = read_call(self._path, raw, headers, query=query, deployment=deployment, grant=grant, forward=forward)
            plan = self._pipeline.plan(call, grant)
            values = raw.count(b",") + raw.count(b"[") + raw.count(b"{")
            self._plans.put(request, plan, _PLAN_WEIGHT * len(raw) + _PLAN_OVERHEAD * (1 + values // 16))
        return plan

    async def _answer(self, plan: Plan, asker: Asker, receive: Receive, answer: Answer) -> None:
        call = plan.call
        begun = await self._pipeline.begin(plan, asker)
        if isinstance(begun, Hit):
            await self._hit(call, begun, receive, answer)
        else:
            await self._live(call, begun, receive, answer)

    async def _live(self, call: Call, begun: Live, receive: Receive, answer: Answer) -> None:
        async with Attendance(receive) as client:
            with begun as live:
                answer.forwarded(live)
                try:
                    settled = await self._pipeline.settle(live)
                finally:
                    answer.forwarded(live)  # it may have left what it joined, and lead
                if isinstance(settled, Hit):
                    await self._hit(call, settled, receive, answer)
                else:
                    await answer.live(call, live, settled)
        if client.left:
            answer.left()

    async def _hit(self, call: Call, hit: Hit, receive: Receive, answer: Answer) -> None:
        recorded = call.directives.replay == "recorded" if call.directives.replay else self._options.recorded_pace
        if recorded and call.stream:
            async with Attendance(receive) as client:
                await answer.replay(call, hit)
            if client.left:
                answer.left()
        else:
            await answer.hit(call, hit)
