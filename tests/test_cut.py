"""An answer that fails is never taken for one that succeeded: on the wire, by the SDK, in the cache."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from proxy.clock import SystemClock
from tests.asking import USAGE
from tests.conftest import AsyncSdk, MakeProxy, Sdk
from tests.scripted import DONE, Scripted, Wire, chunk, event, events, post, whole_stream
from tests.support import Json, Proxy, Simulator, ask, proxy_table, together

CHUNKS = 4
EVENTS = 1 + CHUNKS + 1 + 1 + 1  # the role, the words, the finish, the usage, [DONE]
FINISHED = 1 + CHUNKS + 1
CODES = {"cut": "upstream_truncated", "reset": "upstream_reset", "stall": "upstream_stall", "error": "server_error"}
FAULTS = [(fault, after) for fault in CODES for after in range(1, EVENTS) if fault != "cut" or after < FINISHED]
JSON_FAULTS = {
    "cut=0": (502, "upstream_truncated"),
    "cut=1": (502, "upstream_truncated"),
    "reset=0": (502, "upstream_reset"),
    "reset=1": (502, "upstream_reset"),
    "stall=0": (504, "upstream_timeout"),
    "stall=1": (504, "upstream_timeout"),
    "html": (502, "upstream_bad_content_type"),
    "status=302": (502, "upstream_bad_content_type"),
}
FIRST_EVENT = {
    "cut=0": (502, "upstream_truncated"),
    "reset=0": (502, "upstream_reset"),
    "stall=0": (504, "upstream_timeout"),
    "error=0": (502, "server_error"),
    "html": (502, "upstream_bad_content_type"),
}


HASTE = {
    "stall": {"idle_timeout": 0.3},  # in the middle of a stream
    "stall=": {"first_event_timeout": 0.3, "total_timeout": 0.3},  # before it, or in JSON
}


@pytest.fixture(scope="module")
def _hasty(_simulator: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Proxy]]:
    found = {}
    for fault, timeouts in HASTE.items():
        table = proxy_table(_simulator.base_url, tmp_path_factory.mktemp("hasty"), timeouts, {})
        found[fault] = Proxy(table, {}, SystemClock())
    yield found
    for proxy in found.values():
        proxy.stop()


@pytest.fixture
def suited(request: pytest.FixtureRequest, _proxy: Proxy, _hasty: dict[str, Proxy]) -> Iterator[Proxy]:
    """A proxy that waits for nobody where the provider falls silent, else the one that all tests share."""
    fault: str = request.node.callspec.params["fault"]
    chosen = _hasty.get(fault.rstrip("0123456789"), _proxy)
    yield chosen
    chosen.becomes_quiet()


def faulty(prompt: str, options: str, **members: Any) -> Json:
    return ask(prompt, model=f"sim-instant;chunks={CHUNKS};{options}", **members)


def assert_nothing_was_stored(proxy: Proxy, body: Json) -> None:
    with post(proxy.url, body, cache_control="only-if-cached") as wire:
        assert wire.status == 504


def assert_framed(found: list[bytes], code: str, whole: int) -> None:
    """So many events of an answer, then one error, and no `[DONE]`."""
    *before, frame = found
    assert json.loads(frame.removeprefix(b"data: "))["error"]["code"] == code
    assert len(before) == whole
    assert not any(b'"error"' in one or one == DONE for one in before)


@pytest.mark.parametrize(("fault", "after"), FAULTS)
def test_a_stream_that_fails_ends_with_one_error_and_an_unclean_end(
    fault: str, after: int, suited: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = faulty(prompt, f"{fault}={after}", **USAGE)
    with post(suited.url, body) as wire:
        assert wire.status == 200
        assert_framed(wire.read_events(), CODES[fault], after)
        assert not wire.clean
    assert_nothing_was_stored(suited, body)
    with post(suited.url, body) as wire:
        assert wire.headers["cache-status"] == "penstock; fwd=miss; stored"
        wire.read_events()
    assert simulator.asked() == 2


@pytest.mark.parametrize(("fault", "after"), [("reset", EVENTS), ("error", EVENTS), ("stall", EVENTS)])
def test_what_fails_behind_done_is_not_kept(
    fault: str, after: int, make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url, provider={"total_timeout": 0.3})
    with Wire(proxy.url, ask(prompt, **USAGE)) as wire:
        turn = scripted.turn()
        turn.head()
        turn.send(*whole_stream("a"))
        if fault == "reset":
            turn.abort()
        elif fault == "error":
            turn.send(event({"error": {"message": "late", "code": "server_error"}}))
        found = wire.read_head().read_events()
        assert wire.clean == (fault == "stall")
        assert (found[-1] == DONE) == (fault == "stall")
    assert_nothing_was_stored(proxy, ask(prompt))


@pytest.mark.parametrize("after", [FINISHED, FINISHED + 1])
def test_a_stream_that_ends_early_but_with_every_choice_finished_is_whole(
    after: int, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = faulty(prompt, f"cut={after}", stream=True)
    for _ in range(2):
        with post(proxy.url, body) as wire:
            assert len(wire.read_events()) == FINISHED
            assert wire.clean
    assert simulator.asked() == 1


@pytest.mark.parametrize("fault", FIRST_EVENT)
def test_a_stream_that_fails_before_its_first_event_is_an_error_with_a_status(
    fault: str, suited: Proxy, prompt: str
) -> None:
    status, code = FIRST_EVENT[fault]
    body = faulty(prompt, fault, stream=True)
    with post(suited.url, body, x_stainless_retry_count="0") as wire:
        assert (wire.status, json.loads(wire.read_body())["error"]["code"]) == (status, code)
        assert wire.clean
        assert wire.headers["content-type"] == "application/json"
        assert wire.headers.get("x-should-retry") == (None if fault == "error=0" else "false")
    assert_nothing_was_stored(suited, body)


@pytest.mark.parametrize("fault", JSON_FAULTS)
def test_a_json_answer_that_fails_is_an_error_in_the_shape_of_openai(
    fault: str, suited: Proxy, simulator: Simulator, prompt: str
) -> None:
    status, code = JSON_FAULTS[fault]
    body = faulty(prompt, fault)
    with post(suited.url, body) as wire:
        assert wire.status == status
        assert wire.headers["x-should-retry"] == "false"
        error = json.loads(wire.read_body())["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["code"] == code
    assert simulator.asked() == 1
    assert_nothing_was_stored(suited, body)


@pytest.mark.parametrize("fault", ["cut=1", "reset=0", "stall=0", "html"])
def test_the_sdk_does_not_ask_again_for_what_may_have_been_paid(
    fault: str, suited: Proxy, simulator: Simulator, sdk: Sdk, prompt: str
) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        sdk(suited.base_url, max_retries=2).chat.completions.create(**faulty(prompt, fault))
    assert caught.value.code == JSON_FAULTS[fault][1]
    assert simulator.asked() == 1


@pytest.mark.parametrize("fault", CODES)
@pytest.mark.parametrize("after", [1, 3])
def test_the_sdk_raises_in_the_middle_of_a_stream(fault: str, after: int, suited: Proxy, sdk: Sdk, prompt: str) -> None:
    stream = sdk(suited.base_url, max_retries=2).chat.completions.create(
        **faulty(prompt, f"{fault}={after}", stream=True)
    )
    seen: list[object] = []
    with pytest.raises(openai.APIError) as caught:
        seen.extend(stream)
    assert caught.value.code == CODES[fault]
    assert len(seen) == after


@pytest.mark.parametrize("fault", CODES)
async def test_the_asynchronous_sdk_raises_in_the_middle_of_a_stream(
    fault: str, suited: Proxy, async_sdk: AsyncSdk, prompt: str
) -> None:
    stream: Any = await async_sdk(suited.base_url).chat.completions.create(**faulty(prompt, f"{fault}=3", stream=True))
    seen: list[object] = []
    with pytest.raises(openai.APIError) as caught:
        await _collect(stream, seen)
    assert caught.value.code == CODES[fault]
    assert len(seen) == 3


async def _collect(stream: Any, seen: list[object]) -> None:
    async for one in stream:
        seen.append(one)  # noqa: PERF401 - what came before the failure counts


async def test_the_stream_helper_raises_too(proxy: Proxy, async_sdk: AsyncSdk, prompt: str) -> None:
    with pytest.raises(openai.APIError):
        async with async_sdk(proxy.base_url).chat.completions.stream(**faulty(prompt, "cut=3")) as stream:
            await stream.get_final_completion()


@pytest.mark.parametrize("fault", CODES)
async def test_who_joined_sees_the_same_failure(fault: str, suited: Proxy, simulator: Simulator, prompt: str) -> None:
    body = faulty(prompt, f"{fault}=3")

    def streamed() -> Any:
        with post(suited.url, body | USAGE) as wire:
            return wire.status, wire.read_events(), wire.clean

    def whole() -> Any:
        with post(suited.url, body) as wire:
            return wire.status, json.loads(wire.read_body()), wire.clean

    asks = [lambda: asyncio.to_thread(streamed), lambda: asyncio.to_thread(streamed), lambda: asyncio.to_thread(whole)]
    leader, joiner, as_json = await together(suited, simulator, *asks)
    assert simulator.asked() == 1
    assert leader[0] == joiner[0] == 200
    assert_framed(leader[1], CODES[fault], 3)
    assert_framed(joiner[1], CODES[fault], 3)
    assert not leader[2]
    assert not joiner[2]
    assert as_json[0] in {502, 504}
    assert as_json[1]["error"]["code"] == CODES[fault]


async def test_who_joined_sees_the_same_status(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    def asked() -> Any:
        body = faulty(prompt, "status=503", stream=True)
        with post(proxy.url, body, x_stainless_retry_count="0") as wire:
            return wire.status, json.loads(wire.read_body())

    leader, joiner = await together(proxy, simulator, *[lambda: asyncio.to_thread(asked)] * 2)
    assert leader == joiner
    assert leader[0] == 503


def test_a_first_event_that_names_a_status_has_it(make_proxy: MakeProxy, scripted: Scripted, prompt: str) -> None:
    proxy = make_proxy(scripted.base_url)
    with Wire(proxy.url, ask(prompt, stream=True)) as wire:
        scripted.turn().answer(event({"error": {"message": "slow down", "code": 429, "more": 1}}))
        assert wire.read_head().status == 429
        assert json.loads(wire.read_body())["error"] == {"message": "slow down", "code": 429, "more": 1}


@pytest.mark.parametrize(
    ("options", "members"),
    [
        ("finish=content_filter", {}),
        ("empty", {}),
        ("badjson", {"response_format": {"type": "json_object"}}),
    ],
)
@pytest.mark.parametrize("form", [{}, USAGE])
def test_what_is_not_worth_keeping_passes_and_is_forgotten(
    options: str, members: Json, form: Json, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = ask(prompt, model=f"sim-instant;{options}", **members, **form)
    with post(proxy.url, body) as wire, post(simulator.url, body) as direct:
        assert wire.status == 200
        assert len(wire.read_body()) == len(direct.read_body())
        assert wire.clean
    assert_nothing_was_stored(proxy, body)


def test_an_error_in_a_json_answer_passes_and_is_forgotten(proxy: Proxy, prompt: str) -> None:
    body = faulty(prompt, "error=0")
    with post(proxy.url, body) as wire:
        assert json.loads(wire.read_body())["error"]["code"] == "server_error"
    assert_nothing_was_stored(proxy, body)


def test_a_stream_without_done_is_whole(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    body = faulty(prompt, "nodone", **USAGE)
    for _ in range(2):
        with post(proxy.url, body) as wire:
            found = wire.read_events()
            assert len(found) == EVENTS - 1
            assert b'"usage":{' in found[-1]
            assert wire.clean
    assert simulator.asked() == 1


def test_json_in_answer_to_a_stream_request_passes_and_is_kept(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    body = ask(prompt, model="sim-instant;json", stream=True)
    with post(proxy.url, body) as wire:
        assert wire.headers["content-type"] == "application/json"
        said = json.loads(wire.read_body())["choices"][0]["message"]["content"]
    assert said
    assert events(proxy.url, body)[-1] == DONE
    assert simulator.asked() == 1


@pytest.mark.parametrize(
    "odd",
    [
        b"data: {not json\n\n",
        b"data: 7\n\n",
        b'data: {"choices": [7]}\n\n',
        chunk(finish="stop"),  # a second end
    ],
)
def test_a_malformed_event_passes_as_it_came_and_nothing_is_kept(
    odd: bytes, make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url)
    stream = [chunk("a"), odd, *whole_stream("b")]
    with Wire(proxy.url, ask(prompt, **USAGE)) as wire:
        scripted.turn().answer(*stream)
        assert wire.read_head().read_events() == stream
        assert wire.clean
    assert_nothing_was_stored(proxy, ask(prompt))


def test_an_event_over_its_bound_ends_the_stream_with_an_error(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url)
    with Wire(proxy.url, ask(prompt, **USAGE)) as wire:
        turn = scripted.turn()
        turn.head()
        turn.send(chunk("a"), b"data: " + b"x" * (1 << 20), b"x" * 100)
        assert_framed(wire.read_head().read_events(), "upstream_event_too_large", 1)
        assert not wire.clean
    assert turn.gone.wait(20)


def test_an_encoding_that_was_not_asked_for_is_refused(make_proxy: MakeProxy, scripted: Scripted, prompt: str) -> None:
    proxy = make_proxy(scripted.base_url)
    with Wire(proxy.url, ask(prompt)) as wire:
        turn = scripted.turn()
        assert turn.headers["accept-encoding"] == "identity"
        turn.answer(b"\x1f\x8b", content_type="application/json", content_encoding="gzip")
        assert wire.read_head().status == 502
        assert json.loads(wire.read_body())["error"]["code"] == "upstream_bad_content_type"


@pytest.mark.parametrize(
    "odd",
    [
        b'{"choices": [{"logprob": NaN}]}',
        b'{"text": "\\ud83d"}',
        b"\xef\xbb\xbf{}",
        b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}",
    ],
)
def test_json_that_only_we_refuse_is_passed_on_and_not_kept(
    odd: bytes, make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url)
    for _ in range(2):
        with Wire(proxy.url, ask(prompt)) as wire:
            scripted.turn().answer(odd, content_type="application/json")
            assert wire.read_head().status == 200
            assert wire.read_body() == odd
