"""Who is asked after whom: each test is a trace of attempts, in the order in which they ended."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from proxy.claims import Claimed
from proxy.core.access import UNLIMITED, Limits
from proxy.core.breaker import FAILURES
from proxy.core.recording import Broken, Clean, Ending
from proxy.core.retry import LEAST_REPEATS
from proxy.core.routing import Choice, Option, Target
from proxy.core.status import result_of
from proxy.errors import (
    PenstockError,
    QueueTimeout,
    UpstreamBadContentType,
    UpstreamConnectError,
    UpstreamError,
    UpstreamReset,
    UpstreamTimeout,
    UpstreamTLSError,
    UpstreamTooLarge,
    UpstreamTruncated,
    UpstreamUnavailable,
)
from proxy.flights import Flight, Flights, Reader
from proxy.limiter import Limiter
from proxy.producer import Job
from tests.fakes import LoopClock, Meter, Provider, Reply, Works, a_call, in_virtual_time, roomy, turns
from tests.scripted import chunk, event, whole_stream

STREAM = whole_stream("one", " two")
ITSELF = {b"x-stainless-retry-count": b"0"}  # who asks again by itself
JSON: dict[str, Any] = {"content_type": "application/json"}


def good() -> Reply:
    return Reply(*STREAM, b"")


def says(status: int, body: bytes = b"{}", **headers: Any) -> Reply:
    return Reply(body, b"", status=status, **JSON, **headers)


def option(name: str) -> Option:
    return Option(name, Target("sim", "http://sim/v1", name.upper()))


class Scene:
    """A producer among fakes, in virtual time. The models are "a", "b" …, the last of them is the baseline; whatever
    model is asked, the replies come one after the other.
    """

    def __init__(
        self, *replies: Reply | Exception, models: str = "a b", limiter: Limiter | None = None, **said: Any
    ) -> None:
        self.replies = replies
        self.provider = Provider(*replies)
        self.options = tuple(map(option, models.split()))
        self.choice = Choice(self.options, self.options[-1], **said)
        self.meter = Meter()
        self.flights = Flights(on_abandon="cancel", max_entry=1 << 20, load=roomy())
        clock = LoopClock()
        self.now = clock.wall
        works = self.works = Works({"sim": self.provider}, self.flights, self.meter, clock, limiter=limiter)
        self.producer, self.health = works.producer, works.health

    def lead(self, headers: dict[bytes, bytes] | None = None, account: str = "") -> Reader:
        """A call that is being answered, as the pipeline has it answered."""
        call = a_call(stream=True, headers=headers)

        async def produce(flight: Flight) -> None:
            end: Ending
            try:
                found = [await self.works.router.suppose(call, option) for option in self.options]
                end = await self.producer.make(Job(flight, call, self.choice, account, flight.asker, Claimed()), found)
            except PenstockError as error:
                end = Broken(error)
            flight.finish(end)

        return self.flights.lead((), produce, ttl=0)

    async def answer(self, headers: dict[bytes, bytes] | None = None, account: str = "") -> Reader:
        """One whose end has come."""
        reader = self.lead(headers, account)
        await reader.ended()
        await turns()
        return reader

    @property
    def trace(self) -> list[str]:
        return [f"{model} {result}" for _, model, result in self.meter.attempts]

    @property
    def closed(self) -> list[int]:
        """How often each reply was closed."""
        return [reply.closed for reply in self.replies if isinstance(reply, Reply)]

    @property
    def repeats(self) -> int:
        """Places that are taken in the budget."""
        return self.producer._budget.held

    def state(self, name: str, account: str = "") -> str:
        return self.health.state(option(name).target.place(account), self.now())

    def free(self, name: str) -> bool:
        """May a call be sent: is the probe, if it takes one, there to be had?"""
        return self.health.take(option(name).target.place(""), self.now())

    def fail(self, name: str, count: int = FAILURES) -> None:
        for _ in range(count):
            self.health.bad(option(name).target.place(""), self.now())


def raw(reader: Reader) -> bytes:
    return b"".join(one.raw for one in reader.recording.events)


def error_of(reader: Reader) -> PenstockError:
    assert isinstance(reader.recording.end, Broken)
    return reader.recording.end.error


ELSEWHERE: list[tuple[Callable[[], Reply | Exception], str]] = [
    *((lambda status=status: says(status), f"status_{status}") for status in (401, 402, 403, 408, 409, 429)),
    *((lambda status=status: says(status), f"status_{status}") for status in (500, 502, 503, 529)),
    (lambda: UpstreamConnectError("refused"), "upstream_connect_error"),
    (lambda: UpstreamTLSError("expired"), "upstream_tls_error"),
    (lambda: Reply(event({"error": {"message": "no capacity"}}), b""), "upstream_error"),
    (lambda: Reply(b"<html>", b"", content_type="text/html"), "upstream_bad_content_type"),
    (lambda: says(302, location="/"), "upstream_bad_content_type"),
]


@pytest.mark.parametrize(
    ("reply", "result"), ELSEWHERE, ids=[f"{i}-{result}" for i, (_, result) in enumerate(ELSEWHERE)]
)
@pytest.mark.parametrize("headers", [None, ITSELF])
def test_who_did_not_answer_is_followed_by_the_next_model_at_once_for_every_client(
    reply: Callable[[], Reply | Exception], result: str, headers: dict[bytes, bytes] | None
) -> None:
    async def scene() -> None:
        asked = Scene(reply(), good())
        reader = await asked.answer(headers)
        assert asked.trace == [f"a {result}", "b ok"]
        assert reader.recording.end == Clean()
        assert raw(reader) == b"".join(STREAM)
        assert reader.flight.served is asked.options[1]
        assert set(asked.closed) == {1}
        assert asyncio.get_running_loop().time() == 0  # nobody has paused
        assert asked.repeats == 0

    in_virtual_time(scene())


def test_every_model_is_asked_once_and_the_last_ones_word_is_passed_on() -> None:
    async def scene() -> None:
        asked = Scene(says(500), UpstreamConnectError("refused"), says(503, b'{"c": 1}'), models="a b c")
        reader = await asked.answer(ITSELF)
        assert asked.trace == ["a status_500", "b upstream_connect_error", "c status_503"]
        assert (await reader.head()).status == 503
        assert raw(reader) == b'{"c": 1}'
        assert reader.flight.served is asked.options[2]

    in_virtual_time(scene())


@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize(("owns_key", "trace"), [(True, ["a {}", "b ok"]), (False, ["a {}", "b {}"])])
def test_a_model_that_is_not_there_is_passed_over(status: int, owns_key: bool, trace: list[str]) -> None:
    """With the client's own key it may be a refusal of this client: the baseline has the last word."""

    async def scene() -> None:
        asked = Scene(says(status), good() if owns_key else says(status))
        asked.provider.owns_key = owns_key
        await asked.answer(ITSELF)
        assert asked.trace == [each.format(result_of(status)) for each in trace]

    in_virtual_time(scene())


