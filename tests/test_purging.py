"""A purge is in force at once, for what it means and nothing else, whoever asked for it and whatever becomes of it."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from proxy.core.entry import Entry, Meta, pack, unpack
from proxy.core.purges import EVERYTHING, PurgeLog, Selection
from proxy.purging import POLL, RETRY, PurgeWatch
from proxy.store.disk import ByteTier, DiskTier, Swept
from proxy.store.files import turn
from proxy.store.maintenance import purge_cache
from proxy.store.memory import MemoryTier
from proxy.store.purges import PurgeFile
from proxy.store.tiered import TieredStore
from tests.conftest import MakeProxy
from tests.fakes import in_virtual_time
from tests.support import CHAT, Proxy, ask, eventually

LIMIT = 64 << 20


def key_of(name: str) -> bytes:
    return name.encode().ljust(32, b".")


def an_entry(name: str, epoch: int = 0, *, owner: str | None = "a", model: str = "m") -> Entry:
    meta = Meta(key_of(name), "json", "p", model, 1.0, 60.0, epoch, False, True, owner=owner)
    return Entry(meta, b"{}", ())


class World:
    """A store on a disk (`disk`: another one) with its watch, as a proxy has them."""

    def __init__(
        self,
        directory: Path,
        disk: ByteTier | None,
        requests: dict[str, bytes] | None = None,
        file: PurgeFile | None = None,
    ) -> None:
        self.directory = directory
        self.events: Counter[str] = Counter()
        self.store: TieredStore[Entry] = TieredStore(
            memory=MemoryTier(LIMIT),
            disk=disk,
            pack=pack,
            unpack=unpack,
            on_event=lambda name: self.events.update([name]),
        )

        async def entry_of(request: str) -> bytes | None:
            return (requests or {}).get(request)

        file = file or PurgeFile(directory / "purges")
        upstreams = {"ours": "theirs", "m": "m"}
        self.watch = PurgeWatch(file, self.store, directory / "cache", upstreams=upstreams, entry_of=entry_of)

    def put(self, *entries: Entry) -> None:
        for entry in entries:
            self.store.put(entry.meta.key, entry, expire=60.0)

    async def written(self) -> None:
        if self.store._writes is not None:
            await self.store._writes.settled()

    async def answers(self, name: str) -> bool:
        """Is it a hit? As the pipeline judges it."""
        found = await self.store.get(key_of(name))
        return found is not None and (found.meta.epoch == self.watch.current or self.watch.spares(found.meta))

    def on_disk(self) -> list[str]:
        disk = DiskTier(self.directory / "cache", LIMIT)
        found = sorted(key.rstrip(b".").decode() for key in disk.all_keys())
        disk.close()
        return found

    def log(self) -> tuple[int, int]:
        """How many purges were written down, and how many are over."""
        found = PurgeFile(self.directory / "purges").read()
        return found.number, found.swept


@asynccontextmanager
async def a_world(directory: Path, *, disk: ByteTier | None = None, **told: Any) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        world = World(directory, disk or DiskTier(directory / "cache", LIMIT), **told)
        stack.push_async_callback(world.store.close)
        yield world


@asynccontextmanager
async def followed(world: World) -> AsyncIterator[None]:
    """Meanwhile the watch looks for purges of others, and removes what is purged."""
    following = asyncio.create_task(world.watch.follow())
    yield
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following


FOUR = [
    an_entry("am"),
    an_entry("an", model="n"),
    an_entry("bm", owner="b"),
    an_entry("bn", owner="b", model="theirs"),
]


@pytest.mark.parametrize(
    ("kind", "value", "gone"),
    [
        ("key", "a", {"am", "an"}),
        ("key", "c", set()),
        ("model", "m", {"am", "bm"}),
        ("model", "ours", {"bn"}),
        ("model", "theirs", {"bn"}),
        ("request", "req-1", {"an"}),
        ("request", "unknown", set()),
        ("key", "\udc80", set()),
        ("all", "", {"am", "an", "bm", "bn"}),
    ],
)
async def test_what_is_meant_is_gone_everywhere_and_counted_and_the_rest_are_hits(
    tmp_path: Path, kind: Any, value: str, gone: set[str]
) -> None:
    async with a_world(tmp_path, requests={"req-1": key_of("an")}) as world:
        world.put(*FOUR)
        await world.written()
        assert await world.watch.purge(kind, value) == len(gone)
        for entry in FOUR:
            name = entry.meta.key.rstrip(b".").decode()
            assert await world.answers(name) == (name not in gone)
        assert world.on_disk() == sorted({"am", "an", "bm", "bn"} - gone)
        assert world.store.stats().memory_entries == 4 - len(gone)
        number, swept = world.log()
        assert number == swept


async def test_without_a_disk_memory_is_purged_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = World(tmp_path / "absent", None)
    world.put(*FOUR)
    assert await world.watch.purge("key", "a") == 2
    assert not await world.answers("am")
    assert await world.answers("bm")
    assert await world.watch.purge("all") == 2
    assert not await world.answers("bm")
    world.put(an_entry("new", world.watch.current))
    assert await world.answers("new")
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert "cannot be written down" in caplog.text
    assert not (tmp_path / "absent").exists()


async def test_an_answer_that_was_under_way_is_not_kept_if_it_is_meant(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world:
        old, other = an_entry("old", world.watch.current), an_entry("other", world.watch.current, owner="b")
        assert world.watch.admits(old.meta)
        await world.watch.purge("key", "a")
        assert not world.watch.admits(old.meta)
        assert world.watch.admits(other.meta)
        assert world.watch.admits(an_entry("new", world.watch.current).meta)


def test_a_purge_by_another_process_is_in_force_within_a_second_and_cleaned_up(tmp_path: Path) -> None:
    async def scene() -> None:
        async with a_world(tmp_path) as world, followed(world):
            world.put(*FOUR)
            await world.written()
            assert purge_cache(tmp_path, Selection("key", ("a",))) == 2
            world.put(an_entry("late"))  # before it is known here, so written behind the other's sweep
            await asyncio.sleep(POLL + 0.01)
            assert [await world.answers(name) for name in ("am", "an", "late")] == [False] * 3
            assert [await world.answers(name) for name in ("bm", "bn")] == [True] * 2
            await asyncio.sleep(POLL)
            assert world.store.stats().memory_entries == 2
            assert world.on_disk() == ["bm", "bn"]
            assert world.log() == (1, 1)

    in_virtual_time(scene())


def test_a_purge_of_all_by_another_process_empties_memory_at_once(tmp_path: Path) -> None:
    async def scene() -> None:
        async with a_world(tmp_path) as world, followed(world):
            world.put(*FOUR)
            purge_cache(tmp_path)
            with turn(tmp_path / "cache"):  # before anything can be swept
                await asyncio.sleep(POLL + 0.01)
                assert world.store.stats().memory_entries == 0
            world.put(an_entry("new", world.watch.current))
            await asyncio.sleep(2 * POLL)
            assert await world.answers("new")
            assert world.on_disk() == ["new"]

    in_virtual_time(scene())


@pytest.mark.parametrize(
    "selection", [EVERYTHING, Selection("model", ("m",)), Selection("entry", (key_of("am").hex(),))]
)
def test_a_purge_whose_process_died_before_it_removed_anything_is_in_force_and_finished(
    tmp_path: Path, selection: Selection
) -> None:
    async def scene() -> None:
        async with a_world(tmp_path) as world:
            world.put(an_entry("am"))
        PurgeFile(tmp_path / "purges").add(selection)
        async with a_world(tmp_path) as world:
            assert not await world.answers("am")
            assert world.on_disk() == ["am"]
            assert not world.watch.admits(an_entry("am").meta)
            async with followed(world):
                await asyncio.sleep(POLL)
            assert world.on_disk() == []
            assert world.log() == (1, 1)
            assert await world.store.get(key_of("am")) is None

    in_virtual_time(scene())


def test_who_stops_waiting_takes_nothing_back(tmp_path: Path) -> None:
    async def scene() -> None:
        async with a_world(tmp_path) as world:
            world.put(*FOUR)
            await world.written()
            with turn(tmp_path / "cache"):
                purging = asyncio.create_task(world.watch.purge("key", "a"))
                await asyncio.sleep(5 * POLL)
                assert not await world.answers("am")
                purging.cancel()
                with suppress(asyncio.CancelledError):
                    await purging
            assert world.log() == (1, 0)
            async with followed(world):
                await asyncio.sleep(POLL)
            assert world.on_disk() == ["bm", "bn"]
            assert world.log() == (1, 1)

    in_virtual_time(scene())


def test_while_a_command_removes_ours_waits_its_turn(tmp_path: Path) -> None:
    async def scene() -> None:
        async with a_world(tmp_path) as world:
            world.put(*FOUR)
            await world.written()
            with turn(tmp_path / "cache"):
                purging = asyncio.create_task(world.watch.purge("key", "a"))
                await asyncio.sleep(5 * POLL)
                assert not purging.done()
                assert world.on_disk() == ["am", "an", "bm", "bn"]
            assert await purging == 2

    in_virtual_time(scene())


async def test_purges_at_once_each_count_their_own(tmp_path: Path) -> None:
    async with a_world(tmp_path) as world, followed(world):
        world.put(*FOUR)
        await world.written()
        wishes = (world.watch.purge("model", "m"), world.watch.purge("model", "n"), world.watch.purge("key", "b"))
        assert list(await asyncio.gather(*wishes)) == [2, 1, 1]
        assert world.log() == (3, 3)
        assert world.on_disk() == []


class Unsweepable(DiskTier):
    """Fails to sweep `failures` times."""

    failures = 2
    sweeps = 0

    def sweep(self, purged: Callable[[bytes], bool], after: int = 0) -> Swept:
        self.sweeps += 1
        if self.sweeps <= self.failures:
            raise OSError(5, "Input/output error")
        return super().sweep(purged, after)


def test_a_disk_that_fails_delays_only_the_removal(tmp_path: Path) -> None:
    async def scene() -> None:
        disk = Unsweepable(tmp_path / "cache", LIMIT)
        async with a_world(tmp_path, disk=disk) as world:
            world.put(*FOUR)
            await world.written()
            assert await world.watch.purge("key", "a") == 2  # in memory
            assert [await world.answers(name) for name in ("am", "bm")] == [False, True]
            assert world.log() == (1, 0)
            assert world.events == {"disk_write_failed": 1}
            async with followed(world):
                await asyncio.sleep(RETRY - 1)
                assert disk.sweeps == 2  # not again and again
                assert not await world.answers("an")
                await asyncio.sleep(2)
            assert world.on_disk() == ["bm", "bn"]
            assert world.log() == (1, 1)

    in_virtual_time(scene())


def test_a_purge_that_cannot_be_written_down_is_in_force_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        (tmp_path / "purges").mkdir()
        async with a_world(tmp_path) as world, followed(world):
            world.put(*FOUR)
            await world.written()
            assert await world.watch.purge("key", "a") == 2
            await asyncio.sleep(3 * POLL)
            assert [await world.answers(name) for name in ("am", "bm")] == [False, True]
            assert world.on_disk() == ["bm", "bn"]

    in_virtual_time(scene())
    assert "a purge is in force, but cannot be written down" in caplog.text


class Full(PurgeFile):
    """Can be written unless its disk is full."""

    full = True

    def add(self, selection: Selection, *, above: int = 0) -> PurgeLog:
        if self.full:
            raise OSError(28, "No space left on device")
        return super().add(selection, above=above)


@pytest.mark.parametrize("by_command", [True, False])
def test_a_purge_that_could_not_be_written_down_outlives_the_next_which_takes_no_chances(
    tmp_path: Path, by_command: bool
) -> None:
    async def scene() -> None:
        file = Full(tmp_path / "purges")
        async with a_world(tmp_path, file=file) as world, followed(world):
            world.put(*FOUR)
            await world.watch.purge("key", "a")
            world.put(an_entry("since", 1, owner="b"))
            await asyncio.sleep(2 * POLL)
            assert world.log() == (0, 0)
            assert [await world.answers(name) for name in ("am", "bm", "since")] == [False, True, True]
            file.full = False
            if by_command:
                purge_cache(tmp_path, Selection("key", ("b",)))  # the first that is written: it counts 1 as we did
                await asyncio.sleep(2 * POLL)
            else:
                await world.watch.purge("key", "b")
            assert [await world.answers(name) for name in ("am", "bm", "since")] == [False] * 3
            world.put(an_entry("new", world.watch.current))
            await asyncio.sleep(2 * POLL)
            assert await world.answers("new")
            assert world.on_disk() == ["new"]

    in_virtual_time(scene())


def test_a_log_that_was_lost_makes_misses_of_what_came_after_it(tmp_path: Path) -> None:
    async def scene() -> None:
        async with a_world(tmp_path) as world, followed(world):
            await world.watch.purge("all")
            world.put(an_entry("am", world.watch.current))
            (tmp_path / "purges").unlink()
            await asyncio.sleep(POLL + 0.01)
            assert world.watch.current == 0
            assert not await world.answers("am")

    in_virtual_time(scene())


def test_the_number_that_an_older_version_left_is_heeded(tmp_path: Path) -> None:
    async def scene() -> None:
        (tmp_path / "purges").write_bytes(b"7\n")
        async with a_world(tmp_path) as world, followed(world):
            world.put(an_entry("before", 6), an_entry("after", 7))
            assert [await world.answers(name) for name in ("before", "after")] == [False, True]
            await asyncio.sleep(POLL)
            assert (tmp_path / "purges").read_bytes() == b"7\n"  # nothing is left to do

    in_virtual_time(scene())


# Over a real port.


def cached(proxy: Proxy, key: str, prompt: str, model: str) -> str:
    """What the cache says: hit, miss (and it is kept then)."""
    headers = {"authorization": f"Bearer {key}"}
    response = proxy.http.post(CHAT, json=ask(prompt, model), headers=headers)
    assert response.status_code == 200, response.text
    return "hit" if response.headers["cache-status"].startswith("penstock; hit") else "miss"


def is_kept(proxy: Proxy, key: str, prompt: str, model: str) -> bool:
    headers = {"authorization": f"Bearer {key}", "cache-control": "only-if-cached"}
    return proxy.http.post(CHAT, json=ask(prompt, model), headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("selection", "gone"),
    [
        (Selection("key", ("team-a",)), {("key-a", "sim-instant"), ("key-a", "sim-small")}),
        (Selection("model", ("sim-small",)), {("key-a", "sim-small"), ("key-b", "sim-small")}),
    ],
)
def test_a_purge_by_command_reaches_a_running_proxy_and_spares_the_others(
    make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch, selection: Selection, gone: set[tuple[str, str]]
) -> None:
    monkeypatch.setenv("KEY_A", "key-a")
    monkeypatch.setenv("KEY_B", "key-b")
    keys: Any = [{"name": "team-a", "key_env": "KEY_A"}, {"name": "team-b", "key_env": "KEY_B"}]
    proxy = make_proxy(key="sk-operator", keys=keys)
    ways = [(key, model) for key in ("key-a", "key-b") for model in ("sim-instant", "sim-small")]
    for key, model in ways:
        assert [cached(proxy, key, "a question", model) for _ in range(2)] == ["miss", "hit"]
    purge_cache(proxy.directory, selection)
    eventually(lambda: not any(is_kept(proxy, key, "a question", model) for key, model in gone), within=5)
    assert {way for way in ways if not is_kept(proxy, way[0], "a question", way[1])} == gone
    for key, model in ways:
        assert cached(proxy, key, "a question", model) == ("miss" if (key, model) in gone else "hit")
        assert cached(proxy, key, "a question", model) == "hit"
    eventually(lambda: PurgeFile(proxy.directory / "purges").read().swept == 1)
    assert all(is_kept(proxy, key, "a question", model) for key, model in ways)
