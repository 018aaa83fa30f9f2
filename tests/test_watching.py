"""What a scraper is told of the rest of the proxy as it is now, and what is looked at beside it once a second."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import proxy
from proxy.core.access import UNLIMITED, Access, Allowance, Grant, Limits
from proxy.core.breaker import FAILURES, Health
from proxy.core.budget import Purses
from proxy.core.history import History
from proxy.flights import Flight, Flights
from proxy.limiter import Limiter
from proxy.meter import Meter
from proxy.store.disk import DiskStats
from proxy.store.tiered import StoreStats
from proxy.watching import SPACE, Pause, exposition, pauses, upstreams_of, watch, watch_beside
from tests.fakes import Clock, LoopClock, in_virtual_time, roomy, some_settings, turns
from tests.ledger.told import answer
from tests.test_meter import counted, samples

D = Decimal
HALF_A_MONTH = datetime(2023, 11, 16, tzinfo=UTC).timestamp()  # of 30 days
NO_DISK = StoreStats(3, 300, 5, 1, 10, None)
SETTINGS = some_settings({"fast": {"upstream": "fast-1"}, "plain": {}}, cache={"memory_limit": 1000})


@dataclass
class Rig:
    """A meter that watches over all of it."""

    meter: Meter = field(default_factory=lambda: Meter(["fast", "plain"]))
    clock: Clock = field(default_factory=Clock)
    health: Health = field(default_factory=Health)
    purses: Purses = field(default_factory=Purses)
    stats: StoreStats = NO_DISK
    ledger: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(pending=7, lag=0.5))
    grants: tuple[Grant, ...] = ()
    providers: dict[str, Limits] = field(default_factory=lambda: {"sim": UNLIMITED})

    def __post_init__(self) -> None:
        self.flights = Flights(on_abandon="cancel", max_entry=1 << 20, load=roomy())
        self.limiter = Limiter(self.clock, providers=self.providers, models={}, queue_timeout={"sim": 60.0})
        base: Any = SimpleNamespace(
            clock=self.clock,
            ledger=self.ledger,
            store=SimpleNamespace(stats=lambda: self.stats),
            keyring=SimpleNamespace(access=Access({each.id.encode(): each for each in self.grants})),
            learned=SimpleNamespace(health=self.health),
        )
        watch(self.meter, SETTINGS, base, self.limiter, self.purses, self.flights)

    def told(self, name: str) -> dict[tuple[str, ...], float]:
        return counted(self.meter, name)


def test_the_version_the_ledger_and_what_is_held_are_told() -> None:
    rig = Rig()
    rig.flights.load.recorded, rig.flights.load.received = 20, 30
    assert rig.told("build_info") == {(proxy.__version__,): 1}
    assert rig.told("ledger_pending_rows") == {(): 7}
    assert rig.told("ledger_lag_seconds") == {(): 0.5}
    assert rig.told("recorded_bytes") == {(): 20}
    assert rig.told("received_bytes") == {(): 30}


async def test_flights_are_told_and_how_many_began_were_joined_and_were_left() -> None:
    rig = Rig()

    async def make(_: Flight) -> None:
        await asyncio.Event().wait()

    def figures() -> list[float]:
        names = ("flights", "flights_started", "flights_joined", "flights_abandoned", "readers")
        return [rig.told(name)[()] for name in names]

    reader = rig.flights.lead((b"key",), make, ttl=60.0)
    alone = rig.flights.lead((), make, ttl=60.0)
    other = reader.flight.reader(60.0)
    assert figures() == [2, 2, 1, 0, 3]
    for each in (alone, other, reader):
        each.leave()
    await turns()
    assert figures() == [0, 2, 1, 2, 0]


# The store.


def test_without_a_disk_the_store_is_its_memory() -> None:
    rig = Rig()
    assert rig.told("store_entries") == {("memory",): 3}
    assert rig.told("store_bytes") == {("memory",): 300}
    assert rig.told("store_limit_bytes") == {("memory",): 1000}
    assert rig.told("store_evictions") == {("memory",): 5}
    assert rig.told("store_queue_bytes") == {(): 10}


def test_each_tier_is_told_of() -> None:
    rig = Rig(stats=StoreStats(3, 300, 5, 1, 10, DiskStats(40, 4000, 9000, 2)))
    assert rig.told("store_entries") == {("memory",): 3, ("disk",): 40}
    assert rig.told("store_bytes") == {("memory",): 300, ("disk",): 4000}
    assert rig.told("store_limit_bytes") == {("memory",): 1000, ("disk",): 9000}
    assert rig.told("store_evictions") == {("memory",): 5, ("disk",): 2}


# Limits.


def test_a_keys_limits_are_told_and_what_is_used_of_them() -> None:
    limits = Limits(requests_per_minute=3, tokens_per_minute=500, max_concurrent=2)
    team, free = Grant("team", "pk_1", limits=limits), Grant("free", "pk_2")
    rig = Rig(grants=(team, free))
    most = {("team", "requests"): 3, ("team", "tokens"): 500, ("team", "concurrent"): 2}
    assert rig.told("limit") == most
    assert rig.told("limit_used") == dict.fromkeys(most, 0)
    visit = rig.limiter.visit(team)
    rig.limiter.visit(free)
    rig.limiter.claim(team, 400)
    assert rig.told("limit_used") == {("team", "requests"): 1, ("team", "tokens"): 400, ("team", "concurrent"): 1}
    visit.leave()
    assert rig.told("limit_used")["team", "concurrent"] == 0
    rig.clock.now += 61
    assert rig.told("limit_used") == dict.fromkeys(most, 0)
    assert rig.told("limit") == most


async def test_a_providers_limits_are_told_and_who_waits_at_them() -> None:
    rig = Rig(providers={"sim": Limits(max_concurrent=1, requests_per_minute=9), "other": UNLIMITED})
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(rig.limiter.ticket("sim", "m", ("sim", "m", ""), share="a", tokens=10)) for _ in "ab"
        )
        await first.turn()
        first.sent()
        waiting = asyncio.ensure_future(second.turn())
        await turns()
        assert rig.told("provider_limit") == {("sim", "concurrent"): 1, ("sim", "requests"): 9}
        assert rig.told("provider_limit_used") == {("sim", "concurrent"): 1, ("sim", "requests"): 1}
        assert rig.told("calls_waiting") == {("sim",): 1, ("other",): 0}
        assert rig.told("calls_under_way") == {("sim",): 1, ("other",): 0}
        waiting.cancel()
        await asyncio.wait([waiting])
    assert rig.told("calls_waiting") == rig.told("calls_under_way") == {("sim",): 0, ("other",): 0}


# Budgets.

MONTHLY = Grant("team", "pk_1", budget=Allowance(D(50), "month"))
IN_ALL = Grant("team", "team", budget=Allowance(D(9), "total"))


def budgets(rig: Rig) -> dict[str, dict[tuple[str, ...], float]]:
    names = ("usd", "spent_usd", "reserved_usd", "forecast_usd", "nearly_spent")
    return {name: rig.told(f"budget_{name}") for name in names}


def test_budgets_are_told_by_key_even_of_one_name_and_a_forecast_only_where_there_is_one() -> None:
    rig = Rig(grants=(MONTHLY, IN_ALL, Grant("free", "pk_2")))
    rig.clock.now = HALF_A_MONTH
    rig.purses.tell(MONTHLY, HALF_A_MONTH, lambda *_: D(41))
    purse = rig.purses.of(MONTHLY, HALF_A_MONTH)
    assert purse is not None
    purse.hold(D("0.5"), HALF_A_MONTH)
    month, total = ("team", "pk_1"), ("team", "team")
    assert budgets(rig) == {
        "usd": {month: 50, total: 9},
        "spent_usd": {month: 41, total: 0},
        "reserved_usd": {month: 0.5, total: 0},
        "forecast_usd": {month: 82},
        "nearly_spent": {month: 1, total: 0},
    }


def test_a_budget_begins_anew_with_its_window_even_if_nobody_asks() -> None:
    rig = Rig(grants=(MONTHLY,))
    rig.clock.now = HALF_A_MONTH
    rig.purses.tell(MONTHLY, HALF_A_MONTH, lambda *_: D(41))
    rig.clock.now += 16 * 86_400
    assert budgets(rig)["spent_usd"] == budgets(rig)["nearly_spent"] == {("team", "pk_1"): 0}


def test_of_a_key_that_is_over_nothing_is_told() -> None:
    limits = Limits(max_concurrent=2)
    over = Grant("over", "pk_3", budget=Allowance(D(9), "total"), limits=limits, expires=HALF_A_MONTH)
    rig = Rig(grants=(over,))
    rig.clock.now = HALF_A_MONTH - 1
    assert budgets(rig)["usd"] == {("over", "pk_3"): 9}
    rig.clock.now += 1
    assert budgets(rig)["usd"] == rig.told("limit") == rig.told("limit_used") == {}


# Health.

WELL = {("sim", "fast"): 0, ("sim", "plain"): 0}


def fails(rig: Rig, upstream: str, times: int = FAILURES, account: str = "") -> None:
    for _ in range(times):
        rig.health.bad(("sim", upstream, account), rig.clock.now, account=bool(account))


def test_the_models_of_the_settings_are_told_of_while_they_are_well() -> None:
    rig = Rig()
    assert rig.told("breaker_open") == rig.told("cooldown_seconds") == WELL
    assert rig.told("breaker_openings") == {}


def test_a_model_that_is_left_alone_is_told_by_its_name_in_the_settings() -> None:
    rig = Rig()
    fails(rig, "fast-1", FAILURES - 1)
    assert rig.told("breaker_open") == WELL
    fails(rig, "fast-1", 1)
    assert rig.told("breaker_open") == {**WELL, ("sim", "fast"): 1}
    assert rig.told("breaker_openings") == {("sim",): 1}
    rig.clock.now += 3600  # its pause is over: whoever asks next may
    assert rig.told("breaker_open") == {**WELL, ("sim", "fast"): 1}
    rig.health.good(("sim", "fast-1", ""), rig.clock.now)
    assert rig.told("breaker_open") == WELL
    assert rig.told("breaker_openings") == {("sim",): 1}


def test_a_model_that_only_a_client_named_is_told_by_its_label() -> None:
    rig = Rig()
    fails(rig, "junk 1")
    fails(rig, "junk 2")
    assert rig.told("breaker_open") == {**WELL, ("sim", "other"): 1}
    rig.meter.attempt("sim", "junk 1", "ok", 1.0)
    assert rig.told("breaker_open") == {**WELL, ("sim", "other"): 1, ("sim", "junk 1"): 1}
    assert rig.told("breaker_openings") == {("sim",): 2}


def test_a_cooldown_is_told_by_what_is_left_of_the_longest() -> None:
    rig = Rig()
    for account, seconds in (("one", 20.0), ("two", 40.0), ("three", 10.0)):
        rig.health.cool(("sim", "plain", account), rig.clock.now, seconds)
    assert rig.told("cooldown_seconds") == {**WELL, ("sim", "plain"): 40}
    rig.clock.now += 15
    assert rig.told("cooldown_seconds") == {**WELL, ("sim", "plain"): 25}
    assert rig.told("breaker_open") == WELL


def test_a_breaker_that_is_open_for_one_account_is_told_though_others_are_well() -> None:
    rig = Rig()
    fails(rig, "plain", account="one")
    fails(rig, "plain", 1, account="two")
    assert rig.told("breaker_open") == {**WELL, ("sim", "plain"): 1}


def test_models_are_known_by_what_their_provider_calls_them() -> None:
    settings = some_settings(
        {"fast": {"upstream": "fast-1"}, "plain": {}}, routes={"any": {"models": ["fast", "unnamed"]}}
    )
    assert upstreams_of(settings) == {
        ("sim", "fast"): "fast-1",
        ("sim", "plain"): "plain",
        ("sim", "unnamed"): "unnamed",
    }


def test_two_names_of_one_model_are_left_alone_together() -> None:
    health, meter = Health(failures=1), Meter(["one", "two"])
    upstreams = {("sim", "one"): "same", ("sim", "two"): "same", ("sim", "three"): "three"}
    health.bad(("sim", "same", ""), 1000.0)
    found = pauses(meter, health, upstreams, 1000.0)
    assert found["sim", "one"] == found["sim", "two"]
    assert found["sim", "one"].down > 0
    assert found["sim", "three"] == Pause()


# Beside it.


class Late(LoopClock):
    """Runs ahead of the loop's timers: the loop is late by that much."""

    ahead = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.ahead


