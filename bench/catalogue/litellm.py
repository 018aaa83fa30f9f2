"""What litellm's model table says: rows of USD per token, where a zero is no price."""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, cast, get_args

from bench.catalogue.families import NO_TEXT
from bench.catalogue.sources import package, plain
from pricing.cost import Rates, Tier
from pricing.models import Capability, Hours, Kind, Period

LITELLM_TABLE = "litellm/model_prices_and_context_window_backup.json"
LITELLM_PARTS = {
    "input": "input_cost_per_token",
    "cached_input": "cache_read_input_token_cost",
    "output": "output_cost_per_token",
    "cache_write": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
    "audio_input": "input_cost_per_audio_token",
    "audio_cached_input": "cache_read_input_audio_token_cost",
    "audio_output": "output_cost_per_audio_token",
    "reasoning": "output_cost_per_reasoning_token",
}
SERVICES = {"flex": "_flex", "priority": "_priority", "batch": "_batches"}
CAPABILITIES: dict[Capability, tuple[str, ...]] = {
    "tools": ("supports_function_calling",),
    "vision": ("supports_vision",),
    "audio": ("supports_audio_input",),
    "json_schema": ("supports_response_schema", "supports_native_structured_output"),
    "reasoning": ("supports_reasoning",),
}
KINDS = get_args(Kind)  # litellm's modes have the same names

Row = Mapping[str, Any]


def read_litellm(path: str | None) -> tuple[dict[str, Row], str]:
    found = package("litellm", path)
    table = cast("Path", found.locate_file(LITELLM_TABLE))  # or zipfile's, which is like it
    return json.loads(table.read_text(encoding="utf-8"), parse_float=Decimal), found.version


def number(value: object) -> Decimal | None:
    """USD per million tokens, of USD per token. Ten digits: the file has floats, some with their dust."""
    if not isinstance(value, Decimal | int) or isinstance(value, bool):
        return None
    return plain(Decimal(f"{value * 1_000_000:.10g}"))


def parts_of(row: Row, tier: str = "", service: str = "") -> dict[str, Decimal]:
    found = {part: number(row.get(f"{key}{tier}{service}")) for part, key in LITELLM_PARTS.items()}
    priced = {part: price for part, price in found.items() if price is not None}
    # A zero stands for "no price of its own", and for what is not known.
    return {part: price for part, price in priced.items() if price}


def litellm_rates(row: Row, service: str = "") -> Rates | None:
    if row.get("tiered_pricing") and not service:
        steps = [(int(step["range"][0]), parts_of(step)) for step in row["tiered_pricing"]]
        if not all("input" in parts for _, parts in steps):
            return None
        return rates(steps[0][1], steps[1:])
    limits = sorted({int(each) for key in row for each in re.findall(rf"_above_(\d+)k_tokens{service}$", key)})
    base = parts_of(row, "", service)
    if "input" not in base or ("output" not in base and row.get("mode") != "embedding"):
        return None
    return rates(base, [(limit * 1000, parts_of(row, f"_above_{limit}k_tokens", service)) for limit in limits])


def rates(base: dict[str, Decimal], steps: Iterable[tuple[int, dict[str, Decimal]]]) -> Rates:
    tiers = tuple(Tier(above=limit, **parts) for limit, parts in steps if parts.get("input"))
    return Rates(**base, tiers=tiers, moves="whole" if tiers else None)


def off_peak(row: Row) -> tuple[Hours, ...]:
    listed = row.get("off_peak_pricing")
    if not listed:
        return ()
    periods = [
        Period(days=tuple(window["weekdays"]), start=start, end="24:00" if end == "00:00" else end)
        for window in listed["windows"]
        for start, end in (each.split("-") for each in as_list(window["hours_utc"]))
    ]
    return (Hours(periods=tuple(periods), standard=rates(parts_of(listed), [])),)


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def can_and_cannot(row: Row) -> tuple[tuple[Capability, ...], tuple[Capability, ...]]:
    said = {name: [row[key] for key in keys if isinstance(row.get(key), bool)] for name, keys in CAPABILITIES.items()}
    return tuple(n for n, v in said.items() if any(v)), tuple(n for n, v in said.items() if v and not any(v))


def day_of(value: str | None) -> date | None:
    return date.fromisoformat(value) if value else None


def whole(value: object) -> int | None:
    return int(value) if isinstance(value, Decimal | int) and value > 0 else None


def kind_of(row: Row) -> Kind:
    if row["mode"] == "responses" and "/v1/chat/completions" in row.get("supported_endpoints", ()):
        return "chat"
    return cast("Kind", row["mode"])


def skipped(key: str) -> bool:
    """Rows that are no model one could call: price classes, commitments, regions with a path of their own."""
    return bool(NO_TEXT.search(key.lower())) or bool(
        re.match(
            r"fireworks[-_]ai-(?!embedding)|together-ai-|bedrock/(?!converse)[^/]*/|.*commitment|.*us-gov|sample_spec",
            key,
        )
        or re.match(r"azure/(us|eu|apac|global|global-standard|.*-1m-.*)/", key)
        or (key.startswith("ft:") and "babbage" in key)
    )
