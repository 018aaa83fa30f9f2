"""Numbers by name."""

from pathlib import Path

from proxy.ledger import marks
from proxy.ledger.opening import open_database, transaction


def test_a_number_counts_up_from_nothing_and_may_be_removed(tmp_path: Path) -> None:
    with transaction(open_database(tmp_path)) as connection:
        assert marks.read(connection, "one") == 0
        for _ in range(3):
            marks.add(connection, "one")
        marks.add(connection, "other")
        assert marks.read(connection, "one") == 3
        marks.remove(connection, "one")
        assert (marks.read(connection, "one"), marks.read(connection, "other")) == (0, 1)
