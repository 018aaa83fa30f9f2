"""What a page without an SDK asks and is told (`/chat/stream`), in terms of chat completions: there and back.

Rule: a request comes to one chat completion, the same that a client with an SDK would ask for; and of an answer's text
no character is lost, doubled or changed, however its bytes are split.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

import msgspec

from pricing.cost import Usage
from proxy.core.canonical import parse
from proxy.core.sse import PING, Decoder, Event, encode
from proxy.errors import InvalidRequest, PenstockError, UpstreamBadContentType, UpstreamFailed, UpstreamTruncated

MEMBERS: Final = ("messages", "model", "max_tokens", "temperature")
ROLES: Final = ("system", "developer", "user", "assistant")
OF_A_MESSAGE: Final = frozenset({"role", "content"})
LONGEST_WORD: Final = 256  # characters of what a provider calls an error

_UNBOUNDED: Final = 1 << 62  # bytes of an event: each was bounded when it came from the provider
# What ends a line for some readers of event streams, though the standard says that it does not.
_LINE_ENDS: Final = (("\u2028", b"\\u2028"), ("\u2029", b"\\u2029"), ("\x85", b"\\u0085"))
_ESCAPES: Final = tuple((end.encode(), escape) for end, escape in _LINE_ENDS)

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_json = msgspec.json.Encoder()

Channel = Literal["content", "refusal", "reasoning"]


def chat_request(raw: bytes, default_model: str | None) -> bytes:
    """The body of the chat completion that this body of `/chat/stream` comes to; what it says of it stays to the byte.

    It asks for no usage: Penstock asks a provider by itself, and knows which ones refuse to be asked. Raises
    InvalidRequest.
    """
    body = parse(raw)
    for name in body:
        if name not in MEMBERS:
            told = f"`{name[:64]}` is not known here: this takes {', '.join(MEMBERS)}; /v1/chat/completions takes all."
            raise InvalidRequest(told, param=name[:64])
    _check_messages(body.get("messages"))
    temperature = body.get("temperature")
    if temperature is not None and type(temperature) not in (int, float):
        raise InvalidRequest("`temperature` must be a number.", param="temperature")
    members: dict[str, Any] = {name: said for name, said in _members.decode(raw).items() if body[name] is not None}
    if "model" not in members:
        if default_model is None:
            told = "`model` is required: name one, or set default_model under [routing] in Penstock's settings."
            raise InvalidRequest(told, param="model")
        members["model"] = default_model
    return _json.encode(members | {"stream": True})


def _check_messages(messages: object) -> None:
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("`messages` is required and must be a list of at least one message.", param="messages")
    for index, message in enumerate(messages):
        if (
            type(message) is not dict
            or message.keys() != OF_A_MESSAGE
            or message["role"] not in ROLES
            or type(message["content"]) is not str
        ):
            raise _refusal(f"messages[{index}]", message)


def _refusal(path: str, message: object) -> InvalidRequest:
    """What is wrong with this one."""
    if not isinstance(message, dict):
        return InvalidRequest(f"`{path}` must be an object with `role` and `content`.", param=path)
    for name in message:
        if name not in OF_A_MESSAGE:
            told = f"`{path}.{name[:64]}` is not known here: a message has `role` and `content`."
            return InvalidRequest(told, param=f"{path}.{name[:64]}")
    if message.get("role") not in ROLES:
        return InvalidRequest(f"`{path}.role` must be one of: {', '.join(ROLES)}.", param=f"{path}.role")
    return InvalidRequest(f"`{path}.content` must be a string.", param=f"{path}.content")


class Tokens(msgspec.Struct, frozen=True):
    """Of an answer, as its page is told."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int


class Done(msgspec.Struct, frozen=True):
    """The figures of a whole answer. USD as decimals in strings; times in seconds since the request came."""

    id: str
    model: str
    provider: str
    finish_reason: str | None
    usage: Tokens | None
    cost_usd: str | None
    saved_usd: str | None
    cache: str
    first_token_seconds: float | None
    total_seconds: float

    def event(self) -> bytes:
        return b"event: done\n" + encode(_told(self))


def tokens(usage: Usage | None) -> Tokens | None:
    return None if usage is None else Tokens(usage.input, usage.output, usage.cached, usage.reasoning)


def error_event(said: object) -> bytes:
    """An error in OpenAI's shape, whatever a provider made of it."""
    error = said if isinstance(said, dict) else {"message": said}
    shaped = {
        "message": str(error.get("message") or "The provider reported an error."),
        "type": str(error.get("type") or "upstream_error"),
        "param": _word(error.get("param")),
        "code": _word(error.get("code")),
    }
    # In ASCII: a provider's words may hold half a character, which msgspec refuses to write.
    return b"event: error\n" + encode(json.dumps({"error": shaped}).encode())


def _word(said: object) -> str | int | None:
    """As a page can read it: a provider may say anything."""
    if said is None or (isinstance(said, int) and not isinstance(said, bool)):
        return said
    return str(said)[:LONGEST_WORD]


def broken_event(error: PenstockError) -> bytes:
    return b"event: error\n" + encode(error.body())


