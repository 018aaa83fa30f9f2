"""Refusals, in OpenAI's shape and words."""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

# What OpenAI says by status: type, code, message.
_WORDS: Mapping[int, tuple[str, str | None, str]] = MappingProxyType(
    {
        400: ("invalid_request_error", None, "The simulator was told to refuse this request."),
        401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
        403: ("invalid_request_error", "unsupported_country_region_territory", "Country not supported."),
        404: ("invalid_request_error", "model_not_found", "The model does not exist."),
        408: ("invalid_request_error", "request_timeout", "The request took too long."),
        409: ("invalid_request_error", "conflict", "The resource was changed by another request."),
        413: ("invalid_request_error", "request_too_large", "The request is too large."),
        429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests."),
        500: ("server_error", None, "The server had an error while processing your request. Sorry about that!"),
        503: ("server_error", "overloaded", "The engine is currently overloaded, please try again later."),
    }
)


class ApiError(Exception):
    """An answer other than 200. `headers`: names in lower case, both sides ASCII."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = headers

    def body(self, *, detail: bool = False) -> bytes:
        """`{"error": {"message", "type", "param", "code"}}`, or `{"detail": message}` as FastAPI's servers say it."""
        if detail:
            return msgspec.json.encode({"detail": self.message})
        kind = told_type(self.status)
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})


def told_type(status: int) -> str:
    """The error's `type` for this status."""
    fallback = "server_error" if status >= 500 else "invalid_request_error"
    return _WORDS[status][0] if status in _WORDS else fallback


def on_demand(status: int, headers: tuple[tuple[str, str], ...]) -> ApiError:
    """The error that `status=…` asks for."""
    _, code, message = _WORDS.get(status, (None, None, f"The simulator was told to answer {status}."))
    return ApiError(status, message, code=code, headers=headers)
