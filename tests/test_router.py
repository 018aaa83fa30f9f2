"""Who is asked, decided off the loop where it takes long, without a network, and with a reason where nobody is."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from tiktoken import Encoding

from pricing.cost import Usage
from pricing.encodings import Encodings, Name
from proxy.core.access import Grant
from proxy.core.breaker import Health
from proxy.core.call import Call, read_call
from proxy.core.chain import links_of
from proxy.core.embeddings import Input
from proxy.core.learned import Learned
from proxy.core.recording import Head, Recording
from proxy.core.routing import Choice, Routes
from proxy.core.sse import Event
from proxy.errors import NoModelFits, OverCostCap, PenstockError, PreviousResponseNotFound, UpstreamUnavailable
from proxy.router import AT_ONCE, Ranked, Router, encoding_for
from tests.fakes import Clock, a_call, some_routes, turns
from tests.scripted import chunk
from tests.support import DEADLINE

MODELS = {
    "cheap": {"price": {"input": "1", "output": "2"}, "window": 1000, "max_output": 100, "cannot": ["tools"]},
    "dear": {"price": {"input": "10", "output": "20"}, "window": 5_000_000, "max_output": 1000, "can": ["tools"]},
}
ROUTES = some_routes(MODELS)
ANY = ROUTES.choice("any")
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {}}}]


@cache
def loaded() -> Encodings:
    """For all tests: to load them takes 0.3 s."""
    return Encodings(threading.Lock())


class Watched(Encodings):
    """Tells who counts what."""

    def __init__(self) -> None:
        super().__init__(threading.Lock())
        self.counted: list[tuple[str, bool]] = []  # what, and whether the thread that counted it is the loop's own

    def get(self, name: Name) -> Encoding:
        return loaded().get(name)

    def count(self, text: str, name: Name) -> int:
        self.counted.append((text, threading.current_thread() is threading.main_thread()))
        return super().count(text, name)

    def said(self) -> list[str]:
        """The texts that were counted since the last time, but for single words."""
        found = [text for text, _ in self.counted if " " in text]
        self.counted.clear()
        return found


class Scene:
    """A router, nothing learned yet."""

    def __init__(self, routes: Routes = ROUTES) -> None:
        self.clock = Clock()
        self.health = Health()
        self.router = Router(Learned(self.health, kept_for=600.0), self.clock)
        self.watched = self.router._encodings = Watched()
        self.routes = routes

    async def consider(self, call: Call, choice: Choice = ANY) -> Ranked:
        return await self.router.consider(call, choice, "", links_of(call.body, b"secret", b""))

    async def order(self, call: Call, choice: Choice = ANY) -> list[str]:
        return [option.name for option in (await self.consider(call, choice)).order]

    async def refusal(self, call: Call, choice: Choice = ANY) -> PenstockError:
        ranked = await self.consider(call, choice)
        assert ranked.order == ()
        return self.router.refusal(ranked)

    def fail(self, name: str) -> None:
        option = next(option for option in ANY.options if option.name == name)
        for _ in range(5):
            self.health.bad(option.target.place(""), self.clock.now)


def talk(*contents: str) -> Call:
    """A conversation, the user first."""
    roles = ("user", "assistant")
    messages = [{"role": roles[number % 2], "content": content} for number, content in enumerate(contents)]
    return a_call(messages=messages)


async def ticking(until: asyncio.Future[Any]) -> int:
    """How often the loop came round until this was done."""
    ticks = 0
    while not until.done():
        ticks += 1
        await asyncio.sleep(0.001)
    return ticks


async def test_the_cheapest_that_can_is_first_and_the_next_is_asked_after_it() -> None:
    scene = Scene()
    assert await scene.order(a_call()) == ["cheap", "dear"]
    assert await scene.order(a_call(tools=TOOLS)) == ["dear"]


async def test_a_small_prompt_is_counted_on_the_loop_once_its_encoding_is_there() -> None:
    scene = Scene()
    await scene.consider(a_call("a small prompt"))
    assert {by_loop for _, by_loop in scene.watched.counted} == {False}  # the first one loads it
    scene.watched.counted.clear()
    await scene.consider(a_call("another small prompt"))
    assert {by_loop for _, by_loop in scene.watched.counted} == {True}


async def test_what_is_warm_is_counted_on_the_loop_at_once() -> None:
    scene = Scene()
    await scene.router.warm(ANY.options)
    await scene.consider(a_call("a small prompt"))
    assert {by_loop for _, by_loop in scene.watched.counted} == {True}


async def test_a_long_prompt_is_counted_in_a_thread_while_the_loop_turns() -> None:
    scene = Scene()
    await scene.router.warm(ANY.options)
    turned, waited = threading.Event(), []
    count = scene.watched.count

    def held(text: str, name: Name) -> int:
        """Goes on when the loop has turned: on the loop itself that would never be."""
        waited.append(turned.wait(DEADLINE))
        return count(text, name)

    scene.watched.count = held  # type: ignore[method-assign]
    call = a_call("word " * (AT_ONCE // 5 + 1))
    assert len(call.raw) > AT_ONCE
    considering = asyncio.ensure_future(scene.consider(call))
    await turns()
    assert not considering.done()
    turned.set()
    await considering
    assert all(waited)
    assert {by_loop for _, by_loop in scene.watched.counted} == {False}


async def test_what_a_conversation_said_before_is_not_counted_again() -> None:
    scene = Scene()
    said = ["the first question", "the first answer", "the second question"]
    await scene.consider(talk(*said[:1]))
    assert scene.watched.said() == ["the first question"]
    await scene.consider(talk(*said))
    assert scene.watched.said() == ["the first answer", "the second question"]
    await scene.consider(talk(*said))
    assert scene.watched.said() == []
    await scene.consider(talk("another question", *said[1:]))
    assert scene.watched.said() == ["another question", *said[1:]]


async def test_what_is_counted_in_parts_is_what_is_counted_at_once() -> None:
    said = ["the first question", "the first answer", "the second question"]
    scene, other = Scene(), Scene()
    for length in (1, 3):
        last = await scene.consider(talk(*said[:length]))
    once = await other.consider(talk(*said))
    assert last.ranking.order[0].input == once.ranking.order[0].input
    assert list(last.asked.base) == list(once.asked.base)


@pytest.mark.parametrize("text", ["a", "^", " ", "\n", "é", "ab "])
@pytest.mark.parametrize("headers", [{}, {b"x-penstock-max-cost-usd": b"1000"}])
async def test_a_prompt_that_was_made_to_take_long_leaves_the_loop_free(text: str, headers: dict[bytes, bytes]) -> None:
    scene = Scene()
    await scene.router.warm(ANY.options)
    call = a_call((text * 1_000_000)[:1_000_000], headers=headers)
    considering = asyncio.ensure_future(scene.consider(call))
    assert await ticking(considering) > 2
    assert (await considering).order[-1].name == "dear"


async def test_many_long_prompts_at_once_do_not_hold_up_a_small_one() -> None:
    scene = Scene()
    await scene.router.warm(ANY.options)
    ended: list[str] = []

    async def timed(name: str, call: Call) -> None:
        await scene.consider(call)
        ended.append(name)

    long = [asyncio.ensure_future(timed("long", a_call(f"{number} " + "^" * 1_000_000))) for number in range(4)]
    await turns()
    await timed("small", a_call("small"))
    await asyncio.gather(*long)
    assert ended == ["small", *["long"] * 4]


@contextlib.contextmanager
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within this nobody can open a socket or ask for an address."""

    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("a socket was opened")

    with monkeypatch.context() as patched:
        for name in ("socket", "create_connection", "getaddrinfo", "socketpair"):
            patched.setattr(socket, name, refused)
        yield


