"""Streams as real providers send them add up to the completion that they would have sent."""

import copy
from typing import Any

import pytest

from proxy.core.assemble import assemble

Json = dict[str, Any]


def chunk(delta: Json | None = None, **of_choice: Any) -> Json:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": None} | of_choice
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def message_of(*deltas: Json) -> Json:
    message: Json = assemble([chunk(delta) for delta in deltas])["choices"][0]["message"]
    return message


def calls_of(*deltas: list[Json]) -> Any:
    return message_of(*({"tool_calls": delta} for delta in deltas))["tool_calls"]


def test_an_openai_stream_becomes_its_completion() -> None:
    head = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 7,
        "model": "gpt",
        "service_tier": "default",
    }

    def part(delta: Json, finish: str | None = None) -> Json:
        return head | {
            "system_fingerprint": "fp",
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
            "usage": None,
            "obfuscation": "xY3",
        }

    chunks = [
        part({"role": "assistant", "content": "", "refusal": None}),
        part({"content": "ha"}),
        part({"content": "ha"}),
        part({"content": " \n"}),
        part({}, "stop"),
        head | {"choices": [], "usage": {"total_tokens": 5}, "obfuscation": ""},
    ]
    before = copy.deepcopy(chunks)
    message = {"role": "assistant", "content": "haha \n", "refusal": None}
    assert assemble(chunks) == {
        **head,
        "object": "chat.completion",
        "system_fingerprint": "fp",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"total_tokens": 5},
    }
    assert chunks == before


def test_azures_first_chunk_contributes_its_filter_results_but_no_empty_id() -> None:
    first = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": [{"a": 1}]}
    whole = assemble([first, chunk({"role": "assistant", "content": "Hi"}), first | {"id": "", "model": ""}])
    assert (whole["id"], whole["created"], whole["model"], whole["object"]) == ("c", 1, "m", "chat.completion")
    assert whole["prompt_filter_results"] == [{"a": 1}]


def test_choices_that_come_interleaved_are_told_apart_and_put_in_order() -> None:
    parts = [(1, "b1"), (0, "a1"), (1, "b2"), (0, "a2")]
    whole = assemble([chunk({"content": text}, index=index) for index, text in parts])
    assert [(choice["index"], choice["message"]["content"]) for choice in whole["choices"]] == [
        (0, "a1a2"),
        (1, "b1b2"),
    ]


def test_reasoning_survives_in_all_its_spellings() -> None:
    assert message_of(
        {"role": "assistant", "content": None, "reasoning_content": "Hm", "reasoning": "ha"},
        {"reasoning_content": "m.", "reasoning": "ha", "content": None},
        {"content": "Yes"},
    ) == {"role": "assistant", "content": "Yes", "reasoning_content": "Hmm.", "reasoning": "haha"}


def test_reasoning_details_join_by_index_and_are_else_a_list() -> None:
    def detail(text: str, **more: Any) -> Json:
        return {"reasoning_details": [{"type": "reasoning.text", "text": text, "format": "v1"} | more]}

    assert message_of(detail("ha", index=0), detail("ha", index=0, signature="s"), detail("b", index=1))[
        "reasoning_details"
    ] == [
        {"type": "reasoning.text", "text": "haha", "format": "v1", "index": 0, "signature": "s"},
        {"type": "reasoning.text", "text": "b", "format": "v1", "index": 1},
    ]
    assert len(message_of(detail("a"), detail("b"))["reasoning_details"]) == 2
    two = [{"index": 0, "text": "a"}, {"index": 0, "text": "b"}]
    assert message_of({"annotations": two})["annotations"] == two


