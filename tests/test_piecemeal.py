"""What becomes of a list when a call that it waits for fails: its own, or another's that it joined."""

import asyncio
import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from proxy.core.embeddings import Part, joined
from proxy.errors import InsufficientQuota, OverCostCap, PenstockError, UpstreamConnectError, UpstreamReset
from proxy.gathered import Gathered
from proxy.piecemeal import AT_ONCE, Piecemeal
from proxy.pipeline import Live
from tests.fakes import Reply, an_asker, turns
from tests.test_pipeline import World, embedded, embeds


class Lists(World):
    """Lists in a world in which nothing is tried twice."""

    def __init__(self, *replies: Reply | Exception, **different: Any) -> None:
        super().__init__(*replies, **different)
        self.provider.max_retries = 0
        self.lists = Piecemeal(self.pipeline, self.plans, self.store, self.works.accounts, self.clock)

    async def asked(self, *inputs: str, **headers: str) -> Gathered:
        """A list that is under way."""
        said = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
        begun = await self.lists.begin(self.plan(embeds(*inputs, headers=said)), an_asker())
        assert isinstance(begun, Gathered)
        await turns()
        return begun

    async def answer(self, gathered: Gathered) -> list[Any] | int:
        """The vectors that it comes to, or the status of what is told in their place."""
        with gathered:
            instead = await self.lists.settle(gathered)
            if instead is not None:
                return (await instead.reader.head()).status
            answer = json.loads(await self.lists.body(gathered))
        await turns()
        return [each["embedding"] for each in answer["data"]]

    async def known(self, *inputs: str) -> None:
        """They were answered, and what they came to is old now."""
        assert len(await self.answer(await self.asked(*inputs))) == len(inputs)  # type: ignore[arg-type]
        self.clock.now += 120


def failure(status: int) -> Reply:
    return Reply(b'{"error": {"message": "no"}}', b"", status=status, content_type="application/json")


def waiting() -> Reply:
    return Reply(content_type="application/json")


@pytest.mark.parametrize(
    ("status", "is_failure"), [(400, False), (428, False), (429, True), (430, False), (499, False), (500, True)]
)
async def test_old_answers_stand_in_for_what_a_provider_fails_with_and_for_no_refusal(
    status: int, is_failure: bool
) -> None:
    world = Lists(embedded([1], [2]), failure(status), stale=600)
    await world.known("a", "bb")
    gathered = await world.asked("bb", "a")
    assert await world.answer(gathered) == ([[2], [1]] if is_failure else status)
    assert gathered.is_stale == is_failure


@pytest.mark.parametrize(
    ("error", "is_stale"), [(UpstreamConnectError("down"), True), (InsufficientQuota("spent"), False)]
)
async def test_old_answers_stand_in_for_a_provider_that_cannot_be_asked_and_for_no_client_that_may_not(
    error: PenstockError, is_stale: bool
) -> None:
    world = Lists(embedded([1]), error, stale=600)
    await world.known("a")
    gathered = await world.asked("a")
    if is_stale:
        assert await world.answer(gathered) == [[1]]
    else:
        with pytest.raises(type(error)):
            await world.answer(gathered)


async def test_old_answers_stand_in_where_nobody_may_be_asked_now() -> None:
    world = Lists(embedded([1]), stale=600)
    await world.known("a")

    async def nobody(*_: object) -> None:
        raise UpstreamConnectError("all of them are down")

    world.pipeline.rank = nobody  # type: ignore[assignment]
    assert await world.answer(await world.asked("a", x_penstock_max_cost_usd="1")) == [[1]]
    with pytest.raises(UpstreamConnectError):
        await world.asked("a", "bb", x_penstock_max_cost_usd="1")
    assert (len(world.flights), len(world.provider.calls)) == (0, 1)


async def test_who_joined_a_list_whose_payer_could_not_pay_asks_for_itself() -> None:
    gate = asyncio.Event()
    world = Lists(InsufficientQuota("spent"), embedded([1]))
    refuse = world.provider.open

    async def late(*args: Any, **named: Any) -> Reply:
        await gate.wait()
        return await refuse(*args, **named)

    world.provider.open = late  # type: ignore[method-assign]
    first = await world.asked("a", "bb")
    second = await world.asked("a")
    assert (len(first.own), len(second.own), len(second.others)) == (1, 0, 1)
    gate.set()
    with pytest.raises(InsufficientQuota):
        await world.answer(first)
    assert await world.answer(second) == [[1]]
    assert [call.body["input"] for call in world.provider.calls] == [["a", "bb"], ["a"]]


@pytest.mark.parametrize("status", [429, 500])
async def test_what_the_provider_of_a_call_fails_with_is_for_all_who_joined_it(status: int) -> None:
    slow = waiting()
    slow.status = status
    world = Lists(slow)
    first, second = await world.asked("a", "bb"), await world.asked("a")
    slow.come(b'{"error": {"message": "no"}}', b"")
    assert [await world.answer(each) for each in (first, second)] == [status, status]
    assert len(world.provider.calls) == 1


@pytest.mark.parametrize("pieces", [[UpstreamReset("lost")], [b'{"data": [', UpstreamReset("lost")]])
async def test_a_call_that_breaks_is_broken_for_all_who_joined_it(pieces: Sequence[Any]) -> None:
    slow = waiting()
    world = Lists(slow)
    first, second = await world.asked("a", "bb"), await world.asked("a")
    slow.come(*pieces)
    for each in (first, second):
        with pytest.raises(UpstreamReset):
            await world.answer(each)
    assert len(world.provider.calls) == 1


@pytest.mark.parametrize("status", [400, 428, 430, 499])
async def test_who_joined_what_was_refused_asks_for_itself_as_it_may_be_about_the_rest(status: int) -> None:
    slow = waiting()
    slow.status = status
    world = Lists(slow, embedded([1]))
    first, second = await world.asked("a", "bb"), await world.asked("a")
    slow.come(b'{"error": {"message": "no"}}', b"")
    assert [await world.answer(each) for each in (first, second)] == [status, [[1]]]


@pytest.mark.parametrize("shadow", [False, True])
async def test_a_list_that_may_not_cost_so_much_is_refused_before_anything_is_asked(shadow: bool) -> None:
    world = Lists(embedded([1]), shadow=shadow)
    plan = world.plan(embeds("a", headers={b"x-penstock-max-cost-usd": b"0"}))
    with pytest.raises(OverCostCap):
        await world.lists.begin(plan, an_asker())
    assert (len(world.flights), world.provider.calls) == (0, [])
    assert isinstance(await world.lists.begin(world.plan(embeds("a")), an_asker()), Live if shadow else Gathered)


@pytest.mark.parametrize("large", [False, True])
async def test_a_large_list_is_put_together_in_a_thread(large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    on_loop = []

    def noted(parts: Sequence[Part], form: str) -> bytes:
        on_loop.append(threading.current_thread() is threading.main_thread())
        return joined(parts, form)

    monkeypatch.setattr("proxy.piecemeal.joined", noted)
    vector = [0.5] * (AT_ONCE // 8 + 1 if large else 1)
    world = Lists(embedded(vector, vector))
    assert await world.answer(await world.asked("a", "bb")) == [vector, vector]
    assert on_loop == [not large]
