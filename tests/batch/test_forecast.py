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
    assert "in.jsonl: 5,000 lines, 7 are no requests, 1 would be refused." in text
    assert "  line 5: reason 5.\n  and 3 more\n" in text
    assert "10 are answered already." in text
    assert "4,982 requests, 4,000 distinct; the cache holds 300 of these, so 3,700 would be asked." in text
    assert "│ large   │    3,600 │       70,000 │     1.500000 │    3.250000 │" in text
    assert "│ [small] │      100 │        1,000 │     0.000002 │    0.500000 │" in text
    assert "│ all     │    3,700 │       71,000 │     1.500002 │    3.750000 │" in text


def row(text: str, name: str) -> list[str]:
    """USD expected and at most."""
    line = next(each for each in text.splitlines() if each.startswith(f"│ {name} "))
    return line.replace(" ", "").split("│")[4:6]


def test_a_sum_of_which_a_part_is_not_known_is_a_question_mark_and_the_rest_is_named() -> None:
    found = Foreseen(3, distinct=3)
    found.models["a"] = Share(4, 10, Decimal("0.125"), 1, Decimal("0.5"), 1)
    found.models["b"] = Share(2, 10, Decimal("0.5"), 0, Decimal("0.25"), 1, {"max_output_tokens", "max_tokens"})
    found.models["c"] = Share(1, 10, Decimal("0.5"), 0, Decimal("0.75"), 0)
    text = shown(found)
    assert [row(text, name) for name in ("a", "b", "c", "all")] == [
        ["?", "?"],
        ["0.500000", "?"],
        ["0.500000", "0.750000"],
        ["?", "?"],
    ]
    assert "a: no price is known of 1 request (all others: 0.125000 USD expected); set models." in text
    bounded = "(all others: 0.250000 USD at most); name max_output_tokens or max_tokens where it lacks."
    assert f"b: nothing bounds what 1 request may cost {bounded}" in text


def test_what_no_member_of_a_body_would_bound_is_told_without_one() -> None:
    found = Foreseen(2, distinct=2)
    found.models["a"] = Share(2, 10, Decimal("0.5"), 0, Decimal(0), 2)
    assert "a: nothing bounds what 2 requests may cost.\n" in shown(found)


def test_a_cache_that_nobody_can_look_at_and_a_budget_that_will_not_do_are_said() -> None:
    found = Foreseen(1, distinct=1, held=None, unseen="cache.db: file is not a database", left=Decimal("0.10"))
    found.models["m"] = Share(1, 10, Decimal("0.5"), 0, Decimal("0.5"), 0)
    text = shown(found)
    assert "the cache cannot be looked at (cache.db: file is not a database), so 1 would be asked." in text
    assert "Of this key's budget 0.1 USD are left: it will not do." in text


def test_one_is_no_several() -> None:
    found = Foreseen(2, taken=1, wrong=1, held=0)
    assert shown(found).splitlines()[0] == "in.jsonl: 2 lines, 1 is no request."
    assert "1 is answered already." in shown(found)


def test_where_nothing_is_asked_there_is_no_table() -> None:
    assert shown(Foreseen(1, distinct=1, held=1)).splitlines() == [
        "in.jsonl: 1 line.",
        "1 request, 1 distinct; the cache holds 1 of these, so 0 would be asked.",
    ]
