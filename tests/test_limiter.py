"""A key is refused at once, a call waits for its turn; whoever leaves, and when, leaves nothing behind."""

import asyncio
import math
import random
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest

from proxy.core.access import NOBODY, Grant, Limits
from proxy.core.bucket import MINUTE
from proxy.core.routing import Place
from proxy.errors import OverLimit, QueueTimeout, RateLimited
from proxy.limiter import LATEST, LEAST, SOONEST, Limiter, Ticket
from tests.fakes import in_virtual_time, turns

PLACE: Place = ("sim", "m", "")
FREE = Limits()


class HandClock:
    """Its time passes by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_700_000_000.0 + self.now


class LoopClock:
    """The time of the loop that runs."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return 1_700_000_000.0 + self.monotonic()


class Told:
    """What the limiter tells."""

    def __init__(self) -> None:
        self.refused: Counter[tuple[str, str]] = Counter()
        self.waited: list[tuple[str, float]] = []

    def on_refused(self, kind: str, key: str) -> None:
        self.refused[kind, key] += 1

    def on_waited(self, provider: str, seconds: float) -> None:
        self.waited.append((provider, seconds))


def limiter(
    limits: Limits = FREE,
    models: Mapping[str, Limits] | None = None,
    *,
    clock: HandClock | None = None,
    timeout: float = 60.0,
    told: Told | None = None,
) -> Limiter:
    """With one provider, `sim`, by the loop's time unless there is a clock."""
    told = told or Told()
    return Limiter(
        clock or LoopClock(),
        providers={"sim": limits, "other": FREE},
        models={("sim", name): of for name, of in (models or {}).items()},
        queue_timeout={"sim": timeout},
        on_refused=told.on_refused,
        on_waited=told.on_waited,
    )


def key(name: str = "a", **limits: int) -> Grant:
    return Grant(name, id=name, limits=Limits(**limits))


def ticket(of: Limiter, share: str = "a", model: str = "m", tokens: int = 10, **different: Any) -> Ticket:
    place = different.get("place", ("sim", model, ""))
    return of.ticket("sim", model, place, share=share, tokens=tokens)


def left_behind(of: Limiter) -> list[object]:
    """What an idle limiter does not have."""
    line = of._lines["sim"]
    inner = line.turns
    held: list[Any] = [line._waiters, line._timer, inner._lines, inner._lanes, inner.waiting, inner.quota.inside]
    held += [quota.inside for quota in inner._models.values()]
    return [each for each in held if each]


# A client's key.


def test_of_a_thousand_requests_at_once_exactly_the_limit_are_let_through() -> None:
    clock, told = HandClock(), Told()
    of, grant = limiter(clock=clock, told=told), key(requests_per_minute=100)
    through, refused = 0, []
    for _ in range(1000):
        try:
            of.visit(grant).leave()
            through += 1
        except RateLimited as error:
            refused.append(error)
    assert through == 100
    assert told.refused == {("requests", "a"): 900}
    assert {(error.status, error.code, error.type, error.retry_after) for error in refused} == {
        (429, "rate_limit_exceeded", "requests", MINUTE)
    }
    clock.now += MINUTE
    of.visit(grant)


def test_a_visit_holds_its_place_until_it_leaves_and_gives_it_back_once() -> None:
    told = Told()
    of, grant = limiter(clock=HandClock(), told=told), key(max_concurrent=2)
    first = of.visit(grant)
    with of.visit(grant):
        with pytest.raises(RateLimited) as refusal:
            of.visit(grant)
        assert refusal.value.retry_after == SOONEST
    first.leave()
    first.leave()
    of.visit(grant)
    of.visit(grant)
    with pytest.raises(RateLimited):
        of.visit(grant)
    assert told.refused == {("concurrent", "a"): 2}


def test_a_request_that_is_refused_is_not_counted() -> None:
    of, grant = limiter(clock=HandClock()), key(requests_per_minute=2, max_concurrent=1)
    with of.visit(grant):
        for _ in range(10):
            with pytest.raises(RateLimited):
                of.visit(grant)
    of.visit(grant)


