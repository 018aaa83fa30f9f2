"""The tool that tries a provider (`make test-provider`): what it says of one that is unusual, wrong or not there."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.conftest import MakeProxy, Sdk
from tests.provider import test_provider as tool
from tests.provider.conftest import CALLS, TARGET, Provider, pytest_terminal_summary
from tests.provider.target import RefusedError, Target, checked, key_from
from tests.support import Simulator, free_port

ROOT = Path(__file__).resolve().parent.parent
ODD = "sim-instant;nodone;usage;detail"
KEY = "sk-planted-0123456789"

# The key in what is captured, in a local variable and in an error's words.
PLUGIN = """
import os, pytest

@pytest.fixture(autouse=True)
def planted():
    key = os.environ["MYKEY"]
    print(key)
    yield
    raise ValueError(key)
"""


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

    def __init__(self) -> None:
        self.stash = pytest.Stash()


def summary(config: Any) -> list[str]:
    terminal: Any = Terminal()
    pytest_terminal_summary(terminal, config)
    lines: list[str] = terminal.lines
    return lines


@pytest.fixture
def tried(simulator: Simulator, make_proxy: MakeProxy, sdk: Sdk) -> Provider:
    proxy = make_proxy()
    return Provider(Target(simulator.base_url, ODD), proxy, sdk(proxy.base_url))


def run(simulator: Simulator, model: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """As the Makefile runs it."""
    options = ("--provider-url", simulator.base_url, "--provider-model", model, "--provider-key-env", "MYKEY")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "tests/provider", "-q", "-n0", "-p", "no:cacheprovider", *options, *arguments],
        cwd=ROOT,
        env={**os.environ, "MYKEY": KEY, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_ways_of_a_provider_and_the_calls_are_told_at_the_end(tried: Provider, simulator: Simulator) -> None:
    tried.target.observe()
    tool.test_the_models_are_listed(tried)
    tool.test_an_unknown_model_is_an_error_that_the_sdk_raises(tried)
    config = Config()
    config.stash[TARGET], config.stash[CALLS] = tried.target, tried.calls()
    listed = 1  # is a call as well
    assert summary(config) == [
        "the provider",
        "It ends its streams without [DONE].",
        "It says the usage of a stream unasked (through Penstock, only who asks sees it).",
        f"It does not list {ODD}.",
        'It says its errors as {"detail":"The model does not exist."}.',
        f"It was called {simulator.asked() + listed} times.",
    ]


def test_nothing_is_told_where_no_provider_was_named() -> None:
    assert summary(Config()) == []


def test_a_provider_that_takes_no_stream_options_is_a_note(simulator: Simulator) -> None:
    target = Target(simulator.base_url, "sim-instant;refuse-usage")
    target.observe()
    assert not target.takes_stream_options
    assert [note.partition(":")[0] for note in target.notes] == ["refuses stream_options"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("status=401", "the provider answered 401: "),
        ("status=404;detail", "the provider answered 404: The model does not exist."),
        ("redirect=/elsewhere", "the provider answered 307: "),
        ("html", "answers with a web page; is there a part missing, such as /v1?"),
        ("reset=0", " breaks off: "),
    ],
)
def test_a_provider_that_refuses_the_first_question_is_told_in_one_line(
    simulator: Simulator, options: str, words: str
) -> None:
    target = Target(simulator.base_url, f"sim-instant;{options}")
    with pytest.raises(RefusedError) as refused:
        target.observe()
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert simulator.asked() == 1


def test_a_provider_that_is_not_there_is_told_in_one_line() -> None:
    target = Target(f"http://127.0.0.1:{free_port()}/v1", "m")
    with pytest.raises(RefusedError, match=f"^{target.base_url} cannot be reached: connection refused$"):
        target.observe()
    assert target.calls == 0


@pytest.mark.parametrize(
    "url", ["127.0.0.1:9/v1", "ftp://localhost/v1", "http://localhost/v1?a=b", "http://h:99999/v1"]
)
def test_what_is_no_address_is_refused_before_it_is_called(url: str) -> None:
    with pytest.raises(RefusedError, match="is no address"):
        checked(url)


def test_a_provider_may_listen_where_penstock_does_by_default() -> None:
    assert checked("http://127.0.0.1:8080/v1/") == "http://127.0.0.1:8080/v1"


@pytest.mark.parametrize(
    ("environment", "name", "key"),
    [({}, None, "none"), ({"OPENAI_API_KEY": KEY}, None, KEY), ({"OPENAI_API_KEY": "x", "mine": KEY}, "mine", KEY)],
)
def test_the_key_is_that_of_the_variable(environment: dict[str, str], name: str | None, key: str) -> None:
    assert key_from(environment, name) == key


@pytest.mark.parametrize(
    ("environment", "name", "words"),
    [
        ({"OPENAI_API_KEY": KEY}, "NOPE", "KEY_ENV=NOPE must name an environment variable that is set"),
        ({"EMPTY": ""}, "EMPTY", "KEY_ENV=EMPTY must name an environment variable that is set"),
        ({}, KEY, "KEY_ENV must name an environment variable that is set"),
        ({"SPACED": f"{KEY}\n"}, "SPACED", "the key in SPACED holds blanks or other characters that no key has"),
    ],
)
def test_a_key_that_is_not_there_is_refused(environment: dict[str, str], name: str, words: str) -> None:
    with pytest.raises(RefusedError) as refused:
        key_from(environment, name)
    assert str(refused.value) == words


def test_no_line_holds_the_key_or_is_long() -> None:
    target = Target("http://localhost/v1", "m", KEY)
    target.note(f"echoes\n{KEY}")
    assert list(target.notes) == ["echoes [key]"]
    # A key that is cut in the middle would be half a key.
    assert target.line("x" * 295 + KEY) == "x" * 295 + "[key]"
    assert len(target.line("x" * 1000)) < 310
    assert KEY not in repr(target)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (AssertionError("its stream comes in one part\nassert 1 > 1"), "its stream comes in one part"),
        (ValueError(f"a\nb {KEY}"), "ValueError: a b [key]"),
    ],
)
def test_what_fails_is_told_in_one_line(error: Exception, told: str) -> None:
    assert Target("http://localhost/v1", "m", KEY).told(error) == told


def test_a_call_that_fails_is_told_with_its_status_and_words(tried: Provider, simulator: Simulator) -> None:
    body = tried.ask("Say yes.") | {"model": "sim-instant;malformed=0"}
    with pytest.raises(openai.InternalServerError) as failed:
        tool.asked(tried, body)
    words = "answered with 502 (upstream_truncated): The provider's answer is not whole: its JSON cannot be read."
    assert tried.target.told(failed.value) == words


@pytest.mark.parametrize("status", [400, 404, 422])
def test_tools_that_are_refused_are_passed_over(tried: Provider, status: int) -> None:
    tried.target.model = f"sim-instant;status={status}"
    with pytest.raises(pytest.skip.Exception, match="it does not take tools"):
        tool.test_a_tool_call_comes_again(tried)


@pytest.mark.parametrize("status", [429, 500, 502])
def test_tools_that_fail_are_a_failure(tried: Provider, status: int) -> None:
    tried.target.model = f"sim-instant;status={status}"
    with pytest.raises(openai.APIStatusError):
        tool.test_a_tool_call_comes_again(tried)


def test_the_key_never_shows_whatever_fails(simulator: Simulator, tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(PLUGIN)
    shown = ("-p", "planted", "-l", "--tb=long", "-vv", "-rA", "-k", "completion_comes or tool or models")
    ended = run(simulator, "sim-instant;error=0", *shown, PYTHONPATH=str(tmp_path))
    assert ended.returncode == pytest.ExitCode.TESTS_FAILED
    assert "1 passed" in ended.stdout
    assert ended.stdout.count("\nit answers 200 with something that has no choices: {'error': ") == 2
    assert ended.stdout.count("\nValueError: [key]\n") == 3
    assert KEY not in ended.stdout + ended.stderr


def test_a_key_that_the_provider_repeats_never_shows(simulator: Simulator) -> None:
    ended = run(simulator, "sim-instant", MYKEY="bad-key")
    assert ended.returncode == pytest.ExitCode.USAGE_ERROR
    assert ended.stdout == ""
    assert ended.stderr.startswith("penstock: the provider answered 401: Incorrect API key provided: [key].")
    assert ended.stderr.count("\n") == 1
