"""What a provider is sent, when it is sent once more, and that nothing of one client goes out in another's call."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.call import Call, read_call
from proxy.core.routing import Target
from proxy.errors import (
    UpstreamAuthError,
    UpstreamBadContentType,
    UpstreamConnectError,
    UpstreamError,
    UpstreamReset,
    UpstreamTimeout,
    UpstreamTLSError,
)
from proxy.recorder import head_of
from proxy.settings import Provider
from proxy.transport import AiohttpTransport
from proxy.upstream import HttpReply, Upstream, outgoing_body
from tests.test_transport import CHUNKED, DEADLINE, Act, Answer, RawProvider, answer, chunk, closed_port

CLIENT = {
    b"authorization": b"Bearer sk-client",
    b"api-key": b"azure-client",
    b"openai-organization": b"org-client",
    b"openai-project": b"proj-client",
    b"openai-beta": b"v2",
    b"cookie": b"session=1",
    b"user-agent": b"OpenAI/Python",
    b"x-stainless-lang": b"python",
    b"x-forwarded-for": b"10.0.0.1",
    b"accept-encoding": b"gzip",
}
REFUSAL = b'{"error":{"message":"Unrecognized request argument supplied: stream_options"}}'


class FixedClock:
    def wall(self) -> float:
        return 1_700_000_000.0

    def monotonic(self) -> float:
        return 0.0


def read(headers: dict[bytes, bytes] | None = None, *, query: bytes = b"", **members: Any) -> Call:
    raw = json.dumps({"model": "m", "messages": []} | members).encode()
    return read_call("chat/completions", query=query, raw=raw, headers=headers or {}, forward=(b"openai-beta",))


@asynccontextmanager
async def upstream(base_url: str, *, api_key: str | None = None, **said: Any) -> AsyncIterator[Upstream]:
    async with AiohttpTransport(connect_timeout=DEADLINE) as transport:
        provider = Provider(base_url=base_url, **said)
        yield Upstream("p", provider, transport=transport, api_key=api_key)


async def opened(provider: Upstream, call: Call | None = None, *, upstream_model: str = "m") -> HttpReply:
    """A reply whose head has come."""
    async with asyncio.timeout(DEADLINE):
        return await provider.open(call or read(), Target("p", "http://unused", upstream_model))


async def asked(provider: Upstream, call: Call | None = None, *, upstream_model: str = "m") -> tuple[int, bytes]:
    """Status and body."""
    reply = await opened(provider, call, upstream_model=upstream_model)
    try:
        return reply.status, await read_all(reply)
    finally:
        reply.close()


async def read_all(reply: HttpReply) -> bytes:
    pieces = []
    while piece := await reply.read():
        pieces.append(piece)
    return b"".join(pieces)


class Connecting(httpx.AsyncBaseTransport):
    """Fails to connect as often as it has failures, then asks the transport behind it. `answered`: a head has come."""

    def __init__(self, behind: httpx.AsyncBaseTransport, *failures: UpstreamError) -> None:
        self._behind = behind
        self.failures = list(failures)
        self.attempts = 0
        self.answered = asyncio.Event()
        self.responses: list[httpx.Response] = []  # held, so that only who closes one has closed it

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.attempts += 1
        if self.failures:
            raise self.failures.pop()
        response = await self._behind.handle_async_request(request)
        self.responses.append(response)
        self.answered.set()
        return response


async def test_a_call_goes_to_the_base_url_with_its_query_as_it_came() -> None:
    async with RawProvider() as raw:
        for base_url in (f"{raw.url}/v1", f"{raw.url}/v1/", f"{raw.url}/a%2Fb/../v1"):
            async with upstream(base_url) as provider:
                assert await asked(provider, read(query=b"x=%2F&y=a+b&&=%c3%A9")) == (200, b"{}")
                await asked(provider)
    assert [request.split(b"\r\n")[0] for request in raw.requests] == [
        b"POST /v1/chat/completions?x=%2F&y=a+b&&=%c3%A9 HTTP/1.1",
        b"POST /v1/chat/completions HTTP/1.1",
        b"POST /v1/chat/completions?x=%2F&y=a+b&&=%c3%A9 HTTP/1.1",
        b"POST /v1/chat/completions HTTP/1.1",
        b"POST /a%2Fb/../v1/chat/completions?x=%2F&y=a+b&&=%c3%A9 HTTP/1.1",
        b"POST /a%2Fb/../v1/chat/completions HTTP/1.1",
    ]


def common(raw: RawProvider, body: bytes, accept: bytes) -> list[bytes]:
    return [
        b"Content-Length: %d" % len(body),
        b"Host: 127.0.0.1:%d" % raw.port,
        b"accept-encoding: identity",
        b"accept: " + accept,
        b"content-type: application/json",
        b"user-agent: penstock",
    ]


async def test_where_the_client_pays_its_own_credentials_go_out_and_nothing_else_of_it() -> None:
    async with RawProvider() as raw, upstream(raw.url, auth="client") as provider:
        assert (provider.owns_key, provider.client_pays) == (False, True)
        await asked(provider, read(CLIENT))
        first, lines, body = raw.sent()
        assert first == b"POST /chat/completions HTTP/1.1"
        assert lines == sorted(
            [
                *common(raw, body, b"application/json"),
                b"api-key: azure-client",
                b"authorization: Bearer sk-client",
                b"openai-beta: v2",
                b"openai-organization: org-client",
                b"openai-project: proj-client",
            ]
        )


async def test_where_the_operator_pays_nothing_of_the_clients_account_goes_out() -> None:
    async with RawProvider() as raw, upstream(raw.url, api_key_env="KEY", api_key="sk-operator") as provider:
        assert (provider.owns_key, provider.client_pays) == (True, False)
        await asked(provider, read(CLIENT, stream=True, stream_options={"include_usage": True}))
        _, lines, body = raw.sent()
        ours = [b"authorization: Bearer sk-operator", b"openai-beta: v2"]
        assert lines == sorted([*common(raw, body, b"text/event-stream"), *ours])


async def test_a_provider_that_wants_no_key_gets_none() -> None:
    async with RawProvider() as raw, upstream(raw.url, auth="none") as provider:
        assert (provider.owns_key, provider.client_pays) == (False, False)
        await asked(provider, read(CLIENT))
        _, lines, body = raw.sent()
        assert lines == sorted([*common(raw, body, b"application/json"), b"openai-beta: v2"])


async def test_a_set_cookie_never_comes_back_with_the_next_clients_call() -> None:
    async with RawProvider(answer(b"{}", b"set-cookie: session=1")) as raw, upstream(raw.named_url) as provider:
        for _ in range(3):
            await asked(provider, read({b"cookie": b"mine=1"}))
        assert raw.connections == 1
        assert not [request for request in raw.requests if b"cookie" in request.lower()]


async def test_the_body_goes_out_as_it_came() -> None:
    async with RawProvider() as raw, upstream(raw.url) as provider:
        call = read_call(
            "chat/completions",
            query=b"",
            raw=b'{ "messages" : [] ,"model":"m", "x":1.0, "y":"\\u00e9" }\n',
            headers={},
            forward=(),
        )
        await asked(provider, call)
        assert raw.sent()[2] == call.raw


async def test_a_streams_usage_is_asked_for_where_the_client_did_not() -> None:
    async with RawProvider() as raw, upstream(raw.url) as provider:
        reply = await opened(provider, read(stream=True))
        assert reply.usage_asked
        assert json.loads(raw.sent()[2])["stream_options"] == {"include_usage": True}
        reply.close()
        plain = await opened(provider)
        assert not plain.usage_asked
        assert "stream_options" not in json.loads(raw.sent()[2])
        plain.close()


async def test_a_provider_that_gives_no_usage_is_asked_only_by_who_wants_it() -> None:
    async with RawProvider() as raw, upstream(raw.url, usage="never") as provider:
        assert not provider.reports_usage
        reply = await opened(provider, read(stream=True))
        assert not reply.usage_asked
        assert b"stream_options" not in raw.sent()[2]
        reply.close()
        wanted = await opened(provider, read(stream=True, stream_options={"include_usage": True}))
        assert wanted.usage_asked
        wanted.close()


async def test_a_refusal_of_stream_options_is_found_out_once_and_remembered() -> None:
    answers = (answer(REFUSAL, status=b"400 Bad Request"), answer(b"first"), answer(b"second"))
    async with RawProvider(*answers) as raw, upstream(raw.url) as provider:
        assert await asked(provider, read(stream=True)) == (200, b"first")
        assert not provider.reports_usage
        assert await asked(provider, read(stream=True)) == (200, b"second")
        assert [b"stream_options" in request for request in raw.requests] == [True, False, False]


async def test_a_client_that_asks_for_usage_hears_the_refusal_itself() -> None:
    async with RawProvider(answer(REFUSAL, status=b"400 Bad Request")) as raw, upstream(raw.url) as provider:
        wanted = read(stream=True, stream_options={"include_usage": True})
        assert await asked(provider, wanted) == (400, REFUSAL)
        assert provider.reports_usage
        assert len(raw.requests) == 1


async def test_a_refusal_that_only_quotes_stream_options_turns_nothing_off() -> None:
    refusal = b'{"error":{"message":"no such field: foo. You sent stream_options, foo"}}'
    said = answer(refusal, status=b"400 Bad Request")
    async with RawProvider(said, said) as raw, upstream(raw.url) as provider:
        assert await asked(provider, read(stream=True)) == (400, refusal)
        assert provider.reports_usage


async def test_another_refusal_is_passed_on_whole() -> None:
    refusal = b'{"error":{"message":"no such model"}}' + b" " * 100_000
    async with RawProvider(answer(refusal, status=b"400 Bad Request")) as raw, upstream(raw.url) as provider:
        assert await asked(provider, read(stream=True)) == (400, refusal)
        assert provider.reports_usage
        assert len(raw.requests) == 1


async def test_a_refusal_whose_body_never_comes_is_given_up_in_time() -> None:
    head = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 9\r\n\r\n"
    async with RawProvider((head, Act.WAIT)) as raw, upstream(raw.url, first_event_timeout=0.05) as provider:
        with pytest.raises(UpstreamError):
            async with asyncio.timeout(1):
                await opened(provider, read(stream=True))


async def test_a_call_that_is_given_up_while_a_refusal_is_read_closes_its_connection() -> None:
    head = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 9\r\n\r\nfour"
    async with RawProvider((head, Act.WAIT)) as raw, upstream(raw.url) as provider:
        watched = provider._transport = Connecting(provider._transport)
        opening = asyncio.ensure_future(opened(provider, read(stream=True)))
        await watched.answered.wait()
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        async with asyncio.timeout(1):
            await raw.left.wait()


async def test_a_refusal_that_is_lost_half_way_is_an_error() -> None:
    head = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 9\r\n\r\nfour"
    async with RawProvider((head, Act.RESET)) as raw, upstream(raw.url) as provider:
        with pytest.raises(UpstreamReset):
            await opened(provider, read(stream=True))
        assert len(raw.requests) == 1


async def test_what_is_peeked_is_read_once_again_and_then_the_rest() -> None:
    pieces = (CHUNKED, chunk(b"one"), chunk(b"two"), chunk(b"three"), b"0\r\n\r\n")
    async with RawProvider(pieces) as raw, upstream(raw.url) as provider:
        reply = await opened(provider)
        assert (await reply.peek(3)).startswith(b"one")
        assert (await reply.peek(6)).startswith(b"onetwo")
        assert await read_all(reply) == b"onetwothree"
        assert await reply.read() == b""
        reply.close()


async def test_peeking_at_nothing_ends_at_the_end() -> None:
    async with RawProvider(answer(b"")) as raw, upstream(raw.url) as provider:
        reply = await opened(provider)
        assert await reply.peek(100) == b""
        assert await reply.read() == b""
        reply.close()


@pytest.mark.parametrize("error", [UpstreamConnectError("refused"), UpstreamTLSError("expired")])
@pytest.mark.parametrize("itself", [{}, {b"x-stainless-retry-count": b"0"}])
async def test_a_connection_that_was_not_made_is_tried_once_more(
    error: UpstreamError, itself: dict[bytes, bytes]
) -> None:
    async with RawProvider() as raw, upstream(raw.url) as provider:
        flaky = Connecting(provider._transport, error)
        provider._transport = flaky
        assert await asked(provider, read(itself)) == (200, b"{}")
        flaky.attempts, flaky.failures = 0, [error, error, error]
        with pytest.raises(type(error)):
            await asked(provider, read(itself))
        assert flaky.attempts == 2
        assert len(raw.requests) == 1


async def test_where_nobody_listens_it_is_a_connect_error() -> None:
    async with upstream(f"http://127.0.0.1:{closed_port()}/v1") as provider:
        with pytest.raises(UpstreamConnectError):
            await opened(provider)


@pytest.mark.parametrize("steps", [(Act.RESET,), (Act.CLOSE,), (b"not HTTP at all\r\n\r\n", Act.WAIT)])
async def test_what_is_lost_after_it_was_sent_is_not_sent_again(steps: Answer) -> None:
    async with RawProvider(steps, answer()) as raw, upstream(raw.url) as provider:
        with pytest.raises(UpstreamReset):
            await opened(provider)
        assert len(raw.requests) == 1


def failed(status: int, *headers: bytes, body: bytes = b"{}") -> Answer:
    return answer(body, *headers, status=b"%d Sorry" % status)


NOW = b"retry-after: 0"


@pytest.mark.parametrize("status", [400, 401, 408, 409, 429, 500, 502, 503, 529])
@pytest.mark.parametrize("headers", [(), (NOW,), (NOW, b"x-should-retry: true")])
async def test_a_status_is_told_and_whether_to_ask_again_is_for_others_to_say(
    status: int, headers: tuple[bytes, ...]
) -> None:
    async with RawProvider(failed(status, *headers), answer(b"second")) as raw, upstream(raw.url) as provider:
        assert await asked(provider) == (status, b"{}")
        assert len(raw.requests) == 1


async def test_a_call_that_is_opened_again_is_the_same_to_the_byte() -> None:
    async with RawProvider(failed(503, NOW), answer(b"good")) as raw, upstream(raw.url) as provider:
        call = read(CLIENT, stream=True)
        assert await asked(provider, call) == (503, b"{}")
        assert await asked(provider, call) == (200, b"good")
        assert raw.requests[0] == raw.requests[1]


async def test_the_connection_of_an_answer_that_is_closed_unread_is_not_left_open() -> None:
    endless = (b"HTTP/1.1 503 Sorry\r\nretry-after: 0\r\ncontent-length: 100\r\n\r\n", Act.WAIT)
    async with RawProvider(endless, answer(b"good")) as raw, upstream(raw.url) as provider:
        reply = await opened(provider)
        assert reply.status == 503
        reply.close()
        assert await asked(provider) == (200, b"good")
        async with asyncio.timeout(DEADLINE):
            await raw.left.wait()


@pytest.mark.parametrize(
    ("stream", "timeout"), [(True, {"first_event_timeout": 0.05}), (False, {"total_timeout": 0.05})]
)
async def test_a_head_that_does_not_come_in_time_is_given_up_and_not_asked_for_again(
    stream: bool, timeout: dict[str, Any]
) -> None:
    async with RawProvider((Act.WAIT,)) as raw, upstream(raw.url, **timeout) as provider:
        with pytest.raises(UpstreamTimeout) as caught:
            await opened(provider, read(stream=stream))
        assert (caught.value.status, caught.value.retry) == (504, False)
        assert len(raw.requests) == 1
        async with asyncio.timeout(DEADLINE):
            await raw.left.wait()


@pytest.mark.parametrize(
    "first",
    [
        answer(b"\x1f\x8b", b"content-type: application/json", b"content-encoding: gzip"),
        answer(b"", b"location: http://127.0.0.1:1/", status=b"302 Found"),
        answer(b"<html>", b"content-type: text/html"),
    ],
    ids=["gzip", "a redirect", "a page"],
)
async def test_what_is_no_answer_is_refused(first: Answer) -> None:
    async with RawProvider(first) as raw, upstream(raw.url) as provider:
        reply = await opened(provider)
        with pytest.raises(UpstreamBadContentType):
            head_of(reply, provider)
        reply.close()
        assert raw.connections == 1


MODELS = b'{"object":"list","data":[{"id":"a","object":"model"},{"id":"b"}]}'


async def test_models_are_listed_for_who_pays() -> None:
    account = ((b"authorization", b"Bearer sk-client"),)
    async with RawProvider(answer(MODELS)) as raw:
        async with upstream(f"{raw.url}/v1") as provider:
            listing = await provider.models(account)
        assert (listing.status, listing.models) == (200, [{"id": "a", "object": "model"}, {"id": "b"}])
        assert raw.sent()[0] == b"GET /v1/models HTTP/1.1"
        assert raw.sent()[1] == [
            b"Host: 127.0.0.1:%d" % raw.port,
            b"accept-encoding: identity",
            b"authorization: Bearer sk-client",
            b"user-agent: penstock",
        ]
        async with upstream(raw.url, api_key_env="KEY", api_key="sk-operator") as provider:
            await provider.models(account)
        assert b"authorization: Bearer sk-operator" in raw.sent()[1]
        assert b"sk-client" not in raw.requests[-1]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"{}", b'{"data":{}}', b'{"data":["a"]}', b"\xff", MODELS[:-5]]
)
async def test_what_is_no_list_of_models_is_refused(body: bytes) -> None:
    async with RawProvider(answer(body)) as raw, upstream(raw.url) as provider:
        with pytest.raises(UpstreamBadContentType):
            await provider.models(())


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_of_the_operators_key_is_told_in_our_words(status: int) -> None:
    said = b'{"error":{"message":"Incorrect API key provided: sk-operator"}}'
    async with RawProvider(failed(status, body=said)) as raw:
        async with upstream(raw.url, api_key_env="KEY", api_key="sk-operator") as provider:
            with pytest.raises(UpstreamAuthError) as caught:
                await provider.models(())
        assert "sk-operator" not in str(caught.value)
        async with upstream(raw.url) as provider:
            listing = await provider.models(())
        assert (listing.status, listing.body, listing.models) == (status, said, None)


async def test_an_error_instead_of_a_list_is_passed_on() -> None:
    async with RawProvider(failed(503, NOW, body=b"busy")) as raw, upstream(raw.url) as provider:
        listing = await provider.models(())
        assert (listing.status, listing.body, listing.models) == (503, b"busy", None)


def body_for(raw: bytes, model: str = "m", *, ask_usage: bool = False) -> bytes:
    call = read_call("chat/completions", query=b"", raw=raw, headers={}, forward=())
    return outgoing_body(call, model, ask_usage=ask_usage)


ODD = b'{"x":1.0, "model" : "m" ,"y":1e2,"z":"\\u00e9","big":123456789012345678901234567890,"n":null,"stream":true}'


def test_a_body_that_need_not_change_does_not() -> None:
    assert body_for(b" " + ODD + b"\n") == b" " + ODD + b"\n"
    asking = ODD[:-1] + b',"stream_options" : {"include_usage":true}}'
    assert body_for(asking, ask_usage=True) == asking


def test_another_model_is_named_and_every_other_value_stays_to_the_byte() -> None:
    assert body_for(ODD, 'vendor/"x"') == ODD.replace(b', "model" : "m" ', b',"model":"vendor/\\"x\\""')


def test_usage_is_asked_for_and_every_other_value_stays_to_the_byte() -> None:
    plain = ODD.replace(b', "model" : "m" ', b',"model":"m"')
    assert body_for(ODD, ask_usage=True) == plain[:-1] + b',"stream_options":{"include_usage":true}}'


@pytest.mark.parametrize(
    ("options", "sent"),
    [
        ("null", {"include_usage": True}),
        ("{}", {"include_usage": True}),
        ('{"include_usage":false}', {"include_usage": True}),
        ('{"include_obfuscation":false}', {"include_obfuscation": False, "include_usage": True}),
    ],
)
def test_other_stream_options_are_kept(options: str, sent: dict[str, Any]) -> None:
    raw = b'{"model":"m","stream":true,"stream_options":%s}' % options.encode()
    assert json.loads(body_for(raw, ask_usage=True)) == {"model": "m", "stream": True, "stream_options": sent}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=6), values, max_size=5), st.booleans(), st.sampled_from(["m", "other"]))
def test_only_model_and_stream_options_ever_change(members: dict[str, Any], asks: bool, model: str) -> None:
    members = {name: value for name, value in members.items() if name not in ("n", "stream_options")}
    body = members | {"model": "m", "stream": True}
    sent = json.loads(body_for(json.dumps(body).encode(), model, ask_usage=asks))
    usage = {"stream_options": {"include_usage": True}} if asks else {}
    assert sent == body | {"model": model} | usage
