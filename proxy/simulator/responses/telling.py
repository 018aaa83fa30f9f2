"""The events of a stream of the Responses kind, numbered, with the tokens that each holds."""

from proxy.simulator.manner import TYPED, typed
from proxy.simulator.request import Json
from proxy.simulator.script import EVENT_STREAM, Script


class Telling:
    """A stream while it is written."""

    def __init__(self) -> None:
        self._events: list[bytes] = []
        self._tokens: list[int] = []
        self._paced = 0

    def say(self, kind: str, *, tokens: int = 0, **members: object) -> None:
        self._events.append(typed({"type": kind, "sequence_number": len(self._events), **members}))
        self._tokens.append(tokens)
        if tokens:
            self._paced = len(self._events)

    def forget_the_end(self) -> None:
        """Nothing was said after the last token."""
        said = max(self._paced, min(2, len(self._events)))
        del self._events[said:], self._tokens[said:]

    def script(self) -> Script:
        """The end comes with the last token."""
        return Script(
            tuple(self._events), tuple(self._tokens), max(self._paced, 2), EVENT_STREAM, manner=TYPED, obeyed=("big",)
        )

    def of_item(self, index: int, item_id: str) -> "ItemTelling":
        return ItemTelling(self, index, item_id)


class ItemTelling:
    """What is said of one item: `index` of the output."""

    def __init__(self, telling: Telling, index: int, item_id: str) -> None:
        self._telling = telling
        self._index = index
        self._id = item_id

    def begin(self, item: Json, *, tokens: int = 0) -> None:
        self._telling.say("response.output_item.added", tokens=tokens, output_index=self._index, item=item)

    def say(self, kind: str, *, tokens: int = 0, **members: object) -> None:
        self._telling.say(f"response.{kind}", tokens=tokens, item_id=self._id, output_index=self._index, **members)

    def end(self, item: Json, *, tokens: int = 0) -> None:
        self._telling.say("response.output_item.done", tokens=tokens, output_index=self._index, item=item)
