"""The simple policies: who is asked."""

from datetime import UTC, datetime

from pricing.models import Hours, Period
from proxy.simulate.options import Option
from proxy.simulate.policies import Always, Penstock, PerToken, able
from proxy.simulate.trace import Request
from tests.simulate.making import BLOCK, option, rates, request

START = datetime(2026, 11, 23, tzinfo=UTC)


def per_token(*options: Option, asked: Request) -> str:
    return options[PerToken(options, START).choose(asked, asked.at)].name


def test_named_is_always_the_same() -> None:
    assert [Always(2).choose(request(at, (1, at)), at) for at in (1, 2, 3)] == [2, 2, 2]


def test_per_token_takes_the_lowest_sum_whatever_the_request() -> None:
    even, lopsided = option("even", rates("5", "5")), option("lopsided", rates("1", "10"))
    assert per_token(even, lopsided, asked=request(0, tokens=100_000, output=1)) == "even"


def test_per_token_takes_the_first_of_equals() -> None:
    assert per_token(option("a", rates("5", "5")), option("b", rates("4", "6")), asked=request(0)) == "a"


def test_per_token_goes_by_the_price_of_the_hour() -> None:
    evening = Hours((Period((1,), "01:00", "04:00"),), rates("9", "9"))
    options = option("varies", rates("4", "4"), hours=(evening,)), option("steady", rates("5", "5"))
    assert per_token(*options, asked=request(0)) == "varies"
    assert per_token(*options, asked=request(3600)) == "steady"


def test_who_cannot_take_a_prompt_is_not_asked_unless_nobody_can() -> None:
    small, large = option("small", rates("1", "1"), window=1000), option("large", rates("5", "5"), window=2000)
    assert per_token(small, large, asked=request(0, tokens=1000)) == "small"
    assert per_token(small, large, asked=request(0, tokens=1500)) == "large"
    assert able([small, large], request(0, tokens=3000)) == [0, 1]


def test_penstock_asks_who_is_cheapest_for_this_request() -> None:
    even, lopsided = option("even", rates("5", "5")), option("lopsided", rates("1", "10"))
    policy = Penstock([even, lopsided], START, block=BLOCK)
    assert policy.choose(request(0, tokens=100_000), 0.0) == 1
