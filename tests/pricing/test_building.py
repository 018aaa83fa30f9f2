"""The script that builds the catalogue: what it makes of its sources' rows, and where they disagree."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from bench.catalogue.builder import Builder
from bench.catalogue.families import tokenizer_of
from bench.catalogue.folding import fold
from bench.catalogue.litellm import litellm_rates, number
from pricing.cost import Rates, Tier
from pricing.models import Hours, Model, Period


def built(rows: dict[str, dict[str, Any]]) -> list[Model]:
    """With litellm's rows alone."""
    taken = datetime(2026, 11, 23, tzinfo=UTC)
    return Builder({}, json.loads(json.dumps(rows), parse_float=Decimal), taken).models()


GPT = {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1.25e-06, "output_cost_per_token": 1e-05}


def test_a_row_becomes_a_model_with_exact_prices() -> None:
    [model] = built({"gpt-9": {**GPT, "max_input_tokens": 8000, "supports_vision": True, "supports_reasoning": False}})
    assert model.standard == Rates(input=Decimal("1.25"), output=Decimal(10))
    assert (model.window, model.max_output, model.yes, model.no) == (8000, None, ("vision",), ("reasoning",))
    assert model.origin == {"litellm": "window capabilities standard"}


@pytest.mark.parametrize(
    ("per_token", "per_million"),
    [
        (1.25e-06, "1.25"),
        (3.0001999999999996e-07, "0.30002"),
        (0.00001, "10"),
        (1, "1000000"),
        (None, None),
        (True, None),
    ],
)
def test_a_price_per_token_loses_its_dust(per_token: object, per_million: str | None) -> None:
    price = number(json.loads(json.dumps(per_token), parse_float=Decimal))
    assert (price is None) == (per_million is None)
    assert price is None or str(price) == per_million


def test_a_zero_is_no_price() -> None:
    [model] = built(
        {"gpt-9": {**GPT, "input_cost_per_token": 0.0, "output_cost_per_token": 0.0, "max_input_tokens": 8}}
    )
    assert model.standard is None


def test_what_has_neither_price_nor_window_is_left_out() -> None:
    assert built({"gpt-9": {"litellm_provider": "openai", "mode": "chat"}}) == []


def test_what_speaks_or_paints_is_left_out() -> None:
    assert built({"gpt-9-tts": GPT, "gpt-9-image": GPT, "gpt-9": {**GPT, "mode": "image_generation"}}) == []


def test_versions_that_say_the_same_become_one_model() -> None:
    models = built({"gpt-9": GPT, "gpt-9-2026-01-01": GPT, "gpt-9-2026-06-01": {**GPT, "input_cost_per_token": 2e-06}})
    assert [(model.id, model.aliases) for model in models] == [
        ("gpt-9", ("gpt-9-2026-01-01",)),
        ("gpt-9-2026-06-01", ()),
    ]


def test_models_of_different_names_stay_apart_however_alike() -> None:
    models = [Model(provider="openai", id=name) for name in ("gpt-9", "gpt-9-mini", "gpt-9-2026-01-01")]
    assert [model.id for model in fold(models)] == ["gpt-9", "gpt-9-mini"]


def test_tiers_are_read_from_their_names_and_from_lists() -> None:
    named = {
        **GPT,
        "input_cost_per_token_above_200k_tokens": 2.5e-06,
        "output_cost_per_token_above_200k_tokens": 1.5e-05,
    }
    [model] = built({"gpt-9": named})
    assert model.standard is not None
    assert model.standard.tiers == (Tier(above=200_000, input=Decimal("2.5"), output=Decimal(15)),)
    steps = [
        {"range": [0, 32000.0], "input_cost_per_token": 1e-06},
        {"range": [32000.0, 1e6], "input_cost_per_token": 2e-06},
    ]
    listed = litellm_rates(json.loads(json.dumps({"mode": "chat", "tiered_pricing": steps}), parse_float=Decimal))
    assert listed is not None
    assert (listed.input, listed.tiers) == (Decimal(1), (Tier(above=32_000, input=Decimal(2)),))


def test_a_service_without_tiers_is_unknown_beyond_those_of_the_standard() -> None:
    rows = {
        **GPT,
        "input_cost_per_token_above_200k_tokens": 2.5e-06,
        "output_cost_per_token_above_200k_tokens": 1.5e-05,
    }
    flex = {"input_cost_per_token_flex": 1e-06, "output_cost_per_token_flex": 5e-06}
    [model] = built({"gpt-9": {**rows, **flex}})
    assert model.flex is not None
    assert (model.flex.at(200_000).input, model.flex.at(200_001).input) == (Decimal(1), None)


def test_hours_are_read_with_their_days() -> None:
    windows = [{"hours_utc": ["10:00-00:00"], "weekdays": [1, 2]}, {"hours_utc": "00:00-00:00", "weekdays": [7]}]
    off = {"input_cost_per_token": 5e-07, "output_cost_per_token": 1e-06, "windows": windows}
    [model] = built({"deepseek/deepseek-v9": {**GPT, "litellm_provider": "deepseek", "off_peak_pricing": off}})
    periods = (Period(days=(1, 2), start="10:00", end="24:00"), Period(days=(7,), start="00:00", end="24:00"))
    assert model.hours == (Hours(periods=periods, standard=Rates(input=Decimal("0.5"), output=Decimal(1))),)


