"""A prompt as a chain of links: the first stands for what is declared (tools), each other one for everything up to and
with one message.

Rule: two prompts share a link only if they share all that comes before it, within one namespace. A link tells nobody
what it stands for: it is made with the secret that keys are made with.
"""

import hashlib
from collections.abc import Mapping, Sequence
from itertools import accumulate, takewhile
from typing import Any, Final

import msgspec

from pricing.encodings import Name
from pricing.tokens import Counting, Prompt, is_bare, messages_of, read_frame, read_message
from proxy.core.call import Call
from proxy.core.memo import Memo

LENGTH: Final = 12  # bytes of a link
MESSAGES: Final = 5000  # that are told apart
DECLARED: Final = ("tools", "functions", "response_format")  # what stands before the messages
BARE: Final = "bare"  # texts that are no conversation are framed otherwise
REMEMBERED: Final = 16 * 1024 * 1024  # bytes of counts that are remembered
_WEIGHT: Final = 500  # bytes of one, generously

_encode = msgspec.json.Encoder(order="sorted").encode

Links = Sequence[bytes]


def links_of(body: Mapping[str, Any], secret: bytes, namespace: bytes) -> tuple[bytes, ...]:
    """The chain of a chat completion's parsed body: one link more than it has messages."""
    declared = _encode([*(body.get(name) for name in DECLARED), *([BARE] if is_bare(body) else ())])
    first = _link(len(namespace).to_bytes(8), namespace + declared, secret)
    said = map(_encode, linked(body))
    return tuple(accumulate(said, lambda before, message: _link(before, message, secret), initial=first))


def namespace_of(call: Call, *, client_pays: bool, shared: bool) -> object:
    """Whose answers a call may share, and whose prompts."""
    return call.credentials if client_pays else "" if shared else call.owner


def links_for(call: Call, namespace: object, secret: bytes) -> tuple[bytes, ...]:
    """The chain of a call."""
    return links_of(call.likeness, secret, msgspec.json.encode((namespace, call.account)))


def account_of(call: Call, secret: bytes, *, client_pays: bool) -> str:
    """Whose account at the providers is used: "" is the operator's. It is written down, so it tells no key."""
    if not client_pays:
        return ""
    said = msgspec.json.encode((call.credentials, call.account))
    return hashlib.blake2b(said, digest_size=8, key=secret[:64]).hexdigest()


def _link(before: bytes, said: bytes, secret: bytes) -> bytes:
    return hashlib.blake2b(before + said, digest_size=LENGTH, key=secret[:64]).digest()


def linked(body: Mapping[str, Any]) -> list[object]:
    """What has a link of its own: each message; of absurdly many the first ones, and the rest as one."""
    messages = messages_of(body)
    return messages if len(messages) <= MESSAGES else [*messages[:MESSAGES], messages[MESSAGES:]]


class Counted(msgspec.Struct, frozen=True):
    """A prompt's tokens up to each of its links; `base`: by no model's tokenizer."""

    upto: tuple[Prompt, ...]
    base: tuple[int, ...]


class Pending(msgspec.Struct, frozen=True):
    """A prompt of which some links were counted before. `count` may be called in any thread."""

    body: Mapping[str, Any]
    known: tuple[Prompt, ...]
    encoding: Name

    def count(self, counting: Counting) -> Counted:
        """As long as `counting` takes for what is new."""
        new = [read_message(said, counting, self.encoding) for said in linked(self.body)[max(0, len(self.known) - 1) :]]
        if not self.known:
            new.insert(0, read_frame(self.body, counting, self.encoding))
        start = self.known[-1:]
        sums = tuple(accumulate((*start, *new), Prompt.plus))
        upto = self.known + sums[len(start) :]
        return Counted(upto, tuple([prompt.under(None).total for prompt in upto]))


class Counts:
    """What each link counts, so that a conversation's messages are counted once. Belongs to one thread."""

    def __init__(self) -> None:
        self._known: Memo[tuple[Name, bytes], Prompt] = Memo(REMEMBERED)

    def pending(self, body: Mapping[str, Any], links: Links, encoding: Name) -> Pending:
        found = (self._known.get((encoding, link)) for link in links)
        return Pending(body, tuple(takewhile(lambda prompt: prompt is not None, found)), encoding)  # type: ignore[arg-type]

    def learn(self, links: Links, counted: Counted, pending: Pending) -> None:
        start = len(pending.known)
        for link, prompt in zip(links[start:], counted.upto[start:], strict=True):
            self._known.put((pending.encoding, link), prompt, _WEIGHT + 8 * len(prompt.images))
