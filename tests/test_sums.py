"""After a mixed load the metrics, the page, the ledger, the provider's own tally and what clients saw agree."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import partial
from typing import Any, Final, NamedTuple

import pytest

from proxy.ledger.figures import Figures, summary
from proxy.ledger.shadows import shadow_summary
from proxy.ledger.sums import By
from tests.asking import USAGE
from tests.conftest import MakeProxy
from tests.keyed import key, shows
from tests.ledger.told import ask as rows
from tests.routed import counted
from tests.scripted import Wire
from tests.support import CHAT, Json, Proxy, Simulator, ask, eventually, together
from tests.test_chat_stream import PAGE, plainly
from tests.test_money import LOAD, MODELS, ROUTES, cost, long_body
from tests.test_retries import BY_SDK

pytestmark = pytest.mark.usefixtures("at_once", "unheard")

TO_THE_CENT: Final = 1e-9  # USD
FORMS: Final[list[Json]] = [{}, {"stream": True}, USAGE]
ALL: Final = {
    **LOAD,
    "once": {**MODELS["beta"], "upstream": "sim-medium;first=0;gap=0;fail=1"},  # each request fails once
    "torn": {**MODELS["gamma"], "upstream": "sim-large;first=0;gap=0;cut=0"},
}
NAMES: Final = ("any", "alpha", "beta", "shaky", "once")


class Seen(NamedTuple):
    """What a client saw of its request. `spoke`: of a stream, that something was said."""

    endpoint: str
    outcome: str
    status: int
    spoke: bool


def outcome_of(cache_status: str) -> str:
    found = {"; hit": "hit", "; collapsed": "collapsed", "; fwd=bypass": "bypass", "; fwd=miss": "miss"}
    return next((outcome for said, outcome in found.items() if said in cache_status), "refused")


def asked(proxy: Proxy, body: Json, who: str = "a", path: str = CHAT, **headers: str) -> Seen:
    """The whole answer was read."""
    with Wire(proxy.url, body, shows(who, **headers), path) as wire:
        wire.read_head()
        outcome = outcome_of(wire.headers.get("cache-status", ""))
        said = wire.read_body()
        endpoint = {PAGE: "stream", CHAT: "chat"}.get(path, "passthrough")
        streamed = wire.headers["content-type"].startswith("text/event-stream")
        return Seen(endpoint, outcome if wire.clean else "broken", wire.status, streamed and b'"content"' in said)


def leaves(proxy: Proxy, simulator: Simulator, body: Json) -> Seen:
    """In the middle of a stream, or before there is anything of JSON."""
    eventually(lambda: simulator.calls()["open"] == 0)
    with Wire(proxy.url, body, shows("b")) as wire:
        if body.get("stream"):
            wire.read_head()
            for _ in range(5):
                wire.read_event()
        eventually(lambda: simulator.calls()["open"] == 1)
        wire.reset()
    eventually(lambda: simulator.calls()["open"] == 0)
    return Seen("chat", "left", 200 if body.get("stream") else 499, spoke=bool(body.get("stream")))


async def mixed_load(proxy: Proxy, simulator: Simulator, prompt: str) -> list[Seen]:
    """Everything that may come of a request, of two keys, in all forms."""
    bodies = [{**long_body(f"{prompt} {number}"), "model": name} for number in range(2) for name in NAMES]
    bodies += [ask(f"{prompt} {number}", model=name) for number in range(2) for name in NAMES]
    seen: list[Seen] = []
    with ThreadPoolExecutor(8) as threads:
        for times in range(3):  # the first time all of them miss
            turns = [(body | FORMS[(number + times) % 3], "ab"[number % 2]) for number, body in enumerate(bodies)]
            seen += threads.map(lambda turn: asked(proxy, *turn), turns)
        for _ in range(2):
            pages = [(plainly(f"{prompt} page {name}", name), who, PAGE) for name in NAMES for who in "ab"]
            seen += threads.map(lambda turn: asked(proxy, *turn), pages)
    for form in FORMS:
        shared = ask(f"{prompt} shared {form}", model="any", **form)
        seen += await together(proxy, simulator, *([partial(asyncio.to_thread, asked, proxy, shared)] * 4))
    page = plainly(f"{prompt} shared", "any")
    seen += await together(proxy, simulator, *([partial(asyncio.to_thread, asked, proxy, page, "b", PAGE)] * 3))
    return seen + list(spoiled(proxy, simulator, prompt))


def spoiled(proxy: Proxy, simulator: Simulator, prompt: str) -> Iterable[Seen]:
    """What is refused, fails, is left, or is none of the cache's business."""
    long = prompt + " the" * 900
    yield asked(proxy, ask(prompt), "nobody")
    yield asked(proxy, {"messages": 1})
    yield asked(proxy, {"messages": []}, path=PAGE)
    yield from [asked(proxy, ask(f"{prompt} {number}", model="alpha"), "limited") for number in range(3)]
    yield asked(proxy, ask(prompt, model="alpha"), cache_control="only-if-cached, max-age=0")
    yield asked(proxy, ask(prompt, model="alpha"), cache_control="no-store")
    yield asked(proxy, {"x": 1}, path="/v1/mirror/what-came")
    yield asked(proxy, ask(prompt, model="sim-instant"))
    for status in (503, 400):
        yield asked(proxy, ask(prompt, model=f"sim-instant;status={status}"), **BY_SDK)
    yield asked(proxy, ask(prompt, model="a model that nobody knows"))
    yield asked(proxy, ask(long, model="cut", stream=True))
    yield asked(proxy, plainly(long, "cut"), path=PAGE)
    yield asked(proxy, ask(long, model="torn"))  # of JSON nothing is given that is not whole
    yield leaves(proxy, simulator, ask(long, model="slow", stream=True))
    yield leaves(proxy, simulator, ask(long, model="slow"))


