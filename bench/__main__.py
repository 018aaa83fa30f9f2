"""`make bench`: every figure beside its reference, both in this run: the median of five interleaved runs each.

decision  the ranking of a 4 KB request among four models  beside the count of its tokens by tiktoken alone
          and of a conversation that goes on              beside the same conversation seen for the first time
hits      one 100-chunk stream, answered from the cache    beside a bare Starlette handler (parse, hash, constant)
          and with a key, limits, a budget, the ledger     beside the same
streams   200 and 400 at once, 50 chunks each, 20 ms apart beside the same streams without a proxy
alone     one stream, time to its first event              beside the same stream without a proxy
start     process to listening; memory after everything    beside the bare handler's
"""

import itertools
import json
import statistics
import sys
from dataclasses import dataclass

import uvloop
from rich.console import Console
from rich.table import Table

from bench.decisions import MESSAGES, SHORT, Decided, Decisions
from bench.load import Streams, http_post, repeat, streams
from bench.servers import Running, proxy_over, proxy_with_keys, started

PATH = "/v1/chat/completions"
RUNS = 5
HIT_SECONDS = 2.0
HIT_MODEL = "sim-instant;chunks=100"
KEY = "bench"
HIT_CONNECTIONS = 16
ALONE = 30  # streams, one after another


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `good` is the verdict against the stated bound."""

    what: str
    penstock: str
    reference: str
    bound: str
    good: bool


class Bench:
    """Prompts are numbered, so that no stream is answered from the cache unless it is meant to be."""

    def __init__(self, simulator: Running, proxy: Running) -> None:
        self._simulator = simulator
        self._proxy = proxy
        self._numbers = itertools.count()

    def _requests(self, count: int, chunks: int, gap: float) -> list[bytes]:
        model = f"sim-instant;chunks={chunks};gap={gap}"
        return [http_post(PATH, _body(model, f"question {next(self._numbers)}"), close=True) for _ in range(count)]

    async def hits(self) -> list[Row]:
        """The yardstick answers as many bytes as the hit does."""
        body = _body(HIT_MODEL, "the same question every time")
        for _ in range(2):
            stored = await streams(self._proxy.port, [http_post(PATH, body, close=True)])
        with (
            started("bench.bare", str(stored.bytes)) as bare,
            proxy_with_keys(self._simulator, KEY, HIT_MODEL) as keyed,
        ):
            await streams(keyed.port, [http_post(PATH, body, close=True)])
            return await self._beside(bare, keyed, body)

    async def _beside(self, bare: Running, keyed: Running, body: bytes) -> list[Row]:
        rates: dict[int, list[float]] = {self._proxy.port: [], keyed.port: [], bare.port: []}
        for _ in range(RUNS):
            for port, found in rates.items():
                request = http_post(PATH, body, key=KEY)
                found.append(await repeat(port, request, connections=HIT_CONNECTIONS, seconds=HIT_SECONDS))
        mine, with_all, reference = map(statistics.median, rates.values())
        return [
            _ratio("hits a second", mine, reference, 0.8),
            _ratio("hits a second, all on", with_all, reference, 0.5),
        ]

    async def many(self, count: int, least: float) -> list[Row]:
        ours: list[Streams] = []
        theirs: list[Streams] = []
        for _ in range(RUNS):
            for port, found in ((self._simulator.port, theirs), (self._proxy.port, ours)):
                found.append(await streams(port, self._requests(count, 50, 0.02)))
        if any(run.failed for run in ours + theirs):
            raise RuntimeError("a stream failed")
        mine, reference = (statistics.median(run.rate for run in runs) for runs in (ours, theirs))
        first, first_direct = (
            statistics.median(statistics.median(run.first_event) * 1000 for run in runs) for runs in (ours, theirs)
        )
        bound, good = ("≤ 80 ms", first <= 80) if count == 200 else ("", True)
        return [
            _ratio(f"{count} streams: events a second", mine, reference, least),
            Row(f"{count} streams: first event", f"{first:.0f} ms", f"{first_direct:.0f} ms", bound, good),
        ]

    async def alone(self) -> Row:
        medians: dict[int, list[float]] = {self._simulator.port: [], self._proxy.port: []}
        for _ in range(RUNS):
            for port, found in medians.items():
                runs = [await streams(port, self._requests(1, 5, 0)) for _ in range(ALONE)]
                found.append(statistics.median(run.first_event[0] * 1000 for run in runs))
        theirs, mine = (statistics.median(found) for found in medians.values())
        added = mine - theirs
        return Row("one stream: first event", f"{mine:.1f} ms", f"{theirs:.1f} ms", "≤ 3 ms more", added <= 3)


def _body(model: str, question: str) -> bytes:
    message = {"role": "user", "content": question}
    return json.dumps({"model": model, "messages": [message], "stream": True}).encode()


def _ratio(what: str, mine: float, reference: float, least: float) -> Row:
    ratio = mine / reference
    return Row(what, f"{mine:,.0f} ({ratio:.2f})", f"{reference:,.0f}", f"≥ {least}", ratio >= least)


def decision_rows(took: Decided) -> list[Row]:
    """Of the long ones nothing is wanted but that the loop goes on meanwhile: they are counted in a thread."""
    short, going_on, whole = took.short.all * 1000, took.going_on, took.whole
    return [
        Row(
            f"a decision: {SHORT:,} bytes",
            f"{short:.2f} ms",
            f"{took.counted * 1000:.2f} ms to count",
            "< 1 ms",
            good=short < 1,
        ),
        Row(
            f"a decision: {MESSAGES} messages, 400 KB, all but one known",
            f"{going_on.all * 1000:.1f} ms; loop held {going_on.held * 1000:.1f} ms",
            f"{whole.all * 1000:.0f} ms; {whole.held * 1000:.1f} ms, none known",
            "",
            good=True,
        ),
    ]


async def measure(simulator: Running, proxy: Running) -> list[Row]:
    """All rows."""
    bench = Bench(simulator, proxy)
    idle = proxy.memory()
    rows = await bench.hits()
    for count, least in ((200, 0.9), (400, 0.85)):
        rows += await bench.many(count, least)
    rows.append(await bench.alone())
    with started("bench.bare", "1") as bare:
        rows.append(Row("start to ready", f"{proxy.ready:.2f} s", f"{bare.ready:.2f} s", "< 1.5 s", proxy.ready < 1.5))
        rows.append(Row("memory when ready", f"{idle:.0f} MB", f"{bare.memory():.0f} MB", "< 120 MB", idle < 120))
    rows.append(Row("memory with 3,000 answers in it", f"{proxy.memory():.0f} MB", "", "", good=True))
    return rows


def main() -> int:
    """Print the table; 1 if a bound was missed."""
    with started("proxy", "simulator", "--port", "0") as simulator, proxy_over(simulator) as proxy:
        rows = uvloop.run(measure(simulator, proxy))
    rows += decision_rows(uvloop.run(Decisions().measure()))
    table = Table("", "Penstock", "reference", "wanted", "")
    for row in rows:
        table.add_row(row.what, row.penstock, row.reference, row.bound, "good" if row.good else "MISSED")
    Console().print(table)
    return 0 if all(row.good for row in rows) else 1


if __name__ == "__main__":
    if {"-h", "--help"}.intersection(sys.argv):
        sys.stdout.write(__doc__)
    else:
        sys.exit(main())
