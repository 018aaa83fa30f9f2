"""Figures by hand: no expected amount is computed the way the code does it."""

from dataclasses import fields
from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.cost import PARTS, Price, Rates, Tier, UnknownPrice, Usage, charge, cost, usage_of

GPT_5 = Price(input=Decimal("1.25"), cached_input=Decimal("0.125"), output=Decimal(10))


def test_cached_tokens_cost_their_own_price_and_are_counted_once() -> None:
    # 2,000 × 1.25 + 8,000 × 0.125 + 500 × 10 = 2,500 + 1,000 + 5,000 = 8,500 millionths
    assert cost(Usage(input=10_000, cached=8_000, output=500), GPT_5) == Decimal("0.0085")


def test_tokens_without_a_known_price_leave_the_sum_unknown_and_are_named() -> None:
    price = Price(input=Decimal(8), cached_input=None, output=Decimal(24))
    charged = charge(Usage(input=1_000_000, cached=400_000, output=1_000_000, audio_output=1), price)
    assert charged.usd is None
    assert charged.unknown == ("cached_input", "audio_output")
    assert charged.parts == {"input": Decimal("4.8"), "output": Decimal("23.999976")}


def test_whoever_needs_the_sum_is_told_what_is_missing() -> None:
    with pytest.raises(UnknownPrice, match="no price is known for cached_input, output"):
        cost(Usage(input=2, cached=1, output=1), Price(input=Decimal(1)))


def test_what_was_not_used_needs_no_price() -> None:
    assert cost(Usage(input=1_000_000, cached=0, output=0), Price(input=Decimal(8))) == 8


def test_reasoning_costs_what_output_costs_unless_it_has_its_own_price() -> None:
    usage = Usage(input=0, cached=0, output=1_000_000, reasoning=400_000)
    assert cost(usage, Price(output=Decimal(10))) == 10
    assert cost(usage, Price(output=Decimal(10), reasoning=Decimal(20))) == 14


def test_every_kind_of_token_has_its_own_price() -> None:
    price = Price(*(Decimal(10**power) for power in range(len(PARTS))))
    usage = Usage(
        input=1 + 2 + 4 + 5 + 6 + 7,
        cached=2 + 7,
        output=3 + 8 + 9,
        written=4,
        written_1h=5,
        audio_input=6 + 7,
        audio_cached=7,
        audio_output=8,
        reasoning=9,
    )
    assert cost(usage, price) == Decimal("987.654321")


def test_tiers_that_do_not_say_how_they_move_are_refused() -> None:
    with pytest.raises(ValueError, match="the whole request moves"):
        Rates(input=Decimal(1), tiers=(Tier(above=1, input=Decimal(2)),))


def test_the_whole_request_moves_to_a_tier() -> None:
    rates = Rates(
        input=Decimal(1), tiers=(Tier(above=10, input=Decimal(2)), Tier(above=20, input=Decimal(3))), moves="whole"
    )
    assert [rates.at(prompt).input for prompt in (0, 10, 11, 20, 21, 10**9)] == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("limits", [(20, 10), (10, 10)])
def test_tiers_ascend(limits: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="tiers ascend"):
        Rates(tiers=tuple(Tier(above=limit) for limit in limits), moves="whole")


def test_cached_tokens_may_be_free() -> None:
    price = Price(input=Decimal(8), cached_input=Decimal(0), output=Decimal(24))
    assert cost(Usage(input=1_000_000, cached=400_000, output=0), price) == Decimal("4.8")


def test_nothing_costs_nothing() -> None:
    assert cost(Usage(0, 0, 0), GPT_5) == 0


def test_one_token_is_not_rounded_away() -> None:
    assert cost(Usage(1, 1, 0), GPT_5) == Decimal("0.000000125")


def test_what_a_caller_does_with_his_own_decimals_rounds_nothing_here() -> None:
    with localcontext(prec=3):
        amount = cost(Usage(input=123_456_789, cached=0, output=1), GPT_5)
    assert amount == Decimal("154.32099625")


def test_a_year_of_tokens_is_exact_to_the_last_digit() -> None:
    # 10**15 × 1.25 + 10 millionths
    assert cost(Usage(input=10**15, cached=0, output=1), GPT_5) == Decimal("1250000000.00001")