def busy(make_proxy: MakeProxy, **sections: Any) -> Proxy:
    keys = [key("a", passthrough=["mirror"]), key("b"), key("limited", requests_per_minute=1)]
    provider = {"breaker_failures": 0}
    return make_proxy(key="sk-operator", keys=keys, models=ALL, routes=ROUTES, provider=provider, **sections)


def at_rest(proxy: Proxy) -> dict[str, float]:
    """The metrics, once nothing is under way and all is written."""
    proxy.becomes_quiet()
    eventually(lambda: proxy.metrics()["penstock_ledger_pending_rows"] == 0)
    return proxy.metrics()


def close(amounts: Mapping[Any, float | Decimal]) -> object:
    """Those that are not 0, to a billionth of a dollar."""
    return pytest.approx({name: float(usd) for name, usd in amounts.items() if usd}, abs=TO_THE_CENT, rel=0)


def groups(proxy: Proxy, by: By) -> dict[str, Figures]:
    """What `penstock report` says, by the names of the metrics' labels."""
    found = summary(proxy.directory, by, None)
    assert found is not None
    known = {*ALL, "sim-instant", "a", "b", "limited", "sim", ""}
    assert len(found.groups.keys() - known) == (3 if by == "model" else 0)  # models of the spoiled ones
    return {name: figures for name, figures in found.groups.items() if name in known}


def column(figures: Mapping[str, Figures], name: str) -> dict[tuple[str, ...], Any]:
    """Of each group, where there is any."""
    return {(group,): getattr(each, name) for group, each in figures.items() if getattr(each, name)}


async def test_all_figures_of_a_mixed_load_agree(
    make_proxy: MakeProxy, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, prompt: str
) -> None:
    monkeypatch.setenv("TEST_ADMIN_KEY", "sk-admin")
    proxy = busy(make_proxy, server={"admin_key_env": "TEST_ADMIN_KEY"})
    seen = await mixed_load(proxy, simulator, prompt)
    metrics, tally = at_rest(proxy), simulator.calls()
    assert {each.outcome for each in seen} == {"hit", "miss", "collapsed", "bypass", "refused", "broken", "left"}
    requests_agree(metrics, proxy, seen)
    times_agree(metrics, proxy, seen)
    money_agrees(metrics, proxy)
    tokens_agree(metrics, proxy)
    the_provider_agrees(metrics, proxy, tally)
    the_page_agrees(metrics, proxy)


def requests_agree(metrics: dict[str, float], proxy: Proxy, seen: list[Seen]) -> None:
    """By endpoint, outcome and status."""
    told = counted(metrics, "penstock_requests_total", "endpoint", "outcome", "status")
    assert told == Counter((each.endpoint, each.outcome, str(each.status)) for each in seen)
    written: Counter[tuple[str, ...]] = Counter()
    for endpoint, outcome, status in rows(proxy.directory, "SELECT endpoint, outcome, status FROM requests"):
        written[endpoint, outcome, str(status)] += 1
    strangers = ("chat", "refused", "401")  # who has no key has no row
    assert told == written + Counter([strangers])
    models = counted(metrics, "penstock_requests_total", "model")
    assert {name: count for (name,), count in models.items() if name not in ("", "other")} == {
        name: count
        for name, count in rows(proxy.directory, "SELECT model, count(*) FROM requests GROUP BY 1")
        if name in (*ALL, "sim-instant")
    }
    assert counted(metrics, "penstock_request_seconds_count", "endpoint", "outcome", "status") == told
    assert counted(metrics, "penstock_limit_refusals_total") == {("limited", "requests"): 2}


