"""A body of any endpoint as a chat completion's body, for what is counted, bounded, ranked and linked."""

from collections.abc import Mapping
from typing import Any


def as_chat(path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    return body
