"""Does a provider behave behind Penstock? The real SDK through a real proxy; `make test-provider` names the provider.

Each test asks the provider once and repeats only what Penstock must answer by itself.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import openai
import pytest

from tests.provider.conftest import Provider
from tests.support import Json, eventually

USAGE = {"include_usage": True}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Answer:
    """What the SDK made of an answer, and what the cache did."""

    def __init__(self, response: Any) -> None:
        self.cache: str = response.headers["cache-status"]
        parsed = response.parse()
        streamed = isinstance(parsed, openai.Stream)
        self.parts: list[Json] = [part.to_dict() for part in parsed] if streamed else [parsed.to_dict()]

    @property
    def ids(self) -> set[str]:
        return {part["id"] for part in self.parts}

    @property
    def without_ids(self) -> list[Json]:
        return [{**part, "id": None} for part in self.parts]

    @property
    def usage(self) -> list[Json]:
        return [part["usage"] for part in self.parts if part.get("usage")]

    @property
    def _choices(self) -> list[Json]:
        return [choice for part in self.parts for choice in part["choices"]]

    @property
    def _said(self) -> list[Json]:
        return [choice.get("delta") or choice.get("message") or {} for choice in self._choices]

    @property
    def text(self) -> str:
        return "".join(said.get("content") or "" for said in self._said)

    @property
    def finishes(self) -> list[str]:
        return [choice["finish_reason"] for choice in self._choices if choice.get("finish_reason")]

    @property
    def tool_calls(self) -> list[tuple[str, str]]:
        """Name and arguments of each."""
        found: dict[int, list[str]] = {}
        for said in self._said:
            for place, call in enumerate(said.get("tool_calls") or ()):
                whole = found.setdefault(call.get("index", place), ["", ""])
                whole[0] += call["function"].get("name") or ""
                whole[1] += call["function"].get("arguments") or ""
        return [(name, arguments) for name, arguments in found.values()]


def asked(provider: Provider, body: Json, **more: Any) -> Answer:
    """One answer. Raises what the SDK raises."""
    return Answer(provider.sdk.chat.completions.with_raw_response.create(**body, **more))


def streamed(provider: Provider, body: Json, **more: Any) -> Answer:
    return asked(provider, body, stream=True, **more)


@contextmanager
def costs(provider: Provider, calls: int) -> Iterator[None]:
    """So many answers are asked of the provider meanwhile."""
    before = provider.calls()
    yield
    assert provider.calls() - before == calls


def kept(answer: Answer) -> Answer:
    """The answer, if it is one that Penstock keeps."""
    assert answer.cache == "penstock; fwd=miss; stored"
    if not answer.text and not answer.tool_calls:
        pytest.skip("the answer was empty, and such an answer is not kept")
    if "content_filter" in answer.finishes:
        pytest.skip("the answer was cut by a filter, and such an answer is not kept")
    return answer


def assert_same_but_for_ids(hit: Answer, first: Answer) -> None:
    assert hit.cache.startswith("penstock; hit")
    assert hit.without_ids == first.without_ids
    assert len(hit.ids | first.ids) == 2


def test_the_models_are_listed(provider: Provider) -> None:
    try:
        listed = {model.id for model in provider.sdk.models.list()}
    except openai.APIStatusError as error:
        pytest.skip(f"it lists no models: {error}")
    assert listed
    if provider.model not in listed:
        provider.note(f"does not list {provider.model}")


def test_a_completion_comes_again_with_another_id_and_as_a_stream(provider: Provider) -> None:
    body = provider.ask("Name three colours.")
    with costs(provider, 1):
        first = kept(asked(provider, body))
        assert first.finishes
        if not first.usage:
            provider.note("says no usage")
        if first.parts[0]["model"] != provider.model:
            provider.note(f"answers as {first.parts[0]['model']}")
        assert_same_but_for_ids(asked(provider, body), first)
        stream = streamed(provider, body, stream_options=USAGE)
    assert stream.cache.startswith("penstock; hit")
    assert (stream.text, stream.finishes, stream.usage) == (first.text, first.finishes, first.usage)


def test_a_stream_comes_again_chunk_by_chunk_and_as_a_completion(provider: Provider) -> None:
    body = provider.ask("Name three rivers.")
    with costs(provider, 1):
        first = kept(streamed(provider, body))
        assert len(first.parts) > 1
        assert len(first.finishes) == 1
        assert_same_but_for_ids(streamed(provider, body), first)
    assert not any("usage" in part for part in first.parts)
    with_usage = streamed(provider, body, stream_options=USAGE)
    assert (with_usage.text, with_usage.finishes) == (first.text, first.finishes)
    if not with_usage.usage:
        provider.note("says no usage of streams, so that a stream that is kept answers no JSON request")
        return
    with costs(provider, 0):
        completion = asked(provider, body)
    assert completion.cache.startswith("penstock; hit")
    assert (completion.text, completion.finishes) == (first.text, first.finishes)
    assert completion.usage == with_usage.usage


def test_two_who_ask_the_same_at_once_cost_one_answer(provider: Provider) -> None:
    body = provider.ask("Tell a story of sixty words.")
    with costs(provider, 1), ThreadPoolExecutor(2) as threads:
        leader = threads.submit(streamed, provider, body)
        eventually(lambda: provider.proxy.readers() or leader.done())
        joiner = threads.submit(streamed, provider, body)
        first, second = leader.result(), kept_or_skipped(joiner.result, leader.result())
    assert second.cache == "penstock; fwd=miss; collapsed" or second.cache.startswith("penstock; hit")
    assert second.without_ids == first.without_ids
    assert first.ids != second.ids


def kept_or_skipped(result: Callable[[], Answer], first: Answer) -> Answer:
    """The other one's answer; where the first is not kept, who came too late to join was right to ask."""
    second = result()
    if second.cache == "penstock; fwd=miss; stored":
        kept(first)
    return second


