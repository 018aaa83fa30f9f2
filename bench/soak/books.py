"""The ledger beside what the provider saw, call by call: after everything at once, after kills, and as one of several
processes that write it.

Rule: the provider's own list is what is true. Every model of a row's settings has a name of its own there, so that
each call is found in both.
"""

import asyncio
import itertools
import random
import re
import signal
import sqlite3
import sys
import tempfile
from asyncio.subprocess import PIPE
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.soak.answers import is_good
from bench.soak.lab import Lab, Proxy, becomes, chat, in_groups, timed
from bench.soak.wire import Call, answered, fetched, finished, sent, sent_at_once
from proxy.ledger.keys import list_keys

Row = dict[str, Any]
Tokens = tuple[int, int, int]  # prompt, of which cached, completion

ASKS: Final = 5_000
AT_ONCE: Final = 24
NAMES: Final = 160  # models that the settings name
SOUND: Final = 96  # of them, whose answers are whole and say their usage
CROWD: Final = 5
KEYS: Final = ("plain", "rich", "other", "limited", "poor")
KILLS: Final = 20
WRITERS: Final = 30
PICO: Final = 10**12

FAULTS: Final = (
    *("reset=0", "reset=3", "reset-at=900", "cut=0", "cut=4", "cut-at=700", "stall=0", "stall=2", "error=0", "error=5"),
    *("html", "gzip", "type=text/plain", "malformed=2", "status=429;retry-after=0.1", "status=500", "status=503"),
    *("status=400", "redirect=http://127.0.0.1:9/", "endless;gap=0.05", "nodone", "nousage"),
)
# At a provider of its own: that it says no usage is found out once, for all of its models.
ODD: Final = "odd"
_LABELS: Final = re.compile(r'(\w+)="([^"]*)"')  # of a metric
_TIMES: Final = 'breaker_failures = 0\nfirst_event_timeout = "1s"\nidle_timeout = "500ms"\ntotal_timeout = "2s"\n'


@dataclass(frozen=True, slots=True)
class Name:
    """A model as the settings call it, what the simulator is asked for under it, and USD per million tokens."""

    name: str
    upstream: str
    provider: str
    price: tuple[str, str, str]  # input, cached input, output

    @property
    def settings(self) -> str:
        new, cached, output = self.price
        price = f'price = {{ input = "{new}", cached_input = "{cached}", output = "{output}" }}'
        return (
            f'[models."{self.name}"]\nprovider = "{self.provider}"\nupstream = "{self.upstream}"\n{price}\n'
            "window = 8000\nmax_output = 100\n"
        )

    def pico(self, tokens: Iterable[Tokens]) -> int:
        """What these cost, in 1e-12 USD."""
        new, cached, output = map(Decimal, self.price)
        usd = sum(((a - b) * new + b * cached + c * output for a, b, c in tokens), Decimal(0))
        return int(usd * PICO / 1_000_000)


def names(count: int = NAMES, sound: int = SOUND) -> list[Name]:
    """The first `sound` of them give good answers; of the others each has its fault."""
    found = []
    for number in range(count):
        # A moment of its own, so that no two are the same model.
        own = f"sim-{('small', 'medium', 'large')[number % 3]};first={0.004 + number / 100_000:.5f}"
        price = (f"{1 + number % 7}", f"0.{1 + number % 3}25", f"{2 + number % 11}.5")
        if number < sound:
            found.append(Name(f"m{number}", f"{own};gap=0.0005;chunks=20", "sim", price))
        elif number % 8 == 0:
            found.append(Name(f"m{number}", f"{own};gap=0.0005;chunks=20;refuse-usage", ODD, price))
        else:
            found.append(Name(f"m{number}", f"{own};gap=0.0005;{FAULTS[number % len(FAULTS)]}", "sim", price))
    return found


