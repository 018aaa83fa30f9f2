"""The load: how large it is, how it repeats itself, that it is always the same."""

import asyncio
import json
from collections import Counter

from pricing.cost import Usage
from proxy.demo.figures import Answer
from proxy.demo.load import Body, Work, live_question, works
from proxy.simulator import MODELS


async def bodies(work: Work) -> list[str]:
    """What it asks, each answered at once."""
    asked: list[str] = []

    async def ask(body: Body) -> Answer:
        asked.append(json.dumps(body))
        await asyncio.sleep(0)
        return Answer(work.name, body["model"], "miss", Usage(1, 0, 1), None, f"answer {len(asked)}")

    await work.run(ask)
    return asked


async def test_every_kind_of_work_asks_as_much_as_it_says() -> None:
    sizes = [work.size for work in works()]
    assert [len(await bodies(work)) for work in works()] == sizes
    assert sum(sizes) + 2 == 300


async def test_the_load_is_always_the_same() -> None:
    for one, other in zip(works(), works(), strict=True):
        assert await bodies(one) == await bodies(other)


async def test_all_four_models_are_asked_at_their_own_speeds() -> None:
    asked = [json.loads(body)["model"] for work in works() for body in await bodies(work)]
    assert set(asked) == {"sim-small", "sim-medium", "sim-large", "sim-reasoning"}
    assert set(asked) <= MODELS.keys()


async def test_work_repeats_itself_except_for_the_chats() -> None:
    distinct = {work.name: len(set(await bodies(work))) for work in works()}
    assert distinct == {
        "Classify tickets (JSON)": 20,
        "Support questions": 15,
        "One page, many readers": 1,
        "Tool call: look up order": 12,
        "Evaluation, run twice": 40,
        "Long chats, reasoning": 12,
    }


async def test_some_records_come_often_and_some_seldom() -> None:
    classify = works()[0]
    often = [count for _, count in Counter(await bodies(classify)).most_common()]
    assert often[0] > 4 * often[-1]


async def test_a_second_run_of_the_evaluation_begins_when_the_first_has_ended() -> None:
    evaluation = next(work for work in works() if "twice" in work.name)
    asked = await bodies(evaluation)
    assert asked[:40] == asked[40:]


async def test_a_turn_of_a_chat_sends_the_answers_before_it() -> None:
    chats = works()[-1]
    last = json.loads((await bodies(chats))[-1])["messages"]
    assert [message["role"] for message in last] == ["system", *["user", "assistant"] * 5, "user"]
    assert last[2]["content"].startswith("answer ")


async def test_a_smaller_load_has_every_kind_of_work() -> None:
    small = works(0.05)
    assert [work.name for work in small] == [work.name for work in works()]
    assert sum(work.size for work in small) < 30
    assert [len(await bodies(work)) for work in small] == [work.size for work in small]


async def test_the_live_question_is_asked_by_nobody_else() -> None:
    live = json.dumps(live_question())
    for work in works():
        assert live not in await bodies(work)
