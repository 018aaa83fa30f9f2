"""What was foreseen, as a table and in words."""

import io
from decimal import Decimal

from rich.console import Console

from proxy.batch.forecast import show
from proxy.batch.foresight import Foreseen, Share


def shown(found: Foreseen) -> str:
    console = Console(file=io.StringIO(), width=160)
    show(found, console, title="in.jsonl")
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_all_of_it_is_said() -> None:
    found = Foreseen(5000, taken=10, wrong=7, refused=1, distinct=4000, held=300)
    found.why = [(number, f"reason {number}.") for number in range(1, 6)]
    found.models["large"] = Share(3600, 70_000, Decimal("1.5"), 0, Decimal("3.25"), 0)
    found.models["[small]"] = Share(100, 1000, Decimal("0.000002"), 0, Decimal("0.5"), 0)
    text = shown(found)
    assert "in.jsonl: 5,000 lines, 7 of them are no requests, 1 would be refused." in text
    assert "  line 5: reason 5.\n  and 3 more\n" in text
    assert "10 are answered already." in text
    assert "4,982 requests, 4,000 of them distinct; the cache holds 300 of these, so 3,700 would be asked." in text
    assert "│ large   │    3,600 │       70,000 │     1.500000 │    3.250000 │" in text
    assert "│ [small] │      100 │        1,000 │     0.000002 │    0.500000 │" in text
    assert "│ all     │    3,700 │       71,000 │     1.500002 │    3.750000 │" in text


def test_what_is_not_known_is_a_question_mark_and_named() -> None:
    found = Foreseen(3, distinct=3)
    found.models["a"] = Share(1, 10, Decimal(0), 1, Decimal(0), 1)
    found.models["b"] = Share(2, 10, Decimal("0.5"), 0, Decimal("0.25"), 1)
    text = shown(found)
    assert "│ a     │        1 │           10 │            ? │           ? │" in text
    assert 'a: no price is known of 1 requests, which are in no sum; set models."a".price.' in text
    assert "b: nothing bounds what 1 requests may cost; max_tokens would." in text
    assert "│ all   │        3 │           20 │     0.500000 │    0.250000 │" in text


def test_a_cache_that_nobody_can_look_at_and_a_budget_that_will_not_do_are_said() -> None:
    found = Foreseen(1, distinct=1, held=None, unseen="cache.db: file is not a database", left=Decimal("0.10"))
    found.models["m"] = Share(1, 10, Decimal("0.5"), 0, Decimal("0.5"), 0)
    text = shown(found)
    assert "the cache cannot be looked at (cache.db: file is not a database), so 1 would be asked." in text
    assert "Of this key's budget 0.1 USD are left: it will not do." in text


def test_where_nothing_is_asked_there_is_no_table() -> None:
    assert shown(Foreseen(1, distinct=1, held=1)).splitlines() == [
        "in.jsonl: 1 lines, 0 of them are no requests.",
        "1 requests, 1 of them distinct; the cache holds 1 of these, so 0 would be asked.",
    ]
