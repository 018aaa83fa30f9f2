"""Proxies that end, by a kill and by a request."""

import asyncio
import random
import signal
import socket
import tempfile
import time
from pathlib import Path

from bench.soak.answers import DONE, cache, data_of, error_code, is_good, meaning, text
from bench.soak.lab import STORED_ONLY, Lab, Proxy, becomes, chat
from bench.soak.wire import Call, answered, finished, sent_at_once

KILLS = 20
WRITERS = 40
KNOWN = 200  # answers that each start is asked for again
STREAMS = 50
DRAIN = 30.0
WRITTEN = "sim-instant;first=0.02;gap=0.002;chunks=20"


class Memory:
    """What a data directory must still hold, by question, and what it may."""

    def __init__(self) -> None:
        self.known: dict[str, bytes] = {}  # was a hit before the last kill
        self.answered: dict[str, bytes] = {}  # was answered; the disk may not have had it yet
        self.begun: set[str] = set()
        self.lost = 0
        self.hits = 0


async def killed(lab: Lab) -> str:
    """S3, as far as there is a cache."""
    lab.steps(KILLS)
    memory, dice = Memory(), random.Random(7)
    slowest = 0.0
    with tempfile.TemporaryDirectory() as directory:
        for number in range(KILLS + 1):
            with lab.proxy(data=Path(directory), warns=True) as proxy:  # of what the last process left
                lab.expect(proxy.running.ready < 1.5, f"start took {proxy.running.ready:.2f} s")
                slowest = max(slowest, proxy.running.ready)
                await _look_back(lab, proxy, memory)
                if number < KILLS:
                    await _write_until_killed(lab, proxy, memory, 0.2 + dice.random() * 0.6)
                    lab.step()
    lab.expect(memory.hits > KNOWN, f"only {memory.hits} entries reached the disk")
    return (
        f"slowest start {slowest:.2f} s; {memory.hits:,} hits after kills, all compared; "
        f"{memory.lost:,} answers had not reached the disk"
    )


async def _write_until_killed(lab: Lab, proxy: Proxy, memory: Memory, seconds: float) -> None:
    writers = [asyncio.ensure_future(_writer(lab, proxy, memory)) for _ in range(WRITERS)]
    await asyncio.sleep(seconds)
    proxy.process.kill()
    await asyncio.gather(*writers)


async def _writer(lab: Lab, proxy: Proxy, memory: Memory) -> None:
    """Ask anew until nobody answers."""
    while proxy.process.poll() is None:
        question = lab.question()
        memory.begun.add(question)
        try:
            call = await answered(proxy.port, chat(WRITTEN, question))
        except OSError:
            return
        if is_good(call):
            memory.answered[question] = meaning(call)


async def _look_back(lab: Lab, proxy: Proxy, memory: Memory) -> None:
    """Everything that is a hit is whole, and what it was; whatever was a hit once is one again."""
    for question in memory.known:
        call = await _stored(proxy, question)
        lab.expect(is_good(call) and cache(call) == "hit", f"an entry was gone after a kill: status {call.status}")
        lab.expect(not is_good(call) or meaning(call) == memory.known[question], "a hit changed")
        memory.hits += 1
    fresh = sorted(memory.begun - memory.known.keys())
    for question in fresh:
        await _look_at(lab, proxy, memory, question)
    memory.begun.clear()
    memory.answered.clear()


async def _look_at(lab: Lab, proxy: Proxy, memory: Memory, question: str) -> None:
    """One that was under way or just answered when the kill came."""
    call = await _stored(proxy, question)
    if call.status == 504:
        memory.lost += question in memory.answered
        return
    memory.hits += 1
    lab.expect(is_good(call), f"a partial entry: status {call.status}, {call.events} events")
    if question in memory.answered:
        lab.expect(meaning(call) == memory.answered[question], "a hit is not what was answered")
    else:
        said = await answered(lab.simulator.port, chat(WRITTEN, question))
        lab.expect(text(call) == text(said), "a hit is not what the provider says")
    if len(memory.known) < KNOWN:
        memory.known[question] = meaning(call)


async def _stored(proxy: Proxy, question: str) -> Call:
    return await answered(proxy.port, chat(WRITTEN, question, more=STORED_ONLY))


async def drained(lab: Lab) -> str:
    """O1: streams that end in time do so; those that outlast the drain get the frame."""
    lab.steps(6)
    slowest = 0.0
    for _ in range(5):
        with lab.proxy() as proxy:
            calls = await _streams(lab, proxy, "sim-instant;gap=0.02;chunks=60")
            slowest = max(slowest, await _told_to_end(lab, proxy, DRAIN))
            await finished(calls)
            for call in calls:
                lab.expect(is_good(call), f"cut after {call.events} events, code {error_code(call)}")
        lab.step()
    with lab.proxy(settings='[server]\ndrain = "1s"', warns=True) as proxy:
        calls = await _streams(lab, proxy, "sim-instant;stall=10")
        short = await _told_to_end(lab, proxy, 1.0)
        await finished(calls)
        for call in calls:
            ended = error_code(call) == "shutting_down" and not call.whole and DONE not in data_of(call)
            lab.expect(
                ended, f"outlasting the drain: code {error_code(call)}, {'clean' if call.whole else 'unclean'} end"
            )
    lab.expect(await lab.open_becomes(0) < 5, "calls stay open at the provider")
    lab.step()
    return f"the slowest was gone {slowest:.1f} s after SIGTERM; with a drain of 1 s and endless streams {short:.1f} s"


async def _streams(lab: Lab, proxy: Proxy, model: str) -> list[Call]:
    """Under way, each with a few events behind it."""
    calls = await sent_at_once(proxy.port, [chat(model, lab.question()) for _ in range(STREAMS)])
    for call in calls:
        await call.reach(5)
    return calls


async def _told_to_end(lab: Lab, proxy: Proxy, drain: float) -> float:
    """Seconds from SIGTERM to the exit. Silent connections must not hold it up; who comes meanwhile is told."""
    silent = [socket.create_connection(("127.0.0.1", proxy.port)) for _ in range(5)]
    began = time.perf_counter()
    proxy.process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.1)
    ready = await answered(proxy.port, b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    new = await answered(proxy.port, chat("sim-instant", lab.question()))
    lab.expect(ready.status == 503, f"/readyz: {ready.status} while draining")
    lab.expect(new.status == 503 and error_code(new) == "shutting_down", f"a new call: {new.status} while draining")

    async def gone() -> bool:
        return proxy.process.poll() is not None

    await becomes(gone, drain + 5)
    took = time.perf_counter() - began
    lab.expect(took < drain + 5, f"not gone {took:.0f} s after SIGTERM")
    lab.expect(proxy.process.poll() == 0, f"exit {proxy.process.poll()}")
    for connection in silent:
        connection.close()
    return took
