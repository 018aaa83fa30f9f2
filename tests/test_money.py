"""What each answer cost and saved: in its headers, at the end of a stream, and in the metrics."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from tests.asking import USAGE, assembled, comparable, created
from tests.conftest import AsyncSdk, MakeProxy
from tests.routed import OF_THE_SIMULATOR, UPSTREAMS, counted, model, routing
from tests.scripted import DONE, Wire, answer, events, post
from tests.support import Json, Proxy, Simulator, ask, eventually, together
from tests.test_retries import BY_SDK

pytestmark = pytest.mark.usefixtures("at_once")

# The cheapest answers; the first, the dearest, is the baseline.
PRICES = {"alpha": ("9", "9", "9"), "beta": ("1", "0.25", "2"), "gamma": ("3", "0.5", "7")}
MODELS = {name: model(name, new, out, cached=cached) for name, (new, cached, out) in PRICES.items()}
MONEY = ("cost-usd", "saved-usd", "saved-by", "prompt-cache-saved-usd")


def cost(name: str, usage: Json) -> Decimal:
    """USD of a usage, as the chat completion says it or the simulator's tally."""
    details = usage.get("prompt_tokens_details") or usage
    prompt, cached, output = usage["prompt_tokens"], details["cached_tokens"], usage["completion_tokens"]
    counts = map(Decimal, (prompt - cached, cached, output))
    parts = (count * Decimal(price) for count, price in zip(counts, PRICES[name], strict=True))
    return sum(parts, Decimal(0)) / 1_000_000


def said(amount: Decimal) -> str:
    return f"{amount.normalize():f}"


def money(headers: dict[str, str]) -> dict[str, str]:
    """What the headers say of it."""
    found = {name: headers.get(f"x-penstock-{name}") for name in MONEY}
    return {name: value for name, value in found.items() if value is not None}


def fetched(proxy: Proxy, body: Json, **headers: str) -> dict[str, str]:
    with post(proxy.url, body, **headers) as wire:
        assert wire.status == 200, wire.read_body()
        wire.read_body()
        return wire.headers


def long_body(prompt: str) -> Json:
    """A prompt of which the simulator bills all but the last message as cached."""
    messages = [{"role": "system", "content": prompt + " the" * 2000}, {"role": "user", "content": "?"}]
    return {"model": "any", "messages": messages}


