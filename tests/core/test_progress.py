"""An answer is whole when every choice that was asked for ended once, and every event could be read."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.progress import FAILED_FINISHES, ChatProgress, EmbeddingsProgress, has_substance


def choice(content: str | None = None, *, index: int = 0, finish: object = None, **delta: Any) -> dict[str, Any]:
    said = delta if content is None else {"content": content, **delta}
    return {"index": index, "delta": said, "finish_reason": finish}


def progress(*chunks: object, choices: int = 1) -> ChatProgress:
    found = ChatProgress(choices)
    for chunk in chunks:
        found.take(chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode())
    return found


def of(*parts: object, **members: Any) -> dict[str, Any]:
    return {"id": "c", "choices": list(parts), **members}


def test_an_answer_is_whole_once_its_choice_has_ended() -> None:
    found = progress(of(choice(role="assistant")), of(choice("hi")))
    assert (found.begun, found.finished, found.truncated, found.flaw()) == (True, False, True, "unfinished")
    found.take(json.dumps(of(choice(finish="stop"))).encode())
    assert (found.finished, found.truncated, found.flaw()) == (True, False, None)


def test_done_is_neither_needed_nor_enough() -> None:
    without = progress(of(choice("hi", finish="stop")))
    assert not without.done
    assert without.flaw() is None
    cut = progress(of(choice("hi")))
    cut.done = True
    assert not cut.truncated  # HTTP ended as the provider wanted it to
    assert cut.flaw() == "unfinished"


def test_nothing_at_all_is_not_whole() -> None:
    found = ChatProgress(1)
    assert (found.begun, found.finished, found.truncated, found.flaw()) == (False, False, True, "unfinished")


def test_each_choice_that_was_asked_for_must_end() -> None:
    first = of(choice("a", index=0, finish="stop"))
    second = of(choice("b", index=1, finish="stop"))
    assert progress(first, choices=2).flaw() == "unfinished"
    assert progress(first, of(choice("b", index=1)), choices=2).flaw() == "unfinished"
    assert progress(first, second, choices=2).flaw() is None
    assert progress(second, first, choices=2).flaw() is None


def test_a_choice_that_came_unasked_must_end_too() -> None:
    first = of(choice("a", finish="stop"))
    assert progress(first, of(choice("b", index=1))).flaw() == "unfinished"
    assert progress(first, of(choice("b", index=1, finish="stop"))).flaw() is None


def test_a_choice_that_ends_twice_is_not_to_be_trusted() -> None:
    assert progress(of(choice("a", finish="stop")), of(choice(finish="stop"))).flaw() == "unfinished"


@pytest.mark.parametrize("finish", ["", None, False, 0, {}])
def test_a_finish_reason_that_says_nothing_ends_nothing(finish: object) -> None:
    found = progress(of(choice("a", finish=finish)), of(choice("b", finish=finish)))
    assert (found.finished, found.truncated) == (False, True)
    found.take(json.dumps(of(choice(finish="stop"))).encode())
    assert found.flaw() is None


@pytest.mark.parametrize(
    "data", [b"", b"{", b"nonsense", b"[1]", b"null", b'"text"', b"\xff", b'{"a":"\x00"}', b"[" * 100_000]
)
def test_an_event_that_is_no_json_object_is_malformed(data: bytes) -> None:
    assert progress(of(choice("a", finish="stop")), data).flaw() == "malformed"


@pytest.mark.parametrize("part", [None, "a", [], {"index": None}, {"index": "0"}, {"index": True}, {"index": 0.0}])
def test_a_choice_of_no_shape_is_malformed(part: object) -> None:
    assert progress(of(choice("a", finish="stop")), of(part)).flaw() == "malformed"


@pytest.mark.parametrize("error", [{"message": "overloaded", "code": 503}, "overloaded", {}])
def test_an_error_anywhere_is_a_flaw_and_is_remembered(error: object) -> None:
    found = progress(of(choice("a", finish="stop")), {"error": error})
    assert found.flaw() == "error"
    assert found.error == error
    assert progress(of(choice("a", finish="stop"), error=None)).flaw() is None


@pytest.mark.parametrize("finish", sorted(FAILED_FINISHES))
def test_an_answer_that_was_cut_by_the_provider_is_filtered(finish: str) -> None:
    assert progress(of(choice("a", finish=finish))).flaw() == "filtered"
    both = of(choice("a", finish="stop"), choice("b", index=1, finish=finish))
    assert progress(both, choices=2).flaw() == "filtered"


@pytest.mark.parametrize("finish", ["stop", "length", "tool_calls", "function_call", "eos"])
def test_every_other_end_is_an_end(finish: str) -> None:
    assert progress(of(choice("a", finish=finish))).flaw() is None


@pytest.mark.parametrize(
    "said",
    [
        {"content": "a"},
        {"content": [{"type": "text", "text": "a"}]},
        {"refusal": "no"},
        {"tool_calls": [{"index": 0}]},
        {"function_call": {"name": "f"}},
        {"audio": {"data": "UklG"}},
    ],
)
def test_content_refusals_calls_and_audio_are_substance(said: dict[str, Any]) -> None:
    assert has_substance(said)
    assert progress(of(choice(**said)), of(choice(finish="stop"))).flaw() is None


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"role": "assistant", "content": ""},
        {"content": None, "refusal": None, "tool_calls": [], "audio": {}},
        {"reasoning_content": "Let me think."},
        {"reasoning": "Let me think.", "content": ""},
    ],
)
def test_reasoning_alone_or_nothing_is_empty(said: dict[str, Any]) -> None:
    assert not has_substance(said)
    assert progress(of(choice(**said)), of(choice(finish="stop"))).flaw() == "empty"


def test_each_choice_needs_substance_of_its_own() -> None:
    assert progress(of(choice("a", finish="stop"), choice(index=1, finish="stop")), choices=2).flaw() == "empty"


def test_a_completion_is_judged_as_a_stream_is() -> None:
    message = {"role": "assistant", "content": "hi"}
    whole = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": {"total_tokens": 3}}
    assert progress(whole).flaw() is None
    assert progress(whole).has_usage
    assert progress(whole, choices=2).flaw() == "unfinished"
    assert (
        progress({"choices": [{"message": message, "finish_reason": "stop"}]}).flaw() is None
    )  # an index left out is 0
    assert progress({"choices": [{"index": 0, "message": message, "finish_reason": None}]}).flaw() == "unfinished"
    assert progress({"choices": []}).flaw() == progress({"choices": None}).flaw() == "unfinished"


def test_usage_is_seen_where_it_says_something() -> None:
    assert progress(of(usage={"total_tokens": 1})).has_usage
    assert not progress(of(choice("a"), usage=None)).has_usage


def test_of_the_usages_that_a_stream_says_the_last_one_counts() -> None:
    found = progress(of(usage={"total_tokens": 1}), of(usage={"total_tokens": 5}), of(choice("a"), usage=None))
    assert found.usage == {"total_tokens": 5}
    assert progress(of(choice("a"))).usage is None
    assert progress(of(usage="nonsense")).usage == "nonsense"  # whether it makes sense is for others to say


def test_the_service_that_an_answer_had_is_the_last_that_it_names() -> None:
    assert progress(of(choice("a"))).service is None
    assert progress(of(service_tier="auto"), of(service_tier="flex"), of(service_tier=None)).service == "flex"


@pytest.mark.parametrize("service", [None, 5, True, [], {"name": "flex"}])
def test_a_service_that_is_no_word_is_none(service: object) -> None:
    found = progress(of(choice("a", finish="stop"), service_tier=service))
    assert (found.service, found.flaw()) == (None, None)


parts = st.tuples(st.integers(0, 2), st.sampled_from(["open", "say", "end", "say and end"]))


@settings(deadline=None)
@given(st.lists(parts, max_size=8), st.integers(1, 3))
def test_whole_means_that_each_choice_spoke_and_ended_once(told: list[tuple[int, str]], asked: int) -> None:
    chunks = [
        of(choice("x" if "say" in what else None, index=index, finish="stop" if "end" in what else None))
        for index, what in told
    ]
    shown = {index for index, _ in told}
    ended = [index for index, what in told if "end" in what]
    spoke = {index for index, what in told if "say" in what}
    whole = len(ended) >= asked and sorted(ended) == sorted(shown) and spoke == shown
    assert (progress(*chunks, choices=asked).flaw() is None) is whole


# A list of embeddings.


def listed(body: object) -> EmbeddingsProgress:
    found = EmbeddingsProgress(1)
    found.take(body if isinstance(body, bytes) else json.dumps(body).encode())
    return found


def seen(found: EmbeddingsProgress) -> tuple[bool, bool, bool, str | None]:
    return found.begun, found.finished, found.truncated, found.flaw()


VECTORS = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
WHOLE = (True, True, False, None)


@pytest.mark.parametrize(
    "body",
    [
        {"object": "list", "data": VECTORS, "usage": {"prompt_tokens": 3}},
        {"data": []},
        {"data": VECTORS, "error": None},
        b'{ "data" : \n [ {"embedding": "AAAA"} ] }',
    ],
)
def test_a_list_of_embeddings_is_whole_once_it_is_there(body: object) -> None:
    found = listed(body)
    assert seen(found) == WHOLE
    assert len(found.substance) == 1
    assert found.has_usage


@pytest.mark.parametrize(
    "body", [{}, {"object": "list"}, {"data": None}, {"data": {"embedding": [1]}}, {"data": "[1]"}]
)
def test_without_a_list_there_are_no_embeddings(body: object) -> None:
    found = listed(body)
    assert seen(found) == (False, False, True, "unfinished")
    assert len(found.substance) == 0


@pytest.mark.parametrize(
    "body",
    [b"", b"nonsense", b"[1]", b"null", b'{"data": [1', b'{"data": [1]', b'{"data": nonsense}'],
)
def test_what_is_no_json_object_is_no_list_of_embeddings(body: bytes) -> None:
    found = listed(body)
    assert found.malformed
    assert found.flaw() == "malformed"


@pytest.mark.parametrize("error", [{"message": "no"}, "no", {}, ""])
def test_an_error_beside_the_embeddings_is_a_flaw(error: object) -> None:
    found = listed({"data": VECTORS, "error": error})
    assert (found.error, found.flaw()) == (error, "error")


def test_the_usage_of_embeddings_is_what_was_said() -> None:
    usage = {"prompt_tokens": 3, "total_tokens": 3}
    assert listed({"data": VECTORS, "usage": usage}).usage == usage
    assert listed({"data": VECTORS}).usage is None


def test_embeddings_that_have_not_come_are_not_whole() -> None:
    assert seen(EmbeddingsProgress(1)) == (False, False, True, "unfinished")
