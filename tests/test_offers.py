"""The settings are right, and where they are silent the catalogue counts."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from pricing.cost import Usage
from pricing.models import Model
from pricing.table import Table
from proxy.errors import StartupError
from proxy.offers import Offers, price_table, routes_of
from proxy.reading import read_settings
from proxy.settings import Settings
from tests.fakes import some_routes

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TABLE = Table.packaged()
PRICE = {"input": "1", "output": "2"}


def settings_of(models: dict[str, Any], provider: str = "sim") -> Settings:
    """With these models at a provider of this name."""
    return read_settings({"providers": {provider: {"base_url": "http://x/v1"}}, "models": models}, source="test")


def offered(name: str, own: dict[str, Any] | None = None, provider: str = "sim") -> Model | None:
    """What is known of a model that the settings describe so, if they do."""
    settings = settings_of({} if own is None else {name: own}, provider)
    return Offers(settings, price_table(settings)).model(name)[0]


def known(name: str, provider: str | None = None) -> Model:
    """The catalogue's."""
    found = TABLE.find(name, provider)
    assert found is not None
    return found


def cost(model: Model | None, *, prompt: int = 1_000_000, output: int = 0) -> Decimal | None:
    assert model is not None
    return model.charge(Usage(input=prompt, cached=0, output=output), NOW).usd


def test_a_model_of_which_the_settings_say_nothing_is_the_catalogues() -> None:
    assert offered("gpt-5") == known("gpt-5")
    assert offered("gpt-5", {}) == known("gpt-5")


def test_a_model_that_nobody_knows_has_nothing_and_no_price() -> None:
    assert offered("nobody-knows-me") is None
    own = offered("nobody-knows-me", {"window": 1000})
    assert own is not None
    assert (own.id, own.window, own.standard) == ("nobody-knows-me", 1000, None)
    assert cost(own) is None


def test_a_price_of_the_settings_stands_over_the_catalogues_and_the_rest_stays() -> None:
    own, catalogue = offered("gpt-5", {"price": PRICE}), known("gpt-5")
    assert cost(own) == 1
    assert cost(own, prompt=0, output=1_000_000) == 2
    assert own is not None
    assert (own.window, own.yes, own.tokenizer) == (catalogue.window, catalogue.yes, catalogue.tokenizer)


def test_a_price_of_0_is_a_price() -> None:
    assert cost(offered("nobody-knows-me", {"price": {"input": "0", "output": "0"}})) == 0


def test_limits_and_capabilities_are_corrected_one_by_one() -> None:
    catalogue = known("gpt-4.1")
    own = offered("gpt-4.1", {"window": 1000, "can": ["audio", "n"], "cannot": ["tools"]})
    assert own is not None
    assert (own.window, own.max_output) == (1000, catalogue.max_output)
    assert (own.can("audio"), own.can("n"), own.can("tools")) == (True, True, False)
    assert own.can("vision") == catalogue.can("vision")
    assert own.can("logprobs") is None
    assert own.standard == catalogue.standard
    longest = offered("gpt-4.1", {"max_output": 10})
    assert longest is not None
    assert (longest.window, longest.max_output) == (catalogue.window, 10)


def test_a_model_goes_by_its_providers_name_before_its_own() -> None:
    assert offered("fast", {"upstream": "gpt-4.1-mini"}) == known("gpt-4.1-mini")
    assert offered("gpt-5", {"upstream": "gpt-4.1-mini"}) == known("gpt-4.1-mini")


def test_a_model_whose_providers_name_says_nothing_goes_by_its_own() -> None:
    assert offered("gpt-5", {"upstream": "deployment-7"}) == known("gpt-5")


def test_a_price_of_the_settings_is_that_of_the_name_even_where_the_providers_name_is_known() -> None:
    assert cost(offered("fast", {"upstream": "gpt-4.1-mini", "price": PRICE})) == 1


def test_the_providers_name_tells_whose_model_is_meant() -> None:
    name = "deepseek/deepseek-chat"
    sellers = {seller: TABLE.find(name, seller) for seller in ("deepseek", "openrouter")}
    assert sellers["deepseek"] != sellers["openrouter"]
    for seller, model in sellers.items():
        assert offered(name, provider=seller) == model


