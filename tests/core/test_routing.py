"""The destination comes from the settings only."""

from typing import Any, get_args

import pytest

from pricing.models import Kind, Model, PromptCache
from proxy.core.policy import Sampled
from proxy.core.routing import Choice, Named, Option, Route, Routes, Target
from proxy.errors import InvalidRequest

Known = tuple[Model | None, PromptCache | None]

CACHE = PromptCache(automatic=True)
MODELS = {
    "gpt": Named("b", "vendor/gpt-4.1", tier=2),
    "same": Named("a", "same", tier=3),
    "mini": Named("b", "vendor/mini", tier=1),
    "tierless": Named("b", "vendor/other"),
    "own": Named("a", "own-upstream"),
}
ROUTES = {
    "any": Route(("mini", "gpt", "unlisted"), "gpt"),
    "own": Route(("mini", "own"), "own", retry_lost=True),
}


def describe(name: str, target: Target) -> Known:
    if name.startswith("un"):
        return None, None
    return Model(provider=target.provider, id=target.upstream, no=("tools",)), CACHE


def routes(describe: Any = describe, models: dict[str, Named] = MODELS, table: dict[str, Route] = ROUTES) -> Routes:
    return Routes(
        base_urls={"a": "https://a.example/v1", "b": "https://b.example/v1"},
        default_provider="a",
        models=models,
        routes=table,
        describe=describe,
    )


TABLE = routes()


def target(name: str) -> Target:
    (option,) = TABLE.choice(name).options
    return option.target


def names(choice: Choice) -> list[str]:
    return [option.name for option in choice.options]


def test_a_model_that_the_settings_name_goes_where_they_say_under_the_name_they_say() -> None:
    assert target("gpt") == Target("b", "https://b.example/v1", "vendor/gpt-4.1")
    assert target("same") == Target("a", "https://a.example/v1", "same")


def test_every_other_model_goes_to_the_default_unchanged() -> None:
    for name in ("other", "GPT", "vendor/gpt-4.1", "ft:gpt-4o:org::abc", "https://evil.example/v1", "../files", ""):
        assert target(name) == Target("a", "https://a.example/v1", name)
        for wish in ("exact", "cheapest"):
            assert names(TABLE.choice(name, wish)) == [name]


def test_a_model_alone_is_its_own_baseline_and_no_route() -> None:
    choice = TABLE.choice("gpt")
    assert (choice.baseline, choice.named, choice.route, choice.routed) == (choice.options[0], True, None, False)
    assert (choice.retry_lost, choice.sampled) == (False, None)


def test_a_route_is_answered_by_its_models_in_the_settings_order() -> None:
    choice = TABLE.choice("any")
    assert names(choice) == ["mini", "gpt", "unlisted"]
    assert choice.baseline is choice.options[1]
    assert (choice.named, choice.route, choice.routed, choice.retry_lost) == (False, "any", True, False)
    assert choice.options[2].target == Target("a", "https://a.example/v1", "unlisted")
    assert TABLE.choice("any", "cheapest") is TABLE.choice("any")


def test_a_route_by_the_name_of_its_baseline_is_named_by_the_client() -> None:
    choice = TABLE.choice("own")
    assert (names(choice), choice.named, choice.retry_lost) == (["mini", "own"], True, True)
    assert names(TABLE.choice("own", "exact")) == ["own"]
    assert TABLE.choice("own", "exact").options[0].target.upstream == "own-upstream"


def test_a_routes_own_word_on_what_is_sampled_is_handed_on() -> None:
    for sampled in get_args(Sampled):
        assert routes(table={"r": Route(("gpt",), "gpt", sampled=sampled)}).choice("r").sampled == sampled


def test_an_exact_route_that_is_no_model_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="'any' is a route, not a model") as caught:
        TABLE.choice("any", "exact")
    assert (caught.value.status, caught.value.param) == (400, "x-penstock-route")


def test_who_is_exact_gets_no_other_model_and_the_cheapest_is_of_the_same_tier_or_above() -> None:
    assert names(TABLE.choice("gpt", "exact")) == names(TABLE.choice("gpt")) == ["gpt"]
    choice = TABLE.choice("gpt", "cheapest")
    assert names(choice) == ["gpt", "same"]
    assert (choice.baseline.name, choice.named, choice.route) == ("gpt", True, None)
    assert names(TABLE.choice("mini", "cheapest")) == ["gpt", "same", "mini"]
    assert names(TABLE.choice("same", "cheapest")) == ["same"]
    assert names(TABLE.choice("tierless", "cheapest")) == ["tierless"]


