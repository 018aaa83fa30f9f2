"""What a provider refuses or fails, and who asks again."""

import json

import openai
import pytest

from tests.conftest import MakeProxy, Sdk
from tests.scripted import Scripted, Wire, answer, event, events, post, whole_stream
from tests.support import FakeClock, Json, Proxy, Simulator, ask, free_port

BY_SDK = {"x_stainless_retry_count": "0"}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 503, 529])
def test_a_refusal_passes_as_it_came(status: int, proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    body = ask(prompt, model=f"sim-instant;status={status};retry-after=7;retry-after-ms=7000;should-retry=false")
    with post(proxy.url, body, **BY_SDK) as through, post(simulator.url, body) as direct:
        assert through.status == direct.status == status
        assert through.read_body() == direct.read_body()
        passed = {
            name for name in direct.headers if name.startswith(("x-ratelimit-", "openai-", "retry-after", "x-should"))
        }
        assert {name: through.headers[name] for name in passed if name != "openai-processing-ms"} == {
            name: direct.headers[name] for name in passed if name != "openai-processing-ms"
        }
        assert through.headers["x-request-id"] != through.headers["x-penstock-request-id"]
        assert through.headers["x-request-id"].startswith("req_")
        assert "stored" not in through.headers["cache-status"]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
def test_the_sdk_raises_what_it_raises_without_a_proxy(
    status: int, error: type[openai.APIStatusError], proxy: Proxy, simulator: Simulator, sdk: Sdk, prompt: str
) -> None:
    body = ask(prompt, model=f"sim-instant;status={status}", stream=True)
    raised = []
    for base_url in (simulator.base_url, proxy.base_url):
        with pytest.raises(error) as caught:
            sdk(base_url).chat.completions.create(**body)
        raised.append((caught.value.message, caught.value.code, caught.value.body))
    assert raised[0] == raised[1]


@pytest.mark.parametrize(
    "options", ["fail=1", "fail=2;status=500", "fail=2;status=503", "fail=1;status=408;retry-after=0"]
)
def test_a_status_is_tried_again_for_clients_that_do_not_retry(
    options: str, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    assert answer(proxy.url, ask(prompt, model=f"sim-instant;{options}"))["choices"]
    assert simulator.asked() == int(options[5]) + 1


@pytest.mark.parametrize("options", ["fail=1", "fail=2;status=500", "fail=1;status=429;retry-after=0"])
def test_a_status_is_never_tried_again_under_a_client_that_retries(
    options: str, proxy: Proxy, simulator: Simulator, sdk: Sdk, prompt: str
) -> None:
    body = ask(prompt, model=f"sim-instant;{options}")
    with pytest.raises(openai.APIStatusError):
        sdk(proxy.base_url).chat.completions.create(**body)
    assert simulator.asked() == 1


def test_retries_of_the_sdk_are_not_multiplied(proxy: Proxy, simulator: Simulator, sdk: Sdk, prompt: str) -> None:
    body = ask(prompt, model="sim-instant;status=503;retry-after-ms=1")
    with pytest.raises(openai.InternalServerError):
        sdk(proxy.base_url, max_retries=2).chat.completions.create(**body)
    assert simulator.asked() == 3


@pytest.mark.parametrize(("retries", "asked"), [(0, 1), (1, 2), (2, 3)])
def test_a_status_is_tried_again_up_to_max_retries(
    retries: int, asked: int, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(provider={"max_retries": retries})
    with post(proxy.url, ask(prompt, model="sim-instant;status=500;retry-after-ms=1")) as wire:
        assert wire.status == 500
        wire.read_body()
    assert simulator.asked() == asked


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ("status=429", 1),
        ("status=429;retry-after=600", 1),
        ("status=429;retry-after=0", 3),
        ("status=429;retry-after-ms=1", 3),
        ("status=429;retry-after=-5", 3),
        ("status=429;retry-after=soon", 1),
        ("status=503;retry-after=600", 1),
        ("status=503;should-retry=false", 1),
        ("status=400", 1),
        ("status=404;retry-after=0", 1),
        ("status=400;should-retry=true;retry-after=0", 3),
    ],
)
def test_what_the_provider_says_of_retries_is_heeded(
    options: str, asked: int, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    with post(proxy.url, ask(prompt, model=f"sim-instant;{options}")) as wire:
        assert wire.status == int(options[7:10])
        wire.read_body()
    assert simulator.asked() == asked


@pytest.mark.parametrize("headers", [{}, BY_SDK])
def test_a_refused_connection_is_a_502_and_worth_another_try(headers: Json, make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy(f"http://127.0.0.1:{free_port()}/v1")
    with post(proxy.url, ask(prompt), **headers) as wire:
        assert wire.status == 502
        assert json.loads(wire.read_body())["error"]["code"] == "upstream_connect_error"
        assert wire.headers.get("x-should-retry") != "false"


@pytest.mark.parametrize("headers", [{}, BY_SDK])
def test_a_refused_connection_is_tried_once_more_for_everyone(
    headers: Json, make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url)
    tried = proxy.refuse_connections(1)
    with Wire(
        proxy.url, ask(prompt, stream=True), {name.replace("_", "-"): value for name, value in headers.items()}
    ) as wire:
        scripted.turn().answer(*whole_stream("a"))
        assert wire.read_head().status == 200
        wire.read_events()
    assert len(tried) == 2


@pytest.mark.parametrize("form", [{}, {"stream": True}])
def test_a_connection_that_is_lost_after_sending_is_not_tried_again(
    form: Json, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    with post(proxy.url, ask(prompt, model="sim-instant;reset=0", **form)) as wire:
        assert wire.status == 502
        wire.read_body()
    assert simulator.asked() == 1


def test_a_provider_that_refuses_to_say_usage_is_found_out_once(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy()
    body = ask(prompt, model="sim-instant;refuse-usage")
    first = events(proxy.url, body)
    assert simulator.asked() == 2
    assert "stream_options" not in simulator.last()["body"]
    events(proxy.url, body | ask(prompt + "!", model="sim-instant;refuse-usage"))
    assert simulator.asked() == 3
    assert len(events(proxy.url, body)) == len(first)


def test_what_was_recorded_while_a_refusal_was_found_out_is_a_hit(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy()
    body = ask(prompt, model="sim-instant;refuse-usage")
    events(proxy.url, body), events(proxy.url, body)
    assert simulator.asked() == 2


def test_a_provider_that_says_no_usage_has_an_answer_for_each_form(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(provider={"usage": "never"})
    body = ask(prompt)
    for _ in range(2):
        assert b"usage" not in b"".join(events(proxy.url, body))
        assert answer(proxy.url, body)["usage"]
    assert simulator.asked() == 2


def test_a_400_of_another_kind_passes_and_is_not_tried_again(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy()
    body = ask(prompt, stream=True, temperature=3)
    with post(proxy.url, body) as through, post(simulator.url, body) as direct:
        assert through.status == direct.status == 400
        assert through.read_body() == direct.read_body()
    assert simulator.asked() == 2


@pytest.mark.parametrize("failure", [500, 429, "refused", "lost"])
@pytest.mark.parametrize("form", [{}, {"stream": True}])
def test_a_stale_answer_is_given_where_the_provider_fails(
    failure: int | str, form: Json, make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    clock = FakeClock()
    proxy = make_proxy(scripted.base_url, clock=clock, cache={"ttl": 60, "stale_if_error": 600})
    with Wire(proxy.url, ask(prompt, stream=True)) as wire:
        scripted.turn().answer(*whole_stream("kept"))
        wire.read_head().read_events()
    clock.ahead = 80
    with failing(proxy, scripted, failure, ask(prompt) | form) as wire:
        assert wire.read_head().status == 200
        assert b"kept" in wire.read_body()
        assert wire.headers["cache-status"].startswith("penstock; hit; ttl=-2")
        assert wire.headers["cache-status"].endswith("; detail=stale-if-error")
        assert 80 <= int(wire.headers["age"]) < 100


@pytest.mark.parametrize(
    ("headers", "ahead"),
    [
        ({"cache-control": "no-cache"}, 80),
        ({"cache-control": "max-age=70"}, 80),
        ({}, 700),
        ({"authorization": "x"}, 80),
    ],
)
def test_a_stale_answer_is_not_given_to_who_does_not_want_it_nor_for_ever(
    headers: Json, ahead: float, make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    clock = FakeClock()
    proxy = make_proxy(scripted.base_url, clock=clock, cache={"ttl": 60, "stale_if_error": 600})
    with Wire(proxy.url, ask(prompt, stream=True)) as wire:
        scripted.turn().answer(*whole_stream("kept"))
        wire.read_head().read_events()
    clock.ahead = ahead
    with failing(proxy, scripted, 500, ask(prompt), **headers) as wire:
        assert wire.read_head().status == 500


def test_a_404_is_no_failure_that_a_stale_answer_would_hide(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    clock = FakeClock()
    proxy = make_proxy(scripted.base_url, clock=clock, cache={"ttl": 60, "stale_if_error": 600})
    with Wire(proxy.url, ask(prompt, stream=True)) as wire:
        scripted.turn().answer(*whole_stream("kept"))
        wire.read_head().read_events()
    clock.ahead = 80
    with failing(proxy, scripted, 404, ask(prompt)) as wire:
        assert wire.read_head().status == 404


def failing(proxy: Proxy, scripted: Scripted, failure: int | str, body: Json, **headers: str) -> Wire:
    """A request whose call fails."""
    if failure == "refused":
        proxy.refuse_connections(2)
    wire = Wire(proxy.url, body, {"x-stainless-retry-count": "0", **headers})
    if isinstance(failure, int):
        scripted.turn().answer(event({"error": {}})[6:], status=failure, content_type="application/json")
    elif failure == "lost":
        turn = scripted.turn()
        turn.head(200, "application/json" if not body.get("stream") else "text/event-stream")
        turn.abort()
    return wire


def test_a_refusal_that_ends_otherwise_turns_usage_off_for_nobody(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url)
    with Wire(proxy.url, ask(prompt, stream=True, stream_options_bogus=1), {"x-stainless-retry-count": "0"}) as wire:
        for status in (400, 429):
            scripted.turn().answer(
                b'{"error": {"message": "stream_options_bogus"}}', status=status, content_type="application/json"
            )
        assert wire.read_head().status == 429
    with Wire(proxy.url, ask(prompt, stream=True)) as wire:
        turn = scripted.turn()
        assert turn.body["stream_options"] == {"include_usage": True}
        turn.answer(*whole_stream("a"))
        wire.read_head().read_events()