def test_the_terms_of_the_prompt_cache_come_with_the_model() -> None:
    settings = settings_of({"fast": {"upstream": "gpt-5", "price": PRICE}, "unknown": {"price": PRICE}})
    offers = Offers(settings, price_table(settings))
    assert offers.model("gpt-5")[1] == TABLE.cache(known("gpt-5"))
    assert TABLE.cache(known("gpt-5")) is not None
    assert offers.model("unknown")[1] is None


def test_what_clients_name_is_described_and_not_kept_for_ever() -> None:
    settings = settings_of({})
    offers = Offers(settings, price_table(settings))
    assert offers.describe("gpt-5", "sim", "gpt-5")[0] == known("gpt-5")
    for number in range(2000):
        assert offers.describe(f"m{number}", "sim", f"m{number}") == (None, None)
    assert offers.describe.cache_info().currsize == 1000


def test_a_price_that_is_none_is_told_by_its_path() -> None:
    settings = settings_of({"m": {}})
    broken = Settings(providers=settings.providers, models={"m": type(settings.models["m"])(price={"input": "x"})})
    with pytest.raises(StartupError, match="models: the price of m: input"):
        price_table(broken)


def test_without_settings_the_table_is_the_catalogue() -> None:
    assert price_table(None).find("gpt-5") == known("gpt-5")


def test_routes_know_their_models_with_prices_tiers_and_baseline() -> None:
    models: dict[str, dict[str, Any]] = {
        "small": {"price": PRICE, "tier": "low", "upstream": "s-1"},
        "large": {"price": {"input": "10", "output": "20"}, "tier": "high"},
        "huge": {"tier": "high"},
    }
    routes = some_routes(
        models,
        routing={"tiers": ["low", "high"]},
        routes={
            "any": {"models": ["small", "large"], "baseline": "large", "retry_lost": True, "sampled": "bypass"},
            "good": {"min_tier": "high"},
        },
    )
    choice = routes.choice("any")
    small, large = choice.options
    assert (small.name, small.target.upstream, small.target.base_url) == ("small", "s-1", "http://sim/v1")
    assert [cost(small.model), cost(large.model)] == [1, 10]
    assert choice.baseline is large
    assert (choice.route, choice.retry_lost, choice.sampled, choice.named) == ("any", True, "bypass", False)
    assert [option.name for option in routes.choice("good").options] == ["large", "huge"]
    assert [option.name for option in routes.choice("small", "cheapest").options] == ["small", "large", "huge"]
    assert [option.name for option in routes.choice("large", "cheapest").options] == ["large", "huge"]
    assert [option.name for option in routes.choice("large").options] == ["large"]


def test_a_name_in_no_table_is_the_default_providers_at_the_catalogues_price() -> None:
    (option,) = some_routes({"m": {"price": PRICE}}).choice("gpt-5").options
    assert (option.target.provider, option.target.upstream) == ("sim", "gpt-5")
    assert option.model == known("gpt-5")


def embedders(**providers: Any) -> list[str]:
    """Whom of a route chats go to. Two of its models have none, as the catalogue knows, or as the settings say."""
    here = {"base_url": "http://x/v1", "auth": "none"}
    settings = read_settings(
        {
            "providers": {name: here | providers.get(name, {}) for name in ("sim", "other")},
            "models": {"own": {"price": PRICE}, "far": {"provider": "other"}, "text-embedding-3-small": {}},
            "routing": {"default_provider": "sim"},
            "routes": {"any": {"models": ["text-embedding-3-small", "own", "far"], "baseline": "own"}},
        },
        source="test",
    )
    return [option.name for option in routes_of(settings, price_table(settings)).choice("any").options]


def test_routes_know_which_models_and_providers_have_an_endpoint() -> None:
    assert embedders() == ["own", "far"]
    assert embedders(other={"endpoints": ["chat"]}) == ["own", "far"]
    assert embedders(other={"endpoints": ["embeddings"]}) == ["own"]
    assert embedders(sim={"endpoints": ["embeddings"]}) == ["far"]
