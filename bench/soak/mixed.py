"""Everything at once, for `make soak-long`: hits, misses, crowds, routes, what passes through, faults, who leaves.

Rule: every answer is checked. A good one is whole and says what the simulator says to the same question directly; one
that was spoiled never looks whole; what is left in the cache at the end is all good.
"""

import asyncio
import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import msgspec

from bench.load import http_post
from bench.soak.answers import DONE, cache, data_of, error_code, is_good, is_stream, messages, text
from bench.soak.equal import Pair, without_what_differs
from bench.soak.lab import PATH, STORED_ONLY, UNBROKEN, Lab, Proxy, in_groups
from bench.soak.wire import Call, answered, finished, sent, sent_at_once

POOL: Final = 20_000  # questions that are asked again, the first of them most often
CROWD: Final = 12
FEWEST: Final = 50  # content events of a stream
MANNERS: Final = "You are a patient miller. " + "Answer what you are asked, and nothing else. " * 30
# Time-outs so short that a provider's silence is soon seen, and patience for everything else.
SETTINGS: Final = f"""
{UNBROKEN}
first_event_timeout = "2s"
idle_timeout = "1s"
total_timeout = "4s"
[server]
forward_headers = ["OpenAI-Beta", "X-Simulator"]
[cache]
memory_limit = "32MiB"
size_limit = "64MiB"
[models.failing]
upstream = "sim-instant;status=503"
price = {{ input = "0.01", output = "0.01" }}
[models.terse]
upstream = "sim-instant;chunks=60"
price = {{ input = "2", output = "2" }}
[models.verbose]
upstream = "sim-instant;chunks=250"
price = {{ input = "1", output = "1" }}
[routes.any]
models = ["failing", "terse", "verbose"]
"""
ROUTED: Final = 300  # questions to the route: so few that what is learned of them is soon as large as it gets
ABLE: Final = ("sim-instant;chunks=60", "sim-instant;chunks=250")  # who can answer them

_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class Question:
    """Its number decides what is asked, how long the answer is and in which form it is mostly wanted."""

    number: int
    options: str = ""
    model: str = ""  # instead of the one that the number stands for

    @property
    def stream(self) -> bool:
        return self.number % 2 == 0

    def http(self, *, stream: bool, more: tuple[str, ...] = ()) -> bytes:
        chunks = FEWEST + self.number * 37 % 200
        said = [{"role": "system", "content": MANNERS}, {"role": "user", "content": f"question {self.number}"}]
        model = self.model or f"sim-instant;chunks={chunks}{self.options}"
        body = {"model": model, "messages": said, "stream": stream}
        if stream and self.number % 3 == 0:
            body["stream_options"] = {"include_usage": True}
        return http_post(PATH, _encode(body), close=True, more=more)


class Said(NamedTuple):
    """Digests of an answer: its bytes less what differs each time, and what it means in whichever form."""

    form: bytes
    meaning: bytes


@dataclass(frozen=True, slots=True)
class Fault:
    """What the simulator is asked to do, and the codes of an honest answer; {k}: an event, {n}: a byte."""

    option: str
    codes: tuple[str, ...]
    of_streams: bool = True
    of_json: bool = True


_TYPE = ("upstream_bad_content_type",)
_SILENT = ("upstream_timeout", "upstream_stall")
FAULTS: Final = (
    Fault("reset={k}", ("upstream_reset",)),
    Fault("reset-at={n}", ("upstream_reset",)),
    Fault("cut={k}", ("upstream_truncated",)),
    Fault("cut-at={n}", ("upstream_truncated",)),
    Fault("stall={k}", _SILENT),
    Fault("endless;gap=0.05", _SILENT, of_json=False),
    Fault("malformed=0", ("upstream_truncated",), of_streams=False),
    Fault("error={k}", ("server_error",)),
    Fault("html", _TYPE),
    Fault("gzip", _TYPE),
    Fault("type=text/plain", _TYPE),
    Fault("redirect=http://127.0.0.1:9/", _TYPE),
    Fault("status=429;retry-after=30", ("rate_limit_exceeded",)),
    Fault("status=500", ("None",)),
    Fault("status=503;retry-after=0.1", ("overloaded",)),
)


