"""Images by their makers' published examples; sound and files by what they say of themselves."""

import base64
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.media import A_FILE, AN_ANSWERS_SECONDS, IMAGES, LARGEST, UNSEEN, Image, image_of, image_rule, image_size
from pricing.tokens import Count
from tests.pricing.support import Json, added, read, user


def image_part(url: str, **members: str) -> Json:
    return user([{"type": "image_url", "image_url": {"url": url, **members}}])


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
EXIF = b"\xff\xe1" + struct.pack(">H", 40_000) + b"\xff\xc0" * 19_999  # a thumbnail's own frame is in there
HEADERS = {
    "png": PNG + struct.pack(">II", 640, 480),
    "gif": b"GIF89a" + struct.pack("<HH", 640, 480),
    "jpeg": b"\xff\xd8" + EXIF + b"\xff\xc4\0\x09" + b"\1" * 7 + b"\xff\xc2\0\x11\x08" + struct.pack(">HH", 480, 640),
    "lossy": b"RIFF....WEBPVP8 ....\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 640, 480 | 1 << 14),
    "lossless": b"RIFF....WEBPVP8L....\x2f" + struct.pack("<I", 639 | 479 << 14 | 1 << 28),
    "extended": b"RIFF....WEBPVP8X....\0\0\0\0" + (639).to_bytes(3, "little") + (479).to_bytes(3, "little"),
}


def data_url(data: bytes, media: str = "image/png") -> str:
    return f"data:{media};base64,{base64.b64encode(data).decode()}"


@pytest.mark.parametrize("form", HEADERS)
def test_pixels_are_read_from_an_images_first_bytes(form: str) -> None:
    assert image_size(HEADERS[form]) == (640, 480)
    assert image_of({"url": data_url(HEADERS[form] + b"\0" * 1000)}) == Image(640, 480)
    head = HEADERS[form].replace(EXIF, b"")
    assert all(image_size(head[:end]) is None for end in range(len(head)))


@pytest.mark.parametrize(
    "given_image",
    [
        "https://example.org/a.png",
        {"url": "https://example.org/;base64,AAAA"},
        {"url": data_url(PNG + struct.pack(">II", 0, 480))},
        {"url": data_url(b"\xff\xd8" + b"\xff\xd8\0\0" * 50)},
        {"url": "data:image/png;base64,****"},
        {"url": "data:image/png;base64,ÄÖÜß"},
        {"url": None},
        {"detail": ["high"]},
    ],
)
def test_an_image_that_does_not_say_its_pixels_is_taken_for_a_usual_one(given_image: Any) -> None:
    assert image_of(given_image) == Image(*UNSEEN)
    assert image_of(given_image, unseen=(2, 3)) == Image(2, 3)


@given(st.integers(1, 65_535), st.integers(1, 65_535), st.sampled_from(["low", "high", "auto"]))
def test_by_no_rule_an_image_has_many_more_tokens_than_the_largest(width: int, height: int, detail: str) -> None:
    for rule in IMAGES.values():
        assert rule.tokens(Image(width, height, detail)) <= 1.05 * rule.tokens(Image(*LARGEST, detail))


