"""What a Response has shown so far, in the events of a stream or as a whole.

Rule: an answer is whole when a Response came once that says how it ended: completed, incomplete or failed. Whether it
came in an event or as the body is all the same, and `[DONE]` is neither needed nor enough.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from proxy.core.canonical import is_too_deep
from proxy.core.progress import FAILED_FINISHES
from proxy.core.response_events import ENDS, is_response

# The events that bring a text in pieces, and whether an application could use it. Reasoning alone is no answer.
_DELTAS: Final = {
    "response.output_text.delta": True,
    "response.refusal.delta": True,
    "response.function_call_arguments.delta": True,
    "response.custom_tool_call_input.delta": True,
    "response.reasoning_text.delta": False,
    "response.reasoning_summary_text.delta": False,
}
# The same texts as a whole, each in the member that is named.
_TEXTS: Final = {
    "response.output_text.done": "text",
    "response.refusal.done": "refusal",
    "response.function_call_arguments.done": "arguments",
    "response.custom_tool_call_input.done": "input",
}
_PARTS: Final = {"output_text": "text", "refusal": "refusal"}
# Calls of tools whose types do not end in `_call`.
_OTHER_CALLS: Final = frozenset({"program", "mcp_approval_request"})


class ResponseProgress:
    """Takes the events of one answer in order, or its whole body. `choices` is how many the request asked for: one."""

    __slots__ = (
        "_ends",
        "_holds",
        "_items_hold",
        "_reason",
        "_status",
        "begun",
        "choices",
        "done",
        "error",
        "malformed",
        "name",
        "service",
        "substance",
        "usage",
    )

    def __init__(self, choices: int) -> None:
        self.choices = choices
        self.substance: set[str] = set()  # the types of what said something
        self.error: object = None
        self.malformed = False
        self.usage: object = None  # the last that was said
        self.service: str | None = None
        self.name: str | None = None
        self.done = False
        self.begun = False
        self._ends = 0
        self._status: object = None  # how it ended
        self._reason = ""  # why it is incomplete
        self._holds = False  # does what would be kept say anything?
        self._items_hold = False  # do the items that came one by one?

    def take(self, data: bytes) -> None:
        """One event's data, or a body."""
        try:
            event = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.malformed = True
            return
        if not isinstance(event, dict) or is_too_deep(data, event):
            self.malformed = True  # what nests so deep is no answer, and later passes over it recurse
            return
        kind = event.get("type")
        kind = kind if isinstance(kind, str) else ""
        if (event.get("error") is not None or kind == "error") and not is_response(event):
            # OpenAI sends the members of the error flat or under `error`, whatever its reference says.
            self.error = event.get("error") or {name: event[name] for name in event if name != "sequence_number"}
        elif kind in _DELTAS:
            self._delta(kind, event.get("delta"))
        elif kind.startswith("response."):
            self._event(kind, event)
        elif is_response(event):
            self._see(event)
            if event.get("status") in ENDS.values():
                self._ended(event, event["status"])

    def _delta(self, kind: str, delta: object) -> None:
        self.begun = True
        if not isinstance(delta, str):
            self.malformed = True
        elif delta and not self.substance and _DELTAS[kind]:
            self.substance.add(kind)

    def _event(self, kind: str, event: dict[str, Any]) -> None:
        self.begun = True
        response = event.get("response")
        if isinstance(response, dict):
            self._see(response)
        if kind in ENDS:
            self._ended(response, ENDS[kind])
        elif kind in _TEXTS:
            if isinstance(text := event.get(_TEXTS[kind]), str) and text:
                self.substance.add(kind)
        elif kind.startswith("response.output_item.") and _speaks(event.get("item")):
            self.substance.add(kind)
            self._items_hold = self._items_hold or kind == "response.output_item.done"

    def _see(self, response: dict[str, Any]) -> None:
        self.begun = True
        if response.get("usage") is not None:
            self.usage = response["usage"]
        if isinstance(service := response.get("service_tier"), str):
            self.service = service
        if isinstance(name := response.get("id"), str):
            self.name = name

    def _ended(self, response: object, status: str) -> None:
        self._ends += 1
        if not isinstance(response, dict) or not isinstance(output := response.get("output"), list | None):
            self.malformed = True
            return
        # Some servers call every end complete and tell the truth in the Response; some leave its status out.
        failed = status == "failed" or response.get("error") is not None
        self._status = "failed" if failed else response.get("status") or status
        details = response.get("incomplete_details")
        self._reason = str(details.get("reason")) if isinstance(details, dict) else ""
        self._holds = any(map(_speaks, output)) if output else self._items_hold
        if self._holds:
            self.substance.add("response")

    @property
    def has_usage(self) -> bool:
        """A Response's usage needs no asking, so one that says none would say none to anybody."""
        return True

    @property
    def finished(self) -> bool:
        """Did a Response come that says how it ended?"""
        return self._ends > 0

    @property
    def truncated(self) -> bool:
        """Would a clean end of HTTP, now, hide that the answer was cut?"""
        return not self.done and not self.finished

    def flaw(self) -> str | None:
        """Why an answer that ended cleanly here is not to be kept, or None."""
        if self.error is not None or self._status == "failed":
            return "error"
        if self.malformed:
            return "malformed"
        if self._ends != 1 or self._status not in ("completed", "incomplete"):
            return "unfinished"
        if self._reason in FAILED_FINISHES:
            return "filtered"
        return None if self._holds else "empty"


def _speaks(item: object) -> bool:
    """Does this item of the output say anything that an application could use?"""
    if not isinstance(item, dict) or not isinstance(kind := item.get("type"), str):
        return False
    if kind != "message":
        return kind.endswith("_call") or kind in _OTHER_CALLS
    texts = (part.get(_PARTS.get(str(part.get("type")), "")) for part in _objects(item.get("content")))
    return any(isinstance(text, str) and text for text in texts)


def _objects(values: object) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def output_texts(response: Mapping[str, Any]) -> list[str]:
    """The text of each message in a Response's output, less messages that have none: refusals."""
    texts = []
    for item in _objects(response.get("output")):
        parts = [part for part in _objects(item.get("content")) if part.get("type") == "output_text"]
        if item.get("type") == "message" and parts:
            texts.append("".join(str(part.get("text") or "") for part in parts))
    return texts
