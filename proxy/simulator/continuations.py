"""The continuations of prompts → script: one `text_completion`, or the events of a stream, as OpenAI writes them."""

from collections.abc import Iterator, Sequence
from itertools import accumulate, zip_longest
from typing import Any

import msgspec

from proxy.simulator.behaviour import Behaviour
from proxy.simulator.logprobs import logprobs
from proxy.simulator.manner import TEXT
from proxy.simulator.render import Stamp
from proxy.simulator.script import DONE, EVENT_STREAM, Script, whole
from proxy.simulator.text import Dice, pieces, words

_encode = msgspec.json.encode
_NOTHING: tuple[str, ...] = ()


class Continuation(msgspec.Struct, frozen=True, kw_only=True):
    """What follows a prompt, in tokens. `top`: how many alternatives each log probability has; None: none is shown."""

    prompt: str | tuple[int, ...]
    said: tuple[str, ...]
    finish: str
    echo: bool
    top: int | None
    seed: bytes
    index: int = 0

    def prompted(self) -> tuple[str, ...]:
        """The prompt in tokens; a token that came as a number is a word of its own."""
        if isinstance(self.prompt, str):
            return pieces(self.prompt)
        return tuple(" " + words(Dice(b"token %d" % number), 1) for number in self.prompt)

    def likelihood(self) -> float:
        """The mean log probability of its tokens."""
        likely: list[float] = [entry["logprob"] for entry in self.entries()]
        return sum(likely) / max(1, len(likely))

    def entries(self) -> list[dict[str, Any]]:
        """The log probabilities of what is said."""
        return logprobs(self.said, self.seed, self.top or 0)

    def probabilities(self) -> "_Probabilities | None":
        if self.top is None:
            return None
        prompted = self.prompted()
        shown = prompted if self.echo else _NOTHING
        entries = [*logprobs(shown, self.seed + b"echo", self.top), *self.entries()]
        start = 0 if self.echo else sum(map(len, prompted))
        return _Probabilities(entries, list(accumulate(map(len, (*shown, *self.said)), initial=start)), self)


class _Probabilities(msgspec.Struct, frozen=True):
    """`offsets`: of each token in the text of prompt and continuation, in characters."""

    entries: list[dict[str, Any]]
    offsets: list[int]
    of: Continuation

    def part(self, begin: int, end: int) -> dict[str, Any]:
        """As the legacy API writes them, of these tokens; nothing is known of the first of a prompt."""
        entries = self.entries[begin:end]
        likely = [entry["logprob"] for entry in entries]
        top = [{one["token"]: one["logprob"] for one in entry["top_logprobs"]} for entry in entries]
        unknown = self.of.echo and begin == 0 < len(entries) and bool(self.of.prompt)
        return {
            "tokens": [entry["token"] for entry in entries],
            "token_logprobs": [None, *likely[1:]] if unknown else likely,
            "top_logprobs": ([None, *top[1:]] if unknown else top) if self.of.top else None,
            "text_offset": self.offsets[begin:end],
        }


class Printed(msgspec.Struct, frozen=True, kw_only=True):
    """All that is said of one call. `completion_tokens`: of all that were made, the better and the worse."""

    stamp: Stamp
    model: str
    continuations: tuple[Continuation, ...]
    prompt_tokens: int
    completion_tokens: int
    asked_usage: bool
    behaviour: Behaviour

    def head(self) -> dict[str, object]:
        return {
            "id": self.stamp.id,
            "object": "text_completion",
            "created": self.stamp.created,
            "model": self.model,
            "system_fingerprint": "fp_simulator",
        }

    def usage(self) -> dict[str, int]:
        total = self.prompt_tokens + self.completion_tokens
        counted = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
        return {**counted, "total_tokens": total}


def completion(printed: Printed) -> Script:
    """The answer as one `text_completion`."""
    body = printed.head()
    body["choices"] = [_whole_choice(each) for each in printed.continuations]
    if not printed.behaviour.nousage:
        body["usage"] = printed.usage()
    return whole(_encode(body), printed.completion_tokens)


def stream(printed: Printed) -> Script:
    """The answer as events, the continuations' in turn."""
    behaviour = printed.behaviour
    include = printed.asked_usage and not behaviour.nousage
    head = b"data: " + _encode(printed.head())[:-1] + b',"choices":['
    tail = b'],"usage":null}\n\n' if include else b"]}\n\n"
    told = b'],"usage":' + _encode(printed.usage()) + b"}\n\n"
    turns = zip_longest(*map(_chunks, printed.continuations))
    chunks = [chunk for turn in turns for chunk in turn if chunk is not None]
    events = [head + body + tail for body, _ in chunks]
    if behaviour.usage:
        events[-1] = head + chunks[-1][0] + told
    paced = len(events) - 1
    if include and not behaviour.usage:
        events.append(head + told)
    events.append(DONE)
    tokens = [count for _, count in chunks]
    tokens += [0] * (len(events) - len(tokens))
    return Script(tuple(events), tuple(tokens), paced, EVENT_STREAM, manner=TEXT)


def _whole_choice(one: Continuation) -> dict[str, Any]:
    said = (*(one.prompted() if one.echo else _NOTHING), *one.said)
    probabilities = one.probabilities()
    shown = probabilities.part(0, len(said)) if probabilities else None
    return _choice(one, said, shown, one.finish)


def _chunks(one: Continuation) -> Iterator[tuple[bytes, int]]:
    """Its members of `choices`, encoded, with the tokens that each holds: the echo, each token, the finish."""
    probabilities = one.probabilities()
    echoed = one.prompted() if one.echo else _NOTHING
    cuts = [(0, len(echoed))] if echoed else []
    cuts += [(at, at + 1) for at in range(len(echoed), len(echoed) + len(one.said))]
    said = (*echoed, *one.said)
    for begin, end in cuts:
        shown = probabilities.part(begin, end) if probabilities else None
        yield _encode(_choice(one, said[begin:end], shown, None)), int(begin >= len(echoed))
    shown = probabilities.part(len(said), len(said)) if probabilities else None
    yield _encode(_choice(one, (), shown, one.finish)), 0


def _choice(one: Continuation, said: Sequence[str], shown: dict[str, Any] | None, finish: str | None) -> dict[str, Any]:
    return {"text": "".join(said), "index": one.index, "logprobs": shown, "finish_reason": finish}
