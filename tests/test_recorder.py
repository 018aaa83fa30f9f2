import asyncio
from typing import Any

import pytest

from proxy.core.keep import flaw
from proxy.core.recording import Broken, Clean, Ending
from proxy.errors import (
    UpstreamAuthError,
    UpstreamBadContentType,
    UpstreamFailed,
    UpstreamReset,
    UpstreamStall,
    UpstreamTimeout,
    UpstreamTooLarge,
    UpstreamTruncated,
)
from proxy.flights import Flight, Flights
from proxy.recorder import GRACE_AFTER_DONE, Recorder, head_of
from tests.fakes import Provider, Reply, a_call, in_virtual_time, roomy
from tests.scripted import DONE, chunk, event, whole_stream

STREAM = whole_stream("one", " two")
JSON: dict[str, Any] = {"content_type": "application/json"}
COMPLETION = b'{"id": "1", "choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}]}'


class Made:
    """What came of one reply: how it ended and when, what was logged, whether it would be kept."""

    end: Ending
    at: float
    flight: Flight
    raw: list[bytes]
    flaw: str | None
    recorder: Recorder


def recorded(reply_of: Any, *, provider: Provider | None = None, max_entry: int = 1 << 20, **members: Any) -> Made:
    """Record what `reply_of()` gives, in virtual time."""
    return in_virtual_time(_record(reply_of, provider or Provider(), max_entry, a_call(**members)))


async def _record(reply_of: Any, provider: Provider, max_entry: int, call: Any) -> Made:
    made = Made()

    async def produce(flight: Flight) -> None:
        recorder = made.recorder = Recorder(flight, call, provider)
        made.end = await recorder.record(reply_of())
        made.at = asyncio.get_running_loop().time()
        flight.finish(made.end)

    reader = Flights(on_abandon="cancel", max_entry=max_entry, load=roomy()).lead((b"key",), produce, ttl=60)
    made.flight = reader.flight
    made.raw = []
    while reader.recording.end is None or reader.position < reader.recording.length:
        made.raw += [one.raw for one in await reader.more()]
    made.flaw = flaw(reader.recording, made.recorder.progress, call)
    return made


def failure(made: Made) -> type[Exception]:
    assert isinstance(made.end, Broken), made.end
    return type(made.end.error)


def test_a_whole_stream_is_logged_event_by_event_and_worth_keeping() -> None:
    made = recorded(lambda: Reply(*STREAM, b""))
    assert made.end == Clean()
    assert made.raw == STREAM
    assert made.flaw is None
    assert made.flight.recording.has_usage


@pytest.mark.parametrize("at", range(1, len(b"".join(STREAM))))
def test_it_does_not_matter_where_the_pieces_end(at: int) -> None:
    whole = b"".join(STREAM)
    made = recorded(lambda: Reply(whole[:at], whole[at:], b""))
    assert made.raw == STREAM
    assert made.flaw is None


def test_the_offsets_are_those_at_which_the_events_came() -> None:
    made = recorded(lambda: Reply(1.0, STREAM[0], 2.0, *STREAM[1:], b""))
    assert made.flight.recording.times == pytest.approx([1.0, 3.0, 3.0, 3.0, 3.0])


def test_the_end_came_when_it_was_said_though_http_went_on() -> None:
    made = recorded(lambda: Reply(1.0, *STREAM, 1.5, b""))
    assert made.at == pytest.approx(2.5)
    assert made.flight.recording.times == pytest.approx([1.0] * len(STREAM))


def test_nothing_before_the_first_event_is_a_time_out() -> None:
    made = recorded(lambda: Reply(1e6))
    assert failure(made) is UpstreamTimeout
    assert made.at == pytest.approx(60)


def test_comments_before_the_first_event_are_signs_of_life() -> None:
    made = recorded(lambda: Reply(50.0, b": a\n\n", 50.0, b": b\n\n", 50.0, *STREAM, b""))
    assert made.end == Clean()
    assert made.at == pytest.approx(150)


def test_a_dribble_before_the_first_event_is_none() -> None:
    made = recorded(lambda: Reply(50.0, b"d", 50.0, b"a", 50.0, b"t", 1e6))
    assert failure(made) is UpstreamTimeout
    assert made.at == pytest.approx(60)


