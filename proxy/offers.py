"""What the settings offer: each model with all that is known of it, and who may answer for which name.

Rule: the settings are right. Where they are silent the catalogue counts, by the provider's name for a model first.
"""

from functools import lru_cache

import msgspec

from pricing.models import Model, PromptCache
from pricing.table import Table
from proxy.core.routing import Named, Route, Routes, Target
from proxy.errors import StartupError
from proxy.settings import Model as Own
from proxy.settings import Settings

UNSAID = Own()


def price_table(settings: Settings | None) -> Table:
    """The catalogue with the settings' prices before it. Raises StartupError."""
    table = Table.packaged()
    own = {name: model.price for name, model in settings.models.items() if model.price} if settings else {}
    try:
        return table.with_prices(own)
    except ValueError as error:
        raise StartupError(f"models: {error}.") from None


class Offers:
    """What is known of a model, by the name of the settings or of a client."""

    def __init__(self, settings: Settings, table: Table) -> None:
        self._settings = settings
        self._table = table
        self.describe = lru_cache(maxsize=1000)(self._describe)  # clients may name what they like

    def _describe(self, name: str, provider: str, upstream: str) -> tuple[Model | None, PromptCache | None]:
        """The model, and the terms of its provider's prompt cache."""
        own, table = self._settings.models.get(name, UNSAID), self._table
        found = None if own.price else table.find(upstream, provider)
        found = found or table.find(name, provider)
        if found is None and own == UNSAID:
            return None, None
        model = _corrected(found or Model(provider="", id=name), own)
        # Whoever names a price for cached tokens says that there is a cache, if no more than that.
        return model, table.cache(model) or (PromptCache() if "cached_input" in own.price else None)

    def model(self, name: str) -> tuple[Model | None, PromptCache | None]:
        """The same of a model of the settings."""
        own = self._settings.models.get(name, UNSAID)
        return self.describe(name, self._settings.provider_of(name), own.upstream or name)


def _corrected(model: Model, own: Own) -> Model:
    """With what the settings say of its limits and capabilities."""
    said = {*own.can, *own.cannot}
    return msgspec.structs.replace(
        model,
        window=own.window or model.window,
        max_output=own.max_output or model.max_output,
        yes=(*own.can, *(each for each in model.yes if each not in said)),
        no=(*own.cannot, *(each for each in model.no if each not in said)),
    )


def routes_of(settings: Settings, table: Table) -> Routes:
    """Who may answer for which name."""
    offers = Offers(settings, table)
    tiers = settings.routing.tiers

    def describe(name: str, target: Target) -> tuple[Model | None, PromptCache | None]:
        return offers.describe(name, target.provider, target.upstream)

    return Routes(
        base_urls={name: provider.base_url.rstrip("/") for name, provider in settings.providers.items()},
        default_provider=settings.default_provider,
        endpoints={
            name: provider.endpoints for name, provider in settings.providers.items() if provider.endpoints is not None
        },
        client_pays=[name for name, provider in settings.providers.items() if provider.effective_auth == "client"],
        models={
            name: Named(
                settings.provider_of(name),
                model.upstream or name,
                tiers.index(model.tier) if model.tier is not None else None,
            )
            for name, model in settings.models.items()
        },
        routes={
            name: Route(
                settings.route_models(name),
                settings.route_baseline(name),
                retry_lost=route.retry_lost,
                sampled=route.sampled,
            )
            for name, route in settings.routes.items()
        },
        describe=describe,
    )
