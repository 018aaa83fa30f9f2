"""All that was learned: what a request is told of what came before it, and what outlives a restart."""

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.cost import Usage
from pricing.models import PromptCache
from proxy.core.access import Grant
from proxy.core.breaker import Health
from proxy.core.call import read_call
from proxy.core.chain import Counts, links_of
from proxy.core.experience import AN_ANSWER, UNTRIED
from proxy.core.learned import (
    LIFETIME,
    UNTRIED_TRUST,
    Asked,
    Kept,
    Learned,
    asked_of,
    lifetime_of,
)
from proxy.core.ranking import Ask, Estimate, View, estimate
from proxy.core.routing import Choice, Option
from proxy.core.stored import LASTING
from tests.core.making import AT, AUTOMATIC, option, rates, route, unknown

Body = dict[str, Any]

NOW, KEPT_FOR = 1_700_000_000.0, 3600.0
A = option("a", rates("1", "2", "0.1"), AUTOMATIC)
B = option("b", rates("1", "2", "0.1"), PromptCache(lifetime=3600))
CHOICE = route(A, B)
USER: Body = {"role": "user", "content": "What is the weather in Paris? " * 20}
CALLS: Body = {"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "{}"}}]}
TOOL: Body = {"role": "tool", "tool_call_id": "c1", "content": "22"}
SAID: Body = {"role": "assistant", "content": "22 degrees."}


def learned() -> Learned:
    return Learned(Health(), kept_for=KEPT_FOR)


def asked(*messages: Body, namespace: bytes = b"", account: str = "", choice: Choice = CHOICE, **members: Any) -> Asked:
    body = {"model": "r", "messages": list(messages)} | members
    call = read_call("chat/completions", json.dumps(body).encode(), {})
    links = links_of(call.body, b"secret", namespace)
    counts = Counts()
    return asked_of(choice, account, call, links, counts.pending(call.body, links, "o200k_base").count(len))


def response(*, owner: str = "", choice: Choice = CHOICE, **members: Any) -> Asked:
    """A request to `responses`."""
    raw = json.dumps({"model": "r", "input": "hello"} | members).encode()
    call = read_call("responses", raw, {}, grant=Grant(owner, owner))
    links = links_of(call.likeness, b"secret", b"")
    return asked_of(choice, "", call, links, Counts().pending(call.likeness, links, "o200k_base").count(len))


def found(request: Asked, by: Option = A, view: View | None = None) -> Estimate:
    return estimate(by, Ask(request.needs, request.upto), view or View(), AT)


def answer(
    known: Learned, request: Asked, by: Option = A, now: float = NOW, usage: Usage | None = None, **view: Any
) -> None:
    known.answered(request, found(request, by, View(**view)), usage, first=None, began=now)


def test_of_what_nobody_knows_anything_is_hoped() -> None:
    known, request = learned(), asked(USER)
    first = known.ask(request, NOW)
    assert (first.needs, first.upto, first.pinned, first.growth, first.shared) == (
        request.needs,
        request.upto,
        None,
        0,
        1,
    )
    assert first.to_come == pytest.approx(1)
    hoped = UNTRIED * AN_ANSWER
    assert known.views(request, NOW) == [View(output=hoped), View(output=hoped, trust=UNTRIED_TRUST)]
    assert not known.changed


def test_a_prompt_that_was_answered_is_believed_to_be_cached_there_for_its_lifetime() -> None:
    known = learned()
    answer(known, asked(USER), A)
    answer(known, asked(USER), B)
    later = asked(USER, SAID, USER)
    assert [view.links for view in known.views(later, NOW + 300)] == [2, 2]
    assert [view.links for view in known.views(later, NOW + 301)] == [0, 2]
    assert [view.links for view in known.views(later, NOW + 3601)] == [0, 0]
    assert [view.links for view in known.views(asked(SAID), NOW)] == [1, 1]  # what is declared: nothing


def test_a_lifetime_is_that_of_the_terms_or_five_minutes() -> None:
    assert [lifetime_of(each) for each in (A, B, unknown("x"), option("y", None, PromptCache()))] == [
        300.0,
        3600.0,
        LIFETIME,
        LIFETIME,
    ]


def test_who_follows_whom_tells_how_many_are_to_come() -> None:
    known = learned()
    for row in range(200):
        opening = {"role": "user", "content": f"{row} " * 100}
        answer(known, asked(opening), now=NOW)
        answer(known, asked(opening, SAID, USER), now=NOW + 1)
    assert known.ask(asked(USER), NOW).to_come == pytest.approx(1, abs=0.05)
    answer(known, asked(USER), now=NOW)
    second = known.ask(asked(USER, SAID, USER), NOW + 1)
    assert second.to_come == pytest.approx(0, abs=0.05)
    assert second.growth > 100


def test_what_follows_is_expected_to_be_answered_as_what_followed_was() -> None:
    known = learned()
    for row in range(50):
        opening = {"role": "user", "content": f"{row} " * 100}
        answer(known, asked(opening), usage=Usage(100, 0, 1000))
        answer(known, asked(opening, SAID, TOOL), usage=Usage(100, 0, 20))
    new = {"role": "user", "content": "new " * 60}
    assert known.views(asked(new), NOW)[0].output > 500
    follower = asked(new, SAID, TOOL)
    alone = known.views(follower, NOW)[0].output
    answer(known, asked(new))
    assert known.views(follower, NOW)[0].output < 100 < alone


def test_turns_that_come_late_find_only_the_longer_lived_cache_warm() -> None:
    known = learned()
    for row in range(200):
        opening = {"role": "user", "content": f"{row} " * 100}
        answer(known, asked(opening), now=NOW)
        answer(known, asked(opening, SAID, USER), now=NOW + 1800)
    request = asked(USER)
    # All come between 5 and 30 minutes after; one is supposed to come at once.
    assert [view.warm for view in known.views(request, NOW)] == pytest.approx([1 / 201, 1.0])
    # They are to come as long as anybody has a cache that lasts so long.
    assert known.ask(request, NOW).to_come == pytest.approx(1, abs=0.05)
    alone = msgspec.structs.replace(request, choice=route(A))
    assert known.ask(alone, NOW).to_come == pytest.approx(0, abs=0.05)
    assert [view.warm for view in known.views(alone, NOW)] == [1.0]


def test_a_model_that_made_calls_of_tools_is_who_the_conversation_goes_on_with() -> None:
    known = learned()
    answer(known, asked(USER), B)
    assert known.ask(asked(USER, CALLS, TOOL), NOW).pinned == 1
    assert known.ask(asked(USER, CALLS, TOOL, SAID, USER), NOW).pinned == 1  # nor do turns of words loosen it
    assert known.ask(asked(USER, SAID, USER), NOW).pinned is None
    answer(known, asked(USER, CALLS, TOOL), A)
    assert known.ask(asked(USER, CALLS, TOOL, CALLS, TOOL), NOW).pinned == 0


@pytest.mark.parametrize(
    "other",
    [
        {"namespace": b"other"},
        {"account": "other"},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"choice": route(A)},
    ],
)
def test_another_namespace_account_or_prompt_or_a_route_without_that_model_sees_nothing(other: dict[str, Any]) -> None:
    known = learned()
    answer(known, asked(USER), B)
    request = asked(USER, CALLS, TOOL, **other)
    assert known.ask(request, NOW).pinned is None
    assert all(view.links == 0 for view in known.views(request, NOW))


