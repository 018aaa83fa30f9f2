"""The servers under measurement, one process each, on free ports."""

import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

START = 30.0  # seconds after which a process that does not say where it listens is ended
STOP = 40.0  # the same for one that does not end; the proxy's drain has 30 of them


@dataclass(frozen=True, slots=True)
class Running:
    """`ready` is seconds from the process' start to its first line, which says where it listens."""

    port: int
    process: subprocess.Popen[str]
    ready: float

    @property
    def pid(self) -> int:
        return self.process.pid

    def memory(self, *, peak: bool = False) -> float:
        """Resident memory in MB, now or at its most so far."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:" if peak else "VmRSS:")[2].split()[0]) / 1024

    def open_files(self) -> int:
        """File descriptors that are open, sockets among them."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())


@contextmanager
def started(
    *arguments: str, log: IO[str] | None = None, environ: Mapping[str, str] | None = None, under: tuple[str, ...] = ()
) -> Iterator[Running]:
    """`python -m <arguments>`, until the context ends.

    `log` takes its stderr; `environ` is said over ours; `under`: a command that becomes the one after it, as `env`.
    """
    began = time.perf_counter()
    command = [*under, sys.executable, "-m", *arguments]
    around = {**os.environ, **(environ or {})}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=around) as process:
        try:
            line = _first_line(process)
            ready = time.perf_counter() - began
            if "http://127.0.0.1:" not in line:
                raise RuntimeError(f"{' '.join(arguments)} did not start: {line!r}")
            yield Running(int(line.partition("http://127.0.0.1:")[2].partition("/")[0]), process, ready)
        finally:
            _stop(process)


def _first_line(process: subprocess.Popen[str]) -> str:
    """Empty if the process ended before, or had to be ended."""
    timer = threading.Timer(START, process.kill)
    timer.start()
    try:
        return process.stdout.readline() if process.stdout else ""
    finally:
        timer.cancel()


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP)
    except subprocess.TimeoutExpired:
        process.kill()


@contextmanager
def proxy_with_keys(simulator: Running, key: str, model: str) -> Iterator[Running]:
    """One that knows this key: with limits, a budget, and the price of this model."""
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory, "penstock.toml")
        config.write_text(
            _ALL_ON.format(
                directory=directory, port=simulator.port, model=model, digest=hashlib.sha256(key.encode()).hexdigest()
            ),
            encoding="utf-8",
        )
        options = ("--config", str(config), "--port", "0")
        with _log(directory) as log, started("proxy", "serve", *options, log=log) as proxy:
            yield proxy


@contextmanager
def _log(directory: str) -> Iterator[IO[str]]:
    """A file for a proxy's log, with a line for each request. What else it says is said here at the end."""
    path = Path(directory, "log")
    with path.open("w", encoding="utf-8") as log:
        yield log
    with path.open(encoding="utf-8") as lines:
        sys.stderr.writelines(line for line in lines if '"level":"info"' not in line)


_ALL_ON = """
[data]
directory = "{directory}/data"
[providers.sim]
base_url = "http://127.0.0.1:{port}/v1"
auth = "none"
[models."{model}"]
price = {{ input = "1", output = "2" }}
[[keys]]
name = "bench"
key_sha256 = "{digest}"
requests_per_minute = 1000000000
tokens_per_minute = 1000000000000
max_concurrent = 1000000
budget = {{ usd = "1000000", per = "month" }}
"""


@contextmanager
def proxy_over(simulator: Running) -> Iterator[Running]:
    """A proxy in front of the simulator, on a data directory of its own."""
    with tempfile.TemporaryDirectory() as directory:
        upstream = f"http://127.0.0.1:{simulator.port}/v1"
        options = ("--upstream", upstream, "--port", "0", "--data-dir", f"{directory}/data")
        with _log(directory) as log, started("proxy", "serve", *options, log=log) as proxy:
            yield proxy
