"""The form that an answer must have: any JSON object, or one that fits a schema."""

import msgspec

from proxy.simulator.errors import ApiError
from proxy.simulator.request import Json

_JSON_OBJECT: Json = {
    "type": "object",
    "properties": {
        "answer": {"type": "string"},
        "words": {"type": "array", "items": {"type": "string"}},
        "count": {"type": "integer", "minimum": 0},
        "sure": {"type": "boolean"},
    },
}


class Form(msgspec.Struct, frozen=True):
    """`param`: the member of the request that a schema without sense is blamed on."""

    schema: Json
    param: str


def form(wanted: Json, definition: object, param: str, place: str) -> Form | None:
    """None where text is wanted. `definition`: of a schema, which stands in the request at `place`."""
    match wanted.get("type", "text"):
        case "text":
            return None
        case "json_object":
            return Form(_JSON_OBJECT, param)
        case "json_schema":
            return Form(_schema(definition, place), param)
        case other:
            message = f"Invalid value: '{other}'. Supported values are: 'json_object', 'json_schema', and 'text'."
            raise ApiError(400, message, param=f"{param}.type", code="invalid_value")


def _schema(given: object, place: str) -> Json:
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        message = f"Missing required parameter: '{place}.name'."
        raise ApiError(400, message, param=f"{place}.name", code="missing_required_parameter")
    schema = given.get("schema")
    return schema if isinstance(schema, dict) else _JSON_OBJECT
