"""What a client may do wrong, through the whole proxy: nobody else notices, and nothing of it reaches a provider.

Clients that leave are in test_departures.py, bounds of headers in test_server.py.
"""

import asyncio
import json
from contextlib import ExitStack
from typing import Any

import pytest

from bench.soak.answers import error_of
from bench.soak.hostile import AMBIGUOUS, JSON, LISTED, UNLISTED, request
from bench.soak.mutated import is_strict, mutant
from bench.soak.wire import Call, connected, exchanged, parsed
from tests.asking import USAGE
from tests.conftest import MakeProxy
from tests.scripted import Scripted, Wire, answer, chunk, events, post, whole_stream
from tests.support import CHAT, Json, Proxy, Simulator, ask, eventually, eventually_async
from tests.test_collapse import joined, led, same_but_for_id

HOST = "Host: localhost"
WITHIN = 10.0  # seconds for a connection to be closed that must be


def port(proxy: Proxy) -> int:
    return int(proxy.url.rpartition(":")[2])


async def refused(proxy: Proxy, *pieces: bytes) -> Call:
    """The one answer to these bytes: in OpenAI's shape, and then the connection was closed."""
    heard = await exchanged(port(proxy), *pieces, within=WITHIN)
    assert heard.count(b"HTTP/1.1 ") == 1
    call = parsed(heard)
    error = error_of(call)
    assert error is not None
    assert error["type"] == "invalid_request_error"
    assert call.headers["connection"] == "close"
    return call


# C3: slow readers.

BIG = whole_stream(*["x" * 50_000] * 24)


def test_some_slow_readers_slow_nobody_and_lose_nothing(make_proxy: MakeProxy, scripted: Scripted, prompt: str) -> None:
    proxy = make_proxy(scripted.base_url)
    body = ask(prompt, **USAGE)
    with ExitStack() as stack:
        leader, turn = stack.enter_context(led(proxy, scripted, body))
        slow = [stack.enter_context(joined(proxy, body, 2 + number)) for number in range(5)]
        fast = stack.enter_context(joined(proxy, body, 7))
        turn.head()
        turn.send(*BIG[:12])
        assert same_but_for_id([fast.read_head().read_event(), *(fast.read_event() for _ in range(11))]) == BIG[:12]
        slow.pop().reset()
        turn.send(*BIG[12:])
        turn.end()
        assert same_but_for_id(fast.read_events()) == BIG[12:]
        assert fast.clean
        eventually(lambda: proxy.flights() == 0)
        for wire in slow:
            assert same_but_for_id(wire.read_head().read_events()) == BIG
            assert wire.clean
        assert leader.read_head().read_events() == BIG
    assert same_but_for_id(events(proxy.url, body)) == BIG


