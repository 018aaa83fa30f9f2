"""The real SDK at the other endpoints: what it gets from a proxy is what it gets from the provider."""

import asyncio
import zlib
from collections.abc import Callable
from typing import Any, Final

import openai
import pytest
from pydantic import BaseModel

from tests.asking import Client, Report, Way
from tests.conftest import AsyncSdk, Sdk
from tests.responding import CASES, NEW_EACH_TIME, respond
from tests.support import Json, Proxy, Simulator
from tests.test_wire import assert_same, everywhere

FORMS: Final[dict[str, Json]] = {"JSON": {}, "a stream": {"stream": True}}
ITSELF: Final = "its prompt"  # stands where this test's words go
WITH_USAGE: Final[Json] = {"stream": True, "stream_options": {"include_usage": True}}

# How text completions are asked for.
TEXTS: Final[dict[str, Json]] = {
    "plain": {},
    "echo": {"echo": True},
    "echo with logprobs": {"echo": True, "logprobs": 2},
    "suffix": {"suffix": " and so it ended.", "max_tokens": 40},
    "logprobs": {"logprobs": 3},
    "three": {"n": 3, "max_tokens": 5},
    "several prompts": {"prompt": [ITSELF, f"{ITSELF} once more"]},
    "several of several": {"prompt": [ITSELF, f"{ITSELF} once more"], "n": 2, "logprobs": 0, "echo": True},
    "tokens": {"prompt": [1, 2, 3]},
    "token arrays": {"prompt": [[1, 2], [3]]},
}
VECTORS: Final[dict[str, Json]] = {
    "as the SDK asks": {},
    "float": {"encoding_format": "float"},
    "base64": {"encoding_format": "base64"},
    "dimensions": {"dimensions": 16},
    "a lone text": {"input": ITSELF},
    "the same twice": {"input": [ITSELF, "between", ITSELF]},
    "token arrays": {"input": [[1, 2, 3], [4]]},
}


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, sdk: Sdk, async_sdk: AsyncSdk) -> Any:
    """Makes SDK clients of one kind, by base URL."""
    return sdk if request.param == "sync" else async_sdk


def own(value: Any, prompt: str) -> Any:
    """With this test's words in their place, and tokens that nobody else sends."""
    match value:
        case str():
            return value.replace(ITSELF, prompt)
        case list() if value and all(type(each) is int for each in value):
            return [*value, zlib.crc32(prompt.encode())]
        case list():
            return [own(each, prompt) for each in value]
    return value


def shown(value: BaseModel) -> Json:
    """An SDK's object less what is new each time, be it an event that holds one."""
    said: Json = value.model_dump(mode="json", exclude_unset=True, warnings=False)
    for each in (said, said.get("response") or {}):
        for name in (*NEW_EACH_TIME, "created") if "object" in each else ():
            each.pop(name, None)
    return said


def through(method: Callable[[Any], Any]) -> Way:
    """A way to ask: this method of a client gives an object, or a stream of them."""

    def listed(client: openai.OpenAI, body: Json) -> list[Json]:
        found = method(client)(**body)
        return [shown(each) for each in found] if body.get("stream") else [shown(found)]

    async def way(client: Client, body: Json) -> list[Json]:
        if isinstance(client, openai.OpenAI):
            return await asyncio.to_thread(listed, client, body)
        found = await method(client)(**body)
        return [shown(each) async for each in found] if body.get("stream") else [shown(found)]

    return way


async def helped(client: Client, body: Json) -> list[Json]:
    """Through `responses.stream()`: its events, then the Response that it puts together."""
    if isinstance(client, openai.OpenAI):
        return await asyncio.to_thread(_helped, client, body)
    async with client.responses.stream(**body) as stream:
        return [*[shown(event) async for event in stream], shown(await stream.get_final_response())]


def _helped(client: openai.OpenAI, body: Json) -> list[Json]:
    with client.responses.stream(**body) as stream:
        return [*[shown(event) for event in stream], shown(stream.get_final_response())]


CREATED: Final = through(lambda client: client.responses.create)
PARSED: Final = through(lambda client: client.responses.parse)
COMPLETED: Final = through(lambda client: client.completions.create)
EMBEDDED: Final = through(lambda client: client.embeddings.create)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES)
async def test_a_response_is_the_object_of_the_provider_missed_joined_and_hit(
    case: str, form: str, client: Any, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = respond(prompt) | CASES[case] | FORMS[form]
    assert_same(await everywhere(CREATED, client, proxy, simulator, body))


@pytest.mark.parametrize("case", ["plain", "tools", "a JSON schema", "reasoning, shown", "a refusal", "logprobs"])
async def test_the_helper_for_streamed_responses_sees_the_events_of_the_provider(
    case: str, client: Any, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    assert_same(await everywhere(helped, client, proxy, simulator, respond(prompt) | CASES[case]))


@pytest.mark.parametrize("way", [PARSED, helped], ids=["parsed", "helped"])
async def test_a_parsed_response_is_that_of_the_provider(
    way: Way, client: Any, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    answers = await everywhere(way, client, proxy, simulator, respond(prompt, text_format=Report))
    ((part,),) = [item["content"] for item in answers["hit"][-1]["output"]]
    assert Report.model_validate(part["parsed"])
    assert_same(answers)


@pytest.mark.parametrize("form", [{}, {"stream": True}, WITH_USAGE], ids=["JSON", "a stream", "with usage"])
@pytest.mark.parametrize("case", TEXTS)
async def test_a_text_completion_is_the_object_of_the_provider_missed_joined_and_hit(
    case: str, form: Json, client: Any, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = {"model": "sim-instant", "prompt": ITSELF} | TEXTS[case] | form
    body["prompt"] = own(body["prompt"], prompt)
    assert_same(await everywhere(COMPLETED, client, proxy, simulator, body))


@pytest.mark.parametrize("case", VECTORS)
async def test_embeddings_are_those_of_the_provider_missed_joined_and_hit(
    case: str, client: Any, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = {"model": "sim-embed;first=0", "input": [ITSELF, f"{ITSELF} too"]} | VECTORS[case]
    body["input"] = own(body["input"], prompt)
    assert_same(await everywhere(EMBEDDED, client, proxy, simulator, body))
