"""Requests that are too large or say two things at once: refused before anybody is asked."""

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import msgspec

from bench.soak.answers import error_code, error_of, is_good
from bench.soak.lab import PATH, Lab, Proxy, chat, in_groups
from bench.soak.provider import DONE, Provider, Step, event, whole
from bench.soak.wire import answered, exchanged, fetched, parsed

MAX_BODY = 1 << 20
TIMES = 100
AT_A_TIME = 20
TIMEOUT = 5.0  # seconds for a refusal and the end of its connection
HOST = "Host: localhost"
JSON = "Content-Type: application/json"
KEY = "Authorization: Bearer bench"


def request(*lines: str, body: bytes = b"", path: str = PATH) -> bytes:
    """A POST of these header lines."""
    head = "\r\n".join((f"POST {path} HTTP/1.1", *lines))
    return head.encode("latin-1") + b"\r\n\r\n" + body


class Prober:
    """Sends what must be refused, again and again, and sees that each refusal is right and ends its connection."""

    def __init__(self, lab: Lab, proxy: Proxy) -> None:
        self._lab = lab
        self._proxy = proxy
        self.tried = 0

    async def refused(self, what: str, status: int, *pieces: bytes) -> None:
        await in_groups([self._refused(what, status, *pieces) for _ in range(TIMES)], AT_A_TIME)
        self._lab.step()

    async def _refused(self, what: str, status: int, *pieces: bytes) -> None:
        self.tried += 1
        try:
            heard = await exchanged(self._proxy.port, *pieces, within=TIMEOUT)
        except TimeoutError:
            self._lab.expect(held=False, otherwise=f"{what}: the connection stays open")
            return
        call = parsed(heard)
        answers = heard.count(b"HTTP/1.1 ")
        self._lab.expect(answers == 1, f"{what}: {answers} answers")
        self._lab.expect(call.status == status, f"{what}: status {call.status}, not {status}")
        error = error_of(call)
        shaped = error is not None and error["type"] == "invalid_request_error"
        self._lab.expect(shaped, f"{what}: {bytes(call.body)[:80]!r} is not in OpenAI's shape")


async def too_large(lab: Lab) -> str:
    """C5."""
    lab.steps(5 + len(ENCODINGS))
    with lab.proxy(settings=f"[server]\nmax_body = {MAX_BODY}") as proxy:
        before = await lab.asked()
        prober = Prober(lab, proxy)
        named = request(HOST, JSON, f"Content-Length: {MAX_BODY + 1}")
        expecting = request(HOST, JSON, f"Content-Length: {MAX_BODY + 1}", "Expect: 100-continue")
        await prober.refused("a length over the limit, no body sent", 413, named)
        await prober.refused("a length over the limit, and all of it", 413, named, b" " * (MAX_BODY + 1))
        await prober.refused("Expect: 100-continue over the limit", 413, expecting)
        await prober.refused("10^18 bytes announced", 413, request(HOST, JSON, f"Content-Length: {10**18}"))
        pieces = [b"%x\r\n%s\r\n" % (1 << 16, b" " * (1 << 16))] * (MAX_BODY // (1 << 16) + 4)
        await prober.refused("chunked past the limit", 413, request(HOST, JSON, "Transfer-Encoding: chunked"), *pieces)
        for encoding in ENCODINGS:
            await prober.refused(f"Content-Encoding: {encoding}", 415, *_encoded(encoding))
        made = await lab.asked() - before
        lab.expect(made == 0, f"{made} calls upstream for what was refused")
        await _just_small_enough(lab, proxy)
        await lab.all_quiet(proxy)
    return f"{prober.tried:,} tried; {made} calls upstream for them"


ENCODINGS = ("gzip", "deflate", "br", "zstd", "GZIP", "identity, gzip", "x-unknown")


def _encoded(encoding: str) -> tuple[bytes, ...]:
    body = b"\x1f\x8b\x08\x00" + b"\x00" * 1000
    return (request(HOST, JSON, f"Content-Encoding: {encoding}", f"Content-Length: {len(body)}", body=body),)


async def _just_small_enough(lab: Lab, proxy: Proxy) -> None:
    """A body of exactly the limit is answered; and one that waits for 100-continue gets it."""
    body = b'{"model": "sim-instant", "messages": [{"role": "user", "content": "small"}]}'
    body += b" " * (MAX_BODY - len(body))
    call = await answered(proxy.port, request(HOST, JSON, KEY, f"Content-Length: {len(body)}", body=body))
    lab.expect(is_good(call), f"a body of exactly the limit: status {call.status}")
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(request(HOST, JSON, KEY, f"Content-Length: {len(body)}", "Expect: 100-continue"))
    async with asyncio.timeout(TIMEOUT):
        told = await reader.readline()
        lab.expect(b" 100 " in told, f"Expect: 100-continue within the limit: {told!r}")
        writer.write(body)
        await reader.readline()
        status = await reader.readline()
    lab.expect(b" 200 " in status, f"after 100-continue: {status!r}")
    writer.transport.abort()


GOOD = b'{"model": "sim-instant", "messages": [{"role": "user", "content": "two things"}]}'
LENGTH = f"Content-Length: {len(GOOD)}"
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)
SECOND = request(HOST, JSON, KEY, LENGTH, body=GOOD)  # behind a body that two parsers end at two places


