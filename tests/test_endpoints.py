"""What is the same for all endpoints: money, limits, routing, keys, addresses; shown where it is not chat."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

import openai
import pytest

from tests.conftest import MakeProxy
from tests.keyed import budget, key, nothing_stays_reserved, read, shows
from tests.responding import FUNCTION, PATH, ended, lasting, posted, respond, status, streamed, whole
from tests.scripted import Wire
from tests.support import FakeClock, Json, Proxy, Simulator, ask, eventually

pytestmark = pytest.mark.usefixtures("at_once")

PRICE: Final = {"input": "2", "cached_input": "0.5", "output": "10"}
MILLION: Final = Decimal(1_000_000)
FORMS: Final = [False, True]
COMPLETIONS, EMBEDDINGS, CHAT = "/v1/completions", "/v1/embeddings", "/v1/chat/completions"


def complete(prompt: str, model: str = "sim-instant", **members: Any) -> Json:
    return {"model": model, "prompt": prompt, **members}


def embed(prompt: str, model: str = "sim-embed;first=0", **members: Any) -> Json:
    return {"model": model, "input": [prompt], **members}


ASKED: Final = {CHAT: ask, COMPLETIONS: complete, PATH: respond, EMBEDDINGS: embed}


def paid(usage: Json) -> Decimal:
    """USD of a Response's usage."""
    cached = usage["input_tokens_details"]["cached_tokens"]
    counts = (usage["input_tokens"] - cached, cached, usage["output_tokens"])
    return (
        sum((count * Decimal(price) for count, price in zip(counts, PRICE.values(), strict=True)), Decimal()) / MILLION
    )


# Money.


@pytest.mark.parametrize("form", FORMS, ids=["JSON", "a stream"])
def test_a_response_costs_what_its_usage_says_and_a_hit_saves_it(
    form: bool, make_proxy: MakeProxy, prompt: str
) -> None:
    proxy = make_proxy(models={"thinker": {"upstream": "sim-reasoning;first=0;gap=0", "price": PRICE}})
    said = [{"role": "system", "content": "word " * 2000}, {"role": "user", "content": prompt}]
    body = respond(said, model="thinker", stream=form)
    with posted(proxy.url, body) as miss, posted(proxy.url, body) as hit:
        miss.read_body(), hit.read_body()
    (first, again) = proxy.told(2)
    usage = whole(proxy.url, body | {"stream": False})["usage"]
    cost = paid(usage)
    assert usage["input_tokens_details"]["cached_tokens"] > 1500
    assert usage["output_tokens_details"]["reasoning_tokens"] > 0
    assert (first.endpoint, first.outcome, first.model, first.cost) == ("responses", "miss", "thinker", cost)
    assert first.usage is not None
    assert first.usage.input == usage["input_tokens"]
    assert first.usage.cached == usage["input_tokens_details"]["cached_tokens"]
    assert first.usage.output == usage["output_tokens"]
    assert first.usage.reasoning == usage["output_tokens_details"]["reasoning_tokens"]
    assert (again.outcome, again.cost, again.saved) == ("hit", Decimal(0), cost)
    assert (hit.headers["x-penstock-cost-usd"], Decimal(hit.headers["x-penstock-saved-usd"])) == ("0", cost)
    assert miss.headers.get("x-penstock-cost-usd") == (None if form else f"{cost.normalize():f}")


