"""What is set aside before an attempt, of the budget and of the minute of who pays; who pays where the leader left."""

import asyncio
from decimal import Decimal

import pytest

from proxy.claims import Claimed, Claims
from proxy.core.access import Allowance, Grant, Limits, Period
from proxy.core.asker import Asker
from proxy.core.budget import Purse, Purses
from proxy.core.ranking import Estimate
from proxy.core.recording import Broken, Ending
from proxy.core.routing import Choice
from proxy.errors import InsufficientQuota, ModelNotPriced, OverLimit, PenstockError, RateLimited
from proxy.flights import Flight, Flights, Reader
from proxy.limiter import Limiter
from proxy.producer import Job
from tests.core.making import option, prompt, rates, unknown
from tests.fakes import Clock, Meter, Provider, Reply, Works, a_call, roomy, turns
from tests.scripted import whole_stream

D = Decimal
NOTHING = (Decimal(0), Decimal(0))
OPTION = option("m", rates("1", "2"))


def a_grant(usd: str | None = None, *, name: str = "team", per: Period = "total", tokens: int | None = None) -> Grant:
    budget = None if usd is None else Allowance(D(usd), per)
    return Grant(name, name, budget=budget, limits=Limits(tokens_per_minute=tokens))


def found(most: str, tokens: int = 10, **members: object) -> Estimate:
    usd = D(most) / 2
    return Estimate(OPTION, prompt(1).under(None), usd=usd, most=D(most), tokens=tokens, **members)  # type: ignore[arg-type]


class Scene:
    def __init__(self) -> None:
        clock = Clock()
        self.limiter = Limiter(clock, providers={}, models={}, queue_timeout={})
        self.purses = Purses()
        self.claims = Claims(self.limiter, self.purses, clock)

    def purse(self, grant: Grant) -> Purse:
        purse = self.purses.of(grant, 0.0)
        assert purse is not None
        return purse


def test_a_key_without_limits_sets_nothing_aside() -> None:
    scene = Scene()
    scene.claims.make(a_grant(), Estimate(unknown("x"), prompt(1).under(None)))
    assert scene.claims.left(a_grant()) is None


def test_as_much_as_it_may_cost_is_set_aside_and_what_it_did_not_is_given_back() -> None:
    scene, grant = Scene(), a_grant("1")
    claim = scene.claims.make(grant, found("0.8"))
    assert (claim.usd, scene.claims.left(grant)) == (D("0.8"), D("0.2"))
    with pytest.raises(InsufficientQuota):
        scene.claims.make(grant, found("0.3"))
    claim.settle(D("0.1"), 5)
    assert scene.claims.left(grant) == D("0.9")


def test_what_nobody_knows_the_cost_of_is_charged_all_that_was_set_aside() -> None:
    scene, grant = Scene(), a_grant("1")
    scene.claims.make(grant, found("0.8")).settle(None, 5)
    assert scene.purse(grant).spent == D("0.8")


def test_a_key_with_a_budget_asks_no_model_without_a_price() -> None:
    scene, grant = Scene(), a_grant("1")
    with pytest.raises(ModelNotPriced) as caught:
        scene.claims.make(grant, Estimate(unknown("x"), prompt(1).under(None)))
    assert (caught.value.status, caught.value.code) == (403, "model_not_priced")


def test_a_key_with_a_budget_asks_for_no_service_without_a_price() -> None:
    scene, grant = Scene(), a_grant("1")
    with pytest.raises(ModelNotPriced, match='no price of m with `service_tier` "fast" is known') as caught:
        scene.claims.make(grant, found("0.1", service="fast"))
    assert "leave `service_tier` out" in caught.value.message
    assert caught.value.param == "service_tier"
    assert not scene.claims.affords(grant, found("0.1", service="fast"))
    assert scene.claims.left(grant) == 1
    bare = Estimate(unknown("x"), prompt(1).under(None), reason="unpriced")
    refusal = scene.claims.refusal(grant, [bare, found("0.1", service="fast", reason="unpriced")])
    assert refusal is not None
    assert (refusal.param, "its operator may set one" in refusal.message) == ("model", True)


def test_where_there_are_no_tokens_left_no_money_stays_set_aside() -> None:
    scene, grant = Scene(), a_grant("1", tokens=15)
    scene.claims.make(grant, found("0.1"))
    for tokens, kind in ((10, RateLimited), (16, OverLimit)):
        with pytest.raises(kind):
            scene.claims.make(grant, found("0.1", tokens))
    assert scene.purse(grant).reserved == D("0.1")


def test_tokens_that_were_not_used_are_there_again() -> None:
    scene, grant = Scene(), a_grant(tokens=15)
    scene.claims.make(grant, found("0.1", 15)).settle(D(0), 5)
    scene.claims.make(grant, found("0.1", 10))


def test_something_is_set_aside_for_the_first_that_there_is_enough_for() -> None:
    scene, grant = Scene(), a_grant("1")
    dear, cheap = found("3"), found("0.5")
    other = Estimate(option("c", rates("1", "1")), cheap.count, usd=D("0.1"), most=D("0.5"))
    claimed = scene.claims.first(grant, [dear, other])
    assert claimed.option is other.option
    assert scene.purse(grant).reserved == D("0.5")
    claimed.give_back()
    claimed.give_back()
    assert scene.purse(grant).reserved == 0
    with pytest.raises(InsufficientQuota, match="may cost 3;"):
        Scene().claims.first(a_grant("1", per="day"), [dear])


