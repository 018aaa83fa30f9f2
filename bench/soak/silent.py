"""Providers that fall silent, or say next to nothing: each deadline holds, and a client hears that we are here."""

import asyncio
from collections.abc import Iterable

from bench.soak.answers import cache, data_of, error_code, is_good
from bench.soak.failing import CHUNKS, EVENTS, check_frame
from bench.soak.lab import STORED_ONLY, UNBROKEN, Lab, Proxy, chat, in_groups, ms
from bench.soak.provider import DONE, Act, Provider, Step, chunk, chunked_head, completion, event, head, question_of
from bench.soak.wire import Call, answered, finished, sent_at_once

AT_ONCE = 50
FIRST, IDLE, TOTAL = 2.0, 1.0, 4.0
TIMERS = f"""
{UNBROKEN}
first_event_timeout = "{FIRST:g}s"
idle_timeout = "{IDLE:g}s"
total_timeout = "{TOTAL:g}s"
"""
ROUNDS = 10
FEW = 20
PING = b": ping\n\n"
PINGED = 15.0  # seconds of silence, at the most
SILENCE = PINGED + 1.5


async def slow_to_begin(lab: Lab) -> str:
    """U2: before anything came, after the head, and with part of an event or of a JSON body."""
    cases = [("nothing", True), ("head", True), ("part", True), ("nothing", False), ("head", False), ("part", False)]
    lab.steps(len(cases))
    words = []
    async with Provider(_begins) as provider:
        with lab.proxy(settings=TIMERS, upstream=provider.port, warns=True) as proxy:
            for case, stream in cases:
                words.append(await _too_late(lab, proxy, provider, case, stream))
                lab.step()
            await lab.all_quiet(proxy)
    return "; ".join(words)


def _begins(request: bytes) -> Iterable[Step]:
    """As much as the question names, then nothing more."""
    case, form, *_ = question_of(request).split()
    stream = form == "stream"
    begun = chunked_head() if stream else head(b"content-length: 1000", media=b"application/json")
    part = chunk(event()[:-2]) if stream else completion()[:40]
    yield from {"nothing": [], "head": [begun], "part": [begun, part]}[case]
    yield Act.WAIT


async def _too_late(lab: Lab, proxy: Proxy, provider: Provider, case: str, stream: bool) -> str:
    deadline, form = (FIRST, "stream") if stream else (TOTAL, "JSON")
    what, before = f"{case} of a {form}", len(provider.requests)
    requests = [chat("m", f"{case} {form} {lab.question()}", stream=stream) for _ in range(AT_ONCE)]
    began = asyncio.get_running_loop().time()
    calls = await sent_at_once(proxy.port, requests)
    times = await asyncio.gather(*(_over(call, began) for call in calls))
    for call, took in zip(calls, times, strict=True):
        good = call.status == 504 and call.whole and error_code(call) == "upstream_timeout"
        lab.expect(good, f"{what}: status {call.status}, code {error_code(call)}")
        lab.expect(call.headers.get("x-should-retry") == "false", f"{what}: x-should-retry is not false")
        lab.expect(abs(took - deadline) <= deadline / 10, f"{what}: answered after {ms(took)}, not {ms(deadline)}")
    made = len(provider.requests) - before
    lab.expect(made == AT_ONCE, f"{what}: {made} calls upstream for {AT_ONCE}")
    return f"{what}: {ms(min(times))} to {ms(max(times))} of {ms(deadline)}"


async def _over(call: Call, began: float) -> float:
    """Seconds from `began` to the call's end."""
    await finished([call])
    return asyncio.get_running_loop().time() - began


async def silent_within(lab: Lab) -> str:
    """U3."""
    stalls = [(True, after) for after in range(EVENTS + 1)] + [(False, 0), (False, 1)]
    lab.steps(ROUNDS * len(stalls) + len(DRIPS) + 2)
    async with Provider(_drips) as dripping:
        with (
            lab.proxy(settings=TIMERS, warns=True) as hasty,
            lab.proxy(settings=TIMERS, upstream=dripping.port, warns=True) as dripped,
            lab.proxy(upstream=dripping.port) as patient,
        ):
            seen = await asyncio.gather(
                _stalls(lab, hasty, stalls), _drip(lab, dripped), _pings(lab, patient), _unheard(lab, patient)
            )
            for proxy in (hasty, dripped, patient):
                await lab.all_quiet(proxy)
    return "; ".join(seen)


async def _stalls(lab: Lab, proxy: Proxy, stalls: list[tuple[bool, int]]) -> str:
    before = await lab.asked()
    await in_groups([_stalled(lab, proxy, *where) for _ in range(ROUNDS) for where in stalls], 30)
    made = await lab.asked() - before
    lab.expect(made == ROUNDS * len(stalls), f"{made} calls upstream, not {ROUNDS * len(stalls)}")
    return f"{made} stalls"


