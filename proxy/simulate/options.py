"""The models that may answer, with what is known of each and what the settings suppose.

Rule: a model without a price is left out and named; nothing is taken for 0.
"""

from typing import Final

import msgspec

from pricing.families import Kind, family_of
from pricing.models import Model, PromptCache
from pricing.table import Table
from proxy.core.learned import LIFETIME
from proxy.errors import StartupError
from proxy.offers import Offers
from proxy.settings import Model as Named
from proxy.settings import Settings
from proxy.simulate.trace import Request

UNNAMED: Final = Named()


class Option(msgspec.Struct, frozen=True):
    """A model at a provider. `cache`: its prompt cache's terms, None where nothing would be cached. `verbosity`: tokens
    that it writes where the log has one.
    """

    name: str
    model: Model
    cache: PromptCache | None = None
    verbosity: float = 1.0

    @property
    def factor(self) -> float:
        """Its tokens for one of the log's, which are taken for o200k's of prose."""
        return family_of(self.model.tokenizer).factors[Kind.PROSE]

    def input(self, tokens: int) -> int:
        """What so many of the log's tokens of a prompt are for it."""
        return round(tokens * self.factor)

    def output(self, tokens: int) -> int:
        """How long its answer is, where the log's had so many tokens."""
        wanted = max(1, round(tokens * self.factor * self.verbosity))
        return wanted if self.model.max_output is None else min(wanted, self.model.max_output)

    def takes(self, request: Request) -> bool:
        """Is its window large enough? It may be where that is not known."""
        return self.model.window is None or self.input(request.input) <= self.model.window


class Field(msgspec.Struct, frozen=True):
    """Who may answer. `baseline`: index of the option that savings are measured against. `left_out`: by name, why."""

    options: tuple[Option, ...]
    baseline: int
    left_out: dict[str, str] = {}


def field_of(settings: Settings, table: Table, route: str | None, *, marked: bool = True) -> Field:
    """The options of a route; without a name, of the only one that there is. Raises StartupError.

    `marked`: clients mark their prefixes where a provider's cache wants that, as agents' clients do.
    """
    route = _route(settings, route)
    options: list[Option] = []
    left_out = {}
    offers = Offers(settings, table)
    for name in settings.route_models(route):
        model, _ = offers.model(name)
        why = "no price is known" if model is None else _unpriced(model)
        if model is None or why:
            left_out[name] = why
            continue
        named = settings.models.get(name, UNNAMED)
        options.append(Option(name, model, _terms(model, table, marked=marked), named.verbosity))
    baseline = settings.route_baseline(route)
    if baseline in left_out:
        raise StartupError(
            f"models.{baseline}.price: savings are measured against this model, and {left_out[baseline]}; set it."
        )
    return Field(tuple(options), [option.name for option in options].index(baseline), left_out)


def _route(settings: Settings, route: str | None) -> str:
    there = ", ".join(settings.routes)
    if not there:
        raise StartupError("routes: there is none to simulate; add [routes.NAME] with the models that may answer.")
    if route is None and len(settings.routes) > 1:
        raise StartupError(f"--route: which? There is: {there}.")
    if route is not None and route not in settings.routes:
        raise StartupError(f"--route: there is no [routes.{route}]; there is: {there}.")
    return route or there


def _unpriced(model: Model) -> str:
    """Why its calls have no known cost; "" if they have one."""
    if model.other_fees:
        return f"it charges {', '.join(model.other_fees)} besides tokens"
    rates = [model.standard, *(hours.standard for hours in model.hours), *(later.standard for later in model.later)]
    known = all(each is not None and each.input is not None and each.output is not None for each in rates)
    return "" if known else "no price is known"


def _terms(model: Model, table: Table, *, marked: bool) -> PromptCache | None:
    """The terms by which prefixes are cached.

    None where nobody says that there is a cache, where it would not be used, or where what it gives has no price: then
    all of a prompt is paid in full.
    """
    terms = table.cache(model)
    if terms is None or terms.automatic is None or not (terms.automatic or marked):
        return None
    if model.standard is None or model.standard.cached_input is None:
        return None
    return terms if terms.lifetime is not None else msgspec.structs.replace(terms, lifetime=int(LIFETIME))
