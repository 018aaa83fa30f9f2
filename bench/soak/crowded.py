"""More than there is room for: those over it are told to come later, hits are served, memory stays bounded."""

import asyncio
from collections.abc import Iterable, Sequence

from bench.soak.answers import cache, error_code, is_good
from bench.soak.hostile import HOST, JSON, request
from bench.soak.lab import Lab, Proxy, becomes, chat, outcomes
from bench.soak.provider import DONE, Provider, Step, body_of, chunk, chunked_head, event, question_of
from bench.soak.wire import Call, Slow, answered, connected, finished, sent_at_once, sent_slowly

CROWD = 500
FLIGHTS, READERS = 200, 300
MIB = 1 << 20
BUFFERED = 64 * MIB
BOUND = 3 * BUFFERED / MIB  # that memory may grow by: as bytes, as data, and on their way out
EVENT = 60_000  # bytes of text in one event
EVENTS = 18  # in an answer: a little more than 1 MiB
HITS = 50
LATER = 100
LASTS = "sim-instant;first=0.5;gap=0.02;chunks=100"
SETTINGS = f"""
[server]
max_flights = {FLIGHTS}
max_readers = {READERS}
max_buffered = {BUFFERED}
"""


async def overloaded(lab: Lab) -> str:
    """O4."""
    lab.steps(4)
    words = []
    with lab.proxy(settings=SETTINGS, warns=True) as proxy:
        stored = await _stored(lab, proxy, "sim-instant")
        different = [chat(LASTS, lab.question(), stream=number % 2 == 0) for number in range(CROWD)]
        words.append(await _too_many(lab, proxy, different, FLIGHTS, stored))
        lab.step()
        words.append(await _too_many(lab, proxy, [chat(LASTS, lab.question())] * CROWD, READERS, stored))
        lab.step()
        words.append(await _too_much_asked(lab, proxy, stored))
        await lab.all_quiet(proxy)
        lab.step()
    words.append(await _too_much_said(lab))
    lab.step()
    return "; ".join(words)


async def _stored(lab: Lab, proxy: Proxy, model: str) -> bytes:
    """A request that is a hit from now on."""
    question = chat(model, lab.question())
    lab.expect(is_good(await answered(proxy.port, question)), "the first call failed")
    return question


async def _too_many(lab: Lab, proxy: Proxy, requests: Sequence[bytes], room: int, stored: bytes) -> str:
    """All at once: so many are answered, the others refused; hits are served meanwhile, everybody afterwards."""
    what = f"room for {room}"
    calls = await sent_at_once(proxy.port, requests)

    async def decided() -> bool:
        return sum(call.over.done() for call in calls) >= CROWD - room

    await becomes(decided, 5)
    await _hits_are_served(lab, proxy, stored, what)
    await finished(calls)
    served = [call for call in calls if call.status == 200]
    lab.expect(len(served) == room, f"{what}: {len(served)} were answered")
    for call in calls:
        if call.status == 200:
            lab.expect(is_good(call), f"{what}: let in, but not whole")
        else:
            _check_refusal(lab, call, what)
    after = await answered(proxy.port, chat("sim-instant", lab.question()))
    lab.expect(is_good(after), f"{what}: afterwards status {after.status}")
    await lab.all_quiet(proxy)
    return f"{what}: {outcomes(calls, lambda call: str(call.status))} of {CROWD}"


def _check_refusal(lab: Lab, call: Call, what: str) -> None:
    refused = call.status == 503 and error_code(call) == "overloaded" and call.whole
    lab.expect(refused, f"{what}: status {call.status}, code {error_code(call)}")
    lab.expect(
        call.headers.get("retry-after", "").isdigit(), f"{what}: Retry-After {call.headers.get('retry-after')!r}"
    )


async def _hits_are_served(lab: Lab, proxy: Proxy, stored: bytes, what: str) -> None:
    calls = await sent_at_once(proxy.port, [stored] * HITS)
    await finished(calls)
    for call in calls:
        lab.expect(is_good(call) and cache(call) == "hit", f"{what}: a hit was {call.status}, {cache(call)}")


