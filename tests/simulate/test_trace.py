"""Reading a log: what a row is, what is refused, and how the size of a block is told."""

from pathlib import Path

import pytest

from proxy.errors import StartupError
from proxy.simulate.trace import Request, Shape, head, length, read_trace, shape_of
from tests.simulate.making import log


def test_a_row_is_read_with_its_runs(tmp_path: Path) -> None:
    path = log(tmp_path, "0,chat,7322,490,1 15-28,2,1", "0.5,azure,10,0,,,", "", "2,chat,5,6,7,,3")
    assert list(read_trace(path)) == [
        Request(0.0, "chat", 7322, 490, ((1, 1), (15, 28)), 2, 1),
        Request(0.5, "azure", 10, 0),
        Request(2.0, "chat", 5, 6, ((7, 7),), None, 3),
    ]
    assert len(list(read_trace(path, 2))) == 2


def test_the_same_blocks_are_the_same_runs_however_they_are_written(tmp_path: Path) -> None:
    first, second = read_trace(log(tmp_path, "0,c,400,1,1 2 3-4,,", "0,c,400,1,1-4,,"))
    assert first.blocks == second.blocks == ((1, 4),)
    assert first.prompt == second.prompt == (4, 400)


def test_a_prompt_without_ids_is_like_no_other(tmp_path: Path) -> None:
    assert [row.prompt for row in read_trace(log(tmp_path, "0,c,400,1,,,"))] == [None]


def test_columns_may_stand_in_any_order_among_others(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(
        b"\xef\xbb\xbfuser,turn,session,prefix_ids,output_tokens,input_tokens,kind,t_seconds\r\nx,1,2,3,4,50,c,6\r\n"
    )
    assert list(read_trace(path)) == [Request(6.0, "c", 50, 4, ((3, 3),), 2, 1)]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("-1,c,1,1,,,", ":3: t_seconds: '-1' is no time in seconds since the log began, as 12.5."),
        ("nan,c,1,1,,,", ":3: t_seconds: 'nan' is no time"),
        ("1,c,-5,1,,,", ":3: input_tokens: '-5' is no whole number of 0 or more."),
        ("1,c,5,1.5,,,", ":3: output_tokens: '1.5' is no whole number"),
        ("1,c,,1,,,", ":3: input_tokens: '' is no whole number"),
        ("1,c," + "9" * 5000 + ",1,,,", ":3: input_tokens: '" + "9" * 40 + "…' is no whole number"),
        ("1,c,5,1,3-1,,", ":3: prefix_ids: '3-1' is neither an id nor a run of ids, as 15-28."),
        ("1,c,5,1,1 x,,", ":3: prefix_ids: 'x' is neither"),
        ("1,c,5,1,,a,", ":3: session: 'a' is no whole number"),
        ("1,c,5,1,,,-2", ":3: turn: '-2' is no whole number"),
        ("1,c,5,1,,", ":3: 6 fields, not 7."),
        ("0.5,c,5,1,,,", ":3: t_seconds: it is before the row above; sort the rows by time."),
    ],
)
def test_what_does_not_fit_is_said_with_its_line_and_column(tmp_path: Path, row: str, said: str) -> None:
    path = log(tmp_path, "1,c,1,1,,,", row)
    with pytest.raises(StartupError) as refused:
        list(read_trace(path))
    assert str(refused.value).startswith(f"{path}{said}")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no column t_seconds; the first line is: t_seconds,kind,input_tokens"),
        (b"t_seconds,kind,input_tokens,output_tokens,session,turn\n", "no column prefix_ids"),
        (b"\xff\xfe\x00", "is no CSV file in UTF-8"),
        (b"t_seconds,kind,input_tokens,output_tokens,prefix_ids,session,turn\n" + b"1" * 200_000, "is no CSV file"),
    ],
)
def test_a_file_that_is_no_log_says_so(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(StartupError, match=said):
        list(read_trace(path))


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="cannot be read: No such file"):
        list(read_trace(tmp_path / "none.csv"))


def test_blocks_are_counted_and_cut_by_runs() -> None:
    assert length(()) == 0
    assert length(((1, 1), (15, 28))) == 15
    assert head(((1, 1), (15, 28)), 0) == ()
    assert head(((1, 1), (15, 28)), 1) == ((1, 1),)
    assert head(((1, 1), (15, 28)), 4) == ((1, 1), (15, 17))
    assert head(((1, 1), (15, 28)), 99) == ((1, 1), (15, 28))


@pytest.mark.parametrize(
    ("rows", "block"),
    [
        (["0,c,6758,1,1-14,,"], 512),  # the last block is a part of one
        (["0,c,22027,1,1-344,,", "1,c,64,1,400,,"], 64),
        (["0,c,22027,1,1-344,,", "1,c,10,1,400,,"], 64),
        (["0,c,100000,1,1,,"], 1024),  # nothing says that it is not
        (["0,c,100000,1,,,"], 0),
    ],
)
def test_the_size_of_a_block_is_the_largest_that_fits_all_prompts(tmp_path: Path, rows: list[str], block: int) -> None:
    assert shape_of(log(tmp_path, *rows)).block == block


def test_a_size_that_is_said_is_taken_and_one_that_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    path = log(tmp_path, "0,c,30,1,1-10,,")
    assert shape_of(path, block=4).block == 4
    with pytest.raises(StartupError, match="give --block"):
        shape_of(path)


def test_a_limit_bounds_what_is_counted_not_what_the_blocks_are_told_by(tmp_path: Path) -> None:
    path = log(tmp_path, "0,c,64,1,1,,", "5,c,6400,1,1-100,,", "9,c,6400,1,1-100,,")
    assert shape_of(path, limit=1) == Shape(1, 0.0, 64)
    assert shape_of(path) == Shape(3, 9.0, 64)


def test_a_log_without_requests_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="holds no requests"):
        shape_of(log(tmp_path))
