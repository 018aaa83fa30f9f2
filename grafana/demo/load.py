# ruff: noqa: INP001
"""Asks the demonstration's proxy without end, so that the dashboards have something to show: `load.py [URL]`.

What is asked is the same in each round, in the same order: questions that repeat, ones that nobody asked before, pages
that many open at once, more of them than the provider takes at once, models that fail on purpose, a client that leaves,
one whose budget is soon spent, one without a key.
"""

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

TOPICS = "refunds delivery guarantees invoices discounts parts accounts privacy returns opening-hours".split()
HANDBOOK = " ".join(f"Rule {number}: say what is so, and nothing else." for number in range(120))  # some 1,400 tokens


@dataclass(frozen=True)
class Ask:
    """A request. `leaves`: its client goes after the first bytes; `times`: so many clients send it at once, or, with
    `apart`, each of them another.
    """

    key: str
    model: str
    prompt: str
    stream: bool = False
    system: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    leaves: bool = False
    times: int = 1
    apart: bool = False

    @property
    def body(self) -> dict[str, Any]:
        messages = [{"role": "system", "content": self.system}] if self.system else []
        messages.append({"role": "user", "content": self.prompt})
        return {"model": self.model, "messages": messages, "stream": self.stream, "max_tokens": 200}

    @property
    def each(self) -> list["Ask"]:
        """What its clients send."""
        words = [f" Page {page}." if self.apart else "" for page in range(self.times)]
        return [replace(self, prompt=self.prompt + more) for more in words]


def round_of(number: int) -> Iterator[Ask]:
    """What is asked in this round."""
    for topic in TOPICS:
        yield Ask("demo-web", "economy", f"What is our rule on {topic}?", stream=True)
    yield Ask("demo-web", "economy", f"What is new in edition {number}?", stream=True, times=5)
    for model in ("sim-small", "sim-medium", "sim-large"):
        yield Ask("demo-batch", model, f"Sum up letter {number}.", system=HANDBOOK)
        yield Ask("demo-batch", model, f"Read letter {number} aloud.", stream=True)
    yield Ask("demo-web", "sim-medium", f"Proofread issue {number}.", stream=True, times=10, apart=True)
    yield Ask("demo-trial", "sim-large", f"What do you make of letter {number}?", system=HANDBOOK)
    yield Ask("demo-research", "sim-reasoning", f"Which of the theories {number} and {number + 1} holds?", stream=True)
    yield Ask("demo-research", "sim-large", f"What follows from theory {number}?")
    yield Ask("demo-research", "sim-medium", f"Who else holds theory {number}?", times=6)
    yield Ask("demo-web", "shaky", f"Is anybody there, for the {number}th time?")
    yield Ask("demo-web", "forgetful", f"Where was I, {number}?")
    yield Ask("demo-web", "cut-off", f"Tell me the story of {number}.", stream=True)
    yield Ask("demo-web", "failing", f"Does it work, {number}?")
    yield Ask("demo-web", "sim-instant", f"What does {number} cost?")
    yield Ask("demo-web", "sim-large", f"Never mind {number}.", stream=True, leaves=True)
    yield Ask("demo-web", "sim-small", f"Between us: {number}.", headers={"Cache-Control": "no-store"})
    yield Ask("nobody", "sim-small", "May I?")


async def send(http: httpx.AsyncClient, ask: Ask) -> None:
    """What comes of it is for the dashboards to show."""
    headers = {"Authorization": f"Bearer {ask.key}", **ask.headers}
    try:
        async with http.stream("POST", "/v1/chat/completions", json=ask.body, headers=headers) as answer:
            pieces: AsyncIterator[bytes] = answer.aiter_raw()
            async for _ in pieces:
                if ask.leaves:
                    return
    except httpx.HTTPError:
        return


async def play(http: httpx.AsyncClient, asks: Iterator[Ask], *, at_once: int = 8, pause: float = 0.0) -> None:
    """Send them, so many at once, with seconds of pause between two."""
    room = asyncio.Semaphore(at_once)

    async def sent(ask: Ask) -> None:
        async with room:
            await asyncio.gather(*(send(http, each) for each in ask.each))

    async with asyncio.TaskGroup() as group:
        for ask in asks:
            group.create_task(sent(ask))
            await asyncio.sleep(pause)


async def main(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as http:
        for number in itertools.count():
            await play(http, round_of(number), pause=0.5)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:] or ["http://proxy:8080"]))
