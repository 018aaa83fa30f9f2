"""A request as Penstock understands it.

Rule: everything that a request may say is read once, and checked; later code asks a `Call`, never a header.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from proxy.core.access import NOBODY, Grant
from proxy.core.as_chat import as_chat
from proxy.core.canonical import parse
from proxy.core.dialect import BY_PATH, COMPLETIONS, EMBEDDINGS, RESPONSES, Dialect
from proxy.core.directives import DIRECTIVES, Directives, read_directives
from proxy.errors import InvalidRequest

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])

Headers = Mapping[bytes, bytes]

CREDENTIALS = (b"authorization", b"api-key")
ACCOUNT = (b"openai-organization", b"openai-project")
RETRY_COUNT = b"x-stainless-retry-count"  # an SDK that retries by itself says so with it
MOST_CHOICES = 1024
HEEDED = (*CREDENTIALS, *ACCOUNT, *DIRECTIVES, RETRY_COUNT)


class Call(msgspec.Struct, frozen=True):
    """One request to an endpoint that Penstock understands.

    `path` is relative to a provider's base URL, `query` as it came. `credentials` and `account` are the client's own
    and go to a provider that the client pays; `forwarded` are the headers that every provider sees. All three are
    lower-case pairs in a fixed order. `owner` is the id of the key of ours that was shown, "" where there is none.

    `likeness`: the body as that of a chat completion, by which it is counted and ranked. `choices`: that it gets;
    `made`: that are made for it, and paid. `wants_usage`: the answer must say its usage, or does so in any case.
    """

    path: str
    query: bytes
    raw: bytes
    body: dict[str, Any]
    likeness: Mapping[str, Any]
    model: str
    stream: bool
    wants_usage: bool
    choices: int
    made: int
    directives: Directives
    credentials: tuple[tuple[bytes, bytes], ...]
    account: tuple[tuple[bytes, bytes], ...]
    owner: str
    forwarded: tuple[tuple[bytes, bytes], ...]
    retries_itself: bool

    @property
    def dialect(self) -> Dialect:
        return BY_PATH[self.path]


def header_map(pairs: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Lower-case names to values; a header that came twice is joined by a comma (RFC 9110, 5.3)."""
    pairs = list(pairs)
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    all_of: dict[bytes, list[bytes]] = {}
    for name, value in pairs:
        all_of.setdefault(name, []).append(value)
    return {name: b", ".join(values) for name, values in all_of.items()}


def read_call(
    path: str,
    raw: bytes,
    headers: Headers,
    *,
    grant: Grant = NOBODY,
    query: bytes = b"",
    deployment: str | None = None,
    forward: Iterable[bytes] = (),
) -> Call:
    """The call that these bytes and headers make, or InvalidRequest. Of the headers only HEEDED and `forward` count.

    `deployment`: the model that an address in Azure's style names; what the body says of it does not count there.
    """
    body = parse(raw)
    if deployment is not None and body.get("model") != deployment:
        body["model"] = deployment
        raw = with_members(raw, {"model": deployment})
    dialect = BY_PATH[path]
    stream, wants_usage = _stream(dialect, body)
    _check_limits(dialect, body)
    choices, made = _choices(dialect, body)
    return Call(
        path=path,
        query=query,
        raw=raw,
        body=body,
        likeness=as_chat(path, body),
        model=_model(dialect, body),
        stream=stream,
        wants_usage=wants_usage,
        choices=choices,
        made=made,
        directives=read_directives(headers),
        credentials=chosen(headers, CREDENTIALS),
        account=chosen(headers, ACCOUNT),
        owner=grant.id,
        forwarded=chosen(headers, forward),
        retries_itself=RETRY_COUNT in headers,
    )


def announces_body(headers: Headers) -> bool:
    """Does a request with these headers have a body, of whatever length?"""
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0").strip(b"0") != b""


def with_members(raw: bytes, changed: Mapping[str, Any]) -> bytes:
    """A JSON object with these members; every other value stays to the byte."""
    members = _members.decode(raw)
    members |= {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in changed.items()}
    return msgspec.json.encode(members)


def chosen(headers: Headers, names: Iterable[bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """Of these headers those with these names, in this order."""
    found: tuple[tuple[bytes, bytes], ...] = ()
    for name in names:  # a loop, no generator: every request comes by
        if name in headers:
            found += ((name, headers[name]),)
    return found


def _model(dialect: Dialect, body: Mapping[str, Any]) -> str:
    model = body.get("model")
    if model is None and dialect is RESPONSES and isinstance(body.get("prompt"), dict):
        return ""  # the template that the provider holds names one
    if not isinstance(model, str) or not model:
        raise InvalidRequest("`model` is required and must be a non-empty string.", param="model")
    return model


def _stream(dialect: Dialect, body: Mapping[str, Any]) -> tuple[bool, bool]:
    """(is a stream asked for, with usage)."""
    if dialect is EMBEDDINGS:
        return False, True
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise InvalidRequest("`stream` must be true, false or null.", param="stream")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise InvalidRequest("`stream_options` must be an object or null.", param="stream_options")
    if not dialect.asks_usage:
        return bool(stream), True
    return bool(stream), bool(stream and options and options.get("include_usage") is True)


def _choices(dialect: Dialect, body: Mapping[str, Any]) -> tuple[int, int]:
    """(choices that come, choices that are made)."""
    if not dialect.several:
        return 1, 1
    # What a provider may read as another number than is read here would be charged more than is set aside.
    count = _count(body, "n")
    if dialect is not COMPLETIONS:
        return count, count
    prompt = body.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and prompt and type(prompt[0]) is not int else 1
    return prompts * count, prompts * max(count, _count(body, "best_of"))


def _count(body: Mapping[str, Any], name: str) -> int:
    if body.get(name) is None:
        return 1
    count = _whole(body[name])
    if count is None or not 1 <= count <= MOST_CHOICES:
        raise InvalidRequest(f"`{name}` must be a whole number from 1 to {MOST_CHOICES:,}, or null.", param=name)
    return count


def _check_limits(dialect: Dialect, body: Mapping[str, Any]) -> None:
    """How long an answer may be. Below 1 is for the provider to refuse, or to take for no limit, as it counts here."""
    for name in dialect.limits:
        if body.get(name) is not None and _whole(body[name]) is None:
            raise InvalidRequest(f"`{name}` must be a whole number or null.", param=name)


def _whole(value: object) -> int | None:
    """The whole number that a value is: 2.0 is 2 in JSON, and has its key."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int else None
