"""The cheapest for this very request is asked, and whoever is not asked is told why.

Prices are USD per million tokens, so that 1,000 tokens at 2 are 0.002.
"""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.cost import Tier, Usage
from pricing.models import Capability, Hours, Later, Period, PromptCache
from pricing.tokens import Prompt
from proxy.core.needs import Needs
from proxy.core.ranking import TIE, Ask, Estimate, Ranking, View, estimate, rank
from proxy.core.routing import Choice, Option
from tests.core.making import AT, AUTOMATIC, needs, option, prompt, rates, route, unknown

D = Decimal
Told = tuple[tuple[Option, dict[str, Any]], ...]


def ask(*upto: int, **members: Any) -> Ask:
    """A request with so many tokens up to each of its links, the last all of it."""
    return Ask(**{"needs": needs(), "upto": [prompt(tokens) for tokens in upto or (1000,)], **members})


def most_cost(option: Option, needs: Needs, most: Prompt, at: datetime, *, factor: float = 1.0) -> Decimal | None:
    """What a request cannot exceed there, if anything bounds it."""
    return estimate(option, Ask(needs=needs, upto=(most,), most=most), View(factor=factor), at).most


def of(option: Option, asked: Ask, at: datetime = AT, **view: Any) -> Estimate:
    return estimate(option, asked, View(**{"output": 100.0, **view}), at)


def ranked(asked: Ask, *told: tuple[Option, dict[str, Any]], at: datetime = AT, **choice: Any) -> Ranking:
    """Of these options, each with what is known of it."""
    options = tuple(option for option, _ in told)
    views = [View(**{"output": 100.0, **view}) for _, view in told]
    return rank(msgspec.structs.replace(route(*options), **choice), asked, views, at)


def names(ranking: Ranking) -> list[str]:
    return [each.option.name for each in ranking.order]


def reasons(ranking: Ranking) -> dict[str, str | None]:
    assert all(each.words for each in ranking.dropped if each.reason)
    return {each.option.name: each.reason for each in ranking.dropped}


CHEAP_IN = option("cheap-in", rates("1", "10"))
CHEAP_OUT = option("cheap-out", rates("3", "2"))


def test_much_input_goes_where_input_is_cheap() -> None:
    found = ranked(ask(100_000), (CHEAP_OUT, {"output": 200.0}), (CHEAP_IN, {"output": 200.0}))
    # 100,000 at 1 and 200 at 10; 100,000 at 3 and 200 at 2.
    assert [each.usd for each in found.order] == [D("0.102"), D("0.3004")]
    assert (names(found), found.why) == (["cheap-in", "cheap-out"], "cheapest")


def test_much_output_goes_where_output_is_cheap() -> None:
    found = ranked(ask(1000), (CHEAP_IN, {"output": 10_000.0}), (CHEAP_OUT, {"output": 10_000.0}))
    # 1,000 at 3 and 10,000 at 2; 1,000 at 1 and 10,000 at 10.
    assert [each.usd for each in found.order] == [D("0.023"), D("0.101")]
    assert names(found) == ["cheap-out", "cheap-in"]


TERSE = option("terse", rates("1", "5"))
VERBOSE = option("verbose", rates("1", "4"))


def test_a_verbose_model_loses_though_its_tokens_are_cheaper() -> None:
    told: Told = ((VERBOSE, {"output": 2000.0}), (TERSE, {"output": 1000.0}))
    found = ranked(ask(1000), *told)
    assert [(each.option.name, each.usd) for each in found.order] == [("terse", D("0.006")), ("verbose", D("0.009"))]
    # Whoever may say no more than 500 tokens says no more.
    found = ranked(ask(1000, needs=needs(max_output=500)), *told)
    assert [(each.option.name, each.usd) for each in found.order] == [("verbose", D("0.003")), ("terse", D("0.0035"))]


def test_an_answer_is_as_long_as_the_model_and_the_request_allow_and_each_choice_is_one() -> None:
    small = option("small", rates("1", "1"), max_output=300)
    assert of(small, ask(), output=1000.0).output == 300
    assert of(small, ask(needs=needs(max_output=200)), output=1000.0).output == 200
    assert of(small, ask(needs=needs("n", choices=3)), output=1000.0).output == 900
    assert of(small, ask(), output=0.0).output == 1
    assert of(unknown("x"), ask(), output=12.4).output == 12


HOLDER = option("holder", rates("2", "10", "0.2"), AUTOMATIC)
PLAIN = option("plain", rates("1", "10"))