def test_what_happened_in_another_account_is_not_known_in_this() -> None:
    known = learned()
    request, other = asked(USER, account="one"), asked(USER, account="two")
    known.health.bad(request.place(A), NOW)
    known.health.cool(request.place(A), NOW, 30.0)
    for _ in range(9):
        known.answered(request, found(request), Usage(100, 0, 7), first=2.0, began=NOW)
    assert known.views(request, NOW)[0].first == 2.0
    assert (known.views(request, NOW)[0].state, known.views(other, NOW)[0].state) == ("cooling", "up")
    assert known.views(other, NOW)[0].first is None


def test_a_pin_lasts_as_long_as_conversations_are_kept_and_answers_out_of_the_cache_keep_it() -> None:
    known, request = learned(), asked(USER)
    answer(known, request, B)
    follower = asked(USER, CALLS, TOOL)
    assert known.ask(follower, NOW + KEPT_FOR).pinned == 1
    assert known.ask(follower, NOW + KEPT_FOR + 1).pinned is None
    known.given_again(request.links, request.place(B), NOW + KEPT_FOR)
    assert known.ask(follower, NOW + 2 * KEPT_FOR).pinned == 1


def test_an_answer_out_of_the_cache_pins_though_nobody_knew_its_prompt() -> None:
    known, request = learned(), asked(USER)
    known.given_again(request.links, request.place(B), NOW)
    assert known.changed
    assert known.ask(asked(USER, CALLS, TOOL), NOW).pinned == 1
    assert [view.links for view in known.views(request, NOW)] == [0, 0]  # no provider saw it


