"""How a model's name is read: as it stands, as others write it, without its date.

Rule: a reading says what two names have in common, not that they mean the same; Table.find decides that.
"""

import re
from collections.abc import Callable


def plain(name: str) -> str:
    """Without what only addresses it: `models/` before it, owner and job of a fine-tuned model behind it."""
    text = name.strip().lower().removeprefix("models/")
    return ":".join(text.split(":")[:2]) if text.startswith("ft:") else text


DOT = re.compile(r"(?<=\d)\.(?=\d)")
DAY = re.compile(r"[-@](20\d\d)-?(\d\d)-?(\d\d)(?=$|-v\d)")
VERSION = re.compile(r"-v\d+:\d+$|(?<=\d):\d$|@default$|-v\d+$")
UNDATED = re.compile(r"(-20\d{6}|-latest|-00\d)$")


def as_it_is(name: str) -> str:
    return name


def varied(name: str) -> str:
    """claude-sonnet-4.5@20250929, claude-sonnet-4-5-2025-09-29-v1:0 → claude-sonnet-4-5-20250929"""
    return VERSION.sub("", DAY.sub(r"-\1\2\3", DOT.sub("-", name)))


def undated(name: str) -> str:
    return UNDATED.sub("", varied(name))


READINGS: tuple[Callable[[str], str], ...] = (as_it_is, varied, undated)
