"""Wish → choices: what each of them says, before it takes the shape of an endpoint.

Every word comes from the seed, so the JSON body and the stream of one request say the same.
"""

from collections.abc import Callable
from itertools import accumulate

import msgspec

from proxy.simulator.behaviour import Behaviour
from proxy.simulator.forms import Form
from proxy.simulator.schema import fitting_text
from proxy.simulator.text import Dice, pieces, prose, words
from proxy.simulator.tools import Call, Offer, calls

Pieces = tuple[str, ...]


def _as_text() -> None:
    return None


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer is made from, whatever endpoint was asked. `limit`: the most tokens of a choice.

    `offer` and `form` raise ApiError where the tools or the form make no sense; a refusal never looks at them.
    """

    seed: bytes
    behaviour: Behaviour
    reasons: bool = False
    limit: int | None = None
    stop: str | list[str] | None = None
    offer: Callable[[], Offer] = Offer
    form: Callable[[], Form | None] = _as_text


class Choice(msgspec.Struct, frozen=True):
    """One of `n` answers, in tokens. `content` and `refusal` are None where the message says null."""

    index: int
    reasoning: Pieces
    content: Pieces | None
    refusal: Pieces | None
    calls: tuple[Call, ...]
    finish: str

    @property
    def tokens(self) -> int:
        called = sum(1 + len(call.pieces) for call in self.calls)
        return len(self.reasoning) + len(self.content or ()) + len(self.refusal or ()) + called


def choices(wish: Wish, count: int) -> tuple[Choice, ...]:
    """What the simulator says to this, so many times; ApiError where its tools or its form make no sense."""
    return tuple(_choice(wish, index) for index in range(count))


def _choice(wish: Wish, index: int) -> Choice:
    dice = Dice(wish.seed + index.to_bytes(2, "big"))
    reasoning = pieces(prose(dice, 6 + dice.below(20))) if wish.reasons else ()
    said = _said(wish, index, dice, reasoning)
    limited = _limited(said, wish.limit) if wish.limit is not None else said
    if wish.behaviour.finish is not None:
        return msgspec.structs.replace(limited, finish=wish.behaviour.finish)
    return limited


def _said(wish: Wish, index: int, dice: Dice, reasoning: Pieces) -> Choice:
    behaviour = wish.behaviour
    if behaviour.refusal:
        sorry = pieces("I'm sorry, but I can't help with " + words(dice, 4) + ".")
        return Choice(index, reasoning, None, sorry, (), "stop")
    if behaviour.empty:
        return Choice(index, reasoning, (), None, (), "stop")
    called = calls(wish.offer(), dice)
    if called:
        finish = "function_call" if called[0].kind == "legacy" else "tool_calls"
        return Choice(index, reasoning, None, None, called, finish)
    content = _json(wish, dice)
    if content is None:
        content = _prose(behaviour.chunks, dice)
    return Choice(index, reasoning, _stopped(content, wish.stop), None, (), "stop")


def _prose(chunks: int | None, dice: Dice) -> Pieces:
    # The length is thrown either way: fewer or more chunks then are the same text, shorter or longer.
    natural = 12 + dice.below(60)
    if chunks is None:
        return pieces(prose(dice, natural))
    return pieces(prose(dice, chunks))[:chunks]


def _json(wish: Wish, dice: Dice) -> Pieces | None:
    """An object of the wanted form; None where text is wanted."""
    form = wish.form()
    if form is None:
        return None
    text = fitting_text(form.schema, dice, form.param)
    return pieces(text[:-1] + ",") if wish.behaviour.badjson else pieces(text)


def _stopped(content: Pieces, stop: str | list[str] | None) -> Pieces:
    """The content up to the first stop sequence, which may begin in the middle of a token."""
    sequences = [stop] if isinstance(stop, str) else stop or []
    text = "".join(content)
    found = [at for sequence in sequences if sequence and (at := text.find(sequence)) >= 0]
    if not found:
        return content
    end = min(found)
    starts = accumulate(map(len, content), initial=0)
    return tuple(piece[: end - start] for piece, start in zip(content, starts, strict=False) if start < end)


def _limited(choice: Choice, limit: int) -> Choice:
    """The choice's first tokens; reasoning counts, as it does at OpenAI."""
    if choice.tokens <= limit:
        return choice
    left = max(0, limit - len(choice.reasoning))
    called = _limited_calls(choice.calls, left)
    content = choice.content[:left] if choice.content is not None else None
    if choice.calls and not called:
        content = ()
    refusal = choice.refusal[:left] if choice.refusal is not None else None
    return Choice(choice.index, choice.reasoning[:limit], content, refusal, called, "length")


def _limited_calls(called: tuple[Call, ...], left: int) -> tuple[Call, ...]:
    kept: list[Call] = []
    for call in called:
        if left > 0:
            kept.append(msgspec.structs.replace(call, pieces=call.pieces[: left - 1]))
        left -= 1 + len(call.pieces)
    return tuple(kept)
