"""The legacy endpoint: prompts continued, in both forms alike."""

from functools import partial
from typing import Any

import httpx
import openai
import pytest
from openai.types import Completion

from .asking import Json, events, posted, settled

PATH = "/v1/completions"
SHAPES: dict[str, Json] = {
    "text": {},
    "longer": {"max_tokens": 200, "suffix": " the end."},
    "several prompts": {"prompt": ["A weir is", "A lock is"], "n": 2},
    "tokens": {"prompt": [1, 2, 3], "echo": True},
    "arrays of tokens": {"prompt": [[1, 2], [3]], "logprobs": 1},
    "an echo": {"echo": True, "n": 2},
    "an echo alone": {"echo": True, "max_tokens": 0, "logprobs": 2},
    "log probabilities": {"logprobs": 3, "n": 2},
    "log probabilities without alternatives": {"logprobs": 0},
    "an echo and log probabilities": {"logprobs": 2, "echo": True},
    "stopped": {"stop": ["e", "zz"], "max_tokens": 100},
    "a reasoning model": {"model": "sim-reasoning;first=0;gap=0"},
    "a refusal": {"model": "sim-instant;refusal"},
    "nothing": {"model": "sim-instant;empty", "logprobs": 1},
    "filtered": {"model": "sim-instant;finish=content_filter"},
}

whole = partial(posted, path=PATH)


def asking(prompt: Any = "A sluice is", **members: Any) -> Json:
    return {"model": "sim-instant", "prompt": prompt, **members}


def streamed(wire: httpx.Client, body: Json) -> list[Any]:
    return events(wire.post(PATH, json={**body, "stream": True, "stream_options": {"include_usage": True}}))


def joined(chunks: list[Json]) -> list[Json]:
    """The chunks' choices put together."""
    found: dict[int, Json] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            sofar = found.setdefault(choice["index"], {**choice, "text": "", "logprobs": None})
            sofar["text"] += choice["text"]
            sofar["finish_reason"] = choice["finish_reason"]
            if choice["logprobs"] is not None:
                before = sofar["logprobs"] or {}
                both = {name: [*(before.get(name) or []), *(v or [])] for name, v in choice["logprobs"].items()}
                without = choice["logprobs"]["top_logprobs"] is None
                sofar["logprobs"] = both | ({"top_logprobs": None} if without else {})
    return [found[index] for index in sorted(found)]


def texts(answer: Json) -> list[str]:
    return [choice["text"] for choice in answer["choices"]]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_stream_joins_to_the_json_answer(wire: httpx.Client, shape: str) -> None:
    body = asking(**SHAPES[shape])
    *chunks, usage, done = streamed(wire, body)
    answer = whole(wire, body)
    assert done == "[DONE]"
    assert joined(chunks) == answer["choices"]
    assert (usage["choices"], usage["usage"]) == ([], answer["usage"])
    assert all(chunk["usage"] is None for chunk in chunks)


@pytest.mark.parametrize("shape", SHAPES)
def test_both_forms_count_the_same_tokens(wire: httpx.Client, shape: str) -> None:
    body = asking(**SHAPES[shape])
    name = body["model"].partition(";")[0]
    usage = whole(wire, body)["usage"]
    streamed(wire, body)
    served = settled(wire)["by_model"][name]
    assert served["prompt_tokens"] == 2 * usage["prompt_tokens"]
    assert served["completion_tokens"] == 2 * usage["completion_tokens"]


def test_the_sdk_reads_both_forms(client: openai.OpenAI) -> None:
    body = asking(logprobs=2, n=2)
    answer = client.completions.create(**body)
    assert Completion.model_validate(answer.to_dict()) == answer
    chunks = list(client.completions.create(**body, stream=True))
    for choice in answer.choices:
        said = [each.text for chunk in chunks for each in chunk.choices if each.index == choice.index]
        assert "".join(said) == choice.text
    assert chunks[0].id.startswith("cmpl-")
    assert {chunk.object for chunk in chunks} == {"text_completion"}


