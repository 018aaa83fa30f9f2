"""What the log says of a request, and of everything else: a line of JSON for machines, a line of text for people.

Rule: nothing that anybody said can end a line, or reach a terminal as anything but a character that can be seen. No
prompts, no answers, no secrets. What is not known is left out, never 0; money is exact in JSON, rounded for people.
"""

import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from functools import lru_cache

import msgspec

from proxy.core.bill import dollars
from proxy.core.books import Answered

SHOWN = 40  # characters of a name that people are shown

_encoder = msgspec.json.Encoder()


class _Passed(msgspec.Struct, frozen=True):
    model: str
    reason: str


class _Attempt(msgspec.Struct, frozen=True):
    model: str
    result: str


class _Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request as JSON has it. `time`: when it was over. `first`, `total`: since it came; seconds, as all are.
    `attempts`: of whoever was not simply answered by the first one asked.
    """

    time: str
    level: str
    message: str
    request: str
    key: str | None = None
    endpoint: str | None = None
    asked: str | None = None
    provider: str | None = None
    model: str | None = None
    outcome: str | None = None
    status: int | None = None
    code: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cost_usd: str | None = None
    saved_usd: str | None = None
    first_token: float | None = None
    first: float | None = None
    total: float | None = None
    overhead: float | None = None
    leader: str | None = None
    route: str | None = None
    why: str | None = None
    passed_over: list[_Passed] | None = None
    attempts: list[_Attempt] | None = None
    shadow: str | None = None


class _Note(msgspec.Struct, frozen=True, omit_defaults=True):
    time: str
    level: str
    logger: str
    message: str
    exception: str | None = None


def level_of(row: Answered) -> str:
    """`warning` of what failed: it broke off, or its status says that it is not the client's doing."""
    return "warning" if row.outcome == "broken" or row.status >= 500 else "info"


def json_lines(rows: Iterable[Answered]) -> bytes:
    """A line each, every one with its end."""
    return _encoded([_request(row) for row in rows])


def json_note(at: float, level: str, logger: str, message: str, exception: str | None = None) -> bytes:
    """The line of something else than a request. `at`: seconds since the epoch."""
    return _encoded([_Note(_time(at), level, logger, message, exception or None)])


def text_lines(rows: Iterable[Answered], zone: tzinfo = UTC) -> bytes:
    """A line each for people, whose clocks are in `zone`."""
    return "".join([_text(row, zone) for row in rows]).encode()


def text_note(
    at: float, level: str, logger: str, message: str, exception: str | None = None, zone: tzinfo = UTC
) -> bytes:
    """The same for people. An exception follows, further in: no line of it looks like one of ours."""
    when = datetime.fromtimestamp(at, zone).strftime("%Y-%m-%d %H:%M:%S")
    lines = [f"{when},{int(at % 1 * 1000):03} {level.upper()} {logger}: {_seen(message)}"]
    lines += ["    " + _seen(line) for line in (exception or "").split("\n") if line]
    return ("\n".join(lines) + "\n").encode()


def _seen(text: str) -> str:
    """Text in which what cannot be seen, line ends too, is escaped."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _request(row: Answered) -> _Request:
    """By position: named, the members would take as long as half of all that is done here."""
    usage, cost, saved = row.usage, row.cost, row.spared
    tokens = (None, None, None) if usage is None else (usage.input, usage.output, usage.cached)
    return _Request(
        _time(row.at + row.total),
        level_of(row),
        "request",
        row.request,
        row.key or None,
        row.endpoint or None,
        row.asked or None,
        row.provider or None,
        row.model or None,
        row.outcome,
        row.status,
        row.code or None,
        tokens[0],
        tokens[1],
        tokens[2],
        None if cost is None else dollars(cost).decode(),
        None if saved is None else dollars(saved).decode(),
        _seconds(row.token),
        _seconds(row.first),
        _seconds(row.total),
        _seconds(row.overhead),
        row.leader or None,
        row.route or None,
        row.why or None,
        [_Passed(*each) for each in row.passed_over] if row.passed_over else None,
        [_Attempt(*each) for each in row.attempts] if _had_trouble(row) else None,
        row.shadow,
    )


def _had_trouble(row: Answered) -> bool:
    return len(row.attempts) > 1 or (row.attempts != () and row.attempts[0][1] != "ok")


def _encoded(lines: Sequence[_Request | _Note]) -> bytes:
    """All at once, as long as that is safe: what JSON does not escape may still be no character that can be seen."""
    try:
        whole: bytes = _encoder.encode_lines(lines)
    except UnicodeEncodeError:  # half a character: JSON may name it, UTF-8 has none
        whole = b"\x7f"
    return whole if whole.isascii() and b"\x7f" not in whole else b"".join(map(_careful, lines))


def _careful(line: _Request | _Note) -> bytes:
    with suppress(UnicodeEncodeError):
        encoded: bytes = _encoder.encode(line)
        if encoded.decode().isprintable():
            return encoded + b"\n"
    return json.dumps(msgspec.to_builtins(line), separators=(",", ":")).encode() + b"\n"


def _time(at: float) -> str:
    """RFC 3339, UTC, with milliseconds."""
    return f"{_second(int(at))}.{int(at % 1 * 1000):03}Z"


@lru_cache(maxsize=8)  # thousands of lines have one second
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _seconds(seconds: float | None) -> float | None:
    """To the microsecond."""
    return None if seconds is None else int(seconds * 1e6 + 0.5) / 1e6  # a third of what `round` takes


def _text(row: Answered, zone: tzinfo) -> str:
    when = datetime.fromtimestamp(row.at + row.total, zone).strftime("%H:%M:%S")
    who = _name(row.model or row.asked)
    if row.asked and row.model and row.asked != row.model:
        who = f"{_name(row.asked)} → {who}"
    columns = f"{when} {row.outcome:<9} {row.status:3} {row.endpoint:<6} {who:<28} {_duration(row.total):>8}"
    return "  ".join((columns, *_remarks(row))) + "\n"


def _remarks(row: Answered) -> Iterable[str]:
    """What there is to say besides, each where it is known."""
    if row.code:
        yield _name(row.code)
    if len(row.attempts) > 1:
        yield "after " + ", ".join(f"{_name(model)} {result}" for model, result in row.attempts[:-1])
    if row.spared:
        yield f"saved {_usd(row.spared)}"
    if row.cost:
        yield f"cost {_usd(row.cost)}"
    if row.shadow:
        yield f"would be {row.shadow}"
    if row.key:
        yield _name(row.key)
    yield row.request


def _name(name: str) -> str:
    """Quoted, where it might be taken for more than a name."""
    short = name if len(name) <= SHOWN else name[: SHOWN - 1] + "…"
    return short if short.isprintable() and " " not in short else ascii(short)


def _duration(seconds: float) -> str:
    if seconds < 0.9995:
        return f"{seconds * 1000:.{1 if seconds < 0.00995 else 0}f} ms"
    return f"{seconds:.{2 if seconds < 9.995 else 1}f} s"


def _usd(usd: Decimal) -> str:
    """To the cent, or two digits of what is less."""
    return f"${usd:.{max(2, 1 - usd.adjusted())}f}"
