"""Text completions through the whole proxy: as chat, from either form the other, under ids of their own."""

import asyncio
import json
import re
import zlib
from decimal import Decimal
from typing import Any, Final

import openai
import pytest

from tests.conftest import MakeProxy, Sdk
from tests.responding import posted, status, streamed, whole
from tests.scripted import DONE, Scripted, Wire, event
from tests.support import Json, Proxy, Simulator, together

PATH: Final = "/v1/completions"
MISS: Final = "fwd=miss; stored"
USAGE: Final[Json] = {"stream_options": {"include_usage": True}}
ID: Final = re.compile(rb'"id":"(cmpl-\w+)"')
CASES: Final[dict[str, Json]] = {
    "plain": {},
    "three": {"n": 3},
    "best of three": {"best_of": 3, "n": 2},
    "echo with logprobs": {"echo": True, "logprobs": 2},
    "suffix": {"suffix": " The end."},
    "logprobs of what was chosen": {"logprobs": 0},
    "several prompts": {"prompt": ["One", "Two"], "n": 2, "logprobs": 1, "echo": True},
    "token arrays": {"prompt": [[1, 2], [3]]},
    "a refusal": {"model": "sim-instant;refusal"},
    "longer": {"max_tokens": 100},
}


def complete(words: str, **members: Any) -> Json:
    """A request's body, whose seed nobody else has, whatever its prompt is."""
    return {"model": "sim-instant", "prompt": words, "seed": zlib.crc32(words.encode()), **members}


def lasting(completion: Json) -> Json:
    """Less what is new each time."""
    return {name: value for name, value in completion.items() if name not in ("id", "created")}


def chunks(stream: list[bytes]) -> list[Json]:
    """What the events say, less what is new each time."""
    assert stream[-1] == DONE
    return [lasting(json.loads(one.removeprefix(b"data: "))) for one in stream[:-1]]


def texts(stream: list[bytes]) -> dict[int, str]:
    """The text of each choice."""
    found: dict[int, str] = {}
    for said in chunks(stream):
        for choice in said["choices"]:
            found[choice["index"]] = found.get(choice["index"], "") + choice["text"]
    return found


def ids(stream: list[bytes]) -> set[bytes]:
    return {one for block in stream for one in ID.findall(block)}


