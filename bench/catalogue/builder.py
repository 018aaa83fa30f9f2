"""The models of all sellers, out of both sources."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bench.catalogue.disagreements import Disagreements
from bench.catalogue.folding import fold, names_of
from bench.catalogue.genai import Genai, is_named, literals
from bench.catalogue.litellm import KINDS, Row, can_and_cannot, day_of, kind_of, litellm_rates, skipped, whole
from bench.catalogue.merge import finished, from_genai, replaced, said_by, same_price, with_litellm
from bench.catalogue.sellers import Seller, sellers, wanted
from pricing.models import Kind, Model


@dataclass
class Builder:
    genai: Mapping[str, Any]  # providers by their id
    litellm: Mapping[str, Row]
    taken: datetime
    disagreements: Disagreements = field(default_factory=Disagreements)
    met: dict[tuple[str, str], str] = field(default_factory=dict)  # (seller, name in genai-prices): litellm's name

    def models(self) -> list[Model]:
        found: list[Model] = []
        for seller in sellers():
            rows = self.rows_of(seller)
            listed = [self.listed(seller, name, row) for name, row in rows.items()]
            listed += self.unlisted(seller, rows)
            found += fold([each for each in listed if each is not None and wanted(each, seller, self.taken)])
        return found

    def rows_of(self, seller: Seller) -> dict[str, Row]:
        """litellm's rows by the provider's own name; of two rows for one name, what the first says counts."""
        rows: dict[str, Row] = {}
        for key in sorted(self.litellm, key=lambda key: (key.count("/"), key)):
            row = self.litellm[key]
            if row.get("mode") in KINDS and seller.sells(row.get("litellm_provider", "")) and not skipped(key):
                name = seller.name(key)
                rows[name] = {**row, **rows.get(name, {})}
        return rows

    def infos(self, seller: Seller) -> list[Any]:
        provider = self.genai.get(seller.genai)
        return provider.models if provider is not None else []

    def find(self, seller: Seller, name: str) -> Genai | None:
        provider = self.genai.get(seller.genai)
        info = provider.find_model(name) if provider is not None else None
        return Genai(info, self.taken) if info is not None else None

    def listed(self, seller: Seller, name: str, row: Row) -> Model | None:
        """A model that litellm lists, and perhaps genai-prices."""
        other = self.find(seller, name)
        ours, theirs = litellm_rates(row), other.rates() if other is not None and not other.daily else None
        exact = other is not None and is_named(other, name)
        self.disagreements.compare(f"{seller.id}/{name}", theirs if exact else None, ours)
        if other is not None and exact:
            self.met.setdefault((seller.id, other.info.id), name)
        trusted = theirs is not None and (exact or (ours is not None and same_price(theirs, ours)))
        yes, no = can_and_cannot(row)
        window = whole(row.get("max_input_tokens"))
        model = Model(
            provider=seller.id,
            id=name,
            kind=kind_of(row),
            window=window,
            max_output=whole(row.get("max_output_tokens")) if row["mode"] != "embedding" else None,
            yes=yes,
            no=no,
            cache_least=whole(row.get("prompt_cache_min_tokens")),
            retires=day_of(row.get("deprecation_date")),
        )
        model = said_by(model, "litellm", "window", "max_output", "capabilities", "cache_least", "retires")
        if other is not None and exact and model.window is None:
            model = said_by(replaced(model, window=other.info.context_window), "genai", "window")
        if trusted and other is not None:
            model = from_genai(model, other)
            self.disagreements.note(f"{seller.id}/{name}", "window", other.info.context_window, window)
        return finished(with_litellm(model, row), seller)

    def unlisted(self, seller: Seller, rows: Mapping[str, Row]) -> Iterator[Model | None]:
        """What only genai-prices has. Its names that stand for several regions are no names that one could ask for."""
        for info in self.infos(seller) if seller.id != "vertex" else ():
            model = Genai(info, self.taken)
            if info.id in rows or (seller.id, info.id) in self.met or not model.text or info.id.startswith("regional."):
                continue
            if seller.id == "openrouter" and ("/" not in info.id or info.id.startswith("~") or ":batch" in info.id):
                continue
            kind: Kind = "embedding" if "embed" in info.id or seller.id == "voyage" else "chat"
            bare = Model(provider=seller.id, id=info.id, kind=kind, window=info.context_window)
            yield finished(from_genai(said_by(bare, "genai", "window"), model), seller)

    def with_aliases(self, models: list[Model]) -> list[Model]:
        """With the names that genai-prices spells out for a model and that are no other's."""
        owners = {(model.provider, name): (model.provider, model.id) for model in models for name in names_of(model)}
        more: dict[tuple[str, str], set[str]] = defaultdict(set)
        for seller in sellers():
            for info in self.infos(seller) if seller.id not in {"vertex", "bedrock"} else ():
                owner = owners.get((seller.id, self.met.get((seller.id, info.id), info.id)))
                names = {name for name, _ in literals(info.match) if name[-1:].isalnum() and not name.startswith("ft:")}
                if owner is not None:
                    found = {name: self.find(seller, name) for name in names if (seller.id, name) not in owners}
                    more[owner] |= {name for name, other in found.items() if other and other.info is info}
        return [replaced(each, aliases=(*each.aliases, *sorted(more[each.provider, each.id]))) for each in models]
