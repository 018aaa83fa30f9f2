"""Responses that providers hold: where they lie, for whom, and for how long that is known."""

from typing import Final

from proxy.core.stored import LASTING, Shelf

PLACE: Final = ("p", "m", "")
ELSEWHERE: Final = ("q", "m", "")
NOW: Final = 1000.0


def test_what_was_put_is_found_until_providers_forget_it() -> None:
    shelf = Shelf()
    shelf.put("resp_1", PLACE, "a", NOW, tokens=7, entry=b"key")
    for now in (NOW, NOW + LASTING):
        found = shelf.find("resp_1", now)
        assert found is not None
        assert (found.place, found.owners, found.tokens, found.entry) == (PLACE, ["a"], 7, b"key")
    assert shelf.find("resp_1", NOW + LASTING + 1) is None


def test_what_is_no_name_is_not_found() -> None:
    shelf = Shelf()
    shelf.put("resp_1", PLACE, "a", NOW)
    names: list[object] = ["", None, 7, ["resp_1"], {}, "resp_2", "\ud800"]
    assert [shelf.find(name, NOW) for name in names] == [None] * len(names)


def test_it_is_anothers_where_it_was_never_given_to_this_key() -> None:
    shelf = Shelf()
    shelf.put("resp_1", PLACE, "a", NOW)
    assert [shelf.is_anothers("resp_1", owner, NOW) for owner in ("a", "b")] == [False, True]
    assert not shelf.is_anothers("resp_2", "b", NOW)
    shelf.put("resp_1", ELSEWHERE, "b", NOW)
    assert [shelf.is_anothers("resp_1", owner, NOW) for owner in ("a", "b", "c")] == [False, False, True]
    found = shelf.find("resp_1", NOW)
    assert found is not None
    assert found.place == ELSEWHERE


def test_of_too_many_the_oldest_are_forgotten() -> None:
    shelf = Shelf(most=2)
    for number in (1, 2, 1, 3):
        shelf.put(f"resp_{number}", PLACE, "a", NOW)
    assert [shelf.find(f"resp_{number}", NOW) is not None for number in (1, 2, 3)] == [True, False, True]


def test_what_was_deleted_is_known_no_more() -> None:
    shelf = Shelf()
    shelf.put("resp_1", PLACE, "a", NOW, entry=b"key")
    dropped = shelf.drop("resp_1")
    assert dropped is not None
    assert dropped.entry == b"key"
    assert shelf.find("resp_1", NOW) is None
    assert shelf.drop("resp_1") is None


def test_no_name_is_in_what_is_kept() -> None:
    shelf, again = Shelf(), Shelf()
    shelf.put("resp_1", PLACE, "a", NOW)
    again.restore(dict(shelf.snapshot()))
    assert again.find("resp_1", NOW) == shelf.find("resp_1", NOW)
    assert all(b"resp_1" not in key for key in shelf.snapshot())
