"""What was answered, paid and saved is added up under labels, each thing once."""

from bisect import bisect_left
from decimal import Decimal
from itertools import product
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.cost import Usage
from proxy.core.bill import Bill
from proxy.core.books import Answered
from proxy.core.tally import SECONDS, Answers, Histogram, Labels, Paid, Payer, Tallies, quantile
from tests.core.making import unknown
from tests.ledger.told import answer

D = Decimal
USAGE = Usage(input=100, cached=40, output=20, reasoning=5)
LABELS = Labels("chat", "m", "p", "miss", "200", "pk_1")
OPTION = unknown("m")

seconds = st.floats(min_value=0, max_value=1000)


# Histograms.


def test_a_value_lies_in_the_bucket_of_the_first_bound_that_is_not_below_it() -> None:
    histogram = Histogram()
    for value in (0.0, 0.001, 0.0011, 120, 121):
        histogram.add(value)
    assert histogram.upto()[:2] == [2, 3]
    assert histogram.upto()[-2:] == [4, 5]
    assert histogram.sum == pytest.approx(241.0021)


@given(st.lists(seconds), st.lists(seconds))
def test_what_is_merged_is_as_if_it_had_been_added(some: list[float], others: list[float]) -> None:
    one, other, both = Histogram(), Histogram(), Histogram()
    for histogram, values in ((one, some), (other, others), (both, some + others)):
        for value in values:
            histogram.add(value)
    one.merge(other.counts, other.sum)
    assert one.counts == both.counts
    assert one.sum == pytest.approx(both.sum)
    assert both.upto() == [sum(value <= bound for value in some + others) for bound in (*SECONDS, float("inf"))]


def test_bounds_go_up_from_a_millisecond_to_two_minutes() -> None:
    assert list(SECONDS) == sorted(set(SECONDS))
    assert (SECONDS[0], SECONDS[-1]) == (0.001, 120)


def counts_of(*values: float) -> list[int]:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram.counts


def test_of_nothing_there_is_no_quantile() -> None:
    assert quantile(Histogram().counts, 0.5) is None


def test_within_a_bucket_values_are_taken_to_lie_evenly() -> None:
    assert quantile(counts_of(0.3, 0.3, 0.3, 0.3), 0.5) == pytest.approx(0.375)  # half way from 0.25 to 0.5
    assert quantile(counts_of(0.3, 3), 0.5) == 0.5
    assert quantile(counts_of(0.0001), 0.5) == pytest.approx(0.0005)


def test_beyond_the_last_bound_nothing_more_is_known_than_that() -> None:
    assert quantile(counts_of(1000), 0.5) == SECONDS[-1]


@given(st.lists(st.floats(min_value=0.0001, max_value=119), min_size=1), st.floats(min_value=0.01, max_value=1))
def test_a_quantile_lies_in_the_bucket_in_which_its_value_does(values: list[float], part: float) -> None:
    found = quantile(counts_of(*values), part)
    value = sorted(values)[ceil(len(values) * part) - 1]
    index = bisect_left(SECONDS, value)
    assert found is not None
    assert (SECONDS[index - 1] if index else 0) <= found <= SECONDS[index]


# Answers.


def answers(*rows: Answered) -> Answers:
    found = Answers(LABELS)
    for row in rows:
        found.add(row)
    return found


def test_every_answer_has_its_time_and_a_stream_that_spoke_its_first_token() -> None:
    found = answers(answer(), answer(token=0.2), answer(token=0.0, overhead=0.001), answer(overhead=0.0))
    assert (found.count, sum(found.total.counts)) == (4, 4)
    assert (sum(found.token.counts), found.token.sum) == (2, 0.2)
    assert (sum(found.overhead.counts), found.overhead.sum) == (2, 0.001)


def again(outcome: str, **different: Any) -> Answered:
    return answer(outcome=outcome, usage=USAGE, saved=D("0.25"), **different)


@pytest.mark.parametrize("outcome", ["hit", "stale"])
def test_what_was_stored_saves_by_the_cache(outcome: str) -> None:
    found = answers(again(outcome), again(outcome))
    assert (found.saved, found.input, found.output) == ({"cache": 0.5}, {"cache": 200}, {"cache": 40})


