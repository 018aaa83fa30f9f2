"""Counting with the real encodings, and charging with the real prices."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec

from pricing.cost import Usage
from pricing.encodings import Encodings
from pricing.table import Table
from pricing.tokens import Count, Prompt, read_prompt

Json = dict[str, Any]
Count1 = Callable[[str], int]

SHARED = Encodings(threading.Lock())
o200k = partial(SHARED.count, name="o200k_base")
cl100k = partial(SHARED.count, name="cl100k_base")


def user(content: object, **members: object) -> Json:
    return {"messages": [{"role": "user", "content": content}], **members}


def read(body: Json, count: Count1 = o200k) -> Prompt:
    return read_prompt(body, count)


def added(body: Json, family: str = "o200k", model: str = "") -> Count:
    """What a body has more than the same with an empty message."""
    count, empty = read(body).under(family, model), read(user("")).under(family, model)
    return msgspec.structs.replace(count, text=count.text - empty.text)


NOON = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)  # a Wednesday
MILLION = Usage(input=1_000_000, cached=0, output=1_000_000)


def usd(table: Table, name: str, usage: Usage, at: datetime = NOON, service: str | None = None) -> Decimal | None:
    model = table.find(name)
    assert model is not None
    return model.charge(usage, at, service).usd