def beside(scene: Callable[[Meter, Late, History], Awaitable[None]], directory: Path) -> None:
    """The scene while somebody watches."""

    async def run() -> None:
        meter, clock = Meter(), Late()
        history = History(meter.tallies)
        watching = asyncio.ensure_future(watch_beside(meter, history, clock, directory))
        try:
            await scene(meter, clock, history)
            assert not watching.done(), watching
        finally:
            watching.cancel()

    in_virtual_time(run())


def test_free_space_is_told_once_it_was_looked_at(tmp_path: Path) -> None:
    async def scene(meter: Meter, _: Late, __: History) -> None:
        await turns()
        ((free,), (size,)) = (counted(meter, f"data_{name}_bytes").values() for name in ("free", "size"))
        assert 0 < free <= size

    beside(scene, tmp_path)
    rig = Rig()  # where nobody has looked
    assert rig.told("data_free_bytes") == rig.told("data_size_bytes") == {}


def test_free_space_is_looked_at_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: Iterator[int] = iter(range(1, 10))
    found = {"f_frsize": 4096, "f_blocks": 100}
    monkeypatch.setattr("os.statvfs", lambda _: SimpleNamespace(f_bavail=next(looks), **found))

    async def scene(meter: Meter, _: Late, __: History) -> None:
        for look in (1, 2, 3):
            await turns()
            assert counted(meter, "data_free_bytes") == {(): look * 4096}
            assert counted(meter, "data_size_bytes") == {(): 409_600}
            await asyncio.sleep(SPACE)

    beside(scene, tmp_path)