def test_one_key_is_not_refused_for_another() -> None:
    of = limiter(clock=HandClock())
    of.visit(key("a", requests_per_minute=1))
    of.visit(key("b", requests_per_minute=1))
    with pytest.raises(RateLimited):
        of.visit(key("a", requests_per_minute=1))


@pytest.mark.parametrize("grant", [NOBODY, key(), key(tokens_per_minute=5)])
def test_a_key_without_such_limits_is_never_refused_nor_remembered(grant: Grant) -> None:
    of = limiter(clock=HandClock())
    visits = {id(of.visit(grant)) for _ in range(1000)}
    assert len(visits) == 1
    assert len(of._quotas) == 0


def test_a_key_without_a_limit_of_tokens_claims_what_it_likes() -> None:
    of = limiter(clock=HandClock())
    of.claim(NOBODY, 10**12).settle(10**12)
    of.claim(key(requests_per_minute=1), 10**12).settle(10**12)
    assert len(of._quotas) == 0


def test_tokens_are_reserved_then_settled_by_the_first_word() -> None:
    clock, told = HandClock(), Told()
    of, grant = limiter(clock=clock, told=told), key(tokens_per_minute=1000)
    claim = of.claim(grant, 900)
    clock.now += 20
    with pytest.raises(RateLimited) as refusal:
        of.claim(grant, 101)
    assert (refusal.value.type, refusal.value.retry_after, refusal.value.retry) == ("tokens", 40, None)
    assert told.refused == {("tokens", "a"): 1}
    claim.settle(300)
    claim.settle(0)
    of.claim(grant, 700)
    with pytest.raises(RateLimited):
        of.claim(grant, 1)


def test_a_request_larger_than_the_whole_limit_is_refused_for_good() -> None:
    told = Told()
    of = limiter(clock=HandClock(), told=told)
    with pytest.raises(OverLimit) as refusal:
        of.claim(key(tokens_per_minute=1000), 1001)
    assert (refusal.value.status, refusal.value.type, refusal.value.retry) == (429, "tokens", False)
    assert refusal.value.retry_after is None
    assert told.refused == {("over_limit", "a"): 1}
    of.claim(key(tokens_per_minute=1000), 1000)


def test_a_claim_that_outlives_the_quota_of_its_key_settles_what_went_beyond_it_now() -> None:
    clock = HandClock()
    of, grant = limiter(clock=clock), key(tokens_per_minute=1000)
    claim = of.claim(grant, 100)
    clock.now += 10 * MINUTE
    for number in range(1000):
        of.visit(key(f"other {number}", requests_per_minute=1))
    assert of._quotas.get("a") is None
    claim.settle(400)
    with pytest.raises(RateLimited):
        of.claim(grant, 701)
    of.claim(grant, 700)


def test_a_claim_of_nothing_counts_what_it_is_settled_to() -> None:
    of, grant = limiter(clock=HandClock()), key(tokens_per_minute=10)
    of.claim(grant, 10)
    of.claim(grant, 0).settle(0)
    of.claim(grant, 0).settle(50)
    assert of.standing(grant)[1] == (b"x-ratelimit-remaining-tokens", b"0")


def test_limits_that_change_hold_at_once_for_what_was_used_before() -> None:
    of = limiter(clock=HandClock())
    for _ in range(5):
        of.visit(key(requests_per_minute=100))
    with pytest.raises(RateLimited):
        of.visit(key(requests_per_minute=5))
    of.visit(key(requests_per_minute=6))


def test_a_key_is_told_where_it_stands_as_openai_does() -> None:
    clock = HandClock()
    of, grant = limiter(clock=clock), key(requests_per_minute=60, tokens_per_minute=1000)
    of.visit(grant)
    clock.now += 7.25
    of.claim(grant, 300)
    clock.now += 1
    assert of.standing(grant) == (
        (b"x-ratelimit-limit-requests", b"60"),
        (b"x-ratelimit-remaining-requests", b"59"),
        (b"x-ratelimit-reset-requests", b"51.75s"),
        (b"x-ratelimit-limit-tokens", b"1000"),
        (b"x-ratelimit-remaining-tokens", b"700"),
        (b"x-ratelimit-reset-tokens", b"59s"),
    )