def settings(lab: Lab, known: Iterable[Name], *, drain: str = "2s") -> str:
    """Two providers, five keys, a route over a model that fails and one that does not."""
    known = list(known)
    odd = f'[providers.{ODD}]\nbase_url = "http://127.0.0.1:{lab.simulator.port}/v1"\nauth = "none"\n{_TIMES}'
    rights = {
        "plain": 'passthrough = ["mirror"]\n',
        "rich": 'budget = { usd = "1000", per = "month" }\ntokens_per_minute = 50000000\n',
        "other": "max_concurrent = 500\nrequests_per_minute = 1000000\n",
        "limited": "requests_per_minute = 30\n",
        "poor": 'budget = { usd = "0.004", per = "total" }\n',
    }
    keys = "".join(f'[[keys]]\nname = "{name}"\nkey_env = "KEY_{name.upper()}"\n{rights[name]}' for name in KEYS)
    failing = next((each for each in known if "status=500" in each.upstream), known[0])
    route = f'[routes.any]\nmodels = ["{failing.name}", "{known[1].name}"]\n'
    routing = '[routing]\ndefault_provider = "sim"\n'
    server = f'[server]\ndrain = "{drain}"\nforward_headers = ["X-Simulator"]\n'
    models = "".join(each.settings for each in known)
    return f'auth = "none"\n{_TIMES}{odd}{server}{routing}{models}{route}{keys}'


ENVIRON: Final = {f"KEY_{name.upper()}": f"sk-{name}" for name in KEYS}


# What each side says.


class Books:
    """The rows of a ledger as they are now."""

    def __init__(self, data: Path) -> None:
        uri = f"{(data / 'ledger.db').absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            self.attempts: list[Row] = [dict(row) for row in connection.execute("SELECT * FROM attempts ORDER BY at")]
            self.requests: list[Row] = [dict(row) for row in connection.execute("SELECT * FROM requests ORDER BY at")]

    def by_model(self) -> dict[str, list[Row]]:
        found = defaultdict(list)
        for row in self.attempts:
            found[row["model"]].append(row)
        return found

    @property
    def charged(self) -> Decimal:
        """USD."""
        return Decimal(sum(row["usd"] or 0 for row in self.attempts)) / PICO


def is_certain(row: Row) -> bool:
    """Did the provider surely see this call? Whoever was abandoned may have been so before a byte went out."""
    return row["ended"] not in ("abandoned", "unknown", "upstream_connect_error", "upstream_tls_error")


def is_said(row: Row) -> bool:
    """Does the row hold what the provider said of a whole answer?"""
    return row["ended"] == "ok" and not row["estimated"] and row["input"] is not None


def tokens_of(row: Row) -> Tokens:
    return row["input"], row["cached"], row["output"]


async def lines(lab: Lab) -> list[Row]:
    """The simulator's calls, one by one."""
    found: list[Row] = msgspec.json.decode(await fetched(lab.simulator.port, "/simulator/served"))
    return found


def sent_of(line: Row) -> Tokens:
    return line["prompt_tokens"], line["cached_tokens"], line["completion_tokens"]


@dataclass(slots=True)
class Figures:
    """What a comparison came to."""

    calls: int = 0
    rows: int = 0
    whole: int = 0
    tokens: int = 0  # of whole calls, on both sides
    cut: int = 0
    reserved: int = 0  # of them, that are charged all that was set aside
    estimated: int = 0  # tokens of cut calls by the ledger
    had_sent: int = 0  # and by the simulator

    @property
    def words(self) -> str:
        return (
            f"{self.calls:,} calls, {self.rows:,} rows; {self.whole:,} finished calls, {self.tokens:,} tokens on both "
            f"sides; {self.cut:,} cut or silent about their usage: {self.reserved:,} charged as reserved, the others "
            f"estimated at {self.estimated:,} tokens; of all of them the provider had sent {self.had_sent:,}"
        )


def compare(lab: Lab, known: Iterable[Name], rows: Mapping[str, list[Row]], called: Iterable[Row]) -> Figures:
    """Model by model: every call has its row, and whole ones have the provider's tokens, and cost what they cost."""
    seen = defaultdict(list)
    for line in called:
        seen[line["asked"]].append(line)
    figures = Figures()
    for each in known:
        _compare_one(lab, each, rows.get(each.name, []), seen.pop(each.upstream, []), figures)
    lab.expect(not seen, f"the provider was asked for what no row can be of: {list(seen)[:3]}")
    return figures


