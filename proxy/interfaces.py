"""The shapes of the edges: what the pipeline asks of a store, a provider, a meter and a clock.

Edges are built in app.py and handed in; tests hand in fakes of the same shape.
"""

from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, Protocol, Self

from proxy.core.access import Grant
from proxy.core.bill import Bill
from proxy.core.books import Answered, Attempted, Intent
from proxy.core.call import Call
from proxy.core.entry import Entry, Meta
from proxy.core.passage import Passage
from proxy.core.ranking import Ranking
from proxy.core.routing import Option, Place, Target


class Clock(Protocol):
    def wall(self) -> float:
        """Seconds since the epoch: for ages and expiry, which outlive the process."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back: for everything that is measured or waited for."""
        ...


class Epoch(Protocol):
    @property
    def current(self) -> int:
        """How often the cache was purged."""
        ...

    def spares(self, meta: Meta) -> bool:
        """Was no purge that means this entry since it was begun? A yes where it was begun in the current epoch."""
        ...

    def admits(self, meta: Meta) -> bool:
        """May this answer, which was under way, be kept?"""
        ...


class Store(Protocol):
    """Finished recordings by key. What is put is visible to the next `get`; a failure is a miss, never an error."""

    async def get(self, key: bytes) -> Entry | None: ...

    async def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        """Those of them that there are."""
        ...

    async def delete(self, key: bytes) -> bool:
        """False where it failed, so that it may come back."""
        ...

    def put(self, key: bytes, entry: Entry, *, expire: float) -> None:
        """Keep for `expire` seconds at most. Returns at once; the disk follows."""
        ...


class Listing(Protocol):
    """What a provider says its models are; `models` is None where it answered something else, in `body`."""

    @property
    def status(self) -> int: ...

    @property
    def body(self) -> bytes: ...

    @property
    def content_type(self) -> bytes: ...

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Those that clients see."""
        ...

    @property
    def models(self) -> list[dict[str, Any]] | None: ...


Again = Callable[[], Awaitable[None]]


class Reply(Protocol):
    """A provider's answer: the head is here, the body comes in pieces as they arrive on the wire."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Lower-case names."""
        ...

    @property
    def usage_asked(self) -> bool:
        """Was the provider asked for the usage of this stream?"""
        ...

    async def read(self) -> bytes:
        """The next piece of the body, as soon as it is there; empty where HTTP ended cleanly. Raises UpstreamReset."""
        ...

    def close(self) -> None:
        """Give the connection back, or close it if the body was not read to its end."""
        ...


class Provider(Protocol):
    """One provider, with its timeouts in seconds."""

    name: str
    first_event_timeout: float
    idle_timeout: float
    total_timeout: float
    max_event: int  # bytes
    max_retries: int
    owns_key: bool  # the operator's key is sent
    client_pays: bool  # the client's own credentials are sent

    @property
    def reports_usage(self) -> bool:
        """Do this provider's streams say their usage when they are asked?"""
        ...

    def scrub(self, said: bytes) -> bytes:
        """What the provider said, without the operator's key, which some quote in their errors."""
        ...

    async def open(self, call: Call, target: Target, *, again: Again | None = None) -> Reply:
        """Send the call; once more only where nothing of it was sent, or where it was refused (400) for its wish for
        usage: then `again` is awaited before. Raises UpstreamError, and what `again` raises.
        """
        ...

    async def relay(self, passage: Passage, body: AsyncIterable[bytes] | None) -> Reply:
        """Send what is passed through; once more only where nothing of it was sent. Raises UpstreamError."""
        ...

    async def models(self, account: tuple[tuple[bytes, bytes], ...]) -> Listing:
        """Ask for the list of models; `account` are the client's own credentials. Raises UpstreamError."""
        ...


class Visit(Protocol):
    """A request that is counted; it holds one place of its key's until it leaves."""

    def leave(self) -> None:
        """Give the place back; once, whoever calls how often."""
        ...


