"""The ledger of a real proxy: what it holds beside what the provider saw, and what it never holds."""

import itertools
import logging
import resource
import socket
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
import uvloop
from sqlalchemy import event

from bench.servers import started
from bench.soak.books import Books, balanced
from bench.soak.lab import Lab
from proxy.clock import SystemClock
from proxy.core.books import LONGEST, Answered, Attempted, Intent
from proxy.errors import LedgerUnavailable
from proxy.ledger import Ledger, backlog
from tests.conftest import MakeProxy
from tests.scripted import Scripted, Wire, chunk, events, post
from tests.support import (
    CHAT,
    DEADLINE,
    FakeClock,
    Json,
    Proxy,
    Simulator,
    ask,
    eventually,
    eventually_async,
    proxy_table,
)
from tests.test_commands import Served

NAMED = {"sim-instant": {"price": {"input": "2", "output": "4"}, "window": 8000, "max_output": 100}}


def key(name: str, **rights: object) -> Json:
    return {"name": name, "key_sha256": sha256(f"sk-{name}".encode()).hexdigest(), **rights}


def bearer(name: str) -> Json:
    return {"authorization": f"Bearer sk-{name}"}


def small(work: Callable[[Lab], Awaitable[str]]) -> None:
    """A row of the soak, small; what falls short is told."""
    with started("proxy", "simulator", "--port", "0") as simulator:
        lab = Lab(simulator, steps=lambda _: None, step=lambda: None)
        uvloop.run(_awaited(work(lab)))
    assert not lab.short


async def _awaited(work: Awaitable[str]) -> str:
    return await work


def books(proxy: Proxy) -> Books:
    """Once all is written."""
    proxy.becomes_quiet()
    eventually(lambda: proxy.metrics()["penstock_ledger_pending_rows"] == 0)
    return Books(proxy.directory)


def test_after_a_mixed_load_and_sigterm_ledger_metrics_and_the_providers_own_tally_agree() -> None:
    small(lambda lab: balanced(lab, 250, 48, 24, within=DEADLINE))


