"""The log, over real pipes: whole lines in their order, and a reader that stands still holds up nobody."""

import json
import logging
import os
import pty
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from proxy.core.books import Answered
from proxy.logs import NOTES, ROWS, RequestLog, logged
from proxy.settings import Log
from tests.support import DEADLINE, eventually

OFTEN = 0.001  # seconds between two looks: tests have no time
AT = 1_767_225_845.25
PIPE = 1 << 16  # bytes that a pipe takes before somebody reads


def row(number: int, *, status: int = 200, model: str = "m") -> Answered:
    return Answered(
        request=f"req_{number}", at=AT, key="", endpoint="chat", asked=model, outcome="hit", status=status, code=None,
        provider="p", model=model, usage=None, saved=None, first=0.0, total=0.0, leader=None, entry=None,
    )  # fmt: skip


class Pipe:
    """What a log is written to, and who reads it."""

    def __init__(self) -> None:
        self.out, self.into = os.pipe()
        self._closed: set[int] = set()

    def close(self, *ends: int) -> None:
        """Once each: by then the number may be another's."""
        for end in set(ends) - self._closed:
            self._closed.add(end)
            os.close(end)

    def read(self) -> bytes:
        """Everything, until nobody can write any more."""
        found = bytearray()
        while piece := os.read(self.out, 1000):
            found += piece
        return bytes(found)

    def closed_read(self) -> list[str]:
        """The lines that are in it."""
        self.close(self.into)
        text = self.read().decode()
        assert not text or text.endswith("\n")
        return text.splitlines()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close(made.out, made.into)


class Reading:
    """Somebody who reads a pipe to its end, in a thread of its own."""

    def __init__(self, pipe: Pipe) -> None:
        self._found = b""
        self._pipe = pipe
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        self._found = self._pipe.read()

    def end(self) -> None:
        self._pipe.close(self._pipe.into)
        self._thread.join(DEADLINE)

    def lines(self) -> list[dict[str, Any]]:
        """All, once the log is closed."""
        self.end()
        assert self._found.endswith(b"\n")
        return [json.loads(line) for line in self._found.splitlines()]


def numbers(lines: list[dict[str, Any]]) -> list[int]:
    return [int(line["request"][4:]) for line in lines if line["message"] == "request"]


def dropped(lines: list[dict[str, Any]]) -> int:
    """How many the log itself says were."""
    return sum(int(line["message"].split()[0]) for line in lines if "dropped" in line["message"])


def test_requests_and_all_else_are_told_in_their_order(pipe: Pipe) -> None:
    log = RequestLog(pipe.into, every=OFTEN)
    for number in range(200):
        log.answered(row(number))
        if number % 50 == 7:
            log.note(AT, "warning", "penstock", f"after {number}", "Traceback")
    log.close()
    lines = [json.loads(line) for line in pipe.closed_read()]
    assert numbers(lines) == list(range(200))
    for number in (7, 57, 107, 157):
        at = next(at for at, line in enumerate(lines) if line["message"] == f"after {number}")
        assert lines[at - 1]["request"] == f"req_{number}"
        assert (lines[at]["level"], lines[at]["exception"]) == ("warning", "Traceback")
    assert log.dropped == 0


def test_a_row_that_cannot_be_written_costs_no_other(pipe: Pipe) -> None:
    log = RequestLog(pipe.into, every=OFTEN)
    odd: Any = "yesterday"
    for number in range(3):
        log.answered(msgspec.structs.replace(row(number), at=odd if number == 1 else AT))
    eventually(lambda: not log._waiting)
    log.answered(row(3))
    log.close()
    assert numbers([json.loads(line) for line in pipe.closed_read()]) == [0, 2, 3]
    assert log.dropped >= 1


def test_a_line_is_written_without_anybody_asking_for_it(pipe: Pipe) -> None:
    log = RequestLog(pipe.into, every=OFTEN)
    log.answered(row(1))
    assert json.loads(os.read(pipe.out, PIPE))["request"] == "req_1"
    log.close()


def test_what_else_is_said_does_not_wait_for_the_clock(pipe: Pipe) -> None:
    log = RequestLog(pipe.into, every=10 * DEADLINE)
    log.note(AT, "info", "penstock", "at once")
    assert json.loads(os.read(pipe.out, PIPE))["message"] == "at once"
    log.close()


