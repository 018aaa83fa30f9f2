"""Clients that must not meet."""

import math
import random
import time

from bench.soak.answers import cache, is_good
from bench.soak.lab import STORED_ONLY, Lab, Proxy, chat
from bench.soak.wire import Call, connected, finished, sent_at_once

KEYS = 20
QUESTIONS = 20
SMALL = "sim-instant;chunks=50"
MODEL = "sim-instant;first=0.6;gap=0.002;chunks=20"


async def keys_apart(lab: Lab) -> str:
    """T1: the simulator says the same to everyone, so it is calls and its request ids that tell who got whose."""
    lab.steps(2 * QUESTIONS)
    with lab.proxy() as proxy:
        before = await lab.asked()
        calls = [call for number in range(QUESTIONS) for call in await _all_keys(lab, proxy, f"question {number}")]
        made = await lab.asked() - before
        ids = {call.headers.get("x-request-id") for call in calls}
        lab.expect(made == KEYS * QUESTIONS, f"{made} calls upstream, not {KEYS * QUESTIONS}")
        lab.expect(
            len(ids) == KEYS * QUESTIONS, f"{len(ids)} calls answered {KEYS * QUESTIONS} pairs of key and question"
        )
        for number in range(QUESTIONS):
            await _read_again(lab, proxy, f"question {number}")
    return f"{made} calls upstream for {KEYS} keys × {QUESTIONS} questions × 2 readers"


async def _all_keys(lab: Lab, proxy: Proxy, question: str) -> list[Call]:
    """Each key twice, all at once: it joins itself and nobody else."""
    names = [f"key-{number}" for number in range(KEYS)] * 2
    forms = [number % 2 == 0 for number in range(len(names))]
    requests = [chat(MODEL, question, stream=form, key=key) for form, key in zip(forms, names, strict=True)]
    calls = await sent_at_once(proxy.port, requests)
    await finished(calls)
    for key in range(KEYS):
        mine = [calls[key], calls[key + KEYS]]
        lab.expect(all(map(is_good, mine)), "an answer was not whole")
        lab.expect(sorted(map(cache, mine)) == ["collapsed", "miss"], f"one key: {sorted(map(cache, mine))}")
        lab.expect(len({call.headers.get("x-request-id") for call in mine}) == 1, "a key joined another's flight")
    lab.step()
    return calls


async def _read_again(lab: Lab, proxy: Proxy, question: str) -> None:
    """Those who asked hit; those who never did get nothing."""
    for name, wanted in (("key", 200), ("stranger", 504)):
        requests = [chat(MODEL, question, key=f"{name}-{number}", more=STORED_ONLY) for number in range(KEYS)]
        calls = await sent_at_once(proxy.port, requests)
        await finished(calls)
        for call in calls:
            lab.expect(call.status == wanted, f"{name}: status {call.status} for what was stored for others or itself")
    lab.step()


SAMPLES = 250
LIKELY = 0.01  # a smaller p says that the two are told apart


async def timing(lab: Lab) -> str:
    """T2: whether another key has an answer, and whether a key exists, cannot be told from how long a refusal takes."""
    lab.steps(2)
    keys = "".join(f'[[keys]]\nname = "{name}"\nkey_env = "KEY_{name.upper()}"\n' for name in ("mine", "other"))
    environ = {"KEY_MINE": "sk-mine", "KEY_OTHER": "sk-other"}
    with lab.proxy(settings=f'auth = "none"\n{keys}', environ=environ) as proxy:
        theirs, nobodys = ([lab.question() for _ in range(SAMPLES)] for _ in range(2))
        for begin in range(0, SAMPLES, 50):
            calls = await sent_at_once(proxy.port, [chat(SMALL, each, key="sk-other") for each in theirs[begin:][:50]])
            await finished(calls)
            lab.expect(all(map(is_good, calls)), "an answer was not whole")
        stored = [chat(SMALL, each, key="sk-mine", more=STORED_ONLY) for each in theirs]
        absent = [chat(SMALL, each, key="sk-mine", more=STORED_ONLY) for each in nobodys]
        entries = await _compared(lab, proxy, stored, absent, 504)
        lab.step()
        near = [chat(SMALL, each, key=f"sk-othe{number:03}") for number, each in enumerate(theirs)]
        far = [chat(SMALL, each, key=f"zz-zzzz{number:03}") for number, each in enumerate(nobodys)]
        known = await _compared(lab, proxy, near, far, 401)
        lab.step()
    return (
        f"{SAMPLES} + {SAMPLES} samples each: another's entry or nobody's, p = {entries:.2f}; "
        f"a key that is almost right or not at all, p = {known:.2f}"
    )


async def _compared(lab: Lab, proxy: Proxy, one: list[bytes], other: list[bytes], status: int) -> float:
    """The p of the two being alike: each request on a connection of its own, in random order."""
    dice = random.Random(7)
    took: tuple[list[float], list[float]] = [], []
    turns = [(0, each) for each in one] + [(1, each) for each in other]
    dice.shuffle(turns)
    for side, request in turns:
        call = await connected(proxy.port)
        began = time.perf_counter()
        call.send(request)
        await call.over
        took[side].append(time.perf_counter() - began)
        lab.expect(call.status == status, f"status {call.status}, not {status}")
    p = alike(*took)
    lab.expect(p > LIKELY, f"told apart: p = {p:.4f}")
    return p


def alike(one: list[float], other: list[float]) -> float:
    """The p of the two-sample test of Kolmogorov and Smirnov, by its series for large samples."""
    points = sorted([(each, 0) for each in one] + [(each, 1) for each in other])
    seen, apart = [0, 0], 0.0
    for _, side in points:
        seen[side] += 1
        apart = max(apart, abs(seen[0] / len(one) - seen[1] / len(other)))
    scale = math.sqrt(len(one) * len(other) / (len(one) + len(other)))
    x = (scale + 0.12 + 0.11 / scale) * apart
    if x < 0.2:  # the series converges too slowly, and the answer is 1
        return 1.0
    return min(1.0, 2 * sum((1 if k % 2 else -1) * math.exp(-2 * (k * x) ** 2) for k in range(1, 101)))
