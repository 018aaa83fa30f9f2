"""What a model costs when and in which service, and what is no row of the catalogue."""

import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from importlib.resources import files

import msgspec
import pytest

from pricing.cost import Charge, Rates, Usage
from pricing.models import Catalogue, Model, Period
from pricing.table import Table
from tests.pricing.support import MILLION, NOON, usd


@pytest.mark.parametrize(
    ("service", "dollars"),
    [
        (None, "11.25"),
        ("default", "11.25"),
        ("auto", "11.25"),
        ("flex", "5.625"),
        ("priority", "22.5"),
        ("batch", "5.625"),
    ],
)
def test_each_service_has_its_price(table: Table, service: str | None, dollars: str) -> None:
    assert usd(table, "gpt-5", MILLION, service=service) == Decimal(dollars)


def test_a_service_without_a_known_price_leaves_the_cost_unknown(table: Table) -> None:
    model = table.find("gpt-5")
    assert model is not None
    assert model.charge(MILLION, NOON, "scale") == Charge(None, {}, ("service scale",))


def test_a_service_with_no_price_for_long_prompts_has_none(table: Table) -> None:
    model = table.find("gemini-2.5-pro")
    assert model is not None
    assert model.charge(Usage(200_000, 0, 1), NOON, "flex").usd is not None
    assert model.charge(Usage(200_001, 0, 1), NOON, "flex").unknown == ("input", "output")


@pytest.mark.parametrize(
    ("at", "dollars"),
    [
        ("2026-11-23T00:59:59+00:00", "0.66"),  # a Monday
        ("2026-11-23T01:00:00+00:00", "1.32"),
        ("2026-11-23T03:59:59+00:00", "1.32"),
        ("2026-11-23T04:00:00+00:00", "0.66"),
        ("2026-11-23T06:00:00+00:00", "1.32"),
        ("2026-11-23T09:59:59+00:00", "1.32"),
        ("2026-11-23T10:00:00+00:00", "0.66"),
        ("2026-11-27T23:59:59+00:00", "0.66"),  # Friday
        ("2026-11-28T02:00:00+00:00", "0.66"),  # Saturday
        ("2026-11-29T07:00:00+00:00", "0.66"),  # Sunday
        ("2026-11-23T10:00:00+08:00", "1.32"),  # 02:00 in UTC
        ("2026-11-30T02:00:00+08:00", "0.66"),  # Sunday, 18:00 in UTC
    ],
)
def test_deepseek_costs_double_in_two_windows_of_a_working_day(table: Table, at: str, dollars: str) -> None:
    usage = Usage(input=1_000_000, cached=0, output=0)
    assert usd(table, "deepseek-v4-pro", usage, datetime.fromisoformat(at)) == Decimal(dollars)


def test_a_price_that_is_announced_holds_from_its_day_on(table: Table) -> None:
    usage = Usage(input=1_000_000, cached=0, output=0)
    before, after = datetime(2026, 12, 31, 23, 59, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    assert usd(table, "gemini-3.8-flash", usage, before) == Decimal("0.75")
    assert usd(table, "gemini-3.8-flash", usage, after) == Decimal("1.5")
    # Still the old year in UTC.
    assert usd(table, "gemini-3.8-flash", usage, after.replace(tzinfo=timezone(timedelta(hours=8)))) == Decimal("0.75")


def test_a_moment_without_a_zone_is_refused(table: Table) -> None:
    with pytest.raises(ValueError, match="zone"):
        usd(table, "gpt-5", MILLION, datetime(2026, 11, 25))  # noqa: DTZ001 -- that is the mistake


def test_what_is_charged_besides_tokens_leaves_the_cost_unknown(table: Table) -> None:
    model = table.find("sonar")
    assert model is not None
    charged = model.charge(MILLION, NOON)
    assert (charged.usd, charged.unknown) == (None, ("requests",))
    assert charged.parts == {"input": 1, "output": 1}


def test_a_model_without_prices_says_so() -> None:
    assert Model(provider="one", id="m").charge(MILLION, NOON) == Charge(None, {}, ("prices",))


def test_a_capability_that_is_not_listed_is_unknown_and_not_absent(table: Table) -> None:
    model = table.find("gpt-audio")
    assert model is not None
    assert (model.can("tools"), model.can("vision")) == (True, False)
    assert Model(provider="one", id="m").can("tools") is None


@pytest.mark.parametrize(
    ("days", "start", "end"),
    [
        ((1,), "10:00", "09:00"),
        ((1,), "9:00", "10:00"),
        ((1,), "00:00", "24:01"),
        ((), "00:00", "24:00"),
        ((0,), "00:00", "24:00"),
    ],
)
def test_impossible_hours_are_refused(days: tuple[int, ...], start: str, end: str) -> None:
    with pytest.raises(ValueError, match=r"hours run|days run"):
        Period(days=days, start=start, end=end)


def test_a_misspelt_member_of_the_catalogue_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `windw`"):
        msgspec.json.decode(b'{"provider":"p","id":"m","windw":1}', type=Model)


def test_the_readme_names_every_field() -> None:
    text = files("pricing").joinpath("README.md").read_text("utf-8")
    told = set(re.findall(r"`(\w+)`", text))
    fields = {*Model.__struct_fields__, *Rates.__struct_fields__, *Catalogue.__struct_fields__}
    assert fields - told == set()