def test_tool_calls_add_up_by_index_though_ids_and_names_come_again() -> None:
    def part(index: int, arguments: str, **more: Any) -> Json:
        return {"index": index, "function": {"arguments": arguments, **more}}

    again = {"id": "b", "type": "function"}
    assert calls_of(
        [part(0, "", name="f") | {"id": "a", "type": "function"}],
        [part(0, '{"x'), part(1, "1", name="g") | again],
        [part(1, "1", name="g") | again, part(0, '":1}')],
        [part(0, "") | {"id": "", "type": None}],
    ) == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "11"}},
    ]


def test_a_custom_tools_input_is_joined() -> None:
    assert calls_of(
        [{"index": 0, "id": "a", "type": "custom", "custom": {"name": "sh", "input": ""}}],
        [{"index": 0, "custom": {"input": "ls"}}],
        [{"index": 0, "custom": {"input": "ls"}}],
    ) == [{"id": "a", "type": "custom", "custom": {"name": "sh", "input": "lsls"}}]


def test_index_0_again_with_another_id_is_another_call() -> None:
    def part(name: str | None, arguments: str) -> list[Json]:
        return [{"index": 0, "id": name, "function": {"arguments": arguments}}]

    calls = calls_of(part("a", "1"), part(None, "2"), part("b", "3"), part("", "4"), part("a", "5"))
    assert [(call["id"], call["function"]["arguments"]) for call in calls] == [("a", "125"), ("b", "34")]


def test_calls_without_an_index_are_told_apart_by_id_or_name() -> None:
    def part(arguments: str, **more: Any) -> Json:
        return {"function": {"arguments": arguments}} | more

    by_id = calls_of([part("1", id="a"), part("2", id="b")], [part("3", id="a")], [part("4")])
    assert [(call["id"], call["function"]["arguments"]) for call in by_id] == [("a", "134"), ("b", "2")]
    named = {"id": "", "function": {"name": "f", "arguments": "{}"}}
    assert calls_of([named, named], [named]) == [named, named, named]
    assert calls_of([part("alone")]) == [part("alone")]


def test_an_old_function_call_is_joined() -> None:
    assert message_of({"function_call": {"name": "f", "arguments": ""}}, {"function_call": {"arguments": "{}"}})[
        "function_call"
    ] == {"name": "f", "arguments": "{}"}


def test_audio_is_joined_under_one_id() -> None:
    assert message_of(
        {"audio": {"id": "a", "transcript": "ha"}},
        {"audio": {"id": "a", "transcript": "ha", "data": "AAAA"}},
        {"audio": {"data": "AAAA"}},
        {"audio": {"expires_at": 9}},
    )["audio"] == {"id": "a", "transcript": "haha", "data": "AAAAAAAA", "expires_at": 9}


def test_annotations_are_extended() -> None:
    one, other = {"type": "url_citation", "url_citation": {"url": "u"}}, {"type": "url_citation"}
    assert message_of({"annotations": []}, {"annotations": [one]}, {"annotations": [one, other]})["annotations"] == [
        one,
        one,
        other,
    ]


def test_logprobs_are_extended_and_stay_null_if_nothing_else_came() -> None:
    def of(*parts: Any) -> Any:
        return assemble([chunk(logprobs=part) for part in parts])["choices"][0]["logprobs"]

    token = {"token": "a", "index": 0}
    assert of(None, {"content": [token], "refusal": None}, None, {"content": [token], "refusal": [token]}) == {
        "content": [token, token],
        "refusal": [token],
    }
    assert of(None, None) is None
    assert of({"content": None}, {"content": []}) == {"content": []}
    assert "logprobs" not in assemble([chunk()])["choices"][0]


def test_the_finish_reason_is_null_until_it_is_set_and_stays() -> None:
    def of(*reasons: str | None) -> Any:
        return assemble([chunk(finish_reason=reason) for reason in reasons])["choices"][0]["finish_reason"]

    assert of(None, None) is None
    assert of(None, "tool_calls", None, "") == "tool_calls"
    assert assemble([{"choices": [{"delta": {}}]}])["choices"][0]["finish_reason"] is None


