"""Every error that Penstock answers in its own words, and the shape in which clients see it.

    PenstockError                    500  api_error
    ├── InvalidRequest               400  invalid_request_error
    │   ├── RequestTimeout           408  a head or a body that does not come
    │   ├── BodyTooLarge             413
    │   ├── HeadersTooLarge          431
    │   ├── UnsupportedEncoding      415  (an encoded body)
    │   ├── UnsupportedMediaType     415  (a body that does not say it is JSON)
    │   └── PreviousResponseNotFound 400  a Response that was made for another key
    ├── Unauthorized                 401  no key that is in force
    ├── Forbidden                    403  a foreign Origin, a Host that is not ours, a path that the key may not use
    │   ├── ModelNotAllowed          403  a model that the key may not call
    │   └── ModelNotPriced           403  a key with a budget, and no model whose price is known
    ├── NotFound                     404
    ├── MethodNotAllowed             405
    ├── NotCached                    504  only-if-cached and nothing is
    ├── NoModelFits                  400  no model of a route can do what the request needs
    ├── OverCostCap                  400  every model may cost more than the request allows
    ├── RateLimited                  429  a key, or a provider, is at its limit
    │   ├── OverLimit                429  a request that is larger than the whole limit
    │   └── QueueTimeout             429  its turn at the provider did not come in time
    ├── InsufficientQuota            429  the key's budget does not allow it
    ├── LedgerUnavailable            503  a key with a budget, and nothing can be written down
    ├── NoWebSocket                  501
    ├── Overloaded                   503  too much is under way
    ├── ShuttingDown                 503
    └── UpstreamError                502
        ├── UpstreamConnectError     502  nothing was sent
        ├── UpstreamTLSError         502  nothing was sent
        ├── UpstreamAuthError        502  the provider refused the operator's key
        ├── UpstreamUnavailable      503  it failed too often just now, and is not asked
        ├── UpstreamBadContentType   502  HTML, a redirect, an encoding that was not asked for
        ├── UpstreamTooLarge         502  one event over its bound
        ├── UpstreamReset            502  lost after it was sent
        ├── UpstreamTruncated        502  ended before it was whole
        ├── UpstreamFailed           502  a stream that begins with an error: in the provider's words
        ├── UpstreamStall            504  silent after it began
        └── UpstreamTimeout          504  nothing came in time

    StartupError                     not an answer: one line for the person who starts Penstock, exit 78
    └── DirectoryInUse               another process has the data directory

The shape is OpenAI's: `{"error": {"message", "type", "param", "code"}}`. `retry = False` is sent as
`x-should-retry: false`: a call that may have been paid is not worth paying twice.
"""

import json
from collections.abc import Mapping

import msgspec