def test_one_that_is_alone_is_asked_again_after_a_pause() -> None:
    async def scene() -> None:
        asked = Scene(says(503, retry_after="2"), says(500), good(), models="a")
        reader = await asked.answer()
        assert asked.trace == ["a status_503", "a status_500", "a ok"]
        assert raw(reader) == b"".join(STREAM)
        assert asyncio.get_running_loop().time() >= 2
        assert asked.closed == [1, 1, 1]
        assert asked.repeats == 0

    in_virtual_time(scene())


def test_one_that_is_alone_is_asked_once_for_who_asks_again_by_itself() -> None:
    async def scene() -> None:
        asked = Scene(says(503, b'{"sorry": 1}'), models="a")
        reader = await asked.answer(ITSELF)
        assert asked.trace == ["a status_503"]
        assert raw(reader) == b'{"sorry": 1}'
        assert reader.recording.end == Clean()

    in_virtual_time(scene())


def test_no_model_is_repeated_more_often_than_its_provider_allows() -> None:
    async def scene() -> None:
        asked = Scene(*(says(500) for _ in range(4)), models="a")
        await asked.answer()
        assert asked.trace == ["a status_500"] * 3
        assert asked.repeats == 0

    in_virtual_time(scene())


def test_the_last_of_a_ranking_is_repeated_too() -> None:
    async def scene() -> None:
        asked = Scene(says(500), says(500), good())
        await asked.answer()
        assert asked.trace == ["a status_500", "b status_500", "b ok"]

    in_virtual_time(scene())


