"""What a key may spend: never a cent more, whatever goes wrong, and what was set aside is always given back."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.conftest import MakeProxy, Sdk
from tests.keyed import (
    FORMS,
    Ahead,
    asks,
    asks_at_once,
    budget,
    gauge,
    key,
    nothing_stays_reserved,
    read,
    readers_become,
    shows,
)
from tests.routed import counted, decided
from tests.scripted import Wire
from tests.support import Json, Proxy, Simulator, ask, eventually, free_port, proxy_table

pytestmark = pytest.mark.usefixtures("loaded")

# Only what is written costs something, and what is written is as long as it may be: so each costs what is set aside.
OUTPUT = Decimal(10) / 1_000_000
EXACT: Json = {"upstream": "sim-instant;chunks=40", "price": {"input": "0", "output": "10"}}
TOKENS = 20
EACH = OUTPUT * TOKENS


def usd(amount: Decimal, per: str = "total") -> Json:
    return {"usd": str(amount), "per": per}


def exact(prompt: str, **members: Any) -> Json:
    return ask(prompt, model="exact", max_tokens=TOKENS, **members)


@pytest.mark.parametrize("form", [*FORMS, {"n": 2}], ids=["JSON", "a stream", "a stream with usage", "two choices"])
def test_of_twenty_at_once_on_a_budget_for_five_exactly_five_are_answered(
    form: Json, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    each = EACH * form.get("n", 1)
    proxy = make_proxy(key="sk-operator", models={"exact": EXACT}, keys=[key("team", budget=usd(each * 5))])
    found = asks_at_once(proxy, [exact(f"{prompt} {number:02}", **form) for number in range(20)], "team")
    refused = [one for one in found if one.status != 200]
    assert len(refused) == 15
    for one in refused:
        assert (one.status, one.error["type"], one.code) == (429, "insufficient_quota", "insufficient_quota")
        assert one.headers["x-should-retry"] == "false"
    assert simulator.asked() == 5
    assert budget(proxy, "spent_usd") == {"team": each * 5}
    assert budget(proxy, "reserved_usd") == {"team": 0}


# What each fault of the provider costs, streamed and JSON: see DESIGN.md. "some": what came of it, "all": what was set
# aside, "said": what the provider says.
FAULTS = {
    "status=500": ("nothing", "nothing"),
    "status=429": ("nothing", "nothing"),
    "status=400": ("nothing", "nothing"),
    "redirect=/elsewhere": ("nothing", "nothing"),
    "html": ("nothing", "nothing"),
    "gzip": ("all", "all"),  # an answer, in a form that was not asked for
    "error=0": ("nothing", "nothing"),
    "error=4": ("some", "nothing"),
    "cut=0": ("some", "all"),
    "cut=1": ("some", "all"),
    "cut-at=300": ("some", "all"),
    "reset=0": ("some", "all"),
    "reset=1": ("some", "all"),
    "reset-at=300": ("some", "all"),
    "stall=0": ("all", "all"),
    "stall=4": ("some", "all"),
    "first=9": ("all", "all"),
    "malformed=4": ("said", "all"),
    "nousage": ("some", "some"),
    "nodone": ("said", "said"),
    "json": ("said", "said"),
    "big=100000": ("said", "said"),
    "big=2000000": ("some", "said"),
    "finish=content_filter": ("said", "said"),
    "": ("said", "said"),
}
SHORT = {"first_event_timeout": "0.4s", "idle_timeout": "0.4s", "total_timeout": "0.8s", "breaker_failures": 0}
BOTH = {"input": "2", "output": "10"}


def faulty(make_proxy: MakeProxy, faults: list[str]) -> Proxy:
    """A proxy whose models have these faults, by number, with a key for each, in both forms."""
    models = {
        f"m{number}": {"upstream": f"sim-instant;chunks=12;{fault}", "price": BOTH}
        for number, fault in enumerate(faults)
    }
    names = [f"m{number}-{form}" for number in range(len(faults)) for form in (True, False)]
    keys = [key(name, budget=usd(Decimal(1))) for name in names]
    return make_proxy(key="sk-operator", provider=SHORT, models=models, keys=keys)


def test_under_every_fault_what_is_charged_is_what_was_promised_and_nothing_stays_set_aside(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = faulty(make_proxy, list(FAULTS))
    usage = simulator.direct(ask(prompt, model="sim-instant;chunks=12", max_tokens=15))["usage"]
    said = (usage["prompt_tokens"] * Decimal(2) + usage["completion_tokens"] * Decimal(10)) / 1_000_000
    cases = [
        (f"m{number}-{form}", ask(prompt, model=f"m{number}", max_tokens=15, stream=form))
        for number in range(len(FAULTS))
        for form in (True, False)
    ]
    with simulator.closed():
        wires = [Wire(proxy.url, body, shows(name, x_stainless_retry_count="0")) for name, body in cases]
        eventually(lambda: simulator.waiting() == len(cases))
        reserved = budget(proxy, "reserved_usd")
    whole = reserved["m0-True"]
    assert set(reserved.values()) == {whole}
    assert whole > said > 0
    with ThreadPoolExecutor(len(wires)) as threads:
        list(threads.map(_swallow, wires))
    eventually(lambda: set(budget(proxy, "reserved_usd").values()) == {0})
    spent = budget(proxy, "spent_usd")
    seen = {
        fault: tuple(_in_words(spent[f"m{number}-{form}"], said, whole) for form in (True, False))
        for number, fault in enumerate(FAULTS)
    }
    wrong = {fault: words for fault, words in seen.items() if words != FAULTS[fault]}
    assert wrong == {}


def _swallow(wire: Wire) -> None:
    with wire:
        wire.read_head().read_body()


def _in_words(usd: Decimal, said: Decimal, whole: Decimal) -> str:
    if usd > whole:
        return "too much"
    return {Decimal(0): "nothing", said: "said", whole: "all"}.get(usd, "some")


@pytest.mark.parametrize("fault", ["endless", "chunks=12;big=100000;cut=4"])
def test_nobody_is_charged_more_than_was_set_aside_though_more_came_than_was_asked_for(
    fault: str, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    models = {"m": {"upstream": f"sim-instant;{fault}", "price": BOTH}}
    proxy = make_proxy(key="sk-operator", models=models, keys=[key("team", budget=usd(Decimal(1)))])
    with simulator.closed():
        wire = Wire(proxy.url, ask(prompt, model="m", max_tokens=15, stream=True), shows("team"))
        whole = eventually(lambda: budget(proxy, "reserved_usd")["team"])
    with wire:
        wire.read_head()
        for _ in range(60):
            wire.read_event()
    eventually(lambda: budget(proxy, "reserved_usd")["team"] == 0)
    assert budget(proxy, "spent_usd")["team"] == whole


def in_a_route(*does: str, **route: Any) -> Json:
    """Models that write at 10, 20, 30 USD per million and do as is said, in a route that asks them in this order."""
    models = {
        f"m{number}": {
            "upstream": f"{upstream};first=0;gap=0;chunks=40;{each}",
            "price": {"input": "0", "output": str(10 * (number + 1))},
        }
        for number, (upstream, each) in enumerate(zip(("sim-small", "sim-medium", "sim-large"), does, strict=False))
    }
    return {"models": models, "routes": {"any": {"models": list(models), **route}}}


def by_model(simulator: Simulator) -> list[int]:
    counts = simulator.calls()["by_model"]
    return [counts.get(name, {"calls": 0})["calls"] for name in ("sim-small", "sim-medium", "sim-large")]


@pytest.mark.parametrize("form", FORMS[:2], ids=["JSON", "a stream"])
@pytest.mark.parametrize(
    ("fault", "left", "asked", "paid"),
    [
        ("status=503", EACH * 2, [1, 1, 0], EACH * 2),  # what failed costs nothing, so the next fits
        ("status=503", EACH * Decimal("1.9"), [1, 0, 0], 0),  # the next does not
        ("reset=0", EACH * 3, [1, 1, 0], None),
        ("reset=0", EACH * Decimal("2.9"), [1, 0, 0], None),  # what was lost may have to be paid
    ],
)
def test_another_model_is_asked_only_if_what_it_may_cost_is_left(
    fault: str,
    left: Decimal,
    asked: list[int],
    paid: Decimal | None,
    form: Json,
    make_proxy: MakeProxy,
    simulator: Simulator,
    prompt: str,
) -> None:
    sections = in_a_route(fault, "", retry_lost=True)
    proxy = make_proxy(key="sk-operator", keys=[key("team", budget=usd(left))], **sections)
    found = asks(proxy, ask(prompt, model="any", max_tokens=TOKENS, **form), "team", x_stainless_retry_count="0")
    assert by_model(simulator) == asked
    assert found.status == (200 if asked[1] else 503 if fault == "status=503" else 502)
    eventually(lambda: budget(proxy, "reserved_usd")["team"] == 0)
    spent = budget(proxy, "spent_usd")["team"]
    assert spent <= left
    if paid is not None:
        assert spent == paid


STORED_ONLY = {"cache_control": "only-if-cached"}


def spends(proxy: Proxy, prompt: str, name: str = "team", **members: Any) -> str | None:
    """The code of the refusal of one more such request; "" if it was answered."""
    return asks(proxy, exact(prompt, **members), name).code


def test_what_is_stored_is_given_though_nothing_is_left_to_spend(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(key="sk-operator", models={"exact": EXACT}, keys=[key("team", budget=usd(EACH))])
    assert spends(proxy, prompt) == ""
    assert spends(proxy, prompt + "!") == "insufficient_quota"
    assert proxy.count("penstock_limit_refusals_total", key="team", limit="budget") == 1
    for form in FORMS:
        for headers in ({}, STORED_ONLY):
            found = asks(proxy, exact(prompt, **form), "team", **headers)
            assert (found.status, found.headers["cache-status"][:13]) == (200, "penstock; hit")
    assert asks(proxy, exact(prompt + "!"), "team", **STORED_ONLY).code == "not_cached"
    assert simulator.asked() == 1
    assert budget(proxy, "spent_usd") == {"team": EACH}


def test_the_sdk_does_not_try_again_what_a_budget_has_refused(
    make_proxy: MakeProxy, simulator: Simulator, sdk: Sdk, prompt: str
) -> None:
    proxy = make_proxy(key="sk-operator", models={"exact": EXACT}, keys=[key("team", budget=usd(EACH / 2))])
    client = sdk(proxy.base_url, api_key="sk-team", max_retries=3)
    with pytest.raises(openai.RateLimitError, match=r"may cost 0\.0002") as caught:
        client.chat.completions.create(**exact(prompt))
    assert (caught.value.type, caught.value.code) == ("insufficient_quota", "insufficient_quota")
    assert counted(proxy.metrics(), "penstock_requests_total", "endpoint", "outcome", "status") == {
        ("chat", "refused", "429"): 1
    }
    assert simulator.asked() == 0


def test_a_model_without_a_price_is_nothing_for_a_key_with_a_budget(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    models = {"exact": EXACT, "unpriced": {"upstream": "sim-small;first=0;gap=0"}}
    routes = {"both": {"models": ["unpriced", "exact"]}, "none": {"models": ["unpriced", "sim-medium"]}}
    keys = [key("team", budget=usd(EACH)), key("free")]
    proxy = make_proxy(key="sk-operator", models=models, routes=routes, keys=keys)
    for name in ("unpriced", "none", "sim-medium"):
        refused = asks(proxy, ask(prompt, model=name, max_tokens=3), "team")
        assert (refused.status, refused.code, refused.error["param"]) == (403, "model_not_priced", "model")
        assert refused.headers["x-should-retry"] == "false"
    assert simulator.asked() == 0
    assert asks(proxy, ask(prompt, model="unpriced"), "free").status == 200
    found = decided(proxy, ask(prompt, model="both", max_tokens=TOKENS), **shows("team"))
    assert (found.status, found.first, found.dropped) == (200, "exact", {"unpriced": "unpriced"})


@pytest.mark.parametrize("name", ["exact", "any"])
def test_a_service_without_a_price_is_nothing_for_a_key_with_a_budget(
    name: str, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    routes = {"any": {"models": ["exact", "other"]}}
    keys = [key("team", budget=usd(EACH)), key("free")]
    proxy = make_proxy(key="sk-operator", models={"exact": EXACT, "other": EXACT}, routes=routes, keys=keys)
    body = ask(prompt, model=name, max_tokens=TOKENS)
    refused = asks(proxy, body | {"service_tier": "priority"}, "team")
    assert (refused.status, refused.code, refused.error["param"]) == (403, "model_not_priced", "service_tier")
    assert '`service_tier` "priority"' in refused.error["message"]
    assert simulator.asked() == 0
    assert asks(proxy, body | {"service_tier": "priority"}, "free").status == 200
    assert asks(proxy, body | {"service_tier": "default"}, "team").status == 200


def test_what_may_be_charged_beside_its_tokens_sets_its_tokens_aside(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    models = {"exact": EXACT | {"max_output": 500}}
    proxy = make_proxy(key="sk-operator", models=models, keys=[key("team", budget=usd(Decimal(1)))])
    assert reserve_of(proxy, simulator, ask(prompt, model="exact", plugins=[{"id": "web"}])) == OUTPUT * 500


def test_a_number_of_choices_that_a_provider_may_read_otherwise_is_refused(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(key="sk-operator", models={"exact": EXACT}, keys=[key("team", budget=usd(EACH))])
    refused = asks(proxy, exact(prompt, n="50"), "team")
    assert (refused.status, refused.error["type"], refused.error["param"]) == (400, "invalid_request_error", "n")
    assert simulator.asked() == 0


def reserve_of(proxy: Proxy, simulator: Simulator, body: Json, name: str = "team") -> Decimal:
    """What is set aside for it while it is under way."""
    with simulator.closed():
        wire = Wire(proxy.url, body, shows(name))
        found = eventually(lambda: budget(proxy, "reserved_usd")[name])
    assert read(wire).status == 200
    return found


def test_as_much_is_set_aside_as_may_be_written(make_proxy: MakeProxy, simulator: Simulator, prompt: str) -> None:
    models = {"exact": EXACT | {"max_output": 500}}
    proxy = make_proxy(key="sk-operator", models=models, keys=[key("team", budget=usd(Decimal(1)))])
    cases = [
        (ask(prompt, model="exact"), 500),
        (ask(prompt, model="exact", n=3), 1500),
        (ask(prompt, model="exact", max_tokens=7), 7),
        (ask(prompt, model="exact", max_completion_tokens=7, n=2), 14),
    ]
    for body, tokens in cases:
        assert reserve_of(proxy, simulator, body) == OUTPUT * tokens
    assert budget(proxy, "reserved_usd") == {"team": 0}


def test_a_model_that_is_too_dear_for_what_is_left_is_passed_over(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    sections = in_a_route("", "", "status=503")
    sections["routes"]["any"]["models"] = ["m2", "m1"]  # the dearest is the baseline
    keys = [key("team", budget=usd(EACH * 2)), key("poor", budget=usd(EACH))]
    proxy = make_proxy(key="sk-operator", keys=keys, **sections)
    body = ask(prompt, model="any", max_tokens=TOKENS)
    found = decided(proxy, body, **shows("team"))
    assert (found.status, found.first, found.dropped) == (200, "m1", {"m2": "budget"})
    found = decided(proxy, body, **shows("poor"))
    assert (found.status, found.first, found.dropped) == (429, "", {"m1": "budget", "m2": "budget"})
    assert json.loads(found.body)["error"]["code"] == "insufficient_quota"
    assert by_model(simulator) == [0, 1, 0]


def test_each_repeat_sets_it_aside_anew_and_only_what_is_answered_is_paid(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    models = {"exact": EXACT | {"upstream": EXACT["upstream"] + ";fail=2"}}
    proxy = make_proxy(key="sk-operator", models=models, keys=[key("team", budget=usd(EACH))])
    assert spends(proxy, prompt) == ""
    assert simulator.asked() == 3
    assert budget(proxy, "spent_usd") == {"team": EACH}
    assert budget(proxy, "reserved_usd") == {"team": 0}


# 12 o'clock on a Wednesday, and how many hours from there a new window opens.
NOON = datetime(2027, 3, 10, 12, tzinfo=UTC).timestamp()
HOURS = {"day": 12, "week": 4 * 24 + 12, "month": 21 * 24 + 12}


@pytest.mark.parametrize("per", HOURS)
def test_a_budget_begins_anew_with_its_window_and_not_before(per: str, make_proxy: MakeProxy, prompt: str) -> None:
    clock = Ahead()
    clock.seconds = NOON - clock.wall()
    proxy = make_proxy(
        key="sk-operator", clock=clock, models={"exact": EXACT}, keys=[key("team", budget=usd(EACH, per))]
    )
    for times in range(2):
        assert spends(proxy, f"{prompt} {times}") == ""
        assert spends(proxy, f"{prompt} {times}!") == "insufficient_quota"
        if not times:
            assert budget(proxy, "forecast_usd")["team"] > EACH
            assert budget(proxy, "nearly_spent") == {"team": 1}
            clock.seconds += (HOURS[per] - 1) * 3600
            assert spends(proxy, f"{prompt} later") == "insufficient_quota"
            clock.seconds += 2 * 3600
            assert budget(proxy, "spent_usd") == {"team": 0}
            assert budget(proxy, "nearly_spent") == {"team": 0}


def test_a_budget_in_all_never_begins_anew_and_forecasts_nothing(make_proxy: MakeProxy, prompt: str) -> None:
    clock = Ahead()
    proxy = make_proxy(key="sk-operator", clock=clock, models={"exact": EXACT}, keys=[key("team", budget=usd(EACH))])
    assert spends(proxy, prompt) == ""
    clock.seconds += 1000 * 86400
    assert spends(proxy, prompt + "!") == "insufficient_quota"
    assert budget(proxy, "forecast_usd") == {}


@pytest.mark.parametrize("per", ["day", "total"])
def test_what_was_spent_is_known_after_a_restart(per: str, simulator: Simulator, tmp_path: Path, prompt: str) -> None:
    cut = {"upstream": "sim-instant;chunks=40;cut=9", "price": BOTH}
    sections = {"models": {"exact": EXACT, "cut": cut}, "keys": [key("team", budget=usd(Decimal(1), per))]}
    table = proxy_table(simulator.base_url, tmp_path, {"auth": "key", "api_key_env": "NOT_READ_HERE"}, sections)
    clock = Ahead()
    clock.seconds = NOON - clock.wall()
    seen = []
    for number in range(2):
        proxy = Proxy(table, {"sim": "sk-operator"}, clock)
        try:
            seen.append(budget(proxy, "spent_usd")["team"])
            assert spends(proxy, f"{prompt} {number}") == ""
            asks(proxy, ask(f"{prompt} {number}", model="cut", max_tokens=9, stream=True), "team")
            nothing_stays_reserved(proxy)
            seen.append(budget(proxy, "spent_usd")["team"])
        finally:
            proxy.stop()
    assert EACH < seen[1] == seen[2] < seen[3]
    clock.seconds += 86400
    proxy = Proxy(table, {"sim": "sk-operator"}, clock)
    try:
        assert budget(proxy, "spent_usd")["team"] == (0 if per == "day" else seen[3])
    finally:
        proxy.stop()


def test_a_cap_on_the_cost_of_a_request_holds_beside_the_budget(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(key="sk-operator", models={"exact": EXACT}, keys=[key("team", budget=usd(EACH))])
    for cap, code in ((EACH / 2, "max_cost_exceeded"), (EACH, ""), (EACH * 2, "insufficient_quota")):
        found = asks(proxy, exact(f"{prompt} {cap}"), "team", x_penstock_max_cost_usd=str(cap))
        assert found.code == code
    assert simulator.asked() == 1
    assert budget(proxy, "spent_usd") == {"team": EACH}


# Phases of a call, by what the provider does, and after how many events its client leaves; None: before the head.
PHASES: dict[str, tuple[str, int | None]] = {
    "before the head": ("first=30", None),
    "after the first event": ("stall=1", 1),
    "in the middle": ("gap=0.005;chunks=2000", 9),
}


@pytest.mark.parametrize("stream", [True, False], ids=["a stream", "JSON"])
@pytest.mark.parametrize("phase", PHASES)
def test_a_client_that_leaves_pays_for_what_was_sent_and_leaves_nothing_set_aside(
    phase: str, stream: bool, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    does, events = PHASES[phase]
    models = {"m": {"upstream": f"sim-instant;{does}", "price": BOTH}}
    proxy = make_proxy(key="sk-operator", models=models, keys=[key("team", budget=usd(Decimal(1)))])
    wire = Wire(proxy.url, ask(prompt, model="m", max_tokens=15, stream=stream), shows("team"))
    eventually(lambda: simulator.asked() == 1)
    whole = budget(proxy, "reserved_usd")["team"]
    if stream and events is not None:
        wire.read_head()
        for _ in range(events):
            wire.read_event()
    wire.reset()
    eventually(lambda: budget(proxy, "reserved_usd")["team"] == 0)
    spent = budget(proxy, "spent_usd")["team"]
    assert (0 < spent < whole) if stream else spent == whole


def test_a_call_that_is_never_sent_costs_nothing(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy(
        f"http://127.0.0.1:{free_port()}/v1",
        key="sk-operator",
        models={"exact": EXACT},
        keys=[key("team", budget=usd(EACH))],
    )
    for _ in range(3):
        assert spends(proxy, prompt) == "upstream_connect_error"
    assert budget(proxy, "spent_usd") == budget(proxy, "reserved_usd") == {"team": 0}


def shared(make_proxy: MakeProxy, **budgets: Decimal) -> Proxy:
    """Keys that share what is stored and what is under way, before a provider that takes one call at a time."""
    keys = [key("busy"), *(key(name, budget=usd(amount)) for name, amount in budgets.items())]
    return make_proxy(
        key="sk-operator", provider={"max_concurrent": 1}, models={"exact": EXACT}, keys=keys, cache={"shared": True}
    )


def test_of_keys_that_share_a_cache_only_the_one_that_led_pays(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = shared(make_proxy, one=EACH, poor=EACH / 2)
    with simulator.closed():
        leader = Wire(proxy.url, exact(prompt), shows("one"))
        eventually(lambda: simulator.waiting() == 1)
        joiner = Wire(proxy.url, exact(prompt), shows("poor"))
        eventually(lambda: proxy.readers() == 2)
    assert read(leader).headers["x-penstock-cost-usd"] == "0.0002"
    assert read(joiner).headers["x-penstock-cost-usd"] == "0"
    assert spends(proxy, prompt, "poor") == ""
    assert spends(proxy, prompt + "!", "poor") == "insufficient_quota"
    assert budget(proxy, "spent_usd") == {"one": EACH, "poor": 0}


@pytest.mark.parametrize("stream", [True, False], ids=["a stream", "JSON"])
def test_where_the_leader_leaves_before_its_turn_the_next_one_that_can_pays(
    stream: bool, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = shared(make_proxy, one=EACH, poor=EACH / 2, other=EACH)
    body = exact(prompt, stream=stream)
    with simulator.closed():
        busy = Wire(proxy.url, exact(prompt + " busy"), shows("busy"))
        eventually(lambda: simulator.waiting() == 1)
        wires = []
        for number, name in enumerate(("one", "poor", "other")):
            wires.append(Wire(proxy.url, body, shows(name)))
            readers_become(proxy, number + 2)
        assert budget(proxy, "reserved_usd") == {"one": EACH, "poor": 0, "other": 0}
        wires[0].reset()
        eventually(lambda: budget(proxy, "reserved_usd") == {"one": 0, "poor": 0, "other": EACH})
        assert gauge(proxy, "penstock_calls_waiting") == 1
    poor, other = read(wires[1]), read(wires[2])
    assert (poor.status, other.status, read(busy).status) == (200, 200, 200)
    assert simulator.asked() == 2
    assert budget(proxy, "spent_usd") == {"one": 0, "poor": 0, "other": EACH}
    if not stream:
        assert poor.headers["x-penstock-cost-usd"] == "0"
        assert other.headers["x-penstock-cost-usd"] == "0.0002"
    saved = counted(proxy.metrics(), "penstock_saved_usd_total")
    assert saved == {("collapse", "poor", "exact"): pytest.approx(float(EACH))}


def test_where_nobody_left_can_pay_each_is_told_so_and_nothing_is_sent(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = shared(make_proxy, one=EACH, poor=EACH / 2, poorer=EACH / 4)
    with simulator.closed():
        busy = Wire(proxy.url, exact(prompt + " busy"), shows("busy"))
        eventually(lambda: simulator.waiting() == 1)
        wires = []
        for number, name in enumerate(("one", "poor", "poorer")):
            wires.append(Wire(proxy.url, exact(prompt), shows(name)))
            readers_become(proxy, number + 2)
        wires[0].reset()
        found = [read(wire) for wire in wires[1:]]
    assert [one.code for one in found] == ["insufficient_quota"] * 2
    assert "budget of 0.0001 USD" in found[0].error["message"]
    assert "budget of 0.00005 USD" in found[1].error["message"]
    assert read(busy).status == 200
    assert simulator.asked() == 1


def test_one_keys_want_of_money_is_never_anothers_refusal(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    """The leader's first model fails, and for the second it lacks what it has spent meanwhile."""
    sections = in_a_route("status=503", "")
    keys = [key("one", budget=usd(EACH * 3)), key("rich")]
    proxy = make_proxy(key="sk-operator", keys=keys, cache={"shared": True}, **sections)
    body = ask(prompt, model="any", max_tokens=TOKENS)
    with simulator.closed():
        leader = Wire(proxy.url, body, shows("one", x_stainless_retry_count="0"))
        eventually(lambda: simulator.waiting() == 1)
        joiner = Wire(proxy.url, body, shows("rich"))
        eventually(lambda: proxy.readers() == 2)
        other = Wire(proxy.url, ask(prompt + "!", model="m1", max_tokens=TOKENS), shows("one"))
        eventually(lambda: simulator.waiting() == 2)
    assert read(other).status == 200
    assert read(leader).status in (429, 503)
    assert read(joiner).status == 200


@pytest.mark.parametrize("member", ["models", "fallbacks", "route"])
def test_a_key_with_a_budget_names_no_further_models(
    member: str, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    """Some providers take them from the body, and they may be dearer."""
    keys = [key("team", budget=usd(Decimal(1))), key("some", models=["sim-*"]), key("any")]
    proxy = make_proxy(key="sk-operator", keys=keys, models={"sim-instant": {"price": BOTH}})
    body = {**ask(prompt), member: ["dear"]}
    for name in ("team", "some"):
        refused = asks(proxy, body, name)
        assert (refused.status, refused.code, refused.error["param"]) == (403, "model_not_allowed", member)
    assert simulator.asked() == 0
    assert asks(proxy, body, "any").status == 200
