"""Settings out of TOML: sizes (`"2GiB"`) and times (`"7d"`) as people write them, and errors that name the setting."""

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import msgspec

from proxy.checks import check
from proxy.errors import StartupError
from proxy.settings import Model, Provider, Route, Seconds, Settings, Size

_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_TIMES = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NAMED = {"providers": Provider, "models": Model, "routes": Route}  # sections of tables with names of their own

Table = dict[str, Any]


def read_settings(table: Table, *, source: str, overrides: Table | None = None) -> Settings:
    """The settings in a parsed table. `overrides`: sections that the command line says over it.

    Raises StartupError, naming `source` and the setting's path.
    """
    for section, values in (overrides or {}).items():
        said = table.get(section)
        table = {**table, section: {**said, **values} if isinstance(said, dict) else values} if values else table
    try:
        settings = msgspec.convert(table, Settings, dec_hook=_measure)
        check(settings)
    except msgspec.ValidationError as error:
        raise StartupError(f"{source}: {_with_path(str(error), table)}") from None
    except StartupError as error:
        raise StartupError(f"{source}: {error}") from None
    return settings


def load_settings(path: Path, overrides: Table | None = None) -> Settings:
    """The settings in a file. Raises StartupError."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"{path}: cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise StartupError(f"{path}: this is not TOML: {error}") from None
    return read_settings(table, source=str(path), overrides=overrides)


def _with_path(message: str, table: Table) -> str:
    """msgspec says "Expected … - at `$.cache.ttl`"; a person looks for the path first."""
    what, _, where = message.partition(" - at `$")
    path = where.strip(".`")
    if "[...]" in path:
        path = path.replace("[...]", "." + _culprit(path.partition("[")[0], table), 1)
    unknown = re.search(r"unknown field `(.+)`", what)
    if unknown:
        return f"{path}{'.' if path else ''}{unknown[1]}: there is no such setting."
    if what.startswith("Invalid enum value"):
        what = f"must be one of: {', '.join(_choices(path))}"
    return f"{path}: {what}" if path else what


def _choices(path: str) -> list[str]:
    """What the setting at this path may be. Only the names in _NAMED hold dots, and those stand between."""
    section, name = path.partition(".")[0], path.rpartition(".")[2].partition("[")[0]
    kinds: Table = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    kind = next(field.type for field in msgspec.structs.fields((kinds | _NAMED)[section]) if field.name == name)
    return _literals(kind)


def _literals(kind: Any) -> list[str]:
    """The words of a Literal, of one that may be left out, and of a list of them."""
    return [word for each in get_args(kind) for word in ([each] if isinstance(each, str) else _literals(each))]


def _culprit(section: str, table: Table) -> str:
    """Which member of such a section does not convert; msgspec says so of lists only."""
    kind = _NAMED.get(section)
    for name, value in table[section].items() if kind else ():
        try:
            msgspec.convert(value, kind, dec_hook=_measure)
        except msgspec.ValidationError:
            return str(name)
    return "…"


def _measure(kind: type, value: Any) -> Any:
    if kind is Size:
        return Size(_scaled(value, _UNITS, 'bytes, such as 1048576 or "32MiB"'))
    if kind is Seconds:
        return Seconds(_scaled(value, _TIMES, 'a time, such as 90, "90s", "15m", "12h" or "7d"'))
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    raise ValueError(f"Expected {kind.__name__}, got {value!r}")


def _scaled(value: object, units: dict[str, float] | dict[str, int], wanted: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e15:
        return value
    found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([A-Za-z]+)", value) if isinstance(value, str) else None
    if found is None or found[2] not in units:
        raise ValueError(f"Expected {wanted}, got {value!r}")
    return float(found[1]) * units[found[2]]
