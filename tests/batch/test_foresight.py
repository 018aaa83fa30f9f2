"""What a batch would ask and cost: by the proxy's own keys, cache, rankings and prices."""

import asyncio
import json
from decimal import Decimal
from pathlib import Path

import pytest

from proxy.batch.foresight import Foreseen, Foresight
from proxy.batch.requests import open_requests
from proxy.core.access import Grant, Limits
from proxy.errors import StartupError
from proxy.ledger.keys import create_key
from proxy.reading import read_settings
from proxy.store.maintenance import purge_cache
from tests.batch.making import line, written
from tests.conftest import MakeProxy
from tests.routed import model, routing
from tests.support import CHAT, Json, Simulator, ask, eventually, proxy_table

pytestmark = pytest.mark.usefixtures("loaded")

PRICED = {"models": {"m": {"price": {"input": "1", "output": "2"}, "max_output": 100}}}
NOWHERE = "http://127.0.0.1:9/v1"


def foreseen(
    folder: Path, lines: list[str], sections: Json, *, key: str | None = None, directory: Path | None = None
) -> Foreseen:
    path = written(folder / "in.jsonl", lines)
    settings = read_settings(proxy_table(NOWHERE, directory or folder / "data", {}, sections), source="test")
    with open_requests(path) as requests:
        return asyncio.run(Foresight(settings, {}, key).of(requests, set(), requests.items))


def question(number: int, **members: object) -> Json:
    return ask(f"question {number}", model="m", max_tokens=5, **members)


def test_equal_requests_are_one_and_cost_once(tmp_path: Path) -> None:
    lines = [line(number, question(number % 3, user=f"u{number}")) for number in range(12)]
    found = foreseen(tmp_path, lines, PRICED)
    assert (found.lines, found.distinct, found.held, found.asked) == (12, 3, 0, 3)
    share = found.models["m"]
    # 3 + 4 + 3 tokens of a prompt, and 5 of an answer.
    assert (share.requests, share.input, share.unpriced, share.unbounded) == (3, 30, 0, 0)
    assert share.usd == Decimal("0.00006")
    assert share.most >= share.usd
    assert not (tmp_path / "data").exists()


def test_what_is_no_request_or_would_be_refused_is_counted_and_the_first_of_it_named(tmp_path: Path) -> None:
    lines = [line(0, question(0)), "nonsense", line(2, question(2, n=-1)), line(3, {"messages": []})]
    lines += [f"nonsense {number}" for number in range(10)]
    found = foreseen(tmp_path, lines, PRICED)
    assert (found.lines, found.wrong, found.refused, found.asked) == (14, 11, 2, 1)
    assert [number for number, _ in found.why] == [2, 3, 4, 5, 6]
    assert found.why[1][1] == "`n` must be a whole number from 1 to 1,024, or null."


def test_an_unknown_price_is_no_price_and_what_nothing_bounds_is_said(tmp_path: Path) -> None:
    lines = [line(0, ask("?", model="nobody's", max_tokens=5)), line(1, ask("?", model="m"))]
    found = foreseen(tmp_path, lines, {"models": {"m": {"price": {"input": "1", "output": "2"}}}})
    assert (found.models["nobody's"].unpriced, found.models["nobody's"].usd) == (1, Decimal(0))
    assert (found.models["m"].unpriced, found.models["m"].unbounded) == (0, 1)
    tier = foreseen(tmp_path, [line(0, question(0, service_tier="flex"))], PRICED)
    assert (tier.models["m"].unpriced, tier.models["m"].unbounded) == (1, 1)


def test_what_would_bound_a_request_is_named_as_its_endpoint_names_it(tmp_path: Path) -> None:
    sections = {"models": {"m": {"price": {"input": "1", "output": "2"}}}}
    said = {"model": "m", "input": "?"}
    chat, response = line(0, ask("?", model="m")), line(1, said, url="/v1/responses")
    searches = line(2, {**said, "tools": [{"type": "web_search"}], "max_output_tokens": 5}, url="/v1/responses")
    assert foreseen(tmp_path, [chat], sections).models["m"].members == {"max_tokens"}
    assert foreseen(tmp_path, [response], sections).models["m"].members == {"max_output_tokens"}
    found = foreseen(tmp_path, [searches], sections).models["m"]
    assert (found.unbounded, found.members) == (1, set())


LIMITED = {"tokens_per_minute": 50}


def limited(where: str) -> Json:
    """Settings with a limit of 50 tokens a minute there."""
    sections: Json = {"models": {"m": dict(PRICED["models"]["m"])}}
    if where == "provider":
        sections["providers"] = {"sim": {"base_url": NOWHERE, **LIMITED}}
    elif where == "model":
        sections["models"]["m"] |= LIMITED
    return sections


@pytest.mark.parametrize("where", ["key", "provider", "model"])
def test_a_request_that_is_over_a_whole_limit_would_be_refused(where: str, tmp_path: Path) -> None:
    sections, secret = limited(where), None
    if where == "key":
        _, secret = create_key(tmp_path / "data", Grant("team", limits=Limits(tokens_per_minute=50)), now=1.0)
        sections["providers"] = {"sim": {"base_url": NOWHERE, "auth": "none"}}
    lines = [line(number, question(number)) for number in range(20)]  # in all they are far over it
    lines += [line(20, ask("?", model="m", max_tokens=100)), line(21, ask("long " * 100, model="m", max_tokens=5))]
    found = foreseen(tmp_path, lines, sections, key=secret)
    assert (found.asked, found.refused, found.distinct) == (20, 2, 20)
    assert [number for number, _ in found.why] == [21, 22]
    assert all("50 per minute" in message for _, message in found.why)


