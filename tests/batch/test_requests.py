"""Where the lines of a file are."""

import os
from pathlib import Path

import pytest

from proxy.batch.requests import open_requests
from proxy.core.batch import digest_of
from proxy.errors import StartupError
from tests.batch.making import line, written


def test_each_line_is_found_and_read_again_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + f"{line(1)}\r\n\n   \n{line(2)}".encode())
    with open_requests(path) as found:
        assert [item.number for item in found.items] == [1, 4]
        assert [found.read(item).custom_id for item in found.items] == ["line-1", "line-2"]
        assert found.items[0].digest == digest_of(line(1).encode())


def test_a_wrong_line_is_no_request_and_a_custom_id_that_is_used_again_makes_one_wrong(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", [line(1), "nonsense", line(2), line(1, {"model": "other"}), line(1)])
    with open_requests(path) as found:
        codes = [None if item.wrong is None else item.wrong.code for item in found.items]
        assert codes == [None, "invalid_json_line", None, "duplicate_custom_id", "duplicate_custom_id"]
        assert [item.number for item in found.good] == [1, 3]


def test_a_custom_id_of_a_wrong_line_is_still_free(tmp_path: Path) -> None:
    with open_requests(written(tmp_path / "in.jsonl", [line(1, method="GET"), line(1)])) as found:
        assert [item.number for item in found.good] == [2]


def test_a_file_that_is_changed_meanwhile_is_not_asked_on(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", [line(1), line(2)])
    with open_requests(path) as found:
        path.write_text(line(3) + "\n" + line(2) + "\n")
        with pytest.raises(StartupError, match="line 1 was changed while the batch ran"):
            found.read(found.items[0])
        assert found.read(found.items[1]).custom_id == "line-2"


def test_an_empty_file_has_no_lines(tmp_path: Path) -> None:
    with open_requests(written(tmp_path / "in.jsonl", [])) as found:
        assert not found.items


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "absent", tmp_path / "pipe", tmp_path):
        with pytest.raises(StartupError, match=str(path)), open_requests(path):
            pass
