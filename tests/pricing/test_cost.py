"""Figures by hand: no expected amount is computed the way the code does it."""

from decimal import Decimal, localcontext

import pytest

from pricing.cost import Price, Usage, cost, usage_of

GPT_5 = Price(input=Decimal("1.25"), cached_input=Decimal("0.125"), output=Decimal(10))


def test_cached_tokens_cost_their_own_price_and_are_counted_once() -> None:
    # 2,000 × 1.25 + 8,000 × 0.125 + 500 × 10 = 2,500 + 1,000 + 5,000 = 8,500 millionths
    assert cost(Usage(input=10_000, cached=8_000, output=500), GPT_5) == Decimal("0.0085")


def test_without_a_price_of_their_own_cached_tokens_cost_what_others_cost() -> None:
    price = Price(input=Decimal(8), cached_input=None, output=Decimal(24))
    assert cost(Usage(input=1_000_000, cached=400_000, output=0), price) == Decimal(8)


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
    assert usage_of(sent) == Usage(input=2006, cached=1920, output=300)


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
    ],
)
def test_nonsense_is_no_usage(sent: dict[str, object]) -> None:
    assert usage_of(sent) is None


@pytest.mark.parametrize("counts", [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (1, 2, 0)])
def test_no_call_has_an_impossible_usage(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="no call has such a usage"):
        Usage(*counts)
