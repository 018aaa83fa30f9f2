"""What one request may say of its model and of its cost: `x-penstock-route`, `x-penstock-max-cost-usd`."""

import asyncio
import json

import openai
import pytest

from tests.conftest import MakeProxy, Sdk
from tests.routed import asks, by_whom, decided, goes_to, model, routing
from tests.scripted import Scripted, answer, post
from tests.support import Json, Proxy, Simulator, ask, eventually_async, together

pytestmark = pytest.mark.usefixtures("at_once")

EXACT, CHEAPEST = {"x_penstock_route": "exact"}, {"x_penstock_route": "cheapest"}
PRICES = {"alpha": ("9", "9"), "beta": ("5", "5"), "gamma": ("1", "1")}


def tiered(*tiers: str | None) -> Json:
    """Sections with alpha, beta and gamma, each cheaper than the one before, of these tiers."""
    models = {
        name: model(name, *price, **({} if tier is None else {"tier": tier}))
        for (name, price), tier in zip(PRICES.items(), tiers, strict=True)
    }
    return {"models": models, "routing": {"tiers": ["small", "large"]}}


def whoever(proxy: Proxy, prompt: str, name: str, headers: Json) -> str:
    with post(proxy.url, ask(prompt, model=name), **headers) as wire:
        assert wire.status == 200, wire.read_body()
        wire.read_body()
        return by_whom(wire, proxy)


