"""Two bodies are one request only if they mean the same; and what cannot be judged is refused."""

import copy
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from proxy.core.canonical import MAX_DEPTH, canonical, key, keyed, parse
from proxy.errors import InvalidRequest

IGNORE = ("user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention")
Json = dict[str, Any]

# Colons, quotes and escapes in plenty: what the search for duplicates must not trip over.
text = st.text(st.sampled_from('":\\ \n{}[],aé🌍'), max_size=8) | st.text(max_size=8)
numbers = (
    st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([10**22, 1e22, -0.0, 2**64])
)
values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(text, values, max_size=5)


@st.composite
def calls(draw: st.DrawFn) -> Json:
    function = {"name": draw(text), "arguments": draw(text)}
    return {"id": draw(st.sampled_from(["call_a", "call_b", "0", "1", ""])), "type": "function", "function": function}


@st.composite
def messages(draw: st.DrawFn) -> Json:
    parts = st.fixed_dictionaries({"type": st.just("text"), "text": text}, optional={"cache_control": values})
    message: Json = {"role": draw(st.sampled_from(["system", "user", "assistant", "tool"]))}
    message["content"] = draw(text | st.none() | st.lists(parts, max_size=2) | values)
    if draw(st.booleans()):
        message["tool_calls"] = draw(st.lists(calls(), max_size=3))
    if draw(st.booleans()):
        message["tool_call_id"] = draw(st.sampled_from(["call_a", "call_b", "0", "1"]))
    return message


bodies = st.fixed_dictionaries(
    {"model": text, "messages": st.lists(messages(), max_size=4)},
    optional={
        "temperature": numbers,
        "n": st.integers(1, 3) | st.booleans(),
        "logprobs": st.booleans(),
        "logit_bias": st.dictionaries(text, numbers, max_size=2),
        "min_p": numbers,
        "tools": values,
    },
)


def reordered(value: Any, random: Any) -> Any:
    if isinstance(value, dict):
        names = list(value)
        random.shuffle(names)
        return {name: reordered(value[name], random) for name in names}
    return [reordered(item, random) for item in value] if isinstance(value, list) else value


def places(value: Any) -> list[tuple[Any, ...]]:
    """The path of every value below this one."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for at, item in inner for path in [(at,), *((at, *rest) for rest in places(item))]]


def holder_of(value: Any, path: tuple[Any, ...]) -> Any:
    for at in path[:-1]:
        value = value[at]
    return value


def meaning(body: Json) -> Any:
    """What a body means, by the design's words and as a value that tells true from 1: the reference for `canonical`."""
    dropped = {"stream", "stream_options", *IGNORE}
    kept = {name: exact(value) for name, value in body.items() if name not in dropped}
    for name, idle in (("n", exact(1)), ("logprobs", exact(False)), ("logit_bias", exact({}))):
        if name in kept and kept[name] == idle:
            del kept[name]
    ids: list[Any] = []
    kept["messages"] = tuple(message_meaning(message, ids) for message in body["messages"])
    return exact_members(kept)


def message_meaning(message: Json, ids: list[Any]) -> Any:
    def renamed(name: Any) -> Any:
        if not isinstance(name, str) or name == "":
            return exact(name)
        if name not in ids:
            ids.append(name)
        return ("id", ids.index(name))

    told = {name: exact(value) for name, value in message.items()}
    content = message["content"]
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        part = content[0]
        if set(part) == {"type", "text"} and part["type"] == "text" and isinstance(part["text"], str):
            told["content"] = exact(part["text"])
    if "tool_calls" in message:
        told["tool_calls"] = tuple(
            exact_members({k: renamed(v) if k == "id" else exact(v) for k, v in call.items()})
            if isinstance(call, dict)
            else exact(call)
            for call in message["tool_calls"]
        )
    if "tool_call_id" in message:
        told["tool_call_id"] = renamed(message["tool_call_id"])
    return exact_members(told)


def exact_members(members: Json) -> Any:
    return ("object", frozenset(members.items()))


def exact(value: Any) -> Any:
    if isinstance(value, dict):
        return exact_members({name: exact(item) for name, item in value.items()})
    if isinstance(value, list):
        return ("array", tuple(exact(item) for item in value))
    return (isinstance(value, bool), type(value) is str, value)