def test_who_joined_saves_by_that() -> None:
    found = answers(again("collapsed", leader="req_0"))
    assert (found.saved, found.input, found.output) == ({"collapse": 0.25}, {"collapse": 100}, {"collapse": 20})


def test_of_an_answer_without_a_price_the_tokens_are_saved_all_the_same() -> None:
    found = answers(answer(outcome="hit", usage=USAGE), answer(outcome="collapsed", usage=USAGE, leader="req_0"))
    assert found.saved == {}
    assert found.input == {"cache": 100, "collapse": 100}


def test_who_joined_and_has_no_whole_answer_has_saved_no_tokens() -> None:
    for outcome in ("left", "broken"):
        found = answers(answer(outcome=outcome, usage=USAGE, leader="req_0"))
        assert (found.saved, found.input, found.output) == ({}, {}, {})


@pytest.mark.parametrize("outcome", ["miss", "bypass", "refused", "left", "broken"])
def test_who_led_saves_nothing(outcome: str) -> None:
    found = answers(answer(outcome=outcome, usage=USAGE))
    assert (found.saved, found.input, found.output) == ({}, {}, {})


def test_a_hit_whose_usage_nobody_knows_saves_no_tokens_that_are_known() -> None:
    found = answers(answer(outcome="hit", usage=None, saved=None))
    assert (found.count, found.input, found.output) == (1, {}, {})


@pytest.mark.parametrize(
    ("row", "unknown"),
    [
        ({"outcome": "hit"}, 1),
        ({"outcome": "stale"}, 1),
        ({"outcome": "collapsed", "leader": "req_0"}, 1),
        ({"outcome": "hit", "saved": D(0)}, 0),
        ({"outcome": "collapsed", "leader": "req_0", "status": 502}, 0),  # nothing was given
        ({"outcome": "left", "leader": "req_0"}, 0),
        ({"outcome": "collapsed"}, 0),  # it paid, since its leader had left
        ({"outcome": "miss"}, 0),
    ],
)
def test_what_was_given_again_for_nobody_knows_what_is_counted(row: dict[str, Any], unknown: int) -> None:
    assert answers(answer(**row)).unknown == unknown


def test_what_would_have_come_of_answers_is_counted_by_what_it_is() -> None:
    found = answers(answer(), *(answer(shadow=each) for each in ("hit", "miss", "hit", "collapsed")))
    assert found.shadow == {"hit": 2, "miss": 1, "collapsed": 1}


# Bills.


def paid(*bills: Bill) -> Paid:
    found = Paid(Payer("p", "m", "pk_1"))
    for each in bills:
        found.add(each)
    return found


def test_bills_add_up_apart_by_whether_the_provider_said_its_usage() -> None:
    found = paid(Bill(OPTION, USAGE, D("0.25")), Bill(OPTION, USAGE, D("0.5"), estimated=True))
    assert (found.said, found.estimated, found.usd, found.unpriced) == (0.25, 0.5, 0.75, 0)
    assert found.tokens == {"input": 120, "cached_input": 80, "output": 30, "reasoning": 10}


def test_a_bill_without_an_amount_is_unpriced_which_is_not_0() -> None:
    found = paid(Bill(OPTION), Bill(OPTION, USAGE))
    assert (found.said, found.estimated, found.usd, found.unpriced) == (None, None, 0, 2)
    assert found.tokens["input"] == 60
    free = paid(Bill(OPTION, USAGE, D(0)))
    assert (free.said, free.unpriced) == (0, 0)


def test_what_routing_saved_and_what_it_lost_are_apart() -> None:
    found = paid(*(Bill(OPTION, USAGE, D(1), routing=D(usd)) for usd in ("0.5", "-0.25", "0", "0.5", "-0.125")))
    assert (found.routing, found.overpaid) == (1, 0.375)


def test_what_prompt_caches_saved_is_added_up_where_it_is_known() -> None:
    found = paid(Bill(OPTION, USAGE, D(1), prompt_cache=D("0.5")), Bill(OPTION), Bill(OPTION, prompt_cache=D("0.25")))
    assert found.prompt_cache == 0.75


def test_what_would_have_been_saved_is_added_up_by_its_cause() -> None:
    found = paid()
    for cause, usd in (("cache", "0.5"), ("collapse", "2"), ("cache", "0.25")):
        found.would(cause, D(usd))
    assert found.would_save == {"cache": 0.75, "collapse": 2}