def test_all_repeats_together_are_kept_within_the_budget() -> None:
    async def scene() -> None:
        clients = LEAST_REPEATS + 2
        failures = [says(409, retry_after="5") for _ in range(clients)]
        asked = Scene(*failures, *(good() for _ in range(LEAST_REPEATS)), models="a")
        readers = [asked.lead() for _ in range(clients)]
        await turns()
        assert asked.repeats == LEAST_REPEATS
        assert len([reader for reader in readers if reader.recording.end is not None]) == 2
        for reader in readers:
            await reader.ended()
        await turns()
        assert asked.trace == ["a status_409"] * clients + ["a ok"] * LEAST_REPEATS
        assert asked.repeats == 0

    in_virtual_time(scene())


def test_a_429_cools_its_model_and_another_answers() -> None:
    async def scene() -> None:
        asked = Scene(says(429, retry_after="20"), good())
        await asked.answer()
        assert asked.trace == ["a status_429", "b ok"]
        assert (asked.state("a"), asked.state("b")) == ("cooling", "up")
        await asyncio.sleep(19)
        assert asked.state("a") == "cooling"
        await asyncio.sleep(2)
        assert asked.state("a") == "up"

    in_virtual_time(scene())


MAYBE_PAID: list[Callable[[], Reply | Exception]] = [
    lambda: UpstreamReset("lost"),
    lambda: UpstreamTimeout("late"),
    lambda: Reply(UpstreamReset("lost")),
    lambda: Reply(UpstreamTooLarge("one event")),
    lambda: Reply(b""),  # ends before it began
    lambda: Reply(b"", **JSON),
    lambda: Reply(61.0, b""),  # first_event_timeout
]


@pytest.mark.parametrize("reply", MAYBE_PAID)
@pytest.mark.parametrize("retry_lost", [False, True])
def test_what_may_have_been_paid_is_asked_anew_only_where_the_route_says_so(
    reply: Callable[[], Reply | Exception], retry_lost: bool
) -> None:
    async def scene() -> None:
        asked = Scene(reply(), good(), retry_lost=retry_lost)
        reader = await asked.answer()
        assert [each.split()[0] for each in asked.trace] == (["a", "b"] if retry_lost else ["a"])
        if retry_lost:
            assert raw(reader) == b"".join(STREAM)
        else:
            assert isinstance(error_of(reader), UpstreamError)
            assert raw(reader) == b""

    in_virtual_time(scene())


@pytest.mark.parametrize("retry_lost", [False, True])
@pytest.mark.parametrize(
    ("after", "result"),
    [
        ([UpstreamReset("lost")], "upstream_reset"),
        ([event({"error": {"message": "no capacity"}}), b""], "upstream_error"),
        ([b""], "upstream_truncated"),
        ([31.0, b""], "upstream_stall"),
    ],
)
def test_after_the_first_event_nobody_else_is_asked(after: list[Any], result: str, retry_lost: bool) -> None:
    async def scene() -> None:
        asked = Scene(Reply(STREAM[0], *after), good(), retry_lost=retry_lost)
        reader = await asked.answer()
        assert asked.trace == [f"a {result}"]
        assert raw(reader).startswith(STREAM[0])
        assert isinstance(reader.recording.end, Broken)
        assert asked.closed == [1, 0]

    in_virtual_time(scene())


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_by_another_model_is_the_baselines_to_confirm(status: int) -> None:
    async def scene() -> None:
        asked = Scene(says(status, b'{"a": 1}'), says(status, b'{"c": 1}'), models="a b c")
        reader = await asked.answer()
        assert asked.trace == [f"a status_{status}", f"c status_{status}"]
        assert raw(reader) == b'{"c": 1}'
        assert reader.flight.served is asked.choice.baseline

    in_virtual_time(scene())


