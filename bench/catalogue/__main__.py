"""What the command line asks for: both packages in, the catalogue and the disagreements out."""

import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from bench.catalogue.builder import Builder
from bench.catalogue.families import CACHES
from bench.catalogue.genai import read_genai
from bench.catalogue.litellm import read_litellm
from bench.catalogue.sellers import sellers
from pricing.models import Catalogue, Provider, Source

OUT = Path(__file__).resolve().parents[2] / "pricing" / "catalogue.json"


def catalogue(builder: Builder, versions: Mapping[str, str]) -> Catalogue:
    day = builder.taken.date()
    sources = {
        "genai": Source("genai-prices", versions["genai"], day, "https://github.com/pydantic/genai-prices"),
        "litellm": Source("litellm", versions["litellm"], day, "https://github.com/BerriAI/litellm"),
        "families": Source("Penstock", "", day, "pricing/README.md#families"),
    }
    listed = builder.with_aliases(builder.models())
    providers = {
        each.id: Provider(
            names=tuple(sorted({each.id, *each.prefixes})),
            maker=bool(each.makes),
            pages=tuple(builder.genai[each.genai].pricing_urls or ())[:2] if each.genai else (),
        )
        for each in sellers()
    }
    return Catalogue(sources=sources, providers=providers, caches=CACHES, models=tuple(listed))


def text_of(built: Catalogue) -> bytes:
    """A line a model, its name first, so that a change shows as what it is."""
    head = {name: each for name, each in msgspec.to_builtins(built).items() if name != "models"}
    models = [{"provider": each.provider, "id": each.id, **msgspec.to_builtins(each)} for each in built.models]
    rows = ",\n".join(compact(model) for model in models)
    return f'{compact(head).removesuffix("}")},"models":[\n{rows}\n]}}\n'.encode()


def compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@click.command()
@click.option("--taken", required=True, help="The day on which the packages were fetched, as 2026-11-23.")
@click.option("--genai", help="A wheel of genai-prices, or a directory that has it installed.")
@click.option("--litellm", help="A wheel of litellm, or a directory that has it installed.")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True)
def main(taken: str, genai: str | None, litellm: str | None, out: Path) -> None:
    """Build the pricing catalogue, and print where its two sources disagree."""
    providers, genai_version = read_genai(genai)
    rows, litellm_version = read_litellm(litellm)
    builder = Builder(providers, rows, datetime.fromisoformat(taken).replace(tzinfo=UTC))
    built = catalogue(builder, {"genai": genai_version, "litellm": litellm_version})
    out.write_bytes(text_of(built))
    for line in builder.disagreements.lines():
        click.echo(line)
    by_provider = Counter(model.provider for model in built.models)
    click.echo(f"{len(built.models)} models, {out.stat().st_size:,} bytes: {dict(by_provider)}")


if __name__ == "__main__":
    main()
