from collections import OrderedDict
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from proxy.store.memory import OVERHEAD, MemoryTier


@dataclass
class Thing:
    footprint: int


def charge(*things: Thing) -> int:
    return sum(thing.footprint + OVERHEAD for thing in things)


def test_what_was_put_is_found_and_what_was_not_is_none() -> None:
    tier: MemoryTier[Thing] = MemoryTier(10_000)
    thing = Thing(100)
    tier.put(b"a", thing)
    assert tier.get(b"a") is thing
    assert tier.get(b"b") is None
    assert (len(tier), tier.bytes) == (1, charge(thing))


def test_the_entry_that_was_used_longest_ago_goes_first() -> None:
    tier: MemoryTier[Thing] = MemoryTier(charge(Thing(100)) * 3)
    for key in (b"a", b"b", b"c"):
        tier.put(key, Thing(100))
    tier.get(b"a")
    tier.put(b"d", Thing(100))
    assert tier.get(b"b") is None
    assert all(tier.get(key) is not None for key in (b"a", b"c", b"d"))
    assert tier.evictions == 1


def test_a_large_entry_makes_as_much_room_as_it_needs() -> None:
    tier: MemoryTier[Thing] = MemoryTier(charge(Thing(100)) * 4)
    for key in (b"a", b"b", b"c", b"d"):
        tier.put(key, Thing(100))
    tier.put(b"large", Thing(charge(Thing(100)) * 3 - OVERHEAD))
    assert [key for key in (b"a", b"b", b"c", b"d", b"large") if tier.get(key)] == [b"d", b"large"]
    assert tier.evictions == 3


def test_an_entry_of_exactly_the_limit_is_kept_and_one_byte_more_is_not() -> None:
    tier: MemoryTier[Thing] = MemoryTier(1000)
    tier.put(b"a", Thing(1000 - OVERHEAD))
    tier.put(b"b", Thing(1001 - OVERHEAD))
    assert tier.get(b"a") is not None
    assert tier.get(b"b") is None


def test_an_entry_too_large_to_keep_takes_the_older_one_of_its_key_with_it() -> None:
    tier: MemoryTier[Thing] = MemoryTier(1000)
    tier.put(b"a", Thing(10))
    tier.put(b"a", Thing(5000))
    assert tier.get(b"a") is None
    assert (len(tier), tier.bytes, tier.evictions) == (0, 0, 0)


def test_replacing_charges_the_new_size_only() -> None:
    tier: MemoryTier[Thing] = MemoryTier(10_000)
    tier.put(b"a", Thing(5000))
    tier.put(b"a", Thing(10))
    assert (len(tier), tier.bytes) == (1, charge(Thing(10)))


def test_discarding_frees_and_a_missing_key_is_fine() -> None:
    tier: MemoryTier[Thing] = MemoryTier(10_000)
    tier.put(b"a", Thing(10))
    tier.discard(b"a")
    tier.discard(b"a")
    assert (len(tier), tier.bytes, tier.get(b"a")) == (0, 0, None)


def test_clearing_is_not_counted_as_evictions() -> None:
    tier: MemoryTier[Thing] = MemoryTier(10_000)
    tier.put(b"a", Thing(10))
    tier.clear()
    assert (len(tier), tier.bytes, tier.evictions) == (0, 0, 0)


def test_a_footprint_that_changes_meanwhile_does_not_put_the_sum_wrong() -> None:
    tier: MemoryTier[Thing] = MemoryTier(10_000)
    thing = Thing(10)
    tier.put(b"a", thing)
    thing.footprint = 9000
    tier.discard(b"a")
    assert tier.bytes == 0


KEYS = st.sampled_from([bytes([n]) for n in range(8)])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.integers(0, 1500)),
        st.tuples(st.just("get"), KEYS, st.none()),
        st.tuples(st.just("discard"), KEYS, st.none()),
    ),
    max_size=60,
)


@given(STEPS)
def test_the_bound_holds_and_the_order_is_that_of_a_plain_model(steps: list[tuple[str, bytes, int | None]]) -> None:
    limit = 1500
    tier: MemoryTier[Thing] = MemoryTier(limit)
    model: OrderedDict[bytes, Thing] = OrderedDict()
    for step, key, size in steps:
        if step == "put":
            assert size is not None
            tier.put(key, Thing(size))
            model.pop(key, None)
            if charge(Thing(size)) <= limit:
                model[key] = Thing(size)
                while charge(*model.values()) > limit:
                    model.popitem(last=False)
        elif step == "get":
            assert tier.get(key) == model.get(key)
            if key in model:
                model.move_to_end(key)
        else:
            tier.discard(key)
            model.pop(key, None)
        assert tier.bytes == charge(*model.values()) <= limit
        assert len(tier) == len(model)


def test_what_meets_a_condition_is_discarded_and_what_was_only_looked_at_is_not_used() -> None:
    tier: MemoryTier[Thing] = MemoryTier(charge(Thing(100)) * 3)
    for key in (b"a", b"b", b"c"):
        tier.put(key, Thing(100))
    assert tier.keys() == [b"a", b"b", b"c"]
    assert not tier.discard_if(b"a", lambda thing: thing.footprint > 100)
    assert not tier.discard_if(b"absent", lambda _: True)
    assert tier.discard_if(b"b", lambda thing: thing.footprint == 100)
    assert (tier.keys(), tier.bytes) == ([b"a", b"c"], charge(Thing(100)) * 2)
    tier.put(b"d", Thing(100))
    tier.put(b"e", Thing(100))
    assert tier.keys() == [b"c", b"d", b"e"]
