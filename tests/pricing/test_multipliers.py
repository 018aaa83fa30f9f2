"""What is learned of a provider's counts, and what may not spoil it."""

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.multipliers import MODELS, Learned, Multipliers
from pricing.tokens import Count


def taught(pairs: list[tuple[int, int]], known: Learned | None = None) -> Learned:
    known = known or Learned()
    for counted, actual in pairs:
        known = known.after(counted, actual)
    return known


@pytest.mark.parametrize("ratio", [0.7, 1.0, 1.46, 2.0])
def test_what_is_learned_comes_to_what_a_provider_counts(ratio: float) -> None:
    assert taught([(n, round(n * ratio)) for n in range(2_000, 4_000, 50)]).factor == pytest.approx(ratio, rel=0.05)
    assert taught([(n, round(n * ratio)) for n in range(2_000, 9_000, 50)]).factor == pytest.approx(ratio, rel=0.01)


@pytest.mark.parametrize("absurd", [1, 10**12])
def test_one_absurd_usage_spoils_nothing(absurd: int) -> None:
    settled = taught([(5_000, 6_000)] * 50)
    assert taught([(5_000, absurd)], settled).factor == pytest.approx(settled.factor, rel=0.013)
    assert taught([(5_000, absurd)]).factor == pytest.approx(1.0, abs=0.14)
    assert taught([(5_000, absurd)] + [(5_000, 6_000)] * 50).factor == pytest.approx(1.2, rel=0.01)


def test_one_absurd_usage_in_ten_spoils_little() -> None:
    pairs = ([(5_000, 6_000)] * 9 + [(5_000, 500_000)]) * 20
    assert taught(pairs).factor == pytest.approx(1.2, rel=0.05)


def test_a_change_of_the_tokenizer_is_learned_anew() -> None:
    changed = taught([(5_000, 7_000)] * 80, taught([(5_000, 5_000)] * 500))
    assert changed.factor == pytest.approx(1.4, rel=0.02)


def test_a_short_prompt_teaches_less_than_a_long_one() -> None:
    assert 1.0 < taught([(10, 20)]).factor < taught([(100, 200)]).factor < taught([(2_000, 4_000)]).factor


def test_what_makes_no_sense_teaches_nothing() -> None:
    for counted, actual in ((0, 10), (10, 0), (-5, 10), (10, -5)):
        assert Learned().after(counted, actual) == Learned()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 10**30), st.integers(1, 10**30)), max_size=200))
def test_what_is_learned_stays_within_bounds_and_can_be_kept(pairs: list[tuple[int, int]]) -> None:
    learned = taught(pairs)
    assert math.exp(-2) <= learned.factor <= math.exp(2)
    assert msgspec.json.decode(msgspec.json.encode(learned), type=Learned) == learned


def test_each_model_of_each_provider_learns_for_itself_and_a_new_value_is_made() -> None:
    nothing = Multipliers()
    learned = nothing.after("a", "m", Count(2_000), 3_000)
    assert nothing == Multipliers()
    assert learned.of("a", "m") > 1.0
    assert [learned.of("a", "n"), learned.of("b", "m"), nothing.of("a", "m")] == [1.0] * 3
    kept = msgspec.json.decode(msgspec.json.encode(learned), type=Multipliers)
    assert kept == learned
    assert kept.after("b/a", "m", Count(2_000), 1_000).of("b/a", "m") < 1.0


@pytest.mark.parametrize(
    "kept", ['{"logarithm": 9}', '{"logarithm": 0, "weight": 0}', '{"weight": 1e9}', '{"logarithm": "x"}']
)
def test_what_was_kept_and_makes_no_sense_is_refused(kept: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(kept, type=Learned)


def test_only_prompts_of_nothing_but_text_teach() -> None:
    for count in (Count(2_000, images=85), Count(2_000, audio=1), Count(2_000, files=9), Count(0)):
        assert Multipliers().after("a", "m", count, 4_000) == Multipliers()
    assert Multipliers().after("a", "m", Count(2_000), 0) == Multipliers()


def test_the_models_that_are_remembered_are_bounded() -> None:
    learned = Multipliers()
    for number in range(MODELS):
        learned = learned.after("a", f"m{number}", Count(2_000), 3_000)
    learned = learned.after("a", "m0", Count(2_000), 3_000).after("a", "new", Count(2_000), 3_000)
    assert len(learned.learned["a"]) == MODELS
    assert learned.of("a", "m1") == 1.0
    assert min(learned.of("a", "m0"), learned.of("a", "new")) > 1.0