def test_a_baseline_that_answers_what_another_refused_has_the_word() -> None:
    async def scene() -> None:
        asked = Scene(says(400), good(), models="a b c")
        reader = await asked.answer()
        assert asked.trace == ["a status_400", "c ok"]
        assert raw(reader) == b"".join(STREAM)

    in_virtual_time(scene())


def test_a_refusal_is_final_where_the_baseline_gave_it_was_asked_or_is_down() -> None:
    async def scene() -> None:
        alone = Scene(says(400), models="a")
        await alone.answer()
        assert alone.trace == ["a status_400"]
        asked = Scene(says(500), says(400))
        asked.options = asked.options[::-1]
        await asked.answer()
        assert asked.trace == ["b status_500", "a status_400"]
        down = Scene(says(400), good())
        down.fail("b")
        await down.answer()
        assert down.trace == ["a status_400"]

    in_virtual_time(scene())


def test_a_refusal_says_nothing_against_the_health_of_a_model() -> None:
    async def scene() -> None:
        asked = Scene(*(says(400) for _ in range(FAILURES + 1)), models="a")
        for _ in range(FAILURES + 1):
            await asked.answer()
        assert asked.state("a") == "up"

    in_virtual_time(scene())


BROKEN: list[Callable[[], Reply | Exception]] = [
    lambda: says(500),
    lambda: UpstreamConnectError("refused"),
    lambda: UpstreamTimeout("late"),
    lambda: Reply(b"<html>", b"", content_type="text/html"),
    lambda: Reply(UpstreamReset("lost")),
    lambda: Reply(UpstreamReset("lost"), **JSON),
    lambda: Reply(b""),
]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_model_that_fails_five_times_in_a_row_is_left_alone_until_a_probe_finds_it_well(
    broken: Callable[[], Reply | Exception],
) -> None:
    async def scene() -> None:
        probe = Reply()
        asked = Scene(*(broken() for _ in range(FAILURES)), probe, good(), models="a")
        for _ in range(FAILURES):
            await asked.answer(ITSELF)
        refused = await asked.answer(ITSELF)
        error = error_of(refused)
        assert isinstance(error, UpstreamUnavailable)
        assert error.retry_after == 30
        assert refused.flight.served is asked.options[0]
        assert len(asked.provider.calls) == FAILURES
        await asyncio.sleep(30)
        probing = asked.lead(ITSELF)
        await turns()
        assert isinstance(error_of(await asked.answer(ITSELF)), UpstreamUnavailable)
        assert len(asked.provider.calls) == FAILURES + 1
        probe.come(*STREAM, b"")
        await probing.ended()
        assert asked.state("a") == "up"
        assert raw(await asked.answer(ITSELF)) == b"".join(STREAM)

    in_virtual_time(scene())


def test_a_probe_that_fails_is_not_repeated_and_makes_the_pause_longer() -> None:
    async def scene() -> None:
        asked = Scene(*(says(500) for _ in range(2)), models="a")
        asked.fail("a")
        await asyncio.sleep(30)
        await asked.answer()
        assert asked.trace == ["a status_500"]
        assert asked.repeats == 0
        assert error_of(await asked.answer()).retry_after == 60

    in_virtual_time(scene())


def test_who_is_down_is_passed_over_and_nobody_is_kept_waiting() -> None:
    async def scene() -> None:
        asked = Scene(good())
        asked.fail("a")
        await asked.answer()
        assert asked.trace == ["b ok"]

    in_virtual_time(scene())


def test_who_opened_in_the_pause_of_a_repeat_is_not_asked() -> None:
    async def scene() -> None:
        asked = Scene(says(409, retry_after="5"), good(), models="a")
        reader = asked.lead()
        await turns()
        assert asked.repeats == 1
        asked.fail("a")
        await reader.ended()
        await turns()
        assert isinstance(error_of(reader), UpstreamUnavailable)
        assert asked.trace == ["a status_409"]
        assert asked.repeats == 0

    in_virtual_time(scene())


