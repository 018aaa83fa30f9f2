"""What keeps a provider that fails or limits from being swamped: pauses, breakers, a budget; and how it comes back."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import openai
import pytest
from starlette.types import Receive, Scope, Send

from tests.conftest import MakeProxy, Sdk
from tests.routed import by_whom, calls_of, decided, model, routing
from tests.scripted import post
from tests.support import CHAT, FakeClock, Json, Proxy, Simulator, ask, eventually
from tests.test_failing_over import pair
from tests.test_retries import BY_SDK

pytestmark = pytest.mark.usefixtures("at_once")

FRESH: Json = {"cache": {"mode": "off"}}


class Fickle(Simulator):
    """A provider of its own that fails while it is told to."""

    failing = False

    async def _gate(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == CHAT and self.failing:
            # As if the client had said so: the simulator counts it.
            scope["headers"] = [*scope["headers"], (b"x-simulator", b"status=503")]
        await super()._gate(scope, receive, send)


@pytest.fixture
def fickle() -> Iterator[Fickle]:
    provider = Fickle()
    yield provider
    provider.stop()


def before(fickle: Fickle, make_proxy: MakeProxy, **options: Any) -> Proxy:
    """alpha is the cheapest and at the provider that may fail; beta is the simulator's."""
    sections = routing(alpha=model("alpha", "1", "1", provider="fickle"), beta=model("beta", "2", "2"))
    sections["routing"] = {"default_provider": "sim"}
    providers = {"fickle": {"base_url": fickle.base_url, "auth": "none"}}
    return make_proxy(**sections, providers=providers, key="sk-operator", **options)


def whoever(proxy: Proxy, prompt: str, **headers: Any) -> str:
    with post(proxy.url, ask(prompt, model="any"), **headers) as wire:
        assert wire.status == 200, wire.read_body()
        wire.read_body()
        return by_whom(wire, proxy)


def by_many(proxy: Proxy, prompts: list[str]) -> list[str]:
    """Who answers each; eight at a time."""
    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(lambda prompt: whoever(proxy, prompt), prompts))


def test_a_provider_that_fails_for_good_is_hardly_asked_and_comes_back_when_it_heals(
    fickle: Fickle, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    clock = FakeClock()
    proxy = before(fickle, make_proxy, clock=clock)
    fickle.failing = True
    assert by_many(proxy, [f"{prompt} {number}" for number in range(200)]) == ["beta"] * 200
    assert fickle.asked() + simulator.asked() <= 1.2 * 200
    assert simulator.asked() == 200

    fickle.forget()
    clock.ahead = 31  # the first pause is over: one call finds out that nothing is better
    assert by_many(proxy, [f"{prompt} later {number}" for number in range(20)]) == ["beta"] * 20
    assert fickle.asked() == 1

    fickle.failing = False
    fickle.forget()
    assert by_many(proxy, [f"{prompt} well {number}" for number in range(20)]) == ["beta"] * 20
    assert fickle.asked() == 0  # the second pause is twice as long

    clock.ahead += 61
    with fickle.closed(), ThreadPoolExecutor(1) as thread:
        probe = thread.submit(whoever, proxy, f"{prompt} probe")
        eventually(lambda: fickle.waiting() == 1)
        assert by_many(proxy, [f"{prompt} meanwhile {number}" for number in range(20)]) == ["beta"] * 20
        assert fickle.waiting() == 1
        fickle.loop.call(fickle._open.set)
        assert probe.result() == "alpha"
    assert by_many(proxy, [f"{prompt} again {number}" for number in range(20)]) == ["alpha"] * 20


def test_a_probe_whose_client_leaves_is_the_next_ones(fickle: Fickle, make_proxy: MakeProxy, prompt: str) -> None:
    clock = FakeClock()
    proxy = before(fickle, make_proxy, clock=clock)
    fickle.failing = True
    for number in range(5):
        assert whoever(proxy, f"{prompt} {number}") == "beta"
    fickle.failing = False
    clock.ahead = 31
    with fickle.closed():
        client = openai.OpenAI(api_key="sk", base_url=proxy.base_url, max_retries=0, timeout=0.2)
        with client, pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(**ask(f"{prompt} probe", model="any"))
        eventually(lambda: proxy.flights() == 0)
    assert whoever(proxy, f"{prompt} again") == "alpha"


DATE = "date"


@pytest.mark.parametrize(
    ("told", "seconds"),
    [("30", 30), (DATE, 30), ("0", 0), ("-5", 0), ("1000000000", 60), ("soon", 10), (None, 10)],
)
def test_a_model_that_limits_is_left_alone_as_long_as_it_says_and_at_most_a_minute(
    told: str | None, seconds: float, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    clock = FakeClock()
    if told == DATE:
        told = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds + 1), usegmt=True)
    proxy = make_proxy(**pair("status=429" + (f";retry-after={told}" if told is not None else "")), clock=clock)
    for ahead, asked in [(0, 1), (max(0, seconds - 8), 1 if seconds else 2), (seconds + 2, 2 if seconds else 3)]:
        clock.ahead = ahead
        assert whoever(proxy, f"{prompt} {ahead} {asked}") == "beta"
        assert calls_of(simulator, "alpha") == asked


