"""Providers that send too much: passed on as it comes, never kept, in bounded memory; what is packed stays packed."""

import asyncio
import gzip
from collections.abc import Iterable

from bench.soak.answers import data_of, error_code
from bench.soak.failing import check_frame
from bench.soak.lab import STORED_ONLY, UNBROKEN, Lab, Proxy, becomes, chat
from bench.soak.provider import Provider, Step, chunk, chunked_head, event, good, question_of, whole
from bench.soak.wire import answered, finished, sent_at_once, sent_counted

CAP = 16 << 20  # bytes of an answer that may be kept
PASSED = 3 * CAP  # bytes of an answer that have come through when it is left
MIB = 1 << 20
ORDINARY = "sim-instant"
TIMES = 20
BOMB = gzip.compress(bytes(200 << 20))
SETTINGS = f"[cache]\nmax_entry = {CAP}"
SETTLES = 1.0  # seconds in which memory that still grows would have grown
LOOK = 0.02  # seconds between two looks at the proxy's memory
# Name, what the simulator is asked (else a provider of the row's own), and the form.
ENDLESS = (
    ("a stream of small events", "sim-instant;endless", True),
    ("a stream of 60 KiB events", "", True),
    ("JSON", "sim-instant;endless", False),
)


async def endless(lab: Lab) -> str:
    """U10."""
    lab.steps(len(ENDLESS) + 2)
    words = []
    async with Provider(_floods) as provider:
        for name, model, stream in ENDLESS:
            upstream = lab.simulator.port if model else provider.port
            with lab.proxy(settings=SETTINGS, upstream=upstream) as proxy:
                words.append(f"{name}: {await _endless(lab, proxy, name, model or 'endless', stream=stream)}")
                await lab.all_quiet(proxy)
            lab.step()
        with lab.proxy(settings=UNBROKEN, upstream=provider.port, warns=True) as proxy:
            words.append(await _packed(lab, proxy))
    lab.step()
    words.append(await _too_large(lab))
    lab.step()
    return "; ".join(words)


def _floods(request: bytes) -> Iterable[Step]:
    """What the question says first: `flood` without end, or a `bomb`."""
    if question_of(request).startswith("bomb"):
        yield whole(BOMB, b"content-encoding: gzip")
        return
    if question_of(request).startswith("question"):
        yield from good(request)
        return
    yield chunked_head()
    large = chunk(event("x" * 60_000))
    while True:
        yield large


async def _endless(lab: Lab, proxy: Proxy, name: str, model: str, *, stream: bool) -> str:
    """How much the proxy grew while much more than it may keep came through."""
    # Ordinary use first: what it takes once, it takes with every provider.
    await finished(await sent_at_once(proxy.port, [chat(ORDINARY, lab.question()) for _ in range(TIMES)]))
    before = peak = await _settled(proxy)
    question = f"flood {lab.question()}"
    call = await sent_counted(proxy.port, chat(model, question, stream=stream))
    loop = asyncio.get_running_loop()
    until = loop.time() + 60
    while call.size < PASSED and not call.over.done() and loop.time() < until:
        await asyncio.sleep(LOOK)
        peak = max(peak, proxy.running.memory())
    ended = call.over.done()
    lab.expect(not ended and call.size >= PASSED, f"{name}: {call.size / MIB:.0f} MiB came, {'then an end' * ended}")
    # Nobody joins what is too large; who asks for the same leads a call of its own.
    other = await sent_counted(proxy.port, chat(model, question, stream=stream))
    await asyncio.sleep(0.3)
    lab.expect("collapsed" not in other.headers.get("cache-status", ""), f"{name}: somebody joined it")
    for each in (call, other):
        each.leave()
    grown = peak - before
    lab.expect(grown < 2 * CAP / MIB, f"{name}: memory grew by {grown:.0f} MiB, with {CAP / MIB:.0f} MiB for an entry")
    stored = await proxy.stores(chat(model, question, stream=stream, more=STORED_ONLY))
    lab.expect(not stored, f"{name}: was stored")
    return f"{call.size / MIB:.0f} MiB came through, memory grew by {grown:.0f} MiB (bound {2 * CAP / MIB:.0f})"


async def _settled(proxy: Proxy) -> float:
    """Memory in MB once it no longer grows: the first answer without usage has the encoding loaded to count it."""
    memory = proxy.running.memory()

    async def steady() -> bool:
        nonlocal memory
        before = memory
        await asyncio.sleep(SETTLES)
        memory = proxy.running.memory()
        return memory - before < 1

    await becomes(steady, within=10)
    return memory


async def _packed(lab: Lab, proxy: Proxy) -> str:
    """Nobody asked for it: refused as it is."""
    before = proxy.running.memory()
    requests = [chat("m", f"bomb {lab.question()}", stream=number % 2 == 0) for number in range(TIMES)]
    calls = [await answered(proxy.port, request) for request in requests]
    grown = proxy.running.memory() - before
    for call in calls:
        refused = call.status == 502 and error_code(call) == "upstream_bad_content_type"
        lab.expect(refused, f"gzip: status {call.status}, code {error_code(call)}")
        lab.expect(call.headers.get("x-should-retry") == "false", "gzip: x-should-retry is not false")
    lab.expect(grown < 10, f"gzip: memory grew by {grown:.0f} MiB")
    return f"{len(BOMB) >> 10} KiB of gzip that hold 200 MiB: refused, memory grew by {grown:.0f} MiB"


async def _too_large(lab: Lab) -> str:
    """One event over its bound: the first one is a 502, a later one ends the stream; one within it passes."""
    settings = f'{UNBROKEN}\nmax_event = "256KiB"'
    with lab.proxy(settings=settings, warns=True) as proxy:
        for size in (200_000, 300_000, 3_000_000):
            model = f"sim-instant;big={size}"
            calls = await sent_at_once(proxy.port, [chat(model, lab.question()) for _ in range(TIMES)])
            await finished(calls)
            for call in calls:
                what = f"an event of {size:,} bytes"
                if size < 256 << 10:
                    lab.expect(call.whole and call.status == 200, f"{what}: status {call.status}")
                else:
                    check_frame(lab, call, "upstream_event_too_large", what)
                    lab.expect(len(data_of(call)) == 2, f"{what}: {len(data_of(call))} events")
        await lab.all_quiet(proxy)
    async with Provider(_one_large) as provider:
        with lab.proxy(settings=settings, upstream=provider.port, warns=True) as proxy:
            calls = await sent_at_once(proxy.port, [chat("m", lab.question()) for _ in range(TIMES)])
            await finished(calls)
            for call in calls:
                refused = call.status == 502 and error_code(call) == "upstream_event_too_large"
                lab.expect(refused, f"a first event too large: status {call.status}, code {error_code(call)}")
    return "an event over max_event: 502 if it is the first, else the frame"


def _one_large(_: bytes) -> Iterable[Step]:
    yield chunked_head()
    yield chunk(event("x" * 300_000))
