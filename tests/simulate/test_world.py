"""The truth against figures that were counted by hand: the default option costs 10 in, 1 cached, 20 out a million."""

from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pytest

from pricing.cost import Rates, Tier
from pricing.models import Hours, Period, PromptCache
from proxy.simulate.options import Option
from proxy.simulate.trace import Request
from proxy.simulate.world import Call, World
from tests.simulate.making import AUTOMATIC, BLOCK, option, rates, request

MARKED = PromptCache(automatic=False, lifetime=300)


def calls(one: Option, *requests: Request) -> list[Call]:
    world = World([one], block=BLOCK)
    return [world.call(0, each) for each in requests]


def cached(one: Option, *requests: Request) -> list[int]:
    return [call.usage.cached for call in calls(one, *requests)]


def test_a_first_call_is_paid_in_full() -> None:
    (call,) = calls(option(), request(0, (1, 10), output=50))
    assert call.usd == Decimal("0.011")  # 1,000 × 10 + 50 × 20, of a million
    assert call.done == 2.0  # a second, and 50 tokens at 50 a second


def test_a_known_prefix_costs_what_cached_input_does() -> None:
    _, call = calls(option(), request(0, (1, 10)), request(10, (1, 10), (40, 44), output=50))
    assert (call.usage.input, call.usage.cached) == (1500, 1000)
    assert call.usd == Decimal("0.007")  # 500 × 10 + 1,000 × 1 + 50 × 20


def test_the_last_block_counts_no_further_than_the_prompt() -> None:
    assert cached(option(), request(0, (1, 10), tokens=950), request(10, (1, 10), tokens=950)) == [0, 950]


def test_the_prefix_of_another_prompt_counts_as_far_as_both_go() -> None:
    assert cached(option(), request(0, (1, 10)), request(10, (1, 4), (40, 49)), request(20, (60, 69))) == [0, 400, 0]


def test_each_hit_restarts_the_lifetime_of_what_it_read() -> None:
    long, short = ((1, 10),), ((1, 4),)
    assert cached(option(), request(0, *long), request(299, *short), request(598, *long)) == [0, 400, 400]
    assert cached(option(), request(0, *long), request(299, *long), request(598, *long)) == [0, 1000, 1000]
    assert cached(option(), request(0, *long), request(301, *long)) == [0, 0]


def test_a_prefix_can_be_read_a_second_after_it_was_sent() -> None:
    assert cached(option(), request(0, (1, 10)), request(0.9, (1, 10)), request(1.0, (1, 10))) == [0, 0, 1000]


def test_a_prompt_below_the_least_is_neither_read_nor_kept() -> None:
    least = msgspec.structs.replace(AUTOMATIC, least=1000)
    assert cached(option(cache=least), request(0, (1, 9)), request(10, (1, 9))) == [0, 0]
    # of a long prompt a short beginning is no hit
    assert cached(option(cache=least), request(0, (1, 10)), request(10, (1, 9), (30, 35))) == [0, 0]
    assert cached(option(cache=least), request(0, (1, 10)), request(10, (1, 10))) == [0, 1000]


def test_without_terms_nothing_is_cached() -> None:
    assert cached(option(cache=None), request(0, (1, 10)), request(10, (1, 10))) == [0, 0]


def test_models_share_no_cache() -> None:
    world = World([option("a"), option("b")], block=BLOCK)
    found = [world.call(index, request(at, (1, 10))).usage.cached for at, index in ((0, 0), (10, 1), (20, 0), (30, 1))]
    assert found == [0, 0, 1000, 1000]


def test_what_was_not_cached_is_written_where_writing_has_a_price() -> None:
    one = option(standard=rates("10", "20", "1", "12.5"), cache=MARKED)
    first, second = calls(one, request(0, (1, 10)), request(10, (1, 10), (40, 44)))
    assert (first.usage.written, first.usd) == (1000, Decimal("0.0135"))
    assert (second.usage.cached, second.usage.written) == (1000, 500)
    assert second.usd == Decimal("0.00825")  # 1,000 × 1 + 500 × 12.5 + 50 × 20


def test_nothing_is_written_below_the_least_or_where_nobody_marks_it() -> None:
    standard = rates("10", "20", "1", "12.5")
    least = msgspec.structs.replace(MARKED, least=2000)
    assert calls(option(standard=standard, cache=least), request(0, (1, 10)))[0].usage.written == 0
    assert calls(option(standard=standard, cache=MARKED), request(0, tokens=1000))[0].usage.written == 0
    assert calls(option(standard=standard), request(0, tokens=1000))[0].usage.written == 1000


def test_a_prompt_over_a_tiers_limit_costs_its_prices_as_a_whole() -> None:
    high = Tier(above=1000, input=Decimal(20), output=Decimal(40), cached_input=Decimal(2))
    tiered = Rates(input=Decimal(10), output=Decimal(20), cached_input=Decimal(1), tiers=(high,), moves="whole")
    below, above = calls(option(standard=tiered), request(0, (1, 10)), request(10, (40, 50)))
    assert below.usd == Decimal("0.011")
    assert above.usd == Decimal("0.024")  # 1,100 × 20 + 50 × 40


def test_prices_are_those_of_the_hour() -> None:
    evening = Hours((Period((1,), "01:00", "04:00"),), rates("20", "40", "2"))
    one = option(hours=(evening,))
    early, dear = calls(one, request(0, (1, 10)), request(3600, (1, 10)))
    assert (early.usd, dear.usd) == (Decimal("0.011"), Decimal("0.022"))  # the log begins on a Monday at 00:00 UTC
    tuesday = World([one], block=BLOCK, start=datetime(2026, 11, 24, 1, tzinfo=UTC))
    assert tuesday.call(0, request(0, (1, 10))).usd == Decimal("0.011")


def test_answers_are_longer_where_the_model_is_wordy() -> None:
    (call,) = calls(option(verbosity=3.0), request(0, (1, 10), output=50))
    assert (call.usage.output, call.usd, call.done) == (150, Decimal("0.013"), 4.0)


def test_another_tokenizer_counts_prompt_and_prefix_alike() -> None:
    plain = option()
    one = msgspec.structs.replace(plain, model=msgspec.structs.replace(plain.model, tokenizer="claude"))
    _, call = calls(one, request(0, (1, 10)), request(10, (1, 10), (40, 49), output=100))
    assert (call.usage.input, call.usage.cached, call.usage.output) == (2100, 1050, 105)


@pytest.mark.parametrize("tokens", [0, 1])
def test_an_empty_request_has_a_cost_too(tokens: int) -> None:
    assert calls(option(), request(0, tokens=tokens, output=0))[0].usd == Decimal(tokens * 10 + 20) / 10**6
