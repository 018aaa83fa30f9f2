"""The simulator and the proxy as processes of their own, ended with SIGTERM on every exit."""

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from proxy.demo.client import DemoError

START_TIMEOUT = 30.0  # seconds; a start takes about one, on a busy machine several
END_TIMEOUT = 5.0  # seconds for a process to end by SIGTERM before it is killed
POLL = 0.02
LAST_LINES = 15

_LISTENS = re.compile(r" listens on (http://\S+)\n")
# Where `-m proxy` finds this very package, whatever lies in the directory that the demo was started in.
_HOME = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Server:
    """A running `penstock …`, and the files that take its words."""

    name: str
    process: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path

    async def url(self) -> str:
        """Its base URL, once it listens."""
        deadline = time.monotonic() + START_TIMEOUT
        while not (found := _LISTENS.search(self.stdout.read_text("utf-8"))):
            self.check()
            if time.monotonic() > deadline:
                raise DemoError(f"{self.name} did not start within {START_TIMEOUT:.0f} s{self.last_words()}")
            await asyncio.sleep(POLL)
        return found[1]

    def check(self) -> None:
        """DemoError, with its last words, if it is dead."""
        code = self.process.poll()
        if code is not None:
            raise DemoError(f"{self.name} ended by itself (exit {code}){self.last_words()}")

    def end(self) -> None:
        """Blocking, so that a second Ctrl-C cannot leave anything behind."""
        self.process.terminate()
        try:
            self.process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def last_words(self) -> str:
        """The end of its log, as the end of an error's line; "" if it said nothing."""
        lines = self.stderr.read_text("utf-8", errors="replace").splitlines()[-LAST_LINES:]
        return f"; {self.name}'s last words:\n" + "\n".join(lines) if lines else ""


@contextmanager
def server(name: str, arguments: Sequence[str], directory: Path) -> Iterator[Server]:
    """`penstock ARGUMENTS` as long as the context lasts; its words go to files in `directory`."""
    slug = arguments[0]
    out, err = directory / f"{slug}.out", directory / f"{slug}.err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        command = [sys.executable, "-m", "proxy", *arguments]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, cwd=_HOME)  # noqa: S603 - our own words
    running = Server(name, process, out, err)
    try:
        yield running
    finally:
        running.end()