def test_usage_teaches_length_trust_and_tokenizer() -> None:
    known, request = learned(), asked(USER, n=2)
    tokens = found(request).count.total
    for _ in range(200):
        known.answered(request, found(request), Usage(2 * tokens, 0, 1000), first=0.5, began=NOW)
    view = known.views(request, NOW)[0]
    assert view.output == pytest.approx(500, rel=0.1)  # of each of its two choices
    assert view.factor == pytest.approx(2.0, rel=0.1)
    assert (view.first, view.trust) == (0.5, 1.0)  # nothing was believed to be cached


def test_a_cache_of_which_nothing_is_billed_is_not_believed_in() -> None:
    known, request = learned(), asked(*[USER] * 20)
    for _ in range(50):
        answer(known, request, A, usage=Usage(9000, 0, 10), links=21)
    assert found(request, view=View(links=21)).cached > 1024
    assert known.views(request, NOW)[0].trust < 0.05


def test_without_a_usage_prefixes_and_conversations_are_learned_all_the_same() -> None:
    known, request = learned(), asked(USER)
    answer(known, request, usage=None)
    view = known.views(request, NOW)[0]
    assert (view.links, view.output, view.factor) == (2, UNTRIED * AN_ANSWER, 1.0)
    assert known.changed


def test_calls_that_are_under_way_make_a_model_less_unknown_until_they_end() -> None:
    known, request = learned(), asked(USER)
    for _ in range(50):
        answer(known, request, B, usage=Usage(100, 0, 200))
    before = known.views(request, NOW)[0].output
    for _ in range(10):
        known.begun(request, A)
    assert known.views(request, NOW)[0].output > before
    for _ in range(10):
        known.ended(request, A)
    assert known.views(request, NOW)[0].output == before
    assert not known._waiting


@pytest.mark.parametrize(
    ("messages", "made"),
    [([USER], None), ([USER, SAID], None), ([USER, CALLS], 1), ([CALLS], 0), ([USER, CALLS, TOOL, SAID], 1)],
)
def test_what_was_made_is_the_link_before_the_assistants_turn(messages: list[Body], made: int | None) -> None:
    request = asked(*messages)
    assert request.made == (None if made is None else asked(*messages[:made]).links[-1])
    assert len(request.links) == len(request.upto) == len(request.base) == len(messages) + 1


@pytest.mark.parametrize("messages", [None, "text", {}, [], 5])
def test_a_body_whose_messages_are_none_is_learned_like_any_other(messages: object) -> None:
    known, request = learned(), asked(messages=messages)
    known.answered(request, found(request), Usage(0, 0, 0), first=0.0, began=NOW)
    assert known.ask(request, NOW).pinned is None
    assert all(isinstance(view.output, float) for view in known.views(request, NOW))


def test_a_request_without_links_is_learned_but_for_its_prefix() -> None:
    known = learned()
    request = msgspec.structs.replace(asked(USER), links=())
    known.answered(request, found(request), Usage(100, 0, 5), first=None, began=NOW)
    assert [view.links for view in known.views(request, NOW)] == [0, 0]


@pytest.mark.parametrize("usage", [Usage(10**8, 10**8, 10**8), Usage(0, 0, 0), Usage(1, 1, 10**8)])
def test_an_absurd_usage_leaves_numbers(usage: Usage) -> None:
    known, request = learned(), asked(USER)
    for _ in range(400):
        answer(known, request, usage=usage, links=2)
    for view in known.views(request, NOW):
        priced = estimate(A, known.ask(request, NOW), view, AT)
        assert priced.total is not None
        assert priced.total < Decimal(10**6)
    learned().restore(known.snapshot(NOW), NOW)


REQUESTS = [
    asked(USER),
    asked(USER, CALLS, TOOL),
    asked(USER, SAID, USER),
    asked(USER, CALLS, TOOL, SAID, USER),
    asked(SAID),
    asked(USER, account="other"),
    asked(USER, namespace=b"other", choice=route(B, A, unknown("x"))),
]
acts = st.tuples(
    st.sampled_from(REQUESTS),
    st.booleans(),
    st.integers(-500, 5000),
    st.none() | st.builds(Usage, st.integers(50, 10**8), st.integers(0, 50), st.integers(0, 10**8)),
    st.none() | st.floats(0, 100),
    st.sampled_from(["answered", "answered", "given again", "bad", "cool"]),
)


