"""Who is meant by a name, what it costs, and what the operator says instead."""

from decimal import Decimal

import pytest

from pricing.cost import Rates, Usage
from pricing.models import Catalogue, Model, Provider
from pricing.table import Table
from tests.pricing.support import MILLION, NOON, usd


def found(table: Table, name: str, provider: str | None = None) -> str | None:
    model = table.find(name, provider)
    return f"{model.provider}: {model.id}" if model else None


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("gpt-4o", "openai: gpt-4o"),
        ("GPT-4o", "openai: gpt-4o"),
        ("openai/gpt-4o", "openai: gpt-4o"),
        ("azure/gpt-4o", "azure: gpt-4o"),
        ("openrouter/openai/gpt-4o", "openrouter: openai/gpt-4o"),
        ("gpt-4o-2024-05-13", "openai: gpt-4o-2024-05-13"),
        ("gpt-5-2025-08-07", "openai: gpt-5"),
        ("gpt-5-2031-01-31", "openai: gpt-5"),
        ("claude-sonnet-4-5", "anthropic: claude-sonnet-4-5"),
        ("claude-sonnet-4.5", "anthropic: claude-sonnet-4-5"),
        ("claude-sonnet-4-5-20250929", "anthropic: claude-sonnet-4-5"),
        ("claude-sonnet-4-5@20250929", "anthropic: claude-sonnet-4-5"),
        ("claude-sonnet-4-5-latest", "anthropic: claude-sonnet-4-5"),
        ("anthropic/claude-sonnet-4.5", "anthropic: claude-sonnet-4-5"),
        (
            "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0",
            "bedrock: anthropic.claude-sonnet-4-5-20250929-v1:0",
        ),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "bedrock: us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("models/gemini-2.5-pro", "google: gemini-2.5-pro"),
        ("gemini/gemini-2.5-pro", "google: gemini-2.5-pro"),
        ("gemini-2.0-flash-001", "google: gemini-2.0-flash"),
        ("accounts/fireworks/models/kimi-k3", "fireworks: accounts/fireworks/models/kimi-k3"),
        ("fireworks_ai/accounts/fireworks/models/kimi-k3", "fireworks: accounts/fireworks/models/kimi-k3"),
        ("groq/openai/gpt-oss-120b", "groq: openai/gpt-oss-120b"),
        ("llama-3.3-70b-versatile", "groq: llama-3.3-70b-versatile"),
        ("deepseek-v3.2", "deepseek: deepseek-v3.2"),
        ("ft:gpt-4o-mini-2024-07-18:acme::Ab1", "openai: ft:gpt-4o-mini-2024-07-18"),
        ("ft:gpt-4o-mini:acme::Ab1", "openai: ft:gpt-4o-mini-2024-07-18"),
    ],
)
def test_a_name_finds_its_model_however_it_is_written(table: Table, name: str, meant: str) -> None:
    assert found(table, name) == meant


@pytest.mark.parametrize(
    "name",
    [
        "gpt-4o-2031-01-01",  # its dated versions cost this and that
        "ft:gpt-5:acme::Ab1",  # no such price was published; never the base model's
        "azure/eu/gpt-4o",  # another region, another price
        "openai/gpt-oss-120b",  # OpenAI made it, others sell it
        "meta-llama/Llama-3.3-70B-Instruct",
        "qwen3-32b",  # sellers differ
        "gpt-4o-mini-tuned",
        "gpt",
        "unheard-of",
        "/",
        "",
    ],
)
def test_a_name_that_could_mean_several_prices_means_none(table: Table, name: str) -> None:
    assert found(table, name) is None


@pytest.mark.parametrize(
    ("name", "provider", "meant"),
    [
        ("gpt-4o", "azure", "azure: gpt-4o"),
        ("azure/gpt-4o", "azure", "azure: gpt-4o"),
        ("openai/gpt-4o", "openrouter", "openrouter: openai/gpt-4o"),
        ("qwen/qwen3-32b", "groq", "groq: qwen/qwen3-32b"),
        ("grok-4", "x-ai", "xai: grok-4-0709"),
        ("gpt-4o", "a name of the operator's", "openai: gpt-4o"),  # it says nothing of who that is
        ("gpt-4o", "anthropic", None),
        ("openai/gpt-4o", "azure", None),
    ],
)
def test_a_known_provider_decides_and_no_other_steps_in(
    table: Table, name: str, provider: str, meant: str | None
) -> None:
    assert found(table, name, provider) == meant


def test_every_model_is_found_by_each_of_its_names_at_its_provider(table: Table) -> None:
    lost = [
        f"{model.provider}: {name}"
        for model in table.models
        for name in (model.id, *model.aliases)
        if table.find(name, model.provider) is not model
    ]
    assert lost == []


def test_a_bare_name_of_a_makers_own_model_is_never_anothers(table: Table) -> None:
    models = [model for model in table.models if model.provider in {"openai", "anthropic", "google", "deepseek", "xai"}]
    assert len(models) > 200
    assert [model.id for model in models if table.find(model.id) is not model] == []


def small(*models: Model) -> Table:
    providers = {name: Provider(names=(name,), maker=name == "maker") for name in ("maker", "one", "two")}
    return Table(Catalogue(sources={}, providers=providers, caches={}, models=models))


def sold(provider: str, name: str, dollars: str) -> Model:
    return Model(provider=provider, id=name, standard=Rates(input=Decimal(dollars), output=Decimal(dollars)))


def test_sellers_that_agree_on_the_price_leave_no_doubt() -> None:
    assert found(small(sold("one", "m", "1"), sold("two", "m", "1")), "m") == "one: m"
    assert found(small(sold("one", "m", "1"), sold("two", "m", "2")), "m") is None