def test_a_json_answer_says_what_it_cost_and_what_was_saved(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(**routing(**MODELS))
    body = long_body(prompt)
    usage = simulator.direct({**body, "model": UPSTREAMS["beta"]})["usage"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    assert cached > 1500
    assert money(fetched(proxy, body)) == {
        "cost-usd": said(cost("beta", usage)),
        "saved-usd": said(cost("alpha", usage) - cost("beta", usage)),
        "saved-by": "routing; estimated",
        "prompt-cache-saved-usd": said(cached * Decimal("0.75") / 1_000_000),
    }


@pytest.mark.parametrize("form", [{}, {"stream": True}, USAGE], ids=["JSON", "a stream", "a stream with usage"])
def test_a_hit_costs_nothing_and_saves_what_its_model_would_take_now(
    form: Json, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(**routing(**MODELS))
    body = ask(prompt, model="any")
    usage = answer(proxy.url, body)["usage"]
    expected = {"cost-usd": "0", "saved-usd": said(cost("beta", usage)), "saved-by": "cache"}
    assert money(fetched(proxy, body | form)) == expected
    events(proxy.url, {**body, "user": "else", "messages": [{"role": "user", "content": prompt + "!"}]})
    again = fetched(proxy, {**body, "messages": [{"role": "user", "content": prompt + "!"}]} | form)
    assert again["x-penstock-saved-by"] == "cache"  # of a stream that was recorded


async def test_who_joins_a_json_answer_pays_nothing(make_proxy: MakeProxy, simulator: Simulator, prompt: str) -> None:
    proxy = make_proxy(**routing(**MODELS))
    body = ask(prompt, model="any")
    ways = [body, body, {**body, "user": "somebody"}]
    found = await together(proxy, simulator, *(lambda way=way: asyncio.to_thread(fetched, proxy, way) for way in ways))
    paid, *joined = map(money, found)
    usage = answer(proxy.url, body)["usage"]
    assert paid["cost-usd"] == said(cost("beta", usage))
    assert joined == [{"cost-usd": "0", "saved-usd": paid["cost-usd"], "saved-by": "collapse"}] * 2
    assert simulator.asked() == 1


def test_where_no_price_is_known_nothing_is_said_of_cost(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy()
    body = ask(prompt, model="sim-medium;first=0;gap=0")
    assert money(fetched(proxy, body)) == {"saved-usd": "0"}
    assert money(fetched(proxy, body)) == {"cost-usd": "0"}
    metrics = proxy.metrics()
    assert sum(counted(metrics, "penstock_unpriced_answers_total").values()) == 1
    assert not counted(metrics, "penstock_cost_usd_total")
    assert not counted(metrics, "penstock_saved_usd_total")


def test_what_routing_cost_more_than_the_baseline_is_said_as_a_loss(make_proxy: MakeProxy, prompt: str) -> None:
    sections = routing(**{**MODELS, "beta": {**MODELS["beta"], "upstream": UPSTREAMS["beta"] + ";status=503"}})
    sections["routes"]["any"] = {"models": ["beta", "gamma"]}
    proxy = make_proxy(**sections)
    body = ask(prompt, model="any")
    with post(proxy.url, body) as wire:
        wire.read_body()
    usage = answer(proxy.url, body)["usage"]
    lost = cost("gamma", usage) - cost("beta", usage)
    assert money(wire.headers)["saved-usd"] == said(-lost)
    metrics = proxy.metrics()
    assert counted(metrics, "penstock_overpaid_usd_total") == {("", "gamma"): pytest.approx(float(lost))}
    assert ("routing", "", "gamma") not in counted(metrics, "penstock_saved_usd_total")


async def test_a_stream_may_end_with_a_comment_that_the_sdk_stands(
    make_proxy: MakeProxy, simulator: Simulator, async_sdk: AsyncSdk, prompt: str
) -> None:
    proxy = make_proxy(**routing(**MODELS), server={"cost_comment": True})
    client, body = async_sdk(proxy.base_url), ask(prompt, model="any")
    leader, joiner = await together(
        proxy,
        simulator,
        lambda: asyncio.to_thread(events, proxy.url, body | USAGE),
        lambda: asyncio.to_thread(events, proxy.url, body | USAGE),
    )
    (whole,) = await created(client, body)
    usage = whole["usage"]
    paid, saved = cost("beta", usage), cost("alpha", usage) - cost("beta", usage)
    assert leader[-2:] == [DONE, f": penstock cost={said(paid)} saved={said(saved)}\n\n".encode()]
    assert joiner[-2:] == [DONE, f": penstock cost=0 saved={said(paid)}\n\n".encode()]
    for form in (USAGE, {"stream": True}):
        streamed = await created(client, {**body, "messages": [{"role": "user", "content": f"{prompt} {form}"}]} | form)
        (again,) = await created(client, {**body, "messages": [{"role": "user", "content": f"{prompt} {form}"}]})
        assert assembled(streamed)["choices"] == comparable(again)["choices"]


def test_without_the_setting_a_stream_is_what_the_provider_sent(make_proxy: MakeProxy, prompt: str) -> None:
    found = events(make_proxy(**routing(**MODELS)).url, ask(prompt, model="any", **USAGE))
    assert found[-1] == DONE


# Everything at once, against the other side's own books.

LOAD = {
    **MODELS,
    "failing": {"upstream": "sim-reasoning;first=0;gap=0;status=503", "price": {"input": "0.1", "output": "0.1"}},
    "slow": {**MODELS["gamma"], "upstream": "sim-large;first=0;gap=0.02;chunks=200"},
    "cut": {**MODELS["gamma"], "upstream": "sim-large;first=0;gap=0;cut=7"},
}
ROUTES = {"any": {"models": ["alpha", "beta"]}, "shaky": {"models": ["alpha", "failing"]}}
FORMS: list[Json] = [{}, {"stream": True}, USAGE]
NAMES = ("any", "alpha", "beta", "shaky")


def abandon(proxy: Proxy, body: Json) -> None:
    """Leave a stream in its middle."""
    wire = Wire(proxy.url, {**body, "stream": True})
    wire.read_head()
    for _ in range(5):
        wire.read_event()
    wire.reset()


async def mixed_load(proxy: Proxy, simulator: Simulator, prompt: str) -> dict[str, Decimal]:
    """Misses, hits, collapses, failures and two streams without an end; what the hits and the joiners have saved."""
    bodies = [{**long_body(f"{prompt} {number}"), "model": name} for number in range(3) for name in NAMES]
    bodies += [ask(f"{prompt} {number}", model=name) for number in range(3) for name in NAMES]
    saved = {"cache": Decimal(0), "collapse": Decimal(0)}
    with ThreadPoolExecutor(8) as threads:
        for times in range(3):  # the first time all of them miss
            asked = [body | FORMS[(number + times) % 3] for number, body in enumerate(bodies)]
            found = list(threads.map(lambda body: fetched(proxy, body), asked))
            if times:
                saved["cache"] += sum(Decimal(each["x-penstock-saved-usd"]) for each in found)
    shared = ask(prompt + " shared", model="any")
    _, *joined = await together(proxy, simulator, *([lambda: asyncio.to_thread(fetched, proxy, shared)] * 4))
    saved["collapse"] += sum(Decimal(each["x-penstock-saved-usd"]) for each in joined)
    fetched(proxy, ask(prompt, model="sim-instant"))
    for status in (503, 400):
        with post(proxy.url, ask(prompt, model=f"sim-instant;status={status}"), **BY_SDK) as wire:
            assert wire.status == status
            wire.read_body()
    with post(proxy.url, ask(prompt + " the" * 900, model="cut", stream=True)) as wire:
        assert len(wire.read_events()) == 7 + 1
    abandon(proxy, ask(prompt + " the" * 900, model="slow"))
    eventually(lambda: simulator.calls()["hung_up"])
    eventually(lambda: proxy.count("penstock_cost_usd_total", estimated="true", model="slow"))
    return saved


async def test_all_that_the_metrics_say_agrees_with_the_books_of_the_provider(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(models=LOAD, routes=ROUTES, provider={"breaker_failures": 0})
    saved = await mixed_load(proxy, simulator, prompt)
    tally, metrics = simulator.calls(), proxy.metrics()
    books = {name: tally["by_model"][upstream] for name, upstream in OF_THE_SIMULATOR.items()}

    spent = counted(metrics, "penstock_cost_usd_total", "estimated", "model", "provider")
    tokens = counted(metrics, "penstock_tokens_total")
    for name in ("alpha", "beta"):
        assert spent["false", name, "sim"] == pytest.approx(float(cost(name, books[name])))
        billed = {kind: tokens[kind, name, "sim"] for kind in ("input", "cached_input", "output")}
        assert billed == {
            "input": books[name]["prompt_tokens"] - books[name]["cached_tokens"],
            "cached_input": books[name]["cached_tokens"],
            "output": books[name]["completion_tokens"],
        }
    # Of what was cut or left the provider did not say the usage, so it was counted here.
    estimated = {name: value for (kind, name, _), value in spent.items() if kind == "true"}
    assert estimated.keys() == {"slow", "cut"}
    assert sum(estimated.values()) == pytest.approx(float(cost("gamma", books["gamma"])), rel=0.05)
    assert len(spent) == 4
    assert counted(metrics, "penstock_unpriced_answers_total") == {("sim-instant", "sim"): 1}

    found = counted(metrics, "penstock_saved_usd_total", "cause", "model")
    for cause, amount in saved.items():
        assert sum(value for labels, value in found.items() if labels[0] == cause) == pytest.approx(float(amount))
    assert found["routing", "beta"] > 0
    # What shaky cost was no saving: its baseline answered.
    assert {labels for labels in found if labels[0] == "routing"} == {("routing", "beta")}

    attempts = counted(metrics, "penstock_attempts_total")
    assert sum(attempts.values()) == tally["calls"]
    assert sum(value for labels, value in attempts.items() if labels[2] == "ok") == tally["answered"]
    assert attempts["slow", "sim", "abandoned"] == tally["hung_up"] == 1
    assert attempts["failing", "sim", "status_503"] == tally["by_model"]["sim-reasoning"]["calls"] == 2 * 3
    # Each miss of a route is one decision, each of the named models none.
    decisions = counted(metrics, "penstock_decisions_total")
    assert decisions == {("beta", "any", "cheapest"): 2 * 3 + 1, ("failing", "shaky", "cheapest"): 2 * 3}
    assert not counted(metrics, "penstock_options_dropped_total")