@pytest.mark.parametrize("form", FORMS, ids=["JSON", "a stream"])
def test_a_response_that_says_no_usage_is_counted(form: bool, make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy(
        key="sk-operator",
        models={"silent": {"upstream": "sim-instant;nousage", "price": PRICE}},
        keys=[key("team", budget={"usd": "1", "per": "total"})],
    )
    with posted(proxy.url, respond(prompt, model="silent", stream=form), **shows("team")) as wire:
        assert wire.status == 200, wire.read_body()
        wire.read_body()
    nothing_stays_reserved(proxy)
    counts = [Decimal(proxy.count("penstock_tokens_total", kind=kind)) for kind in ("input", "output")]
    assert min(counts) > 0
    assert budget(proxy, "spent_usd") == {"team": (counts[0] * 2 + counts[1] * 10) / MILLION}
    assert proxy.count("penstock_cost_usd_total", estimated="true") > 0


@pytest.mark.parametrize(("form", "options"), [(False, ""), (True, ";chunks=8;cut=4"), (True, ";nousage")])
def test_a_response_in_the_background_is_charged_what_was_set_aside_until_its_usage_is_known(
    form: bool, options: str, make_proxy: MakeProxy, prompt: str
) -> None:
    upstream, price = f"sim-instant{options}", {"input": "0", "output": "10"}
    budgeted = key("team", budget={"usd": "1", "per": "total"})
    proxy = make_proxy(key="sk-operator", models={"later": {"upstream": upstream, "price": price}}, keys=[budgeted])
    body = respond(prompt, model="later", background=True, max_output_tokens=1000, stream=form)
    with posted(proxy.url, body, **shows("team")) as wire:
        wire.read_body()
        assert wire.status == 200
    nothing_stays_reserved(proxy)
    assert budget(proxy, "spent_usd") == {"team": Decimal("0.01")}
    assert proxy.count("penstock_cost_usd_total", estimated="true") == pytest.approx(0.01)


TIGHT: Final = {"usd": "0.001", "per": "total"}  # a hundred tokens of an answer


@pytest.mark.parametrize(
    ("path", "limit"), [(PATH, "max_output_tokens"), (COMPLETIONS, "max_tokens"), (CHAT, "max_tokens")]
)
def test_what_could_exceed_the_budget_is_refused_before_a_call(
    path: str, limit: str, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    price = {"input": "0", "output": "10"}
    proxy = make_proxy(
        key="sk-operator",
        models={"dear": {"upstream": "sim-instant", "price": price}},
        keys=[key("team", budget=TIGHT)],
    )

    def asked(tokens: int, form: bool) -> tuple[int, str]:
        body = ASKED[path](prompt, model="dear", stream=form, **{limit: tokens})
        found = read(Wire(proxy.url, body, shows("team"), path))
        return found.status, "" if found.status == 200 else found.code or ""

    assert [asked(101, form) for form in FORMS] == [(429, "insufficient_quota")] * 2
    assert simulator.asked() == 0
    assert asked(100, True)[0] == 200
    assert simulator.asked() == 1


def test_what_a_response_goes_on_from_is_set_aside_too(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(
        key="sk-operator",
        models={"dear": {"upstream": "sim-instant", "price": {"input": "10", "output": "0"}}},
        keys=[key("team", budget={"usd": "0.016", "per": "total"})],
    )
    first = whole(proxy.url, respond(f"{prompt} {'long ' * 800}", model="dear", max_output_tokens=16), **shows("team"))
    assert first["usage"]["input_tokens"] > 1000  # a cent of the cent and a half
    chained = respond("on", model="dear", max_output_tokens=16, previous_response_id=first["id"])
    refused = read(Wire(proxy.url, chained, shows("team"), PATH))
    assert (refused.status, refused.code) == (429, "insufficient_quota")
    assert simulator.asked() == 1


def test_the_tokens_of_a_response_count_in_its_keys_minute(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(key="sk-operator", keys=[key("team", tokens_per_minute=1000)])
    body = respond(prompt, max_output_tokens=600)
    with simulator.closed():
        first = Wire(proxy.url, body, shows("team"), PATH)
        eventually(lambda: simulator.waiting() == 1)
        refused = read(Wire(proxy.url, respond(f"{prompt}!", max_output_tokens=600), shows("team"), PATH))
    assert (refused.status, refused.code, refused.error["type"]) == (429, "rate_limit_exceeded", "tokens")
    read(first)
    used = whole(proxy.url, body, **shows("team"))["usage"]["total_tokens"]
    with posted(proxy.url, respond(f"{prompt}?", max_output_tokens=16), **shows("team")) as wire:
        wire.read_body()
        left = int(wire.headers["x-ratelimit-remaining-tokens"])
    assert 1000 - used - 200 < left < 1000 - used


# Routing.


@pytest.fixture
def another() -> Iterator[Simulator]:
    """A second provider, which holds Responses of its own."""
    simulator = Simulator()
    yield simulator
    simulator.stop()


def priced(provider: str, price: str, upstream: str = "sim-instant", **members: Any) -> Json:
    """A model at this provider."""
    return {"provider": provider, "upstream": upstream, "price": {"input": price, "output": price}, **members}


def over_two(another: Simulator, dear: Json, cheap: Json, baseline: str = "dear", **provider: Any) -> Json:
    """The sections of a route over a dear model of the first provider and a cheap one of the other."""
    return {
        "provider": {"auth": "none"},
        "providers": {"other": {"base_url": another.base_url, "auth": "none", **provider}},
        "routing": {"default_provider": "sim"},
        "models": {"dear": dear, "cheap": cheap},
        "routes": {"any": {"models": ["dear", "cheap"], "baseline": baseline}},
    }


def who(proxy: Proxy, body: Json, path: str = PATH) -> str:
    """The provider that answers."""
    with posted(proxy.url, body, path) as wire:
        said = wire.read_body()
        assert wire.status == 200, said
        return wire.headers["x-penstock-provider"]


@pytest.mark.parametrize("path", [PATH, COMPLETIONS, CHAT])
def test_the_cheapest_provider_answers_unless_it_has_no_such_endpoint(
    path: str, make_proxy: MakeProxy, simulator: Simulator, another: Simulator, prompt: str
) -> None:
    models = priced("sim", "9"), priced("other", "1")
    proxy = make_proxy(**over_two(another, *models))
    assert [who(proxy, ASKED[path](prompt, model="any"), path) for _ in range(2)] == ["other"] * 2
    chatty = make_proxy(**over_two(another, *models, endpoints=["chat"]))
    expected = "other" if path == CHAT else "sim"
    assert who(chatty, ASKED[path](prompt, model="any"), path) == expected
    assert (another.asked(), simulator.asked()) == ((2, 0) if path == CHAT else (1, 1))


@pytest.mark.parametrize("form", FORMS, ids=["JSON", "a stream"])
@pytest.mark.parametrize("code", [404, 429, 503])
def test_where_one_provider_has_no_responses_the_next_is_asked(
    code: int, form: bool, make_proxy: MakeProxy, simulator: Simulator, another: Simulator, prompt: str
) -> None:
    failing = priced("other", "1", f"sim-instant;status={code}")
    proxy = make_proxy(**over_two(another, priced("sim", "9"), failing))
    assert who(proxy, respond(prompt, model="any", stream=form)) == "sim"
    assert another.asked() >= 1
    assert simulator.asked() == 1
    (row,) = proxy.told()
    assert (row.why, row.attempts[0]) == ("fallback", ("cheap", f"status_{code}"))


CALLS: Final[Json] = {"tools": [FUNCTION], "tool_choice": "required", "parallel_tool_calls": False}


def made_by_the_dear_one(make_proxy: MakeProxy, another: Simulator, prompt: str, **sections: Any) -> tuple[Proxy, Json]:
    """A proxy, and the body of a request that only the dear model can answer, which nothing else speaks for."""
    models = priced("sim", "9", can=["tools"]), priced("other", "1", can=["vision"])
    return make_proxy(**over_two(another, *models, baseline="cheap"), **sections), respond(prompt, model="any", **CALLS)


def result(made: Json) -> Json:
    """The next turn; without tools, so that anybody can answer it."""
    (call,) = made["output"]
    said = {"type": "function_call_output", "call_id": call["call_id"], "output": "sun"}
    return respond([said], model="any", previous_response_id=made["id"])


@pytest.mark.parametrize("first", ["JSON", "a stream", "out of the cache"])
def test_a_conversation_goes_on_at_the_provider_that_holds_it(
    first: str, make_proxy: MakeProxy, simulator: Simulator, another: Simulator, prompt: str
) -> None:
    proxy, body = made_by_the_dear_one(make_proxy, another, prompt)
    made = ended(streamed(proxy.url, body)) if first == "a stream" else whole(proxy.url, body)
    if first == "out of the cache":
        assert whole(proxy.url, body) == made
        assert status(proxy.url, body) == "hit"
    assert who(proxy, respond(prompt, model="any")) == "other"
    further = result(made)
    with posted(proxy.url, further) as wire:
        assert wire.status == 200, wire.read_body()
        wire.read_body()
        assert wire.headers["cache-status"] == "penstock; fwd=bypass; detail=state"
        assert wire.headers["x-penstock-provider"] == "sim"
    assert another.asked() == 1
    expected = whole(simulator.url, further | {"model": "sim-instant"})
    assert lasting(whole(proxy.url, further)) == lasting(expected)


def test_a_conversation_goes_on_from_an_entry_that_is_old(
    make_proxy: MakeProxy, another: Simulator, prompt: str
) -> None:
    clock = FakeClock()
    proxy, body = made_by_the_dear_one(make_proxy, another, prompt, clock=clock, cache={"ttl": 3600})
    made = whole(proxy.url, body)
    clock.ahead = 3590
    assert status(proxy.url, body) == "hit"
    clock.ahead = 3700
    assert who(proxy, result(made)) == "sim"


def test_a_conversation_that_nobody_knows_goes_to_the_provider_of_the_baseline(
    make_proxy: MakeProxy, simulator: Simulator, another: Simulator, prompt: str
) -> None:
    proxy = make_proxy(**over_two(another, priced("sim", "9"), priced("other", "1")))
    made = whole(simulator.url, respond(prompt))
    further = respond("And now?", model="any", previous_response_id=made["id"])
    assert who(proxy, further) == "sim"
    with posted(proxy.url, further | {"previous_response_id": "resp_0"}) as wire:
        assert (wire.status, b"previous_response_not_found" in wire.read_body()) == (400, True)
        assert wire.headers["x-penstock-provider"] == "sim"
    assert another.asked() == 0


# Keys and addresses.


@pytest.mark.parametrize("path", ASKED)
def test_another_key_never_gets_an_answer(path: str, make_proxy: MakeProxy, simulator: Simulator, prompt: str) -> None:
    proxy = make_proxy(key="sk-operator", keys=[key("one"), key("two")])
    found = [status(proxy.url, ASKED[path](prompt), path, **shows(name)) for name in ("one", "two", "one", "two")]
    assert found == ["fwd=miss; stored"] * 2 + ["hit"] * 2
    assert simulator.asked() == 2


@pytest.mark.parametrize(
    ("members", "leaves"),
    [
        ({}, False),
        ({"background": True}, False),
        ({"stream": True, "model": "sim-instant;chunks=40;gap=0.05"}, True),
        ({"max_output_tokens": 16, "model": "sim-instant;chunks=40;finish=content_filter"}, False),
    ],
    ids=["whole", "in the background", "left by its client", "filtered"],
)
def test_nobody_goes_on_from_a_response_of_another_key(
    members: Json, leaves: bool, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(key="sk-operator", keys=[key("one"), key("two")])
    with posted(proxy.url, respond(prompt, **members), **shows("one")) as wire:
        first = wire.read_event() if leaves else wire.read_body()
        name = json.loads(first.partition(b"data: ")[2] if leaves else first)
    made = name["response"]["id"] if leaves else name["id"]
    proxy.becomes_quiet()
    simulator.forget()
    refused = read(Wire(proxy.url, respond("on", previous_response_id=made), shows("two"), PATH))
    assert (refused.status, refused.code) == (400, "previous_response_not_found")
    assert simulator.asked() == 0
    read(Wire(proxy.url, respond("on", previous_response_id=made), shows("one"), PATH))
    assert simulator.asked() == 1


@pytest.mark.parametrize("path", ASKED)
def test_another_key_of_the_clients_never_gets_an_answer(
    path: str, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    keys = [{"authorization": f"Bearer sk-{number}"} for number in (1, 2)]
    found = [status(proxy.url, ASKED[path](prompt), path, **headers) for headers in keys * 2]
    assert found == ["fwd=miss; stored"] * 2 + ["hit"] * 2
    with posted(proxy.url, ASKED[path](prompt), path, authorization="Bearer bad-key") as wire:
        assert wire.status == 401


@pytest.mark.parametrize("path", ASKED)
def test_a_key_calls_only_the_models_that_it_may(
    path: str, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(key="sk-operator", keys=[key("team", models=["sim-medium"]), key("free")])
    body = ASKED[path](prompt)
    assert status(proxy.url, body, path, **shows("free")) == "fwd=miss; stored"
    found = read(Wire(proxy.url, body, shows("team"), path))
    assert (found.status, found.code) == (403, "model_not_allowed")
    assert simulator.asked() == 1


@pytest.mark.parametrize("path", ASKED)
def test_an_address_without_its_version_or_in_the_style_of_azure_is_the_same_endpoint(
    path: str, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    model = "sim-embed" if path == EMBEDDINGS else "sim-instant"
    body = ASKED[path](prompt, model=model)
    bare = path.removeprefix("/v1")
    addresses = (path, bare, f"/openai{path}")
    assert [status(proxy.url, body, each) for each in addresses] == ["fwd=miss; stored", "hit", "hit"]
    nameless = {name: value for name, value in body.items() if name != "model"}
    azure = f"/openai/deployments/{model}{bare}?api-version=2024-10-21"
    assert [status(proxy.url, nameless, azure) for _ in range(2)] == ["fwd=miss; stored", "hit"]
    assert simulator.last()["query"] == "api-version=2024-10-21"
    assert simulator.asked() == 2


async def test_the_sdk_for_azure_gets_what_the_provider_says(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    azure = openai.AsyncAzureOpenAI(azure_endpoint=proxy.url, api_version="2024-10-21", api_key="az", max_retries=0)
    async with azure as client:
        for _ in range(2):
            text = await client.completions.create(model="sim-instant", prompt=prompt)
            assert text.choices[0].text == whole(simulator.url, complete(prompt), COMPLETIONS)["choices"][0]["text"]
            vectors = await client.embeddings.create(model="sim-embed", input=[prompt], encoding_format="float")
            expected = whole(simulator.url, embed(prompt), EMBEDDINGS)
            assert [each.embedding for each in vectors.data] == [each["embedding"] for each in expected["data"]]
            said = await client.responses.create(model="sim-instant", input=prompt)
            assert said.output_text == whole(simulator.url, respond(prompt))["output"][0]["content"][0]["text"]
    assert simulator.asked() == 9