def test_the_last_usage_counts_and_none_is_made_up() -> None:
    def of(*usages: Any) -> Json:
        return assemble([chunk() | {"usage": usage} for usage in usages])

    assert of(None, {"total_tokens": 1}, {"total_tokens": 2}, None)["usage"] == {"total_tokens": 2}
    assert "usage" not in of(None, None)


@pytest.mark.parametrize("at", ["top", "choice"])
def test_of_unknown_members_the_last_that_is_not_null_stands(at: str) -> None:
    def of(*values: Any) -> Json:
        told = [{"x": value, "null": None} for value in values]
        chunks = [chunk() | more if at == "top" else chunk(**more) for more in told]
        whole = assemble(chunks)
        return whole if at == "top" else dict(whole["choices"][0])

    assert of([1], [2], None)["x"] == [2]
    assert of({"a": 1}, "b", "b")["x"] == "b"
    assert of(None, None)["x"] is None
    assert of(1)["null"] is None


def test_unknown_members_of_a_delta_add_up_by_their_type() -> None:
    assert message_of(
        {"s": "one", "same": "v1", "n": 1, "b": True, "d": {"s": "a", "d": {"n": 1}}, "l": [1], "null": None},
        {"s": " two", "same": "v1", "n": 2, "b": False, "d": {"s": "b", "d": {"m": 2}}, "l": [1], "null": None},
    ) == {
        "role": "assistant",
        "content": None,
        "s": "one two",
        "same": "v1",
        "n": 2,
        "b": False,
        "d": {"s": "ab", "d": {"n": 1, "m": 2}},
        "l": [1, 1],
        "null": None,
    }


def test_content_as_text_and_as_parts_becomes_parts() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}
    assert message_of({"content": ""}, {"content": [thinking]}, {"content": "Yes"}, {"content": ""})["content"] == [
        thinking,
        {"type": "text", "text": "Yes"},
    ]
    assert message_of({"x": 1}, {"x": [2]}, {"x": "3"})["x"] == [1, 2, {"type": "text", "text": "3"}]
    assert message_of({"x": "1"}, {"x": 2})["x"] == 2


def test_a_message_has_a_role_and_a_content() -> None:
    assert message_of({"tool_calls": []}) == {"role": "assistant", "content": None, "tool_calls": []}
    assert message_of({"role": None}, {"role": ""}, {"content": "Hi"}) == {"role": "assistant", "content": "Hi"}
    assert message_of({"role": "assistant"}, {"role": "assistant"})["role"] == "assistant"


def test_a_whole_message_counts_only_if_no_delta_told_it() -> None:
    told = {"role": "assistant", "content": "Hi"}
    last = {"choices": [{"index": 0, "message": told, "finish_reason": "stop"}]}
    for chunks in ([chunk({"content": "H"}), chunk({"content": "i"}), last], [last], [last, last]):
        assert assemble(chunks)["choices"][0] == {"index": 0, "message": told, "finish_reason": "stop"}


@pytest.mark.parametrize("odd", [None, 1, "x", [1], [None], [{"delta": None}], [{"delta": [1]}], {"a": 1}])
def test_odd_choices_do_no_harm(odd: Any) -> None:
    assert assemble([chunk({"content": "Hi"}), {"choices": odd}])["choices"][0]["message"]["content"] == "Hi"
    assert message_of({"tool_calls": odd}, {"tool_calls": odd})["role"] == "assistant"


def test_nothing_adds_up_to_no_choices() -> None:
    assert assemble([]) == {"object": "chat.completion", "choices": []}


def test_many_pieces_are_joined_in_linear_time() -> None:
    """100,000 pieces. Joined one by one, under a name we know or not, they would copy 20 GB."""
    pieces = [chunk({"content": piece, "x_thoughts": piece}) for piece in ("abcdefg", "h") * 50_000]
    message = assemble(pieces)["choices"][0]["message"]
    assert message["content"] == message["x_thoughts"] == "abcdefgh" * 50_000
