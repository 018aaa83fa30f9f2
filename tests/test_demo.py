"""The whole demo as a person starts it: what it shows, what it leaves behind, how it is stopped."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest

ROOT = Path(__file__).resolve().parent.parent
WHOLE = ["-m", "proxy", "demo"]
SMALL = ["-c", "import sys; from proxy.demo import run_demo; sys.exit(run_demo(keep_running=True, scale=0.05))"]


class Demo:
    """A demo that is running, its words, and the processes that it started."""

    def __init__(self, arguments: list[str], temporary: Path) -> None:
        self.out, self.err = temporary / "out.txt", temporary / "err.txt"
        self.directories = temporary / "tmp"
        self.directories.mkdir()
        environment = {**os.environ, "TMPDIR": str(self.directories), "PYTHONIOENCODING": "utf-8"}
        for name in ("COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):  # rich heeds them
            environment.pop(name, None)
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, *arguments], cwd=ROOT, env=environment, stdout=out, stderr=err
            )

    def said(self) -> str:
        return self.out.read_text("utf-8")

    def complained(self) -> str:
        return self.err.read_text("utf-8")

    def servers(self) -> list[int]:
        listed = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        return [int(pid) for pid in listed.stdout.split()]

    def until(self, ready: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not ready():
            assert self.process.poll() is None, self.said() + self.complained()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def nothing_is_left(self, servers: list[int]) -> bool:
        return not any(map(alive, servers)) and not list(self.directories.iterdir())


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def demo(arguments: list[str], temporary: Path) -> Iterator[Demo]:
    running = Demo(arguments, temporary)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.terminate()
        running.process.wait(20)


def number(pattern: str, text: str) -> list[float]:
    found = re.search(pattern, text)
    assert found, text
    return [float(each) for each in found.groups()]


def test_the_demo_shows_what_was_asked_paid_and_saved_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with demo(WHOLE, tmp_path) as running:
        running.until(lambda: len(running.servers()) == 2)
        servers = running.servers()
        status = running.process.wait(60)
    text = running.said()
    assert status == 0, text + running.complained()
    asked, paid = number(r"(\d+) calls asked, (\d+) paid", text)
    assert asked == 300
    assert paid == 101  # as many as there are different requests
    assert f"The provider's own count is {paid:.0f} calls" in text
    (cold,) = number(r"cold: first token after ([\d.]+) ms, from the provider \(miss\)", text)
    (warm,) = number(r"warm: first token after ([\d.]+) ms, from the cache \(hit\)", text)
    assert warm < cold
    (percent,) = number(r"Saved: ([\d.]+) %", text)
    assert 50 < percent < 90
    assert "\x1b" not in text
    assert running.complained() == ""
    assert running.nothing_is_left(servers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_ends_everything(number: signal.Signals, tmp_path: Path) -> None:
    with demo(WHOLE, tmp_path) as running:
        running.until(lambda: "kinds of work at once" in running.said())
        servers = running.servers()
        assert len(servers) == 2
        running.process.send_signal(number)
        assert running.process.wait(20) == 128 + number
    assert running.nothing_is_left(servers)
    assert running.complained() == "penstock demo: stopped; nothing was left running.\n"


def test_ctrl_c_while_a_server_starts_ends_everything(tmp_path: Path) -> None:
    with demo(WHOLE, tmp_path) as running:
        running.until(running.servers)
        servers = running.servers()
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(20) == 130
    assert running.nothing_is_left(servers)


def test_a_server_that_dies_is_named(tmp_path: Path) -> None:
    with demo(WHOLE, tmp_path) as running:
        running.until(lambda: "kinds of work at once" in running.said())
        servers = running.servers()
        os.kill(servers[-1], signal.SIGKILL)
        assert running.process.wait(20) == 1
    assert running.complained().startswith("penstock demo: the proxy ended by itself (exit -9)")
    assert "calls asked" not in running.said()
    assert running.nothing_is_left(servers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_with_serve_both_keep_running_for_an_sdk_until_they_are_told_to_stop(
    number: signal.Signals, tmp_path: Path
) -> None:
    with demo(SMALL, tmp_path) as running:
        running.until(lambda: "print(answer" in running.said())
        found = re.search(r'base_url="(\S+)"', running.said())
        assert found
        with openai.OpenAI(base_url=found[1], api_key="any", max_retries=0, timeout=10) as client:
            said = client.chat.completions.create(model="sim-small", messages=[{"role": "user", "content": "Hello"}])
        assert said.choices[0].message.content
        servers = running.servers()
        running.process.send_signal(number)
        assert running.process.wait(20) == 0
    assert running.complained() == ""
    assert running.nothing_is_left(servers)
