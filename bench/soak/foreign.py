"""Providers that answer with something else: pages, redirects, other media, encodings."""

from collections.abc import Iterable

from bench.soak.answers import error_code, is_good, is_stream, text
from bench.soak.lab import SOON, STORED_ONLY, UNBROKEN, Lab, Proxy, chat
from bench.soak.provider import (
    DONE,
    Provider,
    Silent,
    Step,
    chunk,
    chunked_head,
    completion,
    event,
    question_of,
    whole,
)
from bench.soak.wire import answered, finished, sent_at_once

TIMES = 20
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
        with lab.proxy(settings=f"{UNBROKEN}\n{SOON}", upstream=provider.port, warns=True) as proxy:
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
