"""The destination comes from the settings only."""

from proxy.core.routing import Named, Routes, Target

ROUTES = Routes(
    base_urls={"a": "https://a.example/v1", "b": "https://b.example/v1"},
    default_provider="a",
    models={"gpt": Named("b", "vendor/gpt-4.1"), "same": Named("a", "same")},
)


def test_a_model_that_the_settings_name_goes_where_they_say_under_the_name_they_say() -> None:
    assert ROUTES.target("gpt") == Target("b", "https://b.example/v1", "vendor/gpt-4.1")
    assert ROUTES.target("same") == Target("a", "https://a.example/v1", "same")


def test_every_other_model_goes_to_the_default_unchanged() -> None:
    for name in ("other", "GPT", "vendor/gpt-4.1", "ft:gpt-4o:org::abc", "https://evil.example/v1", "../files", ""):
        assert ROUTES.target(name) == Target("a", "https://a.example/v1", name)


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