# All of it.


def test_answers_of_the_same_labels_are_counted_together_and_all_others_apart() -> None:
    tallies = Tallies()
    different = [("chat", "stream"), ("m", "n"), ("p", "q"), ("hit", "miss"), (200, 404), ("pk_1", "pk_2")]
    for endpoint, model, provider, outcome, status, key in [
        *product(*different),
        ("chat", "m", "p", "hit", 200, "pk_1"),
    ]:
        row = answer(endpoint=endpoint, provider=provider, outcome=outcome, status=status, key=key)
        tallies.answered(row, str(model), "team")
    counts = {found.labels: found.count for found in tallies.answers.values()}
    assert len(counts) == 2**6
    assert counts.pop(Labels("chat", "m", "p", "hit", "200", "pk_1")) == 2
    assert set(counts.values()) == {1}


def test_the_models_label_is_what_counts_and_not_what_the_row_calls_it() -> None:
    tallies = Tallies()
    for number in range(3):
        tallies.answered(answer(model=f"m{number}", asked=f"m{number}"), "other", "team")
    ((labels, found),) = tallies.answers.items()
    assert (labels[1], found.count) == ("other", 3)


def test_bills_are_counted_by_provider_model_and_key() -> None:
    tallies = Tallies()
    for provider, model, key in [*product("pq", "mn", "kl"), ("p", "m", "k")]:
        tallies.payer(provider, model, key, key * 2).add(Bill(OPTION, USAGE, D(1)))
    assert len(tallies.paid) == 8
    assert tallies.paid[Payer("p", "m", "k")].usd == 2
    assert tallies.names == {"k": "kk", "l": "ll"}


def test_what_has_changed_since_somebody_looked_is_told_once() -> None:
    tallies = Tallies()
    for _ in range(2):
        for outcome in ("hit", "miss"):
            tallies.answered(answer(outcome=outcome), "m", "team")
            tallies.refused("wire", 503)
            tallies.payer("p", outcome, "pk_1", "team").add(Bill(OPTION))
        assert len(tallies.new_answers) == 3
        assert len(tallies.new_paid) == 2
        for found in tallies.new_answers:
            found.is_new = False
        for paid in tallies.new_paid:
            paid.is_new = False
        tallies.new_answers, tallies.new_paid = [], []
    tallies.answered(answer(outcome="hit"), "m", "team")
    assert [each.labels.outcome for each in tallies.new_answers] == ["hit"]


def test_of_what_no_endpoint_saw_only_the_status_is_known() -> None:
    tallies = Tallies()
    tallies.refused("wire", 503)
    tallies.refused("wire", 503)
    (found,) = tallies.answers.values()
    assert (found.labels, found.count) == (Labels("wire", "", "", "refused", "503", ""), 2)
    assert sum(found.total.counts) == 0


def test_attempts_are_counted_and_those_that_failed() -> None:
    tallies = Tallies()
    for failed in (False, True, False):
        tallies.tried("p", "m", failed=failed)
    tallies.tried("p", "n", failed=True)
    assert tallies.tried_of == {("p", "m"): (3, 1), ("p", "n"): (1, 1)}


# Of a list a part may be given again.


def test_of_a_list_the_part_that_was_known_is_saved_and_the_rest_is_not() -> None:
    part = Usage(input=30, cached=0, output=0)
    found = answers(answer(outcome="miss", usage=USAGE, again=part, saved=D("0.25"), cost=D(1)))
    assert (found.saved, found.input, found.unknown) == ({"cache": 0.25}, {"cache": 30}, 0)


def test_what_of_a_list_has_no_price_saves_its_tokens_all_the_same() -> None:
    part = Usage(input=30, cached=0, output=0)
    found = answers(answer(outcome="miss", usage=USAGE, again=part, saved=None))
    assert (found.saved, found.input) == ({}, {"cache": 30})


def test_a_list_that_joined_others_saves_by_that() -> None:
    part = Usage(input=30, cached=0, output=0)
    found = answers(answer(outcome="collapsed", usage=USAGE, again=part, saved=D("0.25"), leader="req_0"))
    assert (found.saved, found.input) == ({"collapse": 0.25}, {"collapse": 30})
