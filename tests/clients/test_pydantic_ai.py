"""pydantic-ai: agents over either API, and embeddings."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from conftest import Thrice
from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, Embedder, NativeOutput, Tool
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.models import Model
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

Asked = Callable[[Model], Awaitable[object]]
Ask = Callable[[Asked], Callable[[str], object]]


class Report(BaseModel):
    """What a structured answer must be."""

    title: str
    tags: list[str]
    score: int


def weather(city: str, days: int) -> str:
    """The weather there."""
    return f"{days} days of rain in {city}"


WEATHER = Tool(weather, sequential=True)  # else two calls at once end in any order


def client(url: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=url, api_key="sk-test", max_retries=0)


@pytest.fixture(params=[OpenAIChatModel, OpenAIResponsesModel], ids=["chat", "responses"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """What is asked of a model, as something that is asked at a base URL."""

    async def at(url: str, asked: Asked) -> object:
        async with client(url) as sdk:
            return await asked(request.param("sim-instant", provider=OpenAIProvider(openai_client=sdk)))

    return lambda asked: lambda url: asyncio.run(at(url, asked))


def test_an_answer(thrice: Thrice, ask: Ask, prompt: str) -> None:
    async def asked(model: Model) -> object:
        return (await Agent(model).run(prompt)).all_messages()

    _, said = thrice(ask(asked))
    assert said["parts"]
    assert said["usage"]["output_tokens"] > 0


def test_a_stream(thrice: Thrice, ask: Ask, prompt: str) -> None:
    async def asked(model: Model) -> object:
        async with Agent(model).run_stream_events(prompt) as events:
            return [event async for event in events]

    async def whole(model: Model) -> object:
        return (await Agent(model).run(prompt)).all_messages()

    assert len(thrice(ask(asked))) > 5
    thrice(ask(whole), known=True)


def test_a_second_turn(thrice: Thrice, ask: Ask, prompt: str) -> None:
    async def asked(model: Model) -> object:
        first = await Agent(model).run(prompt)
        return (await Agent(model).run("And then?", message_history=first.all_messages())).all_messages()

    assert len(thrice(ask(asked))) == 4


def test_a_round_of_tools(thrice: Thrice, ask: Ask, prompt: str) -> None:
    async def asked(model: Model) -> object:
        return (await Agent(model, tools=[WEATHER]).run(prompt)).all_messages()

    _, called, _, answer = thrice(ask(asked))
    assert any(part["part_kind"] == "tool-call" for part in called["parts"])
    assert any(part["part_kind"] == "text" for part in answer["parts"])


def test_a_round_of_tools_in_a_stream(thrice: Thrice, ask: Ask, prompt: str) -> None:
    async def asked(model: Model) -> object:
        async with Agent(model, tools=[WEATHER]).run_stream_events(prompt) as events:
            return [event async for event in events]

    kinds = {event["event_kind"] for event in thrice(ask(asked))}
    assert {"function_tool_call", "function_tool_result", "agent_run_result"} <= kinds


@pytest.mark.parametrize("output", [Report, NativeOutput(Report)], ids=["by a tool", "by a schema"])
def test_structured_output(output: Any, thrice: Thrice, ask: Ask, prompt: str) -> None:
    async def asked(model: Model) -> object:
        run = await Agent(model, output_type=output).run(prompt)
        return [run.output, run.all_messages()]

    said, _ = thrice(ask(asked))
    assert Report.model_validate(said)


@pytest.mark.parametrize("output", [Report, NativeOutput(Report)], ids=["by a tool", "by a schema"])
def test_structured_output_in_a_stream(output: Any, thrice: Thrice, ask: Ask, prompt: str) -> None:
    async def asked(model: Model) -> object:
        async with Agent(model, output_type=output).run_stream(prompt) as run:
            return [part async for part in run.stream_output(debounce_by=None)]

    assert Report.model_validate(thrice(ask(asked))[-1])


def test_embeddings(thrice: Thrice, prompt: str) -> None:
    async def at(url: str) -> object:
        async with client(url) as sdk:
            embedder = Embedder(OpenAIEmbeddingModel("sim-embed", provider=OpenAIProvider(openai_client=sdk)))
            return await embedder.embed_documents([f"{prompt} {number}" for number in range(5)])

    assert len(thrice(lambda url: asyncio.run(at(url)))["embeddings"]) == 5