def test_sixteen_tokens_are_said_unless_more_are_asked_for(wire: httpx.Client) -> None:
    usual, long = whole(wire, asking()), whole(wire, asking(max_tokens=500))
    assert (usual["usage"]["completion_tokens"], usual["choices"][0]["finish_reason"]) == (16, "length")
    assert long["usage"]["completion_tokens"] > 16
    assert long["choices"][0]["finish_reason"] == "stop"


def test_prompts_are_numbered_and_continued_as_each_would_be_alone(wire: httpx.Client) -> None:
    prompts = ["A weir is", "A lock is"]
    answer = whole(wire, asking(prompts, n=3))
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    alone = [text for prompt in prompts for text in texts(whole(wire, asking(prompt, n=3)))]
    assert texts(answer) == alone
    assert len(set(alone)) == 6
    assert answer["usage"]["prompt_tokens"] == 3 + 3


def test_tokens_count_one_each_and_a_list_of_them_is_one_prompt(wire: httpx.Client) -> None:
    one, two = whole(wire, asking([5, 6, 7])), whole(wire, asking([[5, 6, 7], [8]]))
    assert (one["usage"]["prompt_tokens"], two["usage"]["prompt_tokens"]) == (3, 4)
    assert texts(one) == texts(two)[:1]


def test_an_echo_begins_with_the_prompt_and_changes_nothing_else(wire: httpx.Client) -> None:
    plain, echoed = whole(wire, asking(logprobs=1)), whole(wire, asking(logprobs=1, echo=True))
    assert texts(echoed) == ["A sluice is" + text for text in texts(plain)]
    assert plain["usage"] == echoed["usage"]
    ours, theirs = plain["choices"][0]["logprobs"], echoed["choices"][0]["logprobs"]
    assert theirs["token_logprobs"][0] is None
    assert theirs["tokens"][-16:] == ours["tokens"]
    assert theirs["text_offset"][-16:] == ours["text_offset"]
    assert ours["text_offset"][0] == len("A sluice is")


def test_log_probabilities_spell_the_text_at_its_offsets(wire: httpx.Client) -> None:
    (choice,) = whole(wire, asking(logprobs=2, echo=True))["choices"]
    shown = choice["logprobs"]
    for token, offset in zip(shown["tokens"], shown["text_offset"], strict=True):
        assert choice["text"][offset : offset + len(token)] == token
    assert "".join(shown["tokens"]) == choice["text"]
    assert all(token in top for token, top in zip(shown["tokens"][1:], shown["top_logprobs"][1:], strict=True))


def test_the_best_of_many_is_among_them_and_all_are_paid(wire: httpx.Client) -> None:
    best, every = whole(wire, asking(best_of=4)), whole(wire, asking(n=4, logprobs=0))
    means = [sum(choice["logprobs"]["token_logprobs"]) / 16 for choice in every["choices"]]
    assert texts(best) == [texts(every)[means.index(max(means))]]
    assert best["usage"]["completion_tokens"] == every["usage"]["completion_tokens"] == 64


def test_a_suffix_changes_the_words_and_form_does_not(wire: httpx.Client) -> None:
    plain = texts(whole(wire, asking()))
    assert texts(whole(wire, asking(suffix=" the end."))) != plain
    assert texts(whole(wire, asking(logprobs=3, user="someone"))) == plain


@pytest.mark.parametrize(
    ("members", "param", "status"),
    [
        ({"prompt": []}, "prompt", 400),
        ({"prompt": [[]]}, "prompt", 400),
        ({"prompt": ["a", 1]}, "prompt", 400),
        ({"prompt": None}, "prompt", 400),
        ({"logprobs": 6}, "logprobs", 400),
        ({"max_tokens": -1}, "max_tokens", 400),
        ({"n": 3, "best_of": 2}, "best_of", 400),
        ({"best_of": 2, "stream": True}, "best_of", 400),
        ({"stream_options": {"include_usage": True}}, "stream_options", 400),
        ({"model": "sim-embed"}, "model", 404),
    ],
)
def test_a_bad_member_is_named(wire: httpx.Client, members: Json, param: str, status: int) -> None:
    response = wire.post(PATH, json=asking(**{"suffix": None, **members}))
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)
