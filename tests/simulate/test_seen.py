"""Which blocks were seen: by runs, and the same as if each were kept by itself."""

from hypothesis import given
from hypothesis import strategies as st

from proxy.simulate.seen import SWEPT_FROM, Seen
from proxy.simulate.trace import Blocks

RUNS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6)).map(lambda run: (run[0], sum(run))), max_size=4)


class Each:
    """The same, block by block."""

    def __init__(self, lifetime: float) -> None:
        self.lifetime = lifetime
        self.at: dict[int, float] = {}

    def leading(self, blocks: Blocks, now: float) -> int:
        found = 0
        for each in (block for first, last in blocks for block in range(first, last + 1)):
            if self.at.get(each, -1.0) < now - self.lifetime or each not in self.at:
                break
            found += 1
        return found

    def touch(self, blocks: Blocks, at: float) -> None:
        for each in (block for first, last in blocks for block in range(first, last + 1)):
            self.at[each] = max(at, self.at.get(each, at))


@given(st.lists(st.tuples(RUNS.map(tuple), st.integers(0, 20), st.booleans())))
def test_runs_tell_the_same_as_single_blocks(steps: list[tuple[Blocks, int, bool]]) -> None:
    seen, each, now = Seen(50), Each(50), 100.0
    for blocks, passed, late in steps:
        now += passed
        assert seen.leading(blocks, now) == each.leading(blocks, now)
        for known in (seen, each):
            known.touch(blocks, now - 5 if late else now)


def test_a_prefix_is_there_until_its_lifetime_has_passed() -> None:
    seen = Seen(300)
    seen.touch(((1, 10),), 0.0)
    assert seen.leading(((1, 20),), 300.0) == 10
    assert seen.leading(((1, 20),), 300.1) == 0


def test_what_follows_a_gap_does_not_count() -> None:
    seen = Seen(300)
    seen.touch(((1, 3), (7, 9)), 0.0)
    assert seen.leading(((1, 9),), 1.0) == 3
    assert seen.leading(((7, 9), (1, 3)), 1.0) == 6


def test_what_has_expired_takes_no_room() -> None:
    seen = Seen(10)
    for index in range(10 * SWEPT_FROM):
        seen.touch(((3 * index, 3 * index),), float(index))
    assert len(seen) <= SWEPT_FROM + 1


def test_a_long_run_is_one_however_often_it_grows() -> None:
    seen = Seen(300)
    for turn in range(100):
        seen.touch(((1, 1000 * (turn + 1)),), float(turn))
    assert len(seen) == 1
