"""What a provider may do wrong, through the whole proxy: who is told what, how many calls it costs, what is kept.

Cuts, resets and stalls at each event are in test_cut.py, retries in test_retries.py.
"""

import asyncio
import json
import random
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import aiohttp
import pytest

from tests.asking import USAGE
from tests.conftest import MakeProxy
from tests.scripted import DONE, Scripted, Wire, answer, event, events, post, whole_stream
from tests.support import CHAT, Json, Proxy, Silent, Simulator, ask, eventually, together
from tests.test_cut import assert_framed, assert_nothing_was_stored
from tests.test_retries import BY_SDK

FORMS: dict[str, Json] = {"JSON": {}, "a stream": {"stream": True}}
SOON = 0.4  # seconds: a provider's deadline, long enough for readers to join


@pytest.fixture
def silent() -> Iterator[Silent]:
    """An address at which nobody may call."""
    with Silent() as listener:
        yield listener
        assert not listener.heard()


def told(url: str, body: Json, **headers: Any) -> tuple[int, str]:
    """The status and the code of an error."""
    with post(url, body, **headers) as wire:
        error = json.loads(wire.read_body())["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert wire.clean
        return wire.status, error["code"]


async def told_to_all(proxy: Proxy, simulator: Simulator, body: Json) -> list[tuple[int, str]]:
    """What two streaming readers and one of JSON hear who read one flight."""
    bodies = [body | USAGE, {**body, "stream": True}, body]
    asks = [lambda body=body: asyncio.to_thread(told, proxy.url, body) for body in bodies]
    return await together(proxy, simulator, *asks)


# U1, U2, K2, K4: nothing came, or nothing that is kept.


@pytest.mark.parametrize("headers", [{}, BY_SDK], ids=["a plain client", "an SDK"])
@pytest.mark.parametrize("form", FORMS)
def test_a_first_byte_that_does_not_come_in_time_is_a_504_after_one_call(
    form: str, headers: Json, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(provider={"first_event_timeout": 0.1, "total_timeout": 0.1})
    body = ask(prompt, model="sim-instant;first=30", **FORMS[form])
    with post(proxy.url, body, **headers) as wire:
        assert (wire.status, json.loads(wire.read_body())["error"]["code"]) == (504, "upstream_timeout")
        assert wire.headers["x-should-retry"] == "false"
    eventually(lambda: simulator.calls()["hung_up"])
    assert simulator.asked() == 1
    assert_nothing_was_stored(proxy, body)


async def test_a_first_byte_that_does_not_come_in_time_is_a_504_for_every_reader(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(provider={"first_event_timeout": SOON, "total_timeout": SOON})
    answers = await told_to_all(proxy, simulator, ask(prompt, model="sim-instant;first=30"))
    assert answers == [(504, "upstream_timeout")] * 3
    assert simulator.asked() == 1


@pytest.mark.parametrize(
    ("fault", "code"),
    [("reset=0", "upstream_reset"), ("cut=0", "upstream_truncated"), ("html", "upstream_bad_content_type")],
)
async def test_what_is_lost_before_its_first_byte_is_a_502_for_every_reader_and_not_asked_for_again(
    fault: str, code: str, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    answers = await told_to_all(proxy, simulator, ask(prompt, model=f"sim-instant;{fault}"))
    assert answers == [(502, code)] * 3
    assert simulator.asked() == 1


async def test_a_refused_connection_is_a_502_for_every_reader_after_two_tries(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy()
    refused = proxy.loop.call(asyncio.Event)
    tried: list[str] = []

    async def connect(request: Any, *_: Any, **__: Any) -> Any:
        tried.append(str(request.url))
        await refused.wait()
        raise aiohttp.ClientConnectorDNSError(request.connection_key, OSError("no such name"))

    proxy._connector.connect = connect  # type: ignore[assignment]
    asking = asyncio.ensure_future(told_to_all(proxy, simulator, ask(prompt)))
    await asyncio.to_thread(eventually, lambda: proxy.readers() == 3)
    proxy.loop.call(refused.set)
    assert await asking == [(502, "upstream_connect_error")] * 3
    assert len(tried) == 2
    assert simulator.asked() == 0


def test_a_provider_that_speaks_no_tls_is_a_502_after_two_tries_and_hears_no_request(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(simulator.base_url.replace("http://", "https://"))
    tried = proxy.refuse_connections(0)
    assert told(proxy.url, ask(prompt)) == (502, "upstream_tls_error")
    assert len(tried) == 2
    assert simulator.asked() == 0


@pytest.mark.parametrize("options", ["finish=content_filter", "empty", "malformed=1", "finish=stop;nousage"])
async def test_an_answer_that_is_not_kept_is_shared_by_those_who_wait_and_made_once_for_the_next(
    options: str, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(cache={"max_entry": "1KiB"} if "nousage" in options else {})
    body = ask(prompt, model=f"sim-instant;chunks=4;{options}", stream=True)
    for times in (1, 2):
        asks = [lambda: asyncio.to_thread(events, proxy.url, body)] * 3
        shared = await together(proxy, simulator, *asks)
        assert len({len(one) for one in shared}) == 1
        assert simulator.asked() == times
    assert_nothing_was_stored(proxy, body)


# U3: silence and dribble.

PATIENT = {"first_event_timeout": 20, "idle_timeout": 20, "total_timeout": SOON}


def test_a_stream_that_dribbles_is_ended_by_the_total_in_the_middle(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(provider={**PATIENT, "total_timeout": 0.8})
    body = ask(prompt, model="sim-instant;chunks=40;dribble=0.001", **USAGE)
    with post(proxy.url, body) as wire:
        *whole, _ = found = wire.read_events()
        assert whole
        assert_framed(found, "upstream_stall", len(whole))
        assert not wire.clean
    assert simulator.asked() == 1
    assert_nothing_was_stored(proxy, body)


@pytest.mark.parametrize(
    ("form", "deadline"), [("JSON", {"total_timeout": SOON}), ("a stream", {"first_event_timeout": SOON})]
)
def test_a_dribble_before_the_first_event_is_no_sign_of_life(
    form: str, deadline: Json, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(provider=deadline)
    body = ask(prompt, model="sim-instant;dribble=0.1", **FORMS[form])
    assert told(proxy.url, body) == (504, "upstream_timeout")
    assert simulator.asked() == 1
    assert_nothing_was_stored(proxy, body)


@pytest.mark.parametrize("silence", ["first=0.4", "gap=0.4"])
def test_comments_are_signs_of_life_before_the_first_event_and_between_events(
    silence: str, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(provider={"first_event_timeout": 0.2, "idle_timeout": 0.2})
    body = ask(prompt, model=f"sim-instant;chunks=1;comments=0.02;{silence}", **USAGE)
    found = events(proxy.url, body)
    assert found[-1] == DONE
    assert not any(b"keep-alive" in one for one in found)
    assert simulator.asked() == 1
    assert answer(proxy.url, ask(prompt, model=body["model"]))["choices"]
    assert simulator.asked() == 1


@pytest.mark.parametrize("after", [0, 2])
def test_comments_without_end_are_ended_by_the_total(
    after: int, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(provider={**PATIENT, "first_event_timeout": 0.2, "idle_timeout": 0.2})
    body = ask(prompt, model=f"sim-instant;stall={after};comments=0.02", **USAGE)
    if after:
        with post(proxy.url, body) as wire:
            assert_framed(wire.read_events(), "upstream_stall", after)
    else:
        assert told(proxy.url, body) == (504, "upstream_timeout")
    assert simulator.asked() == 1
    assert_nothing_was_stored(proxy, body)


def test_a_client_hears_pings_in_silence_after_the_first_event_and_never_before(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.endpoints.client.PING_AFTER", 0.01)
    proxy = make_proxy(scripted.base_url)
    stream = whole_stream("one")
    with Wire(proxy.url, ask(prompt, **USAGE)) as early, Wire(proxy.url, ask(prompt + "!", **USAGE)) as late:
        one, other = scripted.turn(), scripted.turn()
        if one.body["messages"] != ask(prompt)["messages"]:
            one, other = other, one
        one.head()
        other.head()
        one.send(stream[0])
        assert early.read_head().read_event() == stream[0]
        assert [early.read_event() for _ in range(5)] == [b": ping\n\n"] * 5
        for turn, wire, rest in ((one, early, stream[1:]), (other, late, stream)):
            turn.send(*rest)
            turn.end()
            found = (wire if wire is early else wire.read_head()).read_events()
            assert [each for each in found if each != b": ping\n\n"] == rest
            assert (found[0] == stream[0]) == (wire is late)  # no ping before it
    assert b": ping\n\n" not in events(proxy.url, ask(prompt, **USAGE))


# U4: a reset after any byte.


def test_a_reset_after_any_byte_of_a_stream_shows_the_whole_events_before_it_and_one_error(
    proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = ask(prompt, model="sim-instant;chunks=1", **USAGE)
    ends = list(accumulate(len(one) for one in events(simulator.url, body)))
    lengths = sorted({*range(0, ends[2] + 1, 7), *(end + near for end in ends for near in (-1, 0, 1))})[:-1]
    simulator.forget()
    for length in lengths:
        body["model"] = f"sim-instant;chunks=1;reset-at={length}"
        whole = sum(end <= length for end in ends[:-1])  # `[DONE]` is not told before a clean end
        if whole == 0:
            assert told(proxy.url, body) == (502, "upstream_reset"), length
            continue
        with post(proxy.url, body) as wire:
            assert_framed(wire.read_events(), "upstream_reset", whole)
            assert not wire.clean, length
    assert simulator.asked() == len(lengths)
    assert_nothing_was_stored(proxy, body)


@pytest.mark.parametrize(("option", "code"), [("reset-at", "upstream_reset"), ("cut-at", "upstream_truncated")])
def test_a_json_answer_that_is_lost_after_any_byte_is_a_502(
    option: str, code: str, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    size = len(json.dumps(simulator.direct(ask(prompt, model="sim-instant;chunks=1")), separators=(",", ":")))
    lengths = [*range(1, size - 1, 29), size - 1]
    simulator.forget()
    for length in lengths:
        body = ask(prompt, model=f"sim-instant;chunks=1;{option}={length}")
        assert told(proxy.url, body) == (502, code), length
        assert_nothing_was_stored(proxy, body)
    assert simulator.asked() == len(lengths)


# U6: bytes pass on as they came, however they are split.

WORDS = ("é水", " 🐎\u2028", " plain")
LF = whole_stream(*WORDS)


def multi_line(one: bytes) -> bytes:
    """The event with its data on two lines."""
    return one.replace(b", ", b",\ndata: ", 1)


SPELLINGS: dict[str, bytes] = {
    "LF": b"".join(LF),
    "CR": b"".join(LF).replace(b"\n", b"\r"),
    "CRLF": b"".join(LF).replace(b"\n", b"\r\n"),
    "mixed": b"".join(one.replace(b"\n", end) for one, end in zip(LF, (b"\r\n", b"\n", b"\r") * 2, strict=True)),
    "a BOM": b"\xef\xbb\xbf" + b"".join(LF),
    "data on two lines": b"".join(map(multi_line, LF)),
    "data on two lines that end in CRLF": b"".join(map(multi_line, LF)).replace(b"\n", b"\r\n"),
    "other fields and comments": b"".join(b": hello\nid: 7\nretry: 5\nevent: message\n" + one for one in LF),
    "fields that nobody knows": b"nonsense\n\n" + b"".join(b"x-odd: 1\n" + one for one in LF),
    "no space behind the colon": b"".join(one.replace(b"data: ", b"data:") for one in LF),
}
MALFORMED: dict[str, bytes] = {
    "no JSON": b"data: {no JSON\n\n",
    "no UTF-8": b'data: {"choices": [], "x": "\xff\xc3"}\n\n',
    "no JSON on two lines": b"data: [\r\ndata: }\r\n\r\n",
    "a lone surrogate": b'data: {"choices": [], "x": "\\ud83d"}\n\n',
}


def splits(whole: bytes, dice: random.Random) -> Iterator[list[bytes]]:
    """The bytes at once, and in pieces of random lengths, among them very small ones."""
    yield [whole]
    for pieces in (2, 5, 30, 90):
        at = sorted(dice.sample(range(1, len(whole)), pieces))
        yield [whole[start:end] for start, end in zip([0, *at], [*at, len(whole)], strict=True)]


def passed(proxy: Proxy, scripted: Scripted, body: Json, pieces: list[bytes]) -> bytes:
    """What the client gets of a stream that the provider sends in these pieces."""
    with Wire(proxy.url, body) as wire:
        turn = scripted.turn()
        turn.head()
        turn.send(*pieces)
        turn.end()
        said = wire.read_head().read_body()
        assert wire.clean
        return said


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_stream_passes_as_it_was_spelt_and_is_kept_however_it_is_split(
    spelling: str, make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url)
    whole = SPELLINGS[spelling]
    for number, pieces in enumerate(splits(whole, random.Random(7))):
        body = ask(f"{prompt} {number}", **USAGE)
        assert passed(proxy, scripted, body, pieces) == whole.removeprefix(b"\xef\xbb\xbf"), pieces
        kept = answer(proxy.url, ask(f"{prompt} {number}"))
        assert kept["choices"][0]["message"]["content"] == "".join(WORDS)
        assert kept["usage"]["total_tokens"] == 3


@pytest.mark.parametrize("kind", MALFORMED)
def test_a_malformed_event_passes_and_nothing_is_kept_however_it_is_split(
    kind: str, make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url)
    dice = random.Random(7)
    whole = b"".join([*LF[:2], MALFORMED[kind], *LF[2:]])
    for number, pieces in enumerate(splits(whole, dice)):
        body = ask(f"{prompt} {number}", **USAGE)
        assert passed(proxy, scripted, body, pieces) == whole, pieces
        assert_nothing_was_stored(proxy, body)


@pytest.mark.parametrize("after", [0, 2, 4])
def test_the_stream_goes_on_behind_an_event_that_is_no_json(
    after: int, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = ask(prompt, model=f"sim-instant;chunks=4;malformed={after}", **USAGE)
    for _ in range(2):
        found = events(proxy.url, body)
        assert len(found) == len(events(simulator.url, body)) == 9
        assert found[-1] == DONE
    assert simulator.asked() == 4  # half of them ours: nothing was kept


# U7: what is no answer.


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(
    status: int, form: str, make_proxy: MakeProxy, scripted: Scripted, silent: Silent, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url, key="sk-operator")
    with Wire(proxy.url, ask(prompt, **FORMS[form])) as wire:
        scripted.turn().answer(b"", status=status, content_type="text/html", location=f"{silent.url}/v1")
        assert wire.read_head().status == 502
        assert json.loads(wire.read_body())["error"]["code"] == "upstream_bad_content_type"
        assert "location" not in wire.headers
    assert_nothing_was_stored(proxy, ask(prompt))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("media", ["text/plain", "text/html; charset=utf-8", "application/octet-stream", "json", ""])
def test_an_answer_of_another_type_is_a_502(
    media: str, form: str, make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url)
    with Wire(proxy.url, ask(prompt, **FORMS[form])) as wire:
        scripted.turn().answer(*whole_stream("a"), content_type=media)
        assert wire.read_head().status == 502
        assert json.loads(wire.read_body())["error"]["code"] == "upstream_bad_content_type"
        assert wire.headers["x-should-retry"] == "false"
    assert_nothing_was_stored(proxy, ask(prompt))


def test_an_error_of_a_provider_is_no_page_of_ours_to_a_browser(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url, provider={"max_retries": 0})
    with Wire(proxy.url, ask(prompt)) as wire:
        scripted.turn().answer(b"<script>", status=404, content_type="text/html")
        assert (wire.read_head().status, wire.read_body()) == (404, b"<script>")
        assert wire.headers["content-security-policy"] == "sandbox"
        assert wire.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("half", ["", r"\ud800"])
@pytest.mark.parametrize("path", [CHAT, "/chat/stream"])
def test_an_error_that_calls_itself_an_answer_shows_no_key_and_is_no_fault_of_ours(
    path: str, half: str, make_proxy: MakeProxy, scripted: Scripted
) -> None:
    proxy = make_proxy(scripted.base_url, key="sk-operator", provider={"max_retries": 0})
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    said = f'{{"error": {{"message": "{half} bad key sk-operator", "code": "{half}"}}}}'.encode()
    with Wire(proxy.url, body, path=path) as wire:
        scripted.turn().answer(said, content_type="application/json")
        wire.read_head()
        found = wire.read_body()
    assert wire.status == (200 if path == CHAT else 502)
    assert "bad key" in json.loads(found)["error"]["message"]
    assert b"sk-operator" not in found


def test_json_in_answer_to_a_stream_request_is_a_502_where_it_is_not_whole(
    proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = ask(prompt, model="sim-instant;json;cut=1", stream=True)
    assert told(proxy.url, body) == (502, "upstream_truncated")
    assert simulator.asked() == 1
    assert_nothing_was_stored(proxy, body)


# U8: when to come again.


@pytest.mark.parametrize("when", ["17", "Wed, 21 Oct 2065 07:28:00 GMT", "0", "-5", "1000000000", "soon", "1.5"])
def test_retry_after_and_the_limits_pass_as_the_provider_said_them(
    when: str, make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url)
    limits = {"x-ratelimit-remaining-requests": "7", "x-ratelimit-reset-requests": "8.64s", "retry-after": when}
    for form in FORMS.values():
        with Wire(proxy.url, ask(prompt, **form), {"x-stainless-retry-count": "0"}) as wire:
            scripted.turn().answer(event({"error": {}})[6:], status=429, content_type="application/json", **limits)
            assert wire.read_head().status == 429
            assert {name: wire.headers[name] for name in limits} == limits
            wire.read_body()
    with Wire(proxy.url, ask(prompt, stream=True)) as wire:
        scripted.turn().answer(*whole_stream("a"))
        assert wire.read_head().status == 200
        wire.read_body()


# U10: too much.


@pytest.mark.parametrize("form", FORMS)
def test_an_answer_that_was_compressed_unasked_is_a_502(
    form: str, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = ask(prompt, model="sim-instant;gzip", **FORMS[form])
    assert told(proxy.url, body) == (502, "upstream_bad_content_type")
    assert simulator.last()["headers"]["accept-encoding"] == "identity"
    assert_nothing_was_stored(proxy, body)


CAP = 1 << 20


def held(proxy: Proxy) -> int:
    """Bytes of recordings that the proxy has in its hands."""
    return proxy.loop.call(
        lambda: sum(len(event.raw) for flight in proxy.app.flights._all for event in flight.recording.events)
    )


@pytest.mark.parametrize("form", FORMS)
def test_an_answer_without_end_passes_in_bounded_memory_until_its_reader_leaves(
    form: str, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(cache={"max_entry": CAP})
    body = ask(prompt, model="sim-instant;endless", **FORMS[form])
    with post(proxy.url, body) as wire:
        read = most = 0
        while read < 4 * CAP:
            read += len(piece := wire._read_piece())
            assert piece
            most = max(most, held(proxy))
        wire.reset()
    assert 0 < most < 2 * CAP
    eventually(lambda: simulator.calls()["hung_up"] == 1)
    assert simulator.asked() == 1
    proxy.becomes_quiet()
    assert_nothing_was_stored(proxy, body)


@pytest.mark.parametrize(
    ("size", "bound", "passes"),
    [(900_000, None, True), (1_100_000, None, False), (1_100_000, "2MiB", True), (5_000, "4KiB", False)],
)
def test_an_event_has_a_bound(
    size: int, bound: str | None, passes: bool, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(provider={} if bound is None else {"max_event": bound})
    body = ask(prompt, model=f"sim-instant;chunks=2;big={size}", **USAGE)
    with post(proxy.url, body) as wire:
        *whole, last = found = wire.read_events()
        assert wire.clean == passes
    if passes:
        assert last == DONE
        assert max(map(len, found)) > size
        assert_equal_but_for_id(events(proxy.url, body), found)
    else:
        assert_framed(found, "upstream_event_too_large", len(whole))
        assert_nothing_was_stored(proxy, body)
    assert simulator.asked() == 1


def assert_equal_but_for_id(one: list[bytes], other: list[bytes]) -> None:
    def plain(stream: list[bytes]) -> list[Json]:
        return [{**json.loads(each[6:]), "id": ""} for each in stream if each != DONE]

    assert plain(one) == plain(other)