def test_a_limit_is_no_failure(make_proxy: MakeProxy, simulator: Simulator, prompt: str) -> None:
    proxy = make_proxy(**pair("status=429;retry-after=0"))
    assert [whoever(proxy, f"{prompt} {number}") for number in range(8)] == ["beta"] * 8
    assert calls_of(simulator, "alpha") == 8


@pytest.mark.parametrize("key", [None, "sk-operator"])
@pytest.mark.parametrize("status", [401, 402, 403])
def test_a_refused_account_is_left_alone_where_it_is_the_operators(
    status: int, key: str | None, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(**pair(f"status={status}"), key=key)
    assert [whoever(proxy, f"{prompt} {number}") for number in range(8)] == ["beta"] * 8
    assert calls_of(simulator, "alpha") == (8 if key is None else 5)


def test_where_all_are_limited_the_cheapest_is_asked_all_the_same(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    limited = ";status=429;retry-after=50"
    proxy = make_proxy(**routing(alpha=model("alpha", "1", "1", limited), beta=model("beta", "2", "2", limited)))
    assert decided(proxy, ask(prompt, model="any"), **BY_SDK).status == 429
    found = decided(proxy, ask(prompt, model="any"), **BY_SDK)
    assert (found.status, found.first, found.why, found.headers["retry-after"]) == (429, "alpha", "cooling", "50")
    assert simulator.asked() == 3  # not each of them, time and again


def test_repeats_on_one_model_are_a_small_part_of_what_is_in_flight(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(provider={"breaker_failures": 0, "max_retries": 1})
    bodies = [ask(f"{prompt} {number}", model="sim-instant;status=503;retry-after-ms=800") for number in range(30)]

    def refused(body: Json) -> int:
        with post(proxy.url, body) as wire:
            wire.read_body()
            return wire.status

    with ThreadPoolExecutor(30) as threads:
        with simulator.closed():
            statuses = [threads.submit(refused, body) for body in bodies]
            eventually(lambda: simulator.waiting() == 30)
        assert [each.result() for each in statuses] == [503] * 30
    assert 30 < simulator.asked() <= 30 + 6  # a fifth of thirty


@pytest.mark.parametrize("name", ["alone", "any"])
@pytest.mark.parametrize("form", [{}, {"stream": True}], ids=["JSON", "a stream"])
def test_where_nobody_is_left_it_is_said_at_once_and_when_to_come_again(
    name: str, form: Json, make_proxy: MakeProxy, simulator: Simulator, sdk: Sdk, prompt: str
) -> None:
    down = ";status=500"
    models = {"alone": model("gamma", "1", "1", down), "alpha": model("alpha", "1", "1", down)}
    proxy = make_proxy(**routing("alpha", "beta", **models, beta=model("beta", "1", "1", down)), **FRESH)
    client = sdk(proxy.base_url)
    for _ in range(5):
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(**ask(prompt, model=name, **form))
    asked = simulator.asked()
    assert asked == 5 * (1 if name == "alone" else 2)
    with pytest.raises(openai.InternalServerError) as raised:
        client.chat.completions.create(**ask(prompt, model=name, **form))
    error, headers = raised.value, raised.value.response.headers
    assert (error.status_code, error.code, error.type) == (503, "upstream_unavailable", "upstream_error")
    assert 1 <= int(headers["retry-after"]) <= 30
    assert headers.get("x-should-retry") != "false"
    assert simulator.asked() == asked
    if name == "alone":
        assert by_whom(error.response, proxy) == "alone"


def test_a_stale_answer_is_given_at_once_while_nobody_may_be_asked(
    fickle: Fickle, make_proxy: MakeProxy, prompt: str
) -> None:
    clock = FakeClock()
    priced = {"sim-instant": {"price": {"input": "1", "output": "1"}, "max_output": 100}}
    proxy = make_proxy(fickle.base_url, clock=clock, cache={"ttl": 60, "stale_if_error": 600}, models=priced)

    def status(**headers: str) -> str:
        with post(proxy.url, ask(prompt), **BY_SDK, **headers) as wire:
            assert wire.status == 200
            wire.read_body()
            return wire.headers["cache-status"]

    assert status() == "penstock; fwd=miss; stored"
    clock.ahead, fickle.failing = 80, True
    for asked in (2, 3, 4, 5, 6, 6, 6):
        assert status().endswith("; detail=stale-if-error")
        assert fickle.asked() == asked
    assert status(x_penstock_max_cost_usd="9").endswith("; detail=stale-if-error")
    with post(proxy.url, ask(prompt + " else"), **BY_SDK) as wire:
        assert wire.status == 503
        assert b"upstream_unavailable" in wire.read_body()
    fickle.failing = False
    clock.ahead += 31
    assert status() == "penstock; fwd=stale; stored"