@pytest.mark.parametrize("case", [name for name in CASES if name != "best of three"])
def test_a_streamed_completion_answers_in_either_form(
    case: str, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = complete(prompt) | CASES[case]
    miss, hit = (streamed(proxy.url, body | USAGE, PATH) for _ in range(2))
    assert chunks(hit) == chunks(miss) == chunks(streamed(simulator.url, body | USAGE, PATH))
    assert len(ids(miss) | ids(hit)) == 2
    assert lasting(whole(proxy.url, body, PATH)) == lasting(whole(simulator.url, body, PATH))
    assert simulator.asked() == 3


@pytest.mark.parametrize("case", CASES)
def test_a_completion_that_came_as_json_answers_in_either_form(
    case: str, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = complete(prompt) | CASES[case]
    first, again = whole(proxy.url, body, PATH), whole(proxy.url, body, PATH)
    assert lasting(first) == lasting(again) == lasting(whole(simulator.url, body, PATH))
    stream = streamed(proxy.url, body | USAGE, PATH)
    assert texts(stream) == {choice["index"]: choice["text"] for choice in first["choices"]}
    *before, last = chunks(stream)
    assert (last["usage"], last["choices"]) == (first["usage"], [])
    assert {one["usage"] for one in before} == {None}
    finishes = [each for one in before for each in one["choices"] if each["finish_reason"]]
    assert [each["index"] for each in finishes] == [each["index"] for each in first["choices"]]
    assert len({first["id"], again["id"], *ids(stream)}) == 3
    assert simulator.asked() == 2


def test_the_logprobs_of_a_completion_stand_beside_their_tokens_in_a_stream(
    proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = complete(prompt, logprobs=2, echo=True)
    (choice,) = whole(proxy.url, body, PATH)["choices"]
    said = [each["logprobs"] for one in chunks(streamed(proxy.url, body, PATH)) for each in one["choices"]]
    for name, values in choice["logprobs"].items():
        assert [value for each in said if each for value in each.get(name) or ()] == values
    assert simulator.asked() == 1


def test_who_did_not_ask_for_usage_sees_no_trace_of_it(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    body = complete(prompt)
    miss, hit = (streamed(proxy.url, body, PATH) for _ in range(2))
    assert b"usage" not in b"".join([*miss, *hit])
    assert simulator.last()["body"] == body | {"stream": True} | USAGE
    assert whole(proxy.url, body, PATH)["usage"]["total_tokens"]
    assert simulator.asked() == 1


def test_where_a_provider_says_no_usage_of_streams_each_form_is_asked_for(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy()
    body = complete(prompt, model="sim-instant;refuse-usage")
    for form in (body | {"stream": True}, body):
        assert [status(proxy.url, form, PATH) for _ in range(2)] == [MISS, "hit"]
    assert b"usage" not in b"".join(streamed(proxy.url, body, PATH))
    assert whole(proxy.url, body, PATH)["usage"]["total_tokens"]


@pytest.mark.parametrize("first", [0, 1], ids=["JSON leads", "a stream leads"])
async def test_five_at_once_of_either_form_are_one_call_under_five_ids(
    first: int, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = complete(prompt)

    def said(form: bool) -> tuple[str, bytes]:
        if form:
            stream = streamed(proxy.url, body, PATH)
            (name,) = ids(stream)
            return texts(stream)[0], name
        answer = whole(proxy.url, body, PATH)
        return answer["choices"][0]["text"], answer["id"].encode()

    ways = [lambda form=(first + at) % 2 == 1: asyncio.to_thread(said, form) for at in range(5)]
    answers = await together(proxy, simulator, *ways)
    assert simulator.asked() == 1
    assert len({text for text, _ in answers}) == 1
    assert len({name for _, name in answers}) == 5
    assert all(name.startswith(b"cmpl-") for _, name in answers)


def test_a_completion_costs_what_was_made_for_it(make_proxy: MakeProxy, simulator: Simulator, prompt: str) -> None:
    proxy = make_proxy(models={"writer": {"upstream": "sim-instant", "price": {"input": "2", "output": "10"}}})
    body = complete(prompt, model="writer", best_of=3, n=1)
    usage = whole(proxy.url, body, PATH)["usage"]
    whole(proxy.url, body, PATH)
    first, again = proxy.told(2)
    cost = Decimal(usage["prompt_tokens"] * 2 + usage["completion_tokens"] * 10) / 1_000_000
    assert (first.endpoint, first.outcome, first.cost) == ("completions", "miss", cost)
    assert (again.outcome, again.cost, again.saved) == ("hit", Decimal(0), cost)


def assert_not_kept(proxy: Proxy, body: Json) -> None:
    with posted(proxy.url, body, PATH, cache_control="only-if-cached") as wire:
        assert wire.status == 504


@pytest.mark.parametrize(
    ("fault", "code"),
    [("cut=3", "upstream_truncated"), ("reset=3", "upstream_reset"), ("error=3", "server_error")],
)
def test_a_completion_that_fails_in_the_middle_is_an_error_for_the_sdk_and_forgotten(
    fault: str, code: str, proxy: Proxy, simulator: Simulator, sdk: Sdk, prompt: str
) -> None:
    body = complete(prompt, model=f"sim-instant;chunks=8;{fault}", stream=True)
    with posted(proxy.url, body, PATH) as wire:
        *before, last = wire.read_events()
        assert not wire.clean
    assert len(before) == 3
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == code
    with pytest.raises(openai.APIError) as raised:
        list(sdk(proxy.base_url).completions.create(**body))
    assert raised.value.code == code
    assert_not_kept(proxy, body)
    assert simulator.asked() == 2


@pytest.mark.parametrize("form", [False, True], ids=["JSON", "a stream"])
@pytest.mark.parametrize("fault", ["finish=content_filter", "empty"])
def test_a_completion_that_is_no_good_is_passed_on_and_forgotten(
    fault: str, form: bool, proxy: Proxy, prompt: str
) -> None:
    body = complete(prompt, model=f"sim-instant;{fault}", stream=form)
    assert status(proxy.url, body, PATH).startswith("fwd=miss")
    assert_not_kept(proxy, body)


def test_all_choices_of_all_prompts_must_have_ended(make_proxy: MakeProxy, scripted: Scripted) -> None:
    proxy = make_proxy(scripted.base_url)
    head = {"id": "cmpl-scripted", "object": "text_completion", "created": 1, "model": "m"}

    def ends(*indices: int) -> list[bytes]:
        choices = [{"index": at, "text": "a", "logprobs": None, "finish_reason": "stop"} for at in indices]
        return [*(event({**head, "choices": [choice]}) for choice in choices), DONE]

    body = complete("x", prompt=["one", "two"], n=2, stream=True)
    for ended, kept in ((ends(0, 1, 2), False), (ends(0, 1, 2, 3), True)):
        with Wire(proxy.url, body, path=PATH) as wire:
            scripted.turn().answer(*ended)
            wire.read_head().read_events()
        with posted(proxy.url, body, PATH, cache_control="only-if-cached") as wire:
            assert (wire.status == 200) == kept


@pytest.mark.parametrize("prompt_of_tokens", [[[1, 2], [3]], [7, 8, 9], ["a", "b"]])
def test_prompts_that_differ_have_answers_that_differ(
    prompt_of_tokens: list[Any], proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = complete(prompt, prompt=prompt_of_tokens)
    other = body | {"prompt": [*prompt_of_tokens[:-1], prompt_of_tokens[0]]}
    assert [status(proxy.url, one, PATH) for one in (body, other, body, other)] == [MISS, MISS, "hit", "hit"]
    assert simulator.asked() == 2
