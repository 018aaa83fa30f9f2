"""Results as they come, and in their place."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.batch.requests import Requests, open_requests
from proxy.batch.results import Results, look_at, open_results, partial_of
from proxy.core.batch import Answer, Failure, result_line
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
def batch(folder: Path, lines: int = 3) -> Iterator[Batch]:
    path = written(folder / "in.jsonl", [line(number) for number in range(lines)])
    with open_requests(path) as requests:
        asked = {item.digest for item in requests.items}
        with open_results(folder / "out.jsonl", path, asked) as found:
            yield Batch(requests, found)


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


def test_a_whole_output_is_taken_over_too_and_what_is_not_asked_any_more_is_left_out(tmp_path: Path) -> None:
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
    with open_requests(path) as requests, open_results(tmp_path / "out.jsonl", path, set()) as found:
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
        other = open_results(tmp_path / "link.jsonl", tmp_path / "in.jsonl", set())
        with pytest.raises(StartupError, match="another batch"), other:
            pass
        one.add(0)


def test_one_that_asked_nothing_leaves_nothing_behind(tmp_path: Path) -> None:
    with batch(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_an_output_that_is_the_requests_or_no_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", [line(0)])
    (tmp_path / "folder").mkdir()
    (tmp_path / "also").hardlink_to(path)
    for name in ("in.jsonl", "folder", "also", "absent/out.jsonl"):
        with pytest.raises(StartupError), open_results(tmp_path / name, path, set()):
            pass
    assert path.read_text() == line(0) + "\n"
    assert not partial_of(tmp_path / "folder").exists()


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


def test_a_look_changes_nothing_and_finds_what_is_answered(tmp_path: Path) -> None:
    with batch(tmp_path) as one:
        one.add(0)
        one.add(1, BAD)
        digests = [item.digest for item in one.items]
    before = (tmp_path / "out.jsonl.partial").read_bytes()
    (tmp_path / "out.jsonl.partial").write_bytes(before + b'{"torn')
    assert look_at(tmp_path / "out.jsonl", set(digests)) == {digests[0]}
    assert look_at(tmp_path / "out.jsonl", set(digests[1:])) == set()
    assert (tmp_path / "out.jsonl.partial").read_bytes() == before + b'{"torn'
    assert look_at(tmp_path / "absent", set(digests)) == set()
