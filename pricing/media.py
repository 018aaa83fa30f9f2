"""What images, sound and files cost: never more than an estimate.

Rule: pixels and seconds are read from a part's first bytes; what does not say them is taken for a usual one. Nothing
that a part holds is counted as text, and nothing raises.
"""

import math
import re
import struct
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

A_FILE: Final = 1_500  # what a file of unknown length, or a part of an unknown kind, is taken for
BYTES_PER_FILE_TOKEN: Final = 20  # a PDF of ten pages: 300 KB, 15,000 tokens with the pages' images
BYTES_PER_SECOND: Final = 16_000  # audio that does not say: MP3 at 128 kbit/s
AN_ANSWERS_SECONDS: Final = 30.0  # audio of an earlier answer, of which a body holds no more than the id


class Image(NamedTuple):
    """Pixels, and the detail that was asked for: low, high or auto."""

    width: int
    height: int
    detail: str = "auto"


class Tiles(NamedTuple):
    """OpenAI's older rule: fit into 2,048 × 2,048, then the shorter side to 768, then tiles of 512 × 512."""

    base: int
    tile: int

    def tokens(self, image: Image) -> int:
        if image.detail == "low":
            return self.base
        width, height, _ = image
        shrink = min(1.0, 2048 / max(width, height))
        shrink = min(shrink, 768 / min(width, height))
        across, down = (math.ceil(max(1, round(side * shrink)) / 512) for side in (width, height))
        return self.base + self.tile * across * down


class Patches(NamedTuple):
    """The newer rule: squares of `side` pixels, `each` tokens each, at most so many (`auto`: if no detail is said)."""

    side: int
    each: float
    most: int
    auto: int = 0

    def tokens(self, image: Image) -> int:
        width, height, detail = image
        most = max(self.most, self.auto) if detail == "auto" else self.most
        across, down = width / self.side, height / self.side
        if math.ceil(across) * math.ceil(down) > most:
            shrink = math.sqrt(most / (across * down))
            across, down = across * shrink, down * shrink
            whole = min(max(1, math.floor(side)) / side for side in (across, down))
            across, down = across * whole, down * whole
        # A shrunk side is whole but for the last bits of a float.
        return round(self.each * min(most, math.ceil(across - 1e-9) * math.ceil(down - 1e-9)))


# The first that fits. OpenAI's guide "Images and vision"; of gpt-5 and later what was seen to be billed, where the
# guide says more (1.62 for 1.2). Claude and Gemini as seen in their usage, rounded.
IMAGES: Final[dict[str, Tiles | Patches]] = {
    r"gpt-4o-mini": Tiles(2833, 5667),
    r"gpt-4\.1-mini": Patches(32, 1.62, 1536),
    r"gpt-4\.1-nano": Patches(32, 2.46, 1536),
    r"gpt-4": Tiles(85, 170),
    r"gpt-5-mini": Patches(32, 1.2, 1536),
    r"gpt-5-nano": Patches(32, 1.5, 1536),
    r"gpt-5\.[23]": Patches(32, 1.2, 1536),
    r"gpt-5\.4": Patches(32, 1.2, 2500),
    r"gpt-5(?:\.1)?(?![.\d])": Tiles(70, 140),
    r"gpt-5": Patches(32, 1.2, 2500, auto=10_000),
    r"gpt-\d": Patches(32, 1.2, 2500, auto=12_000),
    r"o4-mini": Patches(32, 1.72, 1536),
    r"o[13]": Tiles(75, 150),
    r"claude-[a-z]+-(?:4[-.][7-9](?!\d)|[5-9])": Patches(28, 1.0, 4000),
    r"claude": Patches(28, 1.0, 1568),
    r"gemini-[12]": Patches(768, 258.0, 64),
    r"gemini": Patches(1 << 20, 1120.0, 1),
}
_IMAGE_RULES: Final = [(re.compile(rf"(?:^|[/.:~]){pattern}", re.IGNORECASE), rule) for pattern, rule in IMAGES.items()]
OTHER_IMAGES: Final = Tiles(85, 170)
UNSEEN: Final = (1024, 1024)  # the pixels of an image behind an address
LARGEST: Final = (11_616, 3_028)  # by none of the rules an image has more tokens than this one, but for a twentieth


def image_rule(model: str) -> Tiles | Patches:
    """What an image costs with a model, by the model's name, with a provider's prefix or without."""
    return next((rule for pattern, rule in _IMAGE_RULES if pattern.search(model)), OTHER_IMAGES)


def image_of(given: Mapping[str, Any] | str, *, unseen: tuple[int, int] = UNSEEN) -> Image:
    """The image of an `image_url` part. Pixels are read from a data URL's first bytes; else they are `unseen`."""
    url = given if isinstance(given, str) else given.get("url")
    detail = "auto" if isinstance(given, str) else given.get("detail")
    size = image_size(_start(url)) if isinstance(url, str) else None
    return Image(*(size or unseen), detail if detail in ("low", "high") else "auto")


def _start(url: str, most: int = 1 << 17) -> bytes:
    """The first bytes that a data URL holds: 96 KB, since a photo's own thumbnail may come before its size."""
    data = url.find(";base64,", 0, 128) + len(";base64,")
    if not url.startswith("data:") or data < len(";base64,"):
        return b""
    return _decoded(url[data : data + most])


def _decoded(text: str) -> bytes:
    try:
        return b64decode(text[: len(text) // 4 * 4])
    except ValueError:
        return b""


def image_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a PNG, GIF, WebP or JPEG, by its first bytes; None where they don't say."""
    try:
        if data.startswith(b"\x89PNG"):
            size = struct.unpack_from(">II", data, 16)
        elif data.startswith(b"GIF8"):
            size = struct.unpack_from("<HH", data, 6)
        elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            size = _webp_size(data)
        else:
            size = _jpeg_size(data)
    except struct.error:  # fewer bytes than that
        return None
    width, height = size
    return (width, height) if 0 < width < 1 << 16 and 0 < height < 1 << 16 else None


def _webp_size(data: bytes) -> tuple[int, int]:
    """https://developers.google.com/speed/webp/docs/riff_container, RFC 6386 9.1, and the lossless format's 3."""
    if data[12:16] == b"VP8X":
        low, high = struct.unpack_from("<IH", data, 24)
        return 1 + (low & 0xFFFFFF), 1 + (low >> 24 | high << 8)
    if data[12:16] == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """ITU-T T.81, B.2.2: the segments up to the frame's header, which is any SOF (C0 to CF, less C4, C8 and CC)."""
    at = 2 if data.startswith(b"\xff\xd8") else len(data)
    while True:
        _, marker, length = struct.unpack_from(">BBH", data, at)
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        at += 2 + length


def seconds_of(data: str) -> float:
    """How long base64 of a sound lasts: a WAV says its bytes a second, others are taken for MP3."""
    start, rate = _decoded(data[:64]), 0
    if start.startswith(b"RIFF") and len(start) >= 32:
        (rate,) = struct.unpack_from("<I", start, 28)
    return len(data) * 3 / 4 / (rate if rate >= 1000 else BYTES_PER_SECOND)


def file_tokens(data: str) -> int:
    """What base64 of a file is taken for."""
    return max(A_FILE, len(data) * 3 // 4 // BYTES_PER_FILE_TOKEN)