def test_a_key_is_told_of_no_limits_that_it_does_not_have() -> None:
    of = limiter(clock=HandClock())
    assert of.standing(NOBODY) == of.standing(key(max_concurrent=1)) == ()
    assert of.standing(key(tokens_per_minute=9)) == (
        (b"x-ratelimit-limit-tokens", b"9"),
        (b"x-ratelimit-remaining-tokens", b"9"),
        (b"x-ratelimit-reset-tokens", b"0s"),
    )
    assert len(of._quotas) == 0


# A provider.


async def call(of: Limiter, share: str, *, lasts: float, tokens: int = 10, model: str = "m") -> None:
    with ticket(of, share, model, tokens) as mine:
        await mine.turn()
        mine.sent()
        await asyncio.sleep(lasts)
        mine.settle(tokens)


def test_ninety_at_once_from_three_keys_are_all_served_in_turns_and_in_order() -> None:
    told = Told()
    of = limiter(Limits(requests_per_minute=200, max_concurrent=10), told=told)
    went: list[tuple[str, int]] = []
    most = 0

    async def one(share: str, number: int) -> None:
        nonlocal most
        with ticket(of, share) as mine:
            await mine.turn()
            went.append((share, number))
            most = max(most, of.in_use["sim"])
            mine.sent()
            await asyncio.sleep(1)

    async def all_at_once() -> None:
        await asyncio.gather(*(one(share, number) for share in "abc" for number in range(30)))

    in_virtual_time(all_at_once())
    assert most == 10
    assert len(went) == len(set(went)) == 90
    for share in "abc":
        assert [number for each, number in went if each == share] == list(range(30))
    # The first ten found nobody waiting; from then on the shares take turns.
    for number in range(10, 61, 3):
        assert {share for share, _ in went[number : number + 3]} == {"a", "b", "c"}
    assert not told.refused
    assert len(told.waited) == 80
    assert left_behind(of) == []


def test_more_than_a_minute_allows_are_served_as_soon_as_it_does() -> None:
    of = limiter(Limits(requests_per_minute=200), timeout=600)
    at: list[float] = []

    async def one() -> None:
        with ticket(of) as mine:
            await mine.turn()
            at.append(asyncio.get_running_loop().time())
            mine.sent()

    async def all_at_once() -> None:
        await asyncio.gather(*(one() for _ in range(500)))

    in_virtual_time(all_at_once())
    assert Counter(round(each) for each in at) == {0: 200, 60: 200, 120: 100}
    assert max(at) <= 120 + 2 * LEAST


def test_whose_turn_does_not_come_in_time_is_told_to_come_back() -> None:
    told = Told()
    of = limiter(Limits(max_concurrent=1), timeout=5, told=told)

    async def run() -> QueueTimeout:
        with ticket(of) as first, ticket(of) as second:
            await first.turn()
            with pytest.raises(QueueTimeout) as refusal:
                await second.turn()
            assert of.waiting == {"sim": 0, "other": 0}
        return refusal.value

    error = in_virtual_time(run())
    assert (error.status, error.code) == (429, "queue_timeout")
    assert error.retry_after is not None
    assert SOONEST <= error.retry_after <= LATEST
    assert told.refused == {("queue_timeout", ""): 1}
    assert told.waited == [("sim", 5)]
    assert left_behind(of) == []


def test_a_call_that_can_never_be_made_is_refused_at_once() -> None:
    told = Told()
    of = limiter(Limits(tokens_per_minute=100), {"m": Limits(tokens_per_minute=50)}, told=told)

    async def run() -> None:
        for model, tokens in (("m", 51), ("n", 101)):
            with ticket(of, model=model, tokens=tokens) as mine, pytest.raises(OverLimit):
                await mine.turn()
        assert asyncio.get_running_loop().time() == 0

    in_virtual_time(run())
    assert told.refused == {("over_limit", ""): 2}
    assert left_behind(of) == []


