"""Bodies that are almost good: each is refused as OpenAI would, or goes on to the provider as it is."""

import asyncio
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from bench.load import http_post
from bench.soak.answers import cache, error_of
from bench.soak.lab import PATH, RETRIES_ITSELF, Lab, Proxy
from bench.soak.wire import EndedError, Kept, kept

BODIES = 100_000
CONNECTIONS = 32
MAX_DEPTH = 128
MAX_DIGITS = 4300  # the sign included

GOOD: dict[str, Any] = {
    "model": "sim-instant",
    "messages": [
        {"role": "system", "content": "Be brief. \u00e9\u4e16\U0001f642"},
        {"role": "user", "content": [{"type": "text", "text": 'What is \\ and " and \u2028 in JSON?'}]},
    ],
    "temperature": 0.5,
    "max_tokens": 8,
    "seed": 12345,
    "stop": ["\n", "END"],
    "logit_bias": {"50256": -100},
    "metadata": {"of": "the soak", "n": None, "deep": [[1, 2.5e3], {"a": True}]},
    "stream": False,
}

Mutation = Callable[[bytearray, random.Random], None]


def _put(body: bytearray, dice: random.Random, what: bytes) -> None:
    """In the place of a value: behind some colon."""
    colons = [at for at, byte in enumerate(body) if byte == ord(":")]
    at = dice.choice(colons) + 1 if colons else 0
    end = at
    while end < len(body) and body[end] not in b",}]":
        end += 1
    body[at:end] = what


def _constant(body: bytearray, dice: random.Random) -> None:
    _put(
        body, dice, dice.choice((b"NaN", b"Infinity", b"-Infinity", b"nan", b"undefined", b"None", b"+1", b"01", b".5"))
    )


def _duplicate(body: bytearray, dice: random.Random) -> None:
    name = dice.choice((b'"model"', b'"messages"', b'"temperature"', b'"\\u006dodel"', b'"seed"', b'"new"'))
    at = dice.choice([at for at, byte in enumerate(body) if byte == ord("{")] or [0]) + 1
    body[at:at] = name + b":1," * dice.randrange(1, 3)


def _depth(body: bytearray, dice: random.Random) -> None:
    levels = dice.choice((MAX_DEPTH - 3, MAX_DEPTH + 5, 1000, 20_000))
    opening, closing = dice.choice(((b"[", b"]"), (b'{"a":', b"}")))
    _put(body, dice, opening * levels + b"1" + closing * dice.choice((levels, levels, levels - 1)))


def _huge(body: bytearray, dice: random.Random) -> None:
    digits = dice.choice((20, 400, MAX_DIGITS, MAX_DIGITS + 2, 50_000))
    number = dice.choice(
        (b"9" * digits, b"-" + b"8" * digits, b"1e%d" % digits, b"1e-%d" % digits, b"0." + b"1" * digits)
    )
    _put(body, dice, number)


def _surrogate(body: bytearray, dice: random.Random) -> None:
    _put(body, dice, dice.choice((b'"\\ud800"', b'"\\udc00x"', b'"\\udc00\\ud800"', b'"\\ud83d\\ude42"', b'"\\uD8"')))