def test_who_fails_for_one_account_is_left_alone_for_all_and_who_cools_for_that_one() -> None:
    async def scene() -> None:
        asked = Scene(*(says(500) for _ in range(FAILURES)), models="a")
        for number in range(FAILURES):
            await asked.answer(ITSELF, f"account {number}")
        assert isinstance(error_of(await asked.answer(ITSELF, "another")), UpstreamUnavailable)
        asked = Scene(says(429, retry_after="20"), models="a")
        await asked.answer(ITSELF, "one")
        assert (asked.state("a", "one"), asked.state("a", "another")) == ("cooling", "up")

    in_virtual_time(scene())


def test_an_answer_in_between_begins_the_row_anew() -> None:
    async def scene() -> None:
        failures = [says(500) for _ in range(FAILURES - 1)]
        asked = Scene(*failures, good(), *(says(500) for _ in range(FAILURES - 1)), models="a")
        for _ in range(2 * FAILURES - 1):
            await asked.answer(ITSELF)
        assert asked.state("a") == "up"

    in_virtual_time(scene())


@pytest.mark.parametrize(
    ("models", "owns_key", "state"), [("a b", True, "down"), ("a", True, "up"), ("a b", False, "up")]
)
def test_an_account_that_is_refused_is_left_alone_where_another_can_answer(
    models: str, owns_key: bool, state: str
) -> None:
    async def scene() -> None:
        replies = [
            reply for _ in range(FAILURES) for reply in ((says(401), good()) if models == "a b" else (says(401),))
        ]
        asked = Scene(*replies, models=models)
        asked.provider.client_pays = not owns_key
        for _ in range(FAILURES):
            await asked.answer(ITSELF)
        assert asked.state("a") == state

    in_virtual_time(scene())


WAITING: list[tuple[str, Callable[[], list[Reply]]]] = [
    ("open", list),
    ("the first event", lambda: [Reply()]),
    ("the next event", lambda: [Reply(STREAM[0])]),
    ("the first piece of a body", lambda: [Reply(**JSON)]),
    ("the body of a refusal", lambda: [Reply(status=400, **JSON)]),
]


@pytest.mark.parametrize(("_where", "replies"), WAITING, ids=[where for where, _ in WAITING])
def test_a_probe_whose_client_leaves_is_given_back(_where: str, replies: Callable[[], list[Reply]]) -> None:
    async def scene() -> None:
        asked = Scene(*replies(), models="a")
        asked.fail("a")
        await asyncio.sleep(30)
        reader = asked.lead()
        await turns()
        reader.leave()
        await turns()
        assert asked.trace == ["a abandoned"]
        assert asked.free("a")
        assert asked.closed == [1] * len(asked.replies)
        assert len(asked.flights) == 0

    in_virtual_time(scene())


def test_a_place_in_the_budget_is_given_back_whenever_the_client_leaves() -> None:
    """At every step of the loop: in the pause, while the repeat is dialled, answered, read."""

    async def leaving(after: int) -> list[str]:
        asked = Scene(says(503, retry_after="1"), Reply(*STREAM), models="a")
        reader = asked.lead()
        for _ in range(after):
            await asyncio.sleep(0)
        if after > 20:
            await asyncio.sleep(1)
            await turns(after - 20)
        held = asked.repeats
        reader.leave()
        await turns()
        assert asked.repeats == 0
        assert asked.free("a")
        assert asked.closed == [int(call < len(asked.provider.calls)) for call in range(2)]
        assert len(asked.flights) == 0
        return [*asked.trace, f"held {held}"]

    seen = {tuple(in_virtual_time(leaving(after))) for after in range(1, 40)}
    assert ("a status_503", "held 1") in seen  # left in the pause
    assert ("a status_503", "a abandoned", "held 1") in seen  # left in the repeat


