"""The demo's load: five kinds of work that repeat themselves as such work does, and one that never does.

Always the same calls, so that two runs can be compared; which of them meet depends on the clock, as in life.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

from proxy.demo.figures import Answer

Body = dict[str, Any]
Ask = Callable[[Body], Awaitable[Answer]]

GOLDEN = (math.sqrt(5) - 1) / 2

COUNTRIES = (
    "Austria Belgium Croatia Denmark Estonia Finland France Germany Greece Ireland Italy Latvia Malta Norway Poland "
    "Portugal Spain Sweden Switzerland Wales"
).split()
PRODUCTS = ("tent", "kayak", "headlamp", "sleeping bag", "rain jacket")
TROUBLES = ("arrived broken", "never arrived", "is the wrong size", "was charged twice")
QUESTIONS = ("How do I return a {}?", "How long does a {} take to arrive?", "What does the guarantee on a {} cover?")
SUBJECTS = ("refunds", "delivery", "guarantees", "invoices", "discounts", "spare parts", "accounts", "privacy")
TESTS = ("state the rule", "name an exception", "give an example", "refuse politely", "ask for what is missing")
TURNS = (
    "Our checkout fails for one order in fifty. Where do we begin to look?",
    "It only happens with saved cards. What does that tell us?",
    "The payment log shows two requests per order. Why could that be?",
    "How would we make the second one harmless?",
    "Write the test that would have caught it.",
    "Summarize what we found for the team.",
)


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of work: `run` asks `size` calls."""

    name: str
    size: int
    run: Callable[[Ask], Awaitable[None]]


def works(scale: float = 1.0) -> tuple[Work, ...]:
    """298 calls at scale 1; with the two that are shown live, 300."""

    def so_many(count: int) -> int:
        return max(2, round(count * scale))

    classify = list(_skewed(_classifications(), so_many(80)))
    support = list(_skewed(_support_questions(), so_many(56)))
    tools = list(_skewed(_tool_calls(), so_many(30)))
    tests = _evaluation()[: so_many(40)]
    burst = [_status_page()] * so_many(40)
    chats = [_opening(team) for team in ("web", "mobile")]
    turns = TURNS[: so_many(6)]
    return (
        _in_rounds("Classify tickets (JSON)", [classify], at_once=8),
        _in_rounds("Support questions", [support], at_once=6),
        _in_rounds("One page, many readers", [burst], at_once=len(burst)),
        _in_rounds("Tool call: look up order", [tools], at_once=3),
        _in_rounds("Evaluation, run twice", [tests, tests], at_once=10),
        Work("Long chats, reasoning", len(chats) * len(turns), partial(_talk, chats, turns)),
    )


def live_question() -> Body:
    """The one that is asked twice before everybody's eyes."""
    return _streamed("sim-large", _user("What is a penstock, and why does a dam need one?"))


def _in_rounds(name: str, rounds: Sequence[Sequence[Body]], *, at_once: int) -> Work:
    async def run(ask: Ask) -> None:
        gate = asyncio.Semaphore(at_once)

        async def one(body: Body) -> None:
            async with gate:
                await ask(body)

        for bodies in rounds:
            async with asyncio.TaskGroup() as group:
                for body in bodies:
                    group.create_task(one(body))

    return Work(name, sum(map(len, rounds)), run)


async def _talk(chats: Sequence[list[Body]], turns: Sequence[str], ask: Ask) -> None:
    """Every turn sends the whole conversation so far: no two are equal, so a cache cannot help."""

    async def one(messages: list[Body]) -> None:
        for turn in turns:
            messages = [*messages, {"role": "user", "content": turn}]
            answer = await ask(_streamed("sim-reasoning", messages))
            messages = [*messages, {"role": "assistant", "content": answer.text}]

    async with asyncio.TaskGroup() as group:
        for chat in chats:
            group.create_task(one(chat))


def _skewed(bodies: Sequence[Body], count: int) -> Iterator[Body]:
    """So many of them, the first often, the last seldom: the golden ratio spreads, the square prefers the first."""
    for number in range(count):
        yield bodies[int(len(bodies) * (number * GOLDEN % 1) ** 2)]


def _classifications() -> list[Body]:
    schema = {
        "type": "object",
        "properties": {
            "topic": {"enum": ["delivery", "quality", "payment", "other"]},
            "urgent": {"type": "boolean"},
            "summary": {"type": "string"},
        },
        "required": ["topic", "urgent", "summary"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "ticket", "strict": True, "schema": schema}}
    tickets = [f"My {thing} {trouble}." for thing, trouble in product(PRODUCTS, TROUBLES)]
    return [
        {"model": "sim-small", "temperature": 0, "response_format": wanted, "messages": _user(f"Classify: {ticket}")}
        for ticket in tickets
    ]


def _handbook() -> str:
    """A long system prompt, as support desks have: providers charge less for the part that they have seen before."""
    rules = [
        f"{number}. {country}: a parcel takes {2 + number % 7} working days and costs EUR {4 + number % 5}.90; "
        f"goods come back free of charge within {14 + number % 3 * 8} days, unused and in their box; "
        "a refund follows in a week."
        for number, country in enumerate(COUNTRIES, 1)
    ]
    return "You answer customers of an outdoor shop, kindly and in two sentences.\n" + "\n".join(rules)


def _support_questions() -> list[Body]:
    system = {"role": "system", "content": _handbook()}
    texts = [question.format(thing) for thing, question in product(PRODUCTS, QUESTIONS)]
    return [_streamed("sim-medium", [system, *_user(text)]) for text in texts]


def _status_page() -> Body:
    return _streamed("sim-large", _user("Summarize this morning's outage for our customers."))


def _tool_calls() -> list[Body]:
    parameters = {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]}
    tool = {"type": "function", "function": {"name": "look_up_order", "parameters": parameters}}
    return [
        _streamed("sim-medium", _user(f"Where is my order {4000 + number}?")) | {"tools": [tool]}
        for number in range(12)
    ]


def _evaluation() -> list[Body]:
    texts = [f"On {subject}: {test}." for subject, test in product(SUBJECTS, TESTS)]
    return [{"model": "sim-large", "temperature": 0, "messages": _user(text)} for text in texts]


def _opening(team: str) -> list[Body]:
    return [{"role": "system", "content": f"You help the {team} team find faults."}]


def _user(text: str) -> list[Body]:
    return [{"role": "user", "content": text}]


def _streamed(model: str, messages: list[Body]) -> Body:
    return {"model": model, "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