def _compare_one(lab: Lab, name: Name, rows: list[Row], called: list[Row], figures: Figures) -> None:
    unsent = [row for row in rows if row["ended"] == "abandoned" and row["usd"] == 0]
    certain = sum(map(is_certain, rows))
    what = f"{name.name} ({name.upstream})"
    lab.expect(len(called) <= len(rows) - len(unsent), f"{what}: a call without a row")
    lab.expect(certain <= len(called), f"{what}: {certain} rows of {len(called)} calls")
    lab.expect(all(row["ended"] is not None for row in rows), f"{what}: a row that nobody ended")
    said = [tokens_of(row) for row in rows if is_said(row)]
    whole = Counter(sent_of(line) for line in called if line["ended"] == "answered")
    lab.expect(not Counter(said) - Counter(map(sent_of, called)), f"{what}: tokens that the provider did not say")
    cut = [row for row in rows if not is_said(row)]
    beyond = whole - Counter(said)
    lab.expect(sum(beyond.values()) <= len(cut), f"{what}: {sum(beyond.values())} answers of which no row tells")
    lab.expect(
        sum(row["usd"] for row in rows if is_said(row)) == name.pico(said), f"{what}: another cost than its price says"
    )
    figures.calls += len(called)
    figures.rows += len(rows)
    figures.whole += len(said)
    figures.tokens += sum(prompt + output for prompt, _, output in said)
    estimated = [row for row in cut if row["estimated"]]
    figures.cut += len(estimated)
    figures.reserved += sum(row["input"] is None for row in estimated)
    figures.estimated += sum((row["input"] or 0) + (row["output"] or 0) for row in estimated)
    left = Counter(map(sent_of, called)) - Counter(said)
    figures.had_sent += sum((prompt + output) * count for (prompt, _, output), count in left.items())


# O5: everything at once.


class Load:
    """Clients of several keys; `refused` counts those that showed none that is in force."""

    def __init__(self, lab: Lab, proxy: Proxy, known: list[Name], dice: random.Random) -> None:
        self.unknown = self.passed = 0
        self.ending = False
        self._lab = lab
        self._proxy = proxy
        self._sound = [each for each in known if "chunks=20" in each.upstream and each.provider != ODD]
        self._spoiled = [each for each in known if each not in self._sound]
        self._dice = dice
        self._numbers = itertools.count()
        steps: dict[Callable[[], Awaitable[None]], int] = {
            self._anew: 40,
            self._again: 15,
            self._bypass: 5,
            self._crowd: 4,
            self._spoil: 14,
            self._leave: 14,
            self._route: 4,
            self._pass: 2,
            self._break_in: 2,
        }
        self._steps, self._shares = list(steps), list(steps.values())

    async def step(self) -> None:
        """What a client, or a crowd of them, may do."""
        (step,) = self._dice.choices(self._steps, self._shares)
        await step()

    def _request(self, name: str, question: str, more: tuple[str, ...] = (), key: str = "") -> bytes:
        key = key or self._dice.choices(KEYS, (10, 8, 8, 1, 1))[0]
        stream = self._dice.random() < 0.6
        return chat(name, question, stream=stream, key=f"sk-{key}", more=more)

    def _new(self) -> str:
        return "word " * self._dice.randrange(1, 40) + str(next(self._numbers))

    async def _anew(self) -> None:
        await answered(self._proxy.port, self._request(self._dice.choice(self._sound).name, self._new()))

    async def _again(self) -> None:
        name = self._sound[self._dice.randrange(5)].name
        await answered(self._proxy.port, self._request(name, f"well known {self._dice.randrange(3)}"))

    async def _bypass(self) -> None:
        request = self._request(self._dice.choice(self._sound).name, "the same", ("Cache-Control: no-store",))
        await answered(self._proxy.port, request)

    async def _crowd(self) -> None:
        name, question = self._dice.choice(self._sound).name, self._new()
        requests = [self._request(name, question, key="plain") for _ in range(CROWD)]
        await finished(await sent_at_once(self._proxy.port, requests))

    async def _spoil(self) -> None:
        await answered(self._proxy.port, self._request(self._dice.choice(self._spoiled).name, self._new()))

    async def _route(self) -> None:
        await answered(self._proxy.port, self._request("any", self._new()))

    async def _leave(self) -> None:
        name = self._dice.choice(self._sound).name
        call = await sent(self._proxy.port, self._request(name, self._new(), key="rich"))
        await asyncio.sleep(self._dice.random() * 0.04)
        call.leave(rudely=self._dice.random() < 0.7)
        await finished([call])

    async def _pass(self) -> None:
        self.passed += 1
        head = "GET /v1/mirror/bytes/1000 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        call = await answered(self._proxy.port, f"{head}Authorization: Bearer sk-plain\r\n\r\n".encode())
        self._lab.expect(self.ending or call.status == 200, f"passed through: status {call.status}")

    async def _break_in(self) -> None:
        self.unknown += 1
        call = await answered(self._proxy.port, self._request(self._sound[0].name, "who is there", key="nobody"))
        self._lab.expect(self.ending or call.status == 401, f"a key that is none: status {call.status}")