def test_a_probe_is_given_back_at_whichever_step_the_client_leaves() -> None:
    async def leaving(after: int) -> None:
        asked = Scene(Reply(*STREAM), models="a")
        asked.fail("a")
        await asyncio.sleep(30)
        reader = asked.lead()
        for _ in range(after):
            await asyncio.sleep(0)
        reader.leave()
        await turns()
        assert asked.free("a")
        assert asked.closed == [len(asked.provider.calls)]

    for after in range(20):
        in_virtual_time(leaving(after))


def test_what_was_turned_away_is_in_the_metrics_and_in_nobodys_answer() -> None:
    async def scene() -> None:
        asked = Scene(
            says(500, b'{"secret": 1}'), Reply(event({"error": {"message": "secret"}}), b""), good(), models="a b c"
        )
        reader = await asked.answer()
        assert asked.meter.attempts == [
            ("sim", "a", "status_500"),
            ("sim", "b", "upstream_error"),
            ("sim", "c", "ok"),
        ]
        assert b"secret" not in raw(reader)
        assert reader.recording.head is not None
        assert reader.recording.head.status == 200

    in_virtual_time(scene())


def test_a_reader_waits_through_all_attempts_for_the_head_of_the_last() -> None:
    async def scene() -> None:
        last = Reply()
        asked = Scene(says(500), says(429), last, models="a b c")
        reader = asked.lead()
        head = asyncio.ensure_future(reader.head())
        await turns()
        assert not head.done()
        last.come(chunk("one"))
        assert (await head).status == 200
        reader.leave()
        await turns()

    in_virtual_time(scene())


def test_an_answer_that_is_no_error_of_ours_ends_clean_and_whatever_it_is_is_final() -> None:
    async def scene() -> None:
        for status in (204, 404, 418):
            asked = Scene(says(status, b""), models="a")
            reader = await asked.answer()
            assert reader.recording.end == Clean()
            assert (await reader.head()).status == status

    in_virtual_time(scene())


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (lambda: Reply(b"<html>", b"", content_type="text/html"), UpstreamBadContentType),
        (lambda: Reply(b"", **JSON), UpstreamTruncated),
        (lambda: UpstreamReset("lost"), UpstreamReset),
    ],
)
def test_where_nobody_is_left_the_last_error_is_the_answer(
    reply: Callable[[], Reply | Exception], error: type[UpstreamError]
) -> None:
    async def scene() -> None:
        asked = Scene(reply(), models="a")
        assert isinstance(error_of(await asked.answer()), error)

    in_virtual_time(scene())


# What the metrics are told.


def test_who_is_asked_after_a_failure_is_told_as_a_repeat_or_a_fallback() -> None:
    async def scene() -> None:
        asked = Scene(says(500), says(500), says(500), good())
        await asked.answer()
        assert asked.trace == ["a status_500", "b status_500", "b status_500", "b ok"]
        assert asked.meter.retries == [
            ("sim", "b", "fallback"),
            ("sim", "b", "repeat"),
            ("sim", "b", "repeat"),
        ]

    in_virtual_time(scene())


def test_a_first_attempt_and_a_repeat_that_is_not_made_are_no_retries() -> None:
    async def scene() -> None:
        asked = Scene(says(503), models="a")
        await asked.answer(ITSELF)
        assert asked.meter.retries == []

    in_virtual_time(scene())


def test_when_a_streams_events_came_is_told_from_the_first_that_says_something() -> None:
    async def scene() -> None:
        empty, *words = chunk(""), chunk("one"), chunk(" two"), chunk(finish="stop")
        asked = Scene(Reply(empty, 3.0, words[0], 0.5, words[1], 0.25, words[2], b""), models="a")
        await asked.answer()
        ((provider, model, times),) = asked.meter.paces
        assert (provider, model) == ("sim", "a")
        assert [each - times[0] for each in times] == pytest.approx([0, 0.5, 0.75])

    in_virtual_time(scene())