def test_what_was_not_sent_is_given_back_and_what_was_sent_counts_whatever_happens() -> None:
    of = limiter(Limits(requests_per_minute=1, tokens_per_minute=10, max_concurrent=1))

    async def run() -> None:
        for _ in range(3):
            with ticket(of) as unsent:
                await unsent.turn()
        with suppress(ZeroDivisionError), ticket(of) as failing:
            await failing.turn()
            failing.sent()
            raise ZeroDivisionError
        assert of.in_use["sim"] == 0
        await call(of, "a", lasts=0)
        assert asyncio.get_running_loop().time() >= MINUTE

    in_virtual_time(run())


def test_what_is_settled_lower_lets_the_next_one_go_at_once() -> None:
    of = limiter(Limits(tokens_per_minute=100))

    async def run() -> None:
        with ticket(of, tokens=90) as first:
            await first.turn()
            first.sent()
            second = asyncio.ensure_future(call(of, "b", lasts=0, tokens=50))
            await turns()
            assert of.waiting["sim"] == 1
            first.settle(20)
            first.settle(90)
            await second
        assert asyncio.get_running_loop().time() == 0

    in_virtual_time(run())


def test_what_is_settled_after_the_place_was_given_back_lets_the_next_one_go_too() -> None:
    of = limiter(Limits(tokens_per_minute=100))

    async def run() -> None:
        with ticket(of, tokens=90) as first:
            await first.turn()
            first.sent()
        second = asyncio.ensure_future(call(of, "b", lasts=0, tokens=50))
        await turns()
        first.settle(20)
        await second
        assert asyncio.get_running_loop().time() == 0

    in_virtual_time(run())


def test_who_is_cancelled_just_as_its_turn_has_come_hands_it_on() -> None:
    of = limiter(Limits(max_concurrent=1))

    async def run() -> None:
        first = ticket(of)
        await first.turn()
        second, third = (asyncio.ensure_future(call(of, "a", lasts=1)) for _ in range(2))
        await turns()
        first.leave()
        assert of.in_use["sim"] == 1  # the second's, which has not run yet
        second.cancel()
        await third
        assert second.cancelled()
        assert asyncio.get_running_loop().time() == 1

    in_virtual_time(run())
    assert left_behind(of) == []


def test_who_is_cancelled_before_its_turn_has_come_is_passed_over() -> None:
    of = limiter(Limits(tokens_per_minute=100))

    async def run() -> None:
        await call(of, "a", lasts=0, tokens=60)
        large = asyncio.ensure_future(call(of, "b", lasts=0, tokens=100))
        small = asyncio.ensure_future(call(of, "c", lasts=0, tokens=40))
        await turns()
        assert of.waiting["sim"] == 2
        large.cancel()
        await small
        assert asyncio.get_running_loop().time() == 0

    in_virtual_time(run())
    assert left_behind(of) == []


def test_a_turn_that_comes_with_the_end_of_the_time_is_taken() -> None:
    of = limiter(Limits(max_concurrent=1), timeout=1)

    async def run() -> None:
        await asyncio.gather(*(call(of, "a", lasts=1) for _ in range(2)))

    in_virtual_time(run())
    assert left_behind(of) == []


def test_who_takes_over_waits_in_the_line_of_the_new_share() -> None:
    of = limiter(Limits(max_concurrent=1))
    went: list[str] = []

    async def one(name: str, mine: Ticket) -> None:
        with mine:
            await mine.turn()
            went.append(name)

    async def run() -> None:
        first = ticket(of)
        await first.turn()
        tickets = {name: ticket(of, name[0]) for name in ("a1", "b1", "b2", "c1")}
        tasks = [asyncio.ensure_future(one(*item)) for item in tickets.items()]
        await turns()
        tickets["a1"].share = "b"
        assert tickets["a1"].share == "b"
        first.leave()
        await asyncio.gather(*tasks)

    in_virtual_time(run())
    assert went == ["b1", "c1", "b2", "a1"]


