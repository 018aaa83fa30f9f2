"""`penstock report`: for people, and for programs."""

import csv
import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from proxy.ledger.figures import MEMBERS
from proxy.ledger.opening import open_database, transaction
from proxy.ledger.shadows import SHADOW_MEMBERS
from proxy.ledger.sums import By
from proxy.report import Format, report
from tests.ledger.test_figures import EVERY, Shop, busy
from tests.ledger.test_shadows import fetched, shadowy
from tests.ledger.told import AT, DAY, answer, hit

FORMATS: tuple[Format, ...] = ("table", "csv", "json")


def said(directory: Path, code: int = 0, width: int = 80, **options: Any) -> str:
    words = io.StringIO()
    assert report(directory, Console(file=words, width=width), **options) == code
    return words.getvalue()


def told_csv(directory: Path, **options: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(said(directory, format="csv", **options))))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    shop = Shop(tmp_path)
    busy(shop)
    return shop


@pytest.mark.parametrize("by", EVERY)
def test_csv_and_json_tell_the_same(shop: Shop, by: By) -> None:
    lines = told_csv(shop.directory, by=by)
    told = json.loads(said(shop.directory, by=by, format="json"))
    assert told["by"] == by
    assert lines == [
        {name: "" if value is None else str(value) for name, value in group.items()} for group in told["groups"]
    ]
    first = [by, "name"] if by == "key" else [by]
    assert list(lines[0]) == first + list(MEMBERS)
    assert list(told["total"]) == list(MEMBERS)


def test_money_has_all_its_digits_and_no_exponent(shop: Shop) -> None:
    shop.tried("fine", key="pk_3", usd=Decimal("0.000000000001"), routing=Decimal("-0.000000000002"))
    [line] = [line for line in told_csv(shop.directory) if line["key"] == "pk_3"]
    assert line["usd"] == "0.000000000001"
    assert line["saved_routing_usd"] == "-0.000000000002"
    assert line["saved_cache_usd"] == "0"
    told = json.loads(said(shop.directory, format="json"))
    assert told["total"]["usd"] == "0.623000000001"


def test_lines_of_csv_are_groups_alone_so_that_they_may_be_added(shop: Shop) -> None:
    lines = told_csv(shop.directory, by="outcome")
    assert sum(int(line["requests"]) for line in lines) == 10
    assert sum(Decimal(line["usd"]) for line in lines) == Decimal("0.623")


def test_a_column_is_no_wider_for_programs_on_a_narrow_screen(shop: Shop) -> None:
    for format_ in FORMATS:
        assert said(shop.directory, width=20, format=format_) == said(shop.directory, width=500, format=format_)


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_a_table_has_a_line_for_each_group_and_the_total(shop: Shop) -> None:
    table = rows(said(shop.directory, by="key"))
    assert ["pk_1", "8", "2", "1", "1", "75.0%", "4", "1,100", "240", "57", "0.2500", "s"] in table
    assert ["total", "10", "3", "1", "2", "66.7%", "5", "2,100", "440", "107", "0.2500", "s"] in table
    assert ["pk_2", "0.02", "0", "0", "0.08", "0", "0.01", "0", "0.002"] in table
    assert ["total", "0.623", "0.503", "1", "0.78", "0.009", "0.03", "2", "0.008"] in table


def test_what_is_not_known_is_said(shop: Shop) -> None:
    text = said(shop.directory)
    assert "The cost of 1 attempts is not known" in text
    assert "What 2 answers saved is not known" in text
    known = Shop(shop.directory / "known")
    known.tried("a")
    assert "not known" not in said(known.directory)


def test_keys_are_called_by_their_names(shop: Shop) -> None:
    names = {"pk_1": "team-a", "pk_9": "nobody"}
    assert next(row for row in rows(said(shop.directory, names=names)) if row[:1] == ["team-a"])[:2] == ["team-a", "8"]
    assert {line["key"]: line["name"] for line in told_csv(shop.directory, names=names)} == {
        "pk_1": "team-a",
        "pk_2": "",
    }
    assert "team-a" not in said(shop.directory, by="model", names=names)


def test_a_name_commands_no_terminal(shop: Shop) -> None:
    evil = "\x1b[31m[bold]red\x07\n"
    shop.answered(answer("evil", model=evil))
    text = said(shop.directory, by="model")
    assert "?[31m[bold]red??" in text
    assert "\x1b" not in text
    assert [line["model"] for line in told_csv(shop.directory, by="model") if "red" in line["model"]] == [evil]