async def balanced(lab: Lab, asks: int = ASKS, count: int = NAMES, sound: int = SOUND, within: float = 5.0) -> str:
    """O5, and that metrics and ledger agree. `within`: seconds for what is to become quiet."""
    lab.steps(asks)
    known = names(count, sound)
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory, "data")
        with lab.proxy(settings=settings(lab, known), data=data, warns=True, environ=ENVIRON) as proxy:
            load = Load(lab, proxy, known, random.Random(7))

            async def step() -> None:
                await load.step()
                lab.step()

            await in_groups((step() for _ in range(asks)), AT_ONCE)
            await lab.all_quiet(proxy, within)
            await _agree(lab, proxy, load, data, within)
            running = [asyncio.ensure_future(load.step()) for _ in range(2 * AT_ONCE)]
            await asyncio.sleep(0.02)
            load.ending = True
            proxy.process.send_signal(signal.SIGTERM)
            await asyncio.gather(*running, return_exceptions=True)
            await _gone(lab, proxy)
        lab.expect(await lab.open_becomes(0, within) < within, "calls stay open at the provider")
        books = Books(data)
        figures = compare(lab, known, books.by_model(), await lines(lab))
        _check_rows(lab, books)
    outcomes = Counter(row["outcome"] for row in books.requests)
    said = ", ".join(f"{number:,} {outcome}" for outcome, number in outcomes.most_common())
    return f"{figures.words}; {books.charged:.4f} USD; {said}"


async def _gone(lab: Lab, proxy: Proxy) -> None:
    async def gone() -> bool:
        return proxy.process.poll() is not None

    await becomes(gone, 15)
    lab.expect(proxy.process.poll() == 0, f"exit {proxy.process.poll()} after SIGTERM")


def _check_rows(lab: Lab, books: Books) -> None:
    """Each attempt belongs to a request that has its row; nobody is nobody."""
    known = {row["id"] for row in books.requests}
    for row in books.attempts:
        lab.expect(row["request"] in known, f"an attempt ({row['ended']}) without the row of its request")
    for row in (*books.attempts, *books.requests):
        lab.expect(row["key"] in KEYS, f"a row of {row['key']!r}")
    for row in books.requests:
        lab.expect(row["outcome"] != "collapsed" or row["leader"] in known, "a joiner whose leader has no row")


async def _agree(lab: Lab, proxy: Proxy, load: Load, data: Path, within: float) -> None:
    """What the metrics count is what the ledger holds."""

    async def written() -> bool:
        return await proxy.metric("penstock_ledger_pending_rows") == 0

    lab.expect(await becomes(written, within) < within, "rows stay unwritten")
    metrics, books = await proxy.metrics(), Books(data)
    counted = Counter((row["endpoint"], row["outcome"], str(row["status"])) for row in books.requests)
    counted["chat", "refused", "401"] += load.unknown
    told: Counter[tuple[str, str, str]] = Counter()
    for name, count in metrics.items():
        if name.startswith("penstock_requests_total") and 'endpoint="wire"' not in name:
            labels = dict(_LABELS.findall(name))
            told[labels["endpoint"], labels["outcome"], labels["status"]] += int(count)
    for each in told.keys() | counted.keys():
        lab.expect(told[each] == counted[each], f"{each}: {told[each]} by the metrics, {counted[each]} rows")
    passed = sum(row["endpoint"] == "passthrough" for row in books.attempts)
    lab.expect(passed == load.passed, f"{passed} rows of {load.passed} calls passed through")
    _same_money(lab, metrics, "penstock_cost_usd_total", books.charged)
    saved = Decimal(sum(row["saved"] or 0 for row in books.requests)) / PICO
    _same_money(lab, {name: usd for name, usd in metrics.items() if "routing" not in name}, "penstock_saved_usd", saved)
    tried = sum(usd for name, usd in metrics.items() if name.startswith("penstock_attempts_total"))
    # A call that was given up while its row was written was not made.
    made = sum(not (row["ended"] == "abandoned" and row["usd"] == 0) for row in books.attempts)
    lab.expect(tried == made, f"{tried:.0f} attempts by the metrics, {made} rows")


