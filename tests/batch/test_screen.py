"""What is said of a batch while it runs, and at its end."""

import io
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from proxy.batch.screen import Screen, summary
from proxy.core.batch import Answer, Wrong
from proxy.core.batch_figures import Figures
from tests.support import eventually_async


def shown(console: Console) -> str:
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


async def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.batch.screen.EVERY", 0.001)
    console = Console(file=io.StringIO(), width=60)
    figures, now = Figures(10, taken=2), iter(range(10**6))
    async with Screen(console, figures, lambda: float(next(now))).shown():
        await eventually_async(lambda: "2 of 10 done (20%)" in shown(console))
        figures.answered = 4
        await eventually_async(lambda: "6 of 10 done (60%), 0 hits, 0 joined, cost $0.0000" in shown(console))
    assert " left\n" in shown(console)
    assert "\x1b" not in shown(console)


async def test_who_watches_sees_a_bar_that_is_gone_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.batch.screen.LOOK", 0.001)
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    figures = Figures(10, taken=2)
    screen = Screen(console, figures, lambda: 0.0)
    async with screen.shown():
        figures.answered, figures.hits = 5, 3
        await eventually_async(lambda: "7/10" in shown(console))
        await eventually_async(lambda: "3 hits, 0 joined, cost $0.0000, saved $0.0000" in shown(console))
        screen.say("Stopping: [nothing] is markup.")
    assert "Stopping: [nothing] is markup." in shown(console)


def test_the_summary_says_what_came_of_it_and_where_it_is() -> None:
    figures = Figures(5000, taken=1000, wrong=2, answered=3990, hits=900, joined=90, failed=8)
    figures.cost, figures.saved, figures.priced = Decimal("1.25"), Decimal("0.5"), 3000
    assert summary(figures, Path("out.jsonl"), 61.0) == (
        "5,000 lines (1,000 answered before), 900 hits, 90 joined, 10 errors, cost $1.2500, saved $0.5000, in 61 s.\n"
        "What failed is asked anew when the same command is given again.\n"
        "The results are in out.jsonl."
    )
    assert summary(Figures(1, answered=1), Path("out"), 1.0).startswith("1 line, 0 hits, 0 joined, cost $0.0000")


def test_the_summary_says_what_the_errors_are() -> None:
    figures = Figures(3)
    figures.found_wrong(Wrong("invalid_url", "No."))
    assert "asked anew" not in summary(figures, Path("out.jsonl"), 1.0)
    for _ in range(2):
        figures.add(Answer(429, {}, b'{"error": {"code": "insufficient_quota", "message": "Of this key\'s budget."}}'))
    assert summary(figures, Path("out.jsonl"), 1.0).splitlines()[1:] == [
        "  2 × 429 insufficient_quota: Of this key's budget.",
        "  1 × invalid_url: No.",
        "What failed is asked anew when the same command is given again.",
        "The results are in out.jsonl.",
    ]
