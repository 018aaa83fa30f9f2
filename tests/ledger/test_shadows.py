"""Sums over what was fetched in shadow mode: exact, complete in every grouping, and of nothing else."""

from decimal import Decimal
from pathlib import Path

import pytest

from proxy.ledger.shadows import Shadows, shadow_summary
from proxy.ledger.sums import By
from tests.ledger.test_figures import EVERY, TODAY, Shop, busy
from tests.ledger.told import AT, DAY, answer


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def fetched(
    shop: Shop, request: str, shadow: str | None, *usd: str | None, at: float = AT, **different: object
) -> None:
    """A request in shadow mode, and what each of its attempts cost."""
    for number, each in enumerate(usd, 1):
        cost = None if each is None else Decimal(each)
        shop.tried(request, outcome=None, at=at, number=number, usd=cost, **different)
    of = {name: value for name, value in different.items() if name in ("key", "model", "provider")}
    shop.answered(answer(request, at=at, outcome="bypass", shadow=shadow, **of))


def shadowy(shop: Shop) -> None:
    """Beside a day in which the cache was on."""
    busy(shop)
    fetched(shop, "m", "miss", "0.1")
    fetched(shop, "n", "hit", "0.02", "0.003")
    fetched(shop, "o", "hit", None, key="pk_2")
    fetched(shop, "p", "collapsed", "0.5", at=TODAY + DAY, key="pk_2", model="sim-2", provider="other")
    fetched(shop, "q", "miss", "0.07", key="pk_2", estimated=True)
    fetched(shop, "r", "collapsed")  # left before anything was sent
    fetched(shop, "s", None, "9")  # which the cache must not answer


def groups(shop: Shop, by: By = "key", since: float | None = None) -> dict[str, Shadows]:
    found = shadow_summary(shop.directory, by, since)
    assert found is not None
    return found.groups


def total(shop: Shop, by: By = "key") -> Shadows:
    found = shadow_summary(shop.directory, by, None)
    assert found is not None
    return found.total


def test_the_whole_is_what_was_looked_at_and_what_it_cost(shop: Shop) -> None:
    shadowy(shop)
    assert total(shop) == Shadows(
        requests=6,
        hits=2,
        collapsed=2,
        usd=Decimal("0.693"),
        estimated=Decimal("0.07"),
        unknown=1,
        saved_cache=Decimal("0.023"),
        saved_collapse=Decimal("0.5"),
    )
    assert (total(shop).answered, total(shop).saved) == (4, Decimal("0.523"))
    assert total(shop).ratio == pytest.approx(4 / 6)
    assert total(shop).share == pytest.approx(0.523 / 0.693)


@pytest.mark.parametrize("by", EVERY)
def test_every_grouping_adds_up_to_the_same_whole(shop: Shop, by: By) -> None:
    shadowy(shop)
    assert total(shop, by) == total(shop)
    for name in Shadows.__dataclass_fields__:
        assert sum(getattr(each, name) for each in groups(shop, by).values()) == getattr(total(shop), name), name


def test_an_attempt_counts_for_what_its_request_came_to(shop: Shop) -> None:
    fetched(shop, "a", "hit", "0.1", key="pk_1", model="better")
    shop.tried("a", outcome=None, number=2, model="worse", usd=Decimal("0.02"))
    assert {name: each.saved_cache for name, each in groups(shop, "model").items()} == {"better": Decimal("0.12")}
    shop.answered(answer("b", shadow="miss", key="pk_1", model="", provider=""))
    assert {name: each.requests for name, each in groups(shop, "provider").items()} == {"sim": 1, "": 1}


def test_a_moment_parts_requests_and_with_them_all_their_attempts(shop: Shop) -> None:
    fetched(shop, "a", "hit", "1", at=AT - 1)
    shop.tried("a", outcome=None, number=2, at=AT + 5, usd=Decimal(1))
    fetched(shop, "b", "hit", "0.25", at=AT)
    shop.tried("b", outcome=None, number=2, at=AT + 5, usd=Decimal("0.5"))
    (told,) = groups(shop, since=AT).values()
    assert (told.requests, told.saved_cache) == (1, Decimal("0.75"))


def test_what_is_still_under_way_is_told_as_reserved(shop: Shop) -> None:
    shop.opened("a")
    assert groups(shop) == {}
    shop.answered(answer("a", shadow="hit"))
    (told,) = groups(shop).values()
    assert (told.usd, told.estimated, told.saved_cache) == (Decimal("0.5"),) * 3


def test_where_nobody_ran_in_shadow_mode_there_is_nothing(shop: Shop, tmp_path: Path) -> None:
    busy(shop)
    assert (groups(shop), total(shop)) == ({}, Shadows())
    assert (total(shop).ratio, total(shop).share) == (None, None)
    assert shadow_summary(tmp_path / "none", "key", None) is None
