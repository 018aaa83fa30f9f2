"""Files of requests, and what came of them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from proxy.core.batch import Answer, Failure, Request
from tests.support import CHAT, Json, ask


def line(number: int, body: Json | None = None, **members: Any) -> str:
    """A line of the file; its custom_id follows from its number."""
    body = ask(f"question {number}") if body is None else body
    return json.dumps({"custom_id": f"line-{number}", "method": "POST", "url": CHAT, "body": body, **members})


def written(path: Path, lines: Iterable[str]) -> Path:
    path.write_text("".join(f"{each}\n" for each in lines))
    return path


def results(path: Path) -> list[Json]:
    return [json.loads(each) for each in path.read_bytes().splitlines()]


def said(result: Json) -> str:
    """What the model answered."""
    text: str = result["response"]["body"]["choices"][0]["message"]["content"]
    return text


class Server:
    """Answers what it is told to, by what is asked; whatever else with 200."""

    def __init__(self, told: Mapping[str, list[Answer | Failure]] | None = None) -> None:
        self.asked: list[str] = []
        self._told = {question: list(answers) for question, answers in (told or {}).items()}

    async def ask(self, request: Request) -> Answer | Failure:
        question = json.loads(request.body)["messages"][0]["content"]
        self.asked.append(question)
        answers = self._told.get(question)
        return answers.pop(0) if answers else Answer(200, {}, b"{}")
