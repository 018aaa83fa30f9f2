"""A request as Penstock understands it.

Rule: everything that a request may say is read here, once, and checked; later code asks a `Call`, never a header.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Literal

import msgspec

from proxy.core.access import NOBODY, Grant
from proxy.core.canonical import parse
from proxy.core.dialect import BY_PATH, Dialect
from proxy.core.likeness import as_chat
from proxy.errors import InvalidRequest

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])

Replay = Literal["instant", "recorded"]
Wish = Literal["cheapest", "exact"]
Headers = Mapping[bytes, bytes]

CREDENTIALS = (b"authorization", b"api-key")
ACCOUNT = (b"openai-organization", b"openai-project")
DIRECTIVES = (
    b"cache-control",
    b"x-penstock-ttl",
    b"x-penstock-sample",
    b"x-penstock-replay",
    b"x-penstock-route",
    b"x-penstock-max-cost-usd",
)
RETRY_COUNT = b"x-stainless-retry-count"  # an SDK that retries by itself says so with it
MOST_CHOICES = 1024
# By path, the members that bound an answer's tokens.
LIMITS: Mapping[str, tuple[str, ...]] = {
    "chat/completions": ("max_tokens", "max_completion_tokens"),
    "completions": ("max_tokens",),
    "responses": ("max_output_tokens",),
    "embeddings": (),
}
HEEDED = (*CREDENTIALS, *ACCOUNT, *DIRECTIVES, RETRY_COUNT)


class Directives(msgspec.Struct, frozen=True):
    """How a request wants to be answered: its `Cache-Control` and `x-penstock-*` headers. Times in seconds.

    `route`: forbid or allow another model than the one named, if anything was said. `max_cost` in USD.
    """

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age: float | None = None
    ttl: float | None = None
    sample: bytes = b""
    replay: Replay | None = None
    route: Wish | None = None
    max_cost: Decimal | None = None


class Call(msgspec.Struct, frozen=True):
    """One request to an endpoint that Penstock understands.

    `path` is relative to a provider's base URL, `query` as it came. `credentials` and `account` are the client's own
    and go to a provider that the client pays; `forwarded` are the headers that every provider sees. All three are
    lower-case pairs in a fixed order. `owner` is the id of the key of ours that was shown, "" where there is none.

    `likeness`: the body as that of a chat completion, by which it is counted and judged. `choices`: that it gets;
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
    model = _model(path, body)
    stream, wants_usage = _stream(path, body)
    for name in LIMITS[path]:
        _check_limit(name, body.get(name))
    choices, made = _choices(path, body)
    return Call(
        path=path,
        query=query,
        raw=raw,
        body=body,
        likeness=as_chat(path, body),
        model=model,
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
    return tuple((name, headers[name]) for name in names if name in headers)


def _model(path: str, body: Mapping[str, Any]) -> str:
    model = body.get("model")
    if model is None and path == "responses" and isinstance(body.get("prompt"), dict):
        return ""  # the template that the provider holds names one
    if not isinstance(model, str) or not model:
        raise InvalidRequest("`model` is required and must be a non-empty string.", param="model")
    return model


def _stream(path: str, body: Mapping[str, Any]) -> tuple[bool, bool]:
    """(is a stream asked for, with usage)."""
    if path == "embeddings":
        return False, True
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise InvalidRequest("`stream` must be true, false or null.", param="stream")
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise InvalidRequest("`stream_options` must be an object or null.", param="stream_options")
    if not BY_PATH[path].asks_usage:
        return bool(stream), True
    return bool(stream), bool(stream and options and options.get("include_usage") is True)


def _choices(path: str, body: Mapping[str, Any]) -> tuple[int, int]:
    """(choices that come, choices that are made)."""
    if path in ("responses", "embeddings"):
        return 1, 1
    # What a provider may read as another number than is read here would be charged more than is set aside.
    count = _count(body, "n")
    if path != "completions":
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


def _check_limit(name: str, value: object) -> None:
    """How long an answer may be. Below 1 is for the provider to refuse, or to take for no limit, as it counts here."""
    if value is not None and _whole(value) is None:
        raise InvalidRequest(f"`{name}` must be a whole number or null.", param=name)


def _whole(value: object) -> int | None:
    """The whole number that a value is: 2.0 is 2 in JSON, and has its key."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int else None


_NO_DIRECTIVES = Directives()


def read_directives(headers: Headers) -> Directives:
    """The directives of a request. Unknown Cache-Control directives are ignored (RFC 9111, 5.2.3)."""
    if not any(name in headers for name in DIRECTIVES):
        return _NO_DIRECTIVES
    said = _cache_control(headers.get(b"cache-control", b""))
    replay = _one_of(headers, "x-penstock-replay", ("instant", "recorded"))
    route = _one_of(headers, "x-penstock-route", ("cheapest", "exact"))
    return Directives(
        no_cache="no-cache" in said,
        no_store="no-store" in said,
        only_if_cached="only-if-cached" in said,
        # What cannot be read as an age is taken for stale (RFC 9111, 4.2.1).
        max_age=(_seconds(said["max-age"]) or 0.0) if "max-age" in said else None,
        ttl=_ttl(headers),
        sample=_sample(headers),
        replay="recorded" if replay == "recorded" else "instant" if replay else None,
        route="exact" if route == "exact" else "cheapest" if route else None,
        max_cost=_max_cost(headers),
    )


def _cache_control(value: bytes) -> dict[str, str]:
    said = {}
    for part in value.decode("latin-1").lower().split(","):
        name, _, argument = part.partition("=")
        said[name.strip()] = argument.strip().strip('"')
    return said


def _seconds(text: str) -> float | None:
    """Digits, with a fraction or without; not `nan`, `inf`, `1e9`, `1_000`, a sign or other scripts' digits."""
    whole, _, fraction = text.partition(".")
    digits = whole + fraction
    if not digits.isascii() or not digits.isdigit() or not whole:
        return None
    return float(text)


def _ttl(headers: Headers) -> float | None:
    value = headers.get(b"x-penstock-ttl")
    if value is None:
        return None
    ttl = _seconds(value.decode("latin-1").strip())
    if ttl is None:
        raise InvalidRequest("`x-penstock-ttl` must be a number of seconds, 0 or more.", param="x-penstock-ttl")
    return ttl


def _max_cost(headers: Headers) -> Decimal | None:
    value = headers.get(b"x-penstock-max-cost-usd")
    if value is None:
        return None
    text = value.decode("latin-1").strip()
    if _seconds(text) is None or len(text) > 30:  # the same digits, with a fraction or without
        raise InvalidRequest(
            "`x-penstock-max-cost-usd` must be a number of US dollars, 0 or more, such as 0.05.",
            param="x-penstock-max-cost-usd",
        )
    return Decimal(text)


def _sample(headers: Headers) -> bytes:
    value = headers.get(b"x-penstock-sample", b"").strip()
    if value and (not value.isdigit() or len(value) > 18):
        raise InvalidRequest("`x-penstock-sample` must be a whole number, 0 or more.", param="x-penstock-sample")
    return value.lstrip(b"0") or value[:1]


def _one_of(headers: Headers, name: str, allowed: tuple[str, ...]) -> str | None:
    value = headers.get(name.encode())
    if value is None:
        return None
    word = value.decode("latin-1").strip().lower()
    if word not in allowed:
        raise InvalidRequest(f"`{name}` must be one of: {', '.join(allowed)}.", param=name)
    return word
