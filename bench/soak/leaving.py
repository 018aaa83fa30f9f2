"""Clients that leave: the provider is left too, at once, and nothing stays behind."""

import asyncio
import random
from collections.abc import Iterator

from bench.soak.lab import Lab, Proxy, becomes, chat, ms
from bench.soak.wire import finished, sent

EVENTS = 52  # of a stream of 50 chunks, the role and the finish among them; what comes then, Penstock holds back
CANCELS = 20_000
WORKERS = 100
MEMORY = 8  # MB that the second half of all cancels may add
LONG = "word " * 600  # such requests soon fill what the proxy remembers of requests; what grows after that is a leak
UPSTREAM_IDLE = 20.0  # seconds; the proxy keeps a good connection to the provider for 15


async def streams(lab: Lab) -> str:
    """C1: left in the silence after each event, and while events keep coming."""
    tries = [(f"sim-instant;chunks=50;stall={events}", events) for events in range(EVENTS + 1)]
    tries += [("sim-instant;chunks=400;gap=0.004", events) for events in range(EVENTS + 1)]
    return await _left(lab, tries, stream=True)


async def completions(lab: Lab) -> str:
    """C2: left while the provider thinks, for a little longer each time, and in the middle of its body."""
    tries = [("sim-instant;first=30", events) for events in range(EVENTS + 1)]
    tries += [("sim-instant;stall=1", events) for events in range(0, EVENTS + 1, 5)]
    return await _left(lab, tries, stream=False)


async def _left(lab: Lab, tries: list[tuple[str, int]], *, stream: bool) -> str:
    lab.steps(2 * len(tries))
    with lab.proxy() as proxy:
        worst = 0.0
        for rudely in (True, False):
            for model, events in tries:
                worst = max(worst, await _left_once(lab, proxy, model, events, stream=stream, rudely=rudely))
        await lab.all_quiet(proxy)
    return f"left {2 * len(tries)} times; upstream closed after {ms(worst)} at worst"


async def _left_once(lab: Lab, proxy: Proxy, model: str, events: int, *, stream: bool, rudely: bool) -> float:
    """Seconds from the client's leaving to the provider's noticing."""
    call = await sent(proxy.port, chat(model, lab.question(), stream=stream))
    lab.expect(await lab.open_becomes(1) < 5, "the provider was not called")
    if stream:
        await call.reach(events)
    else:
        await asyncio.sleep(events * 0.004)
    call.leave(rudely=rudely)
    closed = await lab.open_becomes(0)
    lab.expect(closed <= 1, f"upstream was closed after {ms(closed)} ({model}, {events} events)")
    lab.step()
    return closed


async def cancels(lab: Lab) -> str:
    """K7."""
    lab.steps(CANCELS)
    dice = random.Random(7)
    with lab.proxy() as proxy:
        await _use(lab, proxy)
        files = proxy.running.open_files()
        await _cancel(lab, proxy, dice, range(CANCELS // 2))
        warm = proxy.running.memory()
        await _cancel(lab, proxy, dice, range(CANCELS // 2, CANCELS))
        grown = proxy.running.memory() - warm
        asked = await lab.simulated()
        await lab.all_quiet(proxy)
        left = await _files_left(proxy, files)
    # A client that leaves before it was accepted tries nothing.
    lab.expect(asked["hung_up"] >= CANCELS // 4, f"only {asked['hung_up']} calls upstream were left early")
    lab.expect(left <= files + 5, f"{left} open files, {files} before")
    lab.expect(grown <= MEMORY, f"memory grew by {grown:.0f} MB")
    return (
        f"{CANCELS:,} cancels, {asked['calls']:,} calls upstream, {asked['hung_up']:,} of them left early; "
        f"open files {files} → {left}; memory {warm:.0f} MB + {grown:.0f} MB"
    )


async def _use(lab: Lab, proxy: Proxy) -> None:
    """Ordinary use first, so that what is opened once is open: the disk's files, threads."""
    calls = [await sent(proxy.port, chat("sim-instant", lab.question())) for _ in range(50)]
    await finished(calls)


async def _files_left(proxy: Proxy, before: int) -> int:
    async def few() -> bool:
        return proxy.running.open_files() <= before + 5

    await becomes(few, UPSTREAM_IDLE)
    return proxy.running.open_files()


async def _cancel(lab: Lab, proxy: Proxy, dice: random.Random, numbers: range) -> None:
    """So many workers, each with one call at a time."""
    turns = iter(numbers)
    await asyncio.gather(*(_worker(lab, proxy, dice, turns) for _ in range(WORKERS)))


async def _worker(lab: Lab, proxy: Proxy, dice: random.Random, turns: Iterator[int]) -> None:
    for number in turns:
        # Two in a row ask the same, so that half of those who leave leave another reader behind.
        request = chat(
            "sim-instant;first=0.05;gap=0.02;chunks=12", f"cancel {number // 2} {LONG}", stream=dice.random() < 0.5
        )
        cut = dice.randrange(len(request)) if dice.random() < 0.05 else len(request)
        call = await sent(proxy.port, request[:cut])
        await asyncio.sleep(dice.random() * 0.3)
        call.leave(rudely=dice.random() < 0.8)
        lab.step()