def test_a_reader_that_stands_still_holds_up_nobody_and_is_told_what_it_missed(pipe: Pipe) -> None:
    log = RequestLog(pipe.into, every=OFTEN)
    count = 2 * ROWS
    for number in range(count):
        log.answered(row(number))
    lost = log.dropped
    assert 0 < lost <= ROWS
    assert len(log._waiting) <= ROWS
    reading = Reading(pipe)
    eventually(lambda: log._told == lost)
    log.answered(row(count))
    log.close(DEADLINE)
    lines = reading.lines()
    told = numbers(lines)
    assert told == sorted(told)
    assert len(told) == count + 1 - lost
    assert told[-1] == count
    assert dropped(lines) == log.dropped == lost
    assert lines[-2]["level"] == "warning"  # said where they are missing


def test_of_what_else_is_said_only_so_much_is_kept(pipe: Pipe) -> None:
    log = RequestLog(pipe.into, every=OFTEN)
    count = 2 * NOTES // 10_000
    for number in range(count):
        log.note(AT, "error", "penstock", f"{number} " + "x" * 10_000)
    assert 0 < log.dropped < count
    assert sum(len(each) for each in log._waiting if isinstance(each, bytes)) <= NOTES
    lost, reading = log.dropped, Reading(pipe)
    eventually(lambda: not log._waiting)
    log.note(AT, "error", "penstock", "there is room again")
    log.close(DEADLINE)
    lines = reading.lines()
    assert dropped(lines) == log.dropped == lost
    assert len([line for line in lines if line["level"] == "error"]) == count - lost + 1


def test_what_somebody_says_is_cut_before_it_fills_the_log(pipe: Pipe) -> None:
    log = RequestLog(pipe.into, every=OFTEN)
    log.note(AT, "error", "penstock", "begins" + "x" * 100_000, "y" * 100_000 + "ends")
    log.close()
    (line,) = map(json.loads, pipe.closed_read())
    assert line["message"].startswith("begins")
    assert line["exception"].endswith("ends")  # there a traceback says what it was
    assert len(line["message"]) + len(line["exception"]) < 40_000


