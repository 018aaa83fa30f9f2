"""Who may answer: the route's models, what is known of them, and who is left out."""

import pytest

from pricing.models import PromptCache
from pricing.table import Table
from proxy.core.learned import LIFETIME
from proxy.errors import StartupError
from proxy.offers import price_table
from proxy.simulate.options import Field, field_of
from tests.simulate.making import option, request, settings

UNSAID: dict[str, str] = {}
PRICED = {"price": {"input": "1", "output": "2"}}


def field(*models: str, route: str | None = None, marked: bool = True, **tables: object) -> Field:
    named = settings(models, **tables)
    return field_of(named, price_table(named), route, marked=marked)


def test_the_options_are_the_routes_models_in_its_order() -> None:
    found = field("gpt-5", "claude-sonnet-4-5", models={"gpt-5": {"verbosity": 2.5}})
    assert [(each.name, each.verbosity) for each in found.options] == [("gpt-5", 2.5), ("claude-sonnet-4-5", 1.0)]
    assert found.baseline == 0


def test_the_baseline_is_the_one_that_the_route_names() -> None:
    routes = {"auto": {"models": ["gpt-5", "gpt-4.1"], "baseline": "gpt-4.1"}}
    assert field(routes=routes).baseline == 1


def test_a_model_without_a_price_is_left_out_and_named() -> None:
    found = field("gpt-5", "no-such-model")
    assert [each.name for each in found.options] == ["gpt-5"]
    assert found.left_out == {"no-such-model": "no price is known"}


def test_a_baseline_without_a_price_is_refused() -> None:
    with pytest.raises(StartupError, match=r"models\.no-such-model\.price: savings are measured against this model"):
        field("no-such-model", "gpt-5")


def test_the_settings_say_more_than_the_catalogue() -> None:
    own = {"window": 1000, "max_output": 10, "price": {"input": "1", "output": "2"}}
    (found,) = field("gpt-5", models={"gpt-5": own}).options
    assert (found.model.window, found.model.max_output) == (1000, 10)
    assert found.model.standard is not None
    assert found.model.standard.input == 1


def test_a_name_of_ones_own_means_what_it_is_called_upstream() -> None:
    (found,) = field("fast", models={"fast": {"upstream": "gpt-5-mini"}}).options
    assert (found.name, found.model.id) == ("fast", "gpt-5-mini")


@pytest.mark.parametrize(
    ("routes", "route", "said"),
    [
        ({}, None, "routes: there is none to simulate"),
        ({"a": {"models": ["gpt-5"]}, "b": {"models": ["gpt-5"]}}, None, "--route: which\\? There is: a, b"),
        ({"a": {"models": ["gpt-5"]}}, "c", r"--route: there is no \[routes\.c\]; there is: a"),
    ],
)
def test_a_route_that_is_not_there_says_which_are(routes: object, route: str | None, said: str) -> None:
    with pytest.raises(StartupError, match=said):
        field(routes=routes, route=route)


def test_of_several_routes_one_is_named() -> None:
    routes = {"a": {"models": ["gpt-5"]}, "b": {"models": ["gpt-4.1"]}}
    assert [each.name for each in field(routes=routes, route="b").options] == ["gpt-4.1"]


def terms(model: str, own: object = UNSAID, *, marked: bool = True) -> PromptCache | None:
    return field(model, marked=marked, models={model: own}).options[0].cache


def test_prompts_are_cached_where_the_provider_does_it_or_clients_mark_them() -> None:
    assert terms("gpt-5") is not None
    assert terms("claude-sonnet-4-5") is not None
    assert terms("claude-sonnet-4-5", marked=False) is None
    assert terms("gpt-5", marked=False) is not None


def test_nothing_is_cached_without_terms_or_without_a_price_for_it() -> None:
    assert terms("of-my-own", PRICED) is None
    models = [model for model in Table.packaged().models if model.provider == "openai" and model.cache]
    without = [model.id for model in models if model.standard and model.standard.cached_input is None]
    assert all(terms(name) is None for name in without)


def test_a_lifetime_that_nobody_publishes_is_five_minutes() -> None:
    found = terms("gemini-2.5-flash")
    assert found is not None
    assert found.lifetime == LIFETIME


def test_tokens_are_counted_as_prose_by_the_models_tokenizer() -> None:
    (claude,) = field("claude-sonnet-4-5", models={"claude-sonnet-4-5": {"verbosity": 2}}).options
    assert claude.input(10_000) == 10_500
    assert claude.output(100) == 210


def test_an_answer_has_a_token_at_least_and_no_more_than_the_model_writes() -> None:
    assert option().output(0) == 1
    assert option(max_output=80).output(100) == 80


def test_a_prompt_that_is_longer_than_the_window_is_not_taken() -> None:
    assert option().takes(request(0, tokens=10**6))
    assert option(window=1000).takes(request(0, tokens=1000))
    assert not option(window=1000).takes(request(0, tokens=1001))