@pytest.mark.parametrize("form", [{}, {"stream": True}], ids=["JSON", "a stream"])
def test_a_client_that_takes_nothing_is_cut_and_its_call_ended(
    form: Json, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(server={"send_timeout": 0.2}, cache={"max_entry": "64KiB"})
    with post(proxy.url, ask(prompt, model="sim-instant;endless", **form)) as wire:
        assert wire.status == 200
        eventually(lambda: simulator.calls()["hung_up"] == 1)
        proxy.becomes_quiet()
        wire.read_body()
        assert not wire.clean


# C4: half-open.

BODY = json.dumps(ask("half of it")).encode()
HALVES: dict[str, list[bytes]] = {
    "a method": [b"POST"],
    "a line": [f"POST {CHAT} HTTP/1.1\r\n".encode()],
    "headers without an end": [f"POST {CHAT} HTTP/1.1\r\n{HOST}\r\n{JSON}\r\nX-More: ".encode()],
    "a body that was promised": [request(HOST, JSON, "Content-Length: 99", body=b'{"model":')],
    "a body of which nothing comes": [request(HOST, JSON, "Content-Length: 99")],
    "chunks without an end": [request(HOST, JSON, "Transfer-Encoding: chunked", body=b"5\r\n{    \r\n")],
    "a chunk without an end": [request(HOST, JSON, "Transfer-Encoding: chunked", body=b"500\r\n{")],
}


@pytest.fixture
def hasty(make_proxy: MakeProxy) -> Proxy:
    """A proxy that waits for no client."""
    return make_proxy(server={"head_timeout": 0.1, "body_timeout": 0.1})


@pytest.mark.parametrize("half", HALVES)
async def test_what_is_left_half_open_is_told_so_and_closed(half: str, hasty: Proxy, simulator: Simulator) -> None:
    call = await refused(hasty, *HALVES[half])
    assert call.status == 408
    assert simulator.asked() == 0


async def test_who_says_nothing_is_told_nothing_and_closed(hasty: Proxy) -> None:
    assert await exchanged(port(hasty), within=WITHIN) == b""


@pytest.mark.parametrize("dripped", ["a head", "a body"])
async def test_a_deadline_is_not_put_off_by_single_bytes(dripped: str, hasty: Proxy, simulator: Simulator) -> None:
    length = f"Content-Length: {len(BODY)}"
    whole = request(HOST, JSON, length, body=BODY)
    start = whole.index(BODY) if dripped == "a body" else 0
    reader, writer = await asyncio.open_connection("127.0.0.1", port(hasty))
    writer.write(whole[:start])
    answered = asyncio.ensure_future(reader.read())
    for byte in whole[start:]:
        if answered.done():
            break
        writer.write(bytes([byte]))
        await asyncio.sleep(0.02)
    assert (await answered).startswith(b"HTTP/1.1 408 ")
    writer.transport.abort()
    assert simulator.asked() == 0


async def test_the_half_of_a_second_request_ends_a_connection_whose_first_was_answered(
    hasty: Proxy, simulator: Simulator, prompt: str
) -> None:
    whole = json.dumps(ask(prompt)).encode()
    first = request(HOST, JSON, f"Content-Length: {len(whole)}", body=whole)
    heard = await exchanged(port(hasty), first, b"POST / HTTP/1.1\r\nX: ", within=WITHIN)
    assert heard.startswith(b"HTTP/1.1 200 ")
    assert heard.count(b"HTTP/1.1 ") in {1, 2}
    assert simulator.asked() == 1


async def test_those_who_are_half_open_hold_up_nobody(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    halves = [await connected(port(proxy)) for _ in range(100)]
    for number, half in enumerate(halves):
        half.send(b"".join([*HALVES.values()][number % len(HALVES)]))
    answers = await asyncio.gather(
        *(asyncio.to_thread(answer, proxy.url, ask(f"{prompt} {number}")) for number in range(8))
    )
    assert all(one["choices"] for one in answers)
    assert simulator.asked() == 8
    for half in halves:
        half.leave()


# C5: too large.

MAX_BODY = 64 * 1024
TOO_LARGE: dict[str, list[bytes]] = {
    "announced, and never sent": [request(HOST, JSON, f"Content-Length: {MAX_BODY + 1}")],
    "announced, and sent": [request(HOST, JSON, f"Content-Length: {MAX_BODY + 1}", body=b" " * (MAX_BODY + 1))],
    "asked for first": [request(HOST, JSON, f"Content-Length: {MAX_BODY + 1}", "Expect: 100-continue")],
    "in chunks": [request(HOST, JSON, "Transfer-Encoding: chunked"), *[b"4000\r\n" + b" " * 0x4000 + b"\r\n"] * 6],
}


@pytest.mark.parametrize("how", TOO_LARGE)
async def test_a_body_that_is_too_large_is_not_waited_for(
    how: str, make_proxy: MakeProxy, simulator: Simulator
) -> None:
    proxy = make_proxy(server={"max_body": MAX_BODY})
    call = await refused(proxy, *TOO_LARGE[how])
    assert call.status == 413
    assert simulator.asked() == 0


@pytest.mark.parametrize("framing", [[f"Content-Length: {MAX_BODY}"], ["Transfer-Encoding: chunked"]])
async def test_a_body_of_just_the_size_is_answered(
    framing: list[str], make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(server={"max_body": MAX_BODY})
    body = json.dumps(ask(prompt)).encode().ljust(MAX_BODY)
    framed = body if "Length" in framing[0] else b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    heard = await exchanged(port(proxy), request(HOST, JSON, "Connection: close", *framing, body=framed))
    assert parsed(heard).status == 200
    assert simulator.asked() == 1


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "deflate", "identity, gzip"])
async def test_an_encoded_body_is_not_waited_for(encoding: str, proxy: Proxy, simulator: Simulator) -> None:
    call = await refused(proxy, request(HOST, JSON, f"Content-Encoding: {encoding}", "Content-Length: 999"))
    assert call.status == 415
    assert simulator.asked() == 0


# C6: bodies that are almost good.

MUTANTS = 5_000
SENT = 10  # of so many that are let in, one goes on to the provider


class Visit:
    """One request handed to the application itself, without a socket."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""

    async def ask(self, proxy: Proxy, body: bytes, cache_control: bytes) -> "Visit":
        headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"cache-control", cache_control)]
        scope = {"type": "http", "path": CHAT, "raw_path": CHAT.encode(), "method": "POST", "query_string": b""}
        received = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Any:
            for message in received:
                return message
            return await asyncio.Event().wait()  # it stays

        await proxy.app.asgi({**scope, "headers": headers}, receive, self._take)
        return self

    async def _take(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        self.body += message.get("body", b"")

    @property
    def refused(self) -> bool:
        """Was it the proxy that refused, before it looked anywhere?"""
        return b"cache-status" not in self.headers


async def judged(proxy: Proxy, numbers: range) -> tuple[int, int]:
    """How many of these bodies were let in, and how many of those were sent on."""
    let_in = sent = 0
    for number in numbers:
        body = mutant(number)
        visit = await Visit().ask(proxy, body, b"only-if-cached")
        if visit.refused:
            assert visit.status == 400, (number, visit.body)
            assert json.loads(visit.body)["error"]["type"] == "invalid_request_error"
            continue
        assert visit.status == 504
        assert is_strict(body), number
        let_in += 1
        if let_in % SENT == 0:
            visit = await Visit().ask(proxy, body, b"no-store")
            assert not visit.refused
            assert visit.status < 500, (number, visit.body)
            sent += 1
    return let_in, sent


@pytest.mark.parametrize("part", range(4))
def test_a_body_that_is_almost_good_is_a_400_or_let_in_and_never_a_500(
    part: int, make_proxy: MakeProxy, simulator: Simulator
) -> None:
    proxy = make_proxy(provider={"usage": "never"})
    count = MUTANTS // 4
    let_in, sent = proxy.loop.run(judged(proxy, range(part * count, (part + 1) * count)))
    assert count // 10 < let_in < count * 9 // 10
    assert simulator.asked() == sent > 0


# C7: what can be read in two ways, and what stays on its own side.


@pytest.mark.parametrize("what", AMBIGUOUS)
async def test_a_request_that_can_be_read_in_two_ways_is_refused(what: str, proxy: Proxy, simulator: Simulator) -> None:
    assert (await refused(proxy, AMBIGUOUS[what])).status == 400
    assert simulator.asked() == 0


@pytest.mark.parametrize(
    ("lines", "status"),
    [(["X: 1"] * 8, 200), (["X: 1"] * 9, 431), ([f"X: {'1' * 1500}"], 200), ([f"X: {'1' * 2048}"], 431)],
)
async def test_headers_have_the_bounds_of_the_settings(
    lines: list[str], status: int, make_proxy: MakeProxy, prompt: str
) -> None:
    proxy = make_proxy(server={"max_headers": 12, "max_header_size": "2KiB"})
    body = json.dumps(ask(prompt)).encode()
    raw = request(HOST, JSON, "Connection: close", f"Content-Length: {len(body)}", *lines, body=body)
    assert parsed(await exchanged(port(proxy), raw, within=WITHIN)).status == status


@pytest.mark.parametrize("key", [None, "sk-operator"])
async def test_only_what_is_listed_passes_in_either_direction(
    key: str | None, make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url, key=key)
    body = json.dumps(ask(prompt)).encode()
    told = [HOST, JSON, "Authorization: Bearer sk-mine", "OpenAI-Beta: x", f"Content-Length: {len(body)}", *UNLISTED]
    asking = asyncio.ensure_future(exchanged(port(proxy), request(*told, body=body), within=WITHIN))
    turn = await asyncio.to_thread(scripted.turn)
    assert set(turn.headers) <= LISTED
    assert "secret-of-the-client" not in json.dumps(turn.headers)
    assert turn.headers["authorization"] == f"Bearer {key or 'sk-mine'}"
    said: Any = {"set_cookie": "a=1", "keep_alive": "timeout=5", "x_hop": "1", "server": "secret", "via": "1.1 secret"}
    turn.answer(b'{"choices": []}', content_type="application/json", connection="x-hop", openai_version="7", **said)
    call = parsed(await asking)
    assert call.status == 200
    assert call.headers["openai-version"] == "7"
    assert not call.headers.keys() & {name.replace("_", "-") for name in said}
    assert "x-hop" not in call.headers.get("connection", "")


# K7: departures in every phase are in test_departures.py; here those who leave with bytes still in flight.


async def test_those_who_leave_while_they_are_sent_to_leave_nothing(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url)
    wire = Wire(proxy.url, ask(prompt, stream=True))
    turn = await asyncio.to_thread(scripted.turn)
    turn.head()
    turn.send(*[chunk("x" * 50_000)] * 100)
    await eventually_async(lambda: proxy.readers() == 1)
    wire.reset()
    assert await asyncio.to_thread(turn.gone.wait, 20)
    await asyncio.to_thread(proxy.becomes_quiet)