def test_silence_after_the_first_event_is_a_stall() -> None:
    made = recorded(lambda: Reply(10.0, STREAM[0], 1e6))
    assert failure(made) is UpstreamStall
    assert made.at == pytest.approx(40)
    assert made.raw == STREAM[:1]


def test_after_the_first_event_every_byte_is_a_sign_of_life() -> None:
    made = recorded(lambda: Reply(STREAM[0], 25.0, b"d", 25.0, b": \n\n", 25.0, b"\n", 1e6))
    assert failure(made) is UpstreamStall
    assert made.at == pytest.approx(105)


def test_no_sign_of_life_helps_beyond_the_total() -> None:
    made = recorded(lambda: Reply(STREAM[0], *[20.0, b": \n\n"] * 100))
    assert failure(made) is UpstreamStall
    assert made.at == pytest.approx(600)
    made = recorded(lambda: Reply(*[20.0, b": \n\n"] * 100))
    assert failure(made) is UpstreamTimeout
    assert made.at == pytest.approx(600)


def test_json_has_only_the_total() -> None:
    made = recorded(lambda: Reply(500.0, COMPLETION, b"", **JSON))
    assert made.end == Clean()
    made = recorded(lambda: Reply(COMPLETION[:9], 1e6, **JSON))
    assert failure(made) is UpstreamTimeout
    assert made.at == pytest.approx(600)


def test_a_provider_that_holds_on_after_done_is_not_waited_for_and_its_answer_not_kept() -> None:
    made = recorded(lambda: Reply(*STREAM, 1e6))
    assert made.end == Clean()
    assert made.at == pytest.approx(GRACE_AFTER_DONE)
    assert made.raw == STREAM
    assert made.flaw is not None


def test_done_is_not_told_before_http_has_ended_cleanly() -> None:
    made = recorded(lambda: Reply(*STREAM, 1.0, UpstreamReset("lost")))
    assert failure(made) is UpstreamReset
    assert made.raw == STREAM[:-1]


def test_what_comes_after_done_comes_after_it() -> None:
    late = chunk("late")
    made = recorded(lambda: Reply(DONE, late, *STREAM, b""))
    assert made.raw == [DONE, late, *STREAM]


@pytest.mark.parametrize("after", range(3))
def test_an_early_end_is_no_end(after: int) -> None:
    made = recorded(lambda: Reply(*STREAM[:after], b""))
    assert failure(made) is UpstreamTruncated
    assert made.flaw == "failed"


def test_with_all_choices_finished_an_early_end_is_an_end() -> None:
    assert recorded(lambda: Reply(*STREAM[:3], b"")).flaw is None
    assert failure(recorded(lambda: Reply(*STREAM[:3], b""), n=2)) is UpstreamTruncated


def test_done_alone_makes_no_answer_whole() -> None:
    made = recorded(lambda: Reply(chunk("a"), DONE, b""))
    assert made.end == Clean()
    assert made.flaw == "unfinished"


def test_a_last_event_that_lacks_only_its_blank_line_counts() -> None:
    made = recorded(lambda: Reply(*STREAM[:2], STREAM[2].rstrip(), b""))
    assert made.end == Clean()
    assert made.flaw is None


def test_an_error_as_the_first_event_is_no_event() -> None:
    made = recorded(lambda: Reply(event({"error": {"message": "no", "code": 503}}), *STREAM, b""))
    assert failure(made) is UpstreamFailed
    assert isinstance(made.end, Broken)
    assert made.end.error.status == 503
    assert made.raw == []


def test_a_later_error_is_the_last_event() -> None:
    said = event({"error": {"message": "no", "code": 503}})
    made = recorded(lambda: Reply(STREAM[0] + said + STREAM[1], b""))
    assert failure(made) is UpstreamFailed
    assert isinstance(made.end, Broken)
    assert made.end.told
    assert made.raw == [STREAM[0], said]


def test_an_error_that_is_null_is_none() -> None:
    assert recorded(lambda: Reply(chunk("a", error=None), *STREAM[2:], b"")).flaw is None


def test_an_event_over_its_bound_ends_the_answer() -> None:
    assert failure(recorded(lambda: Reply(STREAM[0], b"data: " + b"x" * (1 << 20), b""))) is UpstreamTooLarge