def test_sellers_lose_retired_models_and_makers_keep_them() -> None:
    gone = {**GPT, "deprecation_date": "2026-11-22"}
    models = built({"gpt-9": gone, "azure/gpt-9": {**gone, "litellm_provider": "azure"}})
    assert [(model.provider, model.retires) for model in models] == [("openai", date(2026, 11, 22))]


class FakePrices:
    """As genai-prices' ModelPrice: what is not set is None."""

    def __init__(self, **prices: Decimal) -> None:
        self.__dict__.update(prices)

    def __getattr__(self, name: str) -> None:
        return None


def fake(name: str, starts_with: str, **prices: str) -> Any:
    listed = FakePrices(**{part: Decimal(price) for part, price in prices.items()})
    info = SimpleNamespace(id=name, match=SimpleNamespace(starts_with=starts_with), prices=listed, price_variants=None)
    info.get_prices, info.context_window, info.deprecated = lambda *_: listed, 4000, True
    return info


def both(rows: dict[str, dict[str, Any]], *infos: Any) -> tuple[list[Model], list[str]]:
    """With both sources, and where they disagree."""
    provider = SimpleNamespace(
        models=infos, find_model=lambda name: next((i for i in infos if name.startswith(i.id)), None)
    )
    listed = json.loads(json.dumps(rows), parse_float=Decimal)
    builder = Builder({"openai": provider}, listed, datetime(2026, 11, 23, tzinfo=UTC))
    return builder.with_aliases(builder.models()), list(builder.disagreements.lines())


def test_where_the_sources_disagree_genai_prices_counts_and_it_is_said() -> None:
    [model], said = both({"gpt-9": GPT}, fake("gpt-9", "gpt-9", input_mtok="1.5", output_mtok="10"))
    assert model.standard == Rates(input=Decimal("1.5"), output=Decimal(10))
    assert (model.window, model.deprecated) == (4000, True)
    assert "input: 1 compared, 1 differ (genai-prices / litellm)" in said
    assert "  openai/gpt-9: 1.5 / 1.25" in said
    assert "output: 1 compared, 0 differ (genai-prices / litellm)" in said


def test_a_name_that_genai_prices_only_resembles_keeps_its_own_price() -> None:
    info = fake("gpt-9", "gpt-9", input_mtok="1.5", output_mtok="10")
    models, said = both({"gpt-9-turbo": GPT}, info)
    assert {model.id: str(model.standard.input) for model in models if model.standard} == {
        "gpt-9": "1.5",
        "gpt-9-turbo": "1.25",
    }
    assert said == []


def test_what_one_lacks_the_other_adds_where_they_agree() -> None:
    row = {
        **GPT,
        "cache_read_input_token_cost": 1.25e-07,
        "input_cost_per_token_flex": 1e-06,
        "output_cost_per_token_flex": 5e-06,
    }
    info = fake("gpt-9", "gpt-9-new", input_mtok="1.25", output_mtok="10")
    [model], _ = both({"gpt-9": row}, info)
    assert model.standard == Rates(input=Decimal("1.25"), cached_input=Decimal("0.125"), output=Decimal(10))
    assert model.flex == Rates(input=Decimal(1), output=Decimal(5))
    assert model.origin == {"litellm": "standard flex", "genai": "window standard deprecated"}
    # Not said of the standard price where the two differ there.
    info = fake("gpt-9", "gpt-9", input_mtok="1.5", output_mtok="10")
    [model], _ = both({"gpt-9": row}, info)
    assert model.standard is not None
    assert model.standard.cached_input is None


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("gpt-4o-mini", "o200k"),
        ("openai/gpt-oss-120b", "o200k_harmony"),
        ("o3", "o200k"),
        ("gpt-4-turbo", "cl100k"),
        ("gpt-3.5-turbo", "cl100k"),
        ("text-embedding-3-large", "cl100k"),
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", "claude"),
        ("claude-3-opus", "claude"),
        ("claude-opus-4-7", "claude-4.7"),
        ("claude-haiku-5.5", "claude-4.7"),
        ("gemini-2.5-pro", "gemini"),
        ("gemma-3-27b-it", "gemma"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama3"),
        ("accounts/fireworks/models/llama-v3p1-8b-instruct", "llama3"),
        ("deepseek-r1-distill-llama-70b", "llama3"),
        ("deepseek-r1-distill-qwen-32b", "qwen"),
        ("deepseek-v3.2", "deepseek"),
        ("mixtral-8x7b", "mistral"),
        ("llama-2-70b-chat", "unknown"),
        ("grok-4", "unknown"),
    ],
)
def test_the_tokenizer_follows_from_the_name(name: str, family: str) -> None:
    assert tokenizer_of(name) == family