@settings(deadline=None, max_examples=60)
@given(body=bodies, random=st.randoms(use_true_random=False))
def test_the_order_of_members_does_not_matter(body: Json, random: Any) -> None:
    assert canonical(reordered(body, random), IGNORE) == canonical(body, IGNORE)


@settings(deadline=None, max_examples=60)
@given(body=bodies, said=st.dictionaries(st.sampled_from(["stream", "stream_options", *IGNORE]), values))
def test_ignored_and_stream_fields_do_not_matter(body: Json, said: Json) -> None:
    assert canonical(body | said, IGNORE) == canonical(body, IGNORE)


@settings(deadline=None, max_examples=60)
@given(body=bodies)
def test_ignored_fields_matter_where_they_are_not_ignored_or_not_at_the_top(body: Json) -> None:
    assert canonical(body | {"user": "u"}, ()) != canonical(body, ())
    inside = body | {"extra_body": {"user": "u", "stream": True}}
    assert canonical(inside, IGNORE) != canonical(body | {"extra_body": {}}, IGNORE)


@settings(deadline=None, max_examples=60)
@given(body=bodies)
def test_a_lone_text_part_is_the_plain_string_and_no_other_list_is(body: Json) -> None:
    as_parts, as_two = copy.deepcopy(body), copy.deepcopy(body)
    plain = [message for message in body["messages"] if isinstance(message["content"], str)]
    for parts, two, message in zip(as_parts["messages"], as_two["messages"], body["messages"], strict=True):
        if isinstance(message["content"], str):
            part = {"type": "text", "text": message["content"]}
            parts["content"], two["content"] = [part], [part, {"type": "text", "text": ""}]
    assert canonical(as_parts, IGNORE) == canonical(body, IGNORE)
    assert (canonical(as_two, IGNORE) == canonical(body, IGNORE)) is (not plain)


def test_a_text_part_with_anything_more_is_not_the_plain_string() -> None:
    def with_content(content: Any) -> bytes:
        return canonical({"messages": [{"role": "user", "content": content}]}, IGNORE)

    part = {"type": "text", "text": "hi"}
    more = part | {"cache_control": {"type": "ephemeral"}}
    others: list[Any] = [[more], [part, part], [], [{"type": "input_text", "text": "hi"}], [{"text": "hi"}], part]
    assert with_content([part]) == with_content("hi")
    assert len({with_content(other) for other in [*others, "hi", [{"type": "text", "text": 1}], ["hi"]]}) == 9


@settings(deadline=None, max_examples=60)
@given(body=bodies)
def test_tool_call_ids_matter_only_by_what_they_tie_together(body: Json) -> None:
    other = copy.deepcopy(body)
    names = {"call_a": "x", "call_b": "0", "0": "1", "1": "zzz", "": ""}
    for message in other["messages"]:
        for call in message.get("tool_calls", []):
            call["id"] = names[call["id"]]
        if "tool_call_id" in message:
            message["tool_call_id"] = names[message["tool_call_id"]]
    assert canonical(other, IGNORE) == canonical(body, IGNORE)


def test_answers_that_are_exchanged_between_tool_calls_differ() -> None:
    def asked(first: Any, second: Any) -> bytes:
        called = {"role": "assistant", "content": None, "tool_calls": [{"id": "a"}, {"id": "b"}]}
        answers = [{"role": "tool", "tool_call_id": name, "content": name_of} for name, name_of in (first, second)]
        return canonical({"messages": [called, *answers]}, IGNORE)

    assert asked(("a", "1"), ("b", "2")) != asked(("b", "1"), ("a", "2"))
    assert asked(("a", "1"), ("b", "2")) != asked((0, "1"), (1, "2"))
    assert asked(("a", "1"), ("", "2")) != asked(("a", "1"), ("a", "2"))


