"""What makes no sense in a key: its name, rights, limits and budget, said in settings, by a command or as JSON.

Rule: an error names the setting's path and says what to do; it never repeats a secret. `path`: what stands before the
names of the settings, such as `keys[0].`.
"""

import re
from collections.abc import Iterable

from proxy.errors import StartupError
from proxy.settings import Budget, Model, Provider, Rights

LEDGER_IDS = "pk_"
_LIMITS = ("requests_per_minute", "tokens_per_minute", "max_concurrent")
_MOST = 10**12
LAST = 253_402_300_799  # seconds since the epoch: the last moment that can be told as a date


def check_name(path: str, name: str) -> None:
    """Raises StartupError where this is no name of a key."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise StartupError(f"{path}name: {name!r}: up to 64 letters, digits, '.', '_' and '-'.")
    if name.startswith(LEDGER_IDS):
        raise StartupError(f"{path}name: {name!r}: what begins with {LEDGER_IDS!r} is an id, not a name.")


def check_rights(path: str, rights: Rights) -> None:
    """Raises StartupError where such rights make no sense."""
    if not rights.models:
        raise StartupError(f'{path}models: none is named, so it could call nothing; "*" stands for all.')
    check_names(f"{path}models", rights.models)
    for model in rights.models:
        if "*" in model[:-1]:
            raise StartupError(f'{path}models: {model!r}: a "*" may only be its last character.')
    if "chat" in rights.passthrough:
        raise StartupError(
            f"{path}passthrough: chat completions need no passthrough, and would be held to no limit there."
        )
    for segment in rights.passthrough:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", segment):
            raise StartupError(f'{path}passthrough: {segment!r} is no leading segment of a path, such as "files".')
    check_limits(path, rights)
    if rights.expires is not None and not 0 <= rights.expires <= LAST:
        raise StartupError(f"{path}expires: must be from 1970 to 9999; leave it out for never.")
    if rights.budget is not None:
        _check_budget(path, rights.budget)
        if rights.passthrough:
            raise StartupError(
                f"{path}passthrough: what passes through has no known cost, so a key with a budget may pass nothing; "
                f"leave out one of the two."
            )


def _check_budget(path: str, budget: Budget) -> None:
    if budget.usd <= 0:
        raise StartupError(f"{path}budget.usd: must be more than 0; a key that may spend nothing is not needed.")


def check_limits(path: str, limited: Provider | Model | Rights) -> None:
    for name in _LIMITS:
        most = getattr(limited, name)
        if most is not None and not 1 <= most <= _MOST:
            raise StartupError(f"{path}{name}: must be from 1 to {_MOST}; leave it out for no limit.")


def check_names(path: str, names: Iterable[str]) -> None:
    seen = set[str]()
    for name in names:
        if not name.strip():
            raise StartupError(f"{path}: an empty name stands there.")
        if name in seen:
            raise StartupError(f"{path}: {name!r} stands there twice.")
        seen.add(name)


def check_variable(path: str, name: str | None) -> None:
    """A name of an environment variable; a secret that was put there by mistake is not repeated."""
    if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise StartupError(f"{path}: must be the name of an environment variable that holds the key, not the key.")
