"""Ranks who may answer a call, and learns from the answers: counts in threads, and keeps what was learned.

The counting of a long prompt belongs to a thread (tiktoken lets go of the GIL); everything else is the core's.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from threading import Lock
from typing import Final

import msgspec

from pricing.cost import Usage
from pricing.encodings import Encodings, Name
from pricing.families import about, encoding_of
from pricing.tokens import Counting, Prompt, most, read_prompt, text_tokens
from proxy.core.call import Call
from proxy.core.chain import Counted, Counts, Links
from proxy.core.embeddings import Input
from proxy.core.learned import Asked, Learned, asked_of
from proxy.core.needs import read_needs
from proxy.core.ranking import Ask, Estimate, Ranking, View, estimate, rank
from proxy.core.recording import Recording
from proxy.core.routing import Choice, Option
from proxy.core.usage import said
from proxy.errors import (
    NoModelFits,
    OverCostCap,
    OverLimit,
    PenstockError,
    PreviousResponseNotFound,
    UpstreamUnavailable,
)
from proxy.interfaces import Clock, Limiter

A_TOKEN: Final = 4  # bytes, more or less
AT_ONCE: Final = 8 * 1024  # bytes of a request whose tokens are counted on the loop: a millisecond or two


class Ranked(msgspec.Struct, frozen=True):
    """A call, and who answers it in which order."""

    asked: Asked
    ask: Ask
    ranking: Ranking

    @property
    def capped(self) -> bool:
        """Did the cap on its cost, or the budget of who pays, keep a model away?"""
        return any(each.reason in ("max_cost", "budget") for each in self.ranking.dropped)

    @property
    def order(self) -> tuple[Option, ...]:
        return tuple(each.option for each in self.ranking.order)


class Router:
    """What is decided is said by `learned` and core/ranking.py."""

    def __init__(self, learned: Learned, clock: Clock, limiter: Limiter | None = None) -> None:
        """`limiter`: None where nobody is asked in the end."""
        self.learned = learned
        self._limiter = limiter
        self._clock = clock
        self._encodings = Encodings(Lock())
        self._loaded: set[Name] = set()
        self._counts = Counts()

    async def consider(
        self, call: Call, choice: Choice, account: str, links: Links, left: Decimal | None = None
    ) -> Ranked:
        """Who is asked; where nobody may be, `refusal` says why. `left`: of the budget of who pays, if there is one."""
        counted = await self._count(call, choice, links)
        asked, most = asked_of(choice, account, call, links, counted), await self._most(call)
        now = self._clock.wall()
        ask = self.learned.ask(asked, now)
        ask = msgspec.structs.replace(ask, max_cost=call.directives.max_cost, most=most, left=left)
        views = self._waiting(asked, self.learned.views(asked, now))
        ranking = rank(choice, ask, views, datetime.fromtimestamp(now, UTC))
        return Ranked(asked, ask, ranking)

    def _waiting(self, asked: Asked, views: Sequence[View]) -> Sequence[View]:
        """With what the providers' limits say of each option."""
        if self._limiter is None:
            return views
        found = []
        for option, view in zip(asked.choice.options, views, strict=True):
            bound = asked.needs.max_output
            longest = (view.rarely if bound is None else min(view.rarely, bound)) * asked.needs.choices
            tokens = asked.base[-1] + round(longest)
            wait = self._limiter.wait(option.target.provider, option.name, asked.place(option), tokens)
            found.append(msgspec.structs.replace(view, wait=wait) if wait else view)
        return found

    async def suppose(self, call: Call, option: Option) -> Estimate:
        """What a call comes to where there is nothing to choose: bounds, and no more than a guess of its tokens."""
        most, needs = await self._most(call), read_needs(call.likeness, call.made)
        ask = Ask(needs=needs, upto=(most,), most=most)
        at = datetime.fromtimestamp(self._clock.wall(), UTC)
        found = estimate(option, ask, View(factor=self.learned.factor(option)), at)
        return msgspec.structs.replace(found, tokens=len(call.raw) // A_TOKEN + found.tokens - found.input)

    async def _count(self, call: Call, choice: Choice, links: Links) -> Counted:
        """The tokens of a call's prompt, each message counted once; guessed where nothing hangs on it."""
        encoding = encoding_for(choice.options)
        pending = self._counts.pending(call.likeness, links, encoding)
        guessed = not choice.routed and encoding not in self._loaded
        counting = about if guessed else partial(self._encodings.count, name=encoding)
        if len(call.raw) <= AT_ONCE and (guessed or encoding in self._loaded):
            counted = pending.count(counting)
        else:
            counted = await asyncio.to_thread(pending.count, counting)
        if not guessed:
            self._loaded.add(encoding)
            self._counts.learn(links, counted, pending)
        return counted

    async def _most(self, call: Call) -> Prompt:
        """More than a call's prompt has."""
        if len(call.raw) <= AT_ONCE:
            return most(call.likeness)
        return await asyncio.to_thread(most, call.likeness)

    async def estimate(self, call: Call, option: Option, recording: Recording | None) -> Usage:
        """The usage of an answer that did not say it: its prompt, and what of it came, counted in a thread.

        `recording`: None if nothing came.
        """
        return await asyncio.to_thread(self._estimated, call, option, recording)

    def _estimated(self, call: Call, option: Option, recording: Recording | None) -> Usage:
        family = None if option.model is None else option.model.tokenizer
        encoding = encoding_of(family)
        factor = self.learned.factor(option)

        def count(text: str) -> int:
            # To load it would hold up the loop: what routes nothing has none, and guesses.
            return self._encodings.count(text, encoding) if encoding in self._loaded else about(text)

        prompt = read_prompt(call.likeness, count, encoding).under(family, option.target.upstream).times(factor)
        return Usage(input=prompt.total, cached=0, output=_answer_tokens(recording, count, family))

    async def weigh(self, inputs: Sequence[Input], option: Option) -> list[int]:
        """The tokens of each input of a list, more or less."""
        if sum(map(len, inputs)) <= AT_ONCE:
            return self._weighed(inputs, option)
        return await asyncio.to_thread(self._weighed, inputs, option)

    def _weighed(self, inputs: Sequence[Input], option: Option) -> list[int]:
        encoding = encoding_of(None if option.model is None else option.model.tokenizer)
        count = partial(self._encodings.count, name=encoding) if encoding in self._loaded else about
        return [count(each) if isinstance(each, str) else len(each) for each in inputs]

    async def warm(self, options: Sequence[Option]) -> None:
        """Load what rankings of these need: 0.3 s, 70 MB, and the loop stands still meanwhile, thread or not."""
        encoding = encoding_for(options)
        await asyncio.to_thread(self._encodings.get, encoding)
        self._loaded.add(encoding)

    @contextmanager
    def asking(self, ranked: Ranked | None) -> Iterator[None]:
        """Within this the first of the ranking is asked."""
        if ranked is None:
            yield
            return
        self.learned.begun(ranked.asked, ranked.order[0])
        try:
            yield
        finally:
            self.learned.ended(ranked.asked, ranked.order[0])

    def check_held(self, call: Call) -> None:
        """Where clients share an account at a provider, none goes on from what is held there for another.

        Raises InvalidRequest.
        """
        name = call.body.get("previous_response_id")
        if call.owner and name and self.learned.stored.is_anothers(name, call.owner, self._clock.wall()):
            raise PreviousResponseNotFound(
                f"Previous response with id {name!r} not found.", param="previous_response_id"
            )

    def learn(self, ranked: Ranked, option: Option, usage: Usage | None, *, first: float | None, began: float) -> None:
        """This option gave a whole answer to a call that began then; `first`: seconds to its first event, None where it
        did not stream.
        """
        found = next((each for each in ranked.ranking.order if each.option is option), None)
        if found is not None:
            self.learned.answered(ranked.asked, found, usage, first=first, began=began)

    def refusal(self, ranked: Ranked) -> PenstockError:
        """Why nobody may be asked: NoModelFits, OverCostCap or UpstreamUnavailable, with each model's reason."""
        asked, dropped, now = ranked.asked, ranked.ranking.dropped, self._clock.wall()
        said = "; ".join(f"{each.option.name}: {each.words}" for each in dropped)
        down = [asked.place(each.option) for each in dropped if each.reason == "down"]
        if down:  # nothing else stands against them, so the same request may do in a moment
            return UpstreamUnavailable(min(self.learned.health.until(place, now) for place in down), said)
        if any(each.reason == "max_cost" for each in dropped):
            return OverCostCap(
                f"No model is sure to cost no more than `x-penstock-max-cost-usd` allows ({said}).",
                param="x-penstock-max-cost-usd",
            )
        if all(each.reason == "quota" for each in dropped):
            return OverLimit(f"Request too large: {said}.", of="tokens")
        return NoModelFits(f"No model of this route can answer this request ({said}).", param="model")


def _answer_tokens(recording: Recording | None, count: Counting, family: str | None) -> int:
    if recording is None or recording.head is None:
        return 0
    if not recording.dropped:
        return text_tokens(said(recording), count, family)
    # What was let go of a large answer cannot be counted: an event is a token, more or less.
    return recording.length if recording.head.kind == "stream" else recording.size // A_TOKEN


def encoding_for(options: Sequence[Option]) -> Name:
    """What to count with: the encoding that all have, else the one that most estimates start from."""
    encodings = {encoding_of(option.model.tokenizer if option.model is not None else None) for option in options}
    return encodings.pop() if len(encodings) == 1 else "o200k_base"
