"""`penstock explain`: which model would answer one request, at what expected cost, and why not another. Asks nobody.

What a proxy has learned, and what is down or cooling there, is read from its data directory.
"""

import asyncio
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table as Shown

from pricing.table import Table
from proxy.clock import SystemClock
from proxy.core.access import NOBODY, Grant
from proxy.core.breaker import Health
from proxy.core.call import Call, read_call
from proxy.core.chain import account_of, links_for, namespace_of
from proxy.core.learned import Learned
from proxy.core.ranking import Estimate
from proxy.core.routing import Choice
from proxy.errors import InvalidRequest, PenstockError, StartupError
from proxy.offers import routes_of
from proxy.router import Ranked, Router
from proxy.settings import Settings
from proxy.store.notebook import Notebook
from proxy.store.secret import read_secret

WIDE = 110  # columns of a terminal that has room for all

WHY = {
    "pinned": "it made the calls or the reasoning that this conversation goes on from",
    "cheapest": "the lowest expected cost",
    "only": "nobody else may be asked",
    "unpriced": "nobody has a known price",
    "waiting": "all of them have to wait for their turn, and it the shortest",
    "cooling": "all others are out, and this one cools down",
    "named": "nobody can; its provider may say why",
}


def explain(
    raw: bytes, settings: Settings, table: Table, console: Console, *, key: str | None, headers: Mapping[str, str]
) -> int:
    """Print the ranking of one request. `key`: the name of the client's key. 1: nobody may be asked. StartupError."""
    grant = _grant(settings, key)
    call, routes = _call(raw, grant, headers), routes_of(settings, table)
    try:
        grant.check_model(call.model)
        choice = routes.choice(call.model, call.directives.route, grant.may_call)
        others = routes.choice(call.model, call.directives.route).options
    except PenstockError as error:
        raise StartupError(f"the request: {error.message}") from None
    ranked = asyncio.run(_consider(call, choice, settings))
    console.print(_shown(ranked, wide=console.width >= WIDE))
    forbidden = [f"{each.name}: this key may not call it" for each in others if each not in choice.options]
    for note in [*forbidden, *_notes(ranked, call)]:
        console.print(note, markup=False, highlight=False)
    return 0 if ranked.ranking.order else 1


def _grant(settings: Settings, key: str | None) -> Grant:
    if key is None:
        return NOBODY
    for each in settings.keys:
        if each.name == key:
            return each.grant
    raise StartupError(f"--key: there is no key named {key!r} in the settings.")


def _call(raw: bytes, grant: Grant, headers: Mapping[str, str]) -> Call:
    said = {name.lower().encode(): value.encode() for name, value in headers.items()}
    try:
        return read_call("chat/completions", raw, said, grant=grant)
    except InvalidRequest as error:
        raise StartupError(f"the request: {error.message}") from None


async def _consider(call: Call, choice: Choice, settings: Settings) -> Ranked:
    directory, clock = settings.data.directory, SystemClock()
    learned = _learned(directory, settings, clock)
    secret = read_secret(directory) or b""
    pays = any(settings.providers[option.target.provider].effective_auth == "client" for option in choice.options)
    namespace = namespace_of(call, client_pays=pays, shared=settings.cache.shared)
    links = links_for(call, namespace, secret)
    account = account_of(call, secret, client_pays=pays)
    return await Router(learned, clock).consider(call, choice, account, links)


def _learned(directory: Path, settings: Settings, clock: SystemClock) -> Learned:
    never = {name: provider.breaker_failures for name, provider in settings.providers.items()}
    learned = Learned(Health(at=never), kept_for=settings.cache.ttl)
    kept = Notebook(directory).read()
    if kept is not None:
        try:
            learned.restore(kept, clock.wall())
        except ValueError as error:
            raise StartupError(f"data.directory: what was learned in {directory} cannot be read: {error}.") from None
    return learned


def _shown(ranked: Ranked, *, wide: bool) -> Shown:
    choice = ranked.asked.choice
    shown = Shown(title=escape(f"{choice.route or choice.baseline.name}: USD expected"))
    shown.add_column("")
    shown.add_column("model", overflow="fold")
    for heading in ("prompt", "cached", "answer", "this request", "with those to come"):
        shown.add_column(heading, justify="right", no_wrap=heading != "with those to come")
    for heading in ("first token", "provider") if wide else ():
        shown.add_column(heading, justify="right")
    for place, each in enumerate(ranked.ranking.order, 1):
        shown.add_row(str(place), *_row(each, wide=wide))
    for each in ranked.ranking.dropped:
        shown.add_row("-", *_row(each, wide=wide), style="dim")
    return shown


def _row(each: Estimate, *, wide: bool) -> Iterable[str]:
    first = "?" if each.first is None else f"{each.first:.2f} s"
    figures = (f"{each.input:,}", f"{each.cached:,}", f"{each.output:,}", _usd(each.usd), _usd(each.total))
    more = (first, escape(each.option.target.provider)) if wide else ()
    return escape(each.option.name), *figures, *more


def _said(each: Estimate) -> str:
    unsure = f"not known to do {', '.join(each.unsure)}" if each.unsure else ""
    return "; ".join(filter(None, (each.words, unsure)))


def _notes(ranked: Ranked, call: Call) -> Iterable[str]:
    ranking, ask = ranked.ranking, ranked.ask
    for each in (*ranking.order, *ranking.dropped):
        if said := _said(each):
            yield f"{each.option.name}: {said}"
    if ranking.order:
        yield f"{ranking.order[0].option.name} is asked first: {WHY[ranking.why]}."
    else:
        yield "Nobody may be asked."
    if call.directives.max_cost is not None:
        yield f"Those that may cost more than {call.directives.max_cost:f} USD are not asked."
    needs = ", ".join(ask.needs.capabilities)
    yield f"The request needs {needs or 'nothing special'}; requests expected to follow it: {ask.to_come:.1f}."


def _usd(usd: Decimal | None) -> str:
    return "?" if usd is None else f"{usd:.6f}"
