"""The same request asked of the provider, through a cold proxy and through a warm one: the answers are equal.

Rule: byte for byte, event by event, but for what must differ:

    id, created          new in each answer; one that is kept keeps its `created`, and has a new id for each reader
    comments             signs of life between events, which the proxy makes by itself
    usage                gone without a trace where the client did not ask, though a provider may say it unasked

    openai-*, x-ratelimit-*, retry-*     the provider's words about this call: equal on a miss (but for the milliseconds
                                         that the call took), gone on a hit, which is no call
    x-request-id                         the provider's on a miss, ours on a hit
    cache-status, age, x-penstock-*, x-accel-buffering     ours
    server, date, connection, framing    of each hop
    any other header of a chat completion                  not passed on
"""

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import msgspec

from bench.soak.answers import DONE, Json, cache, data_of, id_of, is_stream, messages
from bench.soak.lab import UNBROKEN, Lab, in_groups
from bench.soak.requests import Asked, Passed, Requests
from bench.soak.wire import Call, finished

GOOD: Final = 1_600
FAILING: Final = 250
PASSED: Final = 150
SEED: Final = 20_260
AT_ONCE: Final = 8

_ID = re.compile(rb'"id":"chatcmpl-\w+"')
_CREATED = re.compile(rb'"created":\d+')
_COMMENTS = re.compile(rb"(?::[^\n]*\n)+\n")

# Of a chat completion: what both sides say of this call, and what the proxy may add.
_WHEN_TO_RETRY = ("retry-after", "retry-after-ms", "x-should-retry")
_OF_THE_CALL = ("openai-", "x-ratelimit-", *_WHEN_TO_RETRY)
_TIMED = "openai-processing-ms"
_OURS = (
    *("cache-status", "age", "x-penstock-", "x-accel-buffering", "x-request-id"),
    *("content-security-policy", "x-content-type-options"),  # of errors, for browsers
)
_OF_THE_HOP = ("server", "date", "connection", "transfer-encoding", "content-length", "content-type")
# Of what is passed through: what describes the body.
_OF_THE_BODY = ("content-type", "content-range", "accept-ranges", "etag", "location", "content-encoding")
# By which what is passed through may ask the simulator for faults.
SETTINGS: Final = f'{UNBROKEN}\n[server]\nforward_headers = ["OpenAI-Beta", "X-Simulator"]'

Expect = Callable[[bool, str], None]


class AnyCall(Call):
    """A `Call` whose answer may have no body though it has a length, or come after `100 Continue`."""

    bodiless = False

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.bodiless:
            self.on_message_complete()

    def on_message_complete(self) -> None:
        if self.status == 100:
            self.headers.clear()
        else:
            super().on_message_complete()


class Pair:
    """A provider, and a proxy in front of it, by their ports. `expect` is told of everything that differs."""

    def __init__(self, provider: int, proxy: int, requests: Requests, expect: Expect) -> None:
        self._provider = provider
        self._proxy = proxy
        self._requests = requests
        self._expect = expect
        self.seen: Counter[str] = Counter()

    async def good(self) -> None:
        """One that is answered: equal three times, and the third from the cache if it may be kept."""
        await self._thrice(self._requests.good(), 200)

    async def failing(self) -> None:
        """One that is refused: equal each time, and never kept."""
        await self._thrice(self._requests.failing(), None)

    async def passed(self) -> None:
        """One that is passed through: the provider sees the same, and so does the client."""
        passed = self._requests.passed()
        raw = self._requests.http_of(passed)
        bodiless = passed.method == "HEAD"
        direct = await _asked(self._provider, raw, bodiless=bodiless)
        proxied = await _asked(self._proxy, raw, bodiless=bodiless)
        compare = _Comparison(self._expect, f"{passed.method} {passed.target[:60]}: ")
        compare.same("status", direct.status, proxied.status)
        compare.same("end", direct.whole, proxied.whole)
        for name in (*_OF_THE_BODY, *_WHEN_TO_RETRY):
            compare.same(name, direct.headers.get(name), proxied.headers.get(name))
        compare.same("body", _mirrored(direct), _mirrored(proxied))
        if direct.headers.get("etag"):  # else the length is that of what the mirror saw, other headers by hop included
            compare.same("length", direct.headers.get("content-length"), proxied.headers.get("content-length"))
        elif direct.status == 200 and not bodiless:
            compare.same("what arrived", _sent(passed), _arrived(proxied))
        self.seen[f"passed on with {proxied.status}"] += 1

    async def _thrice(self, asked: Asked, status: int | None) -> None:
        raw, again = msgspec.json.encode(asked.body), self._requests.respelled(asked.body)
        # All luck is drawn before anything is awaited: what a request is must not depend on who is faster.
        first, second, third = (self._requests.http(asked, body) for body in (raw, raw, again))
        direct = await _asked(self._provider, first)
        compare = _Comparison(self._expect, f"{_told(asked)}: ")
        good = direct.status == status if status else direct.status >= 400
        compare.that(good and direct.whole, f"direct: {direct.status} {bytes(direct.body[:200])!r}")
        cold, warm = await _asked(self._proxy, second), await _asked(self._proxy, third)
        for what, call in (("cold", cold), ("warm", warm)):
            compare.answers(what, asked, direct, call)
        compare.outcomes(asked, direct, cold, warm)
        self.seen[cache(warm) if direct.status == 200 else f"{direct.status // 100}xx"] += 1


