"""Providers that say "later" (429): their words pass on, and where there is another model it answers meanwhile."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import NamedTuple

from bench.soak.answers import cache, is_good
from bench.soak.lab import RETRIES_ITSELF, STORED_ONLY, Lab, Proxy, becomes, chat, ms, priced, route, timed
from bench.soak.provider import Provider, Step, body_of, good, question_of, whole
from bench.soak.wire import Call, answered, finished, sent_at_once

TIMES = 20  # four times as many as failures in a row would open a breaker
AT_ONCE = 0.5  # seconds
LOOK = 0.2  # seconds between two looks whether a model is asked again
LATE = 1.0  # seconds by which it may be


class Later(NamedTuple):
    """What follows from a Retry-After: calls made for a client that does not retry by itself, where nobody else may be
    asked; seconds for which the model is left alone, where somebody may.
    """

    calls: int
    pause: float


def _date(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


LATER: dict[str, Later] = {
    "1": Later(3, 1),
    "0": Later(3, 0),
    "-5": Later(3, 0),
    "30": Later(1, 30),
    "1e9": Later(1, 60),
    "1000000000": Later(1, 60),
    "1.5": Later(3, 1.5),
    "soon": Later(1, 10),
    "": Later(1, 10),
    _date(600): Later(1, 60),
    _date(-600): Later(3, 0),
    "Wed, 99 Foo 2099 00:00:00 GMT": Later(1, 10),
}
RATES = {
    "x-ratelimit-limit-requests": "10000",
    "x-ratelimit-remaining-requests": "9999",
    "x-ratelimit-reset-requests": "6m0s",
    "x-ratelimit-limit-tokens": "2000000",
    "x-ratelimit-remaining-tokens": "-1",
    "x-ratelimit-reset-tokens": "1h30m12.5s",
    "retry-after-ms": "60000.5",
    "x-should-retry": "true",
    "openai-organization": "org-é",
    "x-request-id": "req_0123456789",
}
REFUSAL = (
    b'{ "error": {"message": "Rate limit reached.", "type":"requests", "param":null, "code":"rate_limit_exceeded"}}\n'
)


async def told_to_wait(lab: Lab) -> str:
    """U8: both at once, each at a provider of its own."""
    lab.steps((3 + TIMES) * len(LATER) + 3)
    busy = Busy()
    async with Provider(_later) as only, Provider(busy) as one:
        with (
            lab.proxy(upstream=only.port) as alone,
            lab.proxy(settings=SETTINGS, upstream=one.port) as routed,
        ):
            seen = await asyncio.gather(_nobody_else(lab, alone, only), _somebody_else(lab, routed, busy))
            for proxy in (alone, routed):
                await lab.all_quiet(proxy)
    return "; ".join(seen)


async def _nobody_else(lab: Lab, proxy: Proxy, provider: Provider) -> str:
    worst = 0.0
    for value in LATER:
        for stream in (True, False):
            worst = max(worst, await _passed_on(lab, proxy, provider, value, stream=stream))
            lab.step()
    for value in LATER:
        await _waited_for(lab, proxy, provider, value)
    lab.step()
    await _asked_again(lab, proxy)
    lab.step()
    return f"{2 * TIMES * len(LATER)} refusals compared byte for byte, the slowest after {ms(worst)}"


def _later(request: bytes) -> Iterable[Step]:
    """The 429 that the question names, until it says `now`."""
    value = question_of(request).partition(" #")[0]
    if value == "now":
        return good(request)
    return [refusal(value.removeprefix("plain "), {} if value.startswith("plain ") else RATES)]


def refusal(value: str, more: dict[str, str]) -> bytes:
    lines = [f"{name}: {said}" for name, said in more.items()] + ([f"Retry-After: {value}"] if value else [])
    return whole(REFUSAL, *(line.encode("latin-1") for line in lines), status=b"429 Too Many Requests")


async def _passed_on(lab: Lab, proxy: Proxy, provider: Provider, value: str, *, stream: bool) -> float:
    """To clients that retry by themselves: at once, to the byte, and asked again each time."""
    before, worst = len(provider.requests), 0.0
    question = f"{value} #{lab.question()}"
    for _ in range(TIMES):
        call, took = await timed(answered(proxy.port, chat("m", question, stream=stream, more=RETRIES_ITSELF)))
        worst = max(worst, took)
        _check_refusal(lab, call, value, RATES)
        lab.expect(took < AT_ONCE, f"Retry-After {value!r}: passed on after {ms(took)}")
    made = len(provider.requests) - before
    lab.expect(made == TIMES, f"Retry-After {value!r}: {made} calls upstream for {TIMES}: kept, or tried again")
    lab.expect(not await proxy.stores(chat("m", question, more=STORED_ONLY)), f"Retry-After {value!r}: was stored")
    return worst


def _check_refusal(lab: Lab, call: Call, value: str, more: dict[str, str]) -> None:
    """Is it what the provider said?"""
    lab.expect(call.status == 429 and call.whole, f"Retry-After {value!r}: status {call.status}")
    lab.expect(bytes(call.body) == REFUSAL, f"Retry-After {value!r}: the body is {bytes(call.body)!r}")
    expected = more | ({"retry-after": value} if value else {})
    for name, said in expected.items():
        lab.expect(call.headers.get(name) == said, f"{name} is {call.headers.get(name)!r}, not {said!r}")


async def _waited_for(lab: Lab, proxy: Proxy, provider: Provider, value: str) -> None:
    """For a client that does not retry by itself."""
    before = len(provider.requests)
    call = await answered(proxy.port, chat("m", f"plain {value} #{lab.question()}", stream=False))
    made = len(provider.requests) - before
    lab.expect(call.status == 429, f"Retry-After {value!r}, tried again: status {call.status}")
    lab.expect(made == LATER[value].calls, f"Retry-After {value!r}: {made} calls upstream, not {LATER[value].calls}")


async def _asked_again(lab: Lab, proxy: Proxy) -> None:
    """After all of that the provider is asked as before."""
    requests = [chat("m", f"now #{lab.question()}", stream=stream) for stream in (True, False) for _ in range(TIMES)]
    calls: list[Call] = await sent_at_once(proxy.port, requests)
    await finished(calls)
    for call in calls:
        lab.expect(is_good(call) and cache(call) == "miss", f"afterwards: status {call.status}, {cache(call)}")


BUSY = {f"busy-{number}": value for number, value in enumerate(LATER)}
BOTH = ("30", "5")  # what the two models of one route say
SETTINGS = "".join(
    [
        *(priced(model, "0.01") + route(f"{model}-or-idle", model, "idle") for model in BUSY),
        priced("idle", "9"),
        *(priced(value, value) for value in BOTH),
        route("both", *BOTH),
    ]
)


class Busy:
    """A provider of a model for each Retry-After, which it says until it has `recovered`, and of one that is idle."""

    def __init__(self) -> None:
        self.recovered: set[str] = set()
        self.asked: Counter[str] = Counter()

    def __call__(self, request: bytes) -> Iterable[Step]:
        model: str = body_of(request)["model"]
        self.asked[model] += 1
        value = model if model in BOTH else BUSY.get(model)
        return (
            good(request)
            if value is None or model in self.recovered
            else [refusal(value, RATES if model in BOTH else {})]
        )


async def _somebody_else(lab: Lab, proxy: Proxy, busy: Busy) -> str:
    """Routes over a busy model and one that is idle and dearer."""
    await _both_busy(lab, proxy, busy)
    lab.step()
    found = await asyncio.gather(*(_left_alone(lab, proxy, busy, model) for model in BUSY))
    paused = ", ".join(f"{value or 'none'!r}: {seconds:.1f} s" for value, seconds in zip(LATER, found, strict=True))
    return f"with another model all were answered at once, and the busy one was left alone (Retry-After {paused})"


async def _both_busy(lab: Lab, proxy: Proxy, busy: Busy) -> None:
    """Nobody is left: the last one's words, to the byte. One that cools is asked then, not all each time."""
    for number in range(TIMES):
        call = await answered(proxy.port, chat("both", lab.question(), stream=number % 2 == 0, more=RETRIES_ITSELF))
        _check_refusal(lab, call, call.headers.get("x-penstock-model", ""), RATES)
    asked = [busy.asked[model] for model in BOTH]
    lab.expect(sorted(asked) == [1, TIMES], f"both busy: {asked} calls upstream for {TIMES}")


