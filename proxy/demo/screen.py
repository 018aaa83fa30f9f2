"""What the demo shows: to a person at a terminal, and the same words into a file."""

import re
from collections.abc import Sequence
from decimal import Decimal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from proxy.demo.figures import Answer, Money, Outcome, Tally, first_tokens, money, percentile
from proxy.simulator import MODELS

WIDTH = 80
MARGIN = "  "
TIMES_OVER = 10_000  # a demo's cents, made readable
HOW: dict[Outcome, str] = {
    "miss": "the provider (miss)",
    "collapsed": "a call under way (collapsed)",
    "hit": "the cache (hit)",
}

_BLANKS = re.compile(r"\s+")


class Screen:
    """Writes to one console, at most WIDTH wide."""

    def __init__(self, console: Console) -> None:
        self._console = console
        console.width = min(console.width, WIDTH)

    def intro(self) -> None:
        self._title("Penstock demo")
        self._say(
            "Simulated: the provider, so its words, speeds and prices. Real: the proxy, HTTP, streaming and the cache "
            "on disk. No network, no key."
        )

    def title(self, text: str) -> None:
        self._console.print()
        self._title(text)

    def typing(self) -> "Typing":
        return Typing(self._console)

    def timed(self, label: str, answer: Answer) -> None:
        self._say(f"{MARGIN}-> {label}: first token after {_milliseconds(answer.first)}, from {HOW[answer.outcome]}")

    def progress(self) -> Progress:
        """A bar per kind of work at a terminal, nothing elsewhere."""
        columns = (TextColumn("{task.description:<26}"), BarColumn(26), MofNCompleteColumn(), TimeElapsedColumn())
        return Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)

    def report(self, answers: Sequence[Answer], tally: Tally) -> None:
        self.title(f"{len(answers)} calls asked, {tally.calls} paid")
        self._console.print(_by_work(answers))
        self._say(f"The provider's own count is {tally.calls} calls, and token for token what the misses say.")
        self.title("Time to the first token, streamed calls")
        self._console.print(_by_outcome(answers))
        self._say(
            "A collapsed call comes no sooner than the one it joins, and most joined the large model: "
            "it saves money, not time."
        )
        self.title("Cost at the simulator's prices")
        self._console.print(_costs(money(answers, tally.by_model), len(answers)))
        repeated = len(answers) - tally.calls
        self._say(
            f"{repeated} of these {len(answers)} calls repeat another. How many of yours do decides what you save."
        )

    def serving(self, url: str) -> None:
        self.title("Both keep running until Ctrl-C")
        names = ", ".join(model.id for model in MODELS.values() if not model.dimensions)
        snippet = (
            "from openai import OpenAI",
            f'client = OpenAI(base_url="{url}", api_key="any")',
            'messages = [{"role": "user", "content": "Hello"}]',
            'answer = client.chat.completions.create(model="sim-small", messages=messages)',
            "print(answer.choices[0].message.content)",
        )
        said = (f"base_url  {url}", "api_key   any", f"models    {names}", "", *(MARGIN + line for line in snippet))
        self._console.print(Text("\n".join(said)), soft_wrap=True)

    def error(self, text: str) -> None:
        self._console.print(Text(f"penstock demo: {text}"), soft_wrap=True)

    def _title(self, text: str) -> None:
        self._console.print(Text(text, style="bold"))

    def _say(self, text: str) -> None:
        self._console.print(Text(text))


class Typing:
    """Prints a text piece by piece as it comes, broken between words."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._column = 0

    def __call__(self, piece: str) -> None:
        text = _BLANKS.sub(" ", piece)
        # A word comes in pieces of up to eight cells: room for one more of them is kept.
        if self._column == 0 or (text.startswith(" ") and self._column + cell_len(text) + 8 > self._console.width):
            text = ("\n" if self._column else "") + MARGIN + text.lstrip()
            self._column = 0
        self._column += cell_len(text.lstrip("\n"))
        self._console.print(Text(text), end="", soft_wrap=True)

    def end(self) -> None:
        self._console.print()


def _by_work(answers: Sequence[Answer]) -> Table:
    table = _table("Work", "Model", "Asked", "Paid", "Joined", "Cached")
    for work in dict.fromkeys(answer.work for answer in answers):
        mine = [answer for answer in answers if answer.work == work]
        table.add_row(work, mine[0].model, *_counts(mine))
    table.add_section()
    table.add_row("Total", "", *_counts(answers))
    return table


def _counts(answers: Sequence[Answer]) -> list[str]:
    outcomes = [answer.outcome for answer in answers]
    return [str(len(outcomes)), *(str(outcomes.count(outcome)) for outcome in HOW)]


def _by_outcome(answers: Sequence[Answer]) -> Table:
    table = _table("Answered by", "Calls", "Median", "95th percentile", text=1)
    for outcome, how in HOW.items():
        times = first_tokens(answers, outcome)
        table.add_row(how, str(len(times)), *(_milliseconds(percentile(times, share)) for share in (0.5, 0.95)))
    return table


def _costs(amounts: Money, calls: int) -> Table:
    table = _table("", f"These {calls} calls", f"{calls * TIMES_OVER:,} such calls", text=1)
    table.add_row("Without Penstock", *_dollars(amounts.without))
    table.add_row("With Penstock", *_dollars(amounts.with_penstock))
    table.add_row(f"Saved: {amounts.percent:.1f} %", *_dollars(amounts.saved))
    return table


def _table(*headings: str, text: int = 2) -> Table:
    """The first so many columns hold text, which may be wrapped; the rest numbers, which stay whole on any terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="")
    for heading in headings[:text]:
        table.add_column(heading, overflow="fold")
    for heading in headings[text:]:
        table.add_column(heading, justify="right", no_wrap=True, min_width=len(heading))
    return table


def _dollars(amount: Decimal) -> tuple[str, str]:
    return f"${amount:,.4f}", f"${amount * TIMES_OVER:,.2f}"


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else f"{seconds * 1000:.0f} ms"
