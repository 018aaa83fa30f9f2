"""Who answers where a model does not: the next of the ranking, for every client, before the first event only.

alpha is the cheapest and fails, beta comes next. What keeps a failing provider from being swamped is in
test_breaking.py.
"""

import asyncio
import json
from typing import Any

import openai
import pytest

from proxy.core.status import result_of
from tests.asking import USAGE, assembled, comparable, created
from tests.conftest import MakeProxy, Sdk
from tests.routed import UPSTREAMS, by_whom, calls_of, counted, model, routing
from tests.scripted import DONE, post
from tests.support import Json, Proxy, Simulator, ask, free_port, together
from tests.test_cut import CODES, assert_framed
from tests.test_retries import BY_SDK

pytestmark = pytest.mark.usefixtures("at_once")

FORMS: dict[str, Json] = {"JSON": {}, "a stream": USAGE}
CLIENTS: dict[str, Json] = {"a plain client": {}, "an SDK": BY_SDK}
# The provider has said that it did not answer, or nothing was sent.
FAULTS = [*(f"status={status}" for status in (401, 403, 408, 409, 429, 500, 502, 503, 529)), "html"]
LOST = {"cut=0": "upstream_truncated", "reset=0": "upstream_reset"}  # perhaps paid


def pair(does: str, **route: Any) -> Json:
    """Sections of a route over alpha, which does this, and beta."""
    sections = routing(alpha=model("alpha", "1", "1", f";{does}"), beta=model("beta", "2", "2"))
    sections["routes"]["any"] |= route
    return sections


def assert_answered(proxy: Proxy, body: Json, name: str, **headers: Any) -> None:
    with post(proxy.url, body, **headers) as wire:
        said = wire.read_body()
        assert wire.status == 200, said
        assert wire.clean
        assert b'"choices"' in said
        assert not body.get("stream") or said.endswith(DONE)
        assert by_whom(wire, proxy) == name


