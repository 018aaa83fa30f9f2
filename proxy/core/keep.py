"""Whether a finished answer is worth keeping.

Rule: only what is whole, and what an application could use again. A doubt is a no: a call that is paid twice costs
less than a wrong answer that is given for a week.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from proxy.core.assemble import assemble
from proxy.core.call import Call
from proxy.core.progress import ChatProgress
from proxy.core.recording import Clean, Recording
from proxy.core.view import ID_MARK, chunks_of


def flaw(recording: Recording, progress: ChatProgress, call: Call) -> str | None:
    """Why this recording is not to be kept, or None."""
    if not isinstance(recording.end, Clean) or recording.head is None or recording.head.status != 200:
        return "failed"
    if recording.oversized:
        return "too-large"
    if any(ID_MARK in event.raw for event in recording.events):
        return "malformed"  # no JSON holds it: it stands where templates take an id
    found = progress.flaw()
    if found is None and _asks_for_json(call) and not _holds_json(completion_of(recording)):
        return "invalid-json"
    return found


def completion_of(recording: Recording) -> dict[str, Any]:
    """The answer as a completion, whichever way it came. The recording must be whole."""
    if recording.head is not None and recording.head.kind == "json":
        body: dict[str, Any] = msgspec.json.decode(b"".join(event.raw for event in recording.events))
        return body
    return assemble(chunks_of(recording.events))


def _asks_for_json(call: Call) -> bool:
    wanted = call.body.get("response_format")
    return isinstance(wanted, dict) and wanted.get("type") in ("json_object", "json_schema")


def _holds_json(completion: dict[str, Any]) -> bool:
    choices: Sequence[Any] = completion.get("choices") or ()
    return all(_is_json(choice.get("message") or {}) for choice in choices)


def _is_json(message: dict[str, Any]) -> bool:
    """A tool call or a refusal is an answer too; text must be JSON."""
    text = message.get("content")
    if not text:
        return True
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, TypeError, RecursionError):
        return False
    return True