def test_dates_are_dropped_only_where_all_versions_cost_the_same() -> None:
    listed = [sold("maker", "m-20250101", "1"), sold("maker", "m-20250601", "1")]
    assert found(small(*listed), "m-20990101") == found(small(*listed), "m") == "maker: m-20250101"
    dearer = small(*listed, sold("maker", "m-20250901", "3"))
    assert found(dearer, "m") is None
    assert found(dearer, "m-20250601") == "maker: m-20250601"


def test_gemini_moves_the_whole_request_to_the_higher_tier(table: Table) -> None:
    # 200,000 × 1.25 + 1,000 × 10 = 260,000; 200,001 × 2.50 + 1,000 × 15 = 515,002.5 millionths
    assert usd(table, "gemini-2.5-pro", Usage(200_000, 0, 1_000)) == Decimal("0.26")
    assert usd(table, "gemini-2.5-pro", Usage(200_001, 0, 1_000)) == Decimal("0.5150025")


def test_cached_tokens_count_towards_the_length_of_the_prompt(table: Table) -> None:
    # 1 × 2.50 + 200,000 × 0.25
    assert usd(table, "gemini-2.5-pro", Usage(200_001, 200_000, 0)) == Decimal("0.0500025")


def test_gpt_5_with_a_cached_prefix(table: Table) -> None:
    assert usd(table, "gpt-5", Usage(input=10_000, cached=8_000, output=500)) == Decimal("0.0085")


def test_claude_with_a_prefix_read_and_one_written(table: Table) -> None:
    # 1,000 × 3 + 8,000 × 0.30 + 1,000 × 3.75 + 500 × 15 = 16,650 millionths
    usage = Usage(input=10_000, cached=8_000, output=500, written=1_000)
    assert usd(table, "claude-sonnet-4-5", usage) == Decimal("0.01665")


def test_a_prefix_kept_for_an_hour_costs_more(table: Table) -> None:
    usage = Usage(input=1_000, cached=0, output=0, written_1h=1_000)
    assert usd(table, "claude-sonnet-4-5", usage) == Decimal("0.006")


def test_the_terms_of_a_prompt_cache_come_with_the_model(table: Table) -> None:
    terms = [table.cache(model) for name in ("gpt-5", "gpt-5.6", "claude-sonnet-4-5") if (model := table.find(name))]
    assert [(each.automatic, each.least, each.lifetime, each.write) for each in terms if each] == [
        (True, 1024, 300, Decimal(1)),
        (True, None, 1800, Decimal("1.25")),
        (False, 1024, 300, Decimal("1.25")),
    ]
    assert table.cache(Model(provider="one", id="m")) is None


OWN = {"gpt-4.1": {"input": "8", "output": "8", "cached_input": "2"}, "house-model": {"input": "0", "output": "0.5"}}


def test_the_operators_price_replaces_all_that_the_catalogue_says(table: Table) -> None:
    own = table.with_prices(OWN)
    assert usd(own, "gpt-4.1", MILLION) == 16
    assert usd(own, "gpt-4.1", Usage(1_000_000, 1_000_000, 0)) == 2
    assert usd(own, "gpt-4.1", MILLION, service="batch") is None
    assert usd(table, "gpt-4.1", MILLION) == 10  # the other table is as it was


def test_the_operators_price_leaves_what_else_is_known_of_a_model(table: Table) -> None:
    before, after = table.find("gpt-4.1"), table.with_prices(OWN).find("gpt-4.1")
    assert before is not None
    assert after is not None
    assert (after.window, after.yes, after.tokenizer) == (before.window, before.yes, before.tokenizer)
    assert after.window == 1_047_576


def test_the_operators_price_is_for_that_very_name(table: Table) -> None:
    own = table.with_prices(OWN)
    assert usd(own, "openai/gpt-4.1", MILLION) == 10
    assert found(own, "gpt-4.1", "azure") == "openai: gpt-4.1"  # the name is the settings' own, whoever serves it


def test_an_unheard_of_model_gets_a_price_and_nothing_that_is_not_known(table: Table) -> None:
    model = table.with_prices(OWN).find("house-model")
    assert model is not None
    assert (model.window, model.tokenizer, model.can("tools"), model.cache) == (None, "unknown", None, None)
    assert model.charge(MILLION, NOON).usd == Decimal("0.5")  # an input price of 0 is a price


def test_tokens_that_the_operator_does_not_name_cost_what_their_like_cost(table: Table) -> None:
    own = table.with_prices({"claude-sonnet-4.5": {"input": "15", "output": "20", "audio_output": "30"}})
    usage = Usage(input=10, cached=2, output=9, written=1, written_1h=1, audio_input=3, reasoning=4, audio_output=1)
    assert usd(own, "claude-sonnet-4.5", usage) == Decimal("0.00034")  # 10 × 15 + 8 × 20 + 1 × 30 millionths


def test_the_origin_of_an_operators_price_is_the_settings(table: Table) -> None:
    own = table.with_prices(OWN)
    model = own.find("gpt-4.1")
    assert model is not None
    assert [source.name for source in own.origin(model, "standard")] == ["settings"]
    assert [source.name for source in own.origin(model, "window")] == ["litellm"]
    assert own.origin(model, "batch") == ()


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"input": "eight"}, "the price of m: input is a decimal number in quotes, not 'eight'"),
        ({"input": "-1"}, "the price of m: .*0 or more"),
        ({"input": "NaN"}, "the price of m: .*0 or more"),
        ({"inputs": "8"}, "the price of m: inputs is none of input, cached_input, output"),
    ],
)
def test_a_price_that_is_none_is_refused_with_the_models_name(table: Table, given: dict[str, str], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        table.with_prices({"m": given})