class PenstockError(Exception):
    """Carries what the edge must send; `message` is written for the person who reads it in a stack trace."""

    status: int = 500
    type: str = "api_error"
    code: str | None = "internal_error"
    retry: bool | None = None

    def __init__(self, message: str, *, param: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after

    def body(self) -> bytes:
        """The error as JSON, OpenAI's shape."""
        return told({"message": self.message, "type": self.type, "param": self.param, "code": self.code})


def told(error: Mapping[str, object]) -> bytes:
    """As JSON. A provider's words may hold half a character, which msgspec refuses to write."""
    try:
        return msgspec.json.encode({"error": error})
    except UnicodeEncodeError:
        return json.dumps({"error": error}).encode()


class InvalidRequest(PenstockError):
    status = 400
    type = "invalid_request_error"
    code: str | None = None


class PreviousResponseNotFound(InvalidRequest):
    code = "previous_response_not_found"


class RequestTimeout(InvalidRequest):
    status = 408
    code = "request_timeout"


class HeadersTooLarge(InvalidRequest):
    status = 431
    code = "request_headers_too_large"


class BodyTooLarge(InvalidRequest):
    status = 413
    code = "request_too_large"


class UnsupportedEncoding(InvalidRequest):
    status = 415
    code = "unsupported_content_encoding"


class UnsupportedMediaType(InvalidRequest):
    status = 415
    code = "unsupported_media_type"


class Unauthorized(PenstockError):
    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class Forbidden(PenstockError):
    status = 403
    type = "invalid_request_error"
    code = "forbidden"


class ModelNotAllowed(Forbidden):
    code = "model_not_allowed"
    retry = False


class ModelNotPriced(Forbidden):
    code = "model_not_priced"
    retry = False


class NotFound(PenstockError):
    status = 404
    type = "invalid_request_error"
    code = "not_found"


class MethodNotAllowed(PenstockError):
    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class NotCached(PenstockError):
    status = 504
    type = "invalid_request_error"
    code = "not_cached"
    retry = False


class NoModelFits(PenstockError):
    status = 400
    type = "invalid_request_error"
    code = "no_model_fits"
    retry = False


class OverCostCap(PenstockError):
    status = 400
    type = "invalid_request_error"
    code = "max_cost_exceeded"
    retry = False


class RateLimited(PenstockError):
    """`of`: requests or tokens, as OpenAI's errors say in their `type`."""

    status = 429
    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, of: str = "requests", retry_after: float | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.type = of


class OverLimit(RateLimited):
    code = "request_over_limit"
    retry = False


class QueueTimeout(RateLimited):
    code = "queue_timeout"


class InsufficientQuota(PenstockError):
    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"
    retry = False


class LedgerUnavailable(PenstockError):
    status = 503
    code = "ledger_unavailable"


class NoWebSocket(PenstockError):
    status = 501
    type = "invalid_request_error"
    code = "websocket_not_supported"
    retry = False


class Overloaded(PenstockError):
    status = 503
    code = "overloaded"

    def __init__(self, message: str) -> None:
        super().__init__(message + " Try again in a moment.", retry_after=1)


class ShuttingDown(PenstockError):
    status = 503
    code = "shutting_down"


class UpstreamError(PenstockError):
    """`detail` is for the log only: it may name what clients need not know."""

    status = 502
    type = "upstream_error"
    code = "upstream_error"

    def __init__(self, message: str, *, detail: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.detail = detail


class UpstreamConnectError(UpstreamError):
    code = "upstream_connect_error"


class UpstreamTLSError(UpstreamError):
    code = "upstream_tls_error"


class UpstreamAuthError(UpstreamError):
    """In our words: the provider's may quote the key."""

    code = "upstream_auth_error"
    retry = False

    def __init__(self, provider: str) -> None:
        super().__init__(f"The provider {provider!r} refused the key that this proxy is configured with.")


class UpstreamUnavailable(UpstreamError):
    """Nobody was asked: what may answer failed too often just now. `seconds`: until one of it is tried again.

    `reasons`: why each model is not asked.
    """

    status = 503
    code = "upstream_unavailable"

    def __init__(self, seconds: float, reasons: str = "") -> None:
        said = "has failed too often just now" if seconds else "cannot be asked now"
        why = f" ({reasons})" if reasons else ""
        super().__init__(f"Every model that may answer this {said}{why}.", retry_after=max(1.0, seconds))


class UpstreamBadContentType(UpstreamError):
    """`answered`: it is an answer, and is paid, but in a form that was not asked for."""

    code = "upstream_bad_content_type"
    retry = False

    def __init__(self, message: str, *, answered: bool = False) -> None:
        super().__init__(message)
        self.answered = answered


class UpstreamTooLarge(UpstreamError):
    code = "upstream_event_too_large"
    retry = False


class UpstreamReset(UpstreamError):
    code = "upstream_reset"
    retry = False


class UpstreamTruncated(UpstreamError):
    code = "upstream_truncated"
    retry = False


class UpstreamFailed(UpstreamError):
    """`said` is the `error` member of the provider's event."""

    def __init__(self, said: object) -> None:
        error = said if isinstance(said, dict) else {"message": str(said)}
        super().__init__(str(error.get("message") or "The provider reported an error."))
        self.said = error
        code = error.get("code")
        if type(code) is int and 400 <= code <= 599:
            self.status = code

    def body(self) -> bytes:
        return told(self.said)


class UpstreamStall(UpstreamError):
    status = 504
    code = "upstream_stall"
    retry = False


class UpstreamTimeout(UpstreamError):
    status = 504
    code = "upstream_timeout"
    retry = False


def late_answer(seconds: float) -> UpstreamTimeout:
    return UpstreamTimeout(
        f"The provider did not answer within {seconds:g} seconds. The request may have been paid for."
    )


class StartupError(Exception):
    """Penstock cannot start as it was told to; the message names the setting's path and what to do."""


class DirectoryInUse(StartupError):
    """Another process has the data directory."""
