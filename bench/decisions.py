"""What a decision takes: the ranking of a request, as the pipeline asks for it, by a router that has learned.

Rule: no request comes twice, and no two begin alike, so that nothing of the short ones was counted before.
"""

import random
import statistics
import time
from collections.abc import Awaitable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Final, Generic, TypeVar

import msgspec

from pricing.cost import Usage
from pricing.encodings import Encodings
from proxy.clock import SystemClock
from proxy.core.breaker import Health
from proxy.core.call import Call, read_call
from proxy.core.chain import links_of
from proxy.core.learned import Learned
from proxy.offers import price_table, routes_of
from proxy.router import Ranked, Router, encoding_for
from proxy.settings import Model, Provider, Route, Settings

MODELS: Final = ("gpt-4.1-mini", "claude-haiku-4-5", "gemini-2.5-flash", "deepseek-chat")
SECRET: Final = b"bench" * 8
WEEK: Final = 7 * 86400.0
CONVERSATIONS, TURNS = 500, 4  # that were answered before
SHORT: Final = 4096  # bytes of a request
EACH: Final = 100  # of them in a run
RUNS: Final = 5
MESSAGES, LONG = 300, 400_000  # of the long conversation, and its bytes
TRIES: Final = 5  # long conversations
STEPS: Final = 10  # messages by which each goes on
ROOT: Final = Path(__file__).resolve().parent.parent
SOURCES: Final = ("README.md", "proxy/**/*.py", "pricing/*.md", "pricing/*.py", "tests/*.py")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds: `all` of it, and `held`: the longest time for which the loop could do nothing else."""

    all: float
    held: float


@dataclass(frozen=True, slots=True)
class Decided:
    """Medians. `short`: the ranking of a short request; `counted`: its tokens by tiktoken alone, in seconds.

    `whole`: that of a long conversation seen for the first time; `going_on`: of the same with one message more.
    """

    short: Took
    counted: float
    whole: Took
    going_on: Took


class Steps(Generic[T]):
    """Awaits a work and times its steps on the loop; `held` is the longest so far, in seconds."""

    def __init__(self, work: Awaitable[T]) -> None:
        self._work = work
        self.held = 0.0

    def __await__(self) -> Generator[Any, None, T]:
        steps = self._work.__await__()
        while True:
            began = time.perf_counter()
            try:
                waited = next(steps)
            except StopIteration as over:
                result: T = over.value
                return result
            finally:
                self.held = max(self.held, time.perf_counter() - began)
            yield waited


class Decisions:
    """Four models of the catalogue, and a router that has seen 2,000 answers of theirs."""

    def __init__(self) -> None:
        settings = Settings(
            providers={"seller": Provider(base_url="https://seller.example/v1")},
            models={name: Model() for name in MODELS},
            routes={"any": Route(models=MODELS)},
        )
        self._choice = routes_of(settings, price_table(settings)).choice("any")
        self._router = Router(Learned(Health(), kept_for=WEEK), SystemClock())
        self._words = Words()
        self._dice = random.Random(1)

    async def measure(self) -> Decided:
        """Raises RuntimeError: the catalogue has no price of one of the models."""
        await self._router.warm(self._choice.options)
        for _ in range(CONVERSATIONS):
            await self._learn()
        short, counted = await self._short()
        whole, going_on = await self._long()
        return Decided(short, counted, whole, going_on)

    async def _rank(self, call: Call) -> Ranked:
        links = links_of(call.body, SECRET, b"bench")
        ranked = await self._router.consider(call, self._choice, "", links)
        if len(ranked.order) != len(MODELS):
            raise RuntimeError(f"not all models are ranked: {ranked.ranking.dropped}")
        return ranked

    async def _timed(self, call: Call) -> Took:
        steps, began = Steps(self._rank(call)), time.perf_counter()
        ranked = await steps
        took = Took(time.perf_counter() - began, steps.held)
        self._answered(ranked)
        return took

    def _answered(self, ranked: Ranked) -> None:
        """By whom it may be, just now."""
        found = self._dice.choice(ranked.ranking.order)
        usage = Usage(input=found.input, cached=0, output=self._dice.randrange(50, 500))
        self._router.learn(ranked, found.option, usage, first=self._dice.random(), began=time.time())

    async def _learn(self) -> None:
        """A conversation."""
        said: list[str] = []
        for _ in range(TURNS):
            said.append(self._words.some(600))
            self._answered(await self._rank(call_of(said)))
            said.append(self._words.some(300))

    async def _short(self) -> tuple[Took, float]:
        """The rankings, and the same requests counted alone: runs interleaved."""
        encodings, name = Encodings(Lock()), encoding_for(self._choice.options)
        encodings.get(name)
        mine: list[Took] = []
        theirs: list[float] = []
        for _ in range(RUNS):
            calls = [call_of(self._words.request(SHORT)) for _ in range(EACH)]
            for call in calls:
                texts = [message["content"] for message in call.body["messages"]]
                began = time.perf_counter()
                for text in texts:
                    encodings.count(text, name)
                theirs.append(time.perf_counter() - began)
            mine += [await self._timed(call) for call in calls]
        return median(mine), statistics.median(theirs)

    async def _long(self) -> tuple[Took, Took]:
        whole: list[Took] = []
        going_on: list[Took] = []
        for _ in range(TRIES):
            said = [self._words.some(LONG // MESSAGES - 40) for _ in range(MESSAGES - 1)]
            whole.append(await self._timed(call_of(said)))
            for _ in range(STEPS):
                said.append(self._words.some(LONG // MESSAGES - 40))
                going_on.append(await self._timed(call_of(said)))
        return median(whole), median(going_on)


class Words:
    """Prose and code of this project's own, from another place each time."""

    def __init__(self) -> None:
        files = sorted(path for pattern in SOURCES for path in ROOT.glob(pattern))
        self._text = "".join(path.read_text(encoding="utf-8") for path in files)
        self._dice = random.Random(2)

    def some(self, length: int) -> str:
        start = self._dice.randrange(len(self._text) - length)
        return self._text[start : start + length]

    def request(self, size: int) -> list[str]:
        """What is said in a request of so many bytes: a question, its answer, and the next question."""
        said = [self.some(size // 3) for _ in range(3)]
        while (over := len(call_of(said).raw) - size) > 0:
            said[-1] = said[-1][: -max(1, over // 2)]
        return said


def call_of(said: Sequence[str]) -> Call:
    """A request in which the user and the assistant speak in turn."""
    roles = ("user", "assistant")
    messages = [{"role": roles[at % 2], "content": text} for at, text in enumerate(said)]
    return read_call("chat/completions", msgspec.json.encode({"model": "any", "messages": messages}), {})


def median(found: Sequence[Took]) -> Took:
    return Took(statistics.median(each.all for each in found), statistics.median(each.held for each in found))
