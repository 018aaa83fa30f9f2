"""Clients that must not meet."""

from bench.soak.answers import cache, is_good
from bench.soak.lab import STORED_ONLY, Lab, Proxy, chat
from bench.soak.wire import Call, finished, sent_at_once

KEYS = 20
QUESTIONS = 20
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
