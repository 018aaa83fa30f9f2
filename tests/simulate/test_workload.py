"""The generator of a mixed workload: the same seed, the same bytes, and what it says of itself."""

from collections import defaultdict
from io import StringIO
from itertools import pairwise
from pathlib import Path

import pytest

from bench.workload import BLOCK, FULL, Row, workload, write
from proxy.simulate.trace import length, read_trace, shape_of


def written(seed: int, rows: int) -> str:
    file = StringIO()
    write(workload(seed, rows), file)
    return file.getvalue()


@pytest.fixture(scope="module")
def kinds() -> dict[str, list[Row]]:
    found = defaultdict(list)
    for row in workload(1, 6000):
        found[row.kind].append(row)
    return found


def repeats(rows: list[Row]) -> float:
    return 1 - len({row.prompt for row in rows}) / len(rows)


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert written(3, 2000) == written(3, 2000)
    assert written(3, 2000) != written(4, 2000)


def test_it_has_as_many_rows_as_were_asked_for_and_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "mixed.csv"
    path.write_text(written(1, 3000))
    shape = shape_of(path)
    assert (shape.rows, shape.block) == (3000, BLOCK)
    assert next(read_trace(path)).at == 0.0


def test_each_kind_is_about_a_quarter(kinds: dict[str, list[Row]]) -> None:
    assert set(kinds) == {"extraction", "evaluation", "support", "agent"}
    assert all(900 <= len(rows) <= 2100 for rows in kinds.values())


def test_a_prompt_has_its_full_blocks_and_no_block_two_beginnings(kinds: dict[str, list[Row]]) -> None:
    before: dict[int, int] = {}
    for row in (row for rows in kinds.values() for row in rows):
        assert length(row.prompt.blocks) == row.prompt.tokens // BLOCK
        ids = [block for first, last in row.prompt.blocks for block in range(first, last + 1)]
        assert all(before.setdefault(then, first) == first for first, then in pairwise([0, *ids]))


def test_what_repeats_is_what_it_says(kinds: dict[str, list[Row]]) -> None:
    assert repeats(kinds["evaluation"]) == pytest.approx(0.75)  # the first of four hours is new
    assert repeats(kinds["extraction"]) == pytest.approx(0.6, abs=0.03)
    assert repeats(kinds["support"]) == pytest.approx(0.18, abs=0.03)
    assert repeats(kinds["agent"]) == pytest.approx(0.078, abs=0.02)  # 8.5 % of the turns are sent twice


def test_agents_grow_from_turn_to_turn_up_to_their_bound(kinds: dict[str, list[Row]]) -> None:
    sessions = defaultdict(list)
    for row in kinds["agent"]:
        sessions[row.session].append(row)
    for rows in sessions.values():
        assert all(then.prompt.tokens >= first.prompt.tokens for first, then in pairwise(rows))
        assert all((first.turn == then.turn) == (first.prompt == then.prompt) for first, then in pairwise(rows))
    assert max(row.prompt.tokens for row in kinds["agent"]) <= FULL
    assert any(then.at - first.at > 300 for rows in sessions.values() for first, then in pairwise(rows))
