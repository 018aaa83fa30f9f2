"""A request that Penstock does not understand, on its way to the provider: what of it goes out, what comes back.

Rule: the path and the query go out as they came; of the headers only those that are listed here, in both directions.
"""

from collections.abc import Iterable, Mapping

import msgspec

from proxy.core.call import ACCOUNT, CREDENTIALS, Headers, chosen
from proxy.core.recording import passed_headers

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
    """`raw_path` begins with PREFIX; `forward` are the headers that every provider sees."""
    target = raw_path.removeprefix(PREFIX) + (b"?" + query if query else b"")
    length = headers.get(b"content-length", b"0")
    return Passage(
        method=method,
        target=target.decode("latin-1"),
        headers=chosen(headers, (*_SENT, *forward)),
        credentials=chosen(headers, CREDENTIALS),
        account=chosen(headers, ACCOUNT),
        has_body=b"transfer-encoding" in headers or length.strip(b"0") != b"",
    )


def returned_headers(headers: Mapping[str, str]) -> Pairs:
    """Of a provider's headers (lower-case) those that clients see of an answer that is passed through."""
    listed = tuple((name.encode(), headers[name].encode("latin-1")) for name in _RETURNED if name in headers)
    return listed + passed_headers(headers)
