"""A list of embeddings is taken apart by its inputs and put together again, with every vector in its place."""

import base64
import json
import random
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.embeddings import (
    Input,
    Part,
    asking,
    common_of,
    form_of,
    inputs_of,
    joined,
    parts_of,
    shares,
    usage_of_part,
)

Json = dict[str, Any]

names = st.sampled_from(["x_extra", "object", "id", "created", "model", "provider", "warnings"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
unknown = st.dictionaries(names, values, max_size=3)
singles = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=5)
counts = st.integers(0, 9_999)
usages = st.dictionaries(
    st.sampled_from(["prompt_tokens", "total_tokens", "completion_tokens"]), counts, min_size=1
) | st.fixed_dictionaries(
    {"prompt_tokens": counts, "total_tokens": counts},
    optional={"prompt_tokens_details": st.none() | st.fixed_dictionaries({"cached_tokens": counts}), "tier": st.text()},
)


def text_of(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


@st.composite
def responses(draw: st.DrawFn) -> Json:
    """A response with its members in any order, and its items in theirs."""
    vectors: list[Any] = draw(st.lists(singles | singles.map(packed), min_size=1, max_size=6))
    items = [
        draw(unknown) | draw(st.permutations([("index", place), ("embedding", vector)]).map(dict))
        for place, vector in enumerate(vectors)
    ]
    body = draw(unknown) | {"data": items}
    if draw(st.booleans()):
        body["usage"] = draw(usages)
    return dict(draw(st.permutations(list(body.items()))))


def body_of(count: int, **more: Any) -> Json:
    items = [{"object": "embedding", "index": place, "embedding": [0.5, float(place)]} for place in range(count)]
    return {"object": "list", "data": items, "model": "m", "usage": {"prompt_tokens": 7, "total_tokens": 7}} | more


def parts(body: Json, counted: list[int], *, asked: str = "float", fresh: bool = True) -> list[Part]:
    found = parts_of(text_of(body), counted)
    assert found is not None
    return [Part(part, asked, fresh) for part in found]


def part(vector: Any, *, asked: str = "float", fresh: bool = True, **more: Any) -> Part:
    item = {"object": "embedding", "index": 0, "embedding": vector}
    return Part(text_of({"object": "list", "data": [item], "model": "m"} | more), asked, fresh)


def vectors_of(body: bytes) -> list[Any]:
    items = json.loads(body)["data"]
    assert [item["index"] for item in items] == list(range(len(items)))
    return [item["embedding"] for item in items]


# What is asked


@pytest.mark.parametrize(
    ("asked", "inputs"),
    [
        ("x", ["x"]),
        ("", [""]),
        ([1, 2, 3], [[1, 2, 3]]),
        (["x"], ["x"]),
        (["x", "", "x"], ["x", "", "x"]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        (["x", [1, 2]], ["x", [1, 2]]),
        ([10**30], [[10**30]]),
    ],
)
def test_each_input_is_told_from_the_others(asked: Any, inputs: list[Input]) -> None:
    assert inputs_of({"input": asked}) == inputs


@pytest.mark.parametrize(
    "asked",
    [
        None,
        [],
        {},
        {"text": "x"},
        1,
        True,
        [[]],
        ["x", []],
        ["x", 1],
        [1, "x"],
        [1, [2]],
        [1.0, 2],
        [[1.5]],
        [True, False],
        [[True]],
        [["x"]],
        [["x", "y"], ["z"]],
        [[[1]]],
        [None],
        [{"type": "text", "text": "x"}],
        ["x", {"image": "y"}],
    ],
)
def test_inputs_that_cannot_be_told_apart_are_none(asked: Any) -> None:
    assert inputs_of({"input": asked}) is None


def test_a_request_without_input_has_none() -> None:
    assert inputs_of({"model": "m"}) is None


@pytest.mark.parametrize(
    ("said", "form"),
    [
        ({}, "float"),
        ({"encoding_format": None}, "float"),
        ({"encoding_format": "float"}, "float"),
        ({"encoding_format": "base64"}, "base64"),
        ({"encoding_format": "FLOAT"}, None),
        ({"encoding_format": "int8"}, None),
        ({"encoding_format": ""}, None),
        ({"encoding_format": False}, None),
        ({"encoding_format": ["float"]}, None),
        ({"encoding_format": {}}, None),
        ({"output_dtype": "float", "embed_dtype": None}, "float"),
        ({"encoding_format": "base64", "embed_dtype": "float32", "endianness": "little"}, "base64"),
        # Base64 of other numbers than little-endian float32 is not to be converted.
        ({"encoding_format": "base64", "output_dtype": "int8"}, None),
        ({"encoding_format": "base64", "embed_dtype": "float16"}, None),
        ({"encoding_format": "base64", "endianness": "big"}, None),
        ({"embedding_types": ["int8", "float"]}, None),
    ],
)
def test_the_form_of_vectors_is_known_or_belongs_to_the_key(said: Json, form: str | None) -> None:
    body = {"model": "m", "input": "x", "dimensions": 8} | said
    assert form_of(body) == form
    left = body.keys() - {"input"} if form is None else body.keys() - {"input", "encoding_format"}
    assert common_of(body) == {name: body[name] for name in left}
    assert "input" in body


# What is sent


def test_only_the_inputs_of_what_is_sent_change() -> None:
    raw = b'{"model":"m", "dimensions": 8.0e0,"input" : ["a","b",[1,2]],"x":"\\u00e9"}'
    assert asking(raw, ["b"]) == b'{"model":"m","dimensions":8.0e0,"input":["b"],"x":"\\u00e9"}'
    assert asking(raw, [[1, 2], "b"]) == b'{"model":"m","dimensions":8.0e0,"input":[[1,2],"b"],"x":"\\u00e9"}'


@pytest.mark.parametrize(
    ("asked", "inputs"),
    [("x", ["x"]), ([1, 2], [[1, 2]]), (["x"], ["x"]), ([[1, 2]], [[1, 2]]), (["x", "x"], ["x", "x"])],
)
def test_what_the_client_asks_already_is_sent_to_the_byte(asked: Any, inputs: list[Input]) -> None:
    raw = json.dumps({"input": asked, "model": "m"}, indent=1).encode()
    assert asking(raw, inputs) == raw


@pytest.mark.parametrize("asked", [["x", "y"], "z", [120], ["x", "x"]])
def test_another_input_alone_is_sent_as_a_list(asked: Any) -> None:
    assert json.loads(asking(text_of({"input": asked}), ["x"])) == {"input": ["x"]}
    assert json.loads(asking(text_of({"input": asked}), [[1, 2]])) == {"input": [[1, 2]]}


@given(st.lists(st.text() | st.lists(st.integers(0, 200_000), min_size=1), min_size=1, max_size=6))
def test_what_is_sent_asks_the_inputs_that_were_meant(inputs: list[Input]) -> None:
    assert inputs_of(json.loads(asking(b'{"input":"other","model":"m"}', inputs))) == inputs


# Who used what


@given(st.integers(0, 10**9), st.lists(st.integers(0, 9_000), min_size=1))
def test_shares_are_the_total_and_in_proportion(total: int, counted: list[int]) -> None:
    found = shares(total, counted)
    assert sum(found) == total
    if whole := sum(counted):
        assert all(abs(share - total * count / whole) < 1.001 for share, count in zip(found, counted, strict=True))
    else:
        assert max(found) - min(found) <= 1


@given(st.integers(1, 50), st.lists(st.integers(0, 90), min_size=1))
def test_what_was_counted_rightly_is_shared_exactly(times: int, counted: list[int]) -> None:
    if any(counted):
        assert shares(sum(counted) * times, counted) == [count * times for count in counted]


@pytest.mark.parametrize(
    ("total", "counted", "found"),
    [
        (10, [1, 1, 1], [4, 3, 3]),
        (5, [0, 0], [3, 2]),
        (5, [0, 1], [0, 5]),
        (0, [3, 4], [0, 0]),
        (3, [2, 2, 2, 2], [1, 1, 1, 0]),
        (100, [1, 2, 4], [14, 29, 57]),
        (7, [9], [7]),
    ],
)
def test_the_largest_remainders_come_first(total: int, counted: list[int], found: list[int]) -> None:
    assert shares(total, counted) == found


# What came back


@given(responses(), st.data())
def test_a_response_taken_apart_and_joined_is_the_same_to_the_byte(body: Json, data: st.DataObject) -> None:
    size = len(body["data"])
    counted = data.draw(st.lists(st.integers(0, 50), min_size=size, max_size=size))
    assert joined(parts(body, counted), "float") == text_of(body)


@given(responses(), st.randoms(use_true_random=False))
def test_items_in_any_order_are_told_by_their_index(body: Json, chance: random.Random) -> None:
    items = body["data"]
    shuffled = chance.sample(items, len(items))
    counted = [1] * len(items)
    assert parts(body | {"data": shuffled}, counted) == parts(body, counted)


@given(st.data())
def test_every_vector_is_in_its_place_however_often_and_in_whatever_order(data: st.DataObject) -> None:
    known = parts(body_of(5), [1, 2, 3, 4, 5])
    places = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=12))
    body = joined([known[place] for place in places], "float")
    assert vectors_of(body) == [[0.5, float(place)] for place in places]


def test_a_part_is_what_the_provider_would_have_said_to_that_input_alone() -> None:
    raw = (
        b'{ "object":"list", "data" : [{"index":1,"embedding":[ 1e-05,0.10],"object":"embedding","x":"\xc3\xa9"},'
        b'{"embedding":"AACAPw==","index":0}],"model":"m","usage":{"prompt_tokens":9,"total_tokens":10},"id":  "e-1"}'
    )
    first = b'{"object":"list","data":[{"embedding":"AACAPw==","index":0}],"model":"m",USAGE,"id":"e-1"}'
    second = (
        b'{"object":"list","data":[{"index":0,"embedding":[ 1e-05,0.10],"object":"embedding","x":"\xc3\xa9"}],'
        b'"model":"m",USAGE,"id":"e-1"}'
    )
    assert parts_of(raw, [1, 2]) == [
        first.replace(b"USAGE", b'"usage":{"prompt_tokens":3,"total_tokens":3}'),
        second.replace(b"USAGE", b'"usage":{"prompt_tokens":6,"total_tokens":7}'),
    ]


@pytest.mark.parametrize("index", [{}, {"index": None}])
def test_items_without_an_index_are_in_order_and_get_one(index: Json) -> None:
    body = body_of(2)
    body["data"] = [{"embedding": [0.5]} | index, {"embedding": [0.25]} | index]
    assert [json.loads(each.body)["data"] for each in parts(body, [1, 1])] == [
        [{"embedding": [0.5], "index": 0}],
        [{"embedding": [0.25], "index": 0}],
    ]


@pytest.mark.parametrize("vector", [[[0.5], [0.25]], {"indices": [7], "values": [0.5]}, [1, -128], "AQI=", "nullnull"])
def test_a_vector_of_another_kind_is_one_too(vector: Any) -> None:
    kept = parts(body_of(1, data=[{"index": 0, "embedding": vector}]), [1])
    for form in ("float", "base64"):
        assert vectors_of(joined(kept, form)) == [vector]


EMPTY: list[Any] = [None, [], {}, "", " ", 1, True, False, [None, 1.5]]
SECONDS: list[Any] = [
    None,
    [],
    {"embedding": [0.5]},
    {"index": 1},
    *({"index": index, "embedding": [0.5]} for index in (0, 2, -1, "1", True, 1.5, None)),
    *({"index": 1, "embedding": vector} for vector in EMPTY),
]
FIRST = {"index": 0, "embedding": [0.5]}


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        "x",
        [],
        [1, 2],
        [FIRST],
        [FIRST | {"index": place} for place in range(3)],
        *([FIRST, second] for second in SECONDS),
    ],
)
def test_a_response_without_a_vector_for_each_input_has_no_parts(data: Any) -> None:
    assert parts_of(text_of(body_of(2, data=data)), [1, 1]) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"data":[{"embedding":[0.5]}]',
        b'{"data":[{"embedding":[NaN]}]}',
        b'{"data":[{"embedding":[0.5],"x":"\xff"}]}',
        b'{"data":[{"embedding":[0.5]}],"x":"\xff"}',
        b'{"data":[{"embedding":[ ]}]}',
        b'{"data":[{"embedding":[0.5]}],"usage":{"cost":1e999}}',
        b'{"data":[{"embedding":[0.5]}],"error":{"message":"no"}}',
        b'{"data":[{"embedding":[0.5]}],"error":"no"}',
        b'{"data":[{"embedding":[0.5]}],"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"data":[{"embedding":[0.5]}],"usage":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    ],
)
def test_what_is_no_response_has_no_parts(raw: bytes) -> None:
    assert parts_of(raw, [1]) is None


