"""What sums are made of: exact money, whole days, an order that does not depend on chance."""

from decimal import Decimal
from pathlib import Path

from sqlalchemy import func, select

from proxy.ledger.opening import open_database
from proxy.ledger.pico import MOST
from proxy.ledger.schema import marks
from proxy.ledger.sums import count, digits, group_of, money, ordered, read, told


def test_money_is_exact_beyond_what_a_column_holds(tmp_path: Path) -> None:
    with open_database(tmp_path).connect() as connection:
        for name, value in (("a", MOST), ("b", MOST), ("c", -1)):
            connection.execute(marks.insert().values(name=name, value=value))
        columns = (func.count().label("of"), count(marks.c.value > 0).label("large"), *money(marks.c.value, "usd"))
        (row,) = connection.execute(select(*columns)).mappings()
    assert read(row) == {"large": 2, "usd": Decimal(2 * MOST - 1).scaleb(-12)}


def test_the_largest_comes_first_and_names_decide_where_nothing_else_does() -> None:
    groups = {"b": ("1", 1), "a": ("1", 1), "c": ("1", 2), "d": ("2", 1)}

    def size(each: tuple[str, int]) -> tuple[Decimal, int]:
        return Decimal(each[0]), each[1]

    assert list(ordered(groups, "key", size)) == ["d", "c", "a", "b"]


def test_days_come_in_their_order_and_as_dates() -> None:
    groups = {"19676": 1, "9999": 2, "19675": 3}
    found = ordered(groups, "day", lambda each: (Decimal(each), each))
    assert found == {"1997-05-18": 2, "2023-11-14": 3, "2023-11-15": 1}
    assert list(found) == ["1997-05-18", "2023-11-14", "2023-11-15"]


def test_programs_are_told_names_that_stay_and_money_with_all_its_digits() -> None:
    assert told(Decimal(1), {"there": "real", "not": "imag"}) == {"there": "1", "not": "0"}
    assert digits(Decimal("1E-12")) == "0.000000000001"
    assert digits(Decimal(100)) == "100"
    assert group_of("key", "pk_1", {"pk_1": "team-a"}) == {"key": "pk_1", "name": "team-a"}
    assert group_of("key", "pk_2", {}) == {"key": "pk_2", "name": ""}
    assert group_of("model", "m", {"m": "no"}) == {"model": "m"}