@pytest.mark.parametrize(
    ("model", "image", "expected"),
    [
        # OpenAI's guide "Images and vision"
        ("gpt-4o", Image(1024, 1024, "high"), 765),
        ("gpt-4o-2024-11-20", Image(2048, 4096, "high"), 1105),
        ("openai/gpt-4o", Image(4096, 8192, "low"), 85),
        ("gpt-4o-mini", Image(1024, 1024, "low"), 2833),
        ("gpt-4o-mini", Image(1024, 1024), 2833 + 4 * 5667),
        ("gpt-5", Image(1024, 1024), 70 + 4 * 140),
        ("gpt-5-2025-08-07", Image(1024, 1024), 70 + 4 * 140),
        ("o3", Image(1024, 1024), 75 + 4 * 150),
        ("gpt-4.1-mini", Image(1024, 1024), 1659),  # 1,024 × 1.62
        ("gpt-4.1-mini", Image(1800, 2400), 2352),  # 1,452 × 1.62
        ("ft:gpt-4.1-nano:org", Image(32, 32), 2),
        # as they were billed, to the edge of a tile
        ("gpt-4.1", Image(2049, 513), 85 + 8 * 170),
        ("gpt-4.1", Image(2050, 513), 85 + 4 * 170),
        ("gpt-5-mini", Image(768, 1024), 922),
        ("gpt-5-mini", Image(2048, 768), 1843),
        ("gpt-5.5", Image(4032, 3024), 11_868),
        ("gpt-6", Image(4032, 3024), 14_364),
        ("claude-haiku-4-5-20251001", Image(1024, 1024), 1369),
        ("us.anthropic.claude-opus-4-7-v1:0", Image(1920, 1080), 2691),
        ("claude-sonnet-4-20250514", Image(1092, 1092), 1521),
        ("gemini-2.5-flash", Image(384, 384), 258),
        ("google/gemini-3-pro", Image(4032, 3024), 1120),
        ("anything", Image(1, 50_000), 85 + 4 * 170),
    ],
)
def test_an_image_costs_what_its_model_is_known_to_take(model: str, image: Image, expected: int) -> None:
    assert image_rule(model).tokens(image) == expected


@settings(deadline=None)
@given(
    st.integers(1, 65_535),
    st.integers(1, 65_535),
    st.sampled_from(["gpt-4o", "gpt-5.4", "claude", "gemini", "o4-mini"]),
)
def test_no_image_costs_nothing_or_more_than_its_model_may_take(width: int, height: int, model: str) -> None:
    most = {"gpt-4o": 85 + 8 * 170, "gpt-5.4": 3000, "claude": 1568, "gemini": 1120, "o4-mini": 2642}
    assert 0 < image_rule(model).tokens(Image(width, height)) <= most[model]


def test_images_are_estimates_and_their_base64_is_no_text() -> None:
    big = data_url(HEADERS["png"] + bytes(500_000))
    assert added(image_part(big, detail="low"), model="gpt-4o") == Count(0, images=85)
    assert added(image_part(big), model="gpt-4o") == Count(0, images=425)
    assert added(image_part("https://example.org/a.png"), model="gpt-4o") == Count(0, images=765)


def test_sound_is_estimated_by_its_seconds_and_the_family() -> None:
    wav = b"RIFF....WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 24_000, 48_000, 2, 16) + bytes(480_000 - 36)
    parts = [{"type": "input_audio", "input_audio": {"data": base64.b64encode(wav).decode(), "format": "wav"}}]
    assert added(user(parts)) == Count(0, audio=100)  # 10 seconds, 10 tokens each
    assert added(user(parts), "gemini").audio == 320
    mp3 = [{"type": "input_audio", "input_audio": {"data": "A" * 64_000, "format": "mp3"}}]
    assert added(user(mp3)) == Count(0, audio=30)
    endless = wav[:28] + struct.pack("<I", 1) + wav[32:]
    assert (
        added(user([{"type": "input_audio", "input_audio": {"data": base64.b64encode(endless).decode()}}])).audio == 300
    )
    earlier = {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}
    assert read(earlier).under("o200k").audio == AN_ANSWERS_SECONDS * 10


def test_files_are_estimated_by_their_bytes() -> None:
    paper = {"type": "file", "file": {"filename": "a.pdf", "file_data": data_url(bytes(300_000), "application/pdf")}}
    stored = {"type": "file", "file": {"file_id": "file-1"}}
    assert added(user([paper])).files == pytest.approx(15_000, rel=0.01)
    assert added(user([stored, {"type": "video_url", "video_url": {"url": "https://example.org/a"}}])) == Count(
        0, files=2 * A_FILE
    )
