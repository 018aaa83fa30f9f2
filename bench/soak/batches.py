"""Batches that are stopped and killed, and come to their end."""

import asyncio
import json
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from bench.soak.lab import Lab, becomes, local
from bench.soak.wire import fetched

LINES = 5000
DISTINCT = 3500
AT_ONCE = 32
STOPPED = 130
WITHIN = 60.0  # seconds for a batch to come so far


class Batch:
    """`penstock batch` on the files of a folder, time and again."""

    def __init__(self, folder: Path, where: tuple[str, ...]) -> None:
        self.requests, self.output = folder / "in.jsonl", folder / "out.jsonl"
        self._arguments = ("batch", str(self.requests), "-o", str(self.output), *where)

    async def start(self) -> Process:
        command = (sys.executable, "-m", "proxy", *self._arguments, "--concurrency", str(AT_ONCE))
        return await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)

    def came(self) -> int:
        """How many results are on the disk by now."""
        partial = self.output.with_name("out.jsonl.partial")
        return partial.read_bytes().count(b"\n") if partial.exists() else 0

    async def until(self, count: int, number: signal.Signals) -> int | None:
        """Run until so many results have come, and then no longer; its exit code."""
        process = await self.start()

        async def reached() -> bool:
            return self.came() >= count or process.returncode is not None

        await becomes(reached, WITHIN)
        process.send_signal(number)
        await process.communicate()
        return process.returncode

    async def end(self) -> tuple[int | None, str]:
        """Run to its end: its exit code, and what it says."""
        process = await self.start()
        told, _ = await process.communicate()
        return process.returncode, told.decode()


async def interrupted(lab: Lab, lines: int = LINES, distinct: int = DISTINCT) -> str:
    """BA: by a proxy in the batch's own process, and by one that runs."""
    lab.steps(2)
    with tempfile.TemporaryDirectory() as folder:
        where: tuple[str, ...] = ("--upstream", local(lab.simulator.port), "--data-dir", f"{folder}/data")
        own = await _interrupted(lab, Batch(Path(folder), where), _models(0.010, lines, distinct))
        lab.step()
    with tempfile.TemporaryDirectory() as folder, lab.proxy() as proxy:
        where = "--proxy", f"http://127.0.0.1:{proxy.port}"
        there = await _interrupted(lab, Batch(Path(folder), where), _models(0.015, lines, distinct))
        await lab.all_quiet(proxy)
        lab.step()
    return f"in one process: {own}; over HTTP: {there}"


def _models(first: float, lines: int, distinct: int) -> list[str]:
    """Of each line; each question has a model of its own, by which the simulator says how often it was asked."""
    return [f"sim-instant;first={first + number % distinct / 1_000_000:.6f};chunks=3" for number in range(lines)]


async def _interrupted(lab: Lab, batch: Batch, models: list[str]) -> str:
    lines = len(models)
    batch.requests.write_text("".join(map(_line, range(lines), models)))
    stopped = await batch.until(lines // 3, signal.SIGINT)
    first = batch.came()
    lab.expect(stopped == STOPPED, f"stopped: exit {stopped}")
    killed = await batch.until(lines * 2 // 3, signal.SIGKILL)
    second = batch.came()
    lab.expect(killed == -signal.SIGKILL, f"it ended before it was killed: exit {killed}")
    code, told = await batch.end()
    lab.expect(code == 0, f"exit {code} in the end: {told[:100]}")
    _check(lab, batch.output, models)
    counts = await _asked(lab, set(models))
    twice, distinct = sum(counts.values()) - len(counts), len(counts)
    lab.expect(distinct == len(set(models)), f"only {distinct:,} of {len(set(models)):,} questions were asked")
    lab.expect(twice <= AT_ONCE, f"{twice} were paid twice, and {AT_ONCE} were under way when it was killed")
    return f"stopped at {first:,}, killed at {second:,} of {lines:,} lines, {twice} of {distinct:,} calls made twice"


def _line(number: int, model: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": model}]}
    said = {"custom_id": f"{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(said) + "\n"


def _check(lab: Lab, output: Path, models: list[str]) -> None:
    """Every line is answered, in its order, and equal ones alike."""
    found: list[dict[str, Any]] = [msgspec.json.decode(line) for line in output.read_bytes().splitlines()]
    lab.expect([each["custom_id"] for each in found] == [f"{number}" for number in range(len(models))], "lines lack")
    said: dict[str, Any] = {}
    for each, model in zip(found, models, strict=False):
        good = each["error"] is None and each["response"]["status_code"] == 200
        lab.expect(good, f"an error: {str(each)[:100]}")
        choices = each["response"]["body"].get("choices") if good else None
        lab.expect(said.setdefault(model, choices) == choices, "equal requests have unequal answers")
    lab.expect(not output.with_name("out.jsonl.partial").exists(), "the partial file is still there")


async def _asked(lab: Lab, models: set[str]) -> Counter[str]:
    """How often each of these was asked."""
    served = msgspec.json.decode(await fetched(lab.simulator.port, "/simulator/served"))
    return Counter(line["asked"] for line in served if line["asked"] in models)