class Plain:
    """The answer to a chat completion of one choice in, the events of `/chat/stream` out.

    `begun`: it has said something. `finish`: why it ended, once it has. `failed`: an error was told; nothing follows.
    """

    __slots__ = ("_decoder", "_halves", "_unreadable", "begun", "failed", "finish")

    def __init__(self) -> None:
        self.begun = False
        self.finish: str | None = None
        self.failed = False
        self._decoder = Decoder(_UNBOUNDED)
        self._halves: dict[Channel, str] = {}  # the first half of a character beyond U+FFFF, by where it was said
        self._unreadable = False

    def feed(self, piece: bytes) -> bytes:
        """What these bytes of a stream, cut anywhere, say. A comment stays one, as a sign of life."""
        comments = self._decoder.comments
        said = b"".join([self._event(event) for event in self._decoder.feed(piece)])
        return said or (PING if self._decoder.comments > comments else b"")

    def close(self) -> bytes:
        """What is left to say at a stream's clean end."""
        last = self._decoder.close()
        said = b"" if last is None else self._event(last)
        lone = [encode(_told({channel: "\ufffd"})) for channel in self._halves]
        self._halves.clear()
        return said + b"".join(lone)

    def completion(self, body: bytes) -> bytes:
        """What a whole body of JSON says, from a provider that does not stream.

        Raises UpstreamFailed in its words, or UpstreamBadContentType: it is no chat completion.
        """
        found = _read(body)
        if found is not None and found.get("error") is not None:
            raise UpstreamFailed(found["error"])
        said = b"" if found is None else self._choices(found)
        if self.finish is None and not self.begun:
            told = "The provider answered with JSON that is no chat completion."
            raise UpstreamBadContentType(told, answered=True)
        return said + self.close()

    def flaw(self) -> PenstockError | None:
        """Why an answer that ended cleanly here is not whole, or None."""
        if self._unreadable:
            return UpstreamTruncated("A part of the provider's answer could not be read.")
        if self.finish is None:
            return UpstreamTruncated("The provider's answer ended without a reason, so it may not be whole.")
        return None

    def _event(self, event: Event) -> bytes:
        data = event.data
        if not data or event.is_done or self.failed:
            return b""
        chunk = _read(data)
        if chunk is None:
            self._unreadable = True
            return b""
        if chunk.get("error") is not None:
            self.failed = True
            return error_event(chunk["error"])
        return self._choices(chunk)

    def _choices(self, chunk: Mapping[str, Any]) -> bytes:
        choices = chunk.get("choices")
        only = [one for one in choices if isinstance(one, dict)] if isinstance(choices, list) else []
        return b"".join([self._choice(one) for one in only if not one.get("index")])

    def _choice(self, choice: Mapping[str, Any]) -> bytes:
        delta = choice.get("delta")
        # Some providers end with the whole `message`, which the deltas have told already; others say nothing but that.
        if delta is None and not self.begun:
            delta = choice.get("message")
        finish = choice.get("finish_reason")
        if isinstance(finish, str) and finish:  # some say "" for null
            self.finish = finish
        return b"".join([self._say(*each) for each in _texts(delta)]) if isinstance(delta, dict) else b""

    def _say(self, channel: Channel, text: str) -> bytes:
        """An event of its text; half a character waits for the other half."""
        text = self._halves.pop(channel, "") + text
        if "\ud800" <= text[-1:] <= "\udbff":
            self._halves[channel] = text[-1]
            text = text[:-1]
        if not text:
            return b""
        self.begun = True
        try:
            return encode(_told({channel: text}))
        except UnicodeEncodeError:
            return encode(_told({channel: _joined(text)}))


def _told(value: object) -> bytes:
    """As JSON, in one line for whoever reads it."""
    data = _json.encode(value)
    if not data.isascii():
        for end, escape in _ESCAPES:
            data = data.replace(end, escape)
    return data


def _joined(text: str) -> str:
    """Halves of a character that stand beside each other as that character; one without the other as U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _read(data: bytes) -> dict[str, Any] | None:
    """A JSON object; also one that holds half a character, as of a pair that was cut between two events."""
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _texts(delta: Mapping[str, Any]) -> Iterator[tuple[Channel, str]]:
    """What a delta or a message says, in the order in which it is thought and said."""
    # Of the two names for it some providers use one, some the other, and some both for the same words.
    reasoning = delta.get("reasoning_content") or delta.get("reasoning")
    if isinstance(reasoning, str):
        yield "reasoning", reasoning
    content = delta.get("content")
    if isinstance(content, str):
        yield "content", content
    elif isinstance(content, list):
        yield from _of_parts(content)
    refusal = delta.get("refusal")
    if isinstance(refusal, str):
        yield "refusal", refusal


def _of_parts(parts: list[Any]) -> Iterator[tuple[Channel, str]]:
    """Content in parts, of which some may be thoughts, in parts again: https://docs.mistral.ai/capabilities/reasoning"""
    for part in parts:
        if not isinstance(part, dict):
            continue
        if isinstance(text := part.get("text"), str):
            yield "content", text
        thoughts = part.get("thinking")
        for thought in thoughts if isinstance(thoughts, list) else [{"text": thoughts}]:
            if isinstance(thought, dict) and isinstance(text := thought.get("text"), str):
                yield "reasoning", text