async def test_no_decision_ever_asks_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene()
    scene.router._encodings = Encodings(threading.Lock())  # not loaded yet
    names = ("gpt-4o", "gpt-4", "claude-sonnet-4-5", "nobody-knows-me")
    choices = [some_routes({name: {}, **MODELS}).choice("any") for name in names]
    with no_network(monkeypatch):
        for choice in choices:
            await scene.router.warm(choice.options[:1])
            await scene.consider(a_call("hello"), choice)
            await scene.consider(a_call("hello " * 10_000, headers={b"x-penstock-max-cost-usd": b"1"}), choice)
            await scene.router.estimate(a_call("hello"), choice.options[0], recorded("one"))


def test_the_encoding_is_that_of_all_or_the_one_that_most_are_estimated_with() -> None:
    routes = some_routes({name: {} for name in ("gpt-4o", "gpt-4", "gpt-4-turbo", "nobody-knows-me")})
    gpt_4o, gpt_4, turbo, unknown = routes.choice("any").options
    assert encoding_for([gpt_4, turbo]) == "cl100k_base"
    assert encoding_for([gpt_4o, unknown]) == "o200k_base"
    assert encoding_for([gpt_4, gpt_4o]) == "o200k_base"


# Where nobody may be asked.


async def test_a_request_that_no_model_can_answer_is_told_each_ones_reason() -> None:
    scene = Scene()
    refusal = await scene.refusal(a_call("word " * 2000, max_tokens=5000))
    assert isinstance(refusal, NoModelFits)
    assert (refusal.status, refusal.param) == (400, "model")
    assert "cheap: 2,0" in refusal.message
    assert "over its window of 1,000" in refusal.message
    assert "dear: its answers have at most 1,000 tokens" in refusal.message