def test_where_the_space_cannot_be_told_it_is_not_and_all_else_goes_on(tmp_path: Path) -> None:
    async def scene(meter: Meter, _: Late, __: History) -> None:
        await asyncio.sleep(2.5)
        assert counted(meter, "data_free_bytes") == counted(meter, "data_size_bytes") == {}
        assert samples(meter.exposition())["penstock_event_loop_lag_seconds_count", ()] == 2

    beside(scene, tmp_path / "gone")


def test_once_a_second_it_is_measured_how_late_the_loop_is(tmp_path: Path) -> None:
    async def scene(meter: Meter, clock: Late, _: History) -> None:
        await asyncio.sleep(3.5)
        clock.ahead += 0.25
        await asyncio.sleep(2)
        found = samples(meter.exposition())
        assert found["penstock_event_loop_lag_seconds_count", ()] == 5
        assert found["penstock_event_loop_lag_seconds_sum", ()] == pytest.approx(0.25)

    beside(scene, tmp_path)


def test_once_a_second_the_history_looks(tmp_path: Path) -> None:
    async def scene(meter: Meter, clock: Late, history: History) -> None:
        meter.answered(answer(), "team")
        await asyncio.sleep(1.5)
        assert [figures.requests for _, figures in history.minutes(clock.wall())] == [1]

    beside(scene, tmp_path)


async def test_what_a_scraper_reads_is_all_that_there_is() -> None:
    rig = Rig()
    assert samples(await exposition(rig.meter)) == samples(rig.meter.exposition())
