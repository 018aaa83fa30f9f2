"""Small models, requests and logs whose figures can be counted by hand."""

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

from pricing.cost import Rates
from pricing.models import Model, PromptCache
from proxy.reading import read_settings
from proxy.settings import Settings
from proxy.simulate.options import Option
from proxy.simulate.trace import COLUMNS, Request

BLOCK = 100
AUTOMATIC = PromptCache(automatic=True, lifetime=300)


def rates(spent: str, made: str, cached: str | None = None, written: str | None = None) -> Rates:
    return Rates(
        input=Decimal(spent),
        output=Decimal(made),
        cached_input=None if cached is None else Decimal(cached),
        cache_write=None if written is None else Decimal(written),
    )


def option(
    name: str = "m", standard: Rates | None = None, cache: PromptCache | None = AUTOMATIC, **known: Any
) -> Option:
    """Costs 10 in, 1 cached, 20 out, if not said otherwise; USD per million tokens."""
    verbosity = known.pop("verbosity", 1.0)
    model = Model(provider="p", id=name, standard=standard or rates("10", "20", "1"), tokenizer="o200k", **known)
    return Option(name, model, cache, verbosity)


def request(
    at: float, *runs: tuple[int, int], tokens: int | None = None, output: int = 50, session: int | None = None
) -> Request:
    """`tokens`: of the prompt, full blocks, if not said otherwise."""
    full = sum(last - first + 1 for first, last in runs) * BLOCK
    prompt = full if tokens is None else tokens
    return Request(at=at, kind="chat", input=prompt, output=output, blocks=runs, session=session)


def settings(allowed: Iterable[str] = (), *, routes: Any = None, **tables: Any) -> Settings:
    """`allowed`: the models of the only route, `auto`."""
    found = {
        "providers": {"p": {"base_url": "https://p.example/v1", "auth": "none"}},
        "routes": {"auto": {"models": list(allowed)}} if routes is None else routes,
    }
    return read_settings({**found, **tables}, source="t")


def log(folder: Path, *rows: str) -> Path:
    path = folder / "trace.csv"
    path.write_text("\n".join([",".join(COLUMNS), *rows, ""]))
    return path
