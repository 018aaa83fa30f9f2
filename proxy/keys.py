"""`penstock keys`: keys that clients show to this proxy, made, listed and revoked. A running proxy follows in a second.

Rule: a secret is shown once, by who makes the key, and no hash of it ever.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from proxy.checks import IN_LEDGER, unheeded
from proxy.core.access import Grant, KnownKey, Limits, meant_key, revocable_key
from proxy.errors import InvalidRequest, StartupError
from proxy.keyring import kept
from proxy.ledger import keys as ledger
from proxy.reading import read_new_key
from proxy.settings import Settings

LIMITS = {"requests_per_minute": "requests/min", "tokens_per_minute": "tokens/min", "max_concurrent": "at once"}


def create_key(
    directory: Path, settings: Settings | None, asked: dict[str, Any], *, now: float
) -> tuple[KnownKey, str, list[str]]:
    """The key that is asked for in the words of [[keys]], its secret, and what is most likely a mistake in it.

    Raises StartupError where it makes no sense, InvalidRequest where its name is taken, OSError.
    """
    wanted = read_new_key(asked, now=now)
    doubts = []
    if settings is not None:
        if why := unheeded(settings, IN_LEDGER):
            raise StartupError(why)
        if wanted.name in [key.name for key in settings.keys]:
            raise InvalidRequest(f"A key named {wanted.name!r} stands in the settings: choose another name.")
        doubts = [settings.unlisted_words(name) for name in settings.unlisted(wanted.models)]
    row, secret = ledger.create_key(directory, wanted.granted(wanted.name, ""), now=now)
    return kept(row), secret, doubts


def read_budget(text: str) -> dict[str, str]:
    """`50/month` as the settings say it. Raises StartupError."""
    usd, slash, per = text.partition("/")
    if not slash:
        raise StartupError(f"--budget: {text!r}: write USD, a slash and day, week, month or total, such as 50/month.")
    return {"usd": usd, "per": per}


def known_keys(directory: Path, settings: Settings | None) -> list[KnownKey]:
    """The settings' keys, then the ledger's. Raises StartupError, OSError."""
    own = [KnownKey(key.grant, "settings") for key in settings.keys] if settings is not None else []
    return [*own, *map(kept, ledger.list_keys(directory))]


def list_keys(known: list[KnownKey], console: Console, *, now: float) -> int:
    """A row for each key. 1 if there is none."""
    shown = Table("id", "name", "from", "models", "limits", "budget", "expires", "state")
    for each in known:
        grant = each.grant
        limits, budget, expires = " ".join(_limits(grant.limits)) or "-", _budget(grant) or "-", _time(grant.expires)
        shown.add_row(
            grant.id,
            grant.name,
            each.source,
            escape(" ".join(grant.models)),
            limits,
            budget,
            expires,
            _state(each, now),
        )
    console.print(shown if known else "There is no key.")
    return 0 if known else 1


def show_key(known: list[KnownKey], console: Console, wanted: str, *, now: float) -> int:
    """Everything about the key of this id or name; of a name, the one in force, else the newest. Raises NotFound."""
    for name, value in _lines(meant_key(known, wanted), now):
        console.print(f"{name:<13} {value}", markup=False, highlight=False, soft_wrap=True)
    return 0


def revoke_key(directory: Path, settings: Settings | None, wanted: str, *, now: float) -> KnownKey:
    """From now on it is refused. Raises InvalidRequest for a key of the settings, NotFound, StartupError, OSError."""
    key = revocable_key(known_keys(directory, settings), wanted)
    return kept(ledger.revoke_key(directory, key.grant.id, now=now))


def _lines(known: KnownKey, now: float) -> Iterator[tuple[str, str]]:
    grant = known.grant
    yield "id", grant.id
    yield "name", grant.name
    yield "from", known.source
    yield "state", _state(known, now)
    yield "models", " ".join(grant.models)
    yield "passthrough", " ".join(sorted(each.decode() for each in grant.passthrough)) or "-"
    yield "limits", ", ".join(_limits(grant.limits)) or "-"
    yield "budget", _budget(grant) or "-"
    yield "created", _time(known.created)
    yield "expires", _time(grant.expires)


def _limits(limits: Limits) -> Iterator[str]:
    for name, words in LIMITS.items():
        most: int | None = getattr(limits, name)
        if most is not None:
            yield f"{most:,} {words}"


def _budget(grant: Grant) -> str:
    return "" if grant.budget is None else f"{_usd(grant.budget.usd)} USD/{grant.budget.per}"


def _state(known: KnownKey, now: float) -> str:
    if known.revoked is not None:
        return f"revoked {_time(known.revoked)}"
    return "expired" if known.grant.is_over(now) else "in force"


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}Z"


def _usd(usd: Decimal) -> str:
    return f"{usd:f}"
