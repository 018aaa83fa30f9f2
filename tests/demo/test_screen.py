"""What is shown, into a file and to a terminal."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from pricing.cost import Usage
from proxy.demo.figures import Answer, Outcome, Served, Tally
from proxy.demo.screen import Screen

USAGE = Usage(input=1000, cached=400, output=100)
HOW: list[tuple[Outcome, float]] = [("miss", 0.3), ("collapsed", 0.31), ("hit", 0.0021), ("hit", 0.0029)]
ANSWERS = [Answer("A work with a name", "sim-reasoning", outcome, USAGE, first) for outcome, first in HOW]
TALLY = Tally(1, 0, 1, {"sim-reasoning": Served(1, 1000, 400, 100)})


def shown(width: int = 80, *, terminal: bool = False, answers: int = 1) -> str:
    file = io.StringIO()
    screen = Screen(Console(file=file, width=width, force_terminal=terminal, highlight=False))
    screen.intro()
    screen.report(ANSWERS * answers, TALLY)
    screen.serving("http://127.0.0.1:65535/v1")
    return file.getvalue()


def test_the_figures_are_said() -> None:
    lines = [" ".join(line.split()) for line in shown().splitlines()]
    assert "4 calls asked, 1 paid" in lines
    assert "A work with a name sim-reasoning 4 1 1 2" in lines
    assert "Total 4 1 1 2" in lines
    assert "the provider (miss) 1 300 ms 300 ms" in lines
    assert "a call under way (collapsed) 1 310 ms 310 ms" in lines
    assert "the cache (hit) 2 2.1 ms 2.9 ms" in lines


def test_money_is_said_for_this_load_and_for_one_that_is_readable() -> None:
    # sim-reasoning: 600 × 1.10 + 400 × 0.275 + 100 × 4.40 = 1,210 millionths a call
    lines = [" ".join(line.split()) for line in shown().splitlines()]
    assert "These 4 calls 40,000 such calls" in lines
    assert "Without Penstock $0.0048 $48.40" in lines
    assert "With Penstock $0.0012 $12.10" in lines
    assert "Saved: 75.0 % $0.0036 $36.30" in lines


def test_what_is_simulated_and_what_is_real_is_said() -> None:
    text = " ".join(shown().split())
    assert "Simulated: the provider" in text
    assert "Real: the proxy" in text


def test_an_sdk_is_told_where_to_point() -> None:
    text = shown()
    assert 'client = OpenAI(base_url="http://127.0.0.1:65535/v1", api_key="any")' in text
    assert "sim-small, sim-medium, sim-large, sim-reasoning" in text


def test_every_line_fits_eighty_columns() -> None:
    assert max(cell_len(line) for line in shown(200, answers=1000).splitlines()) <= 80


def test_a_file_gets_no_control_codes() -> None:
    assert "\x1b" not in shown()


def test_a_narrow_terminal_cuts_no_number() -> None:
    assert "…" not in shown(50, answers=100)


def test_a_terminal_sees_the_same_words() -> None:
    assert "\x1b[1m" in shown(terminal=True)


def test_nothing_measured_is_shown_as_a_dash() -> None:
    file = io.StringIO()
    Screen(Console(file=file, width=80)).report([], Tally(0, 0, 0, {}))
    assert "the cache (hit) 0 - -" in [" ".join(line.split()) for line in file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [30, 80])
def test_a_text_that_is_typed_is_broken_between_words(width: int) -> None:
    file = io.StringIO()
    typing = Screen(Console(file=file, width=width)).typing()
    pieces = ["Water", " reservo", "ir", " 東京", ".", "\n\n", "The", " 🌊"] * 20
    for piece in pieces:
        typing(piece)
    typing.end()
    assert file.getvalue().split() == "".join(pieces).split()
    assert max(cell_len(line) for line in file.getvalue().splitlines()) <= width


def test_a_progress_bar_is_for_terminals() -> None:
    for terminal in (True, False):
        console = Console(file=io.StringIO(), width=80, force_terminal=terminal)
        assert Screen(console).progress().disable is not terminal