def test_who_takes_over_a_large_one_no_longer_holds_up_those_before_it() -> None:
    of = limiter(Limits(tokens_per_minute=100))

    async def run() -> None:
        await call(of, "x", lasts=0, tokens=60)
        large = ticket(of, "a", tokens=100)
        waiting = asyncio.ensure_future(large.turn())
        await turns()
        small = asyncio.ensure_future(call(of, "b", lasts=0, tokens=40))
        await turns()
        large.share = "b"
        await small
        assert asyncio.get_running_loop().time() == 0
        await waiting
        large.leave()

    in_virtual_time(run())


def test_models_that_are_not_full_pass_one_that_is() -> None:
    of = limiter(Limits(max_concurrent=10), {"small": Limits(max_concurrent=1)})

    async def run() -> None:
        with ticket(of, model="small") as first:
            await first.turn()
            second = asyncio.ensure_future(call(of, "a", lasts=0, model="small"))
            await turns()
            await call(of, "a", lasts=0, model="large")
            assert not second.done()
        await second

    in_virtual_time(run())


OPENAI = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-remaining-requests": "0",
    "x-ratelimit-reset-requests": "1m0s",
}


@pytest.mark.parametrize("status", [200, 429])
def test_a_quota_that_a_provider_states_is_waited_for_at_its_place_alone(status: int) -> None:
    of = limiter()

    async def run() -> None:
        with ticket(of) as first:
            await first.turn()
            first.sent()
            first.heed(OPENAI, status)
            assert of.wait("sim", "m", PLACE, 1) == 1
            await call(of, "b", lasts=0, model="n")
            assert asyncio.get_running_loop().time() == 0
            await call(of, "b", lasts=0)
        assert asyncio.get_running_loop().time() == pytest.approx(1, abs=0.01)

    in_virtual_time(run())


def test_what_an_answer_says_is_of_when_the_call_was_made_and_what_a_refusal_says_is_of_now() -> None:
    clock = HandClock()
    of = limiter(clock=clock)

    async def run() -> None:
        first, second = ticket(of), ticket(of)
        for each in (first, second):
            await each.turn()
            each.sent()
        clock.now += 600
        first.heed(OPENAI, 200)
        assert of.wait("sim", "m", PLACE, 1) == 0
        second.heed(OPENAI, 429)
        assert of.wait("sim", "m", PLACE, 1) == 1
        first.leave()
        second.leave()

    asyncio.run(run())


def test_a_moment_that_is_stated_is_one_of_the_wall_clock() -> None:
    clock = HandClock()
    of = limiter(clock=clock)

    async def run() -> None:
        with ticket(of) as first:
            await first.turn()
            first.sent()
            clock.now += 10
            said = {"remaining": "0", "reset": "2023-11-14T22:31:00Z"}  # 1,060 by the other clock
            first.heed({f"anthropic-ratelimit-requests-{name}": value for name, value in said.items()}, 200)
            assert of.wait("sim", "m", PLACE, 1) == 50

    asyncio.run(run())


def test_an_unlimited_provider_never_touches_the_loop() -> None:
    of = limiter(clock=HandClock())
    passing = call(of, "a", lasts=0)
    # Without a loop whatever would wait for one fails; the only thing that waits is the sleep at its end.
    assert passing.send(None) is None
    assert of.in_use == {"sim": 1, "other": 0}
    with pytest.raises(StopIteration):
        passing.send(None)
    assert of.in_use == {"sim": 0, "other": 0}


def test_the_expected_wait_is_told_before_anybody_waits() -> None:
    of = limiter(Limits(tokens_per_minute=100), clock=HandClock())
    assert of.wait("sim", "m", PLACE, 100) == 0
    assert of.wait("sim", "m", PLACE, 101) == math.inf
    assert of.wait("other", "m", PLACE, 10**9) == 0
    assert (of.counts_tokens("sim", "m"), of.counts_tokens("other", "m")) == (True, False)


