"""The engine under httpx: aiohttp's connections behind httpx's transport interface.

httpx's own pool polls every idle socket at each request and leaks slots when a request is cancelled while it connects;
aiohttp's does neither. What this transport adds: the target goes out exactly as it came (httpx collapses `..`, aiohttp
decodes `%2F`), and every error says whether the request may have been sent.
"""

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import cast

import aiohttp
import httpx
from yarl import URL

from proxy.errors import UpstreamConnectError, UpstreamReset, UpstreamTLSError

KEEP_ALIVE = 4.0  # seconds; shorter than servers' own (5 is common): a kept connection is rarely one they just closed

LARGE = 256 * 1024  # bytes
READ_AHEAD = 32 * 1024  # bytes of an answer that nobody has asked for yet; up to twice as many are held


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Build it inside a running event loop. Raises Penstock's errors, not httpx's; never decodes or redirects.

    A request's `extensions` hold the `url` and the `headers` as they go out. A body that is iterated, is so once;
    without a Content-Length it goes out in chunks.
    """

    def __init__(self, *, connect_timeout: float) -> None:
        self._timeout = aiohttp.ClientTimeout(total=None, connect=connect_timeout, sock_connect=connect_timeout)
        self._session = aiohttp.ClientSession(
            # limit=0: no bound of the pool's own; how many calls may be under way is decided before they get here.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE, ssl=ssl.create_default_context()),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=READ_AHEAD,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        with _mapped():
            response = await self._session.request(
                request.method,
                URL(request.extensions["url"], encoded=True),
                headers=request.extensions["headers"],
                data=_pieces(request),
                allow_redirects=False,
                timeout=self._timeout,
            )
        return httpx.Response(response.status, headers=response.raw_headers, stream=Body(response))

    async def aclose(self) -> None:
        await self._session.close()


def _pieces(request: httpx.Request) -> bytes | BytesIO | httpx.AsyncByteStream | None:
    """aiohttp writes bytes in one go; a large body would keep the loop from everything else."""
    if not isinstance(request.stream, httpx.ByteStream):
        return cast("httpx.AsyncByteStream", request.stream)
    content = request.content
    return BytesIO(content) if len(content) > LARGE else content or None


class Body(httpx.AsyncByteStream):
    """The body as it arrives; `read` spares the generators that httpx would put around each piece."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._content = response.content

    async def read(self) -> bytes:
        """What has arrived, as soon as anything has; empty at a clean end of HTTP. Raises UpstreamReset."""
        try:
            return await self._content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise _lost(error) from error

    def close(self) -> None:
        """Before the end this closes the connection, so that the provider stops; after it, the connection is kept."""
        if self._content.is_eof():
            self._response.release()
        else:
            self._response.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.read():
            yield piece

    async def aclose(self) -> None:
        self.close()


@contextmanager
def _mapped() -> Iterator[None]:
    """aiohttp's errors as ours. Order matters: the first three say that nothing was sent."""
    try:
        yield
    except aiohttp.ClientSSLError as error:
        raise UpstreamTLSError("The provider's certificate or TLS was not accepted.", detail=str(error)) from error
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise UpstreamConnectError("The provider could not be reached.", detail=str(error)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise _lost(error) from error


def _lost(error: Exception) -> UpstreamReset:
    return UpstreamReset("The connection to the provider was lost.", detail=type(error).__name__)