def act(known: Learned, told: list[Any]) -> None:
    for request, other, after, usage, first, what in told:
        by, now = request.choice.options[other], NOW + after
        if what == "answered":
            known.answered(request, found(request, by), usage, first=first, began=now)
        elif what == "given again":
            known.given_again(request.links, request.place(by), now)
        elif what == "bad":
            known.health.bad(request.place(by), NOW - abs(after))
        else:
            known.health.cool(request.place(by), NOW - abs(after), 60.0)


@settings(deadline=None)
@given(st.lists(acts, max_size=25))
def test_what_is_restored_knows_what_was_kept(told: list[Any]) -> None:
    known, again = learned(), learned()
    act(known, told)
    again.restore(known.snapshot(NOW), NOW)
    for request in REQUESTS:
        for now in (NOW, NOW + 100, NOW + 4000):
            assert again.ask(request, now) == known.ask(request, now)
            assert again.views(request, now) == known.views(request, now)
    act(known, told[:5])
    act(again, told[:5])
    assert [again.views(each, NOW) for each in REQUESTS] == [known.views(each, NOW) for each in REQUESTS]


def filled() -> Learned:
    known = learned()
    for request in REQUESTS:
        answer(known, request, usage=Usage(100, 10, 50))
    known.health.cool(REQUESTS[0].place(A), NOW, 60.0)
    return known


FILLED = filled()
KEPT = FILLED.snapshot(NOW)
REFUSED = [
    b"",
    b"{}",
    b"\xc1",
    b"\x80",
    KEPT + b"\x00",
    json.dumps({"version": 1}).encode(),
    b"\x81\xa2zz" + b"\x91" * 100_000,
    b"\xdf\xff\xff\xff\xff",
    b"\x81\xa5turns\xdd\xff\xff\xff\xff",
]


def spoiled(**members: Any) -> bytes:
    """What was kept with some of it replaced."""
    return msgspec.msgpack.encode(msgspec.msgpack.decode(KEPT) | members)


REFUSED += [
    spoiled(version=0),
    spoiled(version=2),
    spoiled(version="1"),
    spoiled(held={b"x" * 12: len(REQUESTS)}),
    spoiled(held={b"x" * 12: -1}),
    spoiled(habits={"r": {"seen": [1.0], "followed": [1.0], "gaps": []}}),
    spoiled(experience={"lengths": {"r": {"every": [float("nan"), 1.0]}}}),
    spoiled(experience={"lengths": {"r": {"every": [float("inf"), 1.0]}}}),
    spoiled(experience={"first": {"a": [-1.0, 1.0]}}),
    spoiled(turns=None),
    spoiled(prefixes=[["a", {}]]),
    spoiled(health=[{"key": "a"}]),
]


@pytest.mark.parametrize("kept", REFUSED, ids=range(len(REFUSED)))
def test_what_no_snapshot_made_is_refused_and_changes_nothing(kept: bytes) -> None:
    known = filled()
    with pytest.raises(ValueError):
        known.restore(kept, NOW)
    assert known.snapshot(NOW) == KEPT


def test_a_snapshot_that_was_cut_is_refused_and_changes_nothing() -> None:
    known = filled()
    for length in range(len(KEPT)):
        with pytest.raises(ValueError):
            known.restore(KEPT[:length], NOW)
    assert known.snapshot(NOW) == KEPT


@settings(deadline=None)
@given(st.integers(0, len(KEPT) - 1), st.integers(1, 255))
def test_a_snapshot_in_which_a_byte_was_changed_is_refused_or_can_be_asked(position: int, flip: int) -> None:
    changed = bytearray(KEPT)
    changed[position] ^= flip
    known = learned()
    try:
        known.restore(bytes(changed), NOW)
    except ValueError:
        assert known.snapshot(NOW) == learned().snapshot(NOW)
        return
    for request in REQUESTS:
        asking = known.ask(request, NOW)
        assert 0 <= asking.to_come <= 30
        priced = [
            estimate(each, asking, view, AT)
            for each, view in zip(request.choice.options, known.views(request, NOW), strict=True)
        ]
        assert all(each.total is None or each.total.is_finite() for each in priced)
        answer(known, request, usage=Usage(100, 0, 10))


def test_what_is_kept_holds_no_word_of_a_prompt() -> None:
    for word in (b"weather", b"Paris", b"degrees", b"secret"):
        assert word not in KEPT
    assert msgspec.msgpack.decode(KEPT, type=Kept).version == 1