def test_the_baseline_is_one_of_the_options_whenever_the_client_named_it() -> None:
    for name, wish in (("gpt", None), ("gpt", "cheapest"), ("mini", "cheapest"), ("own", None), ("x", "cheapest")):
        choice = TABLE.choice(name, wish)
        assert any(option is choice.baseline for option in choice.options)


def test_a_model_is_described_once_and_by_the_settings_name_for_it() -> None:
    asked: list[tuple[str, str]] = []

    def note(name: str, target: Target) -> Known:
        asked.append((name, target.upstream))
        return describe(name, target)

    table = routes(note)
    for _ in range(3):
        for name in ("gpt", "any", "own", "new"):
            table.choice(name)
    assert sorted(asked) == [
        ("gpt", "vendor/gpt-4.1"),
        ("mini", "vendor/mini"),
        ("new", "new"),
        ("own", "own-upstream"),
        ("same", "same"),
        ("tierless", "vendor/other"),
        ("unlisted", "unlisted"),
    ]


def test_clients_may_name_what_they_like_and_the_table_does_not_grow() -> None:
    table = routes()
    for number in range(5000):
        assert table.option(f"m{number}").target.upstream == f"m{number}"
        assert len(table._unnamed) <= 1000


def test_of_a_model_that_nothing_is_known_of_it_is_not_known_what_it_can() -> None:
    assert TABLE.option("unlisted").can("tools") is None
    assert (TABLE.option("gpt").can("tools"), TABLE.option("gpt").can("vision")) == (False, None)


def test_an_identity_is_the_address_and_the_model_not_the_operators_name_for_them() -> None:
    one = Target("a", "https://a.example/v1", "m")
    assert one.identity == Target("renamed", "https://a.example/v1", "m").identity
    others = [
        Target("a", "https://b.example/v1", "m"),
        Target("a", "https://a.example/v1", "n"),
        Target("a", "https://a.example/v1m", ""),
        Target("a", "", "https://a.example/v1m"),
        Target("a", 'https://a.example/v1","m', ""),
    ]
    assert len({one.identity, *(other.identity for other in others)}) == 6


def test_the_identities_of_a_choice_are_whoever_may_answer_in_no_order_and_each_once() -> None:
    a, b = Option("a", Target("p", "https://p", "a")), Option("b", Target("p", "https://p", "b"))
    again = Option("other name", Target("p", "https://p", "a"))
    assert (
        Choice((a, b), a).identities == Choice((b, a, again), b).identities == [("https://p", "a"), ("https://p", "b")]
    )
    assert Choice((a,), a).identities != Choice((b,), a).identities


def test_the_option_that_gave_an_answer_is_found_by_its_provider_and_upstream_name() -> None:
    choice = TABLE.choice("any")
    assert choice.option("b", "vendor/gpt-4.1") is choice.options[1]
    assert choice.option("a", "vendor/gpt-4.1") is choice.option("b", "gpt") is None


def test_a_place_is_the_model_at_its_provider_and_whose_account_is_used() -> None:
    one = Target("p", "https://p", "m")
    assert one.place("") == ("p", "m", "") != one.place("0123")


def test_the_cheapest_of_a_tier_is_paid_by_who_pays_for_the_model_that_was_named() -> None:
    models = {name: Named(provider, name, tier=1) for name, provider in (("x", "a"), ("y", "b"), ("z", "a"))}
    paid = {"base_urls": {"a": "https://a", "b": "https://b"}, "default_provider": "a", "models": models, "routes": {}}
    for client_pays, given in (
        ((), ["x", "y", "z"]),
        (("a",), ["x", "z"]),  # a client's key for one provider is none of the other's business
        (("b",), ["x", "z"]),
        (("a", "b"), ["x", "z"]),
    ):
        table = Routes(client_pays=client_pays, describe=lambda *_: (None, None), **paid)  # type: ignore[arg-type]
        assert names(table.choice("x", "cheapest")) == given


# Endpoints.

KINDS: dict[str, Kind | None] = {
    "chatty": "chat",
    "thinker": "responses",
    "old": "completion",
    "vectors": "embedding",
    "vectors-2": "embedding",
    "odd": None,
}
EVERY = ("chat", "responses", "completions", "embeddings")


def of_kinds(*route: str, baseline: str | None = None, elsewhere: tuple[str, ...] = (), **endpoints: Any) -> Routes:
    """A route "r" of these; `elsewhere`: those of them that are provider b's, under one name there."""
    models = {name: Named("b", "shared") if name in elsewhere else Named("a", name) for name in KINDS}
    return Routes(
        base_urls={"a": "https://a.example/v1", "b": "https://b.example/v1"},
        default_provider="a",
        models=models,
        routes={"r": Route(route, baseline or route[0])},
        describe=lambda name, _: (Model(provider="", id=name, kind=KINDS[name]), None),
        endpoints=endpoints,
    )


