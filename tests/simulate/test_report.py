"""The table, and what is said beneath it."""

from decimal import Decimal
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from proxy.errors import StartupError
from proxy.offers import price_table
from proxy.settings import Settings
from proxy.simulate.report import run_simulate, usd
from tests.simulate.making import log, settings

DEAR = {"price": {"input": "10", "output": "20", "cached_input": "1"}, "window": 5000}
CHEAP = {"price": {"input": "1", "output": "2"}, "verbosity": 2}
ROWS = ("0,c,1000,50,1-10,1,1", "10,c,1000,50,1-10,1,1", "20,c,2000,50,1-10 31-40,1,2")


def printed(path: Path, named: Settings, limit: int | None = None, block: int | None = 100) -> list[str]:
    words = StringIO()
    console = Console(file=words, width=200)
    assert run_simulate(path, named, price_table(named), console, limit=limit, block=block) == 0
    return [" ".join(line.replace("│", " ").split()) for line in words.getvalue().splitlines()]


@pytest.fixture
def two() -> Settings:
    return settings(["dear", "cheap"], models={"dear": DEAR, "cheap": CHEAP})


def test_four_policies_stand_side_by_side(tmp_path: Path, two: Settings) -> None:
    lines = printed(log(tmp_path, *ROWS), two)
    assert lines[0] == "trace.csv: 3 requests in 0.3 min"
    assert "named 0.0430 0.0% 0.0% 0" in lines  # 4,000 × 10 + 150 × 20
    assert "per token 0.0046 0.0384 89.3% 0.0% 0.0% 0" in lines  # 4,000 × 1 + 300 × 2
    assert "penstock 0.0046 0.0384 89.3% 0.0% 0.0% 0" in lines
    assert "penstock + cache 0.0034 0.0396 92.1% 0.0% 33.3% 0" in lines
    assert {"named: dear 3", "per token: cheap 3", "penstock: cheap 3", "penstock + cache: cheap 2"} <= set(lines)


def test_a_limit_leaves_the_later_rows_out(tmp_path: Path, two: Settings) -> None:
    lines = printed(log(tmp_path, *ROWS), two, limit=1)
    assert lines[0] == "trace.csv: 1 requests in 0.0 min"
    assert "named 0.0110 0.0% 0.0% 0" in lines


def test_what_was_left_out_or_supposed_is_said(tmp_path: Path) -> None:
    named = settings(["dear", "unknown"], models={"dear": DEAR})
    text = " ".join(printed(log(tmp_path, "0,c,6000,50,1-60,,"), named))
    assert "unknown is left out: no price is known." in text
    assert "named: 1 prompts are longer than dear's window; counted as if it took them." in text
    assert "Supposed: blocks of 100 tokens, counts by each model's tokenizer" in text


def test_a_log_without_ids_says_that_it_shows_no_cache(tmp_path: Path, two: Settings) -> None:
    text = " ".join(printed(log(tmp_path, "0,c,6000,50,,,"), two, block=None))
    assert "The log names no blocks" in text
    assert "Supposed: counts" in text


def test_progress_is_for_those_who_see_it(tmp_path: Path, two: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    printed(log(tmp_path, *ROWS), two)
    assert capsys.readouterr() == ("", "")


def test_a_wrong_row_ends_it_before_anything_is_printed(tmp_path: Path, two: Settings) -> None:
    with pytest.raises(StartupError, match=r"trace\.csv:5: input_tokens"):
        printed(log(tmp_path, *ROWS, "30,c,x,1,,,"), two)


@pytest.mark.parametrize(
    ("amount", "shown"), [("0", "0.0000"), ("1.23456", "1.2346"), ("100", "100.00"), ("-1234.5", "-1,234.50")]
)
def test_small_sums_are_shown_to_a_hundredth_of_a_cent(amount: str, shown: str) -> None:
    assert usd(Decimal(amount)) == shown
