"""Processes that write one ledger together: a proxy's, and commands that make keys.

Small in test_keys.py; at full size `python -m tests.ledger.sharing`, which prints what it saw.
"""

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

from proxy.clock import SystemClock
from proxy.core.access import Grant
from proxy.ledger import Ledger
from proxy.ledger.keys import create_key, list_keys, revision, revoke_key
from tests.ledger.told import answer, ask, end, intent

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = 3


def share(directory: Path, each: int) -> dict[str, int]:
    """What is missing after a proxy's process and COMMANDS others wrote `each` times. Nothing should be."""
    roles = ["proxy", *(f"keys{number}" for number in range(COMMANDS))]
    module = [sys.executable, "-m", "tests.ledger.sharing", str(directory), str(each)]
    running = [subprocess.Popen([*module, role], cwd=ROOT) for role in roles]
    failed = sum(process.wait() != 0 for process in running)
    made, revoked = list_keys(directory), COMMANDS * (each // 2)
    [(attempts, still_open)] = ask(directory, "SELECT count(*), coalesce(sum(ended IS NULL), 0) FROM attempts")
    [(requests,)] = ask(directory, "SELECT count(*) FROM requests")
    return {
        "processes that failed": failed,
        "attempts": each - attempts,
        "attempts that are open": still_open,
        "requests": each - requests,
        "keys": COMMANDS * each - len(made),
        "secrets of their own": len(made) - len({row.digest for row in made}),
        "revocations": revoked - sum(row.revoked is not None for row in made),
        "changes": len(made) + revoked - revision(directory),
    }


async def _proxy(directory: Path, times: int) -> None:
    ledger = Ledger.open(directory, SystemClock())
    for number in range(times):
        request = f"req_{number}"
        await ledger.intend(intent(request))
        ledger.attempted(end(request))
        ledger.answered(answer(request))
    await ledger.close()


def _keys(directory: Path, times: int, role: str) -> None:
    for number in range(times):
        name = f"{role}-{number}"
        create_key(directory, Grant(name), now=float(number))
        if number % 2:
            revoke_key(directory, name, now=float(number))


def _main(directory: str, times: str, role: str) -> None:
    if role == "proxy":
        asyncio.run(_proxy(Path(directory), int(times)))
    else:
        _keys(Path(directory), int(times), role)


if __name__ == "__main__":
    if sys.argv[1:]:
        _main(*sys.argv[1:])
    else:
        with tempfile.TemporaryDirectory() as place:
            print(share(Path(place), 1500))
