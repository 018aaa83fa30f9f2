"""The packaged catalogue of models, and who is meant by a name.

Rule: never a wrong guess. A name that could mean models of different prices means none.
"""

from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from functools import cached_property
from importlib.resources import files
from itertools import chain

import msgspec

from pricing.cost import PARTS, Rates
from pricing.models import Catalogue, Model, Prices, PromptCache, Source
from pricing.names import READINGS, plain

SETTINGS = "settings"  # the source of the operator's prices
FAMILIES = "families"  # the source of what follows from a model's family, and so is not said of each
FAMILIAR = {"tokenizer", "cache"}


class Table:
    """The catalogue, with the operator's prices before it."""

    def __init__(self, catalogue: Catalogue, own: Mapping[str, Model] | None = None) -> None:
        self._catalogue = catalogue
        self._own = own or {}

    @classmethod
    def packaged(cls) -> "Table":
        """The one that Penstock brings along; takes milliseconds, so keep it."""
        data = files("pricing").joinpath("catalogue.json").read_bytes()
        return cls(msgspec.json.decode(data, type=Catalogue))

    @property
    def models(self) -> Iterator[Model]:
        """All, the operator's first."""
        return chain(self._own.values(), self._catalogue.models)

    def with_prices(self, prices: Mapping[str, Mapping[str, str]]) -> "Table":
        """The operator's prices, by the exact name: USD per million tokens as decimal strings. They replace all that
        the catalogue says of that model's prices. Tokens of a kind that is not named cost what input or output costs.

        Raises ValueError: an unknown kind of tokens, or no number; it names the model.
        """
        return Table(self._catalogue, {**self._own, **{name: self._priced(name, prices[name]) for name in prices}})

    def _priced(self, name: str, given: Mapping[str, str]) -> Model:
        try:
            standard = own_rates(given)
        except ValueError as wrong:
            raise ValueError(f"the price of {name}: {wrong}") from None
        known = self.find(name) or Model(provider="", id=name)
        bare = Prices(standard=standard)
        changes = {field: getattr(bare, field) for field in Prices.__struct_fields__}
        gone = {*changes, "later", "other_fees"}
        origin = {
            name: " ".join(each for each in said.split() if each not in gone) for name, said in known.origin.items()
        }
        return msgspec.structs.replace(
            known, **changes, later=(), other_fees=(), origin={**origin, SETTINGS: "standard"}
        )

    def origin(self, model: Model, field: str) -> tuple[Source, ...]:
        """Where a field of a model comes from; () where it has none. `capabilities` is one field."""
        names = [name for name, fields in model.origin.items() if field in fields.split()]
        if field in FAMILIAR and not names:
            names = [FAMILIES]
        return tuple(self._catalogue.sources.get(name, Source(name)) for name in names)

    def cache(self, model: Model) -> PromptCache | None:
        """The terms of the provider's prompt cache; None: not known to have one."""
        terms = self._catalogue.caches.get(model.cache or "")
        if terms is None or model.cache_least is None:
            return terms
        return msgspec.structs.replace(terms, least=model.cache_least)

    def find(self, name: str, provider: str | None = None) -> Model | None:
        """The model that is meant: None where there is none, or several of different prices.

        `provider`: one of the catalogue's, by any of its names; another word says nothing. Without one, a prefix of
        the name does (`azure/gpt-4o`), then the name means its maker's model, then what any seller calls so.
        """
        if name in self._own:
            return self._own[name]
        text = plain(name)
        seller = self._sellers.get((provider or "").lower())
        prefix, _, rest = text.partition("/")
        if seller is None and rest and prefix in self._sellers:
            found = self._among([self._sellers[prefix]], rest)
            if found:
                return agreed(found)
        if seller is not None:
            return agreed(self._among([seller], text) or self._among([seller], self._without(text, seller)))
        if found := self._among(self._makers, text):
            return agreed(found)
        # What stands before a / names who made a model, and many sell it; addresses that one seller alone has do not.
        return agreed(self._among(None, text)) if "/" not in text or text.startswith("accounts/") else None

    def _without(self, text: str, seller: str) -> str:
        prefix, _, rest = text.partition("/")
        return rest if prefix in self._catalogue.providers[seller].names else text

    @cached_property
    def _sellers(self) -> dict[str, str]:
        return {name: seller for seller, about in self._catalogue.providers.items() for name in (seller, *about.names)}

    @cached_property
    def _makers(self) -> frozenset[str]:
        return frozenset(seller for seller, about in self._catalogue.providers.items() if about.maker)

    def _among(self, sellers: Collection[str] | None, text: str) -> list[Model]:
        """Those (of these sellers) that bear the name: as it stands, else as it is varied, else without its date."""
        for index, read in zip(self._indexes, READINGS, strict=True):
            named = index.get(read(text), ())
            found = [model for model in named if sellers is None or model.provider in sellers]
            if found:
                return found
        return []

    @cached_property
    def _indexes(self) -> tuple[dict[str, list[Model]], ...]:
        indexes: tuple[dict[str, list[Model]], ...] = tuple({} for _ in READINGS)
        for model in self._catalogue.models:
            names = {name.lower() for name in (model.id, *model.aliases)}
            for index, read in zip(indexes, READINGS, strict=True):
                for key in {read(name) for name in names}:
                    index.setdefault(key, []).append(model)
        return indexes


def own_rates(given: Mapping[str, str]) -> Rates:
    unknown = sorted(given.keys() - set(PARTS))
    if unknown:
        raise ValueError(f"{unknown[0]} is none of {', '.join(PARTS)}")
    prices = {part: decimal(part, text) for part, text in given.items()}
    spent, made = prices.get("input"), prices.get("output")
    return msgspec.convert(
        {
            **dict.fromkeys(PARTS, spent),
            **dict.fromkeys(("output", "audio_output", "reasoning"), made),
            **prices,
        },
        Rates,
    )


def decimal(part: str, text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{part} is a decimal number in quotes, not {text!r}") from None


def agreed(found: list[Model]) -> Model | None:
    """The first, if all cost the same."""
    priced = {msgspec.json.encode(prices_of(model)) for model in found}
    return found[0] if len(priced) == 1 else None


def prices_of(model: Model) -> tuple[object, ...]:
    return (*(getattr(model, field) for field in Prices.__struct_fields__), model.later, model.other_fees)