def times_agree(metrics: dict[str, float], proxy: Proxy, seen: list[Seen]) -> None:
    """Each answer that has a first byte, and each stream that said something."""
    spoken = Counter((each.outcome,) for each in seen if each.spoke)
    assert counted(metrics, "penstock_first_token_seconds_count", "outcome") == spoken
    begun = "SELECT outcome, count(*) FROM requests WHERE first IS NOT NULL AND endpoint != 'passthrough' GROUP BY 1"
    overhead = counted(metrics, "penstock_overhead_seconds_count", "outcome")
    assert overhead == {(outcome,): count for outcome, count in rows(proxy.directory, begun)}
    given = (200, 400, 404, 503)  # errors are given as the provider says them; 502 is our own
    answered = [each for each in seen if each.outcome != "refused" and each.endpoint != "passthrough"]
    assert sum(overhead.values()) == sum(each.status in given for each in answered)
    attempts = counted(metrics, "penstock_attempts_total", "provider", "model")
    assert counted(metrics, "penstock_attempt_seconds_count", "provider", "model") == attempts


def money_agrees(metrics: dict[str, float], proxy: Proxy) -> None:
    """By model and by key, to a billionth of a dollar."""
    causes: tuple[tuple[By, str], ...] = (("key", "key"), ("model", "model"))
    for by, label in causes:
        found = groups(proxy, by)
        assert counted(metrics, "penstock_cost_usd_total", label) == close(column(found, "usd"))
        saved = counted(metrics, "penstock_saved_usd_total", "cause", label)
        for cause in ("cache", "collapse"):
            mine = {(name,): usd for (of, name), usd in saved.items() if of == cause}
            assert mine == close(column(found, f"saved_{cause}"))
        routing = {(name,): usd for (of, name), usd in saved.items() if of == "routing"}
        for (name,), usd in counted(metrics, "penstock_overpaid_usd_total", label).items():
            routing[name,] = routing.get((name,), 0) - usd
        assert routing == close(column(found, "saved_routing"))
    of_models = groups(proxy, "model")
    estimated = {
        (model,): usd
        for (said, model), usd in counted(metrics, "penstock_cost_usd_total", "estimated", "model").items()
        if said == "true"
    }
    assert estimated == close(column(of_models, "estimated"))
    assert set(estimated) == {("slow",), ("cut",), ("torn",)}
    kept = counted(metrics, "penstock_prompt_cache_saved_usd_total", "model")
    assert kept == close(column(of_models, "saved_prompt_cache"))
    unknown = column(of_models, "unknown")
    assert unknown.pop(("",)) == 1  # what was passed through, which is no model's
    assert counted(metrics, "penstock_unpriced_answers_total", "model") == unknown


def tokens_agree(metrics: dict[str, float], proxy: Proxy) -> None:
    """Those that were paid by model and kind, those that were not by cause."""
    paid: Counter[tuple[str, str]] = Counter()
    kinds = {"input": "input", "cached_input": "input", "output": "output", "reasoning": "output"}
    for (kind, model), count in counted(metrics, "penstock_tokens_total", "kind", "model").items():
        paid[model, kinds[kind]] += int(count)
        paid[model, "cached"] += int(count) * (kind == "cached_input")
    written = {
        (model, name): getattr(figures, name)
        for model, figures in groups(proxy, "model").items()
        for name in ("input", "cached", "output")
    }
    assert +paid == +Counter(written)
    given = "SELECT outcome, sum(input), sum(output) FROM requests WHERE outcome IN ('hit', 'collapsed') GROUP BY 1"
    again: dict[tuple[str, ...], int] = {}
    for outcome, prompt, output in rows(proxy.directory, given):
        cause = {"hit": "cache", "collapsed": "collapse"}[outcome]
        again |= {(cause, "input"): prompt, (cause, "output"): output}
    assert counted(metrics, "penstock_saved_tokens_total", "cause", "kind") == again


