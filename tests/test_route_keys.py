"""What a route's answers are kept under, and who gets them again: whoever may answer is part of the key."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.clock import SystemClock
from tests.asking import USAGE, assembled, comparable, created
from tests.conftest import AsyncSdk, MakeProxy
from tests.routed import UPSTREAMS, by_whom, calls_of, model, routing
from tests.scripted import answer, post
from tests.support import Json, Proxy, Simulator, ask, proxy_table, together

pytestmark = pytest.mark.usefixtures("at_once")

MODELS = {"alpha": model("alpha", "9", "9"), "beta": model("beta", "1", "1")}
HIT = "penstock; hit"
FORMS: dict[str, Json] = {"JSON": {}, "a stream": {"stream": True}}


def state(proxy: Proxy, body: Json, **headers: str) -> tuple[str, str]:
    """(what the cache did, who answered)."""
    with post(proxy.url, body, **headers) as wire:
        assert wire.status == 200, wire.read_body()
        wire.read_body()
        return wire.headers["cache-status"].partition(";")[2].split(";")[0].strip(), by_whom(wire, proxy)


@pytest.mark.parametrize("first", ["any model", "exact"])
def test_a_routed_answer_and_an_exact_one_are_never_given_for_each_other(
    first: str, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    sections = {**routing(**MODELS), "routes": {"alpha": {"models": ["alpha", "beta"]}}}
    proxy = make_proxy(**sections)
    body = ask(prompt, model="alpha")
    kinds: dict[str, tuple[Json, str]] = {"any model": ({}, "beta"), "exact": ({"x_penstock_route": "exact"}, "alpha")}
    for kind in sorted(kinds, key=lambda kind: kind != first):
        headers, name = kinds[kind]
        assert state(proxy, body, **headers) == ("fwd=miss", name)
    for headers, name in kinds.values():
        assert state(proxy, body, **headers) == ("hit", name)
    assert simulator.asked() == 2


def test_an_answer_of_a_route_is_not_given_to_who_names_the_model_that_made_it(
    make_proxy: MakeProxy, prompt: str
) -> None:
    proxy = make_proxy(**routing(**MODELS))
    assert state(proxy, ask(prompt, model="any")) == ("fwd=miss", "beta")
    assert state(proxy, ask(prompt, model="beta")) == ("fwd=miss", "beta")
    assert state(proxy, ask(prompt, model="any")) == ("hit", "beta")


@contextmanager
def running(simulator: Simulator, directory: Path, sections: Json) -> Iterator[Proxy]:
    """One proxy after another on one data directory."""
    proxy = Proxy(proxy_table(simulator.base_url, directory, {}, sections), {}, SystemClock())
    try:
        yield proxy
        proxy.becomes_quiet()
    finally:
        proxy.stop()


def test_a_route_that_has_changed_misses(simulator: Simulator, tmp_path: Path, prompt: str) -> None:
    models = {**MODELS, "gamma": model("gamma", "5", "5")}
    body = ask(prompt, model="any")
    with running(simulator, tmp_path, routing("alpha", "beta", **models)) as proxy:
        assert state(proxy, body) == ("fwd=miss", "beta")
    with running(simulator, tmp_path, routing("alpha", "gamma", **models)) as proxy:
        assert state(proxy, body) == ("fwd=miss", "gamma")
    dear = {**models, "beta": model("beta", "90", "90")}
    with running(simulator, tmp_path, routing("beta", "alpha", **dear)) as proxy:
        assert state(proxy, body) == ("hit", "beta")  # neither order nor price makes another route of it
    assert simulator.asked() == 2


def test_what_is_sampled_is_kept_as_each_route_says(make_proxy: MakeProxy, simulator: Simulator, prompt: str) -> None:
    names = {"models": ["alpha", "beta"]}
    routes = {"any": names, "fresh": {**names, "sampled": "bypass"}, "kept": {**names, "sampled": "cache"}}
    proxy = make_proxy(**{**routing(**MODELS), "routes": routes}, cache={"sampled": "collapse"})

    def calls(name: str, **members: Any) -> int:
        """Of two equal requests."""
        simulator.forget()
        for _ in range(2):
            answer(proxy.url, ask(f"{prompt} {name}", model=name, **members))
        return simulator.asked()

    assert [calls(name, temperature=1) for name in routes] == [2, 2, 1]
    assert [calls(name, temperature=0) for name in routes] == [1, 1, 1]


def test_an_answer_is_given_again_whichever_model_made_it(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    failing = model("beta", "1", "1", ";fail=1;status=503")
    proxy = make_proxy(**routing(**{**MODELS, "beta": failing}))
    body = ask(prompt, model="any")
    assert state(proxy, body) == ("fwd=miss", "alpha")  # beta has failed
    assert state(proxy, body) == ("hit", "alpha")
    assert state(proxy, body, cache_control="no-cache") == ("fwd=request", "beta")  # it has not failed again
    assert state(proxy, body) == ("hit", "beta")
    assert (calls_of(simulator, "alpha"), calls_of(simulator, "beta")) == (1, 2)


async def test_the_model_in_the_body_stays_what_the_provider_said(
    make_proxy: MakeProxy, simulator: Simulator, async_sdk: AsyncSdk, prompt: str
) -> None:
    proxy = make_proxy(**routing(**MODELS))
    client, body = async_sdk(proxy.base_url), ask(prompt, model="any")
    (direct,) = await created(async_sdk(simulator.base_url), {**body, "model": UPSTREAMS["beta"]})
    for form in ({}, USAGE, {}, USAGE):
        found = await created(client, body | form)
        assert {one["model"] for one in found} == {direct["model"]}


@pytest.mark.parametrize("leader", FORMS)
@pytest.mark.parametrize("joiner", FORMS)
async def test_requests_to_a_route_collapse_across_its_forms(
    leader: str, joiner: str, make_proxy: MakeProxy, simulator: Simulator, async_sdk: AsyncSdk, prompt: str
) -> None:
    proxy = make_proxy(**routing(**MODELS))
    client, body = async_sdk(proxy.base_url), ask(prompt, model="any")
    forms = [USAGE if form == "a stream" else {} for form in (leader, joiner)]
    answers = await together(proxy, simulator, *(lambda form=form: created(client, body | form) for form in forms))
    answers.append(await created(client, body))  # a hit
    whole = [comparable(one[0]) if len(one) == 1 else assembled(one) for one in answers]
    assert whole[0] == whole[1] == whole[2]
    assert simulator.asked() == calls_of(simulator, "beta") == 1
