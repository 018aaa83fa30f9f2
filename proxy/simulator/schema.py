"""A JSON value that fits a JSON schema, as far as the schema is made of simple types."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from proxy.simulator.errors import ApiError
from proxy.simulator.text import Dice, words

# A schema may contain itself: from this depth on only what is required is filled in, and lists stay empty.
_DEEP = 6
# Deeper than this a schema that requires itself can never be satisfied.
_BOTTOM = 40

_FORMATS: Mapping[str, str] = MappingProxyType(
    {
        "date-time": "2025-03-14T09:26:53Z",
        "date": "2025-03-14",
        "time": "09:26:53Z",
        "duration": "PT20M",
        "email": "miller@example.com",
        "uuid": "6f0c2c4e-5b0a-4d52-9c57-2c5a3f3d1b7e",
        "uri": "https://example.com/sluice",
        "hostname": "example.com",
        "ipv4": "192.0.2.1",
        "ipv6": "2001:db8::1",
    }
)

# What a schema whose members have the wrong types ends in.
_SENSELESS = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError)

_Maker = Callable[[Mapping[str, Any], int], Any]


def fitting_text(schema: Mapping[str, Any], dice: Dice, param: str) -> str:
    """JSON text of a value that fits; ApiError 400 naming `param` where the schema makes no sense."""
    try:
        return msgspec.json.encode(Fitting(schema, dice).value()).decode()
    except _SENSELESS as error:
        raise ApiError(400, f"Invalid schema: {error}", param=param, code="invalid_schema") from None


class Fitting:
    """Makes values for one schema document; `$ref` is looked up in it."""

    def __init__(self, root: Mapping[str, Any], dice: Dice) -> None:
        self._root = root
        self._dice = dice
        self._makers: Mapping[str, _Maker] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": self._integer,
            "number": self._number,
            "boolean": self._boolean,
            "null": self._null,
        }

    def value(self) -> Any:
        return self._fit(self._root, 0)

    def _fit(self, schema: Any, depth: int) -> Any:
        if not isinstance(schema, dict) or depth > _BOTTOM:
            return words(self._dice, 2)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._dice.pick(schema["enum"])
        if "$ref" in schema:
            return self._fit(self._resolve(schema["$ref"]), depth + 1)
        for several in ("anyOf", "oneOf", "allOf"):
            if schema.get(several):
                return self._fit(self._one_of(schema[several], depth), depth + 1)
        maker: _Maker = self._makers.get(_type_of(schema), self._string)
        return maker(schema, depth)

    def _one_of(self, schemas: list[Any], depth: int) -> Any:
        # What may be null is mostly written [the type, null]: the deep end of a recursion takes the last.
        return schemas[-1] if depth >= _DEEP else schemas[0]

    def _resolve(self, ref: str) -> Any:
        found: Any = self._root
        for step in ref.removeprefix("#").strip("/").split("/"):
            if step:
                found = found.get(step) if isinstance(found, dict) else None
        return found

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties: Mapping[str, Any] = schema.get("properties") or {}
        required = schema.get("required") or ()
        names = [name for name in properties if depth < _DEEP or name in required]
        return {name: self._fit(properties[name], depth + 1) for name in names}

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        least = int(schema.get("minItems", 0))
        most = int(schema.get("maxItems", least + 3))
        length = least if depth >= _DEEP else min(most, max(least, 1 + self._dice.below(3)))
        return [self._fit(schema.get("items", {}), depth + 1) for _ in range(length)]

    def _string(self, schema: Mapping[str, Any], _depth: int) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        text = words(self._dice, 1 + self._dice.below(4))
        least = int(schema.get("minLength", 0))
        while len(text) < least:
            text += " " + words(self._dice, 1)
        return text[: int(schema.get("maxLength", len(text)))]

    def _boolean(self, _schema: Mapping[str, Any], _depth: int) -> bool:
        return bool(self._dice.below(2))

    def _null(self, _schema: Mapping[str, Any], _depth: int) -> None:
        return None

    def _integer(self, schema: Mapping[str, Any], _depth: int) -> int:
        low, high = _bounds(schema, 1)
        step = int(schema.get("multipleOf", 1)) or 1
        first = -(-int(-(-low // 1)) // step) * step
        count = max(1, (int(high // 1) - first) // step + 1)
        return first + step * self._dice.below(count)

    def _number(self, schema: Mapping[str, Any], _depth: int) -> float:
        low, high = _bounds(schema, 0.5)
        return round(low + (high - low) * self._dice.below(1000) / 1000, 3)


def _type_of(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        return next((str(name) for name in kind if name != "null"), "null")
    return str(kind or ("object" if "properties" in schema else "string"))


def _bounds(schema: Mapping[str, Any], inside: float) -> tuple[float, float]:
    """Least and greatest value; `inside` is how far an exclusive bound is kept off."""
    low = schema.get("minimum", schema.get("exclusiveMinimum", -inside) + inside)
    high = schema.get("maximum", schema.get("exclusiveMaximum", low + 100 + inside) - inside)
    return low, max(low, high)