def test_whoever_has_the_prefix_wins_and_loses_where_it_is_short() -> None:
    # 9,000 at 0.2 and 1,000 at 2, against 10,000 at 1; 100 tokens of answer at 10 are 0.001 for both.
    found = ranked(ask(1000, 9000, 10_000), (PLAIN, {}), (HOLDER, {"links": 2}))
    assert [(each.option.name, each.usd) for each in found.order] == [("holder", D("0.0048")), ("plain", D("0.011"))]
    assert found.order[0].cached == 9000
    # 2,000 at 0.2 and 8,000 at 2.
    found = ranked(ask(2000, 9000, 10_000), (PLAIN, {}), (HOLDER, {"links": 1}))
    assert [(each.option.name, each.usd) for each in found.order] == [("plain", D("0.011")), ("holder", D("0.0174"))]


def test_a_prefix_is_worth_as_much_as_was_billed_of_such_before() -> None:
    found = of(HOLDER, ask(8000, 10_000), links=1, trust=0.5)
    assert (found.cached, found.usd) == (4000, D("0.0138"))  # 4,000 at 0.2, 6,000 at 2, 0.001 for the answer


def test_a_prefix_below_the_least_that_is_kept_is_not_there() -> None:
    assert of(HOLDER, ask(1023, 10_000), links=1).cached == 0
    assert of(HOLDER, ask(1024, 10_000), links=1).cached == 1024


def test_what_is_cached_costs_what_all_does_where_no_price_of_it_is_known() -> None:
    found = of(option("x", rates("2", "10"), AUTOMATIC), ask(8000, 10_000, to_come=3.0), links=1)
    assert (found.cached, found.usd, found.total) == (0, D("0.021"), D("0.084"))


def test_a_whole_prompt_that_was_sent_before_is_cached_whole_and_no_more() -> None:
    assert of(HOLDER, ask(5000, 10_000), links=2).cached == 10_000


def test_a_request_past_a_tiers_limit_moves_whole() -> None:
    tier = Tier(above=200_000, input=D(4), output=D(0))
    tiered, flat = option("tiered", rates("1", "0", tiers=(tier,))), option("flat", rates("2", "0"))
    found = ranked(ask(200_000), (flat, {}), (tiered, {}))
    assert [(each.option.name, each.usd) for each in found.order] == [("tiered", D("0.2")), ("flat", D("0.4"))]
    found = ranked(ask(200_001), (flat, {}), (tiered, {}))
    assert [(each.option.name, each.usd) for each in found.order] == [
        ("flat", D("0.400002")),
        ("tiered", D("0.800004")),
    ]


STAYER = option("stayer", rates("2", "0", "0.2"), AUTOMATIC)  # has 9,000 of the 10,000 tokens
SLIGHTLY = option("slightly", rates("1.5", "0", "0.15"), AUTOMATIC)  # cheaper
FAR = option("far", rates("1", "0", "0.01"), AUTOMATIC)  # cheaper


def test_a_long_conversation_stays_where_its_prefix_is_for_a_slightly_smaller_price() -> None:
    found = ranked(ask(9000, 10_000, to_come=2.0), (SLIGHTLY, {}), (STAYER, {"links": 1}))
    # Now 9,000 at 0.2 and 1,000 at 2, then twice 10,000 at 0.2; against 10,000 at 1.5, then twice 10,000 at 0.15.
    assert [(each.option.name, each.usd, each.total) for each in found.order] == [
        ("stayer", D("0.0038"), D("0.0078")),
        ("slightly", D("0.015"), D("0.018")),
    ]


def test_a_switch_that_only_pays_over_the_turns_to_come_is_made() -> None:
    told: Told = ((STAYER, {"links": 1}), (FAR, {}))
    assert names(ranked(ask(9000, 10_000), *told)) == ["stayer", "far"]  # 0.0038 and 0.01
    assert names(ranked(ask(9000, 10_000, to_come=3.0), *told)) == ["stayer", "far"]  # 0.0098 and 0.0103
    found = ranked(ask(9000, 10_000, to_come=5.0), *told)
    assert [(each.option.name, each.total) for each in found.order] == [("far", D("0.0105")), ("stayer", D("0.0138"))]


