"""`make soak-long`: half an hour of everything at once, then a table. `python -m bench.soak.long --minutes 3` is short.

Rule: what leaks grows with time, so memory, files and what is under way are sampled, and their slopes judged from the
moment on at which everything that is bounded was full. 1 if one figure falls short.
"""

import argparse
import asyncio
import math
import os
import random
import resource
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import uvloop
from rich.console import Console
from rich.live import Live
from rich.table import Table

from bench.servers import Running, started
from bench.soak.equal import Pair
from bench.soak.lab import Lab, Proxy, becomes, in_groups
from bench.soak.leaving import UPSTREAM_IDLE
from bench.soak.mixed import SETTINGS, Load
from bench.soak.requests import Requests

WORKERS: Final = 24
PAUSE: Final = 0.2  # seconds between two steps of a worker, on average
PERIOD: Final = 10.0  # seconds between two samples
FULL: Final = 0.9 * (32 << 20)  # bytes in the memory tier
WARM: Final = 240.0  # seconds until what the proxy remembers of requests is full too
JUDGED: Final = 1200.0  # seconds of samples that a slope needs: in ten minutes 3 MB of noise look like a leak
SPOKEN: Final = 60.0  # seconds between two lines where no terminal shows a live one
FEW: Final = 5  # files more than before that are no leak

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Sample:
    """`at`: seconds since the beginning; `memory` in MB; `calls`: open at the simulator."""

    at: float
    memory: float
    files: int
    flights: float
    requests: float
    calls: int
    tier: float
    busy: float


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the table. `held` is None where nothing is judged."""

    name: str
    seen: str
    bound: str
    held: bool | None


@dataclass(slots=True)
class Watch:
    """Looks at the proxy and the simulator now and then."""

    lab: Lab
    proxy: Proxy
    began: float = field(default_factory=time.monotonic)
    samples: list[Sample] = field(default_factory=list)

    async def sample(self) -> None:
        metrics = await self.proxy.metrics()
        running = self.proxy.running
        self.samples.append(
            Sample(
                at=time.monotonic() - self.began,
                memory=running.memory(),
                files=running.open_files(),
                flights=metrics["penstock_flights"],
                requests=metrics["penstock_requests_open"],
                calls=(await self.lab.simulated())["open"],
                tier=metrics['penstock_store_bytes{tier="memory"}'],
                busy=_cpu(running),
            )
        )

    @property
    def share(self) -> float:
        """Of one core, what the proxy has used."""
        first, last = self.samples[0], self.samples[-1]
        return (last.busy - first.busy) / max(1.0, last.at - first.at)

    def judged(self) -> list[Sample]:
        """The samples since everything that is bounded was full; none if that was too late."""
        full = next((each.at for each in self.samples if each.tier >= FULL), math.inf)
        kept = [each for each in self.samples if each.at >= max(full, WARM)]
        return kept if kept and kept[-1].at - kept[0].at >= JUDGED else []


def _cpu(running: Running) -> float:
    """Seconds of processor time."""
    fields = Path(f"/proc/{running.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Growth an hour by least squares; points are (seconds, value), at two moments at least."""
    count = len(points)
    middle, mean = sum(at for at, _ in points) / count, sum(value for _, value in points) / count
    spread = sum((at - middle) ** 2 for at, _ in points)
    return 3600 * sum((at - middle) * (value - mean) for at, value in points) / spread


async def soak(lab: Lab, minutes: float, console: Console) -> list[Figure]:
    """The figures, but for those of the log, which ends with the proxy."""
    with lab.proxy(settings=SETTINGS, warns=True) as proxy:
        pair = Pair(lab.simulator.port, proxy.port, Requests(1, "long"), partial(_expect, lab))
        load, watch = Load(lab, proxy, pair, random.Random(1)), Watch(lab, proxy)
        await in_groups([load.step() for _ in range(100)], WORKERS)  # so that what is opened once is open
        await lab.all_quiet(proxy)
        files = proxy.running.open_files()
        await watch.sample()
        until = time.monotonic() + minutes * 60
        workers = [asyncio.ensure_future(_worker(lab, load, until, number)) for number in range(WORKERS)]
        await _watch(watch, load, until, console)
        await asyncio.gather(*workers)
        await lab.all_quiet(proxy)
        left = await _files_left(proxy, files)
        console.print("Looking back at everything that was asked …")
        entries = await load.look_back()
        await lab.all_quiet(proxy)
    seen = ", ".join(f"{count:,} {name}" for name, count in (load.seen + pair.seen).most_common())
    return [
        Figure("answers", f"{seen}; {watch.share:.0%} of a core", "", None),
        Figure("entries at the end", f"{entries:,}, all compared", "some", entries > 0),
        *_slopes(watch),
        Figure("open files at rest", f"{files} → {left}", f"≤ {files + FEW}", left <= files + FEW),
    ]


def _expect(lab: Lab, held: bool, otherwise: str) -> None:
    lab.expect(held, f"not equal: {otherwise}")


