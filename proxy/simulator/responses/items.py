"""Answer → items. Each is whole in a Response, and tells itself in a stream piece by piece."""

from typing import Any, Protocol

import msgspec

from proxy.simulator.answers import Choice, Pieces
from proxy.simulator.logprobs import logprobs
from proxy.simulator.request import Json
from proxy.simulator.responses.request import Reasoning, Responding
from proxy.simulator.responses.telling import ItemTelling
from proxy.simulator.text import Dice, words
from proxy.simulator.tools import Call

_CITED = 24  # characters
_LONG = 12  # tokens: more reasoning than that is summed up in two parts


class Item(Protocol):
    @property
    def id(self) -> str: ...
    def whole(self) -> Json: ...
    def tell(self, to: ItemTelling) -> None: ...


class Thought(msgspec.Struct, frozen=True):
    """Reasoning. `summaries`: the parts shown of it; `shown`: it is shown itself; `sealed`: for the next turn."""

    id: str
    said: Pieces
    summaries: tuple[Pieces, ...]
    shown: bool
    sealed: str | None

    def whole(self) -> Json:
        item = {"id": self.id, "type": "reasoning", "summary": [_summary(part) for part in self.summaries]}
        if self.shown:
            item["content"] = [{"type": "reasoning_text", "text": "".join(self.said)}]
        return item if self.sealed is None else {**item, "encrypted_content": self.sealed}

    def tell(self, to: ItemTelling) -> None:
        to.begin({"id": self.id, "type": "reasoning", "summary": []})
        for index, part in enumerate(self.summaries):
            self._tell_summary(to, index, part)
        if self.shown:
            self._tell_text(to)
        to.end(self.whole(), tokens=0 if self.shown or self.summaries else len(self.said))

    def _tell_summary(self, to: ItemTelling, index: int, part: Pieces) -> None:
        to.say("reasoning_summary_part.added", summary_index=index, part=_summary(()))
        for piece in part:
            to.say("reasoning_summary_text.delta", tokens=int(not self.shown), summary_index=index, delta=piece)
        to.say("reasoning_summary_text.done", summary_index=index, text="".join(part))
        to.say("reasoning_summary_part.done", summary_index=index, part=_summary(part))

    def _tell_text(self, to: ItemTelling) -> None:
        part = {"type": "reasoning_text", "text": ""}
        to.say("content_part.added", content_index=0, part=part)
        for piece in self.said:
            to.say("reasoning_text.delta", tokens=1, content_index=0, delta=piece)
        text = "".join(self.said)
        to.say("reasoning_text.done", content_index=0, text=text)
        to.say("content_part.done", content_index=0, part={**part, "text": text})


class Search(msgspec.Struct, frozen=True):
    """A search of the web, which finds the same page each time."""

    id: str
    query: str
    sources: bool

    def whole(self) -> Json:
        return self._in("completed")

    def tell(self, to: ItemTelling) -> None:
        to.begin(self._in("in_progress"))
        for step in ("in_progress", "searching", "completed"):
            to.say(f"web_search_call.{step}")
        to.end(self.whole())

    def _in(self, status: str) -> Json:
        action: Json = {"type": "search", "query": self.query, "queries": [self.query]}
        if self.sources:
            action["sources"] = [{"type": "url", "url": _page(self.query)["url"]}]
        return {"id": self.id, "type": "web_search_call", "status": status, "action": action}


class Message(msgspec.Struct, frozen=True):
    """`query`: of the search whose page it cites; `entries`: of its text, None where no log probabilities are shown."""

    id: str
    said: Pieces
    refusal: bool
    entries: list[Json] | None
    query: str | None
    status: str

    def whole(self) -> Json:
        return self._with(self.status, [self._part(self.said, self.entries or [], self._cited())])

    def tell(self, to: ItemTelling) -> None:
        to.begin(self._with("in_progress", []))
        to.say("content_part.added", content_index=0, part=self._part((), [], []))
        if self.refusal:
            self._tell_refusal(to)
        else:
            self._tell_text(to)
        to.say("content_part.done", content_index=0, part=self.whole()["content"][0])
        to.end(self.whole())

    def _tell_refusal(self, to: ItemTelling) -> None:
        for piece in self.said:
            to.say("refusal.delta", tokens=1, content_index=0, delta=piece)
        to.say("refusal.done", content_index=0, refusal="".join(self.said))

    def _tell_text(self, to: ItemTelling) -> None:
        entries = self.entries or []
        for at, piece in enumerate(self.said):
            to.say("output_text.delta", tokens=1, content_index=0, delta=piece, logprobs=entries[at : at + 1])
        for at, cited in enumerate(self._cited()):
            to.say("output_text.annotation.added", content_index=0, annotation_index=at, annotation=cited)
        to.say("output_text.done", content_index=0, text="".join(self.said), logprobs=entries)

    def _with(self, status: str, content: list[Json]) -> Json:
        return {"id": self.id, "type": "message", "status": status, "content": content, "role": "assistant"}

    def _part(self, said: Pieces, entries: list[Json], cited: list[Json]) -> Json:
        text = "".join(said)
        if self.refusal:
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "annotations": cited, "logprobs": entries, "text": text}

    def _cited(self) -> list[Json]:
        length = sum(map(len, self.said))
        if self.query is None or self.refusal or not length:
            return []
        return [{"type": "url_citation", "start_index": 0, "end_index": min(length, _CITED), **_page(self.query)}]