def test_no_line_is_torn_or_mixed_with_anothers_whoever_writes_at_once(pipe: Pipe) -> None:
    reading = Reading(pipe)
    log = RequestLog(pipe.into, every=OFTEN)
    names = [f"thread {number}" for number in range(4)]
    long = "é" * 3000  # more than a pipe takes in one piece

    def notes(name: str) -> None:
        for number in range(50):
            log.note(AT, "info", name, f"{number} {long}")

    threads = [threading.Thread(target=notes, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for number in range(2000):
        log.answered(row(number, model="é" * 256))
    for thread in threads:
        thread.join(DEADLINE)
    log.close(DEADLINE)
    lines = reading.lines()
    assert numbers(lines) == list(range(2000))
    for name in names:
        said = [line["message"] for line in lines if line.get("logger") == name]
        assert said == [f"{number} {long}" for number in range(50)]
    assert len(lines) == 2200


def test_a_pipe_that_must_not_be_waited_for_gets_whole_lines(pipe: Pipe) -> None:
    os.set_blocking(pipe.into, False)
    log = RequestLog(pipe.into, every=OFTEN)
    for number in range(1000):
        log.answered(row(number))
    reading = Reading(pipe)
    log.close(DEADLINE)
    assert numbers(reading.lines()) == list(range(1000))


def test_a_reader_that_is_gone_costs_no_more_than_lines(pipe: Pipe) -> None:
    pipe.close(pipe.out)
    log = RequestLog(pipe.into, every=OFTEN)
    for number in range(2 * ROWS):
        log.answered(row(number))
    assert len(log._waiting) <= ROWS
    assert log.dropped > 0
    log.close(DEADLINE)
    assert not log._thread.is_alive()


def test_a_full_disk_that_has_room_again_gets_what_waited(tmp_path: Path) -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    log = RequestLog(fd, every=OFTEN)
    for number in range(1000):
        log.answered(row(number))
    eventually(lambda: len(log._waiting) < 1000)  # it is tried
    room = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(room, fd)
    log.close(DEADLINE)
    os.close(fd)
    os.close(room)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert numbers(lines) == list(range(1000))


def test_to_close_writes_what_waits(pipe: Pipe) -> None:
    log = RequestLog(pipe.into, every=10 * DEADLINE)
    for number in range(100):
        log.answered(row(number))
    log.close(DEADLINE)
    assert numbers([json.loads(line) for line in pipe.closed_read()]) == list(range(100))
    assert not log._thread.is_alive()


def test_to_close_waits_for_no_reader_that_stands_still(pipe: Pipe) -> None:
    log = RequestLog(pipe.into, every=OFTEN)
    for number in range(5000):
        log.answered(row(number))
    log.close(0.01)
    assert log._thread.is_alive()  # it waits for the reader, and nobody for it
    reading = Reading(pipe)
    log._thread.join(DEADLINE)
    assert not log._thread.is_alive()
    reading.end()


@pytest.mark.parametrize(("level", "told"), [("info", [200, 404, 502]), ("warning", [502]), ("error", [])])
def test_requests_are_told_from_a_level_up(level: Any, told: list[int], pipe: Pipe) -> None:
    log = RequestLog(pipe.into, level=level, every=OFTEN)
    for status in (200, 404, 502):
        log.answered(row(status, status=status))
    log.close()
    assert numbers([json.loads(line) for line in pipe.closed_read()]) == told


def test_people_are_told_in_text(pipe: Pipe) -> None:
    log = RequestLog(pipe.into, form="text", every=OFTEN)
    log.answered(row(1))
    log.note(AT, "warning", "penstock", "beware", "Traceback\nOops: it broke\n")
    log.answered(row(2))
    log.close()
    first, *note, last = pipe.closed_read()
    assert first.endswith("req_1")
    assert last.endswith("req_2")
    assert note[0].endswith(",250 WARNING penstock: beware")
    assert note[1:] == ["    Traceback", "    Oops: it broke"]


def test_all_that_pythons_logging_hears_is_a_line_of_json(pipe: Pipe) -> None:
    with logged(Log(), pipe.into):
        logging.getLogger("penstock").info("as %s", "told")
        logging.getLogger("proxy.store.disk").error("a failure", exc_info=ValueError("it broke\nbadly"))
        warnings.showwarning("mind this", UserWarning, "some.py", 1)
        logging.getLogger("httpx").warning("of a library")
    lines = [json.loads(line) for line in pipe.closed_read()]
    assert [(line["level"], line["logger"]) for line in lines] == [
        ("info", "penstock"),
        ("error", "proxy.store.disk"),
        ("warning", "py.warnings"),
        ("warning", "httpx"),
    ]
    assert lines[0]["message"] == "as told"
    assert "exception" not in lines[0]
    assert lines[1]["exception"] == "ValueError: it broke\nbadly\n"
    assert "mind this" in lines[2]["message"]


def test_of_libraries_only_what_is_wrong_is_told(pipe: Pipe) -> None:
    """They tell what passes through them: addresses, statements with their values."""
    with logged(Log(), pipe.into):
        for name in ("httpx", "sqlalchemy.engine", "asyncio", "uvicorn.error"):
            logging.getLogger(name).info("a secret")
            assert not logging.getLogger(name).isEnabledFor(logging.INFO)
    assert pipe.closed_read() == []


def test_what_is_below_the_level_is_not_told(pipe: Pipe) -> None:
    with logged(Log(level="error"), pipe.into) as log:
        logging.getLogger("penstock").warning("beware")
        logging.getLogger("asyncio").warning("beware, too")
        logging.getLogger("penstock").error("it broke")
        log.answered(row(1, status=502))
    assert [json.loads(line)["message"] for line in pipe.closed_read()] == ["it broke"]


def test_afterwards_logging_is_as_it_was(pipe: Pipe) -> None:
    root = logging.getLogger()
    before = list(root.handlers), root.level, logging.getLogger("penstock").level, warnings.showwarning
    with logged(Log(), pipe.into):
        assert (list(root.handlers), root.level) != before[:2]
    assert (list(root.handlers), root.level, logging.getLogger("penstock").level, warnings.showwarning) == before


@pytest.mark.parametrize(("form", "is_text"), [("auto", True), ("text", True), ("json", False)])
def test_a_terminal_is_for_people_unless_it_is_said(form: Any, is_text: bool) -> None:
    ours, terminal = pty.openpty()
    with logged(Log(format=form), terminal):
        logging.getLogger("penstock").warning("beware")
    said = os.read(ours, 1000)
    os.close(ours)
    os.close(terminal)
    assert said.startswith(b"{") is not is_text
    assert (b" WARNING penstock: beware\r\n" in said) is is_text


def test_where_there_is_no_stderr_no_file_that_has_its_number_gets_a_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with logged(Log()):
        logging.getLogger("penstock").warning("heard")
    monkeypatch.setattr(sys, "stderr", None)
    with logged(Log()):
        logging.getLogger("penstock").warning("unheard")
    said = capfd.readouterr().err
    assert '"heard"' in said
    assert "unheard" not in said
