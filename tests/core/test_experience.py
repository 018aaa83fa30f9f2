"""Old answers fade, one odd answer moves little, and what was never tried is taken for better than it probably is."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.experience import AN_ANSWER, FEW, MODELS, ODD, RECENT, UNTRIED, Experience, Lengths, Mean, Verbosity
from proxy.core.routing import Place

A: Place = ("p", "a", "")
B: Place = ("p", "b", "")
C: Place = ("p", "c", "")


def answered(lengths: Lengths, place: Place, *outputs: float, prompt: int = 1000, follows: bool = False) -> Lengths:
    for output in outputs:
        lengths.answered(place, prompt, output, follows=follows)
    return lengths


def hoped(lengths: Lengths, place: Place, waiting: int = 0, prompt: int = 1000, *, follows: bool = False) -> float:
    return lengths.hoped(place, waiting, prompt, follows=follows)


def test_a_mean_is_the_mean_of_what_came_until_older_values_fade() -> None:
    mean = Mean()
    for value in (1.0, 2.0, 6.0):
        mean = mean.after(value)
    assert mean == Mean(3.0, 3.0)
    assert mean.toward(7.0, 1.0) == 4.0  # (3 * 3 + 7) / 4
    for _ in range(3000):
        mean = mean.after(10.0)
    assert mean.weight == RECENT
    assert mean.value == pytest.approx(10.0, abs=0.01)
    assert mean.after(310.0).value == pytest.approx(11.0, abs=0.01)  # one in 300


def test_before_anything_is_known_every_model_is_hoped_to_be_terse() -> None:
    assert hoped(Lengths(), A) == UNTRIED * AN_ANSWER == 50.0


def test_a_model_that_was_never_tried_is_hoped_to_be_terser_than_the_tersest_that_was() -> None:
    lengths = answered(Lengths(), A, *[400.0] * 200)
    answered(lengths, B, *[200.0] * 200)
    assert hoped(lengths, A) > hoped(lengths, B) > hoped(lengths, C)
    terse = min(each.factor for each in lengths.models.values())
    assert hoped(lengths, C) == pytest.approx(UNTRIED * terse * lengths.usual(1000, follows=False))


def test_what_is_hoped_comes_near_to_what_is_seen() -> None:
    lengths = answered(Lengths(), A, *[500.0] * 300)
    assert hoped(lengths, A) == pytest.approx(500.0, rel=0.05)
    assert hoped(lengths, A) < 500.0
    first = answered(Lengths(), A, 500.0)
    assert hoped(first, A) < 0.7 * hoped(lengths, A)


def mixed(rounds: int) -> Lengths:
    """`a` answers what gets long answers, `b` what gets short ones, each half as long as `c`, which answers both."""
    lengths = Lengths()
    for _ in range(rounds):
        answered(lengths, A, 500.0, prompt=100_000)
        answered(lengths, B, 50.0, prompt=100)
        answered(lengths, C, 1000.0, prompt=100_000)
        answered(lengths, C, 100.0, prompt=100)
    return lengths


def test_what_a_model_is_asked_for_it_is_soon_known_for() -> None:
    lengths = mixed(300)
    assert hoped(lengths, A, prompt=100_000) == pytest.approx(500.0, rel=0.1)
    assert hoped(lengths, B, prompt=100) == pytest.approx(50.0, rel=0.25)
    assert hoped(lengths, C, prompt=100_000) == pytest.approx(1000.0, rel=0.15)


def test_in_the_end_models_are_told_apart_though_they_answer_different_requests() -> None:
    lengths = mixed(4000)
    a, b, c = (lengths.models[place].factor for place in (A, B, C))
    assert b / a == pytest.approx(1, rel=0.15)
    assert c / a == pytest.approx(2, rel=0.15)
    assert hoped(lengths, A, prompt=100) == pytest.approx(50.0, rel=0.25)  # what it was never asked
    assert hoped(lengths, B, prompt=100_000) == pytest.approx(500.0, rel=0.25)


def test_requests_are_of_a_kind_by_the_length_of_their_prompt_and_by_whether_they_follow_another() -> None:
    lengths = answered(Lengths(), A, *[1000.0] * 50, prompt=1024)
    answered(lengths, A, *[10.0] * 50, prompt=2048)
    answered(lengths, A, *[100.0] * 50, prompt=1024, follows=True)
    usual = [lengths.usual(tokens, follows=False) for tokens in (1024, 2047, 2048, 4095)]
    assert usual[0] == usual[1] > lengths.usual(1024, follows=True) > usual[2] == usual[3]
    every = lengths.every.value
    assert lengths.usual(0, follows=False) == lengths.usual(-5, follows=False) == lengths.usual(10**9, follows=True)
    assert lengths.usual(0, follows=False) == every
    assert lengths.kinds.keys() == {22, 24, 23}  # 1024 has 11 binary digits, 2048 has 12


def test_a_kind_that_was_seen_little_is_near_to_what_all_get() -> None:
    lengths = answered(Lengths(), A, *[100.0] * 300)
    every = lengths.every.value
    answered(lengths, A, 1000.0, prompt=10)
    kind = lengths.kinds[8].value
    assert lengths.usual(10, follows=False) == pytest.approx((kind + lengths.every.value * FEW) / (1 + FEW))
    assert every < lengths.usual(10, follows=False) < kind / 2


def test_a_long_answer_counts_for_more_since_sums_are_compared() -> None:
    """To two requests of which 100 tokens were expected it wrote 10, to one of which 1,000 were, 2,000."""
    known = Verbosity().after(10.0, 100.0, 1).after(10.0, 100.0, 1).after(2000.0, 1000.0, 2)
    assert known.factor == 2020.0 / 1200.0  # and not (0.1 + 0.1 + 2) / 3
    assert (known.answers, known.kinds) == (3.0, {1: 2.0, 2: 1.0})
    assert Verbosity().factor == 1.0


def test_an_answer_that_is_under_way_makes_a_model_less_unknown() -> None:
    lengths = answered(Lengths(), A, *[200.0] * 100)
    untried = [hoped(lengths, B, waiting) for waiting in (0, 1, 4, 100)]
    assert untried == sorted(untried)
    assert untried[0] < untried[-1] <= lengths.usual(1000, follows=False)


def test_a_model_whose_answers_are_still_awaited_is_not_taken_for_terser_than_the_tersest() -> None:
    lengths = answered(Lengths(), A, *[200.0] * 100)
    answered(lengths, B, 2.0)  # the short one came first, and 99 are under way
    terse = lengths.models[B].factor
    assert lengths.models[B].hoped(99, terse, 20) <= terse
    assert Verbosity().hoped(18, 0.5, 20) == pytest.approx(0.5 * (1 - 0.5 / 1.5))  # 18/8 is 1.5 times itself


def test_one_request_to_another_kind_makes_as_sure_as_an_eighth_of_one_to_this() -> None:
    known = Verbosity(1000.0, 1000.0, 16.0, {1: 16.0})
    assert known.hoped(0, 1.0, 1) == pytest.approx(1 - 0.5 / 18**0.5)  # 16 + 16/8
    assert known.hoped(0, 1.0, 2) == pytest.approx(1 - 0.5 / 2**0.5)  # 0 + 16/8
    assert Verbosity(1.0, 1.0, 1.0).hoped(0, 1.0, 2) == UNTRIED  # 1 - 0.5 / sqrt(1/8) is below nothing


def test_an_absurdly_long_answer_counts_as_no_more_than_a_long_one() -> None:
    lengths = answered(Lengths(), A, 1e18)
    assert lengths.models[A].wrote == ODD * AN_ANSWER == 20_000.0
    answered(lengths, A, *[200.0] * 600)
    assert hoped(lengths, A) == pytest.approx(200.0, rel=0.2)


def test_answers_of_which_no_token_is_counted_spoil_nothing() -> None:
    lengths = answered(Lengths(), A, *[0.0] * 20_000)
    assert 0 < hoped(lengths, A) < 3
    assert 0 < hoped(lengths, B) < 1
    answered(lengths, B, 200.0)
    assert hoped(lengths, B) < 300.0
    answered(lengths, A, *[300.0] * 3000)
    assert hoped(lengths, A) == pytest.approx(300.0, rel=0.1)


def test_only_so_many_models_are_remembered_and_whoever_was_not_heard_of_for_longest_goes_first() -> None:
    lengths, known = Lengths(), Experience()
    for number in range(MODELS + 5):
        place = ("p", str(number), "")
        lengths.answered(place, 10, 10.0, follows=False)
        known.streamed(place, 1.0)
        known.cached(place, believed=10, billed=10)
        if number == MODELS - 1:
            lengths.answered(("p", "0", ""), 10, 10.0, follows=False)
    assert len(lengths.models) == len(known.first) == len(known.trust) == MODELS
    assert ("p", "0", "") in lengths.models
    assert ("p", "1", "") not in lengths.models
    assert ("p", "4", "") not in known.first


def test_the_first_token_is_as_soon_as_it_was() -> None:
    known = Experience()
    assert known.soon(A) is None
    known.streamed(A, 1.0)
    known.streamed(A, 2.0)
    assert (known.soon(A), known.soon(B)) == (1.5, None)


def test_a_belief_in_what_is_cached_is_trusted_as_far_as_it_was_billed() -> None:
    known = Experience()
    assert known.trusted(A, 0.5) == 0.5
    known.cached(A, believed=1000, billed=250)
    assert known.trusted(A, 0.5) == 0.375  # (0.25 + 0.5) / 2
    known.cached(A, believed=1000, billed=9000)  # more than was believed is all of it
    assert known.trusted(A, 0.5) == pytest.approx(1.75 / 3)
    known.cached(A, believed=0, billed=10**9)
    assert known.trusted(A, 0.5) == pytest.approx(1.75 / 3)


def test_routes_learn_apart() -> None:
    known = Experience()
    answered(known.of("r"), A, *[500.0] * 100)
    assert hoped(known.of("other"), A) == UNTRIED * AN_ANSWER
    assert hoped(known.of("r"), A) > 400


outputs = st.floats(0, 1e18) | st.integers(0, 10**8)
told = st.tuples(st.sampled_from([A, B, C]), st.integers(-1, 10**12), outputs, st.booleans())


@settings(deadline=None)
@given(st.lists(told, max_size=60), st.integers(0, 10**12), st.integers(0, 1000), st.booleans())
def test_whatever_came_what_is_hoped_is_a_number_and_can_be_kept(
    answers: list[tuple[Place, int, float, bool]], prompt: int, waiting: int, follows: bool
) -> None:
    known = Experience()
    for place, tokens, output, of_a_row in answers:
        known.of("r").answered(place, tokens, output, follows=of_a_row)
    for place in (A, B, C):
        assert 0 <= known.of("r").hoped(place, waiting, prompt, follows=follows) < 1e12
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(known), type=Experience) == known


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), 1e300])
def test_what_is_no_mean_is_not_read(value: float) -> None:
    for kind in (Mean, Verbosity):
        with pytest.raises(msgspec.ValidationError):
            msgspec.msgpack.decode(msgspec.msgpack.encode([value, 1.0]), type=kind)
