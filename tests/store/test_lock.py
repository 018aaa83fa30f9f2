import os
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from proxy.errors import StartupError
from proxy.store.lock import DataLock

HOLDER = (
    "import sys, pathlib, signal; from proxy.store.lock import DataLock\n"
    "lock = DataLock(pathlib.Path(sys.argv[1])); lock.acquire(); print('held', flush=True); signal.pause()"
)


def hold(directory: Path) -> "subprocess.Popen[str]":
    """A process that holds the lock until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(directory)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)


def test_the_lock_makes_a_private_directory_and_writes_the_pid(tmp_path: Path) -> None:
    with DataLock(tmp_path / "data"):
        assert (tmp_path / "data" / "lock").read_text() == f"{os.getpid()}\n"
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_a_second_process_is_refused_in_one_line_and_kill_9_lets_it_in(tmp_path: Path) -> None:
    holder = hold(tmp_path)
    try:
        with pytest.raises(StartupError) as refused:
            DataLock(tmp_path).acquire()
    finally:
        end(holder)
    message = str(refused.value)
    assert str(tmp_path) in message
    assert f"process {holder.pid}" in message
    assert "stop it" in message
    assert "\n" not in message
    with DataLock(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_second_lock_in_the_same_process_is_refused_until_the_first_is_released(tmp_path: Path) -> None:
    first, second = DataLock(tmp_path), DataLock(tmp_path)
    first.acquire()
    with pytest.raises(StartupError):
        second.acquire()
    first.release()
    first.release()
    second.acquire()
    second.release()


def test_an_owner_that_has_not_written_its_pid_yet_is_still_named_somehow(tmp_path: Path) -> None:
    with DataLock(tmp_path):
        (tmp_path / "lock").write_bytes(b"")
        with pytest.raises(StartupError, match="another process"):
            DataLock(tmp_path).acquire()


def test_a_shorter_pid_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(b"99999999999999\n")
    with DataLock(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_command_that_was_started_meanwhile_does_not_keep_the_lock(tmp_path: Path) -> None:
    lock = DataLock(tmp_path)
    lock.acquire()
    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, close_fds=False)
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"x")
    assert child.stdout.read(1) == b"x"  # so it is cat by now, no longer a copy of us
    lock.release()
    try:
        with DataLock(tmp_path):
            assert child.poll() is None
    finally:
        child.communicate(timeout=10)


def test_a_fork_does_not_keep_the_lock_nor_take_it_from_its_parent(tmp_path: Path) -> None:
    lock = DataLock(tmp_path)
    lock.acquire()
    ended, end_it = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(end_it)
        os.read(ended, 1)
        os._exit(0)
    os.close(ended)
    try:
        with pytest.raises(StartupError):
            DataLock(tmp_path).acquire()
        lock.release()
        # The child drops its copy as its first act, which may come a moment after the fork here.
        with taken_soon(tmp_path):
            assert os.waitpid(child, os.WNOHANG) == (0, 0)
    finally:
        os.close(end_it)
        os.waitpid(child, 0)


def taken_soon(directory: Path) -> DataLock:
    lock = DataLock(directory)
    for _ in range(10_000):
        try:
            lock.acquire()
        except StartupError:
            os.sched_yield()
        else:
            lock.release()
            return lock
    pytest.fail("the fork keeps the lock")


def test_the_hook_for_forks_does_not_keep_a_forgotten_lock_alive(tmp_path: Path) -> None:
    lock = DataLock(tmp_path)
    lock.acquire()
    lock.release()
    known = weakref.ref(lock)
    del lock
    assert known() is None


def test_a_directory_that_can_not_be_made_is_an_oserror_for_the_caller_to_judge(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"a file")
    with pytest.raises(OSError):
        DataLock(tmp_path / "data").acquire()