def test_what_was_taken_for_an_attempt_is_not_given_back_twice() -> None:
    scene, grant = Scene(), a_grant("1")
    claimed = scene.claims.first(grant, [found("0.5")])
    claim = claimed.take()
    claimed.give_back()
    assert scene.purse(grant).reserved == D("0.5")
    claim.settle(D("0.5"), 1)
    assert (scene.purse(grant).spent, scene.purse(grant).reserved) == (D("0.5"), D(0))


def test_the_refusal_is_the_budgets_only_where_it_is_the_budgets_doing() -> None:
    claims, grant = Scene().claims, a_grant("1")
    dear = found("3", reason="budget")
    assert isinstance(claims.refusal(grant, [dear]), InsufficientQuota)
    assert isinstance(claims.refusal(grant, [found("3", reason="unpriced")]), ModelNotPriced)
    assert claims.refusal(grant, [dear, found("1", reason="down")]) is None  # in a moment it will do
    assert claims.refusal(grant, [found("1", reason="tools")]) is None
    assert claims.refusal(a_grant(), [dear]) is None


# Who pays.


class Shared:
    """A producer whose provider takes one call at a time, and flights that several keys read."""

    def __init__(self, *replies: Reply) -> None:
        clock = Clock()
        self.provider = Provider(*replies)
        self.flights = Flights(on_abandon="cancel", max_entry=1 << 20, load=roomy())
        limits = Limits(max_concurrent=1)
        self.limiter = Limiter(clock, providers={"m": limits}, models={}, queue_timeout={"m": 60.0})
        self.works = Works({"m": self.provider}, self.flights, Meter(), clock, limiter=self.limiter)

    def lead(self, grant: Grant, request: str) -> Reader:
        call = a_call(stream=True, max_tokens=1000)

        async def produce(flight: Flight) -> None:
            estimate = await self.works.router.suppose(call, OPTION)
            job = Job(flight, call, Choice((OPTION,), OPTION), "", flight.asker, Claimed())
            end: Ending
            try:
                end = await self.works.producer.make(job, [estimate])
            except PenstockError as error:
                end = Broken(error)
            flight.finish(end)

        return self.flights.lead((), produce, ttl=0, asker=Asker(request, "chat", grant))

    def join(self, reader: Reader, grant: Grant, request: str) -> Reader:
        return reader.flight.reader(asker=Asker(request, "chat", grant))

    def spent(self, grant: Grant) -> tuple[Decimal, Decimal]:
        purse = self.works.purses.of(grant, 0.0)
        assert purse is not None
        return purse.spent, purse.reserved


RICH, POOR, OTHER = a_grant("9", name="rich"), a_grant("0.0001", name="poor"), a_grant("9", name="other")


async def test_a_reader_that_can_pay_takes_over_when_the_leader_leaves_before_its_turn() -> None:
    first = Reply()
    shared = Shared(first, Reply(*whole_stream("a"), b""))
    busy = shared.lead(OTHER, "req_0")
    await turns()
    leader = shared.lead(RICH, "req_1")
    await turns()
    shared.join(leader, POOR, "req_2")
    heir = shared.join(leader, OTHER, "req_3")
    leader.leave()
    assert shared.spent(RICH) == NOTHING
    first.end()
    busy.leave()
    await heir.ended()
    await shared.works.accounts.close()
    assert [intent.request for intent in shared.works.ledger.intents] == ["req_0", "req_3"]
    assert shared.works.ledger.intents[1].key == "other"
    assert shared.spent(RICH) == shared.spent(POOR) == NOTHING
    assert shared.spent(OTHER)[1] == 0


async def test_where_nobody_left_can_pay_all_are_told_so_and_nothing_is_sent() -> None:
    first = Reply()
    shared = Shared(first)
    busy = shared.lead(OTHER, "req_0")
    await turns()
    leader = shared.lead(RICH, "req_1")
    await turns()
    heir = shared.join(leader, POOR, "req_2")
    leader.leave()
    end = await heir.ended()
    assert isinstance(end, Broken)
    assert isinstance(end.error, InsufficientQuota)
    assert len(shared.provider.calls) == 1
    assert is_free(shared)
    first.end()
    busy.leave()
    await turns()


def is_free(shared: Shared) -> bool:
    return shared.limiter.waiting == {"m": 0} and shared.spent(RICH) == shared.spent(POOR) == NOTHING


async def test_once_it_is_sent_the_leader_pays_though_it_left() -> None:
    reply = Reply()
    shared = Shared(reply)
    leader = shared.lead(RICH, "req_1")
    await turns()
    heir = shared.join(leader, OTHER, "req_2")
    leader.leave()
    for piece in (*whole_stream("a"), b""):
        reply.come(piece)
    await heir.ended()
    await asyncio.sleep(0)
    assert [intent.request for intent in shared.works.ledger.intents] == ["req_1"]
    assert shared.spent(RICH) == (D("0.000005"), D(0))  # 1 token at 1, 2 at 2
    assert shared.spent(OTHER) == NOTHING