def test_an_error_that_is_null_is_none() -> None:
    assert parts_of(b'{"data":[{"embedding":[0.5]}],"error":null}', [1]) is not None


@given(responses(), st.data())
def test_whatever_comes_nothing_is_raised(body: Json, data: st.DataObject) -> None:
    raw = bytearray(text_of(body))
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), min_size=1, max_size=3)):
        raw[place] = data.draw(st.integers(0, 255))
    found = parts_of(bytes(raw), [1] * len(body["data"]))
    if found is not None:
        assert json.loads(joined([Part(each, "float", True) for each in found], "base64"))


# Usage


def test_the_usage_of_a_part_is_its_own_or_none() -> None:
    first, second = parts(body_of(2), [3, 4])
    assert usage_of_part(first.body) == {"prompt_tokens": 3, "total_tokens": 3}
    assert usage_of_part(second.body) == {"prompt_tokens": 4, "total_tokens": 4}
    assert usage_of_part(part([0.5]).body) is None
    assert usage_of_part(part([0.5], usage=None).body) is None
    assert usage_of_part(part([0.5], usage="none").body) is None


def test_usage_that_was_not_said_is_not_made_up() -> None:
    body = body_of(2)
    del body["usage"]
    assert all("usage" not in json.loads(each.body) for each in parts(body, [1, 1]))
    assert all(json.loads(each.body)["usage"] is None for each in parts(body | {"usage": None}, [1, 1]))