# What two parsers may read in two ways.
AMBIGUOUS: Mapping[str, bytes] = {
    "Content-Length and Transfer-Encoding": request(
        HOST, JSON, KEY, LENGTH, "Transfer-Encoding: chunked", body=CHUNKED
    ),
    "Transfer-Encoding and Content-Length": request(
        HOST, JSON, KEY, "Transfer-Encoding: chunked", LENGTH, body=CHUNKED
    ),
    "both, a second request behind": request(
        HOST, JSON, KEY, "Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SECOND
    ),
    "two lengths that differ": request(HOST, JSON, KEY, LENGTH, "Content-Length: 5", body=GOOD),
    "two lengths that agree": request(HOST, JSON, KEY, LENGTH, LENGTH, body=GOOD),
    "a length list": request(HOST, JSON, KEY, f"{LENGTH}, {len(GOOD)}", body=GOOD),
    "a signed length": request(HOST, JSON, KEY, f"Content-Length: +{len(GOOD)}", body=GOOD),
    "a negative length": request(HOST, JSON, KEY, "Content-Length: -1", body=GOOD),
    "a length in hex": request(HOST, JSON, KEY, "Content-Length: 0x10", body=GOOD),
    "chunked, then identity": request(HOST, JSON, KEY, "Transfer-Encoding: chunked, identity", body=CHUNKED),
    "a space before the colon": request(HOST, JSON, KEY, f"Content-Length : {len(GOOD)}", body=GOOD),
    "a folded line": request(HOST, JSON, KEY, "X-Folded: one\r\n two", LENGTH, body=GOOD),
    "a NUL in a header": request(HOST, JSON, KEY, "X-Nul: a\0b", LENGTH, body=GOOD),
    "a bare CR in a header": request(HOST, JSON, KEY, "X-Cr: a\rContent-Length: 5", LENGTH, body=GOOD),
    "two Hosts": request(HOST, HOST, JSON, KEY, LENGTH, body=GOOD),
    "two Hosts that differ": request(HOST, "Host: elsewhere.example", JSON, KEY, LENGTH, body=GOOD),
    "two Authorizations": request(HOST, KEY, KEY, JSON, LENGTH, body=GOOD),
    "two Authorizations that differ": request(HOST, KEY, "authorization: Bearer other", JSON, LENGTH, body=GOOD),
    "a chunk size of nonsense": request(HOST, JSON, KEY, "Transfer-Encoding: chunked", body=b"zz\r\n" + GOOD),
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100,
}
LARGE: Mapping[str, bytes] = {
    "101 headers": request(HOST, JSON, KEY, *(f"X-{number}: 1" for number in range(101)), LENGTH, body=GOOD),
    "1,000 headers": request(HOST, JSON, KEY, *(f"X-{number}: 1" for number in range(1000)), LENGTH, body=GOOD),
    "a header of 33 KiB": request(HOST, JSON, KEY, "X-Large: " + "x" * (33 << 10), LENGTH, body=GOOD),
    "a header name of 33 KiB": request(HOST, JSON, KEY, "x" * (33 << 10) + ": 1", LENGTH, body=GOOD),
    "33 KiB in 90 headers": request(
        HOST, JSON, KEY, *(f"X-{number}: {'x' * 400}" for number in range(90)), LENGTH, body=GOOD
    ),
    "a path of 33 KiB": request(HOST, JSON, KEY, LENGTH, body=GOOD, path="/" + "x" * (33 << 10)),
    "1 MiB without an end": b"GET / HTTP/1.1\r\nX: " + b"x" * (1 << 20),
}


