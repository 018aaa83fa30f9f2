"""One small file: what is read is what was written last, or nothing."""

import stat
from pathlib import Path

import pytest

from proxy.store.notebook import Notebook


def test_what_was_written_is_read_by_the_next_process(tmp_path: Path) -> None:
    for learned in (b"one", b"", b"\x00two" * 1000):
        Notebook(tmp_path).write(learned)
        assert Notebook(tmp_path).read() == learned


def test_where_nothing_was_written_there_is_nothing(tmp_path: Path) -> None:
    assert Notebook(tmp_path).read() is None
    assert Notebook(tmp_path / "nowhere").read() is None


def test_what_cannot_be_read_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "learned").mkdir()
    assert Notebook(tmp_path).read() is None


def test_it_is_for_its_owner_alone_and_leaves_nothing_else_behind(tmp_path: Path) -> None:
    Notebook(tmp_path).write(b"one")
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_write_that_fails_half_way_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = Notebook(tmp_path)
    notebook.write(b"old")

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        notebook.write(b"new")
    assert notebook.read() == b"old"
    monkeypatch.undo()
    notebook.write(b"newer")
    assert notebook.read() == b"newer"


def test_where_it_cannot_be_written_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        Notebook(tmp_path / "nowhere").write(b"one")
    assert list(tmp_path.iterdir()) == []
