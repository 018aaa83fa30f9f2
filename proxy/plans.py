"""What a request comes to, before anything is done about it: who may answer, and under which key.

Rule: a plan follows from a call's bytes and headers, its key's rights and the settings, so it is remembered for when
the same come again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec

from proxy.core import canonical, policy
from proxy.core.access import Grant
from proxy.core.as_chat import as_chat
from proxy.core.call import Call
from proxy.core.chain import Links, account_of, links_for, namespace_of
from proxy.core.dialect import EMBEDDINGS, RESPONSES
from proxy.core.echo import Echo, echo_of
from proxy.core.embeddings import Input, asking, common_of, inputs_of
from proxy.core.policy import Rules, Verdict
from proxy.core.routing import Choice, Routes
from proxy.errors import ModelNotAllowed
from proxy.interfaces import Provider

KEY_VERSION = b"2"
PIECE_VERSION = b"1"
OTHERS = ("models", "fallbacks", "route")


class Terms(msgspec.Struct, frozen=True):
    """How answers are kept: the secret under the keys, what they ignore, who shares them, how long they may answer.
    `shadow`: they never do, and it is only noted what they would have answered.
    """

    secret: bytes
    ignore: tuple[str, ...]
    shared: bool
    ttl: float
    stale_if_error: float
    shadow: bool = False


class Piece(msgspec.Struct, frozen=True):
    """One input of a list, which is kept under a key of its own."""

    input: Input
    key: bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """What a call comes to: who may answer, on whose account, what it may do with the cache, and under which key.

    Follows from the call, its key's rights, the settings and `reports_usage` (of the providers, who may find out that
    they do not). `ranked`: whether who may answer is ranked, and that before anybody leads: then the request may be
    refused for its cost. `links`: its prompt as a chain, where that decides who answers. `pieces`: what it asks for one
    by one, each once; `places`: which of them stands at each place of its list. `echo`: what its answer repeats of it.
    """

    call: Call
    choice: Choice
    account: str
    verdict: Verdict
    key: bytes | None
    ranked: Literal["first", "later"] | None
    links: Links
    reports_usage: bool
    pieces: tuple[Piece, ...] = ()
    places: tuple[int, ...] = ()
    echo: Echo | None = None

    @property
    def keys(self) -> tuple[bytes, ...]:
        """Under which its answer, or each part of it, is found while it is made, and afterwards."""
        return tuple(piece.key for piece in self.pieces) if self.key is None else (self.key,)


def _check_others(call: Call) -> None:
    """Some providers take further models from the body, which may be others than the key may call, and dearer ones.

    Raises ModelNotAllowed.
    """
    for name in OTHERS:
        if call.body.get(name):
            raise ModelNotAllowed(f"With this key `{name}` may not name further models.", param=name)


class Plans:
    """Makes them. `counts_tokens(provider, model)`: is there a limit of tokens there?"""

    def __init__(
        self,
        terms: Terms,
        rules: Rules,
        routes: Routes,
        providers: Mapping[str, Provider],
        counts_tokens: Callable[[str, str], bool],
    ) -> None:
        self.terms = terms
        self._keyed = canonical.keyed(terms.secret)
        self._rules = rules
        self._routes = routes
        self._providers = providers
        self._counts_tokens = counts_tokens

    def make(self, call: Call, grant: Grant) -> Plan:
        """Judge a call and make its key. Raises ModelNotAllowed or InvalidRequest."""
        grant.check_model(call.model)
        if grant.budget is not None or grant.models != ("*",):
            _check_others(call)
        choice = self._routes.choice(call.model, call.directives.route, grant.may_call, call.dialect.name)
        rules = self._rules
        if choice.sampled is not None:
            rules = msgspec.structs.replace(rules, sampled=choice.sampled)
        verdict = policy.judge(call, [option.target.upstream for option in choice.options], rules)
        ranked = self._ranked(call, choice, grant)
        secret, listed = self.terms.secret, call.dialect is EMBEDDINGS
        inputs = inputs_of(call.body) if listed and verdict.lead else None
        if listed and inputs is None and verdict.lead:
            verdict = policy.bypass("input")
        pieces, places = self._pieces(call, choice, inputs or ())
        return Plan(
            call,
            choice,
            account_of(call, secret, client_pays=self._client_pays(choice)),
            verdict,
            key=self.key(call, choice) if verdict.lead and not listed else None,
            ranked=ranked,
            links=links_for(call, self._namespace(call, choice), secret) if ranked else (),
            reports_usage=self.reports_usage(choice),
            pieces=pieces,
            places=places,
            echo=echo_of(call.body, self.terms.ignore) if call.dialect is RESPONSES else None,
        )

    def reduced(self, plan: Plan, pieces: Sequence[Piece]) -> Plan:
        """A list's plan with no more than these of its pieces, each once."""
        if len(pieces) == len(plan.places):  # all of them, in their order
            return plan
        inputs = [piece.input for piece in pieces]
        body = {**plan.call.body, "input": inputs}
        call = msgspec.structs.replace(
            plan.call, raw=asking(plan.call.raw, inputs), body=body, likeness=as_chat(plan.call.path, body)
        )
        links = links_for(call, self._namespace(call, plan.choice), self.terms.secret) if plan.ranked else ()
        return replace(plan, call=call, links=links, pieces=tuple(pieces), places=tuple(range(len(pieces))))

    def _ranked(self, call: Call, choice: Choice, grant: Grant) -> Literal["first", "later"] | None:
        """What has a cap on its cost, a budget or a limit of tokens is refused before it leads, if at all."""
        if call.directives.max_cost is not None or grant.budget or grant.limits.tokens_per_minute:
            return "first"
        counted = any(self._counts_tokens(each.target.provider, each.name) for each in choice.options)
        return "later" if choice.routed or counted else None

    def _namespace(self, call: Call, choice: Choice) -> object:
        return namespace_of(call, client_pays=self._client_pays(choice), shared=self.terms.shared)

    def _client_pays(self, choice: Choice) -> bool:
        return any(self._providers[option.target.provider].client_pays for option in choice.options)

    def reports_usage(self, choice: Choice) -> bool:
        providers = self._providers
        return all(providers[option.target.provider].reports_usage for option in choice.options)

    def key(self, call: Call, choice: Choice) -> bytes:
        """What makes two requests the same; see canonical.py for the body's part."""
        # A provider that is not asked for the usage of streams has another answer for each form of a request.
        asks = call.dialect.asks_usage and not self.reports_usage(choice)
        form = b"%d%d" % (call.stream, call.wants_usage) if asks else b""
        return self._key(call, choice, form, call.body)

    def _key(self, call: Call, choice: Choice, form: bytes, said: Mapping[str, Any]) -> bytes:
        terms = self.terms
        whose = msgspec.json.encode((self._namespace(call, choice), call.account, call.forwarded, terms.ignore))
        targets = msgspec.json.encode(choice.identities)
        body = canonical.canonical(said, terms.ignore)
        parts = (KEY_VERSION, whose, call.path.encode(), call.query, targets, form, call.directives.sample, body)
        return canonical.key(self._keyed, parts)

    def _pieces(self, call: Call, choice: Choice, inputs: Sequence[Input]) -> tuple[tuple[Piece, ...], tuple[int, ...]]:
        """The inputs of a list, each once, and which of them stands where."""
        if not inputs:
            return (), ()
        common = self._key(call, choice, b"", common_of(call.body))
        found: dict[bytes, int] = {}
        pieces: list[Piece] = []
        places: list[int] = []
        for each in inputs:
            said = msgspec.json.encode(each)
            if said not in found:
                found[said] = len(pieces)
                pieces.append(Piece(each, canonical.key(self._keyed, (PIECE_VERSION, common, said))))
            places.append(found[said])
        return tuple(pieces), tuple(places)

    def ttl(self, plan: Plan) -> float:
        return policy.lifetime(plan.call.directives, self.terms.ttl) if plan.verdict.keep else 0.0