@pytest.mark.parametrize("where", ["text", "part", "top"])
def test_ids_that_are_named_elsewhere_are_not_renamed(where: str) -> None:
    def asked(first: str, second: str) -> bytes:
        called = {"role": "assistant", "content": None, "tool_calls": [{"id": first}, {"id": second}]}
        naming = {
            "text": {"role": "user", "content": "what did call_one say?"},
            "part": {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_one"}]},
            "top": {"role": "user", "content": "hi"},
        }[where]
        return canonical({"messages": [called, naming], "seen": "call_one" if where == "top" else ""}, IGNORE)

    assert asked("call_one", "call_two") != asked("call_two", "call_one")
    assert asked("call_six", "call_two") == asked("call_two", "call_six")


def names_an_id(body: Json) -> bool:
    """Is an id of a tool call said elsewhere too? Then it means something and stays, which `meaning` does not know."""
    rest, ids = copy.deepcopy(body), []
    for message in rest["messages"]:
        calls = message.get("tool_calls")
        ids += [call.pop("id") for call in calls if isinstance(call, dict) and "id" in call] if calls else []
        ids += [message.pop("tool_call_id")] if "tool_call_id" in message else []
    told = list(strings(list(rest.values())))
    return any(each in text for each in ids if isinstance(each, str) and len(each) >= 6 for text in told)


def strings(values: list[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list):
            yield from strings(list(value.values()) if isinstance(value, dict) else value)


@settings(deadline=None, max_examples=250)
@given(body=bodies, data=st.data())
def test_any_other_change_matters(body: Json, data: st.DataObject) -> None:
    """Change, drop or add one value anywhere: the canonical forms are equal exactly if the meanings are."""
    other = copy.deepcopy(body)
    path = data.draw(st.sampled_from([*places(body), ("new",)]))
    holder = holder_of(other, path)
    if len(path) == 1 and path[0] == "messages":
        holder["messages"] = data.draw(st.lists(messages(), max_size=2))
    elif path[:1] == ("messages",) and len(path) == 2:
        del holder[path[1]]
    elif path[-1] in ("content", "tool_calls") or (data.draw(st.booleans()) and path != ("new",)):
        holder[path[-1]] = [] if path[-1] == "tool_calls" else data.draw(text)
    else:
        holder[path[-1]] = data.draw(values)
    assume(not names_an_id(body) and not names_an_id(other))
    assert (canonical(other, IGNORE) == canonical(body, IGNORE)) is (meaning(other) == meaning(body))


@settings(deadline=None, max_examples=100)
@given(one=bodies, other=bodies)
def test_bodies_are_the_same_exactly_if_they_mean_the_same(one: Json, other: Json) -> None:
    assert (canonical(one, IGNORE) == canonical(other, IGNORE)) is (meaning(one) == meaning(other))


@pytest.mark.parametrize(
    "said", [{"n": 1}, {"n": 1.0}, {"logprobs": False}, {"logit_bias": {}}, {"stream": False}, {"stream": True}]
)
def test_what_means_nothing_is_dropped(said: Json) -> None:
    assert canonical(said, IGNORE) == canonical({}, IGNORE)


@pytest.mark.parametrize(
    "said",
    [
        *({"n": n} for n in (True, 2, None, "1", [1])),
        *({"logprobs": value} for value in (True, 0, None, 5, "")),
        *({"logit_bias": bias} for bias in ({"50256": 0}, None, list[Any](), False)),
        *({name: value} for name in ("temperature", "top_p") for value in (1, 0, None)),
        *({name: None} for name in ("stop", "tools", "response_format", "max_tokens", "seed")),
        *({name: 0} for name in ("presence_penalty", "frequency_penalty")),
        *({name: []} for name in ("tools", "stop", "messages")),
        {"extra": {"n": 1}},
        {"extra": {"logprobs": False}},
    ],
)
def test_a_sampling_parameter_or_null_is_never_dropped(said: Json) -> None:
    """Providers' defaults differ: `temperature: 1` is not the same as none, nor is `tools: []`."""
    assert canonical(said, IGNORE) != canonical({}, IGNORE)


def test_integral_floats_are_integers_at_any_depth() -> None:
    def of(value: Any) -> bytes:
        return canonical({"a": value, "b": [{"c": [value]}]}, IGNORE)

    assert of(1.0) == of(1) != of(True)
    assert of(0.0) == of(-0.0) == of(0) != of(False)
    assert of(1e22) == of(10**22) != of(10**22 + 1)
    assert of(1e308) == of(int(1e308))
    assert of(0.1) != of(0) != of(None)
    assert of(1) != of("1")


@settings(deadline=None, max_examples=60)
@given(body=bodies)
def test_the_body_is_left_as_it_was(body: Json) -> None:
    before = copy.deepcopy(body)
    canonical(body, IGNORE)
    assert exact(body) == exact(before)


@settings(deadline=None, max_examples=100)
@given(body=objects, message=objects | values, member=st.sampled_from(["messages", "content", "tool_calls"]))
def test_unexpected_types_are_left_as_they_are(body: Json, message: Any, member: str) -> None:
    odd = body | {"messages": message if member == "messages" else [{member: message}, {member: [message]}, message]}
    assert json.loads(canonical(odd, ())) is not None


@settings(deadline=None, max_examples=60)
@given(body=bodies)
def test_the_canonical_form_is_its_own_canonical_form(body: Json) -> None:
    once = canonical(body, IGNORE)
    assert canonical(parse(once), IGNORE) == once


@settings(deadline=None, max_examples=150)
@given(body=objects, indent=st.sampled_from([None, 1]), ascii_only=st.booleans(), data=st.data())
def test_parse_reads_what_the_standard_library_reads(
    body: Json, indent: int | None, ascii_only: bool, data: st.DataObject
) -> None:
    separators = data.draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :"), (",\n", "\t:\r")]))
    raw = json.dumps(body, indent=indent, separators=separators, ensure_ascii=ascii_only).encode()
    for spelled in (raw, b" " + raw + b"\n"):
        assert exact(parse(spelled)) == exact(json.loads(spelled))


def spelled_with(value: Any, path: tuple[Any, ...], twin: str, colon: str) -> str:
    """JSON of `value` in which the object at `path` has the member `a` twice, the second written as `twin`."""
    if not path:
        members = [f"{json.dumps(name)}{colon}{json.dumps(item)}" for name, item in value.items() if name != "a"]
        return "{" + ",".join([f'"a"{colon}"x:y"', *members, f'"{twin}"{colon}[{{}}]']) + "}"
    if isinstance(value, list):
        items = [
            spelled_with(item, path[1:], twin, colon) if at == path[0] else json.dumps(item)
            for at, item in enumerate(value)
        ]
        return "[" + ",".join(items) + "]"
    members = [
        f"{json.dumps(name)}{colon}"
        + (spelled_with(item, path[1:], twin, colon) if name == path[0] else json.dumps(item))
        for name, item in value.items()
    ]
    return "{" + ",".join(members) + "}"


@settings(deadline=None, max_examples=150)
@given(body=objects, data=st.data())
def test_a_planted_duplicate_is_refused_by_name_at_any_depth(body: Json, data: st.DataObject) -> None:
    nested = {"deep": [body, {"deeper": body}]}
    at = [path for path in places(nested) if isinstance(holder_of(nested, (*path, None)), dict)]
    path = data.draw(st.sampled_from([(), *at]))
    twin = data.draw(st.sampled_from(["a", "\\u0061"]))
    colon = data.draw(st.sampled_from([":", ": ", " :", "\n\t:"]))
    with pytest.raises(InvalidRequest, match='duplicate member: "a"'):
        parse(spelled_with(nested, path, twin, colon).encode())


def test_escaped_colons_neither_hide_a_duplicate_nor_look_like_one() -> None:
    assert parse(rb'{"a":"\u003a\u003A:","b\u003a":":\":"}') == {"a": ":::", "b:": ':":'}
    for raw in (rb'{"a":1,"a":"\u003a"}', rb'{"a":"\u003a","b":{"c":1,"c":2}}', rb'{":\u003a":1,"\u003a:":2}'):
        with pytest.raises(InvalidRequest, match="duplicate member"):
            parse(raw)


def test_one_name_in_two_objects_is_no_duplicate() -> None:
    raw = b'{"a":{"a":[{"a":1},{"a":1}]},"b":{"a":1},"c":"\\"a\\":1,\\"a\\":1"}'
    assert parse(raw) == json.loads(raw)


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"", "empty"),
        (b" \r\n", "empty"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"temperature":NaN}', "NaN"),
        (b'{"temperature":-Infinity}', "Infinity"),
        (b'{"a":1e999}', "out of range"),
        (b'{"a":' + b"9" * 5000 + b"}", "out of range"),
        (rb'{"a":"\ud800"}', "lone surrogate"),
        (rb'{"\udc00\ud800":1}', "lone surrogate"),
        (b'{"a":"\xff"}', "not UTF-8: byte 6"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8"),
        ('{"a":1}'.encode("utf-16"), "not UTF-8"),
        (b"[]", "not an array"),
        (b'"x"', "not a string"),
        (b"1", "not a number"),
        (b"true", "not a boolean"),
        (b"null", "not null"),
        (b'{"a":1} x', "trailing characters"),
        (b'{"a":1,}', "not JSON"),
        (b"{'a':1}", "not JSON"),
        (b'{"a":"\n"}', "not JSON"),
        (b'{"a"', "not JSON"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "deeper than 128"),
        (b'{"a":' + b"[" * 900 + b"]" * 900 + b"}", "deeper than 128"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "deeper than 128"),
        (b'{"a":' * 100_000, "deeper than 128"),
        (b'{"a":' + b"[" * 990 + b"]" * 990 + b',"a":1}', "duplicate|deeper than 128"),
    ],
)
def test_what_is_wrong_is_said(raw: bytes, word: str) -> None:
    with pytest.raises(InvalidRequest, match=word):
        parse(raw)


