"""What providers say is left of their own quotas, and durations as they write them.

Rule: what is not said, or makes no sense, bounds nothing, and nothing that was said bounds for longer than it says, or
an hour. So a wrong header costs time, never a provider.

What is left of it = what was when the provider handled the call that brought the news, refilled evenly since then up to
the limit, where one is stated (OpenAI, Anthropic and Groq fill buckets), else all at once at the reset; less what was
sent after that call. That is taken off even once it is answered, until newer news comes.
"""

import math
import re
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal

import msgspec

from proxy.core.routing import Place

PLACES: Final = 2000  # of which something is known, or at which calls are under way
LONGEST: Final = 3600.0  # seconds that something is believed
ABSURD: Final = 7 * 86400.0  # seconds; a reset so far off is none
NEARLY: Final = 1e-6  # of a request: sums of fractions are not exact

Kind = Literal["requests", "tokens"]
_NAMES: Final[dict[Kind, tuple[tuple[str, str, str], ...]]] = {
    "requests": (
        ("x-ratelimit-remaining-requests", "x-ratelimit-limit-requests", "x-ratelimit-reset-requests"),
        (
            "anthropic-ratelimit-requests-remaining",
            "anthropic-ratelimit-requests-limit",
            "anthropic-ratelimit-requests-reset",
        ),
    ),
    "tokens": (
        ("x-ratelimit-remaining-tokens", "x-ratelimit-limit-tokens", "x-ratelimit-reset-tokens"),
        (
            "anthropic-ratelimit-tokens-remaining",
            "anthropic-ratelimit-tokens-limit",
            "anthropic-ratelimit-tokens-reset",
        ),
    ),
}

_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(d|h|ms|m|s|us|ns)")
_SECONDS: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


class News(msgspec.Struct, frozen=True):
    """`remaining` of `limit`, None where none is stated; all of it again `reset` seconds later."""

    remaining: float
    limit: float | None
    reset: float


def read_news(headers: Mapping[str, str], kind: Kind, wall: float) -> News | None:
    """What an answer's headers say of this kind; None: nothing, or nothing that makes sense.

    `headers` have lower-case names. `wall`: when the provider handled the call, in seconds since the epoch.
    """
    for names in _NAMES[kind]:
        said = headers.get(names[0])
        if said is not None:
            return _news(said, headers.get(names[1]), headers.get(names[2], ""), wall)
    return None


def _news(said: str, limited: str | None, resets: str, wall: float) -> News | None:
    remaining, reset = _number(said), read_reset(resets, wall)
    if remaining is None or reset is None or not 0 < reset < ABSURD:
        return None
    if limited is None:
        return News(remaining, None, reset)
    limit = _number(limited)
    return News(remaining, limit, reset) if limit and limit >= remaining else None


def read_reset(text: str, wall: float) -> float | None:
    """Seconds from `wall`: "6m0s", "12ms", "1h2m3.5s", plain seconds, a moment as in RFC 3339; else None."""
    text = text.strip()
    if (seconds := _number(text)) is not None:
        return seconds
    if len(text) > 40:
        return None
    parts = _PART.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - wall
    except (ValueError, OverflowError):
        return None


def _number(text: str) -> float | None:
    """A number that is not below 0."""
    try:
        number = float(text) if len(text) <= 40 else math.nan
    except ValueError:
        return None
    return number if 0 <= number < math.inf else None


def write_duration(seconds: float) -> bytes:
    """As OpenAI does: 0s, 12ms, 7.66s, 1m0s. Rounded up: whoever waits so long has waited long enough."""
    return _written(math.ceil(seconds * 1000 - 1e-6))


@lru_cache(maxsize=256)
def _written(thousandths: int) -> bytes:
    # Remembered: as long as a window is used all the time, its end is a minute away, more or less.
    if thousandths < 1000:
        return b"%dms" % thousandths if thousandths > 0 else b"0s"
    minutes, thousandths = divmod(thousandths, 60_000)
    whole, thousandths = divmod(thousandths, 1000)
    fraction = (b".%03d" % thousandths).rstrip(b"0") if thousandths else b""
    return b"%dm%d%bs" % (minutes, whole, fraction) if minutes else b"%d%bs" % (whole, fraction)


