"""What is not known is None, and saved is only what would have been paid otherwise.

Prices are USD per million tokens, so that 1,000 tokens at 2 are 0.002.
"""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.cost import Rates, Tier, Usage
from pricing.models import Hours, Period
from proxy.core.bill import MOST, Bill, bill, bounded, charge_of, dollars, larger, said_usage, worth
from proxy.core.routing import Choice, Option
from proxy.errors import (
    PenstockError,
    UpstreamAuthError,
    UpstreamBadContentType,
    UpstreamConnectError,
    UpstreamFailed,
    UpstreamReset,
    UpstreamStall,
    UpstreamTimeout,
    UpstreamTLSError,
    UpstreamTooLarge,
    UpstreamTruncated,
)
from tests.core.making import AT, option, rates, route, unknown

D = Decimal
CHEAP, DEAR = option("cheap", rates("1", "2")), option("dear", rates("3", "10"))
USAGE = Usage(input=1000, cached=0, output=500)


def billed(given: Option, baseline: Option, usage: Usage | None = USAGE, service: str | None = None) -> Bill:
    return bill(given, Choice((given, baseline), baseline), usage, AT, service=service)


def test_saved_by_routing_is_the_same_usage_on_the_baseline_less_what_was_paid() -> None:
    found = billed(CHEAP, DEAR)
    # 1,000 at 1 and 500 at 2; 1,000 at 3 and 500 at 10.
    assert (found.usd, found.routing) == (D("0.002"), D("0.006"))


def test_a_dearer_model_than_the_baseline_has_saved_less_than_nothing() -> None:
    found = billed(DEAR, CHEAP)
    assert (found.usd, found.routing) == (D("0.008"), D("-0.006"))


def test_the_baseline_itself_saves_nothing_though_its_price_is_not_known() -> None:
    assert billed(CHEAP, CHEAP).routing == 0
    found = billed(unknown("x"), unknown("x"))
    assert found.usd is found.prompt_cache is None
    assert found.routing == 0


def test_where_either_price_is_not_known_nobody_knows_what_was_saved() -> None:
    assert billed(CHEAP, unknown("x")) == Bill(CHEAP, USAGE, D("0.002"), routing=None, prompt_cache=D(0))
    assert billed(unknown("x"), CHEAP) == Bill(unknown("x"), USAGE)
    fees = option("fees", rates("1", "1"), other_fees=("a search",))
    assert billed(CHEAP, fees).routing is None


def test_without_a_usage_nothing_is_known() -> None:
    assert billed(CHEAP, DEAR, None) == Bill(CHEAP)
    assert billed(CHEAP, CHEAP, None).routing is None


CACHING = option("caching", rates("2", "0", "0.2"))


def test_the_prompt_cache_saved_what_the_cached_tokens_would_have_cost_besides() -> None:
    found = billed(CACHING, CACHING, Usage(input=10_000, cached=8000, output=10))
    assert (found.usd, found.prompt_cache) == (D("0.0056"), D("0.0144"))  # 8,000 at 0.2 instead of at 2
    assert billed(CACHING, CACHING).prompt_cache == 0


def test_sound_that_was_cached_saved_what_sound_costs() -> None:
    spoken = option("spoken", rates("2", "0", "0.2", audio_input="10", audio_cached_input="1"))
    usage = Usage(input=10_000, cached=8000, output=0, audio_input=3000, audio_cached=1000)
    # 7,000 at 0.2 instead of at 2, and 1,000 at 1 instead of at 10.
    assert billed(spoken, spoken, usage).prompt_cache == D("0.0126") + D("0.009")


def test_a_cache_that_is_dearer_than_none_has_saved_nothing() -> None:
    odd = option("odd", rates("1", "0", "5"))
    assert billed(odd, odd, Usage(input=1000, cached=1000, output=0)).prompt_cache == 0


def test_what_the_prompt_cache_saved_is_not_known_where_what_it_cost_is_not() -> None:
    blind = option("blind", rates("1", "0"))
    found = billed(blind, blind, Usage(input=1000, cached=1000, output=0))
    assert (found.usd, found.prompt_cache) == (None, None)
    only = option("only", rates(None, "0", "1"))
    assert billed(only, only, Usage(input=1000, cached=1000, output=0)) == Bill(
        only, Usage(input=1000, cached=1000, output=0), D("0.001"), routing=D(0), prompt_cache=None
    )


def test_the_tier_is_that_of_the_whole_prompt() -> None:
    tier = Tier(above=5000, input=D(4), cached_input=D(1), output=D(0))
    tiered = option("tiered", rates("2", "0", "0.2", tiers=(tier,)))
    found = billed(tiered, tiered, Usage(input=5001, cached=1000, output=0))
    assert (found.usd, found.prompt_cache) == (D("0.017004"), D("0.003"))


def test_the_service_and_the_hour_are_those_of_the_answer() -> None:
    night = Hours((Period((1,), "20:00", "24:00"),), rates("0.5", "1"))
    model = option("x", rates("1", "2"), flex=rates("0.5", "0.5"), hours=(night,))
    assert billed(model, model, service="flex").usd == D("0.00075")
    assert billed(model, model, service="default").usd == D("0.002")
    assert billed(model, model, service="priority").usd is billed(model, model, service="new").usd is None
    assert worth(model, USAGE, AT.replace(hour=20), None) == D("0.001")
    assert worth(unknown("x"), USAGE, AT, None) is None


def test_an_estimate_says_that_it_is_one() -> None:
    assert bill(CHEAP, route(CHEAP), USAGE, AT, service=None, estimated=True).estimated
    assert not billed(CHEAP, DEAR).estimated


