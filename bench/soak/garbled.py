"""Streams that no provider should send: what is no event's own business reaches the client as it came, however it was
cut on its way, and nothing garbled is kept.
"""

import asyncio
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from bench.soak.answers import cache
from bench.soak.lab import STORED_ONLY, Lab, Proxy, chat, in_groups
from bench.soak.provider import DONE, Provider, Step, chunk, chunk_json, chunked_head, event, head, question_of
from bench.soak.wire import Call, answered

SPLITS = 500
CUTS = 24
AT_A_TIME = 20
PAUSE = 0.001  # seconds between two pieces, lest they arrive as one


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of a stream, and whether they reach the client: a BOM and what belongs to no event do not."""

    raw: bytes
    passes: bool = True


_MULTI = "data: {}\n".format(chunk_json("two lines", finish=None).replace(', "choices"', ',\ndata:  "choices"')) + "\n"
ODD = (
    Piece(b"\xef\xbb\xbf", passes=False),
    Piece(b": a comment of its own\n\n", passes=False),
    Piece(event("LF ")),
    Piece(event("CRLF ", new_line=b"\r\n")),
    Piece(event("CR ", new_line=b"\r")),
    Piece(b"\n\n", passes=False),
    Piece(event("naïve 日本語 \U0001f642 ")),
    Piece(b": before\n" + event("commented ")),
    Piece(_MULTI.encode()),
    Piece(b"event: message\r\nid: 7\r\nretry: 10\r\n" + event("named ", new_line=b"\r\n")),
    Piece(b"data:" + chunk_json("no space ").encode() + b"\n\n"),
    Piece(b"id: 9\n\n"),
)
END = (Piece(event(finish="stop")), Piece(DONE))
JUNK = (
    Piece(b"data: {not JSON\n\n"),
    Piece(b"data\n\n"),
    Piece(b"data: \n\n"),
    Piece(b"data: [1, 2\r\n\r\n"),
    Piece(b'data: {"choices": [{"index": 0, "delta": {"content": "\xff\xfe\xc3"}}]}\n\n'),
    Piece(b"junk without a colon\n\n"),
    Piece(b"data: " + b"[" * 2000 + b"\n\n"),
)


async def malformed(lab: Lab) -> str:
    """U6. The odd is whole and kept, the garbled is not."""
    lab.steps(2 * SPLITS + 4)
    words = []
    for name, pieces, kept in (("odd", (*ODD, *END), True), ("garbled", _mixed(ODD, JUNK, END), False)):
        body = b"".join(piece.raw for piece in pieces)
        expected = b"".join(piece.raw for piece in pieces if piece.passes)
        async with Provider(Cutter(body)) as provider:
            # Who asks for no usage leaves every byte as it came.
            with lab.proxy(settings='usage = "never"', upstream=provider.port) as proxy:
                trial = Trial(lab, proxy, name, expected, kept)
                await in_groups([trial.run(f"cut {number}") for number in range(SPLITS)], AT_A_TIME)
                await asyncio.gather(trial.run("bytes"), trial.run("whole"))
                await lab.all_quiet(proxy)
            words.append(f"{name}: {len(trial.seen)} bodies of {len(body):,} bytes in {trial.tried} splits")
            asked = len(provider.requests)
            lab.expect(asked == trial.tried, f"{name}: {asked} calls upstream, not {trial.tried}")
    return "; ".join(words)


def _mixed(odd: Sequence[Piece], junk: Sequence[Piece], end: Sequence[Piece]) -> tuple[Piece, ...]:
    """Junk behind the first event and between the others, once before the last, so that the stream must go on."""
    middle = [piece for pair in zip(odd[3:], [*junk, *junk], strict=False) for piece in pair]
    return (*odd[:3], *middle, *end)


class Cutter:
    """Sends one body, cut anew for each request: into chunks of HTTP, and those into packets."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._dice = random.Random(7)

    def __call__(self, request: bytes) -> Iterable[Step]:
        way = question_of(request)
        if way.startswith("whole"):
            return [head(b"content-length: %d" % len(self._body)) + self._body]
        if way.startswith("bytes"):
            return self._paced(chunk(bytes([byte])) for byte in self._body)
        framed = b"".join(map(chunk, self._cut(self._body)))
        return self._paced(self._cut(framed))

    def _cut(self, data: bytes) -> Iterator[bytes]:
        places = sorted(self._dice.randrange(1, len(data)) for _ in range(self._dice.randrange(1, CUTS)))
        for begin, end in zip([0, *places], [*places, len(data)], strict=True):
            if begin < end:
                yield data[begin:end]

    @staticmethod
    def _paced(pieces: Iterable[bytes]) -> Iterator[Step]:
        yield chunked_head()
        for piece in pieces:
            yield piece
            yield PAUSE
        yield chunk(b"")


class Trial:
    """One body and what must become of it in every split. `seen` are the bodies that clients got."""

    def __init__(self, lab: Lab, proxy: Proxy, name: str, expected: bytes, kept: bool) -> None:
        self._lab = lab
        self._proxy = proxy
        self._name = name
        self._expected = expected
        self._kept = kept
        self.tried = 0
        self.seen: set[bytes] = set()

    async def run(self, way: str) -> None:
        question = f"{way} {self._lab.question()}"
        self.tried += 1
        call = await answered(self._proxy.port, chat("m", question))
        said = bytes(call.body)
        self.seen.add(said)
        clean = call.status == 200 and call.whole
        self._lab.expect(
            clean, f"{self._name}, {way}: status {call.status}, {'clean' if call.whole else 'unclean'} end"
        )
        self._lab.expect(said == self._expected, f"{self._name}: {_difference(said, self._expected)}")
        await self._check_kept(await answered(self._proxy.port, chat("m", question, more=STORED_ONLY)))
        self._lab.step()

    async def _check_kept(self, stored: Call) -> None:
        if not self._kept:
            self._lab.expect(stored.status == 504, f"{self._name}: was stored")
            return
        hit = stored.status == 200 and cache(stored) == "hit"
        self._lab.expect(hit, f"{self._name}: was not stored")
        # Every reader but the first has an id of its own.
        said = re.sub(rb'"id": "chatcmpl-[^"]+"', b'"id": "chatcmpl-own"', stored.body)
        self._lab.expect(not hit or said == self._expected, f"{self._name}: a hit {_difference(said, self._expected)}")


def _difference(said: bytes, expected: bytes) -> str:
    pairs = enumerate(zip(said, expected, strict=False))
    at = next((at for at, (one, other) in pairs if one != other), min(len(said), len(expected)))
    return f"differs at byte {at}: {said[at : at + 30]!r}, not {expected[at : at + 30]!r}"