async def test_a_cap_that_no_model_is_sure_to_keep_is_told_each_ones_most() -> None:
    refusal = await Scene().refusal(a_call(headers={b"x-penstock-max-cost-usd": b"0.0001"}))
    assert isinstance(refusal, OverCostCap)
    assert (refusal.status, refusal.param, refusal.retry) == (400, "x-penstock-max-cost-usd", False)
    assert "cheap: it may cost 0.0002" in refusal.message
    assert "dear: it may cost 0.02" in refusal.message


async def test_a_cap_leaves_those_that_keep_it() -> None:
    scene = Scene()
    assert await scene.order(a_call(headers={b"x-penstock-max-cost-usd": b"0.001"})) == ["cheap"]
    assert await scene.order(a_call(headers={b"x-penstock-max-cost-usd": b"1"})) == ["cheap", "dear"]


async def test_where_all_are_down_it_is_told_when_the_first_is_tried_again_and_why_no_other() -> None:
    scene = Scene()
    scene.fail("dear")
    scene.clock.now += 10
    scene.fail("cheap")
    refusal = await scene.refusal(a_call())
    assert isinstance(refusal, UpstreamUnavailable)
    assert (refusal.status, refusal.retry_after) == (503, 20)
    assert "cheap: it failed too often just now; dear: it failed too often just now" in refusal.message
    refusal = await scene.refusal(a_call(tools=TOOLS))
    assert isinstance(refusal, UpstreamUnavailable)
    assert "cheap: cannot do tools; dear: it failed" in refusal.message


async def test_a_model_that_would_keep_the_cap_and_is_down_is_worth_another_try() -> None:
    scene = Scene()
    scene.fail("cheap")
    refusal = await scene.refusal(a_call(headers={b"x-penstock-max-cost-usd": b"0.001"}))
    assert isinstance(refusal, UpstreamUnavailable)
    assert refusal.retry is None
    assert "cheap: it failed too often just now; dear: it may cost" in refusal.message


async def test_who_is_down_is_not_asked_and_who_cools_only_where_nobody_else_is_left() -> None:
    scene = Scene()
    scene.fail("cheap")
    assert await scene.order(a_call()) == ["dear"]
    scene.health.cool(ANY.options[1].target.place(""), scene.clock.now, 10.0)
    assert await scene.order(a_call()) == ["dear"]
    scene.clock.now += 31
    assert await scene.order(a_call()) == ["cheap", "dear"]


async def test_a_model_that_the_client_named_itself_is_asked_though_it_seems_unfit() -> None:
    scene = Scene()
    choice = ROUTES.choice("cheap")
    call = a_call(tools=TOOLS, headers={b"x-penstock-max-cost-usd": b"1"})
    assert await scene.order(call, choice) == ["cheap"]


# What is under way, and what it teaches.


def waiting(scene: Scene) -> int:
    return scene.router.learned._waiting.total()


async def test_a_call_counts_as_under_way_until_it_ends_however_it_does() -> None:
    scene = Scene()
    ranked = await scene.consider(a_call())
    with scene.router.asking(ranked):
        assert waiting(scene) == 1
        with scene.router.asking(ranked):
            assert waiting(scene) == 2
    assert waiting(scene) == 0
    for error in (ValueError, asyncio.CancelledError):
        with pytest.raises(error), scene.router.asking(ranked):
            raise error
    assert waiting(scene) == 0

    async def asks() -> None:
        with scene.router.asking(ranked):
            await asyncio.Event().wait()

    task = asyncio.ensure_future(asks())
    await turns()
    assert waiting(scene) == 1
    task.cancel()
    await turns()
    assert waiting(scene) == 0
    with scene.router.asking(None):
        assert waiting(scene) == 0


async def test_what_a_model_answered_is_what_is_expected_of_it() -> None:
    scene = Scene()
    call = a_call("how long is it")
    for _ in range(20):
        ranked = await scene.consider(call)
        scene.router.learn(ranked, ANY.options[1], Usage(input=12, cached=0, output=70), first=0.5, began=1000.0)
    dear = next(each for each in (await scene.consider(call)).ranking.order if each.option.name == "dear")
    assert 40 < dear.output <= 70
    assert dear.first == 0.5


async def test_an_answer_of_who_was_not_in_the_ranking_teaches_nothing() -> None:
    """The baseline confirms a refusal, even where it was dropped."""
    scene = Scene()
    ranked = await scene.consider(a_call("word " * 2000))
    assert [option.name for option in ranked.order] == ["dear"]
    scene.router.learn(ranked, ANY.options[0], Usage(input=9, cached=0, output=9), first=None, began=1000.0)
    assert not scene.router.learned.changed