def refusal(proxy: Proxy, body: Json, **headers: str) -> tuple[int, Json, str | None]:
    """Status, error and `x-should-retry`."""
    with post(proxy.url, body, **headers) as wire:
        error: Json = json.loads(wire.read_body())["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return wire.status, error, wire.headers.get("x-should-retry")


def test_exact_forbids_another_model_than_the_one_named(make_proxy: MakeProxy, prompt: str) -> None:
    sections = routing(alpha=model("alpha", "9", "9"), beta=model("beta", "1", "1"))
    proxy = make_proxy(**{**sections, "routes": {"alpha": {"models": ["alpha", "beta"]}}})
    assert whoever(proxy, prompt, "alpha", {}) == "beta"
    assert whoever(proxy, prompt, "alpha", EXACT) == "alpha"


def test_exact_makes_no_sense_with_a_route_that_is_no_model(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(**routing(alpha=model("alpha", "9", "9"), beta=model("beta", "1", "1")))
    status, error, _ = refusal(proxy, ask(prompt, model="any"), **EXACT)
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", "x-penstock-route")
    assert "'any' is a route, not a model" in error["message"]
    assert simulator.asked() == 0


@pytest.mark.parametrize("said", ["", "cheap", "exact, cheapest", "1"])
def test_another_wish_is_refused(said: str, make_proxy: MakeProxy, simulator: Simulator, prompt: str) -> None:
    proxy = make_proxy(**tiered("large", "large", "small"))
    status, error, _ = refusal(proxy, ask(prompt, model="alpha"), x_penstock_route=said)
    assert (status, error["param"]) == (400, "x-penstock-route")
    assert simulator.asked() == 0


def test_cheapest_allows_a_model_of_the_same_tier_or_above(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy(**tiered("large", "large", "small"))
    assert whoever(proxy, prompt, "alpha", {}) == "alpha"
    assert whoever(proxy, prompt, "alpha", CHEAPEST) == "beta"  # gamma is cheaper, and small
    assert whoever(proxy, prompt, "gamma", CHEAPEST) == "gamma"
    proxy = make_proxy(**tiered("small", "small", "large"))
    assert whoever(proxy, prompt, "alpha", CHEAPEST) == "gamma"  # large, and cheaper all the same


def test_cheapest_says_nothing_of_a_model_without_a_tier(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy(**tiered(None, "large", "small"))
    assert whoever(proxy, prompt, "alpha", CHEAPEST) == "alpha"
    assert whoever(proxy, prompt, "beta", CHEAPEST) == "beta"


def test_a_route_from_a_tier_up_never_asks_a_model_below_it(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy(**tiered("large", "large", "small"), routes={"good": {"min_tier": "large"}})
    seen = goes_to(proxy, ask(prompt, model="good"), "beta")
    assert seen.order == ["beta", "alpha"]


# The cap on what a request may cost. Its prompt counts for more tokens than it has: about 30 here, far below 100.

DEAR_AND_CHEAP = {"alpha": model("alpha", "10", "10"), "beta": model("beta", "1", "1")}
LONG = {"max_tokens": 1000}  # at most 1,100 tokens: 0.011 USD at alpha, 0.0011 at beta


def test_a_cap_leaves_those_that_cannot_cost_more(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**routing(**DEAR_AND_CHEAP))
    body = ask("capped", model="any", **LONG)
    seen = goes_to(proxy, body, "beta", why="only", dropped={"alpha": "max_cost"}, x_penstock_max_cost_usd="0.002")
    assert "may cost more than 0.002 USD are not asked" in seen.text
    assert goes_to(proxy, {**body, "max_tokens": 999}, "beta", x_penstock_max_cost_usd="0.02").order == [
        "beta",
        "alpha",
    ]


@pytest.mark.parametrize("name", ["any", "beta"])
@pytest.mark.parametrize("form", [{}, {"stream": True}], ids=["JSON", "a stream"])
def test_a_request_that_may_cost_more_than_its_cap_is_refused_and_nobody_asked(
    name: str, form: Json, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(**routing(**DEAR_AND_CHEAP))
    body = ask(prompt, model=name, **LONG, **form)
    status, error, retry = refusal(proxy, body, x_penstock_max_cost_usd="0.001")
    assert (status, error["type"], error["code"]) == (400, "invalid_request_error", "max_cost_exceeded")
    assert (error["param"], retry) == ("x-penstock-max-cost-usd", "false")
    assert simulator.asked() == 0


def test_the_sdk_does_not_ask_again_what_costs_too_much(
    make_proxy: MakeProxy, simulator: Simulator, sdk: Sdk, prompt: str
) -> None:
    proxy = make_proxy(**routing(**DEAR_AND_CHEAP))
    client = sdk(proxy.base_url, max_retries=2)
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(
            **ask(prompt, model="any", **LONG), extra_headers={"x-penstock-max-cost-usd": "0.0001"}
        )
    assert raised.value.code == "max_cost_exceeded"
    assert simulator.asked() == 0
    assert proxy.count("penstock_requests_total", endpoint="chat", outcome="refused", status="400") == 1


def test_an_answer_without_any_bound_or_price_is_over_every_cap(make_proxy: MakeProxy, prompt: str) -> None:
    models = {"alpha": {"upstream": "sim-small", "max_output": 9}, "beta": model("beta", "1", "1")}
    proxy = make_proxy(**routing(**models))
    status, error, _ = refusal(proxy, ask(prompt, model="any"), x_penstock_max_cost_usd="1000000")
    assert (status, error["code"]) == (400, "max_cost_exceeded")
    assert error["message"].count("nothing bounds what it may cost") == 2


async def test_capped_requests_that_are_identical_and_come_at_once_cost_one_call(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(**routing(**DEAR_AND_CHEAP))
    body = ask(prompt, model="any", **LONG)
    caps = ["0.01", "0.01", "0.02", "0.000001"]  # who joins pays nothing
    answers = await together(
        proxy,
        simulator,
        *(lambda cap=cap: asyncio.to_thread(answer, proxy.url, body, x_penstock_max_cost_usd=cap) for cap in caps),
    )
    assert len({each["choices"][0]["message"]["content"] for each in answers}) == 1
    assert simulator.asked() == 1


async def test_capped_requests_that_are_not_yet_ranked_cost_one_call_too(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(**routing(**DEAR_AND_CHEAP))
    body = ask(prompt + "long " * 20_000, model="any", **LONG)  # counted in a thread
    with simulator.closed():
        asked = [
            asyncio.ensure_future(asyncio.to_thread(answer, proxy.url, body, x_penstock_max_cost_usd="1"))
            for _ in range(4)
        ]
        await eventually_async(lambda: proxy.readers() == 4)
    await asyncio.gather(*asked)
    assert simulator.asked() == 1


def test_what_is_stored_is_given_whatever_the_cap(make_proxy: MakeProxy, simulator: Simulator, prompt: str) -> None:
    proxy = make_proxy(**routing(**DEAR_AND_CHEAP))
    assert asks(proxy, prompt) == "beta"
    with post(proxy.url, ask(prompt, model="any"), x_penstock_max_cost_usd="0") as wire:
        assert wire.status == 200
        wire.read_body()
        assert wire.headers["cache-status"].startswith("penstock; hit")
        assert wire.headers["x-penstock-cost-usd"] == "0"
    assert simulator.asked() == 1


@pytest.mark.parametrize("cap", ["", "-1", "+1", "1e3", "nan", "inf", "0x1", "$1", "1,5", "1_000", "٣", ".5", "9" * 31])
def test_a_cap_that_is_no_number_is_refused(cap: str, make_proxy: MakeProxy, simulator: Simulator, prompt: str) -> None:
    proxy = make_proxy(**routing(**DEAR_AND_CHEAP))
    status, error, _ = refusal(proxy, ask(prompt, model="any"), x_penstock_max_cost_usd=cap)
    assert (status, error["param"]) == (400, "x-penstock-max-cost-usd")
    assert simulator.asked() == 0


def test_a_cap_counts_as_a_decision_with_its_reason(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy(**routing(**DEAR_AND_CHEAP))
    found = decided(proxy, ask(prompt, model="alpha", **LONG), x_penstock_max_cost_usd="1")
    assert (found.status, found.first, found.why) == (200, "alpha", "only")


async def test_who_joins_a_capped_request_that_fails_is_answered_by_whom_its_cap_kept_away(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    sections = routing(alpha=model("alpha", "1", "1", ";status=503"), beta=model("beta", "1000", "1000"))
    for each in sections["models"].values():
        each["max_output"] = 100
    proxy, body = make_proxy(**sections), ask(prompt, model="any")

    def asked(**headers: str) -> tuple[int, str]:
        with post(proxy.url, body, x_stainless_retry_count="0", **headers) as wire:
            wire.read_body()
            return wire.status, by_whom(wire, proxy)

    capped, *joined = await together(
        proxy,
        simulator,
        lambda: asyncio.to_thread(asked, x_penstock_max_cost_usd="0.01"),
        lambda: asyncio.to_thread(asked),
        lambda: asyncio.to_thread(asked),
    )
    assert capped == (503, "alpha")
    assert joined == [(200, "beta")] * 2
    assert simulator.asked() == 3  # those two share a call: alpha fails once more, and beta answers


@pytest.mark.parametrize("odd", [{"n": 1e300}, {"n": 10**120}, {"max_tokens": 1e300}, {"max_tokens": 10**400}])
def test_an_absurd_number_is_the_providers_to_refuse(
    odd: Json, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(**routing(alpha=model("alpha", "1", "1"), beta=model("beta", "2", "2")))
    with post(proxy.url, ask(prompt, model="any", **odd)) as wire:
        assert wire.status in (200, 400), wire.read_body()  # whatever the provider makes of it
        wire.read_body()
    assert refusal(proxy, ask(prompt + " capped", model="any", **odd), x_penstock_max_cost_usd="0.01")[0] == 400


def test_a_clients_own_key_goes_to_no_other_provider(
    make_proxy: MakeProxy, simulator: Simulator, scripted: Scripted, prompt: str
) -> None:
    models = {"alpha": {**model("alpha", "9", "9"), "tier": "one"}, "beta": {**model("beta", "1", "1"), "tier": "one"}}
    models["beta"]["provider"] = "other"
    proxy = make_proxy(
        providers={"other": {"base_url": scripted.base_url}},
        routing={"tiers": ["one"], "default_provider": "sim"},
        models=models,
    )
    assert whoever(proxy, prompt, "alpha", {**CHEAPEST, "authorization": "Bearer sk-of-sim"}) == "alpha"
    assert scripted.nothing_came()
