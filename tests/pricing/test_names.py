"""How names are read."""

import pytest

from pricing.names import plain, undated, varied


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("GPT-4o ", "gpt-4o"),
        ("models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("ft:gpt-4o-mini-2024-07-18:acme::Ab1", "ft:gpt-4o-mini-2024-07-18"),
        ("anthropic.claude-sonnet-4-5-v1:0", "anthropic.claude-sonnet-4-5-v1:0"),
    ],
)
def test_what_only_addresses_a_model_is_no_part_of_its_name(name: str, read: str) -> None:
    assert plain(name) == read


@pytest.mark.parametrize(
    "name",
    [
        "claude-sonnet-4-5-20250929",
        "claude-sonnet-4.5-20250929",
        "claude-sonnet-4-5@20250929",
        "claude-sonnet-4.5-2025-09-29",
        "claude-sonnet-4-5-20250929-v1:0",
    ],
)
def test_one_version_is_read_alike_however_it_is_written(name: str) -> None:
    assert varied(name) == "claude-sonnet-4-5-20250929"
    assert undated(name) == "claude-sonnet-4-5"


@pytest.mark.parametrize("name", ["gemini-2-0-flash", "gemini-2.0-flash-001", "gemini-2.0-flash-latest"])
def test_a_name_without_its_version_is_that_of_all_versions(name: str) -> None:
    assert undated(name) == "gemini-2-0-flash"


@pytest.mark.parametrize("name", ["gpt-4-1106-preview", "llama-3-70b", "qwen3-32b", "kimi-k2-0905"])
def test_digits_that_are_no_date_stay(name: str) -> None:
    assert undated(name) == varied(name) == name
