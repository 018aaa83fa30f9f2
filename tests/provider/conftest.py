"""A provider behind a proxy of its own: one that the command line names, else the built-in one in several guises.

Rule: every call may cost money, so calls are few, small and counted.
"""

import os
import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Final

import openai
import pytest

from proxy.clock import SystemClock
from tests.provider.target import PATIENCE, TOKENS, RefusedError, Target, checked, key_from, table
from tests.support import Json, Proxy, Simulator

# The built-in provider, with the ways of others.
GUISES: Final = (
    "sim-instant;first=0.02;gap=0.002",
    "sim-instant;first=0.02;gap=0.002;nodone;usage;detail",
    "sim-instant;first=0.02;gap=0.002;nousage",
    "sim-instant;first=0.02;gap=0.002;refuse-usage",
)

TARGET: Final = pytest.StashKey[Target]()  # where the command line names one
CALLS: Final = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("provider", "a provider behind Penstock (make test-provider)")
    group.addoption("--provider-url", help="its base URL, as an SDK has it; default: the built-in provider")
    group.addoption("--provider-model", help="a model of its that answers chats")
    group.addoption("--provider-key-env", help="the environment variable with its key; default: OPENAI_API_KEY")


def _option(config: pytest.Config, name: str) -> str | None:
    # In a run of all tests this file comes too late for its options to exist.
    found: str | None = config.getoption(f"provider_{name}", None)
    return found


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Where the provider does not answer, one line says so and nothing is tried."""
    url = _option(config, "url")
    if url is None:
        return None
    try:
        if config.getoption("numprocesses", None):
            raise RefusedError("one process is enough, and others would not know the provider")  # noqa: TRY301
        key = key_from(os.environ, _option(config, "key_env"))
        config.stash[TARGET] = target = Target(checked(url), _option(config, "model") or "", key)
        target.observe()
    except RefusedError as refused:
        print(f"penstock: {refused}", file=sys.stderr)
        return pytest.ExitCode.USAGE_ERROR
    return None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "provider" in metafunc.fixturenames:
        named = metafunc.config.stash.get(TARGET, None)
        metafunc.parametrize("provider", [named.model] if named else GUISES, indirect=True, scope="module")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Of a provider that was named, one line without its key: no traceback, no locals, nothing that was captured."""
    report = yield
    target = item.config.stash.get(TARGET, None)
    if target is None:
        return report
    report.sections = []
    if call.excinfo is None:
        return report
    if report.skipped and isinstance(report.longrepr, tuple):
        path, line, why = report.longrepr
        report.longrepr = (path, line, target.line(why))
    else:
        report.longrepr = target.told(call.excinfo.value)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    target = config.stash.get(TARGET, None)
    if target is None:
        return
    terminalreporter.section("the provider")
    for note in target.notes:
        terminalreporter.write_line(f"It {note}.")
    terminalreporter.write_line(f"It was called {config.stash.get(CALLS, target.calls)} times.")


@dataclass
class Provider:
    """What is tried: `sdk` asks it through `proxy`, which holds nothing of it yet."""

    target: Target
    proxy: Proxy
    sdk: openai.OpenAI

    @property
    def model(self) -> str:
        return self.target.model

    def note(self, deviation: str) -> None:
        """Say at the end that it does so."""
        self.target.note(deviation)

    def ask(self, prompt: str, *, tokens: int = TOKENS, **members: Any) -> Json:
        """A request's body."""
        return self.target.ask(prompt, tokens=tokens, **members)

    def calls(self) -> int:
        """How often it was asked so far."""
        of_proxy = (v for name, v in self.proxy.metrics().items() if name.startswith("penstock_attempts_total"))
        return self.target.calls + int(sum(of_proxy))


@pytest.fixture(scope="module")
def provider(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    """The provider under test."""
    stash = request.config.stash
    target = stash.get(TARGET, None) or _built_in(request)
    proxy = Proxy(table(target.base_url, tmp_path_factory.mktemp("provider")), {}, SystemClock())
    sdk = openai.OpenAI(api_key=target.key, base_url=proxy.base_url, max_retries=2, timeout=PATIENCE)
    tried = Provider(target, proxy, sdk)
    try:
        if not target.takes_stream_options:
            # Penstock finds it out, so that its answers are kept under the names that they will have.
            list(sdk.chat.completions.create(**target.ask("Say yes."), stream=True))
        yield tried
        proxy.becomes_quiet()
    finally:
        stash[CALLS] = tried.calls()
        sdk.close()
        proxy.stop()


def _built_in(request: pytest.FixtureRequest) -> Target:
    simulator: Simulator = request.getfixturevalue("_simulator")
    target = Target(simulator.base_url, request.param)
    target.observe()
    return target
