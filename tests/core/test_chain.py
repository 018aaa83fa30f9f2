"""Two prompts share a link only if they share all that comes before it, within one namespace."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pricing.encodings import Name
from pricing.tokens import Prompt, read_prompt
from proxy.core.canonical import parse
from proxy.core.chain import LENGTH, Counts, Links, linked, links_of

Body = dict[str, Any]

SECRET, NAMESPACE = b"s" * 32, b"team"
USER: Body = {"role": "user", "content": "Hello"}
ANSWER: Body = {"role": "assistant", "content": "Hello."}


def links(body: Body, secret: bytes = SECRET, namespace: bytes = NAMESPACE) -> tuple[bytes, ...]:
    return links_of(body, secret, namespace)


def shared(one: Links, other: Links) -> int:
    """How many links two chains begin with alike; all others differ."""
    assert len(set(one) & set(other)) == sum(a == b for a, b in zip(one, other, strict=False))
    return len(set(one) & set(other))


def test_a_prompt_has_a_link_for_what_is_declared_and_one_for_each_message() -> None:
    found = links({"model": "m", "messages": [USER, ANSWER, USER]})
    assert len(found) == len(set(found)) == 4
    assert {len(link) for link in found} == {LENGTH}


def test_a_conversation_that_goes_on_begins_with_the_same_links() -> None:
    first, second = links({"messages": [USER]}), links({"messages": [USER, ANSWER, USER]})
    assert second[:2] == first
    assert shared(first, second) == 2


def test_what_is_no_part_of_the_prompt_changes_nothing_nor_do_the_order_of_members_and_the_model() -> None:
    reordered = {"content": "Hello", "role": "user"}
    one = {"model": "m", "messages": [USER], "temperature": 0, "stream": True}
    assert links(one) == links({"messages": [reordered], "model": "n", "max_tokens": 5})
    assert links({"messages": [USER], "tools": None}) == links({"messages": [USER]})


@pytest.mark.parametrize(
    "other", [{"content": "hello"}, {"content": "Hello "}, {"role": "system"}, {"name": "x"}, {"content": ["Hello"]}]
)
def test_from_a_message_that_differs_on_all_links_do(other: Body) -> None:
    one, two = links({"messages": [ANSWER, USER, ANSWER]}), links({"messages": [ANSWER, USER | other, ANSWER]})
    assert shared(one, two) == 2


@pytest.mark.parametrize(
    "declared",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"tools": []},
        {"functions": [{"name": "f"}]},
        {"response_format": {"type": "json_object"}},
    ],
)
def test_other_tools_or_another_form_of_answer_share_nothing(declared: Body) -> None:
    body = {"messages": [USER, ANSWER]}
    assert shared(links(body), links(body | declared)) == 0


def test_tools_and_functions_are_not_taken_for_each_other() -> None:
    given = [{"name": "f"}]
    assert shared(links({"tools": given}), links({"functions": given})) == 0


def test_another_namespace_or_secret_shares_nothing() -> None:
    body = {"messages": [USER, ANSWER]}
    found = [
        links(body),
        links(body, namespace=b""),
        links(body, namespace=b"team2"),
        links(body, b"t" * 32),
        links(body, b"s" * 31),
    ]
    assert len({link for each in found for link in each}) == 5 * 3


def test_a_namespace_cannot_be_continued_by_what_a_body_declares() -> None:
    """`team` with `[null,...` is not `team[null` with the rest."""
    declared = b"[null,null,null]"
    assert shared(links({}, namespace=b"team" + declared[:4]), links({}, namespace=b"team")) == 0


def test_two_messages_are_not_one() -> None:
    assert shared(links({"messages": [USER, "b"]}), links({"messages": [[USER, "b"]]})) == 1
    assert shared(links({"messages": [[]]}), links({"messages": []})) == 1


@pytest.mark.parametrize(("messages", "count"), [([], 0), (None, 1), ("Hello", 1), ({"0": USER}, 1), (5, 1), ([[]], 1)])
def test_messages_that_are_no_list_are_one_message_of_an_odd_type(messages: object, count: int) -> None:
    assert len(linked({"messages": messages})) == count
    assert len(links({"messages": messages})) == count + 1
    assert len(links({})) == 2


def test_whatever_a_body_may_hold_has_its_links() -> None:
    body = parse(
        b'{"model":"m","messages":[{"n":%s},{"x":1e308,"y":-0.0,"z":"\\u0000\xf0\x9f\x8c\x8d"}]}' % (b"9" * 400)
    )
    assert len(set(links(body))) == 3


class Tally:
    """Counts characters, and remembers what was counted."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, text: str) -> int:
        self.texts.append(text)
        return len(text)


