"""What went wrong in a batch, by kind: how often, and in one example's words.

Rule: whatever a provider says, its words are shown as one short line of plain characters; and of kinds that nobody
bounds no more than so many are kept.
"""

from typing import Final

import msgspec

from proxy.core.batch import Answer, Failure, Wrong

KINDS: Final = 50  # that are told apart
SHOWN: Final = 5  # of them
CODE: Final = 40  # characters
WORDS: Final = 160
READ: Final = 4096  # bytes of what is no JSON

_json = msgspec.json.Decoder()


class Fault(msgspec.Struct, frozen=True):
    """A kind of error, such as `429 insufficient_quota`, and what one of it says."""

    kind: str
    message: str


class Faults:
    """Those of one batch."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, str] = {}
        self._more = 0  # of kinds that are not told apart

    def add(self, answer: Answer | Failure | Wrong) -> None:
        """One more result that is no good answer."""
        fault = fault_of(answer)
        if fault.kind in self._counts or len(self._counts) < KINDS:
            self._counts[fault.kind] = self._counts.get(fault.kind, 0) + 1
            self._examples.setdefault(fault.kind, fault.message)
        else:
            self._more += 1

    def lines(self) -> list[str]:
        """In words, the most frequent first; one line for the rest."""
        ordered = sorted(self._counts.items(), key=lambda each: -each[1])
        said = [f"  {count:,} × {kind}{self._example(kind)}" for kind, count in ordered[:SHOWN]]
        rest = self._more + sum(count for _, count in ordered[SHOWN:])
        return [*said, f"  and {rest:,} of other kinds"] if rest else said

    def _example(self, kind: str) -> str:
        message = self._examples[kind]
        return f": {message}" if message else ""


def fault_of(answer: Answer | Failure | Wrong) -> Fault:
    if not isinstance(answer, Answer):
        return Fault(answer.code, plain(answer.message, WORDS))
    code, message = _said(answer.body)
    return Fault(f"{answer.status} {plain(code, CODE)}".strip(), plain(message, WORDS))


def _said(body: bytes) -> tuple[str, str]:
    """(code, message) of an error in OpenAI's shape; of any other what there is."""
    try:
        said = _json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", body[:READ].decode(errors="replace")
    error = said.get("error", said) if isinstance(said, dict) else said
    if not isinstance(error, dict):
        return "", error if isinstance(error, str) else ""
    return str(error.get("code") or error.get("type") or ""), str(error.get("message") or "")


def plain(text: str, most: int) -> str:
    """In one line, without what steers a terminal, and no longer than so many characters."""
    clean = " ".join("".join(each if each.isprintable() else " " for each in text[:READ]).split())
    return clean if len(clean) <= most else clean[: most - 1].rstrip() + "…"
