"""The ranks, what is built of them, and counts of texts that others published."""

import base64
import hashlib
import io
import lzma
import os
import subprocess
import sys
import tarfile
import threading
from importlib import resources
from pathlib import Path

import pytest
import tiktoken_ext.openai_public  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from tiktoken import Encoding

from bench.encodings import DIGESTS, MEMBER, TEXTS, build, packed, published
from pricing import encodings as module
from pricing.encodings import NAMES, PIECE, Encodings, Name, pieces, roughly, tokens
from tests.pricing.support import SHARED, Count1, cl100k, o200k

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", NAMES)
def test_the_packaged_ranks_rebuild_the_published_file(name: Name) -> None:
    assert hashlib.sha256(published(tokens(name))).hexdigest() == DIGESTS[name]


def test_packing_keeps_every_token_and_refuses_what_it_would_lose() -> None:
    text = published([b"a", b"b" * 255, b"\x00"])
    assert lzma.decompress(packed(text)) == b"\x01a" + b"\xff" + b"b" * 255 + b"\x01\x00"
    for bad in (b"YQ== 1\n", published([b"c" * 256]), published([b""])):
        with pytest.raises(ValueError, match="line 1"):
            packed(bad)


def test_ranks_that_are_not_openais_are_not_packaged(tmp_path: Path) -> None:
    archive = tmp_path / "a.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in NAMES:
            text = published([b"another"])
            member = tarfile.TarInfo(MEMBER.format(name))
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    with pytest.raises(ValueError, match="not what OpenAI publishes"):
        build(archive, tmp_path)
    assert list(tmp_path.glob("*.xz")) == []


