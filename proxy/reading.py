"""Settings out of TOML: sizes (`"2GiB"`) and times (`"7d"`) as people write them, and errors that name the setting."""

import re
import tomllib
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, get_args

import msgspec

from proxy.checks import check
from proxy.errors import StartupError
from proxy.rights import LAST, check_name, check_rights
from proxy.settings import Key, Model, Moment, NewKey, Provider, Route, Seconds, Settings, Size, Usd

_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_TIMES = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TIME = r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([A-Za-z]+)"
_A_DAY = 86400
_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_USD = r"[0-9]{1,9}(\.[0-9]{1,6})?"
_AS_TABLES = {"budget": '{ usd = "50", per = "month" }'}
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


def read_new_key(table: Table, *, now: float) -> NewKey:
    """A key that a command or an administrator asks for, in the words of [[keys]]; `expires` may be a time from now.

    Raises StartupError, naming the member's path.
    """
    expires = table.get("expires")
    found = re.fullmatch(_TIME, expires) if isinstance(expires, str) else None
    if found and found[2] in _TIMES:
        table = {**table, "expires": Moment(now + float(found[1]) * _TIMES[found[2]])}
    try:
        key = msgspec.convert(table, NewKey, dec_hook=_measure)
    except msgspec.ValidationError as error:
        raise StartupError(_with_path(str(error), table, NewKey)) from None
    check_name("", key.name)
    check_rights("", key)
    if key.expires is not None and key.expires <= now:
        raise StartupError("expires: it has passed already.")
    return key


def read_since(text: str, *, now: float) -> float:
    """A moment in the past, in seconds since the epoch: so long ago, the beginning of a UTC day, or a time of one.

    Raises StartupError.
    """
    found = re.fullmatch(_TIME, text)
    if found and found[2] in _TIMES:
        return max(0.0, now - float(found[1]) * _TIMES[found[2]])
    try:
        return _moment(text) - (_A_DAY if re.fullmatch(_DAY, text) else 0)
    except ValueError:
        told = "a time, such as 12h or 7d, or a day, such as 2026-11-01"
        raise StartupError(f"since: Expected {told}, got {text!r}") from None


def _with_path(message: str, table: Table, root: type[msgspec.Struct] = Settings) -> str:
    """msgspec says "Expected … - at `$.cache.ttl`"; a person looks for the path first."""
    what, _, where = message.partition(" - at `$")
    path = where.strip(".`")
    if "[...]" in path:
        path = path.replace("[...]", "." + _culprit(path.partition("[")[0], table), 1)
    unknown = re.search(r"unknown field `(.+)`", what)
    if unknown:
        return f"{path}{'.' if path else ''}{unknown[1]}: there is no such setting."
    if what.startswith("Expected `object") and path.rpartition(".")[2] in _AS_TABLES:
        what = f"write {_AS_TABLES[path.rpartition('.')[2]]}"
    if what.startswith("Invalid enum value"):
        what = f"must be one of: {', '.join(_choices(path, root))}"
    return f"{path}: {what}" if path else what


def _choices(path: str, root: type[msgspec.Struct]) -> list[str]:
    """What the setting at this path may be. Only the names in _NAMED hold dots, and those stand between."""
    section, name = re.split(r"[.\[]", path)[0], path.rpartition(".")[2].partition("[")[0]
    kinds: Table = {field.name: field.type for field in msgspec.structs.fields(root)} | _NAMED | {"keys": Key}
    return _literals(next(field.type for field in _fields(kinds[section]) if field.name == name))


def _fields(kind: Any) -> Iterator[msgspec.structs.FieldInfo]:
    """The fields of a table, or of one that may be left out, and of those in it."""
    for each in (kind, *get_args(kind)):
        if isinstance(each, type) and issubclass(each, msgspec.Struct):
            for field in msgspec.structs.fields(each):
                yield field
                yield from _fields(field.type)


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
    if kind is Moment:
        return value if isinstance(value, Moment) else Moment(_moment(value))
    if kind is Usd:
        return Usd(_amount(value))
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    raise ValueError(f"Expected {kind.__name__}, got {value!r}")


def _scaled(value: object, units: dict[str, float] | dict[str, int], wanted: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e15:
        return value
    found = re.fullmatch(_TIME, value) if isinstance(value, str) else None
    if found is None or found[2] not in units:
        raise ValueError(f"Expected {wanted}, got {value!r}")
    return float(found[1]) * units[found[2]]


def _moment(value: object) -> float:
    """A day ends in UTC, and what is good until then is good all day."""
    if isinstance(value, str):
        try:
            value = date.fromisoformat(value) if re.fullmatch(_DAY, value) else datetime.fromisoformat(value)
        except ValueError:
            value = None
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.timestamp()
    if isinstance(value, date) and not isinstance(value, datetime):
        return min(datetime(value.year, value.month, value.day, tzinfo=UTC).timestamp() + _A_DAY, LAST)
    raise ValueError("Expected a day, such as 2027-01-31, or a time with its zone, such as 2027-01-31T18:00:00Z")


def _amount(value: object) -> str:
    text = str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not re.fullmatch(_USD, text):
        raise ValueError(f'Expected USD, such as "50" or "0.25", got {value!r}')
    return text
