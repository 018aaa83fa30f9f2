"""`/console/figures`: what was asked, spent and saved in the last hour, for the page.

Rule: everybody's figures are the administrator's to see, a key's are its own. They are told by the same sums as the
metrics, so that both agree. USD are decimals in strings, times seconds.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from decimal import Decimal
from itertools import islice
from typing import Any, Final, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from proxy.core.access import Grant
from proxy.core.books import Answered
from proxy.core.call import header_map
from proxy.core.history import MINUTE, NUMBERS, TIMED, Figures, History
from proxy.endpoints.admin import Balance
from proxy.endpoints.intake import Door

NEWEST: Final = 50  # requests that are told one by one
MONEY: Final = {
    "spent": "spent_usd",
    "saved": "saved_usd",
    "saved_cache": "saved_cache_usd",
    "saved_collapse": "saved_collapse_usd",
    "saved_routing": "saved_routing_usd",
    "would_save": "would_save_usd",
}
DIGITS: Final = 9  # of USD, behind the point: sums of floats have no more that mean something


State = Literal["up", "cooling", "trying", "down"]


class Standing(msgspec.Struct, frozen=True):
    """How a model does at a provider, for so many `seconds` yet; trying: it was down, and nobody has succeeded since.
    `ours`: the settings name it.
    """

    provider: str
    model: str
    state: State
    seconds: float
    ours: bool


class Sources(msgspec.Struct, frozen=True):
    """What is shown. `recent`: requests, the newest last. `mode`: of the cache. `wall`: seconds since the epoch."""

    history: History
    recent: Sequence[Answered]
    standings: Callable[[], Iterable[Standing]]
    balance: Callable[[Grant], Balance | None]
    wall: Callable[[], float]
    mode: str


class ConsoleFigures:
    """Not counted itself: a page that looks every other second is no use of the proxy."""

    def __init__(self, sources: Sources, door: Door) -> None:
        self._sources = sources
        self._door = door

    @property
    def routes(self) -> list[Route]:
        return [Route("/console/figures", self._respond, methods=["GET"])]

    async def _respond(self, request: Request) -> Response:
        """What this key may see. Raises Forbidden or Unauthorized."""
        grant = self._door.check_viewer(header_map(request.scope["headers"]))
        body = msgspec.json.encode(self._told(grant))
        return Response(body, media_type="application/json", headers={"cache-control": "no-store"})

    def _told(self, grant: Grant | None) -> dict[str, Any]:
        sources, key = self._sources, None if grant is None else grant.id
        now = sources.wall()
        sources.history.look(now)
        minutes = list(sources.history.minutes(now, key))
        totals = Figures()
        for _, figures in minutes:
            totals.add(figures)
        models = sorted(sources.history.models(key).items(), key=lambda each: (-each[1].spent, each[0]))
        rows = (row for row in reversed(sources.recent) if key is None or row.key == key)
        return {
            "of": "all" if grant is None else "key",
            "key": None if grant is None else grant.name,
            "now": now,
            "since": minutes[0][0] if minutes else now,
            "step": MINUTE,
            "mode": sources.mode,
            "totals": told(totals),
            "minutes": [{"at": began, **told(figures)} for began, figures in minutes],
            "models": [
                {"provider": provider, "model": model, **told(figures)}
                for (provider, model), figures in models
                if provider
            ],
            "requests": [_row(row) for row in islice(rows, NEWEST)],
            "providers": self._providers(grant, {place for place, _ in models}),
            "budget": None if grant is None else self._budget(grant),
        }

    def _providers(self, grant: Grant | None, asked: Collection[tuple[str, str]]) -> list[dict[str, Any]]:
        """A key sees what the settings let it call, and what it `asked` itself: names of others' models are theirs."""
        tried = self._sources.history.tried()
        found = []
        for each in self._sources.standings():
            told = {"provider": each.provider, "model": each.model, "state": each.state, "seconds": each.seconds}
            place = (each.provider, each.model)
            if grant is None:
                attempts, failed = tried.get(place, (0, 0))
                found.append({**told, "attempts": attempts, "failed": failed})
            elif place in asked or (each.ours and grant.may_call(each.model)):
                found.append(told)
        return found

    def _budget(self, grant: Grant) -> dict[str, str] | None:
        balance = self._sources.balance(grant)
        if balance is None or grant.budget is None:
            return None
        usd = {"usd": grant.budget.usd, "spent_usd": balance.spent, "reserved_usd": balance.reserved}
        return {"per": grant.budget.per, **{name: f"{value:f}" for name, value in usd.items()}}


def told(figures: Figures) -> dict[str, Any]:
    """As the page reads them."""
    numbers = {name: getattr(figures, name) for name in NUMBERS if name not in MONEY}
    money = {told_as: f"{getattr(figures, name):.{DIGITS}f}" for name, told_as in MONEY.items()}
    first = {outcome: figures.median(outcome) for outcome in TIMED}
    return {**numbers, **money, "hit_ratio": figures.hit_ratio, "first_token": first}


def _row(row: Answered) -> dict[str, Any]:
    usage = row.usage
    return {
        "id": row.request,
        "at": row.at,
        "key": row.key,
        "endpoint": row.endpoint,
        "asked": row.asked,
        "provider": row.provider,
        "model": row.model,
        "outcome": row.outcome,
        "status": row.status,
        "code": row.code,
        "input": None if usage is None else usage.input,
        "output": None if usage is None else usage.output,
        "cost_usd": _usd(row.cost),
        "saved_usd": _usd(row.spared),
        "first_token": row.token,
        "total": row.total,
        "route": row.route,
        "why": row.why,
        "passed_over": [{"model": model, "reason": reason} for model, reason in row.passed_over],
        "attempts": [{"model": model, "result": result} for model, result in row.attempts],
        "shadow": row.shadow,
    }


def _usd(usd: Decimal | None) -> str | None:
    return None if usd is None else f"{usd:f}"
