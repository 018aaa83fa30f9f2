"""The log of `penstock serve`: a line for each request, which says what the ledger says, and nothing that is secret."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from bench.soak.books import Books
from proxy.ledger.pico import dollars
from tests.scripted import Scripted, Wire, chunk
from tests.support import CHAT, DEADLINE, Json, Simulator, ask
from tests.test_commands import Served

SECRETS = {
    "CLIENT": "sk-planted-client-0123456789",
    "OTHER": "sk-planted-other-0123456789",
    "PROVIDER": "sk-planted-provider-0123456789",
    "ADMIN": "sk-planted-admin-0123456789",
}
WRONG = "sk-planted-wrong-0123456789"
PROMPT = "planted-prompt-0123456789"
HEADER = "planted-header-0123456789"
FAULTS = ("status=500", "status=401", "cut=1", "reset=1", "error=0", "malformed=1", "nousage", "html")

TOML = """
[server]
admin_key_env = "ADMIN"
[data]
directory = "{directory}"
[log]
{log}
[providers.sim]
base_url = "{url}"
api_key_env = "PROVIDER"
breaker_failures = 0
max_retries = 0
[models.good]
upstream = "sim-instant"
price = {{ input = "1.5", output = "0.07" }}
[[keys]]
name = "team"
key_env = "CLIENT"
passthrough = ["mirror"]
[[keys]]
name = "other"
key_env = "OTHER"
models = ["good"]
"""
FAULTY = '[models."fault{number}"]\nupstream = "sim-instant;{fault}"\nprice = {{ input = "3", output = "5" }}\n'


Serve = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """A proxy of that provider, with these settings of the log."""
    started: list[Served] = []

    def serve(url: str, log: str = "") -> Served:
        file = tmp_path / "penstock.toml"
        faulty = "".join(FAULTY.format(number=number, fault=fault) for number, fault in enumerate(FAULTS))
        file.write_text(TOML.format(directory=tmp_path / "data", url=url, log=log) + faulty)
        started.append(Served("--config", str(file), **SECRETS))
        return started[-1]

    yield serve
    for each in started:
        each.process.kill()
        each.process.communicate(timeout=DEADLINE)


def mixed_load(proxy: Served) -> list[httpx.Response]:
    """A bit of everything that may come of a request."""
    team, other = ({"authorization": f"Bearer {SECRETS[name]}", "x-secret": HEADER} for name in ("CLIENT", "OTHER"))
    wrong = {"authorization": f"Bearer {WRONG}"}
    answers = []
    for stream in (False, True, False):  # a miss each, then a hit
        answers += [proxy.ask(ask(PROMPT, model="good", stream=stream), **each) for each in (team, other)]
    for number in range(len(FAULTS)):
        for stream in (False, True):
            asked = ask(f"{PROMPT} {stream}", model=f"fault{number}", stream=stream)
            try:
                answers.append(proxy.ask(asked, **team))
            except httpx.RemoteProtocolError:  # broken off
                answers.append(httpx.Response(200))
    answers += [
        proxy.ask(ask(PROMPT), **wrong),
        proxy.ask(ask(PROMPT, model="fault0"), **other),  # not its model
        proxy.ask({"messages": PROMPT}, **team),
        proxy.ask(ask(PROMPT, model="x\n\x1b[2J\u2028"), **team),
        httpx.post(proxy.url + CHAT, content=f'{{"{PROMPT}', headers=team),
        httpx.get(f"{proxy.url}/v1/models", headers=team),
        httpx.get(f"{proxy.url}/v1/mirror/bytes/10", headers=team),
        httpx.post(f"{proxy.url}/v1/mirror?{PROMPT}", content=PROMPT, headers=team),
        httpx.get(f"{proxy.url}/admin/keys", headers={"authorization": f"Bearer {SECRETS['ADMIN']}"}),
        httpx.get(f"{proxy.url}/admin/keys", headers=wrong),
    ]
    return answers


def requests_of(log: str) -> list[Json]:
    """Its lines are JSON, all of them."""
    return [line for line in map(json.loads, log.splitlines()) if line["message"] == "request"]


def test_a_requests_one_line_says_what_the_ledger_says(simulator: Simulator, serve: Serve, tmp_path: Path) -> None:
    proxy = serve(simulator.base_url)
    answers = mixed_load(proxy)
    assert proxy.end()[0] == 0
    lines, books = requests_of(proxy.log), Books(tmp_path / "data")
    assert len(lines) == len({line["request"] for line in lines}) == len(answers)
    assert Counter(line["status"] for line in lines) == Counter(answer.status_code for answer in answers)
    for answer, line in zip(answers, lines, strict=True):
        assert answer.headers.get("x-penstock-request-id", line["request"]) == line["request"]
    told = {line["request"]: line for line in lines if "key" in line}
    assert {line["status"] for line in lines if "key" not in line} == {
        200,
        401,
        415,
    }  # the admin; before a key is known
    rows = {row["id"]: row for row in books.requests}
    assert rows.keys() == told.keys()
    assert {line["outcome"] for line in told.values()} >= {"miss", "hit", "refused", "bypass", "broken"}
    for request, line in told.items():
        row = rows[request]
        for name in ("key", "endpoint", "asked", "provider", "model", "outcome", "status", "code"):
            assert line.get(name, "") == (row[name] or ""), (name, line)
        assert [line.get(f"{kind}_tokens") for kind in ("input", "output", "cached")] == [
            row[kind] for kind in ("input", "output", "cached")
        ]


def test_its_sums_are_those_of_the_ledger(simulator: Simulator, serve: Serve, tmp_path: Path) -> None:
    proxy = serve(simulator.base_url)
    mixed_load(proxy)
    assert proxy.end()[0] == 0
    lines, books = requests_of(proxy.log), Books(tmp_path / "data")
    told = {line["request"]: Decimal(line["cost_usd"]) for line in lines if "cost_usd" in line}
    charged = {row["request"]: dollars(row["usd"]) for row in books.attempts if row["usd"] is not None}
    sure = {row["request"] for row in books.attempts if not row["estimated"]}
    assert sum(told.get(each, 0) for each in sure) == sum(charged.get(each, 0) for each in sure) > 0
    assert all(charged.get(each, 0) == cost for each, cost in told.items())  # an estimate may come too late to be told
    saved = sum(Decimal(line["saved_usd"]) for line in lines if "saved_usd" in line)
    assert saved == sum(dollars(row["saved"]) for row in books.requests if row["saved"] is not None) > 0


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_prompt_and_no_secret_is_in_the_log(form: str, simulator: Simulator, serve: Serve) -> None:
    proxy = serve(simulator.base_url, f'format = "{form}"')
    answers = mixed_load(proxy)
    assert proxy.end()[0] == 0
    assert proxy.log.count("req_") >= len(answers)
    for secret in (*SECRETS.values(), WRONG, PROMPT, HEADER):
        assert secret not in proxy.log
        assert secret.removeprefix("sk-planted-") not in proxy.log


def test_what_a_provider_says_of_a_prompt_is_not_in_the_log(scripted: Scripted, serve: Serve) -> None:
    proxy = serve(scripted.base_url)
    team = {"authorization": f"Bearer {SECRETS['CLIENT']}"}
    with Wire(proxy.url, ask(PROMPT, model="good", stream=True), team) as wire:
        turn = scripted.turn()
        turn.head()
        turn.send(chunk("Hello"), f'data: {{"error":{{"message":"{PROMPT}","code":"{PROMPT}"}}}}\n\n'.encode())
        turn.end()
        wire.read_head().read_events()
    proxy.end()
    (line,) = requests_of(proxy.log)
    assert (line["outcome"], line["level"]) == ("broken", "warning")
    assert PROMPT not in proxy.log


def test_a_log_that_nobody_reads_holds_up_no_answer(simulator: Simulator, serve: Serve) -> None:
    proxy = serve(simulator.base_url)
    long = "m" * 256
    with httpx.Client(headers={"authorization": f"Bearer {SECRETS['CLIENT']}"}, timeout=DEADLINE) as client:
        for number in range(300):  # more than its pipe takes
            assert client.post(proxy.url + CHAT, json={"model": f"{number}{long}"}).status_code == 400
        assert client.post(proxy.url + CHAT, json=ask(PROMPT, model="good")).status_code == 200
    assert proxy.end()[0] == 0
    assert len(requests_of(proxy.log)) == 301


def test_requests_are_told_only_if_they_are_wanted(simulator: Simulator, serve: Serve) -> None:
    proxy = serve(simulator.base_url, "requests = false")
    mixed_load(proxy)
    code, said = proxy.end()
    assert (code, requests_of(proxy.log)) == (0, [])
    assert "answered with status 500" in said


def test_what_was_dropped_is_a_metric(simulator: Simulator, serve: Serve) -> None:
    proxy = serve(simulator.base_url)
    metrics = httpx.get(f"{proxy.url}/metrics", headers={"authorization": f"Bearer {SECRETS['ADMIN']}"}).text
    assert "\npenstock_log_dropped_total 0.0\n" in metrics
    proxy.end()
