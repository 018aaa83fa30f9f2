"""Many readers of one answer: one call, and everybody gets all of it."""

import asyncio
from collections.abc import Sequence
from functools import partial

from bench.soak.answers import cache, id_of, is_good, is_stream, meaning, text
from bench.soak.lab import STORED_ONLY, Lab, Proxy, chat, in_groups, ms, outcomes
from bench.soak.wire import Call, finished, sent, sent_at_once

READERS = 500
ROUNDS = 10
CHUNKS = 50
EVENTS = CHUNKS + 3  # the role, the finish and [DONE] besides; the usage, which nobody asked for, is taken out
SLOW = f"sim-instant;first=0.6;gap=0.004;chunks={CHUNKS}"


def check_equal(lab: Lab, calls: Sequence[Call], what: str) -> None:
    """All good; streams equal among themselves, completions too, each with an id of its own; both say the same."""
    good = [call for call in calls if is_good(call)]
    for call in calls:
        lab.expect(call in good, f"{what}: not whole (status {call.status}, {call.events} events)")
    for form in (True, False):
        meanings = {meaning(call) for call in good if is_stream(call) is form}
        lab.expect(len(meanings) <= 1, f"{what}: {len(meanings)} different answers")
    lab.expect(len({text(call) for call in good}) <= 1, f"{what}: streams and JSON say different things")
    ids = {id_of(call) for call in good} - {""}
    lab.expect(len(ids) == len(good), f"{what}: only {len(ids)} ids for {len(good)} answers")


async def check_calls(lab: Lab, before: int, expected: int, what: str) -> None:
    made = await lab.asked() - before
    lab.expect(made == expected, f"{what}: {made} calls upstream, not {expected}")


