import subprocess
import sys
from pathlib import Path

import pytest

from proxy.errors import StartupError
from proxy.store.secret import secret


def test_a_secret_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    made = secret(tmp_path / "data")
    assert len(made) == 32
    assert made != bytes(32)
    assert secret(tmp_path / "data") == made
    assert (tmp_path / "data" / "secret").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["secret"]


def test_two_directories_have_two_secrets(tmp_path: Path) -> None:
    assert secret(tmp_path / "a") != secret(tmp_path / "b")


def test_an_operators_own_longer_secret_is_taken_whole(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x" * 64)
    assert secret(tmp_path) == b"x" * 64


@pytest.mark.parametrize("length", [0, 1, 31])
def test_a_secret_that_is_too_short_refuses_to_start_and_is_left_alone(tmp_path: Path, length: int) -> None:
    (tmp_path / "secret").write_bytes(b"x" * length)
    with pytest.raises(StartupError, match=rf"holds {length} bytes.*remove it") as refused:
        secret(tmp_path)
    assert str(tmp_path / "secret") in str(refused.value)
    assert (tmp_path / "secret").read_bytes() == b"x" * length


def test_an_unreadable_secret_refuses_to_start(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    with pytest.raises(StartupError, match="can't be read"):
        secret(tmp_path)


def test_a_secret_that_can_not_be_made_is_an_oserror_for_the_caller_to_judge(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"a file")
    with pytest.raises((OSError, StartupError)):
        secret(tmp_path / "data")


def test_processes_that_start_at_the_same_time_agree_on_one(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from proxy.store.secret import secret; print(secret(pathlib.Path(sys.argv[1])).hex())"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert len({process.communicate(timeout=10)[0] for process in processes}) == 1