async def _worker(lab: Lab, load: Load, until: float, number: int) -> None:
    """One client after the other; whatever goes wrong is a shortcoming, and the next one is asked."""
    dice = random.Random(number)
    while time.monotonic() < until:
        try:
            await load.step()
        except Exception as error:  # noqa: BLE001 - the others are still worth asking
            lab.expect(held=False, otherwise=f"fell over: {error!r}"[:200])
            await asyncio.sleep(1)
        await asyncio.sleep(dice.expovariate(1 / PAUSE))


async def _watch(watch: Watch, load: Load, until: float, console: Console) -> None:
    """A sample each period, and a line that lives."""
    spoken = -math.inf
    with Live(console=console, refresh_per_second=2, transient=True) as live:
        while (now := time.monotonic()) < until:
            await watch.sample()
            line = _line(watch, load, until - now)
            live.update(line)
            if not console.is_terminal and now - spoken >= SPOKEN:
                spoken = now
                console.print(line)
            await asyncio.sleep(min(PERIOD, max(0.0, until - time.monotonic())))


def _line(watch: Watch, load: Load, left: float) -> str:
    last, asked = watch.samples[-1], sum(load.seen.values())
    hits = load.seen["hit"] / max(1, asked)
    return (
        f"{left / 60:4.1f} min left  {asked:,} answers  {hits:.0%} hits  {last.memory:.0f} MB  {last.files} files  "
        f"{last.flights:.0f} flights  {last.requests:.0f} requests  {watch.share:.0%} of a core  "
        f"{sum(watch.lab.short.values())} wrong"
    )


async def _files_left(proxy: Proxy, before: int) -> int:
    async def few() -> bool:
        return proxy.running.open_files() <= before + FEW

    await becomes(few, UPSTREAM_IDLE)
    return proxy.running.open_files()


# What may grow by how much an hour.
_BOUNDS = (
    ("memory", 10.0, "MB"),
    ("files", 30.0, "files"),
    ("flights", 30.0, "flights"),
    ("requests", 30.0, "requests"),
    ("calls", 30.0, "calls"),
)


def _slopes(watch: Watch) -> Iterable[Figure]:
    judged = watch.judged()
    for name, bound, unit in _BOUNDS:
        if not judged:
            yield Figure(f"growth of {name}", "not judged: the run was too short", f"≤ {bound:.0f} {unit}/h", None)
            continue
        grown = slope([(each.at, getattr(each, name)) for each in judged])
        values = [getattr(each, name) for each in judged]
        minutes = (judged[-1].at - judged[0].at) / 60
        seen = f"{grown:+.1f} {unit}/h over {minutes:.0f} min, {min(values):.0f} to {max(values):.0f}"
        yield Figure(f"growth of {name}", seen, f"≤ {bound:.0f} {unit}/h", grown <= bound)


# What must not be there at all: the lab's words begin with it.
_NEVER = (
    ("false successes", ("false success",)),
    ("dishonest ends of what failed", ("dishonest",)),
    ("wrong answers", ("not whole", "wrong answer", "other bytes", "not equal", "crowd")),
    ("bad entries", ("bad entry",)),
    ("errors in the proxy's log", ("the proxy's log",)),
)


def _shortcomings(lab: Lab) -> Iterable[Figure]:
    """What the lab was told, by kind; whatever is of no kind is one of its own."""
    rest = dict(lab.short)
    for name, kinds in _NEVER:
        found = {words: rest.pop(words) for words in list(rest) if words.startswith(kinds)}
        yield _never(name, found)
    yield _never("anything else", rest)


def _never(name: str, found: dict[str, int]) -> Figure:
    lines = [f"{count} × {words}" for words, count in sorted(found.items(), key=lambda each: -each[1])]
    more = [f"and {len(lines) - 5} kinds more"] if len(lines) > 5 else []
    return Figure(name, "\n".join([str(sum(found.values())), *lines[:5], *more]), "0", not found)


def table_of(figures: Sequence[Figure]) -> Table:
    table = Table("figure", "seen", "bound", "verdict", show_lines=True)
    verdicts = {None: "", True: "[green]held[/]", False: "[red]FELL SHORT[/]"}
    for figure in figures:
        table.add_row(figure.name, figure.seen.replace("[", r"\["), figure.bound, verdicts[figure.held])
    return table


def minutes(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError("more than 0 are needed, or nothing is measured")
    return number


def main(arguments: Sequence[str]) -> int:
    """The table; 1 if a figure fell short."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak.long", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=minutes, default=30.0, help="how long, more than 0 (default: 30)")
    asked: float = parser.parse_args(arguments).minutes
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    console = Console()
    with started("proxy", "simulator", "--port", "0") as simulator:
        lab = Lab(simulator, steps=lambda _: None, step=lambda: None)
        figures = uvloop.run(soak(lab, asked, console))
    figures += _shortcomings(lab)
    console.print(table_of(figures))
    return 1 if any(figure.held is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