def test_the_turns_to_come_are_longer_and_find_what_they_share_if_they_come_in_time() -> None:
    def total(warm: float = 1.0, **members: Any) -> Decimal | None:
        return of(STAYER, ask(9000, 10_000, to_come=3.0, **members), links=1, warm=warm).total

    now = D("0.0038")
    assert total() == now + 3 * D("0.002")
    # On the average of three turns that each add 1,000 it is 2,000 longer, and those are new: at 2.
    assert total(growth=1000.0) == now + 3 * D("0.006")
    assert total(shared=0.5) == now + 3 * D("0.011")  # 5,000 at 0.2 and 5,000 at 2
    assert total(warm=0.0) == now + 3 * D("0.02")
    assert total(warm=0.5) == now + 3 * D("0.011")  # half of them 0.002, half 0.02
    # Of a cache of which half is billed 4,500 now and 5,000 then.
    assert of(STAYER, ask(9000, 10_000, to_come=3.0), links=1, trust=0.5).total == D("0.0119") + 3 * D("0.011")


def test_the_turns_to_come_may_reach_a_tier() -> None:
    dear = Tier(above=10_500, input=D(4), output=D(0))
    found = of(option("x", rates("2", "0", tiers=(dear,))), ask(10_000, to_come=1.0, growth=1000.0))
    assert (found.usd, found.total) == (D("0.02"), D("0.064"))  # 11,000 at 4 then


MARKED = PromptCache(automatic=False, least=1024, lifetime=300)
KEEPER = option("keeper", rates("3", "0", "0.3", cache_write="3.75"), MARKED)


def test_a_cache_that_wants_marks_counts_only_with_marks_and_what_is_written_costs_more() -> None:
    marked = of(KEEPER, ask(8000, 10_000, needs=needs(marks=True)), links=1)
    assert (marked.cached, marked.usd) == (8000, D("0.0099"))  # 8,000 at 0.3 and 2,000 written at 3.75
    plain = of(KEEPER, ask(8000, 10_000, to_come=1.0), links=1)
    assert (plain.cached, plain.usd, plain.total) == (0, D("0.03"), D("0.06"))


def test_what_is_written_costs_a_multiple_of_input_where_no_price_of_it_is_known() -> None:
    terms = PromptCache(automatic=False, least=1024, write=D("1.25"))
    multiplied = option("multiplied", rates("3", "0", "0.3"), terms)
    assert of(multiplied, ask(8000, 10_000, needs=needs(marks=True)), links=1).usd == D("0.0099")


def test_a_prompt_too_short_to_be_kept_is_not_written() -> None:
    assert of(KEEPER, ask(1000, needs=needs(marks=True))).usd == D("0.003")


def test_sound_costs_its_own_price_and_is_neither_cached_nor_written() -> None:
    model = option("x", rates("1", "0", "0.1", audio_input="10", cache_write="2"), AUTOMATIC, yes=("audio",))
    upto = [prompt(2000), prompt(3000, seconds=100.0)]
    found = estimate(model, Ask(needs("audio"), upto), View(links=1), AT)
    # 2,000 cached at 0.1, 1,000 written at 2, 1,000 of sound at 10.
    assert (found.input, found.usd) == (4000, D("0.0122"))
    whole = estimate(model, Ask(needs("audio"), upto), View(links=2), AT)
    assert whole.usd == D("0.0103")  # 3,000 cached, 1,000 of sound


def test_what_was_learned_of_a_tokenizer_counts() -> None:
    found = of(PLAIN, ask(10_000), factor=1.5)
    assert (found.input, found.usd, found.count.text) == (15_000, D("0.016"), 10_000)


def test_prices_are_those_of_the_hour_of_the_day_and_of_the_service() -> None:
    night = Hours((Period((1, 2), "20:00", "24:00"),), rates("0.5", "0"))
    later = Later(since=date(2026, 12, 1), standard=rates("8", "0"))
    model = option("x", rates("2", "0"), hours=(night,), later=(later,), flex=rates("1", "0"))
    assert of(model, ask(1000), AT).usd == D("0.002")
    assert of(model, ask(1000), AT.replace(hour=20)).usd == D("0.0005")
    assert of(model, ask(1000), datetime(2026, 12, 1, tzinfo=UTC)).usd == D("0.008")
    assert of(model, ask(1000, needs=needs(service="flex"))).usd == D("0.001")
    assert of(model, ask(1000, needs=needs(service="auto"))).usd == D("0.002")
    # A service without a price of its own is served at the standard ones, if at all; what it costs is known afterwards.
    assert of(model, ask(1000, needs=needs(service="priority"))).usd == D("0.002")
    assert of(model, ask(1000, needs=needs(service="no such"))).usd == D("0.002")
    assert of(model, capped("9", needs=needs(service="priority", max_output=1))).reason == "max_cost"  # or dearer


