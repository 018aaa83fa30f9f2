"""Which models may answer a call, before anything is asked of how they are and what they cost (ranking.py does that).

Rule: the destination comes from the settings only; nothing in a request names an address.
"""

from collections.abc import Callable, Collection, Mapping

import msgspec

from pricing.models import Capability, Model, PromptCache
from proxy.core.dialect import CHAT, EMBEDDINGS, Endpoint
from proxy.core.policy import Sampled
from proxy.errors import InvalidRequest

Place = tuple[str, str, str]
"""Provider, its name for the model, whose account is used ("": the operator's): what is down, cools or is learned."""


BY_KIND: Mapping[str, tuple[Endpoint, ...]] = {
    "chat": ("chat", "responses"),
    "responses": ("responses",),
    "completion": ("completions",),
    "embedding": ("embeddings",),
}
"""The endpoints that models of a kind have, at providers that have them."""


class Target(msgspec.Struct, frozen=True):
    """One model at one provider; `upstream` is the provider's own name for it."""

    provider: str
    base_url: str
    upstream: str

    @property
    def identity(self) -> tuple[str, str]:
        """What of a target enters the key: where the request goes, and to which model."""
        return self.base_url, self.upstream

    def place(self, account: str) -> Place:
        return self.provider, self.upstream, account


class Option(msgspec.Struct, frozen=True):
    """A model that may answer. `name`: as the settings or the client call it. `model`: what is known of it and its
    price, None if nothing is; `cache`: the terms of its provider's prompt cache.
    """

    name: str
    target: Target
    model: Model | None = None
    cache: PromptCache | None = None

    def can(self, capability: Capability) -> bool | None:
        return None if self.model is None else self.model.can(capability)


class Choice(msgspec.Struct, frozen=True):
    """Who may answer a call, in the settings' order. `baseline`: what savings are measured against, and whose word on
    a request is final. `named`: the client named the baseline itself. `route`: whose settings these are, if any's.
    """

    options: tuple[Option, ...]
    baseline: Option
    named: bool = True
    route: str | None = None
    retry_lost: bool = False
    sampled: Sampled | None = None

    @property
    def routed(self) -> bool:
        """Is there anything to choose?"""
        return len(self.options) > 1

    @property
    def identities(self) -> list[tuple[str, str]]:
        """The targets, as they enter the key: whoever may answer, in no order."""
        return sorted({option.target.identity for option in self.options})

    def among(self, options: tuple[Option, ...]) -> "Choice":
        """The same with no more than these, of which there are some."""
        baseline = self.baseline if self.baseline in options else options[0]
        return msgspec.structs.replace(
            self, options=options, baseline=baseline, named=self.named and baseline is self.baseline
        )

    def option(self, provider: str, upstream: str) -> Option | None:
        """The one that gave an answer."""
        for option in self.options:  # a loop, no generator: every hit comes by
            if option.target.upstream == upstream and option.target.provider == provider:
                return option
        return None


class Named(msgspec.Struct, frozen=True):
    """A model that the settings name: which provider has it, under which name, and its rank among the tiers."""

    provider: str
    upstream: str
    tier: int | None = None


class Route(msgspec.Struct, frozen=True):
    """A name that clients may ask for as if it were a model: whoever of `models` is the cheapest answers."""

    models: tuple[str, ...]
    baseline: str
    retry_lost: bool = False
    sampled: Sampled | None = None