def _bad_utf8(body: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(body))
    body[at:at] = dice.choice((b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80", b"\xe4\xb8", b"\0"))


def _mark(body: bytearray, dice: random.Random) -> None:
    body[:0] = dice.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb"))


def _other_encoding(body: bytearray, dice: random.Random) -> None:
    body[:] = body.decode(errors="replace").encode(dice.choice(("utf-16", "utf-16-le", "utf-32", "utf-7")))


def _flip(body: bytearray, dice: random.Random) -> None:
    for _ in range(dice.randrange(1, 4)):
        body[dice.randrange(len(body))] ^= 1 << dice.randrange(8)


def _drop(body: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(body))
    del body[at : at + dice.randrange(1, 6)]


def _repeat(body: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(body))
    body[at:at] = body[at : at + dice.randrange(1, 30)]


def _end(body: bytearray, dice: random.Random) -> None:
    del body[dice.randrange(len(body)) :]


def _more(body: bytearray, dice: random.Random) -> None:
    body += dice.choice((b"{}", b",", b"]", b"\0", b"//", bytes(body), b" \n\t", b"\x0b"))


def _other_value(body: bytearray, dice: random.Random) -> None:
    _put(body, dice, dice.choice((b"null", b"true", b"[]", b"{}", b'""', b"-1", b"1.0", b"1e5", b'"sim-small"')))


def _another_body(body: bytearray, dice: random.Random) -> None:
    body[:] = dice.choice(
        (b"", b" ", b"null", b"[]", b"1", b'"text"', b"{", b"{}", b"true", b"[{}]", b'{"a"}', b"{'a':1}")
    )


MUTATIONS: tuple[Mutation, ...] = (
    *(_constant, _duplicate, _depth, _huge, _surrogate, _bad_utf8, _mark, _other_encoding),
    *(_flip, _drop, _repeat, _end, _more, _other_value, _another_body),
)


def mutant(number: int) -> bytes:
    """The body of this number; the same in every run."""
    dice = random.Random(number)
    ascii_only = dice.random() < 0.5
    text = json.dumps({**GOOD, "seed": number}, ensure_ascii=ascii_only, indent=dice.choice((None, None, 1)))
    body = bytearray(text.encode())
    for _ in range(1 + (dice.random() < 0.2)):
        if body:
            dice.choice(MUTATIONS)(body, dice)
    return bytes(body)


class RefusedError(Exception):
    """Two parsers may read this body in two ways, or none reads it."""


def is_strict(body: bytes) -> bool:
    """Is this one JSON object that nobody can read in two ways? By the standard library, not as Penstock finds out."""
    try:
        if body.startswith(b"\xef\xbb\xbf"):
            return False
        found = json.loads(
            body.decode(),
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_short,
        )
        return isinstance(found, dict) and _depth_of(found) <= MAX_DEPTH and _has_no_surrogates(found)
    except (ValueError, RefusedError, RecursionError):
        return False


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise RefusedError
    return found


def _no_constant(_: str) -> None:
    raise RefusedError


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise RefusedError
    return number


def _short(text: str) -> int | float:
    if len(text) > MAX_DIGITS:
        raise RefusedError
    return int(text)


def _depth_of(value: Any) -> int:
    level, depth = [value], 0
    while level:
        depth += 1
        level = [child for parent in level for child in _children(parent) if isinstance(child, dict | list)]
    return depth


def _children(parent: Any) -> list[Any]:
    return list(parent.values()) if isinstance(parent, dict) else parent


def _has_no_surrogates(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


class Tally:
    """What became of the bodies, by kind; `asked`: so many calls upstream must have been made.

    `wrong` names what should not have been, with the numbers of the bodies: `mutant` makes them again.
    """

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.asked = 0
        self.wrong: dict[str, list[int]] = {}

    def expect(self, held: bool, number: int, otherwise: str) -> None:
        if not held:
            self.wrong.setdefault(otherwise, []).append(number)


async def mutated(lab: Lab) -> str:
    """C6."""
    lab.steps(BODIES // 100)
    tally = Tally()
    with lab.proxy(settings='usage = "never"') as proxy:
        before = await lab.asked()
        numbers = iter(range(BODIES))
        await asyncio.gather(*(_worker(lab, proxy, numbers, tally) for _ in range(CONNECTIONS)))
        made = await lab.asked() - before
        await lab.all_quiet(proxy)
    for words, bodies in tally.wrong.items():
        lab.expect(held=False, otherwise=f"{words}; {len(bodies)} bodies, {bodies[0]} for one")
    lab.expect(made == tally.asked, f"{made} calls upstream for {tally.asked} that were let through")
    lab.expect(sum(tally.seen.values()) == BODIES, f"only {sum(tally.seen.values()):,} were answered")
    counts = ", ".join(f"{count:,} {name}" for name, count in tally.seen.most_common())
    return f"{counts}; {made:,} calls upstream"


async def _worker(lab: Lab, proxy: Proxy, numbers: Iterator[int], tally: Tally) -> None:
    connection = await kept(proxy.port)
    for number in numbers:
        body = mutant(number)
        try:
            await connection.ask(http_post(PATH, body, more=RETRIES_ITSELF))
        except (EndedError, TimeoutError) as error:
            tally.expect(held=False, number=number, otherwise=repr(error))
            connection.leave()
        else:
            _judge(number, is_strict(body), connection, tally)
        if connection.ended or connection.over.done():
            connection = await kept(proxy.port)
        if number % 100 == 0:
            lab.step()
    connection.leave()


def _judge(number: int, strict: bool, call: Kept, tally: Tally) -> None:
    """What came of one body: refused by Penstock, or answered by the provider or out of the cache."""
    error = error_of(call)
    if "cache-status" not in call.headers:
        tally.seen["refused"] += 1
        shaped = call.status == 400 and error is not None and error["type"] == "invalid_request_error"
        tally.expect(shaped, number, f"status {call.status}, {bytes(call.body)[:80]!r}")
        return
    tally.expect(strict, number, "let through")
    tally.expect(call.status < 500, number, f"the provider said {call.status}: {bytes(call.body)[:80]!r}")
    tally.seen[f"let through: {call.status}"] += 1
    tally.asked += cache(call) not in ("hit", "collapsed")