def test_a_model_that_cannot_do_what_is_needed_is_dropped() -> None:
    bare = option("bare", rates("1", "1"), no=("tools",))
    able = option("able", rates("9", "9"), yes=("tools", "vision"))
    found = ranked(ask(needs=needs("tools")), (bare, {}), (able, {}))
    assert (names(found), reasons(found), found.why) == (["able"], {"bare": "tools"}, "only")
    assert found.dropped[0].words == "cannot do tools"
    assert names(ranked(ask(), (bare, {}), (able, {}))) == ["bare", "able"]


def test_a_model_of_which_it_is_not_known_goes_behind_those_that_can() -> None:
    unsure = option("unsure", rates("1", "1"))
    able = option("able", rates("9", "9"), yes=("tools",))
    found = ranked(ask(needs=needs("tools")), (unsure, {}), (able, {}))
    assert names(found) == ["able", "unsure"]
    assert [each.unsure for each in found.order] == [(), ("tools",)]


HINDRANCES: list[tuple[str, Option, dict[str, Any], dict[str, Any]]] = [
    *(
        (each, option("x", rates("1", "1"), no=(each,)), {"needs": needs(each)}, {})
        for each in ("tools", "vision", "audio", "json_schema", "reasoning", "n", "logprobs")
    ),
    ("window", option("x", rates("1", "1"), window=999), {}, {}),
    ("window", option("x", rates("1", "1"), window=1000), {}, {"factor": 1.01}),
    ("max_output", option("x", rates("1", "1"), max_output=99), {"needs": needs(max_output=100)}, {}),
    ("unpriced", unknown("x"), {}, {}),
    ("unpriced", option("x", None), {}, {}),
    ("unpriced", option("x", rates("1", None)), {}, {}),
    ("unpriced", option("x", rates(None, "1")), {}, {}),
    ("unpriced", option("x", rates("1", "1"), other_fees=("a search",)), {}, {}),
    ("cooling", PLAIN, {}, {"state": "cooling"}),
    ("down", PLAIN, {}, {"state": "down"}),
    ("down", unknown("x"), {}, {"state": "down"}),
    ("tools", option("x", None, no=("tools",)), {"needs": needs("tools")}, {"state": "down"}),
]


@pytest.mark.parametrize(("reason", "hindered", "members", "view"), HINDRANCES)
def test_whoever_is_dropped_has_a_reason(
    reason: str, hindered: Option, members: dict[str, Any], view: dict[str, Any]
) -> None:
    dear = option("dear", rates("99", "99"), yes=tuple(members.get("needs", needs()).capabilities))
    found = ranked(ask(1000, **members), (hindered, view), (dear, {}))
    assert (names(found), reasons(found), found.why) == (["dear"], {hindered.name: reason}, "only")


def test_a_prompt_as_long_as_the_window_and_an_answer_as_long_as_the_model_allows_are_taken() -> None:
    exact = option("x", rates("1", "1"), window=1000, max_output=100)
    assert of(exact, ask(1000, needs=needs(max_output=100))).reason is None


def test_where_nobody_has_a_price_all_that_are_fit_are_asked_in_the_settings_order() -> None:
    bare = option("bare", rates("1", "1"), no=("tools",))
    found = ranked(
        ask(needs=needs("tools")), (unknown("b"), {}), (bare, {}), (unknown("a"), {}), (PLAIN, {"state": "cooling"})
    )
    assert (names(found), found.why) == (["b", "a"], "unpriced")
    assert reasons(found) == {"bare": "tools", "plain": "cooling"}


def test_where_all_others_are_out_whoever_only_pauses_is_asked_the_cheapest_first() -> None:
    found = ranked(
        ask(1000), (CHEAP_OUT, {"state": "cooling"}), (CHEAP_IN, {"state": "cooling"}), (PLAIN, {"state": "down"})
    )
    assert (names(found), reasons(found), found.why) == (
        ["cheap-in"],  # one of them is enough to see whether they still say so
        {"plain": "down", "cheap-out": "cooling"},
        "cooling",
    )


SMALL = option("small", rates("1", "1"), window=10)


def test_the_model_that_the_client_named_may_say_itself_what_is_wrong() -> None:
    found = ranked(ask(1000), (SMALL, {}), (PLAIN, {"state": "down"}), named=True)
    assert (names(found), reasons(found), found.why) == (["small"], {"plain": "down"}, "named")


