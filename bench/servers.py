"""The servers under measurement, one process each, on free ports."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Running:
    """`ready` is seconds from the process' start to its first line, which says where it listens."""

    port: int
    pid: int
    ready: float

    def memory(self) -> float:
        """Resident memory in MB."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@contextmanager
def started(*arguments: str) -> Iterator[Running]:
    """`python -m <arguments>`, until the context ends."""
    began = time.perf_counter()
    command = [sys.executable, "-m", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            ready = time.perf_counter() - began
            if "http://127.0.0.1:" not in line:
                raise RuntimeError(f"{' '.join(arguments)} did not start: {line!r}")
            yield Running(int(line.partition("http://127.0.0.1:")[2].partition("/")[0]), process.pid, ready)
        finally:
            process.terminate()


@contextmanager
def proxy_over(simulator: Running) -> Iterator[Running]:
    """A proxy in front of the simulator, on a data directory of its own."""
    with tempfile.TemporaryDirectory() as directory:
        upstream = f"http://127.0.0.1:{simulator.port}/v1"
        with started("proxy", "serve", "--upstream", upstream, "--port", "0", "--data-dir", directory) as proxy:
            yield proxy
