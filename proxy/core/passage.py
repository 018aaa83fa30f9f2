"""A request that Penstock does not understand, on its way to the provider: what of it goes out, what comes back.

Rule: the path and the query go out as they came; of the headers only those that are listed here, in both directions.
"""

from collections.abc import Iterable, Mapping

import msgspec

from proxy.core.call import ACCOUNT, CREDENTIALS, Headers, announces_body, chosen
from proxy.core.recording import is_sendable, passed_headers
from proxy.errors import InvalidRequest

Pairs = tuple[tuple[bytes, bytes], ...]

PREFIX = b"/v1"
_SENT = b"""
accept content-disposition content-encoding content-language content-length content-type idempotency-key if-match
if-modified-since if-none-match if-range if-unmodified-since range
""".split()
_RETURNED = """
accept-ranges allow cache-control content-disposition content-encoding content-language content-length content-range
content-type etag expires last-modified location vary
""".split()


class Passage(msgspec.Struct, frozen=True):
    """`target`: path and query as they follow a provider's base URL. `has_body`: one is announced, of any length."""

    method: str
    target: str
    headers: Pairs
    credentials: Pairs
    account: Pairs
    has_body: bool


def read_passage(method: str, raw_path: bytes, query: bytes, headers: Headers, forward: Iterable[bytes]) -> Passage:
    """`raw_path` begins with PREFIX; `forward` are the headers that every provider sees. Raises InvalidRequest."""
    target = raw_path.removeprefix(PREFIX) + (b"?" + query if query else b"")
    if headers.get(b"transfer-encoding", b"chunked").lower() != b"chunked":
        raise InvalidRequest("A body may come in chunks, and in no other `Transfer-Encoding`.")
    return Passage(
        method=method,
        target=target.decode("latin-1"),
        headers=chosen(headers, (*_SENT, *forward)),
        credentials=chosen(headers, CREDENTIALS),
        account=chosen(headers, ACCOUNT),
        has_body=announces_body(headers),
    )


def deleted_response(passage: Passage) -> str | None:
    """The name of the stored Response that this is to delete; None: it is something else."""
    path = passage.target.partition("?")[0]
    name = path.removeprefix("/responses/")
    return name if passage.method == "DELETE" and name and name != path and "/" not in name else None


def returned_headers(headers: Mapping[str, str]) -> Pairs:
    """Of a provider's headers (lower-case) those that clients see of an answer that is passed through."""
    listed = [(name, headers[name]) for name in _RETURNED if name in headers]
    sent = tuple((name.encode(), value.encode("latin-1")) for name, value in listed if is_sendable(value))
    return sent + passed_headers(headers)
