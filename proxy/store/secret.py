"""The secret that the keys of entries are made with: with it, nobody can tell from a key what was asked."""

import os
from pathlib import Path

from proxy.errors import StartupError
from proxy.store.files import private_directory, replace, turn

_LENGTH = 32  # bytes


def secret(directory: Path) -> bytes:
    """The secret in `<directory>/secret`, made on first use (32 random bytes, 0600). More than 32 bytes are fine.

    Raises StartupError where it is there but unreadable or too short, OSError where it can't be made.
    """
    path = directory / "secret"
    found = _read(path)
    if found is not None:
        return found
    private_directory(directory)
    with turn(directory):
        # Another process may have made it while this one waited: two secrets would never find each other's entries.
        found = _read(path)
        if found is None:
            found = os.urandom(_LENGTH)
            replace(path, found)
    return found


def read_secret(directory: Path) -> bytes | None:
    """The secret, None where none was made yet. Raises StartupError where it cannot be read."""
    return _read(directory / "secret")


def _read(path: Path) -> bytes | None:
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StartupError(
            f"data.directory: {path} can't be read ({error.strerror}); make it readable for this user, "
            "or remove it and lose what is cached"
        ) from None
    if len(found) < _LENGTH:
        raise StartupError(
            f"data.directory: {path} holds {len(found)} bytes of at least {_LENGTH}; restore it, "
            "or remove it and lose what is cached"
        )
    return found
