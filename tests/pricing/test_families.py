"""Kinds of text, and what other tokenizers make of them."""

import json

import pytest

from bench.encodings import TEXTS
from pricing.families import FAMILIES, Kind, about, encoding_of, kind_of
from pricing.tokens import read_prompt, text_tokens
from tests.pricing.support import added, cl100k, o200k, read, user


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", Kind.PROSE),
        (TEXTS["prose"], Kind.PROSE),
        ("Съешь же ещё этих мягких французских булок, да выпей чаю. " * 9, Kind.PROSE),
        (TEXTS["code"], Kind.CODE),
        ("for (let i = 0; i < n; i++) { total += rows[i].tokens; }\n" * 90, Kind.CODE),
        (TEXTS["JSON"], Kind.JSON),
        (json.dumps([{"id": n, "name": f"row {n}"} for n in range(500)], indent=2), Kind.JSON),
        (TEXTS["Chinese"], Kind.CHINESE),
        (TEXTS["Chinese"] * 500 + TEXTS["prose"], Kind.CHINESE),
        ("吾輩は猫である。名前はまだ無い。", Kind.CHINESE),
        (TEXTS["Chinese"] + TEXTS["prose"], Kind.CHINESE),
        (TEXTS["Chinese"][:15] + TEXTS["prose"], Kind.PROSE),
    ],
)
def test_kinds_of_text_are_told_apart(text: str, kind: Kind) -> None:
    assert kind_of(text) is kind


@pytest.mark.parametrize(
    ("family", "kind", "factor"),
    [
        ("llama3", "Chinese", 0.95),
        ("deepseek", "Chinese", 0.70),
        ("mistral", "JSON", 1.31),
        ("gemini", "code", 1.20),
        ("claude", "Chinese", 1.41),
        ("claude-4.7", "prose", 1.46),
        ("qwen", "JSON", 1.0),
    ],
)
def test_another_tokenizer_counts_by_its_factor_for_the_kind(family: str, kind: str, factor: float) -> None:
    text = TEXTS[kind] * 20
    count = read(user(text)).under(family)
    assert count.text == round(o200k(text) * factor + 3 + 1 + 3)
    assert not count.exact


def test_an_answers_text_is_counted_for_a_family_alike() -> None:
    code = TEXTS["code"] * 20
    assert text_tokens(code, o200k, "claude") == round(o200k(code) * 1.25)
    assert text_tokens(TEXTS["Chinese"], cl100k, "cl100k") == cl100k(TEXTS["Chinese"])


def test_a_text_of_several_kinds_takes_the_factor_of_each() -> None:
    parts = [{"type": "text", "text": TEXTS[kind] * 50} for kind in ("prose", "Chinese")]
    expected = o200k(parts[0]["text"]) * 1.46 + o200k(parts[1]["text"]) * 1.40
    assert added(user(parts), "claude-4.7").text == pytest.approx(expected, abs=1)


def test_whichever_encoding_a_body_was_read_with_a_family_has_the_same_tokens() -> None:
    body = user(TEXTS["prose"] * 50)
    by_own = read_prompt(body, cl100k, "cl100k_base")
    for family in FAMILIES:
        assert by_own.under(family).text == pytest.approx(read(body).under(family).text, rel=0.01)
    assert by_own.under("cl100k").exact
    assert not by_own.under("o200k").exact


def test_a_body_is_read_with_its_familys_own_encoding() -> None:
    assert [encoding_of(family) for family in ("cl100k", "o200k", "claude", None)] == [
        "cl100k_base",
        "o200k_base",
        "o200k_base",
        "o200k_base",
    ]


def test_gpt_oss_is_counted_with_o200k_and_never_exactly() -> None:
    prompt = read(user(TEXTS["code"] * 20))
    sure, estimate = prompt.under("o200k"), prompt.under("o200k_harmony")
    assert (sure.exact, estimate.exact) == (True, False)
    assert estimate.text == sure.text


def test_a_guess_without_an_encoding_is_near_enough() -> None:
    prose = "The proxy keeps what was asked before, so that nobody pays twice for the same answer. " * 40
    code = "def total(values: list[int]) -> int:\n    return sum(value for value in values if value > 0)\n" * 40
    for text, tokens in ((prose, 721), (code, 960)):
        assert about(text) == pytest.approx(tokens, rel=0.2)
    assert about("") == 0
