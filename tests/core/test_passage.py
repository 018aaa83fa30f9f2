"""What of a request that is passed through goes out, and what of its answer comes back."""

import pytest

from proxy.core.call import Headers
from proxy.core.passage import Passage, read_passage, returned_headers
from proxy.errors import InvalidRequest


def passage(path: bytes = b"/v1/files", query: bytes = b"", headers: Headers | None = None) -> Passage:
    return read_passage("POST", path, query, headers or {}, (b"openai-beta",))


@pytest.mark.parametrize(
    ("path", "query", "target"),
    [
        (b"/v1/files", b"", "/files"),
        (b"/v1/models/ft:gpt-4o:org::abc", b"", "/models/ft:gpt-4o:org::abc"),
        (b"/v1/a%2Fb/../c//d", b"x=%2F&y=+&z", "/a%2Fb/../c//d?x=%2F&y=+&z"),
        (b"/v1/v1/files", b"", "/v1/files"),
        (b"/v1/@evil.example/x", b"a=http://evil.example", "/@evil.example/x?a=http://evil.example"),
    ],
)
def test_a_target_goes_out_as_it_came(path: bytes, query: bytes, target: str) -> None:
    assert passage(path, query).target == target


def test_only_listed_headers_go_out() -> None:
    listed = {b"content-type": b"text/plain", b"range": b"bytes=1-", b"if-none-match": b'"x"', b"openai-beta": b"a=v2"}
    account = {b"authorization": b"Bearer k", b"api-key": b"k", b"openai-project": b"p"}
    others = {
        b"cookie": b"a=b",
        b"connection": b"x-hop",
        b"x-hop": b"1",
        b"host": b"h",
        b"te": b"trailers",
        b"x-stainless-lang": b"python",
        b"x-forwarded-for": b"1.2.3.4",
        b"expect": b"100-continue",
        b"accept-encoding": b"gzip",
        b"transfer-encoding": b"chunked",
        b"proxy-authorization": b"x",
    }
    found = passage(headers={**listed, **account, **others})
    assert dict(found.headers) == listed
    assert dict(found.credentials) == {b"authorization": b"Bearer k", b"api-key": b"k"}
    assert dict(found.account) == {b"openai-project": b"p"}


@pytest.mark.parametrize(
    ("headers", "has_body"),
    [
        ({}, False),
        ({b"content-length": b"0"}, False),
        ({b"content-length": b"00"}, False),
        ({b"content-length": b"10"}, True),
        ({b"transfer-encoding": b"chunked"}, True),
    ],
)
def test_a_body_is_what_is_announced(headers: Headers, has_body: bool) -> None:
    assert passage(headers=headers).has_body is has_body


def test_a_body_in_another_framing_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        passage(headers={b"transfer-encoding": b"gzip, chunked"})
    assert passage(headers={b"transfer-encoding": b"Chunked"}).has_body


@pytest.mark.parametrize(("value", "sent"), [("a\tb", True), ("Grüße", True), ("a\x01b", False), ("a\x7f", False)])
def test_what_no_header_may_say_does_not_come_back(value: str, sent: bool) -> None:
    assert bool(returned_headers({"etag": value})) is sent


def test_only_listed_headers_come_back() -> None:
    listed = {"content-type": "text/plain", "content-range": "bytes 0-1/2", "etag": '"x"', "location": "/v1/x"}
    passed = {"x-request-id": "req_1", "openai-version": "2020", "x-ratelimit-limit-requests": "1", "retry-after": "2"}
    others = {
        "set-cookie": "a=b",
        "connection": "close",
        "server": "x",
        "transfer-encoding": "chunked",
        "alt-svc": "h3",
    }
    found = dict(returned_headers({**listed, **passed, **others}))
    assert {name.decode(): value.decode() for name, value in found.items()} == {**listed, **passed}
