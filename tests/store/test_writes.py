import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from proxy.store.disk import DiskStats, Swept
from proxy.store.writes import OVERHEAD, WriteQueue


@dataclass(frozen=True)
class Thing:
    name: bytes
    footprint: int = 100


class SlowDisk:
    """Keeps what it is given, one operation for each `step`; `began` says that an operation waits for it."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}
        self.done: list[tuple[str, bytes]] = []
        self.began = threading.Semaphore(0)
        self.step = threading.Semaphore(0)
        self.failing: set[str] = set()

    def _operation(self, name: str, key: bytes) -> None:
        self.began.release()
        assert self.step.acquire(timeout=10)
        self.done.append((name, key))
        if name in self.failing:
            raise OSError(28, "No space left on device")

    def run(self) -> None:
        """From now on nothing waits."""
        self.step.release(10_000)

    def get(self, key: bytes) -> bytes | None:
        return self.kept.get(key)

    def put(self, key: bytes, blob: bytes, expire: float) -> None:
        assert expire > 0
        self._operation("put", key)
        self.kept[key] = blob

    def all_keys(self) -> list[bytes]:
        return []

    def delete(self, key: bytes) -> bool:
        self._operation("delete", key)
        return self.kept.pop(key, None) is not None

    def sweep(self, purged: Callable[[bytes], bool], after: int = 0) -> Swept:
        """One key at a time, in their order."""
        keys = sorted(self.kept)[after : after + 1]
        if not keys:
            return Swept(None, [])
        self._operation("sweep", keys[0])
        found = [key for key in keys if purged(self.kept[key])]
        for key in found:
            del self.kept[key]
        return Swept(after + 1 - len(found), found)

    def clear(self) -> int:
        self._operation("clear", b"")
        count = len(self.kept)
        self.kept.clear()
        return count

    def stats(self) -> DiskStats:
        return DiskStats(len(self.kept), 0, 0)

    def close(self) -> None:
        self.done.append(("close", b""))


def pack(thing: Thing) -> bytes:
    if thing.name == b"bug":
        raise KeyError("a prompt")
    return thing.name


@pytest.fixture
def disk() -> SlowDisk:
    return SlowDisk()


@pytest.fixture
def failures() -> list[Exception]:
    return []


@pytest.fixture
async def queue(disk: SlowDisk, failures: list[Exception]) -> WriteQueue[Thing]:
    return WriteQueue(disk, pack, backlog=3 * (100 + OVERHEAD), on_failed=failures.append)


async def began(disk: SlowDisk) -> None:
    """An operation has begun that had not when this was last awaited."""
    assert await asyncio.to_thread(disk.began.acquire, True, 10)


async def test_an_entry_is_visible_until_it_is_on_the_disk(disk: SlowDisk, queue: WriteQueue[Thing]) -> None:
    assert queue.put(b"a", Thing(b"1"), 60)
    assert (queue.get(b"a"), b"a" in queue, len(queue), queue.bytes) == (Thing(b"1"), True, 1, 100 + OVERHEAD)
    disk.run()
    await queue.settled(b"a")
    assert (queue.get(b"a"), b"a" in queue, len(queue), queue.bytes) == (None, False, 0, 0)
    assert disk.kept == {b"a": b"1"}
    assert queue.disk_stats == DiskStats(1, 0, 0)


async def test_a_newer_entry_takes_the_place_of_one_that_waits(disk: SlowDisk, queue: WriteQueue[Thing]) -> None:
    queue.put(b"first", Thing(b"first"), 60)
    await began(disk)
    queue.put(b"a", Thing(b"1"), 60)
    queue.put(b"a", Thing(b"2"), 60)
    disk.run()
    await queue.settled()
    assert disk.done == [("put", b"first"), ("put", b"a")]
    assert disk.kept[b"a"] == b"2"


async def test_a_newer_entry_is_written_after_the_one_that_is_under_way(
    disk: SlowDisk, queue: WriteQueue[Thing]
) -> None:
    queue.put(b"a", Thing(b"1"), 60)
    await began(disk)
    queue.put(b"a", Thing(b"2"), 60)
    assert queue.get(b"a") == Thing(b"2")
    disk.step.release()
    await began(disk)  # the newer one's write has begun, so the older one's is over
    assert queue.get(b"a") == Thing(b"2")
    assert disk.kept[b"a"] == b"1"
    disk.run()
    await queue.settled()
    assert disk.kept[b"a"] == b"2"


async def test_an_older_entry_in_the_same_batch_as_others_is_not_written_once_it_is_superseded(
    disk: SlowDisk, queue: WriteQueue[Thing]
) -> None:
    queue.put(b"first", Thing(b"first"), 60)
    await began(disk)
    queue.put(b"b", Thing(b"b"), 60)
    queue.put(b"a", Thing(b"1"), 60)
    disk.step.release()
    await queue.settled(b"first")
    await began(disk)  # b and a are one batch now, b's write has begun
    queue.put(b"a", Thing(b"2"), 60)
    disk.run()
    await queue.settled()
    assert disk.done.count(("put", b"a")) == 1
    assert disk.kept[b"a"] == b"2"


async def test_more_than_the_backlog_is_refused_and_the_older_answer_on_the_disk_goes(
    disk: SlowDisk, queue: WriteQueue[Thing]
) -> None:
    disk.kept[b"d"] = b"old"
    assert [queue.put(key, Thing(key), 60) for key in (b"a", b"b", b"c", b"d")] == [True, True, True, False]
    assert queue.get(b"d") is None
    assert b"d" in queue  # the disk must not be asked
    disk.run()
    await queue.settled()
    assert disk.kept == {b"a": b"a", b"b": b"b", b"c": b"c"}
    assert queue.bytes == 0


async def test_what_is_refused_counts_for_the_bound_too(disk: SlowDisk, queue: WriteQueue[Thing]) -> None:
    for number in range(1000):
        queue.put(b"%d" % number, Thing(b"x"), 60)
    assert queue.bytes <= 2 * 3 * (100 + OVERHEAD)
    assert len(queue) <= 7
    disk.run()
    await queue.settled()
    assert len(queue) == queue.bytes == 0


async def test_a_failure_is_told_once_and_the_next_write_has_its_turn(
    disk: SlowDisk, queue: WriteQueue[Thing], failures: list[Exception]
) -> None:
    disk.run()
    disk.kept[b"bug"] = b"old"
    queue.put(b"bug", Thing(b"bug"), 60)
    queue.put(b"a", Thing(b"a"), 60)
    await queue.settled()
    assert [type(failure) for failure in failures] == [KeyError]
    assert disk.kept == {b"a": b"a"}  # the older answer is gone


async def test_a_removal_says_later_whether_it_succeeded(
    disk: SlowDisk, queue: WriteQueue[Thing], failures: list[Exception]
) -> None:
    disk.run()
    disk.kept[b"a"] = b"old"
    succeeded = queue.delete(b"a")
    assert b"a" in queue
    await queue.settled(b"a")
    assert succeeded()
    assert disk.kept == {}
    disk.failing.add("delete")
    succeeded = queue.delete(b"b")
    await queue.settled(b"b")
    assert not succeeded()
    assert len(failures) == 1


async def test_forgetting_drops_entries_and_keeps_removals(disk: SlowDisk, queue: WriteQueue[Thing]) -> None:
    queue.put(b"first", Thing(b"first"), 60)
    await began(disk)
    queue.put(b"a", Thing(b"a"), 60)
    queue.delete(b"b")
    queue.forget()
    assert (queue.get(b"first"), queue.get(b"a"), b"b" in queue) == (None, None, True)
    disk.run()
    await queue.settled()
    assert disk.done == [("put", b"first"), ("delete", b"b")]


async def test_closing_writes_what_is_queued_first(disk: SlowDisk, queue: WriteQueue[Thing]) -> None:
    for key in (b"a", b"b", b"c"):
        queue.put(key, Thing(key), 60)
    disk.run()
    await queue.close(before=lambda: disk.done.append(("before", b"")))
    assert [name for name, _ in disk.done] == ["put", "put", "put", "before", "close"]
    assert len(disk.kept) == 3


async def test_a_sweep_comes_after_what_is_under_way_and_lets_others_between_its_parts(
    disk: SlowDisk, queue: WriteQueue[Thing]
) -> None:
    disk.kept = {b"x": b"old", b"y": b"old", b"z": b"new"}
    queue.put(b"w", Thing(b"old"), 60)
    await began(disk)
    sweeping = asyncio.create_task(queue.sweep(lambda start: start == b"old"))
    disk.step.release()
    await began(disk)  # the first part
    queue.put(b"a", Thing(b"new"), 60)
    disk.run()
    assert await sweeping == [b"w", b"x", b"y"]
    await queue.settled()
    assert disk.kept == {b"a": b"new", b"z": b"new"}
    assert disk.done.index(("put", b"a")) < disk.done.index(("sweep", b"y"))


async def test_a_purged_entry_that_waits_is_neither_written_nor_does_an_older_one_come_back(
    disk: SlowDisk, queue: WriteQueue[Thing]
) -> None:
    disk.kept = {b"b": b"even older"}
    queue.put(b"a", Thing(b"new"), 60)
    await began(disk)
    queue.put(b"b", Thing(b"old"), 60)
    queue.put(b"c", Thing(b"new"), 60)
    assert queue.remove(lambda thing: thing.name == b"old") == [b"b"]
    assert queue.get(b"b") is None
    assert b"b" in queue
    disk.run()
    await queue.settled()
    assert disk.kept == {b"a": b"new", b"c": b"new"}
