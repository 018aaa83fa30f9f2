"""Proxies with a route before the simulator, and what `penstock explain` says of a request that one of them answers."""

import io
import json
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from rich.console import Console

from proxy.explain import explain
from proxy.offers import price_table
from proxy.reading import read_settings
from tests.scripted import post
from tests.support import LABELS, Json, Proxy, Simulator, ask, eventually

# Three of the simulator's models, at once; it counts its calls by them.
UPSTREAMS: Final = {
    "alpha": "sim-small;first=0;gap=0",
    "beta": "sim-medium;first=0;gap=0",
    "gamma": "sim-large;first=0;gap=0",
}
OF_THE_SIMULATOR: Final = {"alpha": "sim-small", "beta": "sim-medium", "gamma": "sim-large"}

# How `explain` says each reason.
WORDS: Final = {
    "tools": "cannot do tools",
    "window": "tokens are over its window of",
    "max_output": "its answers have at most",
    "max_cost": "it may cost",
    "down": "it failed too often just now",
    "cooling": "its provider has asked for a pause",
    "unpriced": "no price is known",
}
WHY: Final = {
    "cheapest": "the lowest expected cost",
    "pinned": "it made the calls",
    "only": "nobody else may be asked",
    "unpriced": "nobody has a known price",
    "cooling": "all others are out",
}


def model(name: str, input: str, output: str, does: str = "", **members: Any) -> Json:  # noqa: A002 - as it is called
    """Settings of a model at these prices per million tokens. `does`: options of the simulator, as `;status=503`."""
    price = {"input": input, "output": output}
    if (cached := members.pop("cached", None)) is not None:
        price["cached_input"] = cached
    return {"upstream": UPSTREAMS[name] + does, "price": price, **members}


def routing(*names: str, **models: Json) -> Json:
    """The sections of settings with these models, and the route `any` over all of them or those that are named."""
    return {"models": models, "routes": {"any": {"models": list(names or models)}}}


class Explained(NamedTuple):
    """What `penstock explain` printed. `order`: who is asked, by name; `words`: why each other one is not. `figures`:
    prompt, cached, answer, USD of this request and with those to come, first token; by name.
    """

    order: list[str]
    words: dict[str, str]
    figures: dict[str, list[str]]
    text: str

    def usd(self, name: str) -> float:
        return float(self.figures[name][3])


def explained(proxy: Proxy, body: Json, *, key: str | None = None, **headers: str) -> Explained:
    """Read from the data directory of the proxy that runs."""
    settings = read_settings(proxy._table, source="test")
    console = Console(file=io.StringIO(), width=400)
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    explain(json.dumps(body).encode(), settings, price_table(settings), console, key=key, headers=said)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    notes = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line and not line.startswith("│"))
    return Explained(
        order=[row[1] for row in rows if row[0] != "-"],
        words={row[1]: notes[row[1]] for row in rows if row[0] == "-"},
        figures={row[1]: row[2:8] for row in rows},
        text=text,
    )


def explained_once(proxy: Proxy, body: Json, known: Callable[[Explained], bool], **headers: str) -> Explained:
    """The same, as soon as this is known: a proxy writes what it has learned a moment later."""
    seen: list[Explained] = []

    def is_known() -> bool:
        seen.append(explained(proxy, body, **headers))
        return known(seen[-1])

    try:
        eventually(is_known, within=5)
    except AssertionError:
        raise AssertionError(f"explain never says so, but:\n{seen[-1].text}") from None
    return seen[-1]


class Decided(NamedTuple):
    """What the proxy did with a request. `first`: who was to be asked, and `why`; `dropped`: reasons, by name."""

    status: int
    headers: dict[str, str]
    body: bytes
    first: str
    why: str
    dropped: dict[str, str]


def counted(metrics: dict[str, float], metric: str, *names: str) -> dict[tuple[str, ...], float]:
    """A metric's values by those of its labels, in the order of their names; by those of `names` alone, summed up."""
    found: dict[tuple[str, ...], float] = {}
    for name, value in metrics.items():
        if name.startswith(metric + "{"):
            labels = dict(LABELS.findall(name))
            values = tuple(labels[each] for each in names or sorted(labels))
            found[values] = found.get(values, 0) + value
    return found


def newly(before: dict[str, float], after: dict[str, float], metric: str) -> list[tuple[str, ...]]:
    """The labels of what was counted in between."""
    known = counted(before, metric)
    return [labels for labels, value in counted(after, metric).items() if value > known.get(labels, 0)]


def decided(proxy: Proxy, body: Json, **headers: str) -> Decided:
    """Ask the proxy something that it has no answer to."""
    before = proxy.metrics()
    with post(proxy.url, body, **headers) as wire:
        said = wire.read_body()
    after = proxy.metrics()
    ((first, _, why),) = newly(before, after, "penstock_decisions_total")
    dropped = {labels[0]: labels[1] for labels in newly(before, after, "penstock_options_dropped_total")}
    return Decided(wire.status, wire.headers, said, first, why, dropped)


def by_whom(response: Any, proxy: Proxy) -> str:
    """The model that answered, by its name in the settings. `response`: something with headers."""
    upstream = response.headers["x-penstock-model"]
    (name,) = [name for name, each in proxy._table["models"].items() if each.get("upstream", name) == upstream]
    return str(name)


def asks(proxy: Proxy, prompt: str, name: str = "any", **members: Any) -> str:
    """Who answers."""
    with post(proxy.url, ask(prompt, model=name, **members)) as wire:
        assert wire.status == 200, wire.read_body()
        wire.read_body()
        return by_whom(wire, proxy)


def goes_to(
    proxy: Proxy,
    body: Json,
    name: str,
    *,
    why: str = "cheapest",
    dropped: dict[str, str] | None = None,
    until: Callable[[Explained], bool] = lambda _: True,
    **headers: str,
) -> Explained:
    """This model answers, for this reason, and each other one does not for those; `explain` has said the same before.

    `until`: what `explain` must know of what the proxy has learned.
    """

    def agrees(seen: Explained) -> bool:
        return seen.order[:1] == [name] and seen.words.keys() == (dropped or {}).keys() and until(seen)

    seen = explained_once(proxy, body, agrees, **headers)
    assert f"{name} is asked first: {WHY[why]}" in seen.text
    for each, reason in (dropped or {}).items():
        assert WORDS[reason] in seen.words[each]
    found = decided(proxy, body, **headers)
    assert found.status == 200, found
    assert (found.first, found.why, found.dropped) == (name, why, dropped or {})
    assert by_whom(found, proxy) == name
    return seen


def calls_of(simulator: Simulator, name: str) -> int:
    """How often this model was asked since `simulator.forget`."""
    served: Json = simulator.calls()["by_model"].get(OF_THE_SIMULATOR[name], {"calls": 0})
    return int(served["calls"])
