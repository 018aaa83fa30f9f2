"""What is said: the same in both forms, the same each time, and as long as was asked for."""

from typing import Any

import httpx
import openai
import pytest

from proxy.simulator import MODELS

from .asking import PATH, as_json, as_stream, content, events, request

TOOL = {
    "type": "function",
    "function": {"name": "open_gate", "parameters": {"type": "object", "properties": {"metres": {"type": "number"}}}},
}
SHAPES: dict[str, dict[str, Any]] = {
    "text": {},
    "another text": {"temperature": 0.5},
    "three choices": {"n": 3},
    "cut by max_tokens": {"max_tokens": 7},
    "cut by max_completion_tokens": {"max_completion_tokens": 3, "n": 2},
    "one token": {"max_tokens": 1},
    "stopped": {"stop": ["e", "zz"]},
    "log probabilities": {"logprobs": True, "top_logprobs": 3, "n": 2},
    "log probabilities without alternatives": {"logprobs": True},
    "a tool": {"tools": [TOOL], "tool_choice": "required"},
    "a tool cut short": {"tools": [TOOL], "tool_choice": "required", "max_tokens": 3},
    "a tool and log probabilities": {"tools": [TOOL], "tool_choice": "required", "logprobs": True},
    "a custom tool": {"tools": [{"type": "custom", "custom": {"name": "shell"}}], "tool_choice": "required"},
    "a legacy function": {"functions": [{"name": "old", "parameters": {"type": "object"}}]},
    "an object": {"response_format": {"type": "json_object"}},
    "reasoning": {"model": "sim-reasoning;first=0;gap=0"},
    "reasoning cut short": {"model": "sim-reasoning;first=0;gap=0", "max_tokens": 4},
    "reasoning and a tool": {"model": "sim-reasoning;first=0;gap=0", "tools": [TOOL], "tool_choice": "required"},
    "a refusal": {"model": "sim-instant;refusal", "logprobs": True},
    "nothing": {"model": "sim-instant;empty"},
    "filtered": {"model": "sim-instant;finish=content_filter"},
    "fifty tokens": {"model": "sim-instant;chunks=50"},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_stream_assembles_to_the_json_answer(client: openai.OpenAI, shape: str) -> None:
    body = request(**SHAPES[shape])
    assert as_stream(client, body) == as_json(client, body)


@pytest.mark.parametrize("number", range(12))
def test_parallel_calls_assemble_to_the_json_answer(client: openai.OpenAI, number: int) -> None:
    body = request(f"Gate {number}", tools=[TOOL], tool_choice="required", n=2)
    assert as_stream(client, body) == as_json(client, body)


def test_the_same_request_is_answered_the_same_under_a_new_id(client: openai.OpenAI) -> None:
    body = request()
    first, second = (client.chat.completions.create(**body) for _ in range(2))
    assert first.choices == second.choices
    assert first.id != second.id


def test_book_keeping_and_form_do_not_change_the_words(client: openai.OpenAI) -> None:
    plain = as_json(client, request())
    kept = as_json(client, request(user="someone", metadata={"a": "b"}, logprobs=True, n=2))
    assert content(plain) == content(kept)


def test_options_of_the_simulator_do_not_change_the_words(client: openai.OpenAI) -> None:
    assert as_json(client, request()) == as_json(client, request(model="sim-instant;gap=0.001;first=0.01"))


@pytest.mark.parametrize("change", [{"temperature": 0.1}, {"seed": 7}, {"unheard_of": "x"}, {"model": "sim-small"}])
def test_any_other_member_changes_the_words(client: openai.OpenAI, change: dict[str, Any]) -> None:
    extra = {"extra_body": change} if "unheard_of" in change else change
    assert content(as_json(client, request())) != content(as_json(client, request(**extra)))


def test_the_order_of_members_does_not_matter(wire: httpx.Client) -> None:
    body = request(temperature=1, seed=3)
    turned = dict(reversed(body.items()))
    one, other = (wire.post(PATH, json=each).json() for each in (body, turned))
    assert one["choices"] == other["choices"]


def test_choices_differ_and_their_chunks_come_in_turn(wire: httpx.Client) -> None:
    body = request(model="sim-instant;chunks=4", n=2, stream=True)
    *chunks, done = events(wire.post(PATH, json=body))
    assert done == "[DONE]"
    assert [chunk["choices"][0]["index"] for chunk in chunks] == [0, 1] * 6
    texts = ["".join(c["choices"][0]["delta"].get("content", "") for c in chunks[i::2]) for i in range(2)]
    assert texts[0] != texts[1]


def test_a_stream_has_the_events_that_openai_sends(wire: httpx.Client) -> None:
    body = request(stream=True, stream_options={"include_usage": True}, max_tokens=2)
    first, token, _, finish, usage, done = events(wire.post(PATH, json=body))
    assert first["choices"] == [
        {
            "index": 0,
            "delta": {"role": "assistant", "content": "", "refusal": None},
            "logprobs": None,
            "finish_reason": None,
        }
    ]
    assert first["usage"] is None
    assert list(token["choices"][0]["delta"]) == ["content"]
    assert finish["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}]
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 2
    assert done == "[DONE]"


def test_a_stream_that_did_not_ask_for_usage_has_no_trace_of_it(wire: httpx.Client) -> None:
    assert "usage" not in wire.post(PATH, json=request(stream=True)).text


def test_a_stop_sequence_is_not_in_the_answer(client: openai.OpenAI) -> None:
    whole = content(as_json(client, request()))
    stopped = as_json(client, request(stop=" "))
    assert " " in whole
    assert " " not in content(stopped)
    assert stopped["choices"][0]["finish_reason"] == "stop"


def test_a_limit_cuts_and_says_so(client: openai.OpenAI) -> None:
    answer = as_json(client, request(max_tokens=5))
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 5


def test_fewer_chunks_are_the_beginning_of_more(client: openai.OpenAI) -> None:
    short, long = (content(as_json(client, request(model=f"sim-instant;chunks={n}"))) for n in (10, 40))
    assert long.startswith(short)


def test_reasoning_comes_before_the_content_and_is_counted(client: openai.OpenAI) -> None:
    answer = as_json(client, request(model="sim-reasoning;first=0;gap=0"))
    assert answer["choices"][0]["message"]["reasoning_content"]
    usage = answer["usage"]
    assert 0 < usage["completion_tokens_details"]["reasoning_tokens"] < usage["completion_tokens"]


def test_reasoning_is_streamed_first(wire: httpx.Client) -> None:
    body = request(model="sim-reasoning;first=0;gap=0;chunks=3", stream=True)
    *chunks, _ = events(wire.post(PATH, json=body))
    kinds = ["".join(chunk["choices"][0]["delta"]) for chunk in chunks]
    assert kinds[1] == "reasoning_content"
    assert kinds[-4:] == ["content"] * 3 + [""]


def test_a_short_prompt_has_no_cached_tokens(client: openai.OpenAI) -> None:
    usage = as_json(client, request("x" * 400))["usage"]
    assert usage["prompt_tokens"] == 107
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0, "audio_tokens": 0}
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_long_prompts_prefix_counts_as_cached(client: openai.OpenAI) -> None:
    body = request("And now?")
    body["messages"] = [{"role": "system", "content": "x" * 8000}, *body["messages"]]
    usage = as_json(client, body)["usage"]
    assert usage["prompt_tokens"] == 3 + 4 + 2000 + 4 + 2
    assert usage["prompt_tokens_details"]["cached_tokens"] == 15 * 128


def test_words_are_a_token_each_and_some_are_not_ascii(client: openai.OpenAI) -> None:
    text = "".join(content(as_json(client, request(str(n)))) for n in range(10))
    assert not text.isascii()
    assert "\n" in text


def test_every_model_answers_under_its_plain_name(client: openai.OpenAI) -> None:
    for name in (model.id for model in MODELS.values() if not model.dimensions):
        assert as_json(client, request(model=f"{name};first=0;gap=0;chunks=1"))["model"] == name
