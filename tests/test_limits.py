"""How much a key may ask in any minute, and at once: exactly so much, and it is told where it stands."""

from types import SimpleNamespace
from typing import Any

import openai
import pytest

from tests.conftest import MakeProxy, Sdk
from tests.keyed import FORMS, Ahead, Said, asks, asks_at_once, gauge, key, read, readers_become, shows
from tests.routed import counted
from tests.scripted import Wire
from tests.support import CHAT, Json, Proxy, Simulator, ask, eventually

pytestmark = pytest.mark.usefixtures("loaded")

WHAT = ("limit", "remaining", "reset")


def standing(found: Said, of: str = "requests") -> tuple[str | None, ...]:
    """Its headers: limit, remaining, reset."""
    return tuple(found.headers.get(f"x-ratelimit-{each}-{of}") for each in WHAT)


def seconds(duration: str | None) -> float:
    """`1m0s`, `7.66s` or `12ms`."""
    assert duration is not None
    if duration.endswith("ms"):
        return float(duration[:-2]) / 1000
    minutes, _, rest = duration.rpartition("m")
    return 60 * float(minutes or 0) + float(rest[:-1])


def team(make_proxy: MakeProxy, *, clock: Ahead | None = None, **limits: Any) -> Proxy:
    """A proxy with a key that has these limits, and one that has none."""
    return make_proxy(key="sk-operator", clock=clock, keys=[key("team", **limits), key("free", passthrough=["mirror"])])


def refusals(proxy: Proxy) -> dict[tuple[str, ...], float]:
    return counted(proxy.metrics(), "penstock_limit_refusals_total")