def test_nobody_is_asked_where_all_are_unfit_or_down_and_the_client_named_a_route() -> None:
    found = ranked(ask(1000), (SMALL, {}), (PLAIN, {"state": "down"}))
    assert (names(found), reasons(found), found.why) == ([], {"small": "window", "plain": "down"}, "none")


@pytest.mark.parametrize(
    ("asked", "view"), [(ask(1000), {"state": "down"}), (ask(1000, max_cost=D(0), most=prompt(1000)), {})]
)
def test_a_named_model_that_is_down_or_over_the_cap_is_not_asked(asked: Ask, view: dict[str, Any]) -> None:
    assert ranked(asked, (PLAIN, view), named=True).why == "none"


def test_what_made_the_last_turn_goes_first_as_long_as_it_can() -> None:
    told: Told = ((CHEAP_IN, {}), (CHEAP_OUT, {}))
    found = ranked(ask(100_000, pinned=1), *told)
    assert (names(found), found.why) == (["cheap-out", "cheap-in"], "pinned")
    found = ranked(ask(100_000, pinned=1), (CHEAP_IN, {}), (CHEAP_OUT, {"state": "cooling"}))
    assert (names(found), reasons(found), found.why) == (["cheap-in"], {"cheap-out": "cooling"}, "only")


def test_the_pinned_goes_first_though_it_is_not_known_to_do_what_is_needed() -> None:
    able = option("able", rates("1", "1"), yes=("reasoning",))
    found = ranked(ask(needs=needs("reasoning"), pinned=0), (option("unsure", rates("9", "9")), {}), (able, {}))
    assert (names(found), found.why) == (["unsure", "able"], "pinned")


def test_of_costs_within_half_a_percent_the_faster_first_token_decides() -> None:
    slow, fast, dear = (option(name, rates(price, "0")) for name, price in (("s", "1"), ("f", "1.005"), ("d", "1.006")))
    told: Told = ((slow, {"first": 2.0}), (fast, {"first": 0.5}), (dear, {"first": 0.1}))
    assert names(ranked(ask(1_000_000), *told)) == ["f", "s", "d"]
    told = ((slow, {"first": 2.0}), (fast, {"first": None}), (dear, {"first": 0.1}))
    assert names(ranked(ask(1_000_000), *told)) == ["s", "f", "d"]
    assert D("1.005") == TIE


def test_of_equals_the_settings_order_decides() -> None:
    one, two = option("one", rates("1", "1")), option("two", rates("1", "1"))
    assert names(ranked(ask(), (one, {}), (two, {}))) == ["one", "two"]
    assert names(ranked(ask(), (two, {}), (one, {}))) == ["two", "one"]


def test_models_that_cost_nothing_are_all_equally_cheap() -> None:
    free, dear = option("free", rates("0", "0")), option("dear", rates("1", "1"))
    found = ranked(ask(0), (dear, {}), (free, {"first": 3.0}), (option("free too", rates("0", "0")), {"first": 1.0}))
    assert names(found) == ["free too", "free", "dear"]


def capped(usd: str, tokens: int = 1000, **members: Any) -> Ask:
    return ask(tokens, max_cost=D(usd), most=prompt(tokens), **members)


def test_whoever_may_cost_more_than_the_cap_is_dropped_and_the_longest_answer_of_every_choice_counts() -> None:
    model = option("x", rates("1", "10"), max_output=500)
    asked: dict[str, Any] = {"needs": needs("n", choices=3)}
    # 1,000 at 1 and 3 times 500 at 10.
    assert of(model, capped("0.016", **asked)).reason is None
    over = of(model, capped("0.015999", **asked))
    assert (over.reason, over.words) == ("max_cost", "it may cost 0.016 USD")
    assert of(model, capped("0.004", needs=needs("n", choices=3, max_output=100))).reason is None


def test_a_cap_that_nothing_can_be_held_to_drops() -> None:
    for unbounded in (option("x", rates("1", "1")), unknown("x"), option("x", None, max_output=9)):
        found = of(unbounded, capped("1000"))
        assert (found.reason, "max_tokens (max_output_tokens for Responses)" in found.words) == ("max_cost", True)
    fees = option("x", rates("1", "1"), max_output=9, other_fees=("a search",))
    assert most_cost(fees, needs(), prompt(10), AT) is None


