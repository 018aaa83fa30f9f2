"""What the endpoints remember from one call to the next."""

import hashlib

import msgspec
from starlette.datastructures import Headers
from starlette.types import Scope

from proxy.simulator.behaviour import Behaviour


class Received(msgspec.Struct, frozen=True):
    """A call as it came in: what a test of a proxy looks at. `raw` is the body, byte for byte, where it is held."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    raw: bytes


class Memory:
    """The last call, and how often each `fail=K` request has failed."""

    def __init__(self) -> None:
        self.last: Received | None = None
        self._failures: dict[bytes, int] = {}

    def note(self, scope: Scope, raw: bytes) -> None:
        """This is the last call now."""
        query = scope.get("query_string", b"").decode("latin-1")
        headers = tuple(Headers(scope=scope).items())
        self.last = Received(scope["method"], scope["path"], query, headers, raw)

    def forget_failures(self) -> None:
        self._failures.clear()

    def while_failing(self, behaviour: Behaviour, request: bytes) -> Behaviour:
        """The faults for the first K calls of exactly these bytes and options, mercy afterwards."""
        if behaviour.fail is None:
            return behaviour
        exact = hashlib.sha256(msgspec.json.encode(behaviour) + b"\0" + request).digest()
        failed = self._failures.get(exact, 0)
        if failed >= behaviour.fail:
            return behaviour.spared()
        self._failures[exact] = failed + 1
        return behaviour.failing()
