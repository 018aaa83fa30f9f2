"""Whether a finished answer is worth keeping.

Rule: only what is whole, and what an application could use again. A doubt is a no: a call that is paid twice costs
less than a wrong answer that is given for a week.
"""

from typing import Any

import msgspec

from proxy.core.call import Call
from proxy.core.dialect import Dialect
from proxy.core.progress import Progress
from proxy.core.recording import Clean, Kind, Recording
from proxy.core.view import ID_MARK, as_json


def flaw(recording: Recording, progress: Progress, call: Call) -> str | None:
    """Why this recording is not to be kept, or None."""
    if not isinstance(recording.end, Clean) or recording.head is None or recording.head.status != 200:
        return "failed"
    if recording.oversized:
        return "too-large"
    if any(ID_MARK in event.raw for event in recording.events):
        return "malformed"  # no JSON holds it: it stands where templates take an id
    found = progress.flaw()
    if found is None and _asks_for_json(call) and not all(map(_is_json, _texts(recording, call.dialect))):
        return "invalid-json"
    return found


def _asks_for_json(call: Call) -> bool:
    wanted = call.likeness.get("response_format")
    return isinstance(wanted, dict) and wanted.get("type") in ("json_object", "json_schema")


def _texts(recording: Recording, dialect: Dialect) -> list[object]:
    """What a whole answer says, whichever way it came."""
    kind: Kind = "stream" if recording.head is None else recording.head.kind
    return dialect.texts(msgspec.json.decode(as_json(dialect, kind, recording.events, new_id=None)))


def _is_json(text: Any) -> bool:
    """A tool call or a refusal is an answer too; text must be JSON."""
    if not text:
        return True
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, TypeError, RecursionError):
        return False
    return True
