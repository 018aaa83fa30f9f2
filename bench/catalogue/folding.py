"""Versions that say the same become one model: its shortest name, the others as aliases."""

import re
from collections import defaultdict
from collections.abc import Iterable

import msgspec

from bench.catalogue.merge import replaced
from pricing.models import Model


def stem(name: str) -> str:
    """A name without region, date and version: rows that share it and say the same are one model."""
    name = re.sub(r"^(us|eu|apac|au|jp|in|global)\.", "", name.lower())
    name = re.sub(r"-v\d+(:\d+)?$|:\d+$|-latest$|@default$", "", name)
    return re.sub(r"[-@]20\d\d-?\d\d-?\d\d$", "", name).replace("accounts/fireworks/models/", "")


def fold(models: Iterable[Model]) -> list[Model]:
    groups: dict[tuple[str, bytes], list[Model]] = defaultdict(list)
    for model in models:
        alike = msgspec.json.encode(replaced(model, id="", aliases=(), retires=None))
        groups[stem(model.id), alike].append(model)
    return sorted((one_of(group) for group in groups.values()), key=lambda model: model.id)


def one_of(group: list[Model]) -> Model:
    first, *others = sorted(group, key=lambda model: (len(model.id), not model.id.startswith("us."), model.id))
    retires = [model.retires for model in group if model.retires]
    return replaced(
        first,
        aliases=tuple(sorted({name for each in others for name in (each.id, *each.aliases)} | set(first.aliases))),
        retires=max(retires) if len(retires) == len(group) else None,
    )


def names_of(model: Model) -> list[str]:
    return [name.lower() for name in (model.id, *model.aliases)]
