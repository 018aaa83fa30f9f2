"""Sums over requests and attempts: exact, complete in every grouping, and what is not known is counted."""

from decimal import Decimal
from pathlib import Path

import pytest

from pricing.cost import Usage
from proxy.core.access import Grant
from proxy.ledger.figures import UNDER_WAY, Figures, summary
from proxy.ledger.keys import create_key
from proxy.ledger.opening import open_database
from proxy.ledger.pico import MOST
from proxy.ledger.rows import Ending, answers, endings, intents
from proxy.ledger.sums import By
from tests.ledger.told import AT, DAY, answer, end, hit, intent

TODAY = AT // DAY * DAY
EVERY: tuple[By, ...] = ("key", "model", "provider", "day", "outcome")


class Shop:
    """Writes into a ledger."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._connection = open_database(directory).connect()

    def tried(self, request: str, outcome: str | None = "miss", at: float = AT, **different: object) -> None:
        intended = {name: different.pop(name) for name in ("key", "provider", "model") if name in different}
        told = intent(request, at=at, number=different.get("number", 1), **intended)
        self._connection.exec_driver_sql(*endings().whole([Ending(told, end(request, **different))]))
        if outcome is not None:
            asked = answer(request, at=at, outcome=outcome, **intended)
            self._connection.exec_driver_sql(*answers().whole([asked]))

    def opened(self, request: str) -> None:
        self._connection.exec_driver_sql(*intents().whole([intent(request)]))

    def answered(self, *told: object) -> None:
        for each in told:
            self._connection.exec_driver_sql(*answers().whole([each]))  # type: ignore[list-item]

    def groups(self, by: By, since: float | None = None) -> dict[str, Figures]:
        found = summary(self.directory, by, since)
        assert found is not None
        return found.groups

    def total(self, by: By = "key") -> Figures:
        found = summary(self.directory, by, None)
        assert found is not None
        return found.total


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def busy(shop: Shop) -> None:
    """Two keys, models and days, with each kind of answer."""
    shop.tried("a", usd=Decimal("0.1"), usage=Usage(100, 40, 7))
    shop.tried("b", usd=Decimal("0.02"), at=TODAY + DAY, key="pk_2", model="sim-2", provider="other")
    shop.tried("c", outcome="left", usd=Decimal("0.003"), estimated=True, routing=None)
    shop.tried("d", outcome="broken", usd=None, usage=None, ended="upstream_reset")
    shop.opened("e")
    shop.answered(
        hit("f", saved=Decimal("0.7")),
        hit("g", outcome="stale", saved=Decimal("0.08"), key="pk_2"),
        hit("h", saved=None),
        answer("i", outcome="collapsed", saved=Decimal("0.009"), leader="a"),
        answer("j", outcome="collapsed", saved=None, status=502),
        answer("k", outcome="refused", status=429, provider="", model="", usage=None, first=None),
    )


def test_the_whole_is_what_was_asked_spent_and_saved(shop: Shop) -> None:
    busy(shop)
    told = shop.total()
    assert (told.requests, told.hits, told.collapsed, told.attempts) == (10, 3, 1, 5)
    assert (told.input, told.cached, told.output) == (2100, 440, 107)
    assert (told.usd, told.estimated, told.unknown) == (Decimal("0.623"), Decimal("0.503"), 1)
    assert (told.saved_cache, told.saved_collapse) == (Decimal("0.78"), Decimal("0.009"))
    assert (told.saved_routing, told.saved_prompt_cache) == (Decimal("0.03"), Decimal("0.008"))
    assert told.saved_unknown == 2  # a hit, and an attempt whose baseline has no price; one that failed saves nothing
    assert (told.misses, told.hit_ratio) == (2, 4 / 6)


def test_an_error_is_no_answer_that_the_cache_might_have_given(shop: Shop) -> None:
    shop.answered(hit("a"), answer("b"), answer("c", status=404), answer("d", outcome="bypass"))
    shop.answered(answer("e", outcome="collapsed", status=404))
    assert (shop.total().misses, shop.total().collapsed, shop.total().hit_ratio) == (1, 0, 0.5)
    assert shop.groups("outcome")["bypass"].hit_ratio is None


def test_who_joined_and_paid_since_its_leader_had_left_saved_nothing_that_is_not_known(shop: Shop) -> None:
    shop.answered(answer("a", outcome="collapsed", leader=None), answer("b", outcome="collapsed", leader="c"))
    assert shop.total().saved_unknown == 1


@pytest.mark.parametrize("by", EVERY)
def test_every_grouping_adds_up_to_the_same_whole(shop: Shop, by: By) -> None:
    busy(shop)
    assert shop.total(by) == shop.total()
    groups = shop.groups(by).values()
    for name in Figures.__dataclass_fields__:
        if name != "first":
            assert sum(getattr(each, name) for each in groups) == getattr(shop.total(), name), name


def test_groups_are_what_they_say(shop: Shop) -> None:
    busy(shop)
    assert {name: each.usd for name, each in shop.groups("key").items()} == {
        "pk_1": Decimal("0.603"),
        "pk_2": Decimal("0.02"),
    }
    assert {name: each.requests for name, each in shop.groups("model").items()} == {"sim-1": 8, "sim-2": 1, "": 1}
    assert {name: each.attempts for name, each in shop.groups("provider").items()} == {"sim": 4, "other": 1, "": 0}


def test_an_attempt_counts_for_how_its_request_was_answered(shop: Shop) -> None:
    busy(shop)
    found = {name: (each.requests, each.attempts) for name, each in shop.groups("outcome").items()}
    assert found == {
        "miss": (2, 2),
        "left": (1, 1),
        "broken": (1, 1),
        UNDER_WAY: (0, 1),
        "hit": (2, 0),
        "stale": (1, 0),
        "collapsed": (2, 0),
        "refused": (1, 0),
    }


def test_who_spent_most_comes_first_and_days_come_in_their_order(shop: Shop) -> None:
    for number, usd in enumerate(("0.2", "0.3", "0.1")):
        shop.tried(f"req_{number}", at=TODAY - number * DAY, key=f"pk_{number}", usd=Decimal(usd))
    assert list(shop.groups("key")) == ["pk_1", "pk_0", "pk_2"]
    assert list(shop.groups("day")) == ["2023-11-12", "2023-11-13", "2023-11-14"]


def test_a_day_begins_at_midnight_utc(shop: Shop) -> None:
    for number, at in enumerate((TODAY - 0.001, TODAY, TODAY + DAY - 0.001, TODAY + DAY)):
        shop.tried(f"req_{number}", at=at)
    found = {day: (each.requests, each.attempts) for day, each in shop.groups("day").items()}
    assert found == {"2023-11-13": (1, 1), "2023-11-14": (2, 2), "2023-11-15": (1, 1)}


def test_what_came_before_the_moment_is_left_out(shop: Shop) -> None:
    shop.tried("a", at=AT - 1, first=9.0)
    shop.tried("b", at=AT)
    [told] = shop.groups("key", since=AT).values()
    assert (told.requests, told.attempts) == (1, 1)
    assert shop.groups("key", since=AT + 1) == {}


def test_the_first_byte_is_the_median_of_what_was_answered(shop: Shop) -> None:
    firsts = (0.0003, 0.25, 0.5, 2.0)
    shop.answered(*(answer(f"req_{number}", first=first) for number, first in enumerate(firsts)))
    shop.answered(answer("refused", first=0.0001, status=429), answer("none", first=None))
    shop.answered(answer("other", key="pk_2", first=7.0))
    assert {name: each.first for name, each in shop.groups("key").items()} == {"pk_1": 0.25, "pk_2": 7.0}
    assert shop.total().first == 0.5
    shop.answered(answer("quick", key="pk_3", first=0.0003))
    assert shop.groups("key")["pk_3"].first == 0.0003


def test_sums_are_exact_beyond_what_a_column_holds(shop: Shop) -> None:
    for number in range(3):
        shop.tried(f"req_{number}", usd=Decimal("1e9"))
    assert shop.total().usd == Decimal(3 * MOST).scaleb(-12)


def test_the_ledgers_keys_are_told_by_their_names(shop: Shop) -> None:
    made, _ = create_key(shop.directory, Grant("team-a"), now=1.0)
    found = summary(shop.directory, "key", None)
    assert found is not None
    assert found.names == {made.id: "team-a"}


def test_without_a_ledger_there_is_nothing_to_tell_and_nothing_is_made(tmp_path: Path) -> None:
    assert summary(tmp_path / "none", "key", None) is None
    assert list(tmp_path.iterdir()) == []


def test_an_empty_ledger_adds_up_to_nothing(shop: Shop) -> None:
    assert (shop.groups("key"), shop.total()) == ({}, Figures())
    assert shop.total().hit_ratio is None


def test_what_of_a_list_was_known_is_saved_by_the_cache_though_it_was_a_miss(shop: Shop) -> None:
    shop.answered(
        answer("a", saved=Decimal("0.3")),
        answer("b"),
        answer("c", outcome="collapsed", saved=Decimal("0.02"), leader="a"),
        answer("d", outcome="bypass", saved=Decimal(7)),
        hit("e", saved=Decimal("0.1")),
    )
    told = shop.total()
    assert (told.misses, told.hits) == (2, 1)
    assert (told.saved_cache, told.saved_collapse) == (Decimal("0.4"), Decimal("0.02"))
    assert told.saved_unknown == 0  # a miss that saves nothing is no saving that is not known
