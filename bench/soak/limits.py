"""Limits: of a key, exactly so many in any minute; of a provider, in turns, in order, and nobody is lost."""

import asyncio
import hashlib
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.soak.answers import error_of, is_good
from bench.soak.lab import UNBROKEN, Lab, Proxy, becomes, chat
from bench.soak.wire import Call, finished, sent, sent_at_once

AT_ONCE = 1000
A_MINUTE = 100
TEAMS = ("a", "b", "c")
EACH = 30  # calls of each team
PLACES = 10  # at the provider
LATER = 3  # calls that may have been let go before those that were there first
MODELS = {"quick": "first=0.02;gap=0.01;chunks=6", "slow": "first=0.5"}
CANCELS = 5000
LEAVING = 100  # at a time
PROVIDER = f'{UNBROKEN}\nauth = "none"\n'


def key_table(name: str, *rights: str) -> str:
    """Settings: a key, which is `sk-` and its name."""
    lines = ("[[keys]]", f'name = "{name}"', f'key_sha256 = "{hashlib.sha256(f"sk-{name}".encode()).hexdigest()}"')
    return "\n".join((*lines, *rights)) + "\n"


async def by_the_minute(lab: Lab) -> str:
    """K5."""
    lab.steps(6)
    with TemporaryDirectory() as directory:
        seen = await asyncio.gather(_sliding(lab), _in_turns(lab, Path(directory)), _leaving(lab))
    return "; ".join(seen)


async def _sliding(lab: Lab) -> str:
    """As many at once, again half a minute later, and once the first are a minute old."""
    settings = PROVIDER + key_table("team", f"requests_per_minute = {A_MINUTE}")
    with lab.proxy(settings=settings) as proxy:
        counts = [await _thousand(lab, proxy, A_MINUTE)]
        over = time.monotonic()  # by now the last of them has been counted
        await asyncio.sleep(30)
        counts.append(await _thousand(lab, proxy, 0))
        await asyncio.sleep(max(0.0, over + 60 - time.monotonic()))
        counts.append(await _thousand(lab, proxy, A_MINUTE))
        refused = await proxy.metric('penstock_limit_refusals_total{key="team",limit="requests"}')
        lab.expect(refused == 3 * AT_ONCE - sum(counts), f"the metrics count {refused:.0f} refusals")
        await lab.all_quiet(proxy)
    return (
        f"of {AT_ONCE:,} at once against {A_MINUTE} a minute {counts[0]} answered, 30 s later {counts[1]}, "
        f"after 60 s {counts[2]}"
    )


async def _thousand(lab: Lab, proxy: Proxy, wanted: int) -> int:
    """How many are answered."""
    requests = [chat("sim-instant", lab.question(), stream=number % 2 == 0, key="sk-team") for number in range(AT_ONCE)]
    calls = await sent_at_once(proxy.port, requests)
    await finished(calls)
    answered = sum(map(is_good, calls))
    lab.expect(answered == wanted, f"{answered} of {AT_ONCE} were answered, not {wanted}")
    for call in calls:
        limit = call.headers.get("x-ratelimit-limit-requests")
        lab.expect(limit == str(A_MINUTE), f"x-ratelimit-limit-requests: {limit}")
        if not is_good(call):
            _check_refusal(lab, call)
    lab.step()
    return answered


def _check_refusal(lab: Lab, call: Call) -> None:
    error, after = error_of(call) or {}, call.headers.get("retry-after", "")
    told = (call.status, error.get("code"), error.get("type"))
    lab.expect(told == (429, "rate_limit_exceeded", "requests"), f"refused with {told}")
    lab.expect(after.isdigit() and 1 <= int(after) <= 60, f"Retry-After: {after!r}")
    lab.expect(call.headers.get("x-ratelimit-remaining-requests") == "0", "refused, and something remains")
    lab.expect(bool(call.headers.get("x-ratelimit-reset-requests")), "x-ratelimit-reset-requests is missing")
    lab.expect("x-should-retry" not in call.headers, "refused for good")


async def _in_turns(lab: Lab, data: Path) -> str:
    """Three teams at once, the first of which has sent all its calls before the others begin."""
    settings = PROVIDER + f"max_concurrent = {PLACES}\nrequests_per_minute = 200\n" + "".join(map(key_table, TEAMS))
    requests = [
        chat("sim-instant;first=0.3", f"{team} {number}", stream=number % 2 == 0, key=f"sk-{team}")
        for team in TEAMS
        for number in range(EACH)
    ]
    with lab.proxy(settings=settings, data=data) as proxy:
        most = asyncio.create_task(_most_under_way(proxy))
        calls = []
        for request in requests:
            calls.append(await sent(proxy.port, request))
            await asyncio.sleep(0.002)  # so that the order in which they come in is known
        await finished(calls)
        most.cancel()
        lost = len(requests) - sum(map(is_good, calls))
        lab.expect(not lost, f"{lost} of {len(requests)} were not answered")
        await lab.all_quiet(proxy)
    rows = _attempts(data / "ledger.db")
    at_most = _at_most(rows)
    lab.expect(at_most == PLACES, f"{at_most} calls at once at the provider, not {PLACES}")
    _check_order(lab, calls, [request for request, *_ in rows])
    unfair = _check_shares(lab, [team for _, team, *_ in rows])
    lab.step()
    return (
        f"{len(requests)} from three keys: {len(requests) - lost} served, at most {at_most} at once, in order, "
        f"no key more than {unfair} ahead of another"
    )


