"""Clients that take their time: slow readers of a common answer, half a request, nothing at all."""

import asyncio
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.soak.answers import cache, error_code, is_good, meaning
from bench.soak.lab import Lab, Proxy, chat, ms, timed
from bench.soak.wire import Call, Slow, connected, finished, kept, sent, sent_at_once, sent_slowly

READERS, SLOW = 20, 100
CHUNKS = 1500
FLOWING = f"sim-instant;first=0.5;gap=0.004;chunks={CHUNKS}"
HALF_OPEN = 1000
WORKERS = 4
PHASE = 6.0  # seconds of traffic
PATIENCE = 2.0  # seconds that a proxy of its own has for heads and bodies
QUIET = 0.3  # seconds


async def slow_readers(lab: Lab) -> str:
    """C3: an answer with 20 readers, then one with 100 slow ones besides, who have it all once they are let go."""
    lab.steps(3)
    with lab.proxy() as proxy:
        alone = await _read_by_all(lab, proxy, [])
        lab.step()
        question = lab.question()
        before = await lab.asked()
        slow = [await sent_slowly(proxy.port, chat(FLOWING, question)) for _ in range(SLOW)]
        beside = await _read_by_all(lab, proxy, slow, question)
        lab.step()
        made = await lab.asked() - before
        lab.expect(made == 1, f"{made} calls upstream, not 1")
        taken = max(len(each.call.body) for each in slow)
        _check_slow(lab, slow, beside)
        await _let_go(lab, slow, beside.calls)
        lab.step()
        await lab.all_quiet(proxy)
    lab.expect(
        beside.seconds < 1.25 * alone.seconds, f"with slow readers {ms(beside.seconds)}, not {ms(alone.seconds)}"
    )
    return (
        f"{READERS} readers took {ms(alone.seconds)} alone and {ms(beside.seconds)} beside {SLOW} slow ones, "
        f"of whom the fastest had {taken:,} of {beside.size:,} bytes by then"
    )


@dataclass(frozen=True, slots=True)
class Reading:
    """Normal readers of one answer, and how long the slowest took."""

    calls: list[Call]
    seconds: float

    @property
    def size(self) -> int:
        return len(self.calls[0].body)


async def _read_by_all(lab: Lab, proxy: Proxy, slow: Sequence[Slow], question: str = "") -> Reading:
    calls = await sent_at_once(proxy.port, [chat(FLOWING, question or lab.question())] * READERS)
    _, seconds = await timed(finished(calls))
    for call in calls:
        lab.expect(is_good(call), f"beside {len(slow)} slow: not whole (status {call.status}, {call.events} events)")
    return Reading(calls, seconds)


def _check_slow(lab: Lab, slow: Sequence[Slow], beside: Reading) -> None:
    for each in slow:
        behind = not each.call.over.done() and len(each.call.body) < beside.size / 2
        lab.expect(behind, f"a slow reader had {len(each.call.body):,} of {beside.size:,} bytes: nothing was tried")


async def _let_go(lab: Lab, slow: Sequence[Slow], others: Sequence[Call]) -> None:
    for each in slow:
        each.let_go()
    await finished([each.call for each in slow])
    expected = {meaning(call) for call in others if is_good(call)}
    lab.expect(len(expected) == 1, f"{len(expected)} different answers")
    for each in slow:
        whole = is_good(each.call)
        lab.expect(whole, f"let go: not whole (status {each.call.status}, {each.call.events} events)")
        lab.expect(not whole or meaning(each.call) in expected, "let go: another answer")


@dataclass(slots=True)
class Times:
    """Seconds that hits and misses took."""

    hits: list[float] = field(default_factory=list)
    misses: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, float]:
        found = {}
        for name, times in (("hits", self.hits), ("misses", self.misses)):
            found[f"{name}' median"] = statistics.median(times)
            found[f"{name}' p99"] = statistics.quantiles(times, n=100)[98]
        return found


async def half_open(lab: Lab) -> str:
    """C4: traffic without them, beside them, and without them again."""
    lab.steps(5)
    without, beside = Times(), Times()
    with lab.proxy() as proxy:
        stored = chat(f"sim-instant;chunks={CHUNKS}", lab.question())
        await finished([await sent(proxy.port, stored)])
        await _traffic(lab, proxy, Times(), 1.0)  # warm
        await _traffic(lab, proxy, without, PHASE / 2)
        lab.step()
        crowd = await _half_open_crowd(proxy)
        slow = [await sent_slowly(proxy.port, stored) for _ in range(SLOW)]
        await asyncio.sleep(1)
        await _traffic(lab, proxy, beside, PHASE)
        lab.step()
        early = sum(call.over.done() for call in (*crowd, *(each.call for each in slow)))
        lab.expect(early == 0, f"{early} half-open sockets and slow readers were over too early")
        for call in (*crowd, *(each.call for each in slow)):
            call.leave()
        await lab.all_quiet(proxy)
        await _traffic(lab, proxy, without, PHASE / 2)
        lab.step()
    return f"{_compare(lab, without.figures(), beside.figures())}; {await _cut_off(lab)}"


