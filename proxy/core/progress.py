"""What an answer has shown so far: the shape of that for every endpoint, and how it is with chat and text completions.

Rule: an answer is whole when every choice that was asked for has ended once, every event could be read, and none was
an error. `[DONE]` is neither needed (one real server sends none) nor enough (a cut answer can carry it).
"""

from collections.abc import Collection, Mapping
from typing import Any, Protocol

import msgspec

from proxy.core.canonical import is_too_deep

FAILED_FINISHES = frozenset({"error", "content_filter", "network_error", "insufficient_system_resource"})
# What of a delta or message counts as an answer. Reasoning alone is not one.
SUBSTANCE = ("content", "refusal", "tool_calls", "function_call", "audio")


class Progress(Protocol):
    """Takes the events of one answer in order, or its JSON body.

    `usage`: the last that was said; `service`: the `service_tier`; `name`: by which requests may refer to it at its
    provider; `substance`: empty until something is said that an application could use; `done`: whether `[DONE]` has
    come.
    """

    error: object
    malformed: bool
    usage: object
    service: str | None
    name: str | None
    done: bool

    def take(self, data: bytes) -> None:
        """One event's data. Raises nothing."""
        ...

    @property
    def substance(self) -> Collection[object]: ...

    @property
    def has_usage(self) -> bool:
        """Does it say all the usage that a request for it in another form would get?"""
        ...

    @property
    def begun(self) -> bool:
        """Has anything of an answer shown itself?"""
        ...

    @property
    def finished(self) -> bool: ...

    @property
    def truncated(self) -> bool:
        """Would a clean end of HTTP, now, hide that the answer was cut?"""
        ...

    def flaw(self) -> str | None:
        """Why an answer that ended cleanly here is not to be kept, or None."""
        ...


class ChatProgress:
    """Of chat and text completions; `choices` is how many the request asked for."""

    __slots__ = (
        "_open",
        "choices",
        "done",
        "error",
        "finishes",
        "malformed",
        "name",
        "repeated",
        "service",
        "substance",
        "usage",
    )

    def __init__(self, choices: int) -> None:
        self.choices = choices
        self.finishes: dict[int, str] = {}
        self.substance: set[int] = set()
        self.error: object = None
        self.malformed = False
        self.repeated = False
        self.usage: object = None  # the last that was said
        self.service: str | None = None
        self.name: str | None = None  # nobody refers to it
        self.done = False
        self._open: set[int] = set()

    def take(self, data: bytes) -> None:
        """One event's data."""
        try:
            chunk = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.malformed = True
            return
        if not isinstance(chunk, dict) or is_too_deep(data, chunk):
            self.malformed = True  # what nests so deep is no answer, and later passes over it recurse
            return
        if chunk.get("error") is not None:
            self.error = chunk["error"]
        if chunk.get("usage") is not None:
            self.usage = chunk["usage"]
        if isinstance(service := chunk.get("service_tier"), str):
            self.service = service
        choices = chunk.get("choices")
        if isinstance(choices, list):
            for choice in choices:
                self._choice(choice)

    def _choice(self, choice: object) -> None:
        if not isinstance(choice, dict) or type(index := choice.get("index", 0)) is not int:
            self.malformed = True
            return
        self._open.add(index)
        said = choice.get("delta", choice.get("message"))
        if said is not None and not isinstance(said, dict):
            self.malformed, said = True, None
        if index not in self.substance and (choice.get("text") if said is None else has_substance(said)):
            self.substance.add(index)
        finish = choice.get("finish_reason")
        if isinstance(finish, str) and finish:  # some providers say "" for null
            self.repeated = self.repeated or index in self.finishes
            self.finishes[index] = finish

    @property
    def has_usage(self) -> bool:
        return self.usage is not None

    @property
    def begun(self) -> bool:
        """Has any choice shown itself?"""
        return bool(self._open)

    @property
    def finished(self) -> bool:
        """Has every choice ended: those that were asked for, and those that came?"""
        return len(self.finishes) >= self.choices and self._open == self.finishes.keys()

    @property
    def truncated(self) -> bool:
        """Would a clean end of HTTP, now, hide that the answer was cut?"""
        return not self.done and not self.finished

    def flaw(self) -> str | None:
        """Why an answer that ended cleanly here is not to be kept, or None."""
        if self.error is not None:
            return "error"
        if self.malformed:
            return "malformed"
        if not self.finished or self.repeated:
            return "unfinished"
        if not FAILED_FINISHES.isdisjoint(self.finishes.values()):
            return "filtered"
        return None if self.substance >= self._open else "empty"


def has_substance(message: Mapping[str, Any]) -> bool:
    """Does this delta or message say anything that an application could use?"""
    return any(message.get(name) for name in SUBSTANCE)


class _Embeddings(msgspec.Struct):
    """The shallow part: a list of vectors may have a hundred megabytes."""

    data: msgspec.Raw = msgspec.Raw()
    error: Any = None
    usage: Any = None


_embeddings = msgspec.json.Decoder(_Embeddings)


class EmbeddingsProgress:
    """Of a list of embeddings, which comes as one JSON body. What is in the list is for embeddings.py."""

    def __init__(self, _: int) -> None:
        self.error: object = None
        self.malformed = False
        self.usage: object = None
        self.service: str | None = None
        self.name: str | None = None
        self.done = False
        self.substance: tuple[object, ...] = ()

    def take(self, data: bytes) -> None:
        try:
            found = _embeddings.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.malformed = True
            return
        self.error, self.usage = found.error, found.usage
        if memoryview(found.data)[:1].tobytes() == b"[":
            self.substance = (found.data,)

    @property
    def has_usage(self) -> bool:
        return True

    @property
    def begun(self) -> bool:
        return self.finished

    @property
    def finished(self) -> bool:
        return bool(self.substance)

    @property
    def truncated(self) -> bool:
        return not self.finished

    def flaw(self) -> str | None:
        if self.error is not None:
            return "error"
        if self.malformed:
            return "malformed"
        return None if self.finished else "unfinished"
