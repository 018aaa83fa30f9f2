"""The packaged catalogue: whole, sourced, and in agreement with genai-prices."""

import hashlib
import importlib
import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import msgspec
import pytest

from bench.catalogue.__main__ import text_of
from pricing.cost import PARTS, Price, Rates, Usage
from pricing.models import Catalogue, Prices
from pricing.table import Table

DATA = files("pricing").joinpath("catalogue.json").read_bytes()
CATALOGUE = msgspec.json.decode(DATA, type=Catalogue)
SERVICES = ("standard", "flex", "priority", "batch")
FIELDS = (*SERVICES, "hours", "later", "window", "max_output", "capabilities", "cache_least", "retires", "other_fees")


def test_it_is_of_a_size_that_is_loaded_in_no_time() -> None:
    assert 1_200 < len(CATALOGUE.models) < 2_000
    assert len(DATA) <= 600_000


def test_it_is_what_the_script_writes() -> None:
    assert text_of(CATALOGUE) == DATA


def test_some_rows_are_to_the_byte_what_the_sources_gave() -> None:
    """From genai-prices 0.2.3 and litellm 1.109.1. A rebuilt catalogue changes them, or shows here that it does not."""
    wanted = {("openai", "gpt-5"), ("anthropic", "claude-sonnet-4-5"), ("google", "gemini-2.5-pro")}
    wanted |= {("groq", "openai/gpt-oss-120b")}
    lines = [line.rstrip(b",") for line in DATA.splitlines() if line.startswith(b'{"provider"')]
    rows = [line for line in lines if (row := json.loads(line)) and (row["provider"], row["id"]) in wanted]
    assert hashlib.sha256(b"\n".join(rows)).hexdigest() == DIGEST


DIGEST = "64f1052eb5665e9a8869744c1a4be7384d4fd62c9edc273720ac9049e3ebf0fe"


def test_every_number_has_a_source_and_a_day() -> None:
    table = Table(CATALOGUE)
    lacking = []
    for model in CATALOGUE.models:
        said = {
            **{name: getattr(model, name) for name in model.__struct_fields__},
            "capabilities": model.yes or model.no,
        }
        for field in (*FIELDS, "cache", "tokenizer"):
            sources = table.origin(model, field)
            if bool(said[field]) and not (sources and all(source.taken for source in sources)):
                lacking.append(f"{model.provider}: {model.id}: {field}")
    assert lacking == []


def all_rates(prices: Prices) -> Iterator[Rates]:
    yield from (rates for name in SERVICES if (rates := getattr(prices, name)) is not None)
    yield from (hours.standard for hours in prices.hours)


def test_every_model_has_a_price_or_a_window_and_what_it_refers_to() -> None:
    for model in CATALOGUE.models:
        assert model.provider in CATALOGUE.providers
        assert model.standard or model.window, model.id
        assert model.cache is None or model.cache in CATALOGUE.caches
        assert not set(model.yes) & set(model.no), model.id
        assert model.kind is not None


def test_no_price_is_off_by_a_million() -> None:
    for model in CATALOGUE.models:
        for rates in (each for prices in (model, *model.later) for each in all_rates(prices)):
            for price in (getattr(each, part) for each in (rates, *rates.tiers) for part in PARTS):
                assert price is None or 0 <= price <= 2_000, model.id


def test_text_costs_no_more_from_the_cache_than_anew() -> None:
    dearer = [
        f"{model.provider}: {model.id}"
        for model in CATALOGUE.models
        for rates in all_rates(model)
        if rates.input is not None and rates.cached_input is not None and rates.cached_input > rates.input
    ]
    assert dearer == []


# --- the same sums by genai-prices' own code

CROSSED = """
openai: gpt-5 gpt-5-mini gpt-5-nano gpt-5.1 gpt-5.4 gpt-5.5 gpt-5.6 gpt-6-sol gpt-6.1-terra gpt-4.1 gpt-4.1-mini gpt-4o
openai: gpt-4o-mini gpt-4-turbo o1 o3 o3-mini o4-mini text-embedding-3-small
anthropic: claude-sonnet-4-5 claude-haiku-4-5 claude-opus-4-6 claude-opus-4-8 claude-opus-5-5 claude-sonnet-5-5
anthropic: claude-haiku-5-5 claude-3-opus
google: gemini-2.5-pro gemini-2.5-flash gemini-2.5-flash-lite gemini-3.1-pro-preview gemini-3.8-flash
google: gemini-embedding-001
x-ai: grok-4.5 grok-4.7
mistral: codestral-latest
groq: openai/gpt-oss-120b llama-3.3-70b-versatile
moonshotai: kimi-k2.6 kimi-k3
cohere: command-r-plus-08-2024
openrouter: openai/gpt-4o anthropic/claude-opus-5.5
"""
PAIRS = [
    (who, name) for line in CROSSED.split("\n") for who, _, names in [line.partition(": ")] for name in names.split()
]


@pytest.fixture(scope="module")
def genai() -> Any:
    try:
        return importlib.import_module("genai_prices")
    except ImportError:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("genai-prices is not installed")


@pytest.mark.parametrize(("provider", "name"), PAIRS, ids=[f"{who}-{name}" for who, name in PAIRS])
def test_genai_prices_comes_to_the_same_sum(genai: Any, provider: str, name: str) -> None:
    model = Table(CATALOGUE).find(name, provider)
    assert model is not None
    assert model.standard is not None
    at = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    limits = [0, *(tier.above for tier in model.standard.tiers)]
    for prompt in (each + 10_000 for each in limits):
        usage = usage_that(model.standard, prompt)
        theirs = genai.calc_price(
            genai.Usage(
                input_tokens=usage.input,
                cache_read_tokens=usage.cached or None,
                cache_write_tokens=usage.written or None,
                output_tokens=usage.output or None,
            ),
            name,
            provider_id=provider,
            genai_request_timestamp=at,
        )
        assert model.charge(usage, at).usd == theirs.total_price


def usage_that(price: Price, prompt: int) -> Usage:
    """Of every kind that has a price, some."""
    return Usage(
        input=prompt,
        cached=4_000 if price.cached_input is not None else 0,
        output=500 if price.output is not None else 0,
        written=1_000 if price.cache_write is not None else 0,
    )


def test_forty_models_are_crossed() -> None:
    assert len(set(PAIRS)) >= 40


def test_the_catalogue_names_no_index() -> None:
    assert re.search(rb"pypi\.org", DATA) is None
