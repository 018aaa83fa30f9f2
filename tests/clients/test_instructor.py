"""instructor: structured output by each of its ways of asking for it."""

from collections.abc import Callable
from typing import Any

import instructor
import pytest
from conftest import Thrice
from instructor import Mode
from openai import OpenAI
from pydantic import BaseModel

Client = Callable[[str], instructor.Instructor]


class Report(BaseModel):
    """What an answer must be."""

    title: str
    tags: list[str]
    score: int


@pytest.fixture(params=[Mode.TOOLS, Mode.JSON_SCHEMA, Mode.RESPONSES_TOOLS], ids=lambda mode: mode.name)
def client(request: pytest.FixtureRequest) -> Client:
    """The client at a base URL."""
    return lambda url: instructor.from_openai(
        OpenAI(base_url=url, api_key="sk-test", max_retries=0), mode=request.param
    )


@pytest.fixture
def question(prompt: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"model": "sim-instant", "messages": messages, "response_model": Report, "max_retries": 0}


def test_an_object(thrice: Thrice, client: Client, question: dict[str, Any]) -> None:
    said, completion = thrice(lambda url: client(url).create_with_completion(**question))
    assert Report.model_validate(said)
    assert completion["usage"]


def test_an_object_as_it_comes(thrice: Thrice, client: Client, question: dict[str, Any]) -> None:
    parts = thrice(lambda url: list(client(url).create_partial(**question)))
    assert len(parts) > 5
    assert Report.model_validate(parts[-1])


def test_a_list_of_objects(thrice: Thrice, client: Client, question: dict[str, Any]) -> None:
    for report in thrice(lambda url: list(client(url).create_iterable(**question))):
        assert Report.model_validate(report)
