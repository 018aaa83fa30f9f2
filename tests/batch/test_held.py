"""What a file of results holds, and whose it is."""

from pathlib import Path

import pytest

from proxy.batch.held import Held, Place, asked_of, held_by
from proxy.batch.requests import open_requests
from proxy.core.batch import Answer, digest_of, result_line
from proxy.errors import StartupError
from tests.batch.making import line, written

DIGESTS = [digest_of(f"line {number}".encode()) for number in range(5)]
ASKED = {DIGESTS[0]: True, DIGESTS[1]: True, DIGESTS[2]: False}  # the third is no request


def result(number: int, status: int = 200) -> bytes:
    return result_line(DIGESTS[number], f"line-{number}", Answer(status, {}, b"{}"))


def held(folder: Path, *lines: bytes) -> Held:
    path = folder / "results"
    path.write_bytes(b"".join(lines))
    with path.open("rb") as file:
        return held_by(file.fileno(), ASKED, path)


def test_good_answers_are_where_they_stand_and_of_two_the_last_one_counts(tmp_path: Path) -> None:
    first, bad, second = result(0), result(1, 500), result(0)
    found = held(tmp_path, first, bad, second)
    assert {digest: place[1:] for digest, place in found.answers.items()} == {
        DIGESTS[0]: (len(first) + len(bad), len(second))
    }
    assert (found.others, found.own, found.strange, found.torn) == ([], 3, 0, None)
    assert found.end == len(first) + len(bad) + len(second)


def test_what_belongs_to_nothing_that_is_asked_is_found_and_blank_lines_are_not(tmp_path: Path) -> None:
    own, other, note, answered, bad = result(0), result(3), b"a note\n", result(2), result(2, 500)
    found = held(tmp_path, own, b"\n", other, note, answered, bad)
    starts = [len(own) + 1, len(own) + 1 + len(other), len(own) + 1 + len(other) + len(note)]
    assert [place.start for place in found.others] == starts
    assert (list(found.answers), found.own, found.strange, found.results) == ([DIGESTS[0]], 3, 2, 1)


@pytest.mark.parametrize("torn", [b'{"id"', result(3)[:60], result(0)[:-1], b"a note"])
def test_what_has_no_end_is_no_answer(torn: bytes, tmp_path: Path) -> None:
    whole = result(1)
    found = held(tmp_path, whole, torn)
    assert (list(found.answers), found.end) == ([DIGESTS[1]], len(whole))
    assert found.torn is not None
    assert found.torn[1:] == (len(whole), len(torn))


def test_of_a_file_of_somebody_elses_it_is_said_what_it_holds(tmp_path: Path) -> None:
    for lines, words in (
        ([result(3), result(4)], "holds 2 results of other requests,"),
        ([result(3), b"a note\n"], "holds 2 lines,"),
        ([result(3)[:-1]], "holds 1 result of other requests,"),
        ([result(3), result(4)[:50]], "holds 1 result of other requests,"),
        ([b"a note"], "holds 1 line,"),
    ):
        with pytest.raises(StartupError, match=words):
            held(tmp_path, *lines)


@pytest.mark.parametrize("lines", [[], [b"\n \r\n"], [result(0)[:50]], [result(2, 500)], [result(0)[:-1]]])
def test_what_holds_nothing_or_something_of_these_is_nobody_elses(lines: list[bytes], tmp_path: Path) -> None:
    assert held(tmp_path, *lines).strange == 0


def test_a_line_that_stands_there_twice_is_a_request_once(tmp_path: Path) -> None:
    with open_requests(written(tmp_path / "in.jsonl", [line(0), line(0), "nonsense"])) as requests:
        asked = asked_of(requests)
        assert asked == {requests.items[0].digest: True, requests.items[2].digest: False}


def test_a_place_is_copied_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.batch.held.AT_ONCE", 3)
    (tmp_path / "from").write_bytes(b"one\ntwo three\nfour")
    with (tmp_path / "from").open("rb") as origin, (tmp_path / "to").open("wb") as file:
        for start, length in ((4, 10), (0, 0), (14, 4), (0, 4)):
            Place(origin.fileno(), start, length).copy(file)
        assert [Place(origin.fileno(), *each).is_whole for each in ((4, 10), (14, 4), (0, 0))] == [True, False, True]
    assert (tmp_path / "to").read_bytes() == b"two three\nfourone\n"