class Level:
    """What is left of one kind at one place. Amounts: `held` for calls that are about to be sent, `sent` in all."""

    __slots__ = ("_at", "_call", "_mark", "_news", "held", "sent")

    def __init__(self) -> None:
        self.held = 0
        self.sent = 0
        self._news: News | None = None
        self._at = 0.0
        self._mark = 0
        self._call = 0

    def hear(self, news: News, at: float, mark: int, call: int) -> None:
        """Said of the moment `at`, by the answer to the `call`-th call, up to which `mark` was sent. Calls overtake one
        another, and an earlier one has nothing new to say.
        """
        if self._news is None or call >= self._call:
            self._news, self._at, self._mark, self._call = news, at, mark, call

    def wait(self, amount: int, now: float) -> float:
        """Seconds until so much is left; more than the whole limit is asked for once all of that is."""
        news = self._news
        if news is None:
            return 0.0
        over = min(news.reset, LONGEST) - max(0.0, now - self._at)  # how long it bounds at all
        if over <= 0:
            self._news = None
            return 0.0
        left = news.remaining - (self.sent - self._mark) - self.held
        if news.limit is None:
            return 0.0 if left >= amount else over
        rate = (news.limit - news.remaining) / news.reset
        short = min(amount, news.limit) - left - rate * max(0.0, now - self._at)
        if short <= NEARLY:
            return 0.0
        return min(over, short / rate) if rate else over

    def knows(self, now: float) -> bool:
        """Does anything bound it still?"""
        self.wait(0, now)
        return self._news is not None


class Account:
    """Both kinds at one place. `users`: calls that look at it."""

    __slots__ = ("requests", "tokens", "users")

    def __init__(self) -> None:
        self.requests = Level()
        self.tokens = Level()
        self.users = 0

    def wait(self, tokens: int, now: float) -> float:
        """Seconds until one request of so many tokens is left."""
        return max(self.requests.wait(1, now), self.tokens.wait(tokens, now) if tokens else 0.0)

    def hold(self, tokens: int) -> None:
        """Such a request is about to be sent: follow with `send` or `give_back`."""
        self.requests.held += 1
        self.tokens.held += tokens

    def give_back(self, tokens: int) -> None:
        self.requests.held -= 1
        self.tokens.held -= tokens

    def send(self, tokens: int) -> tuple[int, int]:
        """It is sent now; what had been then, for `heed`."""
        self.give_back(tokens)
        self.requests.sent += 1
        self.tokens.sent += tokens
        return self.requests.sent, self.tokens.sent

    def heed(self, headers: Mapping[str, str], marks: tuple[int, int], at: float, wall: float) -> None:
        """What the answer to the call with these marks says, which was handled `at`, by the other clock at `wall`."""
        calls, tokens = marks
        if (news := read_news(headers, "requests", wall)) is not None:
            self.requests.hear(news, at, calls, calls)
        if (news := read_news(headers, "tokens", wall)) is not None:
            self.tokens.hear(news, at, tokens, calls)


class Accounts:
    """All places of which something is known, or at which calls are under way: at most `limit`."""

    def __init__(self, limit: int = PLACES) -> None:
        self._limit = limit
        self._kept: OrderedDict[Place, Account] = OrderedDict()  # the least recently used first

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, place: Place) -> Account | None:
        return self._kept.get(place)

    def use(self, place: Place) -> Account:
        """Follow with `leave`."""
        account = self._kept.get(place)
        if account is None:
            if len(self._kept) >= self._limit:
                self._kept.popitem(last=False)
            account = self._kept[place] = Account()
        else:
            self._kept.move_to_end(place)
        account.users += 1
        return account

    def leave(self, place: Place, account: Account, now: float) -> None:
        """Forget it, if nothing is to be remembered."""
        account.users -= 1
        if account.users or account.requests.knows(now) or account.tokens.knows(now):
            return
        if self._kept.get(place) is account:
            del self._kept[place]