def test_of_fifty_at_once_against_five_a_minute_exactly_five_are_answered(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = team(make_proxy, requests_per_minute=5)
    bodies = [ask(f"{prompt} {number}", **FORMS[number % 3]) for number in range(50)]
    found = asks_at_once(proxy, bodies, "team")
    answered = [one for one in found if one.status == 200]
    refused = [one for one in found if one.status != 200]
    assert (len(answered), len(refused), simulator.asked()) == (5, 45, 5)
    assert all(one.whole for one in found)
    assert {standing(one)[0] for one in answered} == {"5"}
    assert {standing(one)[1] for one in answered} <= {"0", "1", "2", "3", "4"}
    for one in refused:
        assert (one.status, one.code, one.error["type"]) == (429, "rate_limit_exceeded", "requests")
        assert 1 <= int(one.headers["retry-after"]) <= 60
        assert "x-should-retry" not in one.headers
        assert standing(one)[:2] == ("5", "0")
        assert 0 < seconds(standing(one)[2]) <= 60
    assert refusals(proxy) == {("team", "requests"): 45}
    requests = counted(proxy.metrics(), "penstock_requests_total", "endpoint", "outcome", "status")
    assert requests == {("chat", "miss", "200"): 5, ("chat", "refused", "429"): 45}
    assert asks(proxy, ask(prompt), "free").status == 200


def test_the_minute_slides_and_a_refusal_does_not_count(make_proxy: MakeProxy, prompt: str) -> None:
    clock = Ahead()
    proxy = team(make_proxy, clock=clock, requests_per_minute=3)

    def codes(count: int) -> list[str | None]:
        return [asks(proxy, ask(prompt), "team").code for _ in range(count)]

    assert codes(2) == ["", ""]
    clock.seconds += 30
    assert codes(3) == ["", "rate_limit_exceeded", "rate_limit_exceeded"]
    clock.seconds += 31  # the first two are gone, the third is not
    assert codes(4) == ["", "", "rate_limit_exceeded", "rate_limit_exceeded"]
    clock.seconds += 30
    assert codes(2) == ["", "rate_limit_exceeded"]


def test_who_waits_as_long_as_it_is_told_is_answered(make_proxy: MakeProxy, prompt: str) -> None:
    clock = Ahead()
    proxy = team(make_proxy, clock=clock, requests_per_minute=1)
    assert asks(proxy, ask(prompt), "team").status == 200
    clock.seconds += 10.7
    refused = asks(proxy, ask(prompt), "team")
    clock.seconds += int(refused.headers["retry-after"])
    assert asks(proxy, ask(prompt), "team").status == 200


def test_hits_and_who_joins_count_for_the_key_and_never_for_the_provider(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(
        key="sk-operator",
        provider={"requests_per_minute": 2, "queue_timeout": "0.05s"},
        keys=[key("team", requests_per_minute=6), key("free")],
    )
    with simulator.closed():
        wires = []
        for number in range(3):
            wires.append(Wire(proxy.url, ask(prompt), shows("team")))
            readers_become(proxy, number + 1)
    found = [read(wire) for wire in wires] + [asks(proxy, ask(prompt), "team") for _ in range(3)]
    assert [one.status for one in found] == [200] * 6
    assert [standing(one)[1] for one in found[3:]] == ["2", "1", "0"]
    assert asks(proxy, ask(prompt), "team").code == "rate_limit_exceeded"
    assert simulator.asked() == 1
    # Of the provider's two a minute one is left.
    assert [asks(proxy, ask(f"{prompt} {number}"), "free").code for number in range(2)] == ["", "queue_timeout"]


def test_tokens_are_reserved_while_it_is_under_way_and_then_settled_to_what_was_used(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = team(make_proxy, tokens_per_minute=1000)
    usage = simulator.direct(ask(prompt, max_tokens=600))["usage"]["total_tokens"]
    simulator.forget()
    with simulator.closed():
        first = Wire(proxy.url, ask(prompt, max_tokens=600), shows("team"))
        eventually(lambda: simulator.waiting() == 1)
        refused = asks(proxy, ask(prompt + "!", max_tokens=600), "team")
    assert (refused.status, refused.code, refused.error["type"]) == (429, "rate_limit_exceeded", "tokens")
    limit, remaining, reset = standing(refused, "tokens")
    assert limit == "1000"
    assert 0 < int(remaining or 0) < 400
    assert 0 < seconds(reset) <= 60
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert read(first).status == 200
    hit = asks(proxy, ask(prompt, max_tokens=600), "team")
    assert standing(hit, "tokens")[:2] == ("1000", str(1000 - usage))
    assert asks(proxy, ask(prompt + "!", max_tokens=600), "team").status == 200
    assert refusals(proxy) == {("team", "tokens"): 1}
    assert simulator.asked() == 2


def test_without_max_tokens_what_answers_rarely_exceed_is_reserved(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = team(make_proxy, tokens_per_minute=100_000)
    with simulator.closed():
        wires = [Wire(proxy.url, ask(prompt), shows("team"))]
        eventually(lambda: simulator.waiting() == 1)
        left = int(standing(asks_nothing(proxy), "tokens")[1] or 0)
    assert 100_000 - 10_000 < left < 100_000 - 500
    read(wires[0])


def asks_nothing(proxy: Proxy) -> Said:
    """A request that is counted and asks no provider."""
    return asks(proxy, ask("nothing that was ever asked"), "team", cache_control="only-if-cached")


def test_a_request_larger_than_the_whole_limit_is_refused_for_good(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = team(make_proxy, tokens_per_minute=100)
    refused = asks(proxy, ask(prompt, max_tokens=101), "team")
    assert (refused.status, refused.code, refused.error["type"]) == (429, "request_over_limit", "tokens")
    assert refused.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.headers
    assert standing(refused, "tokens")[:2] == ("100", "100")
    assert refusals(proxy) == {("team", "over_limit"): 1}
    assert simulator.asked() == 0


def is_full(proxy: Proxy) -> bool:
    """Is one more request of the key refused, for what is under way?"""
    found = asks_nothing(proxy)
    assert found.status == 504 or found.error["message"].startswith("This key is at its limit of 3 requests at once")
    return found.status == 429


def test_every_reader_holds_a_place_of_its_keys(make_proxy: MakeProxy, simulator: Simulator, prompt: str) -> None:
    proxy = team(make_proxy, max_concurrent=3)
    with simulator.closed():
        wires = []
        for number in range(3):
            assert not is_full(proxy)
            wires.append(Wire(proxy.url, ask(prompt, stream=number == 1), shows("team")))
            readers_become(proxy, number + 1)
        assert is_full(proxy)
        eventually(lambda: simulator.waiting() == 1)
        wires[1].reset()
        eventually(lambda: not is_full(proxy))
    assert [read(wires[number]).status for number in (0, 2)] == [200, 200]
    eventually(lambda: proxy.flights() == 0)


def test_a_hit_at_the_pace_at_which_it_came_holds_a_place_until_its_client_leaves(
    make_proxy: MakeProxy, prompt: str
) -> None:
    proxy = team(make_proxy, max_concurrent=3)
    body = ask(prompt, model="sim-instant;gap=0.6;chunks=3", stream=True)
    with Wire(proxy.url, body, shows("team")) as first:
        first.read_head().read_events()

    def fill() -> list[Wire]:
        """Clients that hold all places; none, if a busy machine was so slow that one has come to its end before."""
        wires = [Wire(proxy.url, body, shows("team", x_penstock_replay="recorded")) for _ in range(3)]
        found = [wire.read_head().headers.get("cache-status", "") for wire in wires]
        if is_full(proxy):
            assert all(each.startswith("penstock; hit") for each in found)
            return wires
        for wire in wires:
            wire.reset()
        eventually(lambda: not is_full(proxy))
        return []

    for wire in eventually(fill):
        wire.reset()
        eventually(lambda: not is_full(proxy))


@pytest.mark.parametrize("stream", [True, False], ids=["a stream", "JSON"])
@pytest.mark.parametrize("does", ["first=30", "stall=1", "gap=0.005;chunks=2000"])
def test_the_place_is_given_back_whenever_a_client_leaves(
    does: str, stream: bool, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = team(make_proxy, max_concurrent=3)
    body = ask(prompt, model=f"sim-instant;{does}", stream=stream)
    wires = [Wire(proxy.url, {**body, "seed": number}, shows("team")) for number in range(3)]
    eventually(lambda: simulator.asked() == 3)
    assert is_full(proxy)
    if stream and not does.startswith("first"):
        for wire in wires:
            wire.read_head().read_event()
    for wire in wires:
        wire.reset()
    eventually(lambda: not is_full(proxy))


def test_a_client_that_leaves_before_its_request_is_whole_holds_no_place(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = team(make_proxy, max_concurrent=3)
    wires = [Wire(proxy.url, b'{"model', shows("team", content_length="9999")) for _ in range(4)]
    assert not is_full(proxy)
    for wire in wires:
        wire.reset()
    assert not is_full(proxy)


def test_every_answer_says_where_its_key_stands(make_proxy: MakeProxy, simulator: Simulator, prompt: str) -> None:
    keys = [key("team", requests_per_minute=100, tokens_per_minute=100_000, passthrough=["mirror"])]
    proxy = make_proxy(key="sk-operator", keys=keys, provider={"breaker_failures": 0})
    theirs = "sim-instant;header=x-ratelimit-remaining-requests:7777"
    found = [asks(proxy, ask(prompt, model=theirs) | form, "team") for form in FORMS for _ in range(2)]
    found += [
        asks(proxy, ask(prompt, model=f"{theirs};status=503") | form, "team", x_stainless_retry_count="0")
        for form in FORMS
    ]
    found.append(asks(proxy, ask(prompt + "!"), "team", cache_control="only-if-cached"))
    found.append(read(Wire(proxy.url, ask(prompt), shows("team"), path="/v1/mirror/x")))
    with_get = proxy.http.get("/v1/models", headers=shows("team"))
    found.append(Said(with_get.status_code, dict(with_get.headers), with_get.content, whole=True))
    assert [one.status for one in found] == [200] * 6 + [503] * 3 + [504, 200, 200]
    assert [standing(one)[:2] for one in found] == [("100", str(99 - number)) for number in range(len(found))]
    for one in found:
        assert 0 < seconds(standing(one)[2]) <= 60
        assert standing(one, "tokens")[0] == "100000"
        assert 0 < int(standing(one, "tokens")[1] or 0) <= 100_000


@pytest.mark.parametrize("form", FORMS[:2], ids=["JSON", "a stream"])
def test_without_limits_of_ones_own_the_providers_are_passed_on(
    form: Json, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = team(make_proxy, requests_per_minute=9)
    body = ask(prompt, model="sim-instant;header=x-ratelimit-remaining-requests:7777") | form
    theirs = simulator.http.post(CHAT, json=body).headers
    found = asks(proxy, body, "free")
    assert standing(found)[:2] == (theirs["x-ratelimit-limit-requests"], "7777")
    assert standing(found, "tokens")[0] == theirs["x-ratelimit-limit-tokens"]
    limited = asks(proxy, body, "team")
    assert standing(limited)[:2] == ("9", "8")
    assert standing(limited, "tokens") == (None, None, None)


def test_who_may_not_come_in_is_not_counted(make_proxy: MakeProxy, simulator: Simulator, prompt: str) -> None:
    proxy = make_proxy(
        key="sk-operator", keys=[key("team", requests_per_minute=2, models=["sim-instant"]), key("other")]
    )
    for _ in range(3):
        unknown = asks(proxy, ask(prompt), "nobody")
        assert (unknown.status, standing(unknown)) == (401, (None, None, None))
        forbidden = asks(proxy, ask(prompt, model="sim-small"), "team")
        assert (forbidden.status, forbidden.code) == (403, "model_not_allowed")
        assert standing(forbidden)[:2] == ("2", "2")
        assert read(Wire(proxy.url, ask(prompt), shows("team"), path="/v1/files")).status == 403
    assert [asks(proxy, ask(prompt), "team").status for _ in range(3)] == [200, 200, 429]


def test_the_sdk_waits_as_long_as_it_is_told_and_asks_again(
    make_proxy: MakeProxy, sdk: Sdk, monkeypatch: pytest.MonkeyPatch, prompt: str
) -> None:
    clock, slept = Ahead(), []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.seconds += seconds

    monkeypatch.setattr("openai._base_client.time", SimpleNamespace(sleep=sleep))
    proxy = team(make_proxy, clock=clock, requests_per_minute=1)
    client = sdk(proxy.base_url, api_key="sk-team", max_retries=1)
    client.chat.completions.create(**ask(prompt))
    clock.seconds += 20
    again = client.chat.completions.with_raw_response.create(**ask(prompt))
    assert again.retries_taken == 1
    assert len(slept) == 1
    assert 39 <= slept[0] <= 40
    with pytest.raises(openai.RateLimitError) as caught:
        client.with_options(max_retries=0).chat.completions.create(**ask(prompt))
    assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "requests")
    assert gauge(proxy, "penstock_calls_under_way") == 0


def test_an_answer_that_is_finished_though_its_client_left_keeps_its_place_until_then(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(key="sk-operator", keys=[key("team", max_concurrent=3)], cache={"on_abandon": "finish"})
    with simulator.closed():
        for number in range(3):
            with Wire(proxy.url, {**ask(prompt), "seed": number}, shows("team")):
                eventually(lambda number=number: simulator.waiting() == number + 1)  # type: ignore[misc]
        eventually(lambda: proxy.readers() == 0)
        assert is_full(proxy)
    eventually(lambda: not is_full(proxy))