class Called(msgspec.Struct, frozen=True):
    """A call of a tool of the caller's."""

    id: str
    call: Call
    status: str

    def whole(self) -> Json:
        return self._with(self.status, "".join(self.call.pieces))

    def tell(self, to: ItemTelling) -> None:
        kind = "custom_tool_call_input" if self.call.kind == "custom" else "function_call_arguments"
        to.begin(self._with("in_progress", ""), tokens=1)
        for piece in self.call.pieces:
            to.say(f"{kind}.delta", tokens=1, delta=piece)
        text = "".join(self.call.pieces)
        if self.call.kind == "custom":
            to.say(f"{kind}.done", input=text)
        else:
            to.say(f"{kind}.done", name=self.call.name, arguments=text)
        to.end(self.whole())

    def _with(self, status: str, text: str) -> Json:
        kind, member = ("custom_tool_call", "input") if self.call.kind == "custom" else ("function_call", "arguments")
        called = {"call_id": self.call.id, "name": self.call.name}
        return {"id": self.id, "type": kind, "status": status, member: text, **called}


def output(asked: Responding, choice: Choice, *, whole: bool) -> tuple[Item, ...]:
    """The items of this answer, in order; the last of one that is not `whole` is cut short."""
    dice = Dice(asked.seed + b"items")
    found: list[Item] = []
    if asked.model.reasoning:
        found.append(_thought(asked, choice, dice))
    query = words(dice, 4) if asked.offer().searches else None
    if query is not None:
        found.append(Search(_id("ws_", dice), query, asked.includes("web_search_call.action.sources")))
    status = "completed" if whole else "incomplete"
    if choice.refusal or choice.content or (whole and not choice.calls):
        found.append(_message(asked, choice, query, dice, status))
    for at, call in enumerate(choice.calls, 1):
        prefix = "ctc_" if call.kind == "custom" else "fc_"
        found.append(Called(_id(prefix, dice), call, status if at == len(choice.calls) else "completed"))
    return tuple(found)


def _thought(asked: Responding, choice: Choice, dice: Dice) -> Thought:
    wanted = asked.request.reasoning or Reasoning()
    sealed = "gAAAAA" + dice.token(120) if asked.includes("reasoning.encrypted_content") else None
    shows = wanted.summary or wanted.generate_summary
    summaries = _parts(choice.reasoning, concise=shows == "concise") if shows else ()
    return Thought(_id("rs_", dice), choice.reasoning, summaries, asked.behaviour.thoughts, sealed)


def _parts(reasoning: Pieces, *, concise: bool) -> tuple[Pieces, ...]:
    if concise or len(reasoning) <= _LONG:
        return (reasoning,)
    half = len(reasoning) // 2
    return reasoning[:half], reasoning[half:]


def _message(asked: Responding, choice: Choice, query: str | None, dice: Dice, status: str) -> Message:
    said = choice.refusal or choice.content or ()
    entries = None
    if asked.includes("message.output_text.logprobs"):
        entries = logprobs(said, asked.seed, asked.request.top_logprobs or 0)
    return Message(_id("msg_", dice), said, choice.refusal is not None, entries, query, status)


def _summary(part: Pieces) -> Json:
    return {"type": "summary_text", "text": "".join(part)}


def _page(query: str) -> dict[str, Any]:
    dice = Dice(query.encode())
    return {"title": words(dice, 3), "url": f"https://example.com/{dice.token(8)}"}


def _id(prefix: str, dice: Dice) -> str:
    return prefix + "".join(f"{dice.byte():02x}" for _ in range(24))
