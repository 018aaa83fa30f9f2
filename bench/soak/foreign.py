"""Providers that answer with something else: pages, redirects, other media, encodings, and "later"."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from bench.soak.answers import cache, error_code, is_good, is_stream, text
from bench.soak.lab import RETRIES_ITSELF, SOON, STORED_ONLY, Lab, Proxy, chat, ms, timed
from bench.soak.provider import (
    DONE,
    Provider,
    Silent,
    Step,
    body_of,
    chunk,
    chunked_head,
    completion,
    event,
    question_of,
    whole,
)
from bench.soak.wire import Call, answered, finished, sent_at_once

TIMES = 20
AT_ONCE = 0.5  # seconds
PAGE = b"<html><body><h1>Sign in to the Wi-Fi</h1></body></html>"
MEDIA = (
    b"text/html",
    b"text/html; charset=utf-8",
    b"text/plain",
    b"application/xml",
    b"application/octet-stream",
    b"application/x-ndjson",
    b"multipart/mixed; boundary=x",
    b"image/png",
    b"nonsense",
    b"text/event-streams",
    b"application/jsonp",
)
REDIRECTS = (b"301 Moved", b"302 Found", b"303 See Other", b"307 Temporary", b"308 Permanent", b"300 Choose")
STATUSES = (b"304 Not Modified", b"305 Use Proxy")
STREAM = event() + event(finish="stop") + DONE


async def another_thing(lab: Lab) -> str:
    """U7."""
    async with Silent() as elsewhere, Provider(Wrong(elsewhere.port)) as provider:
        with lab.proxy(settings=SOON, upstream=provider.port, warns=True) as proxy:
            cases = [*Wrong(0).cases]
            lab.steps(len(cases) + 4)
            for case in cases:
                await _refused(lab, proxy, provider, case)
                lab.step()
            lab.expect(not elsewhere.touched, f"a redirect was followed {elsewhere.touched} times")
            for case, status, code, kept in JSON_TO_A_STREAM:
                await _json_to_a_stream(lab, proxy, case, (status, code), kept)
                lab.step()
            await lab.all_quiet(proxy)
    return (
        f"{len(cases)} kinds of wrong answer × {2 * TIMES} calls, {len(provider.requests):,} calls upstream in all, "
        f"{elsewhere.touched} visits where redirects led; JSON to a stream {TIMES} times each"
    )


# What a provider answers to a stream in JSON, what its client gets, and whether it is kept.
JSON_TO_A_STREAM = (
    ("json", 200, None, True),
    ("json cut", 502, "upstream_truncated", False),
    ("json error", 200, "server_error", False),
    ("json unfinished", 200, None, False),
)


class Wrong:
    """Answers as the question's first words say; redirects lead to the port `elsewhere`."""

    def __init__(self, elsewhere: int) -> None:
        location = b"location: http://127.0.0.1:%d/v1/chat/completions" % elsewhere
        self.cases: dict[str, bytes] = {
            **{media.decode(): whole(PAGE, media=media) for media in MEDIA},
            **{f"{media.decode()} chunked": chunked_head(media) + chunk(PAGE) + chunk(b"") for media in MEDIA[:3]},
            **{status.decode(): whole(completion(), location, status=status) for status in REDIRECTS},
            **{f"{status.decode()} empty": whole(b"", location, status=status) for status in REDIRECTS},
            **{status.decode(): whole(b"", location, status=status) for status in STATUSES},
            "a stream that moved": whole(STREAM, location, status=b"307 Moved", media=b"text/event-stream"),
        }
        self._json = {
            "json": whole(completion()),
            "json cut": whole(completion()[:-20]),
            "json error": whole(b'{"error": {"message": "no", "type": "t", "param": null, "code": "server_error"}}'),
            "json unfinished": whole(completion().replace(b'"stop"', b"null")),
        }

    def __call__(self, request: bytes) -> Iterable[Step]:
        case = question_of(request).partition(" #")[0]
        return [(self.cases | self._json)[case]]


async def _refused(lab: Lab, proxy: Proxy, provider: Provider, case: str) -> None:
    before = len(provider.requests)
    questions = [f"{case} #{lab.question()}" for _ in range(TIMES)]
    asked = [(question, stream) for question in questions for stream in (True, False)]
    # Each form has a user of its own, so that neither joins the other.
    requests = [chat("m", question, stream=stream, key=str(stream)) for question, stream in asked]
    calls = await sent_at_once(proxy.port, requests)
    await finished(calls)
    for call in calls:
        good = call.status == 502 and call.whole and error_code(call) == "upstream_bad_content_type"
        lab.expect(good, f"{case}: status {call.status}, code {error_code(call)}")
        lab.expect(call.headers.get("x-should-retry") == "false", f"{case}: x-should-retry is not false")
        told = b"<html" in call.body or "location" in call.headers
        lab.expect(not told, f"{case}: the page or the new address was passed on")
    made = len(provider.requests) - before
    lab.expect(made == len(calls), f"{case}: {made} calls upstream for {len(calls)}")
    stored = await proxy.stores(chat("m", questions[0], key="True", more=STORED_ONLY))
    lab.expect(not stored, f"{case}: was stored")