# What a stream that says no usage is taken for.


def recorded(*words: str, max_entry: int = 1 << 20) -> Recording:
    recording = Recording(max_entry)
    recording.head = Head(200, "stream", b"text/event-stream")
    for word in words:
        raw = chunk(word)
        recording.append(Event(raw, raw[6:-2], None), 0.0)
    return recording


async def test_a_stream_without_usage_is_estimated_by_its_prompt_and_what_came() -> None:
    scene = Scene()
    await scene.router.warm(ANY.options)
    usage = await scene.router.estimate(a_call("five words or so here"), ANY.options[0], recorded("one two", " three"))
    assert usage == Usage(input=12, cached=0, output=3)
    assert {by_loop for _, by_loop in scene.watched.counted} == {False}


async def test_where_nothing_is_routed_a_guess_will_do_and_no_encoding_is_loaded() -> None:
    scene = Scene()
    text = "A proxy that routes nothing has no use for an encoding, and to load one holds up everybody. " * 20
    usage = await scene.router.estimate(a_call(text), ANY.options[0], recorded(text))
    assert usage.input == pytest.approx(20 * 19, rel=0.25)
    assert usage.output == pytest.approx(20 * 19, rel=0.25)
    assert scene.watched.counted == []


async def test_of_a_stream_that_was_let_go_each_event_is_a_token() -> None:
    recording = recorded(*["one two"] * 10)
    recording.let_go(4)
    usage = await Scene().router.estimate(a_call(), ANY.options[0], recording)
    assert usage.output == 10


async def test_nothing_that_came_is_an_answer_of_no_tokens() -> None:
    assert (await Scene().router.estimate(a_call(), ANY.options[0], recorded())).output == 0


# Of a list, what each input weighs.


async def test_an_input_weighs_its_tokens_and_tokens_weigh_themselves() -> None:
    scene = Scene()
    await scene.router.warm(ANY.options)
    inputs: list[Input] = ["five words or so here", [1, 2, 3], "", [7]]
    assert await scene.router.weigh(inputs, ANY.options[0]) == [5, 3, 0, 1]
    assert {by_loop for _, by_loop in scene.watched.counted} == {True}


async def test_where_no_encoding_is_there_none_is_loaded_to_weigh_a_list() -> None:
    scene = Scene()
    short, long = await scene.router.weigh(["a word", "a word " * 50], ANY.options[0])
    assert 0 < short < long
    assert scene.watched.counted == []


async def test_a_long_list_is_weighed_in_a_thread() -> None:
    scene = Scene()
    await scene.router.warm(ANY.options)
    inputs: list[Input] = ["word " * 100] * (AT_ONCE // 500 + 1)
    assert set(await scene.router.weigh(inputs, ANY.options[0])) == {101}
    assert {by_loop for _, by_loop in scene.watched.counted} == {False}


# What a provider holds for one key is no other's.


def going_on(name: object, owner: str) -> Call:
    raw = json.dumps({"model": "any", "input": "and then?", "previous_response_id": name}).encode()
    return read_call("responses", raw, {}, grant=Grant(owner, owner))


def test_nobody_goes_on_from_what_was_made_for_another_key() -> None:
    scene = Scene()
    scene.router.learned.holds("resp_1", "pk_1", ANY.options[0].target.place(""), scene.clock.now)
    for name, owner in (("resp_1", "pk_1"), ("resp_2", "pk_2"), (None, "pk_2"), ("", "pk_2"), ("resp_1", "")):
        scene.router.check_held(going_on(name, owner))
    with pytest.raises(PreviousResponseNotFound) as caught:
        scene.router.check_held(going_on("resp_1", "pk_2"))
    assert (caught.value.status, caught.value.param) == (400, "previous_response_id")


async def test_a_conversation_that_a_provider_holds_goes_on_there_though_another_is_cheaper() -> None:
    scene = Scene()
    dear = ANY.options[1]
    scene.router.learned.holds("resp_1", "", dear.target.place(""), scene.clock.now)
    assert await scene.order(going_on("resp_1", "")) == ["dear", "cheap"]
    models = {name: {**said, "provider": name} for name, said in MODELS.items()}
    providers = {name: {"base_url": f"http://{name}/v1", "auth": "none"} for name in MODELS}
    routes = {"any": {"models": list(MODELS), "baseline": "cheap"}}
    apart = some_routes(models, providers=providers, routes=routes, routing={"default_provider": "cheap"}).choice("any")
    scene.router.learned.holds("resp_2", "", apart.options[1].target.place(""), scene.clock.now)
    assert await scene.order(going_on("resp_2", ""), apart) == ["dear"]
    assert await scene.order(going_on("resp_3", ""), apart) == ["cheap"]
