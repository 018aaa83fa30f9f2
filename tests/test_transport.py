"""What goes out goes out as it is; what goes wrong says whether the provider may have seen the request.

Every provider here is a socket: it notes what came to the byte, and answers in bytes.
"""

import asyncio
import os
import shutil
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from enum import Enum, auto
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import pytest

from bench.soak.reaching import certificate
from proxy.errors import UpstreamConnectError, UpstreamError, UpstreamReset, UpstreamTLSError
from proxy.transport import AiohttpTransport, Body

DEADLINE = 10.0


class Act(Enum):
    """What a provider does besides sending bytes."""

    RESET = auto()  # RST
    CLOSE = auto()  # FIN
    WAIT = auto()  # until the caller has gone


Answer = Iterable[bytes | Act]


def answer(body: bytes = b"{}", *headers: bytes, status: bytes = b"200 OK") -> Answer:
    """A whole answer, after which the connection stays open."""
    head = [b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers]
    return (b"\r\n".join(head) + b"\r\n\r\n" + body,)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class RawProvider:
    """Gives the answers that it was told, one to each request, the last one again and again."""

    def __init__(self, *answers: Answer, tls: ssl.SSLContext | None = None) -> None:
        self._answers = list(answers) or [answer()]
        self._tls = tls
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.requests: list[bytes] = []
        self.connections = 0
        self.came = asyncio.Event()  # a request has come
        self.left = asyncio.Event()  # a caller has closed its connection

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._server.close()
        for writer in self._open.values():
            writer.transport.abort()
        await asyncio.gather(*self._open)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        self.connections += 1
        try:
            while await self._answered(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            self.left.set()
        finally:
            writer.close()

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; False if that was the last on this connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        self.requests.append(head + await reader.readexactly(int(length[0]) if length else 0))
        self.came.set()
        for step in self._answers[min(len(self.requests), len(self._answers)) - 1]:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif step is Act.WAIT:
                await reader.readexactly(1)
            else:
                _end(writer, reset=step is Act.RESET)
                return False
        return True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def named_url(self) -> str:
        """By name: cookies of an address are not kept anywhere."""
        return f"http://localhost:{self.port}"

    def sent(self) -> tuple[bytes, list[bytes], bytes]:
        """The last request: its first line, its other lines sorted, its body."""
        head, _, body = self.requests[-1].partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        return first, sorted(lines), body


def _end(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if reset:
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.close()


def closed_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


@asynccontextmanager
async def transport(connect_timeout: float = DEADLINE) -> AsyncIterator[AiohttpTransport]:
    async with AiohttpTransport(connect_timeout=connect_timeout) as made:
        yield made


def request(url: str, body: bytes = b"{}", *headers: tuple[str, str], method: str = "POST") -> httpx.Request:
    return httpx.Request(method, "http://unused", content=body, extensions={"url": url, "headers": list(headers)})


async def sent_to(
    url: str, *headers: tuple[str, str], body: bytes = b"{}", connect_timeout: float = DEADLINE
) -> tuple[httpx.Response, bytes]:
    """An answer and its body, over a connection of its own."""
    async with transport(connect_timeout) as made:
        response = await made.handle_async_request(request(url, body, *headers))
        return response, await read_all(body_of(response))


def body_of(response: httpx.Response) -> Body:
    assert isinstance(response.stream, Body)
    return response.stream


async def read_all(body: Body) -> bytes:
    try:
        return b"".join([piece async for piece in body])
    finally:
        await body.aclose()


async def failure(
    url: str, *headers: tuple[str, str], body: bytes = b"{}", connect_timeout: float = DEADLINE
) -> UpstreamError:
    """How a request to this address ends."""
    with pytest.raises(UpstreamError) as caught:
        await sent_to(url, *headers, body=body, connect_timeout=connect_timeout)
    return caught.value


TARGETS = [
    "/v1/chat/completions?x=%2F&y=a+b",
    "/v1/a%2Fb/c%20d?%61=%41&&=",
    "/v1/models/ft:gpt-4o:org::abc",
    "/v1/../v1/./x//y/?q=http://h/?r=1",
    "/v1/x?a=1;b=2&c=[]{}|\\^`\"<>'",
    "/v1/%C3%A9?%zz=%",
]


async def test_the_target_goes_out_exactly_as_it_came() -> None:
    async with RawProvider() as provider, transport() as made:
        for target in TARGETS:
            response = await made.handle_async_request(request(provider.url + target))
            assert await read_all(body_of(response)) == b"{}"
        assert [raw.split(b"\r\n")[0] for raw in provider.requests] == [
            b"POST " + target.encode() + b" HTTP/1.1" for target in TARGETS
        ]


async def test_nothing_goes_out_but_what_was_handed_over_and_what_http_needs() -> None:
    async with RawProvider() as provider:
        await sent_to(
            provider.url + "/x", ("authorization", "Bearer a"), ("x-twice", "1"), ("x-twice", "2"), body=b'{"a":1}'
        )
        assert provider.sent() == (
            b"POST /x HTTP/1.1",
            [
                b"Content-Length: 7",
                b"Host: 127.0.0.1:%d" % provider.port,
                b"authorization: Bearer a",
                b"x-twice: 1",
                b"x-twice: 2",
            ],
            b'{"a":1}',
        )


async def test_a_body_of_many_megabytes_goes_out_whole() -> None:
    body = os.urandom(3 << 20)
    async with RawProvider() as provider:
        await sent_to(provider.url, body=body)
        assert provider.sent()[2] == body


async def test_a_request_without_a_body_has_none() -> None:
    async with RawProvider() as provider, transport() as made:
        response = await made.handle_async_request(request(provider.url + "/v1/models", b"", method="GET"))
        await read_all(body_of(response))
        assert provider.sent() == (b"GET /v1/models HTTP/1.1", [b"Host: 127.0.0.1:%d" % provider.port], b"")


async def test_a_set_cookie_is_never_sent_back() -> None:
    async with (
        RawProvider(answer(b"{}", b"set-cookie: session=of-one-client; Path=/")) as provider,
        transport() as made,
    ):
        for _ in range(3):
            response = await made.handle_async_request(request(provider.named_url))
            assert response.headers["set-cookie"].startswith("session=")
            await read_all(body_of(response))
        assert len(provider.requests) == 3
        assert not [raw for raw in provider.requests if b"cookie" in raw.lower()]


async def test_a_redirect_is_not_followed() -> None:
    async with RawProvider() as elsewhere, RawProvider() as provider:
        provider._answers = [answer(b"", b"location: " + elsewhere.url.encode(), status=b"307 Temporary Redirect")]
        response, _ = await sent_to(provider.url)
        assert (response.status_code, response.headers["location"]) == (307, elsewhere.url)
        assert elsewhere.connections == 0


async def test_an_encoding_is_left_as_it_is() -> None:
    async with RawProvider(answer(b"\x1f\x8b not decoded", b"content-encoding: gzip")) as provider:
        response, body = await sent_to(provider.url)
        assert (response.headers["content-encoding"], body) == ("gzip", b"\x1f\x8b not decoded")


async def test_a_proxy_that_the_environment_names_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    async with RawProvider() as provider:
        assert (await sent_to(provider.url))[1] == b"{}"


async def test_headers_come_as_the_provider_sent_them() -> None:
    async with RawProvider(answer(b"{}", b"X-Odd: \xe9", b"x-twice: 1", b"X-Twice: 2")) as provider:
        response, _ = await sent_to(provider.url)
        assert [pair for pair in response.headers.raw if pair[0].lower().startswith(b"x-")] == [
            (b"X-Odd", b"\xe9"),
            (b"x-twice", b"1"),
            (b"X-Twice", b"2"),
        ]


async def test_pieces_are_read_as_they_arrive_and_a_clean_end_is_empty() -> None:
    async with RawProvider((CHUNKED, chunk(b"one"), Act.WAIT)) as provider, transport() as made:
        body = body_of(await made.handle_async_request(request(provider.url)))
        assert await body.read() == b"one"
        body.close()
    async with RawProvider((CHUNKED, chunk(b"one"), chunk(b"two"), b"0\r\n\r\n")) as provider, transport() as made:
        body = body_of(await made.handle_async_request(request(provider.url)))
        assert b"".join([piece async for piece in body]) == b"onetwo"
        assert await body.read() == b""
        body.close()


async def test_a_connection_is_kept_once_its_answer_was_read_and_closed_before() -> None:
    async with RawProvider(answer(), answer(), (CHUNKED, chunk(b"x"), Act.WAIT)) as provider, transport() as made:
        for _ in range(2):
            await read_all(body_of(await made.handle_async_request(request(provider.url))))
        assert provider.connections == 1
        body = body_of(await made.handle_async_request(request(provider.url)))
        await body.read()
        assert not provider.left.is_set()
        body.close()
        async with asyncio.timeout(DEADLINE):
            await provider.left.wait()


async def test_a_call_that_is_given_up_closes_its_connection() -> None:
    async with RawProvider((Act.WAIT,)) as provider, transport() as made:
        calling = asyncio.create_task(made.handle_async_request(request(provider.url)))
        await provider.came.wait()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        async with asyncio.timeout(DEADLINE):
            await provider.left.wait()


async def test_where_nobody_listens_nothing_was_sent() -> None:
    error = await failure(f"http://127.0.0.1:{closed_port()}/v1")
    assert type(error) is UpstreamConnectError
    assert (error.status, error.code, error.retry) == (502, "upstream_connect_error", None)


async def test_a_provider_that_does_not_take_the_connection_in_time_was_sent_nothing() -> None:
    with socket.socket() as listener:  # its queue is one connection long, and nobody takes any
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        with socket.create_connection(listener.getsockname()):
            error = await failure(f"http://127.0.0.1:{listener.getsockname()[1]}", connect_timeout=0.02)
    assert type(error) is UpstreamConnectError


LOST: dict[str, Answer] = {
    "closed without a word": (Act.CLOSE,),
    "reset without a word": (Act.RESET,),
    "closed in the head": (b"HTTP/1.1 200 OK\r\ncontent-", Act.CLOSE),
    "reset after the head": (CHUNKED, Act.RESET),
    "reset in the body": (CHUNKED, chunk(b"one"), Act.RESET),
    "closed in the body": (CHUNKED, chunk(b"one"), Act.CLOSE),
    "closed before the promised length": (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nfour", Act.CLOSE),
    "a chunk of nonsense": (CHUNKED, b"zz\r\nnonsense\r\n", Act.WAIT),
    "not HTTP at all": (b"220 mail.example.org ESMTP\r\n", Act.WAIT),
    "TLS where there should be none": (b"\x15\x03\x01\x00\x02\x02\x16", Act.CLOSE),
    "an endless header": (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000, Act.WAIT),
}


@pytest.mark.parametrize("steps", LOST.values(), ids=LOST)
async def test_what_is_lost_after_it_was_sent_says_so_and_is_not_sent_again(steps: Answer) -> None:
    async with RawProvider(steps) as provider:
        error = await failure(provider.url)
        assert type(error) is UpstreamReset
        assert (error.status, error.code, error.retry) == (502, "upstream_reset", False)
        assert len(provider.requests) == 1


async def test_a_kept_connection_that_the_provider_closes_upon_a_request_is_lost_too() -> None:
    async with RawProvider(answer(), (Act.CLOSE,)) as provider, transport() as made:
        await read_all(body_of(await made.handle_async_request(request(provider.url))))
        with pytest.raises(UpstreamReset):
            await made.handle_async_request(request(provider.url))
        assert len(provider.requests) == 2


async def test_an_error_tells_nothing_of_the_request() -> None:
    secret = "sk-very-secret"
    for steps in LOST.values():
        async with RawProvider(steps) as provider:
            error = await failure(f"{provider.url}/?key={secret}", ("authorization", secret), body=secret.encode())
            assert secret not in str(error)


GOOD = ("200101000000Z", "491231235959Z")
PAST = ("200101000000Z", "200201000000Z")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Self-signed ones for localhost, each with its key in one file."""
    if shutil.which("openssl") is None:
        assert os.environ.get("CI") != "true", "CI must have openssl"
        pytest.skip("no openssl to make a certificate with")
    dates = {"good": GOOD, "expired": PAST}
    return {name: certificate(tmp_path_factory.mktemp(name) / "made", each) for name, each in dates.items()}


def tls_of(certificates: dict[str, Path], name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates[name])
    return context


async def tls_failure(url: str) -> UpstreamError:
    error = await failure(url)
    assert type(error) is UpstreamTLSError
    assert (error.status, error.code, error.retry) == (502, "upstream_tls_error", None)
    return error


async def test_a_certificate_that_is_trusted_is_accepted(
    certificates: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates["good"]))
    async with RawProvider(tls=tls_of(certificates, "good")) as provider:
        assert (await sent_to(f"https://localhost:{provider.port}"))[1] == b"{}"


async def test_a_self_signed_certificate_is_refused_before_anything_is_sent(certificates: dict[str, Path]) -> None:
    async with RawProvider(tls=tls_of(certificates, "good")) as provider:
        error = await tls_failure(f"https://localhost:{provider.port}")
        assert "self-signed certificate" in error.detail.replace("self signed", "self-signed")
        assert provider.requests == []


async def test_an_expired_certificate_is_refused_though_its_maker_is_trusted(
    certificates: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates["expired"]))
    async with RawProvider(tls=tls_of(certificates, "expired")) as provider:
        assert "expired" in (await tls_failure(f"https://localhost:{provider.port}")).detail
        assert provider.requests == []


async def test_a_certificate_of_another_name_is_refused(
    certificates: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates["good"]))
    async with RawProvider(tls=tls_of(certificates, "good")) as provider:
        await tls_failure(f"https://127.0.0.1:{provider.port}")
        assert provider.requests == []


async def test_a_provider_that_speaks_no_tls_is_refused() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await reader.read()
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        await tls_failure(f"https://localhost:{server.sockets[0].getsockname()[1]}")