class _Comparison:
    """Says what differs, and where."""

    def __init__(self, expect: Expect, where: str) -> None:
        self._expect = expect
        self._where = where

    def that(self, held: bool, otherwise: str) -> None:
        self._expect(held, self._where + otherwise)

    def same(self, what: str, direct: object, proxied: object) -> None:
        self.that(direct == proxied, f"{what} {str(proxied)[:160]!r}, not {str(direct)[:160]!r}")

    def answers(self, what: str, asked: Asked, direct: Call, call: Call) -> None:
        """Status, end, headers and body."""
        self.same(f"{what}: status", direct.status, call.status)
        self.same(f"{what}: end", direct.whole, call.whole)
        self._bodies(what, _shown(asked, direct), _shown(asked, call))
        hit = cache(call) == "hit"
        self._headers(what, direct.headers, call.headers, hit=hit)

    def _bodies(self, what: str, direct: list[bytes], proxied: list[bytes]) -> None:
        self.same(f"{what}: number of events", len(direct), len(proxied))
        for number, (theirs, ours) in enumerate(zip(direct, proxied, strict=False)):
            if theirs != ours:
                self.same(f"{what}: event {number}", theirs, ours)
                return

    def _headers(self, what: str, direct: Mapping[str, str], call: Mapping[str, str], *, hit: bool) -> None:
        self.same(f"{what}: content-type", direct["content-type"], call.get("content-type"))
        self.that("x-request-id" in call and "x-penstock-request-id" in call, f"{what}: no request id")
        theirs = {} if hit else _of_the_call(direct)
        self.same(f"{what}: headers of the call", theirs, _of_the_call(call))
        strange = [name for name in call if not name.startswith((*_OURS, *_OF_THE_HOP, *_OF_THE_CALL))]
        self.same(f"{what}: headers that nobody knows", [], strange)

    def outcomes(self, asked: Asked, direct: Call, cold: Call, warm: Call) -> None:
        """What the cache did, and whose id each answer has."""
        forwarded = f"fwd=bypass; detail={asked.bypass}" if asked.bypass else "fwd=miss"
        kept = direct.status == 200 and not asked.bypass and _is_kept(asked, direct)
        # The head of a stream comes before anybody knows; of a whole body it says what was done.
        begun = direct.status == 200 and not asked.bypass and is_stream(direct)
        stored = "; stored" if kept or begun else ""
        self.same("cold: cache-status", f"penstock; {forwarded}{stored}", cold.headers.get("cache-status"))
        if kept:
            self.same("warm: outcome", "hit", cache(warm))
        else:
            self.same("warm: cache-status", f"penstock; {forwarded}{stored}", warm.headers.get("cache-status"))
        if direct.status == 200:
            ids = [id_of(call) for call in (direct, cold, warm)]
            self.that("" not in ids and len(set(ids)) == 3, f"ids {ids}")


async def _asked(port: int, request: bytes, *, bodiless: bool = False) -> Call:
    """A call, when it is over."""
    loop = asyncio.get_running_loop()
    _, call = await loop.create_connection(AnyCall, "127.0.0.1", port)
    call.bodiless = bodiless
    call.send(request)
    await finished([call])
    return call


def _told(asked: Asked) -> str:
    """The traits of a request, so that what differs can be found again."""
    told = {"model": asked.body.get("model"), "stream": asked.body.get("stream"), "n": asked.body.get("n")}
    last = asked.body.get("messages")
    said = str(last[-1])[:80] if isinstance(last, list) and last else ""
    return f"{told} {sorted(asked.body)} {said}"