def test_where_no_longest_answer_is_known_the_whole_window_bounds_it() -> None:
    model = option("x", rates("1", "10"), window=3000)
    assert most_cost(model, needs(), prompt(1000), AT) == D("0.031")  # 1,000 at 1, 3,000 at 10
    # The prompt may turn out to have one token, however many it is bound to.
    assert most_cost(model, needs(), prompt(4000), AT) == D("0.034")
    assert most_cost(model, needs(max_output=100, choices=2), prompt(1000), AT) == D("0.003")


def test_prices_that_rise_while_an_attempt_waits_its_turn_count() -> None:
    night = Hours((Period((1,), "20:00", "24:00"),), rates("5", "5"))
    model = option("x", rates("1", "1"), hours=(night,))
    asked = needs(max_output=1000)
    soon = AT.replace(hour=19, minute=55)
    assert most_cost(model, asked, prompt(1000), soon) == D("0.01")
    assert most_cost(model, asked, prompt(1000), AT) == D("0.002")


def test_the_most_counts_every_token_as_the_dearest_that_it_may_be() -> None:
    def most(standard: Any, *capabilities: Capability, terms: PromptCache | None = None, factor: float = 1.0) -> Any:
        model = option("x", standard, terms, max_output=1000)
        return most_cost(model, needs(*capabilities), prompt(1000), AT, factor=factor)

    assert most(rates("1", "10")) == D("0.011")
    assert most(rates("1", "10", cache_write="2", cache_write_1h="3")) == D("0.013")
    assert most(rates("1", "10"), terms=PromptCache(write=D("1.25"))) == D("0.01125")
    assert most(rates("1", "10", reasoning="20")) == D("0.021")
    assert most(rates("1", "10", audio_output="40"), "audio") == D("0.041")
    assert most(rates("1", "10", audio_output="40")) == D("0.011")
    assert most(rates("1", "10"), factor=1.5) == D("0.0115")
    assert most(rates("1", "10"), factor=0.5) == D("0.011")
    assert most(rates("5", "10", tiers=(Tier(above=500, input=D(1), output=D(10)),))) == D("0.015")


prices = st.decimals(0, 100, places=2)
counts = st.integers(0, 100_000)


@settings(deadline=None)
@given(st.data(), prices, prices, prices, counts, st.integers(1, 4), st.integers(1, 5000))
def test_no_usage_within_the_bounds_costs_more_than_the_most(
    data: st.DataObject, read: Decimal, made: Decimal, written: Decimal, bound: int, choices: int, longest: int
) -> None:
    standard = rates(str(read), str(made), str(min(read, written)), cache_write=str(written))
    model = option("x", standard, AUTOMATIC, max_output=longest)
    most = most_cost(model, needs(choices=choices), prompt(bound), AT)
    said = data.draw(st.integers(0, bound))
    cached = data.draw(st.integers(0, said))
    kept = data.draw(st.integers(0, said - cached))
    output = data.draw(st.integers(0, longest * choices))
    assert model.model is not None
    usd = model.model.charge(Usage(said, cached, output, written=kept), AT).usd
    assert most is not None
    assert usd is not None
    assert usd <= most


models_and_views = st.tuples(
    prices,
    prices,
    st.sampled_from(["up", "up", "up", "cooling", "down"]),
    st.integers(0, 3),
    st.floats(0, 1e6),
    st.none() | st.floats(0, 100),
)


@settings(deadline=None)
@given(
    st.lists(models_and_views, min_size=1, max_size=6),
    st.lists(st.integers(0, 10**7), min_size=3, max_size=3).map(sorted),
    st.floats(0, 30),
    st.floats(0, 1e5),
    st.booleans(),
)
def test_everybody_is_asked_or_dropped_with_a_reason_and_nobody_asked_first_costs_a_percent_more(
    models: list[Any], upto: list[int], to_come: float, growth: float, named: bool
) -> None:
    options = [option(str(at), rates(str(a), str(b), str(a / 10)), AUTOMATIC) for at, (a, b, *_) in enumerate(models)]
    views = [View(state=state, links=links, output=output, first=first) for _, _, state, links, output, first in models]
    asked = ask(*upto, to_come=to_come, growth=growth)
    found = rank(Choice(tuple(options), options[0], named=named), asked, views, AT)
    assert sorted(names(found) + [each.option.name for each in found.dropped]) == sorted(each.name for each in options)
    assert all(each.reason for each in found.dropped)
    totals = [each.total for each in found.order if each.total is not None]
    assert len(totals) == len(found.order)
    assert all(found.order[0].total <= total * TIE for total in totals)  # type: ignore[operator]
    up = [view.state == "up" for view in views]
    assert (found.why in ("cheapest", "only")) is any(up)
    assert found.why in {"cheapest", "only", "cooling", "none"}


