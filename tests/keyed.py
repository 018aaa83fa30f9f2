"""Keys with limits and budgets, and many requests at once under them."""

import hashlib
import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Final, NamedTuple

from proxy.clock import SystemClock
from tests.routed import counted
from tests.scripted import Wire
from tests.support import Json, Proxy, eventually

FORMS: Final[list[Json]] = [{}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}]


def key(name: str, **rights: object) -> Json:
    """Settings of a key, which is `sk-` and its name."""
    return {"name": name, "key_sha256": hashlib.sha256(f"sk-{name}".encode()).hexdigest(), **rights}


def shows(name: str, **headers: str) -> Json:
    """What a client sends that has this key."""
    said = {header.replace("_", "-"): value for header, value in headers.items()}
    return {"authorization": f"Bearer sk-{name}", **said}


class Said(NamedTuple):
    """An answer, or the error that it is. `whole`: it ended as HTTP ends."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool

    @property
    def error(self) -> Json:
        error: Json = json.loads(self.body)["error"]
        return error

    @property
    def code(self) -> str | None:
        """Of the error; "" for an answer."""
        return "" if self.status == 200 else self.error["code"]


def read(wire: Wire) -> Said:
    """The whole answer."""
    with wire:
        wire.read_head()
        body = wire.read_body()
        return Said(wire.status, wire.headers, body, wire.clean)


def asks_at_once(proxy: Proxy, bodies: Iterable[Json], *names: str) -> list[Said]:
    """All are sent before any answer is read; the keys take turns."""
    wires = [Wire(proxy.url, body, shows(names[index % len(names)])) for index, body in enumerate(bodies)]
    return [read(wire) for wire in wires]


def asks(proxy: Proxy, body: Json, name: str, **headers: str) -> Said:
    return read(Wire(proxy.url, body, shows(name, **headers)))


def budget(proxy: Proxy, what: str) -> dict[str, Decimal]:
    """A figure of all budgets in USD, by key: usd, spent_usd, reserved_usd, forecast_usd, nearly_spent."""
    found = counted(proxy.metrics(), f"penstock_budget_{what}")
    return {name: Decimal(repr(value)) for (_, name), value in found.items()}


def nothing_stays_reserved(proxy: Proxy) -> None:
    """Wait until nothing is set aside for any key."""
    eventually(lambda: not any(budget(proxy, "reserved_usd").values()))


def readers_become(proxy: Proxy, count: int) -> None:
    """Wait until so many clients read flights."""
    eventually(lambda: proxy.readers() == count)


def gauge(proxy: Proxy, metric: str, provider: str = "sim") -> int:
    """Calls that wait for their turn, or had it."""
    return int(counted(proxy.metrics(), metric)[(provider,)])


class Ahead(SystemClock):
    """Both clocks can be set forward."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def wall(self) -> float:
        return super().wall() + self.seconds

    def monotonic(self) -> float:
        return super().monotonic() + self.seconds
