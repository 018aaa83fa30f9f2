import subprocess
import sys
from pathlib import Path

import pytest

from proxy.store.epoch import Epoch

BUMPS = "import sys, pathlib; from proxy.store.epoch import Epoch; e = Epoch(pathlib.Path(sys.argv[1]))\n"


def test_without_a_file_the_number_is_0_and_nothing_changed(tmp_path: Path) -> None:
    epoch = Epoch(tmp_path / "purges")
    assert not epoch.changed()
    assert epoch.read() == 0
    assert not epoch.changed()


def test_each_purge_counts_one_and_leaves_only_its_file(tmp_path: Path) -> None:
    epoch = Epoch(tmp_path / "purges")
    assert [epoch.bump(), epoch.bump(), epoch.bump()] == [1, 2, 3]
    assert Epoch(tmp_path / "purges").read() == 3
    assert [path.name for path in tmp_path.iterdir()] == ["purges"]


def test_a_purge_of_another_is_seen_until_it_is_read(tmp_path: Path) -> None:
    ours, theirs = Epoch(tmp_path / "purges"), Epoch(tmp_path / "purges")
    assert ours.read() == 0
    theirs.bump()
    assert ours.changed()
    assert ours.changed()
    assert ours.read() == 1
    assert not ours.changed()


def test_ones_own_purge_is_no_change(tmp_path: Path) -> None:
    epoch = Epoch(tmp_path / "purges")
    epoch.bump()
    assert not epoch.changed()


def test_a_hundred_purges_are_each_seen_though_the_size_is_the_same(tmp_path: Path) -> None:
    ours, theirs = Epoch(tmp_path / "purges"), Epoch(tmp_path / "purges")
    for number in range(1, 101):
        theirs.bump()
        assert ours.changed()
        assert ours.read() == number


def test_a_file_that_was_removed_is_a_change_to_0(tmp_path: Path) -> None:
    epoch = Epoch(tmp_path / "purges")
    epoch.bump()
    (tmp_path / "purges").unlink()
    assert epoch.changed()
    assert epoch.read() == 0


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"-4", b"1.5", b"nan", b"9" * 5000, "٣".encode()])
def test_an_unreadable_number_is_0(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "purges").write_bytes(text)
    assert Epoch(tmp_path / "purges").read() == 0
    assert Epoch(tmp_path / "purges").bump() == 1


def test_a_directory_in_its_place_reads_0_and_refuses_to_count(tmp_path: Path) -> None:
    (tmp_path / "purges").mkdir()
    epoch = Epoch(tmp_path / "purges")
    assert epoch.read() == 0
    with pytest.raises(OSError):
        epoch.bump()


def test_processes_that_purge_at_the_same_time_lose_no_count(tmp_path: Path) -> None:
    script = BUMPS + "for _ in range(25): e.bump()"
    processes = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "purges")]) for _ in range(4)]
    assert [process.wait(timeout=20) for process in processes] == [0] * 4
    assert Epoch(tmp_path / "purges").read() == 100