def test_what_else_usage_says_is_shared_and_added_too() -> None:
    usage = {"prompt_tokens": 6, "completion_tokens": 0, "details": {"cached": 3, "of": None}, "cost": 0.75, "by": "x"}
    kept = parts(body_of(2, usage=usage), [1, 2])
    assert usage_of_part(kept[0].body) == {
        "prompt_tokens": 2,
        "completion_tokens": 0,
        "details": {"cached": 1, "of": None},
        "cost": 0.25,
        "by": "x",
    }
    assert json.loads(joined(kept, "float"))["usage"] == usage


def test_usage_is_what_all_parts_say() -> None:
    def added(*usages: Any) -> Any:
        found = [part([0.5], usage=usage) for usage in usages]
        return json.loads(joined(found, "float")).get("usage", "absent")

    assert added({"prompt_tokens": 1, "total_tokens": 2}, {"prompt_tokens": 10, "total_tokens": 20}) == {
        "prompt_tokens": 11,
        "total_tokens": 22,
    }
    assert added({"total_tokens": 2}, {"prompt_tokens": 10, "total_tokens": 20}) == {"total_tokens": 22}
    assert added({"prompt_tokens": 1, "total_tokens": 2}, {"total_tokens": 20}) == {"total_tokens": 22}
    assert added({"prompt_tokens": None, "total_tokens": 2}, {"prompt_tokens": 1, "total_tokens": 3}) == {
        "total_tokens": 5
    }
    assert added({"prompt_tokens": 1}, {"total_tokens": 1}) == "absent"
    assert added({"prompt_tokens": 1}, None) == "absent"
    assert added(None, {"prompt_tokens": 1}) == "absent"
    assert added({"cost": 1e308}, {"cost": 1e308}) == "absent"
    assert added({"cost": 10**400}, {"cost": 0.5}) == "absent"