def the_provider_agrees(metrics: dict[str, float], proxy: Proxy, tally: Json) -> None:
    """Calls, and of those whose usage it said the tokens and what they cost."""
    attempts = counted(metrics, "penstock_attempts_total", "model", "result")
    of_models = {labels: count for labels, count in attempts.items() if labels[0]}
    assert sum(of_models.values()) == tally["calls"]
    assert sum(count for (_, result), count in of_models.items() if result == "ok") == tally["answered"]
    assert sum(count for (_, result), count in of_models.items() if result == "abandoned") == tally["hung_up"] == 2
    following = "SELECT a.model = b.model, count(*) FROM attempts a, attempts b"
    where = "WHERE a.request = b.request AND a.number = b.number + 1 GROUP BY 1"
    after = {bool(same): count for same, count in rows(proxy.directory, f"{following} {where}")}
    assert counted(metrics, "penstock_retries_total", "kind") == {("repeat",): after[True], ("fallback",): after[False]}
    spent = counted(metrics, "penstock_cost_usd_total", "model")
    tokens = counted(metrics, "penstock_tokens_total", "kind", "model")
    for upstream, names in {"sim-small": ["alpha"], "sim-medium": ["beta", "once"]}.items():
        served = tally["by_model"][upstream]
        paid = {kind: sum(tokens[kind, name] for name in names) for kind in ("input", "cached_input", "output")}
        assert paid == {
            "input": served["prompt_tokens"] - served["cached_tokens"],
            "cached_input": served["cached_tokens"],
            "output": served["completion_tokens"],
        }
        owed = cost(names[0], served)
        assert sum(spent[name,] for name in names) == pytest.approx(float(owed), abs=TO_THE_CENT, rel=0)


def the_page_agrees(metrics: dict[str, float], proxy: Proxy) -> None:
    """Its totals and the sums over its minutes and its models are those of the metrics."""
    page = proxy.http.get("/console/figures", headers={"authorization": "Bearer sk-admin"}).raise_for_status().json()
    requests = counted(metrics, "penstock_requests_total", "outcome")
    statuses = counted(metrics, "penstock_requests_total", "outcome", "status")
    saved = counted(metrics, "penstock_saved_usd_total", "cause")
    tokens = counted(metrics, "penstock_tokens_total", "kind")
    expected = {
        "requests": sum(requests.values()),
        "hits": requests["hit",],
        "misses": statuses["miss", "200"],  # those that were answered
        "collapsed": statuses["collapsed", "200"],
        "bypassed": requests["bypass",],
        "refused": requests["refused",],
        "input": tokens["input",] + tokens["cached_input",],
        "output": tokens["output",],
        "spent_usd": sum(counted(metrics, "penstock_cost_usd_total").values()),
        "saved_cache_usd": saved["cache",],
        "saved_collapse_usd": saved["collapse",],
        "saved_routing_usd": saved["routing",],
        "unpriced": sum(counted(metrics, "penstock_unpriced_answers_total").values()),
    }
    report = summary(proxy.directory, "key", None)
    assert report is not None
    assert page["totals"]["hit_ratio"] == pytest.approx(report.total.hit_ratio)
    assert page["totals"]["saved_unknown"] == report.total.saved_unknown
    for name, value in expected.items():
        assert float(page["totals"][name]) == pytest.approx(value, abs=TO_THE_CENT), name
        assert sum(float(each[name]) for each in page["minutes"]) == pytest.approx(value, abs=1e-7), name


async def test_what_shadow_mode_would_have_saved_is_the_same_in_metrics_and_ledger(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = busy(make_proxy, cache={"mode": "shadow"})
    bodies = [ask(f"{prompt} {number % 3}", model=name) for number in range(12) for name in ("any", "once")]
    for number, body in enumerate(bodies):
        asked(proxy, body | FORMS[number % 3], "ab"[number % 4 // 2])
    with simulator.closed():
        shared = ask(f"{prompt} shared", model="alpha")
        same = [asyncio.ensure_future(asyncio.to_thread(asked, proxy, shared)) for _ in range(3)]
        await asyncio.to_thread(eventually, lambda: simulator.waiting() == 3)
    await asyncio.gather(*same)
    metrics, found = at_rest(proxy), shadow_summary(proxy.directory, "key", None)
    assert found is not None
    would = counted(metrics, "penstock_shadow_requests_total", "would")
    assert would == {
        ("miss",): found.total.requests - found.total.answered,
        ("hit",): found.total.hits,
        ("collapsed",): found.total.collapsed,
    }
    assert sum(would.values()) == len(bodies) + 3
    saved = counted(metrics, "penstock_shadow_saved_usd_total", "cause", "key")
    for cause in ("cache", "collapse"):
        mine = {(name,): usd for (of, name), usd in saved.items() if of == cause}
        assert mine == close({(name,): getattr(each, f"saved_{cause}") for name, each in found.groups.items()})
    assert sum(counted(metrics, "penstock_cost_usd_total").values()) == pytest.approx(
        float(found.total.usd), abs=TO_THE_CENT
    )
    assert not counted(metrics, "penstock_saved_tokens_total")