class Load:
    """Asks, and tells the lab what is wrong; `seen` counts what came."""

    def __init__(self, lab: Lab, proxy: Proxy, pair: Pair, dice: random.Random) -> None:
        self._lab = lab
        self._proxy = proxy
        self._pair = pair
        self._dice = dice
        self._direct: dict[tuple[Question, bool], Said] = {}
        self._fresh = itertools.count(POOL)
        self._asked: set[Question] = set()
        self._weights = list(itertools.accumulate(1 / rank for rank in range(1, POOL + 1)))
        self.seen: Counter[str] = Counter()
        steps: dict[Callable[[], Awaitable[None]], float] = {
            self._again: 64,
            self._anew: 16,
            self._crowd: 1,
            self._route: 5,
            self._pass: 5,
            self._compare: 2,
            self._spoil: 6,
            self._leave: 6,
        }
        self._steps, self._shares = list(steps), list(steps.values())

    async def step(self) -> None:
        """One thing that a client, or a crowd of them, may do."""
        (step,) = self._dice.choices(self._steps, self._shares)
        await step()

    def _new(self, options: str = "") -> Question:
        question = Question(next(self._fresh), options)
        self._asked.add(question)
        return question

    async def _again(self) -> None:
        (number,) = self._dice.choices(range(POOL), cum_weights=self._weights)
        question = Question(number)
        self._asked.add(question)
        stream = question.stream if self._dice.random() < 0.8 else not question.stream
        await self._ask(question, stream=stream)

    async def _anew(self) -> None:
        question = self._new()
        await self._ask(question, stream=question.stream)

    async def _ask(self, question: Question, *, stream: bool) -> None:
        call = await answered(self._proxy.port, question.http(stream=stream))
        self.seen[cache(call)] += 1
        await self._check(question, call, stream=stream)

    async def _route(self) -> None:
        """A question to a route, of whose models the cheapest always fails: whoever answers, it is his answer."""
        question = Question(self._dice.randrange(ROUTED), model="any")
        more = ("Cache-Control: no-cache",) if self._dice.random() < 0.5 else ()
        call = await answered(self._proxy.port, question.http(stream=question.stream, more=more))
        self.seen["routed"] += 1
        by = call.headers.get("x-penstock-model", "")
        self._expect("wrong answer", by in ABLE, f"routed to {by!r}, status {call.status}")
        if by in ABLE:
            await self._check(replace(question, model=by), call, stream=question.stream)

    async def _crowd(self) -> None:
        """The same question from many at once: one call, one answer."""
        question = self._new(";first=0.2;gap=0.001")
        forms = [self._dice.random() < 0.5 for _ in range(CROWD)]
        calls = await sent_at_once(self._proxy.port, [question.http(stream=stream) for stream in forms])
        await finished(calls)
        outcomes = Counter(map(cache, calls))
        self.seen.update(outcomes)
        one = outcomes["miss"] == 1 and outcomes["miss"] + outcomes["collapsed"] + outcomes["hit"] == CROWD
        self._expect("crowd", one, f"{dict(outcomes)}")
        for call, stream in zip(calls, forms, strict=True):
            await self._check(question, call, stream=stream)

    async def _pass(self) -> None:
        await self._pair.passed()

    async def _compare(self) -> None:
        """A request of any kind, as `equal` compares them."""
        await (self._pair.good() if self._dice.random() < 0.7 else self._pair.failing())

    async def _spoil(self) -> None:
        """A question that the simulator answers badly."""
        fault = self._dice.choice(FAULTS)
        stream = self._dice.choice([True] * fault.of_streams + [False] * fault.of_json)
        # A JSON body has two halves.
        option = fault.option.format(
            k=self._dice.randrange(FEWEST if stream else 2), n=self._dice.randrange(5000 if stream else 400)
        )
        question = self._new(f";{option}")
        call = await answered(self._proxy.port, question.http(stream=stream))
        self.seen["spoiled"] += 1
        what = f"{fault.option} (stream: {stream})"
        self._expect("false success", not is_good(call) or call.body.startswith(b'{"error":'), what)
        told = f"{what}: status {call.status}, whole {call.whole}, {error_code(call)}"
        self._expect("dishonest", _is_honest(call, fault.codes), told)

    async def _leave(self) -> None:
        """A client that does not wait for its answer, or not even sends all of its question."""
        question = self._new(f";first={self._dice.choice((0, 0.2))};gap=0.002")
        stream = self._dice.random() < 0.7
        request = question.http(stream=stream)
        cut = self._dice.randrange(len(request)) if self._dice.random() < 0.1 else len(request)
        call = await sent(self._proxy.port, request[:cut])
        await asyncio.sleep(self._dice.random() * 0.5)
        self.seen["left" if not call.over.done() else "too late to leave"] += 1
        call.leave(rudely=self._dice.random() < 0.7)
        await finished([call])

    async def _check(self, question: Question, call: Call, *, stream: bool) -> None:
        """A good answer. As it came it has the provider's bytes; in another form it means the same."""
        what = f"{cache(call)}, stream: {stream}, status {call.status}"
        good = is_good(call) and is_stream(call) is stream
        self._expect("not whole", good, f"{what}, {call.events} events, {error_code(call)}")
        if not good:
            return
        direct, said = await self._said_directly(question, stream=stream), _said(call)
        self._expect("wrong answer", said.meaning == direct.meaning, what)
        self._expect("other bytes", cache(call) != "miss" or said.form == direct.form, what)

    async def _said_directly(self, question: Question, *, stream: bool) -> Said:
        known = self._direct.get((question, stream))
        if known is None:
            known = _said(await answered(self._lab.simulator.port, question.http(stream=stream)))
            # Others are rarely asked about a second time.
            if question.number < POOL:
                self._direct[question, stream] = known
        return known

    async def look_back(self) -> int:
        """Every question that was ever asked, asked again of the cache alone; how many it still knows."""
        before = self.seen["kept"]
        await in_groups([self._look_back(question) for question in self._asked], 8)
        return self.seen["kept"] - before

    async def _look_back(self, question: Question) -> None:
        stream = question.stream
        call = await answered(self._proxy.port, question.http(stream=stream, more=STORED_ONLY))
        if call.status == 504:
            return
        self.seen["kept"] += 1
        direct = await self._said_directly(question, stream=stream)
        good = is_good(call) and cache(call) == "hit" and _said(call).meaning == direct.meaning
        self._expect("bad entry", good, f"{question.options} (stream: {stream}), status {call.status}")

    def _expect(self, kind: str, held: bool, otherwise: str) -> None:
        self._lab.expect(held, f"{kind}: {otherwise}")


def _is_honest(call: Call, codes: tuple[str, ...]) -> bool:
    """An error with a status (or, as JSON, with the provider's own); or one at the end of a stream that breaks off."""
    if error_code(call) not in codes:
        return False
    if is_stream(call):
        return call.status == 200 and not call.whole and DONE not in data_of(call)
    return call.whole and (call.status >= 400 or codes == ("server_error",))


def _said(call: Call) -> Said:
    parts = messages(call)
    finishes = [choice.get("finish_reason") for each in parts for choice in each.get("choices", ())]
    usage = [each["usage"] for each in parts if each.get("usage")]
    meaning = _encode((text(call), [finish for finish in finishes if finish], usage))
    form = b"".join(without_what_differs(call))
    return Said(_digest(form), _digest(meaning))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
