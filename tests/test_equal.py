"""Random requests: what comes through a proxy, cold and warm, equals what the provider says; `make soak` asks more."""

from collections import Counter
from collections.abc import Callable

import pytest

from bench.soak.equal import Pair
from bench.soak.requests import Requests
from tests.conftest import MakeProxy
from tests.support import Proxy, Running, Simulator

MakePair = Callable[[Running, Running], Pair]


def port(server: Running) -> int:
    return int(server.url.rpartition(":")[2])


@pytest.fixture
def short() -> Counter[str]:
    """What was not equal."""
    return Counter()


@pytest.fixture
def pair(request: pytest.FixtureRequest, short: Counter[str]) -> MakePair:
    """Compares a provider with a proxy before it, by requests that no other test makes."""

    def expect(held: bool, otherwise: str) -> None:
        if not held:
            short[otherwise] += 1

    def make(provider: Running, proxy: Running) -> Pair:
        name = str(request.node.nodeid)
        return Pair(port(provider), port(proxy), Requests(sum(name.encode()), name), expect)

    return make


@pytest.mark.parametrize("part", range(4))
async def test_what_a_request_is_answered_with_is_equal_direct_cold_and_warm(
    part: int, pair: MakePair, proxy: Proxy, simulator: Simulator, short: Counter[str]
) -> None:
    compared = pair(simulator, proxy)
    for _ in range(15):
        await compared.good()
    assert not short
    assert compared.seen["hit"] > 0


@pytest.mark.parametrize("part", range(2))
async def test_a_refusal_is_equal_direct_and_through_the_proxy(
    part: int, pair: MakePair, proxy: Proxy, simulator: Simulator, short: Counter[str]
) -> None:
    compared = pair(simulator, proxy)
    for _ in range(12):
        await compared.failing()
    assert not short
    assert compared.seen["4xx"] + compared.seen["5xx"] == 12


async def test_what_is_passed_through_arrives_and_comes_back_as_it_was(
    pair: MakePair, make_proxy: MakeProxy, simulator: Simulator, short: Counter[str]
) -> None:
    compared = pair(simulator, make_proxy(server={"forward_headers": ["X-Simulator"]}))
    for _ in range(20):
        await compared.passed()
    assert not short
    assert compared.seen["passed on with 200"] > 0


async def test_the_comparison_sees_that_there_is_no_proxy(
    pair: MakePair, simulator: Simulator, short: Counter[str]
) -> None:
    await pair(simulator, simulator).good()
    assert any("warm: " in words for words in short)
    assert any("no request id" in words for words in short)


def test_the_same_seed_makes_the_same_requests_and_no_two_alike() -> None:
    first, second = (Requests(7, "mark") for _ in range(2))
    made = [first.good() for _ in range(50)]
    assert made == [second.good() for _ in range(50)]
    assert len({str(asked.body) for asked in made}) == 50
    assert first.http_of(first.passed()) == second.http_of(second.passed())
