"""What a row works with: a simulator of its own, proxies in front of it, and what they say of themselves."""

import asyncio
import itertools
import re
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bench.load import http_post
from bench.servers import Running, started
from bench.soak.wire import Call, answered, fetched

PATH = "/v1/chat/completions"
STORED_ONLY = ("Cache-Control: only-if-cached",)
RETRIES_ITSELF = ("x-stainless-retry-count: 0",)  # a client for whom nothing is tried again
SOON = 'first_event_timeout = "5s"\ntotal_timeout = "5s"'  # settings: whoever asks a silent listener is told so soon
UNBROKEN = "breaker_failures = 0"  # settings: a model that fails on purpose is asked again and again
POLL = 0.005

T = TypeVar("T")


def chat(model: str, question: str, *, stream: bool = True, key: str = "bench", more: tuple[str, ...] = ()) -> bytes:
    """The bytes of a chat completion's request. `more`: header lines."""
    message = {"role": "user", "content": question}
    body = msgspec.json.encode({"model": model, "messages": [message], "stream": stream})
    return http_post(PATH, body, close=True, key=key, more=more)


def priced(model: str, usd: str, *, provider: str = "sim") -> str:
    """Settings: a model, and what a million of its tokens costs."""
    return f'[models."{model}"]\nprovider = "{provider}"\nprice = {{ input = "{usd}", output = "{usd}" }}\n'


def route(name: str, *models: str) -> str:
    """Settings: a name under which the cheapest of these models answers."""
    return f'[routes."{name}"]\nmodels = {msgspec.json.encode(models).decode()}\n'


class Proxy:
    """A running proxy, seen from outside."""

    def __init__(self, running: Running, log: Path) -> None:
        self.running = running
        self.log = log
        self.port = running.port
        self.process = running.process

    async def metrics(self) -> dict[str, float]:
        exposition = (await fetched(self.port, "/metrics")).decode()
        lines = (line.rpartition(" ") for line in exposition.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    async def metric(self, name: str) -> float:
        """A metric of this name and labels; 0 where there is none yet."""
        return (await self.metrics()).get(name, 0.0)

    def said(self, words: str) -> int:
        """How many lines of its log hold these words."""
        return sum(words in line for line in self.log.read_text(encoding="utf-8").splitlines())

    async def left(self) -> str:
        """What an idle proxy does not have, in words; "" if there is nothing."""
        metrics = await self.metrics()
        names = ("penstock_flights", "penstock_requests_open")
        return ", ".join(f"{name} {metrics[name]:.0f}" for name in names if metrics[name])

    async def stores(self, request: bytes) -> bool:
        """Is this request answered out of the store? It must have been built with STORED_ONLY."""
        return (await answered(self.port, request)).status == 200


class Lab:
    """`short` counts what fell short, in words."""

    def __init__(self, simulator: Running, steps: Callable[[int], None], step: Callable[[], None]) -> None:
        self.simulator = simulator
        self.short: Counter[str] = Counter()
        self.steps = steps  # says how many there will be
        self.step = step
        self._numbers = itertools.count(1)

    def expect(self, held: bool, otherwise: str) -> None:
        if not held:
            self.short[otherwise] += 1

    def question(self) -> str:
        """One that nobody has asked yet."""
        return f"question {next(self._numbers)}"

    @contextmanager
    def proxy(
        self,
        *,
        settings: str = "",
        upstream: int | str | None = None,
        data: Path | None = None,
        warns: bool = False,
        errs: str = "",
        environ: Mapping[str, str] | None = None,
        under: tuple[str, ...] = (),
    ) -> Iterator[Proxy]:
        """A proxy in front of the simulator, of another port or of a base URL.

        `settings`: TOML, first of the provider, then tables of their own. Its log must hold no error but those with the
        words `errs`, and no warning unless it `warns`.
        """
        with tempfile.TemporaryDirectory() as directory:
            here = Path(directory)
            base_url = upstream if isinstance(upstream, str) else local(upstream or self.simulator.port)
            config, log = here / "penstock.toml", here / "log"
            table = f'[providers.sim]\nbase_url = "{base_url}"\n{settings}\n[log]\nformat = "text"\n'
            config.write_text(table, encoding="utf-8")
            with log.open("w", encoding="utf-8") as words:
                options = ("--config", str(config), "--port", "0", "--data-dir", str(data or here / "data"))
                with started("proxy", "serve", *options, log=words, environ=environ, under=under) as running:
                    yield Proxy(running, log)
            self._check_log(log.read_text(encoding="utf-8"), warns=warns, errs=errs)

    def _check_log(self, words: str, *, warns: bool, errs: str) -> None:
        """Nothing that is tried here is the proxy's own mistake."""
        for line in words.splitlines():
            found = re.search(r" (ERROR|WARNING) (.*)", line)
            unwanted = found is not None and not warns
            if found is not None and found[1] == "ERROR":
                unwanted = not errs or errs not in line
            bad = line.lstrip().startswith("Traceback") or unwanted
            self.expect(not bad, f"the proxy's log: {(found[2] if found else line)[:100]}")

    async def simulated(self) -> dict[str, Any]:
        """The simulator's counts."""
        counts: dict[str, Any] = msgspec.json.decode(await fetched(self.simulator.port, "/simulator/calls"))
        return counts

    async def asked(self) -> int:
        """How many calls the simulator has had."""
        count: int = (await self.simulated())["calls"]
        return count

    async def open_becomes(self, count: int, within: float = 5.0) -> float:
        """Seconds until so many calls are open at the simulator; infinite if that was not so in time."""

        async def reached() -> bool:
            found: int = (await self.simulated())["open"]
            return found == count

        return await becomes(reached, within)

    async def all_quiet(self, proxy: Proxy, within: float = 5.0) -> None:
        """Expect that nothing stays behind, there or at the simulator."""

        async def quiet() -> bool:
            return not await proxy.left()

        if await becomes(quiet, within) > within:
            self.expect(held=False, otherwise=f"{within:.0f} s later: {await proxy.left()}")
        opened = await self.open_becomes(0, within)
        self.expect(opened <= within, "calls stay open at the provider")


def local(port: int) -> str:
    """The base URL of a provider that listens there."""
    return f"http://127.0.0.1:{port}/v1"


async def becomes(condition: Callable[[], Awaitable[bool]], within: float) -> float:
    """Seconds until the condition held; infinite if it did not in time."""
    began = time.perf_counter()
    while not await condition():
        if time.perf_counter() - began > within:
            return float("inf")
        await asyncio.sleep(POLL)
    return time.perf_counter() - began


async def in_groups(works: Iterable[Awaitable[None]], size: int) -> None:
    """All of them, so many at a time."""
    turns = asyncio.Semaphore(size)

    async def one(work: Awaitable[None]) -> None:
        async with turns:
            await work

    await asyncio.gather(*map(one, works))


async def timed(work: Awaitable[T]) -> tuple[T, float]:
    """What the work gives, and how many seconds it took."""
    began = time.perf_counter()
    return await work, time.perf_counter() - began


def ms(seconds: float) -> str:
    """For a table."""
    return f"{seconds * 1000:.0f} ms"


def outcomes(calls: Iterable[Call], of: Callable[[Call], str]) -> str:
    """`499 collapsed, 1 miss`."""
    return ", ".join(f"{count} {name}" for name, count in Counter(map(of, calls)).most_common())