def _compare(lab: Lab, without: Mapping[str, float], beside: Mapping[str, float]) -> str:
    for name, seconds in beside.items():
        bound = 2 * without[name] + 0.005 if "p99" in name else 1.25 * without[name] + 0.0005
        lab.expect(seconds < bound, f"{name} {1000 * seconds:.2f} ms, {1000 * without[name]:.2f} ms without them")
    return ", ".join(f"{name} {1000 * without[name]:.2f} → {1000 * beside[name]:.2f} ms" for name in without)


async def _traffic(lab: Lab, proxy: Proxy, times: Times, seconds: float) -> None:
    """Hits and misses in turn, streamed and JSON, on kept connections."""
    until = asyncio.get_running_loop().time() + seconds
    await asyncio.gather(*(_worker(lab, proxy, times, until, stream=number % 2 == 0) for number in range(WORKERS)))


async def _worker(lab: Lab, proxy: Proxy, times: Times, until: float, *, stream: bool) -> None:
    connection = await kept(proxy.port)
    loop = asyncio.get_running_loop()
    while loop.time() < until:
        request = chat("sim-instant", lab.question(), stream=stream).replace(b"Connection: close\r\n", b"")
        for kind, expected in ((times.misses, "miss"), (times.hits, "hit")):
            _, took = await timed(connection.ask(request))
            kind.append(took)
            lab.expect(
                connection.status == 200 and cache(connection) == expected, f"a {expected} was {connection.status}"
            )
    connection.leave()


REQUEST = chat("sim-instant", "half of a question")
HEAD, BODY = REQUEST.split(b"\r\n\r\n")
# What a socket says before it falls silent: nothing, some of the head, or of the body.
HALVES = (b"", HEAD[: len(HEAD) // 2], b"P", HEAD, HEAD + b"\r\n\r\n", HEAD + b"\r\n\r\n" + BODY[: len(BODY) // 2])


async def _half_open_crowd(proxy: Proxy) -> list[Call]:
    crowd = []
    for number in range(HALF_OPEN):
        call = await connected(proxy.port)
        call.send(HALVES[number % len(HALVES)])
        crowd.append(call)
    return crowd


async def _cut_off(lab: Lab) -> str:
    """With little patience: all are closed in time, with 408 where something had come. Drops do not help."""
    settings = f'[server]\nhead_timeout = "{PATIENCE:g}s"\nbody_timeout = "{PATIENCE:g}s"'
    with lab.proxy(settings=settings) as proxy:
        before = await lab.asked()
        crowd = await _half_open_crowd(proxy)
        dripping = [await sent(proxy.port, half) for half in (HEAD[:-1], HEAD) * 50]
        drip = asyncio.ensure_future(_drip(dripping))
        calls = crowd + dripping
        _, took = await timed(asyncio.wait([call.over for call in calls], timeout=2 * PATIENCE + 3))
        drip.cancel()
        _check_cut_off(lab, calls)
        lab.step()
        served = await sent(proxy.port, chat("sim-instant", lab.question()))
        await finished([served])
        lab.expect(is_good(served), "nobody is served afterwards")
        made = await lab.asked() - before
        lab.expect(made == 1, f"{made - 1} calls upstream for half a request")
        await lab.all_quiet(proxy)
        lab.step()
    told = sum(call.status == 408 for call in calls)
    return f"with {PATIENCE:g} s for a head or a body {len(calls):,} were gone after {took:.1f} s, {told:,} told so"


async def _drip(calls: Sequence[Call]) -> None:
    """A byte each now and then, as slowloris does."""
    while True:
        await asyncio.sleep(QUIET)
        for call in calls:
            if not call.over.done():
                call.send(b"x")


def _check_cut_off(lab: Lab, calls: Sequence[Call]) -> None:
    for number, call in enumerate(calls):
        said = HALVES[number % len(HALVES)] if number < HALF_OPEN else b"dripping"
        gone = call.over.done()
        lab.expect(gone, f"still open after {said[:10]!r}… ({len(said)} bytes)")
        if said and gone:
            told = call.status == 408 and error_code(call) == "request_timeout"
            lab.expect(told, f"after {len(said)} bytes: status {call.status}, code {error_code(call)}, not 408")
        elif gone:
            lab.expect(call.status in (0, 408), f"to a silent socket: status {call.status}")
