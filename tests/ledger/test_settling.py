"""What a process that died left behind is settled at the next start."""

from decimal import Decimal
from pathlib import Path

from proxy.ledger.opening import open_database, transaction
from proxy.ledger.rows import Ending, answers, endings, intents
from proxy.ledger.settling import RECENT, settle
from proxy.ledger.spending import spent
from tests.ledger.told import AT, answer, ask, column, end, intent


class Died:
    """A ledger of a process that was killed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._database = open_database(directory)
        self.start()

    def start(self) -> int:
        with transaction(self._database) as connection:
            return settle(connection)

    def spent(self) -> Decimal:
        with self._database.connect() as connection:
            return spent(connection, "pk_1", 0.0)

    def tell(self, *what: tuple[str, tuple[object, ...]]) -> None:
        with self._database.connect() as connection:
            for each in what:
                connection.exec_driver_sql(*each)

    def tried(self, request: str, **different: object) -> None:
        self.tell(
            endings().whole([Ending(intent(request, **different), end(request, number=different.get("number", 1)))])
        )


def test_what_was_under_way_is_charged_as_reserved_and_marked(tmp_path: Path) -> None:
    died = Died(tmp_path)
    died.tell(intents().whole([intent("a"), intent("b", reserved=None), intent("c")]))
    died.tell(endings().whole([Ending(intent("c"), end("c"))]))
    assert died.start() == 2
    rows = ask(tmp_path, "SELECT request, ended, estimated, usd, reserved FROM attempts ORDER BY request")
    half = 500_000_000_000
    assert rows == [
        ("a", "unknown", 1, half, half),
        ("b", "unknown", 1, None, None),
        ("c", "ok", 0, 125_000_000_000, half),
    ]
    assert died.spent() == Decimal("0.625")
    assert died.start() == 0


def test_a_request_that_was_not_answered_gets_its_row(tmp_path: Path) -> None:
    died = Died(tmp_path)
    died.tell(intents().whole([intent("open", at=AT + 5, asked="route", model="last", provider="there")]))
    died.tried("ended")
    died.tried("answered")
    died.tell(answers().whole([answer("answered")]))
    died.start()
    rows = ask(tmp_path, "SELECT id, outcome, status, at, key, asked, provider, model FROM requests ORDER BY id")
    assert rows == [
        ("answered", "miss", 200, AT, "pk_1", "fast", "sim", "sim-1"),
        ("ended", "lost", 0, AT, "pk_1", "fast", "sim", "sim-1"),
        ("open", "lost", 0, AT + 5, "pk_1", "route", "there", "last"),
    ]
    died.start()
    assert len(ask(tmp_path, "SELECT * FROM requests")) == 3


def test_a_request_with_several_attempts_gets_one_row_of_the_last(tmp_path: Path) -> None:
    died = Died(tmp_path)
    for number in (1, 2, 3):
        died.tried("a", number=number, model=f"sim-{number}")
    died.start()
    assert ask(tmp_path, "SELECT id, model FROM requests") == [("a", "sim-3")]


def test_a_stale_answer_after_a_failed_attempt_is_an_answer(tmp_path: Path) -> None:
    died = Died(tmp_path)
    died.tried("a")
    died.tell(answers().whole([answer("a", outcome="stale")]))
    died.start()
    assert column(tmp_path, "SELECT outcome FROM requests") == ["stale"]


def test_only_the_last_day_is_looked_through(tmp_path: Path) -> None:
    """A row of a request may be deleted, or never have been: what is long over is not lost again at each start."""
    died = Died(tmp_path)
    died.tried("old", at=AT)
    died.tried("new", at=AT + RECENT + 1)
    died.start()
    assert column(tmp_path, "SELECT id FROM requests") == ["new"]


def test_after_a_good_end_nothing_is_looked_for(tmp_path: Path) -> None:
    died = Died(tmp_path)
    died.tried("a")
    ask(tmp_path, "DELETE FROM marks WHERE name = 'running'")
    died.start()
    assert ask(tmp_path, "SELECT * FROM requests") == []
    assert column(tmp_path, "SELECT name FROM marks") == ["running"]
