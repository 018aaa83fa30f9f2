"""What the tests of the whole proxy share: the provider, the proxy, the real SDK."""

import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import openai
import pytest
from hypothesis import settings

from pricing.encodings import Encodings
from proxy.clock import SystemClock
from tests.scripted import Scripted
from tests.support import Json, Proxy, Running, Simulator, proxy_table

# No test asserts a time, nor does hypothesis, which would do so on a busy machine.
settings.register_profile("untimed", parent=settings(), deadline=None)
settings.load_profile("untimed")


class MakeProxy(Protocol):
    """A proxy of one's own. `provider` and the sections are settings; `key` is the operator's."""

    def __call__(
        self,
        base_url: str = ...,
        *,
        provider: Json | None = ...,
        key: str | None = ...,
        clock: SystemClock | None = ...,
        directory: Path | None = ...,
        **sections: Any,
    ) -> Proxy: ...


AsyncSdk = Callable[..., openai.AsyncOpenAI]
Sdk = Callable[..., openai.OpenAI]


@pytest.fixture
def prompt(request: pytest.FixtureRequest) -> str:
    """Words that no other test says."""
    return str(request.node.nodeid)


@pytest.fixture(scope="session")
def _simulator() -> Iterator[Simulator]:
    simulator = Simulator()
    yield simulator
    simulator.stop()


@pytest.fixture
def simulator(_simulator: Simulator) -> Simulator:
    """The built-in provider, counting from 0."""
    _simulator.forget()
    return _simulator


@pytest.fixture(scope="session")
def _scripted() -> Iterator[Scripted]:
    scripted = Scripted()
    yield scripted
    scripted.stop()


@pytest.fixture
def scripted(_scripted: Scripted) -> Iterator[Scripted]:
    """A provider that the test plays."""
    yield _scripted
    assert _scripted.nothing_came()


@pytest.fixture(scope="session")
def _proxy(_simulator: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    # One test's failures are not another's: five in a row would keep the proxy from asking that model for everyone.
    provider = {"breaker_failures": 0}
    table = proxy_table(_simulator.base_url, tmp_path_factory.mktemp("proxy"), provider, {})
    proxy = Proxy(table, {}, SystemClock())
    yield proxy
    proxy.stop()


@pytest.fixture
def proxy(_proxy: Proxy) -> Iterator[Proxy]:
    """A proxy before the simulator; shared, so a test must ask what nobody else asks. Its settings are as they come,
    but that no failure keeps it from asking.
    """
    yield _proxy
    _proxy.becomes_quiet()


class Undertaker:
    """Stops what tests have done with while the next ones run: a server takes a moment to end."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(4)
        self._ended: list[Future[None]] = []

    def stop(self, one: Running) -> None:
        self._ended.append(self._threads.submit(one.stop))

    def wait(self) -> None:
        """Until all have ended; what went wrong is raised."""
        self._threads.shutdown()
        for ended in self._ended:
            ended.result()


@pytest.fixture(scope="session")
def _undertaker() -> Iterator[Undertaker]:
    undertaker = Undertaker()
    yield undertaker
    undertaker.wait()


@pytest.fixture
def make_proxy(_simulator: Simulator, _undertaker: Undertaker, tmp_path: Path) -> Iterator[MakeProxy]:
    """Proxies with settings of their own; all must be quiet at the end."""
    made: list[Proxy] = []
    numbers = itertools.count()

    def make(
        base_url: str = _simulator.base_url,
        *,
        provider: Json | None = None,
        key: str | None = None,
        clock: SystemClock | None = None,
        directory: Path | None = None,
        **sections: Any,
    ) -> Proxy:
        paid = {} if key is None else {"api_key_env": "NOT_READ_HERE"}
        where = directory or tmp_path / f"data{next(numbers)}"
        table = proxy_table(base_url, where, {**paid, **(provider or {})}, sections)
        made.append(Proxy(table, {} if key is None else {"sim": key}, clock or SystemClock()))
        return made[-1]

    yield make
    for each in made:
        each.becomes_quiet()
        _undertaker.stop(each)


@pytest.fixture(scope="session")
def _encodings() -> Encodings:
    encodings = Encodings(threading.Lock())
    encodings.get("o200k_base")
    return encodings


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, _encodings: Encodings) -> None:
    """What counts tokens is loaded once for all tests."""
    monkeypatch.setattr("proxy.router.Encodings", lambda _: _encodings)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch, loaded: None) -> None:
    """Besides, what a proxy learns is in its data directory a moment later."""
    monkeypatch.setattr("proxy.keeping.EVERY", 0.02)


@pytest.fixture
def unheard(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page's answer is cut as soon as its error has been sent, lest each such test takes a quarter of a second."""
    monkeypatch.setattr("proxy.endpoints.stream.HEARD", 0)


# An SDK client is slow to build (its TLS context), so others are made from one.
@pytest.fixture(scope="session")
def _sdk() -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="sk-test", base_url="http://127.0.0.1:9", max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture
def sdk(_sdk: openai.OpenAI) -> Sdk:
    """The real SDK at a base URL."""

    def at(base_url: str, **options: Any) -> openai.OpenAI:
        return _sdk.with_options(base_url=base_url, **options)

    return at


@pytest.fixture
async def async_sdk() -> AsyncIterator[AsyncSdk]:
    """The real SDK at a base URL, asynchronous."""
    made: list[openai.AsyncOpenAI] = []

    def at(base_url: str, **options: Any) -> openai.AsyncOpenAI:
        if not made:
            made.append(openai.AsyncOpenAI(api_key="sk-test", base_url=base_url, max_retries=0, timeout=20))
        return made[0].with_options(base_url=base_url, **options)

    yield at
    for client in made:
        await client.close()