def test_a_request_without_a_token_has_its_price() -> None:
    assert of(HOLDER, ask(0, 0), links=2).usd == D("0.001")
    assert of(HOLDER, ask(0, to_come=30.0, growth=0.0, shared=0.0)).total == D("0.031")


def test_a_cap_reckons_with_the_standard_prices_whatever_was_asked_for() -> None:
    model = option("x", rates("1", "1"), flex=rates("0.5", "0.5"))
    asked = needs(service="flex", max_output=1000)
    assert most_cost(model, asked, prompt(1000), AT) == D("0.002")
    assert most_cost(option("y", rates("1", "1")), asked, prompt(1000), AT) is None


def test_what_may_be_charged_besides_its_tokens_is_under_no_cap() -> None:
    asked = msgspec.structs.replace(needs(max_output=1), unbounded=True)
    assert most_cost(option("x", rates("1", "1")), asked, prompt(10), AT) is None


UNBOUNDED = msgspec.structs.replace(needs(max_output=1000), unbounded=True)


def test_of_what_nothing_bounds_whole_as_much_is_set_aside_as_is_bounded() -> None:
    model = option("x", rates("1", "10"), max_output=500)
    asked = ask(10, most=prompt(1000), left=D(9), needs=msgspec.structs.replace(needs("n", choices=3), unbounded=True))
    found = of(model, asked)
    # 1,000 at 1 and 3 times 500 at 10; 10 at 1 and 3 times 100 at 10 are expected.
    assert (found.most, found.reserve, found.usd) == (None, D("0.016"), D("0.00301"))
    assert of(model, msgspec.structs.replace(asked, left=D("0.015"))).reason == "budget"
    assert of(model, msgspec.structs.replace(asked, left=None, max_cost=D(9))).reason == "max_cost"


def test_what_is_expected_is_set_aside_where_it_is_more_than_what_is_bounded() -> None:
    found = of(option("x", rates("1", "10")), ask(50_000, most=prompt(1000), needs=UNBOUNDED))
    assert found.reserve == found.usd == D("0.051")


def test_where_no_longest_answer_is_known_all_of_the_prompt_is_set_aside() -> None:
    found = of(option("x", rates("1", "10")), ask(10, most=prompt(1_000_000)))
    assert (found.most, found.reserve) == (None, D("1.001"))  # and the answer that is expected


# What the budget of who pays, and the limits of providers, keep away.

BOUNDED = needs(max_output=1000)


def budgeted(left: str, *options: Option, **members: Any) -> Ranking:
    """At 1,000 tokens of a prompt, all of them known, and 1,000 of an answer at most."""
    asked = ask(1000, needs=BOUNDED, most=prompt(1000), left=D(left), **members)
    return ranked(asked, *((each, {}) for each in options))


# At most 1,000 at 1 and 1,000 at 2; 1,000 at 10 and 1,000 at 20.
CHEAP, DEAR = option("cheap", rates("1", "2")), option("dear", rates("10", "20"))


def test_whoever_may_cost_more_than_is_left_is_dropped() -> None:
    found = budgeted("0.003", DEAR, CHEAP)
    assert (names(found), reasons(found)) == (["cheap"], {"dear": "budget"})
    found = budgeted("0.002999", DEAR, CHEAP)
    assert (names(found), reasons(found)) == ([], {"dear": "budget", "cheap": "budget"})


def test_a_model_that_the_client_named_is_no_exception_to_the_budget() -> None:
    asked = ask(1000, needs=BOUNDED, most=prompt(1000), left=D(0))
    assert names(ranked(asked, (CHEAP, {}), named=True)) == []


def test_where_nothing_bounds_it_what_is_expected_must_be_left() -> None:
    asked = ask(1000, most=prompt(1000), left=D("0.0012"))
    assert ranked(asked, (CHEAP, {})).order[0].reserve == D("0.0012")
    asked = msgspec.structs.replace(asked, left=D("0.0011"))
    assert reasons(ranked(asked, (CHEAP, {}))) == {"cheap": "budget"}


def test_a_model_without_a_price_is_not_asked_for_a_key_with_a_budget() -> None:
    found = budgeted("100", unknown("x"), CHEAP)
    assert (names(found), reasons(found)) == (["cheap"], {"x": "unpriced"})
    assert names(budgeted("100", unknown("x"))) == []
    assert names(ranked(ask(1000, left=D(100)), (unknown("x"), {}), named=True)) == []


