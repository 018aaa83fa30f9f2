import subprocess
import sys
from pathlib import Path

import pytest

from proxy.core.purges import EVERYTHING, PurgeLog, Selection
from proxy.store.purges import PurgeFile

PURGES = """
import sys, pathlib
from proxy.core.purges import Selection
from proxy.store.purges import PurgeFile
file = PurgeFile(pathlib.Path(sys.argv[1]))
for number in range(25):
    file.add(Selection("key", (f"{sys.argv[2]}-{number}",)))
"""


def test_without_a_file_nothing_was_purged_and_nothing_changed(tmp_path: Path) -> None:
    file = PurgeFile(tmp_path / "purges")
    assert not file.changed()
    assert file.read() == PurgeLog()
    assert not file.changed()


def test_each_purge_counts_one_and_leaves_only_its_file(tmp_path: Path) -> None:
    file = PurgeFile(tmp_path / "purges")
    wishes = (EVERYTHING, Selection("key", ("a",)), Selection("model", ("m", "n")))
    assert [file.add(each).number for each in wishes] == [1, 2, 3]
    found = PurgeFile(tmp_path / "purges").read()
    assert (found.floor, found.keys, found.models) == (1, {"a": 2}, {"m": 3, "n": 3})
    assert [path.name for path in tmp_path.iterdir()] == ["purges"]


def test_the_number_of_an_older_version_is_counted_on(tmp_path: Path) -> None:
    (tmp_path / "purges").write_bytes(b"7\n")
    file = PurgeFile(tmp_path / "purges")
    assert file.read() == PurgeLog(7, 7, 7, 7)
    found = file.add(Selection("key", ("a",)))
    assert (found.number, found.floor, found.keys) == (8, 7, {"a": 8})


def test_a_purge_of_another_is_seen_until_it_is_read(tmp_path: Path) -> None:
    ours, theirs = PurgeFile(tmp_path / "purges"), PurgeFile(tmp_path / "purges")
    assert ours.read() == PurgeLog()
    theirs.add(EVERYTHING)
    assert ours.changed()
    assert ours.changed()
    assert ours.read().number == 1
    assert not ours.changed()


def test_ones_own_purge_is_no_change(tmp_path: Path) -> None:
    file = PurgeFile(tmp_path / "purges")
    file.add(EVERYTHING)
    assert not file.changed()
    file.clean(1)
    assert not file.changed()


def test_a_hundred_purges_are_each_seen_though_the_size_is_the_same(tmp_path: Path) -> None:
    ours, theirs = PurgeFile(tmp_path / "purges"), PurgeFile(tmp_path / "purges")
    for number in range(1, 101):
        theirs.add(EVERYTHING)
        assert ours.changed()
        assert ours.read().number == number


def test_after_a_purge_that_could_not_be_written_all_of_that_time_is_purged(tmp_path: Path) -> None:
    file = PurgeFile(tmp_path / "purges")
    file.add(Selection("key", ("a",)))
    found = file.add(Selection("key", ("b",)), above=5)
    assert (found.number, found.floor, found.keys) == (7, 6, {"b": 7})
    found = file.add(Selection("key", ("c",)), above=3)
    assert (found.number, found.floor, found.keys) == (9, 8, {"c": 9})


def test_that_it_was_cleaned_takes_no_purge_of_another_away(tmp_path: Path) -> None:
    ours, theirs = PurgeFile(tmp_path / "purges"), PurgeFile(tmp_path / "purges")
    ours.add(Selection("key", ("a",)))
    theirs.add(Selection("key", ("b",)))
    found = ours.clean(1)
    assert (found.number, found.swept, found.keys) == (2, 1, {"a": 1, "b": 2})


def test_a_file_that_was_removed_is_a_change_to_nothing(tmp_path: Path) -> None:
    file = PurgeFile(tmp_path / "purges")
    file.add(EVERYTHING)
    (tmp_path / "purges").unlink()
    assert file.changed()
    assert file.read() == PurgeLog()


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b'{"number": "many"}'])
def test_an_unreadable_file_is_counted_on_from_0(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "purges").write_bytes(text)
    assert PurgeFile(tmp_path / "purges").read() == PurgeLog()
    assert PurgeFile(tmp_path / "purges").add(EVERYTHING).number == 1


def test_a_directory_in_its_place_is_no_purge_and_refuses_one(tmp_path: Path) -> None:
    (tmp_path / "purges").mkdir()
    file = PurgeFile(tmp_path / "purges")
    assert file.read() == PurgeLog()
    with pytest.raises(OSError):
        file.add(EVERYTHING)


def test_a_name_that_is_no_text_purges_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        PurgeFile(tmp_path / "purges").add(Selection("key", ("\udc80",)))
    assert not list(tmp_path.iterdir())


def test_processes_that_purge_at_the_same_time_lose_no_purge(tmp_path: Path) -> None:
    path = str(tmp_path / "purges")
    processes = [subprocess.Popen([sys.executable, "-c", PURGES, path, str(number)]) for number in range(4)]
    assert [process.wait(timeout=20) for process in processes] == [0] * 4
    found = PurgeFile(tmp_path / "purges").read()
    assert found.number == 100
    assert len(found.keys) == 100