async def _left_alone(lab: Lab, proxy: Proxy, busy: Busy, model: str) -> float:
    """Many calls around a 429, then one now and then. Seconds until the busy model answered."""
    value, pause, began = BUSY[model], LATER[BUSY[model]].pause, time.perf_counter()
    for number in range(TIMES):
        more = RETRIES_ITSELF if number % 2 else ()
        found, took = await timed(_answered(lab, proxy, model, more))
        lab.expect(found == "idle", f"Retry-After {value!r}: answered by {found!r}")
        lab.expect(took < AT_ONCE, f"Retry-After {value!r}: answered by another model after {ms(took)}")
        lab.step()
    # Where it may be asked at once each call asks it: so many refusals in a row open no breaker.
    made, expected = busy.asked[model], 1 if pause else TIMES
    lab.expect(made == expected, f"Retry-After {value!r}: asked {made} times for {TIMES} calls, not {expected}")
    busy.recovered.add(model)

    async def back() -> bool:
        await asyncio.sleep(LOOK)
        return await _answered(lab, proxy, model) == model

    await becomes(back, pause + 2 * LATE)
    took = time.perf_counter() - began
    lab.expect(pause - 0.1 < took < pause + LATE, f"Retry-After {value!r}: left alone for {took:.1f} s, not {pause} s")
    lab.step()
    return took


async def _answered(lab: Lab, proxy: Proxy, model: str, more: tuple[str, ...] = ()) -> str:
    """By whom a call was that this model or the idle one may answer."""
    question = lab.question()
    call = await answered(proxy.port, chat(f"{model}-or-idle", question, stream=len(question) % 2 == 0, more=more))
    lab.expect(is_good(call), f"Retry-After {BUSY[model]!r}, another model is there: status {call.status}")
    return call.headers.get("x-penstock-model", "")