@pytest.mark.parametrize(
    ("endpoint", "able"),
    [
        ("chat", ["chatty", "odd"]),
        ("responses", ["chatty", "thinker", "odd"]),
        ("completions", ["old", "odd"]),
        (None, ["chatty", "thinker", "old", "vectors", "odd"]),
    ],
)
def test_of_a_route_those_are_asked_that_have_the_endpoint_as_far_as_is_known(
    endpoint: str | None, able: list[str]
) -> None:
    table = of_kinds("chatty", "thinker", "old", "vectors", "odd")
    assert names(table.choice("r", endpoint=endpoint)) == able


def test_a_provider_has_the_endpoints_that_the_settings_name_and_its_models_no_others() -> None:
    route = ("chatty", "odd", "thinker")
    table = of_kinds(*route, elsewhere=("odd",), b=("responses",))
    assert names(table.choice("r")) == ["chatty"]
    assert names(table.choice("r", endpoint="responses")) == list(route)
    table = of_kinds(*route, elsewhere=("odd",), a=("chat",))
    assert names(table.choice("r")) == ["chatty", "odd"]
    assert names(table.choice("r", endpoint="responses")) == ["odd"]


def test_where_nobody_has_the_endpoint_all_are_asked_as_a_provider_says_it_better() -> None:
    choice = of_kinds("chatty", "old").choice("r", endpoint="embeddings")
    assert names(choice) == ["chatty", "old"]
    assert of_kinds("chatty", a=()).choice("r").options


def test_a_model_alone_is_asked_whatever_it_is_known_to_have() -> None:
    table = of_kinds("chatty", a=("chat",))
    for endpoint in EVERY:
        assert names(table.choice("old", endpoint=endpoint)) == ["old"]


def test_savings_are_measured_against_one_that_has_the_endpoint() -> None:
    table = of_kinds("old", "chatty", "odd", baseline="old")
    choice = table.choice("r")
    assert (names(choice), choice.baseline.name, choice.route) == (["chatty", "odd"], "chatty", "r")
    choice = of_kinds("old", "chatty", "odd", baseline="odd").choice("r")
    assert (names(choice), choice.baseline.name) == (["chatty", "odd"], "odd")


def test_who_named_a_model_that_is_left_out_did_not_name_the_one_in_its_place() -> None:
    options = tuple(Option(name, Target("a", "https://a", name)) for name in "xyz")
    choice = Choice(options, options[0], named=True, route="r", retry_lost=True, sampled="bypass")
    for some, baseline, named in ((options[:2], "x", True), (options[1:], "y", False)):
        fewer = choice.among(some)
        assert (fewer.options, fewer.baseline.name, fewer.named) == (some, baseline, named)
        assert (fewer.route, fewer.retry_lost, fewer.sampled) == ("r", True, "bypass")
    assert not Choice(options, options[0], named=False).among(options[:2]).named


def test_vectors_of_two_models_never_stand_in_for_each_other() -> None:
    table = of_kinds("vectors", "vectors-2", "chatty")
    assert names(table.choice("r", endpoint="embeddings")) == ["vectors"]
    table = of_kinds("vectors", "vectors-2", "chatty", baseline="vectors-2")
    assert names(table.choice("r", endpoint="embeddings")) == ["vectors-2"]
    table = of_kinds("chatty", "vectors", "vectors-2")  # the baseline has none
    assert names(table.choice("r", endpoint="embeddings")) == ["vectors"]


def test_one_model_of_vectors_may_be_asked_at_several_providers() -> None:
    models = {"here": Named("a", "bge"), "there": Named("b", "bge"), "other": Named("b", "ada")}
    table = routes(lambda *_: (None, None), models, {"r": Route(("here", "other", "there"), "here")})
    assert names(table.choice("r", endpoint="embeddings")) == ["here", "there"]
    assert names(table.choice("r")) == ["here", "other", "there"]


def test_whoever_is_of_the_same_tier_must_have_the_endpoint_too() -> None:
    models = {name: Named("a", name, tier=1) for name in ("chatty", "old", "odd")}
    table = Routes(
        base_urls={"a": "https://a"},
        default_provider="a",
        models=models,
        routes={},
        describe=lambda name, _: (Model(provider="", id=name, kind=KINDS[name]), None),
    )
    assert names(table.choice("chatty", "cheapest")) == ["chatty", "odd"]
    assert names(table.choice("old", "cheapest", endpoint="completions")) == ["old", "odd"]
