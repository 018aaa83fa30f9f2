"""A vector is the same numbers in both forms, and what cannot be put into the other form stays as it was written."""

import base64
import json
import math
import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.vectors import in_form

singles = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40)


def written(numbers: list[float]) -> bytes:
    return json.dumps(numbers, separators=(",", ":")).encode()


def packed(numbers: list[float]) -> bytes:
    return b'"' + base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)) + b'"'


@given(singles)
def test_base64_becomes_numbers_and_the_same_base64_again(numbers: list[float]) -> None:
    assert in_form(in_form(packed(numbers), "float"), "base64") == packed(numbers)


@given(singles)
def test_the_numbers_of_base64_are_its_own_to_the_last_bit(numbers: list[float]) -> None:
    found = json.loads(in_form(packed(numbers), "float"))
    assert array("d", found).tobytes() == array("d", numbers).tobytes()


# Exponents are written in two ways ("1e-05" and "1e-5"); vectors of unit length have few of them.
@given(st.lists(st.floats(2**-9, 1, width=32) | st.floats(-1, -(2**-9), width=32), min_size=1, max_size=40))
def test_numbers_that_float32_holds_come_back_from_base64_to_the_byte(numbers: list[float]) -> None:
    assert in_form(in_form(written(numbers), "base64"), "float") == written(numbers)


@given(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=40))
def test_numbers_become_the_nearest_float32(numbers: list[float]) -> None:
    assert in_form(written(numbers), "base64") == packed(numbers)


@given(singles)
def test_a_text_that_is_just_long_enough_for_a_float32_is_that_float32(numbers: list[float]) -> None:
    short = ", ".join(f"{number:.9g}" for number in [*numbers, 0.5])
    assert in_form(f"[{short}]".encode(), "base64") == packed([number + 0.0 for number in [*numbers, 0.5]])  # -0 is 0


def test_a_vector_as_it_is_written_in_both_forms() -> None:
    assert in_form(b"[-0.0075121797, 0.016524209]", "base64") == b'"uyj2u8ddhzw="'
    assert in_form(b'"uyj2u8ddhzw="', "float") == b"[-0.007512179668992758,0.016524208709597588]"


@pytest.mark.parametrize("form", ["float", "base64", "", "int8"])
@pytest.mark.parametrize("odd", [b'{"indices": [1], "values": [0.5]}', b"null", b"1.5", b"true"])
def test_what_is_no_vector_stays(odd: bytes, form: str) -> None:
    assert in_form(odd, form) == odd


def test_a_vector_that_has_its_form_stays_to_the_byte() -> None:
    assert in_form(b"[ 0.10, 1e-05 ]", "float") == b"[ 0.10, 1e-05 ]"
    assert in_form(b'"AACAPw\\u003d\\u003d"', "base64") == b'"AACAPw\\u003d\\u003d"'


@pytest.mark.parametrize(
    "odd",
    [
        b'""',
        b'"AACAP"',  # cut
        b'"AACA"',  # three bytes
        b'"AACAPwA="',  # five
        b'"AACAPw==="',
        b'"AACA Pw=="',
        b'"\xc3\xa4AACAPw=="',
        b'"\\ud800"',
        b'"a word"',
        b'"' + base64.b64encode(struct.pack("<2f", 0.5, math.nan)) + b'"',
        b'"' + base64.b64encode(struct.pack("<2f", 0.5, -math.inf)) + b'"',
    ],
)
def test_a_text_that_is_no_base64_of_numbers_stays(odd: bytes) -> None:
    assert in_form(odd, "float") == odd


@pytest.mark.parametrize(
    "odd",
    [
        b"[]",
        b"[1, -2, 3]",  # may be int8, which base64 holds in a byte each
        b"[0.5, null]",
        b"[0.5, true]",
        b'["0.5"]',
        b"[[0.5], [0.25]]",
        b"[0.5, 1e39]",
        b"[0.5, 1e999]",
        b"[0.5, 1" + b"0" * 400 + b"]",
    ],
)
def test_a_list_that_is_no_vector_of_float32_stays(odd: bytes) -> None:
    assert in_form(odd, "base64") == odd


def test_escaped_base64_is_read() -> None:
    assert in_form(b'"AACAPw\\u003d\\u003d"', "float") == b"[1.0]"


def test_whole_numbers_among_others_are_numbers() -> None:
    assert in_form(b"[1, 0.5, 0, 1E0]", "base64") == packed([1.0, 0.5, 0.0, 1.0])
