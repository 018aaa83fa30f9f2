"""A process that intends, and tells of each intent only once it was promised that it is kept; made to be killed.

Small in test_ledger.py; at full size `python -m tests.ledger.killing`, which prints what it saw.
"""

import asyncio
import itertools
import subprocess
import sys
import tempfile
from pathlib import Path

from proxy.clock import SystemClock
from proxy.ledger import Ledger
from tests.fakes import Clock
from tests.ledger.told import answer, ask, end, intent

ROOT = Path(__file__).resolve().parents[2]
AT_ONCE = 4


def kill(directory: Path, run: int, lines: int) -> list[str]:
    """The intents of which a process told before it was killed, after so many lines."""
    module = [sys.executable, "-m", "tests.ledger.killing", str(directory), str(run)]
    with subprocess.Popen(module, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [next(process.stdout) for _ in range(lines)]
        process.kill()
        told += process.stdout
    return [line.strip() for line in told if line.endswith("\n")]


def lost(directory: Path, told: list[str]) -> dict[str, int]:
    """What is not in the ledger, or not settled, once it was opened again. Nothing should be."""
    asyncio.run(Ledger.open(directory, Clock()).close())
    there = dict(ask(directory, "SELECT request, ended FROM attempts"))
    answered = {request for (request,) in ask(directory, "SELECT id FROM requests")}
    [(damage,)] = ask(directory, "PRAGMA integrity_check(1)")
    return {
        "intents": len(set(told) - there.keys()),
        "attempts that are open": sum(ended is None for ended in there.values()),
        "attempts without a request": len(there.keys() - answered),
        "damage": damage != "ok",
    }


async def _intend(directory: Path, run: str) -> None:
    """Of two in a row, the first is told the end of."""
    ledger, numbers = Ledger.open(directory, SystemClock()), itertools.count()

    async def intend() -> None:
        for number in numbers:
            request = f"req_{run}_{number}"
            await ledger.intend(intent(request))
            print(request, flush=True)
            if number % 2:
                ledger.attempted(end(request))
                ledger.answered(answer(request))

    await asyncio.gather(*(intend() for _ in range(AT_ONCE)))


def _full_size(runs: int = 100) -> None:
    with tempfile.TemporaryDirectory() as place:
        told = [name for run in range(runs) for name in kill(Path(place), run, 10 + 7 * run)]
        print(f"{runs} kills, {len(told)} intents told:", lost(Path(place), told))


if __name__ == "__main__":
    if sys.argv[1:]:
        asyncio.run(_intend(Path(sys.argv[1]), sys.argv[2]))
    else:
        _full_size()