@pytest.mark.parametrize("format_", FORMATS)
def test_without_a_ledger_it_says_so_and_fails(tmp_path: Path, format_: Format) -> None:
    assert said(tmp_path / "none", 1, format=format_) == (
        f"There is no ledger in {tmp_path / 'none'}; "
        f"name the proxy's settings with --config, or its data directory with --data-dir.\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_was_written_it_says_so(tmp_path: Path) -> None:
    open_database(tmp_path)
    assert said(tmp_path) == "Nothing was written down.\n"
    assert said(tmp_path, since=AT) == "Nothing was written down since 2023-11-14T22:13:20Z.\n"
    assert said(tmp_path, format="csv", by="model").rstrip().split(",") == ["model", *MEMBERS]
    told = json.loads(said(tmp_path, format="json", since=AT))
    assert (told["groups"], told["total"]["requests"], told["since"]) == ([], 0, "2023-11-14T22:13:20Z")


def test_a_moment_leaves_out_what_came_before(shop: Shop) -> None:
    shop.answered(hit("late", at=AT + 9 * DAY, key="pk_8"))
    assert [line["key"] for line in told_csv(shop.directory, since=AT + 9 * DAY)] == ["pk_8"]


def test_it_reads_while_a_proxy_writes(shop: Shop) -> None:
    with transaction(open_database(shop.directory)) as connection:
        connection.exec_driver_sql("DELETE FROM requests")
        assert len(told_csv(shop.directory)) == 2


# What shadow mode saw.


@pytest.mark.parametrize("by", EVERY)
def test_csv_and_json_tell_the_same_of_shadow_mode(shop: Shop, by: By) -> None:
    shadowy(shop)
    lines = told_csv(shop.directory, by=by, shadow=True)
    told = json.loads(said(shop.directory, by=by, format="json", shadow=True))
    assert lines == [
        {name: "" if value is None else str(value) for name, value in group.items()} for group in told["groups"]
    ]
    first = [by, "name"] if by == "key" else [by]
    assert list(lines[0]) == first + list(SHADOW_MEMBERS)
    assert list(told["total"]) == list(SHADOW_MEMBERS)
    assert sum(Decimal(line["would_save_cache_usd"]) for line in lines) == Decimal("0.023")


def test_a_table_of_shadow_mode_has_a_line_for_each_group_and_the_total(shop: Shop) -> None:
    shadowy(shop)
    table = rows(said(shop.directory, shadow=True))
    assert ["pk_1", "3", "1", "1", "66.7%", "0.123", "0", "0", "0.023", "0", "18.7%"] in table
    assert ["total", "6", "2", "2", "66.7%", "0.693", "0.07", "1", "0.023", "0.5", "75.5%"] in table


def test_the_report_of_shadow_mode_ends_with_what_it_comes_to(shop: Shop) -> None:
    shadowy(shop)
    *_, unknown, whole = said(shop.directory, shadow=True).splitlines()
    assert unknown.startswith("The cost of 1 attempts is not known")
    assert whole == ("With the cache on, 4 of 6 requests would not have been paid: $0.523 of $0.693 (75.5 %).")


def test_of_what_cost_nothing_no_share_is_told(shop: Shop) -> None:
    fetched(shop, "m", "hit", "0")
    whole = said(shop.directory, shadow=True).splitlines()[-1]
    assert whole == "With the cache on, 1 of 1 requests would not have been paid: $0 of $0."
    assert told_csv(shop.directory, shadow=True)[0]["would_save_ratio"] == ""


def test_where_nothing_was_written_in_shadow_mode_it_says_so_and_how_to_begin(shop: Shop) -> None:
    how = 'To begin, set mode = "shadow" under [cache] and start the proxy anew.'
    assert said(shop.directory, shadow=True) == f"Nothing was written down in shadow mode. {how}\n"
    since = said(shop.directory, shadow=True, since=AT)
    assert since == f"Nothing was written down in shadow mode since 2023-11-14T22:13:20Z. {how}\n"
    told = json.loads(said(shop.directory, shadow=True, format="json"))
    assert (told["groups"], told["total"]["requests"], told["total"]["usd"]) == ([], 0, "0")
    assert said(shop.directory, shadow=True, format="csv", by="model").rstrip().split(",") == ["model", *SHADOW_MEMBERS]
    assert said(shop.directory / "none", 1, shadow=True).startswith("There is no ledger in")