@pytest.mark.parametrize("cut", range(1, len(COMPLETION)))
def test_json_that_is_cut_is_no_answer(cut: int) -> None:
    assert failure(recorded(lambda: Reply(COMPLETION[:cut], b"", **JSON))) is UpstreamTruncated


@pytest.mark.parametrize("status", [400, 429, 500])
def test_the_body_of_an_error_passes_whatever_it_is(status: int) -> None:
    made = recorded(lambda: Reply(b"<html>", b"", status=status, content_type="text/html"))
    assert made.end == Clean()
    assert made.raw == [b"<html>"]
    assert made.flaw == "failed"


def test_past_its_bound_an_answer_is_passed_on_and_not_kept() -> None:
    big = [chunk("x" * 50_000)] * 40
    made = recorded(lambda: Reply(*big, *STREAM, b""), max_entry=60_000)
    assert made.raw == [*big, *STREAM]
    assert made.flaw == "too-large"


LONG = b'{"id": "1", "choices": [{"index": 0, "message": {"content": "' + b"a" * 70_000


@pytest.mark.parametrize(
    ("rest", "whole"), [(b'"}, "finish_reason": "stop"}]} \n', True), (b"", False), (b'"}, ', False)]
)
def test_past_its_bound_json_that_does_not_end_is_no_answer(rest: bytes, whole: bool) -> None:
    made = recorded(lambda: Reply(LONG, rest, b" \n", b"", content_type="application/json"), max_entry=60_000)
    assert (made.end == Clean()) is whole
    assert whole or failure(made) is UpstreamTruncated


def test_a_slow_reader_is_no_silence_of_the_provider() -> None:
    async def slowly() -> Ending:
        async def produce(flight: Flight) -> None:
            flight.finish(await Recorder(flight, a_call(), provider).record(Reply(*big, *STREAM, b"")))

        provider, big = Provider(), [chunk("x" * 50_000)] * 40
        provider.total_timeout = 3600.0
        reader = Flights(on_abandon="cancel", max_entry=60_000, load=roomy()).lead((b"key",), produce, ttl=60)
        while reader.recording.end is None:
            await reader.more()
            await asyncio.sleep(45)  # longer than the provider may be silent
        return reader.recording.end

    assert in_virtual_time(slowly()) == Clean()


@pytest.mark.parametrize(
    ("reply", "owns_key", "error"),
    [
        ({"status": 302}, False, UpstreamBadContentType),
        ({"content_type": "text/html"}, False, UpstreamBadContentType),
        ({"content_encoding": "gzip"}, False, UpstreamBadContentType),
        ({"status": 401}, True, UpstreamAuthError),
        ({"status": 403}, True, UpstreamAuthError),
    ],
)
def test_what_is_no_answer_is_an_error(reply: Any, owns_key: bool, error: type[Exception]) -> None:
    async def head() -> None:
        provider = Provider()
        provider.owns_key = owns_key
        head_of(Reply(**reply), provider)

    with pytest.raises(error):
        asyncio.run(head())


async def test_the_head_has_the_headers_that_clients_see_and_no_other() -> None:
    passed: dict[str, Any] = {
        "x_request_id": "1",
        "retry_after": "2",
        "openai_version": "3",
        "x_ratelimit_limit_tokens": "4",
    }
    dropped: dict[str, Any] = {"set_cookie": "5", "server": "6", "connection": "7", "x_other": "8"}
    head = head_of(Reply(**passed, **dropped), Provider())
    assert dict(head.headers) == {name.replace("_", "-").encode(): value.encode() for name, value in passed.items()}
    assert head.kind == "stream"
    assert head_of(Reply(status=401, **JSON), Provider()).status == 401


@pytest.mark.parametrize("ends", [b"", UpstreamReset("lost"), 601.0])
def test_a_json_answer_of_which_no_byte_comes_has_not_begun(ends: Any) -> None:
    made = recorded(lambda: Reply(ends, **JSON))
    assert isinstance(made.end, Broken)
    assert made.flight.recording.head is None


def test_an_error_without_a_body_is_an_answer_all_the_same() -> None:
    made = recorded(lambda: Reply(b"", status=500, **JSON))
    assert made.end == Clean()
    assert made.flight.recording.head is not None
    assert made.flight.recording.head.status == 500
