"""Never a wrong no, and few wrong yeses."""

import hashlib
import sys
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.store.filter import KeyFilter


def key(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def test_a_new_filter_holds_nothing() -> None:
    filter_ = KeyFilter()
    assert not any(filter_.may_hold(key(number)) for number in range(100))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.binary(min_size=0, max_size=40), max_size=50))
def test_what_was_added_is_held_whatever_its_length(keys: list[bytes]) -> None:
    filter_ = KeyFilter()
    for each in keys:
        filter_.add(each)
        filter_.add(each)
    assert all(filter_.may_hold(each) for each in keys)


def test_of_new_keys_few_are_looked_for_in_vain() -> None:
    filter_ = KeyFilter()
    for number in range(20_000):
        filter_.add(key(number))
    assert all(filter_.may_hold(key(number)) for number in range(20_000))
    in_vain = sum(filter_.may_hold(key(number)) for number in range(20_000, 40_000))
    assert in_vain <= 5  # expected: 0.0002


def test_two_threads_that_add_at_once_lose_nothing() -> None:
    """The loop adds while a reader's thread learns; their keys share every byte of the filter's."""
    filter_ = KeyFilter()
    halves = [
        [b"".join((bit + 8 * n).to_bytes(4, "big") for n in range(i, i + 4)) for i in range(2000)] for bit in (0, 1)
    ]
    start = threading.Barrier(2)

    def add(keys: list[bytes]) -> None:
        start.wait()
        for each in keys:
            filter_.add(each)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=add, args=(half,)) for half in halves]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert all(filter_.may_hold(each) for half in halves for each in half)