def test_a_prompt_of_a_hundred_thousand_messages_leaves_what_others_taught() -> None:
    known, request = learned(), asked(USER)
    answer(known, request, B)
    large = msgspec.structs.replace(
        request,
        links=[number.to_bytes(12) for number in range(100_000)],
        upto=[request.upto[-1]] * 100_000,
        base=[request.base[-1]] * 100_000,
    )
    answer(known, large, A)
    assert known.ask(asked(USER, CALLS, TOOL), NOW).pinned == 1
    assert known.views(request, NOW)[1].links == 2


# What a provider holds.

PLACE = A.target.place("")
HELD_BY_B: dict[str, Any] = {"previous_response_id": "resp_1"}


def test_what_refers_to_state_goes_to_whom_holds_it() -> None:
    known = learned()
    known.holds("resp_1", "", B.target.place(""), NOW)
    assert known.changed
    ask = known.ask(response(**HELD_BY_B), NOW)
    assert (ask.holder, ask.pinned) == ("b", 1)
    later = known.ask(response(**HELD_BY_B), NOW + LASTING)  # whatever is kept here, and for how long
    assert (later.holder, later.pinned) == ("b", 1)
    forgotten = known.ask(response(**HELD_BY_B), NOW + LASTING + 1)
    assert (forgotten.holder, forgotten.pinned) == ("a", None)


def test_what_refers_to_state_of_which_nobody_knows_goes_to_the_baselines_provider() -> None:
    for members in (HELD_BY_B, {"conversation": "conv_1"}, {"input": [{"type": "item_reference", "id": "rs_1"}]}):
        ask = learned().ask(response(choice=route(A, B, baseline=1), **members), NOW)
        assert (ask.holder, ask.pinned) == ("b", None)


def test_what_refers_to_nothing_has_no_holder() -> None:
    known = learned()
    known.holds("resp_1", "", PLACE, NOW)
    assert known.ask(response(), NOW).holder is None
    assert known.ask(response(previous_response_id=None), NOW).holder is None
    assert known.ask(asked(USER), NOW).holder is None


def test_where_answers_are_kept_for_longer_than_providers_hold_them_that_counts() -> None:
    known = Learned(Health(), kept_for=LASTING * 2)
    known.holds("resp_1", "pk_1", B.target.place(""), NOW)
    assert known.ask(response(**HELD_BY_B), NOW + LASTING * 2).holder == "b"
    assert known.stored.is_anothers("resp_1", "pk_2", NOW + LASTING * 2)


def test_where_there_is_nothing_to_choose_nothing_is_bound() -> None:
    assert response(**HELD_BY_B).bound
    alone = response(choice=route(B), **HELD_BY_B)
    assert not alone.bound
    assert learned().ask(alone, NOW).holder is None


def test_who_made_a_conversation_does_not_stand_for_who_holds_a_state() -> None:
    known, before = learned(), response()
    known.holds("resp_1", "", B.target.place(""), NOW)
    answer(known, before, A)
    assert known.ask(response(**HELD_BY_B), NOW).holder == "b"


def test_a_name_that_is_none_holds_nothing() -> None:
    known = learned()
    known.holds("", "pk_1", PLACE, NOW)
    assert not known.changed
    name: object
    for name in ("", None, 7, ["resp_1"], {}):
        assert not known.stored.is_anothers(name, "pk_2", NOW)


def test_an_answer_is_anothers_where_only_another_key_has_had_it_made() -> None:
    known = learned()
    known.holds("resp_1", "pk_1", PLACE, NOW)
    assert not known.stored.is_anothers("resp_1", "pk_1", NOW)
    assert known.stored.is_anothers("resp_1", "pk_2", NOW)
    assert not known.stored.is_anothers("resp_2", "pk_2", NOW)  # nobody knows whose that is
    assert not known.stored.is_anothers("resp_1", "pk_2", NOW + LASTING + 1)
    known.holds("resp_1", "pk_2", PLACE, NOW)
    assert not known.stored.is_anothers("resp_1", "pk_2", NOW)


def test_who_holds_what_for_whom_outlives_a_restart_and_no_name_is_kept() -> None:
    known, again = learned(), learned()
    known.holds("resp_1", "pk_1", B.target.place(""), NOW)
    kept = known.snapshot(NOW)
    again.restore(kept, NOW)
    assert again.ask(response(**HELD_BY_B), NOW).holder == "b"
    assert [again.stored.is_anothers("resp_1", owner, NOW) for owner in ("pk_1", "pk_2")] == [False, True]
    assert b"resp_1" not in kept
