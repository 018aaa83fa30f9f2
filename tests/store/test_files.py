import subprocess
import sys
from pathlib import Path

import pytest

from proxy.store.files import private_directory, replace, turn, turn_if_free


def test_a_new_directory_is_closed_to_others(tmp_path: Path) -> None:
    private_directory(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_an_open_directory_is_closed_to_others(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(mode=0o755)
    private_directory(tmp_path / "a")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700


def test_a_file_in_the_place_of_the_directory_is_an_oserror(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(OSError):
        private_directory(tmp_path / "a")


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    (tmp_path / "file.new").write_bytes(b"left by a process that was killed")
    replace(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_another_process_waits_for_its_turn(tmp_path: Path) -> None:
    taker = (
        "import sys, pathlib; from proxy.store.files import turn\n"
        "print('waiting', flush=True)\n"
        "with turn(pathlib.Path(sys.argv[1])): print((pathlib.Path(sys.argv[1]) / 'done').exists())"
    )
    with turn(tmp_path):
        process = subprocess.Popen([sys.executable, "-c", taker, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        (tmp_path / "done").write_bytes(b"")
    out, _ = process.communicate(timeout=10)
    assert out == "True\n"


def test_a_turn_is_taken_if_it_is_free_and_not_waited_for(tmp_path: Path) -> None:
    with turn_if_free(tmp_path) as first:
        assert first
        with turn_if_free(tmp_path) as second:
            assert not second
        with turn_if_free(tmp_path) as third:  # who did not get it has not given it back either
            assert not third
    with turn_if_free(tmp_path) as fourth:
        assert fourth
    with turn(tmp_path):
        pass
    with pytest.raises(OSError), turn_if_free(tmp_path / "absent"):
        pass