def _same_money(lab: Lab, metrics: Mapping[str, float], name: str, usd: Decimal) -> None:
    told = sum(value for metric, value in metrics.items() if metric.startswith(name) and "_created" not in metric)
    lab.expect(abs(told - float(usd)) < 1e-8, f"{name}: {told} by the metrics, {usd} in the ledger")


# S3: kills.


async def survived(lab: Lab, kills: int = KILLS, writers: int = WRITERS, within: float = 2.0) -> str:
    """`within`: seconds for a start. Each writer asks a model of its own, one call after the other: at most its last
    one may be in doubt.
    """
    lab.steps(kills)
    dice, slowest, unknown, figures = random.Random(7), 0.0, 0, Figures()
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory)
        before: dict[str, list[Row]] = {}
        seen = 0
        for number in range(kills):
            known = [
                Name(f"r{number}w{writer}", f"sim-instant;first=0.02{writer:02}{number:02};gap=0.001;chunks=20", "sim",
                     ("1", "0.5", "2")) for writer in range(writers)
            ]  # fmt: skip
            with lab.proxy(settings=settings(lab, known), data=data, warns=True, environ=ENVIRON) as proxy:
                slowest = max(slowest, proxy.running.ready)
                await _settled(lab, proxy, data, figures)
                await _until_killed(lab, proxy, known, 0.3 + dice.random() * 0.4)
            lab.expect(await lab.open_becomes(0, 3 * within) < 3 * within, "calls stay open at the provider")
            before = Books(data).by_model()
            called = (await lines(lab))[seen:]
            seen += len(called)
            unknown += _compare_killed(lab, known, before, called, figures)
            lab.step()
        with lab.proxy(settings=settings(lab, names(3, 3)), data=data, warns=True, environ=ENVIRON) as proxy:
            slowest = max(slowest, proxy.running.ready)
            await _settled(lab, proxy, data, figures)
        books = Books(data)
        _check_rows(lab, books)
        marked = [row for row in books.attempts if row["ended"] == "unknown"]
        lab.expect(all(row["estimated"] and row["usd"] == row["reserved"] for row in marked), "not charged as reserved")
    lab.expect(slowest < within, f"a start took {slowest:.2f} s")
    return (
        f"{kills} kills: {figures.calls:,} calls, each with its row, of {figures.rows:,}; {unknown} were under way and "
        f"are marked; slowest start {slowest:.2f} s"
    )


async def _until_killed(lab: Lab, proxy: Proxy, known: list[Name], seconds: float) -> None:
    asking = [asyncio.ensure_future(_ask_on(lab, proxy, each)) for each in known]
    await asyncio.sleep(seconds)
    proxy.process.kill()
    await asyncio.gather(*asking)
    proxy.process.wait()


async def _ask_on(lab: Lab, proxy: Proxy, name: Name) -> None:
    while proxy.process.poll() is None:
        try:
            call = await answered(proxy.port, chat(name.name, lab.question(), key="sk-rich"))
        except OSError:
            return
        lab.expect(is_good(call) or not call.whole, f"before the kill: status {call.status}")


def _compare_killed(
    lab: Lab, known: Iterable[Name], rows: Mapping[str, list[Row]], called: list[Row], figures: Figures
) -> int:
    """Before the next start: how many are open."""
    count = 0
    for each in known:
        mine, seen = rows.get(each.name, []), [line for line in called if line["asked"] == each.upstream]
        whole = Counter(sent_of(line) for line in seen if line["ended"] == "answered")
        ended = [tokens_of(row) for row in mine if is_said(row)]
        lab.expect(len(seen) <= len(mine) <= len(seen) + 1, f"{len(seen)} calls, {len(mine)} rows of one writer")
        lab.expect(not Counter(ended) - whole, "tokens that the provider did not say")
        count += sum(row["ended"] is None for row in mine)
        figures.calls += len(seen)
        figures.rows += len(mine)
    return count


