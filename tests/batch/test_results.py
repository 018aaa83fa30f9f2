"""Results as they come, and in their place."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.batch.requests import Requests, open_requests
from proxy.batch.results import Results, look_at, open_results, partial_of
from proxy.core.batch import Answer, Failure, digest_of, result_line
from proxy.errors import StartupError
from tests.batch.making import line, results, written

GOOD, BAD, LOST = Answer(200, {}, b'{"n": 1}'), Answer(500, {}, b"{}"), Failure("lost", "It broke.")


class Batch:
    def __init__(self, requests: Requests, results: Results) -> None:
        self.items, self.results = requests.items, results

    def add(self, index: int, answer: Answer | Failure = GOOD) -> None:
        item = self.items[index]
        self.results.add(item, result_line(item.digest, f"line-{index}", answer))

    def known(self) -> list[int]:
        return [index for index, item in enumerate(self.items) if item in self.results]


@contextmanager
def batch(folder: Path, lines: int = 3, *, first: int = 0, output: str = "out.jsonl") -> Iterator[Batch]:
    path = written(folder / "in.jsonl", [line(number) for number in range(first, first + lines)])
    with open_requests(path) as requests, open_results(folder / output, requests) as found:
        yield Batch(requests, found)


def finished(folder: Path, lines: int = 3) -> bytes:
    """What the output of a batch holds that came to its end."""
    with batch(folder, lines) as one:
        for index in range(lines):
            one.add(index)
        one.results.finish(one.items)
    return (folder / "out.jsonl").read_bytes()


def result(number: int, answer: Answer | Failure = GOOD) -> bytes:
    """That of a line."""
    return result_line(digest_of(line(number).encode()), f"line-{number}", answer)


def ids(path: Path) -> list[str]:
    return [each["custom_id"] for each in results(path)]


def test_results_come_in_any_order_and_end_in_that_of_the_requests(tmp_path: Path) -> None:
    with batch(tmp_path) as one:
        for index in (2, 0, 1):
            one.add(index)
        assert ids(tmp_path / "out.jsonl.partial") == ["line-2", "line-0", "line-1"]
        one.results.finish(one.items)
    assert ids(tmp_path / "out.jsonl") == ["line-0", "line-1", "line-2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_what_came_before_is_taken_over_where_it_is_good(tmp_path: Path) -> None:
    with batch(tmp_path) as one:
        one.add(0, BAD)
        one.add(1)
        one.add(2, LOST)
    with batch(tmp_path) as one:
        assert one.known() == [1]
        one.add(0)
        one.add(2, BAD)
        one.results.finish(one.items)
    assert [each["response"]["status_code"] for each in results(tmp_path / "out.jsonl")] == [200, 200, 500]


def test_a_whole_output_is_taken_over_too(tmp_path: Path) -> None:
    with batch(tmp_path) as one:
        for index in range(3):
            one.add(index, BAD if index == 1 else GOOD)
        one.results.finish(one.items)
    with batch(tmp_path, lines=2) as one:
        assert one.known() == [0]
        one.add(1)
        one.results.finish(one.items)
    assert ids(tmp_path / "out.jsonl") == ["line-0", "line-1"]


@pytest.mark.parametrize("kept", [0, 1, 50, -1])
def test_a_torn_last_line_is_cut_off(kept: int, tmp_path: Path) -> None:
    partial = tmp_path / "out.jsonl.partial"
    with batch(tmp_path) as one:
        one.add(0)
        whole = partial.read_bytes()
        one.add(1)
    partial.write_bytes(whole + partial.read_bytes()[len(whole) :][:kept])
    with batch(tmp_path) as one:
        assert one.known() == [0]
        assert partial.read_bytes() == whole
        one.add(1)
        one.add(2)
        one.results.finish(one.items)
    assert ids(tmp_path / "out.jsonl") == ["line-0", "line-1", "line-2"]


def test_a_large_result_is_copied_whole(tmp_path: Path) -> None:
    body = b'{"text": "' + b"x" * (5 << 20) + b'"}'
    with batch(tmp_path, lines=1) as one:
        one.add(0, Answer(200, {}, body))
        one.results.finish(one.items)
    assert len(results(tmp_path / "out.jsonl")[0]["response"]["body"]["text"]) == 5 << 20


def test_wrong_lines_have_their_error_in_their_place(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", [line(0), "nonsense", line(0)])
    with open_requests(path) as requests, open_results(tmp_path / "out.jsonl", requests) as found:
        found.add(requests.items[0], result_line(requests.items[0].digest, "line-0", GOOD))
        found.finish(requests.items)
    one, two, three = results(tmp_path / "out.jsonl")
    assert (one["custom_id"], one["error"]) == ("line-0", None)
    assert (two["custom_id"], two["response"], two["error"]["code"]) == (None, None, "invalid_json_line")
    assert (three["custom_id"], three["response"], three["error"]["code"]) == ("line-0", None, "duplicate_custom_id")


def test_two_batches_never_write_one_output(tmp_path: Path) -> None:
    with batch(tmp_path) as one:
        one.add(0)
        with pytest.raises(StartupError, match=r"another batch is at work on .*out\.jsonl\.partial"), batch(tmp_path):
            pass
        one.add(1)
    with batch(tmp_path) as again:
        assert again.known() == [0, 1]


def test_a_link_to_an_output_is_the_same_output(tmp_path: Path) -> None:
    (tmp_path / "link.jsonl").symlink_to("out.jsonl")
    with batch(tmp_path) as one:
        with pytest.raises(StartupError, match="another batch"), batch(tmp_path, output="link.jsonl"):
            pass
        one.add(0)


def test_one_that_asked_nothing_leaves_nothing_behind(tmp_path: Path) -> None:
    with batch(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize("name", ["in.jsonl", "folder", "also", "also.partial", "absent/out.jsonl", "in", "in.js"])
def test_an_output_that_is_the_requests_or_no_file_is_refused(name: str, tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", [line(0)])
    (tmp_path / "folder").mkdir()
    for other in ("also", "in.old", "in.js.new"):
        (tmp_path / other).hardlink_to(path)
    (tmp_path / "also.partial.partial").symlink_to(path)
    with open_requests(path) as requests, pytest.raises(StartupError), open_results(tmp_path / name, requests):
        pass
    assert path.read_text() == line(0) + "\n"
    assert not partial_of(tmp_path / name).is_file() or name == "also.partial"


STRANGE = [b"precious\n", b"no end", b"\n\n{}\n", b"\0" * 100, b'{"id":"batch_req_67"}\n']


@pytest.mark.parametrize("held", STRANGE)
@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.partial", "out.jsonl.new"])
def test_a_file_that_holds_no_result_of_these_requests_is_not_touched(name: str, held: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(held)
    told = rf"{name} holds 1 (line|result of other requests), and no .*; name another file, or remove it"
    with pytest.raises(StartupError, match=told), batch(tmp_path):
        pass
    with open_requests(tmp_path / "in.jsonl") as requests, pytest.raises(StartupError, match=name):
        look_at(tmp_path / "out.jsonl", requests)
    assert (tmp_path / name).read_bytes() == held
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", name]


@pytest.mark.parametrize("end", [b"", b'{"id":"batch_req_'])
def test_the_results_of_other_requests_are_not_touched(end: bytes, tmp_path: Path) -> None:
    held = finished(tmp_path) + end
    (tmp_path / "out.jsonl").write_bytes(held)
    with pytest.raises(StartupError, match=r"out\.jsonl holds 3 results of other requests"), batch(tmp_path, first=3):
        pass
    assert (tmp_path / "out.jsonl").read_bytes() == held


@pytest.mark.parametrize("held", [b"", b"\n", b" \r\n\n  ", result(0)[:40]])
def test_a_file_that_holds_nothing_may_be_filled(held: bytes, tmp_path: Path) -> None:
    for name in ("out.jsonl", "out.jsonl.partial"):
        (tmp_path / name).write_bytes(held)
    finished(tmp_path)
    assert ids(tmp_path / "out.jsonl") == ["line-0", "line-1", "line-2"]


def test_an_output_of_nothing_but_errors_is_the_same_batchs(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", ["nonsense", line(1)])
    for _ in range(2):
        with open_requests(path) as requests, open_results(tmp_path / "out.jsonl", requests) as found:
            found.add(requests.items[1], result(1, BAD))
            found.finish(requests.items)
    assert not (tmp_path / "out.jsonl.old").exists()


def test_what_is_asked_no_more_is_kept_beside_the_output(tmp_path: Path) -> None:
    before = finished(tmp_path, 5).splitlines(keepends=True)
    with batch(tmp_path, 2, first=2) as one:
        assert (one.known(), one.results.others) == ([0, 1], 3)
        one.results.finish(one.items)
    assert (tmp_path / "out.jsonl").read_bytes() == b"".join(before[2:4])
    assert (tmp_path / "out.jsonl.old").read_bytes() == b"".join([*before[:2], before[4]])
    with batch(tmp_path, 1, first=2) as one:
        one.results.finish(one.items)
    assert (tmp_path / "out.jsonl.old").read_bytes() == b"".join([*before[:2], before[4], before[3]])
    with batch(tmp_path, 1, first=2) as one:
        one.results.finish(one.items)
    assert len(results(tmp_path / "out.jsonl.old")) == 4


def test_what_came_of_an_edited_batch_that_was_stopped_is_kept_too(tmp_path: Path) -> None:
    with batch(tmp_path) as one:
        one.add(0)
        one.add(2)
    with batch(tmp_path, 2, first=2) as one:
        assert (one.known(), one.results.others) == ([0], 1)
        one.results.add(one.items[1], result(3))
    assert not (tmp_path / "out.jsonl.old").exists()
    with batch(tmp_path, 2, first=2) as one:
        one.results.finish(one.items)
    assert (ids(tmp_path / "out.jsonl"), ids(tmp_path / "out.jsonl.old")) == (["line-2", "line-3"], ["line-0"])


def test_an_answer_to_a_line_that_is_wrong_by_now_is_kept(tmp_path: Path) -> None:
    finished(tmp_path, 2)
    path = written(tmp_path / "in.jsonl", [line(1, {"model": "other"}), line(1), line(0)])
    with open_requests(path) as requests, open_results(tmp_path / "out.jsonl", requests) as found:
        found.add(requests.items[0], result_line(requests.items[0].digest, "line-1", GOOD))
        found.finish(requests.items)
    assert [each["error"] is None for each in results(tmp_path / "out.jsonl")] == [True, False, True]
    assert (tmp_path / "out.jsonl.old").read_bytes() == result(1)


def test_what_is_kept_never_runs_into_what_was_torn(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_bytes(finished(tmp_path) + b"my own note")
    (tmp_path / "out.jsonl.old").write_bytes(b"torn")
    with batch(tmp_path) as one:
        one.results.finish(one.items)
    assert (tmp_path / "out.jsonl.old").read_bytes() == b"torn\nmy own note\n"


def test_where_nothing_can_be_kept_the_output_stays(tmp_path: Path) -> None:
    before = finished(tmp_path)
    (tmp_path / "out.jsonl.old").mkdir()
    with batch(tmp_path, 2) as one, pytest.raises(StartupError, match=r"out\.jsonl\.old"):
        one.results.finish(one.items)
    assert (tmp_path / "out.jsonl").read_bytes() == before
    assert not (tmp_path / "out.jsonl.new").exists()


def test_a_batch_that_could_not_begin_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(StartupError), batch(tmp_path):
        raise StartupError("nobody is there")
    assert not (tmp_path / "out.jsonl.partial").exists()


def test_what_cannot_be_written_is_said_and_the_rest_stays(tmp_path: Path) -> None:
    with batch(tmp_path) as one:
        one.add(0)
        (tmp_path / "out.jsonl.new").mkdir()
        with pytest.raises(StartupError, match=r"out\.jsonl\.new"):
            one.results.finish(one.items[:1])
    with batch(tmp_path) as one:
        assert one.known() == [0]


@pytest.mark.parametrize("torn", [b'{"id":"batch_req_', result(2)[:-1]])
def test_a_look_changes_nothing_and_finds_what_a_run_would(torn: bytes, tmp_path: Path) -> None:
    with batch(tmp_path) as one:
        one.add(0)
        one.add(1, BAD)
    partial = tmp_path / "out.jsonl.partial"
    before = partial.read_bytes() + torn
    partial.write_bytes(before)
    with open_requests(tmp_path / "in.jsonl") as requests:
        assert look_at(tmp_path / "out.jsonl", requests) == {requests.items[0].digest}
        assert partial.read_bytes() == before
        assert look_at(tmp_path / "absent", requests) == set()
    with batch(tmp_path) as one:
        assert one.known() == [0]