@pytest.mark.parametrize(("form", "client"), [("JSON", "a plain client"), ("a stream", "an SDK")])
@pytest.mark.parametrize("fault", FAULTS)
def test_where_a_model_fails_the_next_one_answers(
    fault: str, form: str, client: str, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(**pair(fault))
    assert_answered(proxy, ask(prompt, model="any", **FORMS[form]), "beta", **CLIENTS[client])
    assert (calls_of(simulator, "alpha"), calls_of(simulator, "beta")) == (1, 1)
    results = counted(proxy.metrics(), "penstock_attempts_total")
    why = result_of(int(fault[7:])) if "=" in fault else "upstream_bad_content_type"
    assert results == {("alpha", "sim", why): 1, ("beta", "sim", "ok"): 1}
    (row,) = proxy.told()
    assert (row.route, row.why, row.attempts) == ("any", "fallback", (("alpha", why), ("beta", "ok")))
    assert counted(proxy.metrics(), "penstock_route_answers_total") == {("beta", "any", "fallback"): 1}


@pytest.mark.parametrize("client", CLIENTS)
def test_where_an_error_is_the_first_event_the_next_one_answers(
    client: str, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(**pair("error=0"))
    assert_answered(proxy, ask(prompt, model="any", **USAGE), "beta", **CLIENTS[client])
    assert (calls_of(simulator, "alpha"), calls_of(simulator, "beta")) == (1, 1)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("form", FORMS)
def test_where_nobody_listens_the_next_one_answers(
    form: str, client: str, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    gone = {"base_url": f"http://127.0.0.1:{free_port()}/v1", "auth": "none"}
    sections = pair("chunks=1")
    sections["models"]["alpha"]["provider"] = "gone"
    sections["routing"] = {"default_provider": "sim"}
    proxy = make_proxy(**sections, providers={"gone": gone}, key="sk-operator")
    assert_answered(proxy, ask(prompt, model="any", **FORMS[form]), "beta", **CLIENTS[client])
    assert simulator.asked() == 1
    results = counted(proxy.metrics(), "penstock_attempts_total")
    assert results == {("alpha", "gone", "upstream_connect_error"): 1, ("beta", "sim", "ok"): 1}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fault", LOST)
def test_what_may_have_been_paid_is_asked_again_only_where_the_route_says_so(
    fault: str, form: str, client: str, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    body = ask(prompt, model="any", **FORMS[form])
    proxy = make_proxy(**pair(fault))
    with post(proxy.url, body, **CLIENTS[client]) as wire:
        assert (wire.status, json.loads(wire.read_body())["error"]["code"]) == (502, LOST[fault])
        assert wire.headers["x-should-retry"] == "false"
        assert by_whom(wire, proxy) == "alpha"
    assert (calls_of(simulator, "alpha"), calls_of(simulator, "beta")) == (1, 0)
    assert_answered(make_proxy(**pair(fault, retry_lost=True)), body, "beta", **CLIENTS[client])
    assert (calls_of(simulator, "alpha"), calls_of(simulator, "beta")) == (2, 1)


@pytest.mark.parametrize("form", FORMS)
def test_a_first_byte_that_does_not_come_in_time_is_asked_for_elsewhere_only_where_the_route_says_so(
    form: str, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    def proxy(**route: bool) -> Proxy:
        """Of alpha's provider an answer is expected at once."""
        sections = pair("first=30", **route)
        sections["models"]["beta"]["provider"] = "patient"
        sections["routing"] = {"default_provider": "sim"}
        sections["providers"] = {"patient": {"base_url": simulator.base_url, "auth": "none"}}
        at_once = {"first_event_timeout": 0.1, "total_timeout": 0.1}
        return make_proxy(**sections, provider=at_once, key="sk-operator")

    body = ask(prompt, model="any", **FORMS[form])
    with post(proxy().url, body) as wire:
        assert (wire.status, json.loads(wire.read_body())["error"]["code"]) == (504, "upstream_timeout")
    assert calls_of(simulator, "beta") == 0
    assert_answered(proxy(retry_lost=True), body, "beta")


@pytest.mark.parametrize("fault", ["cut=2", "reset=2", "error=2"])
@pytest.mark.parametrize("route", [{}, {"retry_lost": True}], ids=["", "retry_lost"])
def test_what_fails_in_the_middle_is_never_asked_again(
    fault: str, route: Json, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(**pair(fault, **route))
    with post(proxy.url, ask(prompt, model="any", **USAGE)) as wire:
        assert wire.status == 200
        found = wire.read_events()
        assert_framed(found, CODES[fault.partition("=")[0]], 2)
        assert not wire.clean
        assert by_whom(wire, proxy) == "alpha"
    assert (calls_of(simulator, "alpha"), calls_of(simulator, "beta")) == (1, 0)


@pytest.mark.parametrize("fault", ["status=503", "status=429", "html", "error=0"])
async def test_the_sdk_sees_the_answer_of_the_next_one_alone(
    fault: str, make_proxy: MakeProxy, simulator: Simulator, sdk: Sdk, prompt: str
) -> None:
    client = sdk(make_proxy(**pair(fault)).base_url)
    (direct,) = await created(sdk(simulator.base_url), ask(prompt, model=UPSTREAMS["beta"]))
    said = comparable(direct)["choices"]
    assert assembled(await created(client, ask(prompt, model="any", **USAGE)))["choices"] == said
    if fault != "error=0":
        (whole,) = await created(client, ask(prompt, model="any"))  # a hit
        assert comparable(whole)["choices"] == said
    assert simulator.asked() == 3


# Whose word is final.


def trio(*does: str, key: str | None = None) -> Json:
    """alpha is the cheapest, gamma the baseline and the dearest."""
    prices = {"alpha": "1", "beta": "2", "gamma": "3"}
    models = {
        name: model(name, price, price, f";{what}") for (name, price), what in zip(prices.items(), does, strict=True)
    }
    sections = routing(**models)
    sections["routes"]["any"]["baseline"] = "gamma"
    return sections


ALL_WELL = "chunks=3"


def called(simulator: Simulator) -> list[int]:
    return [calls_of(simulator, name) for name in ("alpha", "beta", "gamma")]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_another_model_refuses_is_asked_of_the_baseline(
    status: int, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(**trio(f"status={status}", ALL_WELL, ALL_WELL))
    assert_answered(proxy, ask(prompt, model="any"), "gamma")
    assert called(simulator) == [1, 0, 1]


def test_the_refusal_of_the_baseline_is_final(
    make_proxy: MakeProxy, simulator: Simulator, sdk: Sdk, prompt: str
) -> None:
    proxy = make_proxy(**trio("status=400", ALL_WELL, "status=422"))
    with pytest.raises(openai.UnprocessableEntityError) as raised:
        sdk(proxy.base_url).chat.completions.create(**ask(prompt, model="any"))
    assert by_whom(raised.value.response, proxy) == "gamma"
    assert called(simulator) == [1, 0, 1]


def test_a_refusal_of_the_baseline_that_was_asked_first_is_final(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    sections = trio("status=400", ALL_WELL, ALL_WELL)
    sections["routes"]["any"]["baseline"] = "alpha"
    with post(make_proxy(**sections).url, ask(prompt, model="any")) as wire:
        assert wire.status == 400
        wire.read_body()
    assert called(simulator) == [1, 0, 0]


@pytest.mark.parametrize("key", [None, "sk-operator"])
def test_a_model_that_the_operators_account_does_not_have_is_asked_of_the_next(
    key: str | None, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(**trio("status=404", ALL_WELL, ALL_WELL), key=key)
    # With its own key the client has named a model that may not be there: then the baseline's word counts.
    assert_answered(proxy, ask(prompt, model="any"), "gamma" if key is None else "beta")


@pytest.mark.parametrize("form", FORMS)
def test_where_all_fail_the_last_answer_passes(
    form: str, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(**trio("status=503", "status=429", "status=500;retry-after-ms=1"))
    with post(proxy.url, ask(prompt, model="any", **FORMS[form]), **BY_SDK) as wire:
        assert wire.status == 500
        assert json.loads(wire.read_body())["error"]
        assert by_whom(wire, proxy) == "gamma"
        assert wire.headers["retry-after-ms"] == "1"
    assert called(simulator) == [1, 1, 1]


def test_only_the_last_is_asked_again_for_clients_that_do_not_retry(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(**trio("status=503", "status=503", "status=503;retry-after-ms=1"))
    with post(proxy.url, ask(prompt, model="any")) as wire:
        assert wire.status == 503
        wire.read_body()
    assert called(simulator) == [1, 1, 1 + 2]


async def test_all_who_wait_for_a_model_that_fails_get_the_answer_of_the_next_one(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(**pair("status=503"))
    body = ask(prompt, model="any")
    forms: list[tuple[Json, Json]] = [(USAGE, BY_SDK), ({}, {}), ({}, BY_SDK)]
    asks = [
        lambda form=form, headers=headers: asyncio.to_thread(assert_answered, proxy, body | form, "beta", **headers)
        for form, headers in forms
    ]
    await together(proxy, simulator, *asks)
    assert_answered(proxy, body, "beta")  # a hit
    assert simulator.asked() == 2