async def _settled(lab: Lab, proxy: Proxy, data: Path, figures: Figures) -> None:
    """After a start nothing is open, and what a key has spent is the sum of its rows."""
    books = Books(data)
    lab.expect(all(row["ended"] is not None for row in books.attempts), "open rows after a start")
    lab.expect(len(books.attempts) == figures.rows, f"{len(books.attempts)} rows, {figures.rows} before the start")
    rich = Decimal(sum(row["usd"] or 0 for row in books.attempts if row["key"] == "rich")) / PICO
    metrics = await proxy.metrics()
    spent = metrics.get('penstock_budget_spent_usd{id="rich",key="rich"}', -1)
    reserved = metrics.get('penstock_budget_reserved_usd{id="rich",key="rich"}', -1)
    lab.expect(abs(spent - float(rich)) < 1e-9, f"spent: {spent} by the metrics, {rich} by the rows")
    lab.expect(reserved == 0, f"{reserved} USD reserved after a start")


# S5: several processes on one ledger.

WRITES: Final = 1_500
MAKERS: Final = 3
_MAKE: Final = """
import sys, time
from pathlib import Path
from proxy.core.access import Grant
from proxy.ledger.keys import create_key, revoke_key
data, maker, pairs = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for number in range(pairs):
    row, _ = create_key(data, Grant(f"{maker}-{number}"), now=time.time())
    if number % 3:
        revoke_key(data, row.id, now=time.time())
    else:
        create_key(data, Grant(f"{maker}-{number}-kept"), now=time.time())
"""


async def shared(lab: Lab, writes: int = WRITES, within: float = 5.0) -> str:
    """The proxy writes, and commands that make and revoke keys write beside it."""
    lab.steps(2)
    known = names(AT_ONCE, AT_ONCE)
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory, "data")
        with lab.proxy(settings=settings(lab, known), data=data, environ=ENVIRON) as proxy:
            command = (sys.executable, "-c", _MAKE, str(data))
            makers = [
                await asyncio.create_subprocess_exec(*command, f"maker{number}", str(writes // 2), stderr=PIPE)
                for number in range(MAKERS)
            ]
            asked, slowest = 0, 0.0
            busy = asyncio.gather(*(maker.communicate() for maker in makers))
            while not busy.done() or asked < writes:
                asks = [chat(known[number].name, lab.question(), key="sk-rich") for number in range(AT_ONCE)]
                calls, took = await timed(_all(proxy, asks))
                slowest, asked = max(slowest, took), asked + len(calls)
                await asyncio.sleep(0.0 if asked < writes else 0.2)
                for call in calls:
                    lab.expect(is_good(call), f"beside the commands: status {call.status}")
            for maker, (_, said) in zip(makers, await busy, strict=True):
                lab.expect(maker.returncode == 0, f"a command was locked out: {said.decode().splitlines()[-1:]}")
            lab.step()
            await lab.all_quiet(proxy, within)
        lab.step()
        books, kept = Books(data), list_keys(data)
        figures = compare(lab, known, books.by_model(), await lines(lab))
        _check_rows(lab, books)
        pairs = writes // 2
        in_force = sum(row.revoked is None for row in kept)
        wanted = 2 * len(range(0, pairs, 3)) * MAKERS
        made = MAKERS * (pairs + len(range(0, pairs, 3)))
        lab.expect(len(kept) == made, f"{len(kept)} keys, {made} were made")
        lab.expect(in_force == wanted, f"{in_force} keys in force, not {wanted}")
    return (
        f"{made} keys made, {made - in_force} revoked; {figures.words}; {AT_ONCE} at once took {slowest:.2f} s at most"
    )


async def _all(proxy: Proxy, asks: list[bytes]) -> list[Call]:
    calls = await sent_at_once(proxy.port, asks)
    await finished(calls)
    return calls
