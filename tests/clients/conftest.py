"""What the clients are tried against: the simulator, and a proxy before it, each as the command line starts it.

Rule: the clients have an environment of their own. Nothing here imports Penstock; its commands are run.
"""

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx
import pydantic_core
import pytest

HERE = Path(__file__).resolve().parent
PENSTOCK = HERE.parents[1] / ".venv/bin/penstock"
DEADLINE = 20  # seconds

# Tokenizers come from the network, but llama-index brings two of them along; langchain counts with the same.
os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(pytest.__file__).parent.parent / "llama_index/core/_static/tiktoken_cache")

# New in each answer: an answer's own id and those of its parts, what a client calls its runs, when it was.
IDS = re.compile(r"\b(?:(?:chatcmpl|cmpl|resp|msg|fc|ctc|rs)[-_]\w+|[0-9a-f]{8}(?:-[0-9a-f]{4,12}){4})\b")
TIMES = {"created", "created_at", "completed_at", "timestamp"}


@contextmanager
def listening(*arguments: str) -> Iterator[str]:
    """The base URL of `penstock …`, while it runs."""
    process = subprocess.Popen([PENSTOCK, *arguments, "--port", "0"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.search(r"listens on (http://127\.0\.0\.1:\d+/v1)", line)
        assert found, line
        yield found[1]
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE)


@pytest.fixture(scope="session")
def simulator() -> Iterator[str]:
    with listening("simulator") as base_url:
        yield base_url


@pytest.fixture(scope="session")
def proxy(simulator: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with listening("serve", "--upstream", simulator, "--data-dir", str(tmp_path_factory.mktemp("data"))) as base_url:
        yield base_url


@pytest.fixture
def prompt(request: pytest.FixtureRequest) -> str:
    """Words that no other test says."""
    return str(request.node.nodeid)


def calls(simulator: str) -> int:
    """How often the simulator was called."""
    count: int = httpx.get(simulator.removesuffix("/v1") + "/simulator/calls").json()["calls"]
    return count


def comparable(value: object, base_url: str) -> Any:
    """The client's own objects as JSON, less what is new each time."""
    text = pydantic_core.to_json(value, fallback=repr).decode()
    return _timeless(json.loads(IDS.sub("ID", text.replace(base_url, "URL"))))


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(each) for name, each in value.items() if name not in TIMES}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


class Thrice(Protocol):
    def __call__(self, ask: Callable[[str], object], *, known: bool = ...) -> Any: ...


@pytest.fixture
def thrice(simulator: str, proxy: str) -> Thrice:
    """Asks the provider itself, then through a proxy that does not know the answer, then through one that does.

    All three must be equal, and the last must not reach the provider; where the proxy is to know the answer from what
    was asked in another way, nor must the second. `ask` is told the base URL; the answer is returned as JSON, for what
    else it must be.
    """

    def asked(ask: Callable[[str], object], *, known: bool = False) -> Any:
        direct = comparable(ask(simulator), simulator)
        before = calls(simulator)
        cold = comparable(ask(proxy), proxy)
        between = calls(simulator)
        warm = comparable(ask(proxy), proxy)
        after = calls(simulator)
        assert cold == direct
        assert warm == direct
        assert (between == before) == known, "the proxy " + ("asked again" if known else "knew the answer")
        assert after == between, "the proxy asked again"
        return direct

    return asked