def test_in_a_route_a_model_whose_limit_is_too_small_is_passed_over(tmp_path: Path) -> None:
    small = model("beta", "1", "2", tokens_per_minute=50)
    body = ask("?", model="any", max_tokens=100)
    found = foreseen(tmp_path, [line(0, body)], routing(alpha=model("alpha", "9", "9"), beta=small))
    assert list(found.models) == ["alpha"]
    alone = foreseen(tmp_path, [line(0, body)], routing(beta=small))
    assert (alone.refused, alone.why[0][1].startswith("Request too large: beta: ")) == (1, True)


def test_a_route_goes_to_whoever_is_the_cheapest(tmp_path: Path) -> None:
    sections = routing(alpha=model("alpha", "9", "9"), beta=model("beta", "1", "2"))
    found = foreseen(tmp_path, [line(number, ask(f"{number}", model="any")) for number in range(3)], sections)
    assert {name: share.requests for name, share in found.models.items()} == {"beta": 3}


def test_what_is_never_kept_is_asked_each_time(tmp_path: Path) -> None:
    lines = [line(number, question(0, tools=[{"type": "web_search"}])) for number in range(4)]
    found = foreseen(tmp_path, lines, PRICED)
    assert (found.distinct, found.asked) == (4, 4)
    for cache in ({"mode": "off"}, {"mode": "shadow"}, {"ttl": 0}, {"sampled": "bypass"}):
        lines = [line(number, question(0)) for number in range(4)]
        assert foreseen(tmp_path, lines, {**PRICED, "cache": cache}).asked == 4, cache


def test_what_the_cache_holds_is_not_asked_while_a_proxy_runs_and_afterwards(
    make_proxy: MakeProxy, simulator: Simulator, tmp_path: Path, prompt: str
) -> None:
    bodies = [ask(f"{prompt} {number}") for number in range(3)]
    proxy = make_proxy()
    for body in bodies[:2]:
        proxy.http.post(CHAT, json=body, headers={"authorization": "Bearer sk-mine"}).raise_for_status()
    lines = [line(number, bodies[number % 3]) for number in range(6)]

    def held(key: str = "sk-mine", **cache: object) -> Foreseen:
        sections = {"providers": {"sim": {"base_url": simulator.base_url}}, "cache": cache}
        return foreseen(tmp_path, lines, sections, key=key, directory=proxy.directory)

    eventually(lambda: held().held == 2)
    found = held()
    assert (found.distinct, found.held, found.asked) == (3, 2, 1)
    assert held(key="sk-another's").held == 0
    assert held(ttl="0.000001s").held == 0
    assert simulator.asked() == 2
    purge_cache(proxy.directory)
    assert held().held == 0


def test_a_cache_that_cannot_be_read_is_said_and_costs_all(tmp_path: Path) -> None:
    (tmp_path / "data" / "cache").mkdir(parents=True)
    (tmp_path / "data" / "secret").write_bytes(b"s" * 32)
    (tmp_path / "data" / "cache" / "cache.db").write_bytes(b"no database at all" * 1000)
    found = foreseen(tmp_path, [line(0, question(0)), line(1, question(1))], PRICED)
    assert (found.held, found.asked) == (None, 2)
    assert "cache.db" in found.unseen or "database" in found.unseen


def test_where_keys_are_asked_for_the_clients_own_decides(tmp_path: Path) -> None:
    _, secret = create_key(tmp_path / "data", Grant("team", models=("m",), limits=Limits()), now=1.0)
    provider = {"providers": {"sim": {"base_url": NOWHERE, "auth": "none"}}}
    lines = [line(0, question(0)), line(1, ask("?", model="other"))]
    found = foreseen(tmp_path, lines, {**PRICED, **provider}, key=secret)
    assert (found.refused, found.why[0][1]) == (1, "This key may not call 'other'.")
    with pytest.raises(StartupError, match="--key-env: everything would be refused"):
        foreseen(tmp_path, lines, {**PRICED, **provider}, key="sk-no-such-key")


def test_each_input_of_a_list_is_one(tmp_path: Path) -> None:
    def listed(number: int, *inputs: str) -> str:
        return line(number, {"model": "e", "input": list(inputs)}, url="/v1/embeddings")

    sections = {"models": {"e": {"price": {"input": "1"}}}}
    lines = [listed(0, "one", "two"), listed(1, "two", "one"), listed(2, "two", "three"), listed(3, "one")]
    found = foreseen(tmp_path, lines, sections)
    assert (found.distinct, found.asked) == (2, 2)
    alone = foreseen(tmp_path, [listed(0, "one", "two"), listed(1, "three")], sections)
    assert found.models == alone.models


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("/v1/responses", {"input": "question 1", "max_output_tokens": 5}),
        ("/v1/completions", {"prompt": "question 1", "max_tokens": 5}),
    ],
)
def test_the_other_endpoints_are_foreseen_too(url: str, body: Json, tmp_path: Path) -> None:
    lines = [line(number, {"model": "m", **body}, url=url) for number in range(2)]
    found = foreseen(tmp_path, [*lines, json.dumps({**json.loads(lines[0]), "custom_id": "other"})], PRICED)
    assert (found.distinct, found.asked, found.refused) == (1, 1, 0)
    assert found.models["m"].input > 0
    assert found.models["m"].usd > 0