class TokenClaim(Protocol):
    """Tokens that are reserved of a key's minute."""

    def settle(self, tokens: int) -> None:
        """So many were used; only the first time counts."""
        ...


class Ticket(Protocol):
    """A call's place in a provider's line, then among those under way. `with ticket:` leaves on every exit."""

    share: str
    """Whose turn it takes; may be changed while it waits."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    async def turn(self) -> None:
        """Wait for it. Raises QueueTimeout, or OverLimit where it never comes."""
        ...

    def sent(self) -> None:
        """From now on it counts, however it ends."""
        ...

    def heed(self, headers: Mapping[str, str], status: int) -> None:
        """What the provider says of its quota; lower-case names."""
        ...

    def settle(self, tokens: int) -> None:
        """So many tokens were used; also after it has left."""
        ...


class Limiter(Protocol):
    """Requests and tokens in any minute, and what runs at once: of a key, where it is refused, and of a provider and
    each of its models, where it waits.
    """

    def visit(self, grant: Grant) -> Visit:
        """Count a request. Raises RateLimited."""
        ...

    def claim(self, grant: Grant, tokens: int) -> TokenClaim:
        """Raises RateLimited, or OverLimit where so many are never allowed."""
        ...

    def standing(self, grant: Grant) -> tuple[tuple[bytes, bytes], ...]:
        """The key's limits as headers; none where it has none."""
        ...

    def wait(self, provider: str, model: str, place: Place, tokens: int) -> float:
        """Seconds until such a call would be made, more or less; 0: at once, inf: never."""
        ...

    def ticket(self, provider: str, model: str, place: Place, *, share: str, tokens: int) -> Ticket:
        """`model`: its name in the settings; `share`: those who share a turn, client by client."""
        ...

    def counts_tokens(self, provider: str, model: str) -> bool:
        """Is there a limit of tokens that the settings name?"""
        ...


class Ledger(Protocol):
    """Every attempt and every answer, written down."""

    async def intend(self, intent: Intent) -> None:
        """Once this returns the row outlives the process. Raises LedgerUnavailable."""
        ...

    def attempted(self, attempt: Attempted) -> None:
        """The end of what was intended. Returns at once; it is written a moment later, and before the process ends."""
        ...

    def answered(self, answer: Answered) -> None: ...


class Meter(Protocol):
    """Counts what the pipeline saw; names and labels are the meter's own business."""

    streams: int  # that are being sent

    def answered(self, row: Answered, key: str) -> None:
        """A request is over. `key`: the name of its key, "" where there is none."""
        ...

    def turned_away(self, status: int) -> None:
        """A request was refused before any endpoint saw it."""
        ...

    def refused(self, limit: str, key: str) -> None:
        """A limit or the budget of a key refused a request; `key`: its name."""
        ...

    def attempt(self, provider: str, model: str, result: str, seconds: float) -> None: ...

    def retried(self, provider: str, model: str, kind: Literal["repeat", "fallback"]) -> None:
        """This model is asked after a failure."""
        ...

    def spoke(self, provider: str, model: str, times: Sequence[float]) -> None:
        """A stream is over, whose events came at these times, in seconds."""
        ...

    def billed(self, bill: Bill, grant: Grant) -> None: ...

    def would_save(self, cause: str, option: Option, usd: Decimal | None, grant: Grant) -> None:
        """This was paid, and would not have been if the cache had been on."""
        ...

    def decided(self, route: str | None, ranking: Ranking) -> None: ...

    def stored(self, result: str) -> None: ...

    def inputs(self, model: str, *, known: int = 0, joined: int = 0, asked: int = 0) -> None:
        """A list was answered, so many of whose inputs were that."""
        ...


class Log(Protocol):
    """A line for each request."""

    def answered(self, row: Answered) -> None:
        """Returns at once."""
        ...