async def _stalled(lab: Lab, proxy: Proxy, stream: bool, after: int) -> None:
    """Two readers. What fell silent after `[DONE]` is whole, but for the end of HTTP."""
    model, question = f"sim-instant;gap=0.002;chunks={CHUNKS};stall={after}", lab.question()
    what = f"stall after {after} of {'a stream' if stream else 'JSON'}"
    began = asyncio.get_running_loop().time()
    calls = await sent_at_once(proxy.port, [chat(model, question, stream=stream)] * 2)
    await finished(calls)
    took = asyncio.get_running_loop().time() - began
    for call in calls:
        if stream and after == EVENTS:
            lab.expect(is_good(call), f"{what}: not whole (status {call.status}, code {error_code(call)})")
        elif stream and after:
            check_frame(lab, call, "upstream_stall", what)
            lab.expect(IDLE * 0.9 <= took <= IDLE * 1.5, f"{what}: ended after {ms(took)}")
        else:
            good = call.status == 504 and call.whole and error_code(call) == "upstream_timeout"
            lab.expect(good, f"{what}: status {call.status}, code {error_code(call)}")
    lab.expect(not await proxy.stores(chat(model, question, stream=stream, more=STORED_ONLY)), f"{what}: stored")
    lab.step()


# Name: whether an event goes before, what then comes again and again, each how many seconds, and the code at the end.
DRIPS: dict[str, tuple[bool, bytes, float, str, float]] = {
    "bytes after an event": (True, b"", 0.4, "upstream_stall", TOTAL),
    "bytes from the start": (False, b"", 0.4, "upstream_timeout", FIRST),
    "comments after an event": (True, b": keep-alive\n", 0.4, "upstream_stall", TOTAL),
    "comments from the start": (False, b": keep-alive\n", 0.4, "upstream_timeout", TOTAL),
}


def _drips(request: bytes) -> Iterable[Step]:
    """What the question names: one of DRIPS, or a silence before or after an event, and then the rest."""
    case = question_of(request).partition(" #")[0]
    if case in DRIPS:
        return _drip_of(*DRIPS[case][:3])
    rest = [chunk(event("more") + event(finish="stop") + DONE), chunk(b"")]
    if case == "silence before":
        return [SILENCE, chunked_head(), *rest]
    return [chunked_head(), chunk(event()), SILENCE, *rest]


def _drip_of(begun: bool, drop: bytes, gap: float) -> Iterable[Step]:
    yield chunked_head()
    if begun:
        yield chunk(event())
    for byte in event("long " * 20):
        yield chunk(drop or bytes([byte]))
        yield gap


async def _drip(lab: Lab, proxy: Proxy) -> str:
    """All kinds at once, each to some clients."""
    loop = asyncio.get_running_loop()
    words = []
    for_each = [(name, await _ask_for(proxy, name, lab)) for name in DRIPS]
    began = loop.time()
    for name, calls in sorted(for_each, key=lambda each: DRIPS[each[0]][4]):
        begun, _, _, code, deadline = DRIPS[name]
        await finished(calls)
        took = loop.time() - began
        for call in calls:
            if begun:
                check_frame(lab, call, code, name)
            else:
                refused = call.status == 504 and error_code(call) == code
                lab.expect(refused, f"{name}: status {call.status}, code {error_code(call)}")
        lab.expect(abs(took - deadline) <= deadline / 10, f"{name}: ended after {ms(took)}, not {ms(deadline)}")
        words.append(f"{name} {ms(took)}")
        lab.step()
    return ", ".join(words)


async def _ask_for(proxy: Proxy, case: str, lab: Lab, *, stream: bool = True) -> list[Call]:
    requests = [chat("m", f"{case} #{lab.question()}", stream=stream) for _ in range(FEW)]
    return await sent_at_once(proxy.port, requests)


async def _pings(lab: Lab, proxy: Proxy) -> str:
    """Within 15 s of silence a client hears something, and a late one too; nothing of it is stored."""
    question = f"silence after #{lab.question()}"
    calls = await _ask_for(proxy, "silence after", lab)
    calls += await sent_at_once(proxy.port, [chat("m", question)] * FEW)
    await asyncio.gather(*(call.reach(1) for call in calls))
    await asyncio.sleep(PINGED + 0.5)
    for call in calls:
        lab.expect(call.body.count(PING) >= 1, f"no ping in {PINGED:g} s of silence")
    late = await sent_at_once(proxy.port, [chat("m", question)])
    await finished(calls + late)
    for call in calls + late:
        lab.expect(is_good(call), f"pinged: not whole (status {call.status}, {call.events} events)")
        lab.expect(len(data_of(call)) == 4, f"pinged: {len(data_of(call))} events, not 4")
    hit = await answered(proxy.port, chat("m", question))
    lab.expect(cache(hit) == "hit" and PING not in hit.body, f"what was pinged is a {cache(hit)} with a ping")
    lab.step()
    return f"{min(call.body.count(PING) for call in calls)} pings at least in {SILENCE:g} s"


async def _unheard(lab: Lab, proxy: Proxy) -> str:
    """Before the head of the answer nothing may come: it would fix the status."""
    calls = await _ask_for(proxy, "silence before", lab)
    await asyncio.sleep(PINGED + 0.5)
    for call in calls:
        lab.expect(call.status == 0 and not call.body, f"before the first event: status {call.status}, {call.body!r}")
    await finished(calls)
    for call in calls:
        lab.expect(is_good(call) and PING not in call.body, f"late first event: status {call.status}")
    lab.step()
    return "none before the head"
