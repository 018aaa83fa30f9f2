"""`penstock prices`: what models cost, where each number is from, and which of the settings' models have no price."""

from collections.abc import Iterable, Iterator
from datetime import date
from decimal import Decimal

from rich.console import Console
from rich.table import Table as Shown

from pricing.cost import PARTS, Price
from pricing.models import Model, Source
from pricing.table import Table
from proxy.offers import Offers
from proxy.settings import Settings

OLD = 90  # days after which prices are worth another look
SERVICES = ("standard", "flex", "priority", "batch")


def list_prices(table: Table, console: Console, *, words: Iterable[str]) -> int:
    """A row for each model whose provider or name holds all the words. 1 if there is none."""
    wanted = [word.lower() for word in words]
    found = [each for each in table.models if all(word in f"{each.provider}/{each.id}".lower() for word in wanted)]
    shown = Shown("provider", "model", "input", "cached", "output", "window", "from", title="USD per million tokens")
    for each in found:
        rates = each.standard or Price()
        prices = (_usd(rates.input), _usd(rates.cached_input), _usd(rates.output))
        window = "?" if each.window is None else f"{each.window:,}"
        shown.add_row(each.provider or "-", each.id, *prices, window, _names(table.origin(each, "standard")))
    console.print(shown if found else "No such model.")
    return 0 if found else 1


def show_prices(table: Table, console: Console, name: str, settings: Settings | None = None) -> int:
    """Everything that is known of one model, each with its source and day. 1 if the name means none."""
    if settings is not None and name in settings.models:
        model, _ = Offers(settings, table).model(name)
    else:
        model = table.find(name)
    if model is None:
        console.print(f"{name}: not known, or the name could mean models of different prices. Name the provider")
        console.print("(`azure/gpt-4o`), or set the price: see pricing/README.md.")
        return 1
    shown = Shown(
        "what", "USD per million tokens", "from", "as of", title=f"{name}: {model.provider or '-'}/{model.id}"
    )
    for what, value, field in _known(model, table):
        sources = table.origin(model, field)
        taken = max((source.taken for source in sources if source.taken), default=None)
        shown.add_row(what, value, _names(sources) or "-", str(taken or "-"))
    console.print(shown)
    return 0


def check_prices(table: Table, console: Console, settings: Settings, *, today: date) -> int:
    """What is worth a look in the prices of the settings' models. 1 if one of them has no price."""
    unpriced = checked = 0
    offers = Offers(settings, table)
    for name in {**settings.models, **dict.fromkeys(_routed(settings))}:
        model, _ = offers.model(name)
        notes = list(_doubts(model, table, today)) if model else ["no price is known; set models.{name}.price"]
        unpriced += model is None or not _is_priced(model)
        for note in notes:
            console.print(f"{name}: {note.replace('{name}', name)}", markup=False, highlight=False)
        checked += 1
    console.print(f"{checked} model{'s' if checked != 1 else ''} checked, {unpriced} without a price.", highlight=False)
    return 1 if unpriced else 0


def _is_priced(model: Model) -> bool:
    known = model.standard
    return known is not None and known.input is not None and (known.output is not None or model.kind == "embedding")


def _routed(settings: Settings) -> Iterator[str]:
    for route in settings.routes:
        yield from settings.route_models(route)


def _doubts(model: Model, table: Table, today: date) -> Iterator[str]:
    if not _is_priced(model) or model.standard is None:
        yield "no price is known of what it reads and writes; set models.{name}.price, with input and output"
        return
    if model.standard.cached_input is None:
        yield "no price for cached input is known: answers that use it have no known cost"
    if model.deprecated:
        yield "its provider advises against it"
    if model.retires is not None:
        yield f"its provider {'withdrew' if model.retires <= today else 'withdraws'} it on {model.retires}"
    for later in model.later:
        if later.since > today:
            yield f"its price changes on {later.since}"
    for source in table.origin(model, "standard"):
        if source.taken is not None and (today - source.taken).days > OLD:
            yield f"its price was taken from {source.name} on {source.taken}, {(today - source.taken).days} days ago"


def _known(model: Model, table: Table) -> Iterator[tuple[str, str, str]]:
    """(what, its value, the field that it stands in)."""
    for service in SERVICES:
        rates = getattr(model, service)
        if rates is not None:
            yield from _priced(rates, "" if service == "standard" else f"{service}: ", service)
            for tier in rates.tiers:
                yield from _priced(tier, f"{service}, prompt above {tier.above:,}: ", service)
    for hours in model.hours:
        when = ", ".join(f"{period.start}-{period.end} UTC" for period in hours.periods)
        yield from _priced(hours.standard, f"{when}: ", "hours")
    for later in model.later:
        if later.standard is not None:
            yield from _priced(later.standard, f"from {later.since}: ", "later")
    for fee in model.other_fees:
        yield "also charged", fee, "other_fees"
    yield "window", _count(model.window), "window"
    yield "longest answer", _count(model.max_output), "max_output"
    can, cannot = " ".join(model.yes), " ".join(model.no)
    yield "can", f"{can or '-'}; not: {cannot or '-'}", "capabilities"
    yield "tokenizer", model.tokenizer, "tokenizer"
    cache = table.cache(model)
    if cache is not None:
        lifetime = "?" if cache.lifetime is None else f"{cache.lifetime:,} s"
        yield "prompt cache", f"from {_count(cache.least)} tokens, for {lifetime}", "cache"


def _priced(price: Price, label: str, field: str) -> Iterator[tuple[str, str, str]]:
    for part in PARTS:
        value: Decimal | None = getattr(price, part)
        if value is not None:
            yield f"{label}{part}", str(value), field


def _names(sources: Iterable[Source]) -> str:
    return ", ".join(f"{source.name} {source.version}".strip() for source in sources)


def _usd(price: Decimal | None) -> str:
    return "?" if price is None else str(price)


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"
