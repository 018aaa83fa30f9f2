"""Does a provider behave behind Penstock? The real SDK through a real proxy; `make test-provider` names the provider.

Each test asks the provider once and repeats only what Penstock must answer by itself. What an assertion says is for the
operator, who is shown nothing else.
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
        without = [part for part in self.parts if "choices" not in part]
        assert not without, f"it answers 200 with something that has no choices: {without[0]}"

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
    asked = provider.calls() - before
    assert asked == calls, f"calls of it that were needed: {calls}; calls that were made: {asked}"


def kept(answer: Answer) -> Answer:
    """The answer, if it is one that Penstock keeps."""
    if not answer.text and not answer.tool_calls:
        pytest.skip("the answer was empty, and such an answer is not kept")
    if "content_filter" in answer.finishes:
        pytest.skip("the answer was cut by a filter, and such an answer is not kept")
    assert answer.cache == "penstock; fwd=miss; stored", f"its answer is not kept: the Cache-Status is {answer.cache!r}"
    return answer


def assert_same_but_for_ids(hit: Answer, first: Answer) -> None:
    assert_hit(hit)
    assert hit.without_ids == first.without_ids, "the answer out of the cache says something else than the first one"
    assert len(hit.ids) == len(first.ids) == 1, "the parts of an answer have several ids"
    assert hit.ids != first.ids, "the answer out of the cache has the id of the first one"


def assert_hit(answer: Answer) -> None:
    assert answer.cache.startswith("penstock; hit"), f"a repeated request has the Cache-Status {answer.cache!r}"


def assert_same_meaning(hit: Answer, first: Answer) -> None:
    """In the other form."""
    assert_hit(hit)
    assert (hit.text, hit.finishes) == (first.text, first.finishes), "a stream and a completion say two things"


def test_the_models_are_listed(provider: Provider) -> None:
    try:
        listed = {model.id for model in provider.sdk.models.list()}
    except openai.APIStatusError as error:
        pytest.skip(f"it lists no models: {error}")
    assert listed, "its list of models is empty"
    if provider.model not in listed:
        provider.note(f"does not list {provider.model}")


def test_a_completion_comes_again_with_another_id_and_as_a_stream(provider: Provider) -> None:
    body = provider.ask("Name three colours.")
    with costs(provider, 1):
        first = kept(asked(provider, body))
        assert first.finishes, "its answer has no finish_reason"
        if not first.usage:
            provider.note("says no usage")
        if first.parts[0]["model"] != provider.model:
            provider.note(f"answers as {first.parts[0]['model']}")
        assert_same_but_for_ids(asked(provider, body), first)
        if not provider.target.takes_stream_options:
            return
        stream = streamed(provider, body, stream_options=USAGE)
    assert_same_meaning(stream, first)
    assert stream.usage == first.usage, "the stream and the completion say two usages"


def test_a_stream_comes_again_chunk_by_chunk_and_as_a_completion(provider: Provider) -> None:
    body = provider.ask("Name three rivers.")
    with costs(provider, 1):
        first = kept(streamed(provider, body))
        assert len(first.parts) > 1, "its stream comes in one part"
        assert len(first.finishes) == 1, f"its stream has the finish_reasons {first.finishes}"
        assert_same_but_for_ids(streamed(provider, body), first)
    assert not any("usage" in part for part in first.parts), "who did not ask for the usage is told it"
    if not provider.target.takes_stream_options:
        return
    with_usage = streamed(provider, body, stream_options=USAGE)
    said = (with_usage.text, with_usage.finishes)
    assert said == (first.text, first.finishes), "who asks for the usage is told something else"
    if not with_usage.usage:
        provider.note("says no usage of streams, so that a stream that is kept answers no JSON request")
        return
    with costs(provider, 0):
        completion = asked(provider, body)
    assert_same_meaning(completion, first)
    assert completion.usage == with_usage.usage, "the stream and the completion say two usages"


def test_two_who_ask_the_same_at_once_cost_one_answer(provider: Provider) -> None:
    body = provider.ask("Tell a story of sixty words.")
    with costs(provider, 1), ThreadPoolExecutor(2) as threads:
        leader = threads.submit(streamed, provider, body)
        eventually(lambda: provider.proxy.readers() or leader.done())
        joiner = threads.submit(streamed, provider, body)
        first, second = leader.result(), kept_or_skipped(joiner.result, leader.result())
    if second.cache != "penstock; fwd=miss; collapsed":
        assert_hit(second)
    assert second.without_ids == first.without_ids, "of two who asked the same at once, each was told something else"
    assert first.ids != second.ids, "of two who asked the same at once, both got the same id"


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
    assert 400 <= refusal.status_code < 500, f"for an unknown model it answers {refusal.status_code}"
    cache = refusal.response.headers["cache-status"]
    assert cache == "penstock; fwd=miss", f"an error has the Cache-Status {cache!r}"
    if not isinstance(refusal.body, dict) or not refusal.body.get("message"):
        provider.note(f"says its errors as {refusal.response.text}")


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
        if error.status_code >= 500 or error.status_code == 429:
            raise
        pytest.skip(f"it does not take tools: {error}")
    if not first.tool_calls:
        pytest.skip("it answered without calling the tool")
    kept(first)
    with costs(provider, 0):
        assert_same_but_for_ids(asked(provider, body), first)
        if provider.target.takes_stream_options:
            calls = streamed(provider, body).tool_calls
            assert calls == first.tool_calls, "a stream calls the tool in another way than the completion"


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
