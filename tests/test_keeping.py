"""What was learned outlives the process, and a disk that will not have it is no reason to stop."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from proxy.app import build_app
from proxy.core.breaker import Health
from proxy.core.learned import Learned
from proxy.keeping import Keeper
from proxy.reading import read_settings
from proxy.store.notebook import Notebook
from tests.fakes import Clock, in_virtual_time
from tests.support import CHAT, Json, Simulator, ask

PLACE = ("sim", "a", "")
LOGGER = "penstock"


class Sheet(Notebook):
    """A notebook in memory. `full`: there is no room on it."""

    def __init__(self, kept: bytes | None = None) -> None:
        self.kept = kept
        self.written = 0
        self.full = False

    def read(self) -> bytes | None:
        return self.kept

    def write(self, learned: bytes) -> None:
        if self.full:
            raise OSError(30, "Read-only file system")
        self.kept = learned
        self.written += 1


def a_learner() -> Learned:
    return Learned(Health(), kept_for=60.0)


def fail(learned: Learned, now: float = 1000.0) -> None:
    """Teach something: this place is down."""
    for _ in range(5):
        learned.health.bad(PLACE, now)


def keeper(learned: Learned, sheet: Notebook | None) -> Keeper:
    return Keeper(learned, sheet, Clock())


def test_what_one_process_wrote_the_next_recalls() -> None:
    async def scene() -> None:
        sheet, before, after = Sheet(), a_learner(), a_learner()
        fail(before)
        await keeper(before, sheet).write()
        keeper(after, sheet).recall()
        assert after.health.state(PLACE, 1000.0) == "down"

    in_virtual_time(scene())


@pytest.mark.parametrize("kept", [b"", b"garbage", b"\xc1", b"\x80", bytes(100), b"\xff" * 5000])
def test_what_cannot_be_understood_is_learned_anew_with_a_warning(
    kept: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    learned = a_learner()
    with caplog.at_level(logging.WARNING, LOGGER):
        keeper(learned, Sheet(kept)).recall()
    assert [record.message.partition(":")[0] for record in caplog.records] == ["data.directory"]
    assert "learned anew" in caplog.text
    assert learned.snapshot(1000.0) == a_learner().snapshot(1000.0)


def test_a_part_of_what_was_written_is_taken_for_nothing(caplog: pytest.LogCaptureFixture) -> None:
    whole = a_learner()
    fail(whole)
    kept = whole.snapshot(1000.0)
    for length in range(len(kept)):
        learned = a_learner()
        keeper(learned, Sheet(kept[:length])).recall()
        assert learned.health.state(PLACE, 1000.0) == "up"
    assert len(caplog.records) == len(kept)


@pytest.mark.parametrize("sheet", [None, Sheet()])
def test_where_nothing_was_kept_nothing_is_said(sheet: Notebook | None, caplog: pytest.LogCaptureFixture) -> None:
    keeper(a_learner(), sheet).recall()
    assert caplog.records == []


def test_only_what_changed_is_written_and_each_change_once() -> None:
    async def scene() -> None:
        sheet, learned = Sheet(), a_learner()
        following = asyncio.ensure_future(keeper(learned, sheet).follow())
        written = []
        for change in (False, True, False, True, True):
            if change:
                learned.given_again([b"link"], PLACE, 1000.0)
            await asyncio.sleep(10)
            written.append(sheet.written)
        following.cancel()
        assert written == [0, 1, 1, 2, 3]

    in_virtual_time(scene())


def test_a_disk_that_takes_nothing_is_told_of_once_until_it_does_again(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        sheet, learned = Sheet(), a_learner()
        following = asyncio.ensure_future(keeper(learned, sheet).follow())
        fail(learned)
        sheet.full = True
        await asyncio.sleep(20)
        assert len(caplog.records) == 1
        assert "Read-only file system" in caplog.text
        sheet.full = False
        await asyncio.sleep(20)
        assert sheet.written == 1  # what could not be written is, though nothing changed since
        sheet.full = True
        learned.given_again([b"link"], PLACE, 1000.0)
        await asyncio.sleep(20)
        assert len(caplog.records) == 2
        following.cancel()

    in_virtual_time(scene())


async def test_who_is_cancelled_before_it_is_written_leaves_it_to_the_last_write() -> None:
    sheet, learned = Sheet(), a_learner()
    keeping = keeper(learned, sheet)
    fail(learned)
    sheet.full = True  # whatever the thread does of the first
    writing = asyncio.ensure_future(keeping.write())
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert not learned.changed
    sheet.full = False
    await keeping.write()
    assert sheet.kept is not None
    assert sheet.written >= 1


async def test_without_a_directory_nothing_is_written_or_said(caplog: pytest.LogCaptureFixture) -> None:
    learned = a_learner()
    fail(learned)
    assert await keeper(learned, None).write() == 0
    assert caplog.records == []


MODELS = {
    "cheap": {"upstream": "sim-instant;status=500", "price": {"input": "1", "output": "1"}},
    "dear": {"upstream": "sim-instant", "price": {"input": "50", "output": "50"}},
}


@asynccontextmanager
async def an_app(simulator: Simulator, directory: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The whole proxy with a route of two models, the cheaper of which always fails; and who asks it."""
    table: Json = {
        "providers": {"sim": {"base_url": simulator.base_url, "auth": "none"}},
        "data": {"directory": str(directory)},
        "models": MODELS,
        "routes": {"any": {"models": list(MODELS), "baseline": "dear"}},
    }
    async with (
        build_app(read_settings(table, source="test"), api_keys={}) as app,
        httpx.AsyncClient(transport=httpx.ASGITransport(app.asgi), base_url="http://localhost") as client,
    ):
        yield client


async def answered(client: httpx.AsyncClient, prompt: str) -> None:
    found = await client.post(CHAT, json=ask(prompt, model="any"), headers={"cache-control": "no-store"})
    assert found.status_code == 200
    assert found.headers["x-penstock-model"] == "sim-instant"


async def test_a_proxy_that_starts_again_knows_what_it_knew(simulator: Simulator, prompt: str, tmp_path: Path) -> None:
    async with an_app(simulator, tmp_path) as client:
        for _ in range(5):
            await answered(client, prompt)
        assert simulator.asked() == 10
        await answered(client, prompt)
        assert simulator.asked() == 11  # the one that failed is not asked any more
    assert (tmp_path / "learned").exists()
    async with an_app(simulator, tmp_path) as client:
        await answered(client, prompt)
        assert simulator.asked() == 12


async def test_a_proxy_that_finds_garbage_starts_without_and_writes_it_over(
    simulator: Simulator, prompt: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "learned").write_bytes(b"garbage")
    async with an_app(simulator, tmp_path) as client:
        assert "learned anew" in caplog.text
        await answered(client, prompt)
        assert simulator.asked() == 2
    a_learner().restore((tmp_path / "learned").read_bytes(), 0.0)


async def test_what_is_kept_tells_no_word_of_a_prompt(simulator: Simulator, prompt: str, tmp_path: Path) -> None:
    async with an_app(simulator, tmp_path) as client:
        await answered(client, f"{prompt} my secret words")
    kept = (tmp_path / "learned").read_bytes()
    assert b"sim-instant" in kept
    assert b"secret" not in kept
    assert b"words" not in kept