async def identical(lab: Lab) -> str:
    """K1."""
    lab.steps(2 * ROUNDS)
    seen: list[Call] = []
    with lab.proxy() as proxy:
        before = await lab.asked()
        for _ in range(ROUNDS):
            seen += await _crowd(lab, proxy, [True] * READERS)
            seen += await _crowd(lab, proxy, [True, False] * (READERS // 2))
        made = await lab.asked() - before
        await lab.all_quiet(proxy)
    return f"{made} calls upstream for {len(seen):,} answers: {outcomes(seen, cache)}"


async def _crowd(lab: Lab, proxy: Proxy, forms: list[bool]) -> list[Call]:
    """The same question from everybody at once, streamed or not."""
    question, before = lab.question(), await lab.asked()
    calls = await sent_at_once(proxy.port, [chat(SLOW, question, stream=stream) for stream in forms])
    await finished(calls)
    what = "all streamed" if all(forms) else "mixed"
    check_equal(lab, calls, what)
    await check_calls(lab, before, 1, what)
    collapsed = sum(cache(call) == "collapsed" for call in calls)
    lab.expect(collapsed == len(calls) - 1, f"{what}: {collapsed} collapsed")
    lab.step()
    return calls


async def left_by_the_first(lab: Lab) -> str:
    """K2."""
    lab.steps(4 * (EVENTS + 1))
    seen: list[Call] = []
    with lab.proxy() as proxy:
        before = await lab.asked()
        tries = [
            _leader_leaves(lab, proxy, events, stream, rudely, seen)
            for events in range(EVENTS + 1)
            for stream in (True, False)
            for rudely in (True, False)
        ]
        await in_groups(tries, 20)
        made = await lab.asked() - before
        lab.expect(made == len(tries), f"{made} calls upstream, not {len(tries)}")
        await lab.all_quiet(proxy)
    return f"{made} calls upstream, {len(seen):,} other readers: {outcomes(seen, cache)}"


async def _leader_leaves(lab: Lab, proxy: Proxy, events: int, stream: bool, rudely: bool, seen: list[Call]) -> None:
    """The leader has had so many events; one that wants JSON waits as long, having had nothing."""
    model = f"sim-instant;first=0.6;gap=0.01;chunks={CHUNKS}"
    question = lab.question()
    leader = await sent(proxy.port, chat(model, question, stream=stream))
    await asyncio.sleep(0.15)  # so that the others find the flight, and not each other
    others = await sent_at_once(proxy.port, [chat(model, question, stream=form) for form in (True, True, False)])
    await asyncio.sleep(0.25)  # else the leader's end may be seen before their requests: then they are too late to join
    if stream:
        await leader.reach(events)
    else:
        await asyncio.sleep(events * 0.01)
    leader.leave(rudely=rudely)
    await finished(others)
    check_equal(lab, others, f"the leader left {'a stream' if stream else 'JSON'}")
    for call in others:
        lab.expect(cache(call) == "collapsed", f"left after {events} events: a reader was a {cache(call)}")
    seen += others
    lab.step()


async def late(lab: Lab) -> str:
    """K3."""
    rounds = 20
    lab.steps(rounds)
    seen: list[Call] = []
    with lab.proxy() as proxy:
        before = await lab.asked()
        await in_groups([_joined_at_every_chunk(lab, proxy, seen) for _ in range(rounds)], 4)
        made = await lab.asked() - before
        lab.expect(made == rounds, f"{made} calls upstream for {rounds} streams")
        await lab.all_quiet(proxy)
    return f"{made} calls upstream for {len(seen):,} answers: {outcomes(seen, cache)}"


async def _joined_at_every_chunk(lab: Lab, proxy: Proxy, seen: list[Call]) -> None:
    question = lab.question()
    model = f"sim-instant;first=0.05;gap=0.02;chunks={CHUNKS}"
    stream, whole = (chat(model, question, stream=form) for form in (True, False))
    leader = await sent(proxy.port, stream)
    calls = [leader]
    for events in range(1, EVENTS + 1):
        await leader.reach(events)
        calls += await sent_at_once(proxy.port, [stream, whole])
    await finished(calls)
    check_equal(lab, calls, "joined late")
    for call in calls[1:]:
        # Whoever comes with the last event finds the flight or the entry: both are right.
        lab.expect(cache(call) in ("collapsed", "hit"), f"a late reader was a {cache(call)}")
    seen += calls
    lab.step()


async def unstorable(lab: Lab) -> str:
    """K4."""
    cases = {
        "cut by a filter": f"sim-instant;first=0.4;gap=0.004;chunks={CHUNKS};finish=content_filter",
        "over max_entry": "sim-instant;first=0.4;gap=0.0004;chunks=500",
    }
    lab.steps(10 * len(cases))
    words = []
    with lab.proxy(settings='[cache]\nmax_entry = "32KiB"') as proxy:
        for name, model in cases.items():
            shared = partial(_shared_but_forgotten, lab, proxy, name, model)
            slowest = max([await shared() for _ in range(10)])
            words.append(f"{name}: the slowest of those who came later took {slowest:.1f} × one answer")
        await lab.all_quiet(proxy)
    return "; ".join(words)


async def _shared_but_forgotten(lab: Lab, proxy: Proxy, name: str, model: str) -> float:
    """50 wait and share. 10 more come one after another: each gets its answer in the time of one. How slow was one?"""
    question, before = lab.question(), await lab.asked()
    request = chat(model, question)
    waiting = await sent_at_once(proxy.port, [request] * 50)
    alone = await _seconds(waiting[0])
    await finished(waiting)
    check_equal(lab, waiting, name)
    await check_calls(lab, before, 1, name)
    stored = await proxy.stores(chat(model, question, more=STORED_ONLY))
    lab.expect(not stored, f"{name}: was stored")
    slowest = await _slowest_of_the_next(lab, proxy, request, name)
    # Those who come after the first 0.4 s may have to lead a flight of their own; whoever queues behind one takes two.
    lab.expect(slowest < 1.5 * alone, f"{name}: a later one took {ms(slowest)}, an answer alone {ms(alone)}")
    lab.step()
    return slowest / alone


async def _slowest_of_the_next(lab: Lab, proxy: Proxy, request: bytes, name: str) -> float:
    calls, times = [], []
    for _ in range(10):
        calls.append(await sent(proxy.port, request))
        times.append(asyncio.ensure_future(_seconds(calls[-1])))
        await asyncio.sleep(0.06)
    await finished(calls)
    for call in calls:
        lab.expect(is_good(call), f"{name}: a later one was not whole")
    return max(await asyncio.gather(*times))


async def _seconds(call: Call) -> float:
    """From now until it is over."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await asyncio.wait([call.over])
    return loop.time() - began
