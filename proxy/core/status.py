"""The `Cache-Status` of an answer (RFC 9211).

Rule: says what the cache did and why, never the key.
"""

from proxy.core.policy import Verdict

_COMMON = frozenset({400, 401, 402, 403, 404, 408, 409, 413, 415, 422, 424, 429, 500, 502, 503, 504, 529})
_OURS = frozenset({0, 200, 201, 204, 206, 301, 302, 304, 307, 405, 431, 499, 501})  # and what passes through often
_LABELS = {status: str(status) for status in _COMMON | _OURS}


def hit_status(left: float, *, stale: bool) -> bytes:
    """An answer out of the store; `left` in seconds, negative once it has expired."""
    return b"penstock; hit; ttl=%d%s" % (left, b"; detail=stale-if-error" if stale else b"")


def forward_status(
    verdict: Verdict, *, found_stale: bool, collapsed: bool, stored: bool, partial: bool = False
) -> bytes:
    """An answer from the provider; `stored`: it will be kept if it turns out whole; `partial`: some of it was known."""
    why = b"partial" if partial else b"miss" if collapsed else _why(verdict, found_stale)
    return b"penstock; fwd=" + why + (b"; collapsed" if collapsed else b"; stored" if stored else b"")


def unanswered_status() -> bytes:
    """Nothing stored will do, and only that was asked for."""
    return b"penstock; detail=only-if-cached"


def passed_status() -> bytes:
    """The cache has no part in it."""
    return b"penstock; fwd=bypass; detail=passthrough"


def result_of(status: int) -> str:
    """How a call to a provider ended that was answered, as a label: the status where it is a common one."""
    if status < 400:
        return "ok"
    return f"status_{status}" if status in _COMMON else f"status_{status // 100}xx"


def status_label(status: int) -> str:
    """Of an answer, as a label: a rare one, of which a provider may invent hundreds, by its class."""
    return _LABELS.get(status) or f"{status // 100}xx"


def _why(verdict: Verdict, found_stale: bool) -> bytes:
    if verdict.reason == "no-cache":
        return b"request"
    if verdict.reason is not None:
        return b"bypass; detail=" + verdict.reason.encode()
    return b"stale" if found_stale else b"miss"