@pytest.mark.parametrize("wrong", ["-1", "NaN", "Infinity"])
def test_a_price_is_a_number_that_is_not_negative(wrong: str) -> None:
    one = Decimal(1)
    for prices in ((Decimal(wrong), None, one), (one, Decimal(wrong), one), (one, None, Decimal(wrong))):
        with pytest.raises(ValueError, match="a price is a number"):
            Price(*prices)


def test_usage_is_read_from_what_openai_sends() -> None:
    sent = {
        "prompt_tokens": 2006,
        "completion_tokens": 300,
        "total_tokens": 2306,
        "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 128},
    }
    assert usage_of(sent) == Usage(input=2006, cached=1920, output=300, reasoning=128)


SENT: dict[str, tuple[dict[str, object], Usage]] = {
    "OpenAI, with sound": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 60,
            "total_tokens": 160,
            "prompt_tokens_details": {
                "cached_tokens": 50,
                "audio_tokens": 40,
                "cached_tokens_details": {"text_tokens": 30, "audio_tokens": 20},
            },
            "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 45, "rejected_prediction_tokens": 2},
        },
        Usage(100, 50, 60, audio_input=40, audio_cached=20, reasoning=5, audio_output=45),
    ),
    "OpenAI, with a prefix written": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 1,
            "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
        },
        Usage(100, 60, 1, written=30),
    ),
    "Responses": (
        {
            "input_tokens": 36,
            "input_tokens_details": {"cached_tokens": 10},
            "output_tokens": 87,
            "output_tokens_details": {"reasoning_tokens": 64},
            "total_tokens": 123,
        },
        Usage(36, 10, 87, reasoning=64),
    ),
    "embeddings": ({"prompt_tokens": 8, "total_tokens": 8}, Usage(8, 0, 0)),
    "DeepSeek": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "total_tokens": 120,
            "prompt_cache_hit_tokens": 64,
            "prompt_cache_miss_tokens": 36,
            "prompt_tokens_details": {"cached_tokens": 64},
            "completion_tokens_details": {"reasoning_tokens": 12},
        },
        Usage(100, 64, 20, reasoning=12),
    ),
    "DeepSeek, in its own words only": (
        {"prompt_tokens": 100, "completion_tokens": 20, "prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36},
        Usage(100, 64, 20),
    ),
    "Moonshot": ({"prompt_tokens": 100, "completion_tokens": 20, "cached_tokens": 64}, Usage(100, 64, 20)),
    "Anthropic, whose input excludes what its cache holds and takes": (
        {
            "input_tokens": 1000,
            "cache_read_input_tokens": 8000,
            "cache_creation_input_tokens": 1000,
            "cache_creation": {"ephemeral_5m_input_tokens": 700, "ephemeral_1h_input_tokens": 300},
            "output_tokens": 500,
        },
        Usage(10_000, 8000, 500, written=700, written_1h=300),
    ),
    "Anthropic's figures within OpenAI's": (
        {
            "prompt_tokens": 10_000,
            "completion_tokens": 500,
            "total_tokens": 10_500,
            "prompt_tokens_details": {"cached_tokens": 8000},
            "cache_read_input_tokens": 8000,
            "cache_creation_input_tokens": 1000,
        },
        Usage(10_000, 8000, 500, written=1000),
    ),
    "Anthropic's figures beside OpenAI's, as the total says": (
        {
            "prompt_tokens": 9000,
            "completion_tokens": 500,
            "total_tokens": 18_500,
            "cache_read_input_tokens": 8000,
            "cache_creation_input_tokens": 1000,
        },
        Usage(18_000, 8000, 500, written=1000),
    ),
    "Anthropic's figures beside OpenAI's, as they must be": (
        {"prompt_tokens": 1000, "completion_tokens": 500, "cache_read_input_tokens": 8000},
        Usage(9000, 8000, 500),
    ),
    "xAI, whose output excludes the reasoning": (
        {
            "prompt_tokens": 30,
            "completion_tokens": 10,
            "total_tokens": 340,
            "completion_tokens_details": {"reasoning_tokens": 300},
        },
        Usage(30, 0, 310, reasoning=300),
    ),
    "the same without a total": (
        {"prompt_tokens": 30, "completion_tokens": 10, "completion_tokens_details": {"reasoning_tokens": 300}},
        Usage(30, 0, 310, reasoning=300),
    ),
    "Gemini, which only lets its total tell of thoughts": (
        {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 700},
        Usage(5, 0, 695, reasoning=686),
    ),
    "a total that is too small says nothing": (
        {"prompt_tokens": 5, "completion_tokens": 9, "total_tokens": 1},
        Usage(5, 0, 9),
    ),
}


