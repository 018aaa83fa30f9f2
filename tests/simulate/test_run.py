"""One policy over a log: in the order of time, and what is counted."""

from decimal import Decimal

from pricing.cost import Usage
from proxy.simulate.answers import Answers
from proxy.simulate.options import Option
from proxy.simulate.policies import Always
from proxy.simulate.run import Run, Tally
from proxy.simulate.trace import Request
from proxy.simulate.world import World
from tests.simulate.making import BLOCK, option, rates, request


class Scripted:
    """Asks in this order, and keeps what it is told."""

    def __init__(self, *asks: int) -> None:
        self._asks = iter(asks)
        self.seen: list[tuple[str, float]] = []
        self.usages: list[Usage] = []

    def choose(self, _: Request, now: float) -> int:
        self.seen.append(("asked", now))
        return next(self._asks)

    def answered(self, _request: Request, _option: int, usage: Usage, _first: float, now: float) -> None:
        self.seen.append(("answered", now))
        self.usages.append(usage)


def played(policy: Scripted, *requests: Request, options: tuple[Option, ...] = (option(),)) -> Tally:
    run = Run(policy, World(options, block=BLOCK))
    for each in requests:
        run.take(each)
    return run.finish()


def test_answers_are_told_when_they_are_complete_and_in_that_order() -> None:
    policy = Scripted(0, 0, 0)
    long, short, later = request(0, (1, 1), output=450), request(2, (2, 2), output=50), request(4, (3, 3), output=50)
    played(policy, long, short, later)
    assert policy.seen == [
        ("asked", 0.0),
        ("asked", 2.0),
        ("answered", 4.0),  # complete at that moment: told before the next is asked
        ("asked", 4.0),
        ("answered", 6.0),
        ("answered", 10.0),
    ]
    assert [usage.output for usage in policy.usages] == [50, 50, 450]


def test_dollars_tokens_and_calls_are_added_up() -> None:
    tally = played(Scripted(0, 1), request(0, (1, 10)), request(10, (1, 10)), options=(option("a"), option("b")))
    assert tally.usd == Decimal("0.022")
    assert (tally.requests, tally.calls) == (2, {0: 1, 1: 1})
    assert (tally.prompt_hits, tally.answer_hits) == (0.0, 0.0)
    again = played(Scripted(0, 0), request(0, (1, 10)), request(10, (1, 10)))
    assert (again.prompt_hits, again.usd) == (0.5, Decimal("0.013"))


def test_a_switch_is_another_model_within_a_session() -> None:
    rows = [request(at, session=session) for at, session in enumerate([1, 2, 1, 2, 1, None, 1])]
    tally = played(Scripted(0, 1, 0, 1, 1, 0, 1), *rows, options=(option("a"), option("b")))
    assert tally.switches == 1


def test_hits_and_joined_calls_are_free_and_no_policy_hears_of_them() -> None:
    policy = Scripted(0, 0)
    run = Run(policy, World([option()], block=BLOCK), Answers(60))
    for at in (0, 1, 3, 70):  # asked, joined, hit, too old
        run.take(request(at, (1, 10), output=50))
    tally = run.finish()
    assert (tally.requests, tally.collapsed, tally.hits, tally.calls.total()) == (4, 1, 1, 2)
    assert tally.answer_hits == 0.5
    assert tally.usd == Decimal("0.011") + Decimal("0.002")  # the second has its prefix cached


def test_calls_without_a_known_cost_are_counted_apart() -> None:
    fees = option(other_fees=("a fee",))
    tally = played(Scripted(0, 0), request(0), request(1), options=(fees,))
    assert (tally.unpriced, tally.usd) == (2, Decimal(0))


def test_prompts_that_are_longer_than_the_window_are_counted() -> None:
    run = Run(Always(0), World([option("m", rates("1", "1"), window=100)], block=BLOCK))
    run.take(request(0, tokens=100))
    run.take(request(1, tokens=101))
    assert run.finish().too_long == {0: 1}
