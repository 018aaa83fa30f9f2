"""Which of the models that may answer does so: by what this very request is expected to cost there.

Rule: a model is dropped with a reason, never silently; an unknown price is never a number. Estimates are for choosing:
what is charged is the `usage` of the answer.

Expected cost = this request + those that are expected to follow it (conversations.py), each at this model's prices:
- the prompt counted by its tokenizer; the prefix that its provider has probably cached at the cached price;
- the answer as long as this model's answers have been in this route (experience.py), at most `max_tokens`;
- whoever follows finds this prompt cached if he comes within the cache's lifetime. So whoever has the prefix now
  gains for now only, and whoever is cheaper gains on every turn: a switch is worth it, or it is not.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from math import inf
from typing import Final, Literal

import msgspec

from pricing.cost import Price, Usage, charge
from pricing.models import Model, PromptCache
from pricing.tokens import Count, Prompt
from proxy.core.bounds import bare_price, cost_within, longest_answer, write_price
from proxy.core.experience import AN_ANSWER, RARELY
from proxy.core.needs import Needs
from proxy.core.routing import Choice, Option

TIE: Final = Decimal("1.005")  # costs so close are equal: then the faster first token decides

State = Literal["up", "cooling", "down"]
Reason = Literal[
    "tools", "vision", "audio", "json_schema", "reasoning", "n", "logprobs",
    "state", "window", "max_output", "max_cost", "budget", "unpriced", "cooling", "quota", "down",
]  # fmt: skip


class Ask(msgspec.Struct, frozen=True):
    """What is known of a request. `upto`: its tokens up to each link; `pinned`: index of the option that made what this
    conversation must go on from; `holder`: the provider that holds what it refers to, if it does to anything, and
    `held` the tokens of that, as far as they are known. `to_come`: requests expected to follow this one; `growth`:
    tokens by which each is longer, `shared`: the part of this one that each begins with. `most`: more tokens than the
    prompt has. In USD: `max_cost`, where that is capped, and `left` of the budget of who pays, if there is one.
    """

    needs: Needs
    upto: Sequence[Prompt]
    pinned: int | None = None
    to_come: float = 0.0
    growth: float = 0.0
    shared: float = 1.0
    most: Prompt | None = None
    max_cost: Decimal | None = None
    left: Decimal | None = None
    holder: str | None = None
    held: int = 0


class View(msgspec.Struct, frozen=True):
    """What is known of an option now. `links`: how many of the request's links its provider has probably cached;
    `trust`: how much of such a belief was billed so before; `factor`: what was learned of its tokenizer; `output`:
    tokens of an answer; `first`: seconds to its first token, if known; `warm`: how likely who follows comes while this
    request is still cached; `rarely`: tokens that its answers rarely exceed; `wait`: seconds until its provider has
    room for one more.
    """

    state: State = "up"
    links: int = 0
    trust: float = 1.0
    factor: float = 1.0
    output: float = AN_ANSWER
    first: float | None = None
    warm: float = 1.0
    rarely: float = RARELY
    wait: float = 0.0


class Estimate(msgspec.Struct, frozen=True):
    """An option, and what it comes to: tokens, USD for this turn (`usd`) and with the turns to come (`total`).

    `reason`: why it is dropped, in a word; `words`: the same for people. `unsure`: what it is not known to do.
    `count`: the prompt by its tokenizer, nothing learned in it. `most`: USD that it cannot exceed, if that is known;
    `bound`: as far as anything bounds it. `service`: the tier that was asked for, if that has no known price there.
    `tokens`: that it takes of a limit until its usage is known; `wait`: see View.
    """

    option: Option
    count: Count
    input: int = 0
    cached: int = 0
    output: int = 0
    usd: Decimal | None = None
    total: Decimal | None = None
    first: float | None = None
    unsure: tuple[str, ...] = ()
    reason: Reason | None = None
    words: str = ""
    most: Decimal | None = None
    bound: Decimal | None = None
    service: str | None = None
    tokens: int = 0
    wait: float = 0.0

    @property
    def reserve(self) -> Decimal | None:
        """USD to set aside for it: as much as it may cost as far as that is bounded, or as it is expected to, if that
        is more. None: it has no known price.
        """
        known = [each for each in (self.most, self.bound, self.usd) if each is not None]
        return max(known, default=None) if self.service is None else None


class Ranking(msgspec.Struct, frozen=True):
    """Who is asked, in this order; and who is not. `why` of the first: pinned, cheapest, only; or a last resort."""

    order: tuple[Estimate, ...]
    dropped: tuple[Estimate, ...]
    why: str


def rank(choice: Choice, ask: Ask, views: Sequence[View], at: datetime) -> Ranking:
    """The order in which the options are asked. `views`: of each option; `at`: now, with its zone.

    Where nobody is left, whoever only has to wait for its turn is asked; or lacks no more than a price, or cools down;
    then the model that the client named itself, whose provider may say what is wrong. `order` is empty where nobody may
    be asked.
    """
    estimates = [estimate(option, ask, view, at) for option, view in zip(choice.options, views, strict=True)]
    kept = [each for each in estimates if each.reason is None]
    if kept:
        pinned = choice.options[ask.pinned] if ask.pinned is not None else None
        order = _ordered(kept, pinned)
        why = "pinned" if order[0].option is pinned else "cheapest" if len(order) > 1 else "only"
    else:
        order, why = _last_resort(choice, ask, estimates)
    return Ranking(tuple(order), tuple(each for each in estimates if each not in order), why)


def _ordered(kept: list[Estimate], pinned: Option | None) -> list[Estimate]:
    """The pinned first, those who are known to do what is needed before the others, then by cost."""

    def place(each: Estimate) -> tuple[bool, bool, Decimal]:
        return each.option is not pinned, bool(each.unsure), each.total or Decimal(0)

    kept = sorted(kept, key=place)
    best = kept[0]
    near = [each for each in kept if place(each)[:2] == place(best)[:2] and _total(each) <= _total(best) * TIE]
    near.sort(key=lambda each: each.first if each.first is not None else float("inf"))
    return near + [each for each in kept if each not in near]


def _total(each: Estimate) -> Decimal:
    return each.total or Decimal(0)


def _last_resort(choice: Choice, ask: Ask, estimates: list[Estimate]) -> tuple[list[Estimate], str]:
    waiting = [each for each in estimates if each.reason == "quota" and each.wait < inf]
    if waiting:
        return sorted(waiting, key=lambda each: (each.wait, _total(each))), "waiting"
    unpriced = [each for each in estimates if each.reason == "unpriced" and ask.left is None]
    if unpriced:
        return unpriced, "unpriced"
    cooling = [each for each in estimates if each.reason == "cooling"]
    if cooling:
        # One of them, to see whether it still says so: all of them, time and again, would be a storm.
        return sorted(cooling, key=lambda each: (each.total is None, _total(each)))[:1], "cooling"
    named = [each for each in estimates if choice.named and each.option is choice.baseline]
    if named and named[0].reason not in ("down", "max_cost", "budget", "unpriced"):
        return named, "named"
    return [], "none"


def estimate(option: Option, ask: Ask, view: View, at: datetime) -> Estimate:
    """What a request comes to at this option, or why it cannot be asked."""
    model = option.model
    family = None if model is None else model.tokenizer
    count = ask.upto[-1].under(family, option.target.upstream)
    longest, output = longest_answer(model, ask.needs), _output(model, ask.needs, view.output)
    bound = None
    if ask.most is not None:
        bound = cost_within(
            option,
            ask.needs,
            ask.most,
            at,
            output=output if longest is None else longest,
            factor=view.factor,
            held=ask.held,
        )
    draft = Estimate(
        option=option,
        count=count,
        input=count.times(view.factor).total + ask.held,
        output=output,
        first=view.first,
        unsure=tuple(each for each in ask.needs.capabilities if option.can(each) is None),
        most=None if longest is None or ask.needs.unbounded else bound,
        bound=bound,
        service=None if model is None or model.rates(at, ask.needs.service) is not None else ask.needs.service,
        wait=view.wait,
    )
    taken = draft.input + _output(model, ask.needs, view.rarely)
    priced = _priced(msgspec.structs.replace(draft, tokens=taken), ask, view, at)
    reason, words = _hindrance(priced, ask, view)
    return msgspec.structs.replace(priced, reason=reason, words=words)


def _hindrance(found: Estimate, ask: Ask, view: View) -> tuple[Reason | None, str]:
    """Why this option cannot be asked: what will never do first, then what may be different in a moment."""
    elsewhere = ask.holder not in (None, found.option.target.provider)
    return (
        (("state", "what the request refers to lies at another provider") if elsewhere else None)
        or _incapable(found, ask)
        or _over_cap(found, ask)
        or _over_budget(found, ask)
        or (("down", "it failed too often just now") if view.state == "down" else None)
        or (("cooling", "its provider has asked for a pause") if view.state == "cooling" else None)
        or (("unpriced", f'no price is known: set models."{found.option.name}".price') if found.usd is None else None)
        or _over_quota(view)
        or (None, "")
    )


def _incapable(found: Estimate, ask: Ask) -> tuple[Reason, str] | None:
    needs, shown = ask.needs, found.input - ask.held  # of what it holds, a provider may leave out the oldest
    for capability in needs.capabilities:
        if found.option.can(capability) is False:
            return capability, f"cannot do {capability}"
    model = found.option.model
    if model is not None and model.window is not None and shown > model.window:
        return "window", f"{shown:,} tokens are over its window of {model.window:,}"
    if model is not None and model.max_output is not None and (needs.max_output or 0) > model.max_output:
        return "max_output", f"its answers have at most {model.max_output:,} tokens"
    return None


def _over_cap(found: Estimate, ask: Ask) -> tuple[Reason, str] | None:
    if ask.max_cost is None:
        return None
    if found.most is None:
        members = "max_tokens (max_output_tokens for Responses)"
        told = f'name {members}, or set price and max_output in models."{found.option.name}"'
        return "max_cost", f"nothing bounds what it may cost; {told}"
    return ("max_cost", f"it may cost {found.most.normalize():f} USD") if found.most > ask.max_cost else None


def _over_budget(found: Estimate, ask: Ask) -> tuple[Reason, str] | None:
    if ask.left is None:
        return None
    if found.usd is None:
        return "unpriced", f'no price is known, and this key has a budget: set models."{found.option.name}".price'
    if found.reserve is None:
        return "unpriced", f'no price of its service tier "{found.service}" is known, and this key has a budget'
    words = f"it may cost {found.reserve.normalize():f} USD, more than is left"
    return ("budget", words) if found.reserve > ask.left else None


def _over_quota(view: View) -> tuple[Reason, str] | None:
    if view.wait == inf:
        return "quota", "it takes more tokens than its provider's limit allows in a minute"
    return ("quota", "its provider's limits allow no more just now") if view.wait > 0 else None


def _output(model: Model | None, needs: Needs, each: float) -> int:
    """Tokens of the answer, all choices together."""
    bounds = [bound for bound in (needs.max_output, None if model is None else model.max_output) if bound is not None]
    return (0 if 0 in bounds else max(1, round(min([each, *bounds])))) * needs.choices


def _priced(draft: Estimate, ask: Ask, view: View, at: datetime) -> Estimate:
    """With its cost, where the prices are known."""
    option, model = draft.option, draft.option.model
    # A service that has no price of its own here is served at the standard ones, if at all.
    if model is None or (rates := model.rates(at, ask.needs.service) or model.rates(at)) is None or model.other_fees:
        return draft
    caches = _caches(option.cache, ask.needs.marks) and rates.cached_input is not None
    least = (option.cache.least if option.cache is not None else None) or 0
    cached = 0
    if caches and view.links:
        prefix = ask.upto[view.links - 1].under(model.tokenizer, option.target.upstream).times(view.factor).total
        cached = round(min(prefix, draft.input) * view.trust) if prefix >= least else 0
    writes = caches and draft.input >= least
    now = _spent(rates.at(draft.input), option.cache, draft, cached, writes)
    total = now
    if now is not None and ask.to_come > 0:
        later = msgspec.structs.replace(draft, input=draft.input + round(ask.growth * (ask.to_come + 1) / 2))
        price = rates.at(later.input)
        cold = _spent(price, option.cache, later, 0, writes)
        warm = (
            _spent(price, option.cache, later, round(draft.input * ask.shared * view.trust), writes) if writes else cold
        )
        if cold is not None and warm is not None:
            share = Decimal(str(round(view.warm, 4)))
            total = now + Decimal(str(round(ask.to_come, 4))) * (warm * share + cold * (1 - share))
    return msgspec.structs.replace(draft, cached=cached, usd=now, total=total)


def _caches(terms: PromptCache | None, marks: bool) -> bool:
    """Does this provider keep the prefix of such a request?"""
    return terms is not None and (terms.automatic is not False or marks)


def _spent(price: Price, terms: PromptCache | None, found: Estimate, cached: int, writes: bool) -> Decimal | None:
    """USD of one turn. What is not cached is written where that has a price of its own."""
    write = write_price(price, terms)
    audio = found.count.audio
    written = max(0, found.input - cached - audio) if writes and write is not None else 0
    usage = Usage(
        input=found.input,
        cached=min(cached, found.input - audio),
        output=found.output,
        written=written,
        audio_input=audio,
    )
    return charge(usage, msgspec.structs.replace(bare_price(price), cache_write=write)).usd