def test_one_part_without_usage_leaves_the_list_without() -> None:
    body = joined([part([0.5]), part([0.25], usage={"prompt_tokens": 1, "total_tokens": 1})], "float")
    assert "usage" not in json.loads(body)


# One response of parts from everywhere


@pytest.mark.parametrize(
    ("fresh", "whose"),
    [
        ([True, True, True], 2),
        ([True, False, False], 0),
        ([True, True, False], 1),
        ([False, False, False], 2),
    ],
)
def test_a_list_says_what_its_newest_part_says(fresh: list[bool], whose: int) -> None:
    made = [part([0.5], fresh=new, id=f"e-{place}", created=place) for place, new in enumerate(fresh)]
    body = json.loads(joined(made, "float"))
    assert (body["id"], body["created"]) == (f"e-{whose}", whose)


def test_members_stand_as_the_provider_set_them() -> None:
    usage = {"total_tokens": 1, "prompt_tokens": 1}
    body = Part(text_of({"usage": usage, "x": 1.50, "data": [{"index": 0, "embedding": [0.5]}]}), "float", True)
    assert joined([body], "float") == body.body


@given(st.lists(st.tuples(singles, st.booleans(), st.booleans()), min_size=1, max_size=6), st.booleans())
def test_every_vector_comes_in_the_form_that_is_asked(made: list[tuple[list[float], bool, bool]], packs: bool) -> None:
    known = [
        part(packed(vector) if packs_it else vector, asked="base64" if packs_it else "float", fresh=fresh)
        for vector, packs_it, fresh in made
    ]
    found = vectors_of(joined(known, "base64" if packs else "float"))
    assert found == [packed(vector) if packs else vector for vector, *_ in made]


def test_a_provider_that_gives_the_form_it_likes_is_passed_on() -> None:
    assert vectors_of(joined([part([0.5], asked="base64")], "base64")) == [[0.5]]
    assert vectors_of(joined([part([0.5], asked="base64")], "float")) == [[0.5]]
    assert vectors_of(joined([part("AACAPw==", asked="float")], "float")) == ["AACAPw=="]
    assert vectors_of(joined([part("AACAPw==", asked="float")], "base64")) == ["AACAPw=="]


def test_a_form_that_nobody_knows_changes_nothing() -> None:
    assert vectors_of(joined([part([0.5], asked="float"), part("AACAPw==", asked="base64")], "")) == [[0.5], "AACAPw=="]


def test_floats_stay_to_the_byte_until_their_form_changes() -> None:
    body = b'{"data":[{"index":0,"embedding":[ 0.10, -1E-05,0.1000000000000000055]}]}'
    kept = parts_of(body, [1])
    assert kept is not None
    assert joined([Part(kept[0], "float", True)], "float") == body
    assert b"0.10, -1E-05,0.1000000000000000055" not in joined([Part(kept[0], "float", True)], "base64")