def count(counts: Counts, body: Body, encoding: Name = "o200k_base") -> tuple[tuple[Prompt, ...], list[str]]:
    """Its tokens up to each link, and the texts that had to be counted."""
    tally, chain = Tally(), links(body)
    pending = counts.pending(body, chain, encoding)
    counted = pending.count(tally)
    counts.learn(chain, counted, pending)
    assert len(counted.upto) == len(chain)
    assert counted.base == tuple(prompt.under(None).total for prompt in counted.upto)
    return counted.upto, tally.texts


def test_each_message_of_a_conversation_is_counted_once() -> None:
    counts = Counts()
    _, texts = count(counts, {"messages": [USER]})
    assert texts == ["user", "Hello"]
    upto, texts = count(counts, {"messages": [USER, ANSWER, {"role": "user", "content": "More"}]})
    assert texts == ["assistant", "Hello.", "user", "More"]
    again, texts = count(counts, {"messages": [USER, ANSWER, {"role": "user", "content": "More"}]})
    assert (again, texts) == (upto, [])
    # Frame 3 at the end, 3 for each message, and the characters of role and content: 9, 15 and 8.
    assert [prompt.under(None).total for prompt in upto] == [3, 15, 33, 44]


def test_each_encoding_is_counted_by_itself() -> None:
    counts, body = Counts(), {"messages": [USER]}
    count(counts, body)
    upto, texts = count(counts, body, "cl100k_base")
    assert texts == ["user", "Hello"]
    assert {prompt.encoding for prompt in upto} == {"cl100k_base"}


def test_a_body_without_messages_is_its_frame() -> None:
    upto, _ = count(Counts(), {"messages": []})
    assert [prompt.under(None).total for prompt in upto] == [3]
    count(Counts(), {})


scalars = st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text(max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
parts = st.sampled_from(
    [
        {"type": "text", "text": "hi"},
        {"type": "image_url", "image_url": {"url": "https://x.example/a.png", "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERg=="}},
        {"type": "new"},
    ]
)
members = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "tool"]) | values,
        "content": st.text(max_size=20) | st.lists(parts | values, max_size=3) | values,
        "name": st.text(max_size=4),
        "tool_calls": st.just([{"id": "1", "function": {"name": "f", "arguments": "{}"}}]) | values,
        "reasoning_content": values,
        "refusal": values,
        "audio": values,
        "other": values,
    },
)
tools = st.just(
    [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"type": "string"}}}}}]
)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "messages": st.lists(members | values, max_size=5) | values,
        "tools": tools | values,
        "functions": st.just([{"name": "f"}]) | values,
        "response_format": st.just({"type": "json_schema", "json_schema": {"name": "x"}}) | values,
    },
)


@settings(deadline=None)
@given(bodies, bodies, st.integers(0, 5))
def test_what_is_counted_bit_by_bit_is_the_whole_prompt(body: Body, other: Body, known: int) -> None:
    counts = Counts()
    if type(body.get("messages")) is list:
        count(counts, body | {"messages": body["messages"][:known]})
    count(counts, other)
    for _ in range(2):
        upto, _ = count(counts, body)
        whole, tally = upto[-1], Tally()
        expected = read_prompt(body, tally)
        assert whole.seconds == pytest.approx(expected.seconds)
        for name in Prompt.__struct_fields__:
            assert name == "seconds" or getattr(whole, name) == getattr(expected, name), name
    totals = [prompt.under("claude", "claude-sonnet-4-5").total for prompt in upto]
    assert totals == sorted(totals)
