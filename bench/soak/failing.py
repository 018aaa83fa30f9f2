"""Providers that fail: an honest end for every reader, and nothing of it is kept."""

from collections.abc import Iterable
from functools import partial
from typing import Literal

from bench.soak.answers import DONE, data_of, error_code, is_good, is_stream
from bench.soak.lab import STORED_ONLY, UNBROKEN, Lab, Proxy, chat, in_groups
from bench.soak.provider import DONE as DONE_EVENT
from bench.soak.provider import Act, Provider, Step, body_of, chunk, chunked_head, completion, event, head, question_of
from bench.soak.wire import Call, finished, sent_at_once

ROUNDS = 20
CHUNKS = 6
EVENTS = CHUNKS + 4  # the role, the finish, the usage that Penstock asks for, [DONE]
FINISHED = CHUNKS + 2  # after the event with the finish a stream is whole, cut or not
CODES = {"reset": "upstream_reset", "cut": "upstream_truncated"}
WHERE = [(True, after) for after in range(EVENTS + 1)] + [(False, 0), (False, 1)]  # streamed or not, after how many
BYTES = event("one ") + event(finish="stop") + DONE_EVENT
JSON = completion()

Fault = Literal["reset", "cut"]


async def reset(lab: Lab) -> str:
    """U4."""
    lab.steps(ROUNDS * len(WHERE) + len(BYTES) + 1 + len(JSON))
    events = await _fail_everywhere(lab, "reset")
    return f"{events}; {await _reset_at_each_byte(lab)}"


async def _reset_at_each_byte(lab: Lab) -> str:
    """Of a stream and of a JSON body; the provider is a row's own, since it must not add a byte."""
    where = [(True, count) for count in range(len(BYTES) + 1)] + [(False, count) for count in range(len(JSON))]
    async with Provider(_lost_after) as provider:
        with lab.proxy(settings=f'{UNBROKEN}\nusage = "never"', upstream=provider.port, warns=True) as proxy:
            await in_groups([_reset_at(lab, proxy, stream, count) for stream, count in where], 10)
            await lab.all_quiet(proxy)
        made = len(provider.requests)
    lab.expect(made == len(where), f"{made} calls upstream for {len(where)} resets at a byte")
    return f"at each of {len(BYTES)} bytes of a stream and {len(JSON)} of JSON: {made} calls upstream"


def _lost_after(request: bytes) -> Iterable[Step]:
    """So many bytes as the question says, then RST."""
    count = int(question_of(request).split()[0])
    if body_of(request)["stream"]:
        yield chunked_head()
        if count:
            yield chunk(BYTES[:count])
    else:
        yield head(b"content-length: %d" % len(JSON), media=b"application/json") + JSON[:count]
    yield Act.RESET


async def _reset_at(lab: Lab, proxy: Proxy, stream: bool, count: int) -> None:
    """Events that were whole are there, then the frame; without any, 502."""
    question = f"{count} {lab.question()}"
    calls = await sent_at_once(proxy.port, [chat("m", question, stream=stream)])
    await finished(calls)
    # `[DONE]` is only given out once HTTP has ended behind it.
    events = BYTES[:count].count(b"\n\n") - (count == len(BYTES)) if stream else 0
    what = f"reset after {count} bytes of {'a stream' if stream else 'JSON'}"
    for call in calls:
        if events:
            check_frame(lab, call, "upstream_reset", what)
            lab.expect(len(data_of(call)) == events + 1, f"{what}: {len(data_of(call)) - 1} events, not {events}")
        else:
            good = call.status == 502 and call.whole and error_code(call) == "upstream_reset"
            lab.expect(good, f"{what}: status {call.status}, code {error_code(call)}")
    stored = await proxy.stores(chat("m", question, stream=stream, more=STORED_ONLY))
    lab.expect(not stored, f"{what}: was stored")
    lab.step()


async def cut(lab: Lab) -> str:
    """U5."""
    lab.steps(ROUNDS * len(WHERE))
    return await _fail_everywhere(lab, "cut")


async def _fail_everywhere(lab: Lab, fault: Fault) -> str:
    """At each event of a stream, and before and in the middle of a JSON body; three readers each."""
    with lab.proxy(settings=UNBROKEN, warns=True) as proxy:
        before = await lab.asked()
        fail = partial(_fail_once, lab, proxy, fault)
        await in_groups([fail(stream, after) for _ in range(ROUNDS) for stream, after in WHERE], 10)
        made = await lab.asked() - before
        # Cut between finish and usage, a stream is whole but no answer to JSON: that reader makes a call of its own.
        expected = ROUNDS * (len(WHERE) + (fault == "cut"))
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
            check_frame(lab, call, CODES[fault], what)
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


def check_frame(lab: Lab, call: Call, code: str, what: str) -> None:
    """The error as the last event, then an end that no client takes for one."""
    data = data_of(call)
    framed = call.status == 200 and error_code(call) == code and bytes(call.body).endswith(data[-1] + b"\n\n")
    lab.expect(framed, f"{what}: no frame (status {call.status}, {len(data)} events, code {error_code(call)})")
    lab.expect(DONE not in data, f"{what}: [DONE]")
    lab.expect(not call.whole, f"{what}: a clean end")
