"""Shadow mode: all is fetched and paid, and it is told what the cache would have answered and saved."""

import asyncio
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

import openai
import pytest
from rich.console import Console

from bench.soak.books import Books
from proxy.report import report
from tests.asking import USAGE, created
from tests.conftest import AsyncSdk, MakeProxy, Sdk
from tests.routed import counted
from tests.scripted import Scripted, Wire, chunk, post, whole_stream
from tests.support import FakeClock, Json, Proxy, Simulator, ask, eventually, eventually_async, proxy_table

PRICE = {"input": "2", "output": "4"}
SETTINGS: Json = {"cache": {"mode": "shadow", "ttl": "60s"}, "models": {"sim-instant": {"price": PRICE}}}


@pytest.fixture
def shadow(make_proxy: MakeProxy) -> Proxy:
    return make_proxy(clock=FakeClock(), **SETTINGS)


@contextmanager
def run(simulator: Simulator, directory: Path, mode: str) -> Iterator[Proxy]:
    """A proxy on this data directory, with nothing left of it at the end but what is there."""
    table = proxy_table(simulator.base_url, directory, {}, {**SETTINGS, "cache": {"mode": mode}})
    proxy = Proxy(table, {}, FakeClock())
    try:
        yield proxy
        proxy.becomes_quiet()
    finally:
        proxy.stop()


def spent(simulator: Simulator) -> Decimal:
    """USD, by the simulator's own tally, once it has counted all that it said."""
    eventually(lambda: simulator.calls()["open"] == 0)
    tally = simulator.calls()["by_model"].get("sim-instant", {})
    prompt, output = Decimal(tally.get("prompt_tokens", 0)), Decimal(tally.get("completion_tokens", 0))
    return (prompt * Decimal(PRICE["input"]) + output * Decimal(PRICE["output"])) / 1_000_000


def books(proxy: Proxy) -> Books:
    """The ledger, once all is written."""
    proxy.becomes_quiet()
    eventually(lambda: proxy.metrics()["penstock_ledger_pending_rows"] == 0)
    return Books(proxy.directory)


def reported(proxy: Proxy) -> Json:
    """`penstock report --shadow --format json`."""
    words = io.StringIO()
    assert books(proxy).requests
    assert report(proxy.directory, Console(file=words), format="json", shadow=True) == 0
    told: Json = json.loads(words.getvalue())
    return told


async def at_once(simulator: Simulator, client: openai.AsyncOpenAI, body: Json, count: int) -> list[list[Json]]:
    """So many answers to the same request, all of them under way before one is answered."""
    tasks: list[asyncio.Future[list[Json]]] = []
    with simulator.closed():
        while len(tasks) < count:
            tasks.append(asyncio.ensure_future(created(client, body)))
            await eventually_async(lambda: simulator.waiting() == len(tasks))
    return await asyncio.gather(*tasks)


def status_of(proxy: Proxy, body: Json, **headers: str) -> str:
    with post(proxy.url, body, **headers) as wire:
        wire.read_body()
        return wire.headers["cache-status"]


def test_what_is_asked_again_is_fetched_again_and_would_have_hit(
    shadow: Proxy, simulator: Simulator, sdk: Sdk, prompt: str
) -> None:
    client = sdk(shadow.base_url).chat.completions
    found = [client.with_raw_response.create(**ask(prompt)) for _ in range(3)]
    assert simulator.asked() == 3
    assert [each.headers["cache-status"] for each in found] == [
        "penstock; fwd=bypass; detail=shadow-miss; stored",
        "penstock; fwd=bypass; detail=shadow-hit",
        "penstock; fwd=bypass; detail=shadow-hit",
    ]
    assert {each.headers.get("x-penstock-saved-usd", "0") for each in found} == {"0"}
    assert len({Decimal(each.headers["x-penstock-cost-usd"]) for each in found}) == 1
    assert len({each.parse().id for each in found}) == 3  # each has its own answer
    assert [(row["outcome"], row["shadow"], row["saved"]) for row in books(shadow).requests] == [
        ("bypass", "miss", None),
        ("bypass", "hit", None),
        ("bypass", "hit", None),
    ]


@pytest.mark.parametrize("form", [{}, {"stream": True}, USAGE], ids=["json", "stream", "usage"])
async def test_identical_requests_at_once_are_as_many_calls_and_all_but_one_would_have_joined(
    form: Json, shadow: Proxy, simulator: Simulator, async_sdk: AsyncSdk, prompt: str
) -> None:
    body, client = ask(prompt, **form), async_sdk(shadow.base_url)
    assert all(await at_once(simulator, client, body, 5))
    assert simulator.asked() == 5
    total = reported(shadow)["total"]
    assert (total["requests"], total["would_hit"], total["would_join"]) == (5, 0, 4)
    assert Decimal(total["would_save_collapse_usd"]) * 5 == Decimal(total["usd"]) * 4 == spent(simulator) * 4
    await created(client, body)
    assert reported(shadow)["total"]["would_hit"] == 1


def test_both_forms_of_a_request_would_have_had_one_answer(shadow: Proxy, simulator: Simulator, prompt: str) -> None:
    statuses = [status_of(shadow, ask(prompt, **form)) for form in ({"stream": True}, {}, USAGE)]
    assert [each.partition("; detail=")[2] for each in statuses] == ["shadow-miss; stored", "shadow-hit", "shadow-hit"]
    assert simulator.asked() == 3


