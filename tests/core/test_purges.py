"""What a purge means: never fewer misses than it should make, whatever is forgotten of it."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.entry import Entry, Meta, pack
from proxy.core.purges import EVERYTHING, MOST, Kind, PurgeLog, Selection, read_log, write_log


def meta(epoch: int = 0, **different: Any) -> Meta:
    """An entry of key `a`, by model `m`."""
    return Meta(
        **{
            "key": b"k" * 32,
            "kind": "json",
            "provider": "p",
            "model": "m",
            "ended": 0.0,
            "ttl": 60.0,
            "epoch": epoch,
            "usage_asked": False,
            "has_usage": True,
            "owner": "a",
            **different,
        }
    )


def purged(*selections: Selection, log: PurgeLog | None = None) -> PurgeLog:
    log = log or PurgeLog()
    for selection in selections:
        log = log.plus(selection)
    return log


MATCHING = [
    EVERYTHING,
    Selection("key", ("a",)),
    Selection("model", ("other", "m")),
    Selection("entry", ((b"k" * 32).hex(),)),
]
OTHERS = [Selection("key", ("b",)), Selection("model", ("other",)), Selection("entry", ((b"x" * 32).hex(),))]


@pytest.mark.parametrize("selection", MATCHING)
def test_what_was_begun_before_a_purge_that_means_it_is_a_miss_and_what_comes_after_is_not(
    selection: Selection,
) -> None:
    log = purged(selection)
    assert not log.spares(meta(0))
    assert not log.admits(meta(0))
    assert log.spares(meta(1))
    assert log.admits(meta(1))


@pytest.mark.parametrize("selection", OTHERS)
def test_what_a_purge_does_not_mean_stays(selection: Selection) -> None:
    log = purged(selection)
    assert log.number == 1
    assert log.spares(meta(0))
    assert log.admits(meta(0))


def test_an_entry_without_an_owner_is_purged_with_any_key() -> None:
    log = purged(Selection("key", ("a",)), Selection("key", ("b",)))
    assert not log.spares(meta(1, owner=None))
    assert log.spares(meta(2, owner=None))
    assert log.spares(meta(0, owner=""))  # led by nobody's key, when there were none


def test_a_later_purge_of_the_same_counts_anew() -> None:
    log = purged(Selection("key", ("a",)), Selection("model", ("other",)), Selection("key", ("a",)))
    assert not log.spares(meta(2))
    assert log.spares(meta(3))
    assert log.keys == {"a": 3}


def test_an_entry_of_a_later_epoch_than_is_known_is_a_miss_that_nobody_removes() -> None:
    log = PurgeLog(3)
    assert not log.spares(meta(4))
    assert not log.covers(meta(4))


def test_more_than_it_remembers_purges_all_that_was_before_where_it_may_still_lie_there() -> None:
    log = purged(*[Selection("key", (f"key{number}",)) for number in range(MOST + 3)])
    assert len(log.keys) == MOST
    assert log.floor == 3
    assert not log.spares(meta(2, owner="never purged"))
    assert log.spares(meta(3, owner="never purged"))
    assert not log.spares(meta(3, owner="key3"))


def test_what_is_swept_is_forgotten_at_no_cost_but_to_answers_that_have_been_under_way_since() -> None:
    log = purged(*[Selection("key", (f"key{number}",)) for number in range(MOST)]).cleaned(MOST)
    log = purged(Selection("model", ("x",)), Selection("model", ("y",)), log=log)
    assert (log.floor, log.closed) == (0, 2)
    assert "key1" not in log.keys
    assert log.spares(meta(0, owner="never purged"))
    assert not log.admits(meta(1, owner="never purged"))
    assert log.admits(meta(2, owner="never purged"))


def test_a_purge_of_all_makes_every_other_one_needless() -> None:
    log = purged(Selection("key", ("a",)), Selection("model", ("m",)), EVERYTHING)
    assert (log.number, log.floor, log.keys, log.models) == (3, 3, {}, {})


def test_what_may_still_lie_on_the_disk_is_known() -> None:
    key = b"k" * 32
    assert PurgeLog().pending == []
    assert purged(Selection("entry", (key.hex(),))).pending == [key]
    assert purged(Selection("entry", (key.hex(),)), Selection("key", ("a",))).pending is None
    assert purged(EVERYTHING).pending is None
    log = purged(Selection("key", ("a",)), Selection("entry", (key.hex(),)))
    assert log.cleaned(1).pending == [key]
    assert log.cleaned(2).pending == []


def test_the_disk_is_never_called_cleaner_than_it_is() -> None:
    log = purged(EVERYTHING, EVERYTHING)
    assert log.cleaned(7).swept == 2
    assert log.cleaned(2).cleaned(1).swept == 2


def test_a_row_is_judged_by_its_first_bytes_and_removed_where_it_is_no_entry() -> None:
    log = purged(Selection("key", ("a",)))
    assert log.covers_row(pack(Entry(meta(0), b"x" * 9000, [0.5]))[:4096])
    assert not log.covers_row(pack(Entry(meta(1), b"x" * 9000, [0.5]))[:4096])
    assert not log.covers_row(pack(Entry(meta(0, owner="b"), b"x" * 9000, [0.5]))[:4096])
    assert log.covers_row(b"no entry")
    assert log.covers_row(b"")


@pytest.mark.parametrize("log", [PurgeLog(), purged(*MATCHING), purged(*OTHERS).cleaned(2)])
def test_it_is_read_as_it_was_written(log: PurgeLog) -> None:
    assert read_log(write_log(log)) == log


def test_a_bare_number_of_purges_meant_all_each_time() -> None:
    log = read_log(b"7\n")
    assert log.spares(meta(7))
    assert not log.spares(meta(6))
    assert not log.spares(meta(8))
    assert log.pending == []


@pytest.mark.parametrize(
    "text",
    [
        *(
            b"",
            b"\xff\xfe",
            b"-4",
            b"1.5",
            b"nan",
            b"9" * 5000,
            "٣".encode(),
            b'{"number": -1}',
            b'{"keys": {"a": -1}}',
        ),
        *(b'{"number": 1, "entries": {"no hex": 1}}', b'{"number": 1', b'"\xff"', b"[]"),
    ],
)
def test_what_is_unreadable_is_no_purge(text: bytes) -> None:
    assert read_log(text) == PurgeLog()


WISHES = st.tuples(st.sampled_from(["all", "key", "model", "clean"]), st.sampled_from("ab"))


@given(st.lists(WISHES, max_size=20), st.integers(0, 5), st.sampled_from([None, *"ab"]), st.sampled_from("ab"))
def test_nothing_that_a_purge_meant_is_spared_afterwards(
    wishes: list[tuple[Any, str]], epoch: int, owner: str | None, model: str
) -> None:
    entry, log, meant = meta(epoch, owner=owner, model=model), PurgeLog(), False
    for kind, value in wishes:
        if kind == "clean":
            log = log.cleaned(log.number)
            continue
        chosen: Kind = kind
        means = {"all": True, "key": owner in {None, value}, "model": model == value}[chosen]
        log = read_log(write_log(log.plus(Selection(chosen, () if chosen == "all" else (value,)))))
        meant |= means and epoch < log.number
    assert log.covers(entry) == meant
    assert log.spares(entry) == (not meant and epoch <= log.number)


def test_the_log_is_a_value() -> None:
    log = purged(Selection("key", ("a",)))
    log.plus(Selection("key", ("b",)))
    assert log.keys == {"a": 1}
    with pytest.raises(AttributeError):
        log.number = 2  # type: ignore[misc]
    assert msgspec.structs.asdict(PurgeLog())["keys"] is not msgspec.structs.asdict(PurgeLog())["keys"]