async def two_things(lab: Lab) -> str:
    """C7."""
    lab.steps(len(AMBIGUOUS) + len(LARGE) + 4)
    with lab.proxy(warns=True) as proxy:
        before = await lab.asked()
        prober = Prober(lab, proxy)
        for what, bad in AMBIGUOUS.items():
            await prober.refused(what, 400, bad)
        for what, bad in LARGE.items():
            await prober.refused(what, 431, bad)
        made = await lab.asked() - before
        lab.expect(made == 0, f"{made} calls upstream for what was refused")
        await _just_few_enough(lab, proxy)
        passed = await _only_listed(lab, proxy)
        lab.step()
        through = await _only_listed_through(lab, proxy)
        lab.step()
        await lab.all_quiet(proxy)
    await _own_key(lab)
    lab.step()
    back = await _only_listed_back(lab)
    lab.step()
    return (
        f"{prober.tried:,} tried; to the provider went only {passed}, with what passes through only {through}; "
        f"of its headers only {back} came back"
    )


async def _just_few_enough(lab: Lab, proxy: Proxy) -> None:
    """100 headers, and almost 32 KiB, are fine."""
    fillers = [f"X-{number}: 1" for number in range(100 - 5)]
    for what, lines in (("100 headers", fillers), ("31 KiB", ["X-Large: " + "x" * (31 << 10)])):
        call = await answered(proxy.port, request(HOST, JSON, KEY, *lines, LENGTH, "Connection: close", body=GOOD))
        lab.expect(is_good(call), f"{what}: status {call.status}")


# What belongs to one connection or to the client alone, and what might steer a provider.
UNLISTED = (
    "Connection: close, X-Hop",
    "X-Hop: secret-of-the-client",
    "Keep-Alive: timeout=5",
    "Proxy-Authorization: Basic secret-of-the-client",
    "Proxy-Authenticate: secret-of-the-client",
    "Proxy-Connection: keep-alive",
    "TE: trailers",
    "Trailer: X-Trailer",
    "Cookie: session=secret-of-the-client",
    "X-Forwarded-For: 10.0.0.1",
    "X-Forwarded-Host: elsewhere.example",
    "X-Real-IP: 10.0.0.1",
    "Forwarded: for=10.0.0.1",
    "Via: 1.1 elsewhere",
    "Referer: http://localhost/secret-of-the-client",
    "User-Agent: secret-of-the-client",
    "X-Api-Key: secret-of-the-client",
    "X-Simulator: status=500",
    "X-Stainless-Lang: python",
    "Accept-Encoding: gzip, br",
    "Range: bytes=0-1",
    "If-None-Match: secret-of-the-client",
    "X-Penstock-Sample: 3",
    "X-Anything: secret-of-the-client",
)
LISTED = frozenset(
    "host content-type content-length accept accept-encoding user-agent authorization openai-beta".split()
)


async def _only_listed(lab: Lab, proxy: Proxy) -> str:
    names: set[str] = set()
    dice = random.Random(7)
    for _ in range(TIMES):
        lines = dice.sample(UNLISTED, len(UNLISTED))
        body = GOOD.replace(b"two things", lab.question().encode())
        length = f"Content-Length: {len(body)}"
        call = await answered(proxy.port, request(HOST, JSON, KEY, *lines, "OpenAI-Beta: x", length, body=body))
        lab.expect(is_good(call), f"unlisted headers: status {call.status}")
        sent = await _sent(lab)
        names |= {name.lower() for name, _ in sent}
        values = [f"{name}: {value}" for name, value in sent if "secret-of-the-client" in value]
        lab.expect(not values, f"reached the provider: {values}")
        lab.expect(("accept-encoding", "identity") in sent, "the provider was asked for an encoding")
        lab.expect(("user-agent", "penstock") in sent, "the client's User-Agent went on")
    lab.expect(names <= LISTED, f"reached the provider: {', '.join(sorted(names - LISTED))}")
    return ", ".join(sorted(names))


# What goes through besides: a part of a file is asked for by these.
CONDITIONS = frozenset(("range", "if-none-match"))