async def _json_to_a_stream(lab: Lab, proxy: Proxy, case: str, expected: tuple[int, str | None], kept: bool) -> None:
    for _ in range(TIMES):
        question = f"{case} #{lab.question()}"
        call = await answered(proxy.port, chat("m", question))
        found = call.status, error_code(call)
        lab.expect(found == expected and call.whole and not is_stream(call), f"{case}: {found}, not {expected}")
        again = await answered(proxy.port, chat("m", question, more=STORED_ONLY))
        lab.expect((again.status == 200) is kept, f"{case}: {'was not' if kept else 'was'} stored")
        if kept:
            same = is_good(again) and is_stream(again) and text(again) == text(call)
            lab.expect(same, f"{case}: the hit is no stream of the same words")


def _date(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


# What a provider says of later, and how many calls Penstock makes for a client that does not retry by itself.
LATER: dict[str, int] = {
    "1": 3,
    "0": 3,
    "-5": 3,
    "30": 1,
    "1e9": 1,
    "1000000000": 1,
    "1.5": 3,
    "soon": 1,
    "": 1,
    _date(600): 1,
    _date(-600): 3,
    "Wed, 99 Foo 2099 00:00:00 GMT": 1,
}
RATES = {
    "x-ratelimit-limit-requests": "10000",
    "x-ratelimit-remaining-requests": "0",
    "x-ratelimit-reset-requests": "6m0s",
    "x-ratelimit-limit-tokens": "2000000",
    "x-ratelimit-remaining-tokens": "-1",
    "x-ratelimit-reset-tokens": "1h30m12.5s",
    "retry-after-ms": "60000.5",
    "x-should-retry": "true",
    "openai-organization": "org-é",
    "x-request-id": "req_0123456789",
}
REFUSAL = (
    b'{ "error": {"message": "Rate limit reached.", "type":"requests", "param":null, "code":"rate_limit_exceeded"}}\n'
)


async def told_to_wait(lab: Lab) -> str:
    """U8, as far as there is one provider."""
    lab.steps(2 * len(LATER) + 2)
    worst = 0.0
    async with Provider(_later) as provider:
        with lab.proxy(upstream=provider.port) as proxy:
            for value in LATER:
                for stream in (True, False):
                    worst = max(worst, await _passed_on(lab, proxy, provider, value, stream=stream))
                    lab.step()
            for value in LATER:
                await _waited_for(lab, proxy, provider, value)
            lab.step()
            await _asked_again(lab, proxy)
            lab.step()
            await lab.all_quiet(proxy)
    return f"{2 * TIMES * len(LATER)} refusals compared byte for byte, the slowest after {ms(worst)}"


def _later(request: bytes) -> Iterable[Step]:
    """The 429 that the question names, until it says `now`."""
    value = question_of(request).partition(" #")[0]
    if value == "now":
        yield whole(completion()) if not body_of(request)["stream"] else whole(STREAM, media=b"text/event-stream")
        return
    waits = value.startswith("plain ")
    lines = [f"{name}: {said}" for name, said in ({} if waits else RATES).items()]
    if value.removeprefix("plain "):
        lines.append(f"Retry-After: {value.removeprefix('plain ')}")
    headers = [line.encode("latin-1") for line in lines]
    yield whole(REFUSAL, *headers, status=b"429 Too Many Requests")


async def _passed_on(lab: Lab, proxy: Proxy, provider: Provider, value: str, *, stream: bool) -> float:
    """To clients that retry by themselves: at once, to the byte, and asked again each time."""
    before, worst = len(provider.requests), 0.0
    question = f"{value} #{lab.question()}"
    for _ in range(TIMES):
        call, took = await timed(answered(proxy.port, chat("m", question, stream=stream, more=RETRIES_ITSELF)))
        worst = max(worst, took)
        lab.expect(call.status == 429 and call.whole, f"Retry-After {value!r}: status {call.status}")
        lab.expect(bytes(call.body) == REFUSAL, f"Retry-After {value!r}: the body is {bytes(call.body)!r}")
        expected = RATES | ({"retry-after": value} if value else {})
        for name, said in expected.items():
            lab.expect(call.headers.get(name) == said, f"{name} is {call.headers.get(name)!r}, not {said!r}")
        lab.expect(took < AT_ONCE, f"Retry-After {value!r}: passed on after {ms(took)}")
    made = len(provider.requests) - before
    lab.expect(made == TIMES, f"Retry-After {value!r}: {made} calls upstream for {TIMES}: kept, or tried again")
    lab.expect(not await proxy.stores(chat("m", question, more=STORED_ONLY)), f"Retry-After {value!r}: was stored")
    return worst


async def _waited_for(lab: Lab, proxy: Proxy, provider: Provider, value: str) -> None:
    """For a client that does not retry by itself."""
    before = len(provider.requests)
    call = await answered(proxy.port, chat("m", f"plain {value} #{lab.question()}", stream=False))
    made = len(provider.requests) - before
    lab.expect(call.status == 429, f"Retry-After {value!r}, tried again: status {call.status}")
    lab.expect(made == LATER[value], f"Retry-After {value!r}: {made} calls upstream, not {LATER[value]}")


async def _asked_again(lab: Lab, proxy: Proxy) -> None:
    """After all of that the provider is asked as before."""
    requests = [chat("m", f"now #{lab.question()}", stream=stream) for stream in (True, False) for _ in range(TIMES)]
    calls: list[Call] = await sent_at_once(proxy.port, requests)
    await finished(calls)
    for call in calls:
        lab.expect(is_good(call) and cache(call) == "miss", f"afterwards: status {call.status}, {cache(call)}")
