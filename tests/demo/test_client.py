"""One call against a provider of a few lines."""

from collections.abc import AsyncIterator

import httpx
import msgspec
import pytest

from pricing.cost import Usage
from proxy.demo.client import Call, DemoError, ask, tally
from proxy.demo.figures import Answer, Served, Tally

MISS = {"cache-status": "penstock; fwd=miss; stored", "x-penstock-model": "sim-small"}
USAGE = b'{"model":"sim-small","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2}}'


def event(delta: bytes) -> bytes:
    return b'data: {"model":"sim-small","choices":[{"delta":%s}]}\n\n' % delta


WHOLE = (
    event(b'{"role":"assistant","content":""}'),
    event(b'{"content":"Hel"}'),
    event('{"content":"lo \u2028"}'.encode()),
    b": ping\n\n",
    b"data: " + USAGE + b"\n\n",
    b"data: [DONE]\n\n",
)


async def asked(
    *parts: bytes, status: int = 200, headers: dict[str, str] = MISS, stream: bool = True
) -> tuple[Answer, list[str]]:
    class Body(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for part in parts:
                yield part

    heard: list[str] = []
    transport = httpx.MockTransport(lambda _: httpx.Response(status, headers=headers, stream=Body()))
    async with httpx.AsyncClient(transport=transport, base_url="http://provider/v1") as http:
        answer = await ask(http, Call("work", {"stream": stream}), heard.append)
    return answer, heard


async def test_a_stream_is_read_as_it_comes() -> None:
    answer, heard = await asked(*WHOLE)
    assert heard == ["Hel", "lo \u2028"]
    assert answer.text == "Hello \u2028"
    assert (answer.work, answer.model, answer.outcome) == ("work", "sim-small", "miss")
    assert answer.usage == Usage(9, 0, 2)
    assert answer.first is not None
    assert 0 < answer.first < 5


async def test_a_stream_may_come_in_any_pieces() -> None:
    said = b"".join(WHOLE)
    for size in (1, 2, 7, len(said)):
        answer, _ = await asked(*(said[at : at + size] for at in range(0, len(said), size)))
        assert answer.text == "Hello \u2028"


@pytest.mark.parametrize("delta", [b'{"tool_calls":[{"index":0}]}', b'{"reasoning_content":"Hm"}'])
async def test_a_tool_call_or_a_thought_is_a_first_token(delta: bytes) -> None:
    answer, heard = await asked(event(delta), *WHOLE[4:])
    assert answer.first is not None
    assert heard == []


async def test_a_json_answer_has_no_first_token() -> None:
    body = USAGE.replace(b"[]", b'[{"message":{"content":"Hello"}}]')
    answer, heard = await asked(body, stream=False)
    assert (answer.text, answer.first, heard) == ("Hello", None, [])


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (WHOLE[:-1], r"no \[DONE\]"),
        ((*WHOLE[:2], b'data: {"error":{"message":"gone"}}\n\n'), "gone"),
        (WHOLE[:1] + WHOLE[4:], "is empty"),
        (WHOLE[:4] + WHOLE[5:], "cannot be priced"),
        ((b"data: {\n\n",), "DecodeError"),
    ],
)
async def test_what_is_no_whole_answer_is_told_in_one_line(parts: tuple[bytes, ...], said: str) -> None:
    with pytest.raises(DemoError, match=said) as caught:
        await asked(*parts)
    assert "\n" not in str(caught.value)


async def test_a_refusal_is_told_with_its_status() -> None:
    with pytest.raises(DemoError, match=r"HTTP 503 over loaded$"):
        await asked(b"over\nloaded\n", status=503)


@pytest.mark.parametrize("status", ["", "penstock; fwd=bypass; detail=tools"])
async def test_an_answer_that_went_past_the_cache_is_a_mistake_of_the_demo(status: str) -> None:
    with pytest.raises(DemoError, match="unexpected Cache-Status"):
        await asked(*WHOLE, headers={"cache-status": status})


async def test_a_provider_that_cannot_be_reached_is_told() -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    async with httpx.AsyncClient(transport=httpx.MockTransport(refuse), base_url="http://provider/v1") as http:
        with pytest.raises(DemoError, match="ConnectError"):
            await ask(http, Call("work", {}))
        with pytest.raises(DemoError, match="count cannot be had"):
            await tally(http)


async def test_the_count_is_read_from_where_the_simulator_keeps_it() -> None:
    served = {"calls": 1, "prompt_tokens": 9, "cached_tokens": 0, "completion_tokens": 2}
    counts = {"calls": 1, "open": 0, "hung_up": 0, "answered": 1, "failed": 0, "by_model": {"sim-small": served}}

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url == "http://provider/simulator/calls"
        return httpx.Response(200, content=msgspec.json.encode(counts))

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://provider/simulator") as http:
        assert await tally(http) == Tally(1, 0, 1, {"sim-small": Served(1, 9, 0, 2)})