@pytest.mark.parametrize(
    ("counted", "most", "charged"), [("3", "2", "2"), ("1", "2", "1"), ("3", None, "3"), (None, "2", None)]
)
def test_what_was_counted_is_charged_up_to_what_the_call_can_cost(
    counted: str | None, most: str | None, charged: str | None
) -> None:
    usd, bound, due = (None if each is None else Decimal(each) for each in (counted, most, charged))
    found = Bill(option("m", rates("1", "2")), Usage(1, 0, 1), usd, estimated=True)
    assert bounded(found, bound) == Bill(found.option, found.usage, due, estimated=True)


def test_amounts_are_exact() -> None:
    """More digits than a decimal has by default are not rounded."""
    model = option("x", Rates(input=D("0.123456789012345678901234567"), output=D(0)))
    found = worth(model, Usage(input=10_000_001, cached=0, output=0), AT, None)
    assert str(found) == "1.234568013580245801358024571234567"


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        ("0", b"0"),
        ("0.00", b"0"),
        ("-0", b"0"),
        ("0E-10", b"0"),
        ("0.00850", b"0.0085"),
        ("1E-9", b"0.000000001"),
        ("-0.0060", b"-0.006"),
        ("1E+3", b"1000"),
        ("100", b"100"),
        ("12.5", b"12.5"),
    ],
)
def test_dollars_are_said_with_all_digits_and_no_exponent(usd: str, text: bytes) -> None:
    assert dollars(D(usd)) == text


@given(st.decimals(-(10**9), 10**9, places=12))
def test_dollars_are_read_as_what_they_are(usd: Decimal) -> None:
    said = dollars(usd)
    assert D(said.decode()) == usd
    assert not set(said) - set(b"-.0123456789")


def test_a_usage_is_read_as_far_as_it_makes_sense() -> None:
    said = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}
    assert said_usage(said) == Usage(input=10, cached=4, output=5)


@pytest.mark.parametrize(
    "said",
    [
        None,
        "10",
        [],
        5,
        {},
        {"prompt_tokens": None},
        {"prompt_tokens": 10},
        {"prompt_tokens": -1, "completion_tokens": 5},
        {"prompt_tokens": 10, "completion_tokens": -5},
        {"prompt_tokens": 10.5, "completion_tokens": 5},
        {"prompt_tokens": True, "completion_tokens": 5},
        {"prompt_tokens": float("nan"), "completion_tokens": 5},
        {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 11}},
        {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": []},
        {"prompt_tokens": MOST + 1, "completion_tokens": 5},
        {"prompt_tokens": 10, "completion_tokens": 10**400},
    ],
)
def test_a_usage_that_makes_no_sense_is_none(said: object) -> None:
    assert said_usage(said) is None


# What an attempt is charged.


@pytest.mark.parametrize(("output", "counted", "charged"), [(0, 300, 300), (500, 300, 500), (300, 300, 300)])
def test_of_a_stream_that_was_cut_the_longer_answer_counts(output: int, counted: int, charged: int) -> None:
    said = Usage(input=1000, cached=800, output=output)
    assert larger(said, Usage(input=990, cached=0, output=counted)) == Usage(input=1000, cached=800, output=charged)


def test_where_nothing_was_said_what_was_counted_counts() -> None:
    assert larger(None, USAGE) is USAGE


LATE, LOST, FAILED = UpstreamTimeout("late"), UpstreamReset("lost"), UpstreamFailed({"message": "no"})


@pytest.mark.parametrize(
    ("charge", "status", "error", "facts"),
    [
        ("said", 200, None, "said streamed begun whole"),
        ("said", 200, None, "said whole"),
        ("said", 201, None, "said whole"),
        ("counted", 200, LOST, "said streamed begun"),  # more may have come than it had said until then
        ("said", 200, LOST, "said begun"),
        ("counted", 200, None, "streamed begun whole"),
        ("counted", 200, None, "whole"),
        # Cut: a stream costs what came, all else what was set aside.
        ("counted", 200, LOST, "streamed begun"),
        ("counted", 200, LOST, "streamed"),
        ("counted", None, LOST, "streamed"),
        ("counted", None, None, "streamed"),
        ("counted", 200, None, "streamed begun"),
        ("counted", 200, UpstreamStall("silent"), "streamed begun"),
        ("counted", 200, FAILED, "streamed begun"),
        ("counted", 200, UpstreamTooLarge("one event"), "streamed begun"),
        ("reserve", 200, LOST, ""),
        ("reserve", 200, UpstreamTruncated("cut"), "begun"),
        ("reserve", None, None, ""),
        ("reserve", None, LATE, ""),
        ("reserve", None, LATE, "streamed"),
        ("reserve", 200, LATE, "streamed"),
        ("reserve", 200, UpstreamBadContentType("an image", answered=True), ""),
        ("nothing", 500, None, "whole"),
        ("nothing", 400, None, "said whole"),
        ("nothing", 500, LOST, ""),
        ("nothing", 200, FAILED, "streamed"),
        ("nothing", None, UpstreamConnectError("refused"), ""),
        ("nothing", None, UpstreamTLSError("expired"), "streamed"),
        ("nothing", None, UpstreamAuthError("sim"), ""),
        ("nothing", 200, UpstreamBadContentType("a page"), ""),
    ],
)
def test_what_an_attempt_is_charged_follows_from_how_it_ended(
    charge: str, status: int | None, error: PenstockError | None, facts: str
) -> None:
    told = {name: name in facts.split() for name in ("said", "streamed", "begun", "whole")}
    assert charge_of(status, error, **told) == charge
