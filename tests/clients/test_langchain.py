"""langchain-openai: a chat model over either API, and embeddings."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from conftest import Thrice
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel

Model = Callable[[str], ChatOpenAI]


class Report(BaseModel):
    """What a structured answer must be."""

    title: str
    tags: list[str]
    score: int


@tool
def weather(city: str, days: int) -> str:
    """The weather there."""
    return f"{days} days of rain in {city}"


@pytest.fixture(params=["chat", "responses"])
def model(request: pytest.FixtureRequest) -> Model:
    """The model at a base URL."""
    responses = request.param == "responses"
    return lambda url: ChatOpenAI(
        model="sim-instant",
        base_url=url,
        api_key="sk-test",
        max_retries=0,
        stream_usage=True,  # not asked for at other addresses than OpenAI's
        use_responses_api=responses,
    )


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One loop for all: langchain keeps its connections, and a connection belongs to its loop."""
    with asyncio.Runner() as one:
        yield one


def test_an_answer(thrice: Thrice, model: Model, prompt: str) -> None:
    said = thrice(lambda url: model(url).invoke(prompt))
    assert said["content"]
    assert said["usage_metadata"]["output_tokens"] > 0


def test_a_stream(thrice: Thrice, model: Model, prompt: str) -> None:
    chunks = thrice(lambda url: list(model(url).stream(prompt)))
    assert len(chunks) > 5
    assert any(chunk["usage_metadata"] for chunk in chunks)
    thrice(lambda url: model(url).invoke(prompt), known=True)


def test_a_stream_that_is_awaited(thrice: Thrice, model: Model, prompt: str, runner: asyncio.Runner) -> None:
    async def streamed(url: str) -> list[BaseMessage]:
        return [chunk async for chunk in model(url).astream(prompt)]

    assert len(thrice(lambda url: runner.run(streamed(url)))) > 5


def test_a_second_turn(thrice: Thrice, model: Model, prompt: str) -> None:
    def asked(url: str) -> BaseMessage:
        first = [HumanMessage(prompt)]
        return model(url).invoke([*first, model(url).invoke(first), HumanMessage("And then?")])

    assert thrice(asked)["content"]


@pytest.mark.parametrize("streamed", [False, True])
def test_a_round_of_tools(streamed: bool, thrice: Thrice, model: Model, prompt: str) -> None:
    def whole(url: str) -> list[BaseMessage]:
        asking = model(url).bind_tools([weather])

        def ask(messages: list[BaseMessage]) -> AIMessage:
            if not streamed:
                return asking.invoke(messages)
            first, *rest = asking.stream(messages)
            return sum(rest, first)

        messages: list[BaseMessage] = [HumanMessage(prompt)]
        messages.append(called := ask(messages))
        messages += [weather.invoke(call) for call in called.tool_calls]
        return [*messages, ask(messages)]

    _, called, *results, answer = thrice(whole)
    assert len(called["tool_calls"]) == len(results) > 0
    assert answer["content"]


@pytest.mark.parametrize("method", ["function_calling", "json_schema", "json_mode"])
def test_structured_output(method: str, thrice: Thrice, model: Model, prompt: str) -> None:
    said = thrice(lambda url: model(url).with_structured_output(Report, method=method, include_raw=True).invoke(prompt))
    assert method == "json_mode" or Report.model_validate(said["parsed"])


def test_structured_output_in_a_stream(thrice: Thrice, model: Model, prompt: str) -> None:
    parts = thrice(lambda url: list(model(url).with_structured_output(Report).stream(prompt)))
    assert Report.model_validate(parts[-1])


def test_a_completion(thrice: Thrice, prompt: str) -> None:
    def model(url: str) -> OpenAI:
        return OpenAI(model="sim-instant", base_url=url, api_key="sk-test", max_retries=0)

    assert thrice(lambda url: model(url).generate([prompt, "another " + prompt]))
    assert len(thrice(lambda url: list(model(url).stream(prompt)))) > 5


@pytest.mark.parametrize("as_tokens", [False, True])
def test_embeddings(as_tokens: bool, thrice: Thrice, prompt: str) -> None:
    def model(url: str) -> OpenAIEmbeddings:
        return OpenAIEmbeddings(
            model="sim-embed", base_url=url, api_key="sk-test", max_retries=0, check_embedding_ctx_length=as_tokens
        )

    texts = [f"{prompt} {number}" for number in range(5)]
    vectors = thrice(lambda url: model(url).embed_documents(texts))
    assert len(vectors) == 5
    thrice(lambda url: model(url).embed_query("a question of " + prompt))