@pytest.mark.parametrize(("sent", "usage"), SENT.values(), ids=SENT)
def test_usage_is_read_as_each_provider_means_it(sent: dict[str, object], usage: Usage) -> None:
    assert usage_of(sent) == usage


@pytest.mark.parametrize("details", [{}, None, {"cached_tokens": None}, {"audio_tokens": 0}])
def test_without_a_word_on_cached_tokens_there_are_none(details: object) -> None:
    sent = {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": details}
    assert usage_of(sent) == Usage(input=7, cached=0, output=2)


@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"prompt_tokens": 7},
        {"completion_tokens": 2},
        {"prompt_tokens": -7, "completion_tokens": 2},
        {"prompt_tokens": 7, "completion_tokens": -2},
        {"prompt_tokens": True, "completion_tokens": 2},
        {"prompt_tokens": "7", "completion_tokens": 2},
        {"prompt_tokens": 7.5, "completion_tokens": 2},
        {"prompt_tokens": None, "completion_tokens": 2},
        {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 8}},
        {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": -1}},
        {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": False}},
        {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": [1]},
        {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": "none"},
        {"prompt_tokens": 7, "total_tokens": 9},
        {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": "9"},
        {"prompt_tokens": 7, "completion_tokens": 2, "completion_tokens_details": {"audio_tokens": 3}},
        {"prompt_tokens": 7, "completion_tokens": 2, "completion_tokens_details": {"reasoning_tokens": 0.5}},
        {"input_tokens": 7},
        {"input_tokens": 7, "output_tokens": 2, "cache_creation_input_tokens": -1},
        {"input_tokens": 7, "output_tokens": 2, "cache_creation": {"ephemeral_1h_input_tokens": 1}},
    ],
)
def test_nonsense_is_no_usage(sent: dict[str, object]) -> None:
    assert usage_of(sent) is None


@pytest.mark.parametrize("counts", [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (1, 2, 0)])
def test_no_call_has_an_impossible_usage(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="no call has such a usage"):
        Usage(*counts)


counts = st.integers(0, 10**9)
usages = st.builds(
    lambda plain, cached, written, long, audio, both, text, thought, sound: Usage(
        input=plain + cached + written + long + audio + both,
        cached=cached + both,
        output=text + thought + sound,
        written=written,
        written_1h=long,
        audio_input=audio + both,
        audio_cached=both,
        reasoning=thought,
        audio_output=sound,
    ),
    *[counts] * len(PARTS),
)
prices = st.builds(Price, *[st.decimals(0, 1000, places=6)] * len(PARTS))


def both(one: Usage, other: Usage) -> Usage:
    return Usage(*(getattr(one, each.name) + getattr(other, each.name) for each in fields(Usage)))


@given(usages)
def test_each_token_is_in_one_part(usage: Usage) -> None:
    assert set(usage.parts) == set(PARTS)
    assert sum(usage.parts.values()) == usage.input + usage.output


@given(usages, usages, prices)
def test_two_calls_cost_what_they_cost_together(one: Usage, other: Usage, price: Price) -> None:
    assert cost(both(one, other), price) == cost(one, price) + cost(other, price)


@given(usages, prices)
def test_no_cost_is_negative(usage: Usage, price: Price) -> None:
    assert cost(usage, price) >= 0


@given(usages, usages, prices, st.integers(0, 10**10))
def test_within_a_tier_more_tokens_never_cost_less(one: Usage, more: Usage, price: Price, limit: int) -> None:
    dear = Tier(above=limit, **{part: price.of(part) for part in PARTS})
    rates = Rates(**{part: Decimal(0) for part in PARTS}, tiers=(dear,), moves="whole")
    grown = both(one, more)
    if (one.input > limit) == (grown.input > limit):
        assert cost(grown, rates.at(grown.input)) >= cost(one, rates.at(one.input))


NAMES = sorted({name for sent, _ in SENT.values() for name in sent})


@given(st.dictionaries(st.sampled_from(NAMES), st.integers()))
def test_whatever_is_sent_is_a_usage_or_none(sent: dict[str, object]) -> None:
    usage = usage_of(sent)
    assert usage is None or min(usage.parts.values()) >= 0
