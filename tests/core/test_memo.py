"""Values are remembered up to so many bytes; the least recently used goes first."""

from collections import OrderedDict

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.memo import Memo

LIMIT = 160


def test_what_was_put_is_found_and_nothing_else() -> None:
    memo: Memo[str, int] = Memo(LIMIT)
    memo.put("a", 1, 10)
    assert (memo.get("a"), memo.get("b")) == (1, None)


def test_the_least_recently_used_goes_first() -> None:
    memo: Memo[int, str] = Memo(LIMIT)
    for number in range(16):
        memo.put(number, str(number), 10)
    assert memo.get(0) == "0"
    memo.put(16, "16", 10)
    assert [number for number in range(17) if memo.get(number) is None] == [1]


def test_one_value_takes_no_more_than_a_sixteenth() -> None:
    memo: Memo[str, int] = Memo(LIMIT)
    memo.put("exactly", 1, 10)
    memo.put("more", 2, 11)
    assert (memo.get("exactly"), memo.get("more")) == (1, None)


def test_what_is_put_again_is_charged_once() -> None:
    memo: Memo[str, int] = Memo(LIMIT)
    memo.put("a", 0, 10)
    for number in range(100):
        memo.put("b", number, 1 + number % 10)
    assert (memo.get("a"), memo.get("b")) == (0, 99)


def test_a_memo_without_room_remembers_nothing() -> None:
    memo: Memo[str, int] = Memo(0)
    memo.put("a", 1, 1)
    assert memo.get("a") is None


operations = st.lists(st.tuples(st.sampled_from(["get", "put"]), st.integers(0, 12), st.integers(0, 14)), max_size=80)


@settings(deadline=None)
@given(operations)
def test_it_does_what_a_plain_list_in_order_of_use_would_and_stays_in_its_bounds(
    told: list[tuple[str, int, int]],
) -> None:
    memo: Memo[int, object] = Memo(LIMIT // 2)
    plain: OrderedDict[int, tuple[object, int]] = OrderedDict()
    for what, key, size in told:
        if what == "get":
            found = plain.get(key)
            if found is not None:
                plain.move_to_end(key)
            assert memo.get(key) is (None if found is None else found[0])
        elif size * 16 <= LIMIT // 2:
            value = object()
            memo.put(key, value, size)
            plain.pop(key, None)
            plain[key] = value, size
            while sum(each for _, each in plain.values()) > LIMIT // 2:
                plain.popitem(last=False)
        else:
            memo.put(key, None, size)
        assert memo._bytes == sum(size for _, size in memo._kept.values()) <= LIMIT // 2
        assert list(memo._kept) == list(plain)
