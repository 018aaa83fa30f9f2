"""What each answer cost and saved: by the usage that its provider said, else estimated where something came."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from pricing.cost import Rates, Usage
from pricing.models import Hours, Model, Period
from proxy.app import build_app
from proxy.claims import Claimed
from proxy.core.bill import Bill
from proxy.core.books import Shadow
from proxy.core.breaker import Health
from proxy.core.call import Call
from proxy.core.entry import Entry, Meta, make_entry
from proxy.core.learned import Learned
from proxy.core.recording import Broken, Ending, Recording
from proxy.core.routing import Option, Target
from proxy.errors import PenstockError, UpstreamConnectError, UpstreamReset, UpstreamTimeout
from proxy.flights import Flight, Flights, Reader
from proxy.producer import Job
from proxy.reading import read_settings
from proxy.router import Router
from tests.fakes import Clock, Meter, Provider, Reply, Works, a_call, roomy, some_routes, turns
from tests.scripted import DONE, Scripted, chunk, event, whole_stream
from tests.support import CHAT, ask, eventually_async

JSON: dict[str, Any] = {"content_type": "application/json"}
MODELS: dict[str, dict[str, Any]] = {
    "cheap": {"price": {"input": "1", "cached_input": "0.5", "output": "2"}},
    "free": {"price": {"input": "0", "output": "0"}},
    "unpriced": {"window": 1000},
    "dear": {"price": {"input": "10", "output": "20"}},
}
CHOICE = some_routes(MODELS).choice("any")
UNSAID = [chunk("one two"), chunk(" three four"), chunk(finish="stop"), DONE]


def said(prompt: int, output: int, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": output, **more}


def completion(**members: Any) -> Reply:
    choice = {"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}
    return Reply(event({"choices": [choice], **members})[6:], b"", **JSON)


class Scene:
    """A producer and its accounts among fakes; whatever model is asked, the replies come one after the other."""

    def __init__(self, *replies: Reply | Exception, asks: str = "cheap dear") -> None:
        self.order = [option for name in asks.split() for option in CHOICE.options if option.name == name]
        self.meter, clock = Meter(), Clock()
        self.flights = Flights(on_abandon="cancel", max_entry=1 << 20, load=roomy())
        self.works = Works({"sim": Provider(*replies)}, self.flights, self.meter, clock)
        self.router, self.accounts, self.book = self.works.router, self.works.accounts, self.works.ledger

    def lead(self, call: Call | None = None) -> Reader:
        """A call that is being answered, as the pipeline has it answered."""

        async def produce(flight: Flight) -> None:
            asked = call or a_call(stream=True)
            job = Job(flight, asked, CHOICE, "", flight.asker, Claimed())
            found = [await self.router.suppose(asked, option) for option in self.order]
            end: Ending
            try:
                end = await self.works.producer.make(job, found)
            except PenstockError as error:
                end = Broken(error)
            flight.finish(end)

        return self.flights.lead((), produce, ttl=0)

    async def settled(self, reader: Reader) -> Bill | None:
        """Once all is counted that is to be."""
        await turns()
        await self.accounts.close()
        return reader.flight.bill

    async def bill(self, call: Call | None = None) -> Bill | None:
        reader = self.lead(call)
        await reader.ended()
        return await self.settled(reader)


async def test_a_stream_costs_what_its_usage_says_at_once() -> None:
    scene = Scene(Reply(*whole_stream("a"), b""))
    reader = scene.lead()
    await reader.ended()
    bill = reader.flight.bill  # before its readers are told of the end
    assert bill is not None
    assert bill.usage == Usage(input=1, cached=0, output=2)
    assert bill.usd == Decimal("0.000005")
    assert not bill.estimated
    assert scene.meter.bills == [bill]


async def test_a_json_answer_costs_what_its_usage_says_with_the_cached_part_apart() -> None:
    usage = said(1_000_000, 10, prompt_tokens_details={"cached_tokens": 400_000})
    bill = await Scene(completion(usage=usage)).bill(a_call())
    assert bill is not None
    assert bill.usd == Decimal("0.80002")
    assert bill.prompt_cache == Decimal("0.2")


async def test_the_model_that_answered_is_billed_and_no_other() -> None:
    scene = Scene(Reply(b"{}", b"", status=500, **JSON), Reply(*whole_stream("a"), b""))
    bill = await scene.bill()
    assert bill is not None
    assert bill.option.name == "dear"
    assert bill.usd == Decimal("0.00005")
    assert bill.routing == 0  # it is what the baseline costs
    assert scene.meter.bills == [bill]


@pytest.mark.parametrize(("asks", "routing"), [("cheap", "0.000045"), ("free", "0.00005"), ("unpriced", None)])
async def test_routing_saves_what_the_baseline_would_have_cost_less_what_was_paid(asks: str, routing: str) -> None:
    bill = await Scene(Reply(*whole_stream("a"), b""), asks=asks).bill()
    assert bill is not None
    assert bill.routing == (None if routing is None else Decimal(routing))


async def test_a_model_without_a_price_has_tokens_and_no_amount() -> None:
    bill = await Scene(Reply(*whole_stream("a"), b""), asks="unpriced").bill()
    assert bill is not None
    assert (bill.usage, bill.usd) == (Usage(input=1, cached=0, output=2), None)


async def test_a_json_answer_without_usage_is_counted_and_marked() -> None:
    choice = {"index": 0, "message": {"content": "one two three four"}, "finish_reason": "stop"}
    bill = await Scene(completion(choices=[choice])).bill(a_call("five words or so here"))
    assert bill is not None
    assert bill.usage is not None
    assert (bill.usage.input, bill.usage.output, bill.estimated) == (12, 4, True)


@pytest.mark.parametrize("usage", [{"prompt_tokens": -1, "completion_tokens": 1}, "much", [], {"prompt_tokens": "1"}])
async def test_a_usage_that_makes_no_sense_is_none(usage: object) -> None:
    bill = await Scene(completion(usage=usage)).bill(a_call())
    assert bill is not None
    assert bill.usage is not None
    assert bill.estimated


async def test_a_stream_without_usage_is_counted_behind_it_and_marked() -> None:
    scene = Scene(Reply(*UNSAID, b""))
    bill = await scene.bill(a_call("five words or so here", stream=True))
    assert bill is not None
    assert bill.usage is not None
    assert bill.estimated
    assert (bill.usage.input, bill.usage.output) == (12, 4)  # 5 words and the frame of a message; 4 words
    assert bill.usd == Decimal("0.00002")
    assert scene.meter.bills == [bill]


async def test_what_came_before_its_client_left_is_paid() -> None:
    scene = Scene(Reply(*UNSAID[:1]))
    reader = scene.lead()
    await turns()
    reader.leave()
    bill = await scene.settled(reader)
    assert bill is not None
    assert bill.usage is not None
    assert bill.estimated
    assert bill.usage.input > 0
    assert bill.usage.output == 2  # of the 4 words that it would have had


async def test_what_came_before_it_broke_is_paid() -> None:
    bill = await Scene(Reply(UNSAID[0], UpstreamReset("lost"))).bill()
    assert bill is not None
    assert bill.usage is not None
    assert (bill.estimated, bill.usage.output) == (True, 2)


async def test_a_stream_that_broke_after_its_usage_costs_what_that_says() -> None:
    pieces = whole_stream("a")[:-1]
    bill = await Scene(Reply(*pieces, UpstreamReset("lost"))).bill()
    assert bill is not None
    assert (bill.estimated, bill.usd) == (False, Decimal("0.000005"))


async def test_a_usage_that_was_said_before_the_answer_came_is_not_all_that_it_costs() -> None:
    early = event({"choices": [], "usage": said(10, 0)})
    bill = await Scene(Reply(early, *UNSAID[:2], UpstreamReset("lost"))).bill()
    assert bill is not None
    assert bill.usage == Usage(input=10, cached=0, output=4)
    assert bill.estimated


async def test_an_answer_whose_status_is_another_success_costs_what_it_says() -> None:
    bill = await Scene(completion(usage=said(5, 5)), asks="cheap").bill(a_call())
    assert bill is not None
    choice = {"index": 0, "message": {"content": "one two three four"}, "finish_reason": "stop"}
    created = Reply(event({"choices": [choice], "usage": said(5, 5)})[6:], b"", status=201, **JSON)
    other = await Scene(created, asks="cheap").bill(a_call())
    assert other is not None
    assert other.usd is not None
    assert other.usd > 0


@pytest.mark.parametrize(
    "reply",
    [
        lambda: Reply(event({"error": {}})[6:], b"", status=500, **JSON),
        lambda: Reply(event({"usage": said(5, 5)})[6:], b"", status=400, **JSON),
        lambda: Reply(event({"error": {"message": "no"}}), b""),
        lambda: Reply(event({"error": {"message": "no"}})[6:], b"", **JSON),
        lambda: Reply(b"<html>", b"", content_type="text/html"),
        lambda: UpstreamConnectError("refused"),
    ],
)
async def test_an_error_costs_nothing(reply: Callable[[], Reply | Exception]) -> None:
    scene = Scene(reply(), asks="dear")
    assert await scene.bill(a_call(headers={b"x-stainless-retry-count": b"0"})) is None
    assert scene.meter.bills == []


async def cut(scene: Scene, call: Call, *, leaves: bool) -> Bill:
    reader = scene.lead(call)
    await turns()
    if leaves:
        reader.leave()
    bill = await scene.settled(reader)
    assert bill is not None
    assert bill.estimated
    assert scene.meter.bills == [bill]
    return bill


@pytest.mark.parametrize(("leaves", "reply"), [(True, Reply()), (False, Reply(UpstreamReset("lost")))])
async def test_a_stream_that_is_cut_before_anything_came_costs_its_prompt(leaves: bool, reply: Reply) -> None:
    bill = await cut(Scene(reply, asks="cheap"), a_call("five words or so here", stream=True), leaves=leaves)
    assert bill.usage == Usage(input=12, cached=0, output=0)


@pytest.mark.parametrize(
    ("leaves", "reply", "stream"),
    [
        (True, Reply(**JSON), False),
        (False, Reply(UpstreamReset("lost"), **JSON), False),
        (False, UpstreamTimeout("late"), False),
        (False, UpstreamTimeout("late"), True),
    ],
)
async def test_any_other_call_that_is_cut_costs_all_that_was_set_aside(
    leaves: bool, reply: Reply | Exception, stream: bool
) -> None:
    scene = Scene(reply, asks="cheap")
    call = a_call("five words or so here", stream=stream, max_tokens=1000)
    bill = await cut(scene, call, leaves=leaves)
    # 1,000 tokens at 2, and no less than 12 at 1.
    assert bill.usage is None
    assert bill.usd is not None
    assert Decimal("0.002012") <= bill.usd < Decimal("0.0021")
    assert bill.usd == scene.book.intents[0].reserved


async def test_what_is_never_sent_is_neither_charged_nor_counted() -> None:
    scene = Scene(asks="cheap")
    reader = scene.lead()
    reader.leave()
    assert await scene.settled(reader) is None
    assert (scene.meter.bills, scene.book.intents) == ([], [])


class Counting(Router):
    """Counts when it may."""

    def __init__(self) -> None:
        super().__init__(Learned(Health(), kept_for=60.0), Clock())
        self.may = asyncio.Event()

    async def estimate(self, call: Call, option: Option, recording: Recording | None) -> Usage:
        await self.may.wait()
        return await super().estimate(call, option, recording)


async def test_closing_waits_for_what_is_being_counted() -> None:
    scene = Scene(*(Reply(*UNSAID, b"") for _ in range(5)))
    counting = Counting()
    scene.accounts._router = counting
    readers = [scene.lead() for _ in range(5)]
    for reader in readers:
        await reader.ended()
    await turns()
    closing = asyncio.create_task(scene.accounts.close())
    await turns()
    assert (scene.meter.bills, closing.done()) == ([], False)
    counting.may.set()
    await closing
    assert len(scene.meter.bills) == 5
    assert asyncio.all_tasks() == {asyncio.current_task()}


# What is given again.

NIGHT = Hours((Period((1, 2, 3, 4, 5, 6, 7), "00:00", "01:00"),), Rates(input=Decimal(1), output=Decimal(1)))
DAILY = Model(
    provider="", id="m", standard=Rates(input=Decimal(4), output=Decimal(4)), hours=(NIGHT,), tokenizer="unknown"
)
OPTION = Option("m", Target("sim", "http://sim/v1", "m"), DAILY)
USAGE = Usage(input=500_000, cached=0, output=500_000)


def an_entry(usage: Usage | None = USAGE) -> Entry:
    meta = Meta(
        key=b"key",
        kind="stream",
        provider="sim",
        model="m",
        ended=0.0,
        ttl=60.0,
        epoch=0,
        usage_asked=True,
        has_usage=True,
        usage=usage,
    )
    return make_entry(meta, [], [])


def at(clock: str) -> float:
    """Seconds since the epoch at a time of some day."""
    return datetime.fromisoformat(f"2026-01-05T{clock}").replace(tzinfo=UTC).timestamp()


def test_a_hit_saves_what_the_answer_would_cost_at_this_hour() -> None:
    scene, entry = Scene(), an_entry()
    given = [scene.accounts.given_again(entry, OPTION, at(clock)) for clock in ("00:59:59", "01:00:00", "23:59:59")]
    assert given == [1, 4, 4]


def test_the_worth_of_a_hit_is_reckoned_once_a_minute() -> None:
    scene, entry = Scene(), an_entry()
    assert scene.accounts.given_again(entry, OPTION, at("12:00:00")) == 4
    entry.worth.usd = Decimal(7)  # as no reckoning would have it
    assert scene.accounts.given_again(entry, OPTION, at("12:00:59")) == 7
    assert scene.accounts.given_again(entry, OPTION, at("12:01:00")) == 4


def test_a_hit_whose_worth_is_not_known_saves_nothing_known() -> None:
    scene = Scene()
    assert scene.accounts.given_again(an_entry(None), OPTION, at("12:00:00")) is None
    unpriced = Option("m", OPTION.target)
    assert scene.accounts.given_again(an_entry(), unpriced, at("12:00:00")) is None


@pytest.mark.parametrize(
    ("shadow", "causes"), [("hit", ["cache"]), ("collapsed", ["collapse"]), ("miss", []), (None, [])]
)
async def test_what_the_cache_would_have_saved_is_the_bill_even_where_it_is_counted_later(
    shadow: Shadow | None, causes: list[str]
) -> None:
    scene = Scene(Reply(b"{}", b"", status=500, **JSON), Reply(*UNSAID, b""))
    reader = scene.lead()
    reader.flight.shadow = shadow
    await reader.ended()
    bill = await scene.settled(reader)
    assert bill is not None
    assert bill.estimated
    assert scene.meter.would == [(cause, "dear", bill.usd, "") for cause in causes]


async def test_what_came_of_an_answer_that_a_shutdown_ends_is_counted(
    scripted: Scripted, prompt: str, tmp_path: Path
) -> None:
    table = {
        "providers": {"sim": {"base_url": scripted.base_url, "auth": "none"}},
        "data": {"directory": str(tmp_path)},
        "models": MODELS,
    }
    async with (
        build_app(read_settings(table, source="test"), api_keys={}) as app,
        httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi), base_url="http://localhost") as client,
    ):
        asking = asyncio.ensure_future(client.post(CHAT, json=ask(prompt, model="cheap", stream=True)))
        turn = await asyncio.to_thread(scripted.turn)
        turn.head()
        turn.send(*UNSAID[:1])
        await eventually_async(lambda: app.flights.load.recorded > len(UNSAID[0]))
        await app.flights.close()
        await asyncio.wait([asking])
        assert asking.exception() is not None  # its client is told by an end that is none
    assert b'penstock_cost_usd_total{estimated="true",key="",model="cheap",provider="sim"}' in app.meter.exposition()
