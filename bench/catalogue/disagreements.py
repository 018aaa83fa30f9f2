"""Where the two sources disagree."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.catalogue.litellm import LITELLM_PARTS
from pricing.cost import Rates


@dataclass
class Disagreements:
    """Per field: how many were compared, and what each source says where they differ."""

    compared: Counter[str] = field(default_factory=Counter)
    differ: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def note(self, model: str, what: str, genai: object, litellm: object) -> None:
        if genai is None or litellm is None:
            return
        self.compared[what] += 1
        if genai != litellm:
            self.differ[what].append(f"{model}: {genai} / {litellm}")

    def compare(self, name: str, theirs: Rates | None, ours: Rates | None) -> None:
        if theirs is None or ours is None:
            return
        for part in LITELLM_PARTS:
            self.note(name, part, getattr(theirs, part), getattr(ours, part))
        both = (theirs.tiers, ours.tiers)
        told = ["; ".join(f"above {t.above}: {t.input} in, {t.output} out" for t in tiers) or "none" for tiers in both]
        self.note(name, "tiers", *told)

    def lines(self) -> Iterator[str]:
        for what, count in sorted(self.compared.items()):
            yield f"{what}: {count} compared, {len(self.differ[what])} differ (genai-prices / litellm)"
            yield from (f"  {line}" for line in sorted(self.differ[what]))
