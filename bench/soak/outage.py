"""A provider that fails every call for a minute: it is soon left alone, and asked again once it may have healed.

Beside it another model, of another provider, which answers everything meanwhile; and by itself, for clients that do
not retry, since these cause the most calls.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bench.soak.answers import error_code, is_good
from bench.soak.lab import RETRIES_ITSELF, Lab, Proxy, chat, local, ms, outcomes, priced, route
from bench.soak.provider import Provider, Step, good, whole
from bench.soak.wire import Call, answered

MINUTE = 60.0
RATE = 25  # calls of clients a second
MOST = 1.2  # calls upstream for each of them
AT_ONCE = 0.5  # seconds for an answer by another model
SETTLED = 5.0  # seconds after which the breaker has long been open
PAUSES = (30.0, 60.0)  # of a breaker, before its first probe and its second
LATE = 1.0  # seconds by which a probe may be
FAILURES = (b"500 Internal Server Error", b"502 Bad Gateway", b"503 Service Unavailable", b"529 Overloaded")
STATUSES = (500, 502, 503, 529)
FAILURE = b'{"error": {"message": "It is down.", "type": "server_error", "param": null, "code": "down"}}'
DOWN, OTHER = "down", "sim-instant"
MODELS = priced(DOWN, "0.01") + priced(OTHER, "9", provider="other") + route("either", DOWN, OTHER)
SETTINGS = """
auth = "none"
[routing]
default_provider = "sim"
[providers.other]
auth = "none"
base_url = """


async def minute(lab: Lab) -> str:
    """U9: both at once, each with a provider that is down of its own."""
    lab.steps(6)
    beside, alone = Outage(), Outage()
    async with Provider(beside) as first, Provider(alone) as second:
        settings = f'{SETTINGS}"{local(lab.simulator.port)}"\n{MODELS}'
        with (
            lab.proxy(settings=settings, upstream=first.port, warns=True) as routed,
            lab.proxy(upstream=second.port, warns=True) as single,
        ):
            seen = await asyncio.gather(
                _with_another(Trial(lab, routed, beside, "either", retrying=True)),
                _by_itself(Trial(lab, single, alone, DOWN, retrying=False)),
            )
            for proxy in (routed, single):
                await lab.all_quiet(proxy)
    return "; ".join(seen)


class Outage:
    """What a provider answers until it is `healed`; `asked`: when it was, in monotonic seconds."""

    def __init__(self) -> None:
        self.healed = False
        self.asked: list[float] = []

    def __call__(self, request: bytes) -> Iterable[Step]:
        self.asked.append(time.monotonic())
        return good(request) if self.healed else [whole(FAILURE, status=FAILURES[len(self.asked) % len(FAILURES)])]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client got, and after how many seconds."""

    call: Call
    took: float

    @property
    def by(self) -> str:
        return self.call.headers.get("x-penstock-model", "") if is_good(self.call) else ""


@dataclass(slots=True)
class Trial:
    """As many calls each second, whatever becomes of them. `retrying`: every third client retries by itself."""

    lab: Lab
    proxy: Proxy
    outage: Outage
    model: str
    retrying: bool
    began: float = field(default_factory=time.monotonic)
    answers: list[Answer] = field(default_factory=list)

    async def load(self, seconds: float, *, until: str | None = None) -> list[Answer]:
        """What clients got in so many seconds, or until this model had answered one."""
        start, before = time.monotonic(), len(self.answers)
        calls: list[asyncio.Task[None]] = []
        while time.monotonic() < start + seconds and not any(
            each.by == until for each in self.answers[before:][-RATE:]
        ):
            calls.append(asyncio.create_task(self._one(len(calls))))
            await asyncio.sleep(max(0.0, start + len(calls) / RATE - time.monotonic()))
        await asyncio.gather(*calls)
        return self.answers[before:]

    async def _one(self, number: int) -> None:
        more, began = RETRIES_ITSELF if self.retrying and number % 3 == 0 else (), time.monotonic()
        request = chat(self.model, self.lab.question(), stream=number % 2 == 0, more=more)
        call = await answered(self.proxy.port, request)
        self.answers.append(Answer(call, time.monotonic() - began))

    def check_calls(self, what: str, answers: Sequence[Answer], elsewhere: int) -> str:
        """Few calls for each of the clients', and one probe after the first of them."""
        asked, probes = len(self.outage.asked), sum(at > self.began + SETTLED for at in self.outage.asked)
        ratio = (asked + elsewhere) / len(answers)
        self.lab.expect(ratio <= MOST, f"{what}: {ratio:.2f} calls upstream for each of the clients'")
        self.lab.expect(probes == 1, f"{what}: {probes} probes within a minute")
        return (
            f"{what}: {len(answers):,} calls, {asked} in vain ({probes} of them probes), {ratio:.2f} upstream for each"
        )

    async def heals(self, what: str, checked: str) -> str:
        """It is asked again at the end of the pause at the latest, and then by everybody."""
        self.outage.healed, healed = True, time.monotonic()
        await self.load(PAUSES[1], until=DOWN)
        took, at = time.monotonic() - healed, time.monotonic() - self.began
        due = sum(PAUSES)
        self.lab.expect(
            at < due + LATE, f"{what}: it answered again after {at:.0f} s; the pause was over at {due:.0f} s"
        )
        self.lab.step()
        after = await self.load(1.0)
        others = [each for each in after if each.by != DOWN]
        self.lab.expect(not others, f"{what}: healed, {len(others)} of {len(after)} calls were not answered by it")
        self.lab.step()
        return f"{checked}; it answered again {took:.0f} s after it healed"


async def _with_another(trial: Trial) -> str:
    """Every call is answered, at once, by the other model."""
    before = await trial.lab.asked()
    answers = await trial.load(MINUTE)
    trial.lab.step()
    for each in answers:
        trial.lab.expect(each.by == OTHER, f"another model is there: status {each.call.status}, by {each.by!r}")
        trial.lab.expect(each.took < AT_ONCE, f"another model is there: answered after {ms(each.took)}")
    slowest = ms(max(each.took for each in answers))
    checked = trial.check_calls("with another model", answers, await trial.lab.asked() - before)
    return await trial.heals("with another model", f"{checked}, the slowest answered after {slowest}")


async def _by_itself(trial: Trial) -> str:
    """Every call is told: what the provider said, or that it is not asked for now."""
    answers = await trial.load(MINUTE)
    trial.lab.step()
    for each in answers:
        code, after = error_code(each.call), each.call.headers.get("retry-after", "")
        told = code == "down" and each.call.status in STATUSES
        refused = code == "upstream_unavailable" and each.call.status == 503 and 0 < int(after or 0) <= sum(PAUSES)
        trial.lab.expect(told or refused, f"by itself: status {each.call.status}, {code}, Retry-After {after!r}")
    checked = trial.check_calls("by itself", answers, 0)
    said = outcomes((each.call for each in answers), lambda call: str(error_code(call)))
    return await trial.heals("by itself", f"{checked}, {said}")
