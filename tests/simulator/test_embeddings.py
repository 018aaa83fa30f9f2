"""Vectors: what they are made of, how they are written, and what is counted of them."""

import base64
import math
import struct
from functools import partial
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.simulator import MODELS
from proxy.simulator.tally import REMEMBERED, Counts
from proxy.simulator.vectors import vector

from .asking import PATH as CHAT
from .asking import Json, posted, request, settled

PATH = "/v1/embeddings"
TEXTS = ["sluice", "weir", "水", "sluice"]

whole = partial(posted, path=PATH)


def asking(given: Any = "sluice", **members: Any) -> Json:
    return {"model": "sim-embed;first=0", "input": given, **members}


def vectors(answer: Json) -> list[Any]:
    return [each["embedding"] for each in answer["data"]]


@settings(deadline=None, max_examples=40)
@given(st.text(max_size=20), st.integers(1, 256))
def test_a_vector_has_length_one_and_fits_in_float32(text: str, dimensions: int) -> None:
    numbers = vector("m", 256, text, dimensions)
    assert len(numbers) == dimensions
    assert math.hypot(*numbers) == pytest.approx(1, abs=1e-6)
    assert struct.unpack(f"<{dimensions}f", struct.pack(f"<{dimensions}f", *numbers)) == numbers


def test_fewer_dimensions_are_the_first_of_more_made_longer() -> None:
    few, many = vector("m", 256, "x", 8), vector("m", 256, "x", 256)
    longer = many[0] / few[0]
    assert [each * longer for each in few] == pytest.approx(list(many[:8]), rel=1e-5)


def test_each_input_has_its_vector_in_its_place_whatever_stands_beside_it(wire: httpx.Client) -> None:
    answer = whole(wire, asking(TEXTS))
    assert [each["index"] for each in answer["data"]] == [0, 1, 2, 3]
    alone = [vectors(whole(wire, asking(text)))[0] for text in TEXTS]
    assert vectors(answer) == alone
    assert len({tuple(each) for each in alone}) == 3


def test_a_vector_depends_on_model_and_input_and_not_on_the_caller(wire: httpx.Client) -> None:
    plain = vectors(whole(wire, asking()))
    assert vectors(whole(wire, asking(user="someone", encoding_format="float"))) == plain
    others = [asking([1, 2]), asking("[1,2]"), asking(model="sim-embed-large;first=0", dimensions=256)]
    found = [tuple(vectors(whole(wire, body))[0]) for body in others]
    assert len({*found, tuple(plain[0])}) == 4


def test_base64_holds_the_same_numbers_as_the_list(wire: httpx.Client) -> None:
    packed, plain = (whole(wire, asking(TEXTS, encoding_format=form)) for form in ("base64", "float"))
    for text, numbers in zip(vectors(packed), vectors(plain), strict=True):
        assert list(struct.unpack("<256f", base64.b64decode(text))) == numbers
    assert packed["usage"] == plain["usage"]


def test_the_sdk_reads_both_forms_alike(client: openai.OpenAI) -> None:
    body = asking(TEXTS, dimensions=16)
    packed, plain = client.embeddings.create(**body), client.embeddings.create(**body, encoding_format="float")
    assert [each.embedding for each in packed.data] == [each.embedding for each in plain.data]
    assert {len(each.embedding) for each in packed.data} == {16}
    assert (packed.object, packed.model) == ("list", "sim-embed")


@pytest.mark.parametrize("name", [model.id for model in MODELS.values() if model.dimensions])
def test_a_model_has_its_own_dimensions(wire: httpx.Client, name: str) -> None:
    (numbers,) = vectors(whole(wire, asking(model=f"{name};first=0")))
    assert len(numbers) == MODELS[name].dimensions
    refused = wire.post(PATH, json=asking(model=name, dimensions=len(numbers) + 1))
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "dimensions")


def test_tokens_are_those_of_each_input_alone(wire: httpx.Client) -> None:
    assert whole(wire, asking(["abcd", "abcde", "水"]))["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    assert whole(wire, asking([7, 8, 9]))["usage"]["prompt_tokens"] == 3
    assert len(vectors(whole(wire, asking([[7, 8], [9]])))) == 2
    assert settled(wire)["by_model"]["sim-embed"]["prompt_tokens"] == 4 + 3 + 3


def test_each_input_is_counted(wire: httpx.Client) -> None:
    for body in (asking(TEXTS), asking("weir"), asking([[1, 2], [1, 2]]), asking(model="sim-embed;status=500")):
        wire.post(PATH, json=body)
    wire.post(PATH, json=asking([]))
    assert wire.get("/simulator/inputs").json() == {'"sluice"': 3, '"weir"': 2, '"水"': 1, "[1,2]": 2}
    wire.delete("/simulator/calls")
    assert wire.get("/simulator/inputs").json() == {}


def test_inputs_beyond_what_is_remembered_are_not_counted() -> None:
    counts = Counts()
    counts.called("m", map(str, range(REMEMBERED)))
    counts.called("m", ["0", "new"])
    assert (counts.inputs["0"], "new" in counts.inputs) == (2, False)


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": [[]]}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": [-1]}, "input"),
        ({"input": None}, "input"),
        ({"input": ["a"] * 2049}, "input"),
        ({"input": "x" * (4 * 8192 + 1)}, "input"),
        ({"input": ["x" * 4 * 8000] * 38}, "input"),
        ({"dimensions": 0}, "dimensions"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"model": "sim-small"}, "model"),
    ],
)
def test_a_bad_member_is_named(wire: httpx.Client, members: Json, param: str) -> None:
    response = wire.post(PATH, json=asking(**{"user": "u", **members}))
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_as_many_inputs_as_openai_takes_are_taken(wire: httpx.Client) -> None:
    assert len(vectors(whole(wire, asking(["a"] * 2048, dimensions=1)))) == 2048


def test_a_model_that_embeds_does_not_chat(wire: httpx.Client) -> None:
    response = wire.post(CHAT, json=request(model="sim-embed"))
    assert (response.status_code, response.json()["error"]["param"]) == (404, "model")
    assert "not a chat model" in response.json()["error"]["message"]


def test_options_shape_the_answer(wire: httpx.Client) -> None:
    assert "usage" not in whole(wire, asking(model="sim-embed;first=0;nousage"))
    assert vectors(whole(wire, asking(model="sim-embed;first=0;empty"))) == []
    big = wire.post(PATH, json=asking(model="sim-embed;first=0;big=5000"))
    assert len(big.content) == int(big.headers["content-length"]) > 5000
    assert vectors(big.json()) == vectors(whole(wire, asking()))