def test_an_unknown_model_is_an_error_that_the_sdk_raises(provider: Provider) -> None:
    # The built-in provider, whose models have options, says it in its guise only where it is told to.
    unknown = f"{provider.model};status=404" if ";" in provider.model else "no-such-model"
    body = provider.ask("Say yes.") | {"model": unknown}
    refusal = refused(provider, body)
    if refusal is None:
        provider.note("answers for a model that it does not have")
        return
    assert 400 <= refusal.status_code < 500
    assert refusal.response.headers["cache-status"] == "penstock; fwd=miss"
    if not isinstance(refusal.body, dict) or not refusal.body.get("message"):
        provider.note(f"says its errors as {refusal.body!r:.100}")


def refused(provider: Provider, body: Json) -> openai.APIStatusError | None:
    """What the SDK raises for it."""
    try:
        asked(provider, body)
    except openai.APIStatusError as error:
        return error
    return None


def test_a_client_that_leaves_a_stream_leaves_nothing_behind(provider: Provider) -> None:
    stream = provider.sdk.chat.completions.create(**provider.ask("Count from 1 to 500."), stream=True)
    next(iter(stream))
    stream.close()
    provider.proxy.becomes_quiet()


def test_a_tool_call_comes_again(provider: Provider) -> None:
    body = provider.ask("What is the weather in Paris?", tools=[WEATHER], tool_choice="required")
    try:
        first = asked(provider, body)
    except openai.APIStatusError as error:
        pytest.skip(f"it does not take tools: {error}")
    if not first.tool_calls:
        pytest.skip("it answered without calling the tool")
    kept(first)
    with costs(provider, 0):
        assert_same_but_for_ids(asked(provider, body), first)
        assert streamed(provider, body).tool_calls == first.tool_calls


def test_a_short_limit_is_heeded_and_the_cut_answer_comes_again(provider: Provider) -> None:
    body = provider.ask("Tell a long story.", tokens=5)
    first = asked(provider, body)
    if first.finishes != ["length"]:
        provider.note(f"ends an answer of at most 5 tokens with {first.finishes}")
    kept(first)
    with costs(provider, 0):
        assert_same_but_for_ids(asked(provider, body), first)


def test_any_text_comes_back_as_it_was(provider: Provider) -> None:
    body = provider.ask('Repeat: Grüße, 東京 — שלום 🙂 e\u0301 "quoted" \\ \u2028')
    with costs(provider, 1):
        first = kept(streamed(provider, body))
        assert_same_but_for_ids(streamed(provider, body), first)


def test_a_long_prompt_is_answered_and_comes_again(provider: Provider) -> None:
    body = provider.ask("How many words are here? " + "word " * 4000, tokens=50)
    with costs(provider, 1):
        first = kept(asked(provider, body))
        assert_same_but_for_ids(asked(provider, body), first)