class Routes:
    """The table of the settings. `describe` tells what is known of a model at a provider, by its name here;
    `client_pays`: at which providers each client pays with its own key.
    """

    def __init__(
        self,
        *,
        base_urls: Mapping[str, str],
        default_provider: str,
        client_pays: Collection[str] = (),
        models: Mapping[str, Named],
        routes: Mapping[str, Route],
        describe: Callable[[str, Target], tuple[Model | None, PromptCache | None]],
        endpoints: Mapping[str, Collection[str]] = {},
    ) -> None:
        """`endpoints`: that a provider has, where the settings say so."""
        self._base_urls = base_urls
        self._default = default_provider
        self._client_pays = frozenset(client_pays)
        self._models = models
        self._describe = describe
        self._endpoints = endpoints
        self._known = {
            name: self._new(name) for name in {*models, *(m for route in routes.values() for m in route.models)}
        }
        self._choices = {name: self._routed(name, route) for name, route in routes.items()}
        self._unnamed: dict[str, Option] = {}

    def choice(
        self,
        model: str,
        wish: str | None = None,
        may_call: Callable[[str], bool] = lambda _: True,
        endpoint: str | None = CHAT.name,
    ) -> Choice:
        """Who may answer a call of this endpoint (None: whatever they have) that names this model or route; whoever
        asks `may_call` it.

        `wish`: "exact" forbids another model than the one named; "cheapest" allows one of its tier or above that may be
        called too. Raises InvalidRequest: an exact route that is no model.
        """
        choice = self._named(model, wish, may_call)
        if endpoint is None or not choice.routed:
            return choice
        able = tuple(option for option in choice.options if self.has(option, endpoint))
        if endpoint == EMBEDDINGS.name and able:  # vectors of two models do not compare
            baseline = choice.baseline if choice.baseline in able else able[0]
            able = tuple(option for option in able if option.target.upstream == baseline.target.upstream)
        # Where nobody has it, a provider says so better than we.
        return choice if not able or len(able) == len(choice.options) else choice.among(able)

    def has(self, option: Option, endpoint: str) -> bool:
        """Has it this endpoint, as far as anybody knows?"""
        said = self._endpoints.get(option.target.provider)
        kind = None if option.model is None else option.model.kind
        return (said is None or endpoint in said) and (kind is None or endpoint in BY_KIND[kind])

    def _named(self, model: str, wish: str | None, may_call: Callable[[str], bool]) -> Choice:
        route = self._choices.get(model)
        if wish == "exact":
            if route is not None and model not in self._known:
                raise InvalidRequest(
                    f"{model!r} is a route, not a model: with `x-penstock-route: exact` name a model.",
                    param="x-penstock-route",
                )
            return self._alone(model)
        if route is not None:
            return route
        return self._of_its_tier(model, may_call) if wish == "cheapest" else self._alone(model)

    def option(self, model: str) -> Option:
        """The model of that name; one that is not in the table is the default provider's."""
        found = self._known.get(model) or self._unnamed.get(model)
        if found is None:
            found = self._new(model)
            if len(self._unnamed) >= 1000:  # clients may name what they like
                self._unnamed.clear()
            self._unnamed[model] = found
        return found

    def _alone(self, model: str) -> Choice:
        option = self.option(model)
        return Choice((option,), option)

    def _of_its_tier(self, model: str, may_call: Callable[[str], bool]) -> Choice:
        tier = self._models[model].tier if model in self._models else None
        if tier is None:
            return self._alone(model)
        named = self._models[model]
        equal = tuple(
            self._known[name]
            for name, each in self._models.items()
            if each.tier is not None and each.tier >= tier and self._same_payer(named.provider, each.provider)
            if name == model or may_call(name)
        )
        return Choice(equal, self._known[model])

    def _same_payer(self, one: str, other: str) -> bool:
        """A client's own key goes to no other provider, nor does anybody else pay for that client."""
        return one == other or self._client_pays.isdisjoint((one, other))

    def _routed(self, name: str, route: Route) -> Choice:
        options = tuple(self._known[model] for model in route.models)
        baseline = self._known[route.baseline]
        return Choice(
            options,
            baseline,
            named=baseline.name == name,
            route=name,
            retry_lost=route.retry_lost,
            sampled=route.sampled,
        )

    def _new(self, name: str) -> Option:
        named = self._models.get(name) or Named(self._default, name)
        target = Target(named.provider, self._base_urls[named.provider], named.upstream)
        return Option(name, target, *self._describe(name, target))
