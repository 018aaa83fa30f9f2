"""The tool that tries a provider (`make test-provider`): what it says of one that is unusual."""

from typing import Any

import pytest

from tests.conftest import MakeProxy, Sdk
from tests.provider import test_provider as tool
from tests.provider.conftest import CALLS, NOTES, Provider, pytest_terminal_summary
from tests.support import Simulator

ODD = "sim-instant;nodone;usage;detail"


class Terminal:
    """Takes what is written to it."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def section(self, title: str) -> None:
        self.lines.append(title)

    def write_line(self, line: str) -> None:
        self.lines.append(line)


class Config:
    """A run that named a provider, or did not."""

    def __init__(self, url: str | None) -> None:
        self.stash = pytest.Stash()
        self._options = {"provider_url": url}

    def getoption(self, name: str, default: Any) -> Any:
        return self._options.get(name, default)


def summary(config: Any) -> list[str]:
    terminal: Any = Terminal()
    pytest_terminal_summary(terminal, config)
    lines: list[str] = terminal.lines
    return lines


@pytest.fixture
def tried(simulator: Simulator, make_proxy: MakeProxy, sdk: Sdk) -> Provider:
    proxy = make_proxy()
    return Provider(simulator.base_url, ODD, "none", proxy, sdk(proxy.base_url), {})


def test_the_ways_of_a_provider_and_the_calls_are_told_at_the_end(tried: Provider, simulator: Simulator) -> None:
    tried.observe()
    tool.test_the_models_are_listed(tried)
    tool.test_an_unknown_model_is_an_error_that_the_sdk_raises(tried)
    config = Config(simulator.base_url)
    config.stash[NOTES], config.stash[CALLS] = tried.notes, tried.calls()
    assert summary(config) == [
        "the provider",
        "It ends its streams without [DONE].",
        "It says the usage of a stream unasked (through Penstock, only who asks sees it).",
        f"It does not list {ODD}.",
        "It says its errors as {'detail': 'The model does not exist.'}.",
        f"{simulator.asked()} answers were asked of it.",
    ]


def test_nothing_is_told_where_no_provider_was_named() -> None:
    assert summary(Config(None)) == []


def test_a_provider_that_refuses_the_first_question_is_told_in_one_line(tried: Provider) -> None:
    tried.model = "sim-instant;status=401"
    with pytest.raises(pytest.fail.Exception, match="the provider answered 401: "):
        tried.observe()
