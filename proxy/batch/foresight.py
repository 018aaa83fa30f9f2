"""`--dry-run`: what a batch would ask, and what that would cost. Asks nobody and writes nothing.

Rule: the plans, keys and rankings are those of the proxy itself, so that what is foreseen is what a run then does. What
has no known price is named, and never 0.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import httpx

from proxy.app import limiter_of, rules_of, terms_of
from proxy.batch.requests import Item, Requests
from proxy.checks import IN_LEDGER, unheeded
from proxy.clock import SystemClock
from proxy.core.access import Grant
from proxy.core.batch import ENDPOINTS, Request
from proxy.core.call import Headers, read_call
from proxy.core.chain import links_for
from proxy.core.dialect import RESPONSES
from proxy.core.embeddings import asking
from proxy.core.entry import unpack
from proxy.core.policy import freshness
from proxy.core.ranking import Estimate
from proxy.errors import LedgerUnavailable, OverLimit, PenstockError, StartupError
from proxy.explain import learned_in, left_of
from proxy.keyring import Keyring, Shelf
from proxy.offers import price_table, routes_of
from proxy.plans import Plan, Plans
from proxy.router import Router, encoding_for
from proxy.settings import Settings
from proxy.store.glance import Glance, glance
from proxy.store.purges import PurgeFile
from proxy.store.secret import read_secret
from proxy.upstream import Upstream

NAMED = 5  # lines of which it is said what is wrong with them


@dataclass(slots=True)
class Share:
    """What one model is expected to be asked. USD: of the requests whose cost is known; `unpriced` have none, and what
    `unbounded` ones may cost nothing bounds: of some that is as they lack one of `members`.
    """

    requests: int = 0
    input: int = 0
    usd: Decimal = Decimal(0)
    unpriced: int = 0
    most: Decimal = Decimal(0)
    unbounded: int = 0
    members: set[str] = field(default_factory=set)

    def add(self, found: Estimate, member: str | None) -> None:
        """One request more; `member`: of its body that would bound its cost, if there is one."""
        self.requests += 1
        self.input += found.input
        usd = found.usd if found.service is None else None
        self.unpriced += usd is None
        self.usd += usd or 0
        self.unbounded += found.most is None
        self.most += found.most or 0
        if found.most is None and member is not None:
            self.members.add(member)


@dataclass(slots=True)
class Foreseen:
    """Of `lines` some are `wrong`, or would be `refused` by the proxy; `taken` are answered by the output already. Of
    the others `distinct` ask something that no line before them does; the cache holds `held` of these, None where
    nobody can tell. `why`: of the first wrong and refused lines. `left`: USD of the key's budget, if it has one.
    """

    lines: int
    taken: int = 0
    wrong: int = 0
    refused: int = 0
    distinct: int = 0
    held: int | None = 0
    unseen: str = ""  # why nobody can tell
    why: list[tuple[int, str]] = field(default_factory=list)
    models: dict[str, Share] = field(default_factory=dict)
    left: Decimal | None = None

    @property
    def asked(self) -> int:
        return sum(share.requests for share in self.models.values())

    def note(self, number: int, message: str) -> None:
        """Something is wrong with this line."""
        if len(self.why) < NAMED:
            self.why.append((number, message))

    def blind(self, error: OSError) -> None:
        """Nobody can tell what the cache holds."""
        self.held, self.unseen = None, str(error)


class Foresight:
    """`key`: what the client shows."""

    def __init__(self, settings: Settings, client_keys: Mapping[str, bytes], key: str | None) -> None:
        self._settings = settings
        self._directory: Path = settings.data.directory
        self._clock = SystemClock()
        self._own = {client_keys[each.name]: each.grant for each in settings.keys}
        self._headers: Headers = {} if key is None else {b"authorization": f"Bearer {key}".encode()}
        self._secret = read_secret(self._directory)
        self._limiter = limiter_of(settings, self._clock)
        self._router = Router(learned_in(self._directory, settings, self._clock), self._clock, self._limiter)
        self._plans = self._planned()
        self._purges = PurgeFile(self._directory / "purges").read()
        self._warm: set[str] = set()
        self._seen: set[bytes] = set()

    def _planned(self) -> Plans:
        settings = self._settings
        nowhere = httpx.AsyncBaseTransport()  # which refuses whatever it is given
        providers = {
            name: Upstream(name, provider, transport=nowhere, api_key=None)
            for name, provider in settings.providers.items()
        }
        terms = terms_of(settings, self._secret or b"")
        routes = routes_of(settings, price_table(settings))
        return Plans(terms, rules_of(settings), routes, providers, self._limiter.counts_tokens)

    async def of(self, requests: Requests, taken: set[bytes], told: Iterable[Item]) -> Foreseen:
        """What they come to; `told`: all lines, one by one. Raises StartupError: nobody may ask here, say."""
        found = Foreseen(len(requests.items))
        grant = await self._grant()
        found.left = left_of(self._directory, grant, self._clock.wall())
        with ExitStack() as stack:
            cache = self._cache(stack, found)
            for item in told:
                if item.wrong is not None:
                    found.wrong += 1
                    found.note(item.number, item.wrong.message)
                elif item.digest in taken:
                    found.taken += 1
                else:
                    await self._foresee(item, requests.read(item), grant, cache, found)
        return found

    async def _grant(self) -> Grant:
        """What the client's key may do. Raises StartupError: it is none."""
        settings = self._settings
        why = unheeded(settings, IN_LEDGER)
        keyring = Keyring(self._own, Shelf(self._directory), self._clock.wall, unheeded=why)
        try:
            await keyring.read()
            return keyring.access.grant(self._headers, self._clock.wall())
        except LedgerUnavailable as error:
            raise StartupError(f"data.directory: the keys in the ledger cannot be read: {error.__cause__}") from None
        except PenstockError as error:
            raise StartupError(f"--key-env: everything would be refused: {error.message}") from None

    def _cache(self, stack: ExitStack, found: Foreseen) -> Glance | None:
        try:
            return stack.enter_context(glance(self._directory / "cache"))
        except OSError as error:
            found.blind(error)
            return None

    async def _foresee(self, item: Item, request: Request, grant: Grant, cache: Glance | None, found: Foreseen) -> None:
        try:
            plan = self._plan(ENDPOINTS[request.url], request.body, grant)
            new = [key for key in plan.keys if key not in self._seen]
            lasts = plan.verdict.look_up and not self._plans.terms.shadow and self._plans.ttl(plan) > 0
            if plan.keys and lasts and not new:
                return
            held = {key for key in new if lasts and self._holds(plan, key, cache, found)}
            if not new or len(held) < len(new) or not lasts:
                await self._rank(self._without(plan, held, grant) if lasts else plan, found, grant)
            found.distinct += bool(new) or not plan.keys
            found.held = None if found.held is None else found.held + bool(new and len(held) == len(new))
            self._seen.update(new)
        except PenstockError as error:
            found.refused += 1
            found.note(item.number, error.message)

    def _plan(self, path: str, raw: bytes, grant: Grant) -> Plan:
        return self._plans.make(read_call(path, raw, self._headers, grant=grant), grant)

    def _without(self, plan: Plan, held: set[bytes], grant: Grant) -> Plan:
        """Of a list, what is left of it to be asked."""
        left = [piece.input for piece in plan.pieces if piece.key not in held and piece.key not in self._seen]
        if len(left) == len(plan.places):
            return plan
        return self._plan(plan.call.path, asking(plan.call.raw, left), grant)

    def _holds(self, plan: Plan, key: bytes, cache: Glance | None, found: Foreseen) -> bool:
        """Would the cache answer it now?"""
        if cache is None or self._secret is None or found.held is None:
            return False
        now = self._clock.wall()
        try:
            blob = cache.get(key, now)
        except OSError as error:
            found.blind(error)
            return False
        entry = None if blob is None else unpack(blob)
        if entry is None or entry.meta.key != key or not self._purges.spares(entry.meta):
            return False
        fresh = freshness(entry.meta.ended, entry.meta.ttl, now=now, ttl_today=self._plans.terms.ttl).fresh
        return fresh and entry.serves(stream=plan.call.stream, usage=plan.call.wants_usage)

    async def _rank(self, plan: Plan, found: Foreseen, grant: Grant) -> None:
        """Add what it is expected to cost at whoever is asked first. Raises PenstockError: nobody may be."""
        call, choice = plan.call, plan.choice
        if (encoding := encoding_for(choice.options)) not in self._warm:
            await self._router.warm(choice.options)
            self._warm.add(encoding)
        left = None if grant.budget is None else found.left
        links = plan.links or links_for(call, "", self._secret or b"")
        ranked = await self._router.consider(call, choice, plan.account, links, left)
        if plan.ranked and not ranked.ranking.order:
            raise self._router.refusal(ranked)
        first = await self._allowed(plan, ranked.ranking.order or ranked.ranking.dropped[:1], grant)
        member = "max_output_tokens" if call.dialect is RESPONSES else "max_tokens"
        bounded_by = None if ranked.ask.needs.unbounded else member
        found.models.setdefault(first.option.name, Share()).add(first, bounded_by)

    async def _allowed(self, plan: Plan, order: Sequence[Estimate], grant: Grant) -> Estimate:
        """Who of them is asked first, by limits that are all unused: whatever is claimed of them is given back.

        Raises OverLimit: it is more than a whole limit.
        """
        refusal: OverLimit | None = None
        for found in order:
            try:
                self._limiter.claim(grant, found.tokens).settle(0)
            except OverLimit as error:  # of the key's limit: then the next one may do with less
                refusal = refusal or error
                continue
            target = found.option.target
            place = target.place(plan.account)
            with self._limiter.ticket(
                target.provider, found.option.name, place, share=plan.account, tokens=found.tokens
            ) as ticket:
                await ticket.turn()
            return found
        raise refusal or AssertionError("nobody is left to be asked")