def test_a_ticket_has_one_turn() -> None:
    of = limiter()

    async def run() -> None:
        with ticket(of) as mine:
            await mine.turn()
            with pytest.raises(AssertionError):
                await mine.turn()

    in_virtual_time(run())


def test_a_ticket_that_never_asked_for_its_turn_has_nothing_to_give_back() -> None:
    of = limiter(clock=HandClock())
    with ticket(of) as mine:
        mine.sent()
        mine.heed(OPENAI, 200)
        mine.settle(5)
    assert left_behind(of) == []
    assert of.wait("sim", "m", PLACE, 1) == 0


class Crowd:
    """Calls that end in every way, at any moment."""

    def __init__(self, of: Limiter, seed: int) -> None:
        self.of = of
        self.luck = random.Random(seed)
        self.ends: Counter[str] = Counter()

    async def one(self, mine: Ticket) -> None:
        luck = self.luck
        with mine:
            await mine.turn()
            if luck.random() < 0.1:
                return
            mine.sent()
            if luck.random() < 0.05:
                mine.heed(OPENAI | {"x-ratelimit-remaining-requests": str(luck.randrange(60))}, 200)
            await asyncio.sleep(luck.random())
            if luck.random() < 0.1:
                raise ZeroDivisionError
        mine.settle(luck.randrange(40))

    async def come_and_go(self, count: int) -> None:
        luck = self.luck
        tickets = [ticket(self.of, luck.choice("abcd"), luck.choice(["small", "large"]), 20) for _ in range(count)]
        tasks = [asyncio.ensure_future(self.one(mine)) for mine in tickets]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(luck.choice([0, 0, 0.01, 0.3]))
            for mine in luck.sample(tickets, 3):
                mine.share = luck.choice("abcd")
            for task in luck.sample(tasks, 12):
                task.cancel()
            assert self.of.in_use["sim"] <= 7
        for task in tasks:
            self.ends["cancelled" if task.cancelled() else type(task.exception()).__name__] += 1


@pytest.mark.parametrize("seed", range(4))
def test_five_thousand_that_leave_at_any_moment_leave_nothing_behind(seed: int) -> None:
    limits = Limits(requests_per_minute=600, tokens_per_minute=8000, max_concurrent=7)
    of = limiter(limits, {"small": Limits(requests_per_minute=300, max_concurrent=3)}, timeout=4)
    crowd = Crowd(of, seed)

    async def run() -> None:
        for _ in range(10):
            await crowd.come_and_go(500)
        assert left_behind(of) == []
        await asyncio.sleep(MINUTE)
        assert of._lines["sim"].turns.quota.idle(asyncio.get_running_loop().time())
        await asyncio.gather(*(call(of, "a", lasts=0) for _ in range(20)))

    in_virtual_time(run())
    assert sum(crowd.ends.values()) == 5000
    assert set(crowd.ends) == {"cancelled", "NoneType", "QueueTimeout", "ZeroDivisionError"}
    assert left_behind(of) == []
    assert len(of._lines["sim"].turns._accounts) <= 2


@pytest.mark.parametrize("seed", range(20))
def test_nobody_is_forgotten_in_the_line_while_there_is_room(seed: int) -> None:
    luck = random.Random(seed)
    of = limiter(Limits(requests_per_minute=50, tokens_per_minute=1000, max_concurrent=4), timeout=10_000)

    async def one(share: str, tokens: int) -> None:
        await asyncio.sleep(luck.random() * 10)
        await call(of, share, lasts=luck.random() * 3, tokens=tokens)

    async def run() -> None:
        calls = [asyncio.ensure_future(one(luck.choice("abc"), luck.choice([1, 10, 900]))) for _ in range(200)]
        for each in luck.sample(calls, 40):
            asyncio.get_running_loop().call_later(luck.random() * 100, each.cancel)
        await asyncio.gather(*calls, return_exceptions=True)

    in_virtual_time(run())  # fails where everybody waits and no timer is set
    assert left_behind(of) == []