def test_of_what_is_no_stream_or_says_nothing_there_is_no_pace() -> None:
    async def scene() -> None:
        for reply in (says(200, b'{"choices": []}'), Reply(chunk(""), b""), UpstreamReset("lost")):
            asked = Scene(reply, models="a")
            await asked.answer()
            assert asked.meter.paces == []

    in_virtual_time(scene())


def test_lines_pauses_and_providers_are_elsewhere_until_a_stream_begins() -> None:
    async def scene() -> None:
        first = Reply()
        stream = Reply(3.0, chunk("one"), 4.0, *STREAM, b"")
        asked = Scene(first, says(503, retry_after="2"), stream, models="a", limiter=one_at_a_time("a"))
        busy, waits = await behind_one(asked, 1)
        now = asyncio.get_running_loop().time
        began, elsewhere = now(), waits.flight.elsewhere
        asyncio.get_running_loop().call_later(5.0, lambda: first.come(*STREAM, b""))
        await waits.head()
        assert now() - began >= 5 + 2 + 3
        assert elsewhere.added(began, now()) == pytest.approx(0)
        await waits.ended()
        assert elsewhere.added(began, now()) == pytest.approx(4)
        busy.leave()

    in_virtual_time(scene())


def test_json_is_elsewhere_until_it_is_whole() -> None:
    async def scene() -> None:
        asked = Scene(Reply(1.0, b"{", 2.0, b"}", 3.0, b"", **JSON), models="a")
        reader, now = asked.lead(), asyncio.get_running_loop().time
        await reader.ended()
        assert reader.flight.elsewhere.added(0, now()) == pytest.approx(0)
        assert reader.flight.elsewhere.kept(2, now()) == pytest.approx(0)
        assert reader.flight.elsewhere.kept(2, now() + 0.5) == pytest.approx(0.5)

    in_virtual_time(scene())


# Waiting for a turn.


def one_at_a_time(*models: str) -> Limiter:
    """Of each of these models; of all others as many as there are."""
    alone = dict.fromkeys([("sim", name) for name in models], Limits(max_concurrent=1))
    return Limiter(LoopClock(), providers={"sim": UNLIMITED}, models=alone, queue_timeout={"sim": 10.0})


async def behind_one(asked: Scene, replies: int) -> tuple[Reader, Reader]:
    """Who is being answered by the first model, and who waits for it."""
    busy, waits = asked.lead(), asked.lead()
    await turns()
    assert len(asked.provider.calls) == replies
    return busy, waits


def test_a_call_waits_for_its_turn_and_is_asked_then() -> None:
    async def scene() -> None:
        first = Reply()
        asked = Scene(first, good(), models="a", limiter=one_at_a_time("a"))
        busy, waits = await behind_one(asked, 1)
        first.come(*STREAM, b"")
        assert await waits.ended() == Clean()
        assert asked.trace == ["a ok", "a ok"]
        busy.leave()

    in_virtual_time(scene())


def test_who_waits_too_long_is_told_so_and_nothing_is_sent() -> None:
    async def scene() -> None:
        asked = Scene(Reply(), models="a", limiter=one_at_a_time("a"))
        busy, waits = await behind_one(asked, 1)
        await waits.ended()
        assert isinstance(error_of(waits), QueueTimeout)
        assert len(asked.provider.calls) == 1
        assert asked.free("a")
        busy.leave()
        await turns()

    in_virtual_time(scene())


@pytest.mark.parametrize(("models", "trace"), [("a b", ["a abandoned", "b ok"]), ("a", ["a abandoned"])])
def test_a_model_that_went_down_while_a_call_waited_for_it_is_not_asked(models: str, trace: list[str]) -> None:
    async def scene() -> None:
        asked = Scene(Reply(), good(), models=models, limiter=one_at_a_time("a"))
        busy, waits = await behind_one(asked, 1)
        await asyncio.sleep(1.0)
        asked.fail("a")
        busy.leave()
        await waits.ended()
        assert asked.trace == trace
        assert waits.recording.end == Clean() or isinstance(error_of(waits), UpstreamUnavailable)

    in_virtual_time(scene())