async def _only_listed_through(lab: Lab, proxy: Proxy) -> str:
    """The same with what passes through: the simulator's mirror says what came."""
    names: set[str] = set()
    lines = [line for line in UNLISTED if line.partition(":")[0].lower() not in CONDITIONS]
    for number in range(TIMES):
        length = f"Content-Length: {len(GOOD)}"
        call = await answered(
            proxy.port, request(HOST, JSON, KEY, *lines, length, body=GOOD, path=f"/v1/mirror/{number}")
        )
        lab.expect(call.status == 200 and call.whole, f"passed through: status {call.status}")
        sent = msgspec.json.decode(bytes(call.body))["headers"] if call.status == 200 else []
        names |= {name.lower() for name, _ in sent}
        values = [name for name, value in sent if "secret-of-the-client" in value]
        lab.expect(not values, f"passed through to the provider: {values}")
    lab.expect(names <= LISTED, f"passed through to the provider: {', '.join(sorted(names - LISTED))}")
    return ", ".join(sorted(names))


async def _sent(lab: Lab) -> list[tuple[str, str]]:
    """The headers of the last call, as the simulator had them."""
    last: dict[str, Any] = msgspec.json.decode(await fetched(lab.simulator.port, "/simulator/last"))
    return [(name, value) for name, value in last["pairs"]]


async def _own_key(lab: Lab) -> None:
    """Where the provider has a key of its own, the client's goes nowhere, however it is said."""
    ways = (
        "Authorization: Bearer secret-of-the-client",
        "authorization: Basic secret-of-the-client",
        "api-key: secret-of-the-client",
        "x-api-key: secret-of-the-client",
        "OpenAI-Organization: secret-of-the-client",
        "OpenAI-Project: secret-of-the-client",
    )
    with lab.proxy(settings='api_key_env = "SOAK_KEY"', environ={"SOAK_KEY": "sk-operators-own"}) as proxy:
        for number in range(TIMES):
            line = ways[number % len(ways)]
            body = GOOD.replace(b"two things", lab.question().encode())
            length = f"Content-Length: {len(body)}"
            call = await answered(proxy.port, request(HOST, JSON, line, length, body=body))
            lab.expect(is_good(call), f"a provider with its own key: status {call.status}")
            sent = await _sent(lab)
            lab.expect(("authorization", "Bearer sk-operators-own") in sent, "the operator's key was not sent")
            told = [name for name, value in sent if "secret-of-the-client" in value]
            lab.expect(not told, f"the client's key reached a provider that has its own: {told}")
            back = [name for name, value in call.headers.items() if "sk-operators-own" in value]
            lab.expect(not back and b"sk-operators-own" not in call.body, "the operator's key came back")


# What a provider may say to Penstock, and clients never hear.
NOT_PASSED = (
    b"set-cookie: session=secret-of-the-provider",
    b"server: secret-of-the-provider",
    b"x-internal: secret-of-the-provider",
    b"keep-alive: timeout=secret-of-the-provider",
    b"proxy-authenticate: secret-of-the-provider",
    b"www-authenticate: secret-of-the-provider",
    b"location: http://secret-of-the-provider/",
    b"access-control-allow-origin: *",
    b"strict-transport-security: max-age=1",
    b"content-security-policy: secret-of-the-provider",
    b"alt-svc: secret-of-the-provider",
    b"cache-status: secret-of-the-provider; hit",
    b"x-penstock-request-id: secret-of-the-provider",
    b"openai-version: 2020-10-01",
)
PASSED = frozenset(
    "cache-status content-length content-type date openai-version transfer-encoding x-accel-buffering "
    "x-penstock-model x-penstock-provider x-penstock-request-id x-request-id".split()
)


async def _only_listed_back(lab: Lab) -> str:
    body = event() + event(finish="stop") + DONE

    def told(_: bytes) -> list[Step]:
        return [whole(body, *NOT_PASSED, media=b"text/event-stream")]

    names: set[str] = set()
    async with Provider(told) as provider:
        with lab.proxy(upstream=provider.port) as proxy:
            for _ in range(TIMES):
                call = await answered(proxy.port, chat("m", lab.question()))
                lab.expect(is_good(call), f"a provider with many headers: status {call.status}, {error_code(call)}")
                names |= call.headers.keys()
                values = [name for name, value in call.headers.items() if "secret-of-the-provider" in value]
                lab.expect(not values, f"came back: {values}")
    lab.expect(names <= PASSED | {"connection"}, f"came back: {', '.join(sorted(names - PASSED))}")
    return ", ".join(sorted(names))
