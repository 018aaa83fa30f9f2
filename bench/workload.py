"""A mixed workload to simulate, made from a seed: `python -m bench.workload --seed 1 --rows 6000 > mixed.csv`.

Synthetic: no request of it was ever sent. It has the columns that `penstock simulate` reads, in blocks of 64 tokens. A
quarter of the rows or so is of each kind; that mix is ours, and says nothing of anybody's traffic.

extraction  hourly runs over the same records behind one instruction, a fifth of them changed each time. Short answers.
            Ours: nobody publishes how often such records come again.
evaluation  the same 300 prompts, again each hour. Ours: a suite that runs by the clock repeats all of itself.
support     one manual before every question. 18 % of the requests are exact repeats, as in one published log of such a
            service; conversations of 2.5 turns, a minute apart: ours.
agent       loops of 10 to 60 turns in a context that grows from 5,000 to 150,000 tokens, seconds apart. Published
            traces of coding agents have answers of 216 tokens at the median, 898 at the ninth tenth, and 8.5 % of calls
            that were sent again; the pauses of 7 to 30 minutes after 4 % of the turns are ours.

Rule: the same seed and number of rows give the same bytes.
"""

import argparse
import csv
import heapq
import itertools
import math
import random
import sys
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, TextIO

from proxy.simulate.trace import COLUMNS, Blocks, head, length

BLOCK: Final = 64
HOUR: Final = 3600.0
PER_HOUR: Final = 1500  # rows, about
PROMPTS: Final = 300  # of the evaluation
RECORDS: Final = 450  # of the extraction
CHANGED: Final = 0.2
SESSIONS: Final = 150  # of support, in an hour
ASKED_BEFORE: Final = 0.45  # of the sessions: 18 % of the requests, at 2.5 turns
AGENTS: Final = 11  # that begin in an hour
RETRIED: Final = 0.085
PAUSED: Final = 0.04
FULL: Final = 150_000  # tokens at which an agent ends


class Text(NamedTuple):
    """A prompt, or the beginning of some: its full blocks, and how long it is."""

    blocks: Blocks
    tokens: int


class Row(NamedTuple):
    at: float
    kind: str
    prompt: Text
    output: int
    session: int | None = None
    turn: int | None = None


class Writer:
    """Makes texts that are new, and the numbers of blocks and sessions."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._blocks = 1
        self._sessions = itertools.count(1)

    def session(self) -> int:
        return next(self._sessions)

    def longer(self, text: Text, tokens: int) -> Text:
        """With so many new tokens after it. A block that was not full becomes another one."""
        whole = text.tokens + tokens
        kept = head(text.blocks, text.tokens // BLOCK)
        fresh = whole // BLOCK - length(kept)
        first, self._blocks = self._blocks, self._blocks + fresh
        return Text((*kept, (first, first + fresh - 1)) if fresh else kept, whole)

    def new(self, tokens: int) -> Text:
        return self.longer(Text((), 0), tokens)

    def about(self, median: float, ninth: float, most: int = 100_000) -> int:
        """A length of a skewed distribution, by its median and what nine of ten are below."""
        return max(1, min(most, round(median * math.exp(self._chance.gauss(0.0, math.log(ninth / median) / 1.2816)))))


def extraction(chance: random.Random, writer: Writer, hours: int) -> Iterator[Row]:
    """One after another from the tenth minute on."""
    instruction = writer.new(1800)
    records = [writer.longer(instruction, writer.about(600, 1800)) for _ in range(RECORDS)]
    for hour in range(hours):
        at = hour * HOUR + 600.0
        for index in range(RECORDS):
            if hour and chance.random() < CHANGED:
                records[index] = writer.longer(instruction, writer.about(600, 1800))
            at += chance.expovariate(1 / 3.0)
            yield Row(at, "extraction", records[index], writer.about(45, 110))


def evaluation(chance: random.Random, writer: Writer, hours: int) -> Iterator[Row]:
    """Some at a time, at the half of each hour."""
    frame = writer.new(400)
    prompts = [writer.longer(frame, writer.about(500, 1600)) for _ in range(PROMPTS)]
    for hour in range(hours):
        at = hour * HOUR + 1800.0
        for prompt in prompts:
            at += chance.expovariate(1 / 0.8)
            yield Row(at, "evaluation", prompt, writer.about(220, 700))


def support(chance: random.Random, writer: Writer, hours: int) -> Iterator[Row]:
    """The first question of a session may be one that was asked before: the more often, the more likely again."""
    manual = writer.new(6200)
    asked: list[Text] = []
    for begin in sorted(chance.uniform(0, hours * HOUR) for _ in range(hours * SESSIONS)):
        at, session = begin, writer.session()
        again = bool(asked) and chance.random() < ASKED_BEFORE
        prompt = chance.choice(asked) if again else writer.longer(manual, writer.about(60, 200))
        asked.append(prompt)
        turn = 0
        while True:
            turn += 1
            output = writer.about(160, 380)
            yield Row(at, "support", prompt, output, session, turn)
            if chance.random() < 0.4:  # 2.5 turns at the mean
                break
            at += 20 + chance.expovariate(1 / 40.0)
            prompt = writer.longer(prompt, output + writer.about(40, 140))


def agents(chance: random.Random, writer: Writer, hours: int) -> Iterator[Row]:
    """What is under way at the end goes on."""
    tools = writer.new(4000)
    for begin in sorted(chance.uniform(0, hours * HOUR) for _ in range(hours * AGENTS)):
        yield from _loop(chance, writer, tools, begin)


def _loop(chance: random.Random, writer: Writer, tools: Text, at: float) -> Iterator[Row]:
    session, turns = writer.session(), chance.randint(10, 60)
    prompt = writer.longer(tools, writer.about(1000, 4000))
    for turn in range(1, turns + 1):
        if prompt.tokens > FULL:
            return
        output = writer.about(216, 898, 8000)
        yield Row(at, "agent", prompt, output, session, turn)
        if chance.random() < RETRIED:
            at += chance.uniform(2, 20)
            yield Row(at, "agent", prompt, output, session, turn)
        pause = chance.uniform(420, 1800) if chance.random() < PAUSED else 0.0
        at += 1 + output / 50 + chance.expovariate(1 / 8.0) + pause
        prompt = writer.longer(prompt, output + writer.about(1200, 5000, 30_000))


def workload(seed: int, rows: int) -> Iterator[Row]:
    """So many rows, by their times."""
    chance = random.Random(seed)
    writer = Writer(chance)
    hours = math.ceil(rows / PER_HOUR) + 1
    kinds = [sorted(kind(chance, writer, hours)) for kind in (extraction, evaluation, support, agents)]
    return itertools.islice(heapq.merge(*kinds), rows)


def write(rows: Iterable[Row], file: TextIO) -> None:
    lines = csv.writer(file, lineterminator="\n")
    lines.writerow(COLUMNS)
    begin: float | None = None
    for row in rows:
        begin = row.at if begin is None else begin
        ids = " ".join(f"{first}-{last}" if last > first else str(first) for first, last in row.prompt.blocks)
        at = f"{row.at - begin:.3f}"
        lines.writerow((at, row.kind, row.prompt.tokens, row.output, ids, row.session or "", row.turn or ""))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.workload", description="Write a mixed workload as CSV.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=int, default=6000)
    given = parser.parse_args()
    write(workload(given.seed, given.rows), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