def test_a_body_as_deep_as_allowed_passes_all_the_way() -> None:
    raw = b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"1.0" + b"]" * (MAX_DEPTH - 1) + b"}"
    assert canonical(parse(raw), IGNORE) == raw.replace(b"1.0", b"1")
    wide = json.dumps({"messages": [{"content": [{}]}] * 100}).encode()
    assert parse(wide) == json.loads(wide)


def test_the_largest_integers_pass_all_the_way() -> None:
    for digits in ("9" * 4300, "-" + "9" * 4299, "18446744073709551616"):
        raw = b'{"seed":' + digits.encode() + b"}"
        assert canonical(parse(raw), IGNORE) == raw


@settings(deadline=None, max_examples=250)
@given(body=objects, data=st.data())
def test_no_bytes_make_parse_raise_anything_else(body: Json, data: st.DataObject) -> None:
    raw = bytearray(json.dumps(body, ensure_ascii=data.draw(st.booleans())).encode())
    pieces = st.binary(max_size=3) | st.sampled_from([b'"a":1,', b"NaN", b"\\ud800", b"1e999", b"[", b"{", b'"', b":"])
    for at, piece in data.draw(st.lists(st.tuples(st.integers(0, len(raw)), pieces), min_size=1, max_size=3)):
        raw[at : at + data.draw(st.integers(0, 2))] = piece
    with suppress(InvalidRequest):
        parsed = parse(bytes(raw))
        assert exact(parsed) == exact(json.loads(raw))
        canonical(parsed, IGNORE)


@settings(deadline=None, max_examples=100)
@given(raw=st.binary(max_size=40))
def test_random_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse(b"\x01" + raw)


def test_a_key_is_32_bytes_and_depends_on_the_secret_and_each_part() -> None:
    one = key(keyed(b"secret"), [b"a", b"b"])
    assert len(one) == 32
    assert one == key(keyed(b"secret"), (b"a", b"b"))
    others = [[b"ab"], [b"ab", b""], [b"", b"ab"], [b"b", b"a"], [b"a", b"b", b""], [b"a"], [], [b""]]
    assert len({one, key(keyed(b"other"), [b"a", b"b"]), *(key(keyed(b"secret"), parts) for parts in others)}) == 10


@settings(deadline=None, max_examples=60)
@given(one=st.lists(st.binary(max_size=10), max_size=4), other=st.lists(st.binary(max_size=10), max_size=4))
def test_no_two_lists_of_parts_have_one_key(one: list[bytes], other: list[bytes]) -> None:
    assert (key(keyed(b"secret"), one) == key(keyed(b"secret"), other)) is (one == other)