def test_an_entry_is_not_renewed_by_what_would_have_hit(shadow: Proxy, prompt: str) -> None:
    clock = shadow.clock
    assert isinstance(clock, FakeClock)
    found = []
    for ahead in (0, 30, 55, 65, 100):
        clock.ahead = float(ahead)
        found.append(status_of(shadow, ask(prompt)).partition("; detail=shadow-")[2])
    assert found == ["miss; stored", "hit", "hit", "miss; stored", "hit"]


def test_what_the_cache_must_not_answer_is_no_question(shadow: Proxy, simulator: Simulator, prompt: str) -> None:
    for _ in range(2):
        assert status_of(shadow, ask(prompt), cache_control="no-store") == "penstock; fwd=bypass; detail=no-store"
        assert status_of(shadow, ask(prompt, store=True)) == "penstock; fwd=bypass; detail=state"
    with post(shadow.url, ask(prompt), cache_control="only-if-cached") as wire:
        assert wire.status == 504
        wire.read_body()
    assert simulator.asked() == 4
    assert reported(shadow)["total"]["requests"] == 0
    assert {row["shadow"] for row in books(shadow).requests} == {None}


def test_an_answer_that_is_not_whole_is_never_a_hit_of_anybody(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url, cache={"mode": "shadow"})
    for pieces, clean in (([chunk("cut")], False), (whole_stream("whole"), True), (whole_stream("whole"), True)):
        with Wire(proxy.url, ask(prompt, stream=True)) as wire:
            turn = scripted.turn()
            turn.head()
            turn.send(*pieces)
            turn.end()
            wire.read_head().read_events()
            assert wire.clean == clean
    assert [row["shadow"] for row in books(proxy).requests] == ["miss", "miss", "hit"]


async def test_what_would_have_been_saved_agrees_in_the_report_the_metrics_and_the_providers_own_tally(
    shadow: Proxy, simulator: Simulator, async_sdk: AsyncSdk, prompt: str
) -> None:
    forms: list[Json] = [{}, USAGE]
    client = async_sdk(shadow.base_url)
    bodies = [ask(f"{prompt} {'the ' * number}") for number in range(6)]
    for number, body in enumerate(bodies):
        await created(client, body | forms[number % 2])
    missed = spent(simulator)
    for number, body in enumerate(bodies * 2):
        await created(client, body | forms[number % 3 == 0])
    hits = spent(simulator) - missed
    await at_once(simulator, client, ask(f"{prompt} shared"), 4)
    joined = (spent(simulator) - missed - hits) * 3 / 4

    told = reported(shadow)["total"]
    assert simulator.asked() == told["requests"] == 6 + 12 + 4
    assert (told["would_hit"], told["would_join"], told["unknown_costs"]) == (12, 3, 0)
    assert Decimal(told["usd"]) == spent(simulator)
    assert Decimal(told["would_save_cache_usd"]) == hits
    assert Decimal(told["would_save_collapse_usd"]) == joined
    assert told["would_save_ratio"] == pytest.approx(float((hits + joined) / spent(simulator)))

    metrics = shadow.metrics()
    saved = counted(metrics, "penstock_shadow_saved_usd_total")
    assert {labels[0]: usd for labels, usd in saved.items()} == {
        "cache": pytest.approx(float(hits)),
        "collapse": pytest.approx(float(joined)),
    }
    requests = counted(metrics, "penstock_shadow_requests_total")
    assert {labels[-1]: count for labels, count in requests.items()} == {"miss": 7, "hit": 12, "collapsed": 3}
    assert not any(counted(metrics, "penstock_saved_usd_total").values())


def test_a_data_directory_that_was_in_shadow_mode_gives_hits_at_once(
    simulator: Simulator, sdk: Sdk, tmp_path: Path, prompt: str
) -> None:
    bodies = [ask(f"{prompt} {number}") for number in range(3)]
    with run(simulator, tmp_path, "shadow") as proxy:
        answers = [sdk(proxy.base_url).chat.completions.create(**body) for body in bodies * 2]
    assert simulator.asked() == 6
    with run(simulator, tmp_path, "on") as proxy:
        for body, first in zip(bodies, answers[:3], strict=True):
            again = sdk(proxy.base_url).chat.completions.with_raw_response.create(**body)
            assert again.headers["cache-status"].startswith("penstock; hit")
            assert again.parse().choices == first.choices
        assert reported(proxy)["total"]["requests"] == 6  # what is answered now is no shadow
    assert simulator.asked() == 6


def test_limits_and_budgets_go_on_as_if_there_were_no_cache(make_proxy: MakeProxy, prompt: str) -> None:
    keys = [{"name": "a", "key_sha256": sha256(b"sk-a").hexdigest(), "requests_per_minute": 2}]
    proxy = make_proxy(provider={"auth": "none"}, keys=keys, **SETTINGS)
    statuses = []
    for _ in range(3):
        with post(proxy.url, ask(prompt), authorization="Bearer sk-a") as wire:
            statuses.append(wire.status)
            wire.read_body()
    assert statuses == [200, 200, 429]
    (group,) = reported(proxy)["groups"]
    assert (group["key"], group["requests"], group["would_hit"]) == ("a", 2, 1)
    saved = counted(proxy.metrics(), "penstock_shadow_saved_usd_total")
    assert list(saved) == [("cache", "a", "sim-instant")]