def test_a_call_that_is_refused_for_its_wish_for_usage_and_made_again_has_two_rows(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(models=NAMED)
    for number in range(2):  # by the second it is known
        events(proxy.url, ask(f"{prompt} {number}", model="sim-instant;refuse-usage"))
    rows = sorted(books(proxy).attempts, key=lambda row: (row["at"], row["number"]))
    assert [(row["number"], row["ended"], row["status"], row["estimated"]) for row in rows] == [
        (1, "status_400", 400, 0),
        (2, "ok", 200, 1),
        (1, "ok", 200, 1),
    ]
    assert (rows[0]["usd"], rows[0]["input"]) == (0, None)
    assert rows[0]["request"] == rows[1]["request"] != rows[2]["request"]
    assert simulator.asked() == len(rows)
    attempts = {name: count for name, count in proxy.metrics().items() if name.startswith("penstock_attempts_total")}
    assert sum(attempts.values()) == len(rows)


def test_what_is_passed_through_has_its_rows(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(provider={"auth": "none"}, keys=[key("a", passthrough=["mirror"])])
    assert proxy.http.get("/v1/mirror/bytes/10", headers=bearer("a")).status_code == 200
    assert proxy.http.get("/v1/files", headers=bearer("a")).status_code == 403
    found = books(proxy)
    (attempt,) = found.attempts
    assert [(row["outcome"], row["status"], row["provider"]) for row in found.requests] == [
        ("bypass", 200, "sim"),
        ("refused", 403, ""),
    ]
    assert (attempt["endpoint"], attempt["ended"], attempt["usd"]) == ("passthrough", "ok", None)  # nobody knows
    assert attempt["request"] == found.requests[0]["id"]
    assert {row["key"] for row in (attempt, *found.requests)} == {"a"}


def test_what_passes_through_and_fails_says_how(make_proxy: MakeProxy, scripted: Scripted) -> None:
    proxy = make_proxy(scripted.base_url)
    with socket.create_connection(("127.0.0.1", int(proxy.url.rpartition(":")[2]))) as client:
        client.sendall(b"POST /v1/mirror HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}")
        turn = scripted.turn()
        turn.head(200, "application/json")
        turn.send(b"{")
        turn.abort()
        while client.recv(1000):
            pass
    found = books(proxy)
    assert [(row["ended"], row["status"]) for row in found.attempts] == [("upstream_reset", 200)]
    assert [(row["outcome"], row["code"]) for row in found.requests] == [("broken", "upstream_reset")]


def test_what_passes_through_and_is_refused_costs_nothing(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(provider={"auth": "none"}, keys=[key("a", passthrough=["nowhere"])])
    assert proxy.http.get("/v1/nowhere", headers=bearer("a")).status_code == 404
    (attempt,) = books(proxy).attempts
    assert (attempt["ended"], attempt["status"], attempt["usd"]) == ("status_404", 404, 0)


def test_to_list_models_costs_nothing(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(provider={"auth": "none"}, keys=[key("a")])
    assert proxy.http.get("/v1/models", headers=bearer("a")).status_code == 200
    (attempt,) = books(proxy).attempts
    assert (attempt["endpoint"], attempt["ended"], attempt["usd"], attempt["estimated"]) == ("models", "ok", 0, 0)


def test_who_has_no_key_that_is_in_force_writes_no_row(make_proxy: MakeProxy, prompt: str) -> None:
    keys = [key("a", passthrough=["mirror"]), key("late", expires="2020-01-01")]
    proxy = make_proxy(provider={"auth": "none"}, keys=keys)
    for shown in ({}, bearer("nobody"), bearer("late"), {"authorization": "nonsense"}):
        for path in ("/v1/mirror/bytes/10", "/v1/models"):
            assert proxy.http.get(path, headers=shown).status_code == 401
        with post(proxy.url, ask(prompt), **shown) as wire:
            assert wire.status == 401
    found = books(proxy)
    assert (found.attempts, found.requests) == ([], [])


def test_who_has_a_key_has_a_row_even_if_nothing_of_the_request_makes_sense(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(
        provider={"auth": "none"},
        keys=[key("a"), key("b", models=["x"])],
        server={"max_body": "1KiB"},
    )
    for name, content in (("a", b"{"), ("a", b'{"model": "m", "messages": [], "n": NaN}'), ("b", b'{"model": "y"}')):
        headers = {**bearer(name), "content-type": "application/json"}
        assert proxy.http.post(CHAT, content=content, headers=headers).status_code >= 400
    chunked = iter([b"x" * 2000])
    proxy.http.post(CHAT, content=chunked, headers={**bearer("a"), "content-type": "application/json"})
    found = books(proxy)
    assert Counter((row["key"], row["outcome"], row["status"]) for row in found.requests) == {
        ("a", "refused", 400): 2,
        ("b", "refused", 403): 1,
        ("a", "refused", 413): 1,
    }
    assert found.attempts == []


@pytest.mark.usefixtures("simulator")
def test_a_name_of_a_model_is_no_longer_in_the_ledger_than_names_are(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy()
    name = "sim-instant;first=0.001;chunks=" + "0" * 2000 + "3"
    with post(proxy.url, ask(prompt, model=name)) as wire:
        wire.read_body()
    found = books(proxy)
    for row in (*found.attempts, *found.requests):
        assert (row["asked"], row["model"]) == (name[:LONGEST], name[:LONGEST])


def test_a_client_that_leaves_its_stream_is_charged_what_came_and_one_that_leaves_its_answer_all_that_was_reserved(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url, models={"sim-instant": NAMED["sim-instant"]})
    for stream in (True, False):
        wire = Wire(proxy.url, ask(f"{prompt} {stream}", stream=stream))
        turn = scripted.turn()
        if stream:
            turn.head()
            turn.send(chunk("some words that came"))
            wire.read_head().read_event()
        wire.reset()
        assert turn.gone.wait(20)
    streamed, whole = books(proxy).attempts
    assert (streamed["ended"], whole["ended"]) == ("abandoned", "abandoned")
    assert streamed["estimated"] == whole["estimated"] == 1
    assert streamed["output"] > 0
    assert 0 < streamed["usd"] == 2 * 10**6 * streamed["input"] + 4 * 10**6 * streamed["output"] < streamed["reserved"]
    assert (whole["input"], whole["usd"]) == (None, whole["reserved"])
    assert [row["outcome"] for row in books(proxy).requests] == ["left", "left"]


def test_a_lost_attempt_never_takes_the_words_of_the_one_after_it_for_its_own(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    models = {name: {"provider": "sim", **NAMED["sim-instant"]} for name in ("one", "two")}
    routes = {"any": {"models": ["one", "two"], "retry_lost": True}}
    proxy = make_proxy(scripted.base_url, models=models, routes=routes)
    with Wire(proxy.url, ask(prompt, model="any", stream=True)) as wire:
        lost = scripted.turn()
        lost.head()
        lost.abort()
        turn = scripted.turn()
        turn.head()
        turn.send(chunk("word " * 400), chunk(finish="stop"))
        turn.end()
        assert wire.read_head().status == 200
        wire.read_events()
    first, second = sorted(books(proxy).attempts, key=lambda row: row["number"])
    assert (first["ended"], first["output"], first["estimated"]) == ("upstream_reset", 0, 1)
    assert second["output"] > 300
    (request,) = books(proxy).requests
    assert request["output"] in (None, second["output"])  # as yet uncounted, or right


# What is never written anywhere.

SECRETS = ("sk-planted-client", "sk-planted-operator", "zanzibar-prompt", "quixotic-name", "mellifluous-tool")
FILES = ("ledger.db", "ledger.db-wal", "ledger.db-shm")


def test_no_secret_and_no_word_of_a_prompt_or_an_answer_is_in_log_metrics_or_ledger(
    make_proxy: MakeProxy, scripted: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client, operator, prompt, name, tool = SECRETS
    keys: list[Json] = [{"name": "a", "key_sha256": sha256(client.encode()).hexdigest()}]
    proxy = make_proxy(scripted.base_url, key=operator, models=NAMED, keys=keys)
    shown = {"authorization": f"Bearer {client}", "cookie": f"k={client}", "x-penstock-sample": "7"}
    tools = [{"type": "function", "function": {"name": tool, "description": prompt}}]
    asked = ask(prompt, user=name, tools=tools, metadata={prompt: name}, stop=[prompt], stream=True)
    replies: list[Callable[[], object]] = [
        lambda: scripted.turn().answer(chunk("tintinnabulation"), chunk(finish="stop")),
        lambda: scripted.turn().answer(b'{"error": {"message": "zanzibar-prompt sk-planted-operator"}}',
                                       status=500, content_type="application/json"),
        lambda: scripted.turn().answer(b"<p>tintinnabulation</p>", content_type="text/html; x=tintinnabulation"),
        lambda: scripted.turn().answer(b'data: {"error": {"message": "zanzibar-prompt", "code": "quixotic-name"}}\n\n'),
        lambda: scripted.turn().answer(b"data: tintinnabulation\n\n"),
        lambda: _cut(scripted),
    ]  # fmt: skip
    for number, reply in enumerate(replies):
        body = asked | {"messages": [{"role": "user", "content": f"{prompt} {number}"}]}
        with Wire(proxy.url, body, {**shown, "x-stainless-retry-count": "0"}) as wire:
            reply()
            wire.read_head().read_body()
    for content in (b'{"model": "m", "n": NaN, "x": "zanzibar-prompt"}', b"zanzibar-prompt"):
        headers = {"authorization": f"Bearer {client}", "content-type": "application/json"}
        said = proxy.http.post(f"{CHAT}?quixotic-name", content=content, headers=headers)
        assert operator not in said.text
    proxy.http.get(f"/v1/{prompt}", headers={"authorization": f"Bearer {client}"})
    proxy.http.get(f"/{prompt}", headers={"authorization": f"Bearer {client}wrong"})
    found = books(proxy)
    assert (len(found.attempts), len(found.requests)) == (len(replies), len(replies) + 3)
    written = b"".join((proxy.directory / file).read_bytes() for file in FILES if (proxy.directory / file).exists())
    metrics = proxy.http.get("/metrics").content
    for secret in (*SECRETS, "tintinnabulation"):
        for where, what in (("log", caplog.text.encode()), ("metrics", metrics), ("ledger", written)):
            # Who asks for a path writes it himself, and the log of our own test's HTTP client is not the proxy's.
            lines = [line for line in what.splitlines() if secret.encode() in line and b"httpx" not in line]
            lines = [line for line in lines if b"httpcore" not in line]
            assert not lines, (secret, where, lines)


def _cut(scripted: Scripted) -> None:
    turn = scripted.turn()
    turn.head()
    turn.send(chunk("tintinnabulation"))
    turn.abort()


# A ledger that cannot be written. A limit on the size of files is a disk that this process alone finds full.


def test_on_a_full_disk_who_has_a_budget_waits_and_nobody_else_does_and_nothing_is_lost(
    simulator: Simulator, tmp_path: Path
) -> None:
    settings = tmp_path / "penstock.toml"
    settings.write_text(_TOML.format(directory=tmp_path / "data", url=simulator.base_url, **_DIGESTS))
    proxy = Served("--config", str(settings))
    try:
        assert [_status(proxy, name, "before") for name in ("plain", "rich")] == [200, 200]
        process = proxy.process.pid
        _, hard = resource.prlimit(process, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        assert [_status(proxy, "plain", f"full {number}") for number in range(10)] == [200] * 10
        assert [_status(proxy, "rich", f"full {number}") for number in range(5)] == [503] * 5
        assert _status(proxy, "rich", "before") == 200  # a hit
        assert 'penstock_ledger_events_total{event="write_failed"} 1.0' in httpx.get(f"{proxy.url}/metrics").text
        resource.prlimit(process, resource.RLIMIT_FSIZE, (hard, hard))
        eventually(lambda: "penstock_ledger_pending_rows 0.0" in httpx.get(f"{proxy.url}/metrics").text)
        assert _status(proxy, "rich", "after") == 200
        code, said = proxy.end()
    finally:
        proxy.process.kill()
    assert (code, said.count("ledger: it cannot be written")) == (0, 1)
    found = Books(tmp_path / "data")
    assert len(found.attempts) == simulator.asked() == 13
    assert all(row["ended"] == "ok" and row["usd"] > 0 for row in found.attempts)
    assert Counter(row["outcome"] for row in found.requests) == {"miss": 13, "refused": 5, "hit": 1}
    assert {row["code"] for row in found.requests if row["outcome"] == "refused"} == {"ledger_unavailable"}


_DIGESTS = {name: sha256(f"sk-{name}".encode()).hexdigest() for name in ("plain", "rich")}
_TOML = """
[data]
directory = "{directory}"
[providers.sim]
base_url = "{url}"
auth = "none"
[models.sim-instant]
price = {{ input = "1", output = "1" }}
window = 8000
max_output = 100
[[keys]]
name = "plain"
key_sha256 = "{plain}"
[[keys]]
name = "rich"
key_sha256 = "{rich}"
budget = {{ usd = "10", per = "month" }}
"""


def _status(proxy: Served, name: str, question: str) -> int:
    answer = proxy.ask(ask(question), **bearer(name))
    assert answer.status_code == 200 or answer.json()["error"]["code"] == "ledger_unavailable"
    return answer.status_code


WRITES = 8


@pytest.mark.parametrize("failing", range(1, WRITES + 1))
async def test_whichever_write_fails_all_rows_are_there_in_the_end(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "AGAIN", 0.01)
    told: list[str] = []
    ledger = Ledger.open(tmp_path, SystemClock(), on_event=told.append)
    count = 0

    def fail(*_: object) -> None:
        nonlocal count
        count += 1
        if count == failing:
            raise sqlite3.OperationalError("database or disk is full")

    event.listen(ledger._database, "before_cursor_execute", fail)
    for number in range(4):
        intent = Intent(f"r{number}", 1, float(number), "k", "chat", "m", "p", "m", False, Decimal(1))
        try:
            await ledger.intend(intent)
        except LedgerUnavailable:
            assert count >= failing
        ledger.attempted(Attempted(intent.request, 1, "ok", 200, None, Decimal("0.5"), False, 0.1, 0.2))
        ledger.answered(_answer(intent.request))
        await ledger.flush()
    await eventually_async(lambda: not ledger.pending)
    await ledger.close()
    found = Books(tmp_path)
    assert [(row["request"], row["ended"], row["usd"]) for row in found.attempts] == [
        (f"r{number}", "ok", 5 * 10**11) for number in range(4)
    ]
    assert [row["id"] for row in found.requests] == [f"r{number}" for number in range(4)]
    assert told == ["write_failed", "recovered"]


def _answer(request: str) -> Answered:
    return Answered(
        request=request,
        at=float(request[1:]),
        key="k",
        endpoint="chat",
        asked="m",
        outcome="miss",
        status=200,
        code=None,
        provider="p",
        model="m",
        usage=None,
        saved=None,
        first=0.1,
        total=0.2,
        leader=None,
        entry=None,
    )


# The clock jumps.


@pytest.fixture
def jumping(simulator: Simulator, tmp_path: Path) -> Iterator[tuple[Proxy, FakeClock]]:
    clock = FakeClock()
    budget = {"usd": "1", "per": "day"}
    table = proxy_table(
        simulator.base_url, tmp_path, {"auth": "none"}, {"models": NAMED, "keys": [key("a", budget=budget)]}
    )
    proxy = Proxy(table, {}, clock)
    yield proxy, clock
    proxy.stop()


def test_when_the_clock_jumps_ages_are_never_negative_and_a_budget_begins_anew_once(
    jumping: tuple[Proxy, FakeClock], prompt: str
) -> None:
    proxy, clock = jumping
    seen: list[float] = []

    def asked(question: str) -> Wire:
        with post(proxy.url, ask(question), **bearer("a")) as wire:
            assert wire.status == 200
            wire.read_body()
        return wire

    for jump in (0.0, -3600.0, 2 * 86400.0, -3600.0, 2 * 86400.0):
        clock.ahead = jump
        asked(f"{prompt} {jump} {len(seen)}")
        again = asked(prompt)
        assert int(again.headers.get("age", "0")) >= 0
        proxy.becomes_quiet()
        seen.append(proxy.metrics()['penstock_budget_spent_usd{id="a",key="a"}'])
    turned = [after < before for before, after in itertools.pairwise(seen)]
    assert turned == [False, True, False, False]
    found = books(proxy)
    assert all(row["total"] >= 0 and (row["first"] or 0) >= 0 for row in (*found.attempts, *found.requests))