@pytest.mark.parametrize("service", ["priority", "fast", "batch", ""])
def test_a_service_without_a_known_price_is_not_asked_for_a_key_with_a_budget(service: str) -> None:
    asked = ask(1000, needs=needs(max_output=1000, service=service), most=prompt(1000), left=D(100))
    found = ranked(asked, (CHEAP, {}))
    assert (names(found), reasons(found)) == ([], {"cheap": "unpriced"})
    assert f'service tier "{service}"' in found.dropped[0].words
    assert found.dropped[0].reserve is None
    assert names(ranked(msgspec.structs.replace(asked, left=None), (CHEAP, {}))) == ["cheap"]


@pytest.mark.parametrize("service", [None, "auto", "default", "standard"])
def test_the_standard_service_has_the_standard_price_by_any_of_its_names(service: str | None) -> None:
    asked = ask(1000, needs=needs(max_output=1000, service=service), most=prompt(1000), left=D(100))
    assert ranked(asked, (CHEAP, {})).order[0].reserve == D("0.003")


@pytest.mark.parametrize(("other", "reserve"), [("0.5", "0.003"), ("9", "0.018")])
def test_as_much_is_set_aside_as_the_dearer_of_the_services_that_may_be_had(other: str, reserve: str) -> None:
    model = option("x", rates("1", "2"), priority=rates(other, other))
    asked = ask(1000, needs=needs(max_output=1000, service="priority"), most=prompt(1000), left=D(100))
    assert ranked(asked, (model, {})).order[0].reserve == D(reserve)


def test_whoever_would_have_to_wait_comes_only_where_nobody_else_can_the_soonest_first() -> None:
    found = ranked(ask(1000), (CHEAP, {"wait": 5.0}), (DEAR, {}))
    assert (names(found), reasons(found)) == (["dear"], {"cheap": "quota"})
    found = ranked(ask(1000), (CHEAP, {"wait": 5.0}), (DEAR, {"wait": 2.0}))
    assert (names(found), found.why) == (["dear", "cheap"], "waiting")


def test_whoever_can_never_have_its_turn_is_not_waited_for() -> None:
    found = ranked(ask(1000), (CHEAP, {"wait": float("inf")}), (DEAR, {"wait": float("inf")}))
    assert (names(found), reasons(found)) == ([], {"cheap": "quota", "dear": "quota"})


def test_of_a_limit_of_tokens_a_request_takes_its_prompt_and_what_its_answers_rarely_exceed() -> None:
    assert of(CHEAP, ask(1000), rarely=800.0).tokens == 1800
    assert of(CHEAP, ask(1000, needs=needs(max_output=50)), rarely=800.0).tokens == 1050
    assert of(CHEAP, ask(1000, needs=needs(choices=3)), rarely=800.0).tokens == 3400


# What a provider holds.


def test_whoever_does_not_hold_what_a_request_refers_to_is_not_asked_however_cheap_it_is() -> None:
    dear = option("dear", rates("99", "99"))
    told: Told = ((CHEAP_IN, {}), (dear, {}), (unknown("new"), {}))
    found = ranked(ask(1000, holder="dear"), *told)
    assert (names(found), found.why) == (["dear"], "only")
    assert reasons(found) == {"cheap-in": "state", "new": "state"}
    assert names(ranked(ask(1000), *told))[0] == "cheap-in"


def test_that_something_lies_elsewhere_stands_before_every_other_reason() -> None:
    hindered = option("x", None, no=("tools",), window=1)
    asked = ask(1000, holder="dear", needs=needs("tools"), max_cost=D(0), left=D(0))
    assert of(hindered, asked, state="down", wait=5.0).reason == "state"


def test_where_the_holder_is_out_nobody_else_is_asked_but_the_one_that_was_named() -> None:
    told: Told = ((CHEAP_IN, {}), (CHEAP_OUT, {"state": "down"}))
    found = ranked(ask(1000, holder="cheap-out"), *told)
    assert (names(found), found.why) == ([], "none")
    assert reasons(found) == {"cheap-in": "state", "cheap-out": "down"}
    found = ranked(ask(1000, holder="cheap-out"), *told, named=True)
    assert (names(found), found.why) == (["cheap-in"], "named")  # its provider says what is wrong
    found = ranked(ask(1000, holder="cheap-out"), (CHEAP_IN, {}), (CHEAP_OUT, {"state": "cooling"}))
    assert (names(found), found.why) == (["cheap-out"], "cooling")