async def _too_much_asked(lab: Lab, proxy: Proxy, stored: bytes) -> str:
    """Half of a large body from each of the crowd: those over the bound are refused, the rest is not lost."""
    size = 1 << 20
    head = request(HOST, JSON, f"Content-Length: {size}", "Connection: close")
    body = b'{"model": "sim-instant", "messages": [{"role": "user", "content": "large"}]}'
    body += b" " * (size - len(body))
    before = proxy.running.memory()
    calls = [await connected(proxy.port) for _ in range(CROWD)]
    for call in calls:
        call.send(head + body[: size // 2])
    room = 2 * BUFFERED // size

    async def decided() -> bool:
        return sum(call.over.done() for call in calls) >= CROWD - room

    await becomes(decided, 10)
    grown = proxy.running.memory() - before
    await _hits_are_served(lab, proxy, stored, "large bodies")
    waiting = [call for call in calls if not call.over.done()]
    for call in calls:
        if call.over.done():
            _check_refusal(lab, call, "large bodies")
    lab.expect(room * 0.9 <= len(waiting) <= room, f"large bodies: {len(waiting)} wait, room is for {room}")
    for call in waiting[:20]:
        call.send(body[size // 2 :])
    await finished(waiting[:20])
    for call in waiting[:20]:
        _check_one_of_two(lab, call)
    for call in waiting[20:]:
        call.leave()
    lab.expect(grown < BOUND, f"large bodies: memory grew by {grown:.0f} MiB")
    return f"{CROWD} half bodies of 512 KiB: {len(waiting)} held, memory grew by {grown:.0f} MiB"


def _check_one_of_two(lab: Lab, call: Call) -> None:
    """The second half may be the one byte too many, and is then refused like the others."""
    if call.status == 503:
        _check_refusal(lab, call, "the second half of a large body")
    else:
        lab.expect(is_good(call), f"the second half of a large body: status {call.status}")


def _large(raw: bytes) -> Iterable[Step]:
    """A little more than 1 MiB, as fast as it is taken; or one word."""
    yield chunked_head()
    if question_of(raw).startswith("large") and body_of(raw)["stream"]:
        piece = chunk(event("x" * EVENT))
        for _ in range(EVENTS):
            yield piece
    yield chunk(event("word") + event(finish="stop") + DONE)
    yield chunk(b"")


async def _too_much_said(lab: Lab) -> str:
    """500 large answers to clients that hardly read: held up to the bound; whoever is let go has all of it."""
    async with Provider(_large) as provider:
        with lab.proxy(settings=f"[server]\nmax_buffered = {BUFFERED}", upstream=provider.port, warns=True) as proxy:
            stored = await _stored(lab, proxy, "m")
            before = proxy.running.memory()
            slow = [await sent_slowly(proxy.port, chat("m", f"large {lab.question()}")) for _ in range(CROWD)]
            peak = await _watched(proxy, 3.0)
            refused = [each for each in slow if each.call.over.done()]
            for each in refused:
                _check_refusal(lab, each.call, "while answers are large")
            held = await proxy.metric("penstock_recorded_bytes")
            await _hits_are_served(lab, proxy, stored, "while answers are large")
            later = await _late_ones(lab, proxy)
            let_in = [each for each in slow if each not in refused]
            await _let_go(lab, let_in)
            after = await answered(proxy.port, chat("m", lab.question()))
            lab.expect(is_good(after), f"after large answers: status {after.status}")
            await lab.all_quiet(proxy)
    grown = peak - before
    lab.expect(grown < BOUND, f"large answers: memory grew by {grown:.0f} MiB")
    return (
        f"{CROWD} answers of {EVENTS * EVENT / MIB:.1f} MiB to clients at 1 KB/s: {len(refused)} refused, {later} of "
        f"{LATER} later ones; {held / MIB:.0f} MiB held, memory grew by {grown:.0f} MiB"
    )


async def _watched(proxy: Proxy, seconds: float) -> float:
    """The most memory in this time."""
    loop = asyncio.get_running_loop()
    until, peak = loop.time() + seconds, 0.0
    while loop.time() < until:
        peak = max(peak, proxy.running.memory())
        await asyncio.sleep(0.05)
    return peak


async def _late_ones(lab: Lab, proxy: Proxy) -> int:
    """Who comes while too much is held: all are refused."""
    calls = await sent_at_once(proxy.port, [chat("m", lab.question()) for _ in range(LATER)])
    await finished(calls)
    for call in calls:
        _check_refusal(lab, call, "came while too much was held")
    return sum(call.status == 503 for call in calls)


async def _let_go(lab: Lab, slow: Sequence[Slow]) -> None:
    """Some read all of it, the others leave."""
    kept, others = slow[:50], slow[50:]
    for each in others:
        each.call.leave()
    for each in kept:
        each.let_go()
    await finished([each.call for each in kept])
    for each in kept:
        whole = is_good(each.call) and len(each.call.body) > EVENTS * EVENT
        lab.expect(whole, f"let go: status {each.call.status}, {len(each.call.body):,} bytes")