@pytest.mark.parametrize("name", NAMES)
def test_an_encoding_is_tiktokens_own(name: Name, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ranks(url: str, expected_hash: str) -> dict[bytes, int]:
        asked.append(expected_hash)
        return {b"\x00": 0}

    monkeypatch.setattr(tiktoken_ext.openai_public, "load_tiktoken_bpe", ranks)
    own = tiktoken_ext.openai_public.ENCODING_CONSTRUCTORS[name]()
    ours = SHARED.get(name)
    assert (ours.name, ours._pat_str, ours._special_tokens) == (own["name"], own["pat_str"], own["special_tokens"])
    assert asked == [DIGESTS[name]]


OFFLINE = """
import socket, sys, threading

def refuse(*_, **__):
    raise AssertionError("the network was asked")

socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from pricing.encodings import NAMES, Encodings
from pricing.tokens import read_prompt

encodings = Encodings(threading.Lock())
print([encodings.count("hello world", name) for name in NAMES])
print(sorted({"tiktoken.load", "tiktoken_ext.openai_public", "requests", "blobfile"} & sys.modules.keys()))
"""


def test_no_network_is_asked_and_no_cache_of_tiktoken_is_read() -> None:
    kept = {
        name: value for name, value in os.environ.items() if name not in {"TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR"}
    }
    run = [sys.executable, "-W", "error", "-c", OFFLINE]
    done = subprocess.run(run, env=kept, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines() == ["[2, 2]", "[]"]


class Door:
    """A lock that tells how many have come to it."""

    def __init__(self) -> None:
        self.come = threading.Semaphore(0)
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self.come.release()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_threads_that_ask_while_an_encoding_loads_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[Name] = []
    door, crowd = Door(), 8

    def load(name: Name) -> Encoding:
        loads.append(name)
        assert all(door.come.acquire(timeout=10) for _ in range(crowd))
        return SHARED.get(name)

    monkeypatch.setattr(module, "load", load)
    encodings, seen = Encodings(door), list[Encoding]()
    threads = [threading.Thread(target=lambda: seen.append(encodings.get("cl100k_base"))) for _ in range(crowd)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loads == ["cl100k_base"]
    assert seen == [SHARED.get("cl100k_base")] * crowd


def test_the_packaged_files_are_where_the_package_looks_for_them() -> None:
    there = {each.name for each in resources.files(module).iterdir() if each.name.endswith(".xz")}
    assert there == {f"{name}.xz" for name in NAMES}


# Texts.


# https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken
@pytest.mark.parametrize(
    ("text", "by_cl100k", "by_o200k"),
    [
        ("tiktoken is great!", 6, 6),
        ("antidisestablishmentarianism", 6, 6),
        ("2 + 2 = 4", 7, 7),
        ("お誕生日おめでとう", 9, 8),
        ("", 0, 0),
    ],
)
def test_texts_have_the_tokens_that_openai_says(text: str, by_cl100k: int, by_o200k: int) -> None:
    assert (cl100k(text), o200k(text)) == (by_cl100k, by_o200k)


@pytest.mark.parametrize("count", [o200k, cl100k])
def test_what_reads_as_a_special_token_is_counted_as_text(count: Count1) -> None:
    for text in ("<|endoftext|>", "<|endofprompt|>", "<|fim_prefix|>", "<|im_start|>"):
        assert count(text) > 3


def test_surrogates_are_counted_and_never_raise() -> None:
    assert o200k("a\ud83d\ude00b") == o200k("a\U0001f600b")
    assert o200k("a\ud83db") == o200k("a\ufffdb")
    assert roughly("\ud83d") > 0


@pytest.mark.parametrize(("character", "expected"), [("a", 125_000), ("^", 125_000), (" ", 7_850), ("\n", 62_500)])
def test_a_million_times_one_character_is_counted(character: str, expected: int) -> None:
    assert o200k(character * 1_000_000) == expected


@pytest.mark.parametrize(
    "pattern", ["a", " ", "a" * 19_999 + " ", " " * 19_999 + "a", "a" + " " * 19_999, "ab ", "\n "]
)
def test_pieces_are_as_few_as_can_be_and_none_is_too_long(pattern: str) -> None:
    text = pattern * (1_000_000 // len(pattern))
    cut = list(pieces(text))
    assert "".join(cut) == text
    assert all(0 < len(piece) <= PIECE for piece in cut)
    assert len(cut) <= 2 * len(text) / PIECE + 1


WORDS = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=8)
GAPS = st.sampled_from(
    [" ", " ", "  ", " " * 7, "\n    "]
)  # a space in every window: else a piece is cut where it is full


@settings(deadline=None)  # the first example may load an encoding
@given(st.lists(st.tuples(WORDS, GAPS), max_size=40), st.integers(16, 40), st.sampled_from([o200k, cl100k]))
def test_the_pieces_of_a_text_have_the_tokens_of_the_whole(
    words: list[tuple[str, str]], size: int, count: Count1
) -> None:
    text = "".join(word + gap for word, gap in words).rstrip()
    assert sum(map(count, pieces(text, size))) == count(text)


@given(st.lists(st.sampled_from(["a", "word", " ", " " * 9, " " * 33])).map("".join), st.integers(1, 60))
def test_a_run_of_spaces_stays_with_the_word_behind_it(text: str, size: int) -> None:
    *cut, _ = pieces(text, size)
    assert all(piece.isspace() or not piece.endswith(" ") for piece in cut)


@pytest.mark.parametrize("what", [what for what in TEXTS if what != "lone surrogates"])
def test_a_rough_count_is_above_the_count(what: str) -> None:
    text = TEXTS[what] * 200
    assert o200k(text) <= roughly(text) <= len(text.encode())


def test_a_rough_count_is_above_the_count_of_what_has_no_words() -> None:
    noise = hashlib.shake_256(b"noise").digest(6_000)
    for text in (base64.b64encode(noise).decode(), noise.hex(), " ".join(str(byte / 7) for byte in noise[:500])):
        assert o200k(text) <= roughly(text) <= 2.5 * o200k(text)


def test_a_rough_count_is_above_the_count_of_every_file_of_this_project_and_not_by_far() -> None:
    for path in [*ROOT.glob("*.md"), *ROOT.glob("p*/**/*.py")]:
        text = path.read_text("utf-8")[:20_000]
        assert o200k(text) <= roughly(text) <= 3 * o200k(text) + 10, path
