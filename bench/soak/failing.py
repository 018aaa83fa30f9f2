"""Providers that fail: an honest end for every reader, and nothing of it is kept."""

import asyncio
import socket
from functools import partial
from typing import Literal

from bench.soak.answers import DONE, data_of, error_code, is_good, is_stream
from bench.soak.lab import STORED_ONLY, Lab, Proxy, chat, in_groups, ms
from bench.soak.wire import Call, answered, finished, sent_at_once

ROUNDS = 20
CHUNKS = 6
EVENTS = CHUNKS + 4  # the role, the finish, the usage that Penstock asks for, [DONE]
FINISHED = CHUNKS + 2  # after the event with the finish a stream is whole, cut or not
CODES = {"reset": "upstream_reset", "cut": "upstream_truncated"}

Fault = Literal["reset", "cut"]


async def refused(lab: Lab) -> str:
    """U1."""
    lab.steps(40)
    worst = 0.0
    with lab.proxy(upstream=_closed_port(), warns=True) as proxy:
        for number in range(40):
            worst = max(worst, await _refused_once(lab, proxy, stream=number % 2 == 0))
            lab.step()
        await lab.all_quiet(proxy)
    return f"40 answers, the slowest after {ms(worst)}"


async def _refused_once(lab: Lab, proxy: Proxy, *, stream: bool) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    call = await answered(proxy.port, chat("sim-instant", lab.question(), stream=stream))
    took = loop.time() - began
    said = f"status {call.status}, {call.headers.get('content-type')}, code {error_code(call)}"
    good = call.status == 502 and not is_stream(call) and error_code(call) == "upstream_connect_error"
    lab.expect(good, said)
    lab.expect(took < 1, f"refused after {ms(took)}")
    return took


def _closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


async def reset(lab: Lab) -> str:
    """U4."""
    return await _fail_everywhere(lab, "reset")


async def cut(lab: Lab) -> str:
    """U5."""
    return await _fail_everywhere(lab, "cut")


async def _fail_everywhere(lab: Lab, fault: Fault) -> str:
    """At each event of a stream, and before and in the middle of a JSON body; three readers each."""
    where = [(True, after) for after in range(EVENTS + 1)] + [(False, 0), (False, 1)]
    lab.steps(ROUNDS * len(where))
    with lab.proxy(warns=True) as proxy:
        before = await lab.asked()
        fail = partial(_fail_once, lab, proxy, fault)
        await in_groups([fail(stream, after) for _ in range(ROUNDS) for stream, after in where], 10)
        made = await lab.asked() - before
        # Cut between finish and usage, a stream is whole but no answer to JSON: that reader makes a call of its own.
        expected = ROUNDS * (len(where) + (fault == "cut"))
        lab.expect(made == expected, f"{made} calls upstream, not {expected}: something was tried again")
        stored = (await proxy.metrics()).get('penstock_recordings_total{result="stored"}', 0)
        await lab.all_quiet(proxy)
    kept = f"{stored:.0f} stored" + (", which were cut after their finish" if fault == "cut" else "")
    return f"{made} calls upstream, 2 or 3 readers each; {kept}"


async def _fail_once(lab: Lab, proxy: Proxy, fault: Fault, stream: bool, after: int) -> None:
    """Two readers in the leader's form and one in the other; the leader comes first."""
    model, question = f"sim-instant;first=0.1;gap=0.002;chunks={CHUNKS};{fault}={after}", lab.question()
    forms = (stream, stream, not stream) if stream else (stream, stream)
    calls = await sent_at_once(proxy.port, [chat(model, question, stream=form) for form in forms])
    await finished(calls)
    whole = stream and fault == "cut" and after >= FINISHED
    what = f"{fault} after {after} of {'a stream' if stream else 'JSON'}"
    for call, wants_stream in zip(calls, forms, strict=True):
        if whole:
            _check_whole(lab, call, after, what)
        elif wants_stream and after:
            _check_frame(lab, call, CODES[fault], what)
        else:
            good = call.status == 502 and call.whole and error_code(call) == CODES[fault]
            lab.expect(good, f"{what}: status {call.status}, code {error_code(call)}")
    stored = await proxy.stores(chat(model, question, stream=stream, more=STORED_ONLY))
    lab.expect(stored is whole, f"{what}: {'was' if stored else 'was not'} stored")
    lab.step()


def _check_whole(lab: Lab, call: Call, after: int, what: str) -> None:
    """What was cut after its finish lacks nothing but [DONE]."""
    if is_stream(call) and after < EVENTS:
        lab.expect(call.whole and error_code(call) is None and DONE not in data_of(call), f"{what}: not passed on")
    else:
        lab.expect(is_good(call), f"{what}: not passed on")


def _check_frame(lab: Lab, call: Call, code: str, what: str) -> None:
    """The error as the last event, then an end that no client takes for one."""
    data = data_of(call)
    framed = call.status == 200 and error_code(call) == code and bytes(call.body).endswith(data[-1] + b"\n\n")
    lab.expect(framed, f"{what}: no frame (status {call.status}, {len(data)} events, code {error_code(call)})")
    lab.expect(DONE not in data, f"{what}: [DONE]")
    lab.expect(not call.whole, f"{what}: a clean end")