async def _most_under_way(proxy: Proxy) -> None:
    """Keep asking, so that the metrics are read while calls wait."""
    while True:
        await proxy.metrics()
        await asyncio.sleep(0.05)


Row = tuple[str, str, float, float]


def _attempts(ledger: Path) -> list[Row]:
    """Of each attempt, in the order in which they were made: request, key, when it began and ended."""
    with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as database:
        found: list[Any] = database.execute("SELECT request, key, at, at + total FROM attempts ORDER BY at").fetchall()
    database.close()
    return [tuple(row) for row in found]


def _at_most(rows: Sequence[Row]) -> int:
    """How many were under way at once, at most."""
    changes = sorted([*((began, 1) for *_, began, _ in rows), *((ended, -1) for *_, ended in rows)])
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


def _check_order(lab: Lab, calls: Sequence[Call], made: Sequence[str]) -> None:
    """Within a team the calls are made as they were sent."""
    place = {request: number for number, request in enumerate(made)}
    for team in range(len(TEAMS)):
        mine = [call.headers.get("x-penstock-request-id", "") for call in calls[team * EACH : (team + 1) * EACH]]
        places = [place.get(request, -1) for request in mine]
        lab.expect(places == sorted(places), f"the calls of one key were made in another order: {places}")


def _check_shares(lab: Lab, teams: Sequence[str]) -> int:
    """From when all wait until the first has no more: none has many more turns than another."""
    counts: Counter[str] = Counter(dict.fromkeys(TEAMS, 0))
    worst = 0
    for team in teams[PLACES:]:
        counts[team] += 1
        if EACH - PLACES in (counts["a"], counts["b"], counts["c"]):
            break
        worst = max(worst, max(counts.values()) - min(counts.values()))
    lab.expect(worst <= LATER, f"one key had {worst} turns more than another")
    return worst


async def _leaving(lab: Lab) -> str:
    """Clients leave at random moments, in the line and after it; then all places are free, of keys and provider."""
    settings = f"{PROVIDER}max_concurrent = {PLACES}\n"
    for name, does in MODELS.items():
        settings += f'[models.{name}]\nupstream = "sim-instant;{does}"\nprice = {{ input = "1", output = "1" }}\n'
    rights = f"max_concurrent = {LEAVING}", f"tokens_per_minute = {10**9}", 'budget = { usd = "1000", per = "total" }'
    settings += "".join(key_table(team, *rights) for team in TEAMS)
    dice = random.Random(5)
    with lab.proxy(settings=settings) as proxy:
        turns = iter(range(CANCELS))
        await asyncio.gather(*(_leave(proxy, dice, turns) for _ in range(LEAVING)))
        lab.step()
        await lab.all_quiet(proxy)
        took = await becomes(lambda: _idle(proxy), 5.0)
        lab.expect(took <= 5, "places at the provider stay taken, calls in the line, or USD set aside")
        for team in TEAMS:
            requests = [chat("slow", lab.question(), key=f"sk-{team}") for _ in range(LEAVING)]
            calls = await sent_at_once(proxy.port, requests)
            taken = await becomes(lambda: _waits(proxy, LEAVING - PLACES), 5.0)
            lab.expect(taken <= 5, "not all places of a key were free")
            for call in calls:
                call.leave()
            await lab.all_quiet(proxy)
        lab.step()
    return f"{CANCELS:,} cancels: every place free again, nothing set aside"


async def _leave(proxy: Proxy, dice: random.Random, turns: Iterator[int]) -> None:
    for number in turns:
        team = TEAMS[number % len(TEAMS)]
        # Two in a row of a team ask the same, so that some leave another reader behind, in the line too.
        request = chat("quick", f"cancel {number // 6}", stream=dice.random() < 0.5, key=f"sk-{team}")
        call = await sent(proxy.port, request)
        await asyncio.sleep(dice.random() * 0.3)
        call.leave(rudely=dice.random() < 0.8)


async def _idle(proxy: Proxy) -> bool:
    metrics = await proxy.metrics()
    taken = [metrics[f'penstock_calls_{what}{{provider="sim"}}'] for what in ("waiting", "under_way")]
    reserved = [metrics[f'penstock_budget_reserved_usd{{id="{team}",key="{team}"}}'] for team in TEAMS]
    return not any(taken + reserved)


async def _waits(proxy: Proxy, count: int) -> bool:
    return await proxy.metric('penstock_calls_waiting{provider="sim"}') == count
