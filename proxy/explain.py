"""`penstock explain`: which model would answer one request, at what expected cost, and why not another. Asks nobody.

What a proxy has learned, what is down or cooling there, its keys and what they spent is read from its data directory.
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
from proxy.core.access import NOBODY, Grant, meant_key
from proxy.core.breaker import Health
from proxy.core.budget import WORDS as PERIODS
from proxy.core.budget import window
from proxy.core.call import Call, read_call
from proxy.core.chain import account_of, links_for, namespace_of
from proxy.core.dialect import BY_NAME, CHAT
from proxy.core.learned import Learned
from proxy.core.ranking import Estimate
from proxy.core.routing import Choice, Routes
from proxy.errors import InvalidRequest, NotFound, PenstockError, StartupError
from proxy.keys import known_keys
from proxy.ledger.spending import spent_in
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
    raw: bytes,
    settings: Settings,
    table: Table,
    console: Console,
    *,
    key: str | None,
    headers: Mapping[str, str],
    endpoint: str = CHAT.name,
) -> int:
    """Print the ranking of one request to this endpoint. `key`: name or id of the client's key. 1: nobody may be asked.

    Raises StartupError, OSError.
    """
    clock = SystemClock()
    grant = _grant(settings, key, clock.wall())
    left = left_of(settings.data.directory, grant, clock.wall())
    call, routes = _call(BY_NAME[endpoint].path, raw, grant, headers), routes_of(settings, table)
    try:
        grant.check_model(call.model)
        choice = routes.choice(call.model, call.directives.route, grant.may_call, endpoint)
    except PenstockError as error:
        raise StartupError(f"the request: {error.message}") from None
    ranked = asyncio.run(_consider(call, choice, settings, clock, left))
    console.print(_shown(ranked, wide=console.width >= WIDE))
    for note in [*_left_out(routes, call, choice, grant), *_notes(ranked, call), *_of_budget(grant, left)]:
        console.print(note, markup=False, highlight=False)
    return 0 if ranked.ranking.order else 1


def _left_out(routes: Routes, call: Call, choice: Choice, grant: Grant) -> Iterable[str]:
    """Models of the route that are not even ranked, and why."""
    wish, endpoint = call.directives.route, call.dialect.name
    allowed = routes.choice(call.model, wish, grant.may_call, None).options
    for each in routes.choice(call.model, wish, endpoint=None).options:
        if each not in allowed:
            yield f"{each.name}: this key may not call it"
        elif each not in choice.options:
            other = f"its vectors are not those of {choice.baseline.name}"
            yield f"{each.name}: {other if routes.has(each, endpoint) else f'it has no {endpoint}'}"


def _grant(settings: Settings, key: str | None, now: float) -> Grant:
    if key is None:
        return NOBODY
    try:
        found = meant_key(known_keys(settings.data.directory, settings), key)
    except NotFound:
        raise StartupError(f"--key: there is no key named {key!r} in the settings or the ledger.") from None
    if found.revoked is not None or found.grant.is_over(now):
        raise StartupError(f"--key: {key!r} is not in force, so everything is refused to it.")
    return found.grant


def left_of(directory: Path, grant: Grant, now: float) -> Decimal | None:
    """USD of its budget; None: it has none. What is under way has spent what was set aside for it."""
    if grant.budget is None:
        return None
    since, _ = window(grant.budget.per, now)
    return grant.budget.usd - spent_in(directory, grant.id, since)


def _of_budget(grant: Grant, left: Decimal | None) -> Iterable[str]:
    if grant.budget is not None and left is not None:
        whole, rest = f"{grant.budget.usd:f} USD {PERIODS[grant.budget.per]}", max(left, Decimal(0)).normalize()
        yield f"Of this key's budget of {whole} {rest:f} are left."


def _call(path: str, raw: bytes, grant: Grant, headers: Mapping[str, str]) -> Call:
    said = {name.lower().encode(): value.encode() for name, value in headers.items()}
    try:
        return read_call(path, raw, said, grant=grant)
    except InvalidRequest as error:
        raise StartupError(f"the request: {error.message}") from None


async def _consider(call: Call, choice: Choice, settings: Settings, clock: SystemClock, left: Decimal | None) -> Ranked:
    directory = settings.data.directory
    learned = learned_in(directory, settings, clock)
    secret = read_secret(directory) or b""
    pays = any(settings.providers[option.target.provider].effective_auth == "client" for option in choice.options)
    namespace = namespace_of(call, client_pays=pays, shared=settings.cache.shared)
    links = links_for(call, namespace, secret)
    account = account_of(call, secret, client_pays=pays)
    return await Router(learned, clock).consider(call, choice, account, links, left)


def learned_in(directory: Path, settings: Settings, clock: SystemClock) -> Learned:
    """What a proxy on this data directory has learned so far. Raises StartupError: it cannot be read."""
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
