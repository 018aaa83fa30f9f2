"""llama-index: its OpenAI-like models over three APIs, and embeddings."""

from collections.abc import Callable

import pytest
from conftest import Thrice
from llama_index.core.llms import ChatMessage, ChatResponse
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.llms.openai import OpenAIResponses
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

At = Callable[[str], FunctionCallingLLM]


class Report(BaseModel):
    """What a structured answer must be."""

    title: str
    tags: list[str]
    score: int


def weather(city: str, days: int) -> str:
    """The weather there."""
    return f"{days} days of rain in {city}"


def chat(url: str, *, is_chat_model: bool = True) -> OpenAILike:
    return OpenAILike(
        model="sim-instant",
        api_base=url,
        api_key="sk-test",
        max_retries=0,
        is_chat_model=is_chat_model,
        is_function_calling_model=True,
    )


def responses(url: str) -> OpenAIResponses:
    return OpenAIResponses(model="sim-instant", api_base=url, api_key="sk-test", max_retries=0, context_window=100_000)


@pytest.fixture(params=[chat, responses])
def model(request: pytest.FixtureRequest) -> At:
    """The model at a base URL."""
    at: At = request.param
    return at


def test_an_answer(thrice: Thrice, model: At, prompt: str) -> None:
    said = thrice(lambda url: model(url).chat([ChatMessage(prompt)]))
    assert said["message"]["blocks"]


def test_a_stream(thrice: Thrice, model: At, prompt: str) -> None:
    assert len(thrice(lambda url: list(model(url).stream_chat([ChatMessage(prompt)])))) > 5
    thrice(lambda url: model(url).chat([ChatMessage(prompt)]), known=True)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_round_of_tools(streamed: bool, thrice: Thrice, model: At, prompt: str) -> None:
    tool = FunctionTool.from_defaults(weather)

    def whole(url: str) -> list[ChatMessage]:
        llm = model(url)

        def ask(messages: list[ChatMessage]) -> ChatResponse:
            if streamed:
                *_, last = llm.stream_chat_with_tools([tool], chat_history=messages)
                return last
            return llm.chat_with_tools([tool], chat_history=messages)

        messages = [ChatMessage(prompt)]
        called = ask(messages)
        messages.append(called.message)
        for call in llm.get_tool_calls_from_response(called):
            result = str(tool.call(**call.tool_kwargs))
            messages.append(ChatMessage(result, role="tool", additional_kwargs={"tool_call_id": call.tool_id}))
        return [*messages, ask(messages).message]

    _, _, *results, answer = thrice(whole)
    assert results
    assert answer["blocks"]


def test_structured_output(thrice: Thrice, model: At, prompt: str) -> None:
    said = thrice(lambda url: model(url).structured_predict(Report, PromptTemplate(prompt)))
    assert Report.model_validate(said)


def test_structured_output_in_a_stream(thrice: Thrice, prompt: str) -> None:
    # Not over the Responses API: of its tool calls, this method of llama-index reads none.
    parts = thrice(lambda url: list(chat(url).stream_structured_predict(Report, PromptTemplate(prompt))))
    assert Report.model_validate(parts[-1])


def test_a_completion(thrice: Thrice, prompt: str) -> None:
    assert thrice(lambda url: chat(url, is_chat_model=False).complete(prompt))["text"]
    parts = thrice(lambda url: list(chat(url, is_chat_model=False).stream_complete("a stream of " + prompt)))
    assert len(parts) > 5


def test_embeddings(thrice: Thrice, prompt: str) -> None:
    def model(url: str) -> OpenAIEmbedding:
        return OpenAIEmbedding(model_name="sim-embed", api_base=url, api_key="sk-test", max_retries=0)

    texts = [f"{prompt} {number}" for number in range(5)]
    assert len(thrice(lambda url: model(url).get_text_embedding_batch(texts))) == 5
    thrice(lambda url: model(url).get_query_embedding("a question of " + prompt))