def without_what_differs(call: Call) -> list[bytes]:
    """An answer's events, or its one body, less id, `created` and comments."""
    if not is_stream(call):
        return [_anonymous(bytes(call.body))]
    events = [event + b"\n\n" for event in bytes(call.body).split(b"\n\n")]
    rest = events.pop().removesuffix(b"\n\n")
    shown = [_COMMENTS.sub(b"", event) for event in events] + [rest]
    return [_anonymous(event) for event in shown if event]


def _shown(asked: Asked, call: Call) -> list[bytes]:
    """An answer's events as this client must see them."""
    shown = without_what_differs(call)
    hidden = "usage" in asked.options and asked.streamed and not asked.wants_usage
    return list(map(_without_usage, shown)) if hidden else shown


def _anonymous(body: bytes) -> bytes:
    # In a text the quotes would be escaped, so the first of each is the answer's own.
    return _CREATED.sub(b'"created":0', _ID.sub(b'"id":""', body, count=1), count=1)


def _without_usage(event: bytes) -> bytes:
    """The event as it would be without that member; as it is where it has none."""
    data = event.removeprefix(b"data: ").removesuffix(b"\n\n")
    if b'"usage":' not in data or data == DONE:
        return event
    members = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    members.pop("usage", None)
    return b"data: " + msgspec.json.encode(members) + b"\n\n"


def _of_the_call(headers: Mapping[str, str]) -> dict[str, str]:
    found = {name: value for name, value in headers.items() if name.startswith(_OF_THE_CALL)}
    return found | ({_TIMED: "some"} if _TIMED in found else {})


def _is_kept(asked: Asked, direct: Call) -> bool:
    """Is an answer like this one worth keeping, and would it do for the same request again?"""
    said = messages(direct)
    choices = [choice for each in said for choice in each.get("choices", ())]
    finishes = {choice.get("finish_reason") for choice in choices} - {None}
    if "content_filter" in finishes or not all(map(_says_something, _by_index(choices).values())):
        return False
    wanted = (asked.body.get("response_format") or {}).get("type", "text")
    if wanted != "text" and not all(_is_json(_text(parts)) for parts in _by_index(choices).values()):
        return False
    usage = any(each.get("usage") for each in said)
    # A stream without the usage that was asked for, and without [DONE], may have lost it to a cut.
    return usage or not asked.wants_usage or data_of(direct)[-1:] == [DONE]


def _by_index(choices: list[Json]) -> dict[int, list[Json]]:
    """The deltas or messages of each choice."""
    found: dict[int, list[Json]] = {}
    for choice in choices:
        found.setdefault(choice["index"], []).append(choice.get("delta") or choice.get("message") or {})
    return found


def _says_something(parts: list[Json]) -> bool:
    return any(part.get(name) for part in parts for name in ("content", "refusal", "tool_calls", "function_call"))


def _text(parts: list[Json]) -> str:
    return "".join(part.get("content") or "" for part in parts)


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text or "null")
    except msgspec.DecodeError:
        return False
    return True


def _mirrored(call: Call) -> Any:
    """What the mirror saw, less its headers, which differ by hop; else the body as it is."""
    try:
        seen = msgspec.json.decode(call.body)
    except msgspec.DecodeError:
        return bytes(call.body)
    return {name: value for name, value in seen.items() if name != "headers"} if isinstance(seen, dict) else seen


def _sent(passed: Passed) -> list[object]:
    return [passed.method, len(passed.body), hashlib.sha256(passed.body).hexdigest()]


def _arrived(call: Call) -> object:
    seen = _mirrored(call)
    return [seen.get(name) for name in ("method", "length", "sha256")] if isinstance(seen, dict) else seen


async def equal(lab: Lab) -> str:
    """EQ."""
    lab.steps(GOOD + FAILING + PASSED)
    with lab.proxy(settings=SETTINGS, warns=True) as proxy:
        pair = Pair(lab.simulator.port, proxy.port, Requests(SEED, "soak"), partial(_expect, lab))
        tries = [pair.good] * GOOD + [pair.failing] * FAILING + [pair.passed] * PASSED
        await in_groups([_step(lab, one) for one in tries], AT_ONCE)
        await lab.all_quiet(proxy)
    return f"{len(tries):,} requests: " + ", ".join(f"{count:,} {name}" for name, count in pair.seen.most_common())


def _expect(lab: Lab, held: bool, otherwise: str) -> None:
    lab.expect(held, otherwise)


async def _step(lab: Lab, one: Callable[[], Any]) -> None:
    await one()
    lab.step()
