"""A provider behind a proxy of its own: one that the command line names, else the built-in one in several guises.

Rule: every call may cost money, so calls are few, small and counted.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import openai
import pytest

from proxy.app import SystemClock
from tests.support import Json, Proxy, Simulator, proxy_table

TOKENS: Final = 200  # that an answer may have, if its test does not say otherwise
PATIENCE: Final = 120.0  # seconds; a model may think
# The built-in provider, with the ways of others.
GUISES: Final = (
    "sim-instant;first=0.02;gap=0.002",
    "sim-instant;first=0.02;gap=0.002;nodone;usage;detail",
    "sim-instant;first=0.02;gap=0.002;nousage",
)

Notes = dict[str, None]
NOTES: Final = pytest.StashKey[Notes]()
CALLS: Final = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("provider", "a provider behind Penstock (make test-provider)")
    group.addoption("--provider-url", help="its base URL, as an SDK has it; default: the built-in provider")
    group.addoption("--provider-model", help="a model of its that answers chats")
    group.addoption("--provider-key-env", default="OPENAI_API_KEY", help="the environment variable with its key")


def _option(config: pytest.Config, name: str) -> str | None:
    # In a run of all tests this file comes too late for its options to exist.
    found: str | None = config.getoption(f"provider_{name}", None)
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "provider" in metafunc.fixturenames:
        named = _option(metafunc.config, "model")
        metafunc.parametrize("provider", [named] if named else GUISES, indirect=True, scope="module")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if _option(config, "url") is None:
        return
    terminalreporter.section("the provider")
    for note in config.stash.get(NOTES, {}):
        terminalreporter.write_line(f"It {note}.")
    terminalreporter.write_line(f"{config.stash.get(CALLS, 0)} answers were asked of it.")


@dataclass
class Provider:
    """What is tried: `sdk` asks it through `proxy`, which holds nothing of it yet."""

    base_url: str
    model: str
    key: str
    proxy: Proxy
    sdk: openai.OpenAI
    notes: Notes
    limit: str = "max_tokens"
    direct: int = field(default=0)

    def note(self, deviation: str) -> None:
        """Say at the end that it does so."""
        self.notes[deviation] = None

    def ask(self, prompt: str, *, tokens: int = TOKENS, **members: Any) -> Json:
        """A request's body."""
        messages = [{"role": "user", "content": prompt}]
        return {"model": self.model, "messages": messages, self.limit: tokens, **members}

    def calls(self) -> int:
        """Answers that were asked of it so far."""
        of_proxy = (v for name, v in self.proxy.metrics().items() if name.startswith("penstock_upstream_calls_total"))
        return self.direct + int(sum(of_proxy))

    def observe(self) -> None:
        """Ask it for a stream without a proxy between, and note what is unusual. Fails if it does not answer."""
        response = self._streamed()
        if response.status_code == 400 and "max_completion_tokens" in response.text:
            self.limit = "max_completion_tokens"
            self.note("wants max_completion_tokens for max_tokens")
            response = self._streamed()
        if response.status_code != 200:
            pytest.fail(f"the provider answered {response.status_code}: {response.text[:500]}", pytrace=False)
        data = [line[5:].strip() for line in response.text.splitlines() if line.startswith("data:")]
        if data[-1:] != ["[DONE]"]:
            self.note("ends its streams without [DONE]")
        if any('"usage":{' in each.replace(" ", "") for each in data):
            self.note("says the usage of a stream unasked (through Penstock, only who asks sees it)")
        if not response.headers["content-type"].startswith("text/event-stream"):
            self.note(f"answers a stream as {response.headers['content-type']}")

    def _streamed(self) -> httpx.Response:
        self.direct += 1
        headers = {"authorization": f"Bearer {self.key}"}
        body = self.ask("Say yes.", stream=True)
        return httpx.post(f"{self.base_url}/chat/completions", json=body, headers=headers, timeout=PATIENCE)


@pytest.fixture(scope="module")
def provider(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    """The provider under test."""
    config = request.config
    url = _option(config, "url")
    if url is None:
        simulator: Simulator = request.getfixturevalue("_simulator")
        url = simulator.base_url
    key = os.environ.get(_option(config, "key_env") or "OPENAI_API_KEY", "none")
    notes = config.stash.setdefault(NOTES, {})
    proxy = Proxy(proxy_table(url, tmp_path_factory.mktemp("provider"), {}, {}), {}, SystemClock())
    sdk = openai.OpenAI(api_key=key, base_url=proxy.base_url, max_retries=2, timeout=PATIENCE)
    tried = Provider(url.rstrip("/"), request.param, key, proxy, sdk, notes)
    try:
        tried.observe()
        yield tried
        proxy.becomes_quiet()
    finally:
        config.stash[CALLS] = config.stash.get(CALLS, 0) + tried.calls()
        sdk.close()
        proxy.stop()
