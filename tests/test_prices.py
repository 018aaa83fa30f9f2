"""`penstock prices`: what it says, of which model, and where each number is from."""

from datetime import date, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from pricing.table import Table
from proxy.cli import main
from proxy.offers import price_table
from proxy.prices import OLD, check_prices, list_prices, show_prices
from proxy.reading import read_settings
from proxy.settings import Settings

OWN = {"price": {"input": "8", "output": "8", "cached_input": "2"}}
TODAY = date(2026, 11, 23)


def settings(**models: Any) -> Settings:
    return read_settings({"providers": {"p": {"base_url": "https://p.example/v1"}}, "models": models}, source="t")


class Screen:
    """A console whose words are kept."""

    def __init__(self) -> None:
        self._words = StringIO()
        self.console = Console(file=self._words, width=200)

    @property
    def lines(self) -> list[str]:
        return [" ".join(line.replace("│", " ").split()) for line in self._words.getvalue().splitlines()]


@pytest.fixture
def screen() -> Screen:
    return Screen()


def test_a_model_is_shown_with_each_numbers_source_and_day(screen: Screen) -> None:
    assert show_prices(Table.packaged(), screen.console, "gpt-5") == 0
    assert "cached_input 0.125 genai-prices 0.2.3 2026-11-23" in screen.lines
    assert "window 272,000 litellm 1.109.1 2026-11-23" in screen.lines
    assert any(line.startswith("can tools") for line in screen.lines)


def test_tiers_hours_and_services_are_told_apart(screen: Screen) -> None:
    show_prices(Table.packaged(), screen.console, "gemini-2.5-pro")
    assert any(line.startswith("input 1.25 ") for line in screen.lines)
    assert any(line.startswith("standard, prompt above 200,000: input 2.5 ") for line in screen.lines)
    assert any(line.startswith("batch: input ") for line in screen.lines)


def test_a_price_of_the_settings_replaces_the_catalogues_and_says_so(screen: Screen) -> None:
    table = price_table(settings(**{"gpt-4.1": OWN}))
    assert show_prices(table, screen.console, "gpt-4.1") == 0
    assert "output 8 settings -" in screen.lines
    assert any("1,047,576" in line for line in screen.lines)  # what else is known stays


@pytest.mark.parametrize("name", ["no-such-model", "mistral-large-latest-nope", ""])
def test_a_name_that_means_nothing_says_what_to_do(name: str, screen: Screen) -> None:
    assert show_prices(Table.packaged(), screen.console, name) == 1
    assert "set the price" in " ".join(screen.lines)


def test_a_list_holds_what_all_words_are_in(screen: Screen) -> None:
    assert list_prices(Table.packaged(), screen.console, words=["OpenAI", "gpt-5-mini"]) == 0
    rows = [line for line in screen.lines if line.startswith("openai gpt-5-mini ")]
    assert rows
    assert all("anthropic" not in line for line in screen.lines)
    assert list_prices(Table.packaged(), Screen().console, words=["openai", "claude-sonnet"]) == 1


def test_a_check_names_the_models_without_a_price_and_fails(screen: Screen) -> None:
    named = settings(**{"gpt-5.5": {}, "secret-model": {}, "alias": {"upstream": "gpt-5.5"}, "own": OWN})
    assert check_prices(price_table(named), screen.console, named, today=TODAY) == 1
    assert screen.lines[-1] == "4 models checked, 1 without a price."
    assert [line for line in screen.lines if line.startswith("secret-model: no price is known")]
    assert not [line for line in screen.lines if line.startswith(("gpt-5.5:", "alias:", "own:"))]


def test_an_old_price_is_worth_a_look_and_no_failure(screen: Screen) -> None:
    named = settings(**{"gpt-5.5": {}})
    later = TODAY + timedelta(days=OLD + 1)
    assert check_prices(price_table(named), screen.console, named, today=later) == 0
    assert screen.lines[0] == "gpt-5.5: its price was taken from genai-prices on 2026-11-23, 91 days ago"


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["prices", *arguments])
    return result.exit_code, result.output


def test_the_commands_do_the_same(tmp_path: Path) -> None:
    config = tmp_path / "penstock.toml"
    config.write_text(
        '[providers.p]\nbase_url = "https://p.example/v1"\n[models."gpt-5.5"]\nprice = { input = "7", output = "9" }\n'
    )
    code, said = run("show", "gpt-5.5", "--config", str(config))
    assert (code, "│ 7 " in said) == (0, True)
    assert run("show", "gpt-5.5")[1] != said
    assert run("list", "openai", "gpt-5")[0] == 0
    code, said = run("check", "--config", str(config))
    assert (code, said) == (0, "1 model checked, 0 without a price.\n")


def test_half_a_price_is_none_and_a_renamed_model_has_its_own(tmp_path: Path) -> None:
    config = tmp_path / "penstock.toml"
    provider = '[providers.p]\nbase_url = "https://p.example/v1"\n'
    config.write_text(provider + '[models.half]\nprice = { input = "7" }\n[models.fast]\nupstream = "gpt-5-mini"\n')
    code, said = run("check", "--config", str(config))
    assert (code, "half: no price is known of what it reads and writes" in said) == (1, True)
    assert "2 models checked, 1 without a price." in said
    code, said = run("show", "fast", "--config", str(config))
    assert (code, "openai/gpt-5-mini" in said) == (0, True)
    assert run("show", "fast")[0] == 1  # without the settings nobody knows it
