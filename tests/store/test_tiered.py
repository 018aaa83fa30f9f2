import asyncio
import hashlib
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.store.disk import ByteTier, DiskStats, DiskTier, Swept
from proxy.store.memory import MemoryTier
from proxy.store.rows import MIN_FILE_SIZE
from proxy.store.tiered import TieredStore

KEY = b"k" * 32


@dataclass(frozen=True)
class Thing:
    body: bytes

    @property
    def footprint(self) -> int:
        return len(self.body)


def pack(thing: Thing) -> bytes:
    return hashlib.sha256(thing.body).digest() + thing.body


def unpack(blob: bytes) -> Thing | None:
    return Thing(blob[32:]) if hashlib.sha256(blob[32:]).digest() == blob[:32] else None


class FakeDisk:
    """A disk in a dictionary, whose reads and writes wait at a gate while it is closed."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}
        self.reads: list[bytes] = []
        self.closed = False
        self.read_began = threading.Semaphore(0)
        self.read_gate = threading.Event()
        self.write_gate = threading.Event()
        self.listing = threading.Event()  # the keys are being listed
        self.list_gate = threading.Event()
        for gate in (self.read_gate, self.write_gate, self.list_gate):
            gate.set()

    def get(self, key: bytes) -> bytes | None:
        self.reads.append(key)
        found = self.kept.get(key)  # before the gate: what is put meanwhile comes too late for this look
        self.read_began.release()
        assert self.read_gate.wait(10)
        return found

    def put(self, key: bytes, blob: bytes, expire: float) -> None:
        assert self.write_gate.wait(10)
        assert expire > 0
        self.kept[key] = blob

    def delete(self, key: bytes) -> bool:
        assert self.write_gate.wait(10)
        return self.kept.pop(key, None) is not None

    def sweep(self, purged: Callable[[bytes], bool], after: int = 0) -> Swept:
        assert self.write_gate.wait(10)
        found = [key for key, blob in self.kept.items() if purged(blob)]
        for key in found:
            del self.kept[key]
        return Swept(None if after else 1, found)

    def all_keys(self) -> list[bytes]:
        found = list(self.kept)
        self.listing.set()
        assert self.list_gate.wait(10)
        return found

    def clear(self) -> int:
        count = len(self.kept)
        self.kept.clear()
        return count

    def stats(self) -> DiskStats:
        return DiskStats(len(self.kept), sum(map(len, self.kept.values())), 0)

    def close(self) -> None:
        self.closed = True


class FailingDisk(FakeDisk):
    """Fails at its n-th operation, counted from 0, and from then on if `for_good`."""

    def __init__(self, n: int, error: Exception, *, for_good: bool = False) -> None:
        super().__init__()
        self.n, self.error, self.for_good = n, error, for_good
        self.operations = 0
        self.lock = threading.Lock()

    def _operation(self) -> None:
        with self.lock:
            at, self.operations = self.operations, self.operations + 1
        if at == self.n or (self.for_good and at > self.n):
            raise self.error

    def get(self, key: bytes) -> bytes | None:
        self._operation()
        return super().get(key)

    def put(self, key: bytes, blob: bytes, expire: float) -> None:
        self._operation()
        super().put(key, blob, expire)

    def delete(self, key: bytes) -> bool:
        self._operation()
        return super().delete(key)

    def sweep(self, purged: Callable[[bytes], bool], after: int = 0) -> Swept:
        self._operation()
        return super().sweep(purged, after)

    def all_keys(self) -> list[bytes]:
        self._operation()
        return super().all_keys()

    def stats(self) -> DiskStats:
        self._operation()
        return super().stats()

    def close(self) -> None:
        self._operation()
        super().close()


class Rig:
    """A store on a disk, with what it counted."""

    def __init__(self, disk: ByteTier | None, *, memory: int = 1 << 20, backlog: int = 64 << 20) -> None:
        self.events: Counter[str] = Counter()
        self.now = 0.0
        self.store: TieredStore[Thing] = TieredStore(
            memory=MemoryTier(memory),
            disk=disk,
            pack=pack,
            unpack=unpack,
            on_event=lambda name: self.events.update([name]),
            write_backlog=backlog,
            clock=lambda: self.now,
        )

    async def written(self) -> None:
        assert self.store._writes is not None
        await self.store._writes.settled()

    def drop_memory(self) -> None:
        self.store._memory.clear()


async def began(disk: FakeDisk) -> None:
    """A read is at the gate."""
    assert await asyncio.to_thread(disk.read_began.acquire, True, 10)


async def test_what_was_put_is_found_at_once_without_the_disk() -> None:
    disk = FakeDisk()
    disk.write_gate.clear()
    rig = Rig(disk)
    rig.store.put(KEY, Thing(b"a"), expire=60)
    looking = rig.store.get(KEY)
    with pytest.raises(StopIteration) as found:  # a coroutine that never suspends ends at its first step
        looking.send(None)
    assert found.value.value == Thing(b"a")
    assert disk.reads == []
    disk.write_gate.set()
    await rig.store.close()


async def test_an_entry_that_memory_dropped_is_found_while_it_waits_for_the_disk_and_after() -> None:
    disk = FakeDisk()
    disk.write_gate.clear()
    rig = Rig(disk, memory=0)
    rig.store.put(KEY, Thing(b"a"), expire=60)
    assert await rig.store.get(KEY) == Thing(b"a")
    assert disk.reads == []
    disk.write_gate.set()
    await rig.written()
    assert await rig.store.get(KEY) == Thing(b"a")
    assert disk.reads == [KEY]
    await rig.store.close()


async def test_what_was_read_from_the_disk_is_in_memory_then() -> None:
    disk = FakeDisk()
    disk.kept[KEY] = pack(Thing(b"a"))
    rig = Rig(disk)
    assert await rig.store.get(KEY) == Thing(b"a")
    assert await rig.store.get(KEY) == Thing(b"a")
    assert disk.reads == [KEY]
    await rig.store.close()


async def test_identical_look_ups_share_one_read_and_one_that_is_cancelled_does_not_end_it() -> None:
    disk = FakeDisk()
    disk.kept[KEY] = pack(Thing(b"a"))
    disk.read_gate.clear()
    rig = Rig(disk)
    looks = [asyncio.create_task(rig.store.get(KEY)) for _ in range(5)]
    await began(disk)
    looks[0].cancel()
    looks[3].cancel()
    await asyncio.wait({looks[0], looks[3]})
    disk.read_gate.set()
    found = await asyncio.gather(*looks, return_exceptions=True)
    assert [type(one) for one in found].count(asyncio.CancelledError) == 2
    assert found.count(Thing(b"a")) == 3
    assert disk.reads == [KEY]
    await rig.store.close()


async def test_a_look_up_whose_callers_are_all_gone_still_fills_memory() -> None:
    disk = FakeDisk()
    disk.kept[KEY] = pack(Thing(b"a"))
    disk.read_gate.clear()
    rig = Rig(disk)
    look = asyncio.create_task(rig.store.get(KEY))
    await began(disk)
    look.cancel()
    await asyncio.wait({look})
    disk.read_gate.set()
    assert await rig.store.get(KEY) == Thing(b"a")
    assert disk.reads == [KEY]
    await rig.store.close()


async def test_a_put_answers_those_who_are_still_looking_and_their_late_miss_changes_nothing() -> None:
    disk = FakeDisk()
    disk.read_gate.clear()
    rig = Rig(disk)
    looking = asyncio.create_task(rig.store.get(KEY))
    await began(disk)
    rig.store.put(KEY, Thing(b"new"), expire=60)
    assert await looking == Thing(b"new")  # while the disk has not answered yet
    disk.read_gate.set()
    await rig.store.close()
    assert await rig.store.get(KEY) == Thing(b"new")


async def test_a_put_supersedes_the_older_entry_that_a_look_up_is_about_to_bring() -> None:
    disk = FakeDisk()
    disk.kept[KEY] = pack(Thing(b"old"))
    disk.read_gate.clear()
    rig = Rig(disk)
    looking = asyncio.create_task(rig.store.get(KEY))
    await began(disk)
    rig.store.put(KEY, Thing(b"new"), expire=60)
    disk.read_gate.set()
    assert await looking == Thing(b"new")
    await rig.store.close()
    assert await rig.store.get(KEY) == Thing(b"new")
    assert disk.kept[KEY] == pack(Thing(b"new"))


@pytest.mark.parametrize("turns", range(6))
async def test_a_put_that_lands_at_any_turn_of_the_loop_before_a_miss_returns_is_its_answer(turns: int) -> None:
    rig = Rig(FakeDisk())
    loop = asyncio.get_running_loop()
    put = Thing(b"new")
    returned: list[bool] = []

    def countdown(left: int) -> None:
        if returned:
            return
        if left:
            loop.call_soon(countdown, left - 1)
        else:
            rig.store.put(KEY, put, expire=60)

    look = rig.store._look(rig.store._disk, KEY)  # type: ignore[arg-type]
    look.add_done_callback(lambda _: countdown(turns))
    found = await rig.store.get(KEY)
    returned.append(True)
    assert found == await rig.store.get(KEY)  # either the put came in time, or it has not been made
    await rig.store.close()


async def test_a_newer_put_is_never_overwritten_by_an_older_one() -> None:
    disk = FakeDisk()
    disk.write_gate.clear()
    rig = Rig(disk, memory=0)
    for number in range(20):
        rig.store.put(KEY, Thing(b"%d" % number), expire=60)
        assert await rig.store.get(KEY) == Thing(b"%d" % number)
    disk.write_gate.set()
    await rig.written()
    assert disk.kept[KEY] == pack(Thing(b"19"))
    await rig.store.close()


async def test_beyond_the_backlog_an_entry_is_kept_in_memory_only_and_counted() -> None:
    disk = FakeDisk()
    disk.kept[b"late"] = pack(Thing(b"old"))
    disk.write_gate.clear()
    rig = Rig(disk, backlog=5000)
    rig.store.put(b"early", Thing(b"x" * 4000), expire=60)
    rig.store.put(b"late", Thing(b"y" * 4000), expire=60)
    assert rig.events == {"disk_write_skipped": 1}
    assert await rig.store.get(b"late") == Thing(b"y" * 4000)
    disk.write_gate.set()
    await rig.written()
    rig.drop_memory()
    assert await rig.store.get(b"late") is None  # not the old one
    assert await rig.store.get(b"early") == Thing(b"x" * 4000)
    await rig.store.close()


async def test_a_deleted_entry_is_gone_from_memory_queue_and_disk() -> None:
    disk = FakeDisk()
    rig = Rig(disk)
    rig.store.put(KEY, Thing(b"a"), expire=60)
    assert await rig.store.delete(KEY)
    assert await rig.store.get(KEY) is None
    assert disk.kept == {}
    await rig.store.close()


async def test_a_look_up_that_began_before_a_delete_does_not_bring_the_entry_back() -> None:
    disk = FakeDisk()
    disk.kept[KEY] = pack(Thing(b"a"))
    disk.read_gate.clear()
    rig = Rig(disk)
    looking = asyncio.create_task(rig.store.get(KEY))
    await began(disk)
    assert await rig.store.delete(KEY)
    disk.read_gate.set()
    assert await looking is None
    assert await rig.store.get(KEY) is None
    await rig.store.close()
    assert await rig.store.get(KEY) is None


async def test_while_a_delete_waits_the_disk_is_not_asked() -> None:
    disk = FakeDisk()
    disk.kept[KEY] = pack(Thing(b"a"))
    disk.write_gate.clear()
    rig = Rig(disk)
    deleting = asyncio.create_task(rig.store.delete(KEY))
    await asyncio.sleep(0)
    assert await rig.store.get(KEY) is None
    assert disk.reads == []
    disk.write_gate.set()
    assert await deleting
    await rig.store.close()


async def test_forgetting_drops_memory_and_pending_writes_and_answers_those_who_look() -> None:
    disk = FakeDisk()
    disk.write_gate.clear()
    disk.read_gate.clear()
    disk.kept[b"looked for"] = pack(Thing(b"purged"))
    rig = Rig(disk)
    looking = asyncio.create_task(rig.store.get(b"looked for"))
    await began(disk)
    rig.store.put(b"under way", Thing(b"x"), expire=60)
    rig.store.put(KEY, Thing(b"a"), expire=60)
    rig.store.forget()
    assert await looking is None
    disk.read_gate.set()
    disk.write_gate.set()
    await rig.written()
    assert await rig.store.get(KEY) is None
    assert KEY not in disk.kept
    stats = rig.store.stats()
    assert (stats.memory_entries, stats.queued_entries, stats.queued_bytes) == (0, 0, 0)
    await rig.store.close()


async def test_reads_do_not_wait_behind_writes() -> None:
    disk = FakeDisk()
    disk.kept[b"there"] = pack(Thing(b"a"))
    disk.write_gate.clear()
    rig = Rig(disk)
    for number in range(50):
        rig.store.put(b"%d" % number, Thing(b"x"), expire=60)
    assert await rig.store.get(b"there") == Thing(b"a")
    disk.write_gate.set()
    await rig.store.close()


def key_of(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


async def test_once_it_knows_the_disks_keys_a_new_key_is_a_miss_at_once() -> None:
    disk = FakeDisk()
    disk.kept = {key_of(number): pack(Thing(b"%d" % number)) for number in range(200)}
    rig = Rig(disk)
    await rig.store.learn()
    looking = rig.store.get(key_of(1000))
    with pytest.raises(StopIteration) as found:  # a coroutine that never suspends ends at its first step
        looking.send(None)
    assert found.value.value is None
    assert disk.reads == []
    assert [await rig.store.get(key_of(number)) for number in range(200)] == [
        Thing(b"%d" % number) for number in range(200)
    ]
    await rig.store.close()


async def test_until_it_knows_every_miss_asks_the_disk() -> None:
    disk = FakeDisk()
    disk.kept[KEY] = pack(Thing(b"a"))
    disk.list_gate.clear()
    rig = Rig(disk)
    assert await rig.store.get(key_of(1)) is None
    learning = asyncio.create_task(rig.store.learn())
    assert await asyncio.to_thread(disk.listing.wait, 10)
    assert await rig.store.get(key_of(2)) is None
    assert await rig.store.get(KEY) == Thing(b"a")
    assert disk.reads == [key_of(1), key_of(2), KEY]
    disk.list_gate.set()
    await learning
    assert await rig.store.get(key_of(3)) is None
    assert len(disk.reads) == 3
    await rig.store.close()


async def test_what_is_put_while_it_learns_and_after_is_found_again_on_the_disk() -> None:
    disk = FakeDisk()
    disk.list_gate.clear()
    rig = Rig(disk)
    rig.store.put(key_of(0), Thing(b"before"), expire=60)
    learning = asyncio.create_task(rig.store.learn())
    assert await asyncio.to_thread(disk.listing.wait, 10)  # what the list does not hold is put now
    rig.store.put(key_of(1), Thing(b"meanwhile"), expire=60)
    await rig.written()
    disk.list_gate.set()
    await learning
    rig.store.put(key_of(2), Thing(b"after"), expire=60)
    await rig.written()
    rig.drop_memory()
    things = [Thing(b"before"), Thing(b"meanwhile"), Thing(b"after")]
    assert [await rig.store.get(key_of(number)) for number in range(3)] == things
    assert await rig.store.get(key_of(3)) is None
    await rig.store.close()


async def test_a_disk_that_cannot_list_its_keys_is_asked_at_every_miss() -> None:
    class Unlisted(FakeDisk):
        failures = 1

        def all_keys(self) -> list[bytes]:
            self.failures -= 1
            if self.failures >= 0:
                raise OSError(5, "Input/output error")
            return super().all_keys()

    disk = Unlisted()
    disk.kept[KEY] = pack(Thing(b"a"))
    rig = Rig(disk)
    await rig.store.learn()
    assert rig.events == {"disk_read_failed": 1}
    assert await rig.store.get(key_of(1)) is None
    assert await rig.store.get(KEY) == Thing(b"a")
    assert disk.reads == [key_of(1), KEY]
    await rig.store.learn()  # it may be tried again
    assert await rig.store.get(key_of(2)) is None
    assert disk.reads == [key_of(1), KEY]
    await rig.store.close()


async def test_a_deleted_and_a_forgotten_key_cost_a_look_and_nothing_else() -> None:
    disk = FakeDisk()
    rig = Rig(disk)
    await rig.store.learn()
    for number in range(2):
        rig.store.put(key_of(number), Thing(b"x"), expire=60)
    assert await rig.store.delete(key_of(0))
    await rig.written()
    rig.store.forget()
    assert await rig.store.get(key_of(0)) is None
    assert await rig.store.get(key_of(1)) == Thing(b"x")  # it was on the disk already
    assert disk.reads == [key_of(0), key_of(1)]
    await rig.store.close()


async def test_without_a_disk_or_after_closing_there_is_nothing_to_learn() -> None:
    for disk in (None, FakeDisk()):
        rig = Rig(disk)
        await rig.store.close()
        await rig.store.learn()
        assert not rig.events


async def test_a_store_that_is_closed_while_it_learns_waits_for_its_thread() -> None:
    before = threading.active_count()
    disk = FakeDisk()
    disk.list_gate.clear()
    rig = Rig(disk)
    learning = asyncio.create_task(rig.store.learn())
    assert await asyncio.to_thread(disk.listing.wait, 10)
    learning.cancel()
    closing = asyncio.create_task(rig.store.close())
    await asyncio.sleep(0)
    disk.list_gate.set()
    await closing
    with pytest.raises(asyncio.CancelledError):
        await learning
    assert disk.closed
    assert threading.active_count() <= before + 1  # that of `to_thread` stays with the loop


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(0, 5), max_size=4),
    st.lists(st.tuples(st.sampled_from(["put", "get", "learn", "drop", "delete"]), st.integers(0, 5)), max_size=14),
)
def test_it_never_says_no_to_what_is_there(kept: list[int], told: list[tuple[str, int]]) -> None:
    async def play() -> None:
        disk = FakeDisk()
        disk.kept = {key_of(number): pack(Thing(b"old")) for number in kept}
        there = dict.fromkeys(kept, Thing(b"old"))
        rig = Rig(disk)
        for step, (what, number) in enumerate(told):
            if what == "put":
                there[number] = Thing(b"%d" % step)
                rig.store.put(key_of(number), there[number], expire=60)
            elif what == "learn":
                await rig.store.learn()
            elif what == "delete":
                there.pop(number, None)
                assert await rig.store.delete(key_of(number))
            elif what == "drop":
                await rig.written()
                rig.drop_memory()
            else:
                assert await rig.store.get(key_of(number)) == there.get(number)
        await rig.store.close()

    asyncio.run(play())


async def test_on_a_real_disk_the_keys_that_were_kept_are_known_at_the_next_start(tmp_path: Path) -> None:
    rig = Rig(DiskTier(tmp_path, 64 << 20))
    for number in range(20):
        rig.store.put(key_of(number), Thing(b"x" * 10), expire=60)
    await rig.store.close()
    rig = Rig(DiskTier(tmp_path, 64 << 20))
    await rig.store.learn()
    assert [await rig.store.get(key_of(number)) for number in range(21)] == [Thing(b"x" * 10)] * 20 + [None]
    assert not rig.events
    await rig.store.close()


async def test_an_entry_with_a_bad_digest_is_a_miss_that_is_counted_and_removed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk = FakeDisk()
    disk.kept[KEY] = b"x" * 100
    rig = Rig(disk)
    assert await rig.store.get(KEY) is None
    assert rig.events == {"disk_corrupt": 1}
    await rig.written()
    assert disk.kept == {}
    assert "disk_corrupt" in caplog.text
    await rig.store.close()


async def test_an_entry_that_was_put_meanwhile_is_not_removed_with_the_corrupt_one() -> None:
    disk = FakeDisk()
    disk.kept[KEY] = b"x" * 100
    disk.read_gate.clear()
    rig = Rig(disk)
    looking = asyncio.create_task(rig.store.get(KEY))
    await began(disk)
    rig.store.put(KEY, Thing(b"new"), expire=60)
    disk.read_gate.set()
    assert await looking == Thing(b"new")
    await rig.store.close()
    assert disk.kept == {KEY: pack(Thing(b"new"))}


async def use(rig: Rig) -> list[Thing | None]:
    """Two entries put, dropped from memory, looked for; one deleted, one replaced, looked for."""
    found: list[Thing | None] = []
    rig.store.put(b"a", Thing(b"a1"), expire=60)
    rig.store.put(b"b", Thing(b"b1"), expire=60)
    await rig.written()
    rig.drop_memory()
    found += [await rig.store.get(b"a"), await rig.store.get(b"b")]
    rig.store.put(b"a", Thing(b"a2"), expire=60)
    await rig.store.delete(b"b")
    await rig.written()
    rig.drop_memory()
    found += [await rig.store.get(b"a"), await rig.store.get(b"b")]
    await rig.store.close()
    return found


async def test_without_a_failure_the_whole_use_takes_14_operations() -> None:
    disk = FailingDisk(10_000, OSError())
    assert await use(Rig(disk)) == [Thing(b"a1"), Thing(b"b1"), Thing(b"a2"), None]
    assert disk.operations == 14


@pytest.mark.parametrize("for_good", [False, True])
@pytest.mark.parametrize("n", range(14))
async def test_a_disk_that_fails_at_any_operation_costs_no_more_than_misses(
    n: int, for_good: bool, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(FailingDisk(n, OSError(5, "Input/output error"), for_good=for_good))
    a1, b1, a2, b2 = await use(rig)
    assert a1 in {Thing(b"a1"), None}
    assert b1 in {Thing(b"b1"), None}
    assert a2 in {Thing(b"a2"), None}  # never a1 again
    assert b2 is None or sum(rig.events.values()) > 0
    assert set(rig.events) <= {"disk_read_failed", "disk_write_failed"}
    assert len(caplog.records) == len(rig.events)  # one line for each kind, not for each failure
    if for_good and n == 0:
        assert rig.events["disk_read_failed"] == 4
        assert rig.store.stats().disk is None


@pytest.mark.parametrize("n", range(9))
async def test_a_failure_that_nobody_foresaw_costs_no_more_either(n: int) -> None:
    class Surprise(Exception):
        pass

    operations = iter(range(100))
    disk = FakeDisk()

    def surprising(name: str) -> Callable[..., object]:
        plain = getattr(FakeDisk, name)

        def operation(*given: object) -> object:
            if next(operations) == n:
                raise Surprise
            return plain(disk, *given)

        return operation

    for name in ("get", "put", "delete"):
        setattr(disk, name, surprising(name))
    rig = Rig(disk)
    a1, b1, a2, _ = await use(rig)
    assert (a1 in {Thing(b"a1"), None}, b1 in {Thing(b"b1"), None}, a2 in {Thing(b"a2"), None}) == (True, True, True)


async def test_a_kind_of_failure_is_logged_once_a_minute_and_counted_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig(FailingDisk(0, OSError(28, "No space left on device"), for_good=True))
    for second, lines in [(0.0, 1), (1.0, 1), (59.9, 1), (60.0, 2), (119.9, 2), (120.0, 3)]:
        rig.now = second
        rig.store.put(KEY, Thing(b"a"), expire=60)
        await rig.written()
        assert len(caplog.records) == lines
    assert rig.events["disk_write_failed"] == 6
    assert "No space left on device" in caplog.text
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    await rig.store.close()


async def test_a_failure_is_logged_without_what_it_says_of_an_entry(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(FailingDisk(1, ValueError("my prompt"), for_good=True))
    rig.store.put(KEY, Thing(b"a"), expire=60)
    await rig.written()
    assert "ValueError" in caplog.text
    assert "my prompt" not in caplog.text
    await rig.store.close()


async def test_without_a_disk_it_is_memory() -> None:
    rig = Rig(None)
    assert await rig.store.get(KEY) is None
    rig.store.put(KEY, Thing(b"a"), expire=60)
    assert await rig.store.get(KEY) == Thing(b"a")
    assert await rig.store.delete(KEY)
    assert await rig.store.get(KEY) is None
    assert rig.store.stats().disk is None
    await rig.store.close()


async def test_closing_writes_what_is_queued_ends_the_look_ups_and_leaves_no_thread() -> None:
    before = threading.active_count()
    disk = FakeDisk()
    disk.write_gate.clear()
    disk.read_gate.clear()
    rig = Rig(disk)
    looking = asyncio.create_task(rig.store.get(b"other"))
    await asyncio.sleep(0)
    for number in range(40):
        rig.store.put(b"%d" % number, Thing(b"x"), expire=60)
    closing = asyncio.create_task(rig.store.close())
    await asyncio.sleep(0)
    disk.write_gate.set()
    disk.read_gate.set()
    await closing
    assert await looking is None
    assert len(disk.kept) == 40
    assert disk.closed
    assert threading.active_count() == before
    await rig.store.close()
    rig.store.put(KEY, Thing(b"late"), expire=60)
    assert await rig.store.get(KEY) == Thing(b"late")
    assert KEY not in disk.kept


async def test_the_figures_say_what_is_held_where() -> None:
    rig = Rig(FakeDisk())
    rig.store.put(KEY, Thing(b"a" * 100), expire=60)
    stats = rig.store.stats()
    assert (stats.memory_entries, stats.queued_entries, stats.evictions) == (1, 1, 0)
    assert stats.memory_bytes > 100
    assert stats.queued_bytes > 100
    await rig.written()
    stats = rig.store.stats()
    assert (stats.queued_entries, stats.queued_bytes) == (0, 0)
    assert stats.disk == DiskStats(1, 132, 0)
    await rig.store.close()


def flip_a_byte_of_the_file(directory: Path) -> Path:
    (file,) = directory.glob("*/*/*.val")
    flipped = bytearray(file.read_bytes())
    flipped[1000] ^= 1
    file.write_bytes(flipped)
    return file


async def test_on_a_real_disk_entries_outlive_the_store_and_flipped_ones_are_misses(tmp_path: Path) -> None:
    things = {b"%032d" % number: Thing(os.urandom(size)) for number, size in enumerate((0, 5000, MIN_FILE_SIZE))}
    rig = Rig(DiskTier(tmp_path, 64 << 20))
    for key, thing in things.items():
        rig.store.put(key, thing, expire=60)
    await rig.store.close()
    rig = Rig(DiskTier(tmp_path, 64 << 20))
    assert [await rig.store.get(key) for key in things] == list(things.values())
    await rig.store.close()
    file = flip_a_byte_of_the_file(tmp_path)
    rig = Rig(DiskTier(tmp_path, 64 << 20))
    assert [await rig.store.get(key) for key in things] == [*list(things.values())[:2], None]
    assert rig.events == {"disk_corrupt": 1}
    await rig.store.close()
    assert not file.exists()


async def test_a_disk_that_hangs_is_a_miss_until_it_answers_again() -> None:
    disk, events = FakeDisk(), Counter[str]()
    disk.kept = {key: pack(Thing(b"old")) for key in (KEY, b"2" * 32, b"3" * 32)}
    disk.read_gate.clear()
    store = TieredStore(
        memory=MemoryTier(1000), disk=disk, pack=pack, unpack=unpack, on_event=lambda event: events.update([event])
    )
    store.patience = 0.01
    assert await store.get(KEY) is None
    assert await store.get(KEY) is None
    assert await store.get(b"2" * 32) is None
    assert disk.reads == [KEY]  # nobody else asks it meanwhile
    assert events == {"disk_read_failed": 1}
    disk.read_gate.set()
    while await store.get(b"3" * 32) is None:  # noqa: ASYNC110 - a thread's doing
        await asyncio.sleep(0.001)
    assert await store.get(KEY) == Thing(b"old")
    await store.close()


def is_old(thing: Thing) -> bool:
    return thing.body.startswith(b"old")


def blob_is_old(blob: bytes) -> bool:
    return blob[32:].startswith(b"old")


async def test_a_sweep_finds_what_is_purged_in_memory_in_the_queue_and_on_the_disk_and_counts_each_once() -> None:
    disk = FakeDisk()
    rig = Rig(disk)
    disk.kept = {key_of(0): pack(Thing(b"old on the disk")), key_of(1): pack(Thing(b"new on the disk"))}
    rig.store.put(key_of(2), Thing(b"old in both"), expire=60)
    rig.store.put(key_of(3), Thing(b"new in both"), expire=60)
    await rig.written()
    disk.write_gate.clear()
    rig.store.put(key_of(4), Thing(b"old, being written"), expire=60)
    rig.store.put(key_of(5), Thing(b"old, waits"), expire=60)
    sweeping = asyncio.create_task(rig.store.sweep(is_old, blob_is_old))
    await asyncio.sleep(0)
    disk.write_gate.set()
    assert await sweeping == (4, True)
    await rig.written()
    assert set(disk.kept) == {key_of(1), key_of(3)}
    found = [await rig.store.get(key_of(number)) for number in range(6)]
    assert found == [None, Thing(b"new on the disk"), None, Thing(b"new in both"), None, None]
    await rig.store.close()


async def test_a_long_queue_is_not_written_behind_the_sweep() -> None:
    disk = FakeDisk()
    disk.write_gate.clear()
    rig = Rig(disk)
    for number in range(100):
        rig.store.put(key_of(number), Thing(b"old %d" % number), expire=60)
    sweeping = asyncio.create_task(rig.store.sweep(is_old, blob_is_old))
    await asyncio.sleep(0)
    disk.write_gate.set()
    assert await sweeping == (100, True)
    await rig.written()
    assert disk.kept == {}
    await rig.store.close()


async def test_who_looked_before_the_sweep_leaves_nothing_in_memory_after_it() -> None:
    disk = FakeDisk()
    disk.kept[KEY] = pack(Thing(b"old"))
    disk.read_gate.clear()
    rig = Rig(disk)
    looking = asyncio.create_task(rig.store.get(KEY))
    await began(disk)  # it has read the row, which goes now
    sweeping = asyncio.create_task(rig.store.sweep(is_old, blob_is_old))
    while KEY in disk.kept:  # noqa: ASYNC110 - a thread's doing
        await asyncio.sleep(0.001)
    disk.read_gate.set()
    assert await looking == Thing(b"old")  # judged by its epoch
    assert await sweeping == (1, True)
    assert await rig.store.get(KEY) is None
    await rig.store.close()


async def test_a_sweep_of_much_memory_lets_others_have_their_turn() -> None:
    rig = Rig(None)
    for number in range(1200):
        rig.store.put(key_of(number), Thing(b"old"), expire=60)
    sweeping = asyncio.create_task(rig.store.sweep(is_old, blob_is_old))
    left = []
    while not sweeping.done():
        await asyncio.sleep(0)
        left.append(rig.store.stats().memory_entries)
    assert await sweeping == (1200, True)
    assert {700, 200, 0} <= set(left)
    await rig.store.close()


async def test_a_disk_that_fails_in_a_sweep_is_told_and_memory_is_swept_all_the_same() -> None:
    rig = Rig(FailingDisk(0, OSError(5, "Input/output error"), for_good=True))
    rig.store.put(KEY, Thing(b"old"), expire=60)
    rig.store.put(key_of(1), Thing(b"new"), expire=60)
    assert await rig.store.sweep(is_old, blob_is_old) == (1, False)
    assert rig.events["disk_write_failed"] >= 1
    assert rig.store.stats().memory_entries == 1
    await rig.store.close()


# Many at once.


def many(count: int) -> list[bytes]:
    return [b"%032d" % number for number in range(count)]


async def test_of_many_keys_those_are_found_that_are_in_memory_in_the_queue_or_on_the_disk() -> None:
    disk = FakeDisk()
    disk.write_gate.clear()
    rig = Rig(disk)
    on_disk, near, nowhere = many(3)
    disk.kept[on_disk] = pack(Thing(b"a"))
    rig.store.put(near, Thing(b"b"), expire=60)
    assert await rig.store.get_many([nowhere, near, on_disk]) == {on_disk: Thing(b"a"), near: Thing(b"b")}
    assert sorted(disk.reads) == sorted([on_disk, nowhere])
    assert await rig.store.get_many([]) == {}
    disk.write_gate.set()
    await rig.store.close()


async def test_what_is_all_near_is_found_without_a_turn_of_the_loop() -> None:
    rig, keys = Rig(FakeDisk()), many(200)
    for key in keys:
        rig.store.put(key, Thing(key), expire=60)
    looking = rig.store.get_many(keys)
    with pytest.raises(StopIteration) as found:
        looking.send(None)
    assert found.value.value == {key: Thing(key) for key in keys}
    await rig.store.close()


async def test_more_keys_than_may_wait_for_the_disk_at_once_are_asked_for_in_turns() -> None:
    disk, keys = FakeDisk(), many(200)
    disk.kept = {key: pack(Thing(key)) for key in keys[::2]}
    disk.read_gate.clear()
    rig = Rig(disk)
    looking = asyncio.ensure_future(rig.store.get_many(keys))
    await began(disk)
    at_once = len(rig.store._looking)
    disk.read_gate.set()
    assert 1 < at_once < len(keys)
    assert await looking == {key: Thing(key) for key in keys[::2]}
    assert sorted(disk.reads) == keys
    await rig.store.close()


async def test_a_key_that_stands_twice_is_read_once() -> None:
    disk = FakeDisk()
    disk.kept[KEY] = pack(Thing(b"a"))
    rig = Rig(disk)
    assert await rig.store.get_many([KEY, KEY]) == {KEY: Thing(b"a")}
    assert disk.reads == [KEY]
    await rig.store.close()


async def test_what_is_put_while_others_of_many_are_looked_for_is_found() -> None:
    disk, keys = FakeDisk(), many(100)
    rig = Rig(disk)
    looks = rig.store.get

    async def look(key: bytes) -> Thing | None:
        if key == keys[-1]:  # the first of them was a miss long ago
            rig.store.put(keys[0], Thing(b"late"), expire=60)
        return await looks(key)

    rig.store.get = look  # type: ignore[method-assign]
    assert await rig.store.get_many(keys) == {keys[0]: Thing(b"late")}
    await rig.store.close()


async def test_a_disk_that_fails_for_some_of_many_costs_no_more_than_misses() -> None:
    keys = many(10)
    disk = FailingDisk(4, OSError("bad"))
    disk.kept = {key: pack(Thing(key)) for key in keys}
    rig = Rig(disk)
    assert len(await rig.store.get_many(keys)) == 9
    assert rig.events == {"disk_read_failed": 1}
    await rig.store.close()
