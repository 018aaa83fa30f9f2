"""Tallies as families of metrics: by name, then by the values of its labels in the order in which meter.py has them."""

from collections.abc import Iterator, Mapping
from typing import TypeVar

from proxy.core.tally import Answers, Histogram, Paid, Tallies

Value = float | Histogram
Family = dict[tuple[str, ...], Value]
K = TypeVar("K")
V = TypeVar("V")


def families(tallies: Tallies) -> Mapping[str, Family]:
    """Everything that tallies hold. What is told with fewer labels than it was counted by is added up.

    Others may count meanwhile: then what is under way is in one family and not yet in another.
    """
    found: dict[str, Family] = {}
    for name, labels, value in _samples(tallies):
        family = found.setdefault(name, {})
        if isinstance(value, Histogram):
            held = family.get(labels)
            if not isinstance(held, Histogram):
                held = family[labels] = Histogram()
            held.merge(value.counts, value.sum)
        else:
            already = family.get(labels, 0.0)
            if not isinstance(already, Histogram):
                family[labels] = already + value
    return found


Sample = tuple[str, tuple[str, ...], Value]


def _samples(tallies: Tallies) -> Iterator[Sample]:
    for answers in list(tallies.answers.values()):
        yield from _of_answers(answers, tallies.names.get(answers.labels.key, ""))
    for paid in list(tallies.paid.values()):
        yield from _of_paid(paid, tallies.names.get(paid.payer.key, ""))


def _of_answers(answers: Answers, key: str) -> Iterator[Sample]:
    endpoint, model, provider, outcome, status, _ = answers.labels
    told = (endpoint, model, provider, outcome, status)
    yield "requests", told, answers.count
    if any(answers.total.counts):
        yield "request_seconds", told, answers.total
    if any(answers.token.counts):
        yield "first_token_seconds", (outcome, model), answers.token
    if any(answers.overhead.counts):
        yield "overhead_seconds", (outcome,), answers.overhead
    for cause, usd in items(answers.saved):
        yield "saved_usd", (cause, model, key), usd
    for kind, tokens in (("input", answers.input), ("output", answers.output)):
        for cause, count in items(tokens):
            yield "saved_tokens", (cause, model, kind), count
    for would, count in items(answers.shadow):
        yield "shadow_requests", (would, model, key), count


def _of_paid(paid: Paid, key: str) -> Iterator[Sample]:
    provider, model, _ = paid.payer
    for estimated, usd in (("false", paid.said), ("true", paid.estimated)):
        if usd is not None:
            yield "cost_usd", (provider, model, key, estimated), usd
    if paid.routing:
        yield "saved_usd", ("routing", model, key), paid.routing
    if paid.overpaid:
        yield "overpaid_usd", (model, key), paid.overpaid
    if paid.prompt_cache:
        yield "prompt_cache_saved_usd", (provider, model), paid.prompt_cache
    if paid.unpriced:
        yield "unpriced_answers", (provider, model), paid.unpriced
    for kind, tokens in items(paid.tokens):
        yield "tokens", (provider, model, kind), tokens
    for cause, usd in items(paid.would_save):
        yield "shadow_saved_usd", (cause, model, key), usd


def items(counted: Mapping[K, V]) -> list[tuple[K, V]]:
    """Of what others add to meanwhile: the pairs are made from its keys, as to make them may let others run."""
    return [(key, counted[key]) for key in list(counted)]
